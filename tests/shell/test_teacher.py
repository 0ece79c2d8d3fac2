"""Lessons reach the scanner in their time, once; what is in quarantine too long goes, whatever else there is to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import events
from gateway.config import Config, load
from gateway.config.rules_file import Spam
from gateway.doorbell import Doorbell
from gateway.errors import Unavailable
from gateway.inbound import teacher
from gateway.inbound.scanner import Scanner
from gateway.model import id_at, to_ms
from gateway.state import lessons, quarantine, raw
from gateway.state.folders import Place
from gateway.state.quarantine import Review
from tests.support.postroom import JUNK_VERDICT, Postroom, open_postroom

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BY_US = replace(JUNK_VERDICT, junk_alone=False)
BODY = b"Subject: x\r\n\r\nbody"


class Pupil(Scanner):
    """Plays the scanner. `moods`: what becomes of the next lessons: an exception, or the reason why it is not taken."""

    def __init__(self, *moods: Exception | str) -> None:
        super().__init__()
        self.moods = list(moods)
        self.taught: list[tuple[bytes, bool]] = []
        self.looks = 0

    async def learn(self, spam: Spam, raw: bytes, *, is_spam: bool) -> str:
        await trio.lowlevel.checkpoint()
        mood = self.moods.pop(0) if self.moods else ""
        if isinstance(mood, Exception):
            raise mood
        if not mood:
            self.taught.append((raw, is_spam))
        return mood

    async def look(self, spam: Spam) -> None:
        await trio.lowlevel.checkpoint()
        self.looks += 1


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


def configure(tmp_path: Path, spam: str = 'scanner = "rspamd+http://scan.example:11333"') -> Config:
    (tmp_path / "rules.toml").write_text(f"[spam]\n{spam}\n")
    (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
    return load(tmp_path / "gateway.toml")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configure(tmp_path)


def spam(room: Postroom, inbox: Place, uid: int, days: float = 0) -> int:
    id = room.arrive(inbox, uid, raw_=BODY, id=id_at(to_ms(NOW - timedelta(days=days))) + uid)
    room.route(id, f"<{uid}@c.example>", verdict=BY_US)
    return id


def confirm(room: Postroom, *ids: int, at: datetime = NOW) -> None:
    for id in ids:
        room.store.submit(quarantine.confirm, Review(id, to_ms(at))).result(5)


def waiting(room: Postroom) -> list[Any]:
    return room.rows("SELECT message, spam, tries, next_at FROM lesson ORDER BY message")


async def test_lessons_are_given_once(room: Postroom, inbox: Place, config: Config) -> None:
    ids = [spam(room, inbox, uid) for uid in range(1, 31)]
    confirm(room, *ids)
    pupil = Pupil()
    assert await teacher.teach(room.store, config, pupil, NOW) == 30
    assert pupil.taught == [(BODY, True)] * 30
    assert await teacher.teach(room.store, config, pupil, NOW) == 0
    assert waiting(room) == []


async def test_a_try_is_counted_before_it_is_made(room: Postroom, inbox: Place, config: Config) -> None:
    id = spam(room, inbox, 1)
    confirm(room, id)
    seen: list[Any] = []

    class Dying(Pupil):
        async def learn(self, spam: Spam, raw: bytes, *, is_spam: bool) -> str:
            seen.extend(waiting(room))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await teacher.teach(room.store, config, Dying(), NOW)
    assert seen == [(id, 1, 1, to_ms(NOW + timedelta(minutes=1)))]


async def test_one_that_is_away_is_tried_less_and_less_and_given_up_after_a_month(
    room: Postroom, inbox: Place, config: Config
) -> None:
    id = spam(room, inbox, 1)
    confirm(room, id)
    pauses, now = [], NOW
    for _ in range(6):
        with pytest.raises(Unavailable):
            await teacher.teach(room.store, config, Pupil(Unavailable("silent")), now)
        ((_, _, _, next_at),) = waiting(room)
        pauses.append((next_at - to_ms(now)) // 60_000)
        assert await teacher.teach(room.store, config, Pupil(), now) == 0, "not before its time"
        now += timedelta(minutes=pauses[-1])
    assert pauses == [1, 5, 15, 60, 60, 60]
    room.change("UPDATE lesson SET tries = ?", lessons.MOST_TRIES - 1)
    assert await teacher.teach(room.store, config, Pupil(Unavailable("silent")), now) == 0
    assert waiting(room) == []


async def test_what_one_message_meets_does_not_keep_the_next_from_its_lesson(
    room: Postroom, inbox: Place, config: Config
) -> None:
    ids = [spam(room, inbox, uid) for uid in (1, 2, 3)]
    confirm(room, *ids)
    room.change("DELETE FROM chunk WHERE id >> 16 = ?", ids[0])
    before = events.counts().get("not-taught", 0)
    pupil = Pupil("it contains less tokens than required")
    assert await teacher.teach(room.store, config, pupil, NOW) == 1
    assert len(pupil.taught) == 1
    assert waiting(room) == []
    assert events.counts()["not-taught"] - before == 2


async def test_without_a_scanner_nothing_is_kept_for_one(room: Postroom, inbox: Place, tmp_path: Path) -> None:
    confirm(room, spam(room, inbox, 1))
    pupil = Pupil()
    assert await teacher.teach(room.store, configure(tmp_path, ""), pupil, NOW) == 0
    assert waiting(room) == []
    assert pupil.taught == []


async def test_who_only_teaches_needs_no_scanner(room: Postroom, inbox: Place, tmp_path: Path) -> None:
    confirm(room, spam(room, inbox, 1))
    config = configure(tmp_path, 'learn_at = "spamd://scan.example:783"')
    assert await teacher.teach(room.store, config, Pupil(), NOW) == 1


async def test_quarantine_ends_when_the_rules_say(room: Postroom, inbox: Place, tmp_path: Path) -> None:
    old, young = spam(room, inbox, 1, days=8), spam(room, inbox, 2, days=6)
    assert await teacher.prune(room.store, configure(tmp_path, ""), NOW) == 0
    assert await teacher.prune(room.store, configure(tmp_path, 'keep_quarantine = "7 days"'), NOW) == 1
    left = [await room.store.read(raw.load, id) for id in (old, young)]
    assert left == [None, BODY]


async def test_a_long_backlog_is_pruned_in_one_go(room: Postroom, inbox: Place, config: Config) -> None:
    for uid in range(1, 121):
        spam(room, inbox, uid, days=40)
    assert await teacher.prune(room.store, config, NOW) == 120


class AwayAtFirst:
    """Plays a store whose disk is full for a while."""

    def __init__(self, room: Postroom, failures: int) -> None:
        self._store = room.store
        self._failures = failures

    def read(self, *arguments: Any) -> Any:
        return self._store.read(*arguments)

    def submit(self, *arguments: Any) -> Any:
        if self._failures:
            self._failures -= 1
            raise Unavailable("the disk is full")
        return self._store.submit(*arguments)


async def test_it_teaches_at_a_ring_looks_and_prunes_and_outlives_a_full_disk(
    room: Postroom, inbox: Place, config: Config
) -> None:
    old = spam(room, inbox, 1, days=40)
    pupil, bell = Pupil(), Doorbell()
    store: Any = AwayAtFirst(room, 2)

    async def until(check: Any) -> None:
        for _ in range(1_000):
            if check():
                return
            await trio.sleep(0.01)
        raise AssertionError("waited in vain")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(teacher.run, store, lambda: config, pupil, bell, lambda: NOW, 0.02)
        await until(lambda: pupil.looks > 2)
        await until(lambda: room.rows("SELECT pruned_at FROM message WHERE id = ?", old) == [(to_ms(NOW),)])
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(teacher.run, room.store, lambda: config, pupil, bell, lambda: NOW, 3600.0)
        await until(lambda: pupil.looks > 3)
        confirm(room, spam(room, inbox, 2))
        bell.ring(lessons.BELL)
        await until(lambda: len(pupil.taught) == 1)
        nursery.cancel_scope.cancel()
