"""Watches a running daemon from outside while a test does something to it: what is visible when, and at what cost."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.letters import letter, message_id


class Onlooker:
    """Asks the daemon for its newest conversations and its status, over and over, from a thread of its own.

    `seen`: Message-ID → when it was first visible (time.monotonic). `troubles`: whatever went wrong with the asking.
    `slowest`: the longest that `status` took since the caller last set it to 0.
    """

    def __init__(self, daemon: Daemon, newest: int = 150, every: float = 0.02) -> None:
        self.seen: dict[str, float] = {}
        self.troubles: list[str] = []
        self.pids: set[int] = set()
        self.slowest = 0.0
        self._daemon = daemon
        self._newest = newest
        self._every = every
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=look, daemon=True) for look in (self._list, self._ask_status)]

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)

    def _list(self) -> None:
        rounds = 0
        while not self._stop.wait(self._every):
            limit = None if rounds % 50 == 0 else self._newest  # a letter with an odd date may stand anywhere
            rounds += 1
            with self._noted("queue.list"):
                listed = self._daemon.ask("queue.list", all=True, limit=limit)
                now = time.monotonic()
                for conversation in listed:
                    for id in conversation["message_ids"]:
                        self.seen.setdefault(id, now)

    def _ask_status(self) -> None:
        while not self._stop.wait(0.1):
            begun = time.monotonic()
            with self._noted("status"):
                self.pids.add(self._daemon.status()["daemon"]["pid"])
                self.slowest = max(self.slowest, time.monotonic() - begun)

    @contextlib.contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._stop.is_set():
                self.troubles.append(f"{what}: {type(error).__name__}: {error}")


class Correspondents:
    """Write to several mailboxes in turn, a numbered letter every `pause` seconds. `sent`: Message-ID → when.

    `mailboxes`: name → what delivers there.
    """

    def __init__(self, mailboxes: Mapping[str, Callable[[bytes], object]], pause: float) -> None:
        self.sent: dict[str, float] = {}
        self._mailboxes = mailboxes
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(60)

    def _write(self) -> None:
        for number, (name, deliver) in enumerate(itertools.cycle(self._mailboxes.items())):
            if self._stop.wait(self._pause):
                return
            raw = letter(number, f"to {name}")
            begun = time.monotonic()
            deliver(raw)
            self.sent[message_id(raw)] = begun


class LogReader:
    """Reads what the daemon has logged since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new_events(self) -> list[dict[str, Any]]:
        """Return the new lines; one that is no event comes as {"event": "not an event", "line": …}."""
        with self._path.open("rb") as log:
            log.seek(self._at)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        found = []
        for line in whole.decode("utf-8", "replace").splitlines():
            try:
                event = json.loads(line)
                assert isinstance(event, dict)
            except (ValueError, AssertionError):
                event = {"event": "not an event", "line": line}
            found.append(event)
        return found


class Memory:
    """Resident memory of a process, in MB, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")

    def begin_peak(self) -> None:
        (self._directory / "clear_refs").write_text("5")  # the peak begins anew (proc(5))

    @property
    def peak(self) -> float:
        return self._field("VmHWM")

    @property
    def now(self) -> float:
        return self._field("VmRSS")

    def _field(self, name: str) -> float:
        for line in (self._directory / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1000
        raise AssertionError(f"no {name} in {self._directory}")


def quantiles(seconds: Sequence[float]) -> Mapping[str, float]:
    """Return p50, p99 and the longest, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": 1000 * ordered[len(ordered) // 2],
        "p99": 1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "longest": 1000 * ordered[-1],
    }
