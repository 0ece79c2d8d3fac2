"""Reports that come back: which message of ours they are about, what they leave behind, and addresses that are no good.

Looking for the message is done by a reader, ahead of T2, for it may take a look at every message of two weeks; T2
writes what follows from it. What bounced for good is also held in memory, for every submission asks.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from gateway.model import Notify, OutboxKind, Wish, id_at, read_id
from gateway.rules.conversation import thread_key, thread_keys
from gateway.rules.dsn import Report
from gateway.rules.returned import Sent, SentTo
from gateway.state.conversations import as_json
from gateway.state.lifecycle import State
from gateway.state.rows import insert_many

# A message waits up to five days with us, and reports of others come within five days of that.
_LOOKED_BACK_MS: Final = 14 * 24 * 3_600_000
_CANDIDATES: Final = 20  # messages of one Message-ID that are looked at
_SENT: Final = frozenset({State.DELIVERED, State.UNCERTAIN, State.SENDING})


# --- which message it is about ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """`is_known`: the message is part of one of our conversations, also where we did not send it (`sent` is None)."""

    sent: Sent | None
    is_known: bool


def find(db: sqlite3.Connection, touchpoint: str, report: Report, now: int) -> Found:
    """Return what a report is about. `now`: ms.

    By our trace field, by the queue id in a Message-ID of ours, by the conversation of the Message-ID, and at last by
    a look at all that this touchpoint has sent in two weeks. Where a client has sent several messages under one
    Message-ID, the one to a recipient of the report is meant.
    """
    keys = thread_keys(touchpoint, report.message_ids)
    threads = _conversations(db, keys)
    first: Sent | None = None
    candidates = dict.fromkeys(_candidates(db, touchpoint, report, threads, now))
    for id in islice(candidates, _CANDIDATES):
        if (sent := _load(db, id)) is None:
            continue
        if any(sent.place_of(told) is not None for told in report.recipients):
            return Found(sent, True)
        first = first or sent
    return Found(first, first is not None or bool(threads))


def _candidates(
    db: sqlite3.Connection, touchpoint: str, report: Report, threads: Sequence[int], now: int
) -> Iterator[int]:
    for id, attempt in report.traces:
        query = (
            "SELECT 1 FROM outbox WHERE id = ? AND touchpoint = ?"
            " AND ? <= (SELECT max(attempt) FROM recipient WHERE outbox = outbox.id)"
        )
        if db.execute(query, (id, touchpoint, attempt)).fetchone():
            yield id
    wanted = {thread_key(touchpoint, one) for one in report.message_ids}
    for message_id in report.message_ids:
        id = read_id(message_id.strip("<>").partition("@")[0].partition(".")[0]) or 0  # a token's too
        row = db.execute("SELECT message_id FROM outbox WHERE id = ? AND touchpoint = ?", (id, touchpoint)).fetchone()
        if row and thread_key(touchpoint, row[0]) in wanted:
            yield id
    rows = db.execute(
        "SELECT id, message_id FROM outbox WHERE conversation IN (SELECT value FROM json_each(?))"
        " AND touchpoint = ? ORDER BY id DESC",
        (as_json(list(threads)), touchpoint),
    ).fetchall()
    yield from (id for id, message_id in rows if thread_key(touchpoint, message_id) in wanted)
    if report.message_ids or report.envelope_id:
        rows = db.execute(
            "SELECT id FROM outbox WHERE id > ? AND touchpoint = ? AND (envid IN (?, ?)"
            " OR message_id IN (SELECT value FROM json_each(?))) ORDER BY id DESC",
            (
                id_at(now - _LOOKED_BACK_MS),
                touchpoint,
                report.envelope_id or None,
                _xtext(report.envelope_id) or None,
                as_json(list(report.message_ids)),
            ),
        ).fetchall()
        yield from (id for (id,) in rows)


def _conversations(db: sqlite3.Connection, keys: Sequence[int]) -> list[int]:
    rows = db.execute(
        "SELECT DISTINCT conversation FROM thread WHERE key IN (SELECT value FROM json_each(?))", (as_json(list(keys)),)
    )
    return [conversation for (conversation,) in rows]


def _xtext(text: str) -> str:
    """Return `text` as a sender has given it (RFC 3461 §4)."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def _load(db: sqlite3.Connection, id: int) -> Sent | None:
    row = db.execute("SELECT id, kind, agent, conversation, message_id FROM outbox WHERE id = ?", (id,)).fetchone()
    if row is None:
        return None
    recipients = tuple(
        SentTo(number, address, State(state) in _SENT, Wish(None if notify is None else Notify(notify), orcpt or ""))
        for number, address, state, notify, orcpt in db.execute(
            "SELECT number, address, state, notify, orcpt FROM recipient WHERE outbox = ? ORDER BY number", (id,)
        )
    )
    return Sent(row[0], OutboxKind(row[1]), row[2], row[3], row[4], recipients)


# --- what it leaves behind -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Returned:
    """A report about a message of ours, for T2. `queue`: of the writer, who is to see it; None where not.

    `adopts`: when the message has no conversation, it gets the one that the report begins. `bounced`: (number,
    sentence) by recipient; `hard`: (address in lower case, sentence).
    """

    outbox: int
    queue: str | None
    adopts: bool
    bounced: tuple[tuple[int, str], ...] = ()
    hard: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Home:
    """Of an outbound message: its conversation as it is now, and its Message-ID."""

    conversation: int | None
    touchpoint: str
    message_id: str


def homes(db: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Home]:
    """Return the messages' conversations; for use inside T2."""
    if not ids:
        return {}
    rows = db.execute(
        "SELECT id, conversation, touchpoint, message_id FROM outbox WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(list(ids)),),
    )
    return {id: Home(*rest) for id, *rest in rows}


def adopt(db: sqlite3.Connection, adopted: Sequence[tuple[int, int]]) -> None:
    """Give messages (id) that had no conversation the one (id) that a report about them began."""
    db.executemany(
        "UPDATE outbox SET conversation = ? WHERE id = ? AND conversation IS NULL",
        [(conversation, id) for id, conversation in adopted],
    )


def record(db: sqlite3.Connection, touchpoint: str, message: int, at: int, returned: Returned) -> None:
    """Write which recipients bounced, by which report (`message`), and which addresses are no good. `at`: ms."""
    insert_many(
        db,
        "INSERT OR REPLACE INTO bounced (outbox, number, at, text, message)",
        [(returned.outbox, number, at, text, message) for number, text in returned.bounced],
    )
    insert_many(
        db,
        "INSERT OR REPLACE INTO hard_bounce (touchpoint, address, at, text, outbox)",
        [(touchpoint, address, at, text, returned.outbox) for address, text in returned.hard],
    )


def redeem(db: sqlite3.Connection, addresses: Sequence[tuple[str, str]]) -> None:
    """Forget that these (touchpoint, address in lower case) bounced: somebody has written to us from there."""
    db.executemany("DELETE FROM hard_bounce WHERE touchpoint = ? AND address = ?", addresses)


# --- in memory -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hard:
    """Why an address is no good. `at`: ms."""

    at: int
    text: str


def all_hard(db: sqlite3.Connection) -> dict[tuple[str, str], Hard]:
    rows = db.execute("SELECT touchpoint, address, at, text FROM hard_bounce")
    return {(touchpoint, address): Hard(at, text) for touchpoint, address, at, text in rows}


class HardBounces:
    """What `hard_bounce` holds, for whoever must not wait for the disk. Safe to use from every thread."""

    def __init__(self, known: Mapping[tuple[str, str], Hard] = MappingProxyType({})) -> None:
        self._lock = threading.Lock()
        self._known = dict(known)

    @property
    def is_empty(self) -> bool:
        return not self._known

    def of(self, touchpoint: str, address: str) -> Hard | None:
        with self._lock:
            return self._known.get((touchpoint, address.lower()))

    def learn(self, touchpoint: str, hard: Sequence[tuple[str, str]], at: int) -> None:
        """Take over what has been committed: (address in lower case, sentence)."""
        with self._lock:
            self._known.update({(touchpoint, address): Hard(at, text) for address, text in hard})

    def forget(self, touchpoint: str, address: str) -> None:
        with self._lock:
            self._known.pop((touchpoint, address.lower()), None)
