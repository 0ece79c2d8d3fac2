"""Agents whose clients submit through thick and thin, and what they were told: for those who count at the other end."""

from __future__ import annotations

import random
import re
import smtplib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.daemon import Daemon
from tests.support.moody import digest

PASSWORD: Final = "secret"
_QUEUED: Final = re.compile(rb"queued as ([0-9a-z]+)")
_A_WHILE: Final = 0.03  # seconds before a client comes again


@dataclass
class Submission:
    """One message of one agent. `loses`: how often its client goes away behind the dot without waiting for the answer,
    and comes again. `insists`: it comes again until it has a 250; else only when no answer can have been lost.

    `ids`: queue ids that came with a 250. `sent`: how often all of it, dot included, was written. `replies`: noes.
    """

    number: int
    agent: str
    touchpoint: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    loses: int = 0
    insists: bool = True
    ids: list[str] = field(default_factory=list)
    sent: int = 0
    replies: list[str] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        return f"<{self.number}@writers.example>"

    @property
    def body(self) -> str:
        return digest(self.raw)


def compose(number: int, sender: str, recipients: Sequence[str], body: str) -> bytes:
    text = "\r\n".join(("." * (len(line) % 3)) + line for line in (f"This is number {number}.", body, "", "Bye"))
    return (
        f"From: Team <{sender}>\r\nTo: {', '.join(recipients)}\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@writers.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n"
    ).encode()


class _Lost(Exception):
    """The answer to the dot was not heard."""


class Writers:
    """Threads that take submissions from one list, in their order, through crashes and restarts of the daemon."""

    def __init__(self, daemon: Daemon, submissions: Sequence[Submission], threads: int, seed: int = 1) -> None:
        self._daemon = daemon
        self._waiting = list(reversed(submissions))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.limit = len(submissions)  # so many may be done by now
        self.done = 0
        self.faults: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 100 + number),), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def are_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._stop.set()
        self.join(60)

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self.faults:
            raise self.faults[0]

    def _run(self, dice: random.Random) -> None:
        try:
            session: smtplib.SMTP | None = None
            agent = ""
            left = 0
            while not self._stop.is_set():
                with self._lock:
                    if not self._waiting:
                        break
                    submission = self._waiting.pop() if self.done < self.limit else None
                if submission is None:
                    self._stop.wait(_A_WHILE)
                    continue
                while not self._stop.is_set():
                    if session is not None and (submission.agent != agent or left == 0):
                        _quit(session)
                        session = None
                    try:
                        if session is None:
                            session, agent = self._daemon.submit(submission.agent, PASSWORD), submission.agent
                            session.ehlo_or_helo_if_needed()
                            left = dice.randrange(1, 12)
                        left -= 1
                        if _submit(session, submission):
                            break
                    except _Lost:
                        _drop(session)
                        session = None
                        if not submission.insists:
                            break
                    except (OSError, smtplib.SMTPException) as error:
                        if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code // 100 == 5:
                            submission.replies.append(str(error))
                        _drop(session)
                        session = None
                        self._stop.wait(_A_WHILE)
                with self._lock:
                    self.done += 1
            if session is not None:
                _quit(session)
        except BaseException as error:
            self.faults.append(error)


def _submit(session: smtplib.SMTP, submission: Submission) -> bool:
    """Submit once; return whether that was the end of it. Raises _Lost, OSError, SMTPException."""
    commands = [f"MAIL FROM:<{submission.sender}>", *(f"RCPT TO:<{one}>" for one in submission.recipients)]
    for command in commands:
        code, text = session.docmd(command)
        if code // 100 != 2:
            return _refused(session, submission, code, text)
    code, text = session.docmd("DATA")
    if code != 354:
        return _refused(session, submission, code, text)
    content = re.sub(rb"(?m)^\.", b"..", submission.raw) + b".\r\n"
    session.send(content)
    submission.sent += 1
    if submission.loses:
        submission.loses -= 1
        raise _Lost
    try:
        code, text = session.getreply()
    except (OSError, smtplib.SMTPException):
        raise _Lost from None
    if code != 250:
        return _refused(session, submission, code, text)
    found = _QUEUED.search(text)
    assert found is not None, text
    submission.ids.append(found[1].decode())
    return True


def _refused(session: smtplib.SMTP, submission: Submission, code: int, text: bytes) -> bool:
    submission.replies.append(f"{code} {text.decode(errors='replace')}")
    if code // 100 == 5:
        session.rset()
        return True
    raise smtplib.SMTPServerDisconnected(f"{code} {text!r}")


def _drop(session: smtplib.SMTP | None) -> None:
    if session is not None:
        session.close()


def _quit(session: smtplib.SMTP) -> None:
    try:
        session.quit()
    except (OSError, smtplib.SMTPException):
        session.close()
