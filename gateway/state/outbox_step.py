"""What a connection asks of the outbox: a step between two messages, and `sending` before DATA.

A *step* is: record what became of the last message, and claim the next. Both are one unit of work, so a connection
waits for one commit a message, and the steps of all connections share it.

Claims are told apart by the number of the attempt. Whatever changes a recipient later names that number, so a claim
that was overtaken (a person pressed retry while we were still dialling) finds nothing left to begin and sends nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from gateway.state.lifecycle import Event, State, move
from gateway.state.outbox_claim import Claimed, Want, claim
from gateway.state.outbox_record import OURS, Done, record
from gateway.state.raw import chunk_key
from gateway.state.rows import as_values, in_parts


@dataclass(frozen=True, slots=True)
class Step:
    """What a connection asks between two messages. Either half may be absent."""

    done: Done | None = None
    want: Want | None = None


def step(db: sqlite3.Connection, steps: Sequence[Step]) -> Sequence[Claimed | None]:
    """Operation: first record all that is done, then claim for all who want; None where nothing may be tried now."""
    record(db, [each.done for each in steps if each.done is not None])
    wanting: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, each in enumerate(steps):
        if each.want is not None:
            wanting[each.want.touchpoint, each.want.begin].append(index)
    results: list[Claimed | None] = [None] * len(steps)
    for indexes in wanting.values():
        want = steps[indexes[0]].want
        assert want is not None
        for index, claimed in zip(indexes, claim(db, want, len(indexes)), strict=False):
            results[index] = claimed
    return results


# --- begin data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """A claimed message whose DATA is about to be sent. `recipients`: (number, state) of those the provider took."""

    id: int
    attempt: int
    recipients: tuple[tuple[int, State], ...]


def begin_data(db: sqlite3.Connection, items: Sequence[Begin]) -> Sequence[bool]:
    """Operation: `sending`, before DATA. True where all of the recipients are ours to send.

    Where another claim has overtaken this one for even one of them, nothing is begun: the server has taken them all
    in one envelope by now, and they can only be sent together. What a person holds begins nothing either.
    """
    held = _held(db, items)
    rows = [
        (item.id, number, item.attempt, before.value, move(before, Event.DATA_BEGUN))
        for item in items
        if item.id not in held
        for number, before in item.recipients
    ]
    begun: dict[tuple[int, int], int] = defaultdict(int)
    for part, statement in in_parts(_beginning, rows):
        for id, attempt in db.execute(statement, part).fetchall():
            begun[id, attempt] += 1
    whole = [begun[item.id, item.attempt] == len(item.recipients) for item in items]
    undone = [
        (item.id, number, item.attempt, State.SENDING.value, before.value)
        for item, is_whole in zip(items, whole, strict=True)
        if not is_whole
        for number, before in item.recipients
    ]
    for part, statement in in_parts(_beginning, undone):
        db.execute(statement, part).fetchall()
    return whole


def _held(db: sqlite3.Connection, items: Sequence[Begin]) -> set[int]:
    """Return those of the messages that lie in a lane which a person holds."""
    lanes = db.execute("SELECT touchpoint FROM lane WHERE state = 'held' AND cause = 'person'").fetchall()
    if not lanes:
        return set()
    rows = db.execute(
        "SELECT id FROM outbox WHERE id IN (SELECT value FROM json_each(?))"
        " AND touchpoint IN (SELECT value FROM json_each(?))",
        (json.dumps([item.id for item in items]), json.dumps([lane for (lane,) in lanes])),
    )
    return {id for (id,) in rows}


def read_chunk(db: sqlite3.Connection, id: int, number: int) -> bytes | None:
    """Return one chunk of a message, or None behind the last."""
    row = db.execute("SELECT bytes FROM chunk WHERE id = ?", (chunk_key(id, number),)).fetchone()
    return row[0] if row else None


@cache
def _beginning(rows: int) -> str:
    return f"UPDATE recipient SET state = new.column5 FROM {as_values(5, rows)} WHERE {OURS} RETURNING outbox, attempt"
