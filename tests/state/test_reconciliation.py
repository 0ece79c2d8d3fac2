"""The provider's UIDs against the ledger: what surfaced late is owed, what is gone lies nowhere, what is left stays."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.model import Placeholder
from gateway.state import folders, locations, owed
from gateway.state.folders import Place
from gateway.state.locations import Accounted, Accounting, Leaving
from tests.support.postroom import NOW, Postroom, T, open_postroom


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


def account(room: Postroom, place: Place, low: int, high: int, *present: int) -> Accounted:
    differs = room.store.read(locations.differs, place, low, high, present).result(5)
    accounting = Accounting(place, low, high, present, NOW)
    found = room.store.submit(locations.account, accounting).result(5)
    assert differs == bool(found.late or found.gone), "the question is answered as the operation would"
    assert not room.store.read(locations.differs, place, low, high, present).result(5), "once is enough"
    return found


def leave(room: Postroom, place: Place, *uids: int, follows: int = 0, upto: int = 0) -> None:
    room.store.submit(locations.leave, Leaving(place, uids, follows, upto)).result(5)


def low(room: Postroom, place: Place, count: int) -> int:
    return room.store.read(locations.recent_low, place, count).result(5)


def test_every_uid_is_counted_once(room: Postroom) -> None:
    place = room.watch(cursor=20, wanted=(11, 12), left=((1, 10),))
    message = room.arrive(place, 15)
    room.arrive(place, 16)
    assert account(room, place, 1, 20, 3, 9, 11, 15, 18) == Accounted(known=1, owed=1, left=2, late=1, gone=2)
    assert room.owed(place) == [(11, 0), (18, 0)]
    assert room.rows("SELECT reason, next_at FROM unfetched WHERE uid = 18") == [("surfaced late", NOW)]
    assert room.places(message) == [("INBOX", 7, 15)]
    assert room.rows("SELECT count(*) FROM location") == [(1,)]
    assert room.rows("SELECT count(*) FROM message") == [(2,)], "messages stay"


def test_a_placeholder_of_which_nothing_is_known_is_found_again_by_its_uid(room: Postroom) -> None:
    place = room.watch(cursor=20)
    message = room.arrive(place, 15, 11, placeholder=Placeholder.BLIND)
    room.arrive(place, 16)
    account(room, place, 1, 20)  # the server has a bad moment: nothing is there
    assert room.places(message) == []
    assert account(room, place, 1, 20, 15, 16) == Accounted(late=2)
    (result,) = room.take(room.item(place, 15, 12, raw_=b"the message itself"))
    assert (result.id, result.kind) == (message, "new"), "no second message beside a note that nothing replaces"
    assert room.rows("SELECT count(*) FROM message") == [(2,)]
    assert room.owed(place) == [(16, 0)]


def test_one_that_lies_elsewhere_by_now_does_not_come_back(room: Postroom) -> None:
    place, other = room.watch(cursor=20), room.watch("Later", cursor=20)
    key = (77 << 32) | 1
    message = room.arrive(place, 15, key, placeholder=Placeholder.BLIND)
    account(room, place, 1, 20)
    room.relocate(other, (3, key + 1))
    assert room.places(message) == [("Later", 7, 3)]
    assert account(room, place, 1, 20, 15) == Accounted(late=1)
    assert room.places(message) == [("Later", 7, 3)]


def test_nothing_outside_the_stretch_changes(room: Postroom) -> None:
    place = room.watch(cursor=20)
    for uid in (5, 10, 15):
        room.arrive(place, uid)
    assert account(room, place, 6, 14) == Accounted(gone=1)
    assert [uid for (uid,) in room.rows("SELECT uid FROM location")] == [5, 15]


def test_what_lies_above_the_cursor_is_not_late_but_not_looked_at_yet(room: Postroom) -> None:
    place = room.watch(cursor=20)
    room.arrive(place, 25, follows=24)  # behind a gap
    assert account(room, place, 1, 24, 19, 21, 22) == Accounted(late=1)
    assert room.owed(place) == [(19, 0)]
    assert room.rows("SELECT uid FROM location") == [(25,)]
    assert account(room, place, 1, 30, 19, 21, 22) == Accounted(owed=1, gone=1)


def test_uids_of_another_uidvalidity_mean_nothing(room: Postroom) -> None:
    place = room.watch(cursor=20)
    room.arrive(place, 5)
    assert account(room, Place(T, "INBOX", 8), 1, 20, 3) == Accounted()
    assert room.rows("SELECT count(*) FROM location") == [(1,)]


def test_a_placeholder_is_owed_and_when_its_message_goes_lies_nowhere(room: Postroom) -> None:
    place = room.watch(cursor=5, wanted=(5,))
    room.arrive(place, 5, placeholder=Placeholder.HEADED)
    assert account(room, place, 1, 5, 5) == Accounted(owed=1)
    assert account(room, place, 1, 5) == Accounted(gone=1)
    assert room.owed(place) == []


def test_what_is_left_alone_is_kept_in_as_few_stretches_as_it_needs(room: Postroom) -> None:
    place = room.watch(left=((1, 4), (10, 12)))
    for uids, expected in (
        ((6,), [(1, 4), (6, 6), (10, 12)]),
        ((5,), [(1, 6), (10, 12)]),
        ((13, 15, 14), [(1, 6), (10, 15)]),
        ((11, 3), [(1, 6), (10, 15)]),
        ((8, 7, 9), [(1, 15)]),
        ((17,), [(1, 15), (17, 17)]),
        (tuple(range(14, 20)), [(1, 19)]),
    ):
        leave(room, place, *uids)
        assert room.left(place) == expected


@pytest.mark.parametrize("low", range(1, 8))
@pytest.mark.parametrize("high", range(1, 12))
def test_joining_stretches_is_joining_sets_of_numbers(low: int, high: int) -> None:
    ranges = [(2, 3), (5, 5), (8, 10), (low, high)]
    whole = folders.joined(ranges)
    assert {uid for one in whole for uid in range(one[0], one[1] + 1)} == {
        uid for one in ranges for uid in range(one[0], one[1] + 1)
    }
    assert all(one[1] + 1 < other[0] for one, other in pairwise(whole))


def test_leaving_uids_alone_moves_the_cursor_and_settles_what_was_owed(room: Postroom) -> None:
    place = room.watch("Sent", cursor=10, wanted=(8,))
    leave(room, place, 8, 11, 13, follows=10, upto=13)
    assert room.cursor(place) == 13
    assert room.owed(place) == []
    assert room.left(place) == [(8, 8), (11, 11), (13, 13)]
    leave(room, place, 20, follows=15, upto=20)
    assert room.cursor(place) == 13, "not over what is not accounted for"


def test_the_last_messages_begin_where_the_ledger_has_them(room: Postroom) -> None:
    place = room.watch(cursor=100)
    assert low(room, place, 3) == 1, "whatever there is, it is not many"
    for uid in (10, 20, 30, 40):
        room.arrive(place, uid)
    assert [low(room, place, count) for count in (1, 2, 3, 4, 5)] == [40, 30, 20, 10, 1]


def test_a_listing_of_the_last_begins_behind_what_is_left_alone(room: Postroom) -> None:
    place = room.watch(cursor=100, left=((1, 100), (201, 900)))
    for uid in (110, 120, 1000, 1001):
        room.arrive(place, uid)
    assert [low(room, place, count) for count in (1, 2, 3, 702, 703, 704, 705)] == [1001, 1000, 901, 901, 120, 110, 101]
    assert low(room, place, 100_000) == 101


def test_a_folder_of_which_nothing_is_ours_is_not_listed_at_all(room: Postroom) -> None:
    place = room.watch("Sent", cursor=900, left=((1, 900),))
    assert low(room, place, 1000) == 901


def test_what_is_noted_of_a_folder_is_noted_under_its_own_numbers(room: Postroom) -> None:
    place = room.watch()
    for noted in (place, Place(T, "INBOX", 6)):
        room.store.submit(folders.note_modseq, (noted, noted.uidvalidity * 10)).result(5)
        room.store.submit(folders.note_reconciled, (noted, NOW + noted.uidvalidity)).result(5)
    found = room.store.read(folders.find_folder, T, "INBOX").result(5)
    assert found is not None
    assert (found.place, found.modseq, found.reconciled_at) == (place, 70, NOW + 7)


def test_a_debt_is_for_its_own_place(room: Postroom) -> None:
    place = room.watch(cursor=9, wanted=(5,))
    other = Place(T, "INBOX", 8)
    room.store.submit(owed.pass_over, owed.Passage(*other, 0, 0, (), (5,), NOW)).result(5)
    assert room.owed(place) == [(5, 0)]
