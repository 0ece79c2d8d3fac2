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
from gateway.state import conversations, correspondents, matching, owed, raw
from gateway.state.conversations import Conversation, as_json
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

    `references`: of In-Reply-To and References, the likeliest parent first. `auto_submitted`: a machine wrote it.
    `recipients`: addresses of To and Cc, in small letters; empty where nobody knows. `queue_ids`: of the attempts that
    its header names, ours if our outbox knows them.
    """

    uid: int
    message_id: str
    original_id: str
    references: tuple[str, ...]
    auto_submitted: bool = False
    recipients: tuple[str, ...] = ()
    queue_ids: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one for one in (self.message_id, self.original_id) if one)


def examine(db: sqlite3.Connection, touchpoint: str, candidates: Sequence[Candidate]) -> dict[int, int]:
    """Return the conversation by UID of those that refer to one of ours, did not go through us, and are no copies of
    what came to us as well: mail of ours to ourselves.
    """
    parents = {one.uid: thread_keys(touchpoint, one.references) for one in candidates}
    own = {one.uid: thread_keys(touchpoint, one.ids) for one in candidates}
    threads = find_threads(db, {key for keys in (*parents.values(), *own.values()) for key in keys})
    tied = {uid: [threads[key] for key in keys if key in threads] for uid, keys in parents.items()}
    ours = _known_ids(db, touchpoint, set(threads.values()))
    traced = _known_traces(db, touchpoint, {id for one in candidates if tied[one.uid] for id in one.queue_ids})
    return {
        one.uid: tied[one.uid][0]
        for one in candidates
        if tied[one.uid] and ours.isdisjoint(own[one.uid]) and traced.isdisjoint(one.queue_ids)
    }


def _known_traces(db: sqlite3.Connection, touchpoint: str, ids: set[int]) -> set[int]:
    """Return those of these queue ids that went out through us: also where a message became part of a conversation
    only after it had gone out, or the provider gave it another Message-ID.
    """
    if not ids:
        return set()
    rows = db.execute(
        "SELECT id FROM outbox WHERE touchpoint = ? AND id IN (SELECT value FROM json_each(?))",
        (touchpoint, as_json(ids)),
    )
    return {id for (id,) in rows}


def _known_ids(db: sqlite3.Connection, touchpoint: str, wanted: set[int]) -> set[int]:
    """Return the keys of what went out through us in these conversations, and of what came."""
    if not wanted:
        return set()
    these = "conversation IN (SELECT value FROM json_each(:wanted)) AND message_id IS NOT NULL"
    rows = db.execute(
        f"SELECT message_id FROM outbox WHERE {these}"
        f" UNION ALL SELECT message_id FROM message WHERE {these} AND origin IN ('queue', 'junk')",
        {"wanted": as_json(wanted)},
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
    correspondents.note(db, [(arrival.touchpoint, to, internal_at) for to in item.candidate.recipients])
    if _is_answer(db, item.candidate, conversation, internal_at):
        conversation.state = answer(conversation.state)
    db.execute(
        "UPDATE conversation SET state = ?, last_at = ? WHERE id = ?",
        (conversation.state.value, max(conversation.last_at, internal_at), conversation.id),
    )
    return Recorded(conversation.id, "new")


def _is_answer(db: sqlite3.Connection, candidate: Candidate, conversation: Conversation, internal_at: int) -> bool:
    """Did a person write to somebody who wrote to us, and nobody since? A forward to a colleague answers nothing.

    What is in quarantine or discarded waits for no answer.
    """
    if candidate.auto_submitted:
        return False
    rows = db.execute(
        "SELECT coalesce(sender, ''), max(internal_at) FROM message WHERE conversation = ?"
        " AND origin IN ('queue', 'junk') AND quarantine = 0 AND discarded = 0 GROUP BY 1",
        (conversation.id,),
    ).fetchall()
    writers = {conversation.sender.lower(), *(sender.lower() for sender, _ in rows)}
    if candidate.recipients and writers.isdisjoint(candidate.recipients):
        return False
    return all(internal_at > last_at for _, last_at in rows)


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
