"""What the supervisor does about a task that fails, waits for the store, or fails while it is being stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import trio
import trio.testing
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


# --- restarts, stops, settings ---------------------------------------------------------------------------------------


async def test_a_task_that_keeps_failing_is_started_ever_less_often(autojump_clock: MockClock) -> None:
    health, starts = new_health(), []

    async def run() -> None:
        starts.append(trio.current_time())
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", None, run)
        await trio.sleep(2000)
        await supervisor.stop("a", "inbound")
    waits = [round(later - earlier) for earlier, later in pairwise(starts)]
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(waits[9:]) == {300}
    assert health.bugs == len(starts)


async def test_a_task_that_ran_well_for_long_is_started_again_soon(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    async def run() -> None:
        starts.append(trio.current_time())
        if len(starts) == 6:
            await trio.sleep(601)
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, new_health())
        supervisor.start("a", "inbound", None, run)
        await trio.sleep(700)
        await supervisor.stop("a", "inbound")
    waits = [round(later - earlier) for earlier, later in pairwise(starts)]
    assert waits[:8] == [1, 2, 4, 8, 16, 601 + 1, 2, 4]


async def test_a_task_that_ends_by_itself_is_started_again_and_is_an_alarm(autojump_clock: MockClock) -> None:
    health, runs = new_health(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "outbound", None, run)
        await trio.sleep(5)
        assert runs == 3  # at 0, 1 and 3 seconds
        (alarm,) = health.alarms()
        assert "it ended by itself" in alarm.cause
        assert (health.touchpoint("a").state, health.touchpoint("a").connected) == ("failed", False)
        await supervisor.stop("a", "outbound")


async def test_the_faults_of_one_touchpoint_are_not_those_of_another(autojump_clock: MockClock) -> None:
    health, turns = new_health(), 0

    async def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        nonlocal turns
        while True:
            await trio.sleep(1)
            turns += 1

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("bad", "inbound", None, fail)
        supervisor.start("bad", "outbound", None, work)
        supervisor.start("good", "inbound", None, work)
        await trio.sleep(100.5)
        assert turns == 200
        assert [alarm.id for alarm in health.alarms()] == ["bad/inbound-bug"]
        await supervisor.stop_all("inbound")
        assert supervisor.running() == [("bad", "outbound")]
        await supervisor.stop_all("outbound")


async def test_stopping_waits_until_the_task_has_really_ended(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(7)
            ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, new_health())
        for name in ("a", "b", "c"):
            supervisor.start(name, "inbound", None, run)
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        await supervisor.stop("a", "inbound")
        assert [at - begun for at in ended] == [7]
        assert supervisor.running() == [("b", "inbound"), ("c", "inbound")]
        await supervisor.stop_all("inbound")  # together, not one after the other
        assert [at - begun for at in ended] == [7, 14, 14]
        assert supervisor.running() == []


async def test_a_task_that_waits_for_its_restart_can_be_stopped_and_started_anew(autojump_clock: MockClock) -> None:
    health = new_health()

    async def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", "old", fail)
        await trio.sleep(400)  # its next start is minutes away
        begun = trio.current_time()
        await supervisor.stop("a", "inbound")
        assert trio.current_time() == begun
        assert not list(health.alarms())
        supervisor.start("a", "inbound", "new", trio.sleep_forever)
        assert supervisor.has("a", "inbound", "new")
        await supervisor.stop("a", "inbound")


async def test_what_does_not_run_is_stopped_at_once(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, new_health())
        await supervisor.stop("a", "inbound")
        await supervisor.stop_all("outbound")


async def test_a_task_is_the_same_while_its_settings_are_equal(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, new_health())
        supervisor.start("a", "inbound", ("imap.example", 993), trio.sleep_forever)
        assert supervisor.has("a", "inbound", ("imap.example", 993))
        assert not supervisor.has("a", "inbound", ("imap.example", 143))
        assert not supervisor.has("a", "outbound", ("imap.example", 993))
        assert not supervisor.has("b", "inbound", ("imap.example", 993))
        await supervisor.stop("a", "inbound")
        assert not supervisor.has("a", "inbound", ("imap.example", 993))


async def test_the_alarm_of_a_fault_goes_when_the_task_has_run_well_for_long(autojump_clock: MockClock) -> None:
    health, runs = new_health(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs <= 2:
            raise ZeroDivisionError
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", None, run)
        await trio.sleep(600.5)  # ten minutes since the first fault, not since the second
        assert [alarm.id for alarm in health.alarms()] == ["a/inbound-bug"]
        await trio.sleep(5)
        assert not list(health.alarms())
        await supervisor.stop("a", "inbound")


async def test_the_state_of_a_touchpoint_that_also_receives_is_that_of_its_inbound_task(
    autojump_clock: MockClock,
) -> None:
    health = new_health()

    async def watch() -> None:
        health.set_state("a", "watching", connected=True)
        await trio.sleep_forever()

    async def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(nursery, health)
        supervisor.start("a", "inbound", None, watch)
        supervisor.start("a", "outbound", None, fail)
        supervisor.start("b", "outbound", None, fail)
        await trio.sleep(5)
        assert (health.touchpoint("a").state, health.touchpoint("a").connected) == ("watching", True)
        assert health.touchpoint("b").state == "failed"
        assert sorted(alarm.id for alarm in health.alarms()) == ["a/outbound-bug", "b/outbound-bug"]
        await supervisor.stop_all("inbound")
        await supervisor.stop_all("outbound")
