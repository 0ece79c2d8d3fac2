"""The inbound door: an arrival → stored → judged → in a queue. Every inbound message enters here.

Two transactions a message (DESIGN §4). After the first it is ours whatever happens; nothing has parsed it yet, so
that no message can crash us before it is stored. Between the two stands the only broad `except` of the inbound path,
around one message: what breaks the scanner or a rule still reaches the linked queues, as it is.

A message that takes the whole process down is met at the next start: tries are committed before each, one message at
a time, and the third does without looking into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from gateway import events
from gateway.config import Config, Touchpoint
from gateway.errors import NotStored, Unavailable
from gateway.inbound.inquiry import Inquiry, Look
from gateway.mime.scan import HeaderFacts, scan
from gateway.model import (
    UNROUTED,
    Arrival,
    Findings,
    MessageClass,
    Placeholder,
    Role,
    Step,
    Verdict,
    from_ms,
    show_id,
    to_ms,
)
from gateway.rules.chain import Chain, compile_chain, last_resort
from gateway.rules.conversation import Ties, is_reopening, thread_keys, ties_of
from gateway.rules.dsn import read_report
from gateway.rules.returned import interpret, queue_of_writer
from gateway.state import bounces, mailboxes, queues, raw
from gateway.state.answers import Answer, Given
from gateway.state.bounces import HardBounces, Returned
from gateway.state.mailboxes import ArrivalResult, NewArrival
from gateway.state.queues import Routed, RoutedResult, Unrouted
from gateway.state.store import Store
from gateway.state.ticket import Ticket

LAST_TRY = 3  # begun twice and never finished: the message, or what it meets here, ends the process
UNREAD_SUBJECT = "(a message that could not be read)"
# Who writes from an address, or answers from it by a machine, has a mailbox there
_FROM_PEOPLE = frozenset({MessageClass.HUMAN, MessageClass.AUTO_REPLY})
LOOKS_TOGETHER = 32  # messages of one batch that are looked at concurrently
LOOKS_LONGEST = 30.0  # seconds for all of a batch, and as many more as it has tens of messages: it has to go on
_RETRY_SECONDS = (1, 5, 15, 60)  # for messages that are stored and could not be routed; the last one repeats

_Seen = tuple[HeaderFacts, Findings, tuple[Step, ...]] | Exception  # the steps tell how finding out went


class Answers(Protocol):
    """Knows what is answered automatically, and how."""

    async def prepare(
        self,
        touchpoint: Touchpoint,
        config: Config,
        facts: HeaderFacts,
        verdict: Verdict,
        findings: Findings,
        internal_at: datetime,
    ) -> Answer | Step | None: ...

    def settle(self, answer: Answer, given: Given | None) -> None:
        """Called for each answer when its message is routed. `given`: what became of it."""
        ...


class Intake:
    """Takes arrivals in and finds what was left half done. Used from Trio only.

    `current`: the configuration in force; read once a batch, so that no message sees half of two. `wake`: called with
    the names of queues that have something new. `hard`: learns which addresses bounced for good, and which are in use.
    `inquiry`: finds out what the header does not say. `answers`: writes automatic answers; None: there are none.
    """

    def __init__(
        self,
        store: Store,
        current: Callable[[], Config],
        *,
        wake: Callable[[Sequence[str]], None] = lambda names: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        hard: HardBounces | None = None,
        inquiry: Inquiry | None = None,
        answers: Answers | None = None,
    ) -> None:
        self._store = store
        self._answers = answers
        self._inquiry = inquiry if inquiry is not None else Inquiry(store)
        self._hard = hard if hard is not None else HardBounces()
        self._current = current
        self._wake = wake
        self._now_ms = now_ms
        self._compiled: tuple[Config, Chain] | None = None
        self._compiling = trio.Lock()
        # Arrived, and the store was away when they were to be routed; with the reason to leave them unread, if any.
        self._stranded: dict[int, str | None] = {}
        self._has_stranded = trio.Event()

    async def accept(self, arrivals: Sequence[Arrival]) -> list[RoutedResult | None]:
        """Store the arrivals, then judge and place them; return where each went, None where it was known already.

        Durable on return. Raises Unavailable when the store cannot take them: what it has not taken is the caller's
        to bring again, what it has taken will be placed by us. Raises NotStored, after all others have been placed,
        for those that the store has a quarrel with. Cancelling before all bytes are handed over leaves nothing behind
        that counts; later it has to wait, for a stored message without a place would be seen by nobody.
        """
        staged = await self._stage(arrivals)
        with trio.CancelScope(shield=True):
            tickets = [self._store.submit(mailboxes.arrive, NewArrival(arrival, chunks)) for arrival, chunks in staged]
            taken, away, faults = await _settled(tickets)
            fresh: list[Unrouted] = []
            for (arrival, chunks), result in zip(staged, taken, strict=True):
                if result is None or result.kind in ("known", "moved"):
                    raw.abandon(self._store, chunks)
                    continue
                assert result.id is not None
                location = arrival.location
                if result.kind == "replaced":
                    events.say("fetched-at-last", queue_id=show_id(result.id), touchpoint=arrival.touchpoint)
                    continue
                events.arrived(show_id(result.id), arrival.touchpoint, arrival.size, location.folder, location.uid)
                is_junk = arrival.role is Role.JUNK
                fresh.append(
                    Unrouted(
                        result.id,
                        arrival.touchpoint,
                        arrival.size,
                        arrival.raw,
                        is_junk,
                        arrival.placeholder,
                        to_ms(arrival.internal_at),
                    )
                )
            placed = await self._route(fresh)
        if away is not None:
            raise away
        if faults:
            names = ", ".join(sorted({type(fault).__name__ for fault in faults.values()}))
            raise NotStored(f"it could not be stored: {names}", frozenset(arrivals[index].id for index in faults))
        return [placed.get(arrival.id) for arrival in arrivals]

    async def _stage(self, arrivals: Sequence[Arrival]) -> list[tuple[Arrival, tuple[raw.Chunk, ...]]]:
        staged: list[tuple[Arrival, tuple[raw.Chunk, ...]]] = []
        try:
            for arrival in arrivals:
                if arrival.staged is not None:
                    staged.append((arrival, arrival.staged.chunks))
                else:
                    staged.append((arrival, await raw.stage(self._store, arrival.id, arrival.raw)))
        except BaseException:
            for _, chunks in staged:
                raw.abandon(self._store, chunks)
            raise
        return staged

    async def resume(self) -> int:
        """Route what arrived and was not routed when the last run ended; return how many. Call it before `accept`."""
        count = after = 0
        while waiting := await self._store.read(queues.unrouted_arrivals, after):
            for id, _ in waiting:
                await self._try_again(id)
            after, count = waiting[-1][0], count + len(waiting)
        if count:
            events.say("resumed", messages=count)
        return count

    async def run(self) -> None:
        """Place messages that were stored while the store could not take their place: until cancelled."""
        failures = 0
        while True:
            await self._has_stranded.wait()
            await trio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
            try:
                for id, unread in sorted(self._stranded.items()):
                    # no new try is counted: that the disk was full does not speak against the message
                    await self._route(await self._store.read(queues.load_unrouted, [id]), unread)
                    del self._stranded[id]
            except Unavailable as error:
                failures += 1
                events.warn("still-unrouted", messages=len(self._stranded), cause=str(error))
                continue
            failures = 0
            if not self._stranded:  # another may have come while these were placed
                self._has_stranded = trio.Event()

    # --- one message -------------------------------------------------------------------------------------------------

    async def _try_again(self, id: int) -> None:
        # One at a time, each with its try committed first: whoever ends the process must not be counted against
        # those that only stood beside it.
        tries = await self._store.submit(queues.begin_routing, id)
        if not tries:
            return
        waiting = await self._store.read(queues.load_unrouted, [id])
        with trio.CancelScope(shield=True):
            await self._route(waiting, unread="it could not be routed twice" if tries >= LAST_TRY else None)

    async def _route(self, messages: Sequence[Unrouted], unread: str | None = None) -> dict[int, RoutedResult]:
        """T2 of each. Raises Unavailable when the store is away; these messages are tried again by `run`."""
        if not messages:
            return {}
        config = self._current()
        chain: Chain | None = None
        if unread is None:
            try:
                chain = await self._chain(config)
            except Exception as error:  # they are stored, and nobody else would ever place them
                events.bug("rules-failed", error)
                unread = f"the rules cannot be used: {type(error).__name__}"
        away: Unavailable | None = None
        decided: list[tuple[Unrouted, Routed, Ticket[RoutedResult]]] = []
        seen = {} if chain is None else await self._look(messages, config, chain)
        for message in messages:
            try:
                if chain is None:
                    routed = self._unread(message, config, unread or "")
                else:
                    routed = await self._decide(message, config, chain, seen[message.id])
            except Unavailable as error:
                away = error
                self._strand(message.id, unread)
                continue
            decided.append((message, routed, self._store.submit(queues.route, routed)))
            await trio.lowlevel.checkpoint()  # the judging is ours to bound, the number of messages is not
        placed: dict[int, RoutedResult] = {}
        for message, routed, ticket in decided:
            try:
                placed[message.id] = await self._placed(message, config, routed, ticket)
            except Unavailable as error:
                away = error
                self._strand(message.id, unread)
            except Exception as error:  # not even unread: a fault of ours, and the next start tries again
                events.bug("routing-failed-twice", error, queue_id=show_id(message.id), touchpoint=message.touchpoint)
        if away is not None:
            raise away
        return placed

    def _strand(self, id: int, unread: str | None) -> None:
        self._stranded[id] = unread
        self._has_stranded.set()

    async def _placed(
        self, message: Unrouted, config: Config, routed: Routed, ticket: Ticket[RoutedResult]
    ) -> RoutedResult:
        try:
            result = await ticket
        except Unavailable:
            self._give_up_answer(routed)  # it is judged again, and answered anew
            raise
        except Exception as error:
            events.bug("routing-failed", error, queue_id=show_id(message.id), touchpoint=message.touchpoint)
            self._give_up_answer(routed)
            routed = self._unread(message, config, "what was found in it could not be stored")
            result = await self._store.submit(queues.route, routed)
        events.routed(
            show_id(message.id),
            message.touchpoint,
            show_id(result.conversation),
            routed.verdict.message_class.value,
            ",".join(result.queues),
            routed.message_id,
        )
        if UNROUTED in result.queues:
            events.warn("unrouted", queue_id=show_id(message.id), touchpoint=message.touchpoint)
        self._learn(routed)
        if self._answers is not None and isinstance(routed.answer, Answer):
            self._answers.settle(routed.answer, result.given)
        self._wake(result.queues)
        return result

    def _learn(self, routed: Routed) -> None:
        """Tell of what a report has changed, now that it is on disk."""
        if routed.redeems:
            self._hard.forget(routed.touchpoint, routed.sender)
        if (returned := routed.returned) is None or routed.verdict.quarantine:
            return
        self._hard.learn(routed.touchpoint, returned.hard, routed.at)
        for _, note in returned.bounced:
            events.say("bounced", queue_id=show_id(returned.outbox), report=show_id(routed.id), note=note)

    async def _look(self, messages: Sequence[Unrouted], config: Config, chain: Chain) -> dict[int, _Seen]:
        """Return of each message what its header says and what was found out beyond it, or why that was not possible.

        They are looked at together, for what is asked may be far away; they are judged in their order afterwards.
        """
        seen: dict[int, _Seen] = {}
        waiting: list[tuple[Unrouted, HeaderFacts, Look]] = []
        at = from_ms(self._now_ms())
        for message in messages:
            try:
                facts = scan(message.head)
                look = self._inquiry.begin(message, facts, config, chain, at)
                seen[message.id] = facts, look.findings, look.steps
            except Exception as error:
                seen[message.id] = error
                continue
            if look.is_waiting:
                waiting.append((message, facts, look))
            await trio.lowlevel.checkpoint()  # the reading is ours to bound, the number of messages is not
        few = trio.CapacityLimiter(LOOKS_TOGETHER)

        async def one(message: Unrouted, facts: HeaderFacts, look: Look) -> None:
            async with few:
                try:
                    seen[message.id] = facts, await look.take(), look.steps
                except Exception as error:
                    seen[message.id] = error
                except trio.Cancelled:
                    seen[message.id] = facts, look.findings, look.steps
                    raise

        if waiting:
            with trio.move_on_after(LOOKS_LONGEST + len(waiting) / 10):
                async with trio.open_nursery() as nursery:
                    for each in waiting:
                        nursery.start_soon(one, *each)
        return seen

    async def _decide(self, message: Unrouted, config: Config, chain: Chain, seen: _Seen) -> Routed:
        """Return what is to be written of it. Nothing is waited for between the last look at the blocks and the return,
        so that a block either finds its mail in the store or is found by it.
        """
        while True:
            routed = await self._judge(message, config, chain, seen)
            routed = await self._with_answer(routed, message, config, seen)
            if isinstance(seen, Exception) or seen[1].block or not self._inquiry.find_block(message, seen[0]):
                return routed
            self._give_up_answer(routed)
            facts, findings, steps = seen
            seen = facts, replace(findings, block=self._inquiry.find_block(message, facts)), steps

    async def _judge(self, message: Unrouted, config: Config, chain: Chain, seen: _Seen) -> Routed:
        try:
            if isinstance(seen, Exception):
                raise seen
            facts, findings, steps = seen
            if message.placeholder is Placeholder.BLIND:  # what it says is ours: no rule is about that
                verdict = self._last_resort(message, config, "nothing of the message could be had")
            else:
                ask = partial(
                    chain.decide, message.touchpoint, facts, message.size, junk=message.junk, findings=findings
                )
                # What may take long runs beside the loop; the library of patterns lets go of the interpreter meanwhile
                verdict = await trio.to_thread.run_sync(ask) if chain.is_costly(message.touchpoint) else ask()
                verdict = replace(verdict, trail=(*verdict.trail[:1], *steps, *verdict.trail[1:]))  # behind the class
            routed = Routed(
                id=message.id,
                touchpoint=message.touchpoint,
                verdict=verdict,
                ties=ties_of(message.touchpoint, facts),
                message_id=facts.message_id,
                subject=facts.subject,
                sender=facts.from_.address,
                sender_name=facts.from_.name,
                is_reopening=is_reopening(verdict.message_class, facts),
                conversation=self._store.ids.next(),
                at=self._now_ms(),
                findings=findings,
            )
            if verdict.message_class is MessageClass.BOUNCE:
                return await self._understand(routed, message, config)
            if verdict.message_class in _FROM_PEOPLE:
                known = self._hard.of(message.touchpoint, facts.from_.address)
                return replace(routed, redeems=known is not None)
            return routed
        except Unavailable:  # the store; it is judged again when that is back
            raise
        except Exception as error:
            events.bug("judging-failed", error, queue_id=show_id(message.id), touchpoint=message.touchpoint)
            return self._unread(message, config, f"judging it failed: {type(error).__name__}")

    async def _with_answer(self, routed: Routed, message: Unrouted, config: Config, seen: _Seen) -> Routed:
        """Return it with its automatic answer, or with the reason why there is none where the touchpoint gives any."""
        touchpoint = config.touchpoints.get(message.touchpoint)
        if (
            self._answers is None
            or touchpoint is None
            or message.placeholder is not None
            or isinstance(seen, Exception)
        ):
            return routed
        facts, findings, _ = seen
        try:
            answer = await self._answers.prepare(
                touchpoint, config, facts, routed.verdict, findings, from_ms(message.internal_at)
            )
        except Unavailable:
            raise
        except Exception as error:  # an answer is nothing that a message should be held up for
            events.bug("answering-failed", error, queue_id=show_id(message.id), touchpoint=message.touchpoint)
            return routed
        return replace(routed, answer=answer)

    def _give_up_answer(self, routed: Routed) -> None:
        if self._answers is not None and isinstance(routed.answer, Answer):
            self._answers.settle(routed.answer, None)

    async def _understand(self, routed: Routed, message: Unrouted, config: Config) -> Routed:
        """Return a bounce with what it says, and with the message of ours that it is about, if it is."""
        report = read_report(message.head)
        found = await self._store.read(bounces.find, routed.touchpoint, report, routed.at)
        meaning = interpret(report, found.sent, is_known=found.is_known)
        about = thread_keys(routed.touchpoint, (*report.message_ids, *report.related)) if found.is_known else ()
        routed = replace(routed, note=meaning.note, about=about)
        if (sent := found.sent) is None:
            return replace(routed, is_reopening=routed.is_reopening and meaning.is_failure)
        writer = config.agents.get(sent.agent.lower())
        is_told = meaning.is_wanted and writer is not None and writer.active
        verdict = routed.verdict
        trail = [*verdict.trail, Step("bounce", f"about {show_id(sent.id)}", "joined to what it is about")]
        if verdict.junk_alone and meaning.is_proven:  # a provider that sees many forged reports distrusts all of them
            trail.append(Step("provider", "it lies in the provider's Junk, and is about mail of ours", "no quarantine"))
            verdict = replace(verdict, quarantine=False, junk_alone=False)
        return replace(
            routed,
            verdict=replace(verdict, trail=tuple(trail)),
            is_reopening=meaning.is_failure,
            returned=Returned(
                sent.id,
                queue_of_writer(sent) if is_told else None,
                adopts=meaning.is_failure,
                bounced=meaning.bounced,
                hard=meaning.hard,
            ),
        )

    def _unread(self, message: Unrouted, config: Config, cause: str) -> Routed:
        return Routed(
            id=message.id,
            touchpoint=message.touchpoint,
            verdict=self._last_resort(message, config, cause),
            ties=Ties(),
            message_id="",
            subject=UNREAD_SUBJECT,
            sender="",
            sender_name="",
            is_reopening=True,
            conversation=self._store.ids.next(),
            at=self._now_ms(),
        )

    def _last_resort(self, message: Unrouted, config: Config, cause: str) -> Verdict:
        touchpoint = config.touchpoints.get(message.touchpoint)
        return last_resort(touchpoint.linked_queues if touchpoint else (), cause, junk=message.junk)

    async def _chain(self, config: Config) -> Chain:
        async with self._compiling:
            if self._compiled is None or self._compiled[0] is not config:
                # a thousand rules take a tenth of a second
                self._compiled = config, await trio.to_thread.run_sync(compile_chain, config)
            return self._compiled[1]


async def _settled(
    tickets: Sequence[Ticket[ArrivalResult]],
) -> tuple[list[ArrivalResult | None], Unavailable | None, dict[int, Exception]]:
    """Wait for all; return the results, None where one failed; whether the store was away; faults by place."""
    results: list[ArrivalResult | None] = []
    away: Unavailable | None = None
    faults: dict[int, Exception] = {}
    for index, ticket in enumerate(tickets):
        try:
            results.append(await ticket)
            continue
        except Unavailable as error:
            away = away or error
        except Exception as error:
            events.bug("storing-failed", error)
            faults[index] = error
        results.append(None)
    return results, away, faults
