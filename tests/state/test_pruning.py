"""Quarantine ends: the bytes go, the ledger of ids stays, and nothing comes in a second time or is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import Placeholder, Role, id_at
from gateway.state import chores, conversations, lessons, pruning, quarantine, raw
from gateway.state.chores import RoleChange
from gateway.state.folders import Place
from gateway.state.quarantine import Review
from gateway.state.raw import chunk_key
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, open_postroom

DAY = 86_400_000
BY_US = replace(JUNK_VERDICT, junk_alone=False)
BEFORE = NOW - 30 * DAY


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


@pytest.fixture
def junk(room: Postroom) -> Place:
    return room.watch("Junk", Role.JUNK)


def old_id(number: int, days: float = 31) -> int:
    return id_at(NOW - int(days * DAY)) + number


def put(room: Postroom, place: Place, uid: int, days: float = 31, **changes: object) -> int:
    """A message in quarantine that came so many days ago."""
    is_junk = place.folder == "Junk"
    role = Role.JUNK if is_junk else Role.QUEUE
    id = room.arrive(place, uid, 100 + uid, id=old_id(uid, days), role=role, **changes)
    room.route(id, f"<{uid}@c.example>", verdict=JUNK_VERDICT if is_junk else BY_US)
    return id


def prune(room: Postroom) -> int:
    return room.store.submit(pruning.prune_quarantine, (BEFORE, NOW)).result(5)


def has_bytes(room: Postroom, id: int) -> bool:
    return room.store.read(raw.load, id).result(5) is not None


def listed(room: Postroom) -> int:
    return len(room.store.read(quarantine.list_quarantine, True).result(5))


def test_what_is_old_goes_and_what_is_not_stays(room: Postroom, inbox: Place) -> None:
    old, young = put(room, inbox, 1), put(room, inbox, 2, days=29)
    seen = room.arrive(inbox, 3, id=old_id(3))
    room.route(seen, "<3@c.example>")
    assert prune(room) == 1
    assert [has_bytes(room, id) for id in (old, young, seen)] == [False, True, True]
    assert listed(room) == 1
    assert prune(room) == 0


def test_it_is_in_no_queue_and_its_conversation_is_closed(room: Postroom, inbox: Place) -> None:
    put(room, inbox, 1)
    assert room.rows("SELECT queue FROM entry") == [("support",)]
    prune(room)
    assert room.rows("SELECT queue FROM entry") == []
    assert room.rows("SELECT state FROM conversation") == [("closed",)]
    assert not room.store.submit(quarantine.release, Review(old_id(1), NOW)).result(5).messages


def test_a_conversation_with_other_mail_stays_as_it_is(room: Postroom, inbox: Place) -> None:
    first = room.arrive(inbox, 1, id=old_id(1))
    conversation = room.route(first, "<1@c.example>").conversation
    second = room.arrive(inbox, 2, id=old_id(2))
    room.route(second, "<2@c.example>", "<1@c.example>", verdict=BY_US)
    assert prune(room) == 1
    assert has_bytes(room, first)
    assert not has_bytes(room, second)
    assert room.show(conversation)["state"] == "open"
    assert room.show(conversation)["queues"] == ["support"]


def test_two_in_one_conversation_close_it_only_together(room: Postroom, inbox: Place) -> None:
    first = put(room, inbox, 1)
    second = room.arrive(inbox, 2, id=old_id(2, days=20))
    conversation = room.route(second, "<2@c.example>", "<1@c.example>", verdict=BY_US).conversation
    assert prune(room) == 1
    assert not has_bytes(room, first)
    assert room.show(conversation)["state"] == "quarantined"
    room.change("UPDATE message SET id = ? WHERE id = ?", old_id(3), second)
    assert prune(room) == 1
    assert room.show(conversation)["state"] == "closed"


def test_what_a_person_has_just_confirmed_is_kept_for_as_long_again(room: Postroom, inbox: Place) -> None:
    id = put(room, inbox, 1)
    room.store.submit(quarantine.confirm, Review(id, NOW - DAY)).result(5)
    room.store.submit(lessons.forget, None).result(5)
    assert prune(room) == 0
    room.change("UPDATE message SET reviewed_at = ?", BEFORE - 1)
    assert prune(room) == 1


def test_what_has_still_to_be_taught_is_kept(room: Postroom, inbox: Place) -> None:
    id = put(room, inbox, 1)
    room.store.submit(quarantine.confirm, Review(id, BEFORE - DAY)).result(5)
    assert prune(room) == 0
    room.store.submit(lessons.forget, None).result(5)
    assert prune(room) == 1


def test_all_chunks_of_a_message_go_and_none_of_its_neighbours(room: Postroom, inbox: Place) -> None:
    ids = [old_id(number) for number in (1, 2, 3)]
    for number, id in enumerate(ids, 1):
        room.arrive(inbox, number, id=id)
        room.route(id, f"<{number}@c.example>", verdict=BY_US if number == 2 else None)
        more = [(chunk_key(id, place), b"more") for place in (1, 2, 65_535)]
        room.store.submit(lambda db, items: [raw.insert(db, item) for item in items], more).result(5)
    assert prune(room) == 1
    left = room.rows("SELECT id >> 16, count(*) FROM chunk GROUP BY 1 ORDER BY 1")
    assert left == [(ids[0], 4), (ids[2], 4)]


def test_many_go_in_several_steps_and_large_ones_in_more(room: Postroom, inbox: Place) -> None:
    for uid in range(1, 61):
        put(room, inbox, uid)
    assert (prune(room), prune(room), prune(room)) == (50, 10, 0)
    for uid in range(61, 64):
        id = put(room, inbox, uid)
        room.change("UPDATE message SET size = 9000000 WHERE id = ?", id)
    assert (prune(room), prune(room), prune(room)) == (1, 1, 1)


def test_a_placeholder_stays_for_the_message_may_yet_come(room: Postroom, junk: Place) -> None:
    id = put(room, junk, 1, placeholder=Placeholder.HEADED)
    assert prune(room) == 0
    assert has_bytes(room, id)


def test_what_lies_where_it_lay_does_not_come_again(room: Postroom, inbox: Place, junk: Place) -> None:
    ours, theirs = put(room, inbox, 1), put(room, junk, 2)
    prune(room)
    assert [result.kind for result in room.take(room.item(inbox, 1, 101))] == ["known"]
    assert [result.kind for result in room.take(room.item(junk, 2, 102, role=Role.JUNK))] == ["known"]
    assert room.places(ours)
    assert room.places(theirs)
    assert room.relist(inbox._replace(uidvalidity=8), (9, 101), upto=9)[:2] == (1, 0), "a new UIDVALIDITY"


def test_what_somebody_takes_out_of_junk_afterwards_arrives(room: Postroom, inbox: Place, junk: Place) -> None:
    put(room, junk, 1)
    prune(room)
    assert room.relocate(inbox, (5, 101)) == set(), "it has to be fetched"
    again = room.arrive(inbox, 5, 101)
    result = room.route(again, "<1@c.example>")
    assert result.queues == ("support",)
    assert room.show(result.conversation)["state"] == "open"


def test_a_customer_who_writes_on_begins_again(room: Postroom, inbox: Place) -> None:
    put(room, inbox, 1)
    prune(room)
    id = room.arrive(inbox, 2)
    result = room.route(id, "<2@c.example>", "<1@c.example>")
    assert result.queues == ("support",)
    assert room.show(result.conversation)["state"] == "open"
    assert [one["state"] for one in room.store.read(conversations.list_conversations).result(5)] == ["open"]


def test_a_junk_folder_that_becomes_a_queue_brings_no_empty_mail(room: Postroom, junk: Place) -> None:
    put(room, junk, 1)
    prune(room)
    room.store.submit(chores.change_role, RoleChange(*junk[:2], Role.QUEUE, NOW)).result(5)
    assert room.rows("SELECT state FROM conversation") == [("closed",)]
    assert room.rows("SELECT queue FROM entry") == []
