"""One task per touchpoint that only sends: its folder Sent is visited when there is something to look up, or to file.

No session stays open, and nothing is read that came in.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from gateway import events
from gateway.bridge import Bridge
from gateway.config import Config, Touchpoint
from gateway.doorbell import Doorbell
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound import watcher, witness
from gateway.inbound.connecting import Connector
from gateway.inbound.parts import Lost, Parts, Taker
from gateway.inbound.room import Room
from gateway.inbound.rounds import bell
from gateway.inbound.session import LoginRefused
from gateway.inbound.witness import Witness
from gateway.state.store import Store

UNREACHABLE: Final = "sent-folder"
ALARMS: Final = (UNREACHABLE, witness.ALARM)  # keys that we raise
BREATH: Final = 20.0  # seconds between two sessions: providers count logins
_ALARM_AFTER: Final = 3  # failures in a row


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
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Visit until cancelled. Settings are those given; new ones need a new task."""
    gateway = current().gateway
    parts = Parts(touchpoint, bridge, store, intake, health, room, gateway.inbound.max_message_size, gateway.hostname)
    task_status.started()
    await _Sentbox(parts, current, doorbell).run()


class _Sentbox:
    def __init__(self, parts: Parts, current: Callable[[], Config], doorbell: Doorbell) -> None:
        self._parts = parts
        self._id = parts.touchpoint.id
        self._connector = Connector(parts)
        self._doorbell = doorbell
        self._witness = Witness(parts, current, doorbell.ring)
        self._failures = self._refusals = 0

    async def run(self) -> None:
        while True:
            try:
                await self._turn()
            except Lost as lost:
                await self._rest(lost.cause)
            except Unavailable as error:
                await self._rest(error)

    async def _turn(self) -> None:
        wakes_at = await self._witness.wakes_at()
        if not await self._witness.is_due():
            seconds = float("inf") if wakes_at is None else wakes_at / 1000 - datetime.now(UTC).timestamp()
            with trio.move_on_after(max(seconds, 1.0)):  # at least, for a look that has failed may rest for longer
                await self._doorbell.wait(bell(self._id))
            return
        async with self._connector.session() as session:
            await self._witness.work(session, {})
        self._failures = self._refusals = 0
        self._parts.health.clear(self._id, UNREACHABLE)
        await trio.sleep(BREATH)

    async def _rest(self, cause: Unavailable) -> None:
        refused = isinstance(cause, LoginRefused)
        self._failures, self._refusals = self._failures + 1, self._refusals + refused
        rest = watcher.rest_after(self._failures, self._refusals if refused else 0, random.random()).total_seconds()
        events.warn("sent-folder-lost", touchpoint=self._id, cause=str(cause), retry_in=f"{rest:.0f}s")
        if refused or self._failures >= _ALARM_AFTER:
            action = "check imap, imap_login and password of the touchpoint; mail goes out all the same"
            self._parts.health.alarm(self._id, UNREACHABLE, str(cause), action)
        await trio.sleep(rest)
