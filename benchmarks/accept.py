"""Durable accepts per second of the submission port beside Postfix: AUTH on both, the same client, the same disk.

    python -m benchmarks.accept [--messages 4000] [--large 200] [--clients 20] [--rounds 2] [--only tls-1-4k …]

In the clear and over TLS, one message and 100 messages a connection, 4 KiB and 1 MiB. Neither side delivers anything
meanwhile: Postfix puts each message on hold (its cheapest way), ours finds its provider away. Both promise that a
message is on disk before its 250; that Postfix keeps the promise on this disk is counted first.

The rounds go ours, Postfix, ours, Postfix, so that whatever else the machine does meets both. CPU milliseconds a
message are those of the server's processes with their children (Postfix's with the Dovecot that checks its passwords),
and those of the client, which takes its share of the same cores. A connection of 1 MiB messages carries fewer than 100
where there are not enough of them.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import smtpload
from benchmarks.cpu import cpu_seconds, flushes, neighbours_told
from benchmarks.peers import Postfix, provider
from benchmarks.smtpload import Load, Result, Target
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.dovecot import Dovecot
from tests.support.ports import free_port

AGENT, PASSWORD = "ana@gateway.example", "correct horse"
ADDRESS, CUSTOMER = "support@support.example", "customer@clients.example"
_SIZES = {"4k": 4096, "1m": 1024 * 1024}
_PROOF = 20  # messages, one after another, during which the disk is watched


def new_daemon(authority: Authority, provider_port: int = 0) -> Daemon:
    """Return a daemon, not started, whose one provider is away. `provider_port`: where it may turn up."""
    pair = authority.issue("submission")
    tls_port = free_port()
    site = Site()
    secret = authority.directory / "secret"
    secret.write_text("nobody asks for it")
    site.touchpoints.append(
        {
            "id": "support",
            "address": ADDRESS,
            "name": "Support",
            "active": True,
            "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{provider_port or free_port()}",
            "password": f"file:{secret}",
            "linked_queues": ["support"],
            "pace": {"connections": 20, "per_connection": 1000},
        }
    )
    site.add_agent(AGENT, PASSWORD, ["support"])
    daemon = Daemon(site)
    site.gateway["submission"] = {
        "listen": [f"smtp+insecure://127.0.0.1:{daemon.submission_port}", f"smtps://127.0.0.1:{tls_port}"],
        "certificate": str(pair.certificate),
        "private_key": str(pair.private_key),
        "max_connections_per_address": 500,  # all clients are one here, and come again before the last one is gone
    }
    daemon.tls_port = tls_port  # type: ignore[attr-defined]  # where this run listens with TLS
    daemon.write_config()
    return daemon


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    try:
        daemon.start()
        yield daemon
        daemon.stop()
    finally:
        daemon.close()


@dataclass(frozen=True)
class Server:
    """`cpu`: CPU seconds that its processes have used so far."""

    plain_port: int
    tls_port: int
    cpu: Callable[[], float]

    def target(self, tls: ssl.SSLContext | None) -> Target:
        host, port = ("localhost", self.tls_port) if tls else ("127.0.0.1", self.plain_port)
        return Target(host, port, tls, AGENT, PASSWORD, ADDRESS, CUSTOMER)


def our_server(daemon: Daemon) -> Server:
    pid = daemon.pid
    return Server(daemon.submission_port, daemon.tls_port, lambda: cpu_seconds(pid))  # type: ignore[attr-defined]


def peer_server(postfix: Postfix, dovecot: Dovecot) -> Server:
    return Server(postfix.plain_port, postfix.smtps_port, lambda: cpu_seconds(postfix.pid) + cpu_seconds(dovecot.pid))


@dataclass
class Tally:
    """What the rounds of one server add up to."""

    messages: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    client_cpu: float = 0.0

    def add(self, load: Load, result: Result, cpu: float) -> None:
        self.messages += load.messages
        self.seconds += load.messages / result.rate
        self.cpu += cpu
        self.client_cpu += result.cpu * load.messages

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu / self.messages * 1000

    @property
    def client_ms(self) -> float:
        return self.client_cpu / self.messages * 1000


def compare(servers: list[Server], tls: ssl.SSLContext | None, load: Load, rounds: int) -> list[Tally]:
    """Load each of the servers in turn, `rounds` times."""
    tallies = [Tally() for _ in servers]
    for server in servers:  # warm, and the password known
        smtpload.run(server.target(tls), Load(2 * load.clients, load.clients, 1))
    for _ in range(rounds):
        for server, tally in zip(servers, tallies, strict=True):
            before = server.cpu()
            result = smtpload.run(server.target(tls), load)
            tally.add(load, result, server.cpu() - before)
    return tallies


def prove_sync(postfix: Postfix, dovecot: Dovecot, daemon: Daemon) -> bool:
    """Say, and return, whether Postfix's queue is on our disk and each of its 250s waits for that disk."""
    if postfix.queue.stat().st_dev != daemon.state_dir.stat().st_dev:
        print("Postfix's queue is on another file system than our store: the rates cannot be compared")
        return False
    before = flushes(postfix.queue)
    smtpload.run(peer_server(postfix, dovecot).target(None), Load(_PROOF, 1, _PROOF))
    found = flushes(postfix.queue) - before
    print(f"Postfix: {_PROOF} messages one after another, {found} flushes of the disk that is ours too")
    return found >= _PROOF


def cases(names: list[str]) -> Iterator[tuple[bool, int, str]]:
    for size in _SIZES:
        for tls in (False, True):
            for per in (1, 100):
                if not names or f"{'tls' if tls else 'clear'}-{per}-{size}" in names:
                    yield tls, per, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000, help="of 4 KiB in each round; half with one a connection")
    parser.add_argument("--large", type=int, default=200, help="messages of 1 MiB in each round")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="names of cases: (clear|tls)-(1|100)-(4k|1m)")
    options = parser.parse_args()
    print(
        f"{'':<12} {'per conn.':>9} {'ours/s':>8} {'ms CPU':>7} {'client':>7} {'Postfix/s':>10} {'ms CPU':>7}"
        f" {'client':>7} {'ratio':>6}"
    )
    held = True
    with tempfile.TemporaryDirectory() as scratch, neighbours_told():
        authority = Authority(Path(scratch))
        context = authority.client_context()
        with provider(authority) as dovecot:
            dovecot.set_password(AGENT, PASSWORD)
            postfix = Postfix(dovecot, authority.issue("postfix"), {"smtpd_recipient_restrictions": "static:HOLD"})
            with postfix.running(), running(new_daemon(authority)) as daemon:
                held = prove_sync(postfix, dovecot, daemon)
                servers = [our_server(daemon), peer_server(postfix, dovecot)]
                for tls, per, size in cases(options.only):
                    messages = options.large if size == "1m" else options.messages // (2 if per == 1 else 1)
                    clients = min(options.clients, messages)
                    load = Load(messages, clients, min(per, -(-messages // clients)), _SIZES[size])
                    mine, peer = compare(servers, context if tls else None, load, options.rounds)
                    held = held and mine.rate >= peer.rate
                    print(
                        f"{'TLS' if tls else 'clear':<5} {size:<6} {per:>9} {mine.rate:>8,.0f} {mine.cpu_ms:>7.2f}"
                        f" {mine.client_ms:>7.2f} {peer.rate:>10,.0f} {peer.cpu_ms:>7.2f} {peer.client_ms:>7.2f}"
                        f" {mine.rate / peer.rate:>6.2f}",
                        flush=True,
                    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
