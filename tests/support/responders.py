"""What answers mail by itself out there, well-behaved and not: each is a mail server of its own that takes everything
and answers through the common one.
"""

from __future__ import annotations

import contextlib
import smtplib
import threading
import time
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from itertools import count
from typing import Final

from tests.support.loops import is_automatic
from tests.support.scripted import ScriptedProvider, Taken

_MOST: Final = 2000  # a loop that nobody stops is to end some time

Answer = tuple[str, str, bytes]
"""Return path, recipient, message."""

Habit = Callable[[Taken, int], Answer | None]
"""What is said to a message, if anything; the number counts this responder's answers."""


class Responder:
    """`habit` decides; answers leave through `smtp_port` one after the other. `given`: how many."""

    def __init__(self, habit: Habit, smtp_port: int) -> None:
        self.server = ScriptedProvider()
        self.given = 0
        self.troubles: list[str] = []
        self._habit = habit
        self._smtp_port = smtp_port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.server.close()

    def _run(self) -> None:
        seen = 0
        while not self._stop.wait(0.02):
            for taken in self.server.taken[seen:]:
                seen += 1
                answer = self._habit(taken, self.given + 1) if self.given < _MOST else None
                if answer is not None:
                    self.given += 1
                    self._send(*answer)

    def _send(self, return_path: str, recipient: str, raw: bytes) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", self._smtp_port, timeout=30) as session:
                session.sendmail(return_path, [recipient], raw)
        except (OSError, smtplib.SMTPException) as error:
            if not self._stop.is_set():
                self.troubles.append(f"{return_path} to {recipient}: {error}")


def out_of_office(every: float, clock: Callable[[], float] = time.monotonic) -> Habit:
    """Exchange's: to the author, with a null return path; not to whoever has suppressed it or had one in this time."""
    told: dict[str, float] = {}

    def habit(taken: Taken, number: int) -> Answer | None:
        asked = message_from_bytes(taken.raw)
        author = parseaddr(asked["From"])[1]
        suppressed = {word.strip().lower() for word in str(asked["X-Auto-Response-Suppress"] or "").split(",")}
        if suppressed & {"all", "oof"} or not taken.return_path or clock() - told.get(author, -every) < every:
            return None
        told[author] = clock()
        answer = _written(taken, author, f"Automatic reply: {asked['Subject']}", number)
        answer["Auto-Submitted"] = "auto-generated"
        answer["X-Auto-Response-Suppress"] = "All"
        answer["X-MS-Exchange-Inbox-Rules-Loop"] = taken.recipients[0]
        answer["X-MS-Has-Attach"] = ""
        _continue(answer, asked["Message-ID"])
        return "", author, bytes(answer)

    return habit


def naive(taken: Taken, number: int) -> Answer | None:
    """Answers everything like a person, also what is marked; at least it says what it answers."""
    asked = message_from_bytes(taken.raw)
    author = parseaddr(asked["From"])[1]
    answer = _written(taken, author, f"Re: {asked['Subject']}", number)
    _continue(answer, asked["Message-ID"])
    return taken.recipients[0], author, bytes(answer)


def shifting(taken: Taken, number: int) -> Answer | None:
    """Answers everything like a person who writes for the first time, each time from another address."""
    author = parseaddr(message_from_bytes(taken.raw)["From"])[1]
    answer = _written(taken, author, f"Question {number}", number)
    changed = f"new{number}.{taken.recipients[0]}"
    answer.replace_header("From", changed)
    return changed, author, bytes(answer)


def echo(taken: Taken, number: int) -> Answer | None:
    """Sends back what came, automatic answers only, from a new address, and takes out what all the world knows as a
    mark of machines."""
    asked = message_from_bytes(taken.raw)
    if not is_automatic(asked):
        return None
    author, changed = parseaddr(asked["From"])[1], f"echo{number}.{taken.recipients[0]}"
    for name in ("Auto-Submitted", "X-Auto-Response-Suppress", "In-Reply-To", "References", "Return-Path", "Received"):
        del asked[name]
    for name, value in (("From", changed), ("To", author), ("Message-ID", _message_id(changed, number))):
        asked.replace_header(name, value)
    return changed, author, bytes(asked)


_serial = count(1)


def _message_id(address: str, number: int) -> str:
    return f"<{next(_serial)}.{number}.{time.monotonic_ns()}@{address.partition('@')[2]}>"


def _written(taken: Taken, recipient: str, subject: str, number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = taken.recipients[0]
    message["To"] = recipient
    message["Subject"] = " ".join(subject.split())
    message["Date"] = formatdate()
    message["Message-ID"] = _message_id(taken.recipients[0], number)
    message.set_content(f"This is answer {number}.\n")
    return message


def _continue(answer: EmailMessage, message_id: str | None) -> None:
    with contextlib.suppress(ValueError):
        if message_id:
            answer["In-Reply-To"] = answer["References"] = message_id
