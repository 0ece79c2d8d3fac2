"""Backlogs of 5,000 × 4 KiB and of 200 × 1 MiB from Dovecot, through classes and rules into the store, beside mbsync
and getmail6.

    python -m benchmarks.inbound [--rounds 3] [--only small|large]

Each starts with nothing and ends when it has all; TLS is off on all sides. Ours is timed from the start of its process
until an outside reader sees the last message in its queue; the peers write a Maildir and route nothing. Every round
begins with another of the three; the median counts. getmail6 forks for each message and gets a part of the small ones.

What was written stays until all rounds are over: for minutes ext4 passes over the inodes of deleted files, one by one,
and a Maildir that is written where another has just been deleted takes three times as long.
"""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import watched
from benchmarks.cpu import cpu_seconds, neighbours_told
from benchmarks.peers import provider
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.dovecot import Dovecot

MUCH, LITTLE, LARGE = "much@support.example", "little@support.example", "large@support.example"


@dataclass(frozen=True)
class Backlog:
    name: str
    user: str
    messages: int
    size_bytes: int
    getmail_user: str
    getmail_messages: int


@dataclass(frozen=True)
class Run:
    """`start_seconds`: of which until the daemon was ready. `cpu`: CPU seconds; 0 where it was not measured."""

    messages: int
    seconds: float
    start_seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def ours(dovecot: Dovecot, authority: Authority, backlog: Backlog) -> Run:
    daemon = Daemon(watched.site(dovecot, authority, [backlog.user], tls=False, history="all"))
    begun = time.monotonic()
    with watched.running(daemon):
        ready = time.monotonic()
        ended = watched.wait_queued(daemon, backlog.messages)
        return Run(backlog.messages, ended - begun, ready - begun, cpu_seconds(daemon.pid))


def mbsync(dovecot: Dovecot, home: Path, backlog: Backlog) -> Run:
    config = home / "mbsyncrc"
    (home / "mail").mkdir()
    config.write_text(
        f"IMAPAccount a\nHost 127.0.0.1\nPort {dovecot.imap_port}\nUser {backlog.user}\nPass {watched.PASSWORD}\n"
        "SSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\n"
        f"MaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\n\n"
        "Channel c\nFar :far:INBOX\nNear :near:INBOX\nSync Pull\nCreate Near\nSyncState *\n"
    )
    return _timed(["mbsync", "-q", "-c", str(config), "c"], home / "mail" / "INBOX", backlog.messages)


def getmail(dovecot: Dovecot, home: Path, backlog: Backlog) -> Run:
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
        f"username = {backlog.getmail_user}\npassword = {watched.PASSWORD}\n\n"
        f"[destination]\ntype = Maildir\npath = {home}/getmail/in/\n{user}\n"
        "[options]\nread_all = true\nverbose = 0\ndelivered_to = false\nreceived = false\n"
    )
    command = ["getmail", "--getmaildir", str(home / "getmail")]
    return _timed(command, home / "getmail" / "in", backlog.getmail_messages)


def _timed(command: list[str], maildir: Path, count: int) -> Run:
    cpu_before = os.times()
    begun = time.monotonic()
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=120)
    took = time.monotonic() - begun
    cpu_after = os.times()
    found = sum(1 for name in ("new", "cur") for _ in (maildir / name).iterdir())
    assert found == count, f"{command[0]} brought {found} of {count}"
    cpu = sum(cpu_after[2:4]) - sum(cpu_before[2:4])
    return Run(count, took, cpu=cpu)


def warm(dovecot: Dovecot, user: str) -> None:
    """Let Dovecot find out all sizes, so that nobody's first listing pays for its index."""
    with imaplib.IMAP4("127.0.0.1", dovecot.imap_port) as imap:
        imap.login(user, watched.PASSWORD)
        imap.select("INBOX", readonly=True)
        imap.fetch("1:*", "(RFC822.SIZE INTERNALDATE)")


def apart(directory: Path) -> Path:
    """Return `directory`, made and marked so that ext4 spreads what is made in it over the disk, away from what earlier
    runs have deleted. On other file systems it is just a directory.
    """
    directory.mkdir(mode=0o755)
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError):
        subprocess.run(["chattr", "+T", str(directory)], check=False, stdin=quiet, stdout=quiet, stderr=quiet)
    return directory


def measure(
    dovecot: Dovecot, authority: Authority, backlog: Backlog, rounds: int, scratch: Path
) -> dict[str, list[Run]]:
    runs: dict[str, Callable[[Path], Run]] = {
        "ours": lambda home: ours(dovecot, authority, backlog),
        "mbsync": lambda home: mbsync(dovecot, home, backlog),
    }
    if shutil.which("getmail"):
        runs["getmail6"] = lambda home: getmail(dovecot, home, backlog)
    else:
        print("getmail6 is not installed (apt-get install getmail6)")
    for user in {backlog.user, backlog.getmail_user}:
        warm(dovecot, user)
    found: dict[str, list[Run]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            home = Path(tempfile.mkdtemp(dir=scratch))
            found[name].append(runs[name](home))
    return found


def report(backlog: Backlog, found: dict[str, list[Run]]) -> bool:
    def median(name: str, of: Callable[[Run], float] = lambda run: run.rate) -> float:
        return statistics.median(of(run) for run in found[name])

    our_rate = median("ours")
    print(f"\n{backlog.name:<14} {'messages/s':>10} {'MiB/s':>7} {'ms CPU':>7} {'ours is':>8}   each round")
    for name, runs in found.items():
        rate = median(name)
        cpu = median(name, lambda run: run.cpu / run.messages * 1000)
        ratio = "" if name == "ours" else f"{our_rate / rate:.2f}×"
        rounds = " ".join(f"{run.rate:,.0f}" for run in runs)
        print(f"{name:<14} {rate:>10,.0f} {rate * backlog.size_bytes / 2**20:>7.1f} {cpu:>7.2f} {ratio:>8}   {rounds}")
    started = median("ours", lambda run: run.start_seconds)
    moving = median("ours", lambda run: run.messages / (run.seconds - run.start_seconds))
    print(f"ours was ready after {started:.2f} s; from there on {moving:,.0f} messages/s")
    return our_rate >= median("mbsync") and ("getmail6" not in found or our_rate >= 5 * median("getmail6"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("small", "large"))
    parser.add_argument("--messages", type=int, default=5000, help="of 4 KiB")
    parser.add_argument("--large-messages", type=int, default=200, help="of 1 MiB")
    options = parser.parse_args()
    few = max(50, options.messages // 25)
    backlogs: Sequence[Backlog] = [
        Backlog(f"{options.messages} × 4 KiB", MUCH, options.messages, 4096, LITTLE, few),
        Backlog(
            f"{options.large_messages} × 1 MiB", LARGE, options.large_messages, 2**20, LARGE, options.large_messages
        ),
    ]
    wanted = [backlog for backlog in backlogs if options.only in (None, "small" if backlog.user == MUCH else "large")]
    held = True
    with neighbours_told(), tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        authority = Authority(Path(scratch))
        homes = apart(authority.directory / "homes")
        users = dict.fromkeys((MUCH, LITTLE, LARGE), watched.PASSWORD)
        with provider(authority, users) as dovecot:
            for backlog in wanted:
                dovecot.seed(backlog.user, watched.letters(backlog.messages, backlog.size_bytes, backlog.user))
                if backlog.getmail_user != backlog.user:
                    few_letters = watched.letters(backlog.getmail_messages, backlog.size_bytes, backlog.getmail_user)
                    dovecot.seed(backlog.getmail_user, few_letters)
                held = report(backlog, measure(dovecot, authority, backlog, options.rounds, homes)) and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
