"""The provider's UIDs against the ledger: what is there and not accounted for, what is accounted for and not there.

Every UID up to the cursor is located, owed or left alone. A server may show a message late, below UIDs that it
showed before; so the last thousand are compared at each poll, and all of them once a day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.state import owed, placeholders
from gateway.state.folders import Place, leave_alone, left_among, left_between, move_cursor
from gateway.state.store import each

LATE: Final = "surfaced late"  # the reason why these are owed
_IN_PLACE: Final = "touchpoint = ? AND folder = ? AND uidvalidity = ?"
_BETWEEN: Final = f"{_IN_PLACE} AND uid BETWEEN ? AND ?"


def recent_low(db: sqlite3.Connection, place: Place, count: int) -> int:
    """Return the UID where a listing of the last `count` messages begins, as far as the ledger knows them.

    A stretch that is left alone is not worth listing: where the count ends in one, the listing begins behind it.
    """
    recent = f"SELECT uid FROM location WHERE {_IN_PLACE} ORDER BY uid DESC LIMIT"
    stretches = db.execute(
        f"SELECT low, high FROM left_alone WHERE {_IN_PLACE} ORDER BY low DESC LIMIT ?", (*place, count)
    ).fetchall()
    last = db.execute(f"{recent} 1 OFFSET ?", (*place, count - 1)).fetchone()
    if last is not None and (not stretches or stretches[0][1] < last[0]):
        return int(last[0])  # mostly: all of them are ours
    uids = [uid for (uid,) in db.execute(f"{recent} ?", (*place, count))]
    passed = 0  # of uids
    for low, high in stretches:
        while passed < len(uids) and uids[passed] > high:
            passed, count = passed + 1, count - 1
            if not count:
                return int(uids[passed - 1])
        count -= high - low + 1
        if count <= 0:
            return int(high) + 1
    if len(uids) - passed >= count:
        return int(uids[passed + count - 1])
    covering = left_between(db, place, 1, 1)
    return covering[0][1] + 1 if covering else 1


@dataclass(frozen=True, slots=True)
class Accounting:
    """`present`: the UIDs in [low, high] that the server has, ascending; none was left out. `at`: milliseconds.

    `high` is not above the highest UID that was known when the server was asked.
    """

    place: Place
    low: int
    high: int
    present: tuple[int, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Accounted:
    """How many of the UIDs are there and ours (`known`), there and still to be fetched (`owed`), there and none of
    ours (`left`), there and a surprise (`late`: owed from now on), or not there although they were (`gone`).
    """

    known: int = 0
    owed: int = 0
    left: int = 0
    late: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class _Comparison:
    known: list[int]
    owed: list[int]
    left: list[int]
    late: list[int]
    gone: list[int]


def _compare(db: sqlite3.Connection, place: Place, low: int, high: int, present: Sequence[int]) -> _Comparison | None:
    """Compare. What is there above the cursor is no surprise: nobody has looked at it yet. None: the UIDs mean nothing
    any more.
    """
    row = db.execute(f"SELECT cursor FROM folder WHERE {_IN_PLACE}", place).fetchone()
    if row is None:
        return None
    cursor = row[0]
    within = (*place, low, high)
    ours = {uid for (uid,) in db.execute(f"SELECT uid FROM location WHERE {_BETWEEN}", within)}
    awaited = {uid for (uid,) in db.execute(f"SELECT uid FROM unfetched WHERE {_BETWEEN}", within)}
    within_reach = [uid for uid in present if low <= uid <= high]
    left = left_among(db, place, within_reach)
    found = _Comparison([], [], [], [], [])
    for uid in within_reach:
        if uid in awaited:
            found.owed.append(uid)
        elif uid in ours:
            found.known.append(uid)
        elif uid in left:
            found.left.append(uid)
        elif uid <= cursor:
            found.late.append(uid)
    found.gone.extend(sorted((ours | awaited) - set(present)))
    return found


def differs(db: sqlite3.Connection, place: Place, low: int, high: int, present: Sequence[int]) -> bool:
    """Would `account` change anything?"""
    found = _compare(db, place, low, high, present)
    return found is not None and bool(found.late or found.gone)


@each
def account(db: sqlite3.Connection, accounting: Accounting) -> Accounted:
    """Operation: what is there and was never accounted for is owed at once; what is not there lies there no more."""
    place = accounting.place
    found = _compare(db, place, accounting.low, accounting.high, accounting.present)
    if found is None:
        return Accounted()
    owed.owe(db, place, [(uid, 0) for uid in found.late], LATE, accounting.at)
    placeholders.stand_again(db, place, found.late)
    owed.forget(db, place, found.gone)
    owed.unlocate(db, place, found.gone)
    return Accounted(*(len(uids) for uids in (found.known, found.owed, found.left, found.late, found.gone)))


@dataclass(frozen=True, slots=True)
class Leaving:
    """UIDs that turned out to be none of our business; the cursor moves from `follows` to `upto`."""

    place: Place
    uids: tuple[int, ...]
    follows: int
    upto: int


@each
def leave(db: sqlite3.Connection, leaving: Leaving) -> None:
    """Operation: leave these alone from now on; they are owed no more."""
    owed.forget(db, leaving.place, leaving.uids)
    leave_alone(db, leaving.place, [(uid, uid) for uid in leaving.uids])
    move_cursor(db, leaving.place, [(leaving.follows, leaving.upto)])
