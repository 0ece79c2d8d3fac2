"""What people ask of the outbox: hold, release, cancel and settle, also while claims are under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import OutboxKind
from gateway.state import doubts, lanes, outbox
from gateway.state.doubts import Why
from gateway.state.lifecycle import Event, LaneEvent, LaneState, State
from gateway.state.outbox import Ask, Asked, Done, Fated, Settle
from gateway.state.store import Operation, Store, each
from tests.support.attempts import MINUTE, NOW, WANT, accept, begin, claim, claimed, done, record, sending, shown
from tests.support.outgoing import TOUCHPOINT, states

LATER = replace(WANT, now=NOW + 10**9)
TWO = ("b@clients.example", "c@clients.example")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "gateway.db")
    yield store
    store.close()


def ask(
    store: Store, what: Operation[Ask, Asked], id: int | None = None, *, touchpoint: str | None = None, now: int = NOW
) -> Asked:
    return store.submit(what, Ask(now, id, touchpoint)).result(10)


def settle(store: Store, id: int, delivered: bool, recipient: str | None = None) -> Asked:
    return store.submit(outbox.settle, Settle(id, delivered, recipient, NOW)).result(10)


def doubted(store: Store) -> list[tuple[int, int, Why, int]]:
    found = store.read(doubts.due, TOUCHPOINT, NOW + 10**9).result(10)
    return [(one.outbox, one.number, one.why, one.attempt) for one in found]


def uncertain(store: Store, *recipients: str) -> int:
    id = accept(store, *recipients)
    record(store, done(sending(store), Event.INTERRUPTED))
    return id


@each
def restore(db: Any, id: int) -> None:
    """As a store looks that was restored: nobody knows whether this message has left since."""
    db.execute("UPDATE outbox SET held = 'restored' WHERE id = ?", (id,))
    db.execute(
        "INSERT OR REPLACE INTO doubt SELECT outbox, number, touchpoint, 'restored', attempt, ?, 0, NULL, ?"
        " FROM recipient WHERE outbox = ? AND settled_at IS NULL",
        (NOW, NOW, id),
    )
    db.execute(
        "UPDATE recipient SET attempt = attempt + 1000, next_attempt_at = NULL WHERE outbox = ? AND settled_at IS NULL",
        (id,),
    )


# --- hold and release ------------------------------------------------------------------------------------------------


def test_a_message_that_is_held_is_not_tried_and_says_who_holds_it(store: Store) -> None:
    id = accept(store, *TWO)
    assert ask(store, outbox.hold, id) == Asked(2)
    assert claim(store, LATER) is None
    assert (states(store, id), shown(store, id)["cause"]) == (["held", "held"], "held by a person")
    assert store.read(outbox.count_open).result(10) == {TOUCHPOINT: {"held": 2}}
    assert store.read(outbox.outlook, TOUCHPOINT, NOW, None).result(10).due_at is None
    assert ask(store, outbox.hold, id) == Asked(0)


def test_a_message_that_is_held_does_not_keep_others(store: Store) -> None:
    held, free = accept(store), accept(store)
    ask(store, outbox.hold, held)
    assert claimed(store).id == free


def test_a_claim_that_was_dialling_finds_nothing_to_begin_once_a_person_holds(store: Store) -> None:
    id = accept(store)
    dialling = claimed(store)
    ask(store, outbox.hold, id)
    assert not begin(store, dialling)
    record(store, done(dialling, Event.PUT_OFF, before=State.QUEUED, due=NOW))
    assert states(store, id) == ["held"]
    assert claim(store, LATER) is None


def test_a_claim_that_was_dialling_finds_nothing_to_begin_once_a_person_holds_the_lane(store: Store) -> None:
    accept(store), accept(store, touchpoint="billing")
    dialling, other = claimed(store), claimed(store, replace(WANT, touchpoint="billing"))
    assert ask(store, outbox.hold, touchpoint=TOUCHPOINT) == Asked(1, (), (TOUCHPOINT,))
    assert not begin(store, dialling)
    assert begin(store, other)
    record(store, done(dialling, Event.PUT_OFF, before=State.QUEUED, due=NOW))
    assert claim(store, LATER) is None
    assert ask(store, outbox.release, touchpoint=TOUCHPOINT).recipients == 1
    assert claimed(store, LATER).attempt == 2


def test_what_is_released_is_due_at_once_under_a_new_number(store: Store) -> None:
    id = accept(store, *TWO)
    first = claimed(store)
    ask(store, outbox.hold, id)
    assert ask(store, outbox.release, id) == Asked(2, (), (TOUCHPOINT,))
    again = claimed(store)
    assert again.attempt > first.attempt
    assert not begin(store, first)
    assert begin(store, again)
    assert ask(store, outbox.release, id) == Asked(0)


def test_holding_what_is_being_sent_is_too_late(store: Store) -> None:
    id = accept(store, *TWO)
    sending(store)
    assert ask(store, outbox.hold, id) == Asked(0, TWO)
    assert shown(store, id)["held"] is None


def test_what_comes_back_of_a_message_that_is_held_is_held(store: Store) -> None:
    id = accept(store, *TWO)
    one = claimed(store)
    assert begin(store, one, 0)
    assert ask(store, outbox.hold, id) == Asked(1, TWO[:1])
    record(store, Done(id, TOUCHPOINT, 1, OutboxKind.REPLY, (Fated(0, State.SENDING, Event.PUT_OFF, "450", NOW),), NOW))
    assert states(store, id) == ["held", "held"]
    assert claim(store, LATER) is None
    assert ask(store, outbox.release, id).recipients == 2
    assert len(claimed(store).recipients) == 2


def test_a_hold_takes_the_wait_that_it_cuts_short_off_the_clock(store: Store) -> None:
    id = accept(store)
    late = done(claimed(store), Event.PUT_OFF, before=State.QUEUED, due=NOW + 30 * MINUTE, waited=30 * MINUTE)
    record(store, late)
    ask(store, outbox.hold, id, now=NOW + 10 * MINUTE)
    ask(store, outbox.release, id, now=NOW + 10 * MINUTE)
    assert claimed(store, LATER).recipients[0].waited == 10 * MINUTE


def test_retry_leaves_what_is_held(store: Store) -> None:
    id = accept(store)
    ask(store, outbox.hold, id)
    for asked in (Ask(NOW, id), Ask(NOW, touchpoint=TOUCHPOINT), Ask(NOW)):
        assert store.submit(outbox.retry, asked).result(10).recipients == 0
    assert claim(store, LATER) is None


def test_a_lane_that_is_held_says_what_is_being_sent(store: Store) -> None:
    accept(store, *TWO), accept(store)
    sending(store)
    assert ask(store, outbox.hold, touchpoint=TOUCHPOINT) == Asked(1, TWO, (TOUCHPOINT,))
    look = store.read(outbox.outlook, TOUCHPOINT, NOW, None).result(10)
    assert (look.lane.state, look.lane.detail) == (LaneState.HELD, "held by a person")


def test_releasing_a_lane_leaves_the_messages_that_are_held(store: Store) -> None:
    held, free = accept(store), accept(store)
    ask(store, outbox.hold, held)
    assert ask(store, outbox.hold, touchpoint=TOUCHPOINT).recipients == 1
    assert ask(store, outbox.release, touchpoint=TOUCHPOINT).recipients == 1
    assert claimed(store).id == free
    assert claim(store) is None


def test_releasing_a_lane_opens_one_that_the_provider_shut(store: Store) -> None:
    accept(store)
    shut = lanes.Change(TOUCHPOINT, LaneEvent.HOLD, NOW, "login", "535 no")
    store.submit(lanes.change, shut).result(10)
    assert claim(store) is None
    assert ask(store, outbox.release, touchpoint=TOUCHPOINT).recipients == 1
    assert claimed(store).probing is None


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_what_is_cancelled_is_settled_and_nobody_is_told(store: Store) -> None:
    id = accept(store, *TWO)
    dialling = claimed(store)
    assert ask(store, outbox.cancel, id) == Asked(2, (), (TOUCHPOINT,))
    assert states(store, id) == ["cancelled", "cancelled"]
    assert not begin(store, dialling)
    record(store, done(dialling, Event.REFUSED, before=State.QUEUED))
    assert states(store, id) == ["cancelled", "cancelled"]
    assert ask(store, outbox.cancel, id).recipients == 0
    assert ask(store, outbox.release, id) == Asked(0)
    assert shown(store, id)["recipients"][0]["reply"] == "cancelled by a person"


def test_cancelling_comes_too_late_for_those_that_are_being_sent(store: Store) -> None:
    id = accept(store, *TWO)
    assert begin(store, claimed(store), 1)
    assert ask(store, outbox.cancel, id) == Asked(1, TWO[1:], (TOUCHPOINT,))
    assert states(store, id) == ["cancelled", "sending"]
    record(store, Done(id, TOUCHPOINT, 1, OutboxKind.REPLY, (Fated(1, State.SENDING, Event.ACCEPTED, "250"),), NOW))
    assert states(store, id) == ["cancelled", "delivered"]


def test_what_is_uncertain_can_be_cancelled_and_is_not_looked_for_any_more(store: Store) -> None:
    id = uncertain(store)
    assert len(doubted(store)) == 1
    assert ask(store, outbox.cancel, id).recipients == 1
    assert (states(store, id), doubted(store)) == (["cancelled"], [])


def test_a_touchpoints_waiting_mail_can_be_cancelled(store: Store) -> None:
    in_doubt = uncertain(store)
    waiting, held, other = accept(store, *TWO), accept(store), accept(store, touchpoint="billing")
    ask(store, outbox.hold, held)
    assert ask(store, outbox.cancel, touchpoint=TOUCHPOINT).recipients == 3
    assert [states(store, id) for id in (in_doubt, waiting, held, other)] == [
        ["uncertain"], ["cancelled", "cancelled"], ["cancelled"], ["queued"],
    ]  # fmt: skip
    assert shown(store, held)["held"] is None


# --- settle ----------------------------------------------------------------------------------------------------------


def test_a_person_says_that_it_was_delivered(store: Store) -> None:
    id = uncertain(store, *TWO)
    assert settle(store, id, True) == Asked(2, (), (TOUCHPOINT,))
    assert (states(store, id), doubted(store)) == (["delivered", "delivered"], [])
    assert shown(store, id)["recipients"][0]["reply"] == "delivered, says a person"
    assert settle(store, id, False).recipients == 0
    assert states(store, id) == ["delivered", "delivered"]


def test_a_person_has_it_sent_again_under_a_new_number(store: Store) -> None:
    id = uncertain(store, *TWO)
    assert settle(store, id, False, TWO[1].upper()).recipients == 1
    assert states(store, id) == ["uncertain", "deferred"]
    again = claimed(store)
    assert ([one.address for one in again.recipients], again.attempt) == ([TWO[1]], 2)
    assert doubted(store) == [(id, 0, Why.UNCERTAIN, 1)]


def test_only_what_is_in_doubt_is_settled(store: Store) -> None:
    id = accept(store)
    assert settle(store, id, True) == Asked(0, (), (TOUCHPOINT,))
    claimed(store, replace(WANT, begin=True))
    assert settle(store, id, True) == Asked(0, ("b@clients.example",), (TOUCHPOINT,))
    assert states(store, id) == ["sending"]


def test_what_is_to_be_sent_again_waits_while_its_message_is_held(store: Store) -> None:
    id = accept(store, *TWO)
    one = claimed(store)
    assert begin(store, one, 0)
    record(store, Done(id, TOUCHPOINT, 1, one.kind, (Fated(0, State.SENDING, Event.INTERRUPTED, "cut"),), NOW))
    ask(store, outbox.hold, id)
    settle(store, id, False)
    assert states(store, id) == ["held", "held"]
    assert claim(store, LATER) is None


# --- a store that was restored ---------------------------------------------------------------------------------------


def test_what_a_restored_store_holds_is_released_by_a_person(store: Store) -> None:
    id = accept(store, *TWO)
    store.submit(restore, id).result(10)
    assert claim(store, LATER) is None
    assert (states(store, id), "restored" in shown(store, id)["cause"]) == (["held", "held"], True)
    assert len(doubted(store)) == 2
    assert ask(store, outbox.release, id).recipients == 2
    assert (states(store, id), doubted(store)) == (["queued", "queued"], [])
    assert claimed(store).attempt > 1000


@pytest.mark.parametrize(("delivered", "after"), [(True, "delivered"), (False, "queued")])
def test_what_a_restored_store_holds_is_settled_by_a_person(store: Store, delivered: bool, after: str) -> None:
    id = accept(store, *TWO)
    store.submit(restore, id).result(10)
    assert settle(store, id, delivered, TWO[0]).recipients == 1
    assert shown(store, id)["held"] == "restored"
    assert claim(store, LATER) is None  # what is known to wait waits for what is still in doubt
    assert settle(store, id, delivered, TWO[1]).recipients == 1
    assert (states(store, id), shown(store, id)["held"], doubted(store)) == ([after] * 2, None, [])
    assert (claim(store) is not None) == (not delivered)


# --- many ------------------------------------------------------------------------------------------------------------


def test_many_asks_in_one_commit_are_each_answered(store: Store) -> None:
    ids: Sequence[int] = [accept(store, *TWO) for _ in range(5)]
    tickets = [store.submit(outbox.hold, Ask(NOW, id)) for id in ids]
    assert [ticket.result(10).recipients for ticket in tickets] == [2] * 5
    tickets = [store.submit(outbox.cancel, Ask(NOW, id)) for id in ids]
    assert [ticket.result(10).recipients for ticket in tickets] == [2] * 5
