"""The submission server on a loop of its own thread, as in the daemon, with a real store beside it."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomlkit
import uvloop
from argon2 import PasswordHasher

from gateway.config import Config, load
from gateway.outbound.submission import SubmissionServer
from gateway.state import outbox, raw
from gateway.state.store import Store
from tests.support.authority import Authority

T = TypeVar("T")
PASSWORD = "correct horse"
hash_cheaply = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash  # these tests are not about guessing
HASH = hash_cheaply(PASSWORD)

TOUCHPOINTS: list[dict[str, Any]] = [
    {"id": "support", "address": "support@example.com", "name": "Example Support", "linked_queues": ["support"]},
    {"id": "billing", "address": "billing@example.com", "name": "Rechnungen Köln", "linked_queues": ["billing"]},
    {"id": "news", "address": "news@example.com", "name": "News", "linked_queues": ["support"], "direction": "inbound"},
    {"id": "old", "address": "old@example.com", "name": "Old", "linked_queues": ["support"], "active": False},
]
AGENTS: list[dict[str, Any]] = [
    {"login": "ana@example.com", "name": "Ana Lima", "ring_groups": ["support"]},
    {"login": "ben@example.com", "name": "Ben", "ring_groups": ["support", "billing"]},
]


class NoWorkers:
    """Runs the job here: these tests do not need another process to be sure of its result."""

    async def run(self, function: Callable[..., Any], /, *args: object, timeout: float) -> Any:
        return function(*args)


class Rig:
    """A server on loopback, at `smtp+insecure`, `smtp` and `smtps`. Use from plain threads, then `close()`."""

    def __init__(
        self,
        home: Path,
        authority: Authority,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
        submission: dict[str, Any] | None = None,
        touchpoints: Sequence[dict[str, Any]] = TOUCHPOINTS,
        workers: Any = None,
        sockets: Sequence[socket.socket] | None = None,
        offers: Any = None,
        warnings: Any = None,
    ) -> None:
        self.home = home
        self.authority = authority
        self.pair = authority.issue("gateway")
        self.submission: dict[str, Any] = {
            "listen": ["smtp+insecure://127.0.0.1:0", "smtp://127.0.0.1:0", "smtps://127.0.0.1:0"],
            "certificate": str(self.pair.certificate),
            "private_key": str(self.pair.private_key),
            **(submission or {}),
        }
        self.touchpoints = [self._touchpoint(one) for one in touchpoints]
        self.agents = [{"password_hash": HASH, **one} for one in AGENTS]
        self.config = self.reload()
        self.store = Store.open(home / "gateway.db")
        self.woken: list[str] = []
        self._loop = loop_factory()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aio")
        self._thread.start()
        self.server = self.run(self._start, workers or NoWorkers(), sockets, offers, warnings)
        self._clients: list[smtplib.SMTP | socket.socket] = []

    def _touchpoint(self, keys: dict[str, Any]) -> dict[str, Any]:
        servers = {"imap": "imap+insecure://127.0.0.1:1", "smtp": "smtp+insecure://127.0.0.1:1"}
        return {"active": True, "password": "env:NONE", **servers, **keys}

    async def _start(
        self, workers: Any, sockets: Sequence[socket.socket] | None, offers: Any, warnings: Any
    ) -> SubmissionServer:
        server = SubmissionServer(
            lambda: self.config, self.store, workers, self.woken.append, offers=offers, warnings=warnings
        )
        await server.start(sockets)
        return server

    def reload(self) -> Config:
        """Write both files and take them over, as SIGHUP does."""
        gateway = {"hostname": "gateway.example", "state_dir": str(self.home), "submission": self.submission}
        rules = {"touchpoint": self.touchpoints, "agent": self.agents}
        (self.home / "gateway.toml").write_text(tomlkit.dumps(gateway))
        (self.home / "rules.toml").write_text(tomlkit.dumps(rules))
        self.config = load(self.home / "gateway.toml")
        if hasattr(self, "server"):
            self.call(self.server.apply, self.config)
        return self.config

    # --- the other thread --------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., Awaitable[T]], *args: object, timeout: float = 30) -> T:
        """Return `await function(*args)`, run on the server's loop."""

        async def wrapper() -> T:
            return await function(*args)

        return asyncio.run_coroutine_threadsafe(wrapper(), self._loop).result(timeout)

    def call(self, function: Callable[..., T], *args: object) -> T:
        async def wrapper() -> T:
            return function(*args)

        return self.run(wrapper)

    def close(self, grace_seconds: float = 5) -> None:
        for client in self._clients:
            client.close()
        self.run(self.server.close, grace_seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        with contextlib.closing(self._loop):
            left = asyncio.all_tasks(self._loop)
        assert not left, f"tasks left behind: {left}"
        self.store.close()

    # --- clients -----------------------------------------------------------------------------------------------------

    def port(self, scheme: str) -> int:
        return next(bound.port for bound in self.server.addresses if bound.scheme == scheme)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.ca_file))

    def connect(self, scheme: str = "smtp+insecure") -> smtplib.SMTP:
        """Return a client that is connected, with TLS where the scheme has it."""
        client: smtplib.SMTP
        if scheme == "smtps":
            client = smtplib.SMTP_SSL("localhost", self.port(scheme), timeout=20, context=self.tls())
        else:
            client = smtplib.SMTP("localhost", self.port(scheme), timeout=20)
        if scheme == "smtp":
            client.starttls(context=self.tls())
        self._clients.append(client)
        return client

    def login(self, login: str = "ana@example.com", scheme: str = "smtp+insecure") -> smtplib.SMTP:
        client = self.connect(scheme)
        client.login(login, PASSWORD)
        return client

    def plug(self) -> socket.socket:
        """Return a bare connection to the insecure listener, greeting read."""
        plug = socket.create_connection(("127.0.0.1", self.port("smtp+insecure")), timeout=20)
        self._clients.append(plug)
        replies(plug, 1)
        return plug

    # --- what came of it ---------------------------------------------------------------------------------------------

    def outbox(self) -> list[dict[str, Any]]:
        return self.store.read(outbox.list_outbox).result(timeout=10)

    def stored(self, queue_id: int) -> bytes:
        found = self.store.read(raw.load, queue_id).result(timeout=10)
        assert found is not None
        return found


def replies(plug: socket.socket, count: int) -> list[str]:
    """Read `count` replies (of one line or several); return their lines joined."""
    found: list[str] = []
    lines: list[str] = []
    stream = b""
    while len(found) < count:
        while b"\n" not in stream:
            piece = plug.recv(1)  # one octet at a time, so that nothing of the next reply is taken
            if not piece:
                raise ConnectionResetError(f"closed after {found} {lines} {stream!r}")
            stream += piece
        line, _, stream = stream.partition(b"\n")
        lines.append(line.decode().rstrip("\r"))
        if lines[-1][3:4] != "-":
            found.append("\n".join(lines))
            lines = []
    return found
