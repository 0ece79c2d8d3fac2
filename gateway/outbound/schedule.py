"""When to try again, and when to give up. Three clocks that never mix:

* a message that got a temporary no waits 1, 5, 15, 30 minutes, then an hour each time, and is given up when these
  waits add up to `give_up_after`. Only replies about the message move this clock, so an outage of days, a wrong
  password or a hold never bounces mail;
* a lane that cannot reach its provider tries again soon and often: it costs one connection, and all mail waits for it;
* a held lane is probed at 5, 15 and 60 minutes, then hourly: a person has to mend something first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The last delay of each list repeats. `spread`: jitter lengthens a delay by up to this share of it.

    RFC 5321 §4.5.4.1 asks for 30 minutes between tries in general and allows better; we talk to one provider that
    knows us, not to strangers. It asks for giving up after 4–5 days.
    """

    delays: tuple[timedelta, ...] = (_MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, 60 * _MINUTE)
    give_up_after: timedelta = timedelta(days=5)
    spread: float = 0.1
    dial_delays: tuple[timedelta, ...] = (
        timedelta(seconds=5),
        timedelta(seconds=15),
        timedelta(seconds=30),
        _MINUTE,
        2 * _MINUTE,
        5 * _MINUTE,
    )
    probe_delays: tuple[timedelta, ...] = (5 * _MINUTE, 15 * _MINUTE, 60 * _MINUTE)


@dataclass(frozen=True, slots=True)
class Next:
    """`waited`: what stands on the give-up clock once `due_at` has come."""

    due_at: datetime
    waited: timedelta


def delay_after(delays: Sequence[timedelta], failures: int) -> timedelta:
    """Return the delay after failure number `failures`, which counts from 1."""
    return delays[min(failures, len(delays)) - 1]


def next_attempt(
    policy: RetryPolicy, waited: timedelta, now: datetime, jitter: float, asked: timedelta | None = None
) -> Next | None:
    """Return when to try again after a temporary reply about the message, or None to give up.

    The clock alone says how many steps are behind us, so a try that a person asked for early does not shorten the
    patience with the message. `jitter` is in [0, 1): it spreads mail that failed together. `asked`: the server wants no
    try any sooner; it may lengthen a step, and never shortens one, nor the patience.
    """
    delay = delay_after(policy.delays, _steps_behind(policy, waited) + 1) * (1 + policy.spread * jitter)
    if waited + delay > policy.give_up_after:
        return None
    if asked is not None:
        delay = max(delay, min(asked, policy.give_up_after - waited))
    return Next(now + delay, waited + delay)


def _steps_behind(policy: RetryPolicy, waited: timedelta) -> int:
    steps, total = 0, timedelta()
    while steps < len(policy.delays):  # behind the last one every step is the last one
        total += policy.delays[steps]
        if total > waited:
            break
        steps += 1
    return steps


def ladder_ms(delays: Sequence[timedelta], spread: float, jitter: float) -> tuple[int, ...]:
    """Return the delays in milliseconds with the jitter in them, for transactions that know only how often
    something failed: what a crash costs, when a lane is tried again."""
    return tuple(round(delay.total_seconds() * 1000 * (1 + spread * jitter)) for delay in delays)
