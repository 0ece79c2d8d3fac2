"""`trace`: one message's whole life, or one line for each that matches, wherever it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.commands import handlers
from gateway.desk import Desk, offline_desk
from gateway.errors import CommandError
from gateway.model import Role, Step, show_id, to_ms
from gateway.state import quarantine, tracing
from gateway.state.quarantine import Review
from tests.support import outgoing
from tests.support.desk import arrive, write_site

KEYS = ["at", "step", "detail", "verdict", "id"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with offline_desk(write_site(tmp_path)) as desk:
        yield desk


def trace(desk: Desk, what: str | None = None, **args: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trio.run(handlers(desk)["trace"], {"what": what, **args})
    assert all(list(line) == KEYS for line in found)
    return found


def refusal(desk: Desk, what: str | None = None, **args: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        trace(desk, what, **args)
    assert "\n" not in str(caught.value)
    return caught.value


def change(desk: Desk, statement: str, *values: object) -> None:
    def operation(db: sqlite3.Connection, items: Sequence[tuple[object, ...]]) -> Sequence[None]:
        db.executemany(statement, items)
        return [None] * len(items)

    desk.store.submit(operation, values).result(10)


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [line["id"] for line in found]


def said(found: list[dict[str, Any]], step: str) -> list[tuple[str, str]]:
    return [(line["detail"], line["verdict"]) for line in found if line["step"] == step]


# --- one message -----------------------------------------------------------------------------------------------------


def test_a_message_in_a_queue_is_told_from_the_provider_to_where_it_is(desk: Desk) -> None:
    id, conversation = arrive(desk.store, "<a@c>")
    found = trace(desk, show_id(id))
    assert [line["step"] for line in found] == ["at the provider", "class", "arrived", "now", "now"]
    assert said(found, "at the provider") == [("Carla <carla@customer.example> → support: Help", "4 bytes")]
    assert said(found, "class") == [("no sign of a machine", "human")]
    assert said(found, "now") == [
        (f"conversation {show_id(conversation)}, open", "queue support"),
        (f"INBOX, UID {id}", "lies at the provider"),
    ]
    times = [line["at"] for line in found if line["at"]]
    assert times == sorted(times)


def test_a_message_in_quarantine_is_told_with_what_a_person_said(desk: Desk) -> None:
    waiting, _ = arrive(desk.store, "<a@c>", blocked=True)
    assert said(trace(desk, show_id(waiting)), "now")[0][1] == "in quarantine, waits to be looked at"
    confirmed, _ = arrive(desk.store, "<b@c>", blocked=True)
    released, _ = arrive(desk.store, "<c@c>", blocked=True)
    desk.store.submit(quarantine.confirm, Review(confirmed, to_ms(datetime.now(UTC)))).result(10)
    desk.store.submit(quarantine.release, Review(released, to_ms(datetime.now(UTC)))).result(10)
    assert said(trace(desk, show_id(confirmed)), "quarantine") == [("decided by a person", "confirmed")]
    assert said(trace(desk, show_id(confirmed)), "filing") != []
    assert said(trace(desk, show_id(released)), "quarantine") == [("decided by a person", "released")]
    assert said(trace(desk, show_id(released)), "now")[0][1] == "queue support"


def test_what_was_written_at_the_provider_is_told_as_that(desk: Desk) -> None:
    id, _ = arrive(desk.store, "<a@c>", role=Role.SENT)
    assert said(trace(desk, show_id(id)), "at the provider") == [("written there", "4 bytes")]


def test_an_outgoing_message_is_told_with_every_recipient_and_what_it_answers(desk: Desk) -> None:
    incoming, conversation = arrive(desk.store, "<a@c>")
    id = outgoing.accept(desk.store, "b@clients.example", "c@clients.example", references=("<a@c>",))
    found = trace(desk, show_id(id))
    (accepted,) = (line for line in found if line["step"] == "accepted")
    assert accepted["detail"] == "ana@example.com → b@clients.example, c@clients.example: Your order"
    assert ids([line for line in found if line["step"] == "answers"]) == [show_id(incoming)]
    assert ids([line for line in found if line["step"] == "conversation"]) == [show_id(conversation)]
    waiting = said(found, "now")
    assert [detail for detail, _ in waiting] == ["b@clients.example", "c@clients.example"]
    assert all(verdict.startswith("queued, next attempt 20") for _, verdict in waiting)
    answered = [line for line in trace(desk, show_id(incoming)) if line["step"] == "reply"]
    assert (answered[0]["id"], answered[0]["verdict"]) == (show_id(id), "queued")


def test_attempts_are_told_with_what_the_provider_said(desk: Desk) -> None:
    id = outgoing.accept(desk.store, "b@clients.example")
    deferred = (
        "UPDATE recipient SET state = 'deferred', attempts = 2, attempt = 2, tried_at = ?, reply = '451 later',"
        " next_attempt_at = ? WHERE outbox = ?"
    )
    at = to_ms(datetime(2026, 11, 23, 12, tzinfo=UTC))
    change(desk, deferred, at, at, id)
    (attempt,) = (line for line in trace(desk, show_id(id)) if line["step"] == "attempt 2")
    assert attempt["at"] == "2026-11-23T12:00:00.000Z"
    assert attempt["detail"] == "b@clients.example: 451 later"
    assert attempt["verdict"] == "deferred, next attempt 2026-11-23T12:00:00.000Z"


def test_a_message_that_waits_to_be_routed_is_found_too(desk: Desk) -> None:
    id, _ = arrive(desk.store, "<a@c>")
    again = "UPDATE message SET state = 'arrived', tries = 2, conversation = NULL, trail = NULL WHERE id = ?"
    change(desk, again, id)
    assert said(trace(desk, show_id(id)), "now") == [("2 tries to route it have begun", "waits to be routed")]


# --- several ---------------------------------------------------------------------------------------------------------


def test_a_conversation_is_a_line_for_each_of_its_messages(desk: Desk) -> None:
    first, conversation = arrive(desk.store, "<a@c>")
    answer = outgoing.accept(desk.store, references=("<a@c>",))
    found = trace(desk, show_id(conversation))
    assert [(line["id"], line["step"], line["verdict"]) for line in found] == [
        (show_id(first), "inbound", "queue support"),
        (show_id(answer), "outbound", "queued"),
    ]


@pytest.mark.parametrize("written", ["<a@c>", "a@c", "<A@C>"])
def test_a_message_id_is_found_with_and_without_its_brackets(desk: Desk, written: str) -> None:
    id, _ = arrive(desk.store, "<a@c>")
    arrive(desk.store, "<b@c>")
    found = trace(desk, written)
    assert (found[0]["step"], found[0]["id"]) == ("at the provider", show_id(id))


def test_one_message_that_came_to_two_touchpoints_is_two_lines(desk: Desk) -> None:
    here, _ = arrive(desk.store, "<a@c>")
    there, _ = arrive(desk.store, "<a@c>", touchpoint="billing", into="billing")
    found = trace(desk, "<a@c>")
    assert sorted(ids(found)) == sorted([show_id(here), show_id(there)])
    assert {line["verdict"] for line in found} == {"queue support", "queue billing"}
    (only,) = {line["id"] for line in trace(desk, "<a@c>", touchpoint="billing@example.com")}
    assert only == show_id(there)


def test_a_message_of_ours_is_found_by_its_message_id_also_without_a_conversation(desk: Desk) -> None:
    id = outgoing.accept(desk.store)
    assert trace(desk, f"<{show_id(id)}@example.com>")[0]["id"] == show_id(id)
    other = "UPDATE outbox SET message_id = '<of-the-client@laptop>' WHERE id = ?"
    change(desk, other, id)
    assert trace(desk, "<of-the-client@laptop>")[0]["id"] == show_id(id)
    assert trace(desk, "of-the-client@laptop")[0]["id"] == show_id(id)


def test_an_address_is_found_on_either_side_and_in_any_case(desk: Desk) -> None:
    came, _ = arrive(desk.store, "<a@c>")
    went = outgoing.accept(desk.store, "Carla@Customer.example")
    outgoing.accept(desk.store, "somebody@else.example")
    hidden, _ = arrive(desk.store, "<b@c>", blocked=True)
    found = trace(desk, "carla@customer.EXAMPLE")
    assert sorted(ids(found)) == sorted(map(show_id, (came, went, hidden)))
    by_id = {line["id"]: line["verdict"] for line in found}
    assert by_id[show_id(hidden)] == "in quarantine, waits to be looked at"
    assert sorted(ids(trace(desk, "*@customer.example"))) == sorted(ids(found))
    assert len(trace(desk, "ana@example.com")) == 2


def test_a_pattern_has_no_other_signs_than_the_star(desk: Desk) -> None:
    arrive(desk.store, "<a@c>")
    refusal(desk, "carl?@customer.example")
    refusal(desk, "[a-z]arla@customer.example")
    refusal(desk, "carl?@customer.*")


@pytest.mark.parametrize("subject", ["rückfrage", "RÜCKFRAGE", "Rück", "100%", "a_b"])
def test_a_part_of_the_subject_will_do(desk: Desk, subject: str) -> None:
    id, _ = arrive(desk.store, "<a@c>", subject="Eine Rückfrage, 100% a_b")
    arrive(desk.store, "<b@c>", subject="Nothing like it, 1000 axb")
    assert trace(desk, subject=subject)[0]["id"] == show_id(id)
    assert trace(desk, "carla@customer.example", subject=subject)[0]["id"] == show_id(id)


def test_the_newest_that_match_within_the_time_that_is_asked_about(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "STRETCH", 2)
    all_of_them = [arrive(desk.store, f"<{number}@c>")[0] for number in range(7)]
    assert ids(trace(desk, "carla@customer.example")) == [show_id(id) for id in all_of_them]
    assert ids(trace(desk, "carla@customer.example", limit=3)) == [show_id(id) for id in all_of_them[-3:]]
    change(desk, "UPDATE message SET id = id - 864000000 WHERE id = ?", all_of_them[0])
    assert len(trace(desk, "carla@customer.example", since=864000 // 2)) == 6
    assert len(trace(desk, "carla@customer.example", since=864000 * 2)) == 7


@pytest.mark.parametrize(
    ("what", "args", "words", "exit_code"),
    [
        pytest.param(None, {}, "say what to look for", 2, id="nothing"),
        pytest.param("!!", {}, "neither an id", 2, id="no-id"),
        pytest.param("1r7hq2x0", {}, "no message and no conversation", 1, id="unknown-id"),
        pytest.param("<nobody@nowhere>", {}, "nothing that is kept matches", 1, id="unknown-message-id"),
        pytest.param("nobody@nowhere", {}, "nothing that is kept matches", 1, id="unknown-address"),
        pytest.param(None, {"subject": "xyz"}, "nothing that is kept matches 'xyz'", 1, id="unknown-subject"),
        pytest.param("a@b", {"touchpoint": "suport"}, 'did you mean "support"', 2, id="unknown-touchpoint"),
        pytest.param("\udcff@b", {}, "nothing that is kept matches", 1, id="no-text"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    desk: Desk, what: str | None, args: dict[str, Any], words: str, exit_code: int
) -> None:
    error = refusal(desk, what, **args)
    assert words in str(error)
    assert error.exit_code == exit_code


def test_the_steps_of_a_trail_are_told_as_they_were_recorded(desk: Desk) -> None:
    id, _ = arrive(desk.store, "<a@c>", blocked=True)
    found = trace(desk, show_id(id))
    assert Step("blocklist", "carla@customer.example is on it", "quarantine") in [
        Step(line["step"], line["detail"], line["verdict"]) for line in found
    ]
