"""A message is known again wherever it lies: by one rule, at the arrival, at a move and at a change of UIDVALIDITY."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import Placeholder, Role
from gateway.state import locations, owed, quarantine, queues
from gateway.state.folders import Place
from gateway.state.locations import Relocation, Sighting
from gateway.state.quarantine import Review
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

ELSEWHERE = Place(T, "Elsewhere", 9)
JUNK = Place(T, "Junk", 4)
SENT = Place(T, "Sent", 2)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    room.watch("Elsewhere", uidvalidity=9)
    room.watch("Junk", Role.JUNK, uidvalidity=4)
    return room.watch()


# --- at the arrival --------------------------------------------------------------------------------------------------


def test_what_lies_in_another_folder_is_no_second_message(room: Postroom, inbox: Place) -> None:
    first = room.arrive(inbox, 1, 11)
    item = room.item(ELSEWHERE, 5, 11, follows=0)
    (result,) = room.take(item)
    assert (result.id, result.kind) == (None, "moved")
    assert room.places(first) == [("Elsewhere", 9, 5), ("INBOX", 7, 1)]
    assert room.rows("SELECT count(*) FROM chunk") == [(1,)]
    assert room.cursor(ELSEWHERE) == 5
    assert room.take(item)[0].kind == "known"


def test_twins_in_one_folder_are_two_messages(room: Postroom, inbox: Place) -> None:
    results = room.take(room.item(inbox, 1, 11), room.item(inbox, 2, 11))
    assert [result.kind for result in results] == ["new", "new"]
    assert room.take(room.item(inbox, 3, 11))[0].kind == "new"


def test_one_of_two_twins_is_the_message_that_lies_nowhere(room: Postroom, inbox: Place) -> None:
    first = room.arrive(inbox, 1, 11)
    room.relocate(inbox, gone=(1,))
    results = room.take(room.item(inbox, 2, 11), room.item(inbox, 3, 11))
    assert [result.kind for result in results] == ["moved", "new"]
    assert room.places(first) == [("INBOX", 7, 2)]


def test_in_one_batch_a_message_in_two_folders_is_one(room: Postroom, inbox: Place) -> None:
    results = room.take(room.item(inbox, 1, 11), room.item(JUNK, 2, 11, role=Role.JUNK), room.item(inbox, 2, 11))
    assert [result.kind for result in results] == ["new", "moved", "new"]


def test_the_same_uid_twice_in_one_batch_is_one(room: Postroom, inbox: Place) -> None:
    results = room.take(room.item(inbox, 1, 11), room.item(inbox, 1, 11))
    assert [result.kind for result in results] == ["new", "known"]


def test_an_object_id_decides_before_the_fingerprint(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, object_id=500)
    kinds = [
        room.take(room.item(ELSEWHERE, uid, key, object_id=object_id))[0].kind
        for uid, key, object_id in ((1, 11, 501), (2, 12, 500))
    ]
    assert kinds == ["new", "moved"]
    assert room.places(message) == [("Elsewhere", 9, 2), ("INBOX", 7, 1)]


def test_where_one_side_has_no_object_id_the_fingerprint_decides(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    assert room.take(room.item(ELSEWHERE, 1, 11, object_id=500))[0].kind == "moved"


def test_touchpoints_and_what_was_sent_do_not_mix_with_it(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    assert room.take(room.item(Place("sales", "INBOX", 7), 1, 11))[0].kind == "new"
    assert room.relocate(SENT, (1, 11), role=Role.SENT) == set()


def test_what_the_server_does_not_show_is_like_nothing(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    room.change("UPDATE message SET fingerprint = 0")
    assert room.relocate(ELSEWHERE, (1, 0)) == set()


def test_in_one_batch_two_that_were_not_shown_are_two(room: Postroom, inbox: Place) -> None:
    items = [room.item(inbox, 1), room.item(ELSEWHERE, 1)]
    unknown = [replace(item, arrival=replace(item.arrival, fingerprint=0)) for item in items]
    assert [result.kind for result in room.take(*unknown)] == ["new", "new"]


# --- moves -----------------------------------------------------------------------------------------------------------


def test_a_message_that_went_out_and_back_is_the_same(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11)
    assert room.relocate(inbox, (2, 11), gone=(1,)) == {2}
    assert room.places(message) == [("INBOX", 7, 2)]
    assert room.cursor(inbox) == 1, "the cursor is not its business"


def test_without_word_that_it_is_gone_a_second_one_is_a_twin(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    assert room.relocate(inbox, (2, 11)) == set()


def test_of_three_sightings_of_two_messages_one_is_new(room: Postroom, inbox: Place) -> None:
    ids = [room.arrive(inbox, uid, 11) for uid in (1, 2)]
    assert room.relocate(inbox, (3, 11), (4, 11), (5, 11), gone=(1, 2)) == {3, 4}
    assert [room.places(id) for id in ids] == [[("INBOX", 7, 3)], [("INBOX", 7, 4)]], "the oldest first"


def test_relocating_again_changes_nothing(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    for _ in range(2):
        assert room.relocate(ELSEWHERE, (3, 11), (4, 12)) == {3}
    assert room.rows("SELECT count(*) FROM location") == [(2,)]


def test_what_was_owed_and_is_known_is_owed_no_more(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    place = room.watch("Third", cursor=9, wanted=(5, 6))
    assert room.relocate(place, (5, 11)) == {5}
    assert room.owed(place) == [(6, 0)]


def test_only_what_looks_like_one_of_ours_is_worth_a_look(room: Postroom, inbox: Place) -> None:
    outlines = (0x7FFFFFFF, -1, -0x80000000, 5)
    for uid, outline in enumerate(outlines, 1):
        room.arrive(inbox, uid, outline << 32 | 0xFFFFFFFF * (uid % 2), object_id=-900 if uid == 1 else None)

    def maybe(*seen: tuple[int, int, int | None], role: Role = Role.JUNK, touchpoint: str = T) -> set[int]:
        return room.store.read(locations.maybe_known, touchpoint, role, list(seen)).result(5)

    assert maybe(*((number, outline, None) for number, outline in enumerate(outlines))) == {0, 1, 2, 3}
    assert maybe((1, 0xFFFFFFFF, None), (2, 0x80000000, None)) == {1, 2}, "unsigned will do"
    assert maybe((1, 4, None), (2, 6, None), (3, 0, None)) == set()
    assert maybe((1, 4, -900), (2, 4, 901)) == {1}
    assert maybe((1, 5, -900), role=Role.SENT) == set()
    assert maybe((1, 5, -900), touchpoint="sales") == set()


def test_the_places_of_a_key_in_a_folder_can_be_asked_for(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11)
    room.arrive(inbox, 2, 11, object_id=500)
    room.arrive(inbox, 3, 12)
    here = lambda *keys: room.store.read(locations.here, inbox, keys).result(5)  # noqa: E731
    assert here((11, None)) == [1, 2]
    assert here((99, 500)) == [2]
    assert here((12, None), (0, None)) == [3]
    assert room.store.read(locations.here, ELSEWHERE, [(11, None)]).result(5) == []


# --- out of Junk -----------------------------------------------------------------------------------------------------


def test_out_of_junk_is_released_whoever_sees_it_first(room: Postroom, inbox: Place) -> None:
    for uid, seen in ((1, "relocate"), (2, "arrive"), (3, "relist")):
        message = room.arrive(JUNK, uid, 10 + uid, role=Role.JUNK)
        found = room.route(message, f"<{uid}@c>", verdict=JUNK_VERDICT)
        assert room.show(message)["state"] == "quarantined"
        if seen == "relocate":
            room.relocate(inbox, (uid, 10 + uid))
        elif seen == "arrive":
            room.take(room.item(inbox, uid, 10 + uid))
        else:
            room.relist(Place(T, "INBOX", 8), (1, 11), (2, 12), (3, 13))
        shown = room.show(message)
        assert (shown["state"], shown["queues"]) == ("open", ["support"]), seen
        assert shown["messages"][0]["quarantined"] is False
        assert found.conversation


def test_what_lists_or_rules_keep_in_quarantine_stays_there(room: Postroom, inbox: Place) -> None:
    message = room.arrive(JUNK, 1, 11, role=Role.JUNK)
    room.route(message, "<a@c>", verdict=replace(JUNK_VERDICT, junk_alone=False))
    room.relocate(inbox, (1, 11))
    assert room.show(message)["state"] == "quarantined"


def test_what_the_provider_puts_into_junk_later_stays_in_its_queue(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11)
    room.route(message, "<a@c>")
    assert room.relocate(JUNK, (1, 11), role=Role.JUNK) == {1}
    assert room.show(message)["state"] == "open"


def test_out_of_junk_before_it_was_judged_it_is_judged_as_any_mail(room: Postroom, inbox: Place) -> None:
    message = room.arrive(JUNK, 1, 11, role=Role.JUNK)
    loaded = lambda: room.store.read(queues.load_unrouted, [message]).result(5)[0].junk  # noqa: E731
    assert loaded() is True
    room.relocate(inbox, (1, 11))
    assert loaded() is False
    room.route(message, "<a@c>", verdict=JUNK_VERDICT)  # by who had looked before
    assert room.show(message)["state"] == "open"
    assert room.rows("SELECT quarantine FROM message") == [(0,)]


def test_a_release_by_hand_at_the_provider_spares_ours(room: Postroom, inbox: Place) -> None:
    message = room.arrive(JUNK, 1, 11, role=Role.JUNK)
    room.route(message, "<a@c>", verdict=JUNK_VERDICT)
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    assert room.rows("SELECT action FROM filing") == [("release",)]
    room.relocate(inbox, (1, 11))
    assert room.rows("SELECT action FROM filing") == []


# --- a change of UIDVALIDITY -----------------------------------------------------------------------------------------


def test_a_renumbered_folder_knows_also_what_came_from_elsewhere(room: Postroom, inbox: Place) -> None:
    message = room.arrive(ELSEWHERE, 3, 11)
    assert room.relist(Place(T, "INBOX", 8), (40, 11), (41, 12)) == (1, 1, 0)
    assert room.places(message) == [("Elsewhere", 9, 3), ("INBOX", 8, 40)]


def test_stretches_that_are_left_alone_get_their_new_numbers(room: Postroom) -> None:
    room.watch(cursor=50, history_from=NOW, left=((1, 50),), skipped=4)
    new = Place(T, "INBOX", 8)
    for _ in range(2):  # it was cut off, and begins again
        relisted = room.relist(new, (1, 21), (2, 22), (5, 23), at=NOW - 1, last=False)
    assert relisted == (0, 0, 0), "these are known to be left alone"
    assert room.relist(new, (6, 24), at=NOW - 1) == (0, 0, 1)
    assert room.left(new) == [(1, 2), (5, 6)]
    assert room.left(Place(T, "INBOX", 7)) == []


@pytest.mark.parametrize(
    ("skipped", "left"), [(2, ((1, 50),)), (9, ((7, 7), (9, 9)))], ids=["so many were there", "so many are there"]
)
def test_no_more_is_left_alone_than_was_before(room: Postroom, skipped: int, left: tuple[tuple[int, int], ...]) -> None:
    """Somebody has moved old letters into the folder; they are above the others, and new to us."""
    room.watch(cursor=50, history_from=NOW, left=left, skipped=skipped)
    new = Place(T, "INBOX", 8)
    assert room.relist(new, (1, 21), at=NOW - 1, last=False) == (0, 0, 1)
    assert room.relist(new, (2, 22), (3, 23), at=NOW - 1) == (0, 1, 1)
    assert room.owed(new) == [(3, 0)]


@pytest.mark.parametrize(
    ("history_from", "skipped", "at"),
    [(NOW, 0, NOW - 100), (0, 3, -1)],
    ids=["the folder was empty", "all is wanted, also from before 1970"],
)
def test_where_nothing_was_left_nothing_is_left(room: Postroom, history_from: int, skipped: int, at: int) -> None:
    room.watch(history_from=history_from, skipped=skipped)
    new = Place(T, "INBOX", 8)
    assert room.relist(new, (6, 66), at=at) == (0, 1, 0)


def test_what_is_owed_stays_owed_under_its_new_number(room: Postroom) -> None:
    """Old letters that somebody has moved in; one has been tried, of the other nobody knows how large it is."""
    place = room.watch(cursor=50, history_from=NOW, left=((1, 50),))
    new = Place(T, "INBOX", 8)
    debts = (owed.Owed(51, 100, "NO", 1, NOW), owed.Owed(52, 0, "surfaced late", 0, NOW))
    room.store.submit(owed.pass_over, owed.Passage(*place, 50, 52, debts, (), NOW)).result(5)
    seen = [Sighting(uid, uid, None, 100 if uid == 4 else 200, NOW - 1) for uid in range(1, 6)]
    relisting = locations.Relisting(new, Role.QUEUE, tuple(seen), True, 5, NOW)
    assert room.store.submit(locations.relist, relisting).result(5) == locations.Relisted(0, 3, 2)
    assert room.left(new) == [(1, 2)]


def test_a_relisting_that_comes_late_turns_nothing_back(room: Postroom) -> None:
    room.watch(cursor=5, history_from=NOW, left=((1, 5),))
    new = Place(T, "INBOX", 8)
    room.relist(new, (1, 1), (2, 2), at=NOW - 1)
    room.take(room.item(new, 3, 33, follows=2))
    room.change("UPDATE folder SET modseq = 99")
    assert room.relist(new, (1, 1), (2, 2), (4, 4), at=NOW - 1) == (0, 1, 0)
    assert room.cursor(new) == 3
    assert room.rows("SELECT modseq FROM folder") == [(99,)]
    assert (room.left(new), room.owed(new)) == ([(1, 2)], [(4, 0)])


def test_a_sighting_that_comes_twice_is_owed_once(room: Postroom, inbox: Place) -> None:
    assert room.relist(Place(T, "INBOX", 8), (40, 11), (40, 11)) == (0, 1, 0)


def test_the_changes_of_the_old_numbers_mean_nothing(room: Postroom, inbox: Place) -> None:
    room.change("UPDATE folder SET modseq = 99")
    room.relist(Place(T, "INBOX", 8), (1, 11))
    assert room.rows("SELECT modseq FROM folder WHERE folder = 'INBOX'") == [(None,)]


# --- placeholders move, too ------------------------------------------------------------------------------------------

OUTLINE = 77 << 32


def placeholder(room: Postroom, inbox: Place, kind: Placeholder, key: int) -> int:
    debt = owed.Owed(1, 9_000, "NO", 4, NOW + 5)
    room.store.submit(owed.pass_over, owed.Passage(*inbox, 0, 1, (debt,), (), NOW)).result(5)
    return room.arrive(inbox, 1, key, placeholder=kind)


def test_a_placeholder_that_moves_is_owed_at_its_new_place(room: Postroom, inbox: Place) -> None:
    message = placeholder(room, inbox, Placeholder.HEADED, 11)
    assert room.relocate(ELSEWHERE, (5, 11)) == set(), "its message may be fetched here"
    assert room.owed(inbox) == []
    assert room.owed(ELSEWHERE) == [(5, 4)]
    assert room.relocate(inbox, gone=(1,)) == set()
    assert room.places(message) == [("Elsewhere", 9, 5)]


def test_a_placeholder_that_moves_within_its_folder_takes_its_debt_along(room: Postroom, inbox: Place) -> None:
    placeholder(room, inbox, Placeholder.HEADED, 11)
    room.relocate(inbox, (2, 11), gone=(1,))
    assert room.owed(inbox) == [(2, 4)]


def test_a_placeholder_whose_debt_is_forgotten_is_owed_anew_where_it_turns_up(room: Postroom, inbox: Place) -> None:
    placeholder(room, inbox, Placeholder.HEADED, 11)
    room.relocate(inbox, gone=(1,))
    assert room.owed(inbox) == []
    room.relocate(ELSEWHERE, (5, 11))
    assert room.owed(ELSEWHERE) == [(5, 1)]


def test_a_message_that_never_showed_its_header_is_known_by_size_and_time(room: Postroom, inbox: Place) -> None:
    message = placeholder(room, inbox, Placeholder.BLIND, OUTLINE | 1)
    new = Place(T, "INBOX", 8)
    assert room.relist(new, (40, OUTLINE | 2), (41, OUTLINE | 3), (42, OUTLINE + (1 << 32))) == (1, 2, 0)
    assert room.places(message) == [("INBOX", 8, 40)]
    assert room.owed(new) == [(40, 4), (41, 0), (42, 0)]


def test_by_size_and_time_it_is_known_in_another_folder_and_judged_there(room: Postroom, inbox: Place) -> None:
    message = placeholder(room, inbox, Placeholder.BLIND, OUTLINE | 1)
    room.route(message)
    assert room.relocate(ELSEWHERE, (5, OUTLINE | 2)) == set()
    assert room.places(message) == [("Elsewhere", 9, 5)]
    (result,) = room.take(room.item(ELSEWHERE, 5, OUTLINE | 2))
    assert (result.id, result.kind) == (message, "new")


def test_a_guess_that_was_wrong_loses_neither(room: Postroom, inbox: Place) -> None:
    """Another message of the same size and second comes, while the one without a header lies where it lay."""
    message = placeholder(room, inbox, Placeholder.BLIND, OUTLINE | 1)
    room.relocate(ELSEWHERE, (5, OUTLINE | 2))
    assert room.owed(inbox) == [(1, 4)], "it is still there and still owed"
    room.take(room.item(ELSEWHERE, 5, OUTLINE | 2))
    (result,) = room.take(room.item(inbox, 1, OUTLINE | 3))
    assert result.kind == "new"
    assert result.id != message
    assert room.owed(inbox) == room.owed(ELSEWHERE) == []


def test_other_ids_are_no_likeness(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, OUTLINE | 1, placeholder=Placeholder.BLIND, object_id=5)
    relocation = Relocation(ELSEWHERE, Role.QUEUE, (Sighting(5, OUTLINE | 2, 6, 1, NOW),), (), NOW)
    room.store.submit(locations.relocate, relocation).result(5)
    assert room.owed(ELSEWHERE) == []
