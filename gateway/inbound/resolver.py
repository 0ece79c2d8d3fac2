"""The DNS, asked within limits: answers are kept as long as they may be, and a resolver that is silent is left alone.

Nobody waits here longer than `PATIENCE` for one answer. Who asks for what somebody else is asking for waits with them.
When the resolver has let several questions pass without a word, all others are told so at once for a while, instead of
each message waiting anew; then one question finds out whether it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.resolver
import trio
from cachetools import TLRUCache

from gateway import events
from gateway.config.gateway_file import split_resolver
from gateway.rules.dns import Answer, Inquiry, Kind, Question, Unanswered

T = TypeVar("T")

PATIENCE: Final = 3.0  # seconds for one answer, all servers and tries together
KEPT: Final = 4_096  # answers
_KEPT_CHARACTERS: Final = 4_000_000  # of all answers together
_LONGEST_TTL: Final = 3_600.0
_SHORTEST_TTL: Final = 30.0  # a batch of messages from one sender costs one question
_LONGEST_NEGATIVE_TTL: Final = 300.0
_FAILURE_TTL: Final = 10.0  # a name whose own servers are broken: not again for each message of a batch
_SILENT_AFTER: Final = 4  # questions in a row without any answer
_SILENCE: Final = 30.0  # seconds until it is asked again
_AT_A_TIME: Final = 32
_RECORDS: Final = 200  # of one answer


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Answer
    failure: str  # why there is no answer; "" when there is one
    until: float


@dataclass(slots=True)
class _Asked:
    """A question that is under way."""

    done: trio.Event = field(default_factory=trio.Event)
    kept: _Kept | None = None


class Resolver:
    """Belongs to the Trio thread. `servers`: "address" or "address:port", () for the system's own.

    `on_silence`: told when the resolver falls silent, with what to say about it, and with None when it is back.
    """

    def __init__(
        self, servers: Sequence[str] = (), *, on_silence: Callable[[str | None], None] = lambda cause: None
    ) -> None:
        self._servers = tuple(servers)
        self._on_silence = on_silence
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._cache: TLRUCache[Question, _Kept] = TLRUCache(
            _KEPT_CHARACTERS, ttu=lambda question, kept, now: kept.until, timer=trio.current_time, getsizeof=_weight
        )
        self._under_way: dict[Question, _Asked] = {}
        self._few = trio.CapacityLimiter(_AT_A_TIME)
        self._unheard = 0  # questions in a row that met silence
        self._silent_until = 0.0

    async def settle(self, inquiry: Inquiry[T]) -> T:
        """Return what a core's inquiry comes to."""
        try:
            question = next(inquiry)
            while True:
                try:
                    answer = await self.ask(question)
                except Unanswered as error:
                    question = inquiry.throw(error)
                else:
                    question = inquiry.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            inquiry.close()

    async def ask(self, question: Question) -> Answer:
        """Return the records, () for none. Raises Unanswered, which is never the same as none."""
        while (kept := self._cache.get(question)) is None:
            if (other := self._under_way.get(question)) is not None:
                await other.done.wait()
                kept = other.kept
                if kept is not None:
                    break
                continue  # whoever asked was cancelled
            asked = self._under_way[question] = _Asked()
            try:
                kept = asked.kept = await self._find_out(question)
                self._keep(question, kept)
                break
            finally:
                del self._under_way[question]
                asked.done.set()
        if kept.failure:
            raise Unanswered(kept.failure)
        return kept.answer

    def _keep(self, question: Question, kept: _Kept) -> None:
        while len(self._cache) >= KEPT:
            self._cache.popitem()
        self._cache[question] = kept

    async def _find_out(self, question: Question) -> _Kept:
        now = trio.current_time()
        if now < self._silent_until:
            return _Kept((), "the DNS resolver does not answer", now)
        async with self._few:
            return await self._query(question)

    async def _query(self, question: Question) -> _Kept:
        try:
            if self._resolver is None:
                self._resolver = _make(self._servers)
            found = await self._resolver.resolve(
                question.name, question.kind.value, search=False, raise_on_no_answer=False, lifetime=PATIENCE
            )
        except dns.resolver.NXDOMAIN as error:
            self._heard()
            return self._none(_negative_ttl(error))
        except dns.resolver.LifetimeTimeout:
            self._unheard_again()
            return self._failed(f"the DNS did not answer in {PATIENCE:g} s: {question.kind.value} of {question.name}")
        except (dns.resolver.NoNameservers, dns.resolver.YXDOMAIN):
            self._heard()
            return self._failed(f"the DNS failed: {question.kind.value} of {question.name}")
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            return self._none(_SHORTEST_TTL)
        except dns.resolver.NoResolverConfiguration:
            self._unheard_again()
            return self._failed("this system has no DNS resolver")
        except (dns.exception.DNSException, OSError, ValueError) as error:
            self._unheard_again()
            return self._failed(f"the DNS cannot be asked: {type(error).__name__}")
        self._heard()
        if found.rrset is None:
            return self._none(found.chaining_result.minimum_ttl)
        ttl = min(max(float(found.rrset.ttl), _SHORTEST_TTL), _LONGEST_TTL)
        return _Kept(_read(question.kind, found.rrset), "", trio.current_time() + ttl)

    def _none(self, ttl: float) -> _Kept:
        return _Kept((), "", trio.current_time() + min(max(ttl, _SHORTEST_TTL), _LONGEST_NEGATIVE_TTL))

    def _failed(self, why: str) -> _Kept:
        return _Kept((), why, trio.current_time() + _FAILURE_TTL)

    def _heard(self) -> None:
        if self._silent_until:
            self._silent_until = 0.0
            events.say("resolver-answers")
            self._on_silence(None)
        self._unheard = 0

    def _unheard_again(self) -> None:
        self._unheard += 1
        if self._unheard < _SILENT_AFTER:
            return
        if not self._silent_until:
            events.warn("resolver-silent", cause=f"{self._unheard} questions in a row had no answer")
            self._on_silence("the DNS resolver does not answer: senders are not authenticated")
        self._silent_until = trio.current_time() + _SILENCE
        self._resolver = None  # the system may have been given another one


def _make(servers: Sequence[str]) -> dns.asyncresolver.Resolver:
    """Return a resolver. Raises NoResolverConfiguration where the system names none."""
    resolver = dns.asyncresolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*split_resolver(server)) for server in servers]
    resolver.timeout = PATIENCE / 2  # so that a second server, or a second try, has its chance
    resolver.use_edns(0, 0, 1232)
    resolver.cache = None
    return resolver


def _weight(kept: _Kept) -> int:
    return 200 + sum(map(len, kept.answer))


def _negative_ttl(error: Any) -> float:
    """Return how long a name's absence may be believed (RFC 2308)."""
    try:
        return float(error.response(next(iter(error.responses()))).resolve_chaining().minimum_ttl)
    except (dns.exception.DNSException, KeyError, StopIteration, ValueError):
        return _SHORTEST_TTL


def _read(kind: Kind, records: Any) -> Answer:
    if kind is Kind.TXT:  # latin-1: any bytes come through, and an ASCII record is what it is
        return tuple(b"".join(one.strings).decode("latin-1") for one in list(records)[:_RECORDS])
    if kind is Kind.MX:
        ordered = sorted(records, key=lambda one: int(one.preference))[:_RECORDS]
        return tuple(_name(one.exchange) for one in ordered)
    if kind is Kind.PTR:
        return tuple(_name(one.target) for one in list(records)[:_RECORDS])
    return tuple(str(one.address) for one in list(records)[:_RECORDS])


def _name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
