"""The daemon with many inbound touchpoints, and how to see from outside what reaches its queues."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import MailServer
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site

PASSWORD = "secret"
_DRAWN_FROM = ("an invoice", "a parcel", "a password")


def address(number: int) -> str:
    return f"t{number:04}@support.example"


def site(server: MailServer, authority: Authority, addresses: Sequence[str], *, tls: bool, **keys: Any) -> Site:
    """Return touchpoints `t0000`… with a few rules before their queues, as an ordinary team has them."""
    secret = authority.directory / "touchpoint-secret"
    secret.write_text(PASSWORD)
    made = Site()
    for name in addresses:
        made.touchpoints.append(
            {
                "id": name.partition("@")[0],
                "address": name,
                "name": "Support",
                "active": True,
                "direction": "inbound",
                "imap": f"imaps://localhost:{server.imaps_port}"
                if tls
                else f"imap+insecure://127.0.0.1:{server.imap_port}",
                "password": f"file:{secret}",
                "ca_file": str(authority.ca_file),
                "linked_queues": ["support"],
                **keys,
            }
        )
    made.add_agent("ana@gateway.example", "secret", ["support", "billing"])
    for number in range(20):
        made.rules.append({"name": f"r{number}", "if": {"subject": [f"*word{number}*"]}, "then": {"tags": ["x"]}})
    made.rules.append({"name": "invoices", "if": {"subject": ["*invoice*"]}, "then": {"queue": "billing"}})
    return made


@contextmanager
def running(daemon: Daemon, within: float = 60) -> Iterator[Daemon]:
    """Start it; at the end stop it and take its directory away."""
    try:
        daemon.start(within)
        yield daemon
        daemon.stop()
    finally:
        daemon.close()


def wait_connected(daemon: Daemon, count: int, within: float = 90) -> None:
    """Wait until `count` touchpoints have been read, are being watched, and have looked into their other folders."""
    deadline = time.monotonic() + within
    while True:
        states = [touchpoint["state"] for touchpoint in daemon.status()["touchpoints"]]
        if states.count("watching") >= count:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{states.count('watching')} of {count} are watched after {within} s: {trouble(daemon)}")
        time.sleep(0.2)
    # Other folders are visited over a second, short session each: until no more come and go
    files, quiet_since = -1, time.monotonic()
    descriptors = Path(f"/proc/{daemon.pid}/fd")
    while time.monotonic() - quiet_since < 1.5 and time.monotonic() < deadline:
        if (found := sum(1 for _ in descriptors.iterdir())) != files:
            files, quiet_since = found, time.monotonic()
        time.sleep(0.1)


def letter(message_id: str, size: int, dice: random.Random | None = None, to: str = "support@support.example") -> bytes:
    """Return a customer's letter of about `size` bytes; `message_id` with its brackets."""
    dice = dice or random.Random(message_id)
    sender = f"c{dice.randrange(1_000_000)}@clients.example"
    head = (
        f"Return-Path: <{sender}>\r\n"
        f"Received: from mx.clients.example by mx.support.example; Mon, 23 Nov 2026 10:00:00 +0000\r\n"
        f"From: Customer <{sender}>\r\nTo: {to}\r\n"
        f"Subject: question {dice.randrange(1_000_000)} about {dice.choice(_DRAWN_FROM)}\r\n"
        f"Message-ID: {message_id}\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    line = f"Line of letter {message_id}, as customers write them all day long.\r\n".encode()
    return head + line * ((size - len(head)) // len(line) + 1)


def letters(count: int, size: int, to: str = "support@support.example") -> list[bytes]:
    dice = random.Random(to)
    return [letter(f"<{number}.{dice.random()}@clients.example>", size, dice, to) for number in range(count)]


# --- seeing ----------------------------------------------------------------------------------------------------------


class Onlooker:
    """The store's queues as another process sees them: a read-only connection. It never checkpoints."""

    def __init__(self, daemon: Daemon) -> None:
        path = daemon.state_dir / "gateway.db"
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    def __enter__(self) -> Onlooker:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def count(self) -> int:
        """Return how many messages are in queues."""
        query = "SELECT count(*) FROM message WHERE conversation IN (SELECT conversation FROM entry)"
        return int(self._db.execute(query).fetchone()[0])

    def sees(self, message_id: str) -> bool:
        query = "SELECT 1 FROM message JOIN entry USING (conversation) WHERE message.message_id = ?"
        return self._db.execute(query, (message_id,)).fetchone() is not None


def wait_queued(daemon: Daemon, count: int, within: float = 120) -> float:
    """Return the `time.monotonic` at which `count` messages were in queues, seen from outside."""
    deadline = time.monotonic() + within
    with Onlooker(daemon) as onlooker:
        while (found := onlooker.count()) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{found} of {count} messages are in queues after {within} s: {trouble(daemon)}")
            time.sleep(0.02)
    return time.monotonic()


def routed_at(daemon: Daemon) -> Mapping[str, float]:
    """Return Message-ID → when the log said `routed`, in seconds since the epoch.

    The line is written by the task that waited for the commit, so it is never before others can see the message; and
    reading it afterwards costs nothing while it is measured.
    """
    found = {}
    with daemon.log.open() as log:
        for line in log:
            if '"event": "routed"' in line:
                event = json.loads(line)
                found[event["message_id"]] = datetime.fromisoformat(event["timestamp"]).timestamp()
    return found


def trouble(daemon: Daemon) -> str:
    """Return what the log says above `info`, the last of it."""
    lines = []
    for line in daemon.log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("level") != "info":
                event.pop("timestamp", None)
                lines.append(json.dumps(event)[-1500:])
    return "\n".join(lines[-3:]) or "nothing in its log"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of one process, without its children."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")
