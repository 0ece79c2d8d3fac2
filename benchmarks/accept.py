"""Durable accepts per second of the submission port beside Postfix: AUTH on both, the same client, the same disk.

    python -m benchmarks.accept [--messages 4000] [--clients 20]

Neither side delivers anything meanwhile: Postfix puts each message on hold (its cheapest way), ours finds its provider
away. CPU seconds are those of the server's processes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import smtpload
from benchmarks.cpu import cpu_seconds
from benchmarks.peers import Postfix, provider
from benchmarks.smtpload import Load, Target
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.ports import free_port

AGENT, PASSWORD = "ana@gateway.example", "correct horse"
ADDRESS, CUSTOMER = "support@support.example", "customer@clients.example"


@contextmanager
def ours(authority: Authority) -> Iterator[Daemon]:
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
            "smtp": f"smtp+insecure://127.0.0.1:{free_port()}",
            "password": f"file:{secret}",
            "linked_queues": ["support"],
        }
    )
    site.add_agent(AGENT, PASSWORD, ["support"])
    daemon = Daemon(site)
    site.gateway["submission"] = {
        "listen": [f"smtp+insecure://127.0.0.1:{daemon.submission_port}", f"smtps://127.0.0.1:{tls_port}"],
        "certificate": str(pair.certificate),
        "private_key": str(pair.private_key),
    }
    daemon.tls_port = tls_port  # type: ignore[attr-defined]  # where this run listens with TLS
    daemon.write_config()
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        daemon.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    cases = [(tls, per) for tls in (False, True) for per in (1, 100)]
    print(f"{'':<10} {'per conn.':>9} {'ours/s':>9} {'ms CPU':>7} {'Postfix/s':>10} {'ms CPU':>7} {'ratio':>6}")
    held = True
    with tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch))
        context = authority.client_context()
        with provider(authority) as dovecot:
            dovecot.set_password(AGENT, PASSWORD)
            postfix = Postfix(dovecot, authority.issue("postfix"), {"smtpd_recipient_restrictions": "static:HOLD"})
            with postfix.running(), ours(authority) as daemon:
                for tls, per_connection in cases:
                    load = Load(
                        options.messages if per_connection > 1 else options.messages // 2,
                        options.clients,
                        per_connection,
                    )
                    rates = []
                    for port, pids in (
                        (daemon.tls_port if tls else daemon.submission_port, daemon.pid),  # type: ignore[attr-defined]
                        (postfix.smtps_port if tls else postfix.plain_port, postfix.pid),
                    ):
                        target = Target(
                            "localhost" if tls else "127.0.0.1",
                            port,
                            context if tls else None,
                            AGENT,
                            PASSWORD,
                            ADDRESS,
                            CUSTOMER,
                        )
                        smtpload.run(target, Load(200, options.clients, per_connection))  # warm both
                        before = cpu_seconds(pids)
                        rate = smtpload.run(target, load)
                        rates.append((rate, (cpu_seconds(pids) - before) / load.messages * 1000))
                    (our_rate, our_cpu), (peer_rate, peer_cpu) = rates
                    held = held and our_rate >= peer_rate
                    print(
                        f"{'TLS' if tls else 'clear':<10} {per_connection:>9} {our_rate:>9,.0f} {our_cpu:>7.2f}"
                        f" {peer_rate:>10,.0f} {peer_cpu:>7.2f} {our_rate / peer_rate:>6.2f}",
                        flush=True,
                    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
