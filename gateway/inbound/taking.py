"""Takes messages of one open folder in: what the plan says, done.

The next batch is fetched while the last one is being committed. What comes without bytes is asked for once more,
alone, and else owed; a large message goes to the disk in parts as it comes. Nothing here decides anything about mail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import trio

from gateway import events
from gateway.errors import NotStored, Unavailable
from gateway.inbound import plan
from gateway.inbound.fetch import Listed
from gateway.inbound.identity import fingerprint
from gateway.inbound.parts import Lost, Parts, count_owed, give_way
from gateway.inbound.plan import PART_BYTES, Pass, Planned, PlanStep, Take, split
from gateway.inbound.room import SMALL_BYTES
from gateway.inbound.session import NotGiven, Session
from gateway.model import Arrival, Filing, FilingAction, Location, Role, to_ms
from gateway.state import owed, raw
from gateway.state.folders import Place
from gateway.state.owed import Owed, Passage

_EMPTY: Final = "the server lists it and gives no text"


Piece = Sequence[Arrival] | Passage


@dataclass(slots=True)
class _Fetched:
    """`raws`: bytes by UID; `trouble`: why there are none. `lost`: the session went before all was known."""

    raws: dict[int, bytes]
    trouble: dict[int, str] = field(default_factory=dict)
    lost: Lost | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is to be handed over, in order. `lost`: the session went after this much was in hand."""

    pieces: Sequence[Piece]
    lost: Lost | None = None


class Taking:
    """`place`: the open folder, `role`: what it is to us."""

    def __init__(self, parts: Parts, session: Session, place: Place, role: Role) -> None:
        self._parts = parts
        self._store = parts.store
        self._session = session
        self._place = place
        self._role = role
        self._filings = _filings(parts.touchpoint.after_fetch) if role is Role.QUEUE else ()

    async def take(
        self, steps: Sequence[PlanStep], listed: Mapping[int, Listed], tries: Mapping[int, int] | None = None
    ) -> None:
        """Fetch and hand over, one batch ahead. What was fetched whole before a failure is handed over all the same.

        `tries`: how often those were asked for that are owed already. Raises Lost and Unavailable.
        """
        counts = tries or {}
        if len(steps) == 1 and isinstance(steps[0], Pass):
            await self._hand_over_all((await self._prepare(steps[0], listed, counts)).pieces, counts)
            return
        room = self._parts.room
        failures: list[Exception] = []
        send, receive = trio.open_memory_channel[tuple[Sequence[Piece], int]](0)

        async def offer(step: PlanStep, held: int) -> None:
            prepared = _Prepared(())
            try:
                prepared = await self._prepare(step, listed, counts)
                await send.send((prepared.pieces, held))
            except BaseException:
                self._abandon(prepared.pieces)
                room.give(held)
                raise
            if prepared.lost is not None:
                raise prepared.lost

        async def fetch() -> None:
            try:
                async with send:
                    for step in steps:
                        for small, held in self._granted(step):
                            await offer(small, held)
            except trio.BrokenResourceError:
                pass  # the other side has failed and says why
            except (Unavailable, Lost) as error:
                failures.append(error)

        async def hand_over() -> None:
            try:
                async with receive:
                    async for pieces, held in receive:
                        try:
                            await self._hand_over_all(pieces, counts)
                        finally:
                            room.give(held)
            except Unavailable as error:
                failures.insert(0, error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            nursery.start_soon(hand_over)
        if failures:
            raise failures[0]

    def _granted(self, step: PlanStep) -> Iterator[tuple[PlanStep, int]]:
        """Yield the step with the room that was taken for it, or in small pieces that need none."""
        size = 0 if isinstance(step, Pass) else PART_BYTES if step.in_parts else step.total_bytes
        if isinstance(step, Pass) or self._parts.room.take(size):
            yield step, size
        else:
            for small in split(step, SMALL_BYTES):
                yield small, 0

    # --- handing over ------------------------------------------------------------------------------------------------

    async def _hand_over_all(self, pieces: Sequence[Piece], tries: Mapping[int, int]) -> None:
        for number, piece in enumerate(pieces):
            try:
                await self.hand_over(piece, tries)
            except BaseException:
                self._abandon(pieces[number + 1 :])
                raise

    def _abandon(self, pieces: Sequence[Piece]) -> None:
        """Give back what was written ahead of arrivals that nobody hands over."""
        for piece in pieces:
            if not isinstance(piece, Passage):
                for arrival in piece:
                    if arrival.staged is not None:
                        raw.abandon(self._store, arrival.staged.chunks)

    async def hand_over(self, piece: Piece, tries: Mapping[int, int]) -> None:
        """Give arrivals to the door, and write down what is passed over."""
        if isinstance(piece, Passage):
            await self.note(piece)
            return
        try:
            await self._accept(piece)
        except NotStored as error:
            # A fault of ours with one message: it is owed, with the fault as reason, and no other waits for it
            for arrival in piece:
                if arrival.id in error.ids:
                    await self.note(self._not_stored(arrival, str(error), tries))
        self._parts.health.touchpoint(self._place.touchpoint).last_message_at = piece[-1].arrived_at

    async def _accept(self, arrivals: Sequence[Arrival]) -> None:
        """Make them ours. Raises Unavailable, and NotStored for those that cannot be."""
        await self._parts.intake.accept(arrivals)

    def _not_stored(self, arrival: Arrival, reason: str, tries: Mapping[int, int]) -> Passage:
        uid = arrival.location.uid
        count = tries.get(uid, 1)
        debt = Owed(uid, arrival.size, reason, count, again_at(arrival.arrived_at, count))
        return Passage(*self._place, arrival.follows, uid, (debt,), (), to_ms(arrival.arrived_at))

    async def note(self, passage: Passage) -> None:
        """Write down what is passed over, and say what is owed."""
        await self._store.submit(owed.pass_over, passage)
        if passage.owed:
            await count_owed(self._parts)
        for debt in passage.owed:
            events.warn(
                "unfetched", touchpoint=self._place.touchpoint, folder=self._place.folder, uid=debt.uid, size=debt.size,
                cause=debt.reason,
            )  # fmt: skip

    # --- fetching ----------------------------------------------------------------------------------------------------

    async def _prepare(self, step: PlanStep, listed: Mapping[int, Listed], tries: Mapping[int, int]) -> _Prepared:
        """Return arrivals and passages in the order of the plan, so that the cursor's chain holds."""
        now = datetime.now(UTC)
        if isinstance(step, Pass):
            debts = [_owed(item, step.reason, now, step.hopeless) for item in step.messages] if step.reason else []
            return _Prepared([self._passage(step.messages, debts, now)])
        if step.in_parts and (staged := await self._fetch_in_parts(step.messages[0], listed, tries)) is not None:
            return _Prepared([staged])
        fetched = await self._fetch(step)
        pieces: list[list[Arrival] | Passage] = []
        for number, item in enumerate(step.messages):
            await give_way(number)
            if (text := fetched.raws.get(item.uid)) is not None:
                if not pieces or isinstance(pieces[-1], Passage):
                    pieces.append([])
                arrivals = pieces[-1]
                assert isinstance(arrivals, list)
                arrivals.append(self.arrival(item, listed[item.uid], text, now))
            elif fetched.lost is not None:
                continue  # a gap: the cursor stays before it, and those behind it are known next time
            elif reason := fetched.trouble.get(item.uid):
                pieces.append(self._passage([item], [_owed(item, reason, now, tries=tries.get(item.uid, 1))], now))
            else:
                pieces.append(self._passage([item], [], now, gone=(item.uid,)))
        return _Prepared(pieces, fetched.lost)

    def arrival(self, item: Planned, listed: Listed, text: bytes, now: datetime) -> Arrival:
        """Return the arrival of a listed message."""
        return Arrival(
            id=self._store.ids.next(),
            touchpoint=self._place.touchpoint,
            location=Location(self._place.folder, self._place.uidvalidity, item.uid),
            internal_at=listed.internal_at or now,
            arrived_at=now,
            raw=text,
            follows=item.follows,
            fingerprint=fingerprint(text, listed.size, listed.internal_at),
            object_id=listed.object_id,
            role=self._role,
            filings=self._filings,
        )

    def _passage(
        self, over: Sequence[Planned], debts: Sequence[Owed], now: datetime, gone: tuple[int, ...] = ()
    ) -> Passage:
        return Passage(*self._place, over[0].follows, over[-1].uid, tuple(debts), gone, to_ms(now))

    async def _fetch(self, step: Take) -> _Fetched:
        """Return the bytes by UID, and for those that are there without them the reason. Raises Lost.

        What comes back without bytes is asked for once more, alone: a server says NO to five hundred because of one.
        Where that costs the session, what is in hand is kept.
        """
        raws, refusal = await self._ask(step.messages)
        fetched = _Fetched(raws)
        missing = [item for item in step.messages if item.uid not in raws]
        if not missing:
            return fetched
        try:
            there = set(await self._parts.call(self._session.present, [item.uid for item in missing]))
            for item in missing:
                if item.uid not in there:
                    continue  # expunged since it was listed
                if len(step.messages) > 1:
                    more, refusal = await self._ask((item,))
                    raws |= more
                if item.uid not in raws:
                    fetched.trouble[item.uid] = refusal or _EMPTY
        except Lost as lost:
            fetched.lost = lost
        except Unavailable as error:
            fetched.lost = Lost(error, tuple(item.uid for item in missing))
        return fetched

    async def _ask(self, messages: Sequence[Planned]) -> tuple[dict[int, bytes], str | None]:
        uids = tuple(item.uid for item in messages)
        sizes = {item.uid: item.size for item in messages}
        try:
            fetched = await self._parts.call(self._session.fetch, uids, sum(sizes.values()))
        except NotGiven as error:
            return {}, str(error)
        except Unavailable as error:
            raise Lost(error, uids) from error
        # An empty text where the listing has a size is a server's way of saying that something is broken over there
        return {item.uid: item.raw for item in fetched if item.raw or (item.raw == b"" and not sizes[item.uid])}, None

    async def _fetch_in_parts(
        self, item: Planned, listed: Mapping[int, Listed], tries: Mapping[int, int]
    ) -> Piece | None:
        """Write a large message to the disk as it comes; None where the server knows no parts. Raises Lost."""
        now, id = datetime.now(UTC), self._store.ids.next()
        stage = raw.Stage(self._store, id)
        head, offset = b"", 0
        try:
            while True:
                part = await self._parts.call(self._session.fetch_part, item.uid, offset, PART_BYTES)
                if part is None or not (part or offset):
                    stage.abandon()
                    return None
                head = head or part[: raw.CHUNK_BYTES]
                await stage.add(part)
                offset += len(part)
                if offset > self._parts.largest:
                    stage.abandon()
                    debt = Owed(item.uid, offset, "larger than it said, and than inbound.max_message_size", 1, None)
                    return self._passage([item], [debt], now)
                # A short part ends the message, unless it ends before the size that was listed: only nothing does
                if not part or (len(part) < PART_BYTES and offset >= item.size):
                    break
        except NotGiven as error:
            stage.abandon()
            if not offset:
                return None
            debt = _owed(item, str(error), now, tries=tries.get(item.uid, 1))
            return self._passage([item], [debt], now)
        except Unavailable as error:
            stage.abandon()
            raise Lost(error, (item.uid,)) from error
        except BaseException:
            stage.abandon()
            raise
        return [replace(self.arrival(item, listed[item.uid], head, now), id=id, staged=stage.finish())]


def again_at(now: datetime, tries: int) -> int:
    """Return when to ask again, in milliseconds."""
    return to_ms(now + plan.retry_after(tries))


def _owed(item: Planned, reason: str, now: datetime, hopeless: bool = False, tries: int = 1) -> Owed:
    return Owed(item.uid, item.size, reason, tries, None if hopeless else again_at(now, tries))


def _filings(after_fetch: str) -> tuple[Filing, ...]:
    if after_fetch == "seen":
        return (Filing(FilingAction.SEEN),)
    if after_fetch.startswith("move:"):
        return (Filing(FilingAction.MOVE, after_fetch.removeprefix("move:")),)
    return ()
