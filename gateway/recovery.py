"""`backup` and `restore`: what they do, apart from how they are asked for.

A backup is one file: the store at one moment, and the configuration without its secrets. It is written beside its name
and renamed at the end, so FILE is the old backup or the new one. A restore prepares a database beside the present one
and swaps the two (`state.swap`); it also says what has to be looked at before the daemon runs again.
"""

from __future__ import annotations

import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import trio

from gateway import config
from gateway.config import Config, archive
from gateway.config.archive import PutBack
from gateway.config.files import why_unreadable
from gateway.errors import CommandError, Unavailable
from gateway.model import from_ms
from gateway.state import backup, swap
from gateway.state.backup import Facts, Glance, Restored
from gateway.state.lock import StateLock, as_owner_of
from gateway.state.store import Store

DATABASE: Final = "gateway.db"
_STATE_DIR: Final = "/var/lib/mail-gateway"
_ROOM_BYTES: Final = 64 * 1024 * 1024  # that a backup leaves free: on the same disk mail must still find some
_BLOCK: Final = 1024 * 1024

_under_way: set[Path] = set()


# --- backup ----------------------------------------------------------------------------------------------------------


async def back_up(store: Store, current: Config, file: Path) -> dict[str, Any]:
    """Write a backup to `file` (absolute). The store goes on working. Durable on return; `file` is whole or as it was.

    Raises CommandError for a place that it may not have, Unavailable where it cannot be written.
    """
    state_dir = current.gateway.state_dir
    target = file.with_name(file.name + ".tmp")
    await trio.to_thread.run_sync(_check_place, file, state_dir)
    if target in _under_way:
        raise CommandError(f"{file} is being written already; wait until that is done", 75)
    _under_way.add(target)
    try:
        return await _write(store, current, file, target)
    finally:
        _under_way.discard(target)


def _check_place(file: Path, state_dir: Path) -> None:
    if not file.is_absolute():
        raise CommandError(f"{file}: the daemon needs the whole path", 2)
    is_beside = file.parent.exists() and state_dir.exists() and file.parent.samefile(state_dir)
    if is_beside and (file.name.startswith(DATABASE) or file.name in ("lock", "control.sock")):
        raise CommandError(f"{file} is the gateway's own; name another file", 2)
    try:
        is_free = swap.is_free(file)
    except OSError:
        is_free = False
    if not is_free:
        raise CommandError(f"{file} is there and no backup of ours; it is not overwritten, name another file", 2)


async def _write(store: Store, current: Config, file: Path, target: Path) -> dict[str, Any]:
    size = await store.read(backup.size_of)
    try:
        await trio.to_thread.run_sync(_make_empty, target, file, current.gateway.state_dir, size)
        moment = await store.run_between(backup.copy_job(target, _now_ms))
        facts = Facts(moment, version("mail-gateway"), current.path.absolute(), archive.left_out(current))
        size, inode = await trio.to_thread.run_sync(_finish, target, file, facts, current)
    except BaseException:
        with trio.CancelScope(shield=True), suppress(OSError):
            await trio.to_thread.run_sync(_remove, target)
        raise
    return {
        "file": str(file),
        "backed_up_at": from_ms(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "size": size,
        "left_out": list(facts.left_out),
        "inode": inode,
    }


def _make_empty(target: Path, file: Path, state_dir: Path, size: int) -> None:
    """Create the file that the copy goes to, for nobody else to read."""
    try:
        free = shutil.disk_usage(target.parent).free
        if free < size + _ROOM_BYTES:
            raise Unavailable(
                f"{target.parent}: not enough space for the backup: it takes {_megabytes(size)}, and of"
                f" {_megabytes(free)} that are free {_megabytes(_ROOM_BYTES)} stay so; name a file on another disk"
            )
        target.unlink(missing_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise Unavailable(
            f"{file} cannot be written by the user of the gateway: {(error.strerror or str(error)).lower()};"
            f" it may write below {state_dir} (under systemd, ReadWritePaths= allows more)"
        ) from None


def _remove(target: Path) -> None:
    target.unlink(missing_ok=True)


def _finish(target: Path, file: Path, facts: Facts, current: Config) -> tuple[int, int]:
    """Add what is not in the database, make it durable, give it its name. Return size and inode."""
    try:
        files = archive.collect(current)
    except OSError as error:
        raise Unavailable(f"{current.path} {why_unreadable(error)}") from None
    size = backup.seal(target, facts, files)
    try:
        target.replace(file)
        swap.sync(file.parent)
        return size, file.stat().st_ino
    except OSError as error:
        raise Unavailable(f"{file}: {(error.strerror or str(error)).lower()}") from None


# --- restore ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What a restore did. `aside`: the directory with the store that was there before, None where there was none;
    `before`: what could be seen of it, None where it could not be read."""

    state_dir: Path
    facts: Facts
    store: Restored
    files: PutBack
    aside: Path | None
    before: Glance | None


def restore(config_path: Path, file: Path) -> Report:
    """Put a backup in the place of the store, while no daemon runs. Whole or not at all, also when the power fails.

    Raises CommandError for a file that is no good backup, Unavailable while a daemon runs or the disk refuses,
    ConfigError for a gateway.toml that is there and wrong.
    """
    with _opened(file) as source:
        state_dir = _state_dir(config_path, source, file)
        _check_state_dir(state_dir, file)
        with as_owner_of(state_dir):
            lock = StateLock(state_dir)
        try:
            return _restore(config_path, file, source, state_dir)
        finally:
            lock.release()


def _restore(config_path: Path, file: Path, source: int, state_dir: Path) -> Report:
    database = state_dir / DATABASE
    new = swap.being_prepared(database)
    try:
        with as_owner_of(state_dir):
            swap.finish(database)  # an earlier restore that was cut short: its store is the present one
            swap.clear(new)
            _copy(source, new)
            facts, files = backup.read(new, file)
            before = backup.glance(database, facts.backed_up_at)
            store = backup.make_store(new, _now_ms(), before.epoch if before else None)
        group = state_dir.stat().st_gid if os.geteuid() == 0 else None
        try:
            put_back = archive.put_back(files, config_path, facts.config_path, group)
        except OSError as error:
            raise Unavailable(f"{error.filename or config_path}: {(error.strerror or str(error)).lower()}") from None
        with as_owner_of(state_dir):
            return Report(state_dir, facts, store, put_back, swap.decide(database), before)
    except OSError as error:
        raise Unavailable(f"{state_dir}: {(error.strerror or str(error)).lower()}; nothing was restored") from None
    finally:
        with as_owner_of(state_dir):
            swap.clear(new)


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    """Open a backup as whoever asks for it, before root becomes the gateway's user."""
    try:
        source = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise CommandError(f"{file} {why_unreadable(error, 'name a file that `mail-gateway backup` made')}") from None
    try:
        try:
            header = os.pread(source, 100, 0)
        except OSError as error:
            raise CommandError(f"{file} {why_unreadable(error)}") from None
        if not swap.is_backup(header):
            raise CommandError(f"{file} is no backup that `mail-gateway backup` made; nothing was changed")
        yield source
    finally:
        os.close(source)


def _state_dir(config_path: Path, source: int, file: Path) -> Path:
    """Return where the store is to be, by the gateway.toml that is there, else by the one in the backup."""
    if os.path.lexists(config_path):
        return config.load_gateway(config_path).state_dir
    facts, files = backup.read(Path(f"/proc/self/fd/{source}"), file)
    text = next((each.content for each in files if each.path == facts.config_path), b"")
    try:
        named = tomllib.loads(text.decode()).get("state_dir", _STATE_DIR)
    except ValueError:
        named = _STATE_DIR
    return config_path.absolute().parent / str(named)


def _check_state_dir(state_dir: Path, file: Path) -> None:
    """A backup may lie in the state directory; what is put in its own place would be lost."""
    if file.exists() and (state_dir / DATABASE).exists() and file.samefile(state_dir / DATABASE):
        raise CommandError(f"{file} lies in the place of the store; move it elsewhere first", 2)


def _copy(source: int, new: Path) -> None:
    target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        at = 0
        while part := os.pread(source, _BLOCK, at):
            _write_all(target, part)
            at += len(part)
        os.fsync(target)
    finally:
        os.close(target)


def _write_all(target: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(target, view) :]


def _megabytes(size: int) -> str:
    return f"{max(1, round(size / 10**6))} MB"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
