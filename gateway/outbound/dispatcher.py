"""One task per outbound touchpoint: waits until something is due, and has the pool send it.

Trio owns the clocks: when the lane opens again, when the next attempt is due, when the pace allows more. What is due
stands in the store; a ring of the doorbell only says that it is worth a look.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from gateway import events
from gateway.bridge import Bridge
from gateway.config import Config, Touchpoint
from gateway.doorbell import Doorbell
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.outbound.attempt import Settings, Sign
from gateway.outbound.offers import Offers
from gateway.outbound.outcome import Cause, Trouble
from gateway.outbound.pool import Connected, Drained, Pool, Sent, Told
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.state import lanes, outbox, outbox_clock
from gateway.state.lanes import Lane
from gateway.state.lifecycle import PERSON, LaneEvent, LaneState
from gateway.state.outbox import Outlook
from gateway.state.store import Store

ALARMS: Final = ("outbound", "uncertain")  # keys of those that we raise
_HELD_UP_SECONDS: Final = 0.1  # between two looks at a lane that may not be used yet; also what a person waits
_NUDGE_SECONDS: Final = 0.02  # at most fifty a second while the pool is at work; it takes more by itself
_BREATH_MS: Final = 1_000  # after a drain that found nothing to do although something seemed due
_STORE_SECONDS: Final = 5.0
_NOT_OF_CONNECTIONS: Final = ("sent_copy", "imap", "address")
_SET_BACK_MS: Final = 60_000  # by less a clock is corrected all the time, and waits grow by no more
_ALARMING_PROBES: Final = 3  # pauses in a row; a throttle or two is how providers talk


async def run(
    touchpoint: Touchpoint,
    *,
    bridge: Bridge,
    store: Store,
    current: Callable[[], Config],
    doorbell: Doorbell,
    health: Health,
    offers: Offers | None = None,
    sign: Sign | None = None,
    policy: RetryPolicy | None = None,
    timeouts: Timeouts | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Send a touchpoint's mail until cancelled; then attempts in flight are ended and recorded, within a bound.

    Settings are those given; new ones need a new task. `offers`: hears what the provider takes. `sign`: called in the
    asyncio thread. `policy`: for tests; else that of the configuration.
    """
    pool = Pool(
        store,
        lambda told: bridge.post(dispatcher.heard, told),
        ring=lambda: doorbell.ring(f"mailbox {touchpoint.id}"),
        offers=offers,
        sign=sign,
        timeouts=timeouts,
    )
    dispatcher = _Dispatcher(touchpoint, bridge, store, current, doorbell, health, policy, pool)
    await dispatcher.run(task_status)


class _Dispatcher:
    def __init__(
        self,
        touchpoint: Touchpoint,
        bridge: Bridge,
        store: Store,
        current: Callable[[], Config],
        doorbell: Doorbell,
        health: Health,
        policy: RetryPolicy | None,
        pool: Pool,
    ) -> None:
        self._touchpoint = touchpoint
        self._id = touchpoint.id
        self._bridge = bridge
        self._store = store
        self._current = current
        self._doorbell = doorbell
        self._health = health
        self._policy = policy
        self._pool = pool
        self._not_before: int | None = None
        self._clocks = (trio.current_time(), _now_ms())  # of the last turn: the one that nobody sets, and the other

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        await self._begin()
        task_status.started()
        try:
            while True:
                try:
                    await self._turn()
                except Unavailable as error:  # the store; what is due stays due
                    events.warn("outbox-unavailable", touchpoint=self._id, cause=str(error))
                    await trio.sleep(_STORE_SECONDS)
        finally:
            with trio.CancelScope(shield=True), suppress(Unavailable):
                await self._bridge.call(self._pool.close)

    async def _begin(self) -> None:
        """What an earlier task of this touchpoint left; and whatever it waited for, we were started to try."""
        now = _now_ms()
        await self._store.submit(outbox.recover_lane, (self._id, now))
        if await self._store.read(outbox_clock.has_been_set_back, self._id, now):
            await self._mend_times(now)
        await self._store.submit(lanes.try_now, (self._id, now))
        if not self._touchpoint.is_inbound:
            self._health.set_state(self._id, "idle", connected=True)

    async def _mend_times(self, now: int) -> None:
        count = await self._store.submit(outbox_clock.set_back, (self._id, now))
        await self._store.submit(lanes.try_now, (self._id, now))
        self._not_before = None
        events.warn("clock-set-back", touchpoint=self._id, recipients=count)

    def _is_clock_set_back(self, now: int) -> bool:
        (before, then), self._clocks = self._clocks, (trio.current_time(), now)
        return now + _SET_BACK_MS < then + (self._clocks[0] - before) * 1000

    async def _turn(self) -> None:
        now = _now_ms()
        if self._is_clock_set_back(now):
            await self._mend_times(now)
        look = await self._store.read(outbox.outlook, self._id, now, self._touchpoint.pace.per_day)
        self._report(look)
        wake_at = next_look(look, self._not_before)
        if wake_at is None or wake_at > now:
            with trio.move_on_after(math.inf if wake_at is None else (wake_at - now) / 1000):
                await self._doorbell.wait(self._id)
                if look.due_at is not None and look.due_at <= now:
                    # Not for want of mail do we wait; a look for each submission would cost a fifth of accepting it
                    await trio.sleep(_HELD_UP_SECONDS)
            return
        drained = await self._drain()
        self._not_before = drained.not_before
        if not drained.claims and self._not_before is None:
            self._not_before = _now_ms() + _BREATH_MS

    async def _drain(self) -> Drained:
        gateway = self._current().gateway
        settings = Settings(
            self._as_filed_now(),
            gateway.hostname,
            gateway.outbound.source_address,
            self._policy or RetryPolicy(give_up_after=gateway.outbound.give_up_after),
        )
        drained: Drained | None = None
        fault: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._nudge)
            try:
                drained = await self._bridge.call(self._pool.drain, settings)
            except Exception as error:  # carried past the nursery, which would wrap it
                fault = error
            nursery.cancel_scope.cancel()
        if drained is None:
            assert fault is not None
            raise fault
        return drained

    def _as_filed_now(self) -> Touchpoint:
        """Who keeps copies of sent mail, where they go and what the touchpoint is called may change under live
        connections: these are no settings of theirs."""
        now = self._current().touchpoints.get(self._id, self._touchpoint)
        update = {key: getattr(now, key) for key in _NOT_OF_CONNECTIONS}
        if any(getattr(self._touchpoint, key) != value for key, value in update.items()):
            self._touchpoint = self._touchpoint.model_copy(update=update)
        return self._touchpoint

    async def _nudge(self) -> None:
        """While the pool is at work: what is accepted meanwhile may deserve a connection of its own."""
        while True:
            await self._doorbell.wait(self._id)
            self._tell_loop(self._pool.nudge)
            await trio.sleep(_NUDGE_SECONDS)

    def _tell_loop(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the asyncio thread has ended, and its connections with it
            self._bridge.loop.call_soon_threadsafe(function)

    # --- what people see ---------------------------------------------------------------------------------------------

    def heard(self, told: Told) -> None:
        """From the pool, while it is at work."""
        match told:
            case Connected(host):
                events.touchpoint_connected(self._id, host)
                self._set_state("connected", True, None)
            case Sent(at):
                if not self._touchpoint.is_inbound:
                    self._health.touchpoint(self._id).last_message_at = at
            case Trouble(event, cause, detail):
                events.warn("lane-held" if event is LaneEvent.HOLD else "lane-paused",
                            touchpoint=self._id, reason=cause.value, cause=detail)  # fmt: skip

    def _report(self, look: Outlook) -> None:
        lane = look.lane
        if lane.is_open:
            self._health.clear(self._id, "outbound")
            if lane.since_at:
                self._set_state("connected", True, None)
        else:
            detail = lane.detail or lane.cause or ""
            self._set_state(lane.state.value, False, detail)
            if look.due_at is None and lane.state is LaneState.PAUSED:  # it releases itself, and nothing waits for that
                self._health.clear(self._id, "outbound")
            elif is_alarming(lane):
                self._health.alarm(self._id, "outbound", f"mail waits: {detail}", action_for(lane, self._touchpoint))
        if look.uncertain:
            self._health.alarm(
                self._id,
                "uncertain",
                f"{look.uncertain} recipient{'s' * (look.uncertain != 1)} may or may not have got a message: the "
                "connection or the gateway was cut before the provider's answer",
                "none while we look into the provider's Sent folder; if that decides nothing, see mail-gateway outbox "
                "list, then: mail-gateway outbox settle ID --delivered, or --resend",
            )
        else:
            self._health.clear(self._id, "uncertain")

    def _set_state(self, state: str, connected: bool, cause: str | None) -> None:
        """The state of a touchpoint that also receives is what its inbound session says."""
        if not self._touchpoint.is_inbound:
            self._health.set_state(self._id, state, connected=connected, cause=cause)


def next_look(look: Outlook, not_before: int | None) -> int | None:
    """Return when there is something to do (ms), or None: not before somebody rings."""
    if look.due_at is None or (not look.lane.is_open and look.lane.until_at is None):
        return None
    waits = (look.due_at, look.lane.until_at, look.quota_free_at, not_before)
    return max(at for at in waits if at is not None)


def is_alarming(lane: Lane) -> bool:
    """A throttle that comes and goes is no alarm; whatever else shuts a lane is worth a person's look."""
    return lane.cause != Cause.THROTTLED or lane.probes >= _ALARMING_PROBES


def action_for(lane: Lane, touchpoint: Touchpoint) -> str:
    """Return what a person should do about a lane that is not open."""
    then = f"then: mail-gateway outbox retry --touchpoint {touchpoint.id}"
    match lane.cause:
        case Cause.LOGIN:
            return f"check login {touchpoint.smtp_login} and its password, {then}"
        case Cause.PERMISSION:
            return f"at the provider, let {touchpoint.smtp_login} send as {touchpoint.address}, {then}"
        case Cause.SWITCHED_OFF:
            return f"at the provider, switch on SMTP with a login for {touchpoint.smtp_login}, {then}"
        case Cause.FULL:
            return f"make room in the mailbox of {touchpoint.smtp_login} (Sent, Deleted), {then}"
        case Cause.BLOCKED:
            return f"ask the provider why it blocks {touchpoint.smtp_login}, {then}"
        case Cause.DKIM:
            return f"mend the key that `dkim` names, {then}"
        case Cause.CERTIFICATE:
            return f"mend what the line says about the server's certificate, {then}"
        case Cause.UNREACHABLE:
            return "none if the provider is down: all goes out when it returns; else check `smtp` and the network"
        case Cause.QUOTA:
            return "none: the mail goes out when the provider allows more"
        case str() as cause if cause == PERSON:
            return f"mail-gateway outbox release --touchpoint {touchpoint.id}"
    return "none: the mail goes out by itself; fewer `pace.connections` or `pace.per_minute` would avoid it"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
