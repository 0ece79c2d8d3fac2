"""Odd orders of events at the ledger: what one session has seen is written after what another has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import FilingAction, Location, Placeholder, Role
from gateway.state import chores, filings, locations, owed, quarantine
from gateway.state.filings import Filed
from gateway.state.folders import Place
from gateway.state.locations import Accounting
from gateway.state.owed import Owed, Passage
from gateway.state.quarantine import Review
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

JUNK = Place(T, "Junk", 4)
HOUR = 3_600_000


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    room.watch("Junk", Role.JUNK, uidvalidity=4)
    return room.watch()


def owe(
    room: Postroom,
    place: Place,
    uid: int,
    *,
    size: int = 100,
    tries: int = 1,
    next_at: int | None = NOW,
    at: int = NOW,
    moves: bool = True,
) -> None:
    """`moves`: the cursor goes over it."""
    follows, upto = (uid - 1, uid) if moves else (0, 0)
    debt = Owed(uid, size, "the server says NO", tries, next_at)
    room.store.submit(owed.pass_over, Passage(*place, follows, upto, (debt,), (), at)).result(5)


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


# --- debts that are none ---------------------------------------------------------------------------------------------


def due(room: Postroom, now: int = NOW, *folders: str) -> set[str]:
    watched = folders or ("INBOX", "Junk", "Sent")
    return room.store.read(chores.due_folders, T, now, 10**6, watched).result(5)


def count(room: Postroom, *folders: str) -> int:
    return room.store.read(owed.count_owed, T, folders or None).result(5)


def test_a_session_that_still_counts_in_former_numbers_owes_nothing(room: Postroom, inbox: Place) -> None:
    room.relist(Place(T, "Junk", 5), role=Role.JUNK)
    owe(room, JUNK, 3)
    assert room.owed(JUNK) == []
    owe(room, Place(T, "Nowhere", 1), 3)
    assert count(room) == 0


def test_debts_under_other_numbers_and_of_folders_that_nobody_watches_count_for_nothing(
    room: Postroom, inbox: Place
) -> None:
    owe(room, JUNK, 3)
    assert (due(room), count(room)) == ({"Junk"}, 1)
    assert (due(room, NOW, "INBOX"), count(room, "INBOX")) == (set(), 0)
    room.change("UPDATE folder SET uidvalidity = 5 WHERE folder = 'Junk'")
    assert (due(room), count(room)) == (set(), 0)
    assert room.store.read(owed.placeholders_due, JUNK, NOW + HOUR, 9).result(5) == ()


@pytest.mark.parametrize(("size", "next_at"), [(100, NOW + 4 * HOUR), (10**8, None)], ids=["not yet", "too large"])
def test_nothing_stands_for_what_is_missing_in_sent(room: Postroom, size: int, next_at: int | None) -> None:
    sent = room.watch("Sent", Role.SENT, uidvalidity=2, cursor=9)
    owe(room, sent, 3, tries=5, size=size, next_at=next_at, at=NOW - HOUR)
    assert due(room) == set()
    assert room.store.read(owed.placeholders_due, sent, NOW + HOUR, 9).result(5) == ()
    assert due(room, NOW + 4 * HOUR) == (set() if next_at is None else {"Sent"})


def test_what_only_waited_for_its_turn_has_not_failed_for_long(room: Postroom) -> None:
    """In a long import the link is cut late: that is the first time that these were tried."""
    place = room.watch(cursor=9, wanted=(3, 4))
    later = NOW + HOUR
    owe(room, place, 3, next_at=later + 60_000, at=later, moves=False)
    in_time = later + owed.PLACEHOLDER_AFTER_MS
    assert room.store.read(owed.placeholders_due, place, in_time - 1, 9).result(5) == ()
    owe(room, place, 3, tries=2, next_at=later + 60_000, at=later + 60_000, moves=False)
    assert [one.uid for one in room.store.read(owed.placeholders_due, place, in_time, 9).result(5)] == [3]


# --- a person is quicker than the provider ---------------------------------------------------------------------------


def file(room: Postroom, message: int, action: FilingAction, left: Location, now: Location) -> None:
    room.store.submit(filings.done, Filed(message, action, left, now)).result(5)


def actions(room: Postroom) -> list[tuple[FilingAction, str]]:
    return [(one.action, one.folder) for one in room.store.read(filings.due, T, NOW, 9).result(5)]


def test_a_release_while_the_message_is_on_its_way_to_junk_brings_it_back(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11)
    room.route(message, "<a@c>", verdict=replace(JUNK_VERDICT, junk_alone=False))
    room.store.submit(quarantine.confirm, Review(message, NOW)).result(5)
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    file(room, message, FilingAction.JUNK, Location("INBOX", 7, 1), Location("Junk", 4, 9))
    assert actions(room) == [(FilingAction.RELEASE, "Junk")]
    file(room, message, FilingAction.RELEASE, Location("Junk", 4, 9), Location("INBOX", 7, 2))
    assert actions(room) == []


def test_what_is_junk_after_all_goes_back_there(room: Postroom, inbox: Place) -> None:
    """Its placeholder was released; the message itself was blocked and called junk while the release was under way."""
    message = room.arrive(JUNK, 1, 11, role=Role.JUNK)
    room.route(message, "<a@c>", verdict=JUNK_VERDICT)
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    room.change("UPDATE message SET quarantine = 1, reviewed_at = NULL")
    room.store.submit(quarantine.confirm, Review(message, NOW)).result(5)
    file(room, message, FilingAction.RELEASE, Location("Junk", 4, 1), Location("INBOX", 7, 2))
    assert actions(room) == [(FilingAction.JUNK, "INBOX")]
