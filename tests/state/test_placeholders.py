"""What cannot be fetched stands in its queue all the same, and makes room when it comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from gateway.model import Filing, FilingAction, MessageClass, Placeholder, Role, Staged, Verdict
from gateway.rules.conversation import thread_key
from gateway.state import owed, quarantine, queues, raw
from gateway.state.folders import Place
from gateway.state.owed import Owed, Passage
from gateway.state.quarantine import Review
from gateway.state.queues import Tie
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

HEADED, BLIND = Placeholder.HEADED, Placeholder.BLIND
SEEN = (Filing(FilingAction.SEEN),)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    """Owed is UID 1, tried once."""
    place = room.watch()
    fail(room, place, 1)
    return place


def fail(room: Postroom, place: Place, uid: int, *, tries: int = 1, at: int = NOW, next_at: int | None = NOW) -> None:
    debt = Owed(uid, 9_000, "NO", tries, next_at)
    room.store.submit(owed.pass_over, Passage(*place, 0, uid, (debt,), (), at)).result(5)


def due(room: Postroom, place: Place, now: int) -> list[int]:
    return [one.uid for one in room.store.read(owed.placeholders_due, place, now, 10).result(5)]


# --- when --------------------------------------------------------------------------------------------------------


def test_a_placeholder_is_due_after_fifteen_minutes_or_where_trying_is_in_vain(room: Postroom, inbox: Place) -> None:
    fail(room, inbox, 2, next_at=None)
    fail(room, inbox, 3, tries=0)
    assert due(room, inbox, NOW + 15 * 60_000 - 1) == [2]
    assert due(room, inbox, NOW + 15 * 60_000) == [1, 2]
    fail(room, inbox, 1, tries=2, at=NOW + 60_000)
    assert due(room, inbox, NOW + 15 * 60_000) == [1, 2], "another try does not begin the time again"
    room.arrive(inbox, 2, placeholder=BLIND)
    assert due(room, inbox, NOW + 15 * 60_000) == [1]


def test_behind_a_placeholder_its_message_is_still_owed(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, placeholder=HEADED, raw_=b"Subject: x\r\n\r\n(not here)")
    assert room.owed(inbox) == [(1, 1)]
    assert room.rows("SELECT size, placeholder, state FROM message") == [(9_000, "headed", "arrived")]
    (loaded,) = room.store.read(queues.load_unrouted, [message]).result(5)
    assert loaded.placeholder is HEADED
    again = room.item(inbox, 1, placeholder=HEADED)
    assert room.take(again)[0].kind == "known"
    assert room.owed(inbox) == [(1, 1)]


# --- headed ----------------------------------------------------------------------------------------------------------


def test_the_message_takes_the_place_of_its_header(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, placeholder=HEADED)
    found = room.route(message, "<a@c>")
    whole = room.item(inbox, 1, 11, object_id=5, raw_=b"whole", filings=SEEN)
    (result,) = room.take(whole)
    assert (result.id, result.kind) == (message, "replaced")
    assert room.store.read(raw.load, message).result(5) == b"whole"
    assert room.rows("SELECT id, placeholder, state, size, object_id, conversation FROM message") == [
        (message, None, "routed", 5, 5, found.conversation)
    ]
    assert room.rows("SELECT count(*) FROM chunk") == [(1,)]
    assert room.owed(inbox) == []
    assert room.rows("SELECT message, action FROM filing") == [(message, "seen")]
    assert room.take(whole)[0].kind == "known"


def test_it_may_come_from_another_folder(room: Postroom, inbox: Place) -> None:
    elsewhere = room.watch("Elsewhere")
    message = room.arrive(inbox, 1, 11, placeholder=HEADED)
    (result,) = room.take(room.item(elsewhere, 3, 11, raw_=b"whole"))
    assert (result.id, result.kind) == (message, "replaced")
    assert room.places(message) == [("Elsewhere", 7, 3), ("INBOX", 7, 1)]
    assert room.owed(inbox) == room.owed(elsewhere) == []


def test_placeholder_and_message_may_come_in_one_batch(room: Postroom, inbox: Place) -> None:
    first = room.item(inbox, 1, 11, placeholder=HEADED)
    results = room.take(first, room.item(inbox, 1, 11, raw_=b"whole"))
    assert [(result.id, result.kind) for result in results] == [
        (first.arrival.id, "new"),
        (first.arrival.id, "replaced"),
    ]
    assert room.store.read(raw.load, first.arrival.id).result(5) == b"whole"
    assert room.owed(inbox) == []


def test_a_placeholder_never_takes_the_place_of_the_message(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, raw_=b"whole")
    fail(room, inbox, 1)
    assert room.take(room.item(inbox, 1, 11, placeholder=HEADED))[0].kind == "known"
    assert room.store.read(raw.load, message).result(5) == b"whole"
    assert room.owed(inbox) == []


async def test_a_large_message_brings_the_chunks_that_were_staged_for_it(room: Postroom, inbox: Place) -> None:
    message = await trio.to_thread.run_sync(lambda: room.arrive(inbox, 1, 11, placeholder=HEADED))
    content = os.urandom(raw.CHUNK_BYTES * 2 + 5)
    id = room.store.ids.next()
    stage = raw.Stage(room.store, id)
    await stage.add(content)
    item = room.item(inbox, 1, 11, id=id, raw_=content[:100], staged=stage.finish())
    await trio.to_thread.run_sync(room.take, item)
    assert await room.store.read(raw.load, message) == content
    assert await room.store.read(raw.load, id) is None
    stage.abandon()  # too late, and without harm
    assert await room.store.read(raw.load, message) == content
    assert await trio.to_thread.run_sync(room.rows, "SELECT size FROM message") == [(len(content),)]
    assert await trio.to_thread.run_sync(room.rows, "SELECT * FROM staged") == []
    raw_chunks = await trio.to_thread.run_sync(room.rows, "SELECT count(*) FROM chunk")
    assert raw_chunks == [(3,)]


# --- blind -----------------------------------------------------------------------------------------------------------


def test_a_message_that_nothing_was_known_of_is_judged_when_it_comes(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, placeholder=BLIND)
    made_up = room.route(message, subject="(could not be fetched)").conversation
    (result,) = room.take(room.item(inbox, 1, 12, raw_=b"Subject: y\r\n\r\n"))
    assert (result.id, result.kind) == (message, "new")
    (loaded,) = room.store.read(queues.load_unrouted, [message]).result(5)
    assert (loaded.head, loaded.placeholder, loaded.size) == (b"Subject: y\r\n\r\n", None, 14)
    found = room.route(message, "<a@c>", subject="y")
    assert found.is_new
    assert found.conversation != made_up
    assert room.show(message)["subject"] == "y"
    assert room.show(made_up)["state"] == "closed"
    assert room.show(made_up)["queues"] == []
    assert room.rows("SELECT conversation FROM entry") == [(found.conversation,)], "one entry in the queue"


def test_it_joins_the_conversation_that_it_answers(room: Postroom, inbox: Place) -> None:
    question = room.route(room.arrive(inbox, 5), "<q@c>")
    message = room.arrive(inbox, 1, 11, placeholder=BLIND)
    room.route(message)
    room.take(room.item(inbox, 1, 12))
    assert room.route(message, "<a@c>", "<q@c>").conversation == question.conversation


def test_where_somebody_works_on_it_the_message_stays_and_names_the_conversation(room: Postroom, inbox: Place) -> None:
    other = room.route(room.arrive(inbox, 5), "<q@c>")
    message = room.arrive(inbox, 1, 11, placeholder=BLIND)
    claimed = room.route(message, subject="(could not be fetched)", sender="", sender_name="").conversation
    room.change("UPDATE conversation SET state = 'claimed', owner = 'ana' WHERE id = ?", claimed)
    room.take(room.item(inbox, 1, 12))
    found = room.route(message, "<a@c>", "<q@c>", subject="An invoice")
    assert found.conversation == claimed != other.conversation
    assert not found.is_new
    shown = room.show(claimed)
    assert (shown["subject"], shown["from"], shown["state"], shown["owner"]) == (
        "An invoice",
        "c@customer.example",
        "claimed",
        "ana",
    )
    assert room.route(room.arrive(inbox, 6), "<b@c>", "<a@c>").conversation == claimed, "its id leads there"


def test_an_answer_to_it_keeps_the_conversation(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, placeholder=BLIND)
    made_up = room.route(message, "<1.placeholder@us>").conversation
    reply = Tie(T, "<r@us>", ("<1.placeholder@us>",), NOW)
    assert room.store.submit(queues.tie_outbound, reply).result(5) == made_up
    room.take(room.item(inbox, 1, 12))
    assert room.route(message, "<a@c>").conversation == made_up
    keys = dict(room.rows("SELECT key, conversation FROM thread"))
    assert keys[thread_key(T, "<a@c>")] == keys[thread_key(T, "<r@us>")] == made_up


def test_one_that_was_not_routed_yet_only_changes_its_bytes(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, placeholder=BLIND)
    (result,) = room.take(room.item(inbox, 1, 12, raw_=b"whole"))
    assert (result.id, result.kind) == (message, "new")
    assert room.route(message, "<a@c>").is_new


def test_in_quarantine_it_is_judged_where_it_lies_now(room: Postroom, inbox: Place) -> None:
    junk = room.watch("Junk", Role.JUNK)
    fail(room, junk, 1)
    key = (77 << 32) | 1
    message = room.arrive(junk, 1, key, placeholder=BLIND, role=Role.JUNK)
    room.route(message, verdict=JUNK_VERDICT)
    room.relocate(junk, gone=(1,), role=Role.JUNK)
    room.relocate(inbox, (3, key + 1))
    assert room.show(message)["state"] == "open"
    (result,) = room.take(room.item(inbox, 3, key + 1))
    assert (result.id, result.kind) == (message, "new")
    assert room.store.read(queues.load_unrouted, [message]).result(5)[0].junk is False


@pytest.fixture
def junk(room: Postroom) -> Place:
    """Owed is UID 1, tried once."""
    place = room.watch("Junk", Role.JUNK)
    fail(room, place, 1)
    return place


SPAM = replace(JUNK_VERDICT, junk_alone=False)


def test_what_a_person_released_is_not_kept_for_lying_in_junk(room: Postroom, junk: Place) -> None:
    message = room.arrive(junk, 1, 11, placeholder=BLIND, role=Role.JUNK)
    room.route(message, verdict=JUNK_VERDICT)
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    assert room.take(room.item(junk, 1, 12, role=Role.JUNK))[0].kind == "new"
    room.route(message, "<a@c>", verdict=JUNK_VERDICT)
    assert room.show(message)["state"] == "open"
    assert room.rows("SELECT quarantine, reviewed_at FROM message") == [(0, NOW)]


def test_what_lists_and_rules_find_in_it_a_person_has_not_seen_yet(room: Postroom, junk: Place) -> None:
    message = room.arrive(junk, 1, 11, placeholder=BLIND, role=Role.JUNK)
    room.route(message, verdict=JUNK_VERDICT)
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    room.take(room.item(junk, 1, 12, role=Role.JUNK))
    room.route(message, "<a@c>", verdict=SPAM)
    assert room.show(message)["state"] == "quarantined"
    assert [one["reviewed_at"] for one in room.store.read(quarantine.list_quarantine).result(5)] == [None]


@pytest.mark.parametrize("verdict", [JUNK_VERDICT, SPAM, Verdict(MessageClass.HUMAN, (T,))])
def test_what_a_person_called_junk_stays_in_quarantine(room: Postroom, junk: Place, verdict: Verdict) -> None:
    message = room.arrive(junk, 1, 11, placeholder=BLIND, role=Role.JUNK)
    room.route(message, verdict=JUNK_VERDICT)
    room.store.submit(quarantine.confirm, Review(message, NOW)).result(5)
    room.take(room.item(junk, 1, 12, role=Role.JUNK))
    (waiting,) = room.store.read(quarantine.list_quarantine, True).result(5)
    assert waiting["conversation"] is None
    room.route(message, "<a@c>", verdict=verdict)
    assert room.show(message)["state"] == "quarantined"
    assert room.store.read(quarantine.list_quarantine).result(5) == [], "nobody is asked again"


# --- streaming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, raw.CHUNK_BYTES, raw.CHUNK_BYTES + 1, 3 * raw.CHUNK_BYTES])
@pytest.mark.parametrize("piece", [1 << 14, raw.CHUNK_BYTES, 1 << 20])
async def test_a_stage_gives_what_staging_the_whole_gives(room: Postroom, size: int, piece: int) -> None:
    content = os.urandom(size)
    owner, other = room.store.ids.next(), room.store.ids.next()
    stage = raw.Stage(room.store, owner)
    for start in range(0, size, piece):
        await stage.add(content[start : start + piece])
    staged = stage.finish()
    whole = await raw.stage(room.store, other, content)
    assert isinstance(staged, Staged)
    assert staged.size == size
    assert [(key - (owner << 16), part) for key, part in staged.chunks] == [
        (key - (other << 16), part) for key, part in whole
    ]
    await room.store.submit(raw.insert, staged.chunks[0])
    assert await room.store.read(raw.load, owner) == content


async def test_a_stage_that_is_abandoned_leaves_nothing(room: Postroom) -> None:
    stage = raw.Stage(room.store, room.store.ids.next())
    await stage.add(os.urandom(3 * raw.CHUNK_BYTES))
    written = await trio.to_thread.run_sync(room.rows, "SELECT count(*) FROM chunk")
    assert written == [(2,)], "all but the last chunk is written ahead"
    stage.abandon()
    left = await trio.to_thread.run_sync(room.rows, "SELECT count(*) FROM chunk UNION ALL SELECT count(*) FROM staged")
    while left != [(0,), (0,)]:
        await trio.sleep(0.01)
        left = await trio.to_thread.run_sync(
            room.rows, "SELECT count(*) FROM chunk UNION ALL SELECT count(*) FROM staged"
        )
