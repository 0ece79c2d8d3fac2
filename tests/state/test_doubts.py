"""Doubts and copies on a real file: what is uncertain is decided by evidence of that very attempt, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import OutboxKind, show_id
from gateway.state import copies, doubts, marks, outbox
from gateway.state.copies import Copy
from gateway.state.doubts import FIRST_LOOK_MS, Doubt, Finding, Why
from gateway.state.lifecycle import Event, State
from gateway.state.outbox import Ask, Done, Fated, Settle
from gateway.state.store import Store
from tests.support.attempts import MINUTE, NOW, WANT, accept, begin, claim, claimed, done, record, sending, shown
from tests.support.outgoing import TOUCHPOINT, states

AT = NOW + 2_000  # when an attempt of these tests ends
LOOK = AT + FIRST_LOOK_MS
FOREVER = NOW + 10**9
TWO = ("b@clients.example", "c@clients.example")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "gateway.db")
    yield store
    store.close()


def cut(store: Store, *recipients: str, want: outbox.Want = WANT) -> int:
    """Return a message of which one attempt was cut behind the dot."""
    id = accept(store, *recipients)
    record(store, done(sending(store, want), Event.INTERRUPTED))
    return id


def due(store: Store, now: int = FOREVER) -> list[Doubt]:
    return store.read(doubts.due, TOUCHPOINT, now).result(10)


def found(store: Store, id: int, sent: bool, *, number: int = 0, attempt: int = 1) -> bool:
    return store.submit(doubts.settle, Finding(id, number, attempt, sent, LOOK)).result(10)


# --- doubts ----------------------------------------------------------------------------------------------------------


def test_what_was_cut_is_looked_for_after_a_minute(store: Store) -> None:
    id = cut(store, *TWO)
    assert due(store, LOOK - 1) == []
    assert due(store, LOOK) == [
        Doubt(id, number, Why.UNCERTAIN, 1, WANT.now, 0, None, f"<{show_id(id)}@example.com>", 2, address)
        for number, address in enumerate(TWO)
    ]
    assert store.read(doubts.next_due, TOUCHPOINT).result(10) == LOOK
    assert store.read(doubts.next_due, "billing").result(10) is None
    recipient = shown(store, id)["recipients"][0]
    assert (recipient["looks"], recipient["next_attempt_at"]) == (0, None)
    assert recipient["next_look_at"] is not None


def test_only_those_that_were_cut_are_in_doubt(store: Store) -> None:
    id = accept(store, *TWO)
    one = sending(store)
    fated = (
        Fated(0, State.SENDING, Event.ACCEPTED, "250"),
        Fated(1, State.SENDING, Event.INTERRUPTED, "cut"),
    )
    record(store, Done(id, TOUCHPOINT, one.attempt, one.kind, fated, AT))
    assert [(each.number, each.recipients_of_message) for each in due(store)] == [(1, 2)]


def test_an_attempt_that_was_overtaken_leaves_no_doubt(store: Store) -> None:
    id = accept(store)
    one = claimed(store)
    store.submit(outbox.cancel, Ask(NOW, id)).result(10)
    record(store, done(one, Event.INTERRUPTED))
    assert due(store) == []


def test_automatic_mail_is_never_in_doubt(store: Store) -> None:
    accept(store, kind=OutboxKind.AUTO_REPLY)
    record(store, done(sending(store), Event.INTERRUPTED))
    assert due(store) == []


def test_a_crash_in_sending_is_a_doubt(store: Store) -> None:
    id, other = accept(store), accept(store, touchpoint="billing")
    sending(store)
    sending(store, replace(WANT, touchpoint="billing"))
    store.submit(outbox.recover_lane, (TOUCHPOINT, AT)).result(10)
    assert [(one.outbox, one.attempt, one.tried_at) for one in due(store)] == [(id, 1, WANT.now)]
    store.submit(outbox.recover, AT).result(10)
    assert len(due(store)) == 1
    assert [one.outbox for one in store.read(doubts.due, "billing", FOREVER).result(10)] == [other]


def test_a_copy_that_was_found_delivers_and_its_question_is_marked_as_answered(store: Store) -> None:
    id = cut(store)

    def answers(db: sqlite3.Connection, _: object) -> list[None]:
        db.execute("UPDATE outbox SET answers = 77")
        return [None]

    def filed(db: sqlite3.Connection) -> list[tuple[int, str]]:
        return db.execute("SELECT message, action FROM filing").fetchall()

    store.submit(answers, None).result(10)
    assert found(store, id, True)
    assert (states(store, id), due(store)) == (["delivered"], [])
    assert store.read(filed).result(10) == [(77, "answered")]
    assert not found(store, id, False)
    assert states(store, id) == ["delivered"]


def test_what_is_proven_absent_is_sent_again_under_the_next_number(store: Store) -> None:
    id = cut(store)
    assert found(store, id, False)
    assert (states(store, id), due(store)) == (["deferred"], [])
    assert claimed(store, replace(WANT, now=LOOK)).attempt == 2


def test_evidence_of_another_attempt_decides_nothing(store: Store) -> None:
    id = cut(store)
    assert not found(store, id, True, attempt=2)
    assert not found(store, id, True, number=1)
    store.submit(outbox.settle, Settle(id, False, None, NOW)).result(10)
    assert not found(store, id, True)  # a person was faster
    record(store, done(sending(store), Event.INTERRUPTED))
    assert not found(store, id, True)  # what was seen was the first attempt
    assert states(store, id) == ["uncertain"]
    assert found(store, id, True, attempt=2)


def test_each_recipient_is_decided_alone(store: Store) -> None:
    id = cut(store, *TWO)
    assert found(store, id, True, number=1)
    assert states(store, id) == ["uncertain", "delivered"]
    assert [one.number for one in due(store)] == [0]


def test_looks_are_counted_and_absence_remembers_its_beginning(store: Store) -> None:
    id = cut(store)
    look = (id, 0, True, LOOK, LOOK + 5 * MINUTE)
    store.submit(doubts.put_off, look).result(10)
    store.submit(doubts.put_off, look).result(10)  # not due any more: nobody has looked
    again = (id, 0, True, LOOK + 5 * MINUTE, LOOK + 20 * MINUTE)
    store.submit(doubts.put_off, again).result(10)
    store.submit(doubts.put_off, (id, 0, False, LOOK + 20 * MINUTE, LOOK + 80 * MINUTE)).result(10)
    (doubt,) = due(store)
    assert (doubt.looks, doubt.absent_at) == (2, LOOK)
    assert store.read(doubts.next_due, TOUCHPOINT).result(10) == LOOK + 80 * MINUTE


def test_a_look_that_comes_late_does_not_count_for_the_next_doubt(store: Store) -> None:
    id = cut(store)
    store.submit(outbox.settle, Settle(id, False, None, NOW)).result(10)
    again = sending(store)
    record(store, replace(done(again, Event.INTERRUPTED), at=LOOK))
    store.submit(doubts.put_off, (id, 0, True, LOOK, LOOK + 5 * MINUTE)).result(10)
    assert [(one.attempt, one.looks) for one in due(store)] == [(2, 0)]


# --- copies ----------------------------------------------------------------------------------------------------------


def copies_due(store: Store, now: int = FOREVER) -> list[Copy]:
    return store.read(copies.due, TOUCHPOINT, now, 10).result(10)


def test_an_accepted_message_owes_its_copy_where_the_provider_keeps_none(store: Store) -> None:
    id = accept(store, *TWO)
    record(store, done(sending(store), Event.ACCEPTED, copies=True))
    (copy,) = copies_due(store, AT)
    assert (copy.outbox, copy.attempt, copy.accepted_at, copy.message_id, copy.tries) == (
        id, 1, AT, f"<{show_id(id)}@example.com>", 0,
    )  # fmt: skip
    assert copy.size > 0
    store.submit(copies.begin, (TOUCHPOINT, [id], AT + MINUTE)).result(10)
    assert copies_due(store, AT) == []
    assert store.read(copies.next_due, TOUCHPOINT).result(10) == AT + MINUTE
    assert [one.tries for one in copies_due(store, AT + MINUTE)] == [1]
    store.submit(copies.done, id).result(10)
    assert copies_due(store) == []
    assert store.read(copies.next_due, TOUCHPOINT).result(10) is None


def test_a_message_owes_one_copy_however_many_attempts_it_takes(store: Store) -> None:
    id = accept(store, *TWO)
    one = sending(store)
    split = (Fated(0, State.SENDING, Event.ACCEPTED, "250"), Fated(1, State.SENDING, Event.PUT_OFF, "452", AT))
    record(store, Done(id, TOUCHPOINT, 1, one.kind, split, AT, copies=True))
    store.submit(copies.done, id).result(10)
    record(store, done(sending(store, replace(WANT, now=AT)), Event.ACCEPTED, copies=True))
    assert copies_due(store) == []


@pytest.mark.parametrize("event", [Event.REFUSED, Event.PUT_OFF, Event.INTERRUPTED])
def test_what_was_not_accepted_owes_no_copy(store: Store, event: Event) -> None:
    accept(store)
    record(store, done(sending(store), event, due=AT, copies=True))
    assert copies_due(store) == []


def test_nothing_is_owed_where_the_provider_keeps_its_copy(store: Store) -> None:
    accept(store)
    record(store, done(sending(store), Event.ACCEPTED))
    assert copies_due(store) == []


# --- marks -----------------------------------------------------------------------------------------------------------


def test_a_new_store_has_its_first_epoch_and_marks_keep_their_last_value(store: Store) -> None:
    assert store.read(marks.get, "epoch").result(10) == 1
    assert store.read(marks.get, "delayed").result(10) is None
    for value in (5, 7):
        store.submit(marks.put, ("delayed", value)).result(10)
    assert store.read(marks.get, "delayed").result(10) == 7


def test_nothing_in_doubt_is_claimed(store: Store) -> None:
    id = cut(store)
    assert not begin(store, replace(claimed_before(store, id), attempt=1))
    assert claim(store, replace(WANT, now=FOREVER)) is None


def claimed_before(store: Store, id: int) -> outbox.Claimed:
    """Return the claim of an attempt that is over, as a connection may still have it in hand."""
    accept(store)
    other = claimed(store)
    record(store, done(other, Event.REFUSED, before=State.QUEUED))
    return replace(other, id=id)
