"""What follows from quarantine in the background: lessons reach the scanner, and what nobody needs any more goes.

A lesson is counted and put off before it is given; one that the scanner could not hear comes again, at last once an
hour. Nothing waits for any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import trio

from gateway import events
from gateway.config import Config
from gateway.doorbell import Doorbell
from gateway.errors import Unavailable
from gateway.inbound.scanner import Scanner
from gateway.model import show_id, to_ms
from gateway.state import lessons, pruning, raw
from gateway.state.lessons import Lesson
from gateway.state.store import Store

_PERIOD: Final = 60.0  # seconds
_PRUNED_EACH: Final = 10  # of these periods
_TOGETHER: Final = 20
_AGAIN_AFTER: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))  # the last one repeats
_REST: Final = 0.05  # seconds between two transactions that only take away: others want the writer, too


async def run(
    store: Store,
    current: Callable[[], Config],
    scanner: Scanner,
    doorbell: Doorbell,
    now: Callable[[], datetime],
    period: float = _PERIOD,
) -> None:
    """Teach when somebody has judged, and once a minute; look after the scanner; prune. Until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_teach_on, store, current, scanner, doorbell, now, period)
        nursery.start_soon(_look_on, current, scanner, period)
        nursery.start_soon(_prune_on, store, current, now, period * _PRUNED_EACH)


async def _teach_on(
    store: Store,
    current: Callable[[], Config],
    scanner: Scanner,
    doorbell: Doorbell,
    now: Callable[[], datetime],
    period: float,
) -> None:
    while True:
        try:
            await teach(store, current(), scanner, now())
        except Unavailable as error:
            events.warn("lessons-put-off", cause=str(error))
        with trio.move_on_after(period):
            await doorbell.wait(lessons.BELL)


async def _look_on(current: Callable[[], Config], scanner: Scanner, period: float) -> None:
    while True:
        await scanner.look(current().rules.spam)
        await trio.sleep(period)


async def _prune_on(store: Store, current: Callable[[], Config], now: Callable[[], datetime], period: float) -> None:
    while True:
        await trio.sleep(period)
        try:
            await prune(store, current(), now())
        except Unavailable as error:  # the next time does it
            events.warn("not-pruned", cause=str(error))


async def teach(store: Store, config: Config, scanner: Scanner, now: datetime) -> int:
    """Give the lessons that are due; return how many were taken. Raises Unavailable: the others wait for their time."""
    spam = config.rules.spam
    if not spam.lessons_at:
        if await store.read(lessons.waiting):
            await store.submit(lessons.forget, None)
        return 0
    taken = 0
    while due := await store.read(lessons.due, to_ms(now), _TOGETHER):
        for lesson in due:
            taken += await _give(store, config, scanner, lesson, now)
    return taken


async def _give(store: Store, config: Config, scanner: Scanner, lesson: Lesson, now: datetime) -> bool:
    again = now + _AGAIN_AFTER[min(lesson.tries, len(_AGAIN_AFTER) - 1)]
    await store.submit(lessons.begin, (lesson.message, to_ms(again)))
    content = await store.read(raw.load, lesson.message)
    if content is None:
        refused = "its bytes are gone"
    else:
        try:
            refused = await scanner.learn(config.rules.spam, content, is_spam=lesson.is_spam)
        except Unavailable as error:
            if lesson.tries + 1 < lessons.MOST_TRIES:
                raise
            refused = str(error)
    await store.submit(lessons.settle, lesson)
    kind = "spam" if lesson.is_spam else "ham"
    if refused:
        events.say("not-taught", queue_id=show_id(lesson.message), kind=kind, cause=refused)
    else:
        events.say("taught", queue_id=show_id(lesson.message), kind=kind)
    return not refused


async def prune(store: Store, config: Config, now: datetime) -> int:
    """Take away what has been in quarantine for longer than `spam.keep_quarantine`; return how many messages."""
    times = (to_ms(now - config.rules.spam.keep_quarantine), to_ms(now))
    count = 0
    while pruned := await store.submit(pruning.prune_quarantine, times):
        count += pruned
        await trio.sleep(_REST)
    if count:
        events.say("quarantine-pruned", messages=count)
    return count
