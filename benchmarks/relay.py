"""Relaying 10,000 queued messages into a sink over 20 connections, every state durable, beside Postfix.

    python -m benchmarks.relay [--messages 10000] [--connections 20] [--rounds 2]

Both queues are filled first (Postfix: on hold; ours: the provider is away), then let go. Timed from the first to the
last message that the sink has taken; the rounds go Postfix, ours, Postfix, ours. Exits with 1 below 1.5 times Postfix.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import smtpload
from benchmarks.cpu import cpu_seconds, neighbours_told
from benchmarks.peers import Postfix, provider
from benchmarks.smtpload import Load, Target
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.ports import free_port

AGENT, PASSWORD = "ana@gateway.example", "correct horse"
ADDRESS, CUSTOMER = "support@support.example", "customer@clients.example"
_PATIENCE = 90  # seconds


@contextmanager
def sink(port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.smtpsink", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.wait()


def time_sink(process: subprocess.Popen[str], messages: int) -> tuple[float, int]:
    """Return seconds from the first to the last of `messages`, and how many connections brought them."""
    assert process.stdout is not None
    begun, first = time.monotonic(), 0
    while time.monotonic() - begun < _PATIENCE:
        count, connections = map(int, process.stdout.readline().split())
        now = time.monotonic()
        if count and not first:
            first, begun = count, now
        if count >= messages:
            return (now - begun) * messages / max(1, messages - first), connections
    raise RuntimeError(f"the sink has taken {count} of {messages} in {_PATIENCE} s")


def ours(authority: Authority, messages: int, connections: int) -> tuple[float, int, float]:
    port = free_port()
    site = Site()
    secret = authority.directory / "secret"
    secret.write_text("welcome")
    site.touchpoints.append(
        {
            "id": "support",
            "address": ADDRESS,
            "name": "Support",
            "active": True,
            "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{port}",
            "password": f"file:{secret}",
            "linked_queues": ["support"],
            "pace": {"connections": connections, "per_connection": 1000},
        }
    )
    site.add_agent(AGENT, PASSWORD, ["support"])
    daemon = Daemon(site)
    daemon.start()
    try:
        target = Target("127.0.0.1", daemon.submission_port, None, AGENT, PASSWORD, ADDRESS, CUSTOMER)
        smtpload.run(target, Load(messages, 20, 100))
        with sink(port) as process:
            before = cpu_seconds(daemon.pid)
            daemon.ask("outbox.retry", all=True)
            seconds, used = time_sink(process, messages)
            cpu = cpu_seconds(daemon.pid) - before
            states = {r["state"] for m in daemon.outbox() for r in m["recipients"]}
            deadline = time.monotonic() + 10
            while states != {"delivered"} and time.monotonic() < deadline:
                states = {r["state"] for m in daemon.outbox() for r in m["recipients"]}
            assert states == {"delivered"}, states
        return messages / seconds, used, cpu / messages * 1000
    finally:
        daemon.stop()
        daemon.close()


def postfix(authority: Authority, messages: int, connections: int) -> tuple[float, int, float]:
    port = free_port()
    with provider(authority) as dovecot:
        dovecot.set_password(AGENT, PASSWORD)
        settings = {
            "smtpd_recipient_restrictions": "static:HOLD",
            "virtual_mailbox_domains": "",
            "relayhost": f"[127.0.0.1]:{port}",
            "default_destination_concurrency_limit": str(connections),
            "initial_destination_concurrency": str(connections),
            "smtp_connection_cache_on_demand": "yes",
            "smtp_connection_cache_destinations": f"[127.0.0.1]:{port}",
            "qmgr_message_active_limit": "20000",
            "smtp_tls_security_level": "none",
        }
        server = Postfix(dovecot, authority.issue("postfix-relay"), settings)
        server.add_service("smtp unix - - n - - smtp")
        with server.running():
            target = Target("127.0.0.1", server.plain_port, None, AGENT, PASSWORD, ADDRESS, CUSTOMER)
            smtpload.run(target, Load(messages, 20, 100))
            with sink(port) as process:
                before = cpu_seconds(server.pid)
                server.command("postsuper", "-H", "ALL")
                seconds, used = time_sink(process, messages)
                cpu = cpu_seconds(server.pid) - before
    return messages / seconds, used, cpu / messages * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    sides = (("Postfix", postfix), ("ours", ours))
    seconds = dict.fromkeys(("Postfix", "ours"), 0.0)
    cpu = dict.fromkeys(("Postfix", "ours"), 0.0)
    print(f"{'':<10} {'messages/s':>10} {'connections':>12} {'ms CPU':>7}")
    with tempfile.TemporaryDirectory() as scratch, neighbours_told():
        authority = Authority(Path(scratch))
        for _ in range(options.rounds):
            for name, side in sides:
                rate, used, cost = side(authority, options.messages, options.connections)
                print(f"{name:<10} {rate:>10,.0f} {used:>12} {cost:>7.2f}", flush=True)
                seconds[name] += options.messages / rate
                cpu[name] += cost / options.rounds
        ratio = seconds["Postfix"] / seconds["ours"]
        print(f"ratio {ratio:.2f}; CPU {cpu['ours']:.2f} to {cpu['Postfix']:.2f} ms a message")
    return 0 if ratio >= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
