"""Outgoing mail that has been waiting for long: whom to tell, once a message.

A message is thought about once, when it has grown old enough: the mark `delayed` is the youngest one that has been,
and moves in the transaction that stores the notices. Ids are times, so "old enough" is a range of ids; which of these
wait is read from the index of what is open, without touching what has long been settled.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from gateway.model import Notify, id_at
from gateway.state import marks, queues
from gateway.state.outbox_view import Stopped, show_outbox
from gateway.state.raw import chunk_key
from gateway.state.store import each

MARK: Final = "delayed"
ALONE: Final = 3  # messages of one agent and touchpoint that have a notice each; more are told together
LISTED: Final = 20  # of those that are told together
_HEAD_BYTES: Final = 64 * 1024
# Of what is uncertain it cannot be said that it has not left, nor that it is still tried
_LATE: Final = "settled_at IS NULL AND state != 'uncertain'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient that has not got it. `reply`: the provider's last, "" where there was none; `cause`: why it is not
    even tried, "" where it is. `orcpt`: as the client gave it.
    """

    address: str
    reply: str
    cause: str
    orcpt: str


@dataclass(frozen=True, slots=True)
class Late:
    """A message that waits. `head`: its beginning, b"" where it is only listed. `accepted_at`: ms."""

    id: int
    subject: str
    message_id: str
    return_path: str
    accepted_at: int
    conversation: int | None
    envid: str
    recipients: tuple[Waiting, ...]
    head: bytes


@dataclass(frozen=True, slots=True)
class Overdue:
    """What waits of one agent and touchpoint. `count`: messages; `messages`: the first ones, all when there are few."""

    touchpoint: str
    agent: str
    count: int
    messages: tuple[Late, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What to tell, and `mark`: the id up to which it is then told."""

    mark: int
    overdue: tuple[Overdue, ...]


def look(db: sqlite3.Connection, before: int, stopped: Stopped = lambda touchpoint: None) -> Look | None:
    """Return what was accepted before a time (ms), still waits, and has not been told; None where there is nothing to
    be told and no mark to be moved. `stopped`: as for `list_outbox`.
    """
    told, mark = marks.get(db, MARK) or 0, id_at(before)
    if mark <= told:
        return None
    groups: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in db.execute(
        "SELECT * FROM (SELECT touchpoint, agent, count(*) OVER each AS number, id, subject, message_id, return_path,"
        " accepted_at, conversation, envid, row_number() OVER (each ORDER BY id) AS place FROM outbox"
        " WHERE id IN (SELECT outbox FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL"
        " AND outbox > ? AND outbox <= ?) AND kind = 'reply' AND return_path != ''"
        f" AND EXISTS (SELECT 1 FROM recipient WHERE recipient.outbox = outbox.id AND {_LATE}"
        " AND (notify IS NULL OR notify & ?)) WINDOW each AS (PARTITION BY touchpoint, agent)) WHERE place <= ?"
        " ORDER BY touchpoint, agent, place",
        (told, mark, int(Notify.DELAY), LISTED),
    ):
        groups.setdefault((row[0], row[1]), []).append(row)
    return Look(
        mark,
        tuple(
            Overdue(
                touchpoint,
                agent,
                rows[0][2],
                tuple(_late(db, row, stopped if rows[0][2] <= ALONE else None) for row in rows),
            )
            for (touchpoint, agent), rows in groups.items()
        ),
    )


def _late(db: sqlite3.Connection, row: tuple[Any, ...], stopped: Stopped | None) -> Late:
    """`stopped`: None where the message is only listed."""
    id, subject, message_id, return_path, accepted_at, conversation, envid = row[3:10]
    head = b""
    recipients = [
        Waiting(address, "", "", orcpt or "")
        for address, orcpt in db.execute(
            f"SELECT address, orcpt FROM recipient WHERE outbox = ? AND {_LATE}"
            " AND (notify IS NULL OR notify & ?) ORDER BY number LIMIT ?",
            (id, int(Notify.DELAY), 100),
        )
    ]
    if stopped is not None:
        query = "SELECT substr(bytes, 1, ?) FROM chunk WHERE id = ?"
        found = db.execute(query, (_HEAD_BYTES, chunk_key(id, 0))).fetchone()
        head = found[0] if found else b""
        cause, replies = _causes(db, id, stopped)
        recipients = [Waiting(one.address, replies.get(one.address, ""), cause, one.orcpt) for one in recipients]
    return Late(id, subject, message_id, return_path, accepted_at, conversation, envid or "", tuple(recipients), head)


def _causes(db: sqlite3.Connection, id: int, stopped: Stopped) -> tuple[str, dict[str, str]]:
    """Return why the message is not tried, and the last reply for each address."""
    shown = show_outbox(db, id, stopped)
    assert shown is not None
    is_held = any(one["state"] == "held" for one in shown["recipients"])
    return shown["cause"] or "" if is_held else "", {one["address"]: one["reply"] or "" for one in shown["recipients"]}


@dataclass(frozen=True, slots=True)
class Telling:
    """Notices about what waits, and the mark that goes with them."""

    notices: tuple[queues.Notice, ...]
    mark: int


@each
def tell(db: sqlite3.Connection, telling: Telling) -> None:
    """Operation: the notices, and that they have been written."""
    if telling.notices:
        queues.put_notice(db, telling.notices)
    marks.put(db, [(MARK, telling.mark)])
