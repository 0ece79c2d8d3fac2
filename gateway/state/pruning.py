"""What is let go of after its time. The ledger of ids stays, so that nothing comes in a second time."""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from gateway.model import id_at
from gateway.state.quarantine import BY_JUNK
from gateway.state.store import each

TOGETHER: Final = 50  # messages of one transaction
_TOGETHER_BYTES: Final = 16_000_000


@each
def prune_quarantine(db: sqlite3.Connection, times: tuple[int, int]) -> int:
    """Operation: take the bytes of messages that have been in quarantine since before a time, looked at or not, and
    their places in queues. Item: that time, and now (ms). Return how many, 0 when there are no more.

    A judgement begins the time anew, and one that the scanner has not heard of yet keeps its message. What was there
    only for the provider's Junk is no longer known by what it looks like: who takes it out of Junk wants it, and then
    it arrives like new mail.
    """
    before, now = times
    rows = db.execute(
        "SELECT id, size, conversation FROM message INDEXED BY message_quarantined"
        " WHERE quarantine != 0 AND pruned_at IS NULL AND id <= ? AND state = 'routed' AND placeholder IS NULL"
        " AND coalesce(reviewed_at, 0) < ? AND NOT EXISTS (SELECT 1 FROM lesson WHERE message = message.id)"
        " ORDER BY id LIMIT ?",
        (id_at(before), before, TOGETHER),
    ).fetchall()
    ids: list[int] = []
    size = 0
    for id, bytes, _ in rows:
        if ids and size + bytes > _TOGETHER_BYTES:
            break
        ids.append(id)
        size += bytes
    if not ids:
        return 0
    wanted = json.dumps(ids)
    among = "IN (SELECT value FROM json_each(?))"
    db.execute(
        "DELETE FROM chunk WHERE id IN (SELECT chunk.id FROM json_each(?) AS pruned CROSS JOIN chunk"
        " ON chunk.id BETWEEN pruned.value << 16 AND (pruned.value << 16) + 65535)",
        (wanted,),
    )
    db.execute(f"UPDATE message SET pruned_at = ? WHERE id {among}", (now, wanted))
    db.execute(
        f"UPDATE message SET fingerprint = 0, object_id = NULL WHERE id {among} AND quarantine = ?", (wanted, BY_JUNK)
    )
    empty = [
        conversation
        for (conversation,) in db.execute(
            f"SELECT id FROM conversation WHERE state = 'quarantined' AND id {among}"
            " AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = conversation.id AND pruned_at IS NULL)",
            (json.dumps([conversation for id, _, conversation in rows if id in ids]),),
        )
    ]
    db.execute(f"UPDATE conversation SET state = 'closed' WHERE id {among}", (json.dumps(empty),))
    db.execute(f"DELETE FROM entry WHERE conversation {among}", (json.dumps(empty),))
    return len(ids)
