"""The composition root: every part, one nursery, signals, the order of stopping.

    lock → store → bridge → workers → intake resumes what was `arrived` → control socket → submission → touchpoints

and back in the order that loses nothing: no new submissions; attempts in flight end; sessions; workers; the asyncio
thread; the control socket; last the store, which commits what was handed in.
"""

from __future__ import annotations

import gc
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import trio

from gateway import config, control, control_client, events, log, systemd
from gateway.bridge import Bridge, BridgeLost, open_bridge
from gateway.commands import handlers
from gateway.config import Config
from gateway.desk import Desk
from gateway.doorbell import Doorbell
from gateway.errors import CommandError, ConfigError, GatewayError, Unavailable
from gateway.health import Health
from gateway.inbound import mailbox, sentbox, teacher
from gateway.inbound.authentication import Authenticator
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.inbound.room import Room
from gateway.inbound.scanner import Scanner
from gateway.mime import reading
from gateway.model import to_ms
from gateway.outbound import delays, dispatcher, pool
from gateway.outbound.answers import AutoReplies
from gateway.outbound.auto_reply import Composed, Draft, compose_answer
from gateway.outbound.offers import Offers
from gateway.outbound.signing import Signer
from gateway.outbound.submission import SubmissionServer
from gateway.outbound.warnings import BounceWarnings
from gateway.rulebook import Rulebook
from gateway.state import blocks, bounces, lanes, offers, outbox
from gateway.state.blocks import Blocks
from gateway.state.bounces import HardBounces
from gateway.state.lock import StateLock
from gateway.state.store import Store
from gateway.supervisor import Supervisor
from gateway.workers import WorkerPool

TRY_AGAIN: Final = 75
BAD_CONFIG: Final = 78

_SWITCH_INTERVAL: Final = 0.0005  # seconds; a thread that computes must not keep the writer from its next statement
_READ_WITHIN: Final = 10.0  # seconds for the body of one message, in a worker process
_ANSWER_WITHIN: Final = 10.0  # seconds for one automatic answer
_DRAIN: Final = 20.0  # seconds for submissions and attempts in flight; systemd waits for 90
_WATCHDOG_PATIENCE: Final = 10.0  # seconds for the asyncio thread to answer
_JUST_BEGUN: Final = 30.0  # seconds; longer than a login takes
_RECONCILED_TOGETHER: Final = 20  # touchpoints, each with a session of its own
_SLOW_DISK: Final = 10.0  # seconds in one batch: worth a line in the log
_HUNG_DISK: Final = 300.0  # seconds in one batch: a disk that will not answer; systemd may restart us


def main(config_path: Path) -> int:
    """Run the daemon until it is told to stop; return the exit code."""
    try:
        gateway = config.load_gateway(config_path)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return BAD_CONFIG
    log.set_up(gateway.log.level, gateway.log.format)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        lock = StateLock(gateway.state_dir)
    except Unavailable as error:
        print(f"mail-gateway: {error}", file=sys.stderr)
        return TRY_AGAIN
    try:
        rulebook = Rulebook.open(config_path, gateway)
        daemon = Daemon(rulebook)
        store = Store.open(gateway.state_dir / "gateway.db", on_fatal=daemon.store_broke)
        try:
            return trio.run(daemon.run, store)
        finally:
            store.close()
            events.say("stopped")
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return BAD_CONFIG
    except (Unavailable, BridgeLost) as error:
        events.fail("cannot-run", cause=str(error))
        return TRY_AGAIN
    finally:
        lock.release()


class Daemon:
    """One run. Everything here happens on the Trio thread, but for `store_broke`."""

    def __init__(self, rulebook: Rulebook) -> None:
        self._rulebook = rulebook
        self._started_at = datetime.now(UTC)
        self._broken: str | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._everything = trio.CancelScope()
        self._hangup = trio.Event()
        self._configuring = trio.Lock()  # one change of what runs at a time: two reloads may come together

    def store_broke(self, reason: str) -> None:
        """The writer can never commit again (called from its thread): end, so that a fresh process reads the disk."""
        self._broken = reason
        if self._token is not None:
            self._token.run_sync_soon(self._everything.cancel)

    def _current(self) -> Config:
        return self._rulebook.config

    async def run(self, store: Store) -> int:
        self._token = trio.lowlevel.current_trio_token()
        events.say(
            "starting",
            version=version("mail-gateway"),
            python=sys.version.split()[0],
            sqlite=sqlite3.sqlite_version,
            schema=list(store.migrations_run) or None,
            orphans_swept=store.swept or None,
        )
        failure: GatewayError | None = None
        with self._everything:
            async with open_bridge() as bridge, trio.open_nursery() as nursery:
                try:
                    await self._live(store, bridge, nursery)
                except GatewayError as error:  # carried past the nursery, which would wrap it
                    failure = error
                nursery.cancel_scope.cancel()
        if self._broken is not None:
            events.fail("store-broken", cause=self._broken)
            return TRY_AGAIN
        if failure is not None:
            raise failure
        return 0

    async def _live(self, store: Store, bridge: Bridge, nursery: trio.Nursery) -> None:
        self._bridge, self._store = bridge, store
        self._health = Health(lambda: datetime.now(UTC))
        self._health.strays = lambda: bridge.stray_exceptions
        self._doorbell = Doorbell()
        self._room = Room()
        self._reconcilers: mailbox.Reconcilers = {}
        self._workers = WorkerPool()
        self._supervisor = Supervisor(nursery, self._health)
        hard = HardBounces(await store.read(bounces.all_hard))
        self._blocks = Blocks(await store.read(blocks.all_blocks))
        scanner = Scanner(self._health)
        inquiry = Inquiry(
            store,
            authenticator=Authenticator(bridge, self._workers, on_silence=self._say_silence),
            scanner=scanner,
            blocks=self._blocks,
            read=self._read,
        )
        answers = AutoReplies(
            store, on_given=self._doorbell.ring, alarm=self._tell_of_answers, compose=self._compose_answer
        )
        self._intake = Intake(store, self._current, hard=hard, inquiry=inquiry, answers=answers)
        warnings = BounceWarnings(hard, lambda: self._gateway.hostname, store.ids.next)
        self._signer = Signer(store)
        self._offers = Offers(store, await store.read(offers.all_offers), server_of=self._server_of)
        self._submission = SubmissionServer(
            self._current, store, self._workers, self._doorbell.ring, offers=self._offers, warnings=warnings
        )
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            nursery.start_soon(self._heed, signals)
            await self._recover()
            desk = Desk(
                current=self._current,
                store=store,
                health=self._health,
                rulebook=self._rulebook,
                started_at=self._started_at,
                ring=self._doorbell.ring,
                reload=self._reload,
                reconcile=self._reconcile,
                forget_logins=self._submission.passwords.forget,
                blocks=self._blocks,
            )
            await nursery.start(control.serve, control_client.socket_path(self._gateway.state_dir), handlers(desk))
            await bridge.call(self._submission.start, systemd.listening_sockets().get("submission"))
            self._report_rules()
            async with self._configuring:
                await self._set_touchpoints()
            nursery.start_soon(self._reload_when_told)
            nursery.start_soon(self._intake.run)
            nursery.start_soon(delays.run, store, self._current, lambda: datetime.now(UTC))
            nursery.start_soon(teacher.run, store, self._current, scanner, self._doorbell, lambda: datetime.now(UTC))
            nursery.start_soon(self._watch)
            _settle_garbage()
            systemd.notify(READY=1, STATUS=f"{len(self._supervisor.running())} sessions")
            events.say("ready", listening=[str(at) for at in self._submission.addresses])
            await self._stop.wait()
            systemd.notify(STOPPING=1)
            events.say("stopping")
            await self._drain()

    async def _compose_answer(self, draft: Draft) -> Composed:
        return await self._bridge.call(partial(self._workers.run, compose_answer, draft, timeout=_ANSWER_WITHIN))

    def _tell_of_answers(self, touchpoint_id: str, most: int | None) -> None:
        """`most`: automatic answers in an hour, and more would have been due; None: they are given again."""
        if most is None:
            self._health.clear(touchpoint_id, "auto-reply")
            return
        is_new = self._health.alarm(
            touchpoint_id,
            "auto-reply",
            f"{most} automatic answers in an hour are the most: others that write are not answered",
            "see with mail-gateway outbox list --all whom they went to; if these are people, raise "
            "auto_reply.most_per_hour, else write a rule with auto_reply = false",
        )
        if is_new:
            events.warn("auto-replies-stopped", touchpoint=touchpoint_id, most_per_hour=most)

    async def _read(self, message: bytes) -> reading.Content:
        job = partial(self._workers.run, reading.read, message, timeout=_READ_WITHIN)
        return await self._bridge.call(job)

    def _server_of(self, touchpoint_id: str) -> str | None:
        touchpoint = self._current().touchpoints.get(touchpoint_id)
        return str(touchpoint.smtp) if touchpoint is not None and touchpoint.smtp is not None else None

    @property
    def _gateway(self) -> config.GatewayFile:
        return self._rulebook.config.gateway

    async def _recover(self) -> None:
        """What the last run left half done: attempts that may have been heard, mail that was not yet routed."""
        uncertain = await self._store.submit(outbox.recover, to_ms(datetime.now(UTC)))
        if uncertain:
            events.warn("uncertain-after-restart", recipients=uncertain)
        await self._intake.resume()

    # --- touchpoints -------------------------------------------------------------------------------------------------

    async def _set_touchpoints(self, again: Collection[tuple[str, str]] = ()) -> None:
        """Make the running tasks those that the configuration wants; what did not change is not touched, but for
        those in `again`, which begin anew. The caller holds `_configuring`.
        """
        known = self._current().touchpoints
        wanted = {
            (touchpoint.id, kind): settings
            for touchpoint in known.values()
            if touchpoint.active
            for kind, settings in _sessions(touchpoint)
        }

        async def set_one(touchpoint_id: str, kind: str) -> None:
            settings = wanted.get((touchpoint_id, kind))
            if (touchpoint_id, kind) not in again and self._supervisor.has(touchpoint_id, kind, settings):
                return
            await self._supervisor.stop(touchpoint_id, kind)
            if settings is None:
                for key in _ALARMS[kind]:
                    self._health.clear(touchpoint_id, key)
            elif not self._stop.is_set():
                self._start(known[touchpoint_id], kind, settings)

        async with trio.open_nursery() as nursery:  # together: one whose provider hangs takes some seconds to stop
            for touchpoint_id, kind in dict.fromkeys((*self._supervisor.running(), *wanted)):
                nursery.start_soon(set_one, touchpoint_id, kind)
        for touchpoint_id in self._health.known():
            if touchpoint_id not in known or not known[touchpoint_id].active:
                self._health.forget(touchpoint_id)

    def _start(self, touchpoint: config.Touchpoint, kind: str, settings: object) -> None:
        if kind == "inbound":

            async def run() -> None:
                await mailbox.run(
                    touchpoint,
                    bridge=self._bridge,
                    store=self._store,
                    intake=self._intake,
                    current=self._current,
                    health=self._health,
                    doorbell=self._doorbell,
                    room=self._room,
                    reconcilers=self._reconcilers,
                )
        elif kind == "sent":

            async def run() -> None:
                await sentbox.run(
                    touchpoint,
                    bridge=self._bridge,
                    store=self._store,
                    intake=self._intake,
                    current=self._current,
                    health=self._health,
                    doorbell=self._doorbell,
                    room=self._room,
                )
        else:

            async def run() -> None:
                await dispatcher.run(
                    touchpoint,
                    bridge=self._bridge,
                    store=self._store,
                    current=self._current,
                    doorbell=self._doorbell,
                    health=self._health,
                    offers=self._offers,
                    sign=self._signer.signs_for(touchpoint),
                )

        self._supervisor.start(touchpoint.id, kind, settings, run)

    # --- signals -----------------------------------------------------------------------------------------------------

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._hangup.set()  # not here: a reload takes its time, and SIGTERM must not wait for it
            elif not self._stop.is_set():
                self._stop.set()
            else:
                events.warn("stopping-at-once")
                self._everything.cancel()
                with suppress(RuntimeError):  # the asyncio thread has ended, and its connections with it
                    self._bridge.loop.call_soon_threadsafe(pool.hurry)

    async def _reload_when_told(self) -> None:
        """What SIGHUP asks for; many of them while one reload runs are one more."""
        while True:
            await self._hangup.wait()
            self._hangup = trio.Event()
            try:
                await self._reload()
            except GatewayError:
                pass  # said already, line by line, and shown by `status`; or we are stopping
            except Exception as error:
                events.bug("reload-failed", error)

    async def _reload(self, by: str = "SIGHUP") -> config.Changes:
        """Take the edited files into use, or change nothing. Raises ConfigError with all problems."""
        async with self._configuring:
            if self._stop.is_set():
                raise Unavailable("the daemon is stopping; its next start reads the files")
            return await self._reload_now(by)

    async def _reload_now(self, by: str) -> config.Changes:
        systemd.notify_reloading()
        try:
            changes = await trio.to_thread.run_sync(self._rulebook.reload, by)
        except ConfigError as error:
            self._report_rules()
            for problem in error.problems:
                events.fail("reload-refused", problem=str(problem))
            raise
        finally:
            systemd.notify(READY=1)
        self._report_rules()
        self._signer.forget()  # a key may be another one under the same name
        self._bridge.loop.call_soon_threadsafe(self._submission.apply, self._current())
        # Perhaps the file of a password was mended, which no setting shows: what waits tries again at once. But for who
        # has just begun: reloads that come faster than a provider lets us in would never let us in
        waiting = [
            (touchpoint_id, kind)
            for touchpoint_id, kind in self._supervisor.running()
            if kind == "inbound"
            and not self._health.touchpoint(touchpoint_id).connected
            and self._supervisor.age(touchpoint_id, kind) > _JUST_BEGUN
        ]
        for changed in changes.touchpoints:
            if any(key.startswith("auto_reply") for key in changed.keys):  # if it still holds, the next mail tells
                self._health.clear(changed.name, "auto-reply")
        await self._set_touchpoints(waiting)
        await self._try_lanes()
        events.say("reloaded", changes=[str(line) for line in changes.lines()])
        return changes

    async def _try_lanes(self) -> None:
        now = to_ms(datetime.now(UTC))
        tickets = [self._store.submit(lanes.try_now, (id, now)) for id in self._current().touchpoints]
        try:
            for ticket in tickets:
                await ticket
        except Unavailable as error:  # the new configuration is in force all the same; lanes open in their own time
            events.warn("lanes-not-tried", cause=str(error))
        for touchpoint_id in self._current().touchpoints:
            self._doorbell.ring(touchpoint_id)

    async def _reconcile(self, touchpoint: str | None) -> list[dict[str, Any]]:
        """Compare the provider's UIDs with the ledger, for one touchpoint or all (None); one element a folder.

        Raises CommandError for a touchpoint that is not watched.
        """
        if touchpoint is not None and touchpoint not in self._reconcilers:
            raise CommandError(f"{touchpoint} is not watched: it is not active, or only for outbound mail")
        found: dict[str, list[dict[str, Any]]] = {}
        few = trio.CapacityLimiter(_RECONCILED_TOGETHER)

        async def one(id: str) -> None:
            try:
                async with few:
                    reconcile = self._reconcilers.get(id)
                    if reconcile is None:
                        raise Unavailable(f"{id} is not watched any more")
                    found[id] = await reconcile()
            except Unavailable as error:
                found[id] = [{"touchpoint": id, "folder": None, "role": None, "error": str(error)}]

        wanted = sorted(self._reconcilers) if touchpoint is None else [touchpoint]
        async with trio.open_nursery() as nursery:
            for id in wanted:
                nursery.start_soon(one, id)
        return [row for id in wanted for row in found[id]]

    def _say_silence(self, cause: str | None) -> None:
        """The DNS resolver fell silent, or (None) answers again."""
        if cause is None:
            self._health.clear(None, "dns")
        else:
            self._health.alarm(None, "dns", cause, "see the system's resolver, or name others in [inbound] resolvers")

    def _report_rules(self) -> None:
        if self._rulebook.error is None:
            self._health.clear(None, "rules")
            return
        self._health.alarm(
            None,
            "rules",
            f"rules.toml is refused: {self._rulebook.error.splitlines()[0]}",
            "mend the file (mail-gateway check), then: mail-gateway reload",
        )

    # --- watching over ourselves -------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tell systemd that we live, as long as all three threads do; say when the disk is slow."""
        interval = systemd.watchdog_interval()
        period = min(5.0, interval.total_seconds()) if interval else 5.0
        slow = False
        while True:
            await trio.sleep(period)
            busy = self._store.busy_seconds
            if busy > _SLOW_DISK and not slow:
                events.warn("slow-disk", cause=f"the store has waited {busy:.0f} s for one commit")
            slow = busy > _SLOW_DISK
            if await self._bridge.ping(_WATCHDOG_PATIENCE) and busy < _HUNG_DISK:
                systemd.notify(WATCHDOG=1)

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        with trio.move_on_after(_DRAIN) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bridge.call, self._submission.close, _DRAIN / 2)
                nursery.start_soon(self._supervisor.stop_all, "inbound")
                nursery.start_soon(self._supervisor.stop_all, "outbound")
                nursery.start_soon(self._supervisor.stop_all, "sent")
        if scope.cancelled_caught:
            events.warn("drain-cut", cause=f"not everything ended within {_DRAIN:.0f} s; nothing accepted is lost")
        await self._bridge.call(self._workers.close)


def _settle_garbage() -> None:
    """Take what start-up left (modules, models) out of the collector's sight: a full collection stopped all three
    threads for 50 to 140 ms under load, and finds nothing there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


_ALARMS: Final = {
    "inbound": mailbox.ALARMS,
    "outbound": (*dispatcher.ALARMS, "auto-reply"),
    "sent": sentbox.ALARMS,
}  # that mean nothing without the task


def _sessions(touchpoint: config.Touchpoint) -> list[tuple[str, object]]:
    """Return (kind, settings) of each session that an active touchpoint wants; equal settings keep their session."""
    wanted: list[tuple[str, object]] = []
    if touchpoint.is_inbound:
        wanted.append(("inbound", config.inbound_settings(touchpoint)))
    if touchpoint.is_outbound:
        wanted.append(("outbound", config.outbound_settings(touchpoint)))
    if touchpoint.imap is not None and not touchpoint.is_inbound:
        wanted.append(("sent", config.inbound_settings(touchpoint)))
    return wanted
