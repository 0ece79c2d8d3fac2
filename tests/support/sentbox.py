"""The Sent folder of a provider that files what it accepts, at once or late; what agents' clients file, too."""

from __future__ import annotations

import contextlib
import heapq
import imaplib
import itertools
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass

from tests.support.mailboxes import Mailboxes

_TRACE = re.compile(rb"^Received: by \S+ \(mail-gateway\).*?\r\n(?=\S)", re.M | re.S)


@dataclass(frozen=True)
class Habits:
    """`late`: share of copies that come so many seconds late. `own`: share of messages of which the client
    files a copy of its own as well, which has the Message-ID and no trace of an attempt.
    """

    late: float = 0.0
    at_least: float = 0.2
    at_most: float = 2.0
    own: float = 0.0


class Sentbox:
    """Files copies for one user, in a thread of its own and over one session, until `close`."""

    def __init__(self, server: Mailboxes, user: str, habits: Habits, seed: int) -> None:
        self._server, self._user, self._habits = server, user, habits
        self._dice = random.Random(seed)
        self.did: Counter[str] = Counter()
        self._waiting: list[tuple[float, int, bytes]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closing = self._is_filing = False
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"Sent of {user}", daemon=True)
        self._thread.start()

    def file(self, raw: bytes) -> None:
        """The provider has accepted a message. Does not wait."""
        with self._changed:
            is_late = self._dice.random() < self._habits.late
            delay = self._dice.uniform(self._habits.at_least, self._habits.at_most) if is_late else 0.0
            self._put("late copy" if is_late else "copy", raw, delay)
            if self._dice.random() < self._habits.own:
                self._put("client's own copy", _TRACE.sub(b"", raw), self._dice.uniform(0.0, 1.0))

    def _put(self, what: str, raw: bytes, delay: float) -> None:
        self.did[what] += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._numbers), raw))
        self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        with self._changed:
            return not self._waiting and not self._is_filing

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            with contextlib.suppress(imaplib.IMAP4.abort), self._server.session(self._user) as imap:
                while (raw := self._next()) is not None:
                    status, data = imap.append('"Sent"', "(\\Seen)", "", raw)
                    assert status == "OK", data
                    with self._changed:
                        self._is_filing = False
        except BaseException as error:
            self.fault = error

    def _next(self) -> bytes | None:
        """Wait for the next copy; None at the end."""
        with self._changed:
            while not self._is_closing:
                if self._waiting:
                    if (left := self._waiting[0][0] - time.monotonic()) <= 0:
                        self._is_filing = True
                        return heapq.heappop(self._waiting)[2]
                    self._changed.wait(left)
                else:
                    self._changed.wait()
            return None
