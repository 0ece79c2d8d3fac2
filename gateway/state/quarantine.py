"""Mail that is kept from the queues until a person has looked: listed, released, confirmed.

A message is in quarantine for our reasons (lists, rules) or only because the provider put it into Junk. The second
kind is let go also by taking it out of Junk at the provider. Either way its conversation goes on as if the message
had come now: it has its places in queues already, they just did not show it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.model import FilingAction, MessageClass, Verdict, from_ms, show_id
from gateway.rules.chain import IN_JUNK
from gateway.rules.conversation import follow
from gateway.state import correspondents, filings, lessons
from gateway.state.conversations import as_json, load
from gateway.state.store import each

BY_US: Final = 1
BY_JUNK: Final = 2  # for no other reason than that it lies in the provider's Junk

# What a person let through: neither in quarantine nor discarded. Its class and queues play no part.
_LET_THROUGH: Final = Verdict(MessageClass.HUMAN, ())


def list_quarantine(
    db: sqlite3.Connection, include_settled: bool = False, limit: int | None = None
) -> list[dict[str, Any]]:
    """Return messages in quarantine as `quarantine list --json` shows them, the newest first. Settled: confirmed."""
    unsettled = "" if include_settled else " AND reviewed_at IS NULL"
    rows = db.execute(
        "SELECT id, conversation, touchpoint, sender, sender_name, subject, internal_at, quarantine, trail, size,"
        " reviewed_at FROM message INDEXED BY message_quarantined"
        f" WHERE quarantine != 0 AND pruned_at IS NULL{unsettled}"
        " ORDER BY id DESC LIMIT ?",
        (-1 if limit is None else limit,),
    ).fetchall()
    folders = dict(
        db.execute(
            "SELECT message, min(folder) FROM location WHERE message IN (SELECT value FROM json_each(?))"
            " GROUP BY message",
            (as_json([row[0] for row in rows]),),
        )
    )
    return [
        {
            "id": show_id(row[0]),
            "conversation": None if row[1] is None else show_id(row[1]),  # none while it is judged again
            "touchpoint": row[2],
            "from": row[3] or None,
            "from_name": row[4] or None,
            "subject": row[5],
            "at": _time(row[6]),
            "cause": _cause(row[7], row[8]),
            "folder": folders.get(row[0]),
            "size": row[9],
            "reviewed_at": _time(row[10]),
        }
        for row in rows
    ]


def _cause(kind: int, trail: str | None) -> str:
    """Return the last step that said so; of what is ours, not that it also lies in Junk."""
    for step in reversed(json.loads(trail or "[]")):
        if "quarantine" in step["verdict"].split(", ") and (kind == BY_JUNK or step["detail"] != IN_JUNK):
            return f"{step['step']}: {step['detail']}"
    return IN_JUNK if kind == BY_JUNK else "a list or a rule"


def _time(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Review:
    """A person has looked. `id`: of a message, or of a conversation and so of all its messages in quarantine.

    `at`: milliseconds.
    """

    id: int
    at: int


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What changed: nothing where all is empty. `queues` show something new; in `touchpoints` something is to be done
    at the provider.
    """

    messages: tuple[int, ...] = ()
    conversations: tuple[int, ...] = ()
    queues: tuple[str, ...] = ()
    touchpoints: tuple[str, ...] = ()


@each
def release(db: sqlite3.Connection, review: Review) -> Reviewed:
    """Operation: into the queues with it, and out of Junk at the provider; the scanner is to learn of it."""
    found = _in_quarantine(db, review.id, "")
    if not found:
        return Reviewed()
    ids = [id for id, _, _ in found]
    conversations, queues = let_go(db, ids, review.at)
    filings.drop(db, FilingAction.JUNK, ids)
    stirred = _file(db, found, FilingAction.RELEASE, "junk", review.at)
    lessons.add(db, ids, is_spam=False, at=review.at)
    return Reviewed(tuple(ids), conversations, queues, stirred)


@each
def confirm(db: sqlite3.Connection, review: Review) -> Reviewed:
    """Operation: it stays where nobody sees it, and goes into Junk at the provider; the scanner is to learn of it."""
    found = _in_quarantine(db, review.id, " AND reviewed_at IS NULL")
    if not found:
        return Reviewed()
    ids = [id for id, _, _ in found]
    db.execute(
        "UPDATE message SET reviewed_at = ? WHERE id IN (SELECT value FROM json_each(?))", (review.at, as_json(ids))
    )
    filings.drop(db, FilingAction.RELEASE, ids)
    stirred = _file(db, found, FilingAction.JUNK, "queue", review.at)
    lessons.add(db, ids, is_spam=True, at=review.at)
    return Reviewed(tuple(ids), tuple(dict.fromkeys(conversation for _, conversation, _ in found)), (), stirred)


def let_go(db: sqlite3.Connection, ids: Sequence[int], at: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """For use inside other operations: these are in quarantine no more. Return their conversations and queues.

    `after_fetch` is not done with them, whoever has let them go: they were fetched long ago.
    """
    rows = db.execute(
        "UPDATE message SET quarantine = 0, reviewed_at = ? WHERE quarantine != 0 AND pruned_at IS NULL"
        " AND id IN (SELECT value FROM json_each(?)) RETURNING conversation, internal_at, discarded,"
        " touchpoint, sender, class",
        (at, as_json(ids)),
    ).fetchall()
    correspondents.note(db, [(row[3], row[4] or "", at) for row in rows if row[5] == MessageClass.HUMAN and not row[2]])
    known = load(db, {row[0] for row in rows if row[0] is not None})
    for conversation, internal_at, discarded, *_ in rows:
        if (one := known.get(conversation)) and not discarded:
            one.state = follow(one.state, one.owner, _LET_THROUGH, is_reopening=True)
            one.last_at = max(one.last_at, internal_at)
    db.executemany(
        "UPDATE conversation SET state = ?, last_at = ? WHERE id = ?",
        [(one.state.value, one.last_at, one.id) for one in known.values()],
    )
    return tuple(known), tuple(sorted({queue for one in known.values() for queue in one.queues}))


def _in_quarantine(db: sqlite3.Connection, id: int, condition: str) -> list[tuple[int, int, str]]:
    """Return (id, conversation, touchpoint) of the messages that `id` names and that are in quarantine."""
    for column in ("id", "conversation"):
        rows = db.execute(
            f"SELECT id, conversation, touchpoint FROM message WHERE {column} = ? AND quarantine != 0"
            f" AND pruned_at IS NULL{condition} ORDER BY id",
            (id,),
        ).fetchall()
        if rows:
            return rows
    return []


def _file(
    db: sqlite3.Connection, found: Sequence[tuple[int, int, str]], action: FilingAction, role: str, at: int
) -> tuple[str, ...]:
    """Have those filed that lie in a folder of that role; return their touchpoints."""
    lying = {
        message
        for (message,) in db.execute(
            "SELECT message FROM location JOIN folder USING (touchpoint, folder, uidvalidity)"
            " WHERE role = ? AND message IN (SELECT value FROM json_each(?))",
            (role, as_json([id for id, _, _ in found])),
        )
    }
    filed = [(id, touchpoint) for id, _, touchpoint in found if id in lying]
    filings.add(db, [(id, action, touchpoint, "", at) for id, touchpoint in filed])
    return tuple(sorted({touchpoint for _, touchpoint in filed}))
