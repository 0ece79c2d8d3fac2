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
    "touchpoint.signature.when": ("always",),
    "touchpoint.signature.strip_client_signature": (False,),
    "touchpoint.auto_reply": (),
    "hours": (),
    "template": (),
    "spam.scanner": ("",),
    "spam.quarantine_over": (),
    "spam.on_dmarc_fail": ("tag",),
    "spam.keep_quarantine": (),
    "rule.if.return_path": (),
    "rule.if.body": (),
    "rule.if.attachment_name": (),
    "rule.if.attachment_type": (),
    "rule.if.has_attachment": (),
    "rule.if.spf": (),
    "rule.if.dkim": (),
    "rule.if.dmarc": (),
    "rule.if.spam_score_over": (),
    "rule.if.known_sender": (),
    "rule.if.hours": (),
    "rule.then.auto_reply": (True,),
}

# Conditions among them: a rule that asks one of these cannot know the answer.
CONDITIONS: Final = frozenset(key.removeprefix("rule.if.") for key in RULES if key.startswith("rule.if."))
