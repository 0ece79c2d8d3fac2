"""One task per touchpoint: does what the watcher decides, and hands what comes to the intake.

The session lives in the asyncio thread and is driven through the bridge one step at a time: a listing, a batch. The
next batch is fetched while the last one is being committed. Nothing here decides anything about mail; what can go
wrong becomes `Failed`, one line in the log, and a state in `health`.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import trio

from gateway import events
from gateway.bridge import Bridge
from gateway.config import Config, Touchpoint
from gateway.config.providers import PROFILES
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound import session as imap
from gateway.inbound import watcher
from gateway.inbound.fetch import Headed, Listed
from gateway.inbound.identity import fingerprint
from gateway.inbound.session import LoginRefused, NoFolder, NotGiven, Selected, Session
from gateway.inbound.watcher import Pass, Planned, Take, Watch
from gateway.model import Arrival, Location, to_ms
from gateway.state import mailboxes
from gateway.state.mailboxes import Folder, Opening, Owed, Passage, Relisting, Sighting
from gateway.state.store import Store

T = TypeVar("T")

# Further folders are looked at in turn, over one more connection (DESIGN §7, `folders`)
_OTHER_FOLDERS_EVERY: Final = timedelta(seconds=60)
_LITERAL_SLACK: Final = 1024 * 1024  # servers estimate RFC822.SIZE; a little more than the limit is still read
_RELIST_MESSAGES: Final = 500
# The server's clock is not ours, and INTERNALDATE has no fractions. After a change of UIDVALIDITY a message of these
# minutes is rather taken too much than missed.
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
ALARMS: Final = ("imap-login", "unreachable", "other-folders", "missing-folder")  # keys of those that we raise
_ALARM_AFTER: Final = 3  # failures in a row: a provider's hiccup is not worth a person's look
_RELOAD_SEEN_WITHIN: Final = 0.5  # seconds
_PYTHON_SLICE: Final = 32  # messages handled before other tasks get their turn


class Taker(Protocol):
    """The door behind us (`intake.Intake`): durable on return, in state `arrived` at least."""

    async def accept(self, arrivals: Sequence[Arrival], /) -> Any: ...


async def run(
    touchpoint: Touchpoint,
    *,
    bridge: Bridge,
    store: Store,
    intake: Taker,
    current: Callable[[], Config],
    health: Health,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Watch a touchpoint's folders until cancelled. Settings are those given; new ones need a new task."""
    assert touchpoint.imap is not None, "only an inbound touchpoint has a mailbox to watch"
    largest = current().gateway.inbound.max_message_size
    profile = PROFILES[touchpoint.provider]
    first, *others = touchpoint.folders
    watch = Watch(
        (first,),
        poll=touchpoint.watch.poll,
        renew_idle=touchpoint.watch.renew_idle,
        may_idle=profile.idle,
        reconnect_after=profile.reconnect,
        largest_bytes=largest,
    )
    parts = _Parts(touchpoint, bridge, store, intake, current, health)
    if not others:
        health.clear(touchpoint.id, "other-folders")
        health.clear(touchpoint.id, "missing-folder")
    task_status.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_Mailbox(parts, watch, speaks=True).run)
        if others:
            poll = min(touchpoint.watch.poll, _OTHER_FOLDERS_EVERY)
            turns = Watch(tuple(others), poll, watch.renew_idle, False, watch.reconnect_after, largest)
            nursery.start_soon(_Mailbox(parts, turns, speaks=False).run)


@dataclass(frozen=True, slots=True)
class _Parts:
    touchpoint: Touchpoint
    bridge: Bridge
    store: Store
    intake: Taker
    current: Callable[[], Config]
    health: Health


class _Lost(Exception):
    """The session went while bodies were fetched; `fetching`: whose."""

    def __init__(self, cause: Unavailable, fetching: tuple[int, ...]) -> None:
        super().__init__(cause, fetching)
        self.cause = cause
        self.fetching = fetching


class _Mailbox:
    """One session's worth of folders. `speaks`: it is this one whose state `status` shows for the touchpoint."""

    def __init__(self, parts: _Parts, watch: Watch, speaks: bool) -> None:
        self._parts = parts
        self._id = parts.touchpoint.id
        self._bridge = parts.bridge
        self._store = parts.store
        self._health = parts.health
        self._watch = watch
        self._speaks = speaks
        self._session: Session | None = None
        self._folder = watch.folders[0]
        self._selected = Selected(0, None, 0)
        self._suspects: Mapping[int, int] = {}
        self._cause = ""  # of the last failure
        self._missing: dict[str, str] = {}  # folders that the server does not open, and its words
        self._passwords = trio.CapacityLimiter(1)
        self._alarmed = "unreachable" if speaks else "other-folders"

    # --- the wheel ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        state = watcher.State()
        event: watcher.Event = watcher.Begun()
        try:
            while True:
                state, action = watcher.decide(self._watch, state, event, trio.current_time(), random.random())
                self._suspects = state.suspects
                if isinstance(action, watcher.Rest):
                    events.touchpoint_lost(self._id, self._cause, retry_in=f"{action.seconds:.0f}s")
                event = await self._attempt(action, state)
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _attempt(self, action: watcher.Action, state: watcher.State) -> watcher.Event:
        try:
            event = await self._do(action)
        except _Lost as lost:
            await self._close()
            return self._failed(lost.cause, state, lost.fetching)
        except Unavailable as error:
            await self._close()
            return self._failed(error, state)
        if isinstance(event, watcher.Looked):
            self._synced(event)
        return event

    async def _do(self, action: watcher.Action) -> watcher.Event:
        match action:
            case watcher.Connect():
                return await self._connect()
            case watcher.Open(folder):
                try:
                    opened = await self._open(folder)
                except NoFolder as error:
                    if len(self._watch.folders) == 1:
                        raise
                    self._miss(folder, str(error))
                    return watcher.Missing()
                self._miss(folder, None)
                return opened
            case watcher.Renumber(folder):
                return await self._renumber(folder)
            case watcher.Look(cursor=cursor, few=few, retry=retry):
                looked = await self._look(cursor, few)
                if retry:  # after the look: what troubles the server must not come before new mail
                    await self._retry_owed()
                return looked
            case watcher.Idle(seconds):
                stirred = await self._call(self._live.idle, seconds)
                return watcher.Waited(stirred, self._live.can_idle)
            case watcher.Sleep(seconds):
                await trio.sleep(seconds)
                return watcher.Waited()
            case watcher.Rest(seconds):
                await self._rest(seconds)
                return watcher.Begun()
            case watcher.Leave():
                session, self._session = self._live, None
                await self._bridge.call(session.logout)
                return watcher.Left()

    async def _rest(self, seconds: float) -> None:
        """Wait, but not past a reload: whoever mends a password file reloads, and does not want to wait an hour."""
        config = self._parts.current()
        with trio.move_on_after(seconds):
            while self._parts.current() is config:  # noqa: ASYNC110 - the configuration is a value, it rings no bell
                await trio.sleep(_RELOAD_SEEN_WITHIN)

    @property
    def _live(self) -> Session:
        assert self._session is not None, "the watcher connects before anything else"
        return self._session

    async def _call(self, method: Callable[..., Awaitable[T]], *args: object) -> T:
        try:
            return await self._bridge.call(method, *args)  # type: ignore[arg-type]  # every method here is a coroutine function
        finally:
            if self._session is not None:
                self._health.touchpoint(self._id).last_server_byte_at = self._session.last_byte_at

    async def _close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            with suppress(Unavailable):  # the bridge is closed, and with it the session
                await self._bridge.call(session.close)

    # --- what others see ---------------------------------------------------------------------------------------------

    def _say(self, state: str, *, connected: bool, cause: str | None = None) -> None:
        if self._speaks:
            self._health.set_state(self._id, state, connected=connected, cause=cause)

    def _failed(self, error: Unavailable, state: watcher.State, fetching: tuple[int, ...] = ()) -> watcher.Failed:
        refused = isinstance(error, LoginRefused)
        self._cause = cause = str(error)
        self._say("login refused" if refused else "waiting", connected=False, cause=cause)
        if refused:
            action = "check imap_login and password of the touchpoint, then: mail-gateway reload"
            self._health.alarm(self._id, "imap-login", cause, action)
        elif state.failures + 1 >= _ALARM_AFTER:
            self._health.alarm(
                self._id, self._alarmed, cause, "see the cause; we keep trying, no mail is lost meanwhile"
            )
        return watcher.Failed(refused, fetching)

    def _miss(self, folder: str, cause: str | None) -> None:
        """One of several folders cannot be opened, or can again (None); what lies in the others comes all the same."""
        if cause is None:
            self._missing.pop(folder, None)
        elif self._missing.get(folder) != cause:
            events.warn("folder-missing", touchpoint=self._id, folder=folder, cause=cause)
            self._missing[folder] = cause
        if self._missing:
            action = "mend `folders` or the folder's name at the provider, then: mail-gateway reload"
            self._health.alarm(self._id, "missing-folder", "; ".join(self._missing.values()), action)
        elif not self._speaks:
            self._health.clear(self._id, "missing-folder")

    def _synced(self, event: watcher.Looked) -> None:
        if not (event.more or event.stirred):
            self._cause = ""
            self._health.clear(self._id, self._alarmed)
            self._say("watching", connected=True)
            if self._speaks:
                self._health.touchpoint(self._id).synced_at = datetime.now(UTC)

    # --- connecting --------------------------------------------------------------------------------------------------

    async def _connect(self) -> watcher.Event:
        touchpoint = self._parts.touchpoint
        server = touchpoint.imap
        assert server is not None
        if touchpoint.password is None:
            raise LoginRefused(f"{self._id} has no password; name one in rules.toml (password = …)")
        if self._speaks and not self._health.touchpoint(self._id).cause:
            self._say("connecting", connected=False)
        password = await trio.to_thread.run_sync(
            touchpoint.password.resolve, limiter=self._passwords, abandon_on_cancel=True
        )
        tls = None if server.scheme.endswith("+insecure") else await _tls_context(touchpoint.ca_file)
        literal_bytes = self._watch.largest_bytes + _LITERAL_SLACK
        self._session = await self._bridge.call(
            partial(imap.connect, server, tls, touchpoint.imap_login, password, literal_bytes=literal_bytes)
        )
        self._health.clear(self._id, "imap-login")
        self._say("reading", connected=True, cause=self._cause or None)  # a login alone mends nothing
        events.touchpoint_connected(self._id, str(server))
        return watcher.Connected(self._session.can_idle)

    # --- folders -----------------------------------------------------------------------------------------------------

    async def _open(self, name: str) -> watcher.Event:
        self._folder = name
        self._selected = selected = await self._call(self._live.select, name)
        folder = await self._store.read(mailboxes.find_folder, self._id, name)
        if folder is None:
            folder = await self._begin_history(name, selected)
        await self._count_owed()
        return watcher.Opened(folder.cursor, renumbered=folder.uidvalidity != selected.uidvalidity)

    async def _begin_history(self, name: str, selected: Selected) -> Folder:
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
        folder = Folder(self._id, name, selected.uidvalidity, cursor, skipped, to_ms(now), to_ms(begins_at))
        folder = await self._store.submit(mailboxes.open_folder, Opening(folder, tuple(wanted)))
        events.say(
            "history-begins",
            touchpoint=self._id,
            folder=name,
            older_messages_left=folder.skipped,
            brought=selected.exists - folder.skipped,
        )
        return folder

    async def _uids_from(self, begins_at: datetime) -> list[int]:
        """Return the UIDs of messages with an INTERNALDATE from then on, wherever they stand in the folder."""
        # SINCE knows only days, in the server's own zone: ask for one more and look at the times
        recent = await self._call(self._live.uids_since, (begins_at - timedelta(days=1)).date())
        listed: list[Listed] = []
        for start in range(0, len(recent), watcher.WINDOW_MESSAGES):
            listed += await self._call(self._live.listed, recent[start : start + watcher.WINDOW_MESSAGES])
        older = {item.uid for item in listed if item.internal_at is not None and item.internal_at < begins_at}
        return [uid for uid in recent if uid not in older]

    async def _last_uid(self, selected: Selected) -> int:
        if selected.uidnext is not None:
            return selected.uidnext - 1
        if not selected.exists:
            return 0
        return max(await self._call(self._live.uids_above, 0), default=0)

    async def _renumber(self, name: str) -> watcher.Event:
        """The UIDVALIDITY has changed: every UID we know means nothing. Find the messages again by what they are."""
        events.warn("uidvalidity-changed", touchpoint=self._id, folder=name, uidvalidity=self._selected.uidvalidity)
        self._say("finding known mail again", connected=True)
        uids = await self._call(self._live.uids_above, 0)
        last_uid = uids[-1] if uids else 0
        moved = new = left = 0
        for start in range(0, max(1, len(uids)), _RELIST_MESSAGES):
            window = uids[start : start + _RELIST_MESSAGES]
            headed: list[Headed] = await self._call(self._live.headed, window) if window else []
            sightings: list[Sighting] = []
            for item in headed:
                await _give_way(len(sightings))
                sightings.append(_sighting(item))
            # What the server counts and does not show matches nothing: it is owed, and found again or gone later
            shown = {item.listed.uid for item in headed}
            now_ms = to_ms(datetime.now(UTC))
            sightings += [Sighting(uid, 0, 0, now_ms) for uid in window if uid not in shown]
            relisted = await self._store.submit(
                mailboxes.relist,
                Relisting(
                    self._id,
                    name,
                    self._selected.uidvalidity,
                    tuple(sightings),
                    last=start + _RELIST_MESSAGES >= len(uids),
                    upto=last_uid,
                    at=to_ms(datetime.now(UTC)),
                ),
            )
            moved, new, left = moved + relisted.moved, new + relisted.new, left + relisted.left
        events.say("folder-renumbered", touchpoint=self._id, folder=name, known=moved, new=new, older_left=left)
        return watcher.Opened(last_uid)

    # --- looking and taking ------------------------------------------------------------------------------------------

    async def _look(self, cursor: int, few: bool) -> watcher.Event:
        if few:
            listed = await self._call(self._live.listed_above, cursor)
            if not listed or listed[-1].uid == cursor + len(listed):
                return await self._take_listed(cursor, listed, upto=cursor, known=(), more=False)
            # A hole in the numbers: either nothing, or a message that the server does not show. SEARCH knows.
        uids = await self._call(self._live.uids_above, cursor)
        window = uids[: watcher.WINDOW_MESSAGES]
        if not window:
            return watcher.Looked(cursor, stirred=self._live.is_stirred)
        listed = await self._list(window)
        # Where one message could not be written and a later one could, the later ones lie above the cursor
        known = await self._store.read(mailboxes.known_uids, *self._place, window)
        return await self._take_listed(cursor, listed, window[-1], known, more=len(uids) > len(window))

    async def _list(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of `uids` that are there; what the server counts and does not show, with size 0."""
        listed = await self._call(self._live.listed, uids)
        if len(listed) == len(uids):
            return listed
        shown = {item.uid for item in listed}
        hidden = await self._call(self._live.present, [uid for uid in uids if uid not in shown])
        return sorted([*listed, *(Listed(uid, 0, None) for uid in hidden)], key=lambda item: item.uid)

    async def _take_listed(
        self, cursor: int, listed: Sequence[Listed], upto: int, known: Collection[int], more: bool
    ) -> watcher.Event:
        steps = list(
            watcher.plan(self._watch, cursor, [(item.uid, item.size) for item in listed], known, self._suspects)
        )
        await self._carry_out(steps, {item.uid: item for item in listed}, {})
        return watcher.Looked(max(cursor, upto, *(item.uid for item in listed)), more, self._live.is_stirred)

    @property
    def _place(self) -> tuple[str, str, int]:
        return self._id, self._folder, self._selected.uidvalidity

    async def _carry_out(
        self, steps: Sequence[watcher.PlanStep], listed: Mapping[int, Listed], tries: Mapping[int, int]
    ) -> None:
        """Fetch and hand over, one batch ahead. What was fetched before a failure is handed over all the same.

        `tries`: how often those were asked for that are owed already.
        """
        if len(steps) == 1:
            for piece in await self._prepare(steps[0], listed, tries):
                await self._hand_over(piece)
            return
        failures: list[Exception] = []
        send, receive = trio.open_memory_channel[Sequence[Sequence[Arrival] | Passage]](0)

        async def fetch() -> None:
            try:
                async with send:
                    for step in steps:
                        await send.send(await self._prepare(step, listed, tries))
            except trio.BrokenResourceError:
                pass  # the other side has failed and says why
            except (Unavailable, _Lost) as error:
                failures.append(error)

        async def hand_over() -> None:
            try:
                async with receive:
                    async for pieces in receive:
                        for piece in pieces:
                            await self._hand_over(piece)
            except Unavailable as error:
                failures.insert(0, error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            nursery.start_soon(hand_over)
        if failures:
            raise failures[0]

    async def _hand_over(self, piece: Sequence[Arrival] | Passage) -> None:
        if isinstance(piece, Passage):
            await self._store.submit(mailboxes.pass_over, piece)
            if piece.owed:
                await self._count_owed()
                for owed in piece.owed:
                    events.warn(
                        "unfetched", touchpoint=self._id, folder=self._folder, uid=owed.uid, size=owed.size,
                        cause=owed.reason,
                    )  # fmt: skip
            return
        await self._parts.intake.accept(piece)
        self._health.touchpoint(self._id).last_message_at = piece[-1].arrived_at

    async def _prepare(
        self, step: watcher.PlanStep, listed: Mapping[int, Listed], tries: Mapping[int, int]
    ) -> Sequence[Sequence[Arrival] | Passage]:
        """Return arrivals and passages in the order of the plan, so that the cursor's chain holds."""
        now = datetime.now(UTC)
        if isinstance(step, Pass):
            owed = [_owed(item, step.reason, now, step.hopeless) for item in step.messages] if step.reason else []
            return [self._passage(step.messages, owed, now)]
        raws, trouble = await self._fetch(step)
        pieces: list[list[Arrival] | Passage] = []
        for number, item in enumerate(step.messages):
            await _give_way(number)
            if (raw := raws.get(item.uid)) is not None:
                if not pieces or isinstance(pieces[-1], Passage):
                    pieces.append([])
                arrivals = pieces[-1]
                assert isinstance(arrivals, list)
                arrivals.append(self._arrival(item, listed[item.uid], raw, now))
            elif reason := trouble.get(item.uid):
                pieces.append(self._passage([item], [_owed(item, reason, now, tries=tries.get(item.uid, 1))], now))
            else:
                pieces.append(self._passage([item], [], now, gone=(item.uid,)))
        return pieces

    def _arrival(self, item: Planned, listed: Listed, raw: bytes, now: datetime) -> Arrival:
        return Arrival(
            id=self._store.ids.next(),
            touchpoint=self._id,
            location=Location(self._folder, self._selected.uidvalidity, item.uid),
            internal_at=listed.internal_at or now,
            arrived_at=now,
            raw=raw,
            follows=item.follows,
            fingerprint=fingerprint(raw, listed.size, listed.internal_at),
        )

    def _passage(
        self, over: Sequence[Planned], owed: Sequence[Owed], now: datetime, gone: tuple[int, ...] = ()
    ) -> Passage:
        return Passage(*self._place, over[0].follows, over[-1].uid, tuple(owed), gone, to_ms(now))

    async def _fetch(self, step: Take) -> tuple[dict[int, bytes], dict[int, str]]:
        """Return the bytes by UID, and for those that are there without them the reason. Raises _Lost.

        What comes back without bytes is asked for once more, alone: a server says NO to five hundred because of one.
        """
        raws, refusal = await self._ask(step.messages)
        trouble: dict[int, str] = {}
        missing = [item for item in step.messages if item.uid not in raws]
        if not missing:
            return raws, trouble
        there = set(await self._call(self._live.present, [item.uid for item in missing]))
        for item in missing:
            if item.uid not in there:
                continue  # expunged since it was listed
            if len(step.messages) > 1:
                more, refusal = await self._ask((item,))
                raws |= more
            if item.uid not in raws:
                trouble[item.uid] = refusal or "the server lists it and gives no text"
        return raws, trouble

    async def _ask(self, messages: Sequence[Planned]) -> tuple[dict[int, bytes], str | None]:
        uids = tuple(item.uid for item in messages)
        sizes = {item.uid: item.size for item in messages}
        try:
            fetched = await self._call(self._live.fetch, uids, sum(sizes.values()))
        except NotGiven as error:
            return {}, str(error)
        except Unavailable as error:
            raise _Lost(error, uids) from error
        # An empty text where the listing has a size is a server's way of saying that something is broken over there
        return {item.uid: item.raw for item in fetched if item.raw or (item.raw == b"" and not sizes[item.uid])}, None

    # --- what is owed ------------------------------------------------------------------------------------------------

    async def _retry_owed(self) -> None:
        """Ask again for what could not be fetched and is due, each try written down before it is made."""
        while True:
            now = datetime.now(UTC)
            due = await self._store.read(
                mailboxes.owed_now, *self._place, to_ms(now), self._watch.largest_bytes, watcher.BATCH_MESSAGES
            )
            if not due:
                return
            listed = {item.uid: item for item in await self._list([owed.uid for owed in due])}
            tries = {owed.uid: owed.tries + 1 for owed in due}
            noted = [
                Owed(owed.uid, owed.size, owed.reason, tries[owed.uid], _again_at(now, tries[owed.uid]))
                for owed in due
                if owed.uid in listed
            ]
            gone = tuple(owed.uid for owed in due if owed.uid not in listed)
            # Up to UID 0: what is owed has been passed by the cursor before, or lies behind a gap; it moves nothing
            await self._store.submit(mailboxes.pass_over, Passage(*self._place, 0, 0, tuple(noted), gone, to_ms(now)))
            sizes = [(uid, item.size) for uid, item in sorted(listed.items())]
            alone = {uid: watcher.ALONE_FROM for uid, count in tries.items() if count > 1}
            steps = [watcher.unchained(step) for step in watcher.plan(self._watch, 0, sizes, (), alone)]
            await self._carry_out(steps, listed, tries)
            await self._count_owed()

    async def _count_owed(self) -> None:
        count = await self._store.read(mailboxes.count_owed, self._id)
        self._health.touchpoint(self._id).unfetched = count


def _owed(item: Planned, reason: str, now: datetime, hopeless: bool = False, tries: int = 1) -> Owed:
    return Owed(item.uid, item.size, reason, tries, None if hopeless else _again_at(now, tries))


def _again_at(now: datetime, tries: int) -> int:
    return to_ms(now + watcher.retry_after(tries))


def _sighting(item: Headed) -> Sighting:
    listed = item.listed
    internal_ms = to_ms(listed.internal_at) if listed.internal_at else to_ms(datetime.now(UTC))
    return Sighting(listed.uid, fingerprint(item.header, listed.size, listed.internal_at), listed.size, internal_ms)


async def _give_way(number: int) -> None:
    """Let other tasks run after some messages: no stretch of Python on this thread is longer than a moment."""
    if number % _PYTHON_SLICE == _PYTHON_SLICE - 1:
        await trio.lowlevel.checkpoint()


_contexts: dict[tuple[Path | None, float], ssl.SSLContext] = {}


async def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the one context for this authority; the system's roots are 100,000 lines to parse and some memory."""

    def make() -> ssl.SSLContext:
        try:
            changed_at = ca_file.stat().st_mtime if ca_file else 0.0
        except OSError:
            changed_at = 0.0
        key = (ca_file, changed_at)
        if key not in _contexts:
            _contexts[key] = imap.tls_context(ca_file)
        return _contexts[key]

    return await trio.to_thread.run_sync(make)
