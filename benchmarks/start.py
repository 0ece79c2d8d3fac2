"""A start with 100,000 messages that wait for their provider, beside a start with an empty store.

    python -m benchmarks.start [--deferred 100000] [--rounds 3]

Half of them are due already and half within the hour; the provider is away. Timed from the start of the process until
it says READY=1 to systemd, in turns with a daemon whose store is empty, which is the peer here: what it takes is
Python, imports and configuration. Memory is resident memory of the daemon when it is ready and the most within the
seconds after that, when the dispatcher has looked at what is due and been told that nobody is there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import accept, filled
from benchmarks.cpu import neighbours_told, peak_bytes, resident_bytes
from tests.support.authority import Authority
from tests.support.daemon import Daemon

_BUDGET_SECONDS = 2.0
_BUDGET_GROWTH = 16 << 20  # bytes: the index of what waits, read once into SQLite's cache, which has a bound of its own
_WATCHED_SECONDS = 5.0


@dataclass
class Side:
    """One store; `seconds`, `ready`, `most`: one figure a start, in seconds and bytes."""

    daemon: Daemon
    seconds: list[float] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=list)

    def start(self) -> None:
        begun = time.monotonic()
        self.daemon.start()
        self.seconds.append(time.monotonic() - begun)
        pid = self.daemon.pid
        self.ready.append(resident_bytes(pid))
        time.sleep(_WATCHED_SECONDS)
        self.most.append(peak_bytes(pid))
        self.daemon.stop()

    def row(self) -> tuple[float, float, float]:
        """Return median seconds, and MiB when ready and at most."""
        return (
            statistics.median(self.seconds),
            statistics.median(self.ready) / 2**20,
            statistics.median(self.most) / 2**20,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deferred", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, neighbours_told():
        authority = Authority(Path(scratch))
        empty, waiting = Side(accept.new_daemon(authority)), Side(accept.new_daemon(authority))
        try:
            fill = partial(filled.fill, touchpoint="support", address=accept.ADDRESS, agent=accept.AGENT, deferred=True)
            fill(waiting.daemon.state_dir / "gateway.db", options.deferred, size=2048)
            for _ in range(options.rounds):
                for side in (empty, waiting):
                    side.start()
            print(f"{'':<18} {'ready after':>12} {'MiB then':>9} {'MiB at most':>12}")
            for name, side in (("empty store", empty), (f"{options.deferred:,} deferred", waiting)):
                seconds, ready, most = side.row()
                print(f"{name:<18} {seconds:>10.2f} s {ready:>9.1f} {most:>12.1f}")
            (bare, _, bare_most), (seconds, _, most) = empty.row(), waiting.row()
            print(f"ratio {seconds / bare:.2f}, {seconds - bare:+.2f} s, {most - bare_most:+.1f} MiB")
        finally:
            empty.daemon.close()
            waiting.daemon.close()
    return 0 if seconds < _BUDGET_SECONDS and most - bare_most < _BUDGET_GROWTH / 2**20 else 1


if __name__ == "__main__":
    sys.exit(main())
