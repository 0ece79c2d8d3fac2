"""A backup: the whole store at one moment and the configuration with it, in one file.

The copy is made by SQLite's backup interface on the writer's own connection. What that connection commits meanwhile
goes into the pages that are copied already, so the copy never begins anew, and when its last page has come it is the
store as of that moment, with everything that was committed until then.

How it ends under load: between two breaths, in which waiting units are committed, at least `STEP_PAGES` more pages are
copied than those units added. What is left to copy therefore shrinks from breath to breath.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config.archive import ConfigFile
from gateway.errors import CommandError, Unavailable
from gateway.state import marks, migrations, swap
from gateway.state.doubts import Held, Why
from gateway.state.lifecycle import WAITING, Event, State, move
from gateway.state.store import Job

STEP_PAGES: Final = 32  # of 16 KiB: half a megabyte, about a millisecond
_FORMAT: Final = 1
_CACHE_KIB: Final = 4096  # what the copy keeps in memory before it writes
_ATTEMPTS: Final = 1000  # by epoch; more than anybody tries a message between two restores
_SQLITE_FULL: Final = 13

_KEPT = """
CREATE TABLE backup_fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE backup_file (path TEXT PRIMARY KEY, mode INTEGER NOT NULL, bytes BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backup says about itself. `backed_up_at`: ms. `config_path`: of gateway.toml. `left_out`: secrets and
    keys that the configuration names, a line each."""

    backed_up_at: int
    version: str
    config_path: Path
    left_out: tuple[str, ...]
    format: int = _FORMAT


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did to the copy. Times: ms. `held`: recipients that wait for evidence, by touchpoint; `messages`:
    those they belong to. `dropped`: automatic mail that is not worth a second try."""

    backed_up_at: int
    restored_at: int
    epoch: int
    messages: int
    held: dict[str, int]
    dropped: int
    migrations_run: tuple[str, ...]


# --- making one ------------------------------------------------------------------------------------------------------


def copy_job(target: Path, now_ms: Callable[[], int]) -> Job[int]:
    """Return a job for `Store.run_between` that copies the store into the empty file `target`.

    Its result: the moment (ms) that the copy is of; whatever was committed before is in it. Not durable yet: `seal`.
    """

    def job(db: sqlite3.Connection, breathe: Callable[[], None]) -> int:
        copy = _Copying(breathe, now_ms)
        with _on_disk(target), closing(sqlite3.connect(target, isolation_level=None)) as into:
            # A copy that is cut short is thrown away, so it needs no journal; it is made durable once, at the end
            into.execute("PRAGMA journal_mode = OFF")
            into.execute("PRAGMA synchronous = OFF")
            into.execute("PRAGMA locking_mode = EXCLUSIVE")
            into.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            db.backup(into, pages=STEP_PAGES, progress=copy.stepped)
        return copy.moment

    return job


class _Copying:
    def __init__(self, breathe: Callable[[], None], now_ms: Callable[[], int]) -> None:
        self._breathe = breathe
        self._now_ms = now_ms
        self._left: int | None = None  # pages that were still to be copied at the last breath
        self.moment = now_ms()

    def stepped(self, status: int, left: int, total: int) -> None:
        """Called by SQLite behind each step."""
        if not left:
            return  # it is complete: nothing may be committed before it is closed
        if self._left is None or left <= self._left - STEP_PAGES:
            self._left = left
            self._breathe()
            self.moment = self._now_ms()


def seal(target: Path, facts: Facts, files: Sequence[ConfigFile]) -> int:
    """Put configuration and facts beside the copied store; durable on return. Return the size in bytes. Blocks."""
    with _on_disk(target), closing(sqlite3.connect(target, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA synchronous = OFF")  # synced as a whole below
        db.execute("PRAGMA journal_mode = MEMORY")  # one file, that can be read where nothing can be written
        db.execute("BEGIN")
        for statement in filter(str.strip, _KEPT.split(";")):
            db.execute(statement)
        known = {
            "format": facts.format,
            "backed_up_at": facts.backed_up_at,
            "version": facts.version,
            "config_path": str(facts.config_path),
            "left_out": list(facts.left_out),
        }
        db.executemany("INSERT INTO backup_fact VALUES (?, ?)", [(name, json.dumps(known[name])) for name in known])
        db.executemany(
            "INSERT OR REPLACE INTO backup_file VALUES (?, ?, ?)",
            [(str(file.path), file.mode, file.content) for file in files],
        )
        db.execute(f"PRAGMA application_id = {swap.APPLICATION_ID}")
        db.execute("COMMIT")
    with _on_disk(target):
        swap.sync(target)
        return target.stat().st_size


def size_of(db: sqlite3.Connection) -> int:
    """Return the size of the store in bytes."""
    (count,) = db.execute("PRAGMA page_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int(count) * int(size)


@contextmanager
def _on_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        why = "the disk is full; free some space, or name a file on another one" if code == _SQLITE_FULL else error
        raise Unavailable(f"{target.parent}: {why}") from None
    except OSError as error:
        raise Unavailable(f"{target.parent}: {(error.strerror or str(error)).lower()}") from None


# --- putting one back ------------------------------------------------------------------------------------------------


def read(database: Path, shown: Path) -> tuple[Facts, list[ConfigFile]]:
    """Check a copy of a backup, and return what stands beside the store in it. `shown`: its name in messages.

    Raises CommandError when it is damaged or none of ours. Reads all of it.
    """
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise CommandError(f"{shown} is damaged ({str(found).splitlines()[0]}); take another backup")
            known = {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM backup_fact")}
            files = [
                ConfigFile(Path(path), mode, content)
                for path, mode, content in db.execute("SELECT path, mode, bytes FROM backup_file ORDER BY path")
            ]
        facts = Facts(
            known["backed_up_at"],
            known["version"],
            Path(known["config_path"]),
            tuple(known["left_out"]),
            known["format"],
        )
    except (sqlite3.Error, ValueError, KeyError) as error:
        raise CommandError(f"{shown} is damaged ({error}); take another backup") from None
    if facts.format != _FORMAT:
        raise CommandError(f"{shown} was made by mail-gateway {facts.version}, which is newer; use that, or newer")
    return facts, files


def make_store(database: Path, restored_at: int, last_epoch: int | None) -> Restored:
    """Turn a copy of a backup into a store that sends nothing twice; durable on return. `restored_at`: ms.

    `last_epoch`: of the store that it replaces, None where that is not known. Raises Unavailable.

    What had not left when the backup was made may have left since, under attempts that nobody remembers. It is held
    until the provider's Sent folder or a person tells, and its attempts are counted from a number that none of them
    had. Automatic mail is not worth that and is dropped.
    """
    reported: list[str] = []
    with _on_disk(database), closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        (backed_up_at,) = db.execute("SELECT value FROM backup_fact WHERE name = 'backed_up_at'").fetchone()
        migrations.migrate(db, reported.append)
        db.execute("BEGIN IMMEDIATE")
        db.execute("DROP TABLE backup_fact")
        db.execute("DROP TABLE backup_file")
        db.execute("PRAGMA application_id = 0")
        restored = _hold(db, int(backed_up_at), restored_at, last_epoch, tuple(reported))
        db.execute("COMMIT")
        swap.sync(database)
        return restored


def _hold(
    db: sqlite3.Connection, backed_up_at: int, restored_at: int, last_epoch: int | None, migrations_run: tuple[str, ...]
) -> Restored:
    old_epoch = marks.get(db, "epoch") or 1
    epoch = max(old_epoch, last_epoch or 1) + 1
    # What an earlier restore left in doubt may have been sent since *that* backup was made
    (still,) = db.execute("SELECT count(*) FROM doubt WHERE why = ?", (Why.RESTORED.value,)).fetchone()
    since = min(backed_up_at, marks.get(db, "backed_up_at") or backed_up_at) if still else backed_up_at
    marks.put(db, [("epoch", epoch), ("restored_at", restored_at), ("backed_up_at", since)])
    db.execute("DELETE FROM doubt WHERE why != ?", (Why.RESTORED.value,))  # each becomes a wider one

    dropped = db.execute(
        "UPDATE recipient SET state = ?, settled_at = ?, next_attempt_at = NULL, reply = ? WHERE settled_at IS NULL"
        " AND outbox IN (SELECT id FROM outbox WHERE kind != 'reply')",
        (_dropped(), restored_at, "the store was restored from a backup; automatic mail is not repeated"),
    ).rowcount
    # The latest attempt itself may have been under way when the backup was made, so what is in doubt is all that
    # follows the one before it; and what was in doubt since an earlier restore still is.
    db.execute(
        "INSERT OR REPLACE INTO doubt (outbox, number, touchpoint, why, attempt, tried_at, looks, next_at)"
        " SELECT outbox, number, recipient.touchpoint, ?, coalesce(doubt.attempt, max(0, recipient.attempt - 1)),"
        " coalesce(doubt.tried_at, recipient.tried_at, ?), 0, ?"
        " FROM recipient LEFT JOIN doubt USING (outbox, number) WHERE settled_at IS NULL",
        (Why.RESTORED.value, backed_up_at, restored_at),
    )
    open_ = "SELECT DISTINCT outbox FROM recipient WHERE settled_at IS NULL"
    (messages,) = db.execute(f"SELECT count(*) FROM ({open_})").fetchone()
    # What a person holds is held by that person, also when it turns out that it has not left
    db.execute(f"UPDATE outbox SET held = ? WHERE id IN ({open_}) AND held IS NULL", (Held.RESTORED.value,))
    db.execute(
        "UPDATE recipient SET state = ?, reply = ? WHERE settled_at IS NULL AND state = ?",
        (move(State.SENDING, Event.INTERRUPTED), "was being sent when the backup was made", State.SENDING.value),
    )
    db.execute(
        "UPDATE recipient SET next_attempt_at = NULL, attempt = attempt + ? WHERE settled_at IS NULL",
        (_ATTEMPTS * (epoch - old_epoch),),
    )
    held = db.execute(
        "SELECT touchpoint, count(*) FROM recipient WHERE settled_at IS NULL GROUP BY touchpoint ORDER BY touchpoint"
    ).fetchall()
    return Restored(backed_up_at, restored_at, epoch, messages, dict(held), dropped, migrations_run)


def _dropped() -> str:
    """Return the state of automatic mail that is given up, whatever state it was in."""
    uncertain = move(State.SENDING, Event.INTERRUPTED)
    assert uncertain is not None
    ends: set[State | None] = {move(state, Event.CANCELLED) for state in WAITING} | {move(uncertain, Event.DROPPED)}
    (end,) = ends
    assert end is not None
    return end.value


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be seen of a store that is to be put aside. `waiting`: messages that have not left and that a backup of
    that moment does not know."""

    epoch: int | None
    waiting: int


def glance(database: Path, backed_up_at: int) -> Glance | None:
    """Look into the store that a restore replaces; None when there is none, or it cannot be read. Changes nothing."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{_quoted(database)}?mode=ro", uri=True, isolation_level=None)) as db:
            (waiting,) = db.execute(
                "SELECT count(DISTINCT outbox) FROM recipient JOIN outbox ON outbox.id = outbox"
                " WHERE settled_at IS NULL AND accepted_at >= ?",
                (backed_up_at,),
            ).fetchone()
            return Glance(marks.get(db, "epoch"), waiting)
    except sqlite3.Error:
        return None


def _quoted(path: Path) -> str:
    return path.absolute().as_uri().removeprefix("file://")


# --- afterwards ------------------------------------------------------------------------------------------------------


def between(db: sqlite3.Connection) -> tuple[int, int] | None:
    """Return when the backup was made that this store was restored from, and when that was (ms); None where it never
    was. Mail that came between the two may have been answered already, by a store that is gone: no automatic answer
    goes to it.
    """
    backed_up_at, restored_at = marks.get(db, "backed_up_at"), marks.get(db, "restored_at")
    return None if backed_up_at is None or restored_at is None else (backed_up_at, restored_at)


def in_doubt(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many messages of each touchpoint may have been sent since the backup that was restored."""
    return dict(
        db.execute(
            "SELECT touchpoint, count(DISTINCT outbox) FROM doubt WHERE why = ? GROUP BY touchpoint",
            (Why.RESTORED.value,),
        )
    )


def uidvalidity(db: sqlite3.Connection) -> int:
    """Return what agents' folders are numbered by (RFC 9051 §2.3.1.1): it rises with each restore, so that no client
    takes a message for another one that had its UID in a store that is gone.

    Seconds of the last restore where there was one: they rise even where the epoch of a lost store is not known.
    """
    restored_at = marks.get(db, "restored_at")
    return max(marks.get(db, "epoch") or 1, (restored_at or 0) // 1000)
