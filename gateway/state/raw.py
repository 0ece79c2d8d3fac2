"""Bytes of messages as chunk rows of at most 256 KiB.

A large message is committed chunk by chunk, ahead of the row that makes it exist, so that no transaction (and no
waiting caller) ever carries 35 MB. Chunks whose owner never came are orphans: they are given back when the owner
fails, for a full disk must not be kept full by what it refused; the store sweeps the rest at start.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Final

from gateway.errors import Unavailable
from gateway.model import Staged
from gateway.state.rows import insert_many

if TYPE_CHECKING:
    from gateway.state.store import Store
    from gateway.state.ticket import Ticket

CHUNK_BYTES: Final = 256 * 1024
_AHEAD: Final = 2  # chunks of one message that may wait for the writer: it begins the next commit with one at hand
_SHIFT: Final = 16  # 65,536 chunks of 256 KiB: 16 GiB for one message

_ORPHANS: Final = (
    "SELECT owner FROM staged WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = owner)"
    " AND NOT EXISTS (SELECT 1 FROM outbox WHERE id = owner)"
)
_IS_ORPHAN: Final = f"{_ORPHANS} AND owner = ?"

Chunk = tuple[int, bytes]


def chunk_key(owner: int, number: int) -> int:
    return owner << _SHIFT | number


async def stage(store: Store, owner: int, raw: bytes) -> tuple[Chunk, ...]:
    """Commit all but the last chunk of `raw`; return the last one, to be inserted with the row that owns it.

    Durable on return: everything but what is returned. A message of one chunk costs nothing here. When the owner's
    row cannot be written after all, `abandon` what is returned; a failure or cancellation in here does that itself.
    """
    last = max(0, (len(raw) - 1) // CHUNK_BYTES)
    rest = ((chunk_key(owner, last), raw[last * CHUNK_BYTES :]),)
    waiting: deque[Ticket[None]] = deque()
    try:
        for number in range(last):
            part = raw[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            waiting.append(store.submit(_ahead, (chunk_key(owner, number), part)))
            if len(waiting) == _AHEAD:
                await waiting.popleft()
        for ticket in waiting:
            await ticket
    except BaseException:
        abandon(store, rest)
        raise
    return rest


def abandon(store: Store, staged: tuple[Chunk, ...]) -> None:
    """Give back what `stage` wrote ahead of these chunks, unless their owner exists. Does not wait.

    Never while the owner's row may still be written: units that wait together commit in any order.
    """
    ((key, _),) = staged
    if key != chunk_key(key >> _SHIFT, 0):
        with suppress(Unavailable):  # closed: the next start sweeps
            store.submit(_ahead, (key, None))


class Stage:
    """Takes a message in pieces and commits each chunk as it fills: never more than one is held in memory.

    `add` until the end, then `finish` and hand the result to the row that owns it. Whatever goes wrong before or
    after `finish`, `abandon`.
    """

    def __init__(self, store: Store, owner: int) -> None:
        self._store = store
        self._owner = owner
        self._number = 0  # of the chunk that is being filled
        self._filled = bytearray()

    async def add(self, data: bytes) -> None:
        """Take the next piece. Durable on return: every chunk that has another behind it."""
        view = memoryview(data)
        while view:
            if len(self._filled) == CHUNK_BYTES:
                whole = (chunk_key(self._owner, self._number), bytes(self._filled))
                self._filled.clear()
                self._number += 1  # first: when the wait is given up, the chunk may be there all the same
                await self._store.submit(_ahead, whole)
            taken = view[: CHUNK_BYTES - len(self._filled)]
            self._filled += taken
            view = view[len(taken) :]

    def finish(self) -> Staged:
        """Return the size of the message, and its last chunk, to be inserted with the row that owns it."""
        return Staged(self._number * CHUNK_BYTES + len(self._filled), (self._last,))

    def abandon(self) -> None:
        """Give back what was written ahead, unless its owner exists. Does not wait; see `abandon` below."""
        abandon(self._store, (self._last,))

    @property
    def _last(self) -> Chunk:
        return chunk_key(self._owner, self._number), bytes(self._filled)


def _ahead(db: sqlite3.Connection, items: Sequence[tuple[int, bytes | None]]) -> Sequence[None]:
    """Operation: write chunks ahead of their owner, or give back all of an owner's where None stands for the bytes.

    One operation for both, so that what is given back stays behind what still waited to be written.
    """
    for is_given_back, group in groupby(items, lambda item: item[1] is None):
        if is_given_back:
            _give_back(db, [key >> _SHIFT for key, _ in group])
        else:
            _insert_ahead(db, [(key, part) for key, part in group if part is not None])
    return [None] * len(items)


def _give_back(db: sqlite3.Connection, owners: Sequence[int]) -> None:
    for owner in owners:
        if db.execute(_IS_ORPHAN, (owner,)).fetchone():
            _delete(db, owner)
            db.execute("DELETE FROM staged WHERE owner = ?", (owner,))


def insert(db: sqlite3.Connection, chunks: Sequence[Chunk]) -> Sequence[None]:
    """Operation: one row a chunk."""
    insert_many(db, "INSERT INTO chunk (id, bytes)", chunks)
    return [None] * len(chunks)


def _insert_ahead(db: sqlite3.Connection, chunks: Sequence[Chunk]) -> None:
    owners = {(key >> _SHIFT,) for key, _ in chunks}
    db.executemany("INSERT OR IGNORE INTO staged (owner) VALUES (?)", owners)
    insert(db, chunks)


def rekey(db: sqlite3.Connection, staged: int, owner: int, chunks: Sequence[Chunk]) -> None:
    """For use inside an operation: what was staged for one owner, with its last `chunks`, becomes another's bytes."""
    _delete(db, owner)
    shift = (owner - staged) << _SHIFT
    db.execute(
        "UPDATE chunk SET id = id + ? WHERE id >= ? AND id < ?", (shift, chunk_key(staged, 0), chunk_key(staged + 1, 0))
    )
    db.execute("DELETE FROM staged WHERE owner = ?", (staged,))
    insert(db, [(key + shift, bytes) for key, bytes in chunks])


def load(db: sqlite3.Connection, owner: int) -> bytes | None:
    """Return the whole message, or None when its bytes were pruned or never came."""
    low, high = chunk_key(owner, 0), chunk_key(owner + 1, 0)
    rows = db.execute("SELECT bytes FROM chunk WHERE id >= ? AND id < ? ORDER BY id", (low, high))
    parts = [row[0] for row in rows]
    return b"".join(parts) if parts else None


def sweep_orphans(db: sqlite3.Connection) -> int:
    """Delete staged chunks whose message or outbox row never came; return how many owners. Run before any caller."""
    owners = db.execute(_ORPHANS).fetchall()
    for (owner,) in owners:
        _delete(db, owner)
    db.execute("DELETE FROM staged")
    return len(owners)


def _delete(db: sqlite3.Connection, owner: int) -> None:
    db.execute("DELETE FROM chunk WHERE id >= ? AND id < ?", (chunk_key(owner, 0), chunk_key(owner + 1, 0)))
