"""Messages that have been judged, with what the verdict rested on: for judging them again, elsewhere.

Only headers leave the store here, and what was found out beyond them. Who judges again does it in a process of their
own, so that no mail waits for it.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from typing import Any, Final

from gateway.mime.scan import HEADER_LIMIT
from gateway.model import from_ms, show_id

PAGE: Final = 100  # messages of one look
PAGE_BYTES: Final = 512 * 1024  # of headers, in base64: an answer is made on the thread that mail waits for

_JUDGED: Final = (
    "SELECT message.id, message.touchpoint, origin, state, size, internal_at, routed_at, placeholder, subject, sender,"
    " class, conversation, quarantine, reviewed_at, discarded, trail, findings, first_at, chunk.bytes"
    " FROM message LEFT JOIN chunk ON chunk.id = message.id << 16"
    " LEFT JOIN correspondent ON correspondent.touchpoint = message.touchpoint AND address = lower(sender)"
    " WHERE origin IN ('queue', 'junk')"
)


def find(db: sqlite3.Connection, id: int) -> dict[str, Any] | None:
    """Return the message with this id as `page` does, also one that waits to be routed; None where it is none that
    came in.
    """
    row = db.execute(f"{_JUDGED} AND message.id = ?", (id,)).fetchone()
    return None if row is None else _shown(db, row)


def of_conversation(db: sqlite3.Connection, conversation: int) -> list[int]:
    """Return the ids of the messages that came into a conversation, the oldest first."""
    query = "SELECT id FROM message WHERE conversation = ? AND origin IN ('queue', 'junk') ORDER BY id"
    return [id for (id,) in db.execute(query, (conversation,))]


def page(db: sqlite3.Connection, after: int) -> list[dict[str, Any]]:
    """Return messages that have been routed, from behind the id `after`, the oldest first; none behind the last.

    `head`: the header in base64, None where the bytes are no longer kept. `known_since`: when the sender was first met
    (ms). `findings`, `trail`: as they are stored.
    """
    found: list[dict[str, Any]] = []
    size = 0
    rows = db.execute(f"{_JUDGED} AND message.id > ? AND state = 'routed' ORDER BY message.id LIMIT ?", (after, PAGE))
    for row in rows:
        found.append(_shown(db, row))
        size += len(found[-1]["head"] or "")
        if size > PAGE_BYTES:
            break
    return found


def known_since(db: sqlite3.Connection, touchpoint: str, address: str) -> int | None:
    """Return when this address was first met at a touchpoint (ms)."""
    query = "SELECT first_at FROM correspondent WHERE touchpoint = ? AND address = ?"
    row = db.execute(query, (touchpoint, address.lower())).fetchone()
    return None if row is None else int(row[0])


def _shown(db: sqlite3.Connection, row: tuple[Any, ...]) -> dict[str, Any]:
    id, touchpoint, origin, state, size, internal_at, routed_at, placeholder, subject, sender, *rest = row
    message_class, conversation, quarantine, reviewed_at, discarded, trail, findings, first_at, chunk = rest
    return {
        "id": show_id(id),
        "touchpoint": touchpoint,
        "is_junk": origin == "junk",
        "is_routed": state == "routed",
        "size": size,
        "at": _time(internal_at),
        "routed_at": _time(routed_at),
        "placeholder": placeholder,
        "subject": subject,
        "from": sender or None,
        "class": message_class,
        "conversation": None if conversation is None else show_id(conversation),
        "quarantined": bool(quarantine),
        "reviewed_at": _time(reviewed_at),
        "discarded": bool(discarded),
        "trail": json.loads(trail or "[]"),
        "findings": findings,
        "known_since": first_at,
        "head": None if chunk is None else base64.b64encode(_head(db, id, chunk, size)).decode(),
    }


def _head(db: sqlite3.Connection, id: int, chunk: bytes, size: int) -> bytes:
    """Return what the scanner of headers sees of a message, without the body behind it."""
    ends = [end + len(gap) for gap in (b"\n\r\n", b"\n\n") if (end := chunk.find(gap)) >= 0]
    if ends:
        return chunk[: min(ends)]
    if len(chunk) < size:  # so that it sees that there is more
        row = db.execute("SELECT substr(bytes, 1, 3) FROM chunk WHERE id = ?", ((id << 16) + 1,)).fetchone()
        chunk += row[0] if row else b""
    return chunk[: HEADER_LIMIT + 3]


def _time(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
