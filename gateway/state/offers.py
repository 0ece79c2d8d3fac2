"""What each provider's EHLO said last: the door refuses early what the relay could not hand over."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """`size`: bytes of the largest message, None where the server did not say (RFC 1870)."""

    size: int | None
    eight_bit: bool
    smtputf8: bool
    dsn: bool


@dataclass(frozen=True, slots=True)
class Learnt:
    """A touchpoint's provider, at `server`, offers this. `now`: ms."""

    touchpoint: str
    server: str
    offer: Offer
    now: int


def learn(db: sqlite3.Connection, items: Sequence[Learnt]) -> Sequence[None]:
    """Operation: remember what providers offer; the last word about each counts."""
    db.executemany(
        "INSERT OR REPLACE INTO offer (touchpoint, server, size, eight_bit, smtputf8, dsn, seen_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                item.touchpoint,
                item.server,
                item.offer.size,
                item.offer.eight_bit,
                item.offer.smtputf8,
                item.offer.dsn,
                item.now,
            )
            for item in items
        ],
    )
    return [None] * len(items)


def all_offers(db: sqlite3.Connection) -> dict[str, tuple[str, Offer]]:
    """Return, for each touchpoint, the server that was there last and what it offered."""
    rows = db.execute("SELECT touchpoint, server, size, eight_bit, smtputf8, dsn FROM offer")
    return {
        touchpoint: (server, Offer(size, bool(eight_bit), bool(utf8), bool(dsn)))
        for touchpoint, server, size, eight_bit, utf8, dsn in rows
    }
