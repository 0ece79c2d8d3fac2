"""What is due, sent over a touchpoint's connections. Lives in the asyncio thread.

`drain` sends all that is due and returns. Each connection is worked by one task: claim a message, send it, record
what became of it and claim the next in the same commit. The first connection is dialled alone; only when it works do
others follow, so an outage costs one attempt, not one for each message that waits.

Every message is in one of these places at any moment, and each is safe to stop in:

    claimed         committed: attempt counted, due again after one step of backoff
    begun           committed: `sending`; DATA may follow
    outcome known   until its commit returns, the answer is in this task alone: nothing cancels it but a bound
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from gateway import events
from gateway.errors import Unavailable
from gateway.model import Fate, Outcome, Phase, from_ms, show_id
from gateway.outbound.addressing import plain
from gateway.outbound.attempt import (
    Moment,
    Settings,
    Sign,
    change_of,
    conclude,
    leaves_something_to_look_at,
    letter_of,
    log_attempt,
    part_of,
    put_back,
    refuse_beforehand,
    wants_an_address,
)
from gateway.outbound.links import IDLE_SECONDS, Links, Stopped
from gateway.outbound.notices import notices_of, wants_notice
from gateway.outbound.offers import Offers
from gateway.outbound.outcome import Cause, Decision, Judged, Trouble, Wait, decide, defer_for, refuse_all
from gateway.outbound.relay import Link, NoLink, Timeouts
from gateway.outbound.schedule import ladder_ms
from gateway.state import outbox
from gateway.state.lifecycle import LaneEvent
from gateway.state.outbox import Begin, Claimed, Done, Step, Want
from gateway.state.store import Store

_MOST_RECIPIENTS: Final = 100  # of one transaction, where nobody says more
_STOP_SECONDS: Final = 15.0  # for attempts in flight, when we are told to stop; the daemon drains for 20
_TELL_MS: Final = 1_000
_STORE_SECONDS: Final = 1.0  # between two tries to record an outcome that the disk would not take
_STORE_AWAY_MS: Final = 5_000  # before the next claim, after the disk would not take one


@dataclass(frozen=True, slots=True)
class Connected:
    """The provider let us in. `host`: its server."""

    host: str


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages are being handed over, the last one `at`; told once a second at most."""

    at: datetime


Told = Connected | Sent | Trouble
"""What the pool tells whoever watches over the touchpoint."""


@dataclass(frozen=True, slots=True)
class Drained:
    """`not_before` (ms): when to come again although more is due, None for no such wish. `claims`: messages tried."""

    not_before: int | None
    claims: int


class Pool:
    """See the module. All methods belong to the asyncio thread; what it calls is called there.

    `ring`: there is something for the touchpoint's mailbox to look at. `sign`: see `attempt.Sign`.
    """

    def __init__(
        self,
        store: Store,
        tell: Callable[[Told], None],
        *,
        ring: Callable[[], None] = lambda: None,
        offers: Offers | None = None,
        sign: Sign | None = None,
        timeouts: Timeouts | None = None,
        idle_seconds: float = IDLE_SECONDS,
        stop_seconds: float = _STOP_SECONDS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._tell = tell
        self._ring = ring
        self._offers = offers
        self._sign = sign
        self._links = Links(timeouts or Timeouts(), idle_seconds)
        self._stop_seconds = stop_seconds
        self._now_ms = now_ms
        self._dice = dice
        self._settings: Settings | None = None
        self._backoffs: tuple[int, ...] = ()
        self._probe_again = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[object] | None] = set()  # workers that hold a claim, or have asked for one
        self._starts: deque[float] = deque()  # see `_starts_of`
        self._not_before: int | None = None
        self._claims = 0
        self._told_at = 0
        self._fault: BaseException | None = None
        self._is_stopping = False
        _pools.add(self)

    # --- from the dispatcher -----------------------------------------------------------------------------------------

    async def drain(self, settings: Settings) -> Drained:
        """Send what is due until nothing is, or the lane is shut, or the pace says wait.

        Cancelled, it starts nothing more and returns when what was in flight is recorded, within a bound; behind it
        links are cut, and what they cut is recorded for what it is. Raises what a fault of ours raised.
        """
        self._settings = settings
        self._starts = _starts_of.setdefault(self._store, {}).setdefault(settings.touchpoint.id, self._starts)
        policy = settings.policy
        self._backoffs = ladder_ms(policy.delays, policy.spread, self._dice())
        (self._probe_again,) = ladder_ms(policy.probe_delays[:1], 0, 0)
        self._is_stopping = False
        self._not_before = None
        self._claims = 0
        self._fault = None
        self._spawn()
        try:
            while self._workers:
                await asyncio.wait(self._workers)
        except asyncio.CancelledError:
            await self._stop()
            raise
        if self._fault is not None:
            raise self._fault
        return Drained(self._not_before, self._claims)

    def nudge(self) -> None:
        """More is due: put another connection to work if the pace allows one. No drain under way, no effect."""
        if self._workers:
            self._spawn()

    async def close(self) -> None:
        """End the connections, and wait until they are gone, within a bound. No drain may be under way."""
        await self._links.close()

    def hurry(self) -> None:
        """Cut every connection now."""
        self._is_stopping = True
        self._links.abort_dials()
        self._links.abort_busy("the gateway is stopping at once")

    # --- workers -----------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        if self._is_stopping or len(self._workers) >= self._links.room(self._of):
            return
        if self._workers and not self._links.has_proven:
            return  # the first one still finds out whether the provider is there
        worker = asyncio.get_running_loop().create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self._busy.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            if isinstance(error, Unavailable):  # the store; the daemon knows it by itself
                self._come_again(self._now_ms() + _STORE_AWAY_MS)
            elif self._fault is None:
                self._fault = error

    async def _work(self) -> None:
        link = self._links.take_idle(self._of)
        try:
            claimed = await self._claim(link)
            while claimed is not None:
                if link is None:
                    link = await self._dial(claimed)
                    if link is None:
                        return
                if claimed.more and link.completed:
                    self._spawn()
                link, claimed = await self._deliver(link, claimed)
        finally:
            if link is not None:
                self._put_back(link)

    async def _deliver(self, link: Link, claimed: Claimed) -> tuple[Link | None, Claimed | None]:
        """Play one message, record it, and claim the next; the link comes back while it can be used."""
        judged, begun, decision, fault = await self._play(link, claimed)
        done = conclude(claimed, judged, begun, decision, self._of, self._moment())
        if wants_notice(claimed, done, tells_success=link.offer.dsn):
            done = await self._with_notice(done, claimed, judged, link)

        is_usable = decision.is_reusable and link.is_alive and not self._is_worn(link)
        goes_on = decision.trouble is None and not self._is_stopping and fault is None
        want = self._want(link) if is_usable and goes_on and self._take_token() else None
        following = await self._step(Step(done, want))
        log_attempt(claimed, done, link.server.host)
        if leaves_something_to_look_at(done):
            self._ring()
        if done.counted:
            self._tell_sent(done.at)
        if decision.trouble is not None:
            self._tell(decision.trouble)
        if fault is not None:
            raise fault
        if not is_usable:
            self._links.end(link)
        if want is None and goes_on:
            following = await self._claim(link if is_usable else None)
        elif want is not None:
            self._count_claim(following)
        return (link if is_usable else None), following

    def _tell_sent(self, at: int) -> None:
        """Once a second is enough for a person, and each telling wakes another thread."""
        if at - self._told_at >= _TELL_MS:
            self._told_at = at
            self._tell(Sent(from_ms(at)))

    async def _play(self, link: Link, claimed: Claimed) -> tuple[list[Judged], set[int], Decision, Exception | None]:
        """Return each recipient's outcome, the indexes of those that are `sending`, the decision about the rest, and
        the fault of ours that ended it, which must not keep what happened from being recorded."""
        known = [refuse_beforehand(recipient.address, claimed.smtputf8) for recipient in claimed.recipients]
        wanted = [index for index, one in enumerate(known) if one is None]
        offer = link.offer
        part = part_of([claimed.recipients[index].address for index in wanted], offer.recipients, offer.domains)
        if len(part) < len(wanted):
            later = Outcome(Fate.DEFERRED, Phase.RCPT, None, f"the server takes {len(part)} of them at a time")
            known = [Judged(later, Wait.NOW) if one is None else one for one in known]
            wanted = [wanted[index] for index in part]
        begun = set(range(len(known))) if claimed.begun else set()
        fault: Exception | None = None

        async def read_chunk(number: int) -> bytes | None:
            return await self._store.read(outbox.read_chunk, claimed.id, number)

        async def begin(taken: Sequence[int]) -> bool:
            chosen = [wanted[index] for index in taken]
            rows = tuple((claimed.recipients[index].number, claimed.recipients[index].before) for index in chosen)
            if await self._store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows)):
                begun.update(chosen)
                return True
            return False

        signature, unsigned = await self._signature(claimed) if wanted else (b"", None)
        recipients = [claimed.recipients[index] for index in wanted]
        letter = letter_of(claimed, recipients, self._of, self._now_ms(), read_chunk, signature)
        if not wanted:
            decision = Decision((), None, True, False)
        elif unsigned is not None:
            decision = Decision((defer_for(unsigned, Phase.MAIL),) * len(wanted), unsigned, True, False)
        elif (refusal := link.refusal(letter)) is not None:
            decision = refuse_all(len(wanted), Phase.MAIL, refusal)
        else:
            try:
                transcript = await link.transact(letter, None if claimed.begun else begin)
                if transcript is not None and wants_an_address(letter, transcript):
                    letter = replace(letter, return_path=plain(self._of.touchpoint.address))
                    transcript = await link.transact(letter, None if claimed.begun else begin)
            except Exception as error:
                fault = error
                transcript = link.written_so_far("a fault of the gateway")
            if transcript is None:
                overtaken = Judged(Outcome(Fate.DEFERRED, Phase.RCPT, None, "tried again meanwhile"), Wait.NOW)
                decision = Decision((overtaken,) * len(wanted), None, True, False)
            else:
                decision = decide(transcript, table=self._of.table, null_return_path=not letter.return_path)
        for index, one in zip(wanted, decision.judged, strict=True):
            known[index] = one
        return [one for one in known if one is not None], begun, decision, fault

    async def _signature(self, claimed: Claimed) -> tuple[bytes, Trouble | None]:
        if self._sign is None:
            return b"", None
        try:
            return await self._sign(claimed), None
        except Unavailable as error:
            return b"", Trouble(LaneEvent.HOLD, Cause.DKIM, f"the message cannot be signed: {error}")

    async def _with_notice(self, done: Done, claimed: Claimed, judged: Sequence[Judged], link: Link) -> Done:
        head = claimed.raw
        if head is None:
            head = b""
            with suppress(Unavailable):  # the provider's answer is told, and recorded, also without our header
                head = await self._store.read(outbox.read_chunk, claimed.id, 0) or b""
        notices = notices_of(
            claimed,
            judged,
            done,
            head,
            address=self._of.touchpoint.address,
            hostname=self._of.hostname,
            relay=link.server.host,
            tells_success=link.offer.dsn,
            next_id=self._store.ids.next,
        )
        return replace(done, notices=notices)

    # --- claims ------------------------------------------------------------------------------------------------------

    async def _claim(self, link: Link | None) -> Claimed | None:
        if self._is_stopping or not self._take_token():
            return None
        claimed = await self._step(Step(None, self._want(link)))
        self._count_claim(claimed)
        return claimed

    def _want(self, link: Link | None) -> Want:
        me = asyncio.current_task()
        self._busy.add(me)
        # On a connection that has proven itself and takes DATA with the envelope, `sending` goes into the same commit:
        # the round trips in between are few, and each saved commit is one message a connection less in flight.
        # Not where we sign first: what takes its time, and may fail, comes before `sending`.
        begin = self._sign is None and link is not None and link.completed > 0 and link.offer.pipelining
        return Want(
            self._of.touchpoint.id,
            self._now_ms(),
            self._backoffs,
            begin,
            self._of.touchpoint.pace.per_day,
            self._probe_again,
            self._most_recipients(link),
            len(self._busy - {me}),
        )

    def _most_recipients(self, link: Link | None) -> int:
        """Return how many recipients one transaction may have: the pace's word and the server's, else what every
        server must take (RFC 5321 §4.5.3.1.8)."""
        said = (self._of.touchpoint.pace.recipients, link.offer.recipients if link is not None else None)
        return min((most for most in said if most is not None), default=_MOST_RECIPIENTS)

    def _take_token(self) -> bool:
        """Return whether the pace allows a message now, and count it; otherwise note when it will."""
        per_minute = self._of.touchpoint.pace.per_minute
        if per_minute is None:
            return True
        now = asyncio.get_running_loop().time()
        while self._starts and self._starts[0] <= now - 60:
            self._starts.popleft()
        if len(self._starts) < per_minute:
            self._starts.append(now)
            return True
        self._come_again(self._now_ms() + round((self._starts[0] + 60 - now) * 1000) + 1)
        return False

    def _count_claim(self, claimed: Claimed | None) -> None:
        if claimed is not None:
            self._claims += 1
            return
        self._busy.discard(asyncio.current_task())
        if self._of.touchpoint.pace.per_minute is not None and self._starts:
            self._starts.pop()  # there was nothing to send: the token goes back

    def _come_again(self, at: int) -> None:
        self._not_before = at if self._not_before is None else min(self._not_before, at)

    async def _step(self, step: Step) -> Claimed | None:
        """Hand a step to the store; an outcome is handed in again until the disk takes it, for nobody else has it."""
        is_told = False
        while True:
            try:
                return await self._store.submit(outbox.step, step)
            except Unavailable as error:
                if step.done is None or self._is_stopping:
                    raise
                if not is_told:
                    events.fail("cannot-record", queue_id=show_id(step.done.id), cause=str(error))
                    is_told = True
            await asyncio.sleep(_STORE_SECONDS)
            step = replace(step, want=None)

    # --- connections -------------------------------------------------------------------------------------------------

    async def _dial(self, claimed: Claimed) -> Link | None:
        """Return a new connection for a claimed message; without one, the message is put back and what that means
        for the lane is recorded with it."""
        try:
            link = await self._links.dial(self._of)
        except NoLink as no:
            await self._record_no_link(claimed, no)
            return None
        except Stopped:
            stopping = defer_for(Trouble(LaneEvent.PAUSE, Cause.UNREACHABLE, "the gateway was stopping"), Phase.CONNECT)
            await self._step(Step(put_back(claimed, stopping, None, self._of, self._moment())))
            return None
        if self._offers is not None:
            self._offers.learn(claimed.touchpoint, str(link.server), link.offer.lasting)
        self._tell(Connected(link.server.host))
        return link

    async def _record_no_link(self, claimed: Claimed, no: NoLink) -> None:
        at = self._moment()
        change = None
        if self._links.alive:
            self._links.narrow(claimed.touchpoint, no)
        else:
            change = change_of(no.trouble, self._of, at)
        done = put_back(claimed, defer_for(no.trouble, no.phase, no.reply), change, self._of, at)
        await self._step(Step(done))
        log_attempt(claimed, done, self._of.touchpoint.smtp.host if self._of.touchpoint.smtp else "-")
        if change is not None:
            self._tell(no.trouble)

    def _is_worn(self, link: Link) -> bool:
        limits = (self._of.touchpoint.pace.per_connection, link.offer.mails)
        return any(limit is not None and link.completed >= limit for limit in limits)

    def _put_back(self, link: Link) -> None:
        if self._is_stopping or self._is_worn(link):
            self._links.end(link)
        else:
            self._links.put_back(link)

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self._is_stopping = True
        self._links.abort_dials()
        await self._wait_for_workers(self._stop_seconds)
        self._links.abort_busy("the gateway was stopping")
        await self._wait_for_workers(self._stop_seconds)
        for worker in self._workers:
            worker.cancel()

    async def _wait_for_workers(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._workers and (left := deadline - loop.time()) > 0:
            try:
                await asyncio.wait(self._workers, timeout=left)
            except asyncio.CancelledError:
                continue  # the bridge repeats itself; we are on our way

    def _moment(self) -> Moment:
        return Moment(self._now_ms(), self._dice())

    @property
    def _of(self) -> Settings:
        assert self._settings is not None
        return self._settings


# When a touchpoint's messages of the last minute were begun, by the loop's clock. A minute goes on while a reload puts
# another pool in the place of this one.
_starts_of: WeakKeyDictionary[Store, dict[str, deque[float]]] = WeakKeyDictionary()

_pools: WeakSet[Pool] = WeakSet()


def hurry() -> None:
    """Cut every connection of every pool, for a stop that cannot wait. Call it in the asyncio thread."""
    for pool in list(_pools):
        pool.hurry()
