"""Fills a store by SQL with as many messages as a year brings, in seconds, with rows as they come about in real life.

Of every ten messages six came in (each with its conversation, entry, location and thread keys) and four went out,
one in four of these with two recipients. What went out on the last day has its digest. Ids lie in the order of time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from gateway.model import IdSource
from gateway.rules.conversation import thread_key
from gateway.state.store import Store

_YEAR_MS: Final = 365 * 24 * 3_600_000
_DAY_MS: Final = 24 * 3_600_000
_KNOWN: Final = 5_000  # conversations that can be replied to by Message-ID; the keys of others are random
_NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count) "


def inbound_id(number: int) -> str:
    """Return the Message-ID of one of the conversations that `fill` made, by any number."""
    return f"<{number % _KNOWN}.filled@clients.example>"


def fill(
    path: Path, messages: int, *, touchpoint: str, address: str, agent: str, deferred: bool = False, size: int = 4096
) -> None:
    """Make a store at `path`. `deferred`: instead of all that, every message waits for its provider to come back, one
    half due already and the other within the next hour.
    """
    Store.open(path).close()
    now = time.time_ns() // 1_000_000
    newest = IdSource(0, lambda: now).next()
    db = sqlite3.connect(path, isolation_level=None)
    values = {
        "count": messages,
        "t": touchpoint,
        "a": address,
        "agent": agent,
        "bytes": os.urandom(size),
        "size": size,
        "now": now,
        "newest": newest,
        "age": _YEAR_MS,
        "day": _DAY_MS,
    }
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"PRAGMA cache_size = -{256 * 1024}")
    db.execute("BEGIN")
    # An id is a time: message i of n is n - i steps younger than the newest, within a year; `at` is the same in ms
    db.execute(
        "CREATE TEMP TABLE one AS "
        + _NUMBERS
        + "SELECT i, :newest - (:count - i) * max(1, :age / :count) AS id, :now - (:count - i) * max(1, :age / :count)"
        " AS at FROM n",
        values,
    )
    db.execute("INSERT INTO chunk (id, bytes) SELECT id << 16, :bytes FROM one ORDER BY i", values)
    if deferred:
        _fill_waiting(db, values)
    else:
        _fill_history(db, values)
    db.execute("COMMIT")
    db.execute("ANALYZE main.mark")  # a write in the end, so that the file's header is that of a closed store
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


def _fill_waiting(db: sqlite3.Connection, values: dict[str, object]) -> None:
    db.execute(_OUTBOX + " FROM one ORDER BY i", values)
    db.execute(
        "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, next_attempt_at,"
        " reply, tried_at) SELECT id, 0, :t, 'customer' || i || '@clients.example', 'deferred', 3, 3, 60000,"
        " :now + (CASE i % 2 WHEN 0 THEN -1 ELSE 1 END) * (i * 37 % 3600000),"
        " '451 4.3.0 mailbox server is too busy', at FROM one ORDER BY i",
        values,
    )


def _fill_history(db: sqlite3.Connection, values: dict[str, object]) -> None:
    came, went = " FROM one WHERE i % 10 < 6 ORDER BY i", " FROM one WHERE i % 10 >= 6 ORDER BY i"
    for statement in (
        "INSERT INTO message (id, touchpoint, origin, state, tries, size, internal_at, arrived_at, routed_at,"
        " fingerprint, message_id, class, subject, sender, sender_name, conversation, trail)"
        " SELECT id, :t, 'queue', 'routed', 1, :size, at, at, at, random(), '<' || i || '.filled@clients.example>',"
        " 'human', 'my order ' || i, 'customer' || i || '@clients.example', 'A Customer', id, '[]'" + came,
        "INSERT INTO conversation (id, touchpoint, state, subject, sender, sender_name, priority, tags, first_at,"
        " last_at) SELECT id, :t, CASE WHEN i % 100 = 0 THEN 'open' ELSE 'closed' END, 'my order ' || i,"
        " 'customer' || i || '@clients.example', 'A Customer', 'normal', '[]', at, at" + came,
        "INSERT INTO entry (queue, conversation, entered_at) SELECT 'support', id, at" + came,
        "INSERT INTO location (touchpoint, folder, uidvalidity, uid, message) SELECT :t, 'INBOX', 1, i + 1, id" + came,
        "INSERT OR IGNORE INTO thread (key, conversation) SELECT random() AS key, id FROM one WHERE i % 10 < 6"
        " ORDER BY key",
        _OUTBOX + went,
        "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, reply,"
        " settled_at, tried_at) SELECT id, number, :t, 'customer' || i || '.' || number || '@clients.example',"
        " 'delivered', 1, 1, 0, '250 2.0.0 ok', at, at FROM one JOIN (SELECT 0 AS number UNION ALL SELECT 1)"
        " ON number = 0 OR i % 40 = 6 WHERE i % 10 >= 6 ORDER BY i, number",
        "INSERT INTO submitted (outbox, digest, at) SELECT id, randomblob(16), at FROM one WHERE i % 10 >= 6"
        " AND at > :now - :day ORDER BY i",
    ):
        db.execute(statement, values)
    conversations = [
        row[0] for row in db.execute("SELECT id FROM one WHERE i % 10 < 6 ORDER BY random() LIMIT ?", (_KNOWN,))
    ]
    keys = [
        (thread_key(str(values["t"]), inbound_id(number)), conversations[number % len(conversations)])
        for number in range(_KNOWN)
    ]
    db.executemany("INSERT OR REPLACE INTO thread (key, conversation) VALUES (?, ?)", sorted(keys))


_OUTBOX: Final = (
    "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
    " accepted_at) SELECT id, :t, :agent, 'reply', :a, 0, 0, '<' || id || '@gateway.example>', 'Re: your order',"
    " :size, at"
)
