"""Whom a touchpoint knows: who has written to it as a person, and whom agents have written to from it.

What `known_sender` asks. The address of From counts, which anybody can write; together with `dmarc` it is worth more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from gateway.state.rows import insert_many

_CORRESPONDENT: Final = "INSERT OR IGNORE INTO correspondent (touchpoint, address, first_at)"


def is_known(db: sqlite3.Connection, touchpoint: str, address: str) -> bool:
    """Has this address written as a person before, or been written to? Capitals do not matter."""
    found = db.execute(
        "SELECT 1 FROM correspondent WHERE touchpoint = ? AND address = ?", (touchpoint, address.lower())
    )
    return found.fetchone() is not None


def note(db: sqlite3.Connection, met: Sequence[tuple[str, str, int]]) -> None:
    """For use inside other operations: (touchpoint, address, ms) are known from now on."""
    if met:
        rows = dict.fromkeys((touchpoint, address.lower()) for touchpoint, address, _ in met if address)
        first = {(touchpoint, address.lower()): at for touchpoint, address, at in reversed(met)}
        insert_many(db, _CORRESPONDENT, [(*key, first[key]) for key in rows])
