"""The submission server: listeners, who may connect, log in and how much at once; the dialog itself is `dialog.py`.

Lives on the asyncio thread. `apply` takes over what SIGHUP changes; addresses to listen on need a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway import events
from gateway.config import Config, Listener
from gateway.errors import Unavailable
from gateway.outbound.acceptance import Acceptance, Draft, Warnings, Workers
from gateway.outbound.certificates import Certificates
from gateway.outbound.dialog import HANDSHAKE_SECONDS, Dialog
from gateway.outbound.logins import Logins, place_of
from gateway.outbound.offers import Offers
from gateway.outbound.passwords import Login, Passwords
from gateway.state.store import Store

MOST_CONNECTIONS: Final = 2_000  # in all; a connection that waits costs about 30 KiB
_BACKLOG: Final = 512
_TICK_SECONDS: Final = 2.0
_MESSAGES_AT_ONCE: Final = 4  # of the largest size, in memory before their 250
_LEAST_MEMORY: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a listener really listens: `port` is the true one also where 0 was asked for."""

    host: str
    port: int
    scheme: str

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class SubmissionServer:
    """`on_accepted(touchpoint id)` is called on the asyncio thread after each commit. `offers`: what each touchpoint's
    provider takes; `warnings`: what its agents should know of addresses. None: not known, there are none.
    """

    def __init__(
        self,
        current: Callable[[], Config],
        store: Store,
        workers: Workers,
        on_accepted: Callable[[str], None],
        passwords: Passwords | None = None,
        offers: Offers | None = None,
        warnings: Warnings | None = None,
    ) -> None:
        self._current = current
        self.passwords = passwords or Passwords(current, store)
        self._owns_passwords = passwords is None
        self._door = Acceptance(current, store, workers, on_accepted, offers=offers, warnings=warnings)
        self._certificates: Certificates | None = None
        self._dialogs: set[Dialog] = set()
        self._from: Counter[str] = Counter()  # connections by address, also those still shaking hands
        self._reserved = 0
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        self._closing = asyncio.Event()
        self.addresses: tuple[Bound, ...] = ()

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Listen. `sockets` (bound, from systemd) are used, by their port, in place of binding our own.

        Raises Unavailable, with one line, when an address cannot be bound or the certificate cannot be used.
        """
        submission = self._current().gateway.submission
        self._loop = asyncio.get_running_loop()
        self._logins = Logins(self._current, self.passwords, self._loop.time, self._closing)
        if any(listener.scheme != "smtp+insecure" for listener in submission.listen):
            self._certificates = self._load_certificates()
        try:
            bound = await self._bind_all(submission.listen, list(sockets or ()))
        except BaseException:
            for sock in self._sockets:
                sock.close()
            raise
        for scheme, sock in bound:
            sock.setblocking(False)
            sock.listen(_BACKLOG)
            self._spawn(self._accept_until_closed(scheme, sock))
        places = ((scheme, sock.getsockname()) for scheme, sock in bound)
        self.addresses = tuple(Bound(name[0], name[1], scheme) for scheme, name in places)
        self._spawn(self._tick())

    def apply(self, config: Config) -> None:
        """Take over what a reload has changed; `current` gives the new configuration already. On the asyncio thread."""
        self._refresh_certificates(config)

    async def close(self, grace_seconds: float) -> None:
        """Stop listening, let what is being received or stored come to its end within the time, then hang up."""
        self._closing.set()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        for dialog in tuple(self._dialogs):
            dialog.close_when_idle()
        await self._wait_until_empty(grace_seconds)
        for dialog in tuple(self._dialogs):
            dialog.abort()
        await self._wait_until_empty(1)
        if self._owns_passwords:
            self.passwords.close()

    async def _wait_until_empty(self, seconds: float) -> None:
        time = asyncio.get_running_loop().time
        deadline = time() + seconds
        while self._dialogs and (left := deadline - time()) > 0:
            self._left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), left)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        # One clock for all connections: a timer for each command of each would be much of what the loop does
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._loop.time()
            is_crowded = self._from.total() > MOST_CONNECTIONS // 2
            for dialog in tuple(self._dialogs):
                dialog.check_time(now, is_crowded=is_crowded)
            self._refresh_certificates(self._current())

    # --- connections -------------------------------------------------------------------------------------------------

    async def _bind_all(
        self, listeners: Sequence[Listener], given: list[socket.socket]
    ) -> list[tuple[str, socket.socket]]:
        """Return scheme and socket of every listener; what has been bound so far is in `_sockets` at any time."""
        bound: list[tuple[str, socket.socket]] = []
        for listener in listeners:
            ours = [sock for sock in given if sock.getsockname()[1] == listener.port] or await self._bind(listener)
            given = [sock for sock in given if sock not in ours]
            bound += [(listener.scheme, sock) for sock in ours]
            self._sockets += ours
        for sock in given:
            events.warn("socket-unused", port=sock.getsockname()[1], remedy="name its port in [submission] listen")
            sock.close()
        return bound

    async def _bind(self, listener: Listener) -> list[socket.socket]:
        try:
            if listener.host is None:
                return _bind_everywhere(listener.port)
            found = await self._loop.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)
            places = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
            if listener.scheme == "smtp+insecure" and not all(_is_loopback(host) for _, host in places):
                raise Unavailable(f"{listener}: without TLS only loopback addresses can be used")
            return [_bind_one(family, host, listener.port) for family, host in places]
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise Unavailable(f"cannot listen on {listener}: {reason}; is another server there?") from error

    async def _accept_until_closed(self, scheme: str, sock: socket.socket) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(sock)
            except OSError as error:  # no descriptor left, most likely: the ones in use will come back
                events.warn("accept-failed", cause=str(error))
                await asyncio.sleep(0.5)
                continue
            address = peer[0]
            if self._admits(address):
                self._spawn(self._begin(scheme, connection, address))
            else:
                if scheme != "smtps":
                    with contextlib.suppress(OSError):
                        connection.send(b"421 4.7.0 too many connections\r\n")
                connection.close()

    async def _begin(self, scheme: str, connection: socket.socket, address: str) -> None:
        """Shake hands where TLS comes first, and start the dialog. Until then the connection counts all the same."""
        begun: list[Dialog] = []

        def meet() -> Dialog:
            dialog = Dialog(self, self._loop, address, secure=scheme == "smtps", offers_tls=scheme != "smtp+insecure")
            begun.append(dialog)
            return dialog

        context = self.tls_context if scheme == "smtps" else None
        timeout = HANDSHAKE_SECONDS if context else None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(meet, connection, ssl=context, ssl_handshake_timeout=timeout)
        except (OSError, ssl.SSLError) as error:
            events.say("tls-handshake-failed", address=address, cause=str(error) or type(error).__name__)
            connection.close()
        finally:
            if not any(dialog.is_connected for dialog in begun):
                self._forget(address)

    def _admits(self, address: str) -> bool:
        limit = self._current().gateway.submission.max_connections_per_address
        group = place_of(address)
        if self._from[group] >= limit or self._from.total() >= MOST_CONNECTIONS:
            events.warn("too-many-connections", address=address)
            return False
        self._from[group] += 1
        return True

    def _forget(self, address: str) -> None:
        group = place_of(address)
        self._from[group] -= 1
        if not self._from[group]:
            del self._from[group]

    # --- certificates ------------------------------------------------------------------------------------------------

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        return self._certificates.context if self._certificates else None

    def _load_certificates(self) -> Certificates:
        submission = self._current().gateway.submission
        if submission.certificate is None or submission.private_key is None:
            raise Unavailable("[submission] needs certificate and private_key for its smtps and smtp listeners")
        return Certificates(submission.certificate, submission.private_key)

    def _refresh_certificates(self, config: Config) -> None:
        submission = config.gateway.submission
        if self._certificates and submission.certificate and submission.private_key:
            self._certificates.refresh(submission.certificate, submission.private_key)

    # --- what dialogs ask for ----------------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    @property
    def hostname(self) -> str:
        return self._current().gateway.hostname

    @property
    def max_message_size(self) -> int:
        return self._current().gateway.submission.max_message_size

    def came(self, dialog: Dialog) -> None:
        self._dialogs.add(dialog)

    def left(self, dialog: Dialog) -> None:
        self._dialogs.discard(dialog)
        self._forget(dialog.address)
        self._left.set()

    async def log_in(self, login: bytes, password: bytes, address: str) -> Login | str:
        return await self._logins.log_in(login, password, address)

    async def still_holds(self, login: Login) -> bool:
        return await self.passwords.still_holds(login)

    async def accept(self, draft: Draft) -> str:
        return await self._door.accept(draft)

    def reserve(self, octets: int) -> bool:
        """Take memory for a message that is being received; False when all of it is taken."""
        most = max(_LEAST_MEMORY, _MESSAGES_AT_ONCE * self.max_message_size)
        if self._reserved + octets > most:
            return False
        self._reserved += octets
        return True

    def release(self, octets: int) -> None:
        self._reserved -= octets


def _bind_everywhere(port: int) -> list[socket.socket]:
    """Return sockets for all of IPv4 and all of IPv6, whichever the machine has, on the same port."""
    try:
        sockets = [_bind_one(socket.AF_INET, "0.0.0.0", port)]
    except OSError:
        if not _has_ipv6():
            raise
        return [_bind_one(socket.AF_INET6, "::", port)]
    if _has_ipv6():
        try:
            sockets.append(_bind_one(socket.AF_INET6, "::", sockets[0].getsockname()[1]))
        except OSError:
            sockets[0].close()
            raise
    return sockets


def _bind_one(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _has_ipv6() -> bool:
    try:
        _bind_one(socket.AF_INET6, "::1", 0).close()
    except OSError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
