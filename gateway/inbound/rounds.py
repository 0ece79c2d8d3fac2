"""The short-lived second session of a touchpoint: visits the folders where something has happened, looks into Sent for
what became of mail, and files.

The wheel asks STATUS of the other folders over its own session once a minute, which costs no login (providers count
logins); only what it finds makes a round: connect, read, file, log out. A round's trouble is never the wheel's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import trio

from gateway import events
from gateway.config.providers import PROFILES
from gateway.errors import Unavailable
from gateway.inbound import folders, watcher
from gateway.inbound.connecting import Connector
from gateway.inbound.debts import Debts
from gateway.inbound.filer import Filer
from gateway.inbound.folder import OpenFolder
from gateway.inbound.parts import Lost, Parts
from gateway.inbound.plan import accuse, acquit
from gateway.inbound.session import LoginRefused, NoFolder, NotGiven, Selected, Session, Status
from gateway.inbound.witness import Witness
from gateway.model import Role, to_ms
from gateway.state import chores, filings

_ALARM_AFTER: Final = 3  # failures in a row
_RECONCILE_EVERY: Final = timedelta(hours=24)
_LIST_IN_A_ROUND: Final = "LIST in a round"
_PATIENCE: Final = 2  # sessions that a question may cost
_FORGIVE_AFTER: Final = 3600.0  # seconds
_BATCHES: Final = 20  # of what is owed in one folder, before the next folder has its turn

_Shape = tuple[int, int | None, int]  # UIDVALIDITY, UIDNEXT, messages


def bell(touchpoint: str) -> str:
    """Return the doorbell's key for "something is to be filed at the provider"."""
    return f"mailbox {touchpoint}"


class Rounds:
    """`run` makes them; `ask` finds out whether one is needed; `reconcile` is a round on request."""

    def __init__(self, parts: Parts, connector: Connector, witness: Witness) -> None:
        self._parts = parts
        self._witness = witness
        self._store = parts.store
        self.touchpoint = parts.touchpoint.id
        self._connector = connector
        # Of all watched folders, in their order; until the provider's list is known those that the admin names
        self._roles: Mapping[str, Role] = {folders.known_as(name): Role.QUEUE for name in parts.touchpoint.folders}
        self._listed_over: Session | None = None
        self._is_listed = False
        self._cost: Counter[str] = Counter()  # sessions that a question has cost in a row
        self._forgiven_at = trio.current_time() + _FORGIVE_AFTER
        self._told: dict[str, _Shape] = {}  # as STATUS last told of each
        self._fails: Counter[str] = Counter()  # visits in a row that have failed
        self._is_caught_up = False  # the first folder has been read to its end
        self._requests: dict[trio.CancelScope, trio.Event] = {}
        self._refusals = 0
        self._seen: dict[str, _Shape] = {}  # as each was at its last complete visit
        self._to_visit: set[str] = set()
        self._suspects: dict[str, Mapping[int, int]] = {}
        self._missing: dict[str, str] = {}  # folders that the server does not open, and its words
        self._reconciled_at: datetime | None = None
        self._wanted = trio.Event()
        self._is_wheel_up = trio.Event()
        self._on_the_way = trio.Lock()
        self._failures = 0

    @property
    def _others(self) -> list[str]:
        return list(self._roles)[1:]

    def want(self) -> None:
        """Let a round be made soon."""
        self._wanted.set()

    async def heed(self) -> None:
        """Somebody has rung: let a round be made if what there is to do cannot wait for the wheel's next question.

        A copy for Sent can, and so does not cost a login for every message.
        """
        is_filing = await self._store.read(filings.waiting, self.touchpoint, to_ms(datetime.now(UTC)))
        if is_filing or await self._witness.is_due(in_haste=True):
            self.want()

    def pause(self) -> None:
        """The provider is away: rounds begin again when the wheel has found it."""
        if self._is_wheel_up.is_set():
            self._is_wheel_up = trio.Event()

    # --- what the wheel does for us ----------------------------------------------------------------------------------

    async def ask(self, session: Session, is_caught_up: bool) -> None:
        """Ask the wheel's session after the other folders, and the store after what is to be done.

        Raises Unavailable. A question that has cost the session twice is not asked for an hour: the first folder's
        mail must not wait for the others', which are then visited without having been asked.
        """
        self._is_caught_up = self._is_caught_up or is_caught_up
        self._is_wheel_up.set()
        if trio.current_time() >= self._forgiven_at:
            self._cost.clear()
            self._forgiven_at = trio.current_time() + _FORGIVE_AFTER
        if self._listed_over is not session:
            self._listed_over = session
            if self._cost["LIST"] < _PATIENCE:
                self._cost["LIST"] += 1
                await self._find_folders(session)
                del self._cost["LIST"]
        if not self._is_listed and self._cost[_LIST_IN_A_ROUND] < _PATIENCE:
            self.want()
        for name in self._others:
            question = f"STATUS {name}"
            if self._cost[question] >= _PATIENCE:
                self._to_visit.add(name)
                continue
            self._cost[question] += 1
            await self._ask_one(session, name)
            del self._cost[question]
        await self._look_for_work()

    async def _find_folders(self, session: Session) -> None:
        """Learn which folders there are, and what each is to us."""
        touchpoint = self._parts.touchpoint
        watch = touchpoint.watch
        listing = await self._parts.call(session.folders)
        found = folders.roles(listing, touchpoint.folders, watch.junk, watch.sent, PROFILES[touchpoint.provider])
        if found != self._roles:
            said = {role.value: [name for name in found if found[name] is role] for role in Role}
            events.say("folders", touchpoint=self.touchpoint, **{role: names for role, names in said.items() if names})
        self._roles, self._is_listed = found, True
        for name in [name for name in self._missing if name not in found]:
            self._miss(name, None)
        self._to_visit.intersection_update(found)
        self._parts.health.touchpoint(self.touchpoint).folders = dict(found)

    async def _ask_one(self, session: Session, name: str) -> None:
        try:
            status = await self._parts.call(session.status, name)
        except NoFolder as error:
            self._miss(name, str(error))
        except NotGiven:  # a server without a STATUS worth the name: look for ourselves
            self._to_visit.add(name)
        else:
            self._told[name] = self._shape(status)
            if self._told[name] != self._seen.get(name):
                self._to_visit.add(name)

    async def _look_for_work(self) -> None:
        """Let a round be made if there is something for it."""
        now = datetime.now(UTC)
        behind = await self._store.read(
            chores.due_folders, self.touchpoint, to_ms(now), self._parts.largest, self._others
        )
        self._to_visit.update(name for name in self._others if name in behind and name not in self._missing)
        is_filing = await self._store.read(filings.waiting, self.touchpoint, to_ms(now))
        self._reconciled_at = self._reconciled_at or await self._last_reconciliation(now)
        is_reconciling = now - self._reconciled_at >= _RECONCILE_EVERY
        if self._to_visit or is_filing or is_reconciling or await self._witness.is_due():
            self.want()

    async def _last_reconciliation(self, now: datetime) -> datetime:
        """Return when a reconciliation was last complete; a folder that is new is complete by its history."""
        at = await self._store.read(chores.reconciled_at, self.touchpoint, list(self._roles))
        return now if at is None else datetime.fromtimestamp(at / 1000, UTC)

    @staticmethod
    def _shape(of: Status | Selected) -> _Shape:
        return of.uidvalidity, of.uidnext, of.exists

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make rounds until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                await self._is_wheel_up.wait()
                self._wanted = trio.Event()
                await self._try_round()
        finally:
            # Requests run in the tasks of those who ask; whoever comes after us must not find their sessions open
            with trio.CancelScope(shield=True):
                for scope, ended in list(self._requests.items()):
                    scope.cancel()
                    await ended.wait()

    async def _try_round(self) -> None:
        try:
            async with self._on_the_way:
                await self._round()
        except Lost as lost:
            await self._rest(lost.cause)
        except Unavailable as error:
            await self._rest(error)
        except Exception as error:  # ours: the wheel goes on, and so do we, later
            self._parts.health.bugs += 1
            events.bug("round-failed", error, touchpoint=self.touchpoint)
            await self._rest(Unavailable(f"a fault of the gateway ({type(error).__name__}); see the log"))
        else:
            self._failures = self._refusals = 0
            self._parts.health.clear(self.touchpoint, "other-folders")

    async def _rest(self, cause: Unavailable) -> None:
        refused = isinstance(cause, LoginRefused)
        self._failures, self._refusals = self._failures + 1, self._refusals + refused
        rest = watcher.rest_after(self._failures, self._refusals if refused else 0, random.random()).total_seconds()
        events.warn("round-lost", touchpoint=self.touchpoint, cause=str(cause), retry_in=f"{rest:.0f}s")
        if refused or self._failures >= _ALARM_AFTER:
            self._parts.health.alarm(
                self.touchpoint, "other-folders", str(cause), "see the cause; we keep trying, no mail is lost meanwhile"
            )
        self.want()
        await trio.sleep(rest)

    async def _round(self) -> None:
        """Visit, look for evidence, file, reconcile. Folders whose visit has failed come last: none waits for them."""
        async with self._connector.session() as session:
            if not self._is_listed and self._cost[_LIST_IN_A_ROUND] < _PATIENCE:
                self._cost[_LIST_IN_A_ROUND] += 1
                await self._find_folders(session)
            roles = dict(self._roles)
            wanted = [name for name in list(roles)[1:] if name in self._to_visit]
            for name in wanted:
                if not self._fails[name]:
                    await self._visit(session, name, roles)
            await self._witness.work(session, roles)
            await Filer(self._parts, session, roles).file_all()
            if self._reconciled_at and datetime.now(UTC) - self._reconciled_at >= _RECONCILE_EVERY:
                await self._reconcile_all(session, roles)
            for name in sorted(wanted, key=lambda name: self._fails[name]):
                if self._fails[name]:
                    await self._visit(session, name, roles)

    async def _visit(self, session: Session, name: str, roles: Mapping[str, Role]) -> None:
        """Read what is new in a folder, and some of what is owed there."""
        if roles[name] is Role.SENT and not self._may_read_sent(roles):
            return
        told = self._told.get(name)
        self._fails[name] += 1
        try:
            folder = await self._read(session, name, roles[name])
        except (NoFolder, NotGiven) as error:
            del self._fails[name]
            self._miss(name, str(error))
            self._to_visit.discard(name)
            return
        del self._fails[name]
        self._miss(name, None)
        self._seen[name] = told or self._shape(folder.selected)
        self._to_visit.discard(name)

    def _may_read_sent(self, roles: Mapping[str, Role]) -> bool:
        """What an answer in Sent belongs to has to be known before it."""
        return self._is_caught_up and not any(
            roles.get(name) is Role.QUEUE and name not in self._missing for name in self._to_visit
        )

    async def _read(self, session: Session, name: str, role: Role) -> OpenFolder:
        """Open a folder and read it to its end; return it. Raises NoFolder, NotGiven, Unavailable, Lost."""
        folder = OpenFolder(self._parts, session, name, role)
        suspects = self._suspects.get(name, {})
        try:
            opened = await folder.open()
            if opened.renumbered:
                opened = await folder.renumber(suspects)
            await self._take(session, folder, opened.cursor)
        except Lost as lost:
            self._suspects[name] = accuse(suspects, lost.fetching)
            raise
        return folder

    async def _take(self, session: Session, folder: OpenFolder, cursor: int | None) -> None:
        """Look through what lies above the cursor (None: not), then ask for what is owed."""
        while cursor is not None:
            looked = await folder.look(cursor, False, self._suspects.get(folder.name, {}))
            self._suspects[folder.name] = acquit(self._suspects.get(folder.name, {}), looked.cursor)
            cursor = looked.cursor if looked.more else None
        debts = Debts(self._parts, session, folder)
        for _ in range(_BATCHES):
            if not await debts.catch_up():
                break

    def _miss(self, name: str, cause: str | None) -> None:
        """A folder cannot be opened, or can again (None); what lies in the others comes all the same."""
        if cause is None:
            self._missing.pop(name, None)
        elif self._missing.get(name) != cause:
            events.warn("folder-missing", touchpoint=self.touchpoint, folder=name, cause=cause)
            self._missing[name] = cause
        if self._missing:
            action = "mend `folders` or the folder's name at the provider, then: mail-gateway reload"
            self._parts.health.alarm(self.touchpoint, "missing-folder", "; ".join(self._missing.values()), action)
        else:
            self._parts.health.clear(self.touchpoint, "missing-folder")

    # --- reconciliation ----------------------------------------------------------------------------------------------

    async def reconcile(self) -> list[dict[str, Any]]:
        """Compare every watched folder's UIDs with the ledger, fetch what is missing; return the counts by folder.

        Raises Unavailable when the provider cannot be reached, or the touchpoint's settings change meanwhile.
        """
        with trio.CancelScope() as scope:
            self._requests[scope] = ended = trio.Event()
            try:
                async with self._on_the_way, self._connector.session() as session:
                    return await self._reconcile_all(session, dict(self._roles))
            except Lost as lost:
                raise lost.cause from lost
            finally:
                del self._requests[scope]
                ended.set()
        raise Unavailable(f"the settings of {self.touchpoint} have changed; ask again")

    async def _reconcile_all(self, session: Session, roles: Mapping[str, Role]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name in sorted(roles, key=lambda name: self._fails[name]):
            shown: dict[str, Any] = {"touchpoint": self.touchpoint, "folder": name, "role": roles[name].value}
            if roles[name] is Role.SENT and not self._may_read_sent(roles):
                found.append(shown | {"error": "the mail that it answers is still being read; ask again later"})
                continue
            try:
                found.append(shown | await self._reconcile_one(session, name, roles))
            except (NoFolder, NotGiven) as error:
                found.append(shown | {"error": str(error)})
        self._reconciled_at = datetime.now(UTC)
        return sorted(found, key=lambda row: list(roles).index(row["folder"]))

    async def _reconcile_one(self, session: Session, name: str, roles: Mapping[str, Role]) -> dict[str, Any]:
        if name == next(iter(roles)):  # the wheel reads it; here it is only compared
            folder = OpenFolder(self._parts, session, name, roles[name])
            if (await folder.open()).renumbered:
                raise NotGiven(f"{name} has new numbers, which are being matched; ask again in a minute")
        else:
            folder = await self._read(session, name, roles[name])
        counts = await folder.reconcile()
        if counts.gaps:
            await self._take(session, folder, None)
        events.say(
            "reconciled", touchpoint=self.touchpoint, folder=name, at_provider=counts.at_provider, known=counts.known,
            owed=counts.owed, older=counts.older, gaps=counts.gaps, gone=counts.gone,
        )  # fmt: skip
        unfetched = await self._store.read(chores.count_owed_in, folder.place)
        shown = asdict(counts) | {"unfetched": unfetched, "error": None}
        return {key: value for key, value in shown.items() if key not in ("folder", "role")}
