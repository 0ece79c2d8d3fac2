"""Asks a scanner (rspamd, SpamAssassin's spamd) for a score, and teaches it what people have decided.

A scanner that is down, silent or broken never stops mail: everything here ends within the time limit and says
`Unavailable`, and after a few failures in a row nobody even asks for a while. `status` shows an alarm as long as that
lasts; once a minute somebody looks whether it is over, so that a scanner which is away is known before it matters.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final, TypeVar

import h11
import trio

from gateway import events
from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound import rspamd, spamd
from gateway.inbound.breaker import Breaker
from gateway.inbound.scoring import LARGEST_ANSWER, Letter, Place, parse_place
from gateway.model import Score
from gateway.text import clean

T = TypeVar("T")
Dial = Callable[[str, int], Awaitable[trio.abc.HalfCloseableStream]]
Stream = trio.abc.HalfCloseableStream | trio.SSLStream[trio.abc.HalfCloseableStream]

ALARM: Final = "scanner"
TOGETHER: Final = 8  # messages that are asked about at a time; the others wait for their turn, within their time
_LEARN_WITHIN: Final = timedelta(seconds=20)  # nobody waits for it, and bayes has a database to write
_READ_BYTES: Final = 64 * 1024


class Scanner:
    """Used from Trio only. Follows the configuration: a scanner at another place begins with a clean sheet."""

    def __init__(self, health: Health | None = None, *, dial: Dial = trio.open_tcp_stream) -> None:
        self._health = health
        self._dial = dial
        self._url = ""
        self._breaker = Breaker()
        self._few = trio.CapacityLimiter(TOGETHER)
        self._was_heard = False  # since the last look
        self._tls: ssl.SSLContext | None = None

    # --- scores ------------------------------------------------------------------------------------------------------

    async def score(self, spam: Spam, letter: Letter) -> Score:
        """Return the score of a message. Raises Unavailable, within the time limit, where there is none."""
        place = self._turn_to(spam.scanner)
        if letter.size > place.largest:
            raise Unavailable(f"it has more than {place.largest:,} bytes, for which {place.kind} is not asked")
        if not self._breaker.may_ask(trio.current_time()):
            raise Unavailable(f"it is not asked for a while: {self._breaker.cause}")

        raw = await letter.raw_of()

        async def ask() -> Score:
            if place.kind == spamd.NAME:
                return spamd.read_score(await self._talk(place, spamd.ask_score(len(raw)), raw))
            return rspamd.read_score(*await self._call(place, rspamd.CHECK, rspamd.describe(letter), raw))

        return await self._within(place, spam.scanner_timeout, ask)

    async def look(self, spam: Spam) -> None:
        """See whether the scanner is there, unless it was heard not long ago; raise or clear the alarm."""
        if not spam.scanner:
            self._forget()
            return
        place = self._turn_to(spam.scanner)
        was_heard, self._was_heard = self._was_heard, False
        if was_heard or not self._breaker.may_ask(trio.current_time()):
            return

        async def ping() -> None:
            if place.kind == spamd.NAME:
                spamd.read_pong(await self._talk(place, spamd.PING))
                return
            status, _, _ = await self._call(place, rspamd.PING, [], None)
            if status >= 500:
                raise Unavailable(f"{place.kind} answers {status}")

        with suppress(Unavailable):  # it is noted
            await self._within(place, spam.scanner_timeout, ping)

    # --- lessons -----------------------------------------------------------------------------------------------------

    async def learn(self, spam: Spam, raw: bytes, *, is_spam: bool) -> str:
        """Teach that a message is spam, or that it is none. Return "" once that is known, else why it will never be.

        Raises Unavailable: it is worth another try.
        """
        place = parse_place(spam.lessons_at)
        if len(raw) > place.largest:
            return f"it has more than {place.largest:,} bytes"
        fields = []
        if spam.learn_password is not None and place.kind == rspamd.NAME:
            password = await trio.to_thread.run_sync(spam.learn_password.resolve)
            if not (password.isascii() and password.isprintable()):  # the library would say it, to tell what is wrong
                raise Unavailable(f"the secret {spam.learn_password} holds what cannot be sent: other than plain ASCII")
            fields.append(("Password", password))

        async def tell() -> str:
            if place.kind == spamd.NAME:
                return spamd.read_lesson(await self._talk(place, spamd.ask_lesson(len(raw), is_spam), raw))
            return rspamd.read_lesson(*await self._call(place, rspamd.learn_path(is_spam), fields, raw))

        return await _in_time(place, _LEARN_WITHIN, tell)

    # --- is it there? ------------------------------------------------------------------------------------------------

    def _turn_to(self, url: str) -> Place:
        if url != self._url:
            self._forget()
            self._url = url
        return parse_place(url)

    def _forget(self) -> None:
        self._url, self._breaker, self._was_heard = "", Breaker(), False
        if self._health is not None:
            self._health.clear(None, ALARM)

    async def _within(self, place: Place, limit: timedelta, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and note whether there was an answer."""
        breaker = self._breaker

        async def in_turn() -> T:
            async with self._few:
                return await ask()

        try:
            answer = await _in_time(place, limit, in_turn)
        except Unavailable as error:
            if breaker.fail(str(error), trio.current_time()):
                events.warn("scanner-away", cause=str(error))
            if breaker.is_open and breaker is self._breaker and self._health is not None:
                self._health.alarm(
                    None,
                    ALARM,
                    f"the scanner is away, and mail goes on without a score: {breaker.cause}",
                    "see that it runs, and that spam.scanner names it",
                )
            raise
        if breaker.succeed():
            events.say("scanner-back", scanner=str(place))
        if breaker is self._breaker:
            self._was_heard = True
            if self._health is not None:
                self._health.clear(None, ALARM)
        return answer

    # --- the wire ----------------------------------------------------------------------------------------------------

    async def _talk(self, place: Place, head: bytes, raw: bytes = b"") -> bytes:
        """Send all of it to a spamd and return all that it says."""
        async with self._connected(place) as stream:
            await stream.send_all(head)
            if raw:
                await stream.send_all(raw)
            if not isinstance(stream, trio.SSLStream):
                await stream.send_eof()
            answer = bytearray()
            while part := await stream.receive_some(_READ_BYTES):
                answer += part
                _bound(place, len(answer))
            return bytes(answer)

    async def _call(
        self, place: Place, path: str, fields: list[tuple[str, str]], raw: bytes | None
    ) -> tuple[int, str, bytes]:
        """Make one HTTP request, a POST where there is something to send; return status, reason and body."""
        connection = h11.Connection(h11.CLIENT)
        host = f"[{place.host}]" if ":" in place.host else place.host
        headers = [("Host", f"{host}:{place.port}"), ("Connection", "close"), *fields]
        if raw is not None:
            headers.append(("Content-Length", str(len(raw))))
        request = h11.Request(method="GET" if raw is None else "POST", target=path, headers=headers)
        async with self._connected(place) as stream:
            await stream.send_all(connection.send(request) or b"")
            if raw:
                await stream.send_all(connection.send(h11.Data(data=raw)) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
            status, reason, body = 0, "", bytearray()
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
                elif isinstance(event, h11.Response):
                    status, reason = event.status_code, event.reason.decode("utf-8", "replace")
                elif isinstance(event, h11.Data):
                    body += event.data
                    _bound(place, len(body))
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    return status, reason, bytes(body)

    @asynccontextmanager
    async def _connected(self, place: Place) -> AsyncIterator[Stream]:
        plain = await self._dial(place.host, place.port)
        stream: Stream = plain
        try:
            if place.tls:
                if self._tls is None:  # it reads the system's roots: some hundredths of a second
                    self._tls = await trio.to_thread.run_sync(ssl.create_default_context)
                stream = trio.SSLStream(plain, self._tls, server_hostname=place.host, https_compatible=True)
            yield stream
        finally:
            await trio.aclose_forcefully(stream)


def _bound(place: Place, size: int) -> None:
    if size > LARGEST_ANSWER:
        raise Unavailable(f"{place} says more than {LARGEST_ANSWER:,} bytes about a message")


async def _in_time(place: Place, limit: timedelta, ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer. Raises Unavailable with one line about it when none comes, or no good one."""
    try:
        with trio.fail_after(limit.total_seconds()):
            return await ask()
    except trio.TooSlowError:
        raise Unavailable(f"{place} has not answered within {limit.total_seconds():g} s") from None
    except h11.ProtocolError as error:
        raise Unavailable(f"{place} does not speak HTTP: {clean(str(error))}") from None
    except trio.BrokenResourceError as error:
        cause = f": {error.__cause__}" if isinstance(error.__cause__, ssl.SSLError) else ""
        raise Unavailable(f"{place} has broken the connection off{cause}") from None
    except OSError as error:
        raise Unavailable(f"{place} cannot be reached: {_why(error)}") from None


def _why(error: BaseException) -> str:
    """Return what the system says. Where several addresses were tried, of the first one."""
    within = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    number = error.errno if isinstance(error, OSError) else None
    if number is None and within is not None:
        return _why(within)
    return os.strerror(number) if number is not None and number > 0 else clean(str(error))
