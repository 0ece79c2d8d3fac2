"""What the files say together."""

from __future__ import annotations

from gateway.config.draft import Draft
from gateway.errors import Problem


def find_problems(draft: Draft) -> list[Problem]:
    return []
