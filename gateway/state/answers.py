"""Automatic answers: who has had one, and the claim that comes before each.

An answer is written in the transaction that routes the message it answers (T2): the row of the ledger, the message in
the outbox and its recipient, all or nothing. So there is never an answer without its row, and no crash makes two.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.model import Notify, OutboxKind, Step, Submission, show_id, to_ms
from gateway.rules.answering import CONTINUES
from gateway.rules.conversation import thread_key
from gateway.state import marks, raw
from gateway.state.lifecycle import State
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many
from gateway.state.store import each

STEP: Final = "auto-reply"
NONE: Final = "no answer"
_KEY: Final = "answer_key"
_HOUR_MS: Final = 3_600_000
_INTERNAL_MS: Final = 1_000  # INTERNALDATE knows seconds only: RFC 9051 §2.3.3
_OUTBOX: Final = (
    "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
    " accepted_at, conversation, answers, drop_at)"
)
_RECIPIENT: Final = (
    "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, next_attempt_at,"
    " notify)"
)
_ANSWERED: Final = "INSERT OR REPLACE INTO answered (touchpoint, address, at, outbox)"
_THREAD: Final = "INSERT OR IGNORE INTO thread (key, conversation)"


@dataclass(frozen=True, slots=True)
class Answer:
    """An automatic answer, composed and not yet given, with its last chunk. Times and durations: ms.

    `keys`: what the ledger knows the sender by (`rules.answering.Addressee`). `every`: at most one in this time.
    `begins_only`: only a message that begins a conversation is answered. `most_per_hour`: of the touchpoint.
    `internal_at`: of the message that is answered. `drop_at`: from then on it is not worth sending.
    """

    submission: Submission
    chunks: tuple[Chunk, ...]
    keys: tuple[str, ...]
    every: int
    begins_only: bool
    most_per_hour: int
    internal_at: int
    drop_at: int


@dataclass(frozen=True, slots=True)
class Given:
    """What became of an answer. `step`: for the trail. `id`: under which it is in the outbox; None: it is not.

    `is_over`: the touchpoint has given as many in an hour as it may.
    """

    step: Step
    id: int | None = None
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One answer with what T2 found out. `message`: that is answered; `is_new`: it began `conversation`. `at`: ms."""

    answer: Answer
    message: int
    conversation: int
    is_new: bool
    at: int


def was_answered(db: sqlite3.Connection, touchpoint: str, keys: Sequence[str], since: int) -> bool:
    """Return whether the sender has had an answer since then (ms). A look ahead, that spares composing one."""
    return any(at > since for _, at in _ledger(db, [(touchpoint, key) for key in keys]))


def give(db: sqlite3.Connection, claims: Sequence[Claim]) -> list[Given]:
    """For use inside T2: claim what may be given and put it into the outbox; return what became of each."""
    if not claims:
        return []
    last = dict(
        _ledger(db, [(claim.answer.submission.touchpoint, key) for claim in claims for key in claim.answer.keys])
    )
    hours = _given_in_an_hour(db, claims)
    watched = _first_watched(db, [claim.message for claim in claims])
    restored_at = marks.get(db, "restored_at")
    results: list[Given] = []
    rows: dict[tuple[str, str], tuple[str, str, int, int]] = {}
    taken: list[Claim] = []
    for claim in claims:
        answer = claim.answer
        touchpoint = answer.submission.touchpoint
        places = [(touchpoint, key) for key in answer.keys]
        reason, is_over, is_counted = "", False, False
        if answer.begins_only and not claim.is_new:
            reason = CONTINUES
        elif answer.internal_at + _INTERNAL_MS <= watched.get(claim.message, 0):
            reason = "it is older than the first watch"
        elif any(claim.at - last[place] < answer.every for place in places if place in last):
            reason = "its sender has had one in this period"
        elif restored_at is not None and answer.internal_at <= restored_at:
            # The store that is gone may have answered it. Its row is written all the same, for the same reason.
            reason, is_counted = "it came before the store was restored", True
        elif hours[touchpoint] >= answer.most_per_hour:
            reason, is_over = f"{hours[touchpoint]} in an hour are the most", True
        if not reason or is_counted:
            for place in places:
                last[place] = claim.at
                rows[place] = (*place, claim.at, 0 if reason else answer.submission.id)
        if reason:
            results.append(Given(Step(STEP, reason, NONE), is_over=is_over))
            continue
        hours[touchpoint] += 1
        taken.append(claim)
        to = answer.submission.envelope.recipients[0]
        results.append(
            Given(Step(STEP, f"to {to}", f"answered by {show_id(answer.submission.id)}"), answer.submission.id)
        )
    insert_many(db, _ANSWERED, list(rows.values()))
    _enqueue(db, taken)
    return results


def _enqueue(db: sqlite3.Connection, claims: Sequence[Claim]) -> None:
    raw.insert(db, [chunk for claim in claims for chunk in claim.answer.chunks])
    messages: list[tuple[object, ...]] = []
    recipients: list[tuple[object, ...]] = []
    threads: dict[int, int] = {}
    for claim in claims:
        submission = claim.answer.submission
        envelope, at = submission.envelope, to_ms(submission.accepted_at)
        assert submission.kind is OutboxKind.AUTO_REPLY
        messages.append(
            (submission.id, submission.touchpoint, submission.agent, submission.kind.value, envelope.return_path,
             envelope.eight_bit, envelope.smtputf8, submission.message_id, submission.subject, len(submission.raw), at,
             claim.conversation, claim.message, claim.answer.drop_at)
        )  # fmt: skip
        recipients.extend(
            (submission.id, number, submission.touchpoint, address, State.QUEUED.value, 0, 0, 0, at, int(Notify(0)))
            for number, address in enumerate(envelope.recipients)
        )
        threads[thread_key(submission.touchpoint, submission.message_id)] = claim.conversation
    insert_many(db, _OUTBOX, messages)
    insert_many(db, _RECIPIENT, recipients)
    insert_many(db, _THREAD, list(threads.items()))


def _ledger(db: sqlite3.Connection, places: Collection[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], int]]:
    rows = db.execute(
        "SELECT touchpoint, address, at FROM json_each(?) AS wanted CROSS JOIN answered"
        " ON touchpoint = wanted.value ->> 0 AND address = wanted.value ->> 1",
        (json.dumps(sorted(set(places))),),
    )
    return (((touchpoint, address), at) for touchpoint, address, at in rows.fetchall())


def _given_in_an_hour(db: sqlite3.Connection, claims: Sequence[Claim]) -> Counter[str]:
    hours: Counter[str] = Counter()
    for touchpoint in {claim.answer.submission.touchpoint for claim in claims}:
        since = min(claim.at for claim in claims) - _HOUR_MS
        (hours[touchpoint],) = db.execute(
            "SELECT count(*) FROM outbox WHERE touchpoint = ? AND kind = 'auto-reply' AND accepted_at > ?",
            (touchpoint, since),
        ).fetchone()
    return hours


def _first_watched(db: sqlite3.Connection, messages: Sequence[int]) -> dict[int, int]:
    """Return when the folder in which each message lies was first watched (ms)."""
    return dict(
        db.execute(
            "SELECT message, max(first_watched_at) FROM location JOIN folder USING (touchpoint, folder)"
            " WHERE message IN (SELECT value FROM json_each(?)) GROUP BY message",
            (json.dumps(list(messages)),),
        )
    )


def list_answered(db: sqlite3.Connection, touchpoint: str | None) -> list[tuple[str, str, int, int]]:
    """Return (touchpoint, address, when in ms, id of the answer or 0) of who was answered last, the newest first."""
    return db.execute(
        "SELECT touchpoint, address, at, outbox FROM answered WHERE ?1 IS NULL OR touchpoint = ?1"
        " ORDER BY at DESC, touchpoint, address",
        (touchpoint,),
    ).fetchall()


@each
def forget(db: sqlite3.Connection, named: tuple[str, str | None]) -> int:
    """Operation: this sender, None: every one, may have an answer of a touchpoint again; return how many that are."""
    return db.execute("DELETE FROM answered WHERE touchpoint = ?1 AND (?2 IS NULL OR address = ?2)", named).rowcount


def key_of(number: int | None) -> bytes:
    """Return the key that is made of the store's number; None: nothing was ever answered."""
    return (number or 0).to_bytes(8, "big")


def find_key(db: sqlite3.Connection) -> int | None:
    return marks.get(db, _KEY)


def keep_key(db: sqlite3.Connection, candidates: Sequence[int]) -> Sequence[int]:
    """Operation: return the number that the tokens of this store's answers are made with; the first one stays."""
    db.execute("INSERT OR IGNORE INTO mark (name, value) VALUES (?, ?)", (_KEY, candidates[0]))
    kept = marks.get(db, _KEY)
    assert kept is not None
    return [kept] * len(candidates)
