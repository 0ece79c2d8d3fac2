"""Watched folders at the provider: how far we have come, where each message lies, what is still owed.

The cursor of a folder is the highest UID below which nothing is owed: every UID up to it has been taken, lies in
`unfetched`, had vanished, or is older than the history that was asked for. It moves in the transaction that accounts
for the UID, and only along the chain of the listing (`follows`): when one message of a batch fails to be written and
a later one succeeds, the cursor stays before the gap, and the gap is listed again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Final

from gateway.model import Arrival, to_ms
from gateway.state import raw
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many
from gateway.state.store import each

_MESSAGES: Final = (
    "INSERT INTO message (id, touchpoint, state, tries, size, internal_at, arrived_at, fingerprint)"
)  # fmt: skip
_LOCATIONS: Final = "INSERT INTO location (touchpoint, folder, uidvalidity, uid, message)"
_UNFETCHED: Final = (
    "INSERT INTO unfetched (touchpoint, folder, uidvalidity, uid, size, reason, tries, first_at, next_at)"
)


# --- folders ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    """A watched folder. `skipped`: how many messages were there and older than the history when the watch began.

    `history_from`: milliseconds; after a change of UIDVALIDITY, mail with an older INTERNALDATE that we do not know
    is taken for what was skipped at the beginning.
    """

    touchpoint: str
    folder: str
    uidvalidity: int
    cursor: int
    skipped: int
    first_watched_at: int
    history_from: int


def find_folder(db: sqlite3.Connection, touchpoint: str, folder: str) -> Folder | None:
    """Return what is known of a folder, or None when it was never watched."""
    row = db.execute(
        "SELECT touchpoint, folder, uidvalidity, cursor, skipped, first_watched_at, history_from FROM folder"
        " WHERE touchpoint = ? AND folder = ?",
        (touchpoint, folder),
    ).fetchone()
    return Folder(*row) if row else None


@dataclass(frozen=True, slots=True)
class Opening:
    """A folder that is watched for the first time. `wanted`: UIDs up to the cursor that belong to its history."""

    folder: Folder
    wanted: tuple[int, ...] = ()


@each
def open_folder(db: sqlite3.Connection, opening: Opening) -> Folder:
    """Record where the history of a folder begins, unless that is known already; return what stands."""
    folder = opening.folder
    known = find_folder(db, folder.touchpoint, folder.folder)
    if known is not None:
        return known
    db.execute(
        "INSERT INTO folder (touchpoint, folder, uidvalidity, cursor, skipped, first_watched_at, history_from)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        astuple(folder),
    )
    place, at = (folder.touchpoint, folder.folder, folder.uidvalidity), folder.first_watched_at
    insert_many(db, _UNFETCHED, [(*place, uid, 0, "history", 0, at, at) for uid in opening.wanted])
    return folder


# --- arrivals (T1) ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewArrival:
    """An arrival with its last chunk (`raw.stage` has written the others)."""

    arrival: Arrival
    fingerprint: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class ArrivalResult:
    """`id` of the message that now exists, or None: this location was known, nothing was written."""

    id: int | None


_Place = tuple[str, str, int]  # touchpoint, folder, uidvalidity


def arrive(db: sqlite3.Connection, items: Sequence[NewArrival]) -> Sequence[ArrivalResult]:
    """Operation T1: bytes, message in state `arrived`, location, cursor. A known location is passed over."""
    places: dict[_Place, list[NewArrival]] = defaultdict(list)
    for item in items:
        places[_place_of(item.arrival)].append(item)
    known = {place: known_uids(db, *place, [item.arrival.location.uid for item in at]) for place, at in places.items()}

    chunks: list[Chunk] = []
    messages: list[tuple[object, ...]] = []
    locations: list[tuple[object, ...]] = []
    results: list[ArrivalResult] = []
    for item in items:
        arrival, place = item.arrival, _place_of(item.arrival)
        uid = arrival.location.uid
        if uid in known[place]:
            results.append(ArrivalResult(None))
            continue
        known[place].add(uid)
        chunks.extend(item.chunks)
        messages.append(
            (
                arrival.id,
                arrival.touchpoint,
                "arrived",
                1,
                len(arrival.raw),
                to_ms(arrival.internal_at),
                to_ms(arrival.arrived_at),
                item.fingerprint,
            )
        )
        locations.append((*place, uid, arrival.id))
        results.append(ArrivalResult(arrival.id))
    raw.insert(db, chunks)
    insert_many(db, _MESSAGES, messages)
    insert_many(db, _LOCATIONS, locations)
    for place, at in places.items():
        uids = [item.arrival.location.uid for item in at]
        _forget_unfetched(db, place, uids)
        _move_cursor(db, place, ((item.arrival.follows, item.arrival.location.uid) for item in at))
    return results


def known_uids(
    db: sqlite3.Connection, touchpoint: str, folder: str, uidvalidity: int, uids: Collection[int]
) -> set[int]:
    """Return those of `uids` whose messages we have."""
    place, wanted = (touchpoint, folder, uidvalidity), json.dumps(list(uids))
    rows = db.execute(
        "SELECT uid FROM location WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
        " AND uid IN (SELECT value FROM json_each(?))",
        (*place, wanted),
    )
    return {uid for (uid,) in rows}


def _place_of(arrival: Arrival) -> _Place:
    return arrival.touchpoint, arrival.location.folder, arrival.location.uidvalidity


def _move_cursor(db: sqlite3.Connection, place: _Place, steps: Iterable[tuple[int, int]]) -> None:
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


# --- what is owed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owed:
    """A message that is there and could not be fetched. `next_at`: when to try again; None: only a person can help."""

    uid: int
    size: int
    reason: str
    tries: int
    next_at: int | None


@dataclass(frozen=True, slots=True)
class Passage:
    """UIDs that need no fetching, or cannot be fetched now: the cursor moves from `follows` to `upto`.

    `owed` are those of them that are still there; they are tried again.
    """

    touchpoint: str
    folder: str
    uidvalidity: int
    follows: int
    upto: int
    owed: tuple[Owed, ...]
    gone: tuple[int, ...]
    at: int


@each
def pass_over(db: sqlite3.Connection, passage: Passage) -> None:
    """Move the cursor over UIDs that were not taken; what is owed is recorded in the same transaction."""
    place = (passage.touchpoint, passage.folder, passage.uidvalidity)
    for owed in passage.owed:
        db.execute(
            "INSERT INTO unfetched (touchpoint, folder, uidvalidity, uid, size, reason, tries, first_at, next_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size,"
            " reason = excluded.reason, tries = excluded.tries, next_at = excluded.next_at",
            (*place, owed.uid, owed.size, owed.reason, owed.tries, passage.at, owed.next_at),
        )
    if passage.gone:
        _forget_unfetched(db, place, passage.gone)
    _move_cursor(db, place, [(passage.follows, passage.upto)])


def owed_now(
    db: sqlite3.Connection, touchpoint: str, folder: str, uidvalidity: int, now_ms: int, largest: int, limit: int
) -> tuple[Owed, ...]:
    """Return what is due for another try, in order of UID; also what was too large and is not any more."""
    rows = db.execute(
        "SELECT uid, size, reason, tries, next_at FROM unfetched WHERE touchpoint = ? AND folder = ?"
        " AND uidvalidity = ? AND (next_at <= ? OR (next_at IS NULL AND size <= ?)) ORDER BY uid LIMIT ?",
        (touchpoint, folder, uidvalidity, now_ms, largest, limit),
    )
    return tuple(Owed(*row) for row in rows)


def count_owed(db: sqlite3.Connection, touchpoint: str) -> int:
    """Return how many messages of a touchpoint are at the provider and not here; `status` shows it as `unfetched`."""
    (count,) = db.execute("SELECT count(*) FROM unfetched WHERE touchpoint = ?", (touchpoint,)).fetchone()
    return int(count)


def _forget_unfetched(db: sqlite3.Connection, place: _Place, uids: Sequence[int]) -> None:
    db.execute(
        "DELETE FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
        " AND uid IN (SELECT value FROM json_each(?))",
        (*place, json.dumps(uids)),
    )


# --- a change of UIDVALIDITY -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sighting:
    """A message as the new listing shows it, without its body. `internal_at`: milliseconds."""

    uid: int
    fingerprint: int
    size: int
    internal_at: int


@dataclass(frozen=True, slots=True)
class Relisting:
    """A stretch of the folder under its new UIDVALIDITY, in order of UID; `last` ends it, with `upto` as cursor."""

    touchpoint: str
    folder: str
    uidvalidity: int
    sightings: tuple[Sighting, ...]
    last: bool
    upto: int
    at: int


@dataclass(frozen=True, slots=True)
class Relisted:
    """`moved`: known messages under new UIDs; `new`: to be fetched; `left`: older than the history, left alone."""

    moved: int
    new: int
    left: int


@each
def relist(db: sqlite3.Connection, listing: Relisting) -> Relisted:
    """Give known messages their new locations; what matches none is owed, unless it is older than the history.

    A fingerprint counts as often as it occurs: two equal messages here match two sightings, a third is new. The
    folder takes the new UIDVALIDITY with the last stretch; until then a crash starts the relisting again, and what
    was matched already is not matched twice. So nothing is lost, and nothing is fetched that we have.
    """
    old = find_folder(db, listing.touchpoint, listing.folder)
    assert old is not None, "a folder is opened before it is listed again"
    place = (listing.touchpoint, listing.folder, listing.uidvalidity)
    settled = known_uids(db, *place, [sighting.uid for sighting in listing.sightings])
    settled |= {
        uid
        for (uid,) in db.execute(
            "SELECT uid FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?", place
        )
    }
    candidates = _former_locations(db, place, {sighting.fingerprint for sighting in listing.sightings})
    moved: list[tuple[object, ...]] = []
    owed: list[tuple[object, ...]] = []
    left = 0
    for sighting in listing.sightings:
        if sighting.uid in settled:
            continue
        if former := candidates.get(sighting.fingerprint):
            uidvalidity, uid, message = former.pop()
            db.execute(
                "DELETE FROM location WHERE touchpoint = ? AND folder = ? AND uidvalidity = ? AND uid = ?",
                (*place[:2], uidvalidity, uid),
            )
            moved.append((*place, sighting.uid, message))
        elif sighting.internal_at < old.history_from:
            left += 1
        else:
            reason = "new after a change of UIDVALIDITY"
            owed.append((*place, sighting.uid, sighting.size, reason, 0, listing.at, listing.at))
    insert_many(db, _LOCATIONS, moved)
    insert_many(db, _UNFETCHED, owed)
    if listing.last:
        db.execute(
            "UPDATE folder SET uidvalidity = ?, cursor = ? WHERE touchpoint = ? AND folder = ?",
            (listing.uidvalidity, listing.upto, *place[:2]),
        )
        for table in ("location", "unfetched"):  # the messages stay; they lie nowhere in this folder any more
            db.execute(f"DELETE FROM {table} WHERE touchpoint = ? AND folder = ? AND uidvalidity != ?", place)
    return Relisted(len(moved), len(owed), left)


def _former_locations(
    db: sqlite3.Connection, place: _Place, fingerprints: Collection[int]
) -> dict[int, list[tuple[int, int, int]]]:
    """Return (uidvalidity, uid, message) by fingerprint under other UIDVALIDITYs, the lowest UID last."""
    rows = db.execute(
        "SELECT message.fingerprint, location.uidvalidity, location.uid, location.message FROM message"
        " JOIN location ON location.message = message.id WHERE message.fingerprint IN (SELECT value FROM json_each(?))"
        " AND location.touchpoint = ? AND location.folder = ? AND location.uidvalidity != ? ORDER BY location.uid DESC",
        (json.dumps(list(fingerprints)), *place),
    )
    former: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for fingerprint, *where in rows:
        former[fingerprint].append((where[0], where[1], where[2]))
    return former
