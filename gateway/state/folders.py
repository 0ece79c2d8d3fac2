"""Watched folders at the provider: what each is to us, where its history begins, how far we have come.

The cursor of a folder is the highest UID below which nothing is unaccounted for: every UID up to it has been taken,
lies in `unfetched`, is left alone, or had vanished. It moves in the transaction that accounts for the UID, and only
along the chain of the listing (`follows`): when one message of a batch fails to be written and a later one succeeds,
the cursor stays before the gap, and the gap is listed again.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.model import Role
from gateway.state.rows import insert_many
from gateway.state.store import each

_COLUMNS: Final = (
    "touchpoint, folder, uidvalidity, cursor, skipped, first_watched_at, history_from, role, modseq, reconciled_at"
)
_UNFETCHED: Final = (
    "INSERT INTO unfetched (touchpoint, folder, uidvalidity, uid, size, reason, tries, first_at, next_at)"
)
_LEFT: Final = "INSERT INTO left_alone (touchpoint, folder, uidvalidity, low, high)"

HISTORY: Final = "history"  # the reason why these are owed

Range = tuple[int, int]  # of UIDs, both ends in it


class Place(NamedTuple):
    """A folder under one UIDVALIDITY: where a UID means something."""

    touchpoint: str
    folder: str
    uidvalidity: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A watched folder. `skipped`: how many messages were there and older than the history when the watch began.

    `history_from`: milliseconds; after a change of UIDVALIDITY, mail with an older INTERNALDATE that we do not know
    is taken for what was skipped at the beginning, but no more of it than was. `modseq`: up to this one all changes
    have been looked at, None where the server counts none (RFC 7162). `reconciled_at`: milliseconds.
    """

    touchpoint: str
    folder: str
    uidvalidity: int
    cursor: int
    skipped: int
    first_watched_at: int
    history_from: int
    role: Role = Role.QUEUE
    modseq: int | None = None
    reconciled_at: int | None = None

    @property
    def place(self) -> Place:
        return Place(self.touchpoint, self.folder, self.uidvalidity)


def find_folder(db: sqlite3.Connection, touchpoint: str, folder: str) -> Folder | None:
    """Return what is known of a folder, or None when it was never watched."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM folder WHERE touchpoint = ? AND folder = ?", (touchpoint, folder)
    ).fetchone()
    if row is None:
        return None
    touchpoint, folder, uidvalidity, cursor, skipped, first_watched_at, history_from, role, *noted = row
    return Folder(touchpoint, folder, uidvalidity, cursor, skipped, first_watched_at, history_from, Role(role), *noted)


@dataclass(frozen=True, slots=True)
class Opening:
    """A folder that is watched for the first time. `wanted`: UIDs up to the cursor that belong to its history;
    `left`: stretches of UIDs that do not.
    """

    folder: Folder
    wanted: tuple[int, ...] = ()
    left: tuple[Range, ...] = ()


@each
def open_folder(db: sqlite3.Connection, opening: Opening) -> Folder:
    """Record where the history of a folder begins, unless that is known already; return what stands."""
    folder = opening.folder
    if (known := find_folder(db, folder.touchpoint, folder.folder)) is not None:
        return known
    db.execute(
        f"INSERT INTO folder ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *folder.place,
            folder.cursor,
            folder.skipped,
            folder.first_watched_at,
            folder.history_from,
            folder.role.value,
            folder.modseq,
            folder.reconciled_at,
        ),
    )
    at = folder.first_watched_at
    insert_many(db, _UNFETCHED, [(*folder.place, uid, 0, HISTORY, 0, at, at) for uid in opening.wanted])
    leave_alone(db, folder.place, opening.left)
    return folder


@each
def note_modseq(db: sqlite3.Connection, noted: tuple[Place, int | None]) -> None:
    """Record up to which MODSEQ the changes of a folder have been looked at; None where the server counts none now."""
    place, modseq = noted
    db.execute("UPDATE folder SET modseq = ? WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?", (modseq, *place))


@each
def note_reconciled(db: sqlite3.Connection, noted: tuple[Place, int]) -> None:
    """Record when (milliseconds) a folder has been compared with the ledger from its first UID to its last."""
    place, at = noted
    db.execute(
        "UPDATE folder SET reconciled_at = ? WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?", (at, *place)
    )


# --- for use inside other operations ---------------------------------------------------------------------------------


def rules(db: sqlite3.Connection, place: Place) -> bool:
    """Is this the UIDVALIDITY in which the folder counts?"""
    found = "SELECT 1 FROM folder WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
    return db.execute(found, place).fetchone() is not None


def move_cursor(db: sqlite3.Connection, place: Place, steps: Iterable[tuple[int, int]]) -> None:
    """Move the cursor along `steps` (follows, uid) as far as they join up."""
    row = db.execute(
        "SELECT cursor FROM folder WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?", place
    ).fetchone()
    if row is None:
        return  # another UIDVALIDITY rules by now; the new listing accounts for these
    before = cursor = row[0]
    for follows, uid in sorted(steps):
        if follows <= cursor < uid:
            cursor = uid
    if cursor != before:
        db.execute("UPDATE folder SET cursor = ? WHERE touchpoint = ? AND folder = ?", (cursor, *place[:2]))


def located(db: sqlite3.Connection, place: Place, uids: Collection[int]) -> dict[int, int]:
    """Return the messages that lie at `uids`, by UID."""
    rows = db.execute(
        "SELECT uid, message FROM location WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
        " AND uid IN (SELECT value FROM json_each(?))",
        (*place, json.dumps(list(uids))),
    )
    return dict(rows)


def known_uids(
    db: sqlite3.Connection, touchpoint: str, folder: str, uidvalidity: int, uids: Collection[int]
) -> set[int]:
    """Return those of `uids` whose messages we have."""
    return set(located(db, Place(touchpoint, folder, uidvalidity), uids))


def leave_alone(db: sqlite3.Connection, place: Place, ranges: Iterable[Range]) -> None:
    """Record stretches of UIDs that are none of ours; what meets or touches becomes one stretch."""
    at = "touchpoint = ? AND folder = ? AND uidvalidity = ?"
    for low, high in joined(ranges):
        # Stretches never overlap, so of those that begin lower only the last one can reach as far as here
        beside = db.execute(
            f"SELECT low, high FROM (SELECT low, high FROM left_alone WHERE {at} AND low <= ? ORDER BY low DESC"
            f" LIMIT 1) WHERE high >= ? UNION ALL SELECT low, high FROM left_alone WHERE {at} AND low > ? AND low <= ?",
            (*place, low, low - 1, *place, low, high + 1),
        ).fetchall()
        db.executemany(f"DELETE FROM left_alone WHERE {at} AND low = ?", [(*place, one[0]) for one in beside])
        whole = (
            (min(low, *(one[0] for one in beside)), max(high, *(one[1] for one in beside))) if beside else (low, high)
        )
        insert_many(db, _LEFT, [(*place, *whole)])


def left_between(db: sqlite3.Connection, place: Place, low: int, high: int) -> list[Range]:
    """Return the stretches left alone that have a UID in [low, high], in order."""
    at = "touchpoint = ? AND folder = ? AND uidvalidity = ?"
    rows = db.execute(
        f"SELECT low, high FROM (SELECT low, high FROM left_alone WHERE {at} AND low < ? ORDER BY low DESC LIMIT 1)"
        f" WHERE high >= ? UNION ALL SELECT low, high FROM left_alone WHERE {at} AND low >= ? AND low <= ?",
        (*place, low, low, *place, low, high),
    )
    return sorted(rows)


def left_among(db: sqlite3.Connection, place: Place, uids: Sequence[int]) -> set[int]:
    """Return those of `uids` (ascending) that are left alone."""
    ranges = left_between(db, place, uids[0], uids[-1]) if uids else []
    lows = [low for low, _ in ranges]
    return {uid for uid in uids if (number := bisect_right(lows, uid)) and uid <= ranges[number - 1][1]}


def count_left(db: sqlite3.Connection, place: Place) -> int:
    """Return how many UIDs are left alone."""
    (count,) = db.execute(
        "SELECT coalesce(sum(high - low + 1), 0) FROM left_alone WHERE touchpoint = ? AND folder = ?"
        " AND uidvalidity = ?",
        place,
    ).fetchone()
    return int(count)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the same UIDs in as few stretches as they need, in order."""
    whole: list[Range] = []
    for low, high in sorted(ranges):
        if low > high:
            continue
        if whole and low <= whole[-1][1] + 1:
            whole[-1] = whole[-1][0], max(high, whole[-1][1])
        else:
            whole.append((low, high))
    return whole
