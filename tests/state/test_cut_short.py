"""Each change of the ledger is whole or absent: cut short behind any of its statements it has changed nothing, and done
again it does what it would have done at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Envelope, Filing, FilingAction, Location, OutboxKind, Placeholder, Role, Submission
from gateway.state import filings, folders, locations, mailboxes, outbox, owed, quarantine, queues, raw, sent
from gateway.state.filings import Filed
from gateway.state.folders import Place
from gateway.state.lifecycle import Event, State
from gateway.state.locations import Accounting, Leaving, Relisting, Relocation
from gateway.state.outbox import Done, Fated, Step, Want
from gateway.state.owed import Owed, Passage
from gateway.state.quarantine import Review
from gateway.state.sent import Candidate, Learning, SentArrival
from tests.support.postroom import AT, JUNK_VERDICT, NOW, Postroom, T, open_postroom, sightings

INBOX, ELSEWHERE, JUNK, SENT = (Place(T, name, 7) for name in ("INBOX", "Elsewhere", "Junk", "Sent"))
ARCHIVE = (Filing(FilingAction.MOVE, "Archive"),)


class Cut(Exception):
    """The process ends."""


class Cutting:
    """A connection that gives up behind so many statements."""

    def __init__(self, db: sqlite3.Connection, statements: int) -> None:
        self.db = db
        self.left = statements

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._count()
        return self.db.execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._count()
        return self.db.executemany(*args)

    def _count(self) -> None:
        if self.left == 0:
            raise Cut
        self.left -= 1


def prepare(room: Postroom) -> dict[str, int]:
    """Something of everything; return the ids of the messages by what they are."""
    room.watch(cursor=5, wanted=(3, 4, 5), left=((1, 2),))
    for name, role in (("Elsewhere", Role.QUEUE), ("Junk", Role.JUNK), ("Sent", Role.SENT)):
        room.watch(name, role)
    ids = {
        "plain": room.arrive(INBOX, 6, 16, filings=ARCHIVE),
        "junk": room.arrive(JUNK, 1, 21, role=Role.JUNK),
        "headed": room.arrive(INBOX, 4, 14, placeholder=Placeholder.HEADED),
        "blind": room.arrive(INBOX, 5, 15, placeholder=Placeholder.BLIND),
        "spam": room.arrive(INBOX, 7, 17),
        "fresh": room.arrive(ELSEWHERE, 8, 25),
    }
    for name in ("plain", "headed", "blind"):
        room.route(ids[name], f"<{name}@c>")
    room.route(ids["junk"], "<junk@c>", verdict=JUNK_VERDICT)
    room.route(ids["spam"], "<spam@c>", verdict=replace(JUNK_VERDICT, junk_alone=False))
    room.route(room.arrive(INBOX, 8, 18), "<late@c>", "<plain@c>")
    room.store.submit(queues.tie_outbound, queues.Tie(T, "<r@us>", ("<plain@c>",), NOW)).result(5)
    ids["reply"] = room.store.ids.next()
    envelope = Envelope("support@example.com", ("c@customer.example",))
    made = Submission(ids["reply"], T, "ana", envelope, "<s@us>", "Re", AT, b"reply", references=("<plain@c>",))
    room.store.submit(outbox.accept, outbox.Accepting(made, ((raw.chunk_key(made.id, 0), b"reply"),))).result(5)
    room.store.submit(outbox.step, Step(None, Want(T, NOW, (60_000,), begin=True))).result(5)
    return ids


Case = tuple[Any, Any]
CASES: dict[str, Callable[[Postroom, dict[str, int]], Case]] = {
    "a new arrival": lambda room, ids: (mailboxes.arrive, room.item(INBOX, 9, 19, filings=ARCHIVE)),
    "an arrival that is known": lambda room, ids: (mailboxes.arrive, room.item(INBOX, 6, 16, follows=5)),
    "an arrival that has moved": lambda room, ids: (mailboxes.arrive, room.item(ELSEWHERE, 1, 16)),
    "an arrival out of junk": lambda room, ids: (mailboxes.arrive, room.item(INBOX, 9, 21)),
    "a message for its header": lambda room, ids: (mailboxes.arrive, room.item(INBOX, 4, 14, filings=ARCHIVE)),
    "a message for nothing": lambda room, ids: (mailboxes.arrive, room.item(INBOX, 5, 99)),
    "relocate": lambda room, ids: (
        locations.relocate,
        Relocation(INBOX, Role.QUEUE, sightings([(9, 16), (10, 21), (11, 14), (12, 77)]), (6, 4), NOW),
    ),
    "relist": lambda room, ids: (
        locations.relist,
        Relisting(Place(T, "INBOX", 8), Role.QUEUE, sightings([(1, 16), (2, 21), (3, 14), (4, 77)]), True, 4, NOW),
    ),
    "account": lambda room, ids: (locations.account, Accounting(INBOX, 1, 8, (1, 5, 8), NOW)),
    "leave": lambda room, ids: (locations.leave, Leaving(SENT, (1, 2, 4), 0, 4)),
    "pass over": lambda room, ids: (
        owed.pass_over,
        Passage(*INBOX, 8, 10, (Owed(9, 5, "NO", 1, NOW), Owed(10, 5, "NO", 1, None)), (3,), NOW),
    ),
    "open": lambda room, ids: (
        folders.open_folder,
        folders.Opening(folders.Folder(T, "More", 1, 9, 3, NOW, NOW), (4, 5), ((1, 3), (6, 9))),
    ),
    "release": lambda room, ids: (quarantine.release, Review(ids["junk"], NOW)),
    "confirm": lambda room, ids: (quarantine.confirm, Review(ids["spam"], NOW)),
    "filed": lambda room, ids: (
        filings.done,
        Filed(ids["plain"], FilingAction.MOVE, Location("INBOX", 7, 6), Location("Archive", 1, 1)),
    ),
    "learn": lambda room, ids: (sent.learn, Learning(T, (Candidate(1, "<new@p>", "<r@us>", ()),))),
    "a message and its automatic answer": lambda room, ids: (queues.route, room.routed_with_answer(ids["fresh"])),
    "a sent message": lambda room, ids: (
        sent.record,
        SentArrival(
            (item := room.item(SENT, 1, 55, role=Role.SENT)).arrival,
            item.chunks,
            Candidate(1, "<w@us>", "", ("<plain@c>",)),
            "Re",
            NOW,
        ),
    ),
    "a delivered reply": lambda room, ids: (
        outbox.step,
        Step(
            Done(
                ids["reply"],
                T,
                1,
                OutboxKind.REPLY,
                (Fated(0, State.SENDING, Event.ACCEPTED, "250 ok"),),
                NOW,
                counted=True,
                answers=ids["plain"],
            )
        ),
    ),
}


def contents(room: Postroom) -> dict[str, list[Any]]:
    tables = [name for (name,) in room.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: sorted(room.rows(f"SELECT * FROM {name}"), key=repr) for name in tables}


@pytest.mark.parametrize("name", CASES)
def test_cut_short_anywhere_it_has_changed_nothing_and_is_done_at_the_next_try(tmp_path: Path, name: str) -> None:
    with open_postroom(tmp_path) as room:
        operation, item = CASES[name](room, prepare(room))
        before = contents(room)
        cuts = 0
        while True:

            def cut(db: sqlite3.Connection, items: Any, after: int = cuts) -> Any:
                return operation(Cutting(db, after), items)

            try:
                room.store.submit(cut, item).result(5)
            except Cut:
                assert contents(room) == before, f"cut behind {cuts} statements"
                cuts += 1
            else:
                break
        assert cuts > 0
        after = contents(room)
        assert after != before or name == "an arrival that is known"
        room.store.submit(operation, item).result(5)  # it was done, and nobody heard of it
        again = contents(room)
        for table in ("message", "conversation", "entry", "location", "unfetched", "left_alone", "chunk", "thread"):
            assert again[table] == after[table], f"{table} has changed when it was done again"
