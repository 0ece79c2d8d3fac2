"""Wakes Trio tasks that wait for something to happen to *their* touchpoint, from any thread.

A ring while nobody waits is remembered, and many rings before the next wait count as one: who wakes looks at the
store anyway, so a bell says "look", never "how much".
"""

from __future__ import annotations

import contextlib
import threading

import trio


class Doorbell:
    """`ring` from every thread; `wait` in Trio only, one waiter a key. Create it inside `trio.run`."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._bells: dict[str, trio.Event] = {}
        self._pending: set[str] = set()
        self._lock = threading.Lock()

    def ring(self, key: str) -> None:
        with self._lock:
            if key in self._pending:
                return  # has rung and nobody has looked since: a burst of submissions costs one crossing
            self._pending.add(key)
        with contextlib.suppress(trio.RunFinishedError):  # the daemon is gone; the store remembers what is due
            self._token.run_sync_soon(self._deliver, key)

    async def wait(self, key: str) -> None:
        """Return at the next ring for `key`, or at once when it has rung since the last wait."""
        bell = self._bells.setdefault(key, trio.Event())
        await bell.wait()
        with self._lock:
            self._pending.discard(key)
        self._bells[key] = trio.Event()  # a ring from here on is delivered later on this thread, and finds this one

    def _deliver(self, key: str) -> None:
        self._bells.setdefault(key, trio.Event()).set()
