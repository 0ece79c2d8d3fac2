"""What the files say together."""

from __future__ import annotations

from gateway.config.draft import Draft
from gateway.errors import Problem


def check(draft: Draft) -> list[Problem]:
    return []
