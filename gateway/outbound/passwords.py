"""Verifies agents' passwords: argon2 in two threads, and a short memory of what was right a moment ago.

A hash costs a tenth of a second and 64 MiB on purpose. A busy client logs in for every message, so a login that was
verified is remembered for some minutes under a keyed digest of login, password and the very hash it was verified
against: with another hash in force, or an agent switched off, the memory no longer counts. The key lives and dies
with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cachetools import TTLCache

from gateway import events
from gateway.config import Agent, Config
from gateway.errors import Unavailable
from gateway.state import agents
from gateway.state.store import Store

THREADS: Final = 2
_MOST_WAITING: Final = 64  # logins in the queue for a thread; the last of them waits about four seconds
_REMEMBERED_SECONDS: Final = 300
_REMEMBERED: Final = 10_000
_NOTED_SECONDS: Final = (
    60  # "last login" need not be finer; a client that logs in per message must not write per message
)
# Of a password that nobody knows: a login that does not exist must take as long as one that does
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$c4sLUyZhwdVcBdE1YAR7tg$bDAVrobelP3n9UPJcQn1R0s2IQtLl+SLsosUuQIvFuI"


def hash_password(password: str) -> str:
    """Return an argon2id hash with a fresh salt. Takes a tenth of a second: never on a loop."""
    return PasswordHasher().hash(password)


@dataclass(frozen=True, slots=True)
class Login:
    """A verified login: the agent's login as configured, and the hash that proved it."""

    login: str
    password_hash: str


class Passwords:
    """The one place where passwords are checked. Used on the asyncio thread; `forget` from every thread."""

    def __init__(
        self,
        current: Callable[[], Config],
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._current = current
        self._store = store
        self._now = now
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._verified: TTLCache[bytes, None] = TTLCache(_REMEMBERED, _REMEMBERED_SECONDS, timer=clock)
        self._noted: TTLCache[str, None] = TTLCache(_REMEMBERED, _NOTED_SECONDS, timer=clock)
        self._stored: dict[str, str | None] = {}
        self._changes = 0

    async def recall(self, login: bytes, password: bytes) -> Login | None:
        """Return the login if this very password was right a few minutes ago and still is. Costs no hash."""
        name = _name(login)
        expected = await self._hash_in_force(name)
        if expected is None or self._digest(name, password, expected) not in self._verified:
            return None
        self._note(name, succeeded=True)
        return Login(name, expected)

    async def verify(self, login: bytes, password: bytes, *, is_stranger: bool = False) -> Login | None:
        """Return the login when agent and password are right and the agent is active, else None.

        Raises Unavailable when too many wait already, or the store is away. `is_stranger`: nobody has logged in from
        there of late; half of the queue is for all of those together, and no crowd of them keeps others out.
        """
        if found := await self.recall(login, password):
            return found
        name = _name(login)
        expected = await self._hash_in_force(name)
        right = await self._check(expected or _NOBODY, password, _MOST_WAITING // 2 if is_stranger else _MOST_WAITING)
        if expected is None:
            return None
        if not right:
            self._note(name, succeeded=False)
            return None
        if await self._hash_in_force(name) != expected:  # changed or switched off while we were hashing
            return None
        self._verified[self._digest(name, password, expected)] = None
        self._note(name, succeeded=True)
        return Login(name, expected)

    async def still_holds(self, login: Login) -> bool:
        """Would this login still be let in? False once the agent is switched off or has another password."""
        return await self._hash_in_force(login.login) == login.password_hash

    async def change(self, login: str, password: str) -> None:
        """Store a new password; it counts from now on. Durable on return."""
        loop = asyncio.get_running_loop()
        new = await loop.run_in_executor(self._pool, hash_password, password)
        await self._store.submit(agents.set_password, agents.NewPassword(login.lower(), new))
        self.forget(login)

    def forget(self, login: str) -> None:
        """Look up the stored hash of `login` afresh: somebody changed it."""
        self._changes += 1
        self._stored.pop(login.lower(), None)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _hash_in_force(self, name: str) -> str | None:
        agent = self._agent(name)
        if agent is None or not agent.active:
            return None
        if agent.password_hash:
            return agent.password_hash
        if name in self._stored:
            return self._stored[name]
        changes = self._changes
        found = await self._store.read(agents.stored_hash, name)
        if self._changes == changes:  # else what we read may be older than the change
            self._stored[name] = found
        return found

    def _agent(self, name: str) -> Agent | None:
        return self._current().agents.get(name)

    async def _check(self, expected: str, password: bytes, most_waiting: int) -> bool:
        if self._waiting >= most_waiting:
            raise Unavailable("too many logins wait to be verified; they are asked to come again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _matches, expected, password)
        finally:
            self._waiting -= 1

    def _digest(self, name: str, password: bytes, expected: str) -> bytes:
        parts = (name.encode(), expected.encode(), password)
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hashlib.blake2b(framed, key=self._key, digest_size=32).digest()

    def _note(self, name: str, *, succeeded: bool) -> None:
        if succeeded and name in self._noted:
            return
        if succeeded:
            self._noted[name] = None
        else:
            self._noted.pop(name, None)
        with contextlib.suppress(Unavailable):  # stopping: the mail itself is refused in its own words
            self._store.submit(agents.note_login, agents.LoginNote(name, succeeded, self._now()))


def _name(login: bytes) -> str:
    return login.decode("utf-8", "replace").strip().lower()


def _matches(expected: str, password: bytes) -> bool:
    try:
        return PasswordHasher().verify(expected, password)
    except VerificationError:
        return False
    except InvalidHashError:
        events.warn("password-hash-unusable", remedy="set the password again with `mail-gateway passwd`")
        return False
