"""One attempt after another on a store, as a connection makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.model import from_ms, to_ms
from gateway.state import outbox
from gateway.state.lifecycle import Event, State
from gateway.state.outbox import Begin, Claimed, Done, Fated, Step, Want
from gateway.state.store import Store
from tests.support import outgoing
from tests.support.outgoing import TOUCHPOINT

NOW = to_ms(datetime.now(UTC))
MINUTE = 60_000
BACKOFFS = (MINUTE, 5 * MINUTE, 15 * MINUTE)
WANT = Want(TOUCHPOINT, NOW + 1_000, BACKOFFS)


def accept(store: Store, *recipients: str, **changes: Any) -> int:
    return outgoing.accept(store, *recipients, **{"at": from_ms(NOW), **changes})


def claim(store: Store, want: Want = WANT) -> Claimed | None:
    return store.submit(outbox.step, Step(None, want)).result(10)


def claimed(store: Store, want: Want = WANT) -> Claimed:
    found = claim(store, want)
    assert found is not None
    return found


def begin(store: Store, of: Claimed, *numbers: int) -> bool:
    rows = tuple((r.number, r.before) for r in of.recipients if not numbers or r.number in numbers)
    return store.submit(outbox.begin_data, Begin(of.id, of.attempt, rows)).result(10)


def sending(store: Store, want: Want = WANT) -> Claimed:
    """Claim the next message; its recipients are `sending`."""
    found = claimed(store, want)
    assert begin(store, found)
    return found


def done(of: Claimed, event: Event, *, before: State = State.SENDING, **changes: Any) -> Done:
    fated = tuple(
        Fated(r.number, before, event, f"said {event}", changes.pop("due", None), changes.pop("waited", 0))
        for r in of.recipients
    )
    return Done(of.id, of.touchpoint, of.attempt, of.kind, fated, NOW + 2_000, **changes)


def record(store: Store, ended: Done, want: Want | None = None) -> Claimed | None:
    return store.submit(outbox.step, Step(ended, want)).result(10)


def shown(store: Store, id: int) -> dict[str, Any]:
    found = store.read(outbox.show_outbox, id).result(10)
    assert found is not None
    return found
