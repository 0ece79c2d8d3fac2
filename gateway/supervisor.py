"""Keeps one task per touchpoint and direction alive, and only those that the configuration wants.

A bug in a touchpoint's task ends that task and nothing else: traceback, counter, alarm, and a new start with backoff.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from gateway import events
from gateway.errors import Unavailable
from gateway.health import Health

_FIRST_RESTART: Final = 1.0  # seconds
_LONGEST_RESTART: Final = 300.0
_GOOD_RUN: Final = 600.0  # a task that lived this long starts its backoff afresh

Run = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Ward:
    touchpoint: str
    settings: object
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    faults: int = 0
    started_at: float = field(default_factory=trio.current_time)


class Supervisor:
    """Tasks by (touchpoint, kind). `settings` is what a task was started with: equal settings, same task."""

    def __init__(self, nursery: trio.Nursery, health: Health) -> None:
        self._nursery = nursery
        self._health = health
        self._wards: dict[tuple[str, str], _Ward] = {}

    def has(self, touchpoint: str, kind: str, settings: object) -> bool:
        ward = self._wards.get((touchpoint, kind))
        return ward is not None and ward.settings == settings

    def running(self) -> list[tuple[str, str]]:
        return list(self._wards)

    def age(self, touchpoint: str, kind: str) -> float:
        """Return for how many seconds a task has been running, over its restarts."""
        return trio.current_time() - self._wards[touchpoint, kind].started_at

    def start(self, touchpoint: str, kind: str, settings: object, run: Run) -> None:
        """Start a task; it is restarted until it is stopped. The key must be free."""
        ward = _Ward(touchpoint, settings)
        assert (touchpoint, kind) not in self._wards
        self._wards[touchpoint, kind] = ward
        self._nursery.start_soon(self._keep_alive, ward, kind, run, name=f"{kind} {touchpoint}")

    async def stop(self, touchpoint: str, kind: str) -> None:
        """Cancel a task and wait until it has ended. No task, no effect."""
        if (ward := self._wards.get((touchpoint, kind))) is not None:
            ward.scope.cancel()
            await ward.ended.wait()

    async def stop_all(self, kind: str) -> None:
        """Cancel all tasks of one kind at once and wait for them."""
        wards = [ward for (_, its_kind), ward in self._wards.items() if its_kind == kind]
        for ward in wards:
            ward.scope.cancel()
        for ward in wards:
            await ward.ended.wait()

    async def _keep_alive(self, ward: _Ward, kind: str, run: Run) -> None:
        delay = _FIRST_RESTART
        try:
            with ward.scope:
                while True:
                    begun = trio.current_time()
                    try:
                        await run()
                        events.fail("task-ended", touchpoint=ward.touchpoint, task=kind)
                        self._tell_fault(ward, kind, "it ended by itself")
                    except Unavailable as error:  # the store, before the task has a loop of its own: weather
                        events.warn("task-waits", touchpoint=ward.touchpoint, task=kind, cause=str(error))
                        self._set_state(ward, kind, "waiting", str(error))
                    except Exception as error:
                        self._health.bugs += 1
                        events.bug("task-failed", error, touchpoint=ward.touchpoint, task=kind)
                        self._tell_fault(ward, kind, type(error).__name__)
                    if trio.current_time() - begun > _GOOD_RUN:
                        delay = _FIRST_RESTART
                    await trio.sleep(delay)
                    delay = min(delay * 2, _LONGEST_RESTART)
        except Exception as error:  # beside the cancellation that ended it: told, and nobody else's matter
            self._health.bugs += 1
            events.bug("task-failed", error, touchpoint=ward.touchpoint, task=kind)
        finally:
            self._wards = {key: known for key, known in self._wards.items() if known is not ward}
            self._health.clear(ward.touchpoint, f"{kind}-bug")
            ward.ended.set()

    def _tell_fault(self, ward: _Ward, kind: str, cause: str) -> None:
        ward.faults += 1
        self._nursery.start_soon(self._forgive, ward, kind, ward.faults)
        self._set_state(ward, kind, "failed", cause)
        self._health.alarm(
            ward.touchpoint,
            f"{kind}-bug",
            f"the {kind} task failed by a fault of the gateway ({cause}); it is started again",
            "no mail is lost; please report the traceback in the log",
        )

    def _set_state(self, ward: _Ward, kind: str, state: str, cause: str) -> None:
        """The state of a touchpoint that also receives is that of its inbound task; copies of what it sent are no part
        of it."""
        if kind == "inbound" or (kind == "outbound" and (ward.touchpoint, "inbound") not in self._wards):
            self._health.set_state(ward.touchpoint, state, connected=False, cause=cause)

    async def _forgive(self, ward: _Ward, kind: str, faults: int) -> None:
        """Take the alarm back once the task has run well for long since this fault."""
        await trio.sleep(_GOOD_RUN)
        if ward.faults == faults and not ward.ended.is_set():
            self._health.clear(ward.touchpoint, f"{kind}-bug")
