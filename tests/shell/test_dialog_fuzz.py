"""Anything at all is said to the dialog, in any pieces, and then the client closes its side.

What must come back is known from what was sent and nothing else: one reply to each line, one to each message that ended
with CR LF . CR LF, and exactly those messages handed to the door, byte for byte. And the server is alive afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.outbound.acceptance import Draft
from gateway.outbound.dialog import Dialog
from gateway.outbound.passwords import Login

LIMIT = 20_000  # octets of the largest message
ROOM = 60_000  # octets of all messages that are being received


class Host:
    """Stands for the server: remembers what dialogs hand over, and fails for messages that ask for it."""

    hostname = "gateway.example"
    max_message_size = LIMIT
    is_closing = False
    tls_context = None

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.dialogs: set[Dialog] = set()
        self.reserved = self.most_reserved = self.most_buffered = 0
        self.stray: list[Any] = []

    async def log_in(self, login: bytes, password: bytes, address: str) -> Login | str:
        await asyncio.sleep(0)
        return Login("ana", "hash") if (login, password) == (b"ana", b"right") else "535 5.7.8 wrong"

    async def still_holds(self, login: Login) -> bool:
        return True

    async def accept(self, draft: Draft) -> str:
        await asyncio.sleep(0)
        if b"unavailable" in draft.message:
            raise Unavailable("the disk is full")
        if b"bug" in draft.message:
            raise RuntimeError("a bug")
        self.drafts.append(draft)
        return "250 2.0.0 queued as 1"

    def reserve(self, octets: int) -> bool:
        if self.reserved + octets > ROOM:
            return False
        self.reserved += octets
        self.most_reserved = max(self.most_reserved, self.reserved)
        return True

    def release(self, octets: int) -> None:
        self.reserved -= octets

    def came(self, dialog: Dialog) -> None:
        self.dialogs.add(dialog)
        reader = dialog._reader
        feed = reader.feed_data

        def watch(data: bytes) -> None:
            feed(data)
            self.most_buffered = max(self.most_buffered, len(reader._buffer))

        reader.feed_data = watch  # type: ignore[method-assign,assignment]

    def left(self, dialog: Dialog) -> None:
        self.dialogs.discard(dialog)


@dataclass(frozen=True)
class Heard:
    """`was_reset`: the server hung up on what it had not read; the network may have dropped its last words."""

    replies: list[str]
    was_reset: bool


class Place:
    """A dialog behind every connection to `port`, on a loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.host = Host()
        self._loop = loop
        self._loop.set_exception_handler(lambda loop, context: self.host.stray.append(context))
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._listen(), loop).result(10)

    async def _listen(self) -> int:
        def meet() -> Dialog:
            return Dialog(self.host, self._loop, "127.0.0.1", secure=False, offers_tls=False)

        self._server = await self._loop.create_server(meet, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            await self._server.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def say(self, pieces: list[bytes]) -> Heard:
        """Send, close our side, and return every reply up to the server's end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as plug:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard: list[bytes | None] = []
            reader = threading.Thread(target=_hear, args=(plug, heard))
            reader.start()
            with contextlib.suppress(OSError):  # it has heard enough
                for piece in pieces:
                    plug.sendall(piece)
                plug.shutdown(socket.SHUT_WR)
            reader.join(20)
            assert not reader.is_alive(), "the server neither answers nor hangs up"
        stream = b"".join(data for data in heard if data is not None)
        was_reset = None in heard
        assert stream.endswith(b"\r\n") or was_reset
        assert b"\0" not in stream
        lines = stream.decode("ascii").split("\r\n")[:-1]
        assert all("\r" not in line and "\n" not in line for line in lines)
        return Heard([line for line in lines if line[3:4] != "-"], was_reset)


def _hear(plug: socket.socket, heard: list[bytes | None]) -> None:
    try:
        while data := plug.recv(65_536):
            heard.append(data)
    except ConnectionResetError:
        heard.append(None)


@pytest.fixture(scope="module", params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(request.param())
    yield place
    place.close()


# --- what follows from what was sent ---------------------------------------------------------------------------------


class Listener:
    """Goes along what was sent with the replies in hand, the plain way, and gathers the messages that must be kept."""

    def __init__(self, sent: bytes, heard: Heard) -> None:
        self.sent = sent
        self.replies = iter(heard.replies)
        self.position = 0
        self.messages: list[bytes] = []
        self._was_reset = heard.was_reset
        self._last = ""
        self._logged_in = self._has_mail = self._has_rcpt = False

    def follow(self) -> None:
        if not (self._reply() or "").startswith("220 "):
            assert self._was_reset
            return
        while (line := self._line()) is not None:
            reply = self._reply()
            if reply is None:
                return
            verb = line[:4].upper()
            while reply.startswith("334"):
                assert verb == b"AUTH"
                if self._line() is None:
                    assert list(self.replies) == []
                    return
                if (reply := self._reply()) is None:
                    return
            if not self._note(verb, reply):
                return
        rest = list(self.replies)
        assert rest == [] or (len(rest) == 1 and rest[0][:3] in ("421", "500")), rest

    def _note(self, verb: bytes, reply: str) -> bool:
        """Check a reply against what went before; False when nothing more is to come."""
        good = reply[0] == "2"
        self._logged_in |= reply.startswith("235")
        if verb == b"MAIL" and good:
            assert self._logged_in
            self._has_mail = True
        elif verb == b"RCPT" and good:
            assert self._has_mail
            self._has_rcpt = True
        elif verb in (b"RSET", b"EHLO", b"HELO") and good:
            self._has_mail = self._has_rcpt = False
        elif reply.startswith("354"):
            assert verb == b"DATA"
            assert self._has_rcpt
            self._has_mail = self._has_rcpt = False
            return self._content()
        assert "queued" not in reply
        return not reply.startswith(("221", "421"))

    def _content(self) -> bool:
        lines: list[bytes] = []
        rest = self.sent[self.position :]
        while True:
            line, end, rest = rest.partition(b"\r\n")
            if not end:  # no end of data: nothing is answered, nothing is kept; unless it was far too much
                replies = list(self.replies)
                assert replies == [] or (len(replies) == 1 and replies[0].startswith(("552", "421")))
                return False
            if line == b".":
                break
            lines.append(line.removeprefix(b"."))
        self.position = len(self.sent) - len(rest)
        reply = self._reply()
        if reply is None:
            return False
        message = b"".join(line + b"\r\n" for line in lines)
        bare = message.replace(b"\r\n", b"")
        is_odd = b"\r" in bare or b"\n" in bare or b"\0" in bare or any(len(line) > 998 for line in lines)
        if reply.startswith("250"):
            assert not is_odd
            assert len(message) <= LIMIT
            self.messages.append(message)
        elif b"unavailable" in message or b"bug" in message:
            assert reply.startswith("45") or is_odd or len(message) > LIMIT
        else:
            assert is_odd or len(message) > LIMIT, (reply, message[:200])
        return not reply.startswith("421")

    def _line(self) -> bytes | None:
        end = self.sent.find(b"\n", self.position)
        if end < 0:
            return None
        line, self.position = self.sent[self.position : end + 1], end + 1
        return line

    def _reply(self) -> str | None:
        """Return the next reply. None: the network has lost it, or the server hung up before, which it says first."""
        reply = next(self.replies, None)
        assert reply is not None or self._was_reset or self._last[:3] in ("421", "221", "500", "552")
        self._last = reply or self._last
        return reply


# --- what is said ----------------------------------------------------------------------------------------------------

RIGHT = base64.b64encode(b"\0ana\0right").decode()
COMMANDS = [
    "EHLO me", "EHLO", "HELO me", "NOOP", "NOOP x", "RSET", "VRFY a@b.example", "EXPN a", "HELP", "STARTTLS", "BOGUS",
    "", "QUIT", "DATA", "DATA", "DATA x", f"AUTH PLAIN {RIGHT}", "AUTH PLAIN", RIGHT, "AUTH PLAIN =", "AUTH PLAIN AAAA",
    "AUTH LOGIN", "YW5h", "cmlnaHQ=", "*", "AUTH X", "MAIL FROM:<a@b.example>", "MAIL FROM:<>",
    "MAIL FROM:<é@b> SMTPUTF8",

    "MAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x AUTH=<>", "MAIL FROM:<a@b> SIZE=999999",
    "MAIL FROM:<a@b.example> X=1", "RCPT TO:<k@c.example>", "RCPT TO:<k@c.example> NOTIFY=NEVER ORCPT=rfc822;k",
    "RCPT TO:<é@c.example>", "RCPT TO:<>", "RCPT TO:<k@bücher.example>", "MAIL\0FROM:<a@b.example>", "NOOP\rNOOP",
    "x" * 3_000, "AUTH PLAIN " + "A" * 20_000,
]  # fmt: skip
SPOKEN = [
    b"From: support@example.com", b"", b".", b"..", b".x", b"Hello", b"x" * 998, b"x" * 999, b"\xe9", b"unavailable",
    b"bug", b"a\nb", b"a\rb", b"a\0b", b"\n.", b".\r", b"\n.\n", b"\r.\r", b" .", b"y" * 900, b"z" * 900,
]  # fmt: skip
LINE = st.sampled_from(COMMANDS).map(str.encode) | st.sampled_from(SPOKEN) | st.binary(max_size=40)
END = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"", b"\r\r\n", b"\n\r\n"])
BEGUN = f"EHLO me\r\nAUTH PLAIN {RIGHT}\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<k@c.example>\r\n".encode()
MESSAGE = st.lists(st.tuples(st.sampled_from(SPOKEN), END).map(b"".join), max_size=30).map(b"".join)
TRANSACTION = st.builds(
    lambda content, end: b"MAIL FROM:<a@b.example>\r\nRCPT TO:<k@c.example>\r\nDATA\r\n" + content + end,
    MESSAGE,
    st.sampled_from([b"\r\n.\r\n"] * 4 + [b".\r\n", b"\r\n.\n", b"\n.\r\n", b"\r\n.", b""]),
)
SAID = st.builds(
    lambda begun, parts: (BEGUN if begun else b"") + b"".join(parts),
    st.booleans(),
    st.lists(st.tuples(LINE, END).map(b"".join) | TRANSACTION, max_size=30),
)


def pieces_of(sent: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
    return [sent[a:b] for a, b in pairwise(borders)]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(sent=SAID, cuts=st.lists(st.integers(0, 50_000), max_size=10))
@example(sent=BEGUN + b"DATA\r\n\r\n.\r\nQUIT\r\n", cuts=[])
@example(sent=BEGUN + b"DATA\r\n.\r\nDATA\r\n", cuts=[100])
@example(sent=BEGUN + b"DATA\r\n" + (b"x" * 900 + b"\r\n") * 100 + b".\r\nNOOP\r\n", cuts=[])
@example(sent=BEGUN + b"DATA\r\nbug\r\n.\r\nMAIL FROM:<a@b.example>\r\n", cuts=[])
@example(sent=b"x" * 10_000_000, cuts=[])
@example(sent=BEGUN + b"DATA\r\n" + b"x" * 30_000_000, cuts=[])
@example(sent=b"NOOP\r\n" * 100_000, cuts=[])
@example(sent=b"BOGUS\r\n" * 50, cuts=[])
def test_whatever_is_said_is_answered_in_step(place: Place, sent: bytes, cuts: list[int]) -> None:
    host = place.host
    host.drafts.clear()
    heard = place.say(pieces_of(sent, cuts))
    listener = Listener(sent, heard)
    listener.follow()
    assert place.say([b"NOOP\r\nQUIT\r\n"]).replies[1:] == ["250 2.0.0 OK", "221 2.0.0 bye"]
    kept = [draft.message for draft in host.drafts]
    assert kept[: len(listener.messages)] == listener.messages
    assert heard.was_reset or len(kept) == len(listener.messages)
    assert host.stray == []
    assert host.most_reserved <= ROOM
    assert 0 < host.most_buffered <= 512 * 1024
    assert host.reserved == 0


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(sent=st.binary(max_size=3_000), begun=st.booleans(), in_data=st.booleans())
def test_noise_never_becomes_mail(place: Place, sent: bytes, begun: bool, in_data: bool) -> None:
    host = place.host
    host.drafts.clear()
    if in_data:
        sent = sent.replace(b"\r\n.\r\n", b"").replace(b".\r\n", b"")
    prefix = (BEGUN if begun or in_data else b"") + (b"DATA\r\n" if in_data else b"")
    Listener(prefix + sent, place.say([prefix + sent])).follow()
    assert host.drafts == []
    assert host.stray == []
