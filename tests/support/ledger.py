"""What must be true at the end: which messages were made, which are still there, and which the gateway has."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.daemon import Daemon
from tests.support.mailboxes import Mailboxes

_SUBJECT = re.compile(rb"^subject:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def subject_of(raw: bytes) -> str:
    """Return the subject: in these tests it is the message's name, and only twins share one."""
    found = _SUBJECT.search(raw)
    return found[1].decode().strip() if found else ""


class Ledger:
    """How many of each message were ever made, by subject. A number that is not sure is an upper bound."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, subjects: Iterable[str]) -> None:
        with self._lock:
            self.made.update(subjects)


@dataclass(frozen=True)
class Taken:
    """A message as the stopped gateway's store has it. `queues`: where its conversation lies."""

    id: int
    subject: str
    state: str
    quarantine: int
    placeholder: str | None
    origin: str
    conversation: str | None  # its state
    queues: int

    @property
    def is_in_a_queue(self) -> bool:
        return self.queues > 0 and self.conversation not in (None, "quarantined") and not self.quarantine


def taken(daemon: Daemon, touchpoint: str) -> list[Taken]:
    """Return what a stopped daemon has taken in for a touchpoint, oldest first."""
    database = daemon.database()
    try:
        rows = database.execute(
            "SELECT message.id, message.subject, message.state, message.quarantine, message.placeholder,"
            " message.origin, conversation.state,"
            " (SELECT count(*) FROM entry WHERE entry.conversation = message.conversation)"
            " FROM message LEFT JOIN conversation ON conversation.id = message.conversation"
            " WHERE message.touchpoint = ? ORDER BY message.id",
            (touchpoint,),
        ).fetchall()
    finally:
        database.close()
    return [Taken(*row) for row in rows]


def lying_in(server: Mailboxes, user: str, folder: str) -> Counter[str]:
    """Return how many of each message lie in a folder now."""
    with server.session(user, folder) as imap:
        items = imap.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    return Counter(subject_of(item[1]) for item in items if isinstance(item, tuple))


@dataclass
class Balance:
    """The comparison of what lies at the provider with what the gateway has. `wrong`: in words, empty when all is well.

    `exactly`: messages that were taken as often as they stayed; `gone`: those of the rest that were deleted or moved
    away by somebody else, and may or may not have been seen.
    """

    stayed: int = 0
    exactly: int = 0
    twins: int = 0
    junk: int = 0
    gone: int = 0
    gone_and_taken: int = 0
    rows: int = 0
    wrong: list[str] = field(default_factory=list)

    def __add__(self, other: Balance) -> Balance:
        return Balance(
            *(getattr(self, name) + getattr(other, name) for name in ("stayed", "exactly", "twins", "junk")),
            *(getattr(self, name) + getattr(other, name) for name in ("gone", "gone_and_taken", "rows", "wrong")),
        )

    def __str__(self) -> str:
        return (
            f"{self.stayed} stayed ({self.twins} of them twins, {self.junk} in Junk), {self.exactly} taken exactly "
            f"once each; {self.gone} gone, {self.gone_and_taken} of them taken before; {self.rows} rows, "
            f"{len(self.wrong)} wrong"
        )


def balance(
    rows: Sequence[Taken],
    made: Counter[str],
    queued: Counter[str],
    junk: Counter[str],
    elsewhere: Counter[str],
) -> Balance:
    """Compare. `queued`, `junk`, `elsewhere`: what lies now in watched folders, in Junk, and where nobody watches."""
    found = Balance(rows=len(rows))
    by_subject: dict[str, list[Taken]] = {}
    for row in rows:
        by_subject.setdefault(row.subject or "", []).append(row)
    for subject, count in made.items():
        here = by_subject.pop(subject, [])
        low = queued[subject] + junk[subject]
        found.stayed += low
        found.junk += junk[subject]
        found.twins += low if low > 1 else 0
        found.gone += count - low
        found.gone_and_taken += max(0, len(here) - low)
        if not low <= len(here) <= count:
            found.wrong.append(
                f"{subject!r}: made {count}, in queues {queued[subject]}, in Junk {junk[subject]}, "
                f"elsewhere {elsewhere[subject]}, taken {len(here)}"
            )
            continue
        found.exactly += low
        unrouted = [row.id for row in here if row.state != "routed"]
        if unrouted:
            found.wrong.append(f"{subject!r}: arrived and never routed: {unrouted}")
        in_queue = sum(row.is_in_a_queue for row in here)
        if in_queue < queued[subject]:
            found.wrong.append(f"{subject!r}: {queued[subject]} lie in watched folders, {in_queue} in a queue")
        elif in_queue + sum(bool(row.quarantine) for row in here) < low:
            found.wrong.append(f"{subject!r}: neither in a queue nor in quarantine: {here}")
    found.wrong += [f"{subject!r}: nobody has made it, taken {len(rows)}" for subject, rows in by_subject.items()]
    return found
