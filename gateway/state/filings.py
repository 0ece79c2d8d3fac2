"""What is still to be done with a message at the provider: marks, and moves to another folder.

A row is written in the transaction that makes it due (an arrival, a reply that was delivered, a person's word) and
deleted when the provider has done it; each try is counted and put off before it is made. So it happens after the
commit, it happens although we were killed in between, and a provider that refuses is not asked in a tight loop.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.model import FilingAction, Location, Role
from gateway.state import owed
from gateway.state.folders import Place, located, rules
from gateway.state.rows import insert_many
from gateway.state.store import each

_FILING: Final = "INSERT OR IGNORE INTO filing (message, action, touchpoint, target, tries, since_at, next_at)"
_LOCATION: Final = "INSERT OR IGNORE INTO location (touchpoint, folder, uidvalidity, uid, message)"

# Where a message has to lie for an action, the best place first. "" is a folder that is not watched: after a move of
# ours we know the UID there, and an answer comes later than that.
_PLACES: Final = {
    FilingAction.SEEN: (Role.QUEUE, "", Role.JUNK),
    FilingAction.ANSWERED: (Role.QUEUE, "", Role.JUNK),
    FilingAction.MOVE: (Role.QUEUE,),
    FilingAction.RELEASE: (Role.JUNK,),
    FilingAction.JUNK: (Role.QUEUE,),
}
# What a filing without a target is done for: that the message lies in a folder of this role
_TOWARDS: Final = {FilingAction.RELEASE: Role.QUEUE, FilingAction.JUNK: Role.JUNK}
_MARKS_FIRST: Final = {FilingAction.SEEN: 0, FilingAction.ANSWERED: 1}  # a move takes the UID away


@dataclass(frozen=True, slots=True)
class Filing:
    """One thing to do, and where the message lies now. `tries` counts those begun. `message_id` ("" where it has
    none) and `fingerprint`: by which a copy is found that an earlier try has left in `target`.

    `copying`: such a copy may be there, for a COPY has been about to be sent. `copy_uid`, `copy_uidvalidity`: where
    in `target` it lies, as far as the ledger knows; None where it does not, or nothing was copied.
    """

    message: int
    action: FilingAction
    target: str
    tries: int
    folder: str
    uidvalidity: int
    uid: int
    message_id: str
    fingerprint: int
    copying: bool = False
    copy_uid: int | None = None
    copy_uidvalidity: int | None = None


Row = tuple[int, FilingAction, str, str, int]  # message, action, touchpoint, target, due at (ms)


def add(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """For use inside other operations: record what is to be done; what waits already keeps its tries."""
    insert_many(
        db,
        _FILING,
        [(message, action.value, touchpoint, target, 0, at, at) for message, action, touchpoint, target, at in rows],
    )


def drop(db: sqlite3.Connection, action: FilingAction, messages: Sequence[int], *, half_done: bool = True) -> None:
    """For use inside other operations: this is not to be done any more. Without `half_done` what may have been copied
    is not forgotten: else the message stays where it was copied from.
    """
    db.execute(
        "DELETE FROM filing WHERE action = ? AND message IN (SELECT value FROM json_each(?)) AND NOT (copying AND ?)",
        (action.value, json.dumps(list(messages)), not half_done),
    )


def due(db: sqlite3.Connection, touchpoint: str, now_ms: int, limit: int) -> list[Filing]:
    """Return what is to be done now and can be, longest due first; of one message marks before moves.

    What lies nowhere that fits is not there: a message that somebody has taken elsewhere needs nothing of us, unless
    it comes back; and nothing goes to Junk where we know of none. A location under another UIDVALIDITY than the
    folder's counts for nothing.
    """
    rows = db.execute(
        "SELECT filing.message, action, target, filing.tries, next_at, location.folder, location.uidvalidity, uid,"
        " coalesce(message_id, ''), fingerprint, copying, coalesce(folder.role, '') FROM filing"
        " JOIN location ON location.message = filing.message AND location.touchpoint = filing.touchpoint"
        " JOIN message ON message.id = filing.message"
        " LEFT JOIN folder ON folder.touchpoint = location.touchpoint AND folder.folder = location.folder"
        " WHERE filing.touchpoint = ? AND next_at <= ? AND location.folder != target"
        " AND (folder.uidvalidity IS NULL OR folder.uidvalidity = location.uidvalidity)"
        " AND CASE action WHEN 'release' THEN folder.role = 'junk' WHEN 'move' THEN folder.role = 'queue'"
        " WHEN 'junk' THEN folder.role = 'queue' AND EXISTS (SELECT 1 FROM folder AS junk"
        " WHERE junk.touchpoint = filing.touchpoint AND junk.role = 'junk') ELSE folder.role IS NOT 'sent' END"
        " ORDER BY next_at, filing.message LIMIT ?",
        (touchpoint, now_ms, 4 * limit),  # a message may lie in several places
    )
    found: dict[tuple[int, FilingAction], tuple[tuple[int, ...], Filing]] = {}
    for message, name, target, tries, next_at, folder, uidvalidity, uid, message_id, key, begun, role in rows:
        action = FilingAction(name)
        rank = (next_at, message, _MARKS_FIRST.get(action, 2), _PLACES[action].index(role), uid)
        filing = Filing(message, action, target, tries, folder, uidvalidity, uid, message_id, key, bool(begun))
        if (message, action) not in found or rank < found[message, action][0]:
            found[message, action] = rank, filing
    first = [filing for _, filing in sorted(found.values(), key=lambda one: one[0])][:limit]
    return [_with_copy(db, touchpoint, filing) if filing.copying else filing for filing in first]


def _with_copy(db: sqlite3.Connection, touchpoint: str, filing: Filing) -> Filing:
    """Say where the copy lies. Of a filing without a target the folder of the copy is the target from now on."""
    row = db.execute(
        "SELECT location.folder, location.uidvalidity, uid FROM location LEFT JOIN folder USING (touchpoint, folder)"
        " WHERE message = ? AND location.touchpoint = ? AND location.folder != ?"
        " AND (folder.uidvalidity IS NULL OR folder.uidvalidity = location.uidvalidity)"
        " AND CASE ? WHEN '' THEN role IS ? ELSE location.folder = ? END ORDER BY uid DESC LIMIT 1",
        (
            *(filing.message, touchpoint, filing.folder),
            *(filing.target, _TOWARDS.get(filing.action), filing.target),
        ),
    ).fetchone()
    if row is None:
        return filing
    target, uidvalidity, uid = row
    return replace(filing, target=target, copy_uid=uid, copy_uidvalidity=uidvalidity)


def waiting(db: sqlite3.Connection, touchpoint: str, now_ms: int) -> bool:
    """Is something due that can be done?"""
    return bool(due(db, touchpoint, now_ms, 1))


@each
def begin(db: sqlite3.Connection, trying: tuple[str, Sequence[tuple[int, FilingAction]], int]) -> None:
    """Operation: count a try of each (message, action) of a touchpoint, and when the next would be, before it is made.

    Item: touchpoint, what is tried, next due time in milliseconds.
    """
    touchpoint, tried, next_at = trying
    db.executemany(
        "UPDATE filing SET tries = tries + 1, next_at = ? WHERE message = ? AND action = ? AND touchpoint = ?",
        [(next_at, message, action.value, touchpoint) for message, action in tried],
    )


@each
def copying(db: sqlite3.Connection, trying: tuple[str, Sequence[tuple[int, FilingAction]]]) -> None:
    """Operation: before a COPY is sent, record that copies of these (message, action) may lie in the target."""
    touchpoint, copied = trying
    db.executemany(
        "UPDATE filing SET copying = 1 WHERE message = ? AND action = ? AND touchpoint = ?",
        [(message, action.value, touchpoint) for message, action in copied],
    )


@each
def copied(db: sqlite3.Connection, found: tuple[str, int, FilingAction, Location]) -> None:
    """Operation: the copy of a message lies here; the other half of the move is still to be done."""
    touchpoint, message, action, now = found
    waiting = "SELECT 1 FROM filing WHERE message = ? AND action = ? AND touchpoint = ? AND copying"
    if db.execute(waiting, (message, action.value, touchpoint)).fetchone():
        insert_many(db, _LOCATION, [(touchpoint, now.folder, now.uidvalidity, now.uid, message)])


def located_in(db: sqlite3.Connection, touchpoint: str, folder: str, uids: Collection[int]) -> set[int]:
    """Return those of `uids` in a folder where a message of ours is known to lie, under whatever UIDVALIDITY: a copy
    that we look for is none of these.
    """
    where = "WHERE touchpoint = :touchpoint AND folder = :folder AND location.uidvalidity"
    after = f"SELECT uidvalidity FROM location {where} > ruled.uidvalidity ORDER BY uidvalidity LIMIT 1"
    rows = db.execute(  # from one UIDVALIDITY to the next, not along all that lies there
        f"WITH RECURSIVE ruled (uidvalidity) AS (SELECT 0 UNION ALL SELECT ({after}) FROM ruled"
        f" WHERE ruled.uidvalidity IS NOT NULL) SELECT location.uid FROM ruled CROSS JOIN location {where}"
        " = ruled.uidvalidity AND uid IN (SELECT value FROM json_each(:uids))",
        {"touchpoint": touchpoint, "folder": folder, "uids": json.dumps(list(uids))},
    )
    return {uid for (uid,) in rows}


@dataclass(frozen=True, slots=True)
class Filed:
    """Something was done. `left`: where the message does not lie any more; `now`: where it lies, if that is known."""

    message: int
    action: FilingAction
    left: Location | None = None
    now: Location | None = None


@each
def done(db: sqlite3.Connection, filed: Filed) -> None:
    """Operation: forget what was to be done, and record where the message went. Doing it again changes nothing.

    What stands behind a placeholder is owed in the other folder from now on; where that is not watched, no more. If a
    person has decided otherwise while the message was on its way, it is to go back.
    """
    row = db.execute(
        "SELECT touchpoint, placeholder, arrived_at, quarantine, reviewed_at FROM message WHERE id = ?",
        (filed.message,),
    ).fetchone()
    db.execute("DELETE FROM filing WHERE message = ? AND action = ?", (filed.message, filed.action.value))
    if row is None:
        return
    touchpoint, placeholder, arrived_at, quarantine, reviewed_at = row
    if (now := filed.now) is not None:
        place = Place(touchpoint, now.folder, now.uidvalidity)
        insert_many(db, _LOCATION, [(*place, now.uid, filed.message)])
        if placeholder is not None and rules(db, place):
            owed.carry(db, place, now.uid, filed.message, arrived_at)
    if (left := filed.left) is not None:
        place = Place(touchpoint, left.folder, left.uidvalidity)
        if located(db, place, [left.uid]).get(left.uid) == filed.message:
            owed.unlocate(db, place, [left.uid])
            owed.forget(db, place, [left.uid])
    if reviewed_at is None:
        return
    if filed.action is FilingAction.JUNK and not quarantine:
        add(db, [(filed.message, FilingAction.RELEASE, touchpoint, "", reviewed_at)])
    elif filed.action is FilingAction.RELEASE and quarantine:
        add(db, [(filed.message, FilingAction.JUNK, touchpoint, "", reviewed_at)])


@each
def sweep(db: sqlite3.Connection, before_ms: int) -> int:
    """Operation: give up what has been due since before then (milliseconds); return how many."""
    return db.execute("DELETE FROM filing WHERE since_at < ?", (before_ms,)).rowcount
