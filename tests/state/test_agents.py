"""What the store remembers of agents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.state import agents
from gateway.state.store import Store

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "gateway.db")
    yield store
    store.close()


def note(store: Store, login: str, succeeded: bool, at: datetime = NOON) -> None:
    store.submit(agents.note_login, agents.LoginNote(login, succeeded, at)).result(timeout=10)


def facts(store: Store, login: str) -> agents.AgentFacts:
    return store.read(agents.agent_facts).result(timeout=10)[login]


def test_an_agent_without_a_stored_password_has_none(store: Store) -> None:
    assert store.read(agents.stored_hash, "ana@example.com").result(timeout=10) is None


def test_a_new_password_takes_the_place_of_the_old(store: Store) -> None:
    for hash in ("$argon2id$1", "$argon2id$2"):
        store.submit(agents.set_password, agents.NewPassword("ana@example.com", hash)).result(timeout=10)
    assert store.read(agents.stored_hash, "ana@example.com").result(timeout=10) == "$argon2id$2"


def test_failures_count_up_and_end_with_a_good_login(store: Store) -> None:
    note(store, "ana@example.com", True)
    note(store, "ana@example.com", False, LATER)
    note(store, "ana@example.com", False, LATER)
    assert facts(store, "ana@example.com") == agents.AgentFacts(False, NOON, 2)
    note(store, "ana@example.com", True, LATER)
    assert facts(store, "ana@example.com") == agents.AgentFacts(False, LATER, 0)


def test_noting_a_login_leaves_the_stored_password_alone(store: Store) -> None:
    store.submit(agents.set_password, agents.NewPassword("ana@example.com", "$argon2id$1")).result(timeout=10)
    note(store, "ana@example.com", True)
    assert store.read(agents.stored_hash, "ana@example.com").result(timeout=10) == "$argon2id$1"
    assert facts(store, "ana@example.com").has_stored_password


def test_a_new_password_forgets_failures(store: Store) -> None:
    note(store, "ana@example.com", False)
    store.submit(agents.set_password, agents.NewPassword("ana@example.com", "$argon2id$1")).result(timeout=10)
    assert facts(store, "ana@example.com").failures == 0


def test_thread_keys_lead_to_the_touchpoints_of_their_conversations(store: Store) -> None:
    def fill(db, items):
        for id, touchpoint in ((1, "support"), (2, "billing"), (3, "support")):
            db.execute(
                "INSERT INTO conversation (id, touchpoint, state, subject, sender, sender_name, priority, tags,"
                " first_at, last_at) VALUES (?, ?, 'open', '', '', '', 'normal', '[]', 0, 0)",
                (id, touchpoint),
            )
            db.execute("INSERT INTO thread (key, conversation) VALUES (?, ?)", (id * 10, id))
        return [None] * len(items)

    store.submit(fill, None).result(timeout=10)
    assert store.read(agents.touchpoints_of, (10, 30, 99)).result(timeout=10) == ("support",)
    assert set(store.read(agents.touchpoints_of, (10, 20)).result(timeout=10)) == {"support", "billing"}
    assert store.read(agents.touchpoints_of, ()).result(timeout=10) == ()
