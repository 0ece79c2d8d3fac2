"""Coming in: the connection, TLS, the login, and the extensions that are to be switched on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final, cast

from gateway.config import Server
from gateway.connections import reach
from gateway.errors import Unavailable
from gateway.inbound.dialog import Dialog, LoginRefused
from gateway.inbound.framing import Response
from gateway.inbound.names import can_be_quoted, quote
from gateway.inbound.protocol import Answer
from gateway.inbound.reply import human_text, read_capabilities
from gateway.text import clean

_ADDRESSES_TRIED: Final = 3  # in the time that there is for connecting: the first may be IPv6 that leads nowhere

# RFC 5530 and what providers write into a NO at login that has nothing to do with the password
_LOGIN_LATER: Final = frozenset((b"UNAVAILABLE", b"INUSE", b"LIMIT", b"SERVERBUG", b"OVERQUOTA", b"THROTTLED"))
_LOGIN_LATER_TEXTS: Final = ("too many", "try again", "temporar", "rate limit", "not connected", "unavailable")

_VERSION: Final = metadata.version("mail-gateway")


class Entrance(Dialog):
    """What a session does before it is one."""

    async def _come_in(
        self, tls: ssl.SSLContext | None, login: str, password: str, *, seconds: float, uid_only: bool
    ) -> None:
        """Go from nothing to a connection that is logged in. Raises LoginRefused, Unavailable."""
        await self._open(tls, seconds)
        await self._greet(seconds)
        if self._server.scheme == "imap":
            await self._start_tls(tls, seconds)
        await self._log_in(login, password)
        await self._introduce()
        await self._enable(uid_only)

    async def _open(self, tls: ssl.SSLContext | None, seconds: float) -> None:
        """Connect, with TLS where it comes first."""
        server = self._server
        secure: dict[str, Any] = {}
        if server.scheme == "imaps":
            assert tls is not None, "imaps needs a TLS context"
            # Longer than our own deadline, which knows how to say it
            secure = {"ssl": tls, "server_hostname": server.host, "ssl_handshake_timeout": 2 * seconds}
        with _explained(server):
            async with asyncio.timeout(seconds):
                peer = await reach.dial(server, seconds=seconds / _ADDRESSES_TRIED)
                reach.keep_alive(peer)
                try:
                    await asyncio.get_running_loop().create_connection(lambda: self._wire, sock=peer, **secure)
                except BaseException:
                    peer.close()
                    raise

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
            raise Unavailable(f"{self._server} turned us away: {clean(human_text(line[2:]))}; we try again")
        if kind == b"PREAUTH":
            # With a password at hand, a session that is somebody's already is never what we meant; before
            # STARTTLS it is how a man in the middle keeps us from it (RFC 9051 §11.1)
            raise Unavailable(f"{self._server} greets with PREAUTH, without asking who we are; check host and port")
        if kind != b"OK":
            raise Unavailable(f"{self._server} does not greet like an IMAP server; check host, port and scheme")
        self._wire.told = read_capabilities(line[2:])

    async def _start_tls(self, tls: ssl.SSLContext | None, seconds: float) -> None:
        assert tls is not None, "imap needs a TLS context for STARTTLS"
        await self._learn_capabilities()
        if "STARTTLS" not in self.capabilities:
            raise Unavailable(
                f"{self._server} offers no STARTTLS, and a password never travels in the clear; try imaps://"
            )
        answer = await self._run("STARTTLS")
        if not answer.ok:
            raise Unavailable(f"{self._server} refused STARTTLS: {clean(answer.text)}; try imaps://")
        self._wire.restart_framing()
        plain = cast(asyncio.Transport, self._wire.transport)
        with _explained(self._server):
            async with asyncio.timeout(seconds):
                secured = await asyncio.get_running_loop().start_tls(
                    plain, self._wire, tls, server_hostname=self._server.host, ssl_handshake_timeout=2 * seconds
                )
        if secured is None:
            raise Unavailable(f"{self._server} closed the connection during the TLS handshake")
        self._wire.transport = secured

    async def _log_in(self, login: str, password: str) -> None:
        await self._learn_capabilities()
        offered, self._wire.told = self.capabilities, None  # they may change with the login, and count no longer
        if "AUTH=PLAIN" in offered:
            answer = await self._authenticate_plain(login, password, at_once="SASL-IR" in offered)
        elif "LOGINDISABLED" in offered:
            raise LoginRefused(f"{self._server} takes no password here (LOGINDISABLED); use TLS or another auth")
        else:
            answer = await self._login(login, password)
        if not answer.ok:
            raise self._refusal(login, answer)
        await self._learn_capabilities()

    async def _authenticate_plain(self, login: str, password: str, at_once: bool) -> Answer:
        # RFC 4616; safe for every password but one with a NUL, unlike a quoted string
        token = base64.b64encode(f"\0{login}\0{password}".encode())
        if at_once:
            return await self._run("AUTHENTICATE", "PLAIN", token.decode("ascii"))
        return await self._run("AUTHENTICATE", "PLAIN", replies=[token + b"\r\n"])

    async def _login(self, login: str, password: str) -> Answer:
        if can_be_quoted(login) and can_be_quoted(password):
            return await self._run("LOGIN", quote(login), quote(password))
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
        if self._wire.told is None:
            answer = await self._run("CAPABILITY")
            if not answer.ok or self._wire.told is None:
                raise Unavailable(f"{self._server} does not answer like an IMAP server; check host and port")

    async def _introduce(self) -> None:
        """Say who we are (RFC 2971), where that is wanted."""
        if "ID" in self.capabilities:
            await self._run("ID", f'("name" "mail-gateway" "version" {quote(_VERSION)})')

    async def _enable(self, uid_only: bool) -> None:
        """Switch on what the server lists and we can use (RFC 5161); without any of it everything works as well."""
        offered = self.capabilities
        if "ENABLE" not in offered:
            return
        wanted: list[str] = []
        if offered & {"QRESYNC", "CONDSTORE"}:
            wanted.append("QRESYNC" if "QRESYNC" in offered else "CONDSTORE")
        if offered & {"UTF8=ACCEPT", "UTF8=ONLY"}:
            wanted.append("UTF8=ACCEPT")
        if uid_only and "UIDONLY" in offered:
            wanted.append("UIDONLY")
        if wanted and not await self._switch_on(wanted) and len(wanted) > 1:
            for name in wanted:
                await self._switch_on([name])

    async def _switch_on(self, wanted: list[str]) -> bool:
        def take(response: Response) -> None:
            words = response[0].upper().split()
            if words[1:2] == [b"ENABLED"]:
                self.enabled |= {name for name in wanted if name.encode() in words}

        return (await self._run("ENABLE", *wanted, take=take)).ok


@contextlib.contextmanager
def _explained(server: Server) -> Iterator[None]:
    """Map what can go wrong while connecting to one line with cause and remedy."""
    try:
        yield
    except Unavailable:
        raise
    except (OSError, ssl.SSLError) as error:  # time-outs and name resolution among them
        raise Unavailable(reach.explain(server, error)) from None
