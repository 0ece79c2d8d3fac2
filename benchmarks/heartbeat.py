"""The daemon with its pulse taken: how late its two loops come round, and how long its writer is busy. As a program:

    python -m benchmarks.heartbeat RECORDS [where] run       the daemon; RECORDS is written when it ends

Every 2 ms each loop notes how late it is. `where`: a further thread looks where a loop stands that is late; that costs
something itself. It changes the running code, so that the product needs no switch for it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from gateway import bridge, daemon
from gateway.cli.main import main
from gateway.state import store

PERIOD: Final = 0.002  # seconds
_LATE: Final = 0.010  # seconds: what `where` asks about


class Pulse:
    """(when, seconds late or busy) pairs, by `time.monotonic`; of one thread."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self.due = float("inf")
        self.thread = 0

    def expect(self) -> None:
        self.thread = threading.get_ident()
        self.due = time.monotonic() + PERIOD

    def beat(self) -> None:
        now = time.monotonic()
        self.marks.append((now, max(0.0, now - self.due)))


def watch_loops(asyncio_pulse: Pulse, trio_pulse: Pulse) -> None:
    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = bridge.new_event_loop()

        def beat() -> None:
            asyncio_pulse.beat()
            asyncio_pulse.expect()
            loop.call_later(PERIOD, beat)

        loop.call_later(PERIOD, beat)
        return loop

    async def beat() -> None:
        while True:
            trio_pulse.expect()
            await trio.sleep(PERIOD)
            trio_pulse.beat()

    honest = daemon.Daemon.run

    async def run(self: daemon.Daemon, opened: store.Store) -> int:
        trio.lowlevel.spawn_system_task(beat)
        return await honest(self, opened)

    daemon.Daemon.run = run  # type: ignore[method-assign, assignment]  # that is the instrument
    daemon.open_bridge = functools.partial(daemon.open_bridge, new_event_loop)  # type: ignore[attr-defined]


def watch_writer(commits: Pulse, checkpoints: Pulse) -> None:
    def timed(honest: Callable[..., Any], pulse: Pulse) -> Callable[..., Any]:
        def method(self: store.Store, *args: Any) -> Any:
            begun = time.monotonic()
            try:
                return honest(self, *args)
            finally:
                now = time.monotonic()
                pulse.marks.append((now, now - begun))

        return method

    store.Store._commit = timed(store.Store._commit, commits)  # type: ignore[method-assign]
    store.Store._checkpoint = timed(store.Store._checkpoint, checkpoints)  # type: ignore[method-assign]


def look_where(pulses: dict[str, Pulse], places: Counter[str]) -> None:
    """Count where late loops stand, until the process ends."""
    while True:
        time.sleep(PERIOD)
        now = time.monotonic()
        for name, pulse in pulses.items():
            if now > pulse.due + _LATE and (frame := sys._current_frames().get(pulse.thread)):
                stack = traceback.extract_stack(frame)[-4:]
                places[name + ": " + " > ".join(f"{Path(at.filename).name}:{at.name}:{at.lineno}" for at in stack)] += 1


if __name__ == "__main__":
    records = Path(sys.argv.pop(1))
    pulses = {name: Pulse() for name in ("asyncio", "trio", "commits", "checkpoints")}
    places: Counter[str] = Counter()
    watch_loops(pulses["asyncio"], pulses["trio"])
    watch_writer(pulses["commits"], pulses["checkpoints"])
    if sys.argv[1] == "where":
        del sys.argv[1]
        loops = {name: pulses[name] for name in ("asyncio", "trio")}
        threading.Thread(target=look_where, args=(loops, places), daemon=True).start()
    code = main()
    marks: dict[str, Any] = {name: pulse.marks for name, pulse in pulses.items()}
    records.write_text(json.dumps(marks | {"places": places.most_common(12)}))
    sys.exit(code)
