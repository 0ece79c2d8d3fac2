"""What a message costs with 1,000 messages in the store and with 1,000,000: accepting and relaying, in turns.

    python -m benchmarks.grown [--few 1000] [--many 1000000] [--messages 2000] [--rounds 3]

Two daemons, each with a store that has been filled by SQL (`benchmarks.filled`; 2 KiB a message, so that a million is
3 GB of disk). Accepting: replies into known conversations anywhere in the year, 100 messages a connection, while the
provider is away. Relaying: what has been accepted, into a sink over 20 connections. The ratio is of CPU seconds a
message, many to few; the budget is 1.3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import accept, filled, relay, smtpload
from benchmarks.cpu import neighbours_told
from benchmarks.smtpload import Load
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.ports import free_port

_BYTES = 2048
_BUDGET = 1.3


class Side:
    """One daemon, and what its rounds add up to: messages, seconds and CPU seconds of each kind of work."""

    def __init__(self, authority: Authority, stack: ExitStack, stored: int) -> None:
        self.stored = stored
        self._port = free_port()

        begun = time.monotonic()
        daemon = accept.new_daemon(authority, self._port)
        filled.fill(
            daemon.state_dir / "gateway.db",
            stored,
            touchpoint="support",
            address=accept.ADDRESS,
            agent=accept.AGENT,
            size=_BYTES,
        )
        self.daemon: Daemon = stack.enter_context(accept.running(daemon))
        self._server = accept.our_server(self.daemon)
        self.messages = 0
        self.seconds = {"accept": 0.0, "relay": 0.0}
        self.cpu = {"accept": 0.0, "relay": 0.0}
        print(f"{stored:>9,} messages in the store after {time.monotonic() - begun:.0f} s", flush=True)

    def round(self, messages: int, counts: bool) -> None:
        """Accept and relay; without `counts`, to get warm."""
        load = Load(messages, 20, 100, _BYTES, filled.inbound_id)
        before = self._server.cpu()
        result = smtpload.run(self._server.target(None), load)
        between = self._server.cpu()
        with relay.sink(self._port) as process:
            self.daemon.ask("outbox.retry", all=True)
            seconds, _ = relay.time_sink(process, messages)
            after = self._settled_cpu()
        if counts:
            self.messages += messages
            self.seconds["accept"] += messages / result.rate
            self.seconds["relay"] += seconds
            self.cpu["accept"] += between - before
            self.cpu["relay"] += after - between

    def _settled_cpu(self) -> float:
        """Return what has been used once nothing is waiting to be sent any more."""
        deadline = time.monotonic() + 30
        while any(state != "delivered" for message in self.daemon.ask("outbox.list") for state in _states(message)):
            if time.monotonic() > deadline:
                raise RuntimeError("not everything has left")
        return self._server.cpu()


def _states(message: dict[str, object]) -> list[object]:
    recipients = message["recipients"]
    assert isinstance(recipients, list)
    return [recipient["state"] for recipient in recipients]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=2_000, help="accepted and relayed in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, neighbours_told(), ExitStack() as stack:
        authority = Authority(Path(scratch))
        sides = [Side(authority, stack, stored) for stored in (options.few, options.many)]
        for number in range(options.rounds + 1):
            for side in sides:
                side.round(options.messages, counts=number > 0)
        few, many = sides
        print(f"{'':<8} {f'{few.stored:,}':>12} {'ms CPU':>7} {f'{many.stored:,}':>12} {'ms CPU':>7} {'ratio':>6}")
        ratios = []
        for kind in ("accept", "relay"):
            costs = [side.cpu[kind] / side.messages * 1000 for side in sides]
            rates = [side.messages / side.seconds[kind] for side in sides]
            ratios.append(costs[1] / costs[0])
            print(
                f"{kind:<8} {rates[0]:>10,.0f}/s {costs[0]:>7.2f} {rates[1]:>10,.0f}/s {costs[1]:>7.2f}"
                f" {ratios[-1]:>6.2f}"
            )
    return 0 if max(ratios) <= _BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
