"""Copies that are still to be put into the provider's Sent folder, where the provider does not do it by itself.

The row is written in the transaction that records the acceptance; what is done with it is a step of its own, which
can be tried again: whoever takes it up looks first whether the copy is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.state.store import each


@dataclass(frozen=True, slots=True)
class Copy:
    """`attempt`: the try that the provider accepted, `accepted_at` (ms): when. `size`: bytes of the stored message,
    which has no trace field yet. `tries`: of putting it there. `smtputf8`: its header may hold UTF-8.
    """

    outbox: int
    attempt: int
    accepted_at: int
    message_id: str
    size: int
    tries: int
    smtputf8: bool


def due(db: sqlite3.Connection, touchpoint: str, now: int, limit: int) -> list[Copy]:
    """Return copies that are due, the longest due first."""
    rows = db.execute(
        "SELECT outbox, attempt, copy.accepted_at, message_id, size, tries, smtputf8 FROM copy INDEXED BY copy_due"
        " JOIN outbox ON outbox.id = copy.outbox WHERE copy.touchpoint = ? AND next_at <= ? ORDER BY next_at LIMIT ?",
        (touchpoint, now, limit),
    )
    return [
        Copy(id, attempt, at, message_id, size, tries, bool(smtputf8))
        for id, attempt, at, message_id, size, tries, smtputf8 in rows
    ]


def next_due(db: sqlite3.Connection, touchpoint: str) -> int | None:
    """Return when the next copy is due (ms), None where there is none to make."""
    (at,) = db.execute("SELECT min(next_at) FROM copy WHERE touchpoint = ?", (touchpoint,)).fetchone()
    return None if at is None else int(at)


@each
def begin(db: sqlite3.Connection, trying: tuple[str, Sequence[int], int]) -> None:
    """Operation: count a try of each copy before it is made, and say when the next would be.

    Item: touchpoint, messages, next due time in milliseconds.
    """
    touchpoint, ids, next_at = trying
    db.executemany(
        "UPDATE copy SET tries = tries + 1, next_at = ? WHERE outbox = ? AND touchpoint = ?",
        [(next_at, id, touchpoint) for id in ids],
    )


def done(db: sqlite3.Connection, ids: Sequence[int]) -> Sequence[None]:
    """Operation: the copy of this message is in Sent, or will never be."""
    db.executemany("DELETE FROM copy WHERE outbox = ?", [(id,) for id in ids])
    return [None] * len(ids)


def owe(db: sqlite3.Connection, accepted: Sequence[tuple[int, int, int]]) -> None:
    """For use inside another operation: a copy is to be made of each message (id, attempt, accepted at in ms), unless
    an earlier attempt has brought it to another recipient: then one was.
    """
    db.executemany(
        "INSERT OR IGNORE INTO copy (outbox, touchpoint, attempt, accepted_at, tries, next_at)"
        " SELECT id, touchpoint, ?, ?, 0, ? FROM outbox WHERE id = ? AND NOT EXISTS (SELECT 1 FROM recipient"
        " WHERE recipient.outbox = outbox.id AND state = 'delivered' AND attempt != ?)",
        [(attempt, at, at, id, attempt) for id, attempt, at in accepted],
    )
