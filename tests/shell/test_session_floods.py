"""A server that answers without end: a session keeps what was asked for and no more."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.config import Server
from gateway.errors import Malformed, Unavailable
from gateway.inbound.framing import Framer
from gateway.inbound.protocol import Wire
from gateway.inbound.session import NotGiven, Session

MIB = 1024 * 1024
MOST = 64 * MIB
FLOOD = 14 * MIB  # a little less than what costs the session
CAPABILITIES = "IMAP4REV1 ESEARCH MOVE UIDPLUS OBJECTID SPECIAL-USE LIST-EXTENDED CONDSTORE QRESYNC"
DATE = b'INTERNALDATE "17-Jul-2026 02:44:25 +0000"'
WORDS = b" ".join(b"%d" % word for word in range(20_000))
ITEMS = b" ".join(b"A%d 1" % item for item in range(300))
ATTRIBUTES = b" ".join(b"\\A%d" % number for number in range(300))


class Flood(asyncio.Transport):
    """Answers every command with `flood`, as fast as it is read, and then with its tag and `end`."""

    def __init__(self, wire: Wire, flood: bytes, end: bytes) -> None:
        super().__init__()
        self.wire = wire
        self.flood = flood
        self.end = end
        self.paused = self.aborted = False
        self.pouring: list[asyncio.Task[None]] = []

    def write(self, data: Any) -> None:
        self.pouring.append(asyncio.get_running_loop().create_task(self.pour(bytes(data).split()[0])))

    async def pour(self, tag: bytes) -> None:
        for start in range(0, len(self.flood), 65_536):
            await self.say(self.flood[start : start + 65_536])
        if self.end:
            await self.say(b"\r\n" + tag + self.end)

    async def say(self, data: bytes) -> None:
        while self.paused and not self.aborted:  # noqa: ASYNC110 - it is to take its turns
            await asyncio.sleep(0)
        if not self.aborted:
            self.wire.data_received(data)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


def opened(flood: bytes, end: bytes = b"", answer_seconds: float = 5.0) -> Session:
    wire = Wire(asyncio.get_running_loop(), 30 * MIB)
    wire.connection_made(Flood(wire, flood, end))
    wire.data_received(b"* OK hello\r\n")
    wire.told = frozenset(CAPABILITIES.split())
    session = Session(wire, Server("imaps", "imap.example", 993), answer_seconds)
    session.enabled = frozenset(["QRESYNC"])
    return session


def filled(begin: bytes, piece: Callable[[int], bytes], first: int = 1) -> bytes:
    pieces, size = [begin], 0
    for number in itertools.count(first):
        if size > FLOOD:
            break
        pieces.append(piece(number))
        size += len(pieces[-1])
    return b"".join(pieces)


def many(line: Callable[[int], bytes]) -> Callable[[], bytes]:
    """Responses, numbered."""
    return lambda: filled(b"", lambda number: line(number) + b"\r\n")


def long_line(begin: bytes, piece: Callable[[int], bytes]) -> Callable[[], bytes]:
    """One line that does not end."""
    return lambda: filled(begin, piece, 10**9)


def listing(uid: int) -> bytes:
    return b"* 1 FETCH (UID %d RFC822.SIZE 5 %b)" % (uid, DATE)


def header(uid: int) -> bytes:
    return b"* 1 FETCH (UID %d RFC822.SIZE 5 %b BODY[HEADER.FIELDS (A)] {3000}\r\n%3000d)" % (uid, DATE, uid)


def message(uid: int) -> bytes:
    return b"* 1 FETCH (UID %d BODY[] {3000}\r\n%3000d)" % (uid, uid)


def folder(number: int) -> bytes:
    return b'* LIST (\\B%d %b) "/" "%d &2D3eAA-%300d"' % (number, ATTRIBUTES, number, number)


UIDS = list(range(1, 3_001))
Case = tuple[Callable[[Session], Awaitable[Any]], Callable[[], bytes], bytes]
CASES: dict[str, Case] = {
    "uids": (lambda session: session.uids(1), long_line(b"* SEARCH", lambda uid: b" %d" % uid), b" OK"),
    "uids-in-lines": (lambda session: session.uids(1), many(lambda uid: b"* SEARCH %d" % (uid * 3)), b" OK"),
    "uids-in-runs": (
        lambda session: session.uids(1),
        long_line(b"* ESEARCH UID ALL 1", lambda uid: b",%d:%d" % (uid * 3, uid * 3 + 120)),
        b" OK",
    ),
    "uids-cut": (
        lambda session: session.uids(1),
        many(lambda uid: b"* SEARCH %d" % uid),
        b" NO [MESSAGELIMIT 1 4000000000]",
    ),
    "present": (
        lambda session: session.present(UIDS),
        many(lambda uid: b"* ESEARCH UID ALL 1:4294967295"),
        b" OK [MESSAGELIMIT 1]",
    ),
    "listed": (lambda session: session.listed(UIDS), many(listing), b" OK"),
    "listed_above": (lambda session: session.listed_above(0), many(listing), b" OK"),
    "headed": (lambda session: session.headed(UIDS[:2000]), many(header), b" OK [MESSAGELIMIT 1]"),
    "fetch": (lambda session: session.fetch(UIDS, 4 * MIB), many(message), b" OK [MESSAGELIMIT 1]"),
    "folders": (lambda session: session.folders(), many(folder), b" OK"),
    "status": (
        lambda session: session.status("Junk"),
        many(lambda number: b"* STATUS Junk (UIDVALIDITY 1 B%d 1 %b)" % (number, ITEMS)),
        b" OK",
    ),
    "vanished": (
        lambda session: session.select("INBOX", False, (7, 5)),
        long_line(b"* OK [UIDVALIDITY 7] x\r\n* VANISHED (EARLIER) 1", lambda uid: b",%d" % (uid * 3 % 2**32)),
        b" OK",
    ),
    "capabilities": (
        lambda session: session.status("Junk"),
        many(lambda number: b"* OK [CAPABILITY N%d %b] x" % (number, WORDS)),
        b" NO",
    ),
    "copied": (
        lambda session: session.move(UIDS, "Done"),
        many(lambda number: b"* OK [COPYUID 7 1:4000 %d:%d] x" % (number * 4_000, number * 4_000 + 3_999)),
        b" OK",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_flood_fills_no_memory(case: str) -> None:
    ask, flood, end = CASES[case]
    poured = flood()

    async def play() -> None:
        session = opened(poured, end + b" done\r\n")
        session._exists = session._uidnext = 2**32 - 1
        tracemalloc.start()
        try:
            async with asyncio.timeout(3):  # what has not been filled by then, is not
                await ask(session)
        except (Unavailable, TimeoutError):
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            session._wire.cut("the end")
        assert peak < MOST

    asyncio.run(play())


def test_more_than_a_few_new_messages_are_not_listed_at_once() -> None:
    lines = b"\r\n".join(map(listing, range(1, 6_001)))

    async def play() -> None:
        with pytest.raises(NotGiven, match="too many new messages"):
            await opened(lines, b" OK done\r\n").listed_above(0)
        assert len(await opened(lines, b" OK done\r\n").listed_above(1_000)) == 5_000

    asyncio.run(play())


def test_a_message_that_nobody_asked_for_is_not_kept() -> None:
    lines = b"\r\n".join(map(message, range(1, 11)))

    async def play() -> None:
        assert [item.uid for item in await opened(lines, b" OK done\r\n").fetch([3, 5], 6_000)] == [3, 5]
        assert await opened(lines, b" OK done\r\n").fetch_part(11, 0, 100) is None

    asyncio.run(play())


def test_the_literals_of_one_response_count_together() -> None:
    literal = b"X {400}\r\n" + b"y" * 400
    framer = Framer(1_000)
    for _ in range(3):
        assert framer.feed(b"* 1 FETCH (" + literal + literal + b")\r\n")
    with pytest.raises(Malformed, match="limit of 1000"):
        framer.feed(b"* 1 FETCH (" + literal + literal + b" X {400}\r\n")


@pytest.mark.parametrize(
    ("ask", "literal", "is_taken"),
    [
        (lambda session: session.listed([1]), MIB + 1, False),
        (lambda session: session.folders(), MIB + 1, False),
        (lambda session: session.fetch_head(1, 1000), MIB, True),
        (lambda session: session.fetch_head(1, 1000), MIB + 1, False),
        (lambda session: session.fetch([1], 1000), 16 * MIB, True),
        (lambda session: session.fetch([1], 1000), 17 * MIB, False),
        (lambda session: session.fetch([1], 8 * MIB), 30 * MIB, True),
        (lambda session: session.fetch([1], 80 * MIB), 30 * MIB + 1, False),
        (lambda session: session.fetch_part(1, 0, 1000), 30 * MIB, True),
    ],
    ids=["listing", "folders", "header", "header+", "message", "message+", "large", "large+", "part"],
)
def test_a_literal_may_be_as_long_as_what_was_asked_for(
    ask: Callable[[Session], Awaitable[Any]], literal: int, is_taken: bool
) -> None:
    async def play() -> None:
        session = opened(b"* 1 FETCH (X {%d}\r\n" % literal, answer_seconds=0.1)
        with pytest.raises(Unavailable, match="no answer" if is_taken else "a literal of"):  # the rest never comes
            await ask(session)

    asyncio.run(play())
