"""Conversations as people see them: listed, shown with their messages, counted by queue.

What changes them is in `queues`; here is the row itself, how it is read, and its shape for `--json`, which is stable.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.model import Role, from_ms, show_id
from gateway.rules.conversation import ConversationState


@dataclass(slots=True)
class Conversation:
    """A row with its queues. The last fields say what a change has to write."""

    id: int
    touchpoint: str
    state: ConversationState
    owner: str | None
    subject: str
    sender: str
    sender_name: str
    priority: str
    tags: list[str]
    first_at: int
    last_at: int
    queues: list[str]
    is_new: bool = False
    leaves: bool = False  # its entries are replaced
    enters_at: int | None = None  # its entries are to be written
    is_renamed: bool = False

    def name(self, subject: str, sender: str, sender_name: str) -> None:
        self.subject, self.sender, self.sender_name, self.is_renamed = subject, sender, sender_name, True

    @property
    def row(self) -> tuple[object, ...]:
        return (
            self.id,
            self.touchpoint,
            self.state.value,
            self.owner,
            self.subject,
            self.sender,
            self.sender_name,
            self.priority,
            json.dumps(self.tags, ensure_ascii=False),
            self.first_at,
            self.last_at,
        )


def load(db: sqlite3.Connection, ids: Collection[int]) -> dict[int, Conversation]:
    """Return conversations by id, with their queues in order of name."""
    if not ids:
        return {}
    wanted = (as_json(ids),)
    found: dict[int, Conversation] = {}
    for id, touchpoint, state, owner, subject, sender, name, priority, tags, first_at, last_at in db.execute(
        "SELECT id, touchpoint, state, owner, subject, sender, sender_name, priority, tags, first_at, last_at"
        " FROM conversation WHERE id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        found[id] = Conversation(
            id,
            touchpoint,
            ConversationState(state),
            owner,
            subject,
            sender,
            name,
            priority,
            json.loads(tags),
            first_at,
            last_at,
            [],
        )
    for conversation, queue in db.execute(
        "SELECT conversation, queue FROM entry WHERE conversation IN (SELECT value FROM json_each(?))"
        " ORDER BY conversation, queue",
        wanted,
    ):
        if conversation in found:
            found[conversation].queues.append(queue)
    return found


# INTERNALDATE has no fractions: what came in the second of our reply came, as far as it says, before it
_CAME_AT: Final = "min(arrived_at, internal_at + 999)"

# --- reading ---------------------------------------------------------------------------------------------------------


def list_conversations(
    db: sqlite3.Connection,
    queue: str | None = None,
    include_settled: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Return conversations as `queue list --json` shows them, the newest first. Settled: closed or quarantined."""
    conditions, values = [], []
    if not include_settled:
        conditions.append("state != 'closed' AND state != 'quarantined'")
    if queue is not None:
        conditions.append("id IN (SELECT conversation FROM entry WHERE queue = ?)")
        values.append(queue)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    ids = [
        id
        for (id,) in db.execute(
            f"SELECT id FROM conversation{where} ORDER BY last_at DESC, id DESC LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
    ]
    return _shown(db, ids)


def show_conversation(db: sqlite3.Connection, id: int) -> dict[str, Any] | None:
    """Return a conversation as in a listing, and its `messages`, in and out, in order of time, without their bytes.
    What somebody wrote at the provider is outbound, of class `sent`.

    `id`: of the conversation or of one of its messages. None when there is none.
    """
    if (conversation := _conversation_of(db, id)) is None:
        return None
    (shown,) = _shown(db, [conversation])
    stored = {
        (row[11], row[0]): {
            "id": show_id(row[0]),
            "direction": "outbound" if row[12] == Role.SENT else "inbound",
            "at": _time(row[1]),
            "from": row[2] or None,
            "from_name": row[3] or None,
            "subject": row[4],
            "message_id": row[5],
            "class": row[6],
            "size": row[7],
            "quarantined": bool(row[8]),
            "discarded": bool(row[9]),
            "note": row[13],
            "trail": json.loads(row[10] or "[]"),
        }
        for row in db.execute(
            "SELECT id, internal_at, sender, sender_name, subject, message_id, class, size, quarantine, discarded,"
            f" trail, {_CAME_AT}, origin, note FROM message WHERE conversation = ?",
            (conversation,),
        )
    }
    outbound = {
        (row[1], row[0]): {
            "id": show_id(row[0]),
            "direction": "outbound",
            "at": _time(row[1]),
            "from": row[2] or None,
            "from_name": None,
            "subject": row[3],
            "message_id": row[4],
            "class": row[5],
            "size": row[6],
            "quarantined": False,
            "discarded": False,
            "note": None,
            "trail": [],
        }
        for row in db.execute(
            "SELECT id, accepted_at, agent, subject, message_id, kind, size FROM outbox WHERE conversation = ?",
            (conversation,),
        )
    }
    return shown | {"messages": [message for _, message in sorted((stored | outbound).items())]}


def find_messages(db: sqlite3.Connection, id: int) -> list[dict[str, Any]]:
    """Return `id`, `direction`, `at`, `message_id`, `size` and `note` of a conversation's messages, in and out, in
    order of time, or of the one message that has this id. Their bytes: `raw.load`, or chunk by chunk.
    """
    for column in ("conversation", "id"):
        rows = db.execute(
            "SELECT id, CASE origin WHEN 'sent' THEN 'outbound' ELSE 'inbound' END, internal_at, message_id, size,"
            f" {_CAME_AT} AS place, note FROM message WHERE {column} = ? UNION ALL"
            f" SELECT id, 'outbound', accepted_at, message_id, size, accepted_at, NULL FROM outbox WHERE {column} = ?"
            " ORDER BY place, id",
            (id, id),
        ).fetchall()
        if rows:
            break
    names = ("id", "direction", "at", "message_id", "size", "note")
    return [dict(zip(names, (show_id(row[0]), row[1], _time(row[2]), *row[3:5], row[6]), strict=True)) for row in rows]


def count_open(db: sqlite3.Connection) -> Mapping[str, tuple[int, datetime]]:
    """Return, of every queue where somebody waits, how many conversations do (open or claimed) and since when the one
    that was quiet for longest has been quiet.
    """
    rows = db.execute(
        "SELECT queue, count(*), min(last_at) FROM conversation JOIN entry ON entry.conversation = conversation.id"
        " WHERE state IN ('open', 'claimed') AND state != 'closed' GROUP BY queue"  # the second lets the index be used
    )
    return {queue: (count, from_ms(oldest)) for queue, count, oldest in rows}


def _shown(db: sqlite3.Connection, ids: Sequence[int]) -> list[dict[str, Any]]:
    conversations = load(db, ids)
    message_ids: dict[int, list[str]] = {}
    for conversation, message_id in db.execute(
        "SELECT conversation, message_id FROM message WHERE conversation IN (SELECT value FROM json_each(?))"
        " AND message_id IS NOT NULL ORDER BY internal_at, id",
        (as_json(ids),),
    ):
        message_ids.setdefault(conversation, []).append(message_id)
    return [
        {
            "id": show_id(one.id),
            "touchpoint": one.touchpoint or None,
            "queues": one.queues,
            "state": one.state.value,
            "owner": one.owner,
            "subject": one.subject,
            "from": one.sender or None,
            "from_name": one.sender_name or None,
            "priority": one.priority,
            "tags": one.tags,
            "message_ids": message_ids.get(one.id, []),
            "first_at": _time(one.first_at),
            "last_at": _time(one.last_at),
        }
        for one in (conversations[id] for id in ids)
    ]


def _conversation_of(db: sqlite3.Connection, id: int) -> int | None:
    for query in (
        "SELECT id FROM conversation WHERE id = ?",
        "SELECT conversation FROM message WHERE id = ?",
        "SELECT conversation FROM outbox WHERE id = ?",
    ):
        if (row := db.execute(query, (id,)).fetchone()) and row[0] is not None:
            return int(row[0])
    return None


def _time(ms: int) -> str:
    return from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_json(value: Any) -> str:
    """Return JSON text, the form in which lists are stored, and handed to SQLite's json_each."""
    return json.dumps(list(value) if isinstance(value, set) else value, ensure_ascii=False)
