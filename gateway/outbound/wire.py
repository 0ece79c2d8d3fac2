"""One SMTP connection behind the login: commands out, replies in, in order.

aiosmtplib dials, speaks TLS and logs in; then its protocol is replaced by this one on the same transport. What its
own mail transaction cannot do is why: several commands in one write (RFC 2920; its reader drops all but the first
reply), a commit of ours between RCPT and DATA, and knowing whether the final dot was given to the link when the link
is lost. It also takes one timer a connection instead of one a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from functools import lru_cache
from typing import Final, cast

from gateway.model import Reply

_LONGEST_REPLY: Final = 64 * 1024  # bytes of one reply with all its lines; a hostile server may go on for ever
_STATUS: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_QUIT_SECONDS: Final = 5.0


class LinkLost(Exception):
    """The link cannot be used any more. The text is one line for a person."""


class Wire(asyncio.Protocol):
    """Made by `take_over`. Every method belongs to the loop's thread; one caller at a time."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()
        self._lines: list[bytes] = []  # of a reply whose last line has not come
        self._replies: deque[Reply] = deque()
        self._expected = 0  # commands whose reply has not come
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._may_write = True
        self._is_leaving = False
        self._closed: asyncio.Future[None] = loop.create_future()
        self.lost: str | None = None
        self.farewell: Reply | None = None  # what the server said unasked before it left

    @classmethod
    def take_over(cls, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> Wire:
        """Become the protocol of a connection that is in step: nothing asked, nothing unread."""
        wire = cls(transport, loop)
        transport.set_protocol(wire)
        if transport.is_closing():
            wire.lost = "the server closed the connection"
        return wire

    # --- what the relay uses -----------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        return self.lost is None and not self._is_leaving

    @property
    def has_reply(self) -> bool:
        """A reply that nobody has taken yet is here."""
        return bool(self._replies)

    def check(self) -> None:
        """Raise LinkLost unless something can be sent."""
        if self.lost is not None:
            raise LinkLost(self.lost)
        if self._transport.is_closing():
            raise LinkLost("the server closed the connection")

    def ask(self, commands: bytes, count: int) -> None:
        """Send `count` commands, each with its CRLF; as many replies are expected. Raises LinkLost."""
        self.check()
        self._expected += count
        if commands:
            self._transport.write(commands)

    def send(self, content: bytes | memoryview) -> None:
        """Send content, to which nothing is replied. Raises LinkLost."""
        self.check()
        self._transport.write(content)

    async def reply(self, seconds: float) -> Reply:
        """Return the next reply. Raises LinkLost, also when none comes within `seconds`: then we are out of step."""
        while not self._replies:
            self.check()
            await self._wait(seconds, "the server did not answer in time")
        return self._replies.popleft()

    async def drained(self, seconds: float) -> None:
        """Return once little of what was sent is still in our memory. Raises LinkLost."""
        while not self._may_write:
            self.check()
            await self._wait(seconds, "the server stopped reading")

    def abort(self, reason: str) -> None:
        """Drop the link at once; whoever waits for it gets LinkLost with `reason`."""
        self._lose(reason)
        self._transport.abort()

    def leave(self) -> None:
        """Say QUIT and close when it is answered, or after a few seconds. Does not wait."""
        if not self.is_alive:
            self.abort("closed")
            return
        self._is_leaving = True
        self._transport.write(b"QUIT\r\n")
        self._set_timer(self._loop.time() + _QUIT_SECONDS)

    async def gone(self, seconds: float) -> None:
        """Return once the connection is closed; after `seconds` it is dropped. For links that were left or aborted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._closed), seconds)
        if not self._closed.done():
            self.abort("closed")
            await self._closed

    # --- what the loop calls -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_leaving:
            self._close()
            return
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._lines.append(line)
            if line[3:4] != b"-":
                self._take_reply()
        if len(self._buffer) + sum(map(len, self._lines)) > _LONGEST_REPLY:
            self.abort("the server's reply has no end")

    def eof_received(self) -> bool:
        self._lose("the server closed the connection")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(f"the connection was lost ({error})" if error else "the server closed the connection")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._wake()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _take_reply(self) -> None:
        lines, self._lines = self._lines, []
        reply = _read_line(lines[0]) if len(lines) == 1 else read_reply(lines)
        if reply is None:
            self.abort("the server's reply is not SMTP")
        elif not self._expected:
            # Most often "421 … closing, idle for too long". Whatever it is, a later command must not take it for its
            # own reply.
            self.farewell = reply
            self.abort(f"the server said, unasked: {reply}")
        else:
            self._expected -= 1
            self._replies.append(reply)
            self._wake()

    async def _wait(self, seconds: float, otherwise: str) -> None:
        self._waiter = self._loop.create_future()
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._deadline:
            self._set_timer(self._deadline)
        self._late = otherwise
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        """The one timer of a connection; it moves on while there is nothing overdue."""
        self._timer = None
        if self._is_leaving:
            self._close()
        elif self._waiter is not None:
            if self._loop.time() >= self._deadline:
                self.abort(self._late)
            else:
                self._set_timer(self._deadline)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._wake()

    def _close(self) -> None:
        self._lose("closed")
        self._transport.close()


def read_reply(lines: list[bytes]) -> Reply | None:
    """Return the reply that these lines (without LF) are, or None when they are none."""
    last = lines[-1]
    if not (last[:3].isdigit() and len(last.rstrip(b"\r")) >= 3 and b"2" <= last[:1] <= b"5"):
        return None
    code = last[:3]
    texts: list[str] = []
    status = ""
    for line in lines:
        if line[:3] != code:
            return None
        text = line[4:].decode("utf-8", "replace").strip()
        if found := _STATUS.match(text):
            status, text = status or found[1], text[found.end() :]
        if text:
            texts.append(text)
    return Reply(int(code), status, " ".join(texts))


@lru_cache(maxsize=256)
def _read_line(line: bytes) -> Reply | None:
    """Servers say the same few things all day."""
    return read_reply([line])


def as_transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    return cast(asyncio.Transport, transport)
