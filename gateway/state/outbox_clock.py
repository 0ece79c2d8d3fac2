"""What is due when the clock has been set back: times that were written before it was lie too far in the future.

A machine that starts with a wrong clock, or wakes with one, is put right within minutes; mail that was accepted or
tried in between must not wait until the right clock comes to the wrong time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from gateway.state.lifecycle import WAITING

_WAITING: Final = ", ".join(f"'{state.value}'" for state in sorted(WAITING))
_SLACK_MS: Final = 60_000  # clocks are corrected by seconds all the time
# Beyond the longest step between two tries few times lie that are right: those that a provider named
_FAR_MS: Final = 70 * 60_000
# What was written at a time that is still to come
_AHEAD: Final = (
    "settled_at IS NULL AND touchpoint = ? AND next_attempt_at > ?"
    f" AND state IN ({_WAITING}) AND coalesce(tried_at, next_attempt_at) > ?"
)


def has_been_set_back(db: sqlite3.Connection, touchpoint: str, now: int) -> bool:
    """Return whether some of a touchpoint's mail waits for a time that no schedule can have meant. Reads few rows."""
    query = f"SELECT 1 FROM recipient INDEXED BY recipient_open WHERE {_AHEAD} LIMIT 1"
    return db.execute(query, (touchpoint, now + _FAR_MS, now + _SLACK_MS)).fetchone() is not None


def set_back(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> Sequence[int]:
    """Operation (item: touchpoint and now in ms): what was tried, or accepted, at a time that is still to come waits
    as long as it was to wait then, from now on. Return of how many recipients."""
    return [
        db.execute(
            "UPDATE recipient SET next_attempt_at = max(?, next_attempt_at - coalesce(tried_at, next_attempt_at) + ?),"
            f" tried_at = min(tried_at, ?) WHERE {_AHEAD}",
            (now, now, now, touchpoint, now, now + _SLACK_MS),
        ).rowcount
        for touchpoint, now in items
    ]
