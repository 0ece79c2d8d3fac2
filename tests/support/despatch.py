"""The outbound half without a daemon around it: a store, and a task for each touchpoint, in a thread of their own.

For tests of what leaves: messages are accepted straight into the store, and the schedule is what the test says.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio

from gateway.bridge import open_bridge
from gateway.config import Config, Touchpoint
from gateway.doorbell import Doorbell
from gateway.health import Health
from gateway.model import show_id
from gateway.outbound import dispatcher
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.state import lanes, outbox
from gateway.state.conversations import list_conversations
from gateway.state.lanes import Lane
from gateway.state.store import Store
from tests.support.outgoing import AGENT, accept, listed, states
from tests.support.waiting import wait_until

SECOND = timedelta(seconds=1)
BRISK = RetryPolicy(
    delays=(SECOND / 2, SECOND, 2 * SECOND), dial_delays=(SECOND / 5, SECOND / 2), probe_delays=(SECOND / 2, SECOND)
)
TIMEOUTS = Timeouts(dial=5, tls=5, greeting=5, command=5, data=5, block=5, dot=10)


class Despatch:
    """`with Despatch(path, touchpoints) as despatch:` runs a dispatcher for each; at the end they are stopped, and a
    fault of theirs is raised. All methods belong to the test's thread."""

    def __init__(
        self,
        state: Path,
        touchpoints: Sequence[dict[str, Any]],
        policy: RetryPolicy = BRISK,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self.store = Store.open(state)
        self.health = Health(lambda: datetime.now(UTC))
        self._touchpoints = [Touchpoint.model_validate(touchpoint) for touchpoint in touchpoints]
        self._policy, self._timeouts = policy, timeouts
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="despatch")

    def __enter__(self) -> Despatch:
        self._thread.start()
        if not self._ready.wait(30) or self._fault is not None:
            self.__exit__()
            raise AssertionError("the dispatchers did not start")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError, trio.RunFinishedError):
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(60)
        self.store.close()
        if self._fault is not None:
            raise self._fault

    def _live(self) -> None:
        try:
            trio.run(self._run)
        except BaseException as fault:
            self._fault = fault
        finally:
            self._ready.set()

    async def _run(self) -> None:
        gateway = SimpleNamespace(
            hostname="gateway.example",
            outbound=SimpleNamespace(source_address="", give_up_after=timedelta(days=5)),
        )
        config = cast(Config, SimpleNamespace(gateway=gateway, touchpoints={}))
        self._token = trio.lowlevel.current_trio_token()
        self._doorbell = Doorbell()
        with trio.CancelScope() as self._scope:
            async with open_bridge() as bridge, trio.open_nursery() as nursery:

                async def start(
                    touchpoint: Touchpoint, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
                ) -> None:
                    await dispatcher.run(
                        touchpoint,
                        bridge=bridge,
                        store=self.store,
                        current=lambda: config,
                        doorbell=self._doorbell,
                        health=self.health,
                        policy=self._policy,
                        timeouts=self._timeouts,
                        task_status=task_status,
                    )

                for touchpoint in self._touchpoints:
                    await nursery.start(start, touchpoint)
                self._ready.set()

    def accept(self, touchpoint: str, *recipients: str, **changes: Any) -> int:
        """As the door does it: durable first, then the bell. Returns the id."""
        id = accept(self.store, *recipients, touchpoint=touchpoint, **changes)
        self._doorbell.ring(touchpoint)
        return id

    def ring(self, touchpoint: str) -> None:
        """More was accepted."""
        self._doorbell.ring(touchpoint)

    def settled(self, touchpoint: str) -> None:
        """Wait until nothing of this touchpoint is open."""
        wait_until(
            lambda: (
                not self.store.read(
                    lambda db: db.execute(
                        "SELECT count(*) FROM recipient WHERE touchpoint = ? AND settled_at IS NULL", (touchpoint,)
                    ).fetchone()[0]
                ).result(30)
            ),
            f"{touchpoint} is settled",
            state=self.show,
        )

    def states(self, id: int | None = None) -> list[str]:
        return states(self.store, id)

    def message(self, id: int) -> dict[str, Any]:
        """One message as `outbox list --all` shows it."""
        return next(message for message in listed(self.store) if message["id"] == show_id(id))

    def lane(self, touchpoint: str) -> Lane:
        return self.store.read(lanes.look, [touchpoint]).result(10)[touchpoint]

    def notices(self) -> list[dict[str, Any]]:
        return self.store.read(list_conversations, f"agent:{AGENT}").result(10)

    def count(self) -> dict[str, int]:
        """How many recipients are in which state."""
        rows = self.store.read(
            lambda db: db.execute("SELECT state, count(*) FROM recipient GROUP BY state ORDER BY state").fetchall()
        )
        return dict(rows.result(30))

    def wait_for(self, wanted: dict[str, int], timeout: float = 60) -> None:
        """Wait until so many recipients are in these states, and none in others."""
        wait_until(lambda: self.count() == wanted, f"{wanted}", timeout=timeout, every=0.05, state=self.show)

    def show(self) -> str:
        """What a failed test wants to see."""
        lanes_ = [self.lane(touchpoint.id) for touchpoint in self._touchpoints]
        return f"{self.count()} {lanes_} {[m for m in listed(self.store, settled=False)][:5]}"

    def retry(self, touchpoint: str) -> None:
        now = round(datetime.now(UTC).timestamp() * 1000)
        self.store.submit(outbox.retry, outbox.Ask(now, None, touchpoint)).result(10)
        self._doorbell.ring(touchpoint)
