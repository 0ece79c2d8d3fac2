"""Takes in what lies in Sent: replies that an agent wrote in the provider's webmail or on a phone.

Their headers alone tell which messages answer a conversation of ours and did not go through us; only those are
fetched. They stand in their conversation, and it is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import trio

from gateway import events
from gateway.errors import NotStored, Unavailable
from gateway.inbound.fetch import Headed, Listed
from gateway.inbound.identity import SENT_FIELDS
from gateway.inbound.parts import each, give_way
from gateway.inbound.plan import Pass, Planned, PlanStep, Take
from gateway.inbound.taking import Taking
from gateway.mime.scan import HeaderFacts, scan
from gateway.mime.trace import traces
from gateway.model import Arrival, show_id, to_ms
from gateway.rules.classify import auto_submitted
from gateway.state import locations, raw, sent
from gateway.state.locations import Leaving
from gateway.state.sent import Candidate, Learning, SentArrival

# A forward refers to what it forwards and answers nobody, unless it goes to the customer. An answer may go to another
# address than the customer wrote from (Reply-To), so only what looks like a forward is asked for its recipients.
_FORWARD: Final = re.compile(r"\s*(?:fwd?|wg|tr|rv|i|enc|vs|vb|doorst|pd|fs)\s*:", re.IGNORECASE)


class SentTaking(Taking):
    """As `Taking`, for the folder Sent."""

    async def take(
        self, steps: Sequence[PlanStep], listed: Mapping[int, Listed], tries: Mapping[int, int] | None = None
    ) -> None:
        for step in steps:
            if isinstance(step, Pass):
                await self._fetch_alone(step, listed, tries or {})
            else:
                await self._sort(step, listed, tries or {})

    async def _sort(self, step: Take, listed: Mapping[int, Listed], tries: Mapping[int, int]) -> None:
        """Fetch those that belong to a conversation, and leave the others, in the order of the plan."""
        uids = tuple(item.uid for item in step.messages)
        headed: list[Headed] = await each(self._parts, self._headed, uids)
        facts: dict[int, HeaderFacts] = {}
        for number, item in enumerate(headed):
            await give_way(number)
            facts[item.listed.uid] = scan(item.header)
        candidates = tuple(_candidate(uid, fact) for uid, fact in facts.items())
        if any(one.original_id for one in candidates):
            await self._store.submit(sent.learn, Learning(self._place.touchpoint, candidates))
        wanted = await self._store.read(sent.examine, self._place.touchpoint, candidates)
        others: list[Planned] = []
        for message in step.messages:
            if message.uid in facts and message.uid not in wanted:
                others.append(message)
                continue
            await self._leave(others)
            others = []
            await self._fetch_alone(Take((message,)), listed, tries)
        await self._leave(others)

    async def _fetch_alone(self, step: PlanStep, listed: Mapping[int, Listed], tries: Mapping[int, int]) -> None:
        prepared = await self._prepare(step, listed, tries)
        await self._hand_over_all(prepared.pieces, tries)
        if prepared.lost is not None:
            raise prepared.lost

    async def _headed(self, uids: Sequence[int]) -> list[Headed]:
        return await self._session.headed(uids, SENT_FIELDS)

    async def _leave(self, others: Sequence[Planned]) -> None:
        if others:
            uids = tuple(item.uid for item in others)
            await self._store.submit(locations.leave, Leaving(self._place, uids, others[0].follows, others[-1].uid))

    async def _accept(self, arrivals: Sequence[Arrival]) -> None:
        faults: dict[int, Exception] = {}
        for arrival in arrivals:
            try:
                await self._record(arrival)
            except Unavailable:
                raise
            except Exception as error:
                events.bug("storing-failed", error, touchpoint=arrival.touchpoint)
                faults[arrival.id] = error
        if faults:
            names = ", ".join(sorted({type(fault).__name__ for fault in faults.values()}))
            raise NotStored(f"it could not be stored: {names}", frozenset(faults))

    async def _record(self, arrival: Arrival) -> None:
        facts = scan(arrival.raw)
        staged = arrival.staged
        chunks = staged.chunks if staged else await raw.stage(self._store, arrival.id, arrival.raw)
        item = SentArrival(
            arrival,
            chunks,
            _candidate(arrival.location.uid, facts),
            facts.subject,
            to_ms(datetime.now(UTC)),
            facts.from_.address,
            facts.from_.name,
        )
        with trio.CancelScope(shield=True):  # what was staged is given back only when the row cannot come any more
            try:
                recorded = await self._store.submit(sent.record, item)
            except BaseException:
                raw.abandon(self._store, chunks)
                raise
        if recorded.conversation is None:
            raw.abandon(self._store, chunks)
            return
        events.say(
            "sent-elsewhere",
            queue_id=show_id(arrival.id),
            touchpoint=arrival.touchpoint,
            conversation=show_id(recorded.conversation),
            message_id=facts.message_id,
        )


def _candidate(uid: int, facts: HeaderFacts) -> Candidate:
    """`facts`: of the whole header, or of SENT_FIELDS, which tells all that `examine` asks."""
    recipients = {box.address.lower() for box in (*facts.to, *facts.cc)} if _FORWARD.match(facts.subject) else ()
    return Candidate(
        uid,
        facts.message_id,
        facts.value("x-microsoft-original-message-id"),
        (*facts.in_reply_to, *reversed(facts.references)),
        auto_submitted=auto_submitted(facts) not in ("", "no"),
        recipients=tuple(recipients),
        queue_ids=tuple(trace.queue_id for trace in traces(facts.block)),
    )
