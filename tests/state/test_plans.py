"""What happens to every message, at every look or once a minute, finds its rows by an index however many there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Envelope, Filing, FilingAction, Location, OutboxKind, Placeholder, Role, Submission, from_ms
from gateway.state import (
    answers,
    blocks,
    chores,
    copies,
    doubts,
    filings,
    folders,
    locations,
    mailboxes,
    outbox,
    owed,
    quarantine,
    queues,
    sent,
)
from gateway.state.blocks import NewBlock, Suspects
from gateway.state.doubts import Finding
from gateway.state.filings import Filed
from gateway.state.folders import Place
from gateway.state.lifecycle import Event, State
from gateway.state.locations import Accounting, Leaving, Relisting, Relocation
from gateway.state.outbox import Accepting, Ask, Begin, Done, Fated, Settle, Step, Want
from gateway.state.owed import Owed, Passage
from gateway.state.quarantine import Review
from gateway.state.sent import Candidate, Learning
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom, sightings

BIG = (
    "message",
    "location",
    "unfetched",
    "filing",
    "conversation",
    "thread",
    "entry",
    "chunk",
    "left_alone",
    "outbox",
    "recipient",
    "doubt",
    "copy",
    "recent",
    "answered",
)
INBOX, JUNK, SENT = Place(T, "INBOX", 7), Place(T, "Junk", 7), Place(T, "Sent", 7)
SEEN = (Filing(FilingAction.SEEN),)
SUBMISSION = Submission(7, T, "ana", Envelope("", ("b@c",)), "<7@us>", "x", from_ms(NOW), b"x", references=("<6@c>",))
FATED = (
    Fated(0, State.SENDING, Event.INTERRUPTED, "cut"),
    Fated(1, State.SENDING, Event.PUT_OFF, "450", NOW),
    Fated(2, State.SENDING, Event.ACCEPTED, "250"),
)
DONE = Done(1, T, 1, OutboxKind.REPLY, FATED, NOW, True, copies=True, answers=1)
WANT = Want(T, NOW, (60_000,), per_day=10)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        room.watch(wanted=(5,), left=((1, 4),), cursor=5)
        room.watch("Junk", Role.JUNK)
        room.watch("Sent", Role.SENT)
        for uid in (6, 7):
            room.route(room.arrive(INBOX, uid, uid, filings=SEEN), f"<{uid}@c>")
        room.route(room.arrive(JUNK, 1, 1, role=Role.JUNK), "<1@c>", verdict=JUNK_VERDICT)
        room.route(room.arrive(INBOX, 5, 5, placeholder=Placeholder.BLIND))
        fill_outbox(room)
        yield room


def fill_outbox(room: Postroom) -> None:
    """Message 1 waits for its three recipients; whether 2 has left is not known."""
    for id, recipients in ((2, ("b@c",)), (1, ("b@c", "c@c", "d@c"))):
        submission = replace(SUBMISSION, id=id, envelope=Envelope("", recipients), references=())
        room.store.submit(outbox.accept, Accepting(submission, ((id << 16, b"x"),))).result(5)
        if id == 2:
            claimed = room.store.submit(outbox.step, Step(None, replace(WANT, begin=True))).result(5)
            assert claimed is not None
            room.store.submit(outbox.step, Step(replace(DONE, id=2, fated=FATED[:1]))).result(5)


class Watched:
    """A connection that remembers what it was asked."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.asked: list[tuple[str, Any]] = []

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        self.asked.append((statement, values))
        return self.db.execute(statement, values)

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        rows = list(rows)
        self.asked += [(statement, row) for row in rows[:1]]
        return self.db.executemany(statement, rows)


ARRIVALS: list[tuple[str, Callable[[Postroom], tuple[Any, ...]]]] = [
    ("new", lambda room: (room.item(INBOX, 8, 8, object_id=4, filings=SEEN),)),
    ("known", lambda room: (room.item(INBOX, 6, 6),)),
    ("moved", lambda room: (room.item(INBOX, 8, 1),)),
    ("replaced", lambda room: (room.item(INBOX, 5, 5),)),
    ("several places", lambda room: (room.item(INBOX, 8, 8), room.item(JUNK, 8, 8, role=Role.JUNK))),
]

OPERATIONS: list[tuple[str, Any, Any]] = [
    ("relocate", locations.relocate, Relocation(INBOX, Role.QUEUE, sightings([(8, 1), (9, 5), (10, 99)]), (5,), NOW)),
    (
        "relist",
        locations.relist,
        Relisting(Place(T, "INBOX", 8), Role.QUEUE, sightings([(8, 6), (9, 99)]), True, 9, NOW),
    ),
    ("account", locations.account, Accounting(INBOX, 1, 9, (2, 5, 6), NOW)),
    ("leave", locations.leave, Leaving(SENT, (3, 5), 0, 5)),
    ("pass over", owed.pass_over, Passage(*INBOX, 7, 9, (Owed(9, 1, "NO", 1, NOW),), (5,), NOW)),
    ("begin", filings.begin, (T, ((1, FilingAction.SEEN),), NOW)),
    ("done", filings.done, Filed(1, FilingAction.SEEN)),
    ("copying", filings.copying, (T, ((1, FilingAction.SEEN),))),
    ("copied", filings.copied, (T, 1, FilingAction.SEEN, Location("INBOX", 7, 1))),
    ("note the modseq", folders.note_modseq, (INBOX, 5)),
    ("learn", sent.learn, Learning(T, (Candidate(1, "<x>", "<6@c>", ()),))),
    ("accept", outbox.accept, Accepting(SUBMISSION, ((7 << 16, b"x"),), bytes(16))),
    ("record and claim", outbox.step, Step(DONE, WANT)),
    ("begin data", outbox.begin_data, Begin(1, 1, ((0, State.QUEUED),))),
    ("retry", outbox.retry, Ask(NOW, 1)),
    ("hold", outbox.hold, Ask(NOW, 1)),
    ("hold a lane", outbox.hold, Ask(NOW, touchpoint=T)),
    ("release", outbox.release, Ask(NOW, 1)),
    ("cancel", outbox.cancel, Ask(NOW, 1)),
    ("cancel a lane", outbox.cancel, Ask(NOW, touchpoint=T)),
    ("settle", outbox.settle, Settle(2, True, None, NOW)),
    ("recover a lane", outbox.recover_lane, (T, NOW)),
    ("find", doubts.settle, Finding(2, 0, 1, True, NOW)),
    ("look in vain", doubts.put_off, (1, 0, True, NOW, NOW)),
    ("begin a copy", copies.begin, (T, [1], NOW)),
    ("make a copy", copies.done, 1),
    ("block", blocks.add, NewBlock("", "c@customer.example", NOW, suspects=Suspects((1, 6), 7))),
    ("block a domain", blocks.add, NewBlock(T, "*@customer.example", NOW, suspects=Suspects((1, 6), 7))),
    ("unblock", blocks.remove, (T, "c@customer.example")),
]

QUESTIONS: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("maybe known", locations.maybe_known, (T, Role.QUEUE, [(1, 5, 6), (2, -1, None)])),
    ("here", locations.here, (INBOX, [(6, 5)])),
    ("recent", locations.recent_low, (INBOX, 1000)),
    ("differs", locations.differs, (INBOX, 1, 9, (2, 5, 6))),
    ("known uids", folders.known_uids, (*INBOX, [6])),
    ("owed", owed.owed_now, (INBOX, NOW, 5, 10)),
    ("placeholders", owed.placeholders_due, (INBOX, NOW, 10)),
    ("count owed", owed.count_owed, (T,)),
    ("count owed in some", owed.count_owed, (T, ["INBOX", "Junk"])),
    ("filings", filings.due, (T, NOW, 10)),
    ("located in", filings.located_in, (T, "INBOX", [1])),
    ("quarantine", quarantine.list_quarantine, ()),
    ("examine", sent.examine, (T, [Candidate(1, "<x>", "<y>", ("<6@c>",))])),
    ("folders where something is due", chores.due_folders, (T, NOW, 5, ["INBOX", "Junk"])),
    ("owed in a folder", chores.count_owed_in, (INBOX,)),
    ("outlook", outbox.outlook, (T, NOW, 10)),
    ("doubts", doubts.due, (T, NOW)),
    ("next doubt", doubts.next_due, (T,)),
    ("copies", copies.due, (T, NOW, 10)),
    ("next copy", copies.next_due, (T,)),
    ("one in the outbox", outbox.show_outbox, (1,)),
]


def walks(room: Postroom, function: Callable[[Any], object]) -> list[str]:
    """Return the steps that read a whole table or a whole index."""
    found: list[str] = []

    def operation(db: sqlite3.Connection, items: object) -> list[None]:
        watched = Watched(db)
        function(watched)
        assert watched.asked
        for statement, values in watched.asked:
            for *_, step in db.execute(f"EXPLAIN QUERY PLAN {statement}", values):
                table = re.match(r"SCAN (\w+)", step)
                scans = table and table[1] in BIG and "message_quarantined" not in step
                # The whole of a folder is as much as a table
                whole = "SEARCH location" in step and not re.search("uid[=<>]|message=|uidvalidity[<>]", step)
                if scans or (whole and "LIMIT" not in statement):
                    found.append(f"{step}: {statement}")
        return [None]

    room.store.submit(operation, None).result(5)
    return found


@pytest.mark.parametrize("items", [items for _, items in ARRIVALS], ids=[name for name, _ in ARRIVALS])
def test_no_arrival_walks_through_the_ledger(room: Postroom, items: Callable[[Postroom], tuple[Any, ...]]) -> None:
    given = items(room)
    assert walks(room, lambda db: mailboxes.arrive(db, given)) == []


@pytest.mark.parametrize(("operation", "item"), [one[1:] for one in OPERATIONS], ids=[one[0] for one in OPERATIONS])
def test_no_operation_walks_through_the_ledger(room: Postroom, operation: Any, item: Any) -> None:
    assert walks(room, lambda db: operation(db, [item])) == []


@pytest.mark.parametrize(("question", "args"), [one[1:] for one in QUESTIONS], ids=[one[0] for one in QUESTIONS])
def test_no_question_walks_through_the_ledger(room: Postroom, question: Any, args: tuple[Any, ...]) -> None:
    assert walks(room, lambda db: question(db, *args)) == []


def test_a_walk_would_be_seen(room: Postroom) -> None:
    for walk in ("SELECT * FROM message WHERE subject = 'x'", "SELECT * FROM location WHERE touchpoint = 'x'"):
        assert walks(room, lambda db, walk=walk: db.execute(walk)) != []  # type: ignore[misc]


def test_to_carry_what_is_blocked_to_junk_walks_through_nothing(room: Postroom) -> None:
    ids = [(message, T) for (message,) in room.rows("SELECT id FROM message")]
    assert walks(room, lambda db: blocks.to_junk(db, ids, NOW)) == []
    assert walks(room, lambda db: blocks.note_hits(db, [(T, "c@customer.example", NOW)])) == []


@pytest.mark.parametrize("operation", [quarantine.release, quarantine.confirm])
def test_no_review_walks_through_the_ledger(room: Postroom, operation: Any) -> None:
    ((message,),) = room.rows("SELECT id FROM message WHERE quarantine != 0")
    assert walks(room, lambda db: operation(db, [Review(message, NOW)])) == []


def test_an_automatic_answer_walks_through_nothing(room: Postroom) -> None:
    item = room.routed_with_answer(room.arrive(INBOX, 8, 8))
    assert walks(room, lambda db: queues.route(db, [item])) == []
    assert room.rows("SELECT kind FROM outbox WHERE answers IS NOT NULL") == [("auto-reply",)]
    assert walks(room, lambda db: answers.was_answered(db, T, ("c@customer.example", "d@c"), NOW)) == []


def test_the_record_of_a_sent_message_walks_through_nothing(room: Postroom) -> None:
    given = room.item(SENT, 1, 77, role=Role.SENT)
    candidate = Candidate(1, "<w@us>", "", ("<6@c>",))
    item = sent.SentArrival(given.arrival, given.chunks, candidate, "Re", NOW)
    assert walks(room, lambda db: sent.record(db, [item])) == []
