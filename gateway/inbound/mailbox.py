"""One task per touchpoint: does what the watcher decides, over one session that stays open.

The session belongs to the first folder; the others are asked after once a minute, and visited by a round
(`rounds.py`) when something is there. What can go wrong becomes `Failed`, one line in the log, and a state in
`health`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import trio

from gateway import events
from gateway.bridge import Bridge
from gateway.config import Config, Touchpoint
from gateway.doorbell import Doorbell
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound import folders, watcher, witness
from gateway.inbound.connecting import Connector
from gateway.inbound.debts import Debts
from gateway.inbound.folder import OpenFolder
from gateway.inbound.parts import Lost, Parts, Taker
from gateway.inbound.room import Room
from gateway.inbound.rounds import Rounds, bell
from gateway.inbound.session import LoginRefused, NoFolder, Session
from gateway.inbound.watcher import Watch
from gateway.model import Role
from gateway.state.store import Store

ALARMS: Final = ("imap-login", "unreachable", "other-folders", "missing-folder", "filing", witness.ALARM)  # we raise
_ALARM_AFTER: Final = 3  # failures in a row: a provider's hiccup is not worth a person's look
_RELOAD_SEEN_WITHIN: Final = 0.5  # seconds

Reconcilers = dict[str, Callable[[], Any]]


async def run(
    touchpoint: Touchpoint,
    *,
    bridge: Bridge,
    store: Store,
    intake: Taker,
    current: Callable[[], Config],
    health: Health,
    doorbell: Doorbell,
    room: Room,
    reconcilers: Reconcilers,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Watch a touchpoint's folders until cancelled. Settings are those given; new ones need a new task.

    `reconcilers`: where this task can be asked to compare all UIDs with the ledger, by touchpoint.
    """
    gateway = current().gateway
    parts = Parts(touchpoint, bridge, store, intake, health, room, gateway.inbound.max_message_size, gateway.hostname)
    connector = Connector(parts)
    rounds = Rounds(parts, connector, witness.Witness(parts, current, doorbell.ring))
    task_status.started()
    reconcilers[touchpoint.id] = reconcile = rounds.reconcile
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            nursery.start_soon(_ring_through, doorbell, rounds)
            nursery.start_soon(_Mailbox(parts, connector, rounds, current).run)
    finally:
        if reconcilers.get(touchpoint.id) is reconcile:
            del reconcilers[touchpoint.id]


async def _ring_through(doorbell: Doorbell, rounds: Rounds) -> None:
    """A person has released something, or a fate is in doubt: do it at the provider now, not in a minute."""
    while True:
        await doorbell.wait(bell(rounds.touchpoint))
        with suppress(Unavailable):  # the store; the wheel asks it again in a minute
            await rounds.heed()


class _Mailbox:
    def __init__(self, parts: Parts, connector: Connector, rounds: Rounds, current: Callable[[], Config]) -> None:
        touchpoint = parts.touchpoint
        self._parts = parts
        self._id = touchpoint.id
        self._health = parts.health
        self._connector = connector
        self._rounds = rounds
        self._current = current
        self._watch = Watch(
            touchpoint.watch.poll,
            touchpoint.watch.renew_idle,
            touchpoint.watch.idle,
            touchpoint.watch.reconnect,
        )
        self._session: Session | None = None
        self._folder: OpenFolder | None = None
        self._cause = ""  # of the last failure
        self._tried_with: Config | None = None  # while we are not let in

    # --- the wheel ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        state = watcher.State()
        event: watcher.Event = watcher.Begun()
        try:
            while True:
                state, action = watcher.decide(self._watch, state, event, trio.current_time(), random.random())
                if isinstance(action, watcher.Rest):
                    events.touchpoint_lost(self._id, self._cause, retry_in=f"{action.seconds:.0f}s")
                event = await self._attempt(action, state)
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _attempt(self, action: watcher.Action, state: watcher.State) -> watcher.Event:
        try:
            return await self._do(action, state)
        except Lost as lost:
            await self._close()
            return self._failed(lost.cause, state, lost.fetching)
        except Unavailable as error:
            await self._close()
            return self._failed(error, state)

    async def _do(self, action: watcher.Action, state: watcher.State) -> watcher.Event:
        match action:
            case watcher.Connect():
                return await self._connect()
            case watcher.Open():
                name = folders.known_as(self._parts.touchpoint.folders[0])
                self._folder = OpenFolder(self._parts, self._live, name, Role.QUEUE)
                return await self._folder.open()
            case watcher.Renumber():
                self._say("finding known mail again", connected=True)
                return await self._open.renumber(state.suspects)
            case watcher.Look(cursor, few):
                looked = await self._open.look(cursor, few, state.suspects)
                if not looked.more:
                    self._synced()
                return looked
            case watcher.CatchUp():
                more = await Debts(self._parts, self._live, self._open).catch_up()
                return watcher.CaughtUp(more, self._live.is_stirred)
            case watcher.Ask():
                await self._rounds.ask(self._live, not (state.is_behind or state.is_owing))
                return watcher.Asked(self._live.is_stirred)
            case watcher.Idle(seconds):
                stirred = await self._parts.call(self._live.idle, seconds)
                return watcher.Waited(stirred, self._live.can_idle)
            case watcher.Sleep(seconds):
                await trio.sleep(seconds)
                return watcher.Waited(self._live.is_stirred)
            case watcher.Rest(seconds):
                await self._rest(seconds)
                return watcher.Begun()
            case watcher.Leave():
                await self._parts.call(self._live.logout)
                await self._close()
                return watcher.Left()

    async def _rest(self, seconds: float) -> None:
        """Wait, but not past a reload: whoever mends a password file reloads, and does not want to wait an hour. Nor
        after one that came while we were being refused: it was the old password."""
        config = self._tried_with or self._current()
        with trio.move_on_after(seconds):
            while self._current() is config:  # noqa: ASYNC110 - the configuration is a value, it rings no bell
                await trio.sleep(_RELOAD_SEEN_WITHIN)

    @property
    def _live(self) -> Session:
        assert self._session is not None, "the watcher connects before anything else"
        return self._session

    @property
    def _open(self) -> OpenFolder:
        assert self._folder is not None, "the watcher opens the folder before it looks"
        return self._folder

    async def _connect(self) -> watcher.Event:
        self._tried_with = self._current()
        if not self._health.touchpoint(self._id).cause:
            self._say("connecting", connected=False)
        self._session = session = await self._connector.connect()
        self._tried_with = None
        self._health.touchpoint(self._id).heard = lambda: session.last_byte_at
        self._health.clear(self._id, "imap-login")
        self._say("reading", connected=True, cause=self._cause or None)  # a login alone mends nothing
        events.touchpoint_connected(self._id, str(self._parts.touchpoint.imap))
        return watcher.Connected(session.can_idle)

    async def _close(self) -> None:
        self._rounds.pause()
        if self._session is not None:
            session, self._session = self._session, None
            with suppress(Unavailable):  # the bridge is closed, and with it the session
                await self._parts.call(session.close)

    # --- what others see ---------------------------------------------------------------------------------------------

    def _say(self, state: str, *, connected: bool, cause: str | None = None) -> None:
        self._health.set_state(self._id, state, connected=connected, cause=cause)

    def _failed(self, error: Unavailable, state: watcher.State, fetching: tuple[int, ...] = ()) -> watcher.Failed:
        refused = isinstance(error, LoginRefused)
        self._cause = cause = str(error)
        self._say("login refused" if refused else "waiting", connected=False, cause=cause)
        if refused:
            action = "check imap_login and password of the touchpoint, then: mail-gateway reload"
            self._health.alarm(self._id, "imap-login", cause, action)
        elif state.failures + 1 >= _ALARM_AFTER or isinstance(error, NoFolder):
            self._health.alarm(
                self._id, "unreachable", cause, "see the cause; we keep trying, no mail is lost meanwhile"
            )
        return watcher.Failed(refused, fetching)

    def _synced(self) -> None:
        self._cause = ""
        self._health.clear(self._id, "unreachable")
        self._say("watching", connected=True)
        self._health.touchpoint(self._id).synced_at = datetime.now(UTC)
