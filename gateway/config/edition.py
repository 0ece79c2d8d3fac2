"""A new edition of rules.toml: written by whoever runs the command, checked first, all of it or nothing.

Two commands at a time wait for each other by a lock on the directory, which leaves no file behind. An editor knows
nothing of that lock: so what is on disk is compared once more right before it is replaced.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config import durable
from gateway.config.load import Config, load, load_edition, load_gateway
from gateway.errors import CommandError, ConfigError

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Edition:
    """`old` is None where the file was refused as it stood. `path`: of the file itself, behind any symbolic link."""

    path: Path
    before: bytes
    after: bytes
    old: Config | None
    new: Config


def revise(config_path: Path, change: Callable[[str], str]) -> Edition:
    """Put what `change` makes of the text of rules.toml in its place; durable on return.

    Raises ConfigError when the new text could not be loaded, CommandError when the file cannot be replaced or was
    edited by somebody else meanwhile, and what `change` raises; each time with nothing changed.
    """
    rules = load_gateway(config_path).rules
    path = rules.resolve()
    with locked(path.parent):
        before = read(path)
        after = _change(before, change)
        old = _load_old(config_path)
        if after == before:
            return Edition(path, before, after, old, old or load(config_path))
        temporary = write_beside(path, after)
        try:
            new = load_edition(config_path, rules, temporary)
            if read(path) != before:
                raise CommandError(f"{path} was edited by somebody else just now; nothing was changed, try again", 75)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync(path.parent)
    return Edition(path, before, after, old, new)


def take_back(edition: Edition) -> bool:
    """Put the file back as it was before, unless somebody has edited it since; return whether that was done."""
    with locked(edition.path.parent):
        if read(edition.path) != edition.after:
            return False
        write_beside(edition.path, edition.before).replace(edition.path)
        durable.sync(edition.path.parent)
    return True


def _change(before: bytes, change: Callable[[str], str]) -> bytes:
    mark = _BOM if before.startswith(_BOM) else b""
    try:
        text = before.removeprefix(mark).decode()
    except UnicodeDecodeError:
        raise CommandError("rules.toml is not UTF-8; save it as UTF-8") from None
    return mark + change(text).encode()


def _load_old(config_path: Path) -> Config | None:
    try:
        return load(config_path)
    except ConfigError:
        return None


def read(path: Path) -> bytes:
    """Return what is in a file. Raises CommandError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{path} does not exist; create it (an empty one will do to begin with)") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other commands from editing there. Raises CommandError."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CommandError(f"{directory}: {(error.strerror or str(error)).lower()}") from None
    try:
        with suppress(OSError):  # a file system without locks: the comparison is left
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_beside(path: Path, content: bytes, like: Path | None = None) -> Path:
    """Return a file beside `path` with that content and everything else as `path`, or `like`, has it. Raises
    CommandError.
    """
    like = like or path
    was = like.stat()
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(
            f"{path} cannot be replaced: {path.parent}: {reason}; run this as its owner or root"
        ) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            is_now = os.fstat(file.fileno())
            if (is_now.st_uid, is_now.st_gid) != (was.st_uid, was.st_gid):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)
            shutil.copystat(like, temporary)  # the mode, and what lists of rights and labels hang on it
            os.fchmod(file.fileno(), stat.S_IMODE(was.st_mode))
            os.utime(file.fileno())  # edited now, not then
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"{path} cannot be replaced as it is: {reason}; run this as its owner or root") from None
    return temporary
