"""The longest stall of each of the daemon's threads while backlogs of five touchpoints come in, and while it is idle.

    python -m benchmarks.stall [--rounds 2] [--where]

The load: four mailboxes of 4,000 × 4 KiB and one of 200 × 1 MiB at once, from Dovecot. A loop's stall is how late it
notices that 2 ms have passed (`benchmarks.heartbeat`, inside the daemon); the writer's is how long one batch, or one
checkpoint behind it, keeps it from the next. The peer is this machine: the same pulse of a thread that does nothing
else, in another process; what it is late, the kernel and the other processes have made it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import watched
from benchmarks.cpu import neighbours_told
from benchmarks.peers import provider
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.dovecot import Dovecot

_PERIOD: Final = 0.002
_IDLE_SECONDS: Final = 10.0
_SETTLE: Final = 2.0
_LONGEST: Final = 0.050  # seconds
Marks = Sequence[tuple[float, float]]


class Machine(threading.Thread):
    """How late a thread is that only sleeps."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.marks: list[tuple[float, float]] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            due = time.monotonic() + _PERIOD
            time.sleep(_PERIOD)
            now = time.monotonic()
            self.marks.append((now, now - due))

    def stop(self) -> None:
        self._over.set()
        self.join()


@dataclass(frozen=True)
class Round:
    """`load`, `idle`: from and until (monotonic seconds)."""

    load: tuple[float, float]
    idle: tuple[float, float]
    marks: dict[str, Any]


def one_round(dovecot: Dovecot, authority: Authority, users: Sequence[str], messages: int, where: bool) -> Round:
    records = authority.directory / "records.json"
    program = ["-m", "benchmarks.heartbeat", str(records), *(["where"] if where else [])]
    daemon = Daemon(watched.site(dovecot, authority, users, tls=True, history="all"), program=program)
    machine = Machine()
    machine.start()
    with watched.running(daemon):
        begun = time.monotonic()
        ended = watched.wait_queued(daemon, messages)
        time.sleep(_SETTLE)
        idle = time.monotonic(), time.monotonic() + _IDLE_SECONDS
        time.sleep(_IDLE_SECONDS)
    machine.stop()
    return Round((begun, ended), idle, json.loads(records.read_text()) | {"machine": machine.marks})


def within(marks: Marks, window: tuple[float, float]) -> list[float]:
    return [value for at, value in marks if window[0] <= at <= window[1]]


def figures(values: Sequence[float]) -> str:
    """Return p50, p99.9 and the most, in ms."""
    if not values:
        return f"{'–':>8} {'':>8} {'':>8} {0:>7}"
    ordered = sorted(values)
    chosen = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.999)], ordered[-1])
    return " ".join(f"{value * 1000:>8.1f}" for value in chosen) + f" {len(values):>7}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--messages", type=int, default=4000, help="of 4 KiB, in each of four mailboxes")
    parser.add_argument("--large-messages", type=int, default=200, help="of 1 MiB, in a fifth")
    parser.add_argument("--where", action="store_true", help="show where the loops stand when they are late")
    options = parser.parse_args()
    users = [watched.address(number) for number in range(5)]
    rounds: list[Round] = []
    with neighbours_told(), tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch))
        with provider(authority, dict.fromkeys(users, watched.PASSWORD)) as dovecot:
            for user in users[:-1]:
                dovecot.seed(user, watched.letters(options.messages, 4096, user))
            dovecot.seed(users[-1], watched.letters(options.large_messages, 2**20, users[-1]))
            total = 4 * options.messages + options.large_messages
            for _ in range(options.rounds):
                rounds.append(one_round(dovecot, authority, users, total, options.where))
    columns = f"{'p50':>8} {'p99.9':>8} {'most':>8} {'of':>7}"
    print(f"{'ms':<13} {'load':<4}{columns[4:]}   {'idle':<4}{columns[4:]}")
    worst = 0.0
    for name in ("asyncio", "trio", "commits", "checkpoints", "machine"):
        load = [value for one in rounds for value in within(one.marks[name], one.load)]
        idle = [value for one in rounds for value in within(one.marks[name], one.idle)]
        print(f"{name:<13} {figures(load)}   {figures(idle)}")
        if name in ("asyncio", "trio"):
            worst = max(worst, *load)
    seconds = sum(one.load[1] - one.load[0] for one in rounds)
    print(f"{total * len(rounds) / seconds:,.0f} messages/s meanwhile")
    for place, count in rounds[-1].marks["places"]:
        print(f"{count:>6} × {place}")
    return 0 if worst <= _LONGEST else 1


if __name__ == "__main__":
    sys.exit(main())
