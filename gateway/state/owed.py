"""What is at the provider and not here: messages that could not be fetched, or have not been yet.

A UID is owed from the transaction that moves the cursor over it until its message arrives or is seen to be gone.
While a placeholder stands in for a message in its queue, the message is still owed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from gateway.state.folders import Place, move_cursor, rules
from gateway.state.rows import insert_many
from gateway.state.store import each

PLACEHOLDER_AFTER_MS: Final = 15 * 60_000  # the promise of DESIGN §6

_UNFETCHED: Final = (
    "INSERT OR IGNORE INTO unfetched (touchpoint, folder, uidvalidity, uid, size, reason, tries, first_at, next_at)"
)


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

    `owed` are those of them that are still there; they are tried again. `gone` need no fetching any more.
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
    """Operation: move the cursor over UIDs that were not taken; what is owed is recorded in the same transaction.

    Where another UIDVALIDITY rules by now these numbers mean nothing, and nothing is written.
    """
    place = Place(passage.touchpoint, passage.folder, passage.uidvalidity)
    if not rules(db, place):
        return
    for owed in passage.owed:
        db.execute(
            "INSERT INTO unfetched (touchpoint, folder, uidvalidity, uid, size, reason, tries, first_at, next_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size,"
            " reason = excluded.reason, tries = excluded.tries, next_at = excluded.next_at,"
            " first_at = CASE tries WHEN 0 THEN excluded.first_at ELSE first_at END",  # the time of the first real try
            (*place, owed.uid, owed.size, owed.reason, owed.tries, passage.at, owed.next_at),
        )
    if passage.gone:
        forget(db, place, passage.gone)
    move_cursor(db, place, [(passage.follows, passage.upto)])


def owed_now(db: sqlite3.Connection, place: Place, now_ms: int, largest: int, limit: int) -> tuple[Owed, ...]:
    """Return what is due for another try, in order of UID; also what was too large and is not any more."""
    rows = db.execute(
        "SELECT uid, size, reason, tries, next_at FROM unfetched WHERE touchpoint = ? AND folder = ?"
        " AND uidvalidity = ? AND (next_at <= ? OR (next_at IS NULL AND size <= ?)) ORDER BY uid LIMIT ?",
        (*place, now_ms, largest, limit),
    )
    return tuple(Owed(*row) for row in rows)


def placeholders_due(db: sqlite3.Connection, place: Place, now_ms: int, limit: int) -> tuple[Owed, ...]:
    """Return what nobody here knows of and somebody should by now: tried in vain for 15 minutes, or not to be tried
    again; in order of UID. Sent has no placeholders: nobody waits for what we wrote.
    """
    rows = db.execute(
        "SELECT unfetched.uid, size, reason, tries, next_at FROM folder CROSS JOIN unfetched USING"
        " (touchpoint, folder, uidvalidity) LEFT JOIN location USING (touchpoint, folder, uidvalidity, uid)"
        " WHERE folder.touchpoint = ? AND folder.folder = ? AND folder.uidvalidity = ? AND role != 'sent'"
        " AND tries >= 1 AND (first_at <= ? OR next_at IS NULL) AND message IS NULL"
        " ORDER BY unfetched.uid LIMIT ?",
        (*place, now_ms - PLACEHOLDER_AFTER_MS, limit),
    )
    return tuple(Owed(*row) for row in rows)


def count_owed(db: sqlite3.Connection, touchpoint: str, folders: Collection[str] | None = None) -> int:
    """Return how many messages of a touchpoint are at the provider and not here; `status` shows it as `unfetched`.

    `folders`: that are watched now; None: all that ever were.
    """
    (count,) = db.execute(
        "SELECT count(*) FROM folder CROSS JOIN unfetched USING (touchpoint, folder, uidvalidity)"
        " WHERE folder.touchpoint = ?1 AND (?2 IS NULL OR folder.folder IN (SELECT value FROM json_each(?2)))",
        (touchpoint, None if folders is None else json.dumps(list(folders))),
    ).fetchone()
    return int(count)


# --- for use inside other operations ---------------------------------------------------------------------------------


def owe(db: sqlite3.Connection, place: Place, messages: Iterable[tuple[int, int]], reason: str, at: int) -> None:
    """Record (uid, size) of messages that are to be fetched as soon as may be."""
    insert_many(db, _UNFETCHED, [(*place, uid, size, reason, 0, at, at) for uid, size in messages])


def carry(db: sqlite3.Connection, place: Place, uid: int, message: int, at: int) -> None:
    """What stands behind a placeholder is owed where it lies now, and nowhere else. `at`: milliseconds."""
    others = db.execute(
        "SELECT touchpoint, folder, uidvalidity, uid FROM location WHERE message = ?"
        " AND NOT (touchpoint = ? AND folder = ? AND uidvalidity = ? AND uid = ?)",
        (message, *place, uid),
    ).fetchall()
    debt = None
    for other in others:
        row = db.execute(
            "DELETE FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ? AND uid = ?"
            " RETURNING size, reason, tries, first_at, next_at",
            other,
        ).fetchone()
        debt = debt or row
    if debt is None:
        row = db.execute("SELECT size FROM message WHERE id = ?", (message,)).fetchone()
        debt = (row[0], "moved before it could be fetched", 1, at, at)
    insert_many(db, _UNFETCHED, [(*place, uid, *debt)])


def look(db: sqlite3.Connection, place: Place, uids: Collection[int]) -> tuple[dict[int, int], set[int]]:
    """Return the messages that lie at `uids`, by UID, and those of `uids` that are owed."""
    wanted = json.dumps(list(uids))
    there = "touchpoint = ? AND folder = ? AND uidvalidity = ? AND uid IN (SELECT value FROM json_each(?))"
    rows = db.execute(
        f"SELECT uid, message FROM location WHERE {there} UNION ALL SELECT uid, NULL FROM unfetched WHERE {there}",
        (*place, wanted, *place, wanted),
    )
    located: dict[int, int] = {}
    owed: set[int] = set()
    for uid, message in rows:
        if message is None:
            owed.add(uid)
        else:
            located[uid] = message
    return located, owed


def forget(db: sqlite3.Connection, place: Place, uids: Collection[int]) -> None:
    """These are here, or gone."""
    _delete(db, "unfetched", place, uids)


def unlocate(db: sqlite3.Connection, place: Place, uids: Collection[int]) -> None:
    """Nothing of ours lies here any more; the messages stay."""
    _delete(db, "location", place, uids)


def _delete(db: sqlite3.Connection, table: str, place: Place, uids: Collection[int]) -> None:
    if uids:
        db.execute(
            f"DELETE FROM {table} WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?"
            " AND uid IN (SELECT value FROM json_each(?))",
            (*place, json.dumps(list(uids))),
        )
