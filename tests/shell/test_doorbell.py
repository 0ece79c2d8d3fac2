"""The doorbell: rings from any thread wake the right waiter, and none is lost."""

from __future__ import annotations

import threading

import trio

from gateway.doorbell import Doorbell


async def test_a_ring_wakes_who_waits_for_that_key(autojump_clock: trio.testing.MockClock) -> None:
    doorbell, woken = Doorbell(), []

    async def wait(key: str) -> None:
        await doorbell.wait(key)
        woken.append(key)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "a")
        nursery.start_soon(wait, "b")
        await trio.testing.wait_all_tasks_blocked()
        doorbell.ring("b")
        await trio.sleep(1)
        assert woken == ["b"]
        doorbell.ring("a")
    assert woken == ["b", "a"]


async def test_a_ring_before_the_wait_is_remembered_and_a_burst_counts_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    doorbell = Doorbell()
    for _ in range(3):
        doorbell.ring("a")
    await trio.sleep(1)
    await doorbell.wait("a")
    with trio.move_on_after(5) as scope:
        await doorbell.wait("a")
    assert scope.cancelled_caught


async def test_a_ring_comes_from_any_thread() -> None:
    doorbell = Doorbell()
    thread = threading.Thread(target=doorbell.ring, args=("a",))
    thread.start()
    with trio.fail_after(5):
        await doorbell.wait("a")
    thread.join()


def test_a_ring_after_the_end_is_silent() -> None:
    async def make() -> Doorbell:
        return Doorbell()

    trio.run(make).ring("a")
