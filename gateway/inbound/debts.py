"""What is owed: messages that are at the provider and could not be had, asked for again at their own times.

Each try is written down before it is made, so that a message whose mention ends the session, or the process, is not
asked for in a tight loop; what was never asked for comes together, what failed before comes alone. What has been
missing for too long is shown in its queue by a placeholder (DESIGN §6, promise 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from gateway import events
from gateway.errors import Unavailable
from gateway.inbound import plan, watcher
from gateway.inbound.fetch import Listed
from gateway.inbound.folder import OpenFolder
from gateway.inbound.identity import fingerprint
from gateway.inbound.parts import Lost, Parts, count_owed
from gateway.inbound.placeholder import compose_placeholder
from gateway.inbound.plan import LOSES_SESSION, UNMENTIONABLE, Planned
from gateway.inbound.session import NotGiven, Session
from gateway.inbound.taking import again_at
from gateway.model import Placeholder, Role, show_id, to_ms
from gateway.state import folders, owed
from gateway.state.owed import Owed, Passage

_HEAD_BYTES: Final = 16 * 1024  # of a message that a placeholder stands for
_PLACEHOLDERS: Final = 50  # at a time
_CATCH_UP_BYTES: Final = 8 * 1024 * 1024  # fetched before new mail has its turn again


class Debts:
    """Of an open folder."""

    def __init__(self, parts: Parts, session: Session, folder: OpenFolder) -> None:
        self._parts = parts
        self._id = parts.touchpoint.id
        self._store = parts.store
        self._session = session
        self._folder = folder

    async def catch_up(self) -> bool:
        """Ask again for a batch of what could not be fetched and is due, each try written down before it is made.

        True when there is more. Then put placeholders for what has been missing for too long. Raises Lost.
        """
        now = datetime.now(UTC)
        due = await self._store.read(
            owed.owed_now, self._folder.place, to_ms(now), self._parts.largest, plan.BATCH_MESSAGES
        )
        more = len(due) == plan.BATCH_MESSAGES
        if due:
            more |= await self._retry(due, now)
            await count_owed(self._parts)
        if not more:
            await self._put_placeholders()
        return more

    async def _retry(self, due: Sequence[Owed], now: datetime) -> bool:
        """Ask again for as many as are not too many bytes together; True when some are left for the next time.

        What was never asked for comes first and together. What failed before comes alone, for it may cost the session.
        """
        fresh = [debt for debt in due if not debt.tries]
        room = _CATCH_UP_BYTES
        if fresh:
            taken, done = await self._retry_together(fresh, now)
            if done < len(fresh):
                return True
            room -= taken
        for number, debt in enumerate(sorted((one for one in due if one.tries), key=lambda one: (one.tries, one.uid))):
            if room < 0:
                return number < len(due) - len(fresh)
            room -= await self._retry_alone(debt, now)
        return False

    async def _retry_together(self, fresh: Sequence[Owed], now: datetime) -> tuple[int, int]:
        """Return how many bytes were asked for, and of how many messages the fate is known or was asked for."""
        try:
            listed = {item.uid: item for item in await self._folder.list([debt.uid for debt in fresh], {})}
            again = await self._folder.known_again(list(listed.values()), {})
        except (Unavailable, Lost):  # one of them, or the network: next time each alone
            await self._note_tries(fresh, now)
            raise
        gone = tuple(debt.uid for debt in fresh if debt.uid not in listed or debt.uid in again)
        trying: list[Owed] = []
        total = 0
        for debt in fresh:
            if debt.uid in listed and debt.uid not in again and total < _CATCH_UP_BYTES:
                trying.append(debt)
                total += listed[debt.uid].size
        await self._note_tries(trying, now, gone)
        await self._take_owed([(debt.uid, listed[debt.uid].size) for debt in trying], listed, {})
        return total, len(trying) + len(gone)

    async def _retry_alone(self, debt: Owed, now: datetime) -> int:
        """Return how many bytes were asked for."""
        await self._note_tries([debt], now)
        try:
            listed = await self._folder.list([debt.uid], {})
            # What has cost sessions is not asked for its header besides; what a placeholder stands for is known
            asks = debt.reason not in (LOSES_SESSION, UNMENTIONABLE) and not await self._store.read(
                folders.known_uids, *self._folder.place, [debt.uid]
            )
            again = await self._folder.known_again(listed, {}) if asks else set()
            if not listed or again:
                await self._note_tries([], now, (debt.uid,))
                return 0
            await self._take_owed([(debt.uid, listed[0].size)], {debt.uid: listed[0]}, {debt.uid: debt.tries + 1})
        except (Unavailable, Lost):
            reason = UNMENTIONABLE if debt.reason == UNMENTIONABLE else LOSES_SESSION
            await self._note_tries([replace(debt, reason=reason)], now)
            raise
        return listed[0].size

    async def _note_tries(self, debts: Sequence[Owed], now: datetime, gone: tuple[int, ...] = ()) -> None:
        """Write one more try down for each, and what is gone."""
        if debts or gone:
            tried = tuple(replace(debt, tries=debt.tries + 1, next_at=again_at(now, debt.tries + 1)) for debt in debts)
            # Up to UID 0: what is owed has been passed by the cursor before, or lies behind a gap; it moves nothing
            await self._store.submit(owed.pass_over, Passage(*self._folder.place, 0, 0, tried, gone, to_ms(now)))

    async def _take_owed(
        self, sizes: Sequence[tuple[int, int]], listed: Mapping[int, Listed], tries: Mapping[int, int]
    ) -> None:
        steps = [plan.unchained(step) for step in plan.plan(self._parts.largest, 0, sizes, (), {})]
        await self._folder.taking.take(steps, listed, tries)

    async def _put_placeholders(self) -> None:
        """Let a queue show what cannot be fetched: with its header where that can be had (DESIGN §6, promise 2)."""
        if self._folder.role is Role.SENT:
            return
        # Due 15 minutes after the first try; the chores that put it there come once a minute
        due = await self._store.read(
            owed.placeholders_due, self._folder.place, to_ms(datetime.now(UTC) + watcher.CHORES_EVERY), _PLACEHOLDERS
        )
        for debt in due:
            listed, header = await self._outside(debt)
            if listed is None:
                continue  # gone; the next try finds that out
            now, id = datetime.now(UTC), self._store.ids.next()
            text, kind = compose_placeholder(
                header,
                uid=debt.uid,
                folder=self._folder.name,
                size=listed.size or debt.size,
                internal_at=listed.internal_at,
                reason=debt.reason,
                message_id=f"<{show_id(id)}.placeholder@{self._parts.hostname}>",
                now=now,
            )
            item = Planned(debt.uid, listed.size, debt.uid)
            arrival = self._folder.taking.arrival(item, listed, text, now)
            size = listed.size or debt.size
            arrival = replace(arrival, id=id, placeholder=kind, listed_size=size, filings=())
            if kind is Placeholder.HEADED:  # as the message itself will have it
                arrival = replace(arrival, fingerprint=fingerprint(header, listed.size, listed.internal_at))
            await self._folder.taking.hand_over([arrival], {})
            events.warn("placeholder", touchpoint=self._id, folder=self._folder.name, uid=debt.uid, cause=debt.reason)

    async def _outside(self, debt: Owed) -> tuple[Listed | None, bytes]:
        """Return what can be had of a message but its body: its line in the listing, None where it is gone, and its
        header. What costs the session is not asked for again: the reason says so.
        """
        if debt.reason == UNMENTIONABLE:
            return Listed(debt.uid, debt.size, None), b""
        try:
            found = await self._folder.list([debt.uid], {})
        except (Unavailable, Lost):
            # One loss may be the network's. What is not listed has no date to be known by under another UIDVALIDITY
            await self._taint(debt, UNMENTIONABLE if debt.reason == LOSES_SESSION else LOSES_SESSION)
            raise
        if not found or debt.reason == LOSES_SESSION:
            return (found[0] if found else None), b""
        try:
            return found[0], await self._parts.call(self._session.fetch_head, debt.uid, _HEAD_BYTES)
        except NotGiven:
            return found[0], b""
        except Unavailable:
            await self._taint(debt, LOSES_SESSION)
            raise

    async def _taint(self, debt: Owed, reason: str) -> None:
        at = to_ms(datetime.now(UTC))
        tainted = (replace(debt, reason=reason),)
        await self._store.submit(owed.pass_over, Passage(*self._folder.place, 0, 0, tainted, (), at))
