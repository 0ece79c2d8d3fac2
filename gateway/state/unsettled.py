"""What of a touchpoint's mail still waits for something: who takes the touchpoint away must know."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unsettled:
    """`arrived`: messages that no rule has seen yet. `conversations`: open or claimed ones. `recipients`: of mail that
    was accepted and has not left, or may have left."""

    arrived: int
    conversations: int
    recipients: int

    def __bool__(self) -> bool:
        return bool(self.arrived or self.conversations or self.recipients)


def count_unsettled(db: sqlite3.Connection, touchpoint: str) -> Unsettled:
    arrived, conversations, recipients = db.execute(
        "SELECT (SELECT count(*) FROM message WHERE state = 'arrived' AND touchpoint = :it),"
        " (SELECT count(*) FROM conversation WHERE state IN ('open', 'claimed') AND state != 'closed'"
        "  AND touchpoint = :it),"
        " (SELECT count(*) FROM recipient WHERE settled_at IS NULL AND touchpoint = :it)",
        {"it": touchpoint},
    ).fetchone()
    return Unsettled(arrived, conversations, recipients)
