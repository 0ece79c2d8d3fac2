"""Accepting outbound mail: bytes, message and recipients in one transaction, and each submission once.

A client that lost our 250 comes again with the same bytes. A digest of what it submitted tells, for a day, and the
client gets the id that the first one got. On disk the digests lie in the order of time, so that a batch of them is one
page and not one page each; by digest they are found in a temporary table of the writer's connection, which the start
fills and a transaction that fails rolls back with the rest.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.model import NO_WISH, OutboxKind, Signed, Submission, to_ms
from gateway.rules.conversation import thread_key, thread_keys
from gateway.state import correspondents, queues, raw
from gateway.state.lifecycle import State
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many, padded

_OUTBOX: Final = (
    "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
    " accepted_at, conversation, answers, envid, ret, signature)"
)
_RECIPIENT: Final = (
    "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, next_attempt_at,"
    " notify, orcpt)"
)
_SIGNED: Final = "INSERT OR IGNORE INTO signed (key, outbox)"
_SUBMITTED: Final = "INSERT INTO submitted (outbox, digest, at)"
_RECENT: Final = "INSERT OR REPLACE INTO temp.recent (digest, outbox)"
_REMEMBERED_MS: Final = 24 * 3_600_000
_SWEEPING: Final = 0xF0  # least last byte of a digest that sweeps: one in sixteen, for the other fifteen too
_SWEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Accepting:
    """A submission with its last chunk (`raw.stage` has written the others).

    `digest`: 16 bytes that are the same when a client submits the same again; None: not to be compared. `notice`: a
    warning to the writer, stored in the same transaction.
    """

    submission: Submission
    chunks: tuple[Chunk, ...]
    digest: bytes | None = None
    notice: queues.Notice | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """`id`: under which the message is in the outbox. `is_repeated`: it was there already and nothing was written; what
    was staged for the second one is to be abandoned.
    """

    id: int
    is_repeated: bool = False


def accept(db: sqlite3.Connection, items: Sequence[Accepting]) -> Sequence[Accepted]:
    """Operation: take responsibility. Bytes, message and one row a recipient, due at once; `250` may follow. The
    conversation that it replies to is answered.

    A digest that was accepted within a day gives the id of the first submission, unless none of its recipients can
    get it any more (refused, expired, cancelled): then it is a new try.
    """
    results = _recognise(db, items)
    if fresh := [item for item, result in zip(items, results, strict=True) if not result.is_repeated]:
        _insert(db, fresh)
    return results


def _insert(db: sqlite3.Connection, items: Sequence[Accepting]) -> None:
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
                envelope.envid or None,
                envelope.ret or None,
                str(submission.signature),
            )
        )
        wishes = envelope.wishes or (NO_WISH,) * len(envelope.recipients)
        recipients.extend(
            (submission.id, number, submission.touchpoint, address, State.QUEUED.value, 0, 0, 0, at,
             None if wish.notify is None else int(wish.notify), wish.orcpt or None)
            for number, (address, wish) in enumerate(zip(envelope.recipients, wishes, strict=True))
        )  # fmt: skip
    insert_many(db, _OUTBOX, messages)
    insert_many(db, _RECIPIENT, recipients)
    if signed := [(key, item.submission.id) for item in items for key in _signed_keys(item.submission)]:
        insert_many(db, _SIGNED, signed)
    written = [item.submission for item in items if item.submission.kind is OutboxKind.REPLY]
    correspondents.note(
        db, [(one.touchpoint, to, to_ms(one.accepted_at)) for one in written for to in one.envelope.recipients]
    )
    if notices := [item.notice for item in items if item.notice is not None]:
        queues.put_notice(db, notices)


# --- the same again --------------------------------------------------------------------------------------------------


def _recognise(db: sqlite3.Connection, items: Sequence[Accepting]) -> list[Accepted]:
    """Return what each item is accepted as, and remember the new ones for those that come again."""
    digests = [item.digest for item in items if item.digest is not None]
    known = _known(db, digests) if digests else {}
    results: list[Accepted] = []
    rows: list[tuple[int, bytes, int]] = []
    for item in items:
        id, at = item.submission.id, to_ms(item.submission.accepted_at)
        if item.digest is not None:
            first, first_at = known.get(item.digest, (id, at))
            if first != id and first_at > at - _REMEMBERED_MS:
                results.append(Accepted(first, is_repeated=True))
                continue
            known[item.digest] = (id, at)  # the same twice in one batch
            rows.append((id, item.digest, at))
        results.append(Accepted(id))
    if rows:
        insert_many(db, _SUBMITTED, rows)
        insert_many(db, _RECENT, [(digest, id) for id, digest, _ in rows])
        if sweeps := sum(digest[-1] >= _SWEEPING for _, digest, _ in rows):
            _sweep(db, rows[0][2] - _REMEMBERED_MS, sweeps * _SWEPT)
    return results


def _known(db: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Return the first submission of each digest, and when it came (ms), where a recipient has it or may still."""
    marks, values = padded(digests)
    query = (
        "SELECT digest, id, accepted_at FROM temp.recent CROSS JOIN outbox ON id = recent.outbox"
        f" WHERE digest IN ({marks}) AND EXISTS (SELECT 1 FROM recipient WHERE recipient.outbox = id"
        " AND state NOT IN ('refused', 'expired', 'cancelled'))"
    )
    try:
        rows = db.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        remember(db)
        rows = db.execute(query, values).fetchall()
    return {digest: (id, at) for digest, id, at in rows}


def remember(db: sqlite3.Connection) -> None:
    """Put what was submitted in the last day where it is found by its digest; on the writer's connection, once."""
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS recent (digest BLOB PRIMARY KEY, outbox INTEGER NOT NULL) WITHOUT ROWID"
    )
    db.execute("INSERT OR REPLACE INTO temp.recent SELECT digest, outbox FROM submitted ORDER BY digest, outbox")


def _sweep(db: sqlite3.Connection, before: int, count: int) -> None:
    """Forget what is too old, looking at the `count` oldest."""
    old = db.execute(
        "DELETE FROM submitted WHERE at <= ? AND outbox IN (SELECT outbox FROM submitted ORDER BY outbox LIMIT ?)"
        " RETURNING digest, outbox",
        (before, count),
    ).fetchall()
    db.executemany("DELETE FROM temp.recent WHERE digest = ? AND outbox = ?", old)


# --- what it belongs to ----------------------------------------------------------------------------------------------


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


def _signed_keys(submission: Submission) -> tuple[int, ...]:
    if not submission.signs_once or submission.signature not in (Signed.PLACED, Signed.PRESENT):
        return ()
    return thread_keys(submission.touchpoint, (submission.message_id, *submission.references))


def _tie(submission: Submission) -> queues.Tie:
    return queues.Tie(
        submission.touchpoint,
        submission.message_id,
        submission.references,
        to_ms(submission.accepted_at),
        answers=submission.kind is OutboxKind.REPLY,
    )
