"""Worker processes as they are: real ones, that hang, crash and eat memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.bridge import open_bridge
from gateway.errors import Malformed, Unavailable
from gateway.workers import WorkerPool

MIB = 1024 * 1024
PLENTY = 30.0  # seconds: more than any job here needs on a busy machine


# --- jobs: they run over there ---------------------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    return a + b


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def echo(data: bytes) -> bytes:
    return data


def fail(text: str) -> None:
    raise Malformed(text)


class Awkward(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_awkwardly() -> None:
    raise Awkward(1, two=2)


def hang() -> None:
    while True:
        pass


def touch_and_hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    hang()


def eat(size: int) -> int:
    return len(bytearray(size))


def crash(code: int) -> None:
    os._exit(code)


def shoot_oneself(number: int) -> None:
    os.kill(os.getpid(), number)


def my_pid() -> int:
    return os.getpid()


def chatter() -> str:
    print("this must not end up in the stream")
    sys.stdout.flush()
    return sys.stdin.read()


def return_a_lock() -> object:
    return threading.Lock()


def environment() -> dict[str, str]:
    return dict(os.environ)


def open_files() -> list[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    return [os.readlink(link) for link in links if os.path.exists(link)]


def survive_signals() -> str:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return "still here"


# --- the pool --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_pool(processes: int = 1, memory_bytes: int = 400 * MIB) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(processes, memory_bytes)
    try:
        yield pool
    finally:
        await pool.close()
        assert pool.processes == ()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PLENTY
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_text(path: Path) -> str:
    deadline = time.monotonic() + PLENTY
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_a_result_comes_back_and_the_process_is_used_again():
    async def main() -> None:
        async with open_pool() as pool:
            assert await pool.run(add, 2, 3, timeout=PLENTY) == 5
            first = await pool.run(my_pid, timeout=PLENTY)
            assert first == await pool.run(my_pid, timeout=PLENTY)
            assert first != os.getpid()

    run(main())


def test_an_idle_pool_has_no_processes():
    async def main() -> None:
        async with open_pool(2) as pool:
            assert pool.processes == ()
            await pool.run(add, 1, 1, timeout=PLENTY)
            assert len(pool.processes) == 1

    run(main())


def test_a_large_message_goes_over_and_comes_back_unchanged():
    data = os.urandom(20 * MIB)

    async def main() -> None:
        async with open_pool() as pool:
            assert await pool.run(digest, data, timeout=PLENTY) == hashlib.sha256(data).hexdigest()
            assert await pool.run(echo, data, timeout=PLENTY) == data

    run(main())


def test_an_exception_comes_back_with_its_remote_traceback_as_a_note():
    async def main() -> None:
        async with open_pool() as pool:
            with pytest.raises(Malformed, match="odd") as caught:
                await pool.run(fail, "odd", timeout=PLENTY)
            assert "in fail" in "".join(caught.value.__notes__)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_an_exception_that_cannot_be_carried_is_told_in_words():
    async def main() -> None:
        async with open_pool() as pool:
            with pytest.raises(RuntimeError, match="Awkward: 1 and 2"):
                await pool.run(fail_awkwardly, timeout=PLENTY)

    run(main())


def test_an_answer_that_cannot_be_carried_is_an_error_and_hurts_nobody():
    async def main() -> None:
        async with open_pool() as pool:
            with pytest.raises(TypeError, match="cannot be carried back"):
                await pool.run(return_a_lock, timeout=PLENTY)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_a_function_that_cannot_be_found_over_there_is_the_callers_exception():
    async def main() -> None:
        async with open_pool() as pool:
            with pytest.raises((AttributeError, TypeError), match=r"lambda|local"):
                await pool.run(lambda: 1, timeout=PLENTY)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_what_a_job_prints_does_not_break_the_stream():
    async def main() -> None:
        async with open_pool() as pool:
            assert await pool.run(chatter, timeout=PLENTY) == ""
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_a_job_that_hangs_is_ended_in_time_and_the_next_one_works(tmp_path: Path):
    async def main() -> None:
        async with open_pool() as pool:
            await pool.run(add, 1, 1, timeout=PLENTY)
            begun = time.monotonic()
            with pytest.raises(Unavailable, match=r"touch_and_hang .* took longer than 0.5 s"):
                await pool.run(touch_and_hang, str(tmp_path / "pid"), timeout=0.5)
            assert time.monotonic() - begun < 10
            assert not is_alive(int((tmp_path / "pid").read_text()))
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_a_job_that_eats_memory_fails_alone(tmp_path: Path):
    async def main() -> None:
        async with open_pool(2) as pool:
            other = asyncio.create_task(pool.run(touch_and_hang, str(tmp_path / "pid"), timeout=PLENTY))
            neighbour = int(await asyncio.to_thread(wait_for_text, tmp_path / "pid"))
            with pytest.raises(Unavailable, match="more than 400 MiB"):
                await pool.run(eat, 500 * MIB, timeout=PLENTY)
            assert await pool.run(eat, 50 * MIB, timeout=PLENTY) == 50 * MIB
            assert is_alive(neighbour)
            other.cancel()
            await asyncio.wait([other])

    run(main())


def test_a_message_too_large_for_the_worker_fails_alone():
    async def main() -> None:
        async with open_pool(1, 150 * MIB) as pool:
            with pytest.raises(Unavailable, match=r"more than 150 MiB|ended"):
                await pool.run(digest, bytes(200 * MIB), timeout=PLENTY)
            with pytest.raises(Unavailable, match=r"more than 150 MiB|ended"):
                await pool.run(bytes, 200 * MIB, timeout=PLENTY)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_a_large_message_comes_back_without_another_copy_of_it():
    async def main() -> None:
        async with open_pool(1, 150 * MIB) as pool:
            assert len(await pool.run(echo, bytes(80 * MIB), timeout=PLENTY)) == 80 * MIB

    run(main())


@pytest.mark.parametrize(
    ("job", "end"),
    [
        pytest.param(partial(crash, 7), "exit code 7", id="exit"),
        pytest.param(partial(shoot_oneself, signal.SIGSEGV), "signal 11", id="segmentation-fault"),
        pytest.param(partial(shoot_oneself, signal.SIGKILL), "signal 9", id="out-of-memory-killer"),
    ],
)
def test_a_crash_fails_alone(job: partial[None], end: str, tmp_path: Path):
    async def main() -> None:
        async with open_pool(2) as pool:
            other = asyncio.create_task(pool.run(touch_and_hang, str(tmp_path / "pid"), timeout=PLENTY))
            neighbour = int(await asyncio.to_thread(wait_for_text, tmp_path / "pid"))
            with pytest.raises(Unavailable, match=end):
                await pool.run(job, timeout=PLENTY)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2
            assert is_alive(neighbour)
            other.cancel()
            await asyncio.wait([other])

    run(main())


def test_a_process_that_died_while_idle_is_replaced_unnoticed():
    async def main() -> None:
        async with open_pool() as pool:
            pid = await pool.run(my_pid, timeout=PLENTY)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(wait_until_gone, pid)
            assert await pool.run(my_pid, timeout=PLENTY) != pid

    run(main())


def test_cancelling_ends_the_job_and_frees_its_place(tmp_path: Path):
    async def main() -> None:
        async with open_pool() as pool:
            task = asyncio.create_task(pool.run(touch_and_hang, str(tmp_path / "pid"), timeout=PLENTY))
            pid = int(await asyncio.to_thread(wait_for_text, tmp_path / "pid"))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not is_alive(pid)
            assert await pool.run(add, 1, 1, timeout=PLENTY) == 2

    run(main())


def test_jobs_wait_for_a_free_process_and_their_time_does_not_run_meanwhile():
    async def main() -> None:
        async with open_pool(2) as pool:
            pids = await asyncio.gather(*(pool.run(my_pid, timeout=PLENTY) for _ in range(12)))
            assert len(set(pids)) <= 2
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(pool.run(time.sleep, 0.3, timeout=1.0))

    run(main())


def test_close_ends_what_runs_with_a_clear_error_and_refuses_the_rest(tmp_path: Path):
    async def main() -> None:
        async with open_pool() as pool:
            running = asyncio.create_task(pool.run(touch_and_hang, str(tmp_path / "pid"), timeout=PLENTY))
            pid = int(await asyncio.to_thread(wait_for_text, tmp_path / "pid"))
            waiting = asyncio.create_task(pool.run(add, 1, 1, timeout=PLENTY))
            await asyncio.sleep(0)
            await pool.close()
            for task in (running, waiting):
                with pytest.raises(Unavailable, match="shutting down"):
                    await task
            with pytest.raises(Unavailable, match="shutting down"):
                await pool.run(add, 1, 1, timeout=PLENTY)
            assert not is_alive(pid)

    run(main())


def test_a_worker_ignores_the_signals_of_the_terminal_and_the_service_manager():
    async def main() -> None:
        async with open_pool() as pool:
            assert await pool.run(survive_signals, timeout=PLENTY) == "still here"

    run(main())


def test_a_worker_knows_nothing_of_our_environment_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SUPPORT_PASSWORD", "secret")
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)

        async def main() -> None:
            async with open_pool() as pool:
                assert "SUPPORT_PASSWORD" not in await pool.run(environment, timeout=PLENTY)
                names = await pool.run(open_files, timeout=PLENTY)
                assert not [name for name in names if "held" in name or "socket" in name]

        run(main())


def test_a_worker_dies_with_the_daemon_in_the_middle_of_a_job(tmp_path: Path):
    script = (
        "import asyncio, sys\n"
        "from gateway.workers import WorkerPool\n"
        "from tests.shell.test_workers import touch_and_hang\n"
        "async def main():\n"
        "    await WorkerPool().run(touch_and_hang, sys.argv[1], timeout=60)\n"
        "asyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    daemon = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pid")], env=environment)
    try:
        pid = int(wait_for_text(tmp_path / "pid"))
        assert is_alive(pid)
    finally:
        daemon.kill()
        daemon.wait()
    wait_until_gone(pid)


async def test_the_pool_is_used_from_trio_through_the_bridge():
    async def make() -> WorkerPool:
        return WorkerPool(1)

    async with open_bridge() as bridge:
        pool = await bridge.call(make)
        assert await bridge.call(partial(pool.run, add, 2, 2, timeout=PLENTY)) == 4
        begun = time.monotonic()
        with trio.move_on_after(0.3) as scope:
            await bridge.call(partial(pool.run, hang, timeout=PLENTY))
        assert scope.cancelled_caught
        assert time.monotonic() - begun < 10
        await bridge.call(pool.close)
