"""Recording what became of attempts: of those that have ended, and of those that a stop has cut short."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from gateway.model import FilingAction, OutboxKind
from gateway.state import copies, doubts, filings, lanes, queues
from gateway.state.lifecycle import SETTLED, Event, State, move
from gateway.state.outbox_accept import remember
from gateway.state.rows import as_values, in_parts

_HOUR_MS: Final = 3_600_000
# The last two conditions make a claim that was overtaken change nothing.
OURS: Final = "outbox = new.column1 AND number = new.column2 AND attempt = new.column3 AND state = new.column4"


@dataclass(frozen=True, slots=True)
class Fated:
    """What became of one recipient. `before`: the state it was claimed or begun in. `next_attempt_at`, `waited`: ms."""

    number: int
    before: State
    event: Event
    reply: str | None
    next_attempt_at: int | None = None
    waited: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A notice to the writer, and which recipients (by number) it is about."""

    notice: queues.Notice
    recipients: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """One attempt, ended. `at`: ms. `counted`: the provider took the message. `lane`: what it did to the lane.

    `copies`: the provider keeps no copy of what it takes, so one is to be put into Sent. `notices`: go to the writer in
    the transaction that records what they tell; what is not recorded, because the claim was overtaken, is not told.
    `answers`: the inbound message that is marked as answered at the
    provider once somebody has our reply.
    """

    id: int
    touchpoint: str
    attempt: int
    kind: OutboxKind
    fated: tuple[Fated, ...]
    at: int
    counted: bool = False
    lane: lanes.Change | None = None
    answers: int | None = None
    copies: bool = False
    notices: tuple[Told, ...] = ()


def record(db: sqlite3.Connection, attempts: Sequence[Done]) -> None:
    rows: list[tuple[object, ...]] = []
    sent: dict[tuple[str, int], int] = defaultdict(int)
    uncertain: list[tuple[int, int, int]] = []
    deferred: set[int] = set()
    for done in attempts:
        for fated in done.fated:
            state = move(fated.before, fated.event)
            assert state is not None, f"{fated.event} cannot follow {fated.before}"
            if state is State.UNCERTAIN and done.kind is not OutboxKind.REPLY:
                state = State.CANCELLED  # an automatic message is not worth a second one, nor a person's time
                assert state is move(State.UNCERTAIN, Event.DROPPED)
            if state is State.UNCERTAIN:
                uncertain.append((done.id, fated.number, done.attempt))
            elif state is State.DEFERRED:
                deferred.add(done.id)
            rows.append(
                (
                    done.id,
                    fated.number,
                    done.attempt,
                    fated.before.value,
                    state.value,
                    fated.next_attempt_at if state is State.DEFERRED else None,
                    fated.waited,
                    fated.reply,
                    done.at if state in SETTLED else None,
                )
            )
        if done.counted:
            sent[done.touchpoint, done.at // _HOUR_MS] += 1
    for part, statement in in_parts(_recording, rows):
        db.execute(statement, part)
    if uncertain:
        doubts.begin(db, uncertain, max(done.at for done in attempts))
    if deferred:
        _keep_held(db, deferred)
    if sent:
        db.executemany(
            "INSERT INTO sent (touchpoint, hour, messages) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET messages = messages + excluded.messages",
            [(*place, count) for place, count in sent.items()],
        )
    accepted = [
        done
        for done in attempts
        if (done.answers is not None or done.copies) and any(fated.event is Event.ACCEPTED for fated in done.fated)
    ]
    if answered := [one for one in accepted if one.answers is not None]:
        filings.add(db, [(one.answers or 0, FilingAction.ANSWERED, one.touchpoint, "", one.at) for one in answered])
    if copied := [(one.id, one.attempt, one.at) for one in accepted if one.copies]:
        copies.owe(db, copied)
    if changes := [done.lane for done in attempts if done.lane is not None]:
        lanes.change(db, changes)
    if notices := [told.notice for done in attempts for told in done.notices if _is_recorded(db, done, told)]:
        queues.put_notice(db, notices)


def _is_recorded(db: sqlite3.Connection, done: Done, told: Told) -> bool:
    """Return whether what is told of one of the recipients has come to be: no claim, and no person, was quicker."""
    rows = db.execute("SELECT number, attempt, state FROM recipient WHERE outbox = ?", (done.id,)).fetchall()
    stands = {(number, attempt, state) for number, attempt, state in rows}
    after = {fated.number: move(fated.before, fated.event) for fated in done.fated}
    return any((number, done.attempt, after.get(number)) in stands for number in told.recipients)


def _keep_held(db: sqlite3.Connection, ids: Collection[int]) -> None:
    """What a person holds while some of it is being sent, and what comes back, has no time either."""
    db.execute(
        "UPDATE recipient SET next_attempt_at = NULL WHERE state = 'deferred' AND outbox IN"
        " (SELECT id FROM outbox WHERE id IN (SELECT value FROM json_each(?)) AND held IS NOT NULL)",
        (json.dumps(list(ids)),),
    )


@cache
def _recording(rows: int) -> str:
    return (
        "UPDATE recipient SET state = new.column5, next_attempt_at = new.column6, waited = new.column7,"
        f" reply = new.column8, settled_at = new.column9 FROM {as_values(9, rows)} WHERE {OURS}"
    )


# --- start -----------------------------------------------------------------------------------------------------------


def recover(db: sqlite3.Connection, starts: Sequence[int]) -> Sequence[int]:
    """Operation, once at start (item: now in ms): what was `sending` when we stopped is uncertain. Return how many.

    What was claimed and not begun needs nothing: it is due at the time that was committed with the claim. What agents
    submitted in the last day is at hand again.
    """
    remember(db)
    return [_recover(db, now, None) for now in starts]


def recover_lane(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> Sequence[int]:
    """Operation: the same for one touchpoint (and now in ms), when its task begins again after a fault of ours."""
    return [_recover(db, now, touchpoint) for touchpoint, now in items]


def _recover(db: sqlite3.Connection, now: int, touchpoint: str | None) -> int:
    where, values = ("", ()) if touchpoint is None else (" AND open.touchpoint = ?", (touchpoint,))
    found = db.execute(  # the index alone tells who was `sending`; all rows that wait would be twice as much to read
        "SELECT open.outbox, open.number, recipient.attempt, kind FROM recipient AS open INDEXED BY recipient_open"
        " CROSS JOIN recipient ON recipient.outbox = open.outbox AND recipient.number = open.number"
        " CROSS JOIN outbox ON outbox.id = open.outbox"
        f" WHERE open.settled_at IS NULL AND open.state = ?{where}",
        (State.SENDING.value, *values),
    ).fetchall()
    uncertain = move(State.SENDING, Event.INTERRUPTED)
    dropped = move(State.UNCERTAIN, Event.DROPPED)
    automatic = [(id, number) for id, number, _, kind in found if kind != OutboxKind.REPLY]
    db.executemany(
        "UPDATE recipient SET state = ?, next_attempt_at = NULL, settled_at = ?, reply = ?"
        " WHERE outbox = ? AND number = ?",
        [(dropped, now, "stopped while it was being sent; automatic mail is not repeated", *key) for key in automatic],
    )
    kept = [(id, number, attempt) for id, number, attempt, kind in found if kind == OutboxKind.REPLY]
    db.executemany(
        "UPDATE recipient SET state = ?, next_attempt_at = NULL, reply = ? WHERE outbox = ? AND number = ?",
        [(uncertain, "stopped while it was being sent; the message may have left", *key[:2]) for key in kept],
    )
    doubts.begin(db, kept, now)
    return len(kept)
