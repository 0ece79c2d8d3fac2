"""Claiming outbound mail: what is due is taken for one attempt, counted before anything is dialled.

What a claim costs does not depend on how much lies in the store: one index holds what is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from gateway.model import NO_WISH, Notify, OutboxKind, Wish
from gateway.state import lanes
from gateway.state.lifecycle import WAITING, Event, State, move
from gateway.state.raw import CHUNK_BYTES, chunk_key
from gateway.state.rows import as_values, in_parts

_HOUR_MS: Final = 3_600_000
# The hour that runs and the 24 before it: what is handed over late in one hour is still within a day of what is handed
# over early in the same hour of the next
_DAY_HOURS: Final = 25
TOO_LATE: Final = "it waited for too long; automatic mail is not sent late"
_WAITING: Final = ", ".join(f"'{state.value}'" for state in sorted(WAITING))


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a claim. `attempts`: tries of this recipient, this one counted. `waited`: ms on the clock.

    `wish`: what the sender wants to hear of this recipient (RFC 3461).
    """

    number: int
    address: str
    attempts: int
    waited: int
    before: State
    wish: Wish = NO_WISH


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message to be tried now. `attempt` numbers the tries of the message, from 1; it is in the trace field.

    `begun`: the recipients are `sending` already. `answers`: the inbound message that it replies to. `raw` is None for
    a message of more than one chunk: read those one by one (`read_chunk`). `more`: others were due too. `probing`: the
    lane is not open, for this cause; this message finds out whether it can be. `envid`, `ret`: RFC 3461, "" where the
    client did not say. Times are ms.
    """

    id: int
    touchpoint: str
    attempt: int
    recipients: tuple[Recipient, ...]
    begun: bool
    agent: str
    kind: OutboxKind
    return_path: str
    eight_bit: bool
    smtputf8: bool
    message_id: str
    subject: str
    size: int
    accepted_at: int
    conversation: int | None
    answers: int | None
    more: bool
    probing: str | None
    raw: bytes | None = field(repr=False)
    envid: str = ""
    ret: str = ""


@dataclass(frozen=True, slots=True)
class Want:
    """Ask for the next message of a touchpoint. `now`: ms.

    `backoffs`: ms by number of the attempt: when the recipients are due again if we are never heard of. `begin`: a
    lone recipient becomes `sending` in the same commit; for a connection that is up and can have DATA on its way within
    a round trip. Several do not, for the provider may take only some of them: after a crash the copy in its Sent folder
    proves that the attempt left, and only those that it took may be in doubt then.
    `per_day`: messages that may be handed over in 24 hours; `under_way`: those that others try now, which may be handed
    over as well. `probe_again`: ms until a lane that is not open may be tried again, if we are never heard of.
    `recipients`: most of one transaction; 100 is what every server must take (RFC 5321 §4.5.3.1.8).
    """

    touchpoint: str
    now: int
    backoffs: tuple[int, ...]
    begin: bool = False
    per_day: int | None = None
    probe_again: int = 5 * 60_000
    recipients: int = 100
    under_way: int = 0


def claim(db: sqlite3.Connection, want: Want, count: int) -> Iterator[Claimed]:
    """Claim up to `count` due messages of one touchpoint, the longest due first, each with all its due recipients."""
    lane = lanes.look(db, [want.touchpoint])[want.touchpoint]
    if not lane.is_open:
        if not lane.may_probe(want.now):
            return
        # One message is risked on a lane that is not open; the next try is committed before this one dials.
        count = 1
        lanes.write(db, [lane.put_off(want.now + want.probe_again)])
    if want.per_day is not None:
        count = min(count, want.per_day - _sent_in_a_day(db, want.touchpoint, want.now) - want.under_way)
    while True:
        ids, more = _due(db, want, count)
        if not ids:
            return
        marks = ", ".join("?" * len(ids))
        messages = {
            row[0]: row
            for row in db.execute(
                "SELECT id, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size, accepted_at,"
                f" conversation, answers, envid, ret, drop_at FROM outbox WHERE id IN ({marks})",
                ids,
            )
        }
        late = [id for id, row in messages.items() if row[-1] is not None and row[-1] <= want.now]
        if not late:
            break
        _drop(db, late, want.now)
    due: dict[int, list[Recipient]] = {id: [] for id in ids}
    tries: dict[int, int] = dict.fromkeys(ids, 0)
    for id, number, address, state, attempts, attempt, waited, next_at, notify, orcpt in db.execute(
        "SELECT outbox, number, address, state, attempts, attempt, waited, next_attempt_at, notify, orcpt"
        f" FROM recipient WHERE outbox IN ({marks})",
        ids,
    ):
        tries[id] = max(tries[id], attempt)
        if state in WAITING and next_at is not None and next_at <= want.now and len(due[id]) < want.recipients:
            wish = NO_WISH
            if notify is not None or orcpt is not None:
                wish = Wish(None if notify is None else Notify(notify), orcpt or "")
            due[id].append(Recipient(number, address, attempts + 1, waited, State(state), wish))
    begun = {id for id, recipients in due.items() if want.begin and len(recipients) == 1}
    rows = [
        (
            id,
            recipient.number,
            tries[id] + 1,
            State.SENDING.value if id in begun else recipient.before.value,
            recipient.attempts,
            want.now + want.backoffs[min(recipient.attempts, len(want.backoffs)) - 1],
            want.now,
        )
        for id, recipients in due.items()
        for recipient in recipients
    ]
    for part, statement in in_parts(_claiming, rows):
        db.execute(statement, part)
    small = [chunk_key(id, 0) for id in ids if messages[id][8] <= CHUNK_BYTES]
    bytes_of = dict(db.execute(f"SELECT id, bytes FROM chunk WHERE id IN ({', '.join('?' * len(small))})", small))
    for id in ids:
        _, agent, kind, path, eight_bit, utf8, message_id, subject, size, at, talk, answers, envid, ret, _ = messages[
            id
        ]
        yield Claimed(
            id,
            want.touchpoint,
            tries[id] + 1,
            tuple(due[id]),
            id in begun,
            agent,
            OutboxKind(kind),
            path,
            bool(eight_bit),
            bool(utf8),
            message_id,
            subject,
            size,
            at,
            talk,
            answers,
            more and lane.is_open,
            None if lane.is_open else lane.cause or "",
            bytes_of.get(chunk_key(id, 0)),
            envid or "",
            ret or "",
        )


def _due(db: sqlite3.Connection, want: Want, count: int) -> tuple[list[int], bool]:
    """Return the ids of up to `count` due messages, and whether there were more."""
    ids: dict[int, None] = {}
    if count <= 0:
        return [], False
    rows = db.execute(
        "SELECT outbox FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL AND touchpoint = ?"
        f" AND next_attempt_at <= ? AND state IN ({_WAITING}) ORDER BY next_attempt_at",
        (want.touchpoint, want.now),
    )
    for (id,) in rows:
        if id not in ids and len(ids) == count:
            rows.close()  # an open cursor would keep the statement from being used again
            return list(ids), True
        ids[id] = None
    return list(ids), False


def _drop(db: sqlite3.Connection, ids: Sequence[int], now: int) -> None:
    """Take back what is not worth sending any more: an answer that comes days late helps nobody."""
    ends = {move(state, Event.CANCELLED) for state in WAITING}
    assert ends == {State.CANCELLED}
    db.execute(
        "UPDATE recipient SET state = ?, settled_at = ?, next_attempt_at = NULL, reply = ?"
        f" WHERE state IN ({_WAITING}) AND outbox IN ({', '.join('?' * len(ids))})",
        (State.CANCELLED.value, now, TOO_LATE, *ids),
    )


def _sent_in_a_day(db: sqlite3.Connection, touchpoint: str, now: int) -> int:
    (count,) = db.execute(
        "SELECT coalesce(sum(messages), 0) FROM sent WHERE touchpoint = ? AND hour > ?",
        (touchpoint, now // _HOUR_MS - _DAY_HOURS),
    ).fetchone()
    return int(count)


# --- what the dispatcher asks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a touchpoint's dispatcher sleeps by. `due_at` (ms): None when nothing waits. `uncertain`: recipients."""

    lane: lanes.Lane
    due_at: int | None
    uncertain: int
    quota_free_at: int | None = None  # ms; set while the day's quota is used up


def outlook(db: sqlite3.Connection, touchpoint: str, now: int, per_day: int | None) -> Outlook:
    """Return when this touchpoint has something to do next."""
    open_ = "FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL AND touchpoint = ?"
    (due_at,) = db.execute(
        f"SELECT min(next_attempt_at) {open_} AND next_attempt_at > 0 AND state IN ({_WAITING})", (touchpoint,)
    ).fetchone()
    (uncertain,) = db.execute(
        f"SELECT count(*) {open_} AND next_attempt_at IS NULL AND state = ?", (touchpoint, State.UNCERTAIN.value)
    ).fetchone()
    free_at = None
    if per_day is not None and _sent_in_a_day(db, touchpoint, now) >= per_day:
        (oldest,) = db.execute(
            "SELECT min(hour) FROM sent WHERE touchpoint = ? AND hour > ?", (touchpoint, now // _HOUR_MS - _DAY_HOURS)
        ).fetchone()
        free_at = ((oldest if oldest is not None else now // _HOUR_MS) + _DAY_HOURS) * _HOUR_MS
    return Outlook(lanes.look(db, [touchpoint])[touchpoint], due_at, uncertain, free_at)


@cache
def _claiming(rows: int) -> str:
    return (
        "UPDATE recipient SET attempt = new.column3, state = new.column4, attempts = new.column5,"
        f" next_attempt_at = new.column6, tried_at = new.column7 FROM {as_values(7, rows)}"
        " WHERE outbox = new.column1 AND number = new.column2"
    )
