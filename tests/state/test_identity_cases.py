"""Odd orders of events at the ledger: what one session has seen is written after what another has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import Placeholder, Role
from gateway.state import locations, owed
from gateway.state.folders import Place
from gateway.state.locations import Accounting
from gateway.state.owed import Owed, Passage
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

JUNK = Place(T, "Junk", 4)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    room.watch("Junk", Role.JUNK, uidvalidity=4)
    return room.watch()


def owe(room: Postroom, place: Place, uid: int) -> None:
    debt = Owed(uid, 100, "the server says NO", 1, NOW)
    room.store.submit(owed.pass_over, Passage(*place, uid - 1, uid, (debt,), (), NOW)).result(5)


def account(room: Postroom, place: Place, *present: int, high: int) -> None:
    room.store.submit(locations.account, Accounting(place, 1, high, present, NOW)).result(5)


def test_an_answer_that_is_older_than_what_was_taken_since_costs_a_look_and_no_second_message(
    room: Postroom, inbox: Place
) -> None:
    message = room.arrive(inbox, 1, 11)
    account(room, inbox, high=1)  # asked for before the message surfaced
    assert room.places(message) == []
    account(room, inbox, 1, high=1)
    assert room.owed(inbox) == [(1, 0)]
    assert room.relocate(inbox, (1, 11)) == {1}
    assert (room.places(message), room.owed(inbox)) == ([("INBOX", 7, 1)], [])


@pytest.mark.parametrize("kind", Placeholder)
def test_a_placeholder_and_its_message_in_one_batch_are_one(room: Postroom, inbox: Place, kind: Placeholder) -> None:
    owe(room, inbox, 1)
    results = room.take(room.item(inbox, 1, 11, placeholder=kind), room.item(inbox, 1, 11))
    assert results[0].kind == "new"
    assert results[1].kind == ("replaced" if kind is Placeholder.HEADED else "new")
    assert results[0].id == results[1].id
    assert room.owed(inbox) == []
    assert room.rows("SELECT placeholder FROM message") == [(None,)]


def test_a_message_and_its_belated_placeholder_are_one(room: Postroom, inbox: Place) -> None:
    owe(room, inbox, 1)
    message = room.arrive(inbox, 1, 11)
    (result,) = room.take(room.item(inbox, 1, 12, placeholder=Placeholder.BLIND))
    assert result.kind == "known"
    assert room.owed(inbox) == []
    assert room.rows("SELECT id, placeholder FROM message") == [(message, None)]


def test_a_placeholder_that_was_believed_gone_makes_room_all_the_same(room: Postroom, inbox: Place) -> None:
    owe(room, inbox, 1)
    message = room.arrive(inbox, 1, 11, placeholder=Placeholder.HEADED)
    room.route(message, "<a@c>")
    account(room, inbox, high=1)
    account(room, inbox, 1, high=1)
    (result,) = room.take(room.item(inbox, 1, 11))
    assert (result.id, result.kind) == (message, "replaced")
    assert room.owed(inbox) == []


def test_in_and_out_of_junk_in_one_batch_ends_where_it_ends(room: Postroom, inbox: Place) -> None:
    first, second = room.take(room.item(JUNK, 1, 11, role=Role.JUNK), room.item(inbox, 1, 11))
    assert (first.kind, second.kind) == ("new", "moved")
    assert first.id is not None
    room.route(first.id, "<a@c>", verdict=JUNK_VERDICT)
    assert room.show(first.id)["state"] == "open"
