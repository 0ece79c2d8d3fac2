"""Many rows in few statements: every row, in order, whatever their number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from gateway.state.rows import insert_many


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT, bytes BLOB)")
        yield connection


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 31, 32, 33, 41, 127, 128, 129, 169, 300])
def test_every_row_is_written_once(db: sqlite3.Connection, count: int) -> None:
    rows = [(number, f"name {number}", bytes([number % 256])) for number in range(1, count + 1)]
    insert_many(db, "INSERT INTO thing (id, name, bytes)", rows)
    assert db.execute("SELECT * FROM thing ORDER BY id").fetchall() == rows


def test_rows_take_few_statements(db: sqlite3.Connection) -> None:
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    insert_many(db, "INSERT INTO thing (id, name, bytes)", [(number, None, b"") for number in range(1, 170)])
    assert len([one for one in statements if one.startswith("INSERT")]) == 4  # 128 + 32 + 8 + 1


def test_the_head_decides_what_a_row_that_is_there_means(db: sqlite3.Connection) -> None:
    insert_many(db, "INSERT INTO thing (id, name, bytes)", [(1, "first", None)])
    insert_many(db, "INSERT OR IGNORE INTO thing (id, name, bytes)", [(1, "second", None), (2, "new", None)])
    assert db.execute("SELECT id, name FROM thing ORDER BY id").fetchall() == [(1, "first"), (2, "new")]
    with pytest.raises(sqlite3.IntegrityError):
        insert_many(db, "INSERT INTO thing (id, name, bytes)", [(3, "x", None), (1, "third", None)])
