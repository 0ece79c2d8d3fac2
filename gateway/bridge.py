"""The bridge: Trio on the main thread, one asyncio loop in a thread of its own for the protocol libraries.

The libraries that speak SMTP and IMAP are written for asyncio; the structure of the daemon is Trio's. They meet here
and nowhere else. `Bridge.call` runs one coroutine function as one task over there and carries its result, its
exception, the caller's context variables and its cancellation; `Bridge.post` goes the other way, from any thread.

Three things make it more than a queue in each direction:

* asyncio cancels once, Trio for as long as the scope lasts. A library that swallows its `CancelledError` would run
  on without an owner, so a cancelled call is cancelled again each second, and it returns only when its task has ended.
* A result that arrives although the caller was cancelled is handed on. A provider's "250" must not be forgotten
  because a deadline passed in the same moment.
* An exception that no task owns (a callback of a library, a task nobody awaited) is logged and counted; it ends
  nothing. Only the loss of the thread itself ends the daemon: then `open_bridge` cancels its body and raises.

Only immutable values should cross. What the coroutine touches of ours over there, it touches in another thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar, TypeVarTuple

import trio

from gateway import events
from gateway.errors import GatewayError, Unavailable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# For what only waits: name resolution and secrets. A resolver that nobody answers keeps a thread for half a minute, and
# with the four that uvloop and we would have had, four dead host names kept every other touchpoint from dialling.
WAITERS = 64
os.environ.setdefault("UV_THREADPOOL_SIZE", str(WAITERS))  # libuv reads it when it first resolves a name

new_event_loop: LoopFactory
try:
    import uvloop
except ImportError:  # pragma: no cover - a platform without uvloop: slower, otherwise the same
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Long enough for a task to say goodbye to its peer after the first CancelledError, short enough that a task which
# swallowed it does not delay a shutdown noticeably.
CANCEL_AGAIN = 1.0  # seconds

# What is still running when the daemon ends gets this long to end too. It is no drain: draining is done before, by
# those who own the work.
STOP_WITHIN = 5.0  # seconds


class BridgeClosed(Unavailable):
    """The asyncio thread is shutting down or gone; nothing more runs over there."""

    def __init__(self) -> None:
        super().__init__("the gateway is shutting down: its protocol thread takes no more work")


class BridgeLost(GatewayError):
    """The asyncio thread ended although nobody asked it to. The daemon ends; the service manager restarts it."""


class _Call(Generic[T]):
    """One task over there, as seen from here. Filled by the asyncio thread before `ended` is set on Trio's."""

    __slots__ = ("cancelled", "ended", "error", "result", "task")

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.task: asyncio.Task[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.cancelled = False


class Bridge:
    """See the module. `call` and `ping` belong to Trio's thread; `post` to every thread. Made by `open_bridge`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop_within: float, cancel_again: float) -> None:
        self.loop = loop
        self.stray_exceptions = 0  # since the start; metrics and `status` show it
        self._token = trio.lowlevel.current_trio_token()
        self._stop_within = stop_within
        self._cancel_again = cancel_again
        self._calls: set[_Call[Any]] = set()  # Trio's thread only
        self._closing = False  # no new calls; set here, or there when the thread is lost
        self._asked_to_end = False
        self._posts_end = False  # no more posts; set last, so that a draining task can still report
        self._ended = trio.Event()  # the thread has left its loop
        self._lost: Callable[[], None] = lambda: None  # called on Trio's thread when it left without being asked
        self._lock = threading.Lock()  # around the count, which both threads raise
        self._stop: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._live, name="asyncio", daemon=True)

    # --- from Trio ---------------------------------------------------------------------------------------------------

    async def call(self, fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Return what `await fn(*args)` returns on the asyncio thread, run as a task with a copy of our context.

        Raises what it raises; `BridgeClosed` when the bridge is or goes away; `Unavailable` when something over
        there cancelled the task. When we are cancelled, the task is, again and again until it has ended. If it then
        ended with a result or an exception of its own, that is handed on, and the caller meets its cancellation at
        the next checkpoint; otherwise `trio.Cancelled` is raised. Nothing of the task is left behind either way.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise BridgeClosed
        call: _Call[T] = _Call()
        context = contextvars.copy_context()
        try:
            self.loop.call_soon_threadsafe(self._start, call, context, fn, args)
        except RuntimeError:  # the loop is closed: the thread died a moment ago
            raise BridgeClosed from None
        self._calls.add(call)
        try:
            await call.ended.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                while not call.ended.is_set():
                    self._tell_loop(self._cancel, call)
                    with trio.move_on_after(self._cancel_again):
                        await call.ended.wait()
            if call.cancelled:
                raise
        finally:
            self._calls.discard(call)
        try:
            if call.error is not None:
                raise call.error
            if call.cancelled:
                raise self._cancelled_over_there()
            return call.result  # type: ignore[return-value]  # T may itself be None
        finally:
            del call  # an exception's traceback holds this frame: without this they would hold each other

    async def ping(self, timeout: float) -> bool:
        """Return whether the asyncio thread came round within `timeout` seconds; the watchdog asks."""
        if self._ended.is_set():
            return False
        pong = trio.Event()
        self._tell_loop(self.post, pong.set)
        with trio.move_on_after(timeout):
            await pong.wait()
        return pong.is_set()

    # --- from any thread ---------------------------------------------------------------------------------------------

    def post(self, fn: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run the plain function `fn(*args)` soon on Trio's thread, in the order of posting.

        Does nothing once the bridge is closed. An exception of `fn` is logged and counted like any stray one.
        """
        if not self._posts_end:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._run_posted, fn, args)

    # --- on Trio's thread --------------------------------------------------------------------------------------------

    def _run_posted(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._posts_end:
            return
        try:
            fn(*args)
        except Exception as error:  # it would otherwise end Trio itself
            self._note_stray("a posted function failed", error)

    def _note_end(self) -> None:
        self._ended.set()
        self._release_calls()
        if not self._asked_to_end:
            self._closing = True
            self._lost()

    async def _close(self) -> None:
        self._closing = self._asked_to_end = True
        self._tell_loop(self._let_go)
        # The bound is enforced over there; the second on top is for a thread that does not even look at its clock.
        with trio.move_on_after(self._stop_within + 1):
            await self._ended.wait()
        if not self._ended.is_set():  # stuck in code that never yields; a daemon thread does not hold the process
            events.fail("bridge-stuck", cause=f"the protocol thread did not end within {self._stop_within:g} s")
        self._posts_end = True
        self._release_calls()

    def _cancelled_over_there(self) -> Unavailable:
        return BridgeClosed() if self._closing else Unavailable("the work was cancelled in the protocol thread")

    def _release_calls(self) -> None:
        """Wake every caller whose task cannot end any more: the thread is gone, or it is not worth waiting for."""
        for call in self._calls:
            if not call.ended.is_set():
                call.error = BridgeClosed()
                call.ended.set()

    def _tell_loop(self, fn: Callable[[*Ts], object], *args: *Ts) -> None:
        with suppress(RuntimeError):  # closed: `_release_calls` wakes whoever waits
            self.loop.call_soon_threadsafe(fn, *args)

    # --- on the asyncio thread ---------------------------------------------------------------------------------------

    def _start(
        self,
        call: _Call[T],
        context: contextvars.Context,
        fn: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[Any, ...],
    ) -> None:
        try:
            call.task = self.loop.create_task(fn(*args), context=context)
        except BaseException as error:  # fn refused its arguments, or gave no coroutine: the caller's bug, not ours
            call.error = error
            self._report_end(call)
        else:
            call.task.add_done_callback(lambda task: self._finish(call, task))

    def _finish(self, call: _Call[T], task: asyncio.Task[T]) -> None:
        if task.cancelled():
            call.cancelled = True
        elif (error := task.exception()) is not None:
            # A SystemExit over there has just ended the loop; as an exit code it would be taken for a decision here.
            call.error = error if isinstance(error, Exception) else BridgeClosed()
        else:
            call.result = task.result()
        call.task = None
        self._report_end(call)

    def _report_end(self, call: _Call[Any]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call.ended.set)

    @staticmethod
    def _cancel(call: _Call[Any]) -> None:
        if call.task is not None:
            call.task.cancel()

    def _let_go(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)

    def _on_stray(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._note_stray(str(context.get("message", "")), context.get("exception"))

    def _note_stray(self, message: str, error: BaseException | None) -> None:
        with self._lock:
            self.stray_exceptions += 1
        if error is None:
            events.fail("stray-exception", cause=message)
        else:
            events.bug("stray-exception", error, cause=message)

    def _live(self) -> None:
        """The asyncio thread, from first to last."""
        loop = self.loop
        threads = ThreadPoolExecutor(WAITERS, "asyncio-wait")
        asyncio.set_event_loop(loop)
        loop.set_default_executor(threads)
        loop.set_exception_handler(self._on_stray)
        try:
            loop.run_until_complete(self._stop)
        except BaseException as error:  # SystemExit out of a task: asyncio lets it stop the loop
            events.bug("bridge-lost", error)
            self._closing = True
        try:
            loop.run_until_complete(self._end_tasks())
        except BaseException as error:
            events.bug("bridge-lost", error)
        # Not waited for: a resolver may block for half a minute, and nothing here needs its answer any more.
        threads.shutdown(wait=False, cancel_futures=True)
        asyncio.set_event_loop(None)
        loop.close()
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._note_end)

    async def _end_tasks(self) -> None:
        """Cancel what still runs, as often as it takes, and wait for it, `stop_within` seconds at most."""
        deadline = self.loop.time() + self._stop_within
        me = asyncio.current_task()
        while rest := [task for task in asyncio.all_tasks() if task is not me]:
            left = deadline - self.loop.time()
            if left <= 0:
                tasks = [repr(task) for task in rest]
                events.fail("tasks-abandoned", cause="they did not end when cancelled", tasks=tasks)
                break
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=min(left, self._cancel_again))
        with suppress(TimeoutError):
            await asyncio.wait_for(self.loop.shutdown_asyncgens(), 1)


@asynccontextmanager
async def open_bridge(
    loop_factory: LoopFactory = new_event_loop,
    *,
    stop_within: float = STOP_WITHIN,
    cancel_again: float = CANCEL_AGAIN,
) -> AsyncIterator[Bridge]:
    """Start the asyncio thread, and end it with the block: what still runs there is cancelled, within `stop_within`.

    Raises `BridgeLost`, after cancelling the block, when the thread ends on its own: a library raised `SystemExit`,
    or the loop broke. There is no way back from that inside the process.
    """
    bridge = Bridge(loop_factory(), stop_within, cancel_again)
    lost = False
    with trio.CancelScope() as scope:

        def end_block() -> None:
            nonlocal lost
            lost = True
            scope.cancel()

        bridge._lost = end_block
        bridge._thread.start()
        try:
            yield bridge
        finally:
            with trio.CancelScope(shield=True):
                await bridge._close()
    if lost:
        raise BridgeLost("the protocol thread ended unexpectedly; the log has the exception that ended it")
