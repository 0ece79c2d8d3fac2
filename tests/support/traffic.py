"""Agents that send and customers that write while a test does something unkind, and what they were promised."""

from __future__ import annotations

import contextlib
import smtplib
import threading
import time
from collections.abc import Callable, Iterator

from tests.support.daemon import Daemon
from tests.support.letters import letter


class Senders:
    """Threads that submit numbered letters as fast as they are accepted, through crashes and restarts.

    `promised`: Message-ID → queue id, for each that got its 250. `unanswered`: cut before an answer came. `sessions`:
    how many it took. `pause`: seconds between two letters of a thread.
    """

    def __init__(
        self,
        daemon: Daemon,
        login: str,
        password: str,
        address: str,
        recipient: str,
        threads: int,
        pause: float = 0.0,
    ) -> None:
        self.sessions = 0
        self._daemon = daemon
        self._pause = pause
        self._login, self._password = login, password
        self._address, self._recipient = address, recipient
        self.promised: dict[str, str] = {}
        self.unanswered: set[str] = set()
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(threads)]

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(30)

    def _send(self, thread: int) -> None:
        number = thread * 1_000_000
        while not self._stop.is_set():
            with contextlib.suppress(OSError), self._daemon.submit(self._login, self._password) as session:
                self.sessions += 1
                while not self._stop.wait(self._pause):
                    number += 1
                    self._send_one(session, number)
            time.sleep(0.02)

    def _send_one(self, session: smtplib.SMTP, number: int) -> None:
        raw = letter(number, "out", sender=self._address, to=self._recipient)
        id = f"<out.{number}@clients.example>"
        session.ehlo_or_helo_if_needed()
        for code, answer in (session.mail(self._address), session.rcpt(self._recipient)):
            if code != 250:
                self.refused.append(f"{code} {answer!r}")
                session.rset()
                return
        self.unanswered.add(id)
        code, answer = session.data(raw)
        self.unanswered.discard(id)
        if code == 250:
            self.promised[id] = answer.rsplit(b" ", 1)[1].decode()
        else:
            self.refused.append(f"{code} {answer!r}")


@contextlib.contextmanager
def customers_write(deliver: Callable[[bytes], None], sent: list[str], pause: float = 0.02) -> Iterator[None]:
    """Deliver numbered letters, one after the other, while the body runs; their Message-IDs go into `sent`."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(pause):
            number = len(sent)
            deliver(letter(number, "in"))
            sent.append(f"<in.{number}@clients.example>")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
