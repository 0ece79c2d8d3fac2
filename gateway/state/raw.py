"""Bytes of messages as chunk rows of at most 256 KiB.

A large message is committed chunk by chunk, ahead of the row that makes it exist, so that no transaction (and no
waiting caller) ever carries 35 MB. Chunks whose owner never came are orphans; the store sweeps them at start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.state.rows import insert_many

if TYPE_CHECKING:
    from gateway.state.store import Store

CHUNK_BYTES: Final = 256 * 1024
_SHIFT: Final = 16  # 65,536 chunks of 256 KiB: 16 GiB for one message

Chunk = tuple[int, bytes]


def chunk_key(owner: int, number: int) -> int:
    return owner << _SHIFT | number


async def stage(store: Store, owner: int, raw: bytes) -> tuple[Chunk, ...]:
    """Commit all but the last chunk of `raw`; return the last one, to be inserted with the row that owns it.

    Durable on return: everything but what is returned. A message of one chunk costs nothing here.
    """
    last = max(0, (len(raw) - 1) // CHUNK_BYTES)
    for number in range(last):
        part = raw[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        await store.submit(_insert_ahead, (chunk_key(owner, number), part))
    return ((chunk_key(owner, last), raw[last * CHUNK_BYTES :]),)


def insert(db: sqlite3.Connection, chunks: Sequence[Chunk]) -> Sequence[None]:
    """Operation: one row a chunk."""
    insert_many(db, "INSERT INTO chunk (id, bytes)", chunks)
    return [None] * len(chunks)


def _insert_ahead(db: sqlite3.Connection, chunks: Sequence[Chunk]) -> Sequence[None]:
    owners = {(key >> _SHIFT,) for key, _ in chunks}
    db.executemany("INSERT OR IGNORE INTO staged (owner) VALUES (?)", owners)
    return insert(db, chunks)


def load(db: sqlite3.Connection, owner: int) -> bytes | None:
    """Return the whole message, or None when its bytes were pruned or never came."""
    low, high = chunk_key(owner, 0), chunk_key(owner + 1, 0)
    rows = db.execute("SELECT bytes FROM chunk WHERE id >= ? AND id < ? ORDER BY id", (low, high))
    parts = [row[0] for row in rows]
    return b"".join(parts) if parts else None


def sweep_orphans(db: sqlite3.Connection) -> int:
    """Delete staged chunks whose message or outbox row never came; return how many owners. Run before any caller."""
    owners = db.execute(
        "SELECT owner FROM staged WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = owner)"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE id = owner)"
    ).fetchall()
    for (owner,) in owners:
        db.execute("DELETE FROM chunk WHERE id >= ? AND id < ?", (chunk_key(owner, 0), chunk_key(owner + 1, 0)))
    db.execute("DELETE FROM staged")
    return len(owners)
