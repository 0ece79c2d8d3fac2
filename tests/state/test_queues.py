"""Conversations on a real database: routed once, kept together, answered, reopened, listed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.model import (
    Arrival,
    Envelope,
    Location,
    MessageClass,
    OutboxKind,
    Priority,
    Step,
    Submission,
    Verdict,
    read_id,
    show_id,
    to_ms,
)
from gateway.rules.conversation import ConversationState, Ties, thread_key
from gateway.state import conversations, mailboxes, outbox, queues, raw
from gateway.state.queues import Notice, Routed, Tie
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
T = "support"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


class Desk:
    """Plays the intake with decisions given by the test."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uid = 0

    def arrive(self, content: bytes = b"Subject: x\r\n\r\nbody", touchpoint: str = T, minute: int = 0) -> int:
        self.uid += 1
        id = self.store.ids.next()
        location = Location("INBOX", 1, self.uid)
        arrival = Arrival(id, touchpoint, location, AT.replace(minute=minute), AT, content, self.uid - 1)
        item = mailboxes.NewArrival(arrival, ((raw.chunk_key(id, 0), content),))
        assert self.store.submit(mailboxes.arrive, item).result(5).id == id
        return id

    def routed(self, id: int, name: str = "", *parents: str, verdict: Verdict | None = None, **changes: Any) -> Routed:
        touchpoint = changes.pop("touchpoint", T)
        return Routed(
            id=id,
            touchpoint=touchpoint,
            verdict=verdict or Verdict(MessageClass.HUMAN, ("support",), trail=(Step("class", "no sign", "human"),)),
            ties=Ties(
                (thread_key(touchpoint, name),) if name else (),
                tuple(thread_key(touchpoint, parent) for parent in parents),
            ),
            message_id=name,
            subject=changes.pop("subject", "Help"),
            sender="c@customer.example",
            sender_name="Carla",
            is_reopening=changes.pop("is_reopening", True),
            conversation=self.store.ids.next(),
            at=to_ms(AT),
        )

    def route(self, routed: Routed) -> queues.RoutedResult:
        return self.store.submit(queues.route, routed).result(5)

    def take(self, name: str = "", *parents: str, minute: int = 0, **changes: Any) -> queues.RoutedResult:
        id = self.arrive(touchpoint=changes.get("touchpoint", T), minute=minute)
        return self.route(self.routed(id, name, *parents, **changes))

    def show(self, id: int) -> dict[str, Any]:
        found = self.store.read(conversations.show_conversation, id).result(5)
        assert found is not None
        return found

    def reply(self, name: str, *parents: str, answers: bool = True) -> int | None:
        tie = Tie(T, name, parents, to_ms(AT.replace(minute=30)), answers)
        return self.store.submit(queues.tie_outbound, tie).result(5)

    def list(self, *args: object) -> list[dict[str, Any]]:
        return self.store.read(conversations.list_conversations, *args).result(5)


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def verdict(**changes: Any) -> Verdict:
    return replace(Verdict(MessageClass.HUMAN, ("support",)), **changes)


def test_a_message_begins_a_conversation_in_its_queues(desk: Desk) -> None:
    found = desk.take("<a@c>", verdict=verdict(queues=("billing", "support"), tags=("vip",), priority=Priority.HIGH))
    assert found.is_new
    assert found.queues == ("billing", "support")
    (listed,) = desk.list()
    assert listed == {
        "id": show_id(found.conversation),
        "touchpoint": "support",
        "queues": ["billing", "support"],
        "state": "open",
        "owner": None,
        "subject": "Help",
        "from": "c@customer.example",
        "from_name": "Carla",
        "priority": "high",
        "tags": ["vip"],
        "message_ids": ["<a@c>"],
        "first_at": "2026-11-23T10:00:00.000Z",
        "last_at": "2026-11-23T10:00:00.000Z",
    }


def test_routing_a_message_again_changes_nothing(desk: Desk) -> None:
    id = desk.arrive()
    first = desk.route(desk.routed(id, "<a@c>"))
    before = desk.show(first.conversation)
    again = desk.route(desk.routed(id, "<a@c>", verdict=verdict(queues=("elsewhere",), tags=("x",))))
    assert again.is_repeated
    assert (again.conversation, again.queues) == (first.conversation, first.queues)
    assert desk.show(first.conversation) == before
    assert len(desk.list(None, True)) == 1


def test_a_message_twice_in_one_batch_is_routed_once(desk: Desk, tmp_path: Path) -> None:
    id = desk.arrive()
    items = [desk.routed(id, "<a@c>"), desk.routed(id, "<a@c>")]
    first, second = in_one_batch(desk.store, items)
    assert first.conversation == second.conversation
    assert second.is_repeated
    assert len(desk.list(None, True)) == 1


def in_one_batch(store: Store, items: list[Routed]) -> list[queues.RoutedResult]:
    return store.submit(lambda db, batches: [list(queues.route(db, batch)) for batch in batches], items).result(5)


def test_a_message_that_never_arrived_fails_alone(desk: Desk) -> None:
    good, bad = desk.routed(desk.arrive(), "<a@c>"), desk.routed(desk.store.ids.next(), "<b@c>")
    tickets = [desk.store.submit(queues.route, item) for item in (bad, good)]
    with pytest.raises(LookupError, match="never arrived"):
        tickets[0].result(5)
    assert tickets[1].result(5).is_new


def test_a_follow_up_joins_by_any_of_its_references(desk: Desk) -> None:
    first = desk.take("<a@c>")
    second = desk.take("<b@c>", "<unknown@x>", "<a@c>", minute=1)
    third = desk.take("<c@c>", "<b@c>", minute=2)
    assert not second.is_new
    assert first.conversation == second.conversation == third.conversation
    shown = desk.show(first.conversation)
    assert shown["message_ids"] == ["<a@c>", "<b@c>", "<c@c>"]
    assert shown["last_at"] == "2026-11-23T10:02:00.000Z"
    assert shown["messages"][1]["trail"][-1] == {
        "step": "conversation",
        "detail": "continues one that is here",
        "verdict": "stays in support",
    }


def test_messages_of_one_batch_find_each_other(desk: Desk) -> None:
    ids = [desk.arrive() for _ in range(3)]
    items = [desk.routed(ids[0], "<a@c>"), desk.routed(ids[1], "<b@c>", "<a@c>"), desk.routed(ids[2], "<z@c>")]
    first, second, other = in_one_batch(desk.store, items)
    assert first.conversation == second.conversation != other.conversation
    assert (first.is_new, second.is_new, other.is_new) == (True, False, True)


def test_an_answer_that_overtakes_its_question_is_joined_by_it(desk: Desk) -> None:
    answer = desk.take("<b@c>", "<a@c>")
    question = desk.take("<a@c>")
    assert question.conversation == answer.conversation


def test_siblings_of_a_parent_that_nobody_has_seen_are_together(desk: Desk) -> None:
    assert desk.take("<b@c>", "<p@c>").conversation == desk.take("<c@c>", "<p@c>").conversation


def test_touchpoints_keep_their_conversations_apart(desk: Desk) -> None:
    assert desk.take("<a@c>").conversation != desk.take("<a@c>", touchpoint="sales").conversation


def test_messages_without_an_id_stay_alone(desk: Desk) -> None:
    assert desk.take().conversation != desk.take().conversation
    assert [one["message_ids"] for one in desk.list()] == [[], []]


def test_a_follow_up_stays_in_its_queue_whatever_rules_say(desk: Desk) -> None:
    first = desk.take("<a@c>", verdict=verdict(queues=("billing",), tags=("one",)))
    follow = verdict(queues=("support",), tags=("two",), priority=Priority.LOW, priority_set=True)
    second = desk.take("<b@c>", "<a@c>", verdict=follow)
    assert second.queues == ("billing",)
    shown = desk.show(first.conversation)
    assert shown["queues"] == ["billing"]
    assert shown["tags"] == ["one", "two"]
    assert shown["priority"] == "low"


def test_a_priority_that_no_rule_named_is_kept(desk: Desk) -> None:
    first = desk.take("<a@c>", verdict=verdict(priority=Priority.HIGH, priority_set=True))
    desk.take("<b@c>", "<a@c>")
    assert desk.show(first.conversation)["priority"] == "high"


def test_reroute_moves_the_conversation(desk: Desk) -> None:
    first = desk.take("<a@c>")
    second = desk.take("<b@c>", "<a@c>", verdict=verdict(queues=("billing", "legal"), reroute=True))
    assert second.queues == ("billing", "legal")
    assert desk.show(first.conversation)["queues"] == ["billing", "legal"]
    assert desk.list("support") == []
    assert len(desk.list("legal")) == 1


def test_an_agents_reply_answers_and_a_customers_mail_reopens(desk: Desk) -> None:
    first = desk.take("<a@c>")
    assert desk.reply("<r@us>", "<a@c>") == first.conversation
    assert desk.show(first.conversation)["state"] == "answered"
    assert len(desk.list()) == 1, "answered is not settled"
    follow_up = desk.take("<b@c>", "<r@us>")
    assert follow_up.conversation == first.conversation, "found by the id of our own reply"
    assert follow_up.state is ConversationState.OPEN
    assert desk.show(first.conversation)["state"] == "open"


def test_an_absence_note_does_not_reopen(desk: Desk) -> None:
    first = desk.take("<a@c>")
    desk.reply("<r@us>", "<a@c>")
    note = desk.take("<o@c>", "<r@us>", verdict=verdict(message_class=MessageClass.AUTO_REPLY), is_reopening=False)
    assert note.conversation == first.conversation
    assert desk.show(first.conversation)["state"] == "answered"


def test_a_notice_to_the_customer_answers_nothing(desk: Desk) -> None:
    first = desk.take("<a@c>")
    assert desk.reply("<auto@us>", "<a@c>", answers=False) == first.conversation
    assert desk.show(first.conversation)["state"] == "open"


def test_a_reply_to_nothing_we_know_belongs_to_nothing(desk: Desk) -> None:
    desk.take("<a@c>")
    assert desk.reply("<r@us>", "<other@c>") is None
    assert desk.reply("<r@us>") is None


def test_an_accepted_reply_answers_in_the_transaction_that_accepts_it(desk: Desk) -> None:
    first = desk.take("<a@c>")
    for id, kind in ((1, OutboxKind.AUTO_REPLY), (2, OutboxKind.REPLY)):
        envelope = Envelope("support@example.com", ("c@customer.example",))
        made = Submission(
            id, T, "ana", envelope, f"<{id}@us>", "Re: Help", AT.replace(minute=30), b"reply", kind, ("<x@c>", "<a@c>")
        )
        desk.store.submit(outbox.accept, outbox.Accepting(made, ((raw.chunk_key(id, 0), b"reply"),))).result(5)
        assert desk.show(first.conversation)["state"] == ("open" if id == 1 else "answered")
    shown = desk.show(first.conversation)["messages"]
    assert [(one["direction"], one["message_id"]) for one in shown] == [
        ("inbound", "<a@c>"),
        ("outbound", "<1@us>"),
        ("outbound", "<2@us>"),
    ]
    assert desk.take("<b@c>", "<2@us>").conversation == first.conversation


def test_a_closed_conversation_opens_and_a_claimed_one_returns_to_its_owner(desk: Desk) -> None:
    first = desk.take("<a@c>")
    for state, owner, expected in (
        ("closed", None, "open"),
        ("answered", "ana", "claimed"),
        ("claimed", "ana", "claimed"),
    ):
        change(desk.store, "UPDATE conversation SET state = ?, owner = ?", state, owner)
        desk.take(f"<{state}@c>", "<a@c>")
        assert desk.show(first.conversation)["state"] == expected


def change(store: Store, statement: str, *values: object) -> None:
    def operation(db: sqlite3.Connection, items: object) -> list[None]:
        db.execute(statement, values)
        return [None]

    store.submit(operation, None).result(5)


def test_quarantine_begins_apart_and_is_listed_only_on_request(desk: Desk) -> None:
    found = desk.take("<spam@c>", verdict=verdict(quarantine=True))
    assert found.state is ConversationState.QUARANTINED
    assert desk.list() == []
    assert [one["state"] for one in desk.list(None, True)] == ["quarantined"]
    assert desk.store.read(conversations.count_open).result(5) == {}


def test_a_quarantined_follow_up_changes_nothing_and_a_good_one_releases(desk: Desk) -> None:
    good = desk.take("<a@c>")
    desk.reply("<r@us>", "<a@c>")
    before = desk.show(good.conversation)
    desk.take("<b@c>", "<a@c>", minute=50, verdict=verdict(quarantine=True, tags=("bad",)))
    after = desk.show(good.conversation)
    assert {key: after[key] for key in ("state", "tags", "last_at")} == {
        key: before[key] for key in ("state", "tags", "last_at")
    }
    assert [one["quarantined"] for one in after["messages"]] == [False, True]
    spam = desk.take("<spam@c>", verdict=verdict(quarantine=True))
    assert desk.take("<ok@c>", "<spam@c>").conversation == spam.conversation
    assert desk.show(spam.conversation)["state"] == "open"


def test_what_is_discarded_is_kept_and_closed(desk: Desk) -> None:
    found = desk.take("<a@c>", verdict=verdict(discard=True))
    shown = desk.show(found.conversation)
    assert shown["state"] == "closed"
    assert shown["messages"][0]["discarded"] is True


def test_queues_are_counted_with_who_has_waited_longest(desk: Desk) -> None:
    desk.take("<a@c>", minute=1)
    desk.take("<b@c>", minute=2, verdict=verdict(queues=("support", "billing")))
    desk.take("<d@c>", minute=0)
    desk.reply("<r@us>", "<d@c>")
    assert desk.store.read(conversations.count_open).result(5) == {
        "support": (2, AT.replace(minute=1)),
        "billing": (1, AT.replace(minute=2)),
    }


def test_a_listing_can_be_cut_to_the_newest(desk: Desk) -> None:
    for minute in (3, 1, 2):
        desk.take(f"<{minute}@c>", minute=minute)
    assert [one["message_ids"] for one in desk.list("support", False, 2)] == [["<3@c>"], ["<2@c>"]]


def test_messages_are_read_by_conversation_or_one_by_one(desk: Desk) -> None:
    first, second = desk.arrive(b"one"), desk.arrive(b"two", minute=1)
    conversation = desk.route(desk.routed(first, "<a@c>")).conversation
    desk.route(desk.routed(second, "<b@c>", "<a@c>"))
    answer = desk.store.ids.next()
    submission = Submission(
        answer, T, "ana", Envelope("s@example.com", ("c@x.example",)), "<r@us>", "Re: x", AT.replace(minute=30),
        b"answer", references=("<b@c>",),
    )  # fmt: skip
    accepting = outbox.Accepting(submission, ((raw.chunk_key(answer, 0), b"answer"),))
    desk.store.submit(outbox.accept, accepting).result(5)
    find: Callable[[int], Any] = lambda id: desk.store.read(conversations.find_messages, id).result(5)  # noqa: E731
    assert [(one["id"], one["direction"]) for one in find(conversation)] == [
        (show_id(first), "inbound"),
        (show_id(second), "inbound"),
        (show_id(answer), "outbound"),
    ]
    at = "2026-11-23T10:01:00.000Z"
    stored = {"direction": "inbound", "at": at, "message_id": "<b@c>", "size": 3, "note": None}
    assert find(second) == [{"id": show_id(second), **stored}]
    assert [(one["direction"], one["message_id"], one["size"]) for one in find(answer)] == [("outbound", "<r@us>", 6)]
    assert find(12345) == []
    assert desk.show(answer)["id"] == show_id(conversation)
    assert desk.show(second)["id"] == show_id(conversation)
    assert desk.store.read(conversations.show_conversation, 12345).result(5) is None


def test_messages_stand_in_the_order_in_which_they_came_although_providers_know_no_fractions(desk: Desk) -> None:
    first, second, third = desk.arrive(), desk.arrive(), desk.arrive()
    conversation = desk.route(desk.routed(first, "<a@c>")).conversation
    reply = desk.store.ids.next()
    submission = Submission(
        reply, T, "ana", Envelope("s@example.com", ("c@x.example",)), "<r@us>", "Re: x",
        AT.replace(second=5, microsecond=216_000), b"answer", references=("<a@c>",),
    )  # fmt: skip
    desk.store.submit(outbox.accept, outbox.Accepting(submission, ((raw.chunk_key(reply, 0), b"answer"),))).result(5)
    for id, name in ((second, "<b@c>"), (third, "<c@c>")):
        desk.route(desk.routed(id, name, "<a@c>"))
    second_5 = to_ms(AT.replace(second=5))  # all the provider says of any moment in it
    for id, came_at in ((first, second_5 + 100), (second, second_5 + 300), (third, second_5 + 86_400_000)):
        change(desk.store, "UPDATE message SET internal_at = ?, arrived_at = ? WHERE id = ?", second_5, came_at, id)
    expected = [show_id(id) for id in (first, reply, second, third)]
    assert [one["id"] for one in desk.show(conversation)["messages"]] == expected
    found = desk.store.read(conversations.find_messages, conversation).result(5)
    assert [one["id"] for one in found] == expected


# --- after a crash ---------------------------------------------------------------------------------------------------


def test_tries_are_counted_before_each_and_end_with_the_routing(desk: Desk) -> None:
    id, other = desk.arrive(), desk.arrive()
    unrouted: Callable[[], Any] = lambda: desk.store.read(queues.unrouted_arrivals).result(5)  # noqa: E731
    assert unrouted() == [(id, 1), (other, 1)]
    assert desk.store.submit(queues.begin_routing, id).result(5) == 2
    assert desk.store.submit(queues.begin_routing, id).result(5) == 3
    assert unrouted() == [(id, 3), (other, 1)]
    desk.route(desk.routed(id))
    assert desk.store.submit(queues.begin_routing, id).result(5) == 0
    assert unrouted() == [(other, 1)]
    assert desk.store.read(queues.unrouted_arrivals, other).result(5) == []


def test_what_routing_needs_is_the_first_chunk(desk: Desk) -> None:
    id = desk.arrive(b"Subject: x\r\n\r\nbody")
    (loaded,) = desk.store.read(queues.load_unrouted, [id, 99]).result(5)
    assert (loaded.id, loaded.touchpoint, loaded.size, loaded.head) == (id, T, 18, b"Subject: x\r\n\r\nbody")
    change(desk.store, "DELETE FROM chunk")
    assert desk.store.read(queues.load_unrouted, [id]).result(5)[0].head == b""


# --- notices ---------------------------------------------------------------------------------------------------------


def notice(desk: Desk, about: int | None = None, **changes: Any) -> Notice:
    id = desk.store.ids.next()
    made = Notice(
        id=id,
        conversation=desk.store.ids.next(),
        touchpoint=T,
        login="Ana@example.com",
        subject="Not delivered",
        chunks=((raw.chunk_key(id, 0), b"notice"),),
        size=6,
        at=to_ms(AT),
        about=about,
    )
    return replace(made, **changes)


def test_a_notice_is_a_conversation_of_the_agent_and_reopens_what_it_is_about(desk: Desk) -> None:
    about = desk.take("<a@c>").conversation
    desk.reply("<r@us>", "<a@c>")
    made = notice(desk, about)
    for _ in range(2):  # once, however often it is put
        desk.store.submit(queues.put_notice, made).result(5)
    (listed,) = desk.list("agent:ana@example.com")
    assert (listed["subject"], listed["state"], listed["tags"]) == ("Not delivered", "open", ["notice"])
    assert desk.store.read(raw.load, made.id).result(5) == b"notice"
    assert desk.show(about)["state"] == "open"


def test_a_warning_need_not_reopen(desk: Desk) -> None:
    about = desk.take("<a@c>").conversation
    desk.reply("<r@us>", "<a@c>")
    desk.store.submit(queues.put_notice, notice(desk, about, reopens=False)).result(5)
    assert desk.show(about)["state"] == "answered"


# --- the cost --------------------------------------------------------------------------------------------------------


def test_no_statement_of_the_hot_path_walks_a_whole_table(desk: Desk, tmp_path: Path) -> None:
    id = desk.arrive()
    desk.take("<a@c>")
    statements: list[tuple[str, Any]] = []

    class Watched:
        def __init__(self, db: sqlite3.Connection) -> None:
            self.db = db

        def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
            statements.append((statement, values))
            return self.db.execute(statement, values)

    plans: list[str] = []

    def operation(db: sqlite3.Connection, items: Sequence[Routed]) -> Sequence[None]:
        watched: Any = Watched(db)
        queues.route(watched, items)
        queues.tie_outbound(watched, [Tie(T, "<r@us>", ("<a@c>",), 1)])
        queues.begin_routing(watched, [id])
        queues.unrouted_arrivals(watched)
        queues.load_unrouted(watched, [id])
        for statement, values in statements:
            plans.extend(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))
        return [None]

    item = desk.routed(id, "<b@c>", "<a@c>", verdict=verdict(reroute=True, queues=("x",)))
    desk.store.submit(operation, item).result(5)
    assert len(statements) > 10
    walks = [plan for plan in plans if plan.startswith("SCAN") and "json_each" not in plan and "CONSTANT" not in plan]
    assert [plan for plan in walks if "message_arrived" not in plan] == []


def test_the_stored_trail_is_a_list_of_steps(desk: Desk) -> None:
    found = desk.take("<a@c>")
    (message,) = desk.show(found.conversation)["messages"]
    assert message["trail"] == [{"step": "class", "detail": "no sign", "verdict": "human"}]
    assert message["class"] == "human"
    assert read_id(message["id"]) is not None
    assert json.dumps(desk.show(found.conversation))
