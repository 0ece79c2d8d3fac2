"""A mail provider in memory, for the demo and for tests: IMAP by pymap, SMTP by aiosmtpd, one mailbox per account.

It behaves as a small honest provider does. Mail is submitted with a login and from an own address only; recipients
here have a mailbox, others are refused with `550 5.1.1`; new mail is announced to whoever idles. Both services can go
away without a word and come back on the same port, with UIDs and UIDVALIDITY as before: an outage, made to order.

No TLS, so it listens on loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import threading
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, Self, TypeVar, cast
from uuid import uuid4

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from proxyprotocol.result import ProxyResultUnknown
from proxyprotocol.sock import SocketInfo
from pymap.backend.dict import Config, Login
from pymap.backend.dict.filter import FilterSet
from pymap.backend.dict.mailbox import MailboxData, MailboxSet
from pymap.concurrent import Event, Subsystem
from pymap.imap import IMAPServer
from pymap.parsing.message import AppendMessage
from pymap.parsing.specials import FetchRequirement, ObjectId
from pymap.selected import SelectedMailbox
from pymap.user import UserMetadata
from pysasl.hashing import Cleartext

T = TypeVar("T")

HOST: Final = "127.0.0.1"
HOSTNAME: Final = "provider.demo.example"
LARGEST: Final = 50_000_000  # bytes; said in the EHLO reply
INBOX: Final = "INBOX"
FOLDERS: Final = ("Sent", "Junk")  # beside the inbox


@dataclass(frozen=True, slots=True)
class Account:
    """A mailbox and who may open it. The login is the address."""

    address: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the SMTP service has answered with 250. `raw`: bytes as the client sent them, CRLF."""

    at: datetime
    login: str
    return_path: str  # "" is the null return path
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in a mailbox. `raw`: as a client would fetch it, the provider's trace fields included."""

    uid: int
    internal_at: datetime
    raw: bytes = field(repr=False)


class Provider:
    """Both services and their mailboxes. Belongs to one asyncio loop; `ProviderThread` is for everybody else."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self.accounts: Final = tuple(accounts)
        self.received: list[Received] = []
        self.on_received: Callable[[Received], None] | None = None
        self._by_address: dict[str, Account] = {}
        for account in self.accounts:
            for address in (account.address, *account.aliases):
                self._by_address[address.lower()] = account
        self._mailboxes = {account.address: _MailboxSet() for account in self.accounts}
        self._imap = _ImapService(self.accounts, self._mailboxes)
        self._smtp = _SmtpService(self)

    @classmethod
    @asynccontextmanager
    async def open(cls, accounts: Iterable[Account], imap_port: int = 0, smtp_port: int = 0) -> AsyncIterator[Self]:
        """Run a provider on the current loop. Port 0 takes a free one and keeps it over outages."""
        provider = cls(accounts)
        for mailboxes in provider._mailboxes.values():
            for name in FOLDERS:
                await mailboxes.add_mailbox(name)
        await provider._imap.start(imap_port)
        await provider._smtp.start(smtp_port)
        try:
            yield provider
        finally:
            await provider._smtp.stop()
            await provider._imap.stop()

    @property
    def imap_port(self) -> int:
        return self._imap.port

    @property
    def smtp_port(self) -> int:
        return self._smtp.port

    def account(self, address: str) -> Account | None:
        """Return whose address this is, aliases included, or None."""
        return self._by_address.get(address.lower())

    async def deliver(self, address: str, raw: bytes, folder: str = INBOX, internal_at: datetime | None = None) -> int:
        """Put `raw` into a mailbox as it stands, as mail from outside would be; return its UID. Idlers are told."""
        account = self._by_address[address.lower()]
        mailbox = await self._mailboxes[account.address].get_mailbox(folder)
        message = await mailbox.append(AppendMessage(raw, internal_at or datetime.now(UTC), frozenset()), recent=True)
        return message.uid

    async def mailbox(self, address: str, folder: str = INBOX) -> list[Stored]:
        """Return what lies in a mailbox, oldest first."""
        account = self._by_address[address.lower()]
        mailbox = await self._mailboxes[account.address].get_mailbox(folder)
        stored = []
        async for message in mailbox.messages():
            loaded = await message.load_content(FetchRequirement.CONTENT)
            stored.append(Stored(message.uid, message.internal_date, bytes(loaded.get_body())))
        return stored

    async def stop_imap(self) -> None:
        """Begin an outage: sessions are cut without a BYE, connecting is refused."""
        await self._imap.stop()

    async def start_imap(self) -> None:
        await self._imap.start(self._imap.port)

    async def stop_smtp(self) -> None:
        """Begin an outage: sessions are cut where they are, connecting is refused."""
        await self._smtp.stop()

    async def start_smtp(self) -> None:
        await self._smtp.start(self._smtp.port)


# --- IMAP ------------------------------------------------------------------------------------------------------------


class _Mailbox(MailboxData):
    """pymap's mailbox in memory, without its gap: what arrives between two waits of an idling client woke nobody."""

    async def update_selected(self, selected: SelectedMailbox, *, wait_on: Event | None = None) -> SelectedMailbox:
        if wait_on is not None:
            seen = selected.mod_sequence
            if wait_on.is_set() or (seen is not None and seen < self._mod_sequences.highest):
                wait_on = None
        return await super().update_selected(selected, wait_on=wait_on)


class _MailboxSet(MailboxSet):
    def __init__(self) -> None:
        super().__init__()
        self._inbox = _Mailbox(self._content_cache, self._thread_cache)

    async def add_mailbox(self, name: str) -> ObjectId:
        await super().add_mailbox(name)
        self._set[name] = mailbox = _Mailbox(self._content_cache, self._thread_cache)
        return mailbox.mailbox_id


class _ImapConfig(Config):
    @property
    def greeting(self) -> bytes:
        return b"Ready " + HOSTNAME.encode()  # pymap's own asks the name server who we are


class _ImapService:
    def __init__(self, accounts: Iterable[Account], mailboxes: dict[str, _MailboxSet]) -> None:
        config = _ImapConfig(
            Namespace(passlib_cfg=None, proxy_protocol=None),
            host=HOST,
            port=0,
            demo_data=False,
            demo_user="",
            demo_password="",
            tls_enabled=False,
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),  # never used; given, so that pymap makes none
            hash_context=Cleartext(),
            cpu_subsystem=Subsystem.for_asyncio(),
            invalid_user_sleep=0,
        )
        login = Login(config)
        for account in accounts:
            login.users_dict[account.address] = UserMetadata(config, account.address, password=account.password)
            config.set_cache[account.address] = (mailboxes[account.address], FilterSet())
        self._serve = IMAPServer(login, config)
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    async def start(self, port: int) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._session, HOST, port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._sessions.values():
            writer.transport.abort()
        # A session that meets the end of its stream ends itself and what it started; one cancelled in the middle of
        # IDLE would leave the task behind that waits for news.
        if self._sessions:
            _, rest = await asyncio.wait(self._sessions, timeout=2)
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=2)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = writer
        try:
            where = SocketInfo.get(writer, ProxyResultUnknown(), unique_id=uuid4().bytes)
            with contextlib.suppress(OSError, EOFError):  # the client is gone
                await self._serve(reader, writer, where)
        finally:
            del self._sessions[task]
            writer.transport.abort()  # whoever is still being told something has gone


# --- SMTP ------------------------------------------------------------------------------------------------------------


class _SmtpSession(SMTP):
    def __init__(self, service: _SmtpService) -> None:
        self._service = service
        super().__init__(
            service,
            hostname=HOSTNAME,
            ident="ESMTP",
            loop=asyncio.get_running_loop(),
            data_size_limit=LARGEST,
            auth_require_tls=False,  # loopback
            authenticator=service.authenticate,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._service.transports.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._service.leave(self.transport)
        super().connection_lost(error)


class _SmtpService:
    """aiosmtpd's handler, and the listener with its sessions."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._server: asyncio.Server | None = None
        self.transports: set[asyncio.Transport] = set()
        self._all_left = asyncio.Event()
        self.port = 0

    async def start(self, port: int) -> None:
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _SmtpSession(self), HOST, port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in set(self.transports):
            transport.abort()
        if self.transports:
            self._all_left.clear()
            await self._all_left.wait()

    def leave(self, transport: asyncio.BaseTransport | None) -> None:
        self.transports = {other for other in self.transports if other is not transport}
        if not self.transports:
            self._all_left.set()

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, credentials: object
    ) -> AuthResult:
        if isinstance(credentials, LoginPassword):
            login = credentials.login.decode("utf-8", "replace")
            account = self._provider.account(login)
            if account and secrets.compare_digest(account.password.encode(), credentials.password):
                return AuthResult(success=True, auth_data=account.address)
        return AuthResult(success=False, handled=False)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not session.authenticated:
            return "530 5.7.0 Authentication required"
        owner = self._provider.account(address)
        if address != "<>" and (owner is None or owner.address != session.auth_data):
            return f"553 5.7.1 <{address}>: Sender address rejected: not owned by user {session.auth_data}"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._provider.account(address) is None:
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        raw = envelope.content
        assert isinstance(raw, bytes)
        now = datetime.now(UTC)
        return_path = "" if envelope.mail_from == "<>" else cast(str, envelope.mail_from)
        message = Received(now, cast(str, session.auth_data), return_path, tuple(envelope.rcpt_tos), raw)
        number = len(self._provider.received) + 1
        for address in message.recipients:
            trace = (
                f"Return-Path: <{message.return_path}>\r\n"
                f"Received: from {session.host_name} by {HOSTNAME} with ESMTPA id {number}\r\n"
                f"\tfor <{address}>; {format_datetime(now)}\r\n"
            )
            await self._provider.deliver(address, trace.encode() + raw)
        self._provider.received.append(message)
        if self._provider.on_received is not None:
            self._provider.on_received(message)
        return f"250 2.0.0 Ok: queued as {number}"

    async def handle_exception(self, error: Exception) -> str:
        return f"451 4.3.0 {type(error).__name__}"


# --- for those without a loop ----------------------------------------------------------------------------------------


class ProviderThread:
    """A provider on a loop and thread of its own, with the same verbs as plain calls. Use it in a `with` block."""

    def __init__(self, accounts: Iterable[Account], imap_port: int = 0, smtp_port: int = 0) -> None:
        self._arguments = (tuple(accounts), imap_port, smtp_port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="provider", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._provider: Provider
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with Provider.open(*self._arguments) as self._provider:
                self._ready.set()
                await self._stop.wait()
        except BaseException as error:
            self._failure = error
            self._ready.set()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def accounts(self) -> tuple[Account, ...]:
        return self._provider.accounts

    @property
    def imap_port(self) -> int:
        return self._provider.imap_port

    @property
    def smtp_port(self) -> int:
        return self._provider.smtp_port

    @property
    def received(self) -> list[Received]:
        return list(self._provider.received)

    def deliver(self, address: str, raw: bytes, folder: str = INBOX, internal_at: datetime | None = None) -> int:
        return self._do(self._provider.deliver(address, raw, folder, internal_at))

    def mailbox(self, address: str, folder: str = INBOX) -> list[Stored]:
        return self._do(self._provider.mailbox(address, folder))

    def stop_imap(self) -> None:
        self._do(self._provider.stop_imap())

    def start_imap(self) -> None:
        self._do(self._provider.start_imap())

    def stop_smtp(self) -> None:
        self._do(self._provider.stop_smtp())

    def start_smtp(self) -> None:
        self._do(self._provider.start_smtp())
