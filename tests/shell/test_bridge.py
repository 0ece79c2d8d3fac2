"""The bridge on real threads and real time, on uvloop and on plain asyncio alike."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing
import uvloop

from gateway import bridge as bridge_module
from gateway import events
from gateway.bridge import BridgeClosed, BridgeLost, LoopFactory, open_bridge
from gateway.errors import Unavailable

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
every_loop = pytest.mark.parametrize("loops", LOOPS)

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def fail() -> None:
    await asyncio.sleep(0)
    raise LookupError("not here")


async def other_tasks() -> int:
    return len(asyncio.all_tasks()) - 1  # this one


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the other thread has no trio.Event to set
            await trio.sleep(0.005)


def test_uvloop_is_what_runs_where_it_is_installed():
    assert bridge_module.new_event_loop is uvloop.new_event_loop


@every_loop
async def test_a_few_who_wait_long_keep_nobody_else_from_waiting(loops: LoopFactory):
    """Ten secrets that do not come, ten names that nobody resolves: the eleventh touchpoint dials all the same."""
    let_go, waiting = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        waiting.release()
        let_go.wait(10)

    async def wait_over_there() -> None:
        await asyncio.to_thread(wait)

    async def count_over_there() -> int:
        return await asyncio.to_thread(lambda: sum(waiting.acquire(timeout=1) for _ in range(10)))

    async with open_bridge(loops) as bridge, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(bridge.call, wait_over_there)
        try:
            with trio.fail_after(5):
                assert await bridge.call(count_over_there) == 10
        finally:
            let_go.set()
    assert int(os.environ["UV_THREADPOOL_SIZE"]) > 10  # uvloop's own threads for names; libuv has four by default


@every_loop
async def test_a_result_comes_back(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        assert await bridge.call(add, 2, 3) == 5
        assert bridge.loop.__class__.__module__.split(".")[0] in (loops.__module__.split(".")[0], "asyncio")


@every_loop
async def test_the_work_runs_in_another_thread_as_a_task_of_the_asyncio_loop(loops: LoopFactory):
    async def where() -> tuple[str, asyncio.AbstractEventLoop, bool]:
        return threading.current_thread().name, asyncio.get_running_loop(), asyncio.current_task() is not None

    async with open_bridge(loops) as bridge:
        assert await bridge.call(where) == ("asyncio", bridge.loop, True)


@every_loop
async def test_an_exception_comes_back_with_the_traceback_of_its_origin(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        with pytest.raises(LookupError, match="not here") as caught:
            await bridge.call(fail)
        assert "fail" in [entry.name for entry in caught.traceback]
        assert bridge.stray_exceptions == 0


@every_loop
async def test_a_function_that_refuses_its_arguments_is_the_callers_exception(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        with pytest.raises(TypeError, match="missing 1 required"):
            await bridge.call(add, 1)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(TypeError, match="coroutine"):
            await bridge.call(len, "ab")  # type: ignore[arg-type]  # the point of the test
        assert await bridge.call(add, 1, 1) == 2


@every_loop
async def test_context_variables_go_over_and_stay_there(loops: LoopFactory):
    async def look_and_paint() -> str:
        seen = colour.get()
        colour.set("green")
        return seen

    async with open_bridge(loops) as bridge:
        colour.set("blue")
        assert await bridge.call(look_and_paint) == "blue"
        assert colour.get() == "blue"


@every_loop
async def test_calls_run_side_by_side(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        meeting = asyncio.Event()

        async def meet(first: bool) -> None:
            if first:
                await meeting.wait()
            else:
                meeting.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, meet, True)
                nursery.start_soon(bridge.call, meet, False)


# --- cancelling ------------------------------------------------------------------------------------------------------


@every_loop
async def test_cancelling_waits_until_the_task_has_cleaned_up(loops: LoopFactory):
    steps: list[str] = []
    started = threading.Event()

    async def tidy() -> None:
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            steps.append("tidied")

    async with open_bridge(loops) as bridge:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, tidy)
                await until(started.is_set)
                scope.cancel()
        assert scope.cancelled_caught
        assert steps == ["tidied"]
        assert await bridge.call(other_tasks) == 0


@every_loop
async def test_a_call_in_a_cancelled_scope_starts_nothing(loops: LoopFactory):
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    async with open_bridge(loops) as bridge:
        with trio.CancelScope() as scope:
            scope.cancel()
            await bridge.call(work)
        assert scope.cancelled_caught
        assert await bridge.call(other_tasks) == 0
        assert ran == []


@every_loop
async def test_cancelling_before_the_task_has_begun_leaves_no_unawaited_coroutine(loops: LoopFactory):
    release = threading.Event()

    async def block_the_loop() -> None:
        release.wait(10)

    async with open_bridge(loops) as bridge, trio.open_nursery() as nursery:
        nursery.start_soon(bridge.call, block_the_loop)
        await trio.lowlevel.checkpoint()
        bridge.loop.call_soon_threadsafe(int)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(bridge.call, fail)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                with trio.CancelScope(shield=True):  # until the call has said over there that it is cancelled
                    await trio.testing.wait_all_tasks_blocked()
                release.set()
        assert scope.cancelled_caught
    gc.collect()  # a coroutine that was never awaited warns here, and a warning is an error


@every_loop
async def test_a_task_that_swallows_its_cancellation_is_cancelled_again(loops: LoopFactory):
    cancelled = 0
    started = threading.Event()

    async def stubborn() -> str:
        nonlocal cancelled
        started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 3:
                    raise

    async with open_bridge(loops, cancel_again=0.02) as bridge:
        with trio.fail_after(10), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, stubborn)
                await until(started.is_set)
                scope.cancel()
        assert scope.cancelled_caught
        assert cancelled == 3
        assert await bridge.call(other_tasks) == 0


@every_loop
async def test_a_result_that_arrives_in_spite_of_the_cancellation_is_kept(loops: LoopFactory):
    started = threading.Event()

    async def answer_anyway() -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return "250 accepted"

    kept: list[str] = []
    async with open_bridge(loops) as bridge:

        async def ask() -> None:
            kept.append(await bridge.call(answer_anyway))
            await trio.lowlevel.checkpoint()
            kept.append("not reached")

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await until(started.is_set)
                scope.cancel()
    assert kept == ["250 accepted"]
    assert scope.cancelled_caught


@every_loop
async def test_an_exception_that_a_task_makes_of_its_cancellation_is_handed_on(loops: LoopFactory):
    started = threading.Event()

    async def translate() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError("cut in the middle") from None

    async with open_bridge(loops) as bridge:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(ConnectionError):
                        await bridge.call(translate)

                nursery.start_soon(ask)
                await until(started.is_set)
                scope.cancel()


@every_loop
async def test_a_task_cancelled_over_there_is_unavailable_here(loops: LoopFactory):
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with open_bridge(loops) as bridge:
        with pytest.raises(Unavailable, match="cancelled"):
            await bridge.call(give_up)


@every_loop
async def test_a_deadline_of_trio_holds_while_the_task_works(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        begun = time.monotonic()
        with trio.move_on_after(0.05) as scope:
            await bridge.call(asyncio.sleep, 60)
        assert scope.cancelled_caught
        assert time.monotonic() - begun < 5


# --- posting ---------------------------------------------------------------------------------------------------------


@every_loop
async def test_posts_from_any_thread_run_on_trios_thread_in_order(loops: LoopFactory):
    seen: list[tuple[int, bool]] = []
    main = threading.current_thread()

    def note(number: int) -> None:
        seen.append((number, threading.current_thread() is main))

    async def post_three() -> None:
        for number in range(3):
            bridge.post(note, number)

    async with open_bridge(loops) as bridge:
        await bridge.call(post_three)
        await until(lambda: len(seen) == 3)
        thread = threading.Thread(target=bridge.post, args=(note, 3))
        thread.start()
        await until(lambda: len(seen) == 4)
        thread.join()
    assert seen == [(0, True), (1, True), (2, True), (3, True)]


@every_loop
async def test_a_posted_function_that_fails_is_counted_and_ends_nothing(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        bridge.post(int, "x")
        await until(lambda: bridge.stray_exceptions == 1)
        assert await bridge.call(add, 1, 1) == 2


@every_loop
async def test_posting_after_the_end_does_nothing(loops: LoopFactory):
    seen: list[int] = []
    async with open_bridge(loops) as bridge:
        pass
    bridge.post(seen.append, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == []


def test_posting_after_trio_has_ended_does_nothing():
    async def main() -> bridge_module.Bridge:
        async with open_bridge() as bridge:
            return bridge

    bridge = trio.run(main)
    bridge._posts_end = False  # as seen by a thread that looked a moment before the end
    bridge.post(print, "never")


# --- stray exceptions ------------------------------------------------------------------------------------------------


@every_loop
async def test_a_stray_exception_is_logged_and_counted_and_the_bridge_lives(loops: LoopFactory):
    before = events.counts().get("stray-exception", 0)

    async def leave_a_mess() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    async with open_bridge(loops) as bridge:
        await bridge.call(leave_a_mess)
        await until(lambda: bridge.stray_exceptions == 2)
        assert await bridge.call(add, 2, 2) == 4
    assert events.counts()["stray-exception"] == before + 2


@every_loop
async def test_exceptions_of_calls_are_never_called_unretrieved(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        for _ in range(20):
            with pytest.raises(LookupError):
                await bridge.call(fail)
        gc.collect()
        assert await bridge.call(other_tasks) == 0
        assert bridge.stray_exceptions == 0


@every_loop
async def test_a_finished_call_is_freed_without_the_garbage_collector(loops: LoopFactory):
    class Thing:
        alive = 0

        def __init__(self) -> None:
            Thing.alive += 1

        def __del__(self) -> None:
            Thing.alive -= 1

    async def use(thing: Thing) -> None:
        await asyncio.sleep(0)

    async def misuse(thing: Thing) -> None:
        raise LookupError

    async with open_bridge(loops) as bridge:
        gc.disable()
        try:
            await bridge.call(use, Thing())
            with contextlib.suppress(LookupError):
                await bridge.call(misuse, Thing())
            await bridge.call(asyncio.sleep, 0)  # the loop lets go of its last handle
            await until(lambda: Thing.alive == 0)
        finally:
            gc.enable()


# --- the end ---------------------------------------------------------------------------------------------------------


@every_loop
async def test_work_left_over_there_is_cancelled_at_the_end(loops: LoopFactory):
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("background")

    keep: list[asyncio.Task[None]] = []

    async def start() -> None:
        keep.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    begun = time.monotonic()
    async with open_bridge(loops) as bridge:
        await bridge.call(start)
    assert ended == ["background"]
    assert time.monotonic() - begun < 5
    assert bridge.loop.is_closed()
    await trio.to_thread.run_sync(bridge._thread.join, 5)
    assert not bridge._thread.is_alive()


@every_loop
async def test_a_call_in_flight_at_the_end_gets_a_clear_error(loops: LoopFactory):
    started = threading.Event()

    async def long_work() -> None:
        started.set()
        await asyncio.sleep(60)

    async def ask(bridge: bridge_module.Bridge) -> None:
        with pytest.raises(BridgeClosed, match="shutting down"):
            await bridge.call(long_work)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_bridge(loops) as bridge:
            nursery.start_soon(ask, bridge)
            await until(started.is_set)


@every_loop
async def test_a_task_that_never_ends_does_not_hold_the_end_beyond_its_bound(loops: LoopFactory):
    release = threading.Event()
    started = threading.Event()

    async def immortal() -> None:
        started.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    async def ask(bridge: bridge_module.Bridge) -> None:
        with pytest.raises(BridgeClosed):
            await bridge.call(immortal)

    before = events.counts().get("tasks-abandoned", 0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_bridge(loops, stop_within=0.2, cancel_again=0.02) as bridge:
            nursery.start_soon(ask, bridge)
            await until(started.is_set)
    assert events.counts()["tasks-abandoned"] == before + 1
    release.set()
    gc.collect()


@every_loop
async def test_a_thread_that_is_stuck_does_not_hold_the_end_beyond_its_bound(loops: LoopFactory):
    release = threading.Event()
    started = threading.Event()

    async def stuck() -> None:
        started.set()
        release.wait(20)

    async def ask(bridge: bridge_module.Bridge) -> None:
        with pytest.raises(BridgeClosed):
            await bridge.call(stuck)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_bridge(loops, stop_within=0.1) as bridge:
            nursery.start_soon(ask, bridge)
            await until(started.is_set)
            assert not await bridge.ping(0.05)
    assert events.counts()["bridge-stuck"] >= 1
    release.set()
    await trio.to_thread.run_sync(bridge._thread.join, 10)


@every_loop
async def test_calls_after_the_end_get_a_clear_error(loops: LoopFactory):
    async with open_bridge(loops) as bridge:
        pass
    with pytest.raises(BridgeClosed, match="shutting down"):
        await bridge.call(add, 1, 2)
    assert not await bridge.ping(1)


@every_loop
async def test_losing_the_thread_ends_the_block_and_every_call(loops: LoopFactory):
    async def exit_the_thread() -> None:
        raise SystemExit(3)

    async def ask(bridge: bridge_module.Bridge) -> None:
        with pytest.raises(BridgeClosed):
            await bridge.call(asyncio.sleep, 60)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with pytest.raises(BridgeLost):  # noqa: PT012 - what is tested is that the block ends by itself
                async with open_bridge(loops) as bridge:
                    nursery.start_soon(ask, bridge)
                    await trio.testing.wait_all_tasks_blocked()
                    with pytest.raises(BridgeClosed):
                        await bridge.call(exit_the_thread)
                    await trio.sleep_forever()


@every_loop
async def test_an_exception_of_the_block_passes_through_and_the_thread_ends(loops: LoopFactory):
    with pytest.raises(LookupError):
        async with open_bridge(loops) as bridge:
            raise LookupError
    assert bridge.loop.is_closed()


@every_loop
async def test_ping_tells_a_thread_that_comes_round_from_one_that_does_not(loops: LoopFactory):
    started, release = threading.Event(), threading.Event()
    async with open_bridge(loops) as bridge:
        assert await bridge.ping(5)
        async with trio.open_nursery() as nursery:

            async def block() -> None:
                started.set()
                release.wait(20)

            nursery.start_soon(bridge.call, block)
            await until(started.is_set)
            assert not await bridge.ping(0.05)
            release.set()
        assert await bridge.ping(5)
