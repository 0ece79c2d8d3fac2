"""One watched folder, open over one session: where its history begins, what is new in it, what has become of the rest.

Used by the wheel for the first folder, and by rounds for the others. Whatever is found is first compared with what
we know (DESIGN §5, inbound identity): a message that has moved is not an arrival, and is not downloaded again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from gateway import events
from gateway.inbound import plan, watcher
from gateway.inbound.fetch import Headed, Listed
from gateway.inbound.identity import fingerprint, outline
from gateway.inbound.parts import Parts, count_owed, each, each_apart, give_way
from gateway.inbound.sent import SentTaking
from gateway.inbound.session import NotGiven, Selected, Session
from gateway.inbound.taking import Taking
from gateway.model import Role, to_ms
from gateway.state import chores, folders, locations
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Accounted, Accounting, Relisting, Relocation, Sighting

RECENT_MESSAGES: Final = 1_000  # listed at every poll: lower UIDs can surface late (DESIGN §5)
# The server's clock is not ours, and INTERNALDATE has no fractions. After a change of UIDVALIDITY a message of these
# minutes is rather taken too much than missed.
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
_RELIST_MESSAGES: Final = 500
_ACCOUNT_MESSAGES: Final = 5_000
_LISTED_AT_MOST: Final = 5_000  # of UIDs at a time
_NEAR_THE_END: Final = 10_000  # of UIDs
_UNKNOWN_SIZE: Final = 1  # not 0: nothing at all would not be the text of such a message


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
        self.taking: Taking
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
        self.taking = kind(self._parts, self._session, self.place, self.role)
        if known is None:
            known = await self._begin_history(selected)
        elif known.role != self.role:
            change = chores.RoleChange(self._id, self.name, self.role, to_ms(datetime.now(UTC)))
            await self._store.submit(chores.change_role, change)
        renumbered = known.uidvalidity != selected.uidvalidity
        if not renumbered:
            await self._forget(selected.vanished)
            await self._note_modseq()
        await count_owed(self._parts)
        self._cursor = known.cursor
        return watcher.Opened(known.cursor, renumbered, selected.uidvalidity)

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
        left = await trio.to_thread.run_sync(_stretches, cursor, wanted)
        folder = Folder(
            self._id, self.name, selected.uidvalidity, cursor, skipped, to_ms(now), to_ms(begins_at), self.role
        )
        folder = await self._store.submit(folders.open_folder, Opening(folder, tuple(wanted), left))
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
            window = recent[start : start + plan.WINDOW_MESSAGES]
            listed += await each(self._parts, self._session.listed, window)
        older = {item.uid for item in listed if item.internal_at is not None and item.internal_at < begins_at}
        return [uid for uid in recent if uid not in older]

    async def _last_uid(self, selected: Selected) -> int:
        """Return the highest UID that was there when the folder was opened, 0 where nothing was."""
        if not selected.exists:
            return 0
        if selected.uidnext is None:
            return max(await self._parts.call(self._session.uids, 1), default=0)
        # Not all that lies below UIDNEXT has been: with a server that says too much, new mail would count as old
        near = await self._parts.call(self._session.uids, max(1, selected.uidnext - _NEAR_THE_END))
        return max((uid for uid in near if uid < selected.uidnext), default=selected.uidnext - 1)

    # --- other numbers for the same mail -----------------------------------------------------------------------------

    async def renumber(self, suspects: Mapping[int, int]) -> watcher.Opened:
        """The UIDVALIDITY has changed: every UID we know means nothing. Find the messages again by what they are.

        Raises Lost.
        """
        events.warn("uidvalidity-changed", touchpoint=self._id, folder=self.name, uidvalidity=self.selected.uidvalidity)
        last_uid = moved = new = left = 0
        last = False
        while not last:
            window = await self._parts.call(self._session.uids, last_uid + 1, None, _RELIST_MESSAGES)
            last = len(window) < _RELIST_MESSAGES
            last_uid = max(window, default=last_uid)
            sightings = tuple(await self._sightings(window, suspects))
            at = to_ms(datetime.now(UTC))
            relisted = await self._store.submit(
                locations.relist, Relisting(self.place, self.role, sightings, last, last_uid, at)
            )
            moved, new, left = moved + relisted.moved, new + relisted.new, left + relisted.left
        events.say("folder-renumbered", touchpoint=self._id, folder=self.name, known=moved, new=new, older_left=left)
        await self._note_modseq()
        self._cursor = last_uid
        return watcher.Opened(last_uid, uidvalidity=self.selected.uidvalidity)

    async def _note_modseq(self) -> None:
        """Every change up to the opening is known; the server need not tell it again (RFC 7162 §3.2.5)."""
        if self.selected.modseq is not None:
            await self._store.submit(folders.note_modseq, (self.place, self.selected.modseq))

    async def _sightings(self, uids: Sequence[int], suspects: Mapping[int, int]) -> list[Sighting]:
        """Return what can be known of these messages without their bodies."""
        headed: list[Headed] = await each_apart(self._parts, self._session.headed, uids, suspects)
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
        uids = await self._parts.call(self._session.uids_above, low - 1, _LISTED_AT_MOST)
        at = bisect_right(uids, cursor)
        cut = len(uids) == _LISTED_AT_MOST  # there may be more than these
        await self._account(low, uids[-1] if cut and at == len(uids) else cursor, uids[:at])
        window = uids[at : at + plan.WINDOW_MESSAGES]
        more = cut or at + len(window) < len(uids)
        if not window:
            return watcher.Looked(cursor, stirred=self._session.is_stirred)
        listed = await self.list(window, suspects)
        # Where one message could not be written and a later one could, the later ones lie above the cursor
        known = await self._store.read(folders.known_uids, *self.place, window)
        return await self._take(cursor, listed, known, suspects, window[-1], more)

    async def _few(self, cursor: int) -> list[Listed] | None:
        try:
            return await self._parts.call(self._session.listed_above, cursor)
        except NotGiven:
            return None

    async def list(self, uids: Sequence[int], suspects: Mapping[int, int]) -> list[Listed]:
        """Return those of `uids` that are there; what the server counts and does not show, of unknown size."""
        listed: list[Listed] = await each_apart(self._parts, self._session.listed, uids, suspects)
        shown = {item.uid for item in listed}
        if len(shown) < len(uids):
            hidden = await self._parts.call(self._session.present, [uid for uid in uids if uid not in shown])
            listed += (Listed(uid, _UNKNOWN_SIZE, None) for uid in hidden)
        return sorted(listed, key=lambda item: item.uid)

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
            known = known | await self.known_again(listed, suspects)
            sizes = [(item.uid, item.size) for item in listed]
            steps = list(plan.plan(self._parts.largest, cursor, sizes, known, suspects))
            await self.taking.take(steps, {item.uid: item for item in listed})
        self._cursor = max(cursor, upto, *(item.uid for item in listed))
        return watcher.Looked(self._cursor, more, self._session.is_stirred)

    async def known_again(self, listed: Sequence[Listed], suspects: Mapping[int, int]) -> set[int]:
        """Return the UIDs of messages that we have from elsewhere, or from an earlier place in this folder.

        Size and time say of nearly every new message that it is none of them; the few others show their header.
        """
        if not listed:
            return set()
        outlines = [(item.uid, outline(item.size, item.internal_at), item.object_id) for item in listed]
        maybe = await self._store.read(locations.maybe_known, self._id, self.role, outlines)
        if not maybe:
            return set()
        sightings = await self._sightings(sorted(maybe), suspects)
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
        there = known = debts = older = gaps = gone = 0
        low = 1
        while low <= max(cursor, 1):
            window = await self._parts.call(self._session.uids, low, cursor, _ACCOUNT_MESSAGES) if cursor else []
            high = window[-1] if len(window) == _ACCOUNT_MESSAGES else max(cursor, low)
            accounting = Accounting(self.place, low, high, tuple(window), to_ms(datetime.now(UTC)))
            found = await self._store.submit(locations.account, accounting)
            known, debts, older = known + found.known, debts + found.owed, older + found.left
            there, gaps, gone, low = there + len(window), gaps + found.late, gone + found.gone, high + 1
        await self._store.submit(folders.note_reconciled, (self.place, to_ms(datetime.now(UTC))))
        return Reconciled(self.name, self.role, there, known, debts, older, gaps, gone)


def _stretches(cursor: int, wanted: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the stretches of UIDs from 1 to `cursor` between those that are wanted (ascending)."""
    found: list[tuple[int, int]] = []
    low = 1
    for uid in (*wanted, cursor + 1):
        if low < uid:
            found.append((low, uid - 1))
        low = uid + 1
    return tuple(found)
