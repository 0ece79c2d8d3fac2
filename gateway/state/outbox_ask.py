"""What people ask of the outbox: retry, hold, release, cancel, settle. One transaction each.

A message that is held keeps the states of its recipients; they lose their time, and their number of the attempt goes
up, so that a claim which is just dialling finds nothing to begin. What is `sending` is out of reach until its
outcome is recorded: the answer is that it is too late.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.state import doubts, lanes
from gateway.state.doubts import Held
from gateway.state.lanes import Change
from gateway.state.lifecycle import WAITING, LaneEvent, State

_WAITING: Final = ", ".join(f"'{state.value}'" for state in sorted(WAITING))


@dataclass(frozen=True, slots=True)
class Ask:
    """About one message, one touchpoint, or everything (`retry` alone). `now`: ms."""

    now: int
    id: int | None = None
    touchpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """A person knows what became of a message: it was delivered, or it is to be sent again. `now`: ms.

    `recipient`: an address, for that one alone.
    """

    id: int
    delivered: bool
    recipient: str | None
    now: int


@dataclass(frozen=True, slots=True)
class Asked:
    """`recipients`: how many it was done for. `too_late`: addresses that are being sent to at this moment.

    The doorbells of `touchpoints` are to be rung.
    """

    recipients: int
    too_late: tuple[str, ...] = ()
    touchpoints: tuple[str, ...] = ()


# --- retry -----------------------------------------------------------------------------------------------------------


def retry(db: sqlite3.Connection, items: Sequence[Ask]) -> Sequence[Asked]:
    """Operation: make waiting recipients due now, and let a paused or held lane be tried at once.

    A lane that a person holds stays held, and so does a message. The wait that is cut short is taken off the give-up
    clock.
    """
    return [_retry(db, item) for item in items]


def _retry(db: sqlite3.Connection, item: Ask) -> Asked:
    where = "settled_at IS NULL"
    values: list[object] = []
    if item.id is not None:
        where, values = "outbox = ? AND settled_at IS NULL", [item.id]
    elif item.touchpoint is not None:
        where, values = "touchpoint = ? AND settled_at IS NULL", [item.touchpoint]
    rows = db.execute(
        "UPDATE recipient SET waited = max(0, waited - max(0, next_attempt_at - ?)),"
        f" next_attempt_at = min(next_attempt_at, ?) WHERE {where} AND state IN ({_WAITING})"
        " AND next_attempt_at IS NOT NULL RETURNING touchpoint",
        (item.now, item.now, *values),
    ).fetchall()
    touchpoints = sorted({touchpoint for (touchpoint,) in rows})
    shut = [lane for lane in lanes.look(db, touchpoints).values() if lane.until_at is not None]
    lanes.write(db, [lane.put_off(min(lane.until_at or item.now, item.now)) for lane in shut])
    return Asked(len(rows), touchpoints=tuple(touchpoints))


# --- hold and release ------------------------------------------------------------------------------------------------


def hold(db: sqlite3.Connection, items: Sequence[Ask]) -> Sequence[Asked]:
    """Operation: nothing of it is tried until a person releases it: one message, or a touchpoint's whole lane.

    A message of which nothing waits is not held. What is being sent ends as it will; what comes back of it is held.
    The wait that is cut short is taken off the give-up clock, as by `retry`.
    """
    return [_hold(db, item) if item.id is not None else _hold_lane(db, item) for item in items]


def _hold(db: sqlite3.Connection, item: Ask) -> Asked:
    if _held(db, item.id) is not None:
        return Asked(0)
    open_ = _open(db, item.id)
    waiting = [one for one in open_ if one.state in WAITING]
    if waiting:
        db.execute("UPDATE outbox SET held = ? WHERE id = ?", (Held.PERSON.value, item.id))
        db.execute(
            "UPDATE recipient SET waited = max(0, waited - max(0, coalesce(next_attempt_at, 0) - ?)),"
            f" next_attempt_at = NULL, attempt = attempt + 1 WHERE outbox = ? AND state IN ({_WAITING})",
            (item.now, item.id),
        )
    return Asked(len(waiting), _sending(open_))


def _hold_lane(db: sqlite3.Connection, item: Ask) -> Asked:
    assert item.touchpoint is not None
    lanes.change(db, [Change(item.touchpoint, LaneEvent.PERSON_HOLDS, item.now, detail="held by a person")])
    sending = [
        address
        for (address,) in db.execute(
            "SELECT address FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL AND touchpoint = ?"
            " AND state = 'sending' ORDER BY outbox, number",
            (item.touchpoint,),
        )
    ]
    return Asked(_count_waiting(db, item.touchpoint), tuple(sending), (item.touchpoint,))


def release(db: sqlite3.Connection, items: Sequence[Ask]) -> Sequence[Asked]:
    """Operation: what was held may be tried, a message at once, whoever held it; a lane opens, whatever shut it."""
    return [_release(db, item) if item.id is not None else _release_lane(db, item) for item in items]


def _release(db: sqlite3.Connection, item: Ask) -> Asked:
    assert item.id is not None
    if _held(db, item.id) is None:
        return Asked(0)
    db.execute("UPDATE outbox SET held = NULL WHERE id = ?", (item.id,))
    waiting = [one for one in _open(db, item.id) if one.state in WAITING]
    doubts.forget(db, [(item.id, one.number) for one in waiting])
    return Asked(doubts.make_due(db, item.id, item.now), touchpoints=_touchpoint(db, item.id))


def _release_lane(db: sqlite3.Connection, item: Ask) -> Asked:
    assert item.touchpoint is not None
    lanes.change(db, [Change(item.touchpoint, LaneEvent.PERSON_RELEASES, item.now)])
    return Asked(_count_waiting(db, item.touchpoint), touchpoints=(item.touchpoint,))


# --- cancel ----------------------------------------------------------------------------------------------------------


def cancel(db: sqlite3.Connection, items: Sequence[Ask]) -> Sequence[Asked]:
    """Operation: it is not sent, and nobody is told: of a message what waits or is uncertain, of a touchpoint what
    waits. What is being sent is out of reach.
    """
    return [_cancel(db, item) for item in items]


def _cancel(db: sqlite3.Connection, item: Ask) -> Asked:
    value: int | str
    too_late: tuple[str, ...] = ()
    touchpoints: tuple[str, ...] = ()
    if item.id is not None:
        where, value = "outbox = ? AND state != 'sending'", item.id
        too_late, touchpoints = _sending(_open(db, item.id)), _touchpoint(db, item.id)
    else:
        assert item.touchpoint is not None
        where, value = f"touchpoint = ? AND state IN ({_WAITING})", item.touchpoint
        touchpoints = (item.touchpoint,)
    rows = db.execute(
        "UPDATE recipient SET state = ?, attempt = attempt + 1, next_attempt_at = NULL, settled_at = ?, reply = ?"
        f" WHERE settled_at IS NULL AND {where} RETURNING outbox, number",
        (State.CANCELLED.value, item.now, "cancelled by a person", value),
    ).fetchall()
    doubts.forget(db, rows)
    ids = json.dumps(list({id for id, _ in rows}))
    db.execute(
        "UPDATE outbox SET held = NULL WHERE held IS NOT NULL AND id IN (SELECT value FROM json_each(?))", (ids,)
    )
    return Asked(len(rows), too_late, touchpoints)


# --- settle ----------------------------------------------------------------------------------------------------------


def settle(db: sqlite3.Connection, items: Sequence[Settle]) -> Sequence[Asked]:
    """Operation: a person decides what is uncertain, and what waits in a store that was restored and may have left
    since: it was delivered, or it is to be sent.
    """
    return [_settle(db, item) for item in items]


def _settle(db: sqlite3.Connection, item: Settle) -> Asked:
    open_ = [
        one for one in _open(db, item.id) if item.recipient is None or one.address.lower() == item.recipient.lower()
    ]
    chosen = [(one.number, one.state) for one in open_ if one.in_doubt or one.state is State.UNCERTAIN]
    if chosen:
        said = "delivered, says a person" if item.delivered else "sent again, as a person wants it"
        doubts.decide(db, item.id, chosen, item.delivered, item.now, said)
    return Asked(len(chosen), _sending(open_), _touchpoint(db, item.id))


# --- all of them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Open:
    number: int
    address: str
    state: State
    in_doubt: bool


def _open(db: sqlite3.Connection, id: int | None) -> list[_Open]:
    rows = db.execute(
        "SELECT recipient.number, address, state, why IS NOT NULL FROM recipient LEFT JOIN doubt USING (outbox, number)"
        " WHERE outbox = ? AND settled_at IS NULL ORDER BY recipient.number",
        (id,),
    )
    return [_Open(number, address, State(state), bool(in_doubt)) for number, address, state, in_doubt in rows]


def _sending(recipients: Sequence[_Open]) -> tuple[str, ...]:
    return tuple(one.address for one in recipients if one.state is State.SENDING)


def _held(db: sqlite3.Connection, id: int | None) -> Held | None:
    row = db.execute("SELECT held FROM outbox WHERE id = ?", (id,)).fetchone()
    return Held(row[0]) if row and row[0] else None


def _touchpoint(db: sqlite3.Connection, id: int) -> tuple[str, ...]:
    return tuple(found for (found,) in db.execute("SELECT touchpoint FROM outbox WHERE id = ?", (id,)))


def _count_waiting(db: sqlite3.Connection, touchpoint: str) -> int:
    (count,) = db.execute(
        "SELECT count(*) FROM recipient INDEXED BY recipient_open WHERE settled_at IS NULL AND touchpoint = ?"
        f" AND next_attempt_at IS NOT NULL AND state IN ({_WAITING})",  # those of messages that are held have none
        (touchpoint,),
    ).fetchone()
    return int(count)
