"""The peers of the tests, set up for measuring."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support import postfix
from tests.support.authority import Authority, Pair
from tests.support.dovecot import Dovecot

CUSTOMER = "customer@clients.example"


@contextmanager
def provider(authority: Authority) -> Iterator[Dovecot]:
    dovecot = Dovecot({CUSTOMER: "customer"}, authority.issue("dovecot"))
    dovecot.start()
    try:
        yield dovecot
    finally:
        dovecot.close()


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

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.close()
