"""The receipt for a unit of work: a future that Trio, asyncio and plain threads can wait for.

The writer settles hundreds of tickets at once; waking each waiter with a call of its own across threads would cost
more than the commit. So tickets are settled first and woken together: one call a world, however many waiters.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar, cast

import trio

R = TypeVar("R")

_World = asyncio.AbstractEventLoop | trio.lowlevel.TrioToken | None  # None: a plain thread
_Wakeup = tuple[_World, Callable[[], None]]
_lock = threading.Lock()  # held for a few instructions; one for all tickets saves a lock a message


class Ticket(Generic[R]):
    """`await ticket` gives the result or raises, in either world. Giving up the wait changes nothing for the unit."""

    __slots__ = ("_done", "_error", "_result", "_wakeups")

    def __init__(self) -> None:
        self._done = False
        self._result: R | None = None
        self._error: BaseException | None = None
        self._wakeups: list[_Wakeup] = []

    @property
    def is_done(self) -> bool:
        return self._done

    def settle(self, result: R | None, error: BaseException | None) -> None:
        """Record the result. Called once, by the thread that did the work; `wake` must follow."""
        self._result, self._error = result, error

    def result(self, timeout: float | None = None) -> R:
        """Block this thread until the ticket is done. Never call it on a thread that runs a loop."""
        done = threading.Event()
        with _lock:
            if not self._done:
                self._wakeups.append((None, done.set))
            else:
                done.set()
        if not done.wait(timeout):
            raise TimeoutError("the store did not answer in time")
        return self._outcome()

    def __await__(self) -> Generator[Any, Any, R]:
        if not self._done:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                yield from self._wait_in_trio().__await__()
            else:
                yield from self._wait_in_asyncio(loop).__await__()
        return self._outcome()

    def _outcome(self) -> R:
        if self._error is not None:
            raise self._error
        return cast(R, self._result)

    async def _wait_in_asyncio(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter = loop.create_future()

        def arrived() -> None:
            if not waiter.done():
                waiter.set_result(None)

        if self._wants(loop, arrived):
            await waiter

    async def _wait_in_trio(self) -> None:
        arrived = trio.Event()
        if self._wants(trio.lowlevel.current_trio_token(), arrived.set):
            await arrived.wait()

    def _wants(self, world: _World, wakeup: Callable[[], None]) -> bool:
        with _lock:
            if self._done:
                return False
            self._wakeups.append((world, wakeup))
            return True


def wake(tickets: Iterable[Ticket[Any]]) -> None:
    """Mark settled tickets as done and wake everybody who waits, with one call for each world."""
    worlds: dict[_World, list[Callable[[], None]]] = {}
    with _lock:
        for ticket in tickets:
            ticket._done = True
            for world, wakeup in ticket._wakeups:
                worlds.setdefault(world, []).append(wakeup)
            ticket._wakeups.clear()
    for world, wakeups in worlds.items():
        if world is None:
            _call_all(wakeups)
            continue
        try:
            if isinstance(world, trio.lowlevel.TrioToken):
                world.run_sync_soon(_call_all, wakeups)
            else:
                world.call_soon_threadsafe(_call_all, wakeups)
        except (RuntimeError, trio.RunFinishedError):
            pass  # that world has ended, and everybody who waited there with it


def _call_all(wakeups: Iterable[Callable[[], None]]) -> None:
    for wakeup in wakeups:
        wakeup()
