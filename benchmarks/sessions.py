"""What an idle TLS touchpoint session costs: resident memory at 200 and at 2,000 of them, and CPU when nothing happens.

    python -m benchmarks.sessions [--sessions 200 2000] [--idle-seconds 60]

The other side is `benchmarks.imapserver`, in a process of its own. The peer is `benchmarks.idleclient`, which holds as
many TLS connections in IDLE and nothing else: what uvloop and OpenSSL take before we have done anything. Memory is
looked at when every session idles and again when each has fetched a message of 4 KiB; a session's cost is the slope.
With the smaller number each then fetches 256 KiB: a buffer that has been large once is what a daemon carries around
for months. Before the first look one session takes in 48 MiB, so that the store's page cache is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import watched
from benchmarks.cpu import cpu_seconds, neighbours_told
from benchmarks.lmtp import Lmtp
from benchmarks.peers import InstantServer, child, instant_provider
from tests.support.authority import Authority
from tests.support.daemon import Daemon

_BUDGET_KIB: Final = 300
_SMALL, _LARGE, _CACHED = 4096, 256 * 1024, 48 * 1024 * 1024
_SETTLE: Final = 2.0  # seconds
_FILES_BESIDE: Final = 200


@dataclass(frozen=True)
class Held:
    """Bytes of resident memory: all idle, after a small message each, after a large one each (0: not looked at).

    `ready`: seconds from the start until all were watched. `cpu`: CPU seconds an idle minute; None: not looked at.
    """

    sessions: int
    idle: int
    small: int
    large: int
    ready: float
    cpu: float | None


Look = Callable[[], int]
WaitFetched = Callable[[int], None]  # for so many messages since the start


def look_at(
    server: InstantServer, users: list[str], look: Look, wait_fetched: WaitFetched, large: bool
) -> tuple[int, int, int]:
    """Return resident memory as `Held` has it."""
    looks: list[int] = []
    fetched = 0
    with contextlib.closing(Lmtp(server.lmtp_port)) as door:
        for some, size in (
            ([users[0]] * (_CACHED // _LARGE), _LARGE),
            (users, _SMALL),
            (users if large else [], _LARGE),
        ):
            for user in some:
                fetched += 1
                door.deliver(user, watched.letter(f"<{fetched}@clients.example>", size, to=user))
            wait_fetched(fetched)
            time.sleep(_SETTLE)
            looks.append(look())
    return looks[0], looks[1], looks[2] if large else 0


def ours(server: InstantServer, authority: Authority, sessions: int, large: bool, idle_seconds: float) -> Held:
    users = [watched.address(number) for number in range(sessions)]
    daemon = Daemon(watched.site(server, authority, users, tls=True))
    begun = time.monotonic()
    with watched.running(daemon, 90):
        watched.wait_connected(daemon, sessions)
        ready = time.monotonic() - begun
        pid = daemon.pid

        def wait_queued(count: int) -> None:
            watched.wait_queued(daemon, count)

        looks = look_at(
            server,
            users,
            lambda: watched.resident_bytes(pid),
            wait_queued,
            large,
        )
        cpu = None
        if idle_seconds:
            before, at = cpu_seconds(pid), time.monotonic()
            time.sleep(idle_seconds)
            cpu = (cpu_seconds(pid) - before) / (time.monotonic() - at) * 60
        return Held(sessions, *looks, ready, cpu)


def bare(server: InstantServer, authority: Authority, sessions: int, large: bool) -> Held:
    users = [watched.address(number) for number in range(sessions)]
    begun = time.monotonic()
    words = (str(server.imaps_port), str(authority.ca_file), watched.PASSWORD, *users)
    with child("benchmarks.idleclient", *words) as (process, _):
        ready = time.monotonic() - begun
        assert process.stdout is not None
        lines, read = process.stdout, 0

        def wait_fetched(count: int) -> None:
            nonlocal read
            while read < count:
                assert lines.readline(), "the bare client has ended"
                read += 1

        looks = look_at(server, users, lambda: watched.resident_bytes(process.pid), wait_fetched, large)
        return Held(sessions, *looks, ready, None)


@dataclass(frozen=True)
class Cost:
    """KiB a session; `without`: MiB of the process with none."""

    idle: float
    small: float
    large: float
    without: float


def cost(fewer: Held, many: Held) -> Cost:
    def slope(of: Callable[[Held], int]) -> float:
        return (of(many) - of(fewer)) / (many.sessions - fewer.sessions) / 1024

    small = slope(lambda held: held.small)
    idle = slope(lambda held: held.idle)
    return Cost(
        idle,
        small,
        small + (fewer.large - fewer.small) / fewer.sessions / 1024,
        fewer.idle / 2**20 - fewer.sessions * idle / 1024,
    )


def make_room(sessions: int) -> int:
    """Raise this process's limit of open files, which its children inherit; return how many sessions fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + _FILES_BESIDE
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return min(sessions, limit - _FILES_BESIDE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs=2, default=(200, 2000))
    parser.add_argument("--idle-seconds", type=float, default=60)
    options = parser.parse_args()
    fewer, wanted = options.sessions
    many = make_room(wanted)
    if many < wanted:
        print(f"only {many} sessions: this machine allows no more open files (ulimit -Hn)")
    print(f"{'':<6} {'sessions':>8} {'watched after':>14} {'idle':>9} {'4 KiB':>9} {'256 KiB':>9}  MiB", flush=True)
    found: dict[str, list[Held]] = {"ours": [], "bare": []}
    with neighbours_told(), tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch))
        for sessions, large in ((fewer, True), (many, False)):
            for name in found:
                with instant_provider(authority) as server:  # a fresh one each: it keeps what was delivered
                    if name == "ours":
                        held = ours(server, authority, sessions, large, 0 if large else options.idle_seconds)
                    else:
                        held = bare(server, authority, sessions, large)
                found[name].append(held)
                sizes = " ".join(f"{size / 2**20:>9.1f}" for size in (held.idle, held.small, held.large) if size)
                print(f"{name:<6} {held.sessions:>8} {held.ready:>12.1f} s {sizes}", flush=True)
    our, peer = cost(*found["ours"]), cost(*found["bare"])
    print(f"{'KiB a session':<29} {'idle':>9} {'4 KiB':>9} {'256 KiB':>9}  beside them")
    for name, found_cost in (("ours", our), ("bare", peer)):
        figures = " ".join(f"{size:>9.0f}" for size in (found_cost.idle, found_cost.small, found_cost.large))
        print(f"{name:<29} {figures}  {found_cost.without:.0f} MiB")
    ratios = (our.idle / peer.idle, our.small / peer.small, our.large / peer.large)
    print(f"{'ratio':<29} " + " ".join(f"{ratio:>9.2f}" for ratio in ratios))
    print(f"{many} idle sessions: {found['ours'][-1].cpu or 0:.2f} CPU seconds a minute")
    return 0 if max(our.idle, our.small, our.large) <= _BUDGET_KIB else 1


if __name__ == "__main__":
    sys.exit(main())
