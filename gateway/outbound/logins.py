"""Lets agents in: one guess at a time for each login from each place, a wrong one answered late, and later each time.

Failures are counted by (address, login), as `patience.py` tells. While the answer to a wrong password is held back, the
next guess at the same login from the same place waits for it, on whatever connection it came: guessing on a hundred
connections at once is no faster than on one. A login that was right a moment ago waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Final

from gateway import events
from gateway.config import Config
from gateway.errors import Unavailable
from gateway.outbound.passwords import Login, Passwords
from gateway.outbound.patience import Patience

WRONG: Final = "535 5.7.8 wrong login or password"
_LONGEST_WAIT: Final = 30.0  # seconds for one's turn; a client gives up about then
_NAME_LETTERS: Final = 254  # of a login that is remembered or logged


class Logins:
    """On the asyncio thread. `closing`: set when the server goes down; nobody is kept waiting then."""

    def __init__(
        self, current: Callable[[], Config], passwords: Passwords, clock: Callable[[], float], closing: asyncio.Event
    ) -> None:
        self._current = current
        self._passwords = passwords
        self._clock = clock
        self._closing = closing
        self._patience = Patience(clock)
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._waiting: dict[tuple[str, str], int] = {}

    async def log_in(self, login: bytes, password: bytes, address: str) -> Login | str:
        """Return the verified login, or the reply."""
        name = login.decode("utf-8", "replace").strip().lower()[:_NAME_LETTERS]
        place = place_of(address)
        try:
            if found := await self._passwords.recall(login, password):
                self._patience.succeeded(place, name)
                return found
            if self._trusts(address):
                return await self._verify(login, password, name, address) or WRONG
            return await self._verify_in_turn(login, password, name, address, place)
        except Unavailable as error:
            events.warn("logins-unavailable", cause=str(error))
            return "454 4.7.0 logins cannot be checked just now; try again later"

    async def _verify_in_turn(self, login: bytes, password: bytes, name: str, address: str, place: str) -> Login | str:
        came = self._clock()
        async with self._turn(place, name):
            if self._clock() - came > _LONGEST_WAIT:
                events.warn("too-many-guesses", login=name, address=address)
                return "454 4.7.0 too many failed logins; try again later"
            if found := await self._verify(login, password, name, address):
                self._patience.succeeded(place, name)
                return found
            is_known = name in self._current().agents
            await self._pause(self._patience.failed(place, name, is_known=is_known))
        return WRONG

    async def _verify(self, login: bytes, password: bytes, name: str, address: str) -> Login | None:
        is_stranger = not (self._trusts(address) or self._patience.is_good(place_of(address)))
        found = await self._passwords.verify(login, password, is_stranger=is_stranger)
        if found is None:
            events.login_failed(name, address)
        return found

    @contextlib.asynccontextmanager
    async def _turn(self, place: str, name: str) -> AsyncIterator[None]:
        key = place, name
        lock = self._turns.setdefault(key, asyncio.Lock())
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._turns[key]

    def _trusts(self, address: str) -> bool:
        networks = self._current().gateway.submission.trusted_networks
        return bool(networks) and any(_ip(address) in network for network in networks)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


@lru_cache(maxsize=4096)
def place_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that one IPv6 customer has to choose from."""
    ip = _ip(address)
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    # A socket for both families, as systemd may hand us one, shows IPv4 in the clothes of IPv6
    return getattr(ip, "ipv4_mapped", None) or ip
