"""A backlog of 5,000 × 4 KiB from Dovecot, through classes and rules into the store, beside mbsync and getmail6.

    python -m benchmarks.inbound [--messages 5000] [--size 4096]

Each starts with nothing and ends when it has all; ours is timed from its start to the last message in its queue, with
TLS off on all sides. The peers write a Maildir and route nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers import provider
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.dovecot import Dovecot

USER, SLOW_USER, PASSWORD = "support@support.example", "slow@support.example", "secret"


def letters(count: int, size: int) -> list[bytes]:
    dice = random.Random(1)
    found = []
    for number in range(count):
        head = (
            f"Return-Path: <c{number}@clients.example>\r\n"
            f"Received: from mx.clients.example by mx.support.example; Mon, 23 Nov 2026 10:00:00 +0000\r\n"
            f"From: Customer {number} <c{number}@clients.example>\r\nTo: {USER}\r\n"
            f"Subject: question {number} about {dice.choice(['an invoice', 'a parcel', 'a password'])}\r\n"
            f"Message-ID: <{number}.{dice.random()}@clients.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        ).encode()
        line = f"Line of letter {number}, as customers write them all day long.\r\n".encode()
        found.append(head + line * ((size - len(head)) // len(line) + 1))
    return found


def ours(dovecot: Dovecot, authority: Authority, count: int) -> float:
    secret = authority.directory / "secret"
    secret.write_text(PASSWORD)
    site = Site()
    site.touchpoints.append(
        {
            "id": "support",
            "address": USER,
            "name": "Support",
            "active": True,
            "direction": "inbound",
            "imap": f"imap+insecure://127.0.0.1:{dovecot.imap_port}",
            "password": f"file:{secret}",
            "linked_queues": ["support"],
            "history": "all",
        }
    )
    site.add_agent("ana@gateway.example", "secret", ["support", "billing"])
    for number in range(20):
        site.rules.append({"name": f"r{number}", "if": {"subject": [f"*word{number}*"]}, "then": {"tags": ["x"]}})
    site.rules.append({"name": "invoices", "if": {"subject": ["*invoice*"]}, "then": {"queue": "billing"}})
    daemon = Daemon(site)
    try:
        begun = time.monotonic()
        daemon.start()
        while sum(queue["open"] for queue in daemon.status()["queues"]) < count:
            time.sleep(0.05)
            assert time.monotonic() - begun < 300, daemon.log_tail()
        took = time.monotonic() - begun
        daemon.stop()
        return count / took
    finally:
        daemon.close()


def mbsync(dovecot: Dovecot, home: Path, count: int) -> float:
    config = home / "mbsyncrc"
    (home / "mail").mkdir()
    config.write_text(
        f"IMAPAccount a\nHost 127.0.0.1\nPort {dovecot.imap_port}\nUser {USER}\nPass {PASSWORD}\nSSLType None\n"
        "AuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\n"
        f"MaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\n\n"
        "Channel c\nFar :far:INBOX\nNear :near:INBOX\nSync Pull\nCreate Near\nSyncState *\n"
    )
    return _timed(["mbsync", "-q", "-c", str(config), "c"], home / "mail" / "INBOX", count)


def getmail(dovecot: Dovecot, home: Path, count: int) -> float | None:
    if shutil.which("getmail") is None:
        return None
    for name in ("cur", "new", "tmp"):
        (home / "getmail" / "in" / name).mkdir(parents=True)
    user = ""
    if os.geteuid() == 0:  # it does not deliver as root, and nobody must be able to walk down to its Maildir
        user = "user = nobody\n"
        home.chmod(0o755)
        for directory in (home / "getmail" / "in", *(home / "getmail" / "in").iterdir()):
            shutil.chown(directory, "nobody")
    (home / "getmail" / "getmailrc").write_text(
        f"[retriever]\ntype = SimpleIMAPRetriever\nserver = 127.0.0.1\nport = {dovecot.imap_port}\n"
        f"username = {SLOW_USER}\npassword = {PASSWORD}\n\n"
        f"[destination]\ntype = Maildir\npath = {home}/getmail/in/\n{user}\n"
        "[options]\nread_all = true\nverbose = 0\ndelivered_to = false\nreceived = false\n"
    )
    return _timed(["getmail", "--getmaildir", str(home / "getmail")], home / "getmail" / "in", count)


def _timed(command: list[str], maildir: Path, count: int) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120)
    took = time.monotonic() - begun
    found = sum(1 for name in ("new", "cur") for _ in (maildir / name).iterdir())
    assert found == count, f"{command[0]} brought {found} of {count}"
    return count / took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--size", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        authority = Authority(Path(scratch))
        with provider(authority) as dovecot:
            dovecot.set_password(USER, PASSWORD)
            count = dovecot.seed(USER, letters(options.messages, options.size))
            peer = mbsync(dovecot, Path(scratch), count)
            rate = ours(dovecot, authority, count)
            dovecot.set_password(SLOW_USER, PASSWORD)  # a smaller mailbox: it forks for each message
            few = dovecot.seed(SLOW_USER, letters(max(50, options.messages // 25), options.size))
            slow = getmail(dovecot, Path(scratch), few)
    print(f"{'':<10} {'messages/s':>10} {'ours is':>8}")
    print(f"{'ours':<10} {rate:>10,.0f}")
    print(f"{'mbsync':<10} {peer:>10,.0f} {rate / peer:>7.2f}×")
    if slow is None:
        print("getmail6 is not installed (apt-get install getmail6)")
    else:
        print(f"{'getmail6':<10} {slow:>10,.0f} {rate / slow:>7.2f}×")
    return 0 if rate >= peer and (slow is None or rate >= 5 * slow) else 1


if __name__ == "__main__":
    sys.exit(main())
