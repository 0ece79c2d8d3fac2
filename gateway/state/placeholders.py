"""What stands in a queue for a message that could not be fetched, and how the message itself takes its place.

The id stays, for people and other rows know it. With its own header (`headed`) the placeholder was judged and placed
as the message, so only bytes change. Without one (`blind`) nothing was known: the message is judged now, and the
conversation that was made up for it goes, unless somebody has begun to work in it. That a person has released or
confirmed it holds for the message, too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from gateway.model import Arrival, Placeholder, to_ms
from gateway.state import raw
from gateway.state.folders import Place
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many


def replace(db: sqlite3.Connection, message: int, arrival: Arrival, chunks: Sequence[Chunk]) -> bool:
    """For use inside T1: put the message itself under the placeholder's id. Return whether it is to be judged now."""
    raw.rekey(db, arrival.id, message, chunks)
    kind, state, conversation = db.execute(
        "SELECT placeholder, state, conversation FROM message WHERE id = ?", (message,)
    ).fetchone()
    db.execute(
        "UPDATE message SET placeholder = NULL, size = ?, internal_at = ?, fingerprint = ?, object_id = ? WHERE id = ?",
        (arrival.size, to_ms(arrival.internal_at), arrival.fingerprint, arrival.object_id, message),
    )
    db.execute(
        "DELETE FROM unfetched WHERE (touchpoint, folder, uidvalidity, uid) IN"
        " (SELECT touchpoint, folder, uidvalidity, uid FROM location WHERE message = ?)",
        (message,),
    )
    if kind != Placeholder.BLIND:
        return False
    if state == "routed":
        db.execute(
            "UPDATE message SET state = 'arrived', origin = ?, tries = 1, arrived_at = ?, routed_at = NULL,"
            " quarantine = iif(reviewed_at IS NULL, 0, quarantine), discarded = 0, trail = NULL WHERE id = ?",
            (arrival.role.value, to_ms(arrival.arrived_at), message),
        )
        if _is_untouched(db, message, conversation):
            db.execute("UPDATE conversation SET state = 'closed' WHERE id = ?", (conversation,))
            db.execute("DELETE FROM entry WHERE conversation = ?", (conversation,))
            db.execute("UPDATE message SET conversation = NULL WHERE id = ?", (message,))
    return True


def _is_untouched(db: sqlite3.Connection, message: int, conversation: int) -> bool:
    """Has nobody done anything in the conversation of a blind placeholder? Otherwise the message stays there."""
    row = db.execute(
        "SELECT 1 FROM conversation WHERE id = ? AND state IN ('open', 'quarantined') AND owner IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = ? AND id != ?)"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE conversation = ?)",
        (conversation, conversation, message, conversation),
    ).fetchone()
    return row is not None


def place_text(place: Place, uid: int) -> str:
    """Return how a blind placeholder remembers where its message lay: nothing else is known of it."""
    return json.dumps([place.folder, place.uidvalidity, uid])


def stand_again(db: sqlite3.Connection, place: Place, uids: Collection[int]) -> None:
    """For use where the server shows `uids` again that it had said to be gone: the same UID under the same UIDVALIDITY
    is the same message (RFC 9051 §2.3.1.1), so a blind placeholder that stood there stands there once more.
    """
    texts = {place_text(place, uid): uid for uid in uids}
    if not texts:
        return
    rows = db.execute(
        "SELECT stands_for, id FROM message WHERE placeholder = 'blind' AND touchpoint = ?"
        " AND stands_for IN (SELECT value FROM json_each(?))"
        " AND NOT EXISTS (SELECT 1 FROM location WHERE message = message.id)",
        (place.touchpoint, json.dumps(list(texts))),
    ).fetchall()
    insert_many(
        db,
        "INSERT OR IGNORE INTO location (touchpoint, folder, uidvalidity, uid, message)",
        [(*place, texts[text], message) for text, message in rows],
    )
