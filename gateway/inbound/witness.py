"""Asks the provider's Sent folder what became of attempts whose answer never came, and puts copies there.

Looking changes nothing over there. A copy is a step of its own: each try is counted before it is made, and begins by
looking whether the copy is there already, so a cut between APPEND and its record makes no second one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Final

import trio

from gateway import events
from gateway.config import Config
from gateway.inbound import evidence, folders
from gateway.inbound.names import can_be_quoted
from gateway.inbound.parts import Parts, each, give_way
from gateway.inbound.session import NoFolder, NotGiven, Session
from gateway.inbound.taking import again_at
from gateway.mime.trace import Trace, compose_trace, traces
from gateway.model import Role, from_ms, show_id, to_ms
from gateway.state import copies, doubts, marks, outbox
from gateway.state.copies import Copy
from gateway.state.doubts import Doubt, Finding

ALARM: Final = "sent-copy"
# A provider that files what it takes does it within a moment, though its profile says that it does not
PATIENCE_MS: Final = 10_000
_COPIES_TOGETHER: Final = 50
_BATCHES: Final = 20  # of them, before others have their turn
_GIVEN_UP_AFTER: Final = timedelta(days=5)
_RESTS: Final = (60.0, 300.0, 900.0, 3600.0)  # seconds after looks in a row that have cost the session

_MOST_DOUBTS: Final = 100  # of one look
_MOST_HEADERS: Final = 4_000  # fetched in one look
_MOST_KNOWN: Final = 20_000
_NEWEST: Final = 200  # that are looked at whatever their dates
_HEADERS_TOGETHER: Final = 50
_HEADER_BYTES: Final = 64 * 1024
_LATEST_COPIES: Final = 100  # among which a copy without a Message-ID that can be asked for is looked for
_ORIGINAL_ID: Final = "X-Microsoft-Original-Message-ID"
_MERGES: Final = "X-GM-EXT-1"  # the capability of a server that keeps one copy of each Message-ID


class Witness:
    """Lives as long as the touchpoint's task; sessions come and go. `ring` wakes the one who sends.

    `current`: who keeps the copies may change under a live session.
    """

    def __init__(self, parts: Parts, current: Callable[[], Config], ring: Callable[[str], None]) -> None:
        self._parts = parts
        self._touchpoint = parts.touchpoint
        self._id = parts.touchpoint.id
        self._store = parts.store
        self._current = current
        self._ring = ring
        self._seen: dict[int, tuple[Trace, ...]] = {}  # by UID, of the folder below
        self._seen_in: tuple[str, int] | None = None  # folder, UIDVALIDITY
        self._failures = 0
        self._not_before = 0.0

    # --- when there is something to do -------------------------------------------------------------------------------

    async def wakes_at(self) -> int | None:
        """Return when there is something to do (ms), None for not before somebody rings. Raises Unavailable."""
        doubt = await self._store.read(doubts.next_due, self._id)
        copy = await self._store.read(copies.next_due, self._id)
        return min((at for at in (doubt, copy and copy + PATIENCE_MS) if at is not None), default=None)

    async def is_due(self, *, in_haste: bool = False) -> bool:
        """Is there something to do now? `in_haste`: that cannot wait for the next turn: copies can, and each round
        costs a login. Raises Unavailable.
        """
        if trio.current_time() < self._not_before:
            return False
        at = await self._store.read(doubts.next_due, self._id) if in_haste else await self.wakes_at()
        return at is not None and at <= _now_ms()

    # --- one session -------------------------------------------------------------------------------------------------

    async def work(self, session: Session, roles: Mapping[str, Role]) -> None:
        """Do what is due. `roles`: of the watched folders. Raises Unavailable, Lost: the session has gone; then nothing
        is done for a while, so that others have their turn.
        """
        if not await self.is_due():
            return
        self._not_before = trio.current_time() + _RESTS[min(self._failures, len(_RESTS) - 1)]
        self._failures += 1
        name, is_there = await self._find_folder(session, roles)
        await self._settle(session, name if is_there else None)
        await self._file_copies(session, name)
        self._failures, self._not_before = 0, 0.0

    async def _find_folder(self, session: Session, roles: Mapping[str, Role]) -> tuple[str, bool]:
        """Return the folder Sent, also where the admin does not want it watched, and whether it is there."""
        touchpoint = self._touchpoint
        wanted = touchpoint.watch.sent
        listing = await self._parts.call(session.folders)
        names = [one.name for one in listing]
        if (found := next((name for name, role in roles.items() if role is Role.SENT), wanted)) in names:
            return str(found), True
        if not found:
            as_listed = folders.roles(listing, touchpoint.folders, "", None, touchpoint.profile)
            if found := next((name for name, role in as_listed.items() if role is Role.SENT), None):
                return found, True
        name = found or folders.name_beside(listing, touchpoint.profile.sent[0])
        return name, name in names

    # --- doubts ------------------------------------------------------------------------------------------------------

    async def _settle(self, session: Session, folder: str | None) -> None:
        now = _now_ms()
        due: Sequence[Doubt] = await self._store.read(doubts.due, self._id, now, _MOST_DOUBTS)
        if not due:
            if await self._store.read(doubts.next_due, self._id) is None:
                self._seen.clear()
            return
        try:
            if folder is None:
                raise NoFolder(f"{self._id} has no folder Sent that we can find; name it (watch = {{ sent = … }})")
            selected = await self._parts.call(session.select, folder)
        except NoFolder as error:
            events.warn("no-evidence", touchpoint=self._id, cause=str(error), recipients=len(due))
            nothing = evidence.Sight({}, 0, False)
            await self._conclude(due, dict.fromkeys((one.outbox for one in due), nothing), now)
            return
        due, since = await self._since_restore(due, now)
        if (folder, selected.uidvalidity) != self._seen_in or len(self._seen) > _MOST_KNOWN:
            self._seen.clear()
            self._seen_in = folder, selected.uidvalidity
        await self._conclude(due, await self._look(session, due, since), now)

    async def _since_restore(self, due: Sequence[Doubt], now: int) -> tuple[Sequence[Doubt], int]:
        """Where the store is an old copy: a message may have left at any time since that was made, until it was put
        back; only what was sent after that is later.
        """
        if all(one.why is not doubts.Why.RESTORED for one in due):
            return due, now
        copied_at = await self._store.read(marks.get, "backed_up_at") or now
        back_at = await self._store.read(marks.get, "restored_at") or now
        since = min(copied_at, *(one.tried_at for one in due))  # the last attempt that it knows of is in doubt as well
        last = [
            replace(one, tried_at=max(one.tried_at, back_at)) if one.why is doubts.Why.RESTORED else one for one in due
        ]
        return last, since

    async def _look(self, session: Session, due: Sequence[Doubt], since: int) -> dict[int, evidence.Sight]:
        """Return what can be seen of each message. Headers are fetched once, they do not change.

        `since` (ms): since when a message may have been sent of which this store knows nothing.
        """
        oldest = from_ms(min(since, *(one.tried_at for one in due)) - evidence.SLACK_MS)
        day = (oldest - timedelta(days=1)).date()  # the server has a time zone of its own
        complete = await self._look_since(session, oldest, day)
        sight = self._sight(complete)
        asked: dict[int, bool] = {}
        merged: set[int] = set()
        for one in due:
            if one.outbox not in asked and not evidence.is_sent(one, sight):
                found = await self._ask_after(session, one, None if complete else day)
                asked[one.outbox] = found is not None
                if found and _MERGES in session.capabilities:
                    merged.add(one.outbox)
        whole, part = (replace(self._sight(all_seen), merged=frozenset(merged)) for all_seen in (complete, False))
        return {one.outbox: whole if asked.get(one.outbox, True) else part for one in due}

    def _sight(self, complete: bool) -> evidence.Sight:
        return evidence.Sight.of((trace for found in self._seen.values() for trace in found), complete, _now_ms())

    async def _look_since(self, session: Session, oldest: datetime, day: date) -> bool:
        """Read the headers of what lies there since then, and of the last whatever their dates; return whether these
        are all.
        """
        new = [uid for uid in await self._parts.call(session.uids_since, day) if uid not in self._seen]
        if len(new) > _HEADERS_TOGETHER:
            listed = await each(self._parts, session.listed, new)
            new = [one.uid for one in listed if one.internal_at is None or one.internal_at >= oldest]
        within = new if len(new) <= _MOST_HEADERS else [*new[: _MOST_HEADERS // 2], *new[-_MOST_HEADERS // 2 :]]
        newest = await self._parts.call(session.newest, _NEWEST)
        await self._read(session, {*within, *newest})
        return self._seen.keys() >= set(new)

    async def _ask_after(self, session: Session, doubt: Doubt, since: date | None) -> list[int] | None:
        """Read the headers of what the server finds about a message, and return the UIDs of that; None where it could
        not be asked.

        `since`: not all headers since then have been read.
        """
        if not doubt.message_id or not can_be_quoted(doubt.message_id):
            return None
        by_id = partial(session.with_field, "Message-ID", doubt.message_id)
        by_original = partial(session.with_field, _ORIGINAL_ID, doubt.message_id)
        by_trace = partial(session.with_field, "Received", f"{show_id(doubt.outbox)}.{doubt.attempt}", since)
        try:
            found = await self._parts.call(by_id)
            if not found and self._touchpoint.provider == "microsoft":
                found = await self._parts.call(by_original)
            if since is not None and doubt.why == doubts.Why.UNCERTAIN:
                found = [*found, *await self._parts.call(by_trace)]
        except NotGiven:
            return None
        await self._read(session, found)
        return found

    async def _read(self, session: Session, uids: Iterable[int]) -> None:
        """Read the traces in the headers of these, but for those that are known."""
        new = sorted({uid for uid in uids if uid not in self._seen})
        headers = partial(session.headers, most_bytes=_HEADER_BYTES)
        for start in range(0, len(new), _HEADERS_TOGETHER):
            heads = await each(self._parts, headers, new[start : start + _HEADERS_TOGETHER])
            for number, head in enumerate(heads):
                if head.raw is not None:
                    self._seen[head.uid] = tuple(traces(head.raw))
                await give_way(number)

    async def _conclude(self, due: Sequence[Doubt], sights: Mapping[int, evidence.Sight], now: int) -> None:
        """Record what the look means, all together; then say so."""
        touchpoint = self._current().touchpoints.get(self._id, self._touchpoint)
        provider_files = touchpoint.sent_copy == "provider"
        verdicts = [(one, evidence.judge(one, sights[one.outbox], now, provider_files)) for one in due]
        findings = [
            self._store.submit(doubts.settle, Finding(one.outbox, one.number, one.attempt, verdict.sent, now))
            for one, verdict in verdicts
            if isinstance(verdict, evidence.Settled)
        ]
        looks = [
            self._store.submit(doubts.put_off, (one.outbox, one.number, verdict.absent, now, verdict.next_at))
            for one, verdict in verdicts
            if isinstance(verdict, evidence.Open)
        ]
        decided = iter([await ticket for ticket in findings])
        for look in looks:
            await look
        for one, verdict in verdicts:
            if isinstance(verdict, evidence.Open):
                events.undecided(
                    show_id(one.outbox), one.address, one.attempt, verdict.because, from_ms(verdict.next_at).isoformat()
                )
            elif next(decided):
                events.settled(show_id(one.outbox), one.address, one.attempt, one.why.value, verdict.sent)
        if findings:
            self._ring(self._id)  # what is to be sent again is due now

    # --- copies ------------------------------------------------------------------------------------------------------

    async def _file_copies(self, session: Session, name: str) -> None:
        """Put copies into Sent, the longest due first. A refusal is told and tried again; it keeps no other away."""
        troubles: list[str] = []
        is_stubborn = is_open = False
        for _ in range(_BATCHES):
            due = await self._store.read(copies.due, self._id, _now_ms() - PATIENCE_MS, _COPIES_TOGETHER)
            for copy in due:
                now = datetime.now(UTC)
                await self._store.submit(copies.begin, (self._id, [copy.outbox], again_at(now, copy.tries + 1)))
                is_open = is_open or await self._opens(session, name)
                cause = None
                try:
                    outcome = await self._file_copy(session, copy, name, is_open)
                except (NoFolder, NotGiven) as error:
                    cause = str(error)
                    troubles.append(cause)
                    is_stubborn = is_stubborn or copy.tries > 0
                    is_over = now - from_ms(copy.accepted_at) > _GIVEN_UP_AFTER
                    outcome = "given up" if is_over else "put off"
                events.copied(show_id(copy.outbox), self._id, name, copy.attempt, outcome, cause)
                if outcome != "put off":
                    await self._store.submit(copies.done, copy.outbox)
            if not due:
                break
        if not troubles:
            self._parts.health.clear(self._id, ALARM)
        elif is_stubborn:
            self._parts.health.alarm(
                self._id, ALARM, f"copies of sent mail are not put into {name!r}: {troubles[0]}",
                "see the cause; it is tried again for five days, and no mail depends on it",
            )  # fmt: skip

    async def _opens(self, session: Session, name: str) -> bool:
        try:
            await self._parts.call(session.select, name)
        except NoFolder:
            return False
        return True

    async def _file_copy(self, session: Session, copy: Copy, name: str, is_open: bool) -> str:
        """Return what became of a copy. Raises NoFolder, NotGiven: refused."""
        if is_open and await self._is_there(session, copy):
            return "found"
        if await self._store.read(outbox.read_chunk, copy.outbox, 0) is None:
            return "not kept any more"
        try:
            await self._append(session, copy, name)
        except NoFolder:
            await self._parts.call(session.create, name)
            await self._append(session, copy, name)
        return "filed"

    async def _is_there(self, session: Session, copy: Copy) -> bool:
        """Is there a copy in the open folder? It may be ours, of before a cut, or one that the agent's client filed."""
        if copy.message_id and can_be_quoted(copy.message_id):
            try:
                return bool(await self._parts.call(session.with_message_id, copy.message_id))
            except NotGiven:
                pass
        newest = await self._parts.call(session.newest, _LATEST_COPIES) if copy.tries else []
        headers = partial(session.headers, most_bytes=_HEADER_BYTES)
        return any(
            trace.queue_id == copy.outbox
            for head in await each(self._parts, headers, newest)
            for trace in traces(head.raw or b"")
        )

    async def _append(self, session: Session, copy: Copy, name: str) -> None:
        trace = compose_trace(self._parts.hostname, copy.outbox, copy.attempt, copy.accepted_at)

        async def chunks() -> AsyncIterator[bytes]:
            yield trace
            left, number = copy.size, 0
            while left > 0 and (chunk := await self._store.read(outbox.read_chunk, copy.outbox, number)):
                yield chunk
                left, number = left - len(chunk), number + 1

        size, at = len(trace) + copy.size, from_ms(copy.accepted_at)
        await self._parts.call(session.append, name, chunks(), size, at, copy.smtputf8)


def _now_ms() -> int:
    return to_ms(datetime.now(UTC))
