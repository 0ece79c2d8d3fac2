"""The lock on the state directory: one daemon, or one command while no daemon runs, uses a store at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import Unavailable


class StateLock:
    """An exclusive `flock` on `state_dir/lock`; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, state_dir: Path) -> None:
        """Create the directory (0700) where it is missing, and take the lock. Raises Unavailable."""
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"state_dir {state_dir}: {error.strerror}; create it and give it to the user that runs the gateway"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise Unavailable(
                f"state_dir {state_dir} is in use by another mail-gateway (pid {holder or 'unknown'}); stop that first"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)


@contextmanager
def as_owner_of(state_dir: Path) -> Iterator[None]:
    """Let root work as the user whose state it is: a file of root's among it would keep the daemon from starting."""
    owner = state_dir.stat() if state_dir.is_dir() else None
    if os.geteuid() != 0 or owner is None or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
