"""Folders, locations and the cursor: nothing jumped over, nothing twice, everything in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Arrival, Location, Role
from gateway.state import folders, locations, mailboxes, owed
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Relisting, Sighting
from gateway.state.mailboxes import NewArrival
from gateway.state.owed import Owed, Passage
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
PLACE = Place("support", "INBOX", 7)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


def opened(store: Store, cursor: int = 0, *, history_from: int = 0, wanted: tuple[int, ...] = ()) -> Folder:
    folder = Folder(*PLACE, cursor, 3, 1000, history_from)
    left = ((1, cursor),) if cursor and not wanted else ()
    return store.submit(folders.open_folder, Opening(folder, wanted, left)).result(5)


def arrival(store: Store, uid: int, follows: int, *, fingerprint: int = 0, uidvalidity: int = 7) -> NewArrival:
    raw = b"Subject: %d\r\n\r\n" % uid
    id = store.ids.next()
    location = Location("INBOX", uidvalidity, uid)
    taken = Arrival(id, "support", location, AT, AT, raw, follows, fingerprint or uid)
    return NewArrival(taken, ((chunk_key(id, 0), raw),))


def take(store: Store, *items: NewArrival) -> list[bool]:
    """Hand in all at once; return for each whether it was new."""
    tickets = [store.submit(mailboxes.arrive, item) for item in items]
    return [ticket.result(5).id is not None for ticket in tickets]


def cursor(store: Store) -> int:
    folder = store.read(folders.find_folder, "support", "INBOX").result(5)
    assert folder is not None
    return folder.cursor


def rows(store: Store, sql: str) -> list[Any]:
    def read(db: sqlite3.Connection) -> list[Any]:
        return db.execute(sql).fetchall()

    return store.read(read).result(5)


def passage(follows: int, upto: int, *owed: Owed, gone: tuple[int, ...] = ()) -> Passage:
    return Passage(*PLACE, follows, upto, owed, gone, 1000)


def test_a_folder_is_opened_once(store: Store) -> None:
    assert store.read(folders.find_folder, "support", "INBOX").result(5) is None
    first = opened(store, 50)
    again = store.submit(folders.open_folder, Opening(Folder(*PLACE, 99, 0, 2000, 2000), (1, 2))).result(5)
    assert again == first
    assert rows(store, "SELECT * FROM unfetched") == []


def test_an_arrival_is_bytes_message_location_and_cursor_together(store: Store) -> None:
    opened(store)
    assert take(store, arrival(store, 5, 0)) == [True]
    assert cursor(store) == 5
    assert rows(store, "SELECT state, tries, size, touchpoint FROM message") == [("arrived", 1, 14, "support")]
    assert rows(store, "SELECT touchpoint, folder, uidvalidity, uid FROM location") == [(*PLACE, 5)]
    assert rows(store, "SELECT bytes FROM chunk") == [(b"Subject: 5\r\n\r\n",)]


def test_a_location_that_is_known_writes_nothing(store: Store) -> None:
    opened(store)
    take(store, arrival(store, 5, 0))
    assert take(store, arrival(store, 5, 0), arrival(store, 6, 5), arrival(store, 6, 5)) == [False, True, False]
    assert len(rows(store, "SELECT * FROM chunk")) == len(rows(store, "SELECT * FROM message")) == 2


def test_three_hundred_at_once_are_three_hundred(store: Store) -> None:
    opened(store)
    assert all(take(store, *(arrival(store, uid, uid - 1) for uid in range(1, 301))))
    assert cursor(store) == 300
    assert len(rows(store, "SELECT * FROM location")) == 300


def test_the_cursor_does_not_jump_over_a_message_that_failed(store: Store) -> None:
    opened(store)
    bad = arrival(store, 2, 1)
    twin = arrival(store, 1, 0)
    poisoned = NewArrival(bad.arrival, twin.chunks)  # a chunk's key twice: SQLite refuses it
    tickets = [store.submit(mailboxes.arrive, item) for item in (twin, poisoned, arrival(store, 3, 2))]
    assert tickets[0].result(5).id
    with pytest.raises(sqlite3.IntegrityError):
        tickets[1].result(5)
    assert tickets[2].result(5).id
    assert cursor(store) == 1
    assert store.read(folders.known_uids, *PLACE, [1, 2, 3]).result(5) == {1, 3}
    take(store, bad)
    assert cursor(store) == 2
    store.submit(owed.pass_over, passage(2, 3)).result(5)
    assert cursor(store) == 3


def test_an_arrival_under_another_uidvalidity_moves_no_cursor(store: Store) -> None:
    opened(store, 4)
    take(store, arrival(store, 9, 4, uidvalidity=6))
    assert cursor(store) == 4


def test_what_is_passed_over_is_owed_in_the_same_step(store: Store) -> None:
    opened(store)
    store.submit(owed.pass_over, passage(0, 3, Owed(2, 50, "NO", 1, 5000), Owed(3, 9, "large", 1, None))).result(5)
    assert cursor(store) == 3
    assert store.read(owed.count_owed, "support").result(5) == 2
    due = store.read(owed.owed_now, PLACE, 4999, 8, 10).result(5)
    assert due == ()
    due = store.read(owed.owed_now, PLACE, 5000, 8, 10).result(5)
    assert [one.uid for one in due] == [2]
    due = store.read(owed.owed_now, PLACE, 0, 9, 10).result(5)  # the limit was raised
    assert [one.uid for one in due] == [3]


def test_a_debt_is_settled_by_the_arrival_or_the_departure(store: Store) -> None:
    opened(store, 3, wanted=(1, 2, 3))
    assert [one.uid for one in store.read(owed.owed_now, PLACE, 1000, 0, 10).result(5)] == [1, 2, 3]
    take(store, arrival(store, 2, 2))
    store.submit(owed.pass_over, passage(0, 0, Owed(3, 8, "NO", 2, 9000), gone=(1,))).result(5)
    assert rows(store, "SELECT uid, tries, first_at, next_at FROM unfetched") == [(3, 2, 1000, 9000)]
    assert cursor(store) == 3


# --- a change of UIDVALIDITY -----------------------------------------------------------------------------------------


def relist(store: Store, *sightings: tuple[int, int], last: bool = True, at: int = 5000, upto: int = 0) -> Any:
    listing = Relisting(
        Place("support", "INBOX", 8),
        Role.QUEUE,
        tuple(Sighting(uid, print_, None, 100, at) for uid, print_ in sightings),
        last,
        upto or max((uid for uid, _ in sightings), default=0),
        6000,
    )
    relisted = store.submit(locations.relist, listing).result(5)
    return relisted.moved, relisted.new, relisted.left


def places(store: Store) -> list[Any]:
    return rows(store, "SELECT uidvalidity, uid, message FROM location ORDER BY uidvalidity, uid")


def test_known_messages_get_their_new_numbers(store: Store) -> None:
    opened(store)
    take(store, arrival(store, 1, 0, fingerprint=11), arrival(store, 2, 1, fingerprint=12))
    (_, _, first), (_, _, second) = places(store)
    assert relist(store, (40, 12), (41, 11)) == (2, 0, 0)
    assert places(store) == [(8, 40, second), (8, 41, first)]
    folder = store.read(folders.find_folder, "support", "INBOX").result(5)
    assert folder is not None
    assert (folder.uidvalidity, folder.cursor, folder.skipped) == (8, 41, 3)


def test_twins_count(store: Store) -> None:
    opened(store)
    take(store, arrival(store, 1, 0, fingerprint=11), arrival(store, 2, 1, fingerprint=11))
    assert relist(store, (40, 11), (41, 11), (42, 11)) == (2, 1, 0)
    assert rows(store, "SELECT uid FROM unfetched") == [(42,)]


def test_what_is_new_is_owed_and_what_is_old_is_left(store: Store) -> None:
    opened(store, 9, history_from=3000)
    assert relist(store, (40, 1), at=2999, last=False) == (0, 0, 1)
    assert relist(store, (41, 2), at=3000) == (0, 1, 0)
    assert rows(store, "SELECT uidvalidity, uid, tries FROM unfetched") == [(8, 41, 0)]


def test_a_relisting_that_was_cut_short_begins_again_without_doubling(store: Store) -> None:
    opened(store)
    take(store, *(arrival(store, uid, uid - 1, fingerprint=11) for uid in (1, 2)))
    assert relist(store, (40, 11), (41, 99), last=False) == (1, 1, 0)
    assert cursor(store) == 2  # still the old numbers
    assert relist(store, (40, 11), (41, 99), last=False) == (0, 0, 0)
    assert relist(store, (42, 11)) == (1, 0, 0)
    assert [place[:2] for place in places(store)] == [(8, 40), (8, 42)]
    assert rows(store, "SELECT uidvalidity, uid FROM unfetched") == [(8, 41)]


def test_what_is_gone_lies_nowhere_and_stays_known(store: Store) -> None:
    opened(store)
    store.submit(owed.pass_over, passage(0, 1, Owed(1, 50, "NO", 1, 5000))).result(5)
    take(store, arrival(store, 2, 1))
    assert relist(store, upto=77) == (0, 0, 0)
    assert places(store) == []
    assert rows(store, "SELECT * FROM unfetched") == []
    assert len(rows(store, "SELECT * FROM message")) == 1
    assert cursor(store) == 77


def test_other_touchpoints_mail_is_not_ours(store: Store) -> None:
    opened(store)
    theirs = Folder("sales", "INBOX", 7, 0, 0, 1000, 0)
    store.submit(folders.open_folder, Opening(theirs)).result(5)
    item = arrival(store, 1, 0, fingerprint=11)
    moved = Arrival(
        item.arrival.id, "sales", item.arrival.location, AT, AT, item.arrival.raw, follows=0, fingerprint=11
    )
    take(store, NewArrival(moved, item.chunks))
    assert relist(store, (40, 11)) == (0, 1, 0)
