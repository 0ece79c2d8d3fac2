"""A touchpoint's connections to its provider: dialled, used again, ended politely. Lives in the asyncio thread.

How many there are is the pace's and the provider's to say: one that refuses one connection more than we have is not
away, it has had enough of them.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from ssl import SSLContext
from typing import Final
from weakref import WeakSet

from gateway import events
from gateway.connections.reach import tls_context
from gateway.errors import Unavailable
from gateway.model import Phase
from gateway.outbound.attempt import Settings
from gateway.outbound.outcome import Cause, Trouble
from gateway.outbound.relay import Link, Login, NoLink, Timeouts, connect
from gateway.state.lifecycle import LaneEvent

IDLE_SECONDS: Final = 30.0  # servers close sooner or later by themselves; a dial costs less than finding that out
_QUIT_SECONDS: Final = 1.0  # for a provider to answer QUIT, when we are told to stop
_NARROW_SECONDS: Final = 60.0  # after the provider refused one more connection


class Stopped(Exception):
    """The dial was called off by `abort_dials`."""


class Links:
    """The connections that are up (busy or idle) and those on their way up or down."""

    def __init__(self, timeouts: Timeouts, idle_seconds: float) -> None:
        self._timeouts = timeouts
        self._idle_seconds = idle_seconds
        self._dials: set[asyncio.Task[Link]] = set()
        self._up: set[Link] = set()
        self._idle: list[Link] = []
        self._leaving: WeakSet[Link] = WeakSet()  # said QUIT, or dropped
        self._narrow = 1
        self._narrow_until = 0.0

    @property
    def alive(self) -> int:
        return sum(link.is_alive for link in self._up)

    @property
    def has_proven(self) -> bool:
        """One of the connections has taken a message, so the provider is there."""
        return any(link.completed for link in self._up)

    def room(self, settings: Settings) -> int:
        """Return how many connections there may be now."""
        connections = settings.touchpoint.pace.connections
        if asyncio.get_running_loop().time() < self._narrow_until:
            return min(connections, self._narrow)
        return connections

    def narrow(self, touchpoint: str, no: NoLink) -> None:
        """The provider refused one connection more: do with those that are up, for a while."""
        self._narrow, self._narrow_until = self.alive, asyncio.get_running_loop().time() + _NARROW_SECONDS
        events.warn("connections-narrowed", touchpoint=touchpoint, connections=self._narrow, cause=str(no))

    # --- up ----------------------------------------------------------------------------------------------------------

    async def dial(self, settings: Settings) -> Link:
        """Return a new connection, logged in. Raises NoLink, or Stopped when all dials are called off."""
        dial = asyncio.get_running_loop().create_task(self._connect(settings))
        self._dials.add(dial)
        try:
            await asyncio.wait((dial,))
            if dial.cancelled():
                raise Stopped
            link = dial.result()
        finally:
            self._dials.discard(dial)
            dial.cancel()
        self._up.add(link)
        return link

    async def _connect(self, settings: Settings) -> Link:
        touchpoint = settings.touchpoint
        server = touchpoint.smtp
        if server is None or touchpoint.auth != "password":
            detail = "sending with OAuth is not yet in force" if server else "the touchpoint has no SMTP server"
            raise NoLink(Trouble(LaneEvent.HOLD, Cause.LOGIN, detail), Phase.LOGIN)
        login = tls = None
        try:
            if touchpoint.password is not None:
                login = Login(touchpoint.smtp_login, await asyncio.to_thread(touchpoint.password.resolve))
            if not server.scheme.endswith("+insecure"):
                tls = await asyncio.to_thread(_tls_for, touchpoint.ca_file)
        except Unavailable as error:
            raise NoLink(Trouble(LaneEvent.HOLD, Cause.LOGIN, str(error)), Phase.LOGIN) from None
        return await connect(
            server,
            hostname=settings.hostname,
            login=login,
            tls=tls,
            timeouts=self._timeouts,
            source_address=settings.source_address,
            table=settings.table,
        )

    def take_idle(self, settings: Settings) -> Link | None:
        """Return a connection that waits for work, if there is one to the server that the settings name."""
        while self._idle:
            link = self._idle.pop()
            if link.is_alive and settings.touchpoint.smtp == link.server:
                return link
            self.end(link)
        return None

    # --- down --------------------------------------------------------------------------------------------------------

    def put_back(self, link: Link) -> None:
        """Keep a connection for the next message, for a while."""
        if not link.is_alive:
            self.end(link)
            return
        self._idle.append(link)
        asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, link, link.completed)

    def _retire(self, link: Link, completed: int) -> None:
        if link in self._idle and link.completed == completed:
            self._idle.remove(link)
            self.end(link)

    def end(self, link: Link) -> None:
        """QUIT, or drop what is out of step. Does not wait."""
        self._up.discard(link)
        self._leaving.add(link)
        link.close()

    def abort_dials(self) -> None:
        for dial in self._dials:
            dial.cancel()

    def abort_busy(self, reason: str) -> None:
        """Cut the connections that are in use; whoever uses them finds out."""
        for link in self._up:
            if link not in self._idle:
                link.wire.abort(reason)

    async def close(self) -> None:
        """End the idle connections, and wait until every connection is gone, within a bound."""
        for link in self._idle:
            self.end(link)
        self._idle.clear()
        await asyncio.gather(*(link.wire.gone(_QUIT_SECONDS) for link in self._leaving))


def _tls_for(ca_file: Path | None) -> SSLContext:
    return _tls_cached(ca_file, None if ca_file is None else _changed_at(ca_file))


@lru_cache(maxsize=64)
def _tls_cached(ca_file: Path | None, changed_at: int | None) -> SSLContext:
    return tls_context(ca_file)


def _changed_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
