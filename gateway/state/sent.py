"""What agents send past us, from the provider's webmail or a phone, as we find it in the folder Sent.

Only what answers a conversation of ours and did not go through us is taken: it stands in the conversation as a
message with origin `sent`, and the conversation is answered when nobody has written since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.model import Arrival, Role, to_ms
from gateway.rules.conversation import answer, thread_key, thread_keys
from gateway.state import conversations, matching, owed, raw
from gateway.state.conversations import as_json
from gateway.state.folders import leave_alone, located, move_cursor
from gateway.state.mailboxes import Kind, place_of
from gateway.state.matching import Matcher
from gateway.state.queues import find_threads
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many
from gateway.state.store import each

CLASS: Final = "sent"
_MESSAGE: Final = (
    "INSERT INTO message (id, touchpoint, origin, state, tries, size, internal_at, arrived_at, routed_at, fingerprint,"
    " object_id, message_id, class, subject, sender, sender_name, conversation, trail)"
)
_LOCATION: Final = "INSERT INTO location (touchpoint, folder, uidvalidity, uid, message)"
_THREAD: Final = "INSERT OR IGNORE INTO thread (key, conversation)"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The ids of a message in Sent. `original_id`: what its Message-ID was before the provider replaced it, or "".

    `references`: of In-Reply-To and References, the likeliest parent first.
    """

    uid: int
    message_id: str
    original_id: str
    references: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one for one in (self.message_id, self.original_id) if one)


def examine(db: sqlite3.Connection, touchpoint: str, candidates: Sequence[Candidate]) -> dict[int, int]:
    """Return the conversation by UID of those that answer one of ours and did not go through us."""
    parents = {one.uid: thread_keys(touchpoint, (*one.references, *one.ids)) for one in candidates}
    threads = find_threads(db, {key for keys in parents.values() for key in keys})
    tied = {uid: [threads[key] for key in keys if key in threads] for uid, keys in parents.items()}
    ours = _sent_through_us(db, touchpoint, {conversation for found in tied.values() for conversation in found})
    return {
        one.uid: tied[one.uid][0]
        for one in candidates
        if tied[one.uid] and not ours & set(thread_keys(touchpoint, one.ids))
    }


def _sent_through_us(db: sqlite3.Connection, touchpoint: str, wanted: set[int]) -> set[int]:
    if not wanted:
        return set()
    rows = db.execute(
        "SELECT message_id FROM outbox WHERE conversation IN (SELECT value FROM json_each(?))", (as_json(wanted),)
    )
    return {thread_key(touchpoint, message_id) for (message_id,) in rows if message_id}


@dataclass(frozen=True, slots=True)
class SentArrival:
    """A message of Sent that `examine` has found to belong to us, with its last chunk. `at`: milliseconds."""

    arrival: Arrival
    chunks: tuple[Chunk, ...]
    candidate: Candidate
    subject: str
    at: int
    sender: str = ""
    sender_name: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """`conversation` that has a new message; None where the message is not one: its bytes were not written."""

    conversation: int | None
    kind: Kind | None = None


@each
def record(db: sqlite3.Connection, item: SentArrival) -> Recorded:
    """Operation: bytes, message, location, its place in the conversation and the cursor, all at once.

    A message that we have under another UID is only located. One whose conversation has gone meanwhile is left alone.
    """
    recorded = _record(db, item)
    arrival, place = item.arrival, place_of(item.arrival)
    owed.forget(db, place, [arrival.location.uid])
    move_cursor(db, place, [(arrival.follows, arrival.location.uid)])
    return recorded


def _record(db: sqlite3.Connection, item: SentArrival) -> Recorded:
    arrival, place, uid = item.arrival, place_of(item.arrival), item.arrival.location.uid
    if located(db, place, [uid]):
        return Recorded(None, "known")
    matcher = Matcher(db, [(arrival.fingerprint, arrival.object_id)])
    if known := matcher.find(place, Role.SENT, arrival.fingerprint, arrival.object_id):
        matching.settle(db, place, Role.SENT, [(uid, known)], item.at)
        return Recorded(None, "moved")
    found = examine(db, arrival.touchpoint, [item.candidate]).get(item.candidate.uid)
    conversation = conversations.load(db, [found]).get(found) if found is not None else None
    if conversation is None:
        leave_alone(db, place, [(uid, uid)])
        return Recorded(None)
    internal_at = to_ms(arrival.internal_at)
    raw.insert(db, item.chunks)
    insert_many(
        db,
        _MESSAGE,
        [
            (
                arrival.id,
                arrival.touchpoint,
                Role.SENT.value,
                "routed",
                1,
                arrival.size,
                internal_at,
                to_ms(arrival.arrived_at),
                item.at,
                arrival.fingerprint,
                arrival.object_id,
                item.candidate.message_id or None,
                CLASS,
                item.subject,
                item.sender,
                item.sender_name,
                conversation.id,
                "[]",
            )
        ],
    )
    insert_many(db, _LOCATION, [(*place, uid, arrival.id)])
    own = thread_keys(arrival.touchpoint, item.candidate.ids)
    insert_many(db, _THREAD, [(key, conversation.id) for key in own])
    if internal_at > _last_inbound_at(db, conversation.id):
        conversation.state = answer(conversation.state)
    db.execute(
        "UPDATE conversation SET state = ?, last_at = ? WHERE id = ?",
        (conversation.state.value, max(conversation.last_at, internal_at), conversation.id),
    )
    return Recorded(conversation.id, "new")


def _last_inbound_at(db: sqlite3.Connection, conversation: int) -> int:
    """Return when the customer last wrote: what is in quarantine or discarded waits for no answer."""
    (at,) = db.execute(
        "SELECT coalesce(max(internal_at), 0) FROM message WHERE conversation = ? AND origin IN ('queue', 'junk')"
        " AND quarantine = 0 AND discarded = 0",
        (conversation,),
    ).fetchone()
    return int(at)


@dataclass(frozen=True, slots=True)
class Learning:
    """Messages of Sent that may be ours under another Message-ID."""

    touchpoint: str
    candidates: tuple[Candidate, ...]


@each
def learn(db: sqlite3.Connection, learning: Learning) -> int:
    """Operation: where the original id of a message is one that we know, its new id belongs to the same conversation,
    for the customer's answer will name the new one. Return how many ids are new to us.
    """
    touchpoint = learning.touchpoint
    changed = [one for one in learning.candidates if one.original_id and one.message_id]
    new = {thread_key(touchpoint, one.message_id): thread_key(touchpoint, one.original_id) for one in changed}
    threads = find_threads(db, {*new, *new.values()})
    rows = [(key, threads[original]) for key, original in new.items() if key not in threads and original in threads]
    insert_many(db, _THREAD, rows)
    return len(rows)
