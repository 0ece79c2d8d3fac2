"""Arrivals, the first transaction of a message (DESIGN §4): its bytes, where it lies, how far the folder has come.

After it the message is ours. What lies where we have seen it before, or is known under another UID, is no second
message; what a placeholder stands for takes its place.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.model import Arrival, Placeholder, to_ms
from gateway.state import filings, matching, owed, placeholders, raw
from gateway.state.folders import Place, move_cursor
from gateway.state.matching import Known, Matcher
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many

_MESSAGES: Final = (
    "INSERT INTO message (id, touchpoint, origin, state, tries, size, internal_at, arrived_at, fingerprint, object_id,"
    " placeholder, stands_for)"
)
_LOCATIONS: Final = "INSERT INTO location (touchpoint, folder, uidvalidity, uid, message)"

Kind = Literal["new", "known", "moved", "replaced"]


@dataclass(frozen=True, slots=True)
class NewArrival:
    """An arrival with its last chunk (`raw.stage` or `raw.Stage` has written the others)."""

    arrival: Arrival
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class ArrivalResult:
    """What an arrival was. Of `new` and `replaced` the bytes were written and `id` is that of the message, which is
    an earlier one where a placeholder made room; only what is new is to be routed. `known` by its location and
    `moved` from another one have no id, nor are their bytes written: give back what was staged.
    """

    id: int | None
    kind: Kind = "new"


def arrive(db: sqlite3.Connection, items: Sequence[NewArrival]) -> Sequence[ArrivalResult]:
    """Operation T1: bytes, message in state `arrived`, location, cursor; or what else the arrival turns out to be."""
    return _Arriving(db, items).results()


class _Arriving:
    """One batch of arrivals. Decides one by one, in order; writes what it can in one statement a table."""

    def __init__(self, db: sqlite3.Connection, items: Sequence[NewArrival]) -> None:
        self._db = db
        self._items = items
        self._by_place: dict[Place, list[NewArrival]] = defaultdict(list)
        for item in items:
            self._by_place[place_of(item.arrival)].append(item)
        self._at: dict[Place, dict[int, int]] = {}  # messages by place and UID
        self._owed: dict[Place, set[int]] = {}
        for place, group in self._by_place.items():
            uids = [item.arrival.location.uid for item in group]
            self._at[place], self._owed[place] = owed.look(db, place, uids)
        self._matcher = Matcher(
            db,
            [(item.arrival.fingerprint, item.arrival.object_id) for item in items],
            also={message for at in self._at.values() for message in at.values()},
        )
        self._chunks: list[Chunk] = []
        self._messages: list[tuple[object, ...]] = []
        self._locations: list[tuple[object, ...]] = []
        self._moved: list[tuple[NewArrival, Known]] = []
        self._replaced: dict[int, Known] = {}  # by the arrival's place in the batch
        self._filings: list[filings.Row] = []

    def results(self) -> list[ArrivalResult]:
        kinds = [self._decide(number, item) for number, item in enumerate(self._items)]
        self._write()
        results: list[ArrivalResult] = []
        for number, (item, kind) in enumerate(zip(self._items, kinds, strict=True)):
            if (known := self._replaced.get(number)) is not None:
                results.append(ArrivalResult(known.id, "new" if self._replace(item, known) else "replaced"))
            else:
                results.append(ArrivalResult(item.arrival.id if kind == "new" else None, kind))
        self._account()
        return results

    def _decide(self, number: int, item: NewArrival) -> Kind:
        arrival, place = item.arrival, place_of(item.arrival)
        uid = arrival.location.uid
        kind: Kind = "known"
        known: Known | None
        if (message := self._at[place].get(uid)) is not None:
            known = self._matcher.by_id.get(message)
        elif found := self._matcher.find(place, arrival.role, arrival.fingerprint, arrival.object_id):
            kind, known = "moved", found
            self._moved.append((item, known))
        else:
            kind, known = "new", self._begin(item, place)
        self._at[place][uid] = known.id if known is not None else arrival.id
        if known is not None and known.placeholder is not None:
            if kind == "new" or arrival.placeholder is not None:
                self._owed[place].discard(uid)  # it stays owed
            else:
                self._replaced[number] = known
                known.placeholder = None
                kind = "replaced"
        return kind

    def _begin(self, item: NewArrival, place: Place) -> Known | None:
        """Write a new message; return it where others of the batch may have to know it again."""
        arrival = item.arrival
        placeholder = None if arrival.placeholder is None else arrival.placeholder.value
        self._chunks.extend(item.chunks)
        self._messages.append(
            (
                arrival.id,
                arrival.touchpoint,
                arrival.role.value,
                "arrived",
                1,
                arrival.size,
                to_ms(arrival.internal_at),
                to_ms(arrival.arrived_at),
                arrival.fingerprint,
                arrival.object_id,
                placeholder,
                placeholders.place_text(place, arrival.location.uid) if placeholder == Placeholder.BLIND else None,
            )
        )
        self._locations.append((*place, arrival.location.uid, arrival.id))
        self._file(arrival.id, arrival)
        if len(self._by_place) == 1 and placeholder is None:
            return None  # equal ones in one folder are twins
        begun = Known(
            arrival.id, arrival.touchpoint, arrival.role.value, "arrived", arrival.fingerprint, arrival.object_id,
            placeholder, 0, {place[1:]},
        )  # fmt: skip
        self._matcher.add(begun)
        return begun

    def _file(self, message: int, arrival: Arrival) -> None:
        at = to_ms(arrival.arrived_at)
        self._filings.extend((message, one.action, arrival.touchpoint, one.target, at) for one in arrival.filings)

    def _replace(self, item: NewArrival, known: Known) -> bool:
        self._file(known.id, item.arrival)
        return placeholders.replace(self._db, known.id, item.arrival, item.chunks)

    def _write(self) -> None:
        raw.insert(self._db, self._chunks)
        insert_many(self._db, _MESSAGES, self._messages)
        insert_many(self._db, _LOCATIONS, self._locations)
        for item, known in self._moved:
            arrival = item.arrival
            moved = [(arrival.location.uid, known)]
            matching.settle(self._db, place_of(arrival), arrival.role, moved, to_ms(arrival.arrived_at))

    def _account(self) -> None:
        filings.add(self._db, self._filings)
        for place, group in self._by_place.items():
            owed.forget(self._db, place, self._owed[place])
            move_cursor(self._db, place, ((item.arrival.follows, item.arrival.location.uid) for item in group))


def place_of(arrival: Arrival) -> Place:
    return Place(arrival.touchpoint, arrival.location.folder, arrival.location.uidvalidity)
