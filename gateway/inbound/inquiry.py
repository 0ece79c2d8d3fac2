"""What is found out about a message beyond its header, before the rules are asked: blocks, authentication, a score,
whether its sender is known, and what lies in its body.

Nothing here may keep mail from going on. Whatever is away, too slow or broken leaves its part of the findings empty,
and no condition about that part holds; only the store's own absence is the caller's business. Everything has a time
limit of its own, and all of it together has `TOGETHER`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import trio

from gateway import events
from gateway.config import Config, Touchpoint
from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.inbound.scoring import Letter
from gateway.mime.reading import Content
from gateway.mime.scan import HeaderFacts
from gateway.model import Authentication, Findings, Placeholder, Score, Step, show_id
from gateway.rules.chain import Chain
from gateway.rules.match import Need
from gateway.rules.received import border
from gateway.state import correspondents, raw
from gateway.state.queues import Unrouted
from gateway.state.store import Store

TOGETHER: Final = 15.0  # seconds, for one message
_INSIDE: Final = frozenset({Need.BODY, Need.ATTACHMENTS})
_LATE: Final = _INSIDE | {Need.KNOWN_SENDER}  # what is asked only where a rule hangs on it
_LARGE_BYTES: Final = 4 * 1024 * 1024
_LARGE_TOGETHER: Final = 2  # large messages that are in memory at a time


class Authenticator(Protocol):
    """Knows whether the sender is who they say."""

    async def authenticate(
        self, raw_of: Callable[[], Awaitable[bytes]], facts: HeaderFacts, touchpoint: Touchpoint, config: Config
    ) -> Authentication: ...


class Scanner(Protocol):
    """Knows how much a message looks like spam. Raises Unavailable, within the time that the configuration gives it."""

    async def score(self, spam: Spam, letter: Letter) -> Score: ...


class Blocks(Protocol):
    """Knows whose mail is not wanted. Answers at once."""

    def find(self, touchpoint: str, addresses: Sequence[str]) -> str:
        """Return the pattern that one of the addresses (lower case) meets, "" none."""
        ...


# Returns what lies in a message, from somewhere that bears it when that ends badly. Raises what goes wrong.
Read = Callable[[bytes], Awaitable[Content]]


class Inquiry:
    """Used from Trio only. What is None is not asked."""

    def __init__(
        self,
        store: Store,
        *,
        authenticator: Authenticator | None = None,
        scanner: Scanner | None = None,
        blocks: Blocks | None = None,
        read: Read | None = None,
    ) -> None:
        self._store = store
        self._read = read
        self._authenticator = authenticator
        self._scanner = scanner
        self._blocks = blocks
        self._large = trio.CapacityLimiter(_LARGE_TOGETHER)

    def begin(self, message: Unrouted, facts: HeaderFacts, config: Config, chain: Chain, at: datetime) -> Look:
        """Return what could be found out at once, and what has still to be waited for. `at`: now."""
        touchpoint = config.touchpoints.get(message.touchpoint)
        findings = Findings(at=at, block=self.find_block(message, facts))
        look = Look(self._store, message, facts, config, findings, self._large)
        if touchpoint is None or message.placeholder is Placeholder.BLIND:
            return look
        is_whole = message.placeholder is None  # what stands in for a message has only its header
        if not _LATE.isdisjoint(chain.needs(message.touchpoint)):
            look.parts.append(partial(look.look_closer, chain, self._read if is_whole else None))
        if not is_whole:
            return look
        if self._authenticator is not None:
            look.parts.append(partial(look.authenticate, self._authenticator, touchpoint))
        if self._scanner is not None and config.rules.spam.scanner:
            look.findings = replace(look.findings, no_score="the scanner did not answer in time")
            look.parts.append(partial(look.score, self._scanner, touchpoint))
        return look

    def find_block(self, message: Unrouted, facts: HeaderFacts) -> str:
        """Return the block that its sender meets now, "" none."""
        if self._blocks is None:
            return ""
        addresses = [box.address.lower() for box in facts.authors if box.address]
        if facts.return_path:
            addresses.append(facts.return_path.lower())
        return self._blocks.find(message.touchpoint, addresses)


class Look:
    """One message that is looked at. `findings` fill as answers come."""

    def __init__(
        self,
        store: Store,
        message: Unrouted,
        facts: HeaderFacts,
        config: Config,
        findings: Findings,
        large: trio.CapacityLimiter,
    ) -> None:
        self._store = store
        self._message = message
        self._facts = facts
        self._config = config
        self._large = large
        self._away: Unavailable | None = None  # the store
        self._raw: bytes | None = message.head if len(message.head) >= message.size else None
        self._loading = trio.Lock()
        self.findings = findings
        self.steps: tuple[Step, ...] = ()  # what is to be told of how it went
        self.parts: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_waiting(self) -> bool:
        """Is there anything that takes time?"""
        return bool(self.parts)

    async def take(self) -> Findings:
        """Wait for all parts together, within the time; return what came of them. Raises Unavailable only when the
        store is away.
        """
        if self._message.size > _LARGE_BYTES:
            async with self._large:
                return await self._take()
        return await self._take()

    async def _take(self) -> Findings:
        with trio.move_on_after(TOGETHER) as scope:
            async with trio.open_nursery() as nursery:
                for part in self.parts:
                    nursery.start_soon(self._safely, part)
        if self._away is not None:
            raise self._away
        if scope.cancelled_caught:
            self._warn(f"not everything was answered within {TOGETHER:g} s")
        return self.findings

    async def authenticate(self, authenticator: Authenticator, touchpoint: Touchpoint) -> None:
        found = await authenticator.authenticate(self.raw, self._facts, touchpoint, self._config)
        self.findings = replace(self.findings, authentication=found)

    async def look_closer(self, chain: Chain, read: Read | None) -> None:
        """Find out what only some rules ask, if one of them hangs on it."""
        ask = partial(chain.wants, self._message.touchpoint, self._facts, self._message.size, self.findings)
        is_costly = chain.is_costly(self._message.touchpoint)
        wanted = await trio.to_thread.run_sync(ask) if is_costly else ask()
        if Need.KNOWN_SENDER in wanted:
            await self._know_sender()
        if read is not None and not _INSIDE.isdisjoint(wanted):
            await self._look_inside(read)

    async def _know_sender(self) -> None:
        address = self._facts.from_.address
        try:
            known = await self._store.read(correspondents.is_known, self._message.touchpoint, address)
        except Unavailable as error:
            self._away = error
            raise
        self.findings = replace(self.findings, known_sender=known)

    async def _look_inside(self, read: Read) -> None:
        self.steps = (Step("content", "it was not read in time", "not known"),)
        try:
            content = await read(await self.raw())
        except Exception as error:
            cause = str(error) if isinstance(error, Unavailable) else type(error).__name__
            self.steps = (Step("content", f"it could not be read: {cause}", "not known"),)
            raise
        self.findings = replace(self.findings, body=content.body, attachments=content.attachments)
        self.steps = (Step("content", "it is larger than we read", "known in part"),) if content.cut else ()

    async def score(self, scanner: Scanner, touchpoint: Touchpoint) -> None:
        peer = border(self._facts)
        letter = Letter(
            size=self._message.size,
            raw_of=self.raw,
            id=show_id(self._message.id),
            return_path=self._facts.return_path,
            recipient=touchpoint.address,
            ip=str(peer.ip) if peer is not None else "",
            helo=peer.helo if peer is not None else "",
        )
        try:
            found = await scanner.score(self._config.rules.spam, letter)
        except Unavailable as error:  # the scanner has told the log, once and not for each message
            self.findings = replace(self.findings, no_score=str(error))
            return
        except Exception as error:
            self.findings = replace(self.findings, no_score=f"asking the scanner failed: {type(error).__name__}")
            raise
        self.findings = replace(self.findings, score=found, no_score="")

    async def raw(self) -> bytes:
        """Return the whole message. Raises Unavailable when it cannot be had."""
        async with self._loading:
            if self._raw is None:
                try:
                    self._raw = await self._store.read(raw.load, self._message.id)
                except Unavailable as error:
                    self._away = error
                    raise
            if self._raw is None:
                raise Unavailable("its bytes are gone")
            return self._raw

    async def _safely(self, part: Callable[[], Awaitable[None]]) -> None:
        try:
            await part()
        except Unavailable as error:
            self._warn(str(error))
        except Exception as error:
            events.bug("inquiry-failed", error, queue_id=show_id(self._message.id), touchpoint=self._message.touchpoint)

    def _warn(self, cause: str) -> None:
        events.warn(
            "not-found-out", queue_id=show_id(self._message.id), touchpoint=self._message.touchpoint, cause=cause
        )
