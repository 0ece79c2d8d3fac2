"""What the supervisor does about a task that fails, waits for the store, or fails while it is being stopped."""

from __future__ import annotations

from datetime import UTC, datetime

import trio
from trio.testing import MockClock

from gateway.errors import Unavailable
from gateway.health import Health
from gateway.supervisor import Supervisor


def new_health() -> Health:
    return Health(lambda: datetime.now(UTC))


async def test_a_bug_is_an_alarm_and_the_task_starts_again(autojump_clock: MockClock) -> None:
    health, runs = new_health(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ZeroDivisionError
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", None, run)
        await trio.sleep(5)
        assert runs == 2
        assert [alarm.id for alarm in health.alarms()] == ["a/inbound-bug"]
        await supervisor.stop("a", "inbound")
        assert not list(health.alarms())


async def test_a_store_that_is_away_is_no_bug(autojump_clock: MockClock) -> None:
    health, runs = new_health(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Unavailable("the disk is full; free some space")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "outbound", None, run)
        await trio.sleep(5)
        assert runs == 2
        assert health.touchpoint("a").cause == "the disk is full; free some space"
        assert not list(health.alarms())
        assert not health.bugs
        await supervisor.stop("a", "outbound")


async def test_a_task_that_fails_while_it_is_stopped_ends_nobody_else(autojump_clock: MockClock) -> None:
    health = new_health()

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", None, run)
        await trio.sleep(1)
        await supervisor.stop("a", "inbound")
        assert health.bugs == 1
        assert supervisor.running() == []
