"""Does at the provider what the store says is still to be done there: marks, and moves to another folder.

Every try is written down before it is made, and a filing is forgotten only when it has happened. So what is done
after a commit is done although we were killed in between; and where the server knows no MOVE, a copy that an earlier
try has made is found again and not made twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Final

from gateway import events
from gateway.inbound.identity import fingerprint
from gateway.inbound.parts import Parts, each
from gateway.inbound.session import HalfMoved, Moved, NoFolder, NotGiven, NotOffered, Session
from gateway.inbound.taking import again_at
from gateway.model import FilingAction, Location, Role, to_ms
from gateway.state import filings, locations
from gateway.state.filings import Filed, Filing
from gateway.state.folders import Place
from gateway.state.locations import Relocation

_TOGETHER: Final = 100
_MARKS: Final = {FilingAction.SEEN: "\\Seen", FilingAction.ANSWERED: "\\Answered"}
_GIVEN_UP_AFTER: Final = timedelta(days=30)
ALARM: Final = "filing"


class Filer:
    """`roles`: of the watched folders, in their order."""

    def __init__(self, parts: Parts, session: Session, roles: Mapping[str, Role]) -> None:
        self._parts = parts
        self._id = parts.touchpoint.id
        self._store = parts.store
        self._session = session
        self._roles = roles
        self._troubles: set[str] = set()

    async def file_all(self) -> None:
        """Do what is due, oldest first. Raises Unavailable when the session or the store goes."""
        await self._store.submit(filings.sweep, to_ms(datetime.now(UTC) - _GIVEN_UP_AFTER))
        while due := await self._store.read(filings.due, self._id, to_ms(datetime.now(UTC)), _TOGETHER):
            for (folder, uidvalidity, action, target), group in groupby(sorted(due, key=_together), key=_together):
                await self._file(Place(self._id, folder, uidvalidity), action, target, list(group))
        if not self._troubles:
            self._parts.health.clear(self._id, ALARM)

    async def _file(self, place: Place, action: FilingAction, target: str, group: Sequence[Filing]) -> None:
        now = datetime.now(UTC)
        tries = max(filing.tries for filing in group) + 1
        tried = [(filing.message, filing.action) for filing in group]
        await self._store.submit(filings.begin, (self._id, tried, again_at(now, tries)))
        try:
            there = await self._open(place, [filing.uid for filing in group])
            here = [filing for filing in group if filing.uid in there]
            if not here:
                return
            target = target or self._target(action)
            await self._in_halves(here, partial(self._do, place, target))
        except (NoFolder, NotOffered, HalfMoved) as error:
            self._tell(action, place.folder, str(error), tries)

    async def _in_halves(self, group: Sequence[Filing], do: Callable[[Sequence[Filing]], Awaitable[None]]) -> None:
        """Where the server says NO it may be about one of them, and is not about all."""
        try:
            await do(group)
        except NotGiven as error:
            if len(group) == 1:
                self._tell(group[0].action, group[0].folder, str(error), group[0].tries + 1)
                return
            middle = len(group) // 2
            await self._in_halves(group[:middle], do)
            await self._in_halves(group[middle:], do)

    async def _do(self, place: Place, target: str, group: Sequence[Filing]) -> None:
        if (mark := _MARKS.get(group[0].action)) is not None:
            await self._parts.call(self._session.flag, sorted(filing.uid for filing in group), mark)
            for filing in group:
                await self._store.submit(filings.done, Filed(filing.message, filing.action))
        else:
            await self._move_or_create(place, target, group)

    async def _open(self, place: Place, uids: Sequence[int]) -> set[int]:
        """Open the folder for writing; return those of `uids` that are in it. Those that are not lie there no more."""
        selected = await self._parts.call(self._session.select, place.folder, True)
        if selected.uidvalidity != place.uidvalidity:
            return set()  # where they lie now, the next look finds out
        there = set(await self._parts.call(self._session.present, sorted(uids)))
        if gone := tuple(uid for uid in uids if uid not in there):
            role = self._roles.get(place.folder, Role.QUEUE)
            relocation = Relocation(place, role, (), gone, to_ms(datetime.now(UTC)))
            await self._store.submit(locations.relocate, relocation)
        return there

    def _target(self, action: FilingAction) -> str:
        """Return where a released message goes, or one that a person has called junk. Raises NoFolder."""
        if action in _MARKS:
            return ""
        wanted = Role.JUNK if action is FilingAction.JUNK else Role.QUEUE
        for folder, role in self._roles.items():
            if role is wanted:
                return folder
        raise NoFolder(f"{self._id} has no folder for {wanted.value}; name it in rules.toml (watch = {{ junk = … }})")

    async def _move_or_create(self, place: Place, target: str, group: Sequence[Filing]) -> None:
        try:
            await self._move(place, target, group)
        except NoFolder:
            await self._parts.call(self._session.create, target)
            await self._move(place, target, group)

    async def _move(self, place: Place, target: str, group: Sequence[Filing]) -> None:
        """Move messages out of the open folder; each is done when it lies there no more."""
        if self._session.can_move:
            await self._record_moved(place, group, await self._call_move(group, target, copied=False), target)
            return
        for filing in group:
            await self._move_in_two_steps(place, target, filing)

    async def _move_in_two_steps(self, place: Place, target: str, filing: Filing) -> None:
        """Copy and take away, so that a cut in between leaves one copy, and never none."""
        copy = await self._find_copy(target, filing) if filing.copying else None
        if filing.copying and filing.uid not in await self._open(place, [filing.uid]):
            return
        if copy is None:
            await self._store.submit(filings.copying, (self._id, [(filing.message, filing.action)]))
        else:  # written down before the original goes: a twin that is filed later must not take it for its own
            await self._store.submit(filings.copied, (self._id, filing.message, filing.action, copy))
        try:
            moved = await self._call_move([filing], target, copied=copy is not None)
        except HalfMoved as error:
            if (now := _now(error.moved, target, filing)) is not None:
                await self._store.submit(filings.copied, (self._id, filing.message, filing.action, now))
            raise
        await self._record_moved(place, [filing], moved, target)

    async def _find_copy(self, target: str, filing: Filing) -> Location | None:
        """Return where the copy lies that an earlier try has made; a filed twin is none."""
        try:
            selected = await self._parts.call(self._session.select, target, False)
        except NoFolder:
            return None
        if filing.copy_uid is not None and filing.copy_uidvalidity == selected.uidvalidity:
            found = await self._parts.call(self._session.present, [filing.copy_uid])
            return Location(target, selected.uidvalidity, found[0]) if found else None
        if not filing.message_id:
            return None
        uids = await self._parts.call(self._session.with_message_id, filing.message_id)
        others = await self._store.read(filings.located_in, self._id, target, uids)
        for item in await each(self._parts, self._session.headed, [uid for uid in uids if uid not in others]):
            listed = item.listed
            if fingerprint(item.header, listed.size, listed.internal_at) == filing.fingerprint:
                return Location(target, selected.uidvalidity, listed.uid)
        return None

    async def _call_move(self, group: Sequence[Filing], target: str, *, copied: bool) -> Moved:
        return await self._parts.call(self._session.move, sorted(filing.uid for filing in group), target, copied)

    async def _record_moved(self, place: Place, group: Sequence[Filing], moved: Moved, target: str) -> None:
        """Record what has been moved."""
        still = set(await self._parts.call(self._session.present, sorted(filing.uid for filing in group)))
        for filing in group:
            if filing.uid not in still:
                left = Location(place.folder, place.uidvalidity, filing.uid)
                filed = Filed(filing.message, filing.action, left, _now(moved, target, filing))
                await self._store.submit(filings.done, filed)
        if still:
            self._tell(group[0].action, place.folder, f"the server said OK and did not move {len(still)}", 1)

    def _tell(self, action: FilingAction, folder: str, cause: str, tries: int) -> None:
        events.warn("not-filed", touchpoint=self._id, folder=folder, action=action.value, cause=cause)
        self._troubles.add(cause)
        if tries > 1:
            self._parts.health.alarm(
                self._id, ALARM, f"{action.value} is not done at the provider: {cause}",
                "see the cause; it is tried again, and no mail depends on it",
            )  # fmt: skip


def _now(moved: Moved, target: str, filing: Filing) -> Location | None:
    """Return where the message lies now, as far as the server has said."""
    new = moved.uids.get(filing.uid)
    return None if new is None or moved.uidvalidity is None else Location(target, moved.uidvalidity, new)


def _together(filing: Filing) -> tuple[str, int, FilingAction, str]:
    return filing.folder, filing.uidvalidity, filing.action, filing.target
