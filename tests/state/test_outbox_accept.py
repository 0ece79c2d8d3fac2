"""Accepting: what a client submits again, what it wants to hear of, and a warning that goes with it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Envelope, Notify, Submission, Wish, from_ms, show_id
from gateway.state import outbox
from gateway.state.lifecycle import Event
from gateway.state.outbox import Accepted, Accepting, Ask
from gateway.state.queues import Notice
from gateway.state.raw import chunk_key
from gateway.state.store import Store, each
from gateway.state.ticket import Ticket
from tests.support.attempts import NOW, WANT, claimed, done, record
from tests.support.outgoing import ADDRESS, AGENT, TOUCHPOINT, listed, raw_of

AT = from_ms(NOW)
DAY = timedelta(days=1)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(Store.open(tmp_path / "gateway.db"))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


def digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def accepting(store: Store, digest: bytes | None, **changes: Any) -> Accepting:
    id = store.ids.next()
    envelope = Envelope(ADDRESS, ("b@clients.example",))
    submission = Submission(
        id, TOUCHPOINT, AGENT, envelope, f"<{show_id(id)}@example.com>", "Your order", AT, raw_of(id)
    )
    return Accepting(replace(submission, **changes), ((chunk_key(id, 0), raw_of(id)),), digest)


def submit(store: Store, digest: str | None, **changes: Any) -> Accepted:
    item = accepting(store, None if digest is None else digest_of(digest), **changes)
    return store.submit(outbox.accept, item).result(10)


# --- the same again --------------------------------------------------------------------------------------------------


def test_the_same_submission_again_gives_the_first_id_and_writes_nothing(store: Store) -> None:
    first = submit(store, "one")
    assert not first.is_repeated
    assert submit(store, "one") == Accepted(first.id, is_repeated=True)
    other = submit(store, "two")
    assert not other.is_repeated
    assert [message["id"] for message in listed(store)] == [show_id(first.id), show_id(other.id)]
    assert store.read(lambda db: db.execute("SELECT count(*) FROM chunk").fetchone()).result(10) == (2,)


def test_the_same_submission_twice_in_one_commit_is_one_message(store: Store) -> None:
    items = [accepting(store, digest_of(word)) for word in ("one", "two", "one", "one")]

    def together(db: sqlite3.Connection, _: object) -> list[Any]:
        return [outbox.accept(db, items)]

    first, second, *again = store.submit(together, None).result(10)
    assert (first.is_repeated, second.is_repeated) == (False, False)
    assert again == [Accepted(first.id, is_repeated=True)] * 2
    assert len(listed(store)) == 2


def test_what_has_no_digest_is_never_the_same(store: Store) -> None:
    assert submit(store, None).id != submit(store, None).id
    assert len(listed(store)) == 2


def test_a_submission_is_remembered_through_a_restart(open_store: Callable[[], Store]) -> None:
    store = open_store()
    first = submit(store, "one")
    store.close()
    store = open_store()
    store.submit(outbox.recover, NOW).result(10)
    assert submit(store, "one") == Accepted(first.id, is_repeated=True)
    store.close()
    assert submit(open_store(), "one") == Accepted(first.id, is_repeated=True)  # also where nobody recovers


def test_a_submission_is_remembered_for_a_day(store: Store) -> None:
    first = submit(store, "one")
    assert submit(store, "one", accepted_at=AT + DAY - timedelta(seconds=1)).id == first.id
    second = submit(store, "one", accepted_at=AT + DAY)
    assert not second.is_repeated
    assert submit(store, "one", accepted_at=AT + DAY + timedelta(seconds=1)) == Accepted(second.id, is_repeated=True)


@pytest.mark.parametrize("event", [Event.REFUSED, Event.GAVE_UP])
def test_what_was_refused_or_has_expired_may_be_submitted_again(store: Store, event: Event) -> None:
    first = submit(store, "one")
    record(store, done(claimed(store, replace(WANT, begin=True)), event))
    second = submit(store, "one")
    assert not second.is_repeated
    assert second.id != first.id
    assert submit(store, "one") == Accepted(second.id, is_repeated=True)


def test_what_was_cancelled_may_be_submitted_again(store: Store) -> None:
    first = submit(store, "one")
    store.submit(outbox.cancel, Ask(NOW, first.id)).result(10)
    assert not submit(store, "one").is_repeated


@pytest.mark.parametrize("event", [Event.ACCEPTED, Event.INTERRUPTED, Event.PUT_OFF])
def test_what_has_left_or_may_still_leave_is_not_accepted_again(store: Store, event: Event) -> None:
    first = submit(store, "one")
    record(store, done(claimed(store, replace(WANT, begin=True)), event, due=NOW))
    assert submit(store, "one") == Accepted(first.id, is_repeated=True)


def test_one_recipient_that_may_have_it_is_enough(store: Store) -> None:
    envelope = Envelope(ADDRESS, ("b@clients.example", "c@clients.example"))
    first = submit(store, "one", envelope=envelope)
    one = claimed(store, replace(WANT, begin=True))
    refused = done(one, Event.REFUSED)
    record(store, replace(refused, fated=(refused.fated[0], replace(refused.fated[1], event=Event.ACCEPTED))))
    assert submit(store, "one").id == first.id


def test_a_commit_that_fails_is_not_remembered(store: Store) -> None:
    @each
    def fail(db: sqlite3.Connection, item: Accepting) -> None:
        outbox.accept(db, [item])
        raise ValueError

    ticket: Ticket[None] = store.submit(fail, accepting(store, digest_of("one")))
    with pytest.raises(ValueError):  # noqa: PT011
        ticket.result(10)
    assert not submit(store, "one").is_repeated


def test_what_is_older_than_a_day_is_forgotten_by_and_by(store: Store) -> None:
    def remembered(db: sqlite3.Connection, _: object) -> list[tuple[int, int]]:
        (kept,) = db.execute("SELECT count(*) FROM submitted").fetchone()
        (found,) = db.execute("SELECT count(*) FROM temp.recent").fetchone()
        return [(kept, found)]

    def many(day: int, start: int) -> None:
        items = [
            accepting(store, digest_of(f"{day} {number}"), accepted_at=AT + day * DAY)
            for number in range(start, start + 400)
        ]
        for ticket in [store.submit(outbox.accept, item) for item in items]:
            ticket.result(10)

    for day in range(4):
        many(day, 0)
        many(day, 400)
    kept, found = store.submit(remembered, None).result(10)
    assert kept == found
    assert 800 <= kept <= 1_200


# --- wishes and warnings ---------------------------------------------------------------------------------------------


def test_what_the_sender_wants_to_hear_comes_with_the_claim(store: Store) -> None:
    wishes = (Wish(), Wish(Notify(0), "rfc822;c@clients.example"), Wish(Notify.SUCCESS | Notify.DELAY))
    addresses = tuple(f"{letter}@clients.example" for letter in "bcd")
    envelope = Envelope(ADDRESS, addresses, wishes=wishes, envid="QQ+3D1", ret="hdrs")
    submit(store, None, envelope=envelope)
    one = claimed(store)
    assert tuple(recipient.wish for recipient in one.recipients) == wishes
    assert (one.envid, one.ret) == ("QQ+3D1", "hdrs")


def test_a_sender_without_wishes_has_none(store: Store) -> None:
    submit(store, None)
    one = claimed(store)
    assert (one.recipients[0].wish, one.envid, one.ret) == (Wish(), "", "")


def test_a_transaction_has_no_more_recipients_than_the_pace_allows(store: Store) -> None:
    submit(store, None, envelope=Envelope(ADDRESS, tuple(f"{number}@clients.example" for number in range(7))))
    found = [claimed(store, replace(WANT, recipients=3)) for _ in range(3)]
    assert [len(one.recipients) for one in found] == [3, 3, 1]
    assert [one.attempt for one in found] == [1, 2, 3]


def test_a_warning_is_stored_with_the_submission_and_not_with_its_repetition(store: Store) -> None:
    def warned() -> Accepting:
        id = store.ids.next()
        chunks = ((chunk_key(id, 0), b"Subject: Careful\r\n\r\n"),)
        notice = Notice(id, store.ids.next(), TOUCHPOINT, AGENT, "Careful", chunks, 20, NOW)
        return replace(accepting(store, digest_of("one")), notice=notice)

    for _ in range(2):
        store.submit(outbox.accept, warned()).result(10)
    queues = store.read(lambda db: db.execute("SELECT queue FROM entry").fetchall()).result(10)
    assert queues == [(f"agent:{AGENT}",)]
