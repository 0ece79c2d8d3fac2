"""Outbound mail: accept, claim, begin_data, record, settle, retire; each is one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.model import Submission, to_ms
from gateway.state import raw
from gateway.state.lifecycle import State
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many

_OUTBOX: Final = (
    "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
    " accepted_at, conversation)"
)
_RECIPIENT: Final = (
    "INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited, next_attempt_at)"
)


@dataclass(frozen=True, slots=True)
class Accepting:
    """A submission with its last chunk (`raw.stage` has written the others)."""

    submission: Submission
    chunks: tuple[Chunk, ...]


def accept(db: sqlite3.Connection, items: Sequence[Accepting]) -> Sequence[None]:
    """Operation: take responsibility. Bytes, message and one row a recipient, due at once; `250` may follow."""
    raw.insert(db, [chunk for item in items for chunk in item.chunks])
    messages: list[tuple[object, ...]] = []
    recipients: list[tuple[object, ...]] = []
    for item in items:
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
                None,
            )
        )
        recipients.extend(
            (submission.id, number, submission.touchpoint, address, State.QUEUED.value, 0, 0, 0, at)
            for number, address in enumerate(envelope.recipients)
        )
    insert_many(db, _OUTBOX, messages)
    insert_many(db, _RECIPIENT, recipients)
    return [None] * len(items)
