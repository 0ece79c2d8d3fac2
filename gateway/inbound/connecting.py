"""A session for a touchpoint: its password read, its authority's certificates loaded once, its server dialled."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from gateway.config.providers import PROFILES
from gateway.connections import reach
from gateway.errors import Unavailable
from gateway.inbound import session as imap
from gateway.inbound.parts import Parts
from gateway.inbound.session import LoginRefused, Session

_LITERAL_SLACK: Final = 1024 * 1024  # servers estimate RFC822.SIZE; a little more than the limit is still read


class Connector:
    """Opens sessions of one touchpoint; at most two live at a time (providers count: PROVIDERS, defaults to ship)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._passwords = trio.CapacityLimiter(1)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session for the block: with a goodbye when it ends well, cut when it does not."""
        session = await self.connect()
        try:
            yield session
            await self._parts.call(session.logout)
        finally:
            with trio.CancelScope(shield=True), suppress(Unavailable):  # the bridge is closed, and with it the session
                await self._parts.call(session.close)

    async def connect(self) -> Session:
        """Return a logged-in session. Raises LoginRefused, Unavailable."""
        touchpoint = self._parts.touchpoint
        server = touchpoint.imap
        assert server is not None, "only an inbound touchpoint has a mailbox to watch"
        if touchpoint.password is None:
            raise LoginRefused(f"{touchpoint.id} has no password; name one in rules.toml (password = …)")
        password = await trio.to_thread.run_sync(
            touchpoint.password.resolve, limiter=self._passwords, abandon_on_cancel=True
        )
        tls = None if server.scheme.endswith("+insecure") else await _tls_context(touchpoint.ca_file)
        return await self._parts.bridge.call(
            partial(
                imap.connect,
                server,
                tls,
                touchpoint.imap_login,
                password,
                literal_bytes=self._parts.largest + _LITERAL_SLACK,
                uid_only=PROFILES[touchpoint.provider].uid_only,
            )
        )


_contexts: dict[tuple[Path | None, float], ssl.SSLContext] = {}


async def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the one context for this authority; the system's roots are 100,000 lines to parse and some memory."""

    def make() -> ssl.SSLContext:
        try:
            changed_at = ca_file.stat().st_mtime if ca_file else 0.0
        except OSError:
            changed_at = 0.0
        key = (ca_file, changed_at)
        if key not in _contexts:
            _contexts[key] = reach.tls_context(ca_file)
        return _contexts[key]

    return await trio.to_thread.run_sync(make)
