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
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aioimaplib import aioimaplib

from gateway.errors import Malformed, Unavailable
from gateway.inbound.framing import Framer, Response
from gateway.inbound.reply import Cut, human_text, read_capabilities, read_cut, response_code
from gateway.inbound.uids import Run, read_vanished

# At debug level it prints what it reads and writes. We never call what logs, and make sure of it.
logging.getLogger("aioimaplib").setLevel(logging.WARNING)

Take = Callable[[Response], None]

# A command's answers may be this much larger than asked for before we call it an attack
SLACK_BYTES: Final = 16 * 1024 * 1024
_LITERAL_BYTES: Final = 1024 * 1024  # no listing and no header needs a longer literal
# Reading what came in one gulp is done in slices: other sessions share this thread
_SLICE_SECONDS: Final = 0.001
_VANISHED_RUNS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The tagged end of a command. `line` is what follows the tag. `cut`: it did only a part of its work."""

    condition: bytes  # OK, NO or BAD
    line: bytes
    cut: Cut | None = None

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
    answer: asyncio.Future[Answer]
    continued: asyncio.Event = field(default_factory=asyncio.Event)
    cut: Cut | None = None


class Wire(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc]  # aioimaplib has no types
    """One connection. `greeting` resolves with the first response; `execute` runs one command.

    `is_stirred` says that the server has mentioned another number of messages (EXISTS) since `calm`; that is noticed
    at any time, also in the middle of another command. `heard_at`: when the last byte came (time.monotonic).
    `literal_bytes`: what no command may exceed that asks for a message.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, literal_bytes: int) -> None:
        super().__init__(loop)
        self.idle_queue = None  # the base class's unbounded queue is not used
        self.literal_bytes = literal_bytes
        self._framer = Framer(self._usual_literal)
        self._command: _Pending | None = None
        self._room = SLACK_BYTES  # bytes of data that we still put up with
        self._stir = asyncio.Event()
        self._reading_later = False
        self.greeting: asyncio.Future[Response] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.cause: Unavailable | None = None  # why the connection is of no use any more
        self.exists = 0  # messages in the open folder; -1: unknown
        self.vanished: list[Run] = []  # UIDs of the open folder of which the server said that they are gone
        self.told: frozenset[str] | None = None  # capabilities, as the server stated them last
        self.heard_at = time.monotonic()
        self.goodbye: str | None = None  # the text of BYE
        self._leaving = False  # what is written may still go out
        self._may_write = asyncio.Event()
        self._may_write.set()

    # --- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.state = aioimaplib.CONNECTED

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._framer.push(data)
        if not self._reading_later:
            self._read(self.heard_at + _SLICE_SECONDS)

    def _read(self, until: float | None) -> None:
        """Take responses, until the slice is used up: then the rest comes a little later. None: take all."""
        try:
            while self.cause is None and (response := self._framer.pull()) is not None:
                self._receive(response)
                if until is not None and time.monotonic() > until:
                    self._read_later()
                    return
        except Malformed as error:
            self.cut(f"the server broke the protocol: {error}")
        except Exception as error:  # ours; the session ends, the daemon lives, the traceback is not lost
            self.cut(f"an answer could not be read ({type(error).__name__})", error)
        if self._reading_later:
            self._reading_later = False
            if self.cause is None and until is not None:
                cast(Any, self.transport).resume_reading()

    def _read_later(self) -> None:
        if not self._reading_later:
            self._reading_later = True
            cast(Any, self.transport).pause_reading()
        self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._reading_later:
            self._read(time.monotonic() + _SLICE_SECONDS)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def eof_received(self) -> bool | None:
        self._read(None)
        self.cut("the server closed the connection")
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._read(None)
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
        self._may_write.set()
        transport = cast(Any, self.transport)
        if transport is not None and not self._leaving:
            transport.abort()

    # --- responses ---------------------------------------------------------------------------------------------------

    def _receive(self, response: Response) -> None:
        line = response[0]
        if not self.greeting.done():
            self.greeting.set_result(response)
            return
        self._room -= sum(map(len, response))
        if self._room < 0:
            raise Malformed(f"far more data than {self._command.name if self._command else 'anybody'} asked for")
        if line.startswith(b"* "):
            self._note(line)
            command = self._command
            if command is not None and command.take is not None:
                command.take(response)
        elif line.startswith(b"+"):
            self._continue()
        else:
            self._finish(line)

    def _note(self, line: bytes) -> None:
        """Keep what matters at any time, whoever asked and whoever did not."""
        words = line.split(None, 3)
        if len(words) < 2:
            return
        if words[1].isdigit():
            kind = words[2].upper() if len(words) > 2 else b""
            if kind == b"EXISTS":
                count = int(words[1][:18])
                if count != self.exists:  # not at every EXISTS: a server that repeats itself would keep us from IDLE
                    self._stir.set()
                self.exists = count
            elif kind == b"EXPUNGE":
                self.exists = max(0, self.exists - 1)
            return
        match words[1].upper():
            case b"BYE":
                self.goodbye = human_text(line[2:]) or "BYE"
                if not self._is_running("LOGOUT"):
                    self.cut("goodbye")  # some servers say it and keep the connection open
            case b"VANISHED":
                self._note_vanished(line)
            case b"OK":
                self.told = read_capabilities(line[2:]) or self.told
                selecting = self._is_running("EXAMINE") or self._is_running("SELECT")
                if not selecting and response_code(line)[0] == b"UIDVALIDITY":
                    self.cut("the server gave the folder a new UIDVALIDITY in mid-session")
            case b"NO":
                if self._command is not None:
                    self._command.cut = read_cut(line) or self._command.cut
            case b"CAPABILITY":
                self.told = read_capabilities(line[2:]) or self.told

    def _note_vanished(self, line: bytes) -> None:
        found = read_vanished(line)
        if found is not None and not found[0]:
            self.exists = -1  # how many are left, the next EXISTS says, and it counts as news whatever its number
            self.vanished += found[1][: _VANISHED_RUNS - len(self.vanished)]

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
        if condition == b"OK":
            self.told = read_capabilities(rest) or self.told
        if not command.answer.done():
            command.answer.set_result(Answer(condition, rest, read_cut(rest) or command.cut))

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
        literal_bytes: int = 0,
        quiet: float = 60.0,
        total: float = 600.0,
    ) -> Answer:
        """Run one command; return its tagged answer, whichever it is. Untagged data goes to `take` as it comes.

        `expected_bytes`: how much may come of it. `literal_bytes`: how much in the literals of one response.
        `quiet`: seconds without a byte, `total`: seconds altogether, before the connection is given up. Raises
        Unavailable; after that, and after a cancellation, the connection is cut and stays so.
        """
        command = self._begin(name, args, by_uid, take, replies, expected_bytes)
        self._framer.literal_bytes = max(self._usual_literal, min(literal_bytes, self.literal_bytes))
        try:
            await self._wait(command.answer, quiet, total, name)
            return command.answer.result()
        except BaseException:
            self.cut(f"{name} was given up")
            raise
        finally:
            self._command = None
            self._framer.literal_bytes = self._usual_literal

    async def send_literal(
        self,
        name: str,
        *args: str,
        chunks: AsyncIterator[bytes],
        size: int,
        waits: bool,
        utf8: bool,
        quiet: float,
        total: float,
    ) -> Answer:
        """Run a command that ends in a literal of `size` bytes, which come in `chunks`; return its tagged answer.

        `waits`: the server is asked before the bytes are sent, and may say no; else they follow at once (RFC 7888).
        `utf8`: as RFC 6855 §4 wants it of a message with UTF-8 in its header. No more than a chunk and what the socket
        takes is in memory. Raises as `execute`, and what `chunks` raises, or
        Malformed when they are not `size` bytes; the connection is cut then, for the stream is out of step.
        """
        begin, end = ("UTF8 (~", b")\r\n") if utf8 else ("", b"\r\n")
        literal = f"{begin}{{{size}{'' if waits else '+'}}}"
        command = self._begin(name, (*args, literal), False, None, (), 0)
        begun = time.monotonic()
        try:
            if waits:
                async with asyncio.timeout(quiet):
                    await self._first(command.continued.wait(), command.answer)
            if not command.answer.done() or not waits:
                # An answer that comes too early changes nothing: the server has been promised so many bytes
                async for chunk in chunks:
                    size -= len(chunk)
                    if size < 0:
                        break
                    await self._write_within(chunk, min(quiet, begun + total - time.monotonic()))
                if size:
                    raise Malformed("a literal that is not as long as was said")
                self.write(end)
                await self._wait(command.answer, quiet, total, name)
            return command.answer.result()
        except TimeoutError:
            self.cut(f"no answer to {name}")
            raise Unavailable(f"{name}: the server does not take what we send") from None
        except BaseException:
            self.cut(f"{name} was given up")
            raise
        finally:
            self._command = None

    async def _write_within(self, chunk: bytes, seconds: float) -> None:
        """Send bytes, and wait until the socket has taken most of them. Raises TimeoutError, Unavailable."""
        if self.cause is not None:
            raise self.cause
        self.write(chunk)
        async with asyncio.timeout(max(0.0, seconds)):
            await self._may_write.wait()

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

    @property
    def _usual_literal(self) -> int:
        return min(_LITERAL_BYTES, self.literal_bytes)

    def _is_running(self, name: str) -> bool:
        return self._command is not None and self._command.name == name

    def restart_framing(self) -> None:
        """After STARTTLS was accepted: nothing that came in the clear may count (RFC 3207 §6, RFC 9051 §11.1)."""
        if not self._framer.is_clean:
            self.cut("the server sent data between STARTTLS and TLS; somebody may be in between")
            raise cast(Unavailable, self.cause)
        self._framer = Framer(self._usual_literal)
        self.told = None

    def _begin(
        self, name: str, args: Sequence[str], by_uid: bool, take: Take | None, replies: Sequence[bytes], expected: int
    ) -> _Pending:
        if self.cause is not None:
            raise self.cause
        if self._command is not None:
            raise RuntimeError(f"{name} while {self._command.name} is running: a session serves one caller")
        tag = self.new_tag()
        command = aioimaplib.Command(name, tag, *args, prefix="UID" if by_uid else None, loop=self.loop)
        self._command = _Pending(tag.encode(), name, take, list(replies), self.loop.create_future())
        self._room = expected + SLACK_BYTES
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
