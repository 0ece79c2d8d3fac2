"""From a message in the watched folder to the message in its queue, with 100 touchpoints over TLS.

    python -m benchmarks.latency [--server dovecot|instant] [--touchpoints 100]

The peer is the least an IMAP client can do (`benchmarks.idleclient`: EXISTS, UID FETCH), with mailboxes of its own on
the same server at the same time. Dovecot tells an idling client half a second after the message has come
(NOTIFY_DELAY_MSECS, compiled in), so beside it stands a server that tells at once (`benchmarks.imapserver`). Linux
gives all of Dovecot's mail processes together 128 inotify instances; who comes too late is told within two seconds.

* *one at a time*: a message to us, and when it is in its queue one to the peer, and so on;
* *trickle*: a steady stream spread over all touchpoints and the peer's mailboxes;
* *trickle, load*: the same while fifty agents log in and a worker process reads 30 MB that one of them submits.

A time begins when the dot of the delivery (LMTP) is written. Ours ends with the log line `routed`, which is written
behind the commit: nothing has to look while it is measured. In the first part an outside reader of the store looks as
well, every millisecond, and the difference is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher

from benchmarks import watched
from benchmarks.cpu import neighbours_told
from benchmarks.lmtp import Lmtp
from benchmarks.peers import MailServer, child, instant_provider, provider
from benchmarks.watched import Onlooker
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.ports import free_port

DESK, AGENT_PASSWORD = "desk@support.example", "correct horse battery"
_AGENTS: Final = 50
_ROUNDS: Final = 3
_SIZE: Final = 4096
_BARE: Final = 20  # mailboxes of the peer
_INOTIFY: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_PATIENCE: Final = 30.0  # seconds for one message


@dataclass(frozen=True)
class Times:
    """Seconds from delivery to visible, sorted."""

    seconds: Sequence[float]

    def quantile(self, share: float) -> float:
        """Return ms."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * share))] * 1000

    def __str__(self) -> str:
        return f"{len(self.seconds):>6} {self.quantile(0.5):>7.1f} {self.quantile(0.99):>7.1f} {self.quantile(1):>7.1f}"


class Bare:
    """The peer: a process that watches mailboxes of its own, and what it has fetched."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.fetched_at: dict[str, float] = {}
        self._came = threading.Condition()
        self._lines = process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._lines is not None
        with contextlib.suppress(ValueError):  # closed at the end
            for line in self._lines:
                message_id, at = line.split()
                with self._came:
                    self.fetched_at[message_id] = float(at)
                    self._came.notify_all()

    def wait_for(self, message_ids: set[str]) -> None:
        with self._came:
            if not self._came.wait_for(lambda: message_ids <= self.fetched_at.keys(), _PATIENCE):
                raise RuntimeError(f"the bare client waits for {len(message_ids - self.fetched_at.keys())} messages")


class Run:
    """One server with everybody connected. Deliveries are kept by Message-ID."""

    def __init__(self, daemon: Daemon, bare: Bare, door: Lmtp, users: Sequence[str], bare_users: Sequence[str]) -> None:
        self._daemon, self._bare, self._door = daemon, bare, door
        self._users, self._bare_users = users, bare_users
        self._numbers = itertools.count()

    def _deliver(self, user: str) -> tuple[str, float]:
        message_id = f"<{next(self._numbers)}@clients.example>"
        return message_id, self._door.deliver(user, watched.letter(message_id, _SIZE, to=user))

    def _turns(self) -> Iterator[tuple[str, str]]:
        return zip(itertools.cycle(self._users), itertools.cycle(self._bare_users), strict=False)

    def one_at_a_time(self, count: int) -> tuple[Times, Times, float]:
        """Return ours, the peer's, and the median of how much later than the log an outside reader saw it (ms)."""
        ours: dict[str, float] = {}
        theirs: dict[str, float] = {}
        seen_at: dict[str, float] = {}
        with Onlooker(self._daemon) as onlooker:
            for user, bare_user in itertools.islice(self._turns(), count):
                message_id, ours[message_id] = self._deliver(user)
                seen_at[message_id] = _wait_seen(onlooker, message_id)
                time.sleep(0.05)  # until all is quiet again
                message_id, theirs[message_id] = self._deliver(bare_user)
                self._bare.wait_for({message_id})
                time.sleep(0.05)
        routed_at = watched.routed_at(self._daemon)
        later = statistics.median(seen_at[message_id] - routed_at[message_id] for message_id in ours)
        return _times(ours, routed_at), _times(theirs, self._bare.fetched_at), later * 1000

    def trickle(
        self, per_second: float, is_over: Callable[[float], bool]
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Deliver to us and to the peer in turn until `is_over(elapsed seconds)`; wait until all have arrived."""
        ours: dict[str, float] = {}
        theirs: dict[str, float] = {}
        begun = time.monotonic()
        for number, (user, bare_user) in enumerate(self._turns()):
            for delivered, name, half in ((ours, user, 0.0), (theirs, bare_user, 0.5)):
                time.sleep(max(0.0, begun + (number + half) / per_second - time.monotonic()))
                message_id, delivered[message_id] = self._deliver(name)
            if is_over(time.monotonic() - begun):
                break
        self._bare.wait_for(set(theirs))
        deadline = time.monotonic() + _PATIENCE
        while missing := ours.keys() - watched.routed_at(self._daemon).keys():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(missing)} messages are not in a queue: {watched.trouble(self._daemon)}")
            time.sleep(0.2)
        return ours, theirs

    def times(self, ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[Times, Times]:
        return _times(ours, watched.routed_at(self._daemon)), _times(theirs, self._bare.fetched_at)


def _wait_seen(onlooker: Onlooker, message_id: str) -> float:
    deadline = time.monotonic() + _PATIENCE
    while not onlooker.sees(message_id):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{message_id} is in no queue after {_PATIENCE} s")
        time.sleep(0.001)
    return time.time()


def _times(delivered: Mapping[str, float], seen: Mapping[str, float]) -> Times:
    return Times(sorted(seen[message_id] - at for message_id, at in delivered.items()))


@contextmanager
def run(server: MailServer, authority: Authority, users: Sequence[str], bare_users: Sequence[str]) -> Iterator[Run]:
    """Yield a run with the daemon and the bare client connected and warm."""
    site = watched.site(server, authority, users, tls=True)
    site.touchpoints.append(
        {
            "id": "desk",
            "address": DESK,
            "name": "Desk",
            "active": True,
            "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{free_port()}",  # nobody is there: what agents send waits
            "password": f"file:{authority.directory / 'touchpoint-secret'}",
            "linked_queues": ["support"],
            "signature": {"active": True, "html": "<p>Yours, Desk</p>"},
        }
    )
    password_hash = PasswordHasher().hash(AGENT_PASSWORD)  # of full strength: that is what is measured
    for login in agents():
        site.agents.append(
            {"login": login, "name": "Agent", "ring_groups": ["support"], "password_hash": password_hash}
        )
    bare_words = (str(server.imaps_port), str(authority.ca_file), watched.PASSWORD, *bare_users)
    with watched.running(Daemon(site)) as daemon, child("benchmarks.idleclient", *bare_words) as (process, _):
        watched.wait_connected(daemon, len(users))
        with contextlib.closing(Lmtp(server.lmtp_port)) as door:
            made = Run(daemon, Bare(process), door, users, bare_users)
            made.trickle(50, lambda elapsed: elapsed > 2)  # the first of each path
            yield made


def agents() -> list[str]:
    return [f"agent{number}@gateway.example" for number in range(_AGENTS * _ROUNDS)]


@contextmanager
def load(daemon: Daemon) -> Iterator[list[tuple[float, float]]]:
    """Run the agents; the list grows by (begun, ended) of each round."""
    words = (str(daemon.submission_port), AGENT_PASSWORD, DESK, "30", str(_AGENTS), *agents())
    rounds: list[tuple[float, float]] = []
    with child("benchmarks.agentload", *words) as (process, _):

        def read() -> None:
            assert process.stdout is not None
            with contextlib.suppress(ValueError):
                for line in process.stdout:
                    begun, ended = map(float, line.split())
                    rounds.append((begun, ended))

        threading.Thread(target=read, daemon=True).start()
        yield rounds
        if process.poll() not in (None, 0):
            raise RuntimeError("the agents' load has failed")


def measure(name: str, made: Run, singles: int, per_second: float) -> bool:
    def row(how: str, ours: Times, theirs: Times, p50: float, p99: float) -> bool:
        added = [ours.quantile(share) - theirs.quantile(share) for share in (0.5, 0.99)]
        print(f"{name:<8} {how:<24} {ours} {theirs} {added[0]:>8.1f} {added[1]:>7.1f}", flush=True)
        return added[0] < p50 and added[1] < p99

    ours, theirs, later = made.one_at_a_time(singles)
    held = row("one at a time", ours, theirs, 20, 100)
    steady = made.times(*made.trickle(per_second, lambda elapsed: elapsed > 20))
    held = row(f"trickle, {per_second:.0f}/s", *steady, 20, 100) and held
    with load(made._daemon) as rounds:
        all_ours, all_theirs = made.trickle(per_second, lambda elapsed: len(rounds) >= _ROUNDS or elapsed > 60)
        busy = list(rounds)
    if len(busy) < _ROUNDS:
        raise RuntimeError("the agents' load did not end within a minute")

    def during(delivered: Mapping[str, float]) -> Mapping[str, float]:
        return {id: at for id, at in delivered.items() if any(begun <= at <= ended for begun, ended in busy)}

    loaded = made.times(during(all_ours), during(all_theirs))
    held = row(f"trickle, load of {statistics.mean(e - b for b, e in busy):.1f} s", *loaded, 250, 250) and held
    print(f"{name:<8} an outside reader sees a message {later:+.1f} ms after its log line (median)", flush=True)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("dovecot", "instant"))
    parser.add_argument("--touchpoints", type=int, default=100)
    options = parser.parse_args()
    users = [watched.address(number) for number in range(options.touchpoints)]
    bare_users = [f"bare-{watched.address(number)}" for number in range(_BARE)]
    held = True
    columns = f"{'p50':>7} {'p99':>7} {'most':>7}"
    print(f"{'':<8} {'ms':<24} {'ours':>6} {columns} {'bare':>6} {columns} {'we add':>8} {'at p99':>7}", flush=True)
    with neighbours_told(), tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch))
        if options.server in (None, "dovecot"):
            if _INOTIFY.exists() and (most := int(_INOTIFY.read_text())) < len(users) + len(bare_users):
                print(f"{_INOTIFY} is {most}: some sessions will be told late; raise it, or take fewer touchpoints")
            everybody = dict.fromkeys((*users, *bare_users), watched.PASSWORD)
            with provider(authority, everybody) as dovecot, run(dovecot, authority, users, bare_users) as made:
                held = measure("dovecot", made, 25, 20) and held
        if options.server in (None, "instant"):
            with instant_provider(authority) as instant, run(instant, authority, users, bare_users) as made:
                held = measure("instant", made, 100, 50) and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
