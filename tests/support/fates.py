"""Outgoing mail whose fate is known, or is not: for tests of what lies in the provider's Sent folder."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.mime.trace import compose_trace
from gateway.state import outbox
from gateway.state.lifecycle import Event, State
from gateway.state.outbox import Begin, Claimed, Done, Fated, Step, Want
from gateway.state.store import Store
from tests.support import outgoing
from tests.support.outgoing import accept, raw_of

TOUCHPOINT = outgoing.TOUCHPOINT
HOST = "gw.example"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def claim(store: Store, at: int) -> Claimed:
    """Claim what is due; it is `sending` then, to all."""
    claimed = store.submit(outbox.step, Step(want=Want(TOUCHPOINT, at, (0,), begin=True))).result(10)
    assert claimed is not None
    if not claimed.begun:
        rows = tuple((one.number, one.before) for one in claimed.recipients)
        assert store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows)).result(10)
    return claimed


def cut(store: Store, at: int) -> None:
    """What is `sending` is uncertain from now on; its first look is due a minute later."""
    assert store.submit(outbox.recover, at).result(10)


def record(store: Store, claimed: Claimed, events: Sequence[Event], at: int, *, copies: bool = False) -> None:
    """Record what became of each recipient of a claim."""
    fated = tuple(
        Fated(one.number, State.SENDING, event, "250 ok", at if event is Event.PUT_OFF else None)
        for one, event in zip(claimed.recipients, events, strict=True)
    )
    done = Done(claimed.id, TOUCHPOINT, claimed.attempt, claimed.kind, fated, at, counted=True, copies=copies)
    store.submit(outbox.step, Step(done=done)).result(10)


def send(store: Store, *recipients: str, at: int, copies: bool = False, **about: object) -> int:
    """Accept a message and deliver it to all, in attempt 1; return its id."""
    id = accept(store, *recipients, **about)  # type: ignore[arg-type]  # checked there
    deliver(store, id, at=at, copies=copies)
    return id


def deliver(store: Store, id: int, *, at: int, copies: bool = False) -> None:
    claimed = claim(store, now_ms() + 10)
    assert claimed.id == id
    record(store, claimed, [Event.ACCEPTED] * len(claimed.recipients), at, copies=copies)


def lose(store: Store, *recipients: str, ago: int = 120, **about: object) -> int:
    """Accept a message and have its attempt 1 cut behind the dot, so many seconds ago; return its id."""
    at = now_ms() - 1000 * ago
    id = accept(store, *recipients, **about)  # type: ignore[arg-type]  # as above
    store.submit(_date_back, (id, at)).result(10)
    claimed = claim(store, at)
    assert claimed.id == id
    cut(store, at)
    return id


def copy_of(id: int, attempt: int, at: int, raw: bytes | None = None) -> bytes:
    """Return what the provider files of an attempt."""
    return compose_trace(HOST, id, attempt, at) + (raw or raw_of(id))


def _date_back(db: object, items: Sequence[tuple[int, int]]) -> Sequence[None]:
    for id, at in items:
        db.execute("UPDATE recipient SET next_attempt_at = ? WHERE outbox = ?", (at, id))  # type: ignore[attr-defined]  # a connection
    return [None] * len(items)


def fates(store: Store, id: int) -> dict[str, str]:
    """Return the state of each recipient by address."""

    def read(db: object) -> dict[str, str]:
        return dict(db.execute("SELECT address, state FROM recipient WHERE outbox = ?", (id,)))  # type: ignore[attr-defined]  # as above

    return store.read(read).result(10)
