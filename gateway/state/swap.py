"""One database takes the place of another, whole or not at all, whatever moment the power fails.

A restore prepares the new database beside the present one, under a name that nothing opens. Then one rename decides:
from there on every opening of the store first finishes what is left, moving the present database, with its log, into a
directory of its own and the new one into its place. The log must go before the new database comes: SQLite would play
it into whatever lies beside it.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.errors import Unavailable

APPLICATION_ID: Final = 0x4D67426B  # "MgBk", in SQLite's header: a backup, not a store
_ID_OFFSET: Final = 68  # of the header (SQLite file format §1.3)
_MAGIC: Final = b"SQLite format 3\0"
_BESIDE: Final = ("", "-wal", "-shm", "-journal")


def being_prepared(database: Path) -> Path:
    """Return where the new database is put together; what lies there counts for nothing."""
    return database.with_name(database.name + ".restoring")


def decided(database: Path) -> Path:
    """Return the name that makes the new database the one in force."""
    return database.with_name(database.name + ".restored")


def clear(path: Path) -> None:
    """Remove a database that was not finished, and what SQLite left beside it."""
    for ending in _BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def decide(database: Path) -> Path | None:
    """Put what was prepared in force; durable on return. Return the directory with what was there before, None where
    there was nothing. Before the first rename nothing has changed; after it nothing changes back.
    """
    being_prepared(database).rename(decided(database))
    sync(database.parent)
    return finish(database)


def finish(database: Path) -> Path | None:
    """Finish a swap that was decided; nothing to do where none was. Raises Unavailable."""
    new = decided(database)
    try:
        if not new.exists():
            return None
        # The same name at every try: what a cut tore apart comes together again
        stamp = datetime.fromtimestamp(new.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = database.with_name(f"before-restore-{stamp}")
        for ending in _BESIDE:
            old = database.with_name(database.name + ending)
            if old.exists():
                aside.mkdir(mode=0o700, exist_ok=True)
                old.rename(aside / old.name)
        if aside.exists():
            sync(aside)
            sync(database.parent)  # the old log must be gone for good before the new database has its place
        new.replace(database)
        sync(database.parent)
        return aside if aside.exists() else None
    except OSError as error:
        raise Unavailable(
            f"a restored database waits in {new} and cannot take its place: {error.strerror or error}; mend that"
        ) from None


def is_backup(header: bytes) -> bool:
    """Return whether these first 100 bytes are those of a file that `backup` made."""
    return header.startswith(_MAGIC) and header[_ID_OFFSET : _ID_OFFSET + 4] == APPLICATION_ID.to_bytes(4)


def is_free(path: Path) -> bool:
    """Return whether a backup may be written there: nothing is, or an older backup. Raises OSError."""
    if not os.path.lexists(path):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_backup(file.read(100))


def refuse_backup(db: sqlite3.Connection, path: Path) -> None:
    """Raise Unavailable for a backup that somebody has copied into the place of the store: what has been sent since
    would be sent again."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID:
        raise Unavailable(
            f"{path} is a backup as it was made; move it elsewhere and run: mail-gateway restore FILE"
            " (which sees to it that nothing is sent twice)"
        )


def sync(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
