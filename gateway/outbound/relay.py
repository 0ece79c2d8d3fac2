"""One SMTP connection to a touchpoint's provider, and one mail transaction on it.

`connect` dials, verifies TLS and logs in; `Link.transact` plays one message and returns what happened, phase by
phase, for `outcome.decide` to read. Nothing here decides what a reply means for the mail.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import aiosmtplib

from gateway.config.values import Server
from gateway.connections.reach import dial, explain, is_about_certificate, root_cause
from gateway.model import Notify, Phase, Reply, Wish
from gateway.outbound.outcome import Cause, Transcript, Trouble, decide_greeting, decide_login
from gateway.outbound.wire import LinkLost, Wire, as_transport, read_reply
from gateway.state import offers
from gateway.state.lifecycle import LaneEvent

_SLICE: Final = 128 * 1024  # bytes of content between two looks at how much the server has read
# What cannot end an address on a command line, let alone begin another command; a local part may be quoted.
_SAFE_ADDRESS: Final = re.compile(
    r'(?:[^\x00-\x20\x7f<>"]+|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*")(?:@[^\x00-\x20\x7f<>"]+)?'
)

# RFC 3461 §4: xtext is visible ASCII without "+" and "=", but for +HH. Anything else cannot stand in a command.
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2}){1,100}")
_ORCPT: Final = re.compile(r"[A-Za-z0-9-]{1,32};(?:[!-*,-<>-~]|\+[0-9A-F]{2}){1,500}")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. RFC 5321 §4.5.3.2 where it speaks; `dial` (one address) and `tls` are ours."""

    dial: float = 30
    tls: float = 60
    greeting: float = 300
    command: float = 300
    data: float = 120
    block: float = 180
    dot: float = 600


@dataclass(frozen=True, slots=True)
class Login:
    """`password` is shown nowhere."""

    name: str
    password: str = field(repr=False)


class NoLink(Exception):
    """There is no connection; `trouble` says why, and what it means for the lane."""

    def __init__(self, trouble: Trouble, phase: Phase, reply: Reply | None = None) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble
        self.phase = phase
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server's EHLO said. `size`: bytes of the largest message, None when it did not say.

    `recipients` and `domains` of one transaction, `mails` of one connection (RFC 9422): None when it did not say.
    """

    pipelining: bool
    eight_bit: bool
    smtputf8: bool
    size: int | None
    dsn: bool = False
    recipients: int | None = None
    mails: int | None = None
    domains: int | None = None

    @property
    def lasting(self) -> offers.Offer:
        """The part that the door wants to know beforehand."""
        return offers.Offer(self.size, self.eight_bit, self.smtputf8, self.dsn)


@dataclass(frozen=True, slots=True)
class Letter:
    """What one transaction sends. `head` (our trace field) goes before the stored bytes.

    `content`: the stored bytes when they are in memory; else `read_chunk(number)` gives them one by one, None behind
    the last. `size`: of the stored bytes. The stored bytes are CRLF throughout; the door saw to it.

    `wishes` (one a recipient, or none), `envid`, `ret`: passed on where the server offers DSN (RFC 3461).
    """

    return_path: str
    recipients: tuple[str, ...]
    eight_bit: bool
    smtputf8: bool
    head: bytes
    size: int
    content: bytes | None = field(repr=False)
    read_chunk: Callable[[int], Awaitable[bytes | None]] = field(repr=False)
    wishes: tuple[Wish, ...] = ()
    envid: str = ""
    ret: str = ""


async def connect(
    server: Server,
    *,
    hostname: str,
    login: Login | None,
    tls: ssl.SSLContext | None,
    timeouts: Timeouts,
    source_address: str = "",
    table: str = "general",
) -> Link:
    """Return a connection that is ready for MAIL. `tls` is None only for `smtp+insecure`; `table`: of `refusals`.

    Raises NoLink.
    """
    try:
        peer = await dial(server, seconds=timeouts.dial, source_address=source_address)
    except (OSError, TimeoutError) as error:
        raise _unreachable(server, error) from None
    client = aiosmtplib.SMTP(
        hostname=server.host,
        sock=peer,
        local_hostname=hostname,
        use_tls=server.scheme == "smtps",
        start_tls=False,
        tls_context=tls,
        timeout=timeouts.greeting,
    )
    try:
        await client.connect()
        await _introduce(client, timeouts)
        if server.scheme == "smtp":
            await _start_tls(server, client, tls, timeouts)
        if login is not None:
            await _log_in(client, login, timeouts, table)
        transport = client.transport
        if transport is None:
            raise LinkLost("the server closed the connection")
        return Link(
            Wire.take_over(as_transport(transport), asyncio.get_running_loop()), _offer(client), server, timeouts
        )
    except NoLink:
        client.close()
        raise
    except aiosmtplib.SMTPResponseException as error:
        client.close()
        reply = _reply(error.code, error.message)
        raise NoLink(decide_greeting(reply, table), Phase.CONNECT, reply) from None
    except (aiosmtplib.SMTPException, OSError, TimeoutError, LinkLost) as error:
        client.close()
        raise _unreachable(server, root_cause(error)) from None
    except BaseException:
        client.close()
        peer.close()
        raise


async def _introduce(client: aiosmtplib.SMTP, timeouts: Timeouts) -> None:
    try:
        await client.ehlo(timeout=timeouts.command)
    except aiosmtplib.SMTPHeloError as error:
        if error.code // 100 != 5 or not client.is_connected:
            raise
        await client.helo(timeout=timeouts.command)  # a server from before 1995; then there is no TLS and no login


async def _start_tls(server: Server, client: aiosmtplib.SMTP, tls: ssl.SSLContext | None, timeouts: Timeouts) -> None:
    if not client.supports_extension("starttls"):
        detail = (
            f"{server} offers no STARTTLS, and nothing is sent in the clear; check the port (smtps has TLS at once)"
        )
        raise NoLink(Trouble(LaneEvent.HOLD, Cause.CERTIFICATE, detail), Phase.CONNECT)
    await client.starttls(tls_context=tls, timeout=timeouts.tls)
    await client.ehlo(timeout=timeouts.command)


async def _log_in(client: aiosmtplib.SMTP, login: Login, timeouts: Timeouts, table: str) -> None:
    """One mechanism, one try: trying them all would count as several wrong passwords against the account."""
    offered = client.server_auth_methods
    try:
        if "plain" in offered:
            await client.auth_plain(login.name, login.password, timeout=timeouts.command)
        elif "login" in offered:
            await client.auth_login(login.name, login.password, timeout=timeouts.command)
        elif "cram-md5" in offered:
            await client.auth_crammd5(login.name, login.password, timeout=timeouts.command)
        elif offered:
            detail = f"the server takes no password, only {', '.join(offered)}"
            raise NoLink(Trouble(LaneEvent.HOLD, Cause.LOGIN, detail), Phase.LOGIN)
        # A server that offers no login at all may know us by our address. If it does not, it says so at MAIL.
    except aiosmtplib.SMTPResponseException as error:
        reply = _reply(error.code, error.message)
        raise NoLink(decide_login(reply, table), Phase.LOGIN, reply) from None
    except ValueError as error:  # a control character in login or password
        raise NoLink(Trouble(LaneEvent.HOLD, Cause.LOGIN, f"the login cannot be sent: {error}"), Phase.LOGIN) from None


def _unreachable(server: Server, error: BaseException) -> NoLink:
    if is_about_certificate(error):
        return NoLink(Trouble(LaneEvent.HOLD, Cause.CERTIFICATE, explain(server, error)), Phase.CONNECT)
    return NoLink(Trouble(LaneEvent.PAUSE, Cause.UNREACHABLE, explain(server, error)), Phase.CONNECT)


def _reply(code: int, text: str) -> Reply:
    lines = [f"{code} {line}".encode() for line in text.split("\n")]
    return read_reply(lines) or Reply(code, "", text)


def _offer(client: aiosmtplib.SMTP) -> Offer:
    size = client.esmtp_extensions.get("size", "").strip()
    words = client.esmtp_extensions.get("limits", "").upper().split()
    limits = {name: value for name, _, value in (word.partition("=") for word in words)}
    return Offer(
        client.supports_extension("pipelining"),
        client.supports_extension("8bitmime"),
        client.supports_extension("smtputf8"),
        _number(size),  # 0: no limit (RFC 1870 §4)
        client.supports_extension("dsn"),
        _number(limits.get("RCPTMAX", "")),
        _number(limits.get("MAILMAX", "")),
        _number(limits.get("RCPTDOMAINMAX", "")),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0 else None


# --- one transaction -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Notes:
    rcpt: list[Reply | None]
    mail: Reply | None = None
    data: Reply | None = None
    dot: Reply | None = None
    lost: str | None = None
    dotted: bool = False


class Link:
    """A connection that is logged in. One transaction at a time. `completed`: transactions that ended in step."""

    def __init__(self, wire: Wire, offer: Offer, server: Server, timeouts: Timeouts) -> None:
        self.wire = wire
        self.offer = offer
        self.server = server
        self.completed = 0
        self._timeouts = timeouts
        self._must_reset = False  # the server still has an envelope of ours
        self._notes = _Notes([])

    @property
    def is_alive(self) -> bool:
        return self.wire.is_alive

    def refusal(self, letter: Letter) -> Reply | None:
        """Return why this server can never take the letter, by what its EHLO said; None when it can."""
        total = len(letter.head) + letter.size
        host = self.server.host
        if self.offer.size is not None and total > self.offer.size:
            text = f"the message has {total} bytes, {host} takes {self.offer.size}"
            return Reply(552, "5.3.4", text)
        if letter.eight_bit and not self.offer.eight_bit:
            return Reply(554, "5.6.3", f"the message has 8-bit text, {host} takes none (8BITMIME)")
        if letter.smtputf8 and not self.offer.smtputf8:
            return Reply(553, "5.6.7", f"an address is beyond ASCII, {host} takes none such (SMTPUTF8)")
        return None

    async def transact(
        self, letter: Letter, begin: Callable[[Sequence[int]], Awaitable[bool]] | None
    ) -> Transcript | None:
        """Play one message; return what happened, whatever it was. Never raises for the server's doings.

        `begin` commits `sending` for the recipients (by index) that the server took, and is awaited before DATA is
        sent; None means that it is committed already. It answers whether they are ours; if not, nothing is sent and
        None comes back. Cancelled, the link is of no more use; `written_so_far` has what was known.
        """
        notes = self._notes = _Notes([None] * len(letter.recipients))
        try:
            if not await self._play(letter, begin, notes):
                return None
        except LinkLost as lost:
            notes.lost = str(lost)
        except BaseException:
            self.wire.abort("abandoned in the middle of a transaction")
            raise
        transcript = self._transcript(notes)
        if notes.lost is None:
            self.completed += 1
        return transcript

    def written_so_far(self, reason: str) -> Transcript:
        """Return what is known of a transaction that ended without an end: the link is lost for `reason`."""
        if self._notes.dot is None:
            self._notes.lost = reason
        return self._transcript(self._notes)

    def _transcript(self, notes: _Notes) -> Transcript:
        return Transcript(
            tuple(notes.rcpt),
            notes.mail,
            notes.data,
            notes.dot,
            notes.lost,
            notes.dotted,
            self.completed > 0,
            self.wire.farewell,
        )

    async def _play(
        self, letter: Letter, begin: Callable[[Sequence[int]], Awaitable[bool]] | None, notes: _Notes
    ) -> bool:
        wire, timeouts = self.wire, self._timeouts
        data_goes_along = begin is None and self.offer.pipelining
        if self.offer.pipelining:
            await self._envelope_at_once(letter, notes, data_goes_along)
        else:
            await self._envelope_one_by_one(letter, notes)
        assert notes.mail is not None
        self._must_reset = is_open = notes.mail.code // 100 == 2
        taken = [index for index, reply in enumerate(notes.rcpt) if reply is not None and reply.code // 100 == 2]
        if not is_open or not taken:
            if data_goes_along:
                await self._take_back_data(notes, is_open)
            return True
        if begin is not None and not await begin(taken):
            return False
        if not data_goes_along:
            wire.ask(b"DATA\r\n", 1)
            notes.data = await wire.reply(timeouts.data)
        if notes.data is None or notes.data.code != 354:
            return True
        await self._content(letter, notes)
        notes.dot = await wire.reply(timeouts.dot)
        self._must_reset = notes.dot.code // 100 != 2
        return True

    async def _envelope_at_once(self, letter: Letter, notes: _Notes, data_goes_along: bool) -> None:
        """RFC 2920: all of the envelope in one write, DATA as its last command; then every answer is looked at."""
        wire, seconds = self.wire, self._timeouts.command
        commands = [b"RSET\r\n"] if self._must_reset else []
        commands += [self._mail(letter), *(self._rcpt(letter, index) for index in range(len(letter.recipients)))]
        if data_goes_along:
            commands.append(b"DATA\r\n")
        wire.ask(b"".join(commands), len(commands))
        if self._must_reset:
            await self._expect_reset()
        notes.mail = await wire.reply(seconds)
        for index in range(len(letter.recipients)):
            reply = await wire.reply(seconds)
            if notes.mail.code // 100 == 2:  # otherwise it is "503 need MAIL first", which is about nobody
                notes.rcpt[index] = reply
        if data_goes_along:
            notes.data = await wire.reply(self._timeouts.data)

    async def _envelope_one_by_one(self, letter: Letter, notes: _Notes) -> None:
        wire, seconds = self.wire, self._timeouts.command
        if self._must_reset:
            wire.ask(b"RSET\r\n", 1)
            await self._expect_reset()
        wire.ask(self._mail(letter), 1)
        notes.mail = await wire.reply(seconds)
        if notes.mail.code // 100 != 2:
            return
        for index in range(len(letter.recipients)):
            wire.ask(self._rcpt(letter, index), 1)
            notes.rcpt[index] = reply = await wire.reply(seconds)
            if reply.code == 421:
                raise LinkLost(f"the server ends the session: {reply}")

    async def _expect_reset(self) -> None:
        reply = await self.wire.reply(self._timeouts.command)
        if reply.code // 100 != 2:
            raise LinkLost(f"the server did not reset: {reply}")
        self._must_reset = False

    async def _take_back_data(self, notes: _Notes, is_open: bool) -> None:
        """DATA went along and nobody is to get it. A server that said 354 all the same gets an empty message for
        nobody (RFC 2920 §3.1); one that had no MAIL either is out of step."""
        if notes.data is None or notes.data.code != 354:
            return
        if not is_open:
            raise LinkLost("the server wants content without an envelope")
        notes.data = None
        self.wire.ask(b".\r\n", 1)
        await self.wire.reply(self._timeouts.dot)

    async def _content(self, letter: Letter, notes: _Notes) -> None:
        """Send the content and the final dot. Until the last write the dot is certainly not with the server."""
        wire = self.wire
        wire.ask(b"", 1)  # a server may say no in the middle of it, and then close
        try:
            await self._write_content(letter, notes)
        except LinkLost:
            if notes.dotted or not wire.has_reply:
                raise
        if wire.has_reply and not notes.dotted:
            early = await wire.reply(0)
            if early.code // 100 in (4, 5):
                notes.dot = early
            raise LinkLost(f"the server ended the message early: {early}")

    async def _write_content(self, letter: Letter, notes: _Notes) -> None:
        wire = self.wire
        if letter.content is not None and letter.size <= _SLICE:
            last = letter.head + stuff(letter.content, at_line_start=True)
            ending = b".\r\n" if last.endswith(b"\r\n") else b"\r\n.\r\n"
            sent = len(letter.content)
        else:
            wire.send(letter.head)
            tail = b"\r\n"  # the last two bytes before the dots
            sent = 0
            async for piece in _pieces(letter):
                sent += len(piece)
                stuffed = memoryview(stuff(piece, at_line_start=tail.endswith(b"\n")))
                for start in range(0, len(stuffed), _SLICE):
                    wire.send(stuffed[start : start + _SLICE])
                    await wire.drained(self._timeouts.block)
                    if wire.has_reply:
                        return
                tail = (tail + piece[-2:])[-2:]
            last = b""
            ending = b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"
        if sent != letter.size:  # never half a message, and never an empty one
            raise RuntimeError(f"the store gave {sent} bytes of a message of {letter.size}")
        wire.check()
        notes.dotted = True  # from here on a lost link means that they may have it
        wire.send(last + ending)

    def _mail(self, letter: Letter) -> bytes:
        options = f" SIZE={len(letter.head) + letter.size}" if self.offer.size is not None else ""
        if letter.eight_bit:
            options += " BODY=8BITMIME"
        if letter.smtputf8:
            options += " SMTPUTF8"
        if self.offer.dsn:
            if letter.ret in ("full", "hdrs"):
                options += f" RET={letter.ret.upper()}"
            if _XTEXT.fullmatch(letter.envid):
                options += f" ENVID={letter.envid}"
        return f"MAIL FROM:{_path(letter.return_path)}{options}\r\n".encode()

    def _rcpt(self, letter: Letter, index: int) -> bytes:
        options = ""
        if self.offer.dsn and letter.wishes:
            wish = letter.wishes[index]
            if wish.notify is not None:
                options += f" NOTIFY={_notify(wish.notify)}"
            if _ORCPT.fullmatch(wish.orcpt):
                options += f" ORCPT={wish.orcpt}"
        return f"RCPT TO:{_path(letter.recipients[index])}{options}\r\n".encode()

    def close(self) -> None:
        """End the session politely when it is in step, at once when it is not."""
        with suppress(LinkLost):
            self.wire.leave()


def _notify(notify: Notify) -> str:
    return ",".join(flag.name for flag in Notify if flag in notify and flag.name) or "NEVER"


def _path(address: str) -> str:
    """Return `<address>`; the null path is `<>`. Raises ValueError for what would end the command or begin another."""
    if address and not _SAFE_ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} cannot stand in a command")
    return f"<{address}>"


def is_sendable(address: str, smtputf8: bool) -> bool:
    """Return whether a recipient's address can stand in a command."""
    return bool(address) and _SAFE_ADDRESS.fullmatch(address) is not None and (smtputf8 or address.isascii())


async def _pieces(letter: Letter) -> AsyncIterator[bytes]:
    if letter.content is not None:
        yield letter.content
        return
    number = 0
    while (piece := await letter.read_chunk(number)) is not None:
        yield piece
        number += 1


def stuff(content: bytes, *, at_line_start: bool) -> bytes:
    """Return `content` with a dot before each line that begins with one (RFC 5321 §4.5.2)."""
    if b"\n." in content:
        content = content.replace(b"\n.", b"\n..")
    return b"." + content if at_line_start and content.startswith(b".") else content
