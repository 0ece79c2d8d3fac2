"""One watched folder, open over one session: where its history begins, what is new in it, what has become of the rest.

Used by the wheel for the first folder, and by rounds for the others. Whatever is found is first compared with what
we know (DESIGN §5, inbound identity): a message that has moved is not an arrival, and is not downloaded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway import events
from gateway.errors import Unavailable
from gateway.inbound import plan, watcher
from gateway.inbound.fetch import Headed, Listed
from gateway.inbound.identity import fingerprint, outline
from gateway.inbound.placeholder import compose_placeholder
from gateway.inbound.plan import LOSES_SESSION, Planned
from gateway.inbound.sent import SentTaking
from gateway.inbound.session import NotGiven, Selected, Session
from gateway.inbound.taking import Parts, Taking, again_at, count_owed, each, give_way
from gateway.model import Role, show_id, to_ms
from gateway.state import chores, folders, locations, owed
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Accounted, Accounting, Relisting, Relocation, Sighting
from gateway.state.owed import Owed, Passage

RECENT_MESSAGES: Final = 1_000  # listed at every poll: lower UIDs can surface late (DESIGN §5)
# The server's clock is not ours, and INTERNALDATE has no fractions. After a change of UIDVALIDITY a message of these
# minutes is rather taken too much than missed.
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
_RELIST_MESSAGES: Final = 500
_ACCOUNT_MESSAGES: Final = 5_000
_HEAD_BYTES: Final = 16 * 1024  # of a message that a placeholder stands for
_PLACEHOLDERS: Final = 50  # at a time
_CATCH_UP_BYTES: Final = 8 * 1024 * 1024  # fetched before new mail has its turn again
# A placeholder is due 15 minutes after the first try; the chores that put it there come once a minute
_AHEAD: Final = watcher.CHORES_EVERY


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of the provider's UIDs with ours has found. `gaps` and `gone` are mended."""

    folder: str
    role: Role
    at_provider: int
    known: int
    owed: int
    older: int
    gaps: int
    gone: int


class OpenFolder:
    """`name` as the admin or the provider's list spells it."""

    def __init__(self, parts: Parts, session: Session, name: str, role: Role) -> None:
        self._parts = parts
        self._id = parts.touchpoint.id
        self._store = parts.store
        self._session = session
        self.name = name
        self.role = role
        self.selected = Selected(0, None, 0)
        self._cursor = 0

    # --- opening -----------------------------------------------------------------------------------------------------

    async def open(self) -> watcher.Opened:
        """Open the folder for reading. Raises NoFolder, Unavailable."""
        known = await self._store.read(folders.find_folder, self._id, self.name)
        since = (known.uidvalidity, known.modseq) if known is not None and known.modseq is not None else None
        self.selected = selected = await self._parts.call(self._session.select, self.name, False, since)
        self.place = Place(self._id, self.name, selected.uidvalidity)
        kind = SentTaking if self.role is Role.SENT else Taking
        self._taking = kind(self._parts, self._session, self.place, self.role)
        if known is None:
            known = await self._begin_history(selected)
        elif known.role != self.role:
            await self._store.submit(chores.change_role, (self._id, self.name, self.role))
        renumbered = known.uidvalidity != selected.uidvalidity
        if not renumbered:
            await self._forget(selected.vanished)
            await self._note_modseq()
        await count_owed(self._parts)
        self._cursor = known.cursor
        return watcher.Opened(known.cursor, renumbered)

    async def _begin_history(self, selected: Selected) -> Folder:
        """Decide once where the history of a folder begins, and say how many messages stay behind."""
        now = datetime.now(UTC)
        history = self._parts.touchpoint.history
        wanted: list[int] = []
        if history == "all":
            begins_at, cursor, skipped = datetime.fromtimestamp(0, UTC), 0, 0
        else:
            begins_at, cursor, skipped = now - _CLOCKS_DIFFER, await self._last_uid(selected), selected.exists
        if isinstance(history, timedelta):
            begins_at = now - history
            wanted = [uid for uid in await self._uids_from(begins_at) if uid <= cursor]
            skipped = max(0, selected.exists - len(wanted))
        folder = Folder(
            self._id, self.name, selected.uidvalidity, cursor, skipped, to_ms(now), to_ms(begins_at), self.role
        )
        folder = await self._store.submit(
            folders.open_folder, Opening(folder, tuple(wanted), _stretches(cursor, wanted))
        )
        events.say(
            "history-begins",
            touchpoint=self._id,
            folder=self.name,
            role=self.role.value,
            older_messages_left=folder.skipped,
            brought=selected.exists - folder.skipped,
        )
        return folder

    async def _uids_from(self, begins_at: datetime) -> list[int]:
        """Return the UIDs of messages with an INTERNALDATE from then on, wherever they stand in the folder."""
        # SINCE knows only days, in the server's own zone: ask for one more and look at the times
        recent = await self._parts.call(self._session.uids_since, (begins_at - timedelta(days=1)).date())
        listed: list[Listed] = []
        for start in range(0, len(recent), plan.WINDOW_MESSAGES):
            listed += await self._parts.call(self._session.listed, recent[start : start + plan.WINDOW_MESSAGES])
        older = {item.uid for item in listed if item.internal_at is not None and item.internal_at < begins_at}
        return [uid for uid in recent if uid not in older]

    async def _last_uid(self, selected: Selected) -> int:
        if selected.uidnext is not None:
            return selected.uidnext - 1
        if not selected.exists:
            return 0
        return max(await self._parts.call(self._session.uids, 1), default=0)

    # --- other numbers for the same mail -----------------------------------------------------------------------------

    async def renumber(self) -> watcher.Opened:
        """The UIDVALIDITY has changed: every UID we know means nothing. Find the messages again by what they are."""
        events.warn("uidvalidity-changed", touchpoint=self._id, folder=self.name, uidvalidity=self.selected.uidvalidity)
        uids = await self._parts.call(self._session.uids, 1)
        last_uid = uids[-1] if uids else 0
        moved = new = left = 0
        for start in range(0, max(1, len(uids)), _RELIST_MESSAGES):
            window = uids[start : start + _RELIST_MESSAGES]
            relisted = await self._store.submit(
                locations.relist,
                Relisting(
                    self.place,
                    self.role,
                    tuple(await self._sightings(window)),
                    last=start + _RELIST_MESSAGES >= len(uids),
                    upto=last_uid,
                    at=to_ms(datetime.now(UTC)),
                ),
            )
            moved, new, left = moved + relisted.moved, new + relisted.new, left + relisted.left
        events.say("folder-renumbered", touchpoint=self._id, folder=self.name, known=moved, new=new, older_left=left)
        await self._note_modseq()
        self._cursor = last_uid
        return watcher.Opened(last_uid)

    async def _note_modseq(self) -> None:
        """Every change up to the opening is known; the server need not tell it again (RFC 7162 §3.2.5)."""
        if self.selected.modseq is not None:
            await self._store.submit(folders.note_modseq, (self.place, self.selected.modseq))

    async def _sightings(self, uids: Sequence[int]) -> list[Sighting]:
        """Return what can be known of these messages without their bodies."""
        headed: list[Headed] = await each(self._parts, self._session.headed, uids)
        found: list[Sighting] = []
        for item in headed:
            await give_way(len(found))
            listed = item.listed
            key = fingerprint(item.header, listed.size, listed.internal_at)
            internal_ms = to_ms(listed.internal_at or datetime.now(UTC))
            found.append(Sighting(listed.uid, key, listed.object_id, listed.size, internal_ms))
        # What the server counts and does not show matches nothing: it is owed, and found again or gone later
        shown = {item.listed.uid for item in headed}
        now_ms = to_ms(datetime.now(UTC))
        return found + [Sighting(uid, 0, None, 0, now_ms) for uid in uids if uid not in shown]

    # --- looking -----------------------------------------------------------------------------------------------------

    async def look(self, cursor: int, few: bool, suspects: Mapping[int, int]) -> watcher.Looked:
        """List what lies above `cursor`, take it. Without `few` also see what has become of the recent messages."""
        await self._forget(tuple(self._session.vanished()))
        if few:
            listed = await self._few(cursor)
            if listed is not None and (not listed or listed[-1].uid == cursor + len(listed)):
                return await self._take(cursor, listed, set(), suspects, upto=cursor, more=False)
            # A hole in the numbers: either nothing, or a message that the server does not show. SEARCH knows.
        low = min(cursor + 1, await self._store.read(locations.recent_low, self.place, RECENT_MESSAGES))
        uids = await self._parts.call(self._session.uids_above, low - 1)
        recent = [uid for uid in uids if uid <= cursor]
        await self._account(low, cursor, recent)
        window = uids[len(recent) : len(recent) + plan.WINDOW_MESSAGES]
        if not window:
            return watcher.Looked(cursor, stirred=self._session.is_stirred)
        listed = await self._list(window)
        # Where one message could not be written and a later one could, the later ones lie above the cursor
        known = await self._store.read(folders.known_uids, *self.place, window)
        more = len(uids) > len(recent) + len(window)
        return await self._take(cursor, listed, known, suspects, window[-1], more)

    async def _few(self, cursor: int) -> list[Listed] | None:
        try:
            return await self._parts.call(self._session.listed_above, cursor)
        except NotGiven:
            return None

    async def _list(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of `uids` that are there; what the server counts and does not show, with size 0."""
        listed: list[Listed] = await each(self._parts, self._session.listed, uids)
        if len(listed) == len(uids):
            return listed
        shown = {item.uid for item in listed}
        hidden = await self._parts.call(self._session.present, [uid for uid in uids if uid not in shown])
        return sorted([*listed, *(Listed(uid, 0, None) for uid in hidden)], key=lambda item: item.uid)

    async def _take(
        self,
        cursor: int,
        listed: Sequence[Listed],
        known: set[int],
        suspects: Mapping[int, int],
        upto: int,
        more: bool,
    ) -> watcher.Looked:
        if listed:
            known = known | await self._known_again(listed)
            sizes = [(item.uid, item.size) for item in listed]
            steps = list(plan.plan(self._parts.largest, cursor, sizes, known, suspects))
            await self._taking.take(steps, {item.uid: item for item in listed})
        self._cursor = max(cursor, upto, *(item.uid for item in listed))
        return watcher.Looked(self._cursor, more, self._session.is_stirred)

    async def _known_again(self, listed: Sequence[Listed]) -> set[int]:
        """Return the UIDs of messages that we have from elsewhere, or from an earlier place in this folder.

        Size and time say of nearly every new message that it is none of them; the few others show their header.
        """
        if not listed:
            return set()
        outlines = [(item.uid, outline(item.size, item.internal_at), item.object_id) for item in listed]
        maybe = await self._store.read(locations.maybe_known, self._id, self.role, outlines)
        if not maybe:
            return set()
        sightings = await self._sightings(sorted(maybe))
        keys = [(sighting.fingerprint, sighting.object_id) for sighting in sightings]
        here = await self._store.read(locations.here, self.place, keys)
        still = set(await self._parts.call(self._session.present, here)) if here else set()
        gone = tuple(uid for uid in here if uid not in still)
        relocation = Relocation(self.place, self.role, tuple(sightings), gone, to_ms(datetime.now(UTC)))
        again = set(await self._store.submit(locations.relocate, relocation))
        if again:
            events.say("moved", touchpoint=self._id, folder=self.name, messages=len(again))
        return again

    # --- what has become of the rest ---------------------------------------------------------------------------------

    async def _forget(self, gone: Sequence[int]) -> None:
        """These lie here no more. The messages stay."""
        if gone:
            at = to_ms(datetime.now(UTC))
            await self._store.submit(locations.relocate, Relocation(self.place, self.role, (), tuple(gone), at))

    async def _account(self, low: int, high: int, present: Sequence[int]) -> Accounted | None:
        """Compare the UIDs from `low` to `high` with what we know; None where there is nothing to change."""
        if high < low or not await self._store.read(locations.differs, self.place, low, high, present):
            return None
        at = to_ms(datetime.now(UTC))
        accounted = await self._store.submit(locations.account, Accounting(self.place, low, high, tuple(present), at))
        if accounted.late:
            events.warn("surfaced-late", touchpoint=self._id, folder=self.name, messages=accounted.late)
        return accounted

    async def reconcile(self) -> Reconciled:
        """Compare all the provider's UIDs up to the cursor with the ledger; what is missing is owed from now on."""
        cursor = self._cursor
        uids = [uid for uid in await self._parts.call(self._session.uids, 1) if uid <= cursor]
        known = debts = older = gaps = gone = 0
        low = 1
        for start in range(0, max(1, len(uids)), _ACCOUNT_MESSAGES):
            window = uids[start : start + _ACCOUNT_MESSAGES]
            last = start + _ACCOUNT_MESSAGES >= len(uids)
            high = cursor if last else window[-1]
            found = await self._store.submit(
                locations.account,
                Accounting(self.place, low, high, tuple(window), to_ms(datetime.now(UTC))),
            )
            known, debts, older = known + found.known, debts + found.owed, older + found.left
            gaps, gone, low = gaps + found.late, gone + found.gone, high + 1
        await self._store.submit(folders.note_reconciled, (self.place, to_ms(datetime.now(UTC))))
        return Reconciled(self.name, self.role, len(uids), known, debts, older, gaps, gone)

    # --- what is owed ------------------------------------------------------------------------------------------------

    async def catch_up(self) -> bool:
        """Ask again for a batch of what could not be fetched and is due, each try written down before it is made.

        True when there is more. Then put placeholders for what has been missing for too long.
        """
        now = datetime.now(UTC)
        due = await self._store.read(owed.owed_now, self.place, to_ms(now), self._parts.largest, plan.BATCH_MESSAGES)
        more = len(due) == plan.BATCH_MESSAGES
        if due:
            more |= await self._retry(due, now)
            await count_owed(self._parts)
        if not more:
            await self._put_placeholders()
        return more

    async def _retry(self, due: Sequence[Owed], now: datetime) -> bool:
        """Ask again for as many as are not too many bytes together; True when some are left for the next time."""
        listed = {item.uid: item for item in await self._list([debt.uid for debt in due])}
        again = await self._known_again(list(listed.values()))
        trying: list[Owed] = []
        total = 0
        for debt in due:
            if debt.uid in listed and debt.uid not in again:
                trying.append(debt)
                total += listed[debt.uid].size
                if total >= _CATCH_UP_BYTES:
                    break
        tries = {debt.uid: debt.tries + 1 for debt in trying}
        noted = [
            Owed(debt.uid, debt.size, debt.reason, tries[debt.uid], again_at(now, tries[debt.uid])) for debt in trying
        ]
        gone = tuple(debt.uid for debt in due if debt.uid not in listed or debt.uid in again)
        # Up to UID 0: what is owed has been passed by the cursor before, or lies behind a gap; it moves nothing
        await self._store.submit(owed.pass_over, Passage(*self.place, 0, 0, tuple(noted), gone, to_ms(now)))
        sizes = [(debt.uid, listed[debt.uid].size) for debt in trying]
        alone = {uid: plan.ALONE_FROM for uid, count in tries.items() if count > 1}
        steps = [plan.unchained(step) for step in plan.plan(self._parts.largest, 0, sizes, (), alone)]
        await self._taking.take(steps, listed, tries)
        return len(trying) + len(gone) < len(due)

    async def _put_placeholders(self) -> None:
        """Let a queue show what cannot be fetched: with its header where that can be had (DESIGN §6, promise 2)."""
        if self.role is Role.SENT:
            return
        due = await self._store.read(
            owed.placeholders_due, self.place, to_ms(datetime.now(UTC) + _AHEAD), _PLACEHOLDERS
        )
        for debt in due:
            (listed, *_) = [*await self._list([debt.uid]), None]
            if listed is None:
                continue  # gone; the next try finds that out
            header = b"" if debt.reason == LOSES_SESSION else await self._head(debt)
            now, id = datetime.now(UTC), self._store.ids.next()
            text, kind = compose_placeholder(
                header,
                uid=debt.uid,
                folder=self.name,
                size=listed.size or debt.size,
                internal_at=listed.internal_at,
                reason=debt.reason,
                message_id=f"<{show_id(id)}.placeholder@{self._parts.hostname}>",
                now=now,
            )
            item = Planned(debt.uid, listed.size, debt.uid)
            arrival = self._taking.arrival(item, listed, text, now)
            size = listed.size or debt.size
            await self._taking.hand_over([replace(arrival, id=id, placeholder=kind, listed_size=size, filings=())])
            events.warn("placeholder", touchpoint=self._id, folder=self.name, uid=debt.uid, cause=debt.reason)

    async def _head(self, debt: Owed) -> bytes:
        try:
            return await self._parts.call(self._session.fetch_head, debt.uid, _HEAD_BYTES)
        except NotGiven:
            return b""
        except Unavailable:
            # Next time without: the reason says so
            tainted = Owed(debt.uid, debt.size, LOSES_SESSION, debt.tries, debt.next_at)
            at = to_ms(datetime.now(UTC))
            await self._store.submit(owed.pass_over, Passage(*self.place, 0, 0, (tainted,), (), at))
            raise


def _stretches(cursor: int, wanted: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the stretches of UIDs from 1 to `cursor` between those that are wanted (ascending)."""
    found: list[tuple[int, int]] = []
    low = 1
    for uid in (*wanted, cursor + 1):
        if low < uid:
            found.append((low, uid - 1))
        low = uid + 1
    return tuple(found)
