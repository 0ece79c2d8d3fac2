"""Numbers that belong to the whole store: `epoch`, `restored_at`, `backed_up_at`, `delayed` (see the schema)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence


def get(db: sqlite3.Connection, name: str) -> int | None:
    row = db.execute("SELECT value FROM mark WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def put(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> Sequence[None]:
    """Operation, and for use inside another one: set each mark (name, value); the last one counts."""
    db.executemany("INSERT OR REPLACE INTO mark (name, value) VALUES (?, ?)", items)
    return [None] * len(items)
