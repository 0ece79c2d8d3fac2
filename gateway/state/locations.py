"""Where messages lie at the provider, and how we keep up with their moving about (DESIGN §5, inbound identity).

Nothing here fetches a body: a message that somebody has moved, that was released from Junk or that got a new UID is
known again by what the server lists of it, and only its location is written. `matching` decides what is what.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.model import Role
from gateway.state import matching, owed
from gateway.state.folders import HISTORY, Folder, count_left, find_folder, leave_alone, left_among, located
from gateway.state.folders import Place as Place  # one name for callers
from gateway.state.matching import Known, Matcher
from gateway.state.reconciliation import Accounted as Accounted
from gateway.state.reconciliation import Accounting as Accounting
from gateway.state.reconciliation import Leaving as Leaving
from gateway.state.reconciliation import account as account
from gateway.state.reconciliation import differs as differs
from gateway.state.reconciliation import leave as leave
from gateway.state.reconciliation import recent_low as recent_low

RENUMBERED: Final = "new after a change of UIDVALIDITY"  # the reason why these are owed
_DOMAIN: Final = {Role.QUEUE: "('queue', 'junk')", Role.JUNK: "('queue', 'junk')", Role.SENT: "('sent')"}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A message as a listing shows it, without its body. `fingerprint`: 0 where the server counts it and shows nothing
    of it. `internal_at`: milliseconds.
    """

    uid: int
    fingerprint: int
    object_id: int | None
    size: int
    internal_at: int


# --- is it worth a look? ---------------------------------------------------------------------------------------------


def maybe_known(
    db: sqlite3.Connection, touchpoint: str, role: Role, seen: Sequence[tuple[int, int, int | None]]
) -> set[int]:
    """Return those UIDs of `seen` (uid, outline, object_id) that may be messages we have: it is worth asking for their
    headers. `outline`: the upper 32 bits of a fingerprint.
    """
    where = f" AND touchpoint = ? AND origin IN {_DOMAIN[role]}"
    wanted = json.dumps([(uid, _signed(outline)) for uid, outline, _ in seen if outline])
    found = db.execute(
        "SELECT value ->> 0 FROM json_each(?) AS seen WHERE EXISTS (SELECT 1 FROM message WHERE fingerprint BETWEEN"
        f" (seen.value ->> 1) << 32 AND ((seen.value ->> 1) << 32) + 4294967295{where})",
        (wanted, touchpoint),
    )
    uids = {uid for (uid,) in found}
    if objects := [(uid, object_id) for uid, _, object_id in seen if object_id is not None]:
        found = db.execute(
            "SELECT value ->> 0 FROM json_each(?) AS seen WHERE EXISTS (SELECT 1 FROM message"
            f" WHERE object_id = seen.value ->> 1{where})",
            (json.dumps(objects), touchpoint),
        )
        uids |= {uid for (uid,) in found}
    return uids


def _signed(outline: int) -> int:
    return (outline + (1 << 31)) % (1 << 32) - (1 << 31)


def here(db: sqlite3.Connection, place: Place, keys: Sequence[tuple[int, int | None]]) -> list[int]:
    """Return the UIDs in this place of messages with one of the keys (fingerprint, object_id).

    Whoever wants to know whether a sighting is a twin or the same message moved out and back asks the server whether
    these are still there.
    """
    uids: set[int] = set()
    fingerprints = {fingerprint for fingerprint, _ in keys} - {matching.UNKNOWN}
    objects = {object_id for _, object_id in keys if object_id is not None}
    for column, wanted in (("fingerprint", fingerprints), ("object_id", objects)):
        if wanted:
            rows = db.execute(
                "SELECT uid FROM message CROSS JOIN location ON location.message = message.id"
                f" WHERE message.{column} IN (SELECT value FROM json_each(?))"
                " AND location.touchpoint = ? AND folder = ? AND uidvalidity = ?",
                (json.dumps(list(wanted)), *place),
            )
            uids.update(uid for (uid,) in rows)
    return sorted(uids)


# --- moved -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Relocation:
    """Messages seen in a folder that may be known. `gone`: UIDs there that are located and are gone. `at`: ms."""

    place: Place
    role: Role
    sightings: tuple[Sighting, ...]
    gone: tuple[int, ...]
    at: int


def relocate(db: sqlite3.Connection, items: Sequence[Relocation]) -> Sequence[frozenset[int]]:
    """Operation: write where known messages lie now; return the UIDs that need no fetching. No cursor moves.

    A placeholder moves as well, with its debt, and is not returned: its message may come from the new place.
    """
    return [_relocate(db, item) for item in items]


def _relocate(db: sqlite3.Connection, item: Relocation) -> frozenset[int]:
    place = item.place
    uids = [sighting.uid for sighting in item.sightings]
    there = located(db, place, [*uids, *item.gone])
    keys = [(sighting.fingerprint, sighting.object_id) for sighting in item.sightings]
    matcher = Matcher(db, keys, also=there.values(), blind=place.touchpoint)
    matcher.forget(place, [there[uid] for uid in item.gone if uid in there])
    found = {uid: matcher.by_id[there[uid]] for uid in uids if uid in there and uid not in item.gone}
    moved: list[tuple[int, Known]] = []
    for sighting in item.sightings:
        if sighting.uid in found or sighting.uid in item.gone:
            continue
        if known := matcher.find(place, item.role, sighting.fingerprint, sighting.object_id):
            moved.append((sighting.uid, known))
            found[sighting.uid] = known
    matching.settle(db, place, item.role, moved, item.at)
    owed.unlocate(db, place, item.gone)
    whole = frozenset(uid for uid, known in found.items() if known.placeholder is None)
    owed.forget(db, place, whole.union(item.gone))
    return whole


# --- a change of UIDVALIDITY -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Relisting:
    """A stretch of the folder under its new UIDVALIDITY, in order of UID; `last` ends it, with `upto` as cursor."""

    place: Place
    role: Role
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


def relist(db: sqlite3.Connection, listings: Sequence[Relisting]) -> Sequence[Relisted]:
    """Operation: give known messages their new locations; what matches none is owed, unless it is older than the
    history. Of such mail no more is left alone than was before: what somebody has moved into the folder keeps its old
    date and is new to us. In doubt it is new; to have it twice is better than never.

    The folder takes the new UIDVALIDITY with the last stretch; until then a crash starts the relisting again, and
    what was matched already is not matched twice. So nothing is lost, and nothing is fetched that we have.
    """
    return [_relist(db, listing) for listing in listings]


def _relist(db: sqlite3.Connection, listing: Relisting) -> Relisted:
    place = listing.place
    old = find_folder(db, place.touchpoint, place.folder)
    assert old is not None, "a folder is opened before it is listed again"
    uids = [sighting.uid for sighting in listing.sightings]
    there, awaited = owed.look(db, place, uids)
    already = left_among(db, place, sorted(uids))  # by a relisting that was cut off
    settled = {*there, *awaited, *already}
    keys = [(sighting.fingerprint, sighting.object_id) for sighting in listing.sightings]
    matcher = Matcher(db, keys, blind=place.touchpoint)
    moved: list[tuple[int, Known]] = []
    unmatched: list[Sighting] = []
    for sighting in listing.sightings:
        if sighting.uid in settled:
            continue
        if found := matcher.find(place, listing.role, sighting.fingerprint, sighting.object_id):
            moved.append((sighting.uid, found))
        else:
            unmatched.append(sighting)
        settled.add(sighting.uid)
    left = _left_again(db, old, place, unmatched)
    new = [(sighting.uid, sighting.size) for sighting in unmatched if sighting.uid not in left]
    matching.settle(db, place, listing.role, moved, listing.at)
    owed.owe(db, place, new, RENUMBERED, listing.at)
    leave_alone(db, place, [(uid, uid) for uid in left])
    if listing.last and old.place != place:  # else another session was quicker and has gone on since
        db.execute(
            "UPDATE folder SET uidvalidity = ?, cursor = ?, modseq = NULL WHERE touchpoint = ? AND folder = ?",
            (place.uidvalidity, listing.upto, *place[:2]),
        )
        for table in ("location", "unfetched", "left_alone"):  # the messages stay; they lie nowhere in it any more
            for other in "<>":  # not `!=`: that walks over all that lies there now
                db.execute(f"DELETE FROM {table} WHERE touchpoint = ? AND folder = ? AND uidvalidity {other} ?", place)
    return Relisted(len(moved), len(new), len(left))


def _left_again(db: sqlite3.Connection, old: Folder, place: Place, unmatched: Sequence[Sighting]) -> set[int]:
    """Return the UIDs of those that were left alone under the former UIDVALIDITY, as it seems.

    They are older than the history, and no more than were left; the lowest UIDs, for numbers are given in the order
    of arrival. What was owed is known by its size; where that was not known, one less is left.
    """
    older = [sighting for sighting in unmatched if sighting.internal_at < old.history_from]
    if not older or old.place == place:
        return set()
    sizes = {
        size
        for (size,) in db.execute(
            "SELECT DISTINCT size FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
            " AND size IN (SELECT value FROM json_each(?))",
            (*old.place, json.dumps([sighting.size for sighting in older])),
        )
    }
    (shapeless,) = db.execute(
        "SELECT count(*) FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ? AND size = 0"
        " AND reason != ?",
        (*old.place, HISTORY),
    ).fetchone()
    most = min(old.skipped, count_left(db, old.place)) - count_left(db, place) - shapeless
    uids = sorted(sighting.uid for sighting in older if sighting.size not in sizes)
    return set(uids[: max(0, most)])
