"""aioimaplib's protocol class with its insides replaced: one command at a time, bounded, and never in doubt.

What aioimaplib 2.0.3 does and we cannot live with: it recurses once a line (1,100 lines in one read kill the
session), a lost connection wakes nobody, a time-out leaves it waiting for ever, an EXISTS during another command is
dropped, "* " is deleted from the middle of lines, and its log shows credentials. Kept are its commands (with their
refusal of control characters), tags and states. The rule here: after anything unexpected, a time-out or a
cancellation the connection is cut; the way back is a new object.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aioimaplib import aioimaplib

from gateway.errors import Malformed, Unavailable
from gateway.inbound.fetch import human_text, response_code
from gateway.inbound.framing import Framer, Response

# At debug level it prints what it reads and writes. We never call what logs, and make sure of it.
logging.getLogger("aioimaplib").setLevel(logging.WARNING)

Take = Callable[[Response], None]

# A command's answers may be this much larger than asked for before we call it an attack
_SLACK_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The tagged end of a command. `line` is what follows the tag."""

    condition: bytes  # OK, NO or BAD
    line: bytes

    @property
    def ok(self) -> bool:
        return self.condition == b"OK"

    @property
    def code(self) -> bytes:
        return response_code(self.line)[0]

    @property
    def text(self) -> str:
        return human_text(self.line)


@dataclass(slots=True)
class _Pending:
    tag: bytes
    name: str
    take: Take | None
    replies: list[bytes]  # what to send at each "+"
    room: int  # bytes of untagged data that we still put up with
    answer: asyncio.Future[Answer]
    continued: asyncio.Event = field(default_factory=asyncio.Event)


class Wire(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc]  # aioimaplib has no types
    """One connection. `greeting` resolves with the first response; `execute` runs one command.

    `is_stirred` says that the server has mentioned another number of messages (EXISTS) since `calm`; that is noticed
    at any time, also in the middle of another command. `heard_at`: when the last byte came (time.monotonic).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, literal_bytes: int) -> None:
        super().__init__(loop)
        self.idle_queue = None  # the base class's unbounded queue is not used
        self._framer = Framer(literal_bytes)
        self._literal_bytes = literal_bytes
        self._command: _Pending | None = None
        self._stir = asyncio.Event()
        self.greeting: asyncio.Future[Response] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.cause: Unavailable | None = None  # why the connection is of no use any more
        self.exists = 0
        self.heard_at = time.monotonic()
        self.goodbye: str | None = None  # the text of BYE
        self._leaving = False  # what is written may still go out

    # --- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.state = aioimaplib.CONNECTED

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            for response in self._framer.feed(data):
                self._receive(response)
        except Malformed as error:
            self.cut(f"the server broke the protocol: {error}")
        except Exception as error:  # ours; the session ends, the daemon lives, the traceback is not lost
            self.cut(f"an answer could not be read ({type(error).__name__})", error)

    def eof_received(self) -> bool | None:
        self.cut("the server closed the connection")
        return None

    def connection_lost(self, error: Exception | None) -> None:
        reason = f"the connection was lost: {error}" if error else "the server closed the connection"
        self.cut(reason)
        if not self.lost.done():
            self.lost.set_result(None)

    def cut(self, reason: str, error: BaseException | None = None) -> None:
        """End the connection at once and fail whoever waits. The first reason stands."""
        if self.cause is None:
            self.cause = Unavailable(f"the server said: {self.goodbye}" if self.goodbye else reason)
            self.cause.__cause__ = error
        self.state = aioimaplib.LOGOUT
        for waiting in (self.greeting, self._command.answer if self._command else None):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self.cause)
                waiting.exception()  # seen: nobody may be waiting, and that is no reason for a warning
        self._stir.set()
        transport = cast(Any, self.transport)
        if transport is not None and not self._leaving:
            transport.abort()

    # --- responses ---------------------------------------------------------------------------------------------------

    def _receive(self, response: Response) -> None:
        line = response[0]
        if not self.greeting.done():
            self.greeting.set_result(response)
            return
        if line.startswith(b"* "):
            self._note(response)
            self._give(response)
        elif line.startswith(b"+"):
            self._continue()
        else:
            self._finish(line)

    def _note(self, response: Response) -> None:
        """Keep what matters at any time, whoever asked and whoever did not."""
        line = response[0]
        words = line.split(None, 3)
        if len(words) > 2 and words[1].isdigit():
            kind = words[2].upper()
            if kind == b"EXISTS":
                count = int(words[1][:18])
                if count != self.exists:  # not at every EXISTS: a server that repeats itself would keep us from IDLE
                    self._stir.set()
                self.exists = count
            elif kind == b"EXPUNGE":
                self.exists = max(0, self.exists - 1)
        elif len(words) > 1:
            kind = words[1].upper()
            if kind == b"BYE":
                self.goodbye = human_text(line[2:]) or "BYE"
                if not self._is_running("LOGOUT"):
                    self.cut("goodbye")  # some servers say it and keep the connection open
            elif kind == b"VANISHED":
                self.exists = -1  # how many are left, the next EXISTS says, and it counts as news whatever its number
            elif kind == b"OK" and not self._is_running("EXAMINE") and response_code(line)[0] == b"UIDVALIDITY":
                self.cut("the server gave the folder a new UIDVALIDITY in mid-session")

    def _give(self, response: Response) -> None:
        command = self._command
        if command is None or command.take is None:
            return
        command.room -= sum(map(len, response))
        if command.room < 0:
            raise Malformed(f"far more data than {command.name} asked for")
        command.take(response)

    def _continue(self) -> None:
        command = self._command
        if command is None:
            return
        if command.replies:
            self.write(command.replies.pop(0))
        elif command.name == "AUTHENTICATE":
            # A refusal in a challenge (XOAUTH2's JSON); only an empty answer brings the tagged NO
            self.write(b"\r\n")
        command.continued.set()

    def _finish(self, line: bytes) -> None:
        command = self._command
        tag, _, rest = line.partition(b" ")
        condition = rest.split(b" ", 1)[0].upper()
        if condition not in (b"OK", b"NO", b"BAD"):
            return  # noise: an empty line, a stray "*"; the answer that we wait for is still to come
        if command is None or tag != command.tag:
            raise Malformed("an answer to a question that was not asked")
        if not command.answer.done():
            command.answer.set_result(Answer(condition, rest))

    # --- commands ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes. Nothing is logged here: they may be credentials."""
        cast(Any, self.transport).write(data)

    def send(self, line: str, scrub: str | None = None) -> None:
        self.write(line.encode() + b"\r\n")

    async def execute(
        self,
        name: str,
        *args: str,
        by_uid: bool = False,
        take: Take | None = None,
        replies: Sequence[bytes] = (),
        expected_bytes: int = 0,
        quiet: float = 60.0,
        total: float = 600.0,
    ) -> Answer:
        """Run one command; return its tagged answer, whichever it is. Untagged data goes to `take` as it comes.

        `quiet`: seconds without a byte, `total`: seconds altogether, before the connection is given up. Raises
        Unavailable; after that, and after a cancellation, the connection is cut and stays so.
        """
        command = self._begin(name, args, by_uid, take, replies, expected_bytes)
        try:
            await self._wait(command.answer, quiet, total, name)
            return command.answer.result()
        except BaseException:
            self.cut(f"{name} was given up")
            raise
        finally:
            self._command = None

    async def idle(self, seconds: float, answer_within: float = 30.0) -> Answer:
        """Run IDLE until the server stirs or `seconds` have passed; return its tagged answer."""
        command = self._begin("IDLE", (), False, None, (), 0)
        try:
            async with asyncio.timeout(answer_within):
                await self._first(command.continued.wait(), command.answer)
            if not command.answer.done():
                try:
                    async with asyncio.timeout(seconds):
                        await self._first(self._stir.wait(), command.answer)
                except TimeoutError:
                    pass
                if self.cause is not None:
                    raise self.cause
                self.write(b"DONE\r\n")
            await self._wait(command.answer, answer_within, answer_within, "DONE")
            return command.answer.result()
        except TimeoutError:
            self.cut("no answer to IDLE")
            raise Unavailable("no answer to IDLE") from None
        except asyncio.CancelledError:
            self.say_goodbye()
            await self.close()
            raise
        except BaseException:
            self.cut("IDLE was given up")
            raise
        finally:
            self._command = None

    def say_goodbye(self) -> None:
        """Leave without waiting for anything: the provider should not count us among its connections for long."""
        transport = cast(Any, self.transport)
        if self.cause is None and transport is not None:
            self.cause = Unavailable("we have left")
            self._leaving = True
            done = b"DONE\r\n" if self._is_running("IDLE") else b""
            transport.write(done + self.new_tag().encode() + b" LOGOUT\r\n")
            transport.close()
        self.state = aioimaplib.LOGOUT

    async def close(self, within: float = 0.5) -> None:
        """Wait until the connection is really gone; cut it after `within` seconds. A loop that ends must leave nothing.

        After `say_goodbye` that gives the peer the moment to answer.
        """
        if self.transport is None:
            return
        if not self._leaving:
            self.cut("we have closed the connection")
        await asyncio.wait((self.lost,), timeout=within)
        if not self.lost.done():
            self._leaving = False
            self.cut("we have closed the connection")
            await asyncio.wait((self.lost,), timeout=within)

    @property
    def is_stirred(self) -> bool:
        return self._stir.is_set()

    def calm(self) -> None:
        """Forget what stirred so far; call it *before* asking what is new."""
        if self.cause is None:
            self._stir.clear()

    def _is_running(self, name: str) -> bool:
        return self._command is not None and self._command.name == name

    def restart_framing(self) -> None:
        """After STARTTLS was accepted: nothing that came in the clear may count (RFC 3207 §6, RFC 9051 §11.1)."""
        if not self._framer.is_clean:
            self.cut("the server sent data between STARTTLS and TLS; somebody may be in between")
            raise cast(Unavailable, self.cause)
        self._framer = Framer(self._literal_bytes)

    def _begin(
        self, name: str, args: Sequence[str], by_uid: bool, take: Take | None, replies: Sequence[bytes], expected: int
    ) -> _Pending:
        if self.cause is not None:
            raise self.cause
        if self._command is not None:
            raise RuntimeError(f"{name} while {self._command.name} is running: a session serves one caller")
        tag = self.new_tag()
        command = aioimaplib.Command(name, tag, *args, prefix="UID" if by_uid else None, loop=self.loop)
        self._command = _Pending(
            tag.encode(), name, take, list(replies), expected + _SLACK_BYTES, self.loop.create_future()
        )
        self.send(str(command).strip())
        return self._command

    async def _wait(self, answer: asyncio.Future[Answer], quiet: float, total: float, name: str) -> None:
        asked_at = time.monotonic()
        while not answer.done():
            now = time.monotonic()
            silence = now - max(asked_at, self.heard_at)
            left = min(quiet - silence, asked_at + total - now)
            if left <= 0:
                raise Unavailable(f"no answer to {name} within {total if silence < quiet else quiet:.0f} seconds")
            await asyncio.wait((answer,), timeout=left)

    async def _first(self, event: Any, answer: asyncio.Future[Answer]) -> None:
        waiter = self.loop.create_task(event)
        try:
            await asyncio.wait((waiter, answer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
