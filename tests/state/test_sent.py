"""What agents send from the provider's webmail: taken where it answers a conversation of ours, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Arrival, Envelope, Location, Role, Submission, show_id
from gateway.rules.conversation import thread_key
from gateway.state import conversations, outbox, raw, sent
from gateway.state.folders import Place
from gateway.state.sent import Candidate, Learning, Recorded, SentArrival
from tests.support.postroom import AT, JUNK_VERDICT, NOW, Postroom, T, open_postroom

SPAM = replace(JUNK_VERDICT, junk_alone=False)
LATER = AT + timedelta(minutes=30)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def folder(room: Postroom) -> Place:
    room.watch()
    return room.watch("Sent", Role.SENT, uidvalidity=3, cursor=10, wanted=(9,))


@pytest.fixture
def question(room: Postroom, folder: Place) -> int:
    """A conversation with one message of ten o'clock."""
    return room.route(room.arrive(Place(T, "INBOX", 7), 1, 11), "<a@c>").conversation


def send(room: Postroom, name: str, *references: str) -> None:
    """A reply that goes through us."""
    id = room.store.ids.next()
    envelope = Envelope("support@example.com", ("c@customer.example",))
    made = Submission(id, T, "ana", envelope, name, "Re", AT, b"reply", references=references)
    room.store.submit(outbox.accept, outbox.Accepting(made, ((raw.chunk_key(id, 0), b"reply"),))).result(5)


def examine(room: Postroom, *candidates: Candidate) -> dict[int, int]:
    return room.store.read(sent.examine, T, candidates).result(5)


def arrival(
    room: Postroom,
    folder: Place,
    uid: int = 11,
    key: int = 21,
    at: datetime = LATER,
    *references: str,
    name: str = "<w@us>",
) -> SentArrival:
    id = room.store.ids.next()
    location = Location(folder.folder, folder.uidvalidity, uid)
    taken = Arrival(id, T, location, at, at, b"reply", uid - 1, key, role=Role.SENT)
    candidate = Candidate(uid, name, "", references or ("<a@c>",))
    return SentArrival(taken, ((raw.chunk_key(id, 0), b"reply"),), candidate, "Re: Help", NOW, "support@example.com")


def record(room: Postroom, item: SentArrival) -> Recorded:
    return room.store.submit(sent.record, item).result(5)


# --- which -----------------------------------------------------------------------------------------------------------


def test_what_carries_a_trace_of_ours_went_out_through_us_whatever_it_is_called_now(
    room: Postroom, question: int
) -> None:
    """The provider has given it another Message-ID, or it became part of the conversation only afterwards."""
    send(room, "<ours@us>")
    ((ours,),) = room.store.read(lambda db: list(db.execute("SELECT id FROM outbox"))).result(5)
    traced = Candidate(1, "<new@provider>", "", ("<a@c>",), queue_ids=(7, ours))
    strange = Candidate(2, "<another@provider>", "", ("<a@c>",), queue_ids=(7, ours + 1000))
    assert examine(room, traced, strange) == {2: question}


def test_only_what_answers_a_conversation_of_ours_is_ours(room: Postroom, question: int) -> None:
    assert examine(
        room,
        Candidate(1, "<w@us>", "", ("<a@c>",)),
        Candidate(2, "<x@us>", "", ("<other@c>", "<a@c>")),
        Candidate(3, "<y@us>", "", ("<other@c>",)),
        Candidate(4, "<z@us>", "", ()),
        Candidate(5, "", "", ()),
    ) == {1: question, 2: question}


def test_what_went_through_us_is_ours_already(room: Postroom, question: int) -> None:
    send(room, "<R@us>", "<a@c>")
    assert examine(
        room,
        Candidate(1, "<r@us>", "", ("<a@c>",)),
        Candidate(2, "<rewritten@provider>", "<r@us>", ("<a@c>",)),
        Candidate(3, "<w@us>", "", ("<r@us>",)),
    ) == {3: question}


def test_a_provider_that_rewrites_ids_teaches_us_the_new_one(room: Postroom, question: int) -> None:
    send(room, "<r@us>", "<a@c>")
    candidates = (
        Candidate(1, "<rewritten@provider>", "<r@us>", ("<a@c>",)),
        Candidate(2, "<w@us>", "", ("<a@c>",)),
        Candidate(3, "<else@provider>", "<unknown@us>", ()),
    )
    learning = Learning(T, candidates)
    assert room.store.submit(sent.learn, learning).result(5) == 1
    assert room.store.submit(sent.learn, learning).result(5) == 0
    answer = room.arrive(Place(T, "INBOX", 7), 2)
    assert room.route(answer, "<b@c>", "<rewritten@provider>").conversation == question


def test_only_what_it_refers_to_ties_it(room: Postroom, question: int) -> None:
    room.route(room.arrive(Place(T, "INBOX", 7), 2), "<b@c>", "<w@us>", "<a@c>")
    assert examine(room, Candidate(1, "<w@us>", "", ())) == {}
    assert examine(room, Candidate(1, "<w@us>", "", ("<a@c>",))) == {1: question}


@pytest.mark.parametrize("ids", [("<B@c>", ""), ("<rewritten@provider>", "<b@c>")])
def test_mail_to_ourselves_has_come_already(room: Postroom, question: int, ids: tuple[str, str]) -> None:
    room.route(room.arrive(Place(T, "INBOX", 7), 2), "<b@c>", "<a@c>")
    assert examine(room, Candidate(1, *ids, ("<a@c>",))) == {}


# --- taken -----------------------------------------------------------------------------------------------------------


def test_a_reply_from_elsewhere_stands_in_its_conversation_and_answers_it(
    room: Postroom, folder: Place, question: int
) -> None:
    item = arrival(room, folder)
    assert record(room, item) == Recorded(question, "new")
    shown = room.show(question)
    assert (shown["state"], shown["last_at"]) == ("answered", "2026-11-23T10:30:00.000Z")
    reply = shown["messages"][-1]
    assert (reply["id"], reply["direction"], reply["class"]) == (show_id(item.arrival.id), "outbound", "sent")
    assert (reply["from"], reply["subject"], reply["size"]) == ("support@example.com", "Re: Help", 5)
    found = room.store.read(conversations.find_messages, question).result(5)
    assert [one["direction"] for one in found] == ["inbound", "outbound"]
    assert room.store.read(raw.load, item.arrival.id).result(5) == b"reply"
    assert room.cursor(folder) == 11
    assert room.places(item.arrival.id) == [("Sent", 3, 11)]


def test_the_customers_answer_to_it_finds_the_conversation(room: Postroom, folder: Place, question: int) -> None:
    record(room, arrival(room, folder))
    again = room.route(room.arrive(Place(T, "INBOX", 7), 2), "<b@c>", "<w@us>")
    assert (again.conversation, again.state) == (question, "open")


def test_recording_again_changes_nothing(room: Postroom, folder: Place, question: int) -> None:
    record(room, arrival(room, folder))
    again = room.route(room.arrive(Place(T, "INBOX", 7), 2), "<b@c>", "<w@us>")
    assert again.state == "open"
    assert record(room, arrival(room, folder)) == Recorded(None, "known")
    assert record(room, arrival(room, room.watch("Sent", Role.SENT, uidvalidity=4), 1)) == Recorded(None, "moved")
    assert room.show(question)["state"] == "open"
    assert room.rows("SELECT count(*) FROM message WHERE origin = 'sent'") == [(1,)]
    assert room.rows("SELECT count(*) FROM chunk") == [(3,)]


def test_twins_in_sent_are_two(room: Postroom, folder: Place, question: int) -> None:
    assert record(room, arrival(room, folder, 11)).kind == "new"
    assert record(room, arrival(room, folder, 12)).kind == "new"


def test_a_reply_that_is_older_than_the_last_question_answers_nothing(
    room: Postroom, folder: Place, question: int
) -> None:
    room.route(room.arrive(Place(T, "INBOX", 7), 2, at=LATER), "<b@c>", "<a@c>")
    record(room, arrival(room, folder, at=LATER))
    assert room.show(question)["state"] == "open", "in the same second nobody knows"
    record(room, arrival(room, folder, 12, 22, LATER + timedelta(seconds=1), name="<v@us>"))
    assert room.show(question)["state"] == "answered"


def test_what_is_in_quarantine_waits_for_no_answer(room: Postroom, folder: Place, question: int) -> None:
    inbox = Place(T, "INBOX", 7)
    room.route(room.arrive(inbox, 2, at=LATER + timedelta(hours=1)), "<b@c>", "<a@c>", verdict=SPAM)
    record(room, arrival(room, folder))
    assert room.show(question)["state"] == "answered"


def test_a_conversation_in_quarantine_stays_there(room: Postroom, folder: Place) -> None:
    spam = room.route(room.arrive(Place(T, "INBOX", 7), 1), "<s@c>", verdict=SPAM).conversation
    record(room, arrival(room, folder, 11, 21, LATER, "<s@c>"))
    assert room.show(spam)["state"] == "quarantined"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"auto_submitted": True}, "open"),
        ({"recipients": ("colleague@example.com",)}, "open"),
        ({"recipients": ("colleague@example.com", "c@customer.example")}, "answered"),
        ({"recipients": ("d@customer.example",)}, "answered"),
    ],
    ids=["a vacation note", "a forward", "to all", "to the one who wrote last"],
)
def test_what_nobody_wrote_to_the_customer_answers_nothing(
    room: Postroom, folder: Place, question: int, changes: dict[str, Any], state: str
) -> None:
    room.route(room.arrive(Place(T, "INBOX", 7), 2), "<b@c>", "<a@c>", sender="D@customer.example")
    item = arrival(room, folder)
    assert record(room, replace(item, candidate=replace(item.candidate, **changes))).kind == "new"
    assert room.show(question)["state"] == state


def test_what_belongs_to_nothing_after_all_is_left_alone(room: Postroom, folder: Place) -> None:
    assert record(room, arrival(room, folder, 11, 21, LATER, "<other@c>")) == Recorded(None)
    assert room.left(folder) == [(11, 11)]
    assert room.cursor(folder) == 11
    assert room.rows("SELECT count(*) FROM message") == room.rows("SELECT count(*) FROM chunk") == [(0,)]


def test_what_was_owed_is_settled(room: Postroom, folder: Place, question: int) -> None:
    assert room.owed(folder) == [(9, 0)]
    record(room, arrival(room, folder, 9))
    assert room.owed(folder) == []
    assert room.cursor(folder) == 10


def test_a_sent_message_is_never_taken_for_one_that_came(room: Postroom, folder: Place, question: int) -> None:
    record(room, arrival(room, folder))
    assert room.relocate(Place(T, "INBOX", 7), (5, 21)) == set()
    assert room.relocate(folder, (15, 11), role=Role.SENT) == set()


def test_both_ids_of_a_rewritten_reply_lead_to_the_conversation(room: Postroom, folder: Place, question: int) -> None:
    item = arrival(room, folder, name="<new@provider>")
    record(room, replace(item, candidate=replace(item.candidate, original_id="<old@us>")))
    keys = dict(room.rows("SELECT key, conversation FROM thread"))
    assert keys[thread_key(T, "<new@provider>")] == keys[thread_key(T, "<old@us>")] == question
