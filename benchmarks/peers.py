"""The peers of the tests, set up for measuring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support import postfix
from tests.support.authority import Authority, Pair
from tests.support.dovecot import Dovecot

CUSTOMER = "customer@clients.example"


class MailServer(Protocol):
    """Where mail is delivered by LMTP and watched by IMAP, on loopback."""

    @property
    def imap_port(self) -> int: ...
    @property
    def imaps_port(self) -> int: ...
    @property
    def lmtp_port(self) -> int: ...


@contextmanager
def provider(authority: Authority, users: Mapping[str, str] | None = None) -> Iterator[Dovecot]:
    dovecot = Dovecot(users or {CUSTOMER: "customer"}, authority.issue("dovecot"))
    dovecot.start()
    try:
        yield dovecot
    finally:
        dovecot.close()


@dataclass(frozen=True)
class InstantServer:
    """`benchmarks.imapserver`: says EXISTS at once, lets every login in."""

    imap_port: int
    imaps_port: int
    lmtp_port: int
    pid: int


@contextmanager
def instant_provider(authority: Authority) -> Iterator[InstantServer]:
    pair = authority.issue("instant")
    with child("benchmarks.imapserver", str(pair.certificate), str(pair.private_key)) as (process, first):
        imap, imaps, lmtp = map(int, first.split())
        yield InstantServer(imap, imaps, lmtp, process.pid)


@contextmanager
def child(module: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a module of ours beside us; yield it and the first line that it prints. It is killed at the end."""
    command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise RuntimeError(f"{module} ended with {process.wait()}")
        yield process, first
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Postfix(postfix.Postfix):
    """A Postfix with some parameters of main.cf replaced."""

    def __init__(self, dovecot: Dovecot, pair: Pair, settings: Mapping[str, str]) -> None:
        super().__init__(dovecot, pair)
        self.configure(settings)

    def configure(self, settings: Mapping[str, str]) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        self._run("postconf", "-c", str(self._config), "-e", *words)

    def add_service(self, line: str) -> None:
        """Add a line to master.cf."""
        with (self._config / "master.cf").open("a") as file:
            file.write(f"{line}\n")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Postfix's commands against this instance: `command("postsuper", "-H", "ALL")`."""
        line = [*self._as_root, words[0], "-c", str(self._config), *words[1:]]
        return subprocess.run(line, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def queue(self) -> Path:
        return self._home / "queue"

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.close()
