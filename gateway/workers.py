"""A few worker processes for what burns Python: bodies, large splices, DKIM, images.

In the daemon's own threads such work would hold the interpreter's lock and, with it, every accepted message. Here it
costs another process, and can be stopped: what takes too long, eats too much or crashes loses its process and nothing
else. The caller gets `Unavailable` and goes on without the result.

Written out rather than taken from pebble or `multiprocessing`. There, workers share one queue, and one that dies while
it takes a job from it (a message too large for its memory is enough) breaks the pool for everybody, or loses the job
and leaves its caller waiting; they poll; and their children import the daemon's main module and inherit its
environment. Here each process has its own pipe and one thread that waits at it, so it is always known whose job ended
with whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any, Final, TypeVar, TypeVarTuple, cast

from gateway import worker
from gateway.errors import Unavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PROCESSES: Final = 2
# Reading a message of 100 MB takes about seven times its size, copies on the way in and out included.
MEMORY_BYTES: Final = 1024 * 1024 * 1024
# A fresh interpreter needs a tenth of a second; a machine that is swapping needs its time.
START_WITHIN: Final = 60.0  # seconds

# What a library may need to run at all. Not the rest: the environment may hold `env:` secrets, and a worker reads
# what strangers wrote.
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


class _Ended(Exception):
    """The process went away in the middle of a job."""


class WorkerPool:
    """At most `processes` worker processes, started when the first jobs come. Belongs to the asyncio thread."""

    def __init__(
        self,
        processes: int = PROCESSES,
        memory_bytes: int = MEMORY_BYTES,
        start_within: float = START_WITHIN,
    ) -> None:
        self._processes = processes
        self._memory_bytes = memory_bytes
        self._start_within = start_within
        self._slots = asyncio.Semaphore(processes)
        self._threads = ThreadPoolExecutor(processes, "worker-wait")
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts, timeout: float) -> T:
        """Return `fn(*args)`, computed in a worker process. `fn` is found there by its module and name.

        `timeout`: seconds for the job itself, arguments and answer included; waiting for a free worker does not
        count. Raises what `fn` raises (its remote traceback as a note), or `Unavailable` when the job ran out of
        time or memory, its process ended, or the pool is closed. Cancelling kills the process of a running job.
        """
        self._check_open()
        async with self._slots:
            self._check_open()
            process = await self._take()
            self._busy.add(process)
            try:
                if not process.started:
                    await self._wait(process, self._start_within, process.start)
                answer = await self._wait(process, timeout, process.perform, fn, args)
            except _Ended as ended:
                self._check_open()
                raise Unavailable(f"{_name(fn)} in a worker process: {ended}") from None
            finally:
                self._busy.discard(process)
                if process.reusable and not self._closed:
                    self._idle.append(process)
                else:
                    await self._end(process)
        word, value, trace = answer
        if word == worker.DONE:
            return cast(T, value)
        if isinstance(value, MemoryError):
            limit = self._memory_bytes // (1024 * 1024)
            raise Unavailable(f"{_name(fn)} in a worker process: it needed more than {limit} MiB of memory") from None
        error = cast(Exception, value)
        error.add_note(f"in a worker process:\n{trace}")
        raise error

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that live now; empty until there was something to do."""
        return tuple(process.pid for process in (*self._idle, *self._busy) if process.pid)

    async def close(self) -> None:
        """End every process; jobs still running get `Unavailable`. Returns when all are gone."""
        self._closed = True
        for process in self._busy:
            process.kill()
        for _ in range(self._processes):  # whoever waits for a slot comes first, and finds us closed
            await self._slots.acquire()
        while self._idle:
            await self._end(self._idle.pop())
        for _ in range(self._processes):
            self._slots.release()
        self._threads.shutdown(wait=False)

    async def _take(self) -> _Worker:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive():
                return process
            await self._end(process)  # it died while it had nothing to do: the kernel was short of memory
        return _Worker(self._memory_bytes)

    async def _end(self, process: _Worker) -> None:
        process.kill()
        await self._in_thread(process.bury)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the gateway is shutting down: its worker processes take no more work")

    async def _wait(self, process: _Worker, timeout: float, step: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run one blocking step of `process` in a thread, and make it end, by a kill, when time is up or we are."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout, process.kill, f"took longer than {timeout:g} s and was ended")
        try:
            return await self._in_thread(step, *args, on_cancel=process.kill)
        finally:
            timer.cancel()

    async def _in_thread(self, step: Callable[[*Ts], T], *args: *Ts, on_cancel: Callable[[], None] = lambda: None) -> T:
        """Return `step(*args)` from a thread; when cancelled, wait for its end none the less."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, step, *args)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
                on_cancel()
        if cancelled is not None:
            future.exception()  # retrieved: what came of it has no reader any more
            raise cancelled
        return future.result()


class _Worker:
    """One process and its pipe. `start`, `perform` and `bury` block and run in a thread; `kill` is for the loop."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._killed_because = ""
        self.started = False
        self.reusable = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        paths = [entry or os.getcwd() for entry in sys.path]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-P", "-m", worker.__name__, str(os.getpid()), str(self._memory_bytes)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a Ctrl-C at the terminal is not for the workers
        )
        if self._killed_because:  # while the process was being made
            self._process.kill()
        with self._talk() as (_, answers):
            pickle.load(answers)
        self.started = self.reusable = True

    def perform(self, fn: Callable[..., object], args: tuple[object, ...]) -> tuple[str, Any, str]:
        """Return the answer to one job. `reusable` afterwards says whether the process can take another."""
        self.reusable = False
        with self._talk() as (jobs, answers):
            # Large byte strings go into the pipe and come out of it without being copied into a pickle first.
            with contextlib.suppress(BrokenPipeError):  # it gave up reading; why, is in its answer
                pickle.dump((fn, args), jobs, pickle.HIGHEST_PROTOCOL)
                jobs.flush()
            answer: tuple[str, Any, str] = pickle.load(answers)
        unhurt = answer[0] != worker.UNREAD and not isinstance(answer[1], MemoryError)
        self.reusable = unhurt and not self._killed_because
        return answer

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self, because: str = "was ended") -> None:
        """End the process now; whoever waits at its pipe is woken by that. Safe in every state."""
        self._killed_because = self._killed_because or because
        if self._process is not None:
            self._process.kill()

    def bury(self) -> None:
        """Collect what is left of a killed process."""
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # unwritten bytes of a broken pipe
                    if pipe is not None:
                        pipe.close()

    @contextmanager
    def _talk(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdin, process.stdout
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            process.kill()
            code = process.wait()
            end = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise _Ended(f"it {self._killed_because or end}") from error


def _name(fn: Callable[..., object]) -> str:
    return getattr(fn, "__qualname__", repr(fn))
