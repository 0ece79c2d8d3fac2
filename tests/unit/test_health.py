"""What the running parts report: since when, and which alarms are up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.health import Health


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def pass_seconds(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_since_moves_only_when_state_or_connection_change(clock: Clock) -> None:
    health = Health(clock)
    begun = clock.at
    health.set_state("support", "waiting", connected=False, cause="refused")
    clock.pass_seconds(60)
    health.set_state("support", "waiting", connected=False, cause="timed out")
    assert (health.touchpoint("support").since, health.touchpoint("support").cause) == (begun, "timed out")
    health.set_state("support", "watching", connected=True)
    assert (health.touchpoint("support").since, health.touchpoint("support").cause) == (clock.at, None)


def test_a_touchpoint_that_nobody_reported_on_is_starting(clock: Clock) -> None:
    known = Health(clock).touchpoint("support")
    assert (known.state, known.connected, known.since) == ("starting", False, clock.at)


def test_an_alarm_is_new_once_and_keeps_its_time_while_its_words_change(clock: Clock) -> None:
    health = Health(clock)
    begun = clock.at
    assert health.alarm("support", "login", "wrong password", "mend it")
    clock.pass_seconds(60)
    assert not health.alarm("support", "login", "account locked", "unlock it")
    (alarm,) = health.alarms()
    assert (alarm.id, alarm.since, alarm.cause, alarm.action) == ("support/login", begun, "account locked", "unlock it")
    assert health.clear("support", "login")
    assert not health.clear("support", "login")
    assert not list(health.alarms())


def test_alarms_of_one_key_are_kept_apart_by_touchpoint(clock: Clock) -> None:
    health = Health(clock)
    for touchpoint in ("support", "sales", None):
        health.alarm(touchpoint, "store", "x", "y")
    health.clear("sales", "store")
    assert sorted(alarm.id for alarm in health.alarms()) == ["store", "support/store"]


def test_a_forgotten_touchpoint_takes_its_alarms_with_it(clock: Clock) -> None:
    health = Health(clock)
    for touchpoint in ("support", "sales"):
        health.set_state(touchpoint, "watching", connected=True)
        health.alarm(touchpoint, "login", "x", "y")
    health.forget("support")
    health.forget("never-known")
    assert health.known() == ["sales"]
    assert [alarm.touchpoint for alarm in health.alarms()] == ["sales"]


def test_the_last_byte_is_the_sessions_own_word_where_it_is_the_later_one(clock: Clock) -> None:
    known = Health(clock).touchpoint("a")
    assert known.heard_at is None
    known.last_server_byte_at = clock.at
    assert known.heard_at == clock.at
    known.heard = lambda: clock.at + timedelta(seconds=5)
    assert known.heard_at == clock.at + timedelta(seconds=5)
    known.last_server_byte_at = clock.at + timedelta(seconds=9)
    assert known.heard_at == clock.at + timedelta(seconds=9)


def test_faults_are_told_once_whoever_has_counted_them(clock: Clock) -> None:
    health = Health(clock)
    assert health.new_faults() == 0
    health.bugs, health.strays = 2, lambda: 1
    assert [health.new_faults(), health.new_faults()] == [3, 0]
    health.bugs += 1
    assert health.new_faults() == 1
