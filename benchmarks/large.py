"""Peak memory of a message of 35 MB on its whole way: submission, store, relay to a provider that takes it.

    python -m benchmarks.large [--megabytes 34] [--rounds 2]

In the clear and over TLS, as it came and with the touchpoint's signature put into it (which a worker process does).
What is told is how far the daemon, and the daemon with its worker processes, have risen above what they had when idle,
as a multiple of the message: with the first large message of a process, which also fills SQLite's cache of 32 MiB once
and for all, and with the second. The budget is 5. The peer is the file itself: a program that reads it whole has 1.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accept, relay, smtpload
from benchmarks.cpu import descendants, forget_peak, neighbours_told, peak_bytes, resident_bytes
from benchmarks.smtpload import Load
from tests.support.authority import Authority
from tests.support.ports import free_port

_BUDGET = 5.0
_PATIENCE = 60.0  # seconds for the message to leave


class Family(threading.Thread):
    """Looks often at the resident memory of a process and all that it has started; `most` is the largest sum.

    What they share is counted for each, so the sum is rather too large.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self._over.wait(0.01):
            self.most = max(self.most, self.now())

    def now(self) -> int:
        total = 0
        for pid in descendants(self._pid):
            try:
                total += resident_bytes(pid)
            except (OSError, RuntimeError):  # it has ended meanwhile
                continue
        return total

    def stop(self) -> None:
        self._over.set()
        self.join()


@dataclass(frozen=True)
class Rise:
    """Multiples of the message's size: of the daemon alone, and with its worker processes. `seconds`: to the sink."""

    daemon: float
    family: float
    seconds: float


def one_way(authority: Authority, tls: ssl.SSLContext | None, signs: bool, size: int) -> list[Rise]:
    """Send two messages, one after the other; return how far each has made the memory rise."""
    port = free_port()
    daemon = accept.new_daemon(authority, port)
    if signs:
        daemon.site.touchpoint("support")["signature"] = {"active": True, "html": "<p>{{ agent.name }}, Support</p>"}
        daemon.write_config()
    rises = []
    with relay.sink(port) as process, accept.running(daemon):
        server = accept.our_server(daemon)
        # Everything has been at work once: code is imported, connections have been made
        smtpload.run(server.target(tls), Load(4, 2, 1, 200_000))
        relay.time_sink(process, 4)
        pid = daemon.pid
        for number in (5, 6):
            time.sleep(1)
            forget_peak(pid)
            idle, family = resident_bytes(pid), Family(pid)
            idle_family = family.now()
            family.start()
            begun = time.monotonic()
            smtpload.run(server.target(tls), Load(1, 1, 1, size))
            relay.time_sink(process, number)
            seconds = time.monotonic() - begun
            family.stop()
            rises.append(Rise((peak_bytes(pid) - idle) / size, (family.most - idle_family) / size, seconds))
    return rises


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=34.9, help="35 is the most that is accepted by default")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    size = round(options.megabytes * 1_000_000)
    worst = 0.0
    print(f"{'':<30} {'daemon':>8} {'with workers':>13} {'seconds':>8}   (above idle, multiples of the message)")
    with tempfile.TemporaryDirectory() as scratch, neighbours_told():
        authority = Authority(Path(scratch))
        for name, tls, signs in (
            ("clear", None, False),
            ("TLS", authority.client_context(), False),
            ("clear, with signature", None, True),
        ):
            rounds = [one_way(authority, tls, signs, size) for _ in range(options.rounds)]
            for which, rises in zip(("first", "second"), zip(*rounds, strict=True), strict=True):
                daemon = max(rise.daemon for rise in rises)
                family = max(rise.family for rise in rises)
                seconds = max(rise.seconds for rise in rises)
                worst = max(worst, daemon, family)
                print(f"{name:<22} {which:<7} {daemon:>8.2f} {family:>13.2f} {seconds:>8.2f}", flush=True)
    return 0 if worst <= _BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
