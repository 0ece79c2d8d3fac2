"""Multi-row INSERTs: many rows in one statement, so that a batch costs one step of SQLite and not one a row.

Between two statements the writer thread has to win the interpreter lock again; while another thread burns Python
that wait is most of the cost of a row (DESIGN §3).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

# Few sizes, so that the connection's cache of compiled statements holds all of them
_SIZES: Final = (128, 32, 8, 1)


def insert_many(db: sqlite3.Connection, head: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert `rows` by `head`, e.g. "INSERT OR IGNORE INTO chunk (id, bytes)"."""
    start, left = 0, len(rows)
    for size in _SIZES:
        while left >= size:
            taken = rows[start : start + size]
            db.execute(_statement(head, len(taken[0]), size), tuple(chain.from_iterable(taken)))
            start += size
            left -= size


@cache
def _statement(head: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{head} VALUES {', '.join([row] * rows)}"
