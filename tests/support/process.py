"""A server as a child process: started, stopped and always gone at the end, by its own pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def program(name: str, package: str) -> str:
    """Return the path of a program, or fail with the package that brings it. A missing peer is never a skip."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise RuntimeError(f"{name} is not installed; as root: apt-get install {package} (or: make peers)")
    return path


def wait_for_silence(port: int, timeout: float = 10) -> None:
    """Wait until nobody listens on a loopback port any more: children of a server that has ended may still do."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionError:
            return
        except OSError:
            pass  # it is slow, and there
        if time.monotonic() > deadline:
            raise RuntimeError(f"port {port} still answers, though its server has ended")
        time.sleep(0.02)


class Process:
    """One child in a session of its own. Its output goes to `log`; it dies when this process dies."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        return self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        return self._child.wait(timeout)

    def stop(self, timeout: float = 10) -> int:
        """End it politely, then by force; its children with it. Returns the exit code."""
        if self._child.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self._child.wait(5)
        self._sweep()
        return self._child.returncode

    def kill(self) -> None:
        """End it at once, as a crash does: no handler runs, nothing is flushed."""
        self.signal(signal.SIGKILL)
        self._child.wait(5)
        self._sweep()

    def _sweep(self) -> None:
        # Servers fork; what is left of the group that was ours alone goes too. A group that is empty is no error
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait_for_port(self, port: int, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if (code := self._child.poll()) is not None:
                raise RuntimeError(f"ended with {code} before it listened:\n{self._log.read_text(errors='replace')}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"port {port} is silent:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)
