"""Multi-row statements: many rows in one, so that a batch costs one step of SQLite and not one a row.

Between two statements the writer thread has to win the interpreter lock again; while another thread burns Python
that wait is most of the cost of a row (DESIGN §3).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

# Few sizes, so that the connection's cache of compiled statements holds all of them
_SIZES: Final = (128, 32, 8, 1)
_UPDATES: Final = (64, 16, 4, 1)
_LISTS: Final = (1, 4, 16, 64, 256, 1024)


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


def in_parts(
    statement: Callable[[int], str], rows: Sequence[tuple[object, ...]]
) -> Iterator[tuple[tuple[object, ...], str]]:
    """Cut `rows` into parts of a few sizes; yield the values of each part with its statement."""
    start, left = 0, len(rows)
    for size in _UPDATES:
        while left >= size:
            yield tuple(chain.from_iterable(rows[start : start + size])), statement(size)
            start += size
            left -= size


def as_values(columns: int, rows: int) -> str:
    """Return a table of parameters called `new`, for UPDATE … FROM; its columns are column1, column2 …"""
    row = f"({', '.join('?' * columns)})"
    return f"(VALUES {', '.join([row] * rows)}) AS new"


def padded(values: Sequence[object]) -> tuple[str, tuple[object, ...]]:
    """Return the marks for `IN (…)` and the values, filled up with NULLs, which nothing equals, to one of a few
    sizes."""
    size = next((size for size in _LISTS if size >= len(values)), len(values))
    return ", ".join("?" * size), (*values, *[None] * (size - len(values)))
