"""A touchpoint's lane: open, paused until a time, or held with a cause. One row; no row means open.

The rows of the recipients are never rewritten for what happens to the lane: they stay due, and a lane that opens
again finds them so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.state.lifecycle import PERSON, LaneEvent, LaneState, move_lane

_COLUMNS: Final = "touchpoint, state, cause, detail, since_at, until_at, probes"


@dataclass(frozen=True, slots=True)
class Lane:
    """`until_at` (ms): when a paused or held lane is tried again; None while open, and while a person holds it.

    `probes`: failures since it was last open. `since_at` (ms): when it left the state it was in before.
    """

    touchpoint: str
    state: LaneState = LaneState.OPEN
    cause: str | None = None
    detail: str | None = None
    since_at: int = 0
    until_at: int | None = None
    probes: int = 0

    @property
    def is_open(self) -> bool:
        return self.state is LaneState.OPEN

    def may_probe(self, now: int) -> bool:
        """Return whether one message may be tried on a lane that is not open."""
        return self.until_at is not None and self.until_at <= now

    def put_off(self, until_at: int) -> Lane:
        """Return the same lane, to be tried again at `until_at` (ms)."""
        return replace(self, until_at=until_at)

    def after(self, change: Change) -> Lane:
        """Return the lane after `change`. A pause or hold that repeats itself climbs the ladder of its delays."""
        state, by_person = move_lane(self.state, self.cause, change.event)
        if state is LaneState.OPEN:
            return Lane(self.touchpoint, since_at=self.since_at if self.is_open else change.at)
        if by_person:
            if change.event is not LaneEvent.PERSON_HOLDS:
                return self
            return Lane(self.touchpoint, state, PERSON, change.detail, change.at, None, 0)
        kept = self.state is LaneState.HELD and change.event is LaneEvent.PAUSE
        cause, detail = (self.cause, self.detail) if kept else (change.cause, change.detail)
        same = (self.state, self.cause) == (state, cause)
        probes = self.probes + 1 if same else 1
        until_at = change.until
        if until_at is None:
            until_at = change.at + change.delays[min(probes, len(change.delays)) - 1]
        return Lane(self.touchpoint, state, cause, detail, self.since_at if same else change.at, until_at, probes)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to a lane. `at`: ms. `delays`: ms, the ladder until it is tried again. `until` (ms): when
    the provider said that it may be tried again; it is worth more than the ladder.
    """

    touchpoint: str
    event: LaneEvent
    at: int
    cause: str | None = None
    detail: str | None = None
    delays: tuple[int, ...] = (5 * 60_000,)
    until: int | None = None


def look(db: sqlite3.Connection, touchpoints: Collection[str]) -> dict[str, Lane]:
    """Return the lanes of these touchpoints; a lane without a row is open."""
    marks = ", ".join("?" * len(touchpoints))
    rows = db.execute(f"SELECT {_COLUMNS} FROM lane WHERE touchpoint IN ({marks})", tuple(touchpoints))
    known = {row[0]: _lane(row) for row in rows}
    return {touchpoint: known.get(touchpoint) or Lane(touchpoint) for touchpoint in touchpoints}


def look_at_all(db: sqlite3.Connection) -> dict[str, Lane]:
    """Return every lane that has a row."""
    return {row[0]: _lane(row) for row in db.execute(f"SELECT {_COLUMNS} FROM lane")}


def change(db: sqlite3.Connection, changes: Sequence[Change]) -> Sequence[Lane]:
    """Operation: apply the changes in their order; return the lane after each."""
    lanes = look(db, {change.touchpoint for change in changes})
    results = []
    for each in changes:
        lanes[each.touchpoint] = lane = lanes[each.touchpoint].after(each)
        results.append(lane)
    write(db, lanes.values())
    return results


def try_now(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> Sequence[None]:
    """Operation: let a lane that is paused, or held by the provider, be tried at once (item: touchpoint and now in
    ms), because something has changed on our side. A lane that a person holds stays held."""
    lanes = look(db, {touchpoint for touchpoint, _ in items})
    for touchpoint, now in items:
        lane = lanes[touchpoint]
        if lane.until_at is not None and lane.until_at > now:
            lanes[touchpoint] = lane.put_off(now)
            write(db, [lanes[touchpoint]])
    return [None] * len(items)


def write(db: sqlite3.Connection, lanes: Iterable[Lane]) -> None:
    db.executemany(
        f"INSERT OR REPLACE INTO lane ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (lane.touchpoint, lane.state.value, lane.cause, lane.detail, lane.since_at, lane.until_at, lane.probes)
            for lane in lanes
        ],
    )


def _lane(row: tuple[Any, ...]) -> Lane:
    return Lane(row[0], LaneState(row[1]), *row[2:])
