"""The SMTP dialog with one client: aiosmtpd's class with its own way of reading, its limits and its replies.

What of aiosmtpd we keep: the protocol on a stream, session and envelope, RSET, NOOP, EXPN. What we replace, and
why (LIBRARIES §3 of the design notes has the measurements):

* the command loop: a timer a command and a task cancelled when the client hangs up, in mid-commit too. Here nobody
  cancels: a lost connection is seen by the next read, and what was received whole is stored first;
* DATA, a loop over lines: one bulk read (`data.py`);
* MAIL and RCPT: parameters (`addressing.py`), limits, replies with enhanced codes;
* AUTH: its exchange takes a hang-up for an empty password, and lets one act as somebody else;
* STARTTLS through the loop, at native speed; TLS at once is done by who accepts the connection.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway import events
from gateway.errors import Malformed, Unavailable
from gateway.model import NO_WISH, Wish
from gateway.outbound.acceptance import Draft
from gateway.outbound.addressing import Origin, read_mail, read_rcpt, same_mailbox
from gateway.outbound.credentials import decode_response, read_plain
from gateway.outbound.data import LONGEST_LINE, DataReader
from gateway.outbound.passwords import Login

COMMAND_SECONDS: Final = 300.0  # RFC 5321 §4.5.3.2.7; also what a client has to log in, all in all
DATA_SECONDS: Final = 300.0  # head start of a message; from then on it must come at _SLOWEST
_SLOWEST: Final = 4096  # octets a second on average: a poor phone line, and no more than 2.5 hours for 35 MB
CROWDED_SECONDS: Final = 30.0  # to log in, once half of all connections are taken
WITHOUT_MESSAGE_SECONDS: Final = 3600.0  # however much a client talks; a message that is on its way has its own clock
_CLOSING_SECONDS: Final = 10.0  # for a client to take its last reply
HANDSHAKE_SECONDS: Final = 30.0
_READ_BYTES: Final = 256 * 1024
_BUFFER_BYTES: Final = 64 * 1024
_COMMAND_OCTETS: Final = 2048  # RFC 5321 §4.5.3.1.4 asks for 512 and lets extensions add to it
_AUTH_OCTETS: Final = 16 * 1024  # RFC 4954 §4: 12,288 and more
_REPLY_OCTETS: Final = 500  # RFC 5321 §4.5.3.1.5: 512 with code and CRLF
MOST_RECIPIENTS: Final = 1000
_MOST_ERRORS: Final = 20  # 5yz replies in one connection
_MOST_FAILED_LOGINS: Final = 3
_MOST_IDLE_COMMANDS: Final = 100  # NOOP, RSET, VRFY … without a message in between
_MOST_IN_A_ROW: Final = 40  # commands of a pipeline, 20 µs each at worst, before the other connections have their turn
_MOST_RCPT: Final = 10 * MOST_RECIPIENTS  # commands of one message: those that are put off, and one address many times
# Octets of a message known to be too large that we read before we hang up: a client that listens only when it has sent
# everything would hear of a broken connection, and try again
_DRAINED: Final = 64 * 1024 * 1024

_STATUS: Final = re.compile(r"[245]\d\d[ -][245]\.\d{1,3}\.\d{1,3} ")
_STATUS_OF: Final = {  # for aiosmtpd's replies, which lack one: RFC 3463 by RFC 5321's code
    "250": "2.0.0",
    "252": "2.5.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "530": "5.7.0",
}
_BEFORE_TLS: Final = frozenset({"NOOP", "EHLO", "HELO", "STARTTLS", "QUIT", "RSET"})
_UTF8: Final = frozenset({"MAIL", "RCPT"})
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_IDLE: Final = frozenset({"NOOP", "EHLO", "HELO", "RSET", "VRFY", "EXPN", "HELP"})


def with_status(reply: str) -> str:
    """Return `reply` with an enhanced status code (RFC 2034), which greetings and 3yz never have."""
    code = reply[:3]
    if code not in _STATUS_OF or _STATUS.match(reply):
        return reply
    return f"{code} {_STATUS_OF[code]} {reply[4:]}"


class Listening(Protocol):
    """What a dialog needs of the server that it belongs to."""

    @property
    def hostname(self) -> str: ...
    @property
    def max_message_size(self) -> int: ...
    @property
    def is_closing(self) -> bool: ...
    @property
    def tls_context(self) -> ssl.SSLContext | None: ...
    async def log_in(self, login: bytes, password: bytes, address: str) -> Login | str: ...
    async def still_holds(self, login: Login) -> bool: ...
    async def accept(self, draft: Draft) -> str: ...
    def reserve(self, octets: int) -> bool: ...
    def release(self, octets: int) -> None: ...
    def came(self, dialog: Dialog) -> None: ...
    def left(self, dialog: Dialog) -> None: ...


class Wire(asyncio.StreamReader):
    """A stream reader that takes bytes back: what a client has sent behind the end of its message."""

    _buffer: bytearray  # of the base class, which offers no way to do any of these

    def unread(self, data: bytes) -> None:
        self._buffer[:0] = data

    def drop(self) -> None:
        self._buffer.clear()

    def use(self, transport: asyncio.BaseTransport) -> None:
        """Pause and resume this one from now on."""
        self._transport = transport

    @property
    def has_line(self) -> bool:
        return b"\n" in self._buffer


class Transaction(Envelope):
    """What MAIL and RCPT have said. `wishes`: by mailbox, in the order of `rcpt_tos`."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = Origin("")
        self.wishes: dict[str, Wish] = {}
        self.rcpt_commands = 0


class _Doing(Enum):
    WAITING = auto()  # for a command
    READING = auto()  # a message
    WORKING = auto()  # the client waits for us


class Dialog(SMTP):
    """One connection. `address`: the client's; `secure`: TLS is there already; `offers_tls`: by STARTTLS, and without
    it neither AUTH nor mail.
    """

    _reader: Wire
    envelope: Transaction
    session: Session
    transport: asyncio.Transport | None

    def __init__(
        self, server: Listening, loop: asyncio.AbstractEventLoop, address: str, *, secure: bool, offers_tls: bool
    ) -> None:
        # Not SMTP.__init__: for each connection it looks through all members of two objects for hooks, which was a
        # fifth of what a short connection costs. What follows is the part of it that the methods we keep rely on.
        asyncio.StreamReaderProtocol.__init__(
            self, Wire(limit=_BUFFER_BYTES, loop=loop), self._cb_client_connected, loop=loop
        )
        self.loop = loop
        self.hostname = server.hostname
        self.transport = None
        self._handler_coroutine: asyncio.Task[None] | None = None
        self._handle_hooks: dict[str, Any] = {}
        self._auth_required = True
        self.address = address
        self._server = server
        self._secure = secure
        self._offers_tls = offers_tls
        self._login: Login | None = None
        self._replies: list[bytes] = []
        self.is_connected = False  # stays True from then on
        self._is_finished = self._is_over = self._has_left = False
        self._errors = self._failed_logins = self._idle_commands = self._in_a_row = 0
        self._doing = _Doing.WORKING
        self._since = self._connected_at = self._message_at = loop.time()
        self._received = 0  # octets of the message being read
        self._reserved = 0  # of them, in the server's account of memory

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self._reset()
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = cast(asyncio.Transport, transport)
        self.is_connected = True
        self._server.came(self)
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def connection_lost(self, error: Exception | None) -> None:
        # aiosmtpd would cancel the task here, also while it waits for the commit of a message received whole
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self._leave_when_over()

    def eof_received(self) -> bool:
        # A client may send all it has, close its side and read the replies; over TLS that is not possible.
        self._reader.feed_eof()
        return not self._secure

    def check_time(self, now: float, *, is_crowded: bool = False) -> None:
        """Hang up when the client takes too long. `now` in the loop's time; called every few seconds."""
        if self.transport is None:
            return
        if self._is_finished:
            if now > self._since + _CLOSING_SECONDS:
                self.transport.abort()
        elif self._doing is _Doing.WAITING:
            begun = self._since if self._login else min(self._since, self._connected_at)
            seconds = CROWDED_SECONDS if is_crowded and not self._login else COMMAND_SECONDS
            if now > begun + seconds:
                self.hang_up("421 4.4.2 you have been silent for too long")
            elif now > self._message_at + WITHOUT_MESSAGE_SECONDS:
                self.hang_up("421 4.4.2 an hour has passed without a message")
        elif self._doing is _Doing.READING and now > self._since + DATA_SECONDS + self._received / _SLOWEST:
            self.hang_up("421 4.4.2 the message comes too slowly")

    def hang_up(self, reply: str) -> None:
        """Say `reply` and close. What is being worked on goes on to its end."""
        if self.transport is not None:
            self._since = self.loop.time()
            self._is_finished = True
            self.transport.write(b"".join(self._replies) + reply.encode("ascii", "replace") + b"\r\n")
            self._replies.clear()
            self.transport.close()

    def close_when_idle(self) -> None:
        """Say goodbye now to a client that we do not work for; to others after the command they wait for."""
        if self._doing is _Doing.WAITING:
            self.hang_up("421 4.3.2 the gateway is stopping")

    def abort(self) -> None:
        """Drop the connection and whatever is being done for it."""
        if self.transport is not None:
            self.transport.abort()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    async def _handle_client(self) -> None:
        try:
            await self.push(f"220 {self.hostname} ESMTP mail-gateway")
            while not self._is_finished and (line := await self._read_line()) is not None:
                self._doing = _Doing.WORKING
                await self._obey(line)
                if self._errors >= _MOST_ERRORS:
                    self.hang_up("421 4.7.0 too many errors")
                elif self._server.is_closing:
                    self.hang_up("421 4.3.2 the gateway is stopping")
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            self._is_over, self._is_finished, self._since = True, True, self.loop.time()
            if self.transport is not None:
                self.transport.close()
            self._leave_when_over()

    def _leave_when_over(self) -> None:
        if self._is_over and self.transport is None and not self._has_left:
            self._has_left = True
            self._server.left(self)

    # --- lines in, replies out ---------------------------------------------------------------------------------------

    async def _read_line(self) -> bytes | None:
        """Return one line with its end, or None when the client has closed or sends what is no line at all."""
        self._in_a_row += 1
        if self._in_a_row >= _MOST_IN_A_ROW:
            # Nothing else on the way to the next command gives way, and a client may send faster than we obey
            await self._flush()
            await asyncio.sleep(0)
        self._doing, self._since = _Doing.WAITING, self.loop.time()
        if not self._reader.has_line:
            await self._flush()
        if self._is_finished:  # we have hung up in the meantime: what comes now was not heard
            return None
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            self.hang_up("500 5.5.6 line too long")
            return None

    async def push(self, status: str | bytes) -> None:
        """Queue a reply. It leaves before we wait for the client again; replies to a pipeline leave together."""
        reply = with_status(status.decode("ascii", "replace") if isinstance(status, bytes) else status)
        if reply[0] == "5":
            self._errors += 1
        self._replies.append(reply[:_REPLY_OCTETS].encode("ascii", "replace") + b"\r\n")
        if not self._reader.has_line:
            await self._flush()

    async def _flush(self) -> None:
        self._in_a_row = 0
        if self._replies and not self._is_finished:
            if self.transport is None:  # uvloop raises RuntimeError for it, which would look like a bug of ours
                raise ConnectionResetError
            self._writer.write(b"".join(self._replies))
            self._replies.clear()
            # Who reads none of our replies is waited for like somebody who says nothing
            doing, self._doing, self._since = self._doing, _Doing.WAITING, self.loop.time()
            await self._writer.drain()
            self._doing = doing

    async def _obey(self, line: bytes) -> None:
        verb, _, argument = line[:-2].partition(b" ")
        command = verb.decode("ascii", "replace").upper()
        if not line.endswith(b"\r\n"):
            await self.push("500 5.5.2 a line must end with CR LF")
        elif len(line) > (_AUTH_OCTETS if command == "AUTH" else _COMMAND_OCTETS):
            await self.push("500 5.5.6 line too long")
        elif (method := _COMMANDS.get(command)) is None:
            await self.push("500 5.5.1 this command is not known here")
        elif _CONTROL.search(argument):
            await self.push("501 5.5.2 a command has no control characters")
        elif (text := _as_text(argument, command)) is None:
            await self.push("501 5.5.2 only MAIL and RCPT have letters beyond ASCII, and those in UTF-8")
        elif self._offers_tls and not self._secure and command not in _BEFORE_TLS:
            await self.push("530 5.7.0 issue STARTTLS first")
        else:
            if command in _IDLE:
                self._idle_commands += 1
                if self._idle_commands > _MOST_IDLE_COMMANDS:
                    self.hang_up("421 4.7.0 too many commands without a message")
                    return
            await self._run(command, method, text)

    async def _run(self, command: str, method: Any, argument: str) -> None:
        try:
            await method(self, argument)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            raise
        except Malformed as error:
            await self.push(error.reply)
        except Unavailable as error:
            events.fail("submission-unavailable", command=command, cause=str(error))
            await self.push("452 4.3.1 the gateway cannot take mail just now; nothing was kept, try again later")
        except Exception as error:
            # A bug of ours must not bounce anybody's mail: temporary, and nothing of the inside is shown
            events.bug("submission-bug", error, command=command)
            await self.push("451 4.3.0 something went wrong here; try again later")

    # --- commands ----------------------------------------------------------------------------------------------------

    async def smtp_HELO(self, hostname: str) -> None:
        if not hostname:
            await self.push("501 5.5.4 syntax: HELO hostname")
            return
        self._greeted(hostname, extended=False)
        await self.push(f"250 {self.hostname}"[:_REPLY_OCTETS])

    async def smtp_EHLO(self, hostname: str) -> None:
        if not hostname:
            await self.push("501 5.5.4 syntax: EHLO hostname")
            return
        self._greeted(hostname, extended=True)
        offers = [self.hostname, f"SIZE {self._server.max_message_size}", "8BITMIME", "PIPELINING"]
        if self._offers_tls and not self._secure:
            offers.append("STARTTLS")
        else:
            offers.append("AUTH PLAIN LOGIN")
        offers += ["ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"]
        lines = [f"250-{offer}\r\n" for offer in offers[:-1]] + [f"250 {offers[-1]}\r\n"]
        self._replies.append("".join(lines).encode())

    def _create_envelope(self) -> Transaction:
        return Transaction()

    def _reset(self) -> None:
        self.envelope = self._create_envelope()

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        self._reset()
        self.session.host_name = hostname
        self.session.extended_smtp = extended

    async def smtp_STARTTLS(self, argument: str) -> None:
        context = self._server.tls_context
        if argument:
            await self.push("501 5.5.4 syntax: STARTTLS")
        elif self._secure:
            await self.push("503 5.5.1 TLS is there already")
        elif not self._offers_tls or context is None:
            await self.push("502 5.5.1 TLS is not available here")
        else:
            self._reader.drop()  # what came in the clear does not count: RFC 3207 §4.2
            await self.push("220 2.0.0 go ahead")
            self._reader.drop()  # nor what came while the reply left; from here to the switch of protocols nobody waits
            await self._shake_hands(context)

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        plain = self.transport
        assert plain is not None
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            if transport is None:
                raise ConnectionResetError("the client has gone")
        except BaseException as error:
            # The connection belongs to the TLS layer by now, which does not tell us of an end while it shakes hands
            plain.abort()
            self.connection_lost(None)
            if not isinstance(error, (OSError, ssl.SSLError)):
                raise
            events.say("tls-handshake-failed", address=self.address, cause=str(error) or type(error).__name__)
            self._is_finished = True
            return
        # asyncio swaps the transport and leaves reader and writer to us
        self.transport = transport
        self._reader.use(transport)
        self._writer._transport = transport  # type: ignore[attr-defined]  # as StreamWriter.start_tls does it
        self._secure = True
        self.session = self._create_session()  # forget what was said before: RFC 3207 §4.2
        self.session.peer = transport.get_extra_info("peername")
        self._reset()

    async def smtp_AUTH(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        exchange = {"PLAIN": self._hear_plain, "LOGIN": self._hear_login}.get(mechanism.upper())
        if await self.check_helo_needed("EHLO"):
            return
        if self._login is not None:
            await self.push("503 5.5.1 you are logged in already")
        elif self.envelope.mail_from is not None:
            await self.push("503 5.5.1 not inside a mail transaction")
        elif exchange is None:
            await self.push("504 5.5.4 use AUTH PLAIN or AUTH LOGIN")
        else:
            await self._log_in(*await exchange(initial.strip()))

    async def _hear_plain(self, initial: str) -> tuple[bytes, bytes]:
        return read_plain(decode_response(initial) if initial else await self._ask_client(b""))

    async def _hear_login(self, initial: str) -> tuple[bytes, bytes]:
        login = decode_response(initial) if initial else await self._ask_client(b"Username:")
        return login, await self._ask_client(b"Password:")

    async def _ask_client(self, challenge: bytes) -> bytes:
        """Return what the client answers within AUTH. Raises Malformed when it is no answer, ConnectionResetError when
        none comes: a login that was cut off is not a wrong one.
        """
        await self.push(b"334 " + base64.b64encode(challenge))
        line = await self._read_line()
        self._doing = _Doing.WORKING
        if line is None:
            raise ConnectionResetError
        if len(line) > _AUTH_OCTETS:
            raise Malformed("too long", "500 5.5.6 line too long")
        return decode_response(line.strip().decode("ascii", "replace"))

    async def _log_in(self, login: bytes, password: bytes) -> None:
        found = await self._server.log_in(login, password, self.address)
        if isinstance(found, Login):
            self._login = found
            self.session.authenticated = True
            await self.push("235 2.7.0 welcome")
            return
        self._failed_logins += 1
        await self.push(found)
        if self._failed_logins >= _MOST_FAILED_LOGINS:
            self.hang_up("421 4.7.0 too many failed logins")

    async def smtp_MAIL(self, argument: str) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed("MAIL"):
            return
        if self.envelope.mail_from is not None:
            await self.push("503 5.5.1 one MAIL at a time")
            return
        assert self._login is not None
        if not await self._server.still_holds(self._login):
            self._login, self.session.authenticated = None, False
            await self.push("530 5.7.0 your login has changed; log in again")
            return
        origin = read_mail(argument)
        if origin.size is not None and origin.size > self._server.max_message_size:
            await self.push(self._too_large())
            return
        self.envelope.origin, self.envelope.mail_from = origin, origin.return_path
        await self.push("250 2.1.0 sender noted")

    async def smtp_RCPT(self, argument: str) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed("RCPT"):
            return
        envelope = self.envelope
        if envelope.mail_from is None:
            await self.push("503 5.5.1 MAIL comes first")
            return
        envelope.rcpt_commands += 1
        if envelope.rcpt_commands > _MOST_RCPT:
            self.hang_up("421 4.7.0 too many recipients")
            return
        address, wish = read_rcpt(argument, smtputf8=envelope.origin.smtputf8)
        mailbox = same_mailbox(address)
        if mailbox not in envelope.wishes:
            if len(envelope.wishes) >= MOST_RECIPIENTS:
                await self.push(f"452 4.5.3 no more than {MOST_RECIPIENTS} recipients in one message")
                return
            envelope.wishes[mailbox] = wish
            envelope.rcpt_tos.append(address)
        await self.push("250 2.1.5 recipient noted")

    async def smtp_DATA(self, argument: str) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        if argument:
            await self.push("501 5.5.4 syntax: DATA")
        elif self.envelope.mail_from is None:
            await self.push("503 5.5.1 MAIL comes first")
        elif not self.envelope.rcpt_tos:
            await self.push("554 5.5.1 no recipients")
        else:
            await self._take_message()

    async def _take_message(self) -> None:
        self._replies.append(b"354 end with <CR><LF>.<CR><LF>\r\n")
        await self._flush()
        data = DataReader(self._server.max_message_size)
        try:
            complaint = await self._read_message(data)
            self._doing = _Doing.WORKING
            assert self._login is not None
            if complaint:
                events.refused_submission(self._login.login, complaint)
                await self.push(complaint)
            else:
                self._idle_commands = 0
                reply = await self._server.accept(self._draft(self._login.login, data))
                if reply[0] == "2":
                    self._errors = 0  # twenty wrong addresses in a day's mail are nobody's attack
                await self.push(reply)
        finally:
            self._message_at = self.loop.time()
            self._server.release(self._reserved)
            self._reserved = 0
            self._reset()

    def _draft(self, login: str, data: DataReader) -> Draft:
        envelope = self.envelope
        wishes = tuple(envelope.wishes.values())
        return Draft(
            login,
            envelope.origin.return_path,
            tuple(envelope.rcpt_tos),
            data.message(),
            data.digest(),
            wishes if any(wish is not NO_WISH for wish in wishes) else (),
            envelope.origin.smtputf8,
            envelope.origin.envid,
            envelope.origin.ret,
        )

    async def _read_message(self, data: DataReader) -> str | None:
        """Read to the end of the message; return the reply to what is wrong with its bytes, or None."""
        self._doing, self._since, self._received = _Doing.READING, self.loop.time(), 0
        rest: bytes | None = None
        while rest is None:
            piece = await self._reader.read(_READ_BYTES)
            if not piece:
                raise ConnectionResetError  # nothing of half a message is kept
            self._received += len(piece)
            if not data.is_dropped:
                if self._server.reserve(len(piece)):
                    self._reserved += len(piece)
                else:
                    data.drop()
            rest = data.feed(piece)
            if data.is_oversize and data.size > self._server.max_message_size + _DRAINED:
                self.hang_up(self._too_large())
                raise ConnectionResetError
        self._reader.unread(rest)
        if data.is_oversize:
            return self._too_large()
        if data.is_dropped:
            return "452 4.3.1 too much mail comes in at this moment; try again later"
        if data.has_bare:
            return "550 5.6.11 the message has a CR or LF of its own; lines must end with CR LF"
        if data.has_nul:  # some server on the way may take it out, and what it kept apart becomes an end of data
            return "550 5.6.11 the message has a NUL octet (RFC 2045, 2.8)"
        if data.has_long_line:
            return f"550 5.6.0 the message has a line of more than {LONGEST_LINE} octets (RFC 5321, 4.5.3.1.6)"
        return None

    def _too_large(self) -> str:
        return f"552 5.3.4 the message is larger than {self._server.max_message_size} octets"

    async def smtp_VRFY(self, argument: str) -> None:
        # aiosmtpd would take the address apart with a parser that recurses over whatever is in it
        if not await self.check_auth_needed("VRFY"):
            await self.push("252 2.5.2 nobody is verified here; send the message, and hear")

    async def smtp_HELP(self, argument: str) -> None:
        await self.push("214 2.0.0 this is a mail submission server; see RFC 6409")

    async def smtp_QUIT(self, argument: str) -> None:
        self.hang_up("221 2.0.0 bye")


_COMMANDS: Final[dict[str, Any]] = {
    name.removeprefix("smtp_"): getattr(Dialog, name) for name in dir(Dialog) if name.startswith("smtp_")
}


def _as_text(argument: bytes, command: str) -> str | None:
    """Return what stands behind the command, or None when it is in letters that this command does not have."""
    if not argument.isascii() and command not in _UTF8:
        return None
    try:
        return argument.strip().decode()
    except UnicodeDecodeError:
        return None
