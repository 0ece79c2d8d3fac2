"""What waits is counted for one touchpoint: what is done, or another's, is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.model import Arrival, Location, Role, to_ms
from gateway.state import folders, mailboxes, outbox, raw
from gateway.state.folders import Folder, Opening
from gateway.state.outbox import Ask
from gateway.state.store import Store
from gateway.state.unsettled import Unsettled, count_unsettled
from tests.support import outgoing
from tests.support.desk import arrive


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "gateway.db")
    yield store
    store.close()


def waiting(store: Store, touchpoint: str) -> Unsettled:
    return store.read(count_unsettled, touchpoint).result(10)


def test_nothing_waits_in_an_empty_store(store: Store) -> None:
    assert not waiting(store, "support")


def test_open_conversations_and_mail_in_the_outbox_wait(store: Store) -> None:
    arrive(store, "<a@c>")
    arrive(store, "<b@c>", blocked=True)  # in quarantine: nobody is to answer it
    outgoing.accept(store, "a@c.example", "b@c.example")
    assert waiting(store, "support") == Unsettled(0, 1, 2)
    assert not waiting(store, "billing")


def test_what_was_cancelled_waits_no_more(store: Store) -> None:
    id = outgoing.accept(store)
    store.submit(outbox.cancel, Ask(to_ms(datetime.now(UTC)), id)).result(10)
    assert not waiting(store, "support")


def test_what_no_rule_has_seen_waits(store: Store) -> None:
    id, now = store.ids.next(), datetime.now(UTC)
    store.submit(folders.open_folder, Opening(Folder("support", "INBOX", 1, 0, 0, to_ms(now), 0, Role.QUEUE))).result(
        10
    )
    arrival = Arrival(id, "support", Location("INBOX", 1, 7), now, now, b"body", 6)
    store.submit(mailboxes.arrive, mailboxes.NewArrival(arrival, ((raw.chunk_key(id, 0), b"body"),))).result(10)
    assert waiting(store, "support") == Unsettled(1, 0, 0)
