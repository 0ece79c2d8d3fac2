"""Outbound mail: accept, claim, begin data, record, recover, retry; each is one transaction.

A *step* is what one provider connection asks between two messages: record what became of the last one, and claim the
next. Both are one unit of work, so a connection waits for one commit a message, and the steps of all connections
share it. What a step costs does not depend on how much lies in the store: one index holds what is open.

Claims are told apart by the number of the attempt. Whatever changes a recipient later names that number, so a claim
that was overtaken (a person pressed retry while we were still dialling) finds nothing left to begin and sends nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Final

from gateway.model import FilingAction, OutboxKind, Submission, to_ms
from gateway.rules.conversation import thread_key
from gateway.state import filings, lanes, queues, raw
from gateway.state.lifecycle import SETTLED, WAITING, Event, State, move
from gateway.state.outbox_view import Stopped as Stopped
from gateway.state.outbox_view import count_open as count_open  # one name for callers: what is in the outbox
from gateway.state.outbox_view import list_outbox as list_outbox
from gateway.state.outbox_view import show_outbox as show_outbox
from gateway.state.raw import CHUNK_BYTES, Chunk, chunk_key
from gateway.state.rows import insert_many

MAX_RECIPIENTS: Final = 100  # of one transaction: what every server must take (RFC 5321 §4.5.3.1.8)
_HOUR_MS: Final = 3_600_000
_DAY_HOURS: Final = 24

_OUTBOX: Final = (
    "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
    " accepted_at, conversation, answers)"
)
_RECIPIENT: Final = (
    "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, next_attempt_at)"
)


# --- accept ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepting:
    """A submission with its last chunk (`raw.stage` has written the others)."""

    submission: Submission
    chunks: tuple[Chunk, ...]


def accept(db: sqlite3.Connection, items: Sequence[Accepting]) -> Sequence[None]:
    """Operation: take responsibility. Bytes, message and one row a recipient, due at once; `250` may follow. The
    conversation that it replies to is answered.
    """
    raw.insert(db, [chunk for item in items for chunk in item.chunks])
    conversations = queues.tie_outbound(db, [_tie(item.submission) for item in items])
    messages: list[tuple[object, ...]] = []
    recipients: list[tuple[object, ...]] = []
    answers = _find_answered(db, items, conversations)
    for item, conversation, answered in zip(items, conversations, answers, strict=True):
        submission = item.submission
        envelope, at = submission.envelope, to_ms(submission.accepted_at)
        messages.append(
            (
                submission.id,
                submission.touchpoint,
                submission.agent,
                submission.kind.value,
                envelope.return_path,
                envelope.eight_bit,
                envelope.smtputf8,
                submission.message_id,
                submission.subject,
                len(submission.raw),
                at,
                conversation,
                answered,
            )
        )
        recipients.extend(
            (submission.id, number, submission.touchpoint, address, State.QUEUED.value, 0, 0, 0, at)
            for number, address in enumerate(envelope.recipients)
        )
    insert_many(db, _OUTBOX, messages)
    insert_many(db, _RECIPIENT, recipients)
    return [None] * len(items)


def _find_answered(
    db: sqlite3.Connection, items: Sequence[Accepting], conversations: Sequence[int | None]
) -> list[int | None]:
    """Return, for each reply, the inbound message of its conversation that it names, the likeliest parent first."""
    replies = {
        conversation
        for item, conversation in zip(items, conversations, strict=True)
        if conversation is not None and item.submission.kind is OutboxKind.REPLY
    }
    if not replies:
        return [None] * len(items)
    inbound: dict[tuple[int, int], int] = {}
    for id, touchpoint, message_id, conversation in db.execute(
        "SELECT id, touchpoint, message_id, conversation FROM message"
        " WHERE conversation IN (SELECT value FROM json_each(?)) AND origin IN ('queue', 'junk')"
        " AND message_id IS NOT NULL ORDER BY id",
        (json.dumps(list(replies)),),
    ):
        inbound.setdefault((conversation, thread_key(touchpoint, message_id)), id)
    found: list[int | None] = []
    for item, conversation in zip(items, conversations, strict=True):
        named = [
            inbound.get((conversation or 0, thread_key(item.submission.touchpoint, one)))
            for one in item.submission.references
        ]
        is_reply = item.submission.kind is OutboxKind.REPLY
        found.append(next((id for id in named if id is not None), None) if is_reply else None)
    return found


def _tie(submission: Submission) -> queues.Tie:
    return queues.Tie(
        submission.touchpoint,
        submission.message_id,
        submission.references,
        to_ms(submission.accepted_at),
        answers=submission.kind is OutboxKind.REPLY,
    )


# --- a step: record and claim ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a claim. `attempts`: tries of this recipient, this one counted. `waited`: ms on the clock."""

    number: int
    address: str
    attempts: int
    waited: int
    before: State


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message to be tried now. `attempt` numbers the tries of the message, from 1; it is in the trace field.

    `begun`: the recipients are `sending` already. `answers`: the inbound message that it replies to. `raw` is None for
    a message of more than one chunk: read those one by one (`read_chunk`). `more`: others were due too. `probing`: the
    lane is not open, for this cause; this message finds out whether it can be. Times are ms.
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


@dataclass(frozen=True, slots=True)
class Want:
    """Ask for the next message of a touchpoint. `now`: ms.

    `backoffs`: ms by number of the attempt: when the recipients are due again if we are never heard of. `begin`: they
    become `sending` in the same commit; for a connection that is up and can have DATA on its way within a round trip.
    `per_day`: messages that may be handed over in 24 hours. `probe_again`: ms until a lane that is not open may be
    tried again, if we are never heard of.
    """

    touchpoint: str
    now: int
    backoffs: tuple[int, ...]
    begin: bool = False
    per_day: int | None = None
    probe_again: int = 5 * 60_000


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
class Done:
    """One attempt, ended. `at`: ms. `counted`: the provider took the message. `lane`: what it did to the lane.

    `notice`: goes to the writer in the transaction that records the refusal. `answers`: the inbound message that is
    marked as answered at the provider once somebody has our reply.
    """

    id: int
    touchpoint: str
    attempt: int
    kind: OutboxKind
    fated: tuple[Fated, ...]
    at: int
    counted: bool = False
    lane: lanes.Change | None = None
    notice: queues.Notice | None = None
    answers: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a connection asks between two messages. Either half may be absent."""

    done: Done | None = None
    want: Want | None = None


def step(db: sqlite3.Connection, steps: Sequence[Step]) -> Sequence[Claimed | None]:
    """Operation: first record all that is done, then claim for all who want; None where nothing may be tried now."""
    _record(db, [each.done for each in steps if each.done is not None])
    wanting: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, each in enumerate(steps):
        if each.want is not None:
            wanting[each.want.touchpoint, each.want.begin].append(index)
    results: list[Claimed | None] = [None] * len(steps)
    for indexes in wanting.values():
        want = steps[indexes[0]].want
        assert want is not None
        for index, claimed in zip(indexes, _claim(db, want, len(indexes)), strict=False):
            results[index] = claimed
    return results


def _record(db: sqlite3.Connection, attempts: Sequence[Done]) -> None:
    rows: list[tuple[object, ...]] = []
    sent: dict[tuple[str, int], int] = defaultdict(int)
    for done in attempts:
        for fated in done.fated:
            state = move(fated.before, fated.event)
            assert state is not None, f"{fated.event} cannot follow {fated.before}"
            if state is State.UNCERTAIN and done.kind is not OutboxKind.REPLY:
                state = State.CANCELLED  # an automatic message is not worth a second one, nor a person's time
                assert state is move(State.UNCERTAIN, Event.DROPPED)
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
    for part, statement in _in_parts(_recording, rows):
        db.execute(statement, part)
    if sent:
        db.executemany(
            "INSERT INTO sent (touchpoint, hour, messages) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET messages = messages + excluded.messages",
            [(*place, count) for place, count in sent.items()],
        )
    answered = [
        (done.answers, FilingAction.ANSWERED, done.touchpoint, "", done.at)
        for done in attempts
        if done.answers is not None and any(fated.event is Event.ACCEPTED for fated in done.fated)
    ]
    if answered:
        filings.add(db, answered)
    if changes := [done.lane for done in attempts if done.lane is not None]:
        lanes.change(db, changes)
    if notices := [done.notice for done in attempts if done.notice is not None]:
        queues.put_notice(db, notices)


def _claim(db: sqlite3.Connection, want: Want, count: int) -> Iterator[Claimed]:
    """Claim up to `count` due messages of one touchpoint, the longest due first, each with all its due recipients."""
    lane = lanes.look(db, [want.touchpoint])[want.touchpoint]
    if not lane.is_open:
        if not lane.may_probe(want.now):
            return
        # One message is risked on a lane that is not open; the next try is committed before this one dials.
        count = 1
        lanes.write(db, [lane.put_off(want.now + want.probe_again)])
    if want.per_day is not None:
        count = min(count, want.per_day - _sent_in_a_day(db, want.touchpoint, want.now))
    ids, more = _due(db, want, count)
    if not ids:
        return
    marks = ", ".join("?" * len(ids))
    due: dict[int, list[Recipient]] = {id: [] for id in ids}
    tries: dict[int, int] = dict.fromkeys(ids, 0)
    for id, number, address, state, attempts, attempt, waited, next_at in db.execute(
        "SELECT outbox, number, address, state, attempts, attempt, waited, next_attempt_at FROM recipient"
        f" WHERE outbox IN ({marks})",
        ids,
    ):
        tries[id] = max(tries[id], attempt)
        if state in WAITING and next_at <= want.now and len(due[id]) < MAX_RECIPIENTS:
            due[id].append(Recipient(number, address, attempts + 1, waited, State(state)))
    begun = State.SENDING.value
    rows = [
        (
            id,
            recipient.number,
            tries[id] + 1,
            begun if want.begin else recipient.before.value,
            recipient.attempts,
            want.now + want.backoffs[min(recipient.attempts, len(want.backoffs)) - 1],
        )
        for id, recipients in due.items()
        for recipient in recipients
    ]
    for part, statement in _in_parts(_claiming, rows):
        db.execute(statement, part)
    messages = {
        row[0]: row
        for row in db.execute(
            "SELECT id, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size, accepted_at,"
            f" conversation, answers FROM outbox WHERE id IN ({marks})",
            ids,
        )
    }
    small = [chunk_key(id, 0) for id in ids if messages[id][8] <= CHUNK_BYTES]
    bytes_of = dict(db.execute(f"SELECT id, bytes FROM chunk WHERE id IN ({', '.join('?' * len(small))})", small))
    for id in ids:
        _, agent, kind, path, eight_bit, utf8, message_id, subject, size, at, conversation, answers = messages[id]
        yield Claimed(
            id,
            want.touchpoint,
            tries[id] + 1,
            tuple(due[id]),
            want.begin,
            agent,
            OutboxKind(kind),
            path,
            bool(eight_bit),
            bool(utf8),
            message_id,
            subject,
            size,
            at,
            conversation,
            answers,
            more and lane.is_open,
            None if lane.is_open else lane.cause or "",
            bytes_of.get(chunk_key(id, 0)),
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


def _sent_in_a_day(db: sqlite3.Connection, touchpoint: str, now: int) -> int:
    (count,) = db.execute(
        "SELECT coalesce(sum(messages), 0) FROM sent WHERE touchpoint = ? AND hour > ?",
        (touchpoint, now // _HOUR_MS - _DAY_HOURS),
    ).fetchone()
    return int(count)


# --- begin data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """A claimed message whose DATA is about to be sent. `recipients`: (number, state) of those the provider took."""

    id: int
    attempt: int
    recipients: tuple[tuple[int, State], ...]


def begin_data(db: sqlite3.Connection, items: Sequence[Begin]) -> Sequence[bool]:
    """Operation: `sending`, before DATA. True where all of the recipients are ours to send.

    Where another claim has overtaken this one for even one of them, nothing is begun: the server has taken them all
    in one envelope by now, and they can only be sent together.
    """
    rows = [
        (item.id, number, item.attempt, before.value, move(before, Event.DATA_BEGUN))
        for item in items
        for number, before in item.recipients
    ]
    begun: dict[tuple[int, int], int] = defaultdict(int)
    for part, statement in _in_parts(_beginning, rows):
        for id, attempt in db.execute(statement, part).fetchall():
            begun[id, attempt] += 1
    whole = [begun[item.id, item.attempt] == len(item.recipients) for item in items]
    undone = [
        (item.id, number, item.attempt, State.SENDING.value, before.value)
        for item, is_whole in zip(items, whole, strict=True)
        if not is_whole
        for number, before in item.recipients
    ]
    for part, statement in _in_parts(_beginning, undone):
        db.execute(statement, part).fetchall()
    return whole


def read_chunk(db: sqlite3.Connection, id: int, number: int) -> bytes | None:
    """Return one chunk of a message, or None behind the last."""
    row = db.execute("SELECT bytes FROM chunk WHERE id = ?", (chunk_key(id, number),)).fetchone()
    return row[0] if row else None


# --- start -----------------------------------------------------------------------------------------------------------


def recover(db: sqlite3.Connection, starts: Sequence[int]) -> Sequence[int]:
    """Operation, once at start (item: now in ms): what was `sending` when we stopped is uncertain. Return how many.

    What was claimed and not begun needs nothing: it is due at the time that was committed with the claim.
    """
    return [_recover(db, now, None) for now in starts]


def recover_lane(db: sqlite3.Connection, items: Sequence[tuple[str, int]]) -> Sequence[int]:
    """Operation: the same for one touchpoint (and now in ms), when its task begins again after a fault of ours."""
    return [_recover(db, now, touchpoint) for touchpoint, now in items]


def _recover(db: sqlite3.Connection, now: int, touchpoint: str | None) -> int:
    where, values = ("", ()) if touchpoint is None else (" AND recipient.touchpoint = ?", (touchpoint,))
    found = db.execute(
        "SELECT outbox, number, kind FROM recipient INDEXED BY recipient_open JOIN outbox ON outbox.id = outbox"
        f" WHERE settled_at IS NULL AND recipient.state = ?{where}",
        (State.SENDING.value, *values),
    ).fetchall()
    uncertain = move(State.SENDING, Event.INTERRUPTED)
    dropped = move(State.UNCERTAIN, Event.DROPPED)
    automatic = [(id, number) for id, number, kind in found if kind != OutboxKind.REPLY]
    db.executemany(
        "UPDATE recipient SET state = ?, next_attempt_at = NULL, settled_at = ?, reply = ?"
        " WHERE outbox = ? AND number = ?",
        [(dropped, now, "stopped while it was being sent; automatic mail is not repeated", *key) for key in automatic],
    )
    kept = [(id, number) for id, number, kind in found if kind == OutboxKind.REPLY]
    db.executemany(
        "UPDATE recipient SET state = ?, next_attempt_at = NULL, reply = ? WHERE outbox = ? AND number = ?",
        [(uncertain, "stopped while it was being sent; the message may have left", *key) for key in kept],
    )
    return len(kept)


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


# --- what people ask -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry:
    """Try now what waits for its time: one message, one touchpoint, or everything. `now`: ms."""

    now: int
    id: int | None = None
    touchpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """`recipients` that are due now; the doorbells of `touchpoints` are to be rung."""

    recipients: int
    touchpoints: tuple[str, ...]


def retry(db: sqlite3.Connection, items: Sequence[Retry]) -> Sequence[Retried]:
    """Operation: make waiting recipients due now, and let a paused or held lane be tried at once.

    A lane that a person holds stays held. The wait that is cut short is taken off the give-up clock.
    """
    return [_retry(db, item) for item in items]


def _retry(db: sqlite3.Connection, item: Retry) -> Retried:
    where = "settled_at IS NULL"
    values: list[object] = []
    if item.id is not None:
        where, values = "outbox = ? AND settled_at IS NULL", [item.id]
    elif item.touchpoint is not None:
        where, values = "touchpoint = ? AND settled_at IS NULL", [item.touchpoint]
    rows = db.execute(
        "UPDATE recipient SET waited = max(0, waited - max(0, next_attempt_at - ?)),"
        f" next_attempt_at = min(next_attempt_at, ?) WHERE {where} AND state IN ({_WAITING}) RETURNING touchpoint",
        (item.now, item.now, *values),
    ).fetchall()
    touchpoints = sorted({touchpoint for (touchpoint,) in rows})
    shut = [lane for lane in lanes.look(db, touchpoints).values() if lane.until_at is not None]
    lanes.write(db, [lane.put_off(min(lane.until_at or item.now, item.now)) for lane in shut])
    return Retried(len(rows), tuple(touchpoints))


# --- many rows in one statement --------------------------------------------------------------------------------------

_WAITING: Final = ", ".join(f"'{state.value}'" for state in sorted(WAITING))
_SIZES: Final = (64, 16, 4, 1)  # few, so that the connection's cache of compiled statements holds all of them


def _in_parts(
    statement: Callable[[int], str], rows: Sequence[tuple[object, ...]]
) -> Iterator[tuple[tuple[object, ...], str]]:
    """Cut `rows` into parts of a few sizes; yield the values of each part with its statement."""
    start, left = 0, len(rows)
    for size in _SIZES:
        while left >= size:
            part: Iterable[tuple[object, ...]] = rows[start : start + size]
            yield tuple(chain.from_iterable(part)), statement(size)
            start += size
            left -= size


def _values(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"(VALUES {', '.join([row] * rows)}) AS new"


# The last two conditions make a claim that was overtaken change nothing.
_OURS: Final = "outbox = new.column1 AND number = new.column2 AND attempt = new.column3 AND state = new.column4"


@cache
def _recording(rows: int) -> str:
    return (
        "UPDATE recipient SET state = new.column5, next_attempt_at = new.column6, waited = new.column7,"
        f" reply = new.column8, settled_at = new.column9 FROM {_values(9, rows)} WHERE {_OURS}"
    )


@cache
def _beginning(rows: int) -> str:
    return f"UPDATE recipient SET state = new.column5 FROM {_values(5, rows)} WHERE {_OURS} RETURNING outbox, attempt"


@cache
def _claiming(rows: int) -> str:
    return (
        "UPDATE recipient SET attempt = new.column3, state = new.column4, attempts = new.column5,"
        f" next_attempt_at = new.column6 FROM {_values(6, rows)} WHERE outbox = new.column1 AND number = new.column2"
    )
