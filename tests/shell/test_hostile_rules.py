"""Hostile patterns and hostile headers: they may cost time, but not the event loop's.

Measured is the processor time that the loop's own thread spends between two turns of another task, so that a busy
machine does not matter.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from gateway.config import load
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.mime import reading
from gateway.model import Arrival, Location
from gateway.state import conversations, folders
from gateway.state.folders import Folder, Opening
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
LONGEST_TURN = 0.06  # seconds; a message's share is bounded to some milliseconds, this is for slow machines
TOUCHPOINT = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support"]
"""
# No state machine of bearable size knows these: RE2 follows hundreds of threads for each character
PATTERNS = [f"(?:a|b|c)*?.{{{length}}}{letter}$" for length in (400, 500, 600, 700) for letter in "qvwxyz"]
TEXT = "abc" * 20_000


def rule(number: int, field: str, pattern: str) -> str:
    return f'[[rule]]\nname = "r{number}"\nif = {{ {field} = \'/{pattern}/\' }}\nthen = {{ queue = "q" }}\n'


class Turns:
    """How many turns we had, and the longest that this thread computed between two."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.count = 0
        self._last = time.thread_time()

    async def run(self) -> None:
        while True:
            now = time.thread_time()
            self.longest = max(self.longest, now - self._last)
            self._last = now
            self.count += 1
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        await trio.lowlevel.checkpoint()
        yield turns
        nursery.cancel_scope.cancel()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    opened.submit(folders.open_folder, Opening(Folder("support", "INBOX", 1, 0, 0, 0, 0), ())).result(5)
    yield opened
    opened.close()


async def read(message: bytes) -> reading.Content:
    """Stands in for a worker process: in a thread, whose time is not the loop's."""
    return await trio.to_thread.run_sync(reading.read, message)


def door(store: Store, directory: Path, rules: str) -> Intake:
    (directory / "rules.toml").write_text(TOUCHPOINT + rules)
    (directory / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{directory}"\n')
    config = load(directory / "gateway.toml")
    return Intake(store, lambda: config, inquiry=Inquiry(store, read=read))


def arrival(store: Store, content: bytes) -> Arrival:
    return Arrival(store.ids.next(), "support", Location("INBOX", 1, 1), AT, AT, content, 0, 1)


def queues_of(store: Store) -> list[list[str]]:
    return [one["queues"] for one in store.read(conversations.list_conversations, None, True).result(5)]


@pytest.mark.parametrize("field", ["subject", "body", '"header.x-long"'])
async def test_hostile_patterns_do_not_hold_up_the_loop(store: Store, tmp_path: Path, field: str) -> None:
    intake = door(store, tmp_path, "".join(rule(n, field, one) for n, one in enumerate(PATTERNS)))
    head = f"From: a@b.example\r\nSubject: {TEXT[:1_990]}\r\n" + f"X-Long: {TEXT[:1_990]}\r\n" * 4
    await intake.accept([])
    before = time.process_time()
    async with watched() as turns:
        await intake.accept([arrival(store, f"{head}\r\n{TEXT}".encode())])
    spent = time.process_time() - before
    assert queues_of(store) == [["support"]]
    assert turns.longest < LONGEST_TURN, f"of {spent:.2f} s in all"
    assert turns.count > 10 * len(PATTERNS), "the interpreter was let go of while each pattern was searched for"


HEADERS = {
    "one-long-subject": b"Subject: " + b"order " * 1_700_000 + b"\r\n",
    "a-million-fields": b"X-A: b\r\n" * 1_250_000,
    "a-million-recipients": b"To: " + b"a@b.example, " * 800_000 + b"x@y.example\r\n",
    "encoded-words": b"Subject: " + b"=?utf-8?q?=C3=BC?= " * 500_000 + b"\r\n",
    "parentheses": b"From: " + b"(" * 10_000_000 + b"\r\n",
    "quotes": b'From: "' + b'\\"' * 5_000_000 + b"\r\n",
    "folded": b"References: <a@b>\r\n" + b" <c@d>\r\n" * 1_250_000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
async def test_ten_megabytes_of_header_do_not_hold_up_the_loop(store: Store, tmp_path: Path, header: bytes) -> None:
    rules = "".join(
        f'[[rule]]\nname = "r{n}"\nif = {{ subject = "*x{n}x*", from = "*y*", to = "*z{n}@*", header.x-a = "*c*" }}\n'
        for n in range(100)
    )
    intake = door(store, tmp_path, rules)
    await intake.accept([])
    content = header + b"\r\nbody"
    assert len(content) > 9_000_000
    async with watched() as turns:
        await intake.accept([arrival(store, content)])
    assert queues_of(store) == [["support"]]
    assert turns.longest < LONGEST_TURN
