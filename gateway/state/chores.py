"""What a touchpoint's task still has to do, asked once a minute: small questions, each answered from an index."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from gateway.model import Role
from gateway.state import owed, quarantine
from gateway.state.folders import Place
from gateway.state.store import each


def due_folders(
    db: sqlite3.Connection, touchpoint: str, now_ms: int, largest: int, folders: Collection[str]
) -> set[str]:
    """Return those of `folders` where something that is owed is due for another try, or a placeholder is due for it.

    `largest`: bytes; what was too large before and is not any more is due. In Sent nothing stands for what is missing.
    """
    rows = db.execute(
        "SELECT folder FROM folder WHERE touchpoint = ? AND folder IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 FROM unfetched WHERE unfetched.touchpoint = folder.touchpoint"
        " AND unfetched.folder = folder.folder AND unfetched.uidvalidity = folder.uidvalidity AND (next_at <= ?"
        " OR (next_at IS NULL AND size <= ?) OR (role != 'sent' AND tries > 0 AND (next_at IS NULL OR first_at <= ?)"
        " AND NOT EXISTS (SELECT 1 FROM location WHERE location.touchpoint = unfetched.touchpoint"
        " AND location.folder = unfetched.folder AND location.uidvalidity = unfetched.uidvalidity"
        " AND location.uid = unfetched.uid))))",
        (touchpoint, json.dumps(list(folders)), now_ms, largest, now_ms - owed.PLACEHOLDER_AFTER_MS),
    )
    return {folder for (folder,) in rows}


def count_owed_in(db: sqlite3.Connection, place: Place) -> int:
    """Return how many messages of a folder are at the provider and not here."""
    (count,) = db.execute(
        "SELECT count(*) FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ?", place
    ).fetchone()
    return int(count)


def reconciled_at(db: sqlite3.Connection, touchpoint: str, folders: Collection[str]) -> int | None:
    """Return since when all of these folders have been reconciled (ms); None where none of them is known.

    A folder that is new is complete by the way its history began.
    """
    (at,) = db.execute(
        "SELECT min(coalesce(reconciled_at, first_watched_at)) FROM folder WHERE touchpoint = ?"
        " AND folder IN (SELECT value FROM json_each(?))",
        (touchpoint, json.dumps(list(folders))),
    ).fetchone()
    return None if at is None else int(at)


@dataclass(frozen=True, slots=True)
class RoleChange:
    """The admin, or the provider, has made another use of a folder. `at`: milliseconds."""

    touchpoint: str
    folder: str
    role: Role
    at: int


@each
def change_role(db: sqlite3.Connection, change: RoleChange) -> None:
    """Operation: record the role. What lies in a folder of Junk that has become a queue's is let go, unless lists,
    rules or a person keep it; nothing is to be released from there any more.
    """
    place = (change.touchpoint, change.folder)
    db.execute("UPDATE folder SET role = ? WHERE touchpoint = ? AND folder = ?", (change.role.value, *place))
    if change.role is not Role.QUEUE:
        return
    lying = "SELECT message FROM location WHERE touchpoint = ? AND folder = ?"
    kept = db.execute(
        f"SELECT id FROM message WHERE id IN ({lying}) AND quarantine = ? AND reviewed_at IS NULL",
        (*place, quarantine.BY_JUNK),
    ).fetchall()
    quarantine.let_go(db, [id for (id,) in kept], change.at)
    db.execute(
        f"UPDATE message SET origin = 'queue' WHERE id IN ({lying}) AND origin = 'junk'"
        " AND (state = 'arrived' OR placeholder IS NOT NULL)",
        place,
    )
    db.execute(f"DELETE FROM filing WHERE action = 'release' AND message IN ({lying})", place)
