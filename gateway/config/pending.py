"""Keys that are accepted and checked, but whose work is not built yet. Whoever builds it deletes the line.

A key stands as in the file, without positions in lists; inside `if` also without `all`, `any` and `not`. A table
stands for all its keys. `harmless`: values that ask for nothing beyond what is built.
"""

from __future__ import annotations

from typing import Any, Final

GATEWAY: Final[dict[str, tuple[Any, ...]]] = {
    "imap": (),
    "http": (),
    "queues.close_answered_after": (),
    "queues.new_members_see": (),
    "queues.second_reply": (),
    "queues.release_claims_after": (),
    "store.retention": (),
    "notifications": (),
    "oauth": (),
}

RULES: Final[dict[str, tuple[Any, ...]]] = {
    "touchpoint.auth": ("password",),
    "touchpoint.preview_roles": ([],),
    "template": (),
}
