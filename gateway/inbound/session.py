"""The typed IMAP session: what the mailbox task needs of a provider, and nothing of how IMAP says it.

Runs in the asyncio thread; one caller at a time. Reading never changes anything over there: EXAMINE, UIDs only,
BODY.PEEK[], and neither CLOSE nor EXPUNGE. Every error is mapped here, once: LoginRefused says that the provider
does not want this login, Unavailable everything else, each in one line with cause and remedy and without a secret.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from gateway.config import Server
from gateway.errors import Unavailable
from gateway.inbound import fetch
from gateway.inbound.fetch import Fetched, Headed, Listed
from gateway.inbound.framing import Response
from gateway.inbound.identity import FIELDS
from gateway.inbound.protocol import Answer, Take, Wire
from gateway.text import clean

T = TypeVar("T")

CONNECT_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 60.0
LOGOUT_SECONDS: Final = 5.0

# Slower than this a provider does not send on purpose; it bounds a server that drips bytes to keep us busy
_SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024

# RFC 5530 and what providers write into a NO at login that has nothing to do with the password
_LOGIN_LATER: Final = frozenset((b"UNAVAILABLE", b"INUSE", b"LIMIT", b"SERVERBUG", b"OVERQUOTA", b"THROTTLED"))
_LOGIN_LATER_TEXTS: Final = ("too many", "try again", "temporar", "rate limit", "not connected", "unavailable")

_VERSION: Final = metadata.version("mail-gateway")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class LoginRefused(Unavailable):
    """The provider answered, and does not let this login in."""


class NoFolder(Unavailable):
    """The provider does not open a folder; the session goes on."""


class NotGiven(Unavailable):
    """The provider answered NO or BAD to a FETCH; the session goes on."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A folder as it was when selected. `uidnext`: None where the server does not say."""

    uidvalidity: int
    uidnext: int | None
    exists: int


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies name and chain: by `ca_file` alone, else the system's roots (SSL_CERT_FILE).

    Takes some milliseconds and memory: make one for each `ca_file` and share it. Raises Unavailable.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"ca_file {ca_file} cannot be used: {error}; it must hold certificates in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def connect(
    server: Server,
    tls: ssl.SSLContext | None,
    login: str,
    password: str,
    *,
    literal_bytes: int,
    connect_seconds: float = CONNECT_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> Session:
    """Open a connection, secure it as the scheme says, log in; return the session. Raises LoginRefused, Unavailable.

    `tls` is needed for imaps and imap. `literal_bytes`: the largest message that this session may ever fetch.
    """
    loop = asyncio.get_running_loop()
    wire = Wire(loop, literal_bytes)
    session = Session(wire, server, answer_seconds)
    try:
        await _open(loop, wire, server, tls, connect_seconds)
        await session._greet(connect_seconds)
        if server.scheme == "imap":
            assert tls is not None, "imap needs a TLS context for STARTTLS"
            await session._start_tls(loop, tls, connect_seconds)
        await session._log_in(login, password)
    except BaseException:
        await session.close()
        raise
    return session


async def _open(
    loop: asyncio.AbstractEventLoop, wire: Wire, server: Server, tls: ssl.SSLContext | None, seconds: float
) -> None:
    secure: dict[str, Any] = {}
    if server.scheme == "imaps":
        assert tls is not None, "imaps needs a TLS context"
        secure = {"ssl": tls, "server_hostname": server.host, "ssl_handshake_timeout": seconds}
    with _explained(server):
        async with asyncio.timeout(seconds):
            transport, _ = await loop.create_connection(lambda: wire, server.host, server.port, **secure)
    _keep_alive(transport.get_extra_info("socket"))


def _keep_alive(sock: Any) -> None:
    """Let the kernel find out about a dead link: an idle connection behind a NAT dies without a word."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)


class Session:
    """A logged-in connection. Any time-out, cancellation or protocol error ends it; then every method raises."""

    def __init__(self, wire: Wire, server: Server, answer_seconds: float) -> None:
        self._wire = wire
        self._server = server
        self._answer_seconds = answer_seconds
        self.capabilities: frozenset[str] = frozenset()
        self._told: frozenset[str] | None = None  # capabilities that the server volunteered since we last asked
        self._idle_refused = False

    @property
    def can_idle(self) -> bool:
        return "IDLE" in self.capabilities and not self._idle_refused

    @property
    def is_stirred(self) -> bool:
        """Whether the server has mentioned new messages since the last listing began."""
        return self._wire.is_stirred

    @property
    def last_byte_at(self) -> datetime:
        """When the server last said anything. Safe to read from another thread."""
        return datetime.now(UTC) - timedelta(seconds=time.monotonic() - self._wire.heard_at)

    # --- coming in ---------------------------------------------------------------------------------------------------

    async def _greet(self, seconds: float) -> None:
        with self._named():
            try:
                async with asyncio.timeout(seconds):
                    (line, *_) = await asyncio.shield(self._wire.greeting)
            except TimeoutError:
                raise Unavailable(
                    f"no greeting within {seconds:.0f} seconds; is this an IMAP server, "
                    "and does the port expect TLS at once (imaps) or not (imap)?"
                ) from None
        kind = line[2:].split(b" ", 1)[0].upper()
        if kind == b"BYE":
            raise Unavailable(f"{self._server} turned us away: {clean(fetch.human_text(line[2:]))}; we try again")
        if kind == b"PREAUTH":
            # With a password at hand, a session that is somebody's already is never what we meant; before
            # STARTTLS it is how a man in the middle keeps us from it (RFC 9051 §11.1)
            raise Unavailable(f"{self._server} greets with PREAUTH, without asking who we are; check host and port")
        if kind != b"OK":
            raise Unavailable(f"{self._server} does not greet like an IMAP server; check host, port and scheme")
        self._hear_capabilities(line)

    async def _start_tls(self, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext, seconds: float) -> None:
        await self._learn_capabilities()
        if "STARTTLS" not in self.capabilities:
            raise Unavailable(
                f"{self._server} offers no STARTTLS, and a password never travels in the clear; try imaps://"
            )
        answer = await self._run("STARTTLS")
        if not answer.ok:
            raise Unavailable(f"{self._server} refused STARTTLS: {clean(answer.text)}; try imaps://")
        self._wire.restart_framing()
        self._told = None
        with _explained(self._server):
            plain = cast(asyncio.Transport, self._wire.transport)
            name = self._server.host
            secured = await loop.start_tls(plain, self._wire, tls, server_hostname=name, ssl_handshake_timeout=seconds)
        if secured is None:
            raise Unavailable(f"{self._server} closed the connection during the TLS handshake")
        self._wire.transport = secured

    async def _log_in(self, login: str, password: str) -> None:
        await self._learn_capabilities()
        if "AUTH=PLAIN" in self.capabilities:
            answer = await self._authenticate_plain(login, password)
        elif "LOGINDISABLED" in self.capabilities:
            raise LoginRefused(f"{self._server} takes no password here (LOGINDISABLED); use TLS or another auth")
        else:
            answer = await self._login(login, password)
        if not answer.ok:
            raise self._refusal(login, answer)
        self._told = self._told or _capabilities_in(answer.line)
        await self._learn_capabilities()
        if "ID" in self.capabilities:
            await self._run("ID", f'("name" "mail-gateway" "version" {fetch.quote(_VERSION)})')

    async def _authenticate_plain(self, login: str, password: str) -> Answer:
        # RFC 4616; safe for every password but one with a NUL, unlike a quoted string
        token = base64.b64encode(f"\0{login}\0{password}".encode())
        if "SASL-IR" in self.capabilities:
            return await self._run("AUTHENTICATE", "PLAIN", token.decode("ascii"))
        return await self._run("AUTHENTICATE", "PLAIN", replies=[token + b"\r\n"])

    async def _login(self, login: str, password: str) -> Answer:
        if fetch.can_be_quoted(login) and fetch.can_be_quoted(password):
            return await self._run("LOGIN", fetch.quote(login), fetch.quote(password))
        name, secret = login.encode(), password.encode()
        return await self._run(
            "LOGIN", f"{{{len(name)}}}", replies=[name + b" {%d}\r\n" % len(secret), secret + b"\r\n"]
        )

    def _refusal(self, login: str, answer: Answer) -> Unavailable:
        text = clean(answer.text)
        lower = text.lower()
        if answer.code in _LOGIN_LATER or any(later in lower for later in _LOGIN_LATER_TEXTS):
            return Unavailable(f"{self._server} cannot log {login} in now: {text}; we try again")
        return LoginRefused(f"{self._server} refused the login of {login}: {text}; check login and password")

    async def _learn_capabilities(self) -> None:
        """Take what the server volunteered since the state last changed, else ask."""
        if self._told is None:
            answer = await self._run("CAPABILITY", take=self._hear)
            if not answer.ok or self._told is None:
                raise Unavailable(f"{self._server} does not answer like an IMAP server; check host and port")
        self.capabilities, self._told = self._told or frozenset(), None

    def _hear(self, response: Response) -> None:
        self._hear_capabilities(response[0])

    def _hear_capabilities(self, line: bytes) -> None:
        self._told = _capabilities_in(line) or self._told

    # --- folders -----------------------------------------------------------------------------------------------------

    async def select(self, folder: str) -> Selected:
        """Open a folder for reading. Raises NoFolder when the server does not have it."""
        found: dict[str, int] = {"exists": 0}
        self._wire.exists = 0

        def take(response: Response) -> None:
            words = response[0].split(None, 3)
            if len(words) > 2 and words[2].upper() == b"EXISTS":
                found["exists"] = fetch.read_number(words[1]) or 0
            code, argument = fetch.response_code(response[0])
            if code in (b"UIDVALIDITY", b"UIDNEXT") and (number := fetch.read_number(argument.strip())):
                found[code.decode().lower()] = number

        answer = await self._run("EXAMINE", self._folder_argument(folder), take=take)
        if not answer.ok:
            raise NoFolder(f"{self._server} does not open the folder {folder!r}: {clean(answer.text)}; check `folders`")
        if "uidvalidity" not in found:
            raise Unavailable(f"{self._server} gives no UIDVALIDITY for {folder!r}; it cannot be read without loss")
        return Selected(found["uidvalidity"], found.get("uidnext"), found["exists"])

    def _folder_argument(self, folder: str) -> str:
        try:
            return fetch.encode_folder(folder)
        except ValueError as error:
            raise Unavailable(f"the folder {folder!r} cannot be asked for: {error}; check `folders`") from None

    async def uids_above(self, uid: int) -> list[int]:
        """Return the UIDs above `uid` in the selected folder, ascending."""
        self._wire.calm()
        return [found for found in await self._search(f"UID {uid + 1}:*") if found > uid]

    async def uids_since(self, day: date) -> list[int]:
        """Return the UIDs of messages with an INTERNALDATE on or after `day` (the server's calendar), ascending."""
        return await self._search(f"SINCE {day.day}-{_MONTHS[day.month - 1]}-{day.year}")

    async def present(self, uids: Sequence[int]) -> list[int]:
        """Return those of `uids` (ascending) that the folder still has, whether or not the server can show them."""
        wanted = set(uids)
        return [uid for uid in await self._search(f"UID {_uid_argument(uids)}") if uid in wanted]

    async def _search(self, criteria: str) -> list[int]:
        found: list[int] = []

        def take(response: Response) -> None:
            found.extend(fetch.read_search(response) or ())

        form = ("RETURN (ALL)", criteria) if "ESEARCH" in self.capabilities else (criteria,)
        answer = await self._run("SEARCH", *form, by_uid=True, take=take, total=10 * self._answer_seconds)
        if not answer.ok:
            raise Unavailable(f"{self._server} did not list the folder: {clean(answer.text)}; we try again")
        return sorted(set(found))

    async def listed_above(self, uid: int) -> list[Listed]:
        """Return all messages above `uid` with their sizes: one round trip, for when there can only be a few."""
        self._wire.calm()
        listed = await self._fetch(f"{uid + 1}:*", "(UID RFC822.SIZE INTERNALDATE)", fetch.read_listed)
        # `n:*` names the last message even when its UID is below n (RFC 9051 §9, seq-range)
        return sorted({item.uid: item for item in listed if item.uid > uid}.values(), key=_uid_of_listed)

    async def listed(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of `uids` (ascending) that are there, with their sizes."""
        wanted = set(uids)
        found = await self._fetch(_uid_argument(uids), "(UID RFC822.SIZE INTERNALDATE)", fetch.read_listed)
        return sorted({item.uid: item for item in found if item.uid in wanted}.values(), key=_uid_of_listed)

    async def headed(self, uids: Sequence[int]) -> list[Headed]:
        """Return those of `uids` that are there, with the header fields that make their identity."""
        items = f"(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS ({' '.join(FIELDS)})])"
        wanted = set(uids)
        found = await self._fetch(_uid_argument(uids), items, fetch.read_headed, len(uids) * 4096)
        return sorted(
            {item.listed.uid: item for item in found if item.listed.uid in wanted}.values(),
            key=lambda item: item.listed.uid,
        )

    async def fetch(self, uids: Sequence[int], expected_bytes: int) -> list[Fetched]:
        """Return the messages that the server gives of `uids` (ascending), in that order; never marks them seen.

        A UID that is missing from the result may be gone or withheld; `listed` tells which. Raises NotGiven when
        the server says NO: it may have been about any of them.
        """
        wanted = set(uids)
        found: dict[int, Fetched] = {}
        items, answer = await self._ask_for(
            _uid_argument(uids), "(UID BODY.PEEK[])", fetch.read_fetched, expected_bytes
        )
        for item in items:
            if item.uid in wanted and (item.uid not in found or item.raw is not None):
                found[item.uid] = item
        if not found and not answer.ok:  # with some of them in hand, the others are looked into one by one
            raise NotGiven(f"{self._server} does not give messages: {clean(answer.text)}")
        return [found[uid] for uid in uids if uid in found]

    async def _fetch(self, uids: str, items: str, read: Callable[[Response], T | None], expected: int = 0) -> list[T]:
        found, answer = await self._ask_for(uids, items, read, expected)
        if not answer.ok:
            raise Unavailable(f"{self._server} did not list messages: {clean(answer.text)}; we try again")
        return found

    async def _ask_for(
        self, uids: str, items: str, read: Callable[[Response], T | None], expected_bytes: int
    ) -> tuple[list[T], Answer]:
        found: list[T] = []

        def take(response: Response) -> None:
            if (item := read(response)) is not None:
                found.append(item)

        total = 10 * self._answer_seconds + expected_bytes / _SLOWEST_BYTES_PER_SECOND
        answer = await self._run(
            "FETCH", uids, items, by_uid=True, take=take, expected_bytes=2 * expected_bytes, total=total
        )
        return found, answer

    # --- waiting and leaving -----------------------------------------------------------------------------------------

    async def idle(self, seconds: float) -> bool:
        """Wait in IDLE until the server speaks of new messages or `seconds` have passed; True when it spoke.

        Cancelling says DONE and LOGOUT and closes, without waiting for an answer.
        """
        if self._wire.is_stirred:
            return True
        begun = time.monotonic()
        with self._named():
            answer = await self._wire.idle(seconds, min(30.0, self._answer_seconds))
        early = time.monotonic() - begun < min(seconds, 1.0) / 2
        if not answer.ok or (early and not self._wire.is_stirred):
            self._idle_refused = True  # also where it is accepted and ended at once: asking again would go round
        return self._wire.is_stirred

    async def logout(self) -> None:
        """Say LOGOUT, wait a little for the goodbye, close. Raises nothing."""
        try:
            async with asyncio.timeout(LOGOUT_SECONDS):
                await self._wire.execute("LOGOUT", quiet=LOGOUT_SECONDS, total=LOGOUT_SECONDS)
        except (Unavailable, TimeoutError):
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        """Cut the connection, unless it is saying goodbye; return when it is gone."""
        await self._wire.close()

    # --- the one way to run a command --------------------------------------------------------------------------------

    async def _run(
        self,
        name: str,
        *args: str,
        by_uid: bool = False,
        take: Take | None = None,
        replies: Sequence[bytes] = (),
        expected_bytes: int = 0,
        total: float | None = None,
    ) -> Answer:
        with self._named():
            return await self._wire.execute(
                name,
                *args,
                by_uid=by_uid,
                take=take or self._hear,
                replies=replies,
                expected_bytes=expected_bytes,
                quiet=self._answer_seconds,
                total=total or 2 * self._answer_seconds,
            )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Put the server's name before what the wire has to say; it does not know it."""
        try:
            yield
        except Unavailable as error:
            raise Unavailable(f"{self._server}: {clean(str(error))}; we connect again") from error


def _uid_of_listed(listed: Listed) -> int:
    return listed.uid


def _uid_argument(uids: Sequence[int]) -> str:
    """Return the set, or the stretch from first to last where the set would make a line too long (RFC 2683 §3.2.1.5).

    The stretch may name messages that nobody asked for; the callers pass them over.
    """
    exact = fetch.format_uid_set(uids)
    return exact if len(exact) <= 900 else f"{uids[0]}:{uids[-1]}"


def _capabilities_in(line: bytes) -> frozenset[str] | None:
    """Return the capabilities that a line states, as a response or as a code; None when it states none."""
    words = line[2:].split()
    if words[:1] != [b"CAPABILITY"]:
        code, argument = fetch.response_code(line)
        if code != b"CAPABILITY":
            return None
        words = [code, *argument.split()]
    return frozenset(word.decode("ascii", "replace").upper() for word in words[1:])


@contextlib.contextmanager
def _explained(server: Server) -> Iterator[None]:
    """Map what can go wrong while connecting to one line with cause and remedy."""
    try:
        yield
    except Unavailable:
        raise
    except TimeoutError:
        raise Unavailable(
            f"{server} did not answer in time; check host and port, and that no firewall drops the connection"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(_certificate_trouble(server, error)) from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise Unavailable(
            f"{server}: no TLS connection ({reason}); check that the port speaks TLS at once (imaps) "
            "or after STARTTLS (imap)"
        ) from None
    except socket.gaierror as error:
        raise Unavailable(
            f"{server.host} cannot be found ({error.strerror}); check the host name and this machine's DNS"
        ) from None
    except ConnectionRefusedError:
        raise Unavailable(f"{server} refused the connection; check host and port, or the server is down") from None
    except OSError as error:
        reason = error.strerror or str(error) or errno.errorcode.get(error.errno or 0, "unknown")
        raise Unavailable(f"{server} cannot be reached: {reason}; check host, port and network") from None


def _certificate_trouble(server: Server, error: ssl.SSLCertVerificationError) -> str:
    # X509_V_ERR_*: 10 expired, 9 not yet valid, 62 name, 18 to 21 and 2 an unknown issuer
    host = server.host
    match error.verify_code:
        case 10:
            return f"{server}: the server's certificate has expired; the provider must renew it (or check our clock)"
        case 9:
            return f"{server}: the server's certificate is not yet valid; check this machine's clock"
        case 62 | 64:
            return f"{server}: the server's certificate is not for {host}; use the host name that the certificate has"
        case 2 | 18 | 19 | 20 | 21:
            return (
                f"{server}: nobody we trust has issued the server's certificate; "
                "name a private authority in `ca_file`, or check for an interception of TLS"
            )
    return f"{server}: the server's certificate is not acceptable: {error.verify_message}"
