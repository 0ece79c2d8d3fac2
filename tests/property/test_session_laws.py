"""Whatever a server says, a session answers or is over: nothing but Unavailable, and never a wrong UID."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Server
from gateway.errors import Unavailable
from gateway.inbound.protocol import Wire
from gateway.inbound.session import Session

CAPABILITIES = "IMAP4rev1 IDLE ESEARCH MOVE UIDPLUS OBJECTID SPECIAL-USE LIST-EXTENDED CONDSTORE MESSAGELIMIT=3"


class Script(asyncio.Transport):
    """Answers every command with the next of `answers`, then with a plain OK."""

    def __init__(self, wire: Wire, answers: list[bytes]) -> None:
        super().__init__()
        self.wire = wire
        self.answers = answers
        self.commands: list[bytes] = []

    def write(self, data: Any) -> None:
        tag, _, command = bytes(data).partition(b" ")
        self.commands.append(command)
        answer = self.answers.pop(0) if self.answers else b"TAG OK done\r\n"
        asyncio.get_running_loop().call_soon(self.wire.data_received, answer.replace(b"TAG", tag))

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def opened(answers: list[bytes], capabilities: str = CAPABILITIES) -> tuple[Session, Script]:
    wire = Wire(asyncio.get_running_loop(), 10_000)
    script = Script(wire, answers)
    wire.connection_made(script)
    wire.data_received(b"* OK hello\r\n")
    wire.told = frozenset(capabilities.upper().split())
    session = Session(wire, Server("imaps", "imap.example", 993), 0.2)
    return session, script


words = st.sampled_from(
    [
        *b"* TAG + OK NO BAD BYE FETCH UIDFETCH SEARCH ESEARCH LIST STATUS VANISHED (EARLIER) EXISTS EXPUNGE".split(),
        *b"UID ALL 1 2 3:1 1:4294967295 4294967296 (UID RFC822.SIZE BODY[] BODY[]<0> BODY[HEADER] ENVELOPE".split(),
        *b'INTERNALDATE EMAILID ( ) " NIL [MESSAGELIMIT [UIDVALIDITY [CLOSED] CAPABILITY IMAP4rev1'.split(),
        *b'MESSAGELIMIT=0 "/" INBOX (\\Junk)'.split(),
        *(
            b"9" * 30,
            b"(UID 2",
            b"\xff\x00",
            b"{3}\r\nabc",
            b"{0}\r\n",
            b"{99999}\r\n",
            b"\r\n",
            b"\r\n*",
            b"\r\nTAG OK",
        ),
        *(b"[MESSAGELIMIT 3 2]", b"[COPYUID 1 1:2 5:6]", b"[UIDVALIDITY 7]", b"[HIGHESTMODSEQ 5]", b"(UIDVALIDITY 3)"),
    ]
)
answers = st.lists(words, max_size=25).map(lambda said: b" ".join(said) + b"\r\nTAG OK done\r\n")


async def literal(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


QUESTIONS: dict[str, Callable[[Session], Awaitable[Any]]] = {
    "folders": lambda session: session.folders(),
    "status": lambda session: session.status("Junk"),
    "select": lambda session: session.select("INBOX", True, (7, 3)),
    "uids": lambda session: session.uids(1),
    "uids_since": lambda session: session.uids_since(date(2026, 7, 17)),
    "with_message_id": lambda session: session.with_message_id("<1@x>"),
    "with_field": lambda session: session.with_field("Received", "x.1", date(2026, 7, 17)),
    "newest": lambda session: session.newest(3),
    "headers": lambda session: session.headers([1, 2, 3, 5], 1000),
    "append": lambda session: session.append("Sent", literal(b"Subject: x", b"\r\n\r\n"), 14, datetime.now(UTC)),
    "present": lambda session: session.present([1, 2, 3, 5]),
    "listed_above": lambda session: session.listed_above(0),
    "listed": lambda session: session.listed([1, 2, 3, 5]),
    "headed": lambda session: session.headed([1, 2, 3, 5]),
    "fetch": lambda session: session.fetch([1, 2, 3, 5], 1000),
    "fetch_part": lambda session: session.fetch_part(2, 0, 100),
    "fetch_head": lambda session: session.fetch_head(2, 100),
    "flag": lambda session: session.flag([1, 2, 3, 5], "\\Seen"),
    "move": lambda session: session.move([1, 2, 3, 5], "Done"),
    "move-copied": lambda session: session.move([1, 2, 3, 5], "Done", True),
    "create": lambda session: session.create("Done"),
    "idle": lambda session: session.idle(0.01),
}


@pytest.mark.parametrize("question", QUESTIONS)
@given(said=st.lists(answers, min_size=1, max_size=4))
@settings(max_examples=60)
def test_whatever_comes_a_session_answers_or_is_unavailable(question: str, said: list[bytes]) -> None:
    async def play() -> None:
        session, script = await opened(said)
        ended = ""
        try:
            async with asyncio.timeout(5):
                found = await QUESTIONS[question](session)
        except Unavailable as error:
            ended = str(error)
        assert "\n" not in ended
        if not ended:
            if question in ("present", "listed", "headed", "headers", "fetch"):
                uids = [getattr(item, "uid", item) for item in found]
                assert set(uids) <= {1, 2, 3, 5}
                assert uids == sorted(set(uids))
            if question.startswith("uids"):
                assert found == sorted(set(found))
        for command in script.commands:
            assert command.strip().upper() not in (b"EXPUNGE", b"CLOSE")

    asyncio.run(play())


@given(there=st.sets(st.integers(1, 40)), limit=st.integers(1, 9), low=st.integers(1, 45), width=st.integers(0, 45))
def test_however_small_its_limit_a_server_is_heard_to_the_end(
    there: set[int], limit: int, low: int, width: int
) -> None:
    """An honest server with MESSAGELIMIT (RFC 9738): from the highest down, then it says how far it came."""
    asked = 0

    class Limited(Script):
        def write(self, data: Any) -> None:
            nonlocal asked
            asked += 1
            tag, *_, last = bytes(data).split()
            ends = [100 if end == b"*" else int(end) for end in last.split(b":")]
            found = [uid for uid in sorted(there) if ends[0] <= uid <= ends[-1]]
            code = b"[MESSAGELIMIT %d %d] " % (limit, found[-limit]) if len(found) > limit else b""
            listed = b" ".join([b"* SEARCH", *(b"%d" % uid for uid in found[-limit:])])
            answer = listed + b"\r\n" + tag + b" OK " + code + b"\r\n"
            asyncio.get_running_loop().call_soon(self.wire.data_received, answer)

    async def play() -> None:
        session, _ = await opened([], "IMAP4rev1")
        session._wire.transport = Limited(session._wire, [])
        high = low + width if width < 40 else None
        expected = [uid for uid in sorted(there) if low <= uid <= (high or 100)]
        assert await session.uids(low, high) == expected
        assert asked <= len(expected) // limit + 1

    asyncio.run(play())
