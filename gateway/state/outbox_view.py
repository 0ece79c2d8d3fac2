"""The outbox as people see it: `outbox list`, `outbox show`, the numbers of `status`.

The rows say what became of the mail; the lane and the configuration say what it waits for. Here they are put together,
and only here: no row is ever rewritten because a lane was shut.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.model import from_ms, read_id, show_id
from gateway.state import lanes
from gateway.state.doubts import Held
from gateway.state.lifecycle import PERSON, WAITING, LaneState, State
from gateway.state.rows import padded

Stopped = Callable[[str], str | None]

_CAUSES: Final = {
    Held.PERSON: "held by a person",
    Held.RESTORED: "held since the store was restored from a backup: it may have been sent since that was made",
}


def list_outbox(
    db: sqlite3.Connection,
    include_settled: bool = False,
    limit: int | None = None,
    stopped: Stopped = lambda touchpoint: None,
) -> list[dict[str, Any]]:
    """Return messages as `outbox list --json` shows them, oldest first; `limit` keeps the newest.

    `stopped`: why a touchpoint is not running, None where it is; the mail of one that is not shows as held.
    """
    source = (
        "SELECT id FROM outbox"
        if include_settled
        else "SELECT DISTINCT outbox AS id FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL"
    )
    values: tuple[int, ...] = ()
    if limit is not None:
        source, values = f"{source} ORDER BY id DESC LIMIT ?", (limit,)
    return _show(db, f"outbox.id IN ({source})", values, stopped)


def show_outbox(
    db: sqlite3.Connection, id: int | str, stopped: Stopped = lambda touchpoint: None
) -> dict[str, Any] | None:
    """Return one message in the shape of `list_outbox`, or None when there is no such id."""
    number = read_id(id) if isinstance(id, str) else id
    found = _show(db, "outbox.id = ?", (number or 0,), stopped)
    return found[0] if found else None


def count_open(db: sqlite3.Connection, stopped: Stopped = lambda touchpoint: None) -> dict[str, dict[str, int]]:
    """Return recipients by touchpoint and state, for `status`: queued, sending, deferred, held, uncertain."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    known = lanes.look_at_all(db)
    for touchpoint, state, has_time, count in db.execute(
        "SELECT touchpoint, state, next_attempt_at IS NOT NULL, count(*) FROM recipient INDEXED BY recipient_open"
        " WHERE settled_at IS NULL GROUP BY 1, 2, 3"
    ):
        held = None if has_time else Held.PERSON  # by whomever: what waits has a time unless its message is held
        shown, _, _ = _shown(State(state), None, held, known.get(touchpoint), stopped(touchpoint))
        counts[touchpoint][shown] += count
    return {touchpoint: dict(found) for touchpoint, found in counts.items()}


def count_unsigned(db: sqlite3.Connection) -> dict[str, int]:
    """Return by touchpoint how many messages, of those that are kept, went without the signature they should have."""
    return dict(
        db.execute(
            "SELECT touchpoint, count(*) FROM outbox INDEXED BY outbox_unsigned"
            " WHERE signature NOT IN ('', 'placed', 'present', 'earlier') GROUP BY touchpoint"
        ).fetchall()
    )


def is_signed_already(db: sqlite3.Connection, keys: Sequence[int]) -> bool:
    """Has the conversation that these thread keys belong to a message with the signature that somebody got, or may
    still get?"""
    marks, values = padded(keys)
    row = db.execute(
        "WITH given (id) AS (SELECT outbox.id FROM thread"
        " CROSS JOIN outbox ON outbox.conversation = thread.conversation"
        f" WHERE thread.key IN ({marks}) AND outbox.signature IN ('placed', 'present')"
        f" UNION ALL SELECT outbox FROM signed WHERE key IN ({marks}))"
        " SELECT 1 FROM given WHERE EXISTS (SELECT 1 FROM recipient WHERE recipient.outbox = given.id"
        " AND state NOT IN ('refused', 'expired', 'cancelled')) LIMIT 1",
        (*values, *values),
    ).fetchone()
    return row is not None


def _show(db: sqlite3.Connection, where: str, values: tuple[int, ...], stopped: Stopped) -> list[dict[str, Any]]:
    known = lanes.look_at_all(db)
    messages: dict[int, dict[str, Any]] = {}
    rows = db.execute(
        "SELECT outbox.id, outbox.touchpoint, agent, message_id, subject, accepted_at, held, address, state, attempts,"
        " next_attempt_at, reply, doubt.next_at, looks, bounced.text, signature"
        " FROM outbox JOIN recipient ON recipient.outbox = outbox.id"
        " LEFT JOIN bounced ON bounced.outbox = outbox.id AND bounced.number = recipient.number"
        " LEFT JOIN doubt ON doubt.outbox = outbox.id AND doubt.number = recipient.number"
        f" WHERE {where} ORDER BY outbox.id, recipient.number",
        values,
    )
    for id, touchpoint, agent, message_id, subject, accepted_at, holder, *rest in rows:
        address, state, attempts, next_at, reply, look_at, looks, bounced, signature = rest
        held = None if holder is None else Held(holder)
        message = messages.get(id)
        if message is None:
            message = messages[id] = {
                "id": show_id(id),
                "touchpoint": touchpoint,
                "agent": agent,
                "message_id": message_id,
                "subject": subject,
                "accepted_at": _rfc3339(accepted_at),
                "cause": None,
                "recipients": [],
                "held": held,
                "signature": signature or None,
            }
        shown, next_at, cause = _shown(State(state), next_at, held, known.get(touchpoint), stopped(touchpoint))
        if message["cause"] is None and state not in (State.DELIVERED, State.CANCELLED):
            message["cause"] = cause or reply
        message["recipients"].append(
            {
                "address": address,
                "state": shown,
                "attempts": attempts,
                "next_attempt_at": _rfc3339(next_at),
                "reply": reply,
                "next_look_at": _rfc3339(look_at),
                "looks": looks,
                "bounced": bounced,
            }
        )
    return list(messages.values())


def _shown(
    state: State, next_at: int | None, held: Held | None, lane: lanes.Lane | None, stopped: str | None
) -> tuple[str, int | None, str | None]:
    """Return state, next attempt and cause as people see them: a message that is held, and a lane that is not open,
    stand before what waits in them."""
    if state not in WAITING:
        return state.value, next_at, None
    if stopped is not None:
        return "held", None, stopped
    if held is not None:
        return "held", None, _CAUSES[held]
    if lane is None or lane.is_open:
        return state.value, next_at, None
    cause = lane.cause if lane.detail is None else f"{lane.cause}: {lane.detail}"
    if lane.cause == PERSON:
        return "held", None, lane.detail or "held by a person"
    if next_at is not None and lane.until_at is not None:
        next_at = max(next_at, lane.until_at)
    return "held" if lane.state is LaneState.HELD else State.DEFERRED.value, next_at, cause


def _rfc3339(at: int | None) -> str | None:
    return None if at is None else from_ms(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
