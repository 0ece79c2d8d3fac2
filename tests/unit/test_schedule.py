"""The three clocks: a message's retries, an unreachable lane, a held one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.outbound.schedule import RetryPolicy, delay_after, ladder_ms, next_attempt

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
POLICY = RetryPolicy()
MINUTE = timedelta(minutes=1)


def all_waits(policy: RetryPolicy, jitter: float) -> list[timedelta]:
    """Every wait of a message that is put off each time, until it is given up."""
    waits, waited, now = [], timedelta(), NOW
    while (following := next_attempt(policy, waited, now, jitter)) is not None:
        waits.append(following.due_at - now)
        now, waited = following.due_at, following.waited
    return waits


def test_waits_are_1_5_15_30_minutes_and_then_hourly() -> None:
    waits = all_waits(POLICY, jitter=0.0)
    assert waits[:7] == [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, 60 * MINUTE, 60 * MINUTE, 60 * MINUTE]
    assert set(waits[4:]) == {60 * MINUTE}


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_a_message_is_given_up_when_its_waits_fill_the_time(jitter: float) -> None:
    waits = all_waits(POLICY, jitter)
    assert timedelta(days=5) - 67 * MINUTE < sum(waits, timedelta()) <= timedelta(days=5)


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.999])
def test_jitter_lengthens_a_wait_by_a_tenth_at_most_and_skips_no_step(jitter: float) -> None:
    nominal = all_waits(POLICY, 0.0)[:8]
    for wait, bare in zip(all_waits(POLICY, jitter)[:8], nominal, strict=True):
        assert bare <= wait <= bare * 1.1


def test_mail_that_failed_together_is_spread() -> None:
    dues = {next_attempt(POLICY, timedelta(), NOW, jitter / 10) for jitter in range(10)}
    assert len(dues) == 10


def test_a_try_that_a_person_asked_for_early_does_not_shorten_the_patience() -> None:
    first = next_attempt(POLICY, timedelta(), NOW, 0.0)
    assert first is not None
    # A person retries at once: the minute that was not waited is off the clock again.
    again = next_attempt(POLICY, first.waited - MINUTE, NOW, 0.0)
    assert again == first


def test_the_clock_does_not_look_at_the_calendar() -> None:
    after_an_outage = NOW + timedelta(days=30)
    assert next_attempt(POLICY, timedelta(), after_an_outage, 0.0) is not None


def test_a_short_patience_gives_up_before_a_wait_that_would_exceed_it() -> None:
    policy = RetryPolicy(give_up_after=10 * MINUTE)
    assert all_waits(policy, 0.0) == [MINUTE, 5 * MINUTE]


def test_the_last_delay_repeats() -> None:
    assert [delay_after(POLICY.probe_delays, n) / MINUTE for n in (1, 2, 3, 4, 100)] == [5, 15, 60, 60, 60]


def test_a_lane_that_is_out_of_reach_is_tried_soon_and_often() -> None:
    assert ladder_ms(POLICY.dial_delays, POLICY.spread, 0.0) == (5_000, 15_000, 30_000, 60_000, 120_000, 300_000)
    assert ladder_ms(POLICY.dial_delays, POLICY.spread, 0.5)[0] == 5_250


def test_a_server_that_asks_for_more_time_gets_it_and_never_less_than_its_step() -> None:
    first = next_attempt(POLICY, timedelta(), NOW, 0.0, asked=20 * MINUTE)
    assert first is not None
    assert (first.due_at, first.waited) == (NOW + 20 * MINUTE, 20 * MINUTE)
    soon = next_attempt(POLICY, timedelta(), NOW, 0.0, asked=timedelta(seconds=1))
    assert soon is not None
    assert soon.due_at == NOW + MINUTE


def test_a_server_that_asks_for_a_day_does_not_shorten_the_patience() -> None:
    last = next_attempt(POLICY, timedelta(days=4, hours=18), NOW, 0.0, asked=timedelta(days=1))
    assert last is not None
    assert last.waited == POLICY.give_up_after
    assert next_attempt(POLICY, timedelta(days=4, hours=23, minutes=30), NOW, 0.0, asked=timedelta(days=1)) is None
