"""Recipients whose fate is in doubt, and how it is decided: by evidence in the provider's Sent folder, or by a person.

`uncertain`: the final dot of one attempt may have gone out. `restored`: the store is an old copy, and the message may
have been sent since. A doubt is a row beside the recipient; whatever decides it takes the row away, so that evidence
which comes late finds nothing to decide.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.model import FilingAction
from gateway.state import filings
from gateway.state.lifecycle import SETTLED, WAITING, Event, State, move

FIRST_LOOK_MS: Final = 60_000  # a provider needs a moment to file its copy
_WAITING: Final = ", ".join(f"'{state.value}'" for state in sorted(WAITING))


class Why(StrEnum):
    UNCERTAIN = "uncertain"
    RESTORED = "restored"


class Held(StrEnum):
    """Why a message is not tried, although its lane is open."""

    PERSON = "person"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Doubt:
    """`attempt`: the try in doubt; where `why` is restored, every later one is. `tried_at` (ms): when it was claimed.

    `looks`: how often nothing was seen where it would have to be; `absent_at` (ms): when for the first time.
    `recipients_of_message`: how many the message has; a copy says nothing about which of them it went to.
    """

    outbox: int
    number: int
    why: Why
    attempt: int
    tried_at: int
    looks: int
    absent_at: int | None
    message_id: str
    recipients_of_message: int
    address: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence says about a doubt: that very attempt has left (`sent`), or it has not. `now`: ms."""

    outbox: int
    number: int
    attempt: int
    sent: bool
    now: int


def due(db: sqlite3.Connection, touchpoint: str, now: int, limit: int = 500) -> list[Doubt]:
    """Return the doubts of a touchpoint that are to be looked into, the longest due first."""
    rows = db.execute(
        "SELECT doubt.outbox, doubt.number, why, doubt.attempt, doubt.tried_at, looks, absent_at, message_id,"
        " (SELECT count(*) FROM recipient AS other WHERE other.outbox = doubt.outbox), address"
        " FROM doubt INDEXED BY doubt_due JOIN recipient USING (outbox, number) JOIN outbox ON outbox.id = doubt.outbox"
        " WHERE doubt.touchpoint = ? AND next_at <= ? ORDER BY next_at LIMIT ?",
        (touchpoint, now, limit),
    )
    return [Doubt(id, number, Why(why), *rest) for id, number, why, *rest in rows]


def next_due(db: sqlite3.Connection, touchpoint: str) -> int | None:
    """Return when the next look is due (ms), None where nothing is in doubt."""
    (at,) = db.execute("SELECT min(next_at) FROM doubt WHERE touchpoint = ?", (touchpoint,)).fetchone()
    return None if at is None else int(at)


def settle(db: sqlite3.Connection, findings: Sequence[Finding]) -> Sequence[bool]:
    """Operation: decide doubts by evidence. True where it did; False where the doubt was gone, or about another
    attempt. Sent is delivered; absent is due now.
    """
    return [_settle(db, finding) for finding in findings]


def _settle(db: sqlite3.Connection, finding: Finding) -> bool:
    row = db.execute(
        "SELECT state FROM doubt JOIN recipient USING (outbox, number)"
        " WHERE outbox = ? AND number = ? AND doubt.attempt = ?",
        (finding.outbox, finding.number, finding.attempt),
    ).fetchone()
    if row is None:
        return False
    said = "found in the provider's Sent folder" if finding.sent else "not in the provider's Sent folder: sent again"
    decide(db, finding.outbox, [(finding.number, State(row[0]))], finding.sent, finding.now, said)
    return True


def put_off(db: sqlite3.Connection, looks: Sequence[tuple[int, int, bool, int, int]]) -> Sequence[None]:
    """Operation: count a look and say when the next is. Item: outbox, number, whether the copy was absent although it
    would have to be there, now and the time of the next look (ms). A doubt that is not due was not looked into: it
    has taken the place of the one that was.
    """
    db.executemany(
        "UPDATE doubt SET looks = looks + ?, absent_at = CASE WHEN ? THEN coalesce(absent_at, ?) ELSE absent_at END,"
        " next_at = ? WHERE outbox = ? AND number = ? AND next_at <= ?",
        [(absent, absent, now, next_at, id, number, now) for id, number, absent, now, next_at in looks],
    )
    return [None] * len(looks)


# --- for use inside other operations ---------------------------------------------------------------------------------


def begin(db: sqlite3.Connection, keys: Iterable[tuple[int, int, int]], now: int) -> None:
    """Begin to doubt what has become uncertain: message, recipient and the attempt that was cut. `now`: ms."""
    db.executemany(
        "INSERT OR IGNORE INTO doubt (outbox, number, touchpoint, why, attempt, tried_at, looks, next_at)"
        " SELECT outbox, number, touchpoint, 'uncertain', attempt, coalesce(tried_at, ?), 0, ? FROM recipient"
        " WHERE outbox = ? AND number = ? AND attempt = ? AND state = 'uncertain'",
        [(now, now + FIRST_LOOK_MS, *key) for key in keys],
    )


def decide(
    db: sqlite3.Connection, id: int, recipients: Sequence[tuple[int, State]], sent: bool, now: int, said: str
) -> None:
    """Decide the doubts about these recipients (number and state) of a message; `said` tells who did, and how.

    What is to be sent again is due now, unless the message is held. A message that is held since the store was
    restored is let go with the last of its doubts.
    """
    event = Event.FOUND_SENT if sent else Event.FOUND_ABSENT
    touchpoint, answers, held = db.execute(
        "SELECT touchpoint, answers, held FROM outbox WHERE id = ?", (id,)
    ).fetchone()
    for number, before in recipients:
        state = move(before, event)
        assert state is not None, f"{event} cannot follow {before}"
        is_settled, is_told = state in SETTLED, state is not before
        db.execute(
            "UPDATE recipient SET state = ?, settled_at = ?, next_attempt_at = ?, reply = CASE WHEN ? THEN ? ELSE reply"
            " END WHERE outbox = ? AND number = ?",
            (state.value, now if is_settled else None, None if is_settled or held else now, is_told, said, id, number),
        )
    forget(db, [(id, number) for number, _ in recipients])
    if sent and answers is not None:
        filings.add(db, [(answers, FilingAction.ANSWERED, touchpoint, "", now)])
    if held == Held.RESTORED:
        let_go(db, id, now)


def forget(db: sqlite3.Connection, keys: Iterable[tuple[int, int]]) -> None:
    """Take the doubts about these recipients (message and number) away."""
    db.executemany("DELETE FROM doubt WHERE outbox = ? AND number = ?", keys)


def let_go(db: sqlite3.Connection, id: int, now: int) -> None:
    """Let a message that was held since the store was restored go, once nobody doubts any more whether it has left."""
    freed = db.execute(
        "UPDATE outbox SET held = NULL WHERE id = ? AND held = 'restored'"
        " AND NOT EXISTS (SELECT 1 FROM doubt WHERE doubt.outbox = outbox.id AND why = 'restored')",
        (id,),
    ).rowcount
    if freed:
        make_due(db, id, now)


def make_due(db: sqlite3.Connection, id: int, now: int) -> int:
    """Let all recipients of a message that wait be tried now; return how many."""
    return db.execute(
        f"UPDATE recipient SET next_attempt_at = ? WHERE outbox = ? AND state IN ({_WAITING})", (now, id)
    ).rowcount
