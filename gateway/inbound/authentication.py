"""Is the sender who they say? The provider's word where it gives one, otherwise our own look: SPF, DKIM, ARC, DMARC.

Our own look asks the DNS, so it is bounded (`TOGETHER`), and it is only taken at mail that came just now: the keys and
records of old mail are gone, and their absence would speak against honest people. Nothing that is away, slow or broken
ever becomes a "fail".
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import trio

from gateway.bridge import Bridge
from gateway.config import Config, Touchpoint
from gateway.config.providers import PROFILES, Profile
from gateway.errors import Unavailable
from gateway.inbound.resolver import Resolver
from gateway.mime.scan import HeaderFacts
from gateway.model import Authentication
from gateway.rules import authenticity, authres, dmarc, received, signatures, spf
from gateway.rules.authres import Said
from gateway.rules.dmarc import Dmarc, Identifiers
from gateway.rules.dns import Kind, Question, Unanswered
from gateway.rules.signatures import Sealed, Signed
from gateway.rules.spf import Spf
from gateway.workers import WorkerPool

TOGETHER: Final = 10.0  # seconds for everything about one message
_STEP: Final = 7.0  # seconds for SPF and DKIM, so that DMARC still has its turn
_FRESH: Final = timedelta(days=3)  # since the provider took it; keys are changed at leisure, not within days
_SIGNATURE_BYTES: Final = 50_000_000  # a larger message is not read for its signatures

RawOf = Callable[[], Awaitable[bytes]]


class Authenticator:
    """Used from Trio only. `now`: seconds since 1970. `on_silence`: of the resolver, see there."""

    def __init__(
        self,
        bridge: Bridge,
        workers: WorkerPool,
        *,
        now: Callable[[], float] = time.time,
        on_silence: Callable[[str | None], None] = lambda cause: None,
    ) -> None:
        self._bridge = bridge
        self._workers = workers
        self._now = now
        self._on_silence = on_silence
        self._resolver: tuple[tuple[str, ...], Resolver] | None = None

    async def authenticate(
        self, raw_of: RawOf, facts: HeaderFacts, touchpoint: Touchpoint, config: Config
    ) -> Authentication:
        """Return what is known about the sender. `raw_of`: the whole message; may raise Unavailable."""
        profile = PROFILES[touchpoint.provider]
        said = authres.read(facts, touchpoint.authserv_ids or profile.authserv_ids)
        told = authenticity.of_provider(said, touchpoint.provider) if said is not None else None
        inbound = config.gateway.inbound
        if inbound.authentication == "provider":
            return told or Authentication()
        now = datetime.fromtimestamp(self._now(), UTC)
        came_at = _came_at(facts) or now
        if now - came_at > _FRESH:
            return told or Authentication(detail="it came too long ago to ask the DNS about it")
        look = _Look(self, raw_of, facts, said, profile, came_at)
        with trio.move_on_after(TOGETHER):
            if told is not None and told.dmarc:
                if told.dmarc == "fail":
                    told = await look.reconsider(told, inbound.trusted_sealers, self._ready(inbound.resolvers))
                return told
            await look.take(touchpoint.provider, inbound.trusted_sealers, self._ready(inbound.resolvers))
        if told is not None and told.dmarc:
            return told
        return look.found or look.unfinished(touchpoint.provider)

    def _ready(self, servers: tuple[str, ...]) -> Resolver:
        if self._resolver is None or self._resolver[0] != servers:
            self._resolver = servers, Resolver(servers, on_silence=self._on_silence)
        return self._resolver[1]

    async def check_dkim(self, raw: bytes, records: signatures.Records, at: float) -> list[Signed]:
        return await self._bridge.call(_work, self._workers, raw, records, at)

    async def check_arc(self, raw: bytes, records: signatures.Records, at: float) -> list[Sealed] | None:
        return await self._bridge.call(_work_on_arc, self._workers, raw, records, at)


async def _work(workers: WorkerPool, raw: bytes, records: signatures.Records, at: float) -> list[Signed]:
    return await workers.run(signatures.check_dkim, raw, records, at, timeout=_STEP)


async def _work_on_arc(workers: WorkerPool, raw: bytes, records: signatures.Records, at: float) -> list[Sealed] | None:
    return await workers.run(signatures.check_arc, raw, records, at, timeout=_STEP)


class _Look:
    """Our own look at one message. What stays None was not looked at, or there was nothing to look at."""

    def __init__(
        self,
        authenticator: Authenticator,
        raw_of: RawOf,
        facts: HeaderFacts,
        said: Said | None,
        profile: Profile,
        came_at: datetime,
    ) -> None:
        self._authenticator = authenticator
        self._raw_of = raw_of
        self._facts = facts
        self._said = said
        self._is_touched = profile.rewrites_mail
        self._at = came_at.timestamp()
        self._authors = authenticity.authors_of(facts)
        self._spf: Spf | None = None
        self._signed: list[Signed] | None = None
        self._dmarc = Dmarc("temperror", detail=f"not everything was answered within {TOGETHER:g} s")
        self.found: Authentication | None = None

    async def take(self, provider: str, trusted: Sequence[str], resolver: Resolver) -> None:
        async with trio.open_nursery() as nursery:
            if not (self._said and self._said.spf):
                nursery.start_soon(self._check_spf, resolver)
            if not (self._said and self._said.dkim):
                nursery.start_soon(self._check_dkim, resolver)
        known = authenticity.identifiers(self._said, self._spf, self._signed, is_touched=self._is_touched)
        self._dmarc = await resolver.settle(dmarc.evaluate(self._authors, known))
        via = ""
        if self._dmarc.result in ("fail", "temperror") and trusted:
            via = await self._find_sealer(trusted, resolver)
        self.found = self._sum_up(provider, via)

    async def reconsider(self, told: Authentication, trusted: Sequence[str], resolver: Resolver) -> Authentication:
        """Return a provider's "fail" with what it leaves open: what the author asks for, and who passed it on."""
        policy = told.policy
        if not policy:
            policy = (await resolver.settle(dmarc.evaluate(self._authors, Identifiers()))).policy
        if trusted:
            self._dmarc = Dmarc("fail", policy)
            if via := await self._find_sealer(trusted, resolver):
                by = f"{told.by} and {authenticity.US}"
                return replace(
                    told, dmarc="pass", policy="", by=by, detail=f"{told.detail}: {via} vouches for it (ARC)"
                )
        return replace(told, policy=policy)

    def unfinished(self, provider: str) -> Authentication:
        """Return what is known when the time is over."""
        return self._sum_up(provider, "")

    def _sum_up(self, provider: str, via: str) -> Authentication:
        return authenticity.found_out(
            self._said, self._spf, self._signed, self._dmarc, provider=provider, is_touched=self._is_touched, via=via
        )

    async def _check_spf(self, resolver: Resolver) -> None:
        peer = received.border(self._facts)
        return_path = self._facts.return_path
        if peer is None or return_path is None:
            return
        self._spf = Spf("temperror", detail="the DNS took too long")
        with trio.move_on_after(_STEP):
            self._spf = await resolver.settle(spf.check(peer.ip, return_path, peer.helo))

    async def _check_dkim(self, resolver: Resolver) -> None:
        names = signatures.keys_of(self._facts, self._authors[0] if self._authors else "")
        if not names:
            self._signed = [] if not self._facts.truncated else None
            return
        self._signed = [Signed("", "temperror", "its signatures could not be looked at in time")]
        with trio.move_on_after(_STEP):
            records = await _records(resolver, names)
            try:
                raw = await self._raw_of()
                if len(raw) > _SIGNATURE_BYTES:
                    self._signed = None
                    return
                self._signed = await self._authenticator.check_dkim(raw, records, self._at)
            except Unavailable as error:
                self._signed = [Signed("", "temperror", str(error))]

    async def _find_sealer(self, trusted: Sequence[str], resolver: Resolver) -> str:
        """Return the trusted host that saw the message while it was still whole (RFC 8617), "" for none."""
        names = signatures.arc_keys_of(self._facts)
        if not names:
            return ""
        records = await _records(resolver, names)
        sealed: list[Sealed] | None = None
        try:
            raw = await self._raw_of()
            if len(raw) <= _SIGNATURE_BYTES:
                sealed = await self._authenticator.check_arc(raw, records, self._at)
        except Unavailable:
            records = {**records, "": None}
        via = authenticity.vouched(sealed or (), trusted, self._authors)
        if sealed is None and None in records.values() and self._dmarc.result == "fail":
            self._dmarc = Dmarc("temperror", self._dmarc.policy, "who forwarded it could not be looked at")
        return via


async def _records(resolver: Resolver, names: Sequence[str]) -> Mapping[str, str | None]:
    """Return the key record of each name, "" for none, None where the DNS did not answer."""
    found: dict[str, str | None] = {}

    async def one(name: str) -> None:
        try:
            answer = await resolver.ask(Question(name, Kind.TXT))
        except Unanswered:
            found[name] = None
        else:
            keys = [record for record in answer if "p=" in record.replace(" ", "")]
            found[name] = keys[0] if keys else ""

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)
    return found


def _came_at(facts: HeaderFacts) -> datetime | None:
    """Return when the provider took the message, by its own topmost Received field; None where that says nothing."""
    text = facts.value("received").rpartition(";")[2]
    text = re.sub(r"\([^()]*\)", " ", text)[:80]
    try:
        parsed = parsedate_to_datetime(text.strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
