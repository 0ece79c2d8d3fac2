"""A session in its own thread, as the mailbox task has it, against a scripted server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from gateway.bridge import Bridge, open_bridge
from gateway.config import Server
from gateway.inbound import session as imap
from gateway.inbound.session import Session
from tests.shell.imap_script import ImapServer, Script, serving


@dataclass
class Client:
    bridge: Bridge
    port: int

    async def connect(self, login: str = "anna", password: str = "secret", **settings: Any) -> Session:
        server = settings.pop("server", Server("imap+insecure", "127.0.0.1", self.port))
        tls = settings.pop("tls", None)
        settings.setdefault("literal_bytes", 1_000_000)
        settings.setdefault("answer_seconds", 5.0)
        session: Session = await self.call(partial(imap.connect, server, tls, login, password, **settings))
        return session

    async def call(self, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        with trio.fail_after(10):
            return await self.bridge.call(method, *args)  # type: ignore[arg-type]  # coroutine functions all


@asynccontextmanager
async def client_of(script: Script, tls: ssl.SSLContext | None = None, host: str = "") -> AsyncIterator[Client]:
    async with open_bridge() as bridge, serving(script, tls, host or "127.0.0.1") as port:
        yield Client(bridge, port)
        assert bridge.stray_exceptions == 0


@asynccontextmanager
async def selected(server: ImapServer, **settings: Any) -> AsyncIterator[tuple[Client, Session]]:
    async with client_of(server) as client:
        session = await client.connect(**settings)
        await client.call(session.select, "INBOX")
        yield client, session
        await client.call(session.close)
