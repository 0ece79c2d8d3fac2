"""Takes in what lies in Sent: replies that an agent wrote in the provider's webmail or on a phone.

Their headers alone tell which messages answer a conversation of ours and did not go through us; only those are
fetched. They stand in their conversation, and it is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import trio

from gateway import events
from gateway.errors import Unavailable
from gateway.inbound.fetch import Headed, Listed
from gateway.inbound.identity import SENT_FIELDS
from gateway.inbound.plan import Pass, Planned, PlanStep, Take
from gateway.inbound.taking import Lost, Piece, Taking, each, give_way
from gateway.mime.scan import HeaderFacts, scan
from gateway.model import Arrival, show_id, to_ms
from gateway.state import locations, raw, sent
from gateway.state.locations import Leaving
from gateway.state.sent import Candidate, Learning, SentArrival


class SentTaking(Taking):
    """As `Taking`, for the folder Sent."""

    async def take(
        self, steps: Sequence[PlanStep], listed: Mapping[int, Listed], tries: Mapping[int, int] | None = None
    ) -> None:
        for step in steps:
            if isinstance(step, Pass):
                for piece in await self._prepare(step, listed, tries or {}):
                    await self.hand_over(piece)
            else:
                await self._sort(step, listed, tries or {})

    async def _sort(self, step: Take, listed: Mapping[int, Listed], tries: Mapping[int, int]) -> None:
        """Fetch those that belong to a conversation, and leave the others, in the order of the plan."""
        uids = tuple(item.uid for item in step.messages)
        try:
            headed: list[Headed] = await each(self._parts, self._headed, uids)
        except Unavailable as error:
            raise Lost(error, uids) from error
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
            alone = Take((message,))
            for piece in await self._prepare(alone, listed, tries):
                await self.hand_over(piece)
        await self._leave(others)

    async def _headed(self, uids: Sequence[int]) -> list[Headed]:
        return await self._session.headed(uids, SENT_FIELDS)

    async def _leave(self, others: Sequence[Planned]) -> None:
        if others:
            uids = tuple(item.uid for item in others)
            await self._store.submit(locations.leave, Leaving(self._place, uids, others[0].follows, others[-1].uid))

    async def hand_over(self, piece: Piece) -> None:
        if isinstance(piece, Sequence):
            for arrival in piece:
                await self._record(arrival)
        else:
            await self.note(piece)

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
    return Candidate(
        uid,
        facts.message_id,
        facts.value("x-microsoft-original-message-id"),
        (*facts.in_reply_to, *reversed(facts.references)),
    )
