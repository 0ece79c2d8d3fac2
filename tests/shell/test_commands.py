"""What commands answer, on a real store: the promised shapes, and one clear line for what cannot be done."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from gateway.commands import RECONCILED, handlers
from gateway.config import Changes
from gateway.desk import Desk, offline_desk
from gateway.errors import CommandError, ConfigError, Unavailable
from gateway.health import Health
from gateway.inbound import rounds
from gateway.model import UNROUTED, Role, show_id, to_ms
from gateway.state import agents, lanes, outbox, queues, raw
from gateway.state.agents import LoginNote
from gateway.state.lanes import Change
from gateway.state.lifecycle import Event, LaneEvent, State
from gateway.state.outbox import Want
from gateway.state.queues import Notice
from tests.support import outgoing
from tests.support.desk import AT, arrive, write_site

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

CONVERSATION_KEYS = [
    *("id", "touchpoint", "queues", "state", "owner", "subject", "from", "from_name"),
    *("priority", "tags", "message_ids", "first_at", "last_at"),
]
STATUS_KEYS = [
    *("id", "address", "name", "active", "connected", "state", "cause", "since", "consent_at", "direction"),
    *("last_message_at", "last_server_byte_at", "lag_seconds", "unfetched", "queued", "deferred", "held", "uncertain"),
    "signatures_left_out",
]
OUTBOX_KEYS = [
    "id",
    "touchpoint",
    "agent",
    "message_id",
    "subject",
    "accepted_at",
    "cause",
    "recipients",
    "held",
    "signature",
]
RECIPIENT_KEYS = ["address", "state", "attempts", "next_attempt_at", "reply", "next_look_at", "looks", "bounced"]


@pytest.fixture
def gateway_toml(tmp_path: Path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def desk(gateway_toml: Path) -> Iterator[Desk]:
    with offline_desk(gateway_toml) as desk:
        yield desk


def ask(desk: Desk, command: str, **args: Any) -> Any:
    return trio.run(handlers(desk)[command], args)


def refusal(desk: Desk, command: str, **args: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        ask(desk, command, **args)
    assert "\n" not in str(caught.value)
    return caught.value


def is_time(value: object) -> bool:
    return isinstance(value, str) and RFC3339.fullmatch(value) is not None


# --- queue -----------------------------------------------------------------------------------------------------------


def test_queue_list_has_the_promised_shape(desk: Desk) -> None:
    _, conversation = arrive(desk.store, "<a@c>")
    (listed,) = ask(desk, "queue.list")
    assert list(listed) == CONVERSATION_KEYS
    assert is_time(listed["first_at"])
    assert is_time(listed["last_at"])
    assert listed | {"first_at": "", "last_at": ""} == {
        "id": show_id(conversation),
        "touchpoint": "support",
        "queues": ["support"],
        "state": "open",
        "owner": None,
        "subject": "Help",
        "from": "carla@customer.example",
        "from_name": "Carla",
        "priority": "normal",
        "tags": ["new"],
        "message_ids": ["<a@c>"],
        "first_at": "",
        "last_at": "",
    }


def test_queue_list_shows_one_queue_the_newest_or_what_is_settled_too(desk: Desk) -> None:
    for number in range(3):
        arrive(desk.store, f"<{number}@c>")
    arrive(desk.store, "<b@c>", into="billing")
    assert len(ask(desk, "queue.list")) == 4
    assert len(ask(desk, "queue.list", queue="support")) == 3
    assert len(ask(desk, "queue.list", queue="support", limit=2)) == 2
    assert [one["queues"] for one in ask(desk, "queue.list", queue="billing", all=True)] == [["billing"]]
    assert ask(desk, "queue.list", queue=UNROUTED) == []


def test_a_personal_queue_is_found_however_the_login_is_written(desk: Desk) -> None:
    notice_id = desk.store.ids.next()
    notice = Notice(
        notice_id, desk.store.ids.next(), "support", "Ana@example.com", "Not delivered",
        ((raw.chunk_key(notice_id, 0), b"notice"),), 6, to_ms(AT),
    )  # fmt: skip
    desk.store.submit(queues.put_notice, notice).result(10)
    for name in ("agent:ana@example.com", "agent:Ana@Example.COM"):
        assert [one["subject"] for one in ask(desk, "queue.list", queue=name)] == ["Not delivered"]


@pytest.mark.parametrize(
    ("queue", "hint"),
    [
        pytest.param("suport", 'did you mean "support"?', id="misspelt"),
        pytest.param("zzz", "there are: billing, support, unrouted", id="unheard-of"),
    ],
)
def test_an_unknown_queue_is_a_wrong_argument(desk: Desk, queue: str, hint: str) -> None:
    error = refusal(desk, "queue.list", queue=queue)
    assert str(error) == f'unknown queue "{queue}"; {hint}'
    assert error.exit_code == 2


def test_a_queue_that_the_file_has_no_more_can_be_looked_at_while_mail_lies_in_it(desk: Desk) -> None:
    arrive(desk.store, "<a@c>", into="formerly")
    assert len(ask(desk, "queue.list", queue="formerly")) == 1


def test_queue_show_finds_a_conversation_by_its_own_id_and_by_those_of_its_messages(desk: Desk) -> None:
    id, conversation = arrive(desk.store, "<a@c>")
    answer = outgoing.accept(desk.store, references=("<a@c>",))
    shown = ask(desk, "queue.show", id=show_id(conversation))
    assert list(shown)[: len(CONVERSATION_KEYS)] == CONVERSATION_KEYS
    assert [(one["id"], one["direction"]) for one in shown["messages"]] == [
        (show_id(id), "inbound"),
        (show_id(answer), "outbound"),
    ]
    assert shown["messages"][0]["trail"] == [{"step": "class", "detail": "no sign of a machine", "verdict": "human"}]
    assert ask(desk, "queue.show", id=show_id(id)) == shown
    assert ask(desk, "queue.show", id=show_id(answer)) == shown


def test_queue_read_lists_the_messages_and_their_bytes_come_in_pieces(desk: Desk) -> None:
    id, conversation = arrive(desk.store, "<a@c>", body=b"Subject: x\r\n\r\nthe question\r\n")
    body = bytes(range(256)) * 3000  # more than two chunks
    answer = outgoing.accept(desk.store, references=("<a@c>",), body=body)
    messages = ask(desk, "queue.read", id=show_id(conversation))
    assert [list(one) for one in messages] == [["id", "direction", "at", "message_id", "size", "note"]] * 2
    assert [one["direction"] for one in messages] == ["inbound", "outbound"]
    assert b"".join(pieces(desk, show_id(id))) == b"Subject: x\r\n\r\nthe question\r\n"
    assert b"".join(pieces(desk, show_id(answer))).endswith(body)
    assert len(pieces(desk, show_id(answer))) == 3
    assert ask(desk, "queue.read", id=show_id(answer)) == messages[1:]


def pieces(desk: Desk, id: str) -> list[bytes]:
    found: list[bytes] = []
    while (piece := ask(desk, "message.chunk", id=id, number=len(found))) is not None:
        found.append(base64.b64decode(piece))
    return found


@pytest.mark.parametrize("command", ["queue.show", "queue.read", "outbox.show"])
def test_an_unknown_id_is_one_line_that_says_where_ids_are_shown(desk: Desk, command: str) -> None:
    error = refusal(desk, command, id="1r7hq2x0")
    assert "1r7hq2x0" in str(error)
    assert f"`mail-gateway {command.partition('.')[0]} list --all` shows them" in str(error)
    assert error.exit_code == 1


@pytest.mark.parametrize(
    "command",
    [
        "queue.show",
        "queue.read",
        *(f"outbox.{word}" for word in ("show", "retry", "hold", "release", "cancel", "settle")),
    ],
)
def test_what_is_no_id_is_a_wrong_argument(desk: Desk, command: str) -> None:
    error = refusal(desk, command, id="my letter", delivered=True)
    assert str(error).startswith("'my letter' is not an id; ")
    assert error.exit_code == 2


# --- outbox ----------------------------------------------------------------------------------------------------------


def test_outbox_list_has_the_promised_shape(desk: Desk) -> None:
    id = outgoing.accept(desk.store, "b@clients.example", "c@clients.example")
    (listed,) = ask(desk, "outbox.list")
    assert list(listed) == OUTBOX_KEYS
    assert [list(each) for each in listed["recipients"]] == [RECIPIENT_KEYS] * 2
    assert (listed["id"], listed["touchpoint"], listed["cause"]) == (show_id(id), "support", None)
    assert is_time(listed["accepted_at"])
    assert listed["recipients"][0] == {
        "address": "b@clients.example",
        "state": "queued",
        "attempts": 0,
        "next_attempt_at": listed["accepted_at"],
        "reply": None,
        "next_look_at": None,
        "looks": None,
        "bounced": None,
    }
    assert ask(desk, "outbox.show", id=show_id(id)) == listed


@pytest.mark.parametrize(
    ("touchpoint", "cause"),
    [
        pytest.param("billing", "the touchpoint is not active", id="inactive"),
        pytest.param("reports", "the touchpoint is inbound only", id="inbound"),
        pytest.param("formerly", "the touchpoint is not in rules.toml any more", id="gone"),
    ],
)
def test_mail_that_the_configuration_stops_is_held_and_says_so(desk: Desk, touchpoint: str, cause: str) -> None:
    outgoing.accept(desk.store, touchpoint=touchpoint)
    (listed,) = ask(desk, "outbox.list")
    assert (listed["recipients"][0]["state"], listed["cause"]) == ("held", cause)


def test_outbox_retry_makes_due_counts_and_wakes(desk: Desk) -> None:
    woken: list[str] = []
    desk = replace(desk, ring=woken.append)
    one = outgoing.accept(desk.store, "b@clients.example", "c@clients.example")
    outgoing.accept(desk.store, "d@clients.example", touchpoint="news")
    shut(desk, "support", "news")
    assert all(waits(message) for message in ask(desk, "outbox.list"))
    assert ask(desk, "outbox.retry", id=show_id(one)) == 2
    assert woken == ["support"]
    assert ask(desk, "outbox.retry", touchpoint="news@example.com") == 1
    assert woken == ["support", "news"]
    assert ask(desk, "outbox.retry") == 3
    assert sorted(woken) == ["news", "news", "support", "support"]
    assert not any(waits(message) for message in ask(desk, "outbox.list"))


def shut(desk: Desk, *touchpoints: str) -> None:
    """Pause the lanes for an hour: what a provider that throttles does."""
    for touchpoint in touchpoints:
        pause = Change(touchpoint, LaneEvent.PAUSE, to_ms(datetime.now(UTC)), "throttled", "421 later", (3_600_000,))
        desk.store.submit(lanes.change, pause).result(10)


def waits(message: Mapping[str, Any]) -> bool:
    next_at = datetime.fromisoformat(message["recipients"][0]["next_attempt_at"])
    return next_at > datetime.now(UTC) + timedelta(minutes=5)


def test_what_is_settled_is_not_retried(desk: Desk) -> None:
    id = outgoing.accept(desk.store)
    desk.store.submit(_settle_all, None).result(10)
    error = refusal(desk, "outbox.retry", id=show_id(id))
    assert str(error).startswith(f"{show_id(id)}: no recipient waits for another attempt")
    assert error.exit_code == 1
    assert ask(desk, "outbox.retry") == 0
    assert ask(desk, "outbox.list") == []
    assert [one["id"] for one in ask(desk, "outbox.list", all=True)] == [show_id(id)]


def _settle_all(db: Any, items: Any) -> list[None]:
    db.execute("UPDATE recipient SET state = 'delivered', settled_at = 1, next_attempt_at = NULL")
    return [None] * len(items)


@pytest.mark.parametrize("word", ["retry", "hold", "release", "cancel"])
def test_an_unknown_touchpoint_is_a_wrong_argument(desk: Desk, word: str) -> None:
    error = refusal(desk, f"outbox.{word}", touchpoint="suport")
    assert (str(error), error.exit_code) == ('unknown touchpoint "suport"; did you mean "support"?', 2)


def sending(desk: Desk, *recipients: str) -> tuple[int, outbox.Claimed]:
    """Return a message that is being sent at this moment, and its claim."""
    id = outgoing.accept(desk.store, *recipients)
    want = Want("support", to_ms(datetime.now(UTC)) + 1000, (60_000,))
    claimed = desk.store.submit(outbox.step, outbox.Step(None, want)).result(10)
    assert claimed is not None
    rows = tuple((one.number, one.before) for one in claimed.recipients)
    assert desk.store.submit(outbox.begin_data, outbox.Begin(claimed.id, claimed.attempt, rows)).result(10)
    return id, claimed


def uncertain(desk: Desk, *recipients: str) -> int:
    id, claimed = sending(desk, *recipients)
    fated = tuple(outbox.Fated(one.number, State.SENDING, Event.INTERRUPTED, "cut") for one in claimed.recipients)
    done = outbox.Done(id, "support", claimed.attempt, claimed.kind, fated, to_ms(datetime.now(UTC)))
    desk.store.submit(outbox.step, outbox.Step(done)).result(10)
    return id


def states(desk: Desk, id: int) -> list[str]:
    return [each["state"] for each in ask(desk, "outbox.show", id=show_id(id))["recipients"]]


def test_a_message_is_held_and_released_and_each_wakes_who_sends(desk: Desk) -> None:
    woken: list[str] = []
    desk = replace(desk, ring=woken.append)
    id = outgoing.accept(desk.store, "b@clients.example", "c@clients.example")
    assert ask(desk, "outbox.hold", id=show_id(id)) == {"recipients": 2, "too_late": []}
    assert ask(desk, "outbox.show", id=show_id(id))["cause"] == "held by a person"
    assert str(refusal(desk, "outbox.hold", id=show_id(id))) == f"{show_id(id)} is held already (held by a person)"
    retried = refusal(desk, "outbox.retry", id=show_id(id))
    assert str(retried).endswith(f"it is tried after: mail-gateway outbox release {show_id(id)}")
    assert ask(desk, "outbox.release", id=show_id(id)) == {"recipients": 2, "too_late": []}
    assert woken == ["support"]
    assert str(refusal(desk, "outbox.release", id=show_id(id))) == f"{show_id(id)} is not held"


def test_the_log_tells_what_a_person_did_with_a_message(desk: Desk) -> None:
    desk = replace(desk, health=Health(lambda: datetime.now(UTC)))
    id = show_id(outgoing.accept(desk.store, "b@clients.example", "c@clients.example"))
    with capture_logs() as entries:
        ask(desk, "outbox.hold", id=id.upper())
        ask(desk, "outbox.cancel", id=id)
        ask(desk, "outbox.hold", touchpoint="news")
    said = [(entry["event"], entry.get("queue_id"), entry.get("touchpoint"), entry["recipients"]) for entry in entries]
    assert said == [("outbox-hold", id, None, 2), ("outbox-cancel", id, None, 2), ("outbox-hold", None, "news", 0)]


def test_a_touchpoint_is_held_and_released_and_its_messages_say_so(desk: Desk) -> None:
    woken: list[str] = []
    desk = replace(desk, ring=woken.append)
    id = outgoing.accept(desk.store)
    assert ask(desk, "outbox.hold", touchpoint="support@example.com") == {"recipients": 1, "too_late": []}
    assert states(desk, id) == ["held"]
    for word in ("release", "retry"):
        error = refusal(desk, f"outbox.{word}", id=show_id(id))
        assert str(error) == f"{show_id(id)}: not the message is held, but all of support: held by a person"
    assert ask(desk, "outbox.release", touchpoint="support")["recipients"] == 1
    assert (states(desk, id), set(woken)) == (["queued"], {"support"})


def test_mail_of_a_touchpoint_that_is_no_more_can_be_cancelled(desk: Desk) -> None:
    id = outgoing.accept(desk.store, touchpoint="formerly")
    assert ask(desk, "outbox.cancel", touchpoint="formerly") == {"recipients": 1, "too_late": []}
    assert states(desk, id) == ["cancelled"]


@pytest.mark.parametrize("word", ["hold", "cancel", "settle"])
def test_what_is_being_sent_is_too_late_to_stop(desk: Desk, word: str) -> None:
    id, _ = sending(desk, "b@clients.example", "c@clients.example")
    error = refusal(desk, f"outbox.{word}", id=show_id(id), delivered=True)
    assert str(error) == f"{show_id(id)}: too late, it is being sent to b@clients.example, c@clients.example"
    assert states(desk, id) == ["sending", "sending"]


@pytest.mark.parametrize(("word", "expected"), [("hold", "waits"), ("cancel", "waits"), ("settle", "is uncertain")])
def test_about_what_is_settled_nothing_can_be_asked(desk: Desk, word: str, expected: str) -> None:
    id = outgoing.accept(desk.store)
    desk.store.submit(_settle_all, None).result(10)
    error = refusal(desk, f"outbox.{word}", id=show_id(id), delivered=True)
    assert str(error).startswith(f"{show_id(id)}: no recipient {expected}; ")


@pytest.mark.parametrize("word", ["hold", "release", "cancel", "settle", "retry"])
def test_about_a_message_that_is_not_there_nothing_can_be_asked(desk: Desk, word: str) -> None:
    assert str(refusal(desk, f"outbox.{word}", id="1r7hq2x0", delivered=True)).startswith(
        "no outbound message 1r7hq2x0"
    )


def test_what_is_uncertain_shows_when_it_is_looked_for_and_a_person_settles_it(desk: Desk) -> None:
    id = uncertain(desk, "b@clients.example", "c@clients.example")
    (first, _) = ask(desk, "outbox.show", id=show_id(id))["recipients"]
    assert (first["state"], first["looks"], is_time(first["next_look_at"])) == ("uncertain", 0, True)
    typo = refusal(desk, "outbox.settle", id=show_id(id), delivered=True, recipient="d@clients.example")
    assert str(typo).startswith(f"{show_id(id)} does not go to d@clients.example; ")
    one = ask(desk, "outbox.settle", id=show_id(id), delivered=True, recipient="B@clients.example")
    assert (one["recipients"], states(desk, id)) == (1, ["delivered", "uncertain"])
    assert ask(desk, "outbox.settle", id=show_id(id), delivered=False)["recipients"] == 1
    assert states(desk, id) == ["delivered", "deferred"]


# --- agents ----------------------------------------------------------------------------------------------------------


def test_agent_list_tells_who_may_do_what(desk: Desk) -> None:
    desk.store.submit(agents.note_login, LoginNote("ana@example.com", True, AT)).result(10)
    desk.store.submit(agents.note_login, LoginNote("ana@example.com", False, AT)).result(10)
    ana, boss, sofia = ask(desk, "agent.list")
    assert ana == {
        "login": "Ana@example.com",
        "name": "Ana Lima",
        "email": "Ana@example.com",
        "role": "agent",
        "active": True,
        "has_password": False,
        "may_write_as": ["support@example.com"],
        "sees": ["support", "agent:ana@example.com"],
        "previews": [],
        "last_login_at": "2026-11-23T10:00:00.000Z",
        "failures": 1,
    }
    assert boss["sees"] == ["billing", "support", "agent:boss@example.com", "unrouted"]
    assert boss["has_password"]
    assert boss["may_write_as"] == ["support@example.com", "billing@example.com"]
    assert (sofia["email"], sofia["active"]) == ("sofia@home.example", False)
    assert sofia["may_write_as"] == ["news@example.com"]
    assert sofia["previews"] == ["support@example.com"]
    assert sofia["last_login_at"] is None
    assert ask(desk, "agent.show", login="ANA@example.com") == ana


@pytest.mark.parametrize("command", ["agent.show", "agent.passwd"])
def test_an_unknown_agent_is_a_wrong_argument(desk: Desk, command: str) -> None:
    error = refusal(desk, command, login="anna@example.com", hash="x")
    assert (str(error), error.exit_code) == ('unknown agent "anna@example.com"; did you mean "ana@example.com"?', 2)


def test_a_password_is_stored_and_older_verified_logins_are_forgotten(desk: Desk) -> None:
    forgotten: list[str] = []
    desk = replace(desk, forget_logins=forgotten.append)
    assert ask(desk, "agent.passwd", login="Ana@example.com") is None  # would it be taken?
    assert not ask(desk, "agent.show", login="ana@example.com")["has_password"]
    ask(desk, "agent.passwd", login="Ana@example.com", hash="$argon2id$…")
    assert ask(desk, "agent.show", login="ana@example.com")["has_password"]
    assert desk.store.read(agents.stored_hash, "ana@example.com").result(10) == "$argon2id$…"
    assert [login.lower() for login in forgotten] == ["ana@example.com"]


@pytest.mark.parametrize("hash", [None, "$argon2id$…"])
def test_a_password_in_the_file_is_not_overruled(desk: Desk, hash: str | None) -> None:
    error = refusal(desk, "agent.passwd", login="boss@example.com", hash=hash)
    assert "password_hash stands in rules.toml and what the file says wins" in str(error)
    assert error.exit_code == 1
    assert desk.store.read(agents.stored_hash, "boss@example.com").result(10) is None


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_quarantine_list_has_the_promised_shape(desk: Desk) -> None:
    id, conversation = arrive(desk.store, "<a@c>", role=Role.JUNK)
    arrive(desk.store, "<b@c>")
    (listed,) = ask(desk, "quarantine.list")
    assert is_time(listed["at"])
    assert listed == {
        "id": show_id(id),
        "conversation": show_id(conversation),
        "touchpoint": "support",
        "from": "carla@customer.example",
        "from_name": "Carla",
        "subject": "Help",
        "at": listed["at"],
        "cause": "it lies in the provider's Junk",
        "folder": "Junk",
        "size": 4,
        "reviewed_at": None,
    }


def test_a_release_puts_it_into_its_queue_and_wakes_the_mailbox_that_moves_it(desk: Desk) -> None:
    rung: list[str] = []
    desk = replace(desk, ring=rung.append)
    id, conversation = arrive(desk.store, "<a@c>", role=Role.JUNK)
    assert ask(desk, "queue.list") == []
    assert ask(desk, "quarantine.release", id=show_id(id)) == {
        "messages": [show_id(id)],
        "conversations": [show_id(conversation)],
        "queues": ["support"],
    }
    assert rung == [rounds.bell("support")]
    assert [one["id"] for one in ask(desk, "queue.list")] == [show_id(conversation)]
    assert ask(desk, "quarantine.list", all=True) == []


def test_a_confirmation_keeps_it_there_and_asks_for_no_second_look(desk: Desk) -> None:
    rung: list[str] = []
    desk = replace(desk, ring=rung.append)
    id, conversation = arrive(desk.store, "<a@c>", blocked=True)
    assert ask(desk, "quarantine.confirm", id=show_id(conversation))["messages"] == [show_id(id)]
    assert rung == [rounds.bell("support")]
    assert ask(desk, "quarantine.list") == []
    (listed,) = ask(desk, "quarantine.list", all=True)
    assert (listed["id"], listed["cause"]) == (show_id(id), "blocklist: carla@customer.example is on it")
    assert is_time(listed["reviewed_at"])
    assert str(refusal(desk, "quarantine.confirm", id=show_id(id))) == (
        f"{show_id(id)}: nothing of it waits to be looked at; `mail-gateway quarantine list --all` shows what is there"
    )
    assert ask(desk, "quarantine.release", id=show_id(id))["queues"] == ["support"]


def test_what_needs_nothing_at_the_provider_wakes_nobody(desk: Desk) -> None:
    rung: list[str] = []
    desk = replace(desk, ring=rung.append)
    id, _ = arrive(desk.store, "<a@c>", blocked=True)
    ask(desk, "quarantine.release", id=show_id(id))
    other, _ = arrive(desk.store, "<b@c>", role=Role.JUNK)
    ask(desk, "quarantine.confirm", id=show_id(other))
    assert rung == []


@pytest.mark.parametrize("command", ["quarantine.release", "quarantine.confirm"])
def test_what_is_not_in_quarantine_is_named(desk: Desk, command: str) -> None:
    id, _ = arrive(desk.store, "<a@c>")
    error = refusal(desk, command, id=show_id(id))
    assert str(error).startswith(f"{show_id(id)}: nothing of it ")
    assert error.exit_code == 1
    error = refusal(desk, command, id="no id!")
    assert (str(error), error.exit_code) == ("'no id!' is not an id; `mail-gateway quarantine list` shows them", 2)


# --- reconcile -------------------------------------------------------------------------------------------------------


def test_reconcile_asks_for_one_touchpoint_or_for_all_and_leaves_no_key_out(desk: Desk) -> None:
    asked: list[str | None] = []

    async def reconcile(touchpoint: str | None) -> list[dict[str, Any]]:
        asked.append(touchpoint)
        return [
            {"touchpoint": "support", "folder": "INBOX", "role": "queue", "at_provider": 3, "known": 1, "more": 1},
            {"touchpoint": "support", "folder": None, "error": "away"},
        ]

    desk = replace(desk, reconcile=reconcile)
    found = ask(desk, "reconcile")
    assert [tuple(one) for one in found] == [RECONCILED, RECONCILED]
    assert (found[0]["at_provider"], found[0]["owed"], found[0]["error"]) == (3, None, None)
    assert (found[1]["folder"], found[1]["known"], found[1]["error"]) == (None, None, "away")
    ask(desk, "reconcile", touchpoint="support")
    ask(desk, "reconcile", touchpoint="Support@Example.com")
    assert asked == [None, "support", "support"]


@pytest.mark.parametrize(
    ("name", "line", "exit_code"),
    [
        pytest.param("suport", 'unknown touchpoint "suport"; did you mean "support"?', 2, id="unknown"),
        pytest.param("billing", "billing has no folder that is watched: it is not active", 1, id="inactive"),
        pytest.param("news", "news has no folder that is watched: it is outbound only", 1, id="outbound"),
    ],
)
def test_reconcile_refuses_what_is_not_watched(desk: Desk, name: str, line: str, exit_code: int) -> None:
    async def reconcile(touchpoint: str | None) -> list[dict[str, Any]]:
        raise AssertionError("it must not be asked")

    error = refusal(replace(desk, reconcile=reconcile), "reconcile", touchpoint=name)
    assert (str(error), error.exit_code) == (line, exit_code)


# --- status and reload, which need a daemon's desk -------------------------------------------------------------------


@pytest.fixture
def daemon_desk(desk: Desk) -> Desk:
    async def reload(by: str) -> Changes:
        return desk.rulebook.reload(by)

    return replace(desk, health=Health(lambda: datetime.now(UTC)), started_at=AT, reload=reload)


def touchpoint_of(status: Mapping[str, Any], id: str) -> dict[str, Any]:
    return next(one for one in status["touchpoints"] if one["id"] == id)


def test_status_has_the_promised_shape(daemon_desk: Desk) -> None:
    status = ask(daemon_desk, "status")
    assert list(status) == ["daemon", "touchpoints", "queues", "alarms"]
    assert list(status["daemon"]) == ["version", "pid", "started_at", "rules"]
    assert status["daemon"]["pid"] == os.getpid()
    assert status["daemon"]["started_at"] == "2026-11-23T10:00:00.000Z"
    assert list(status["daemon"]["rules"]) == ["loaded_at", "origin", "error", "changed_on_disk"]
    for touchpoint in status["touchpoints"]:
        assert set(STATUS_KEYS) <= set(touchpoint)
    assert status["queues"] == [
        {"name": "billing", "open": 0, "oldest_at": None, "agents": ["boss@example.com"]},
        {"name": "support", "open": 0, "oldest_at": None, "agents": ["Ana@example.com", "boss@example.com"]},
    ]
    assert status["alarms"] == []


def test_status_shows_what_a_touchpoint_is_doing(daemon_desk: Desk) -> None:
    assert daemon_desk.health is not None
    daemon_desk.health.set_state("support", "watching", connected=True)
    support = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert (support["state"], support["connected"], support["active"]) == ("watching", True, True)
    assert is_time(support["since"])
    billing = touchpoint_of(ask(daemon_desk, "status"), "billing")
    assert (billing["state"], billing["connected"], billing["active"]) == ("inactive", False, False)
    assert (billing["since"], billing["lane"], billing["lag_seconds"]) == (None, None, None)


def test_status_tells_what_is_watched_and_when_the_server_was_last_heard(daemon_desk: Desk) -> None:
    assert daemon_desk.health is not None
    health = daemon_desk.health.touchpoint("support")
    shown = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert (shown["last_server_byte_at"], shown["folders"], shown["unfetched"]) == (None, [], 0)
    health.folders = {"INBOX": Role.QUEUE, "Spam": Role.JUNK}
    health.last_server_byte_at, health.unfetched = AT, 2
    shown = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert shown["folders"] == [{"name": "INBOX", "role": "queue"}, {"name": "Spam", "role": "junk"}]
    assert (shown["last_server_byte_at"], shown["unfetched"]) == ("2026-11-23T10:00:00.000Z", 2)
    health.heard = lambda: AT + timedelta(seconds=7)  # while the session waits in IDLE, nobody notes what came
    assert touchpoint_of(ask(daemon_desk, "status"), "support")["last_server_byte_at"] == "2026-11-23T10:00:07.000Z"


def test_our_own_faults_are_an_alarm_for_some_minutes(daemon_desk: Desk) -> None:
    now = datetime.now(UTC)
    health = Health(lambda: now)
    daemon_desk = replace(daemon_desk, health=health)
    strays = 0
    health.strays = lambda: strays
    assert ask(daemon_desk, "status")["alarms"] == []
    strays, health.bugs = 2, 1
    now -= timedelta(minutes=9)
    for _ in range(2):
        (alarm,) = ask(daemon_desk, "status")["alarms"]
        assert (alarm["id"], alarm["cause"]) == ("faults", "the gateway has come upon 3 faults of its own")
    now -= timedelta(minutes=2)  # as if it had been found two minutes earlier
    health.clear(None, "faults")
    health.alarm(None, "faults", "an old one", "look")
    assert ask(daemon_desk, "status")["alarms"] == []
    health.bugs += 1
    (alarm,) = ask(daemon_desk, "status")["alarms"]
    assert alarm["cause"] == "the gateway has come upon 1 fault of its own"


def test_lag_is_how_long_mail_may_lie_unseen(daemon_desk: Desk) -> None:
    health = daemon_desk.health
    assert health is not None

    def lag(id: str) -> Any:
        return touchpoint_of(ask(daemon_desk, "status"), id)["lag_seconds"]

    assert lag("support") is None  # never seen
    health.touchpoint("support").synced_at = datetime.now(UTC) - timedelta(seconds=100)
    health.set_state("support", "watching", connected=True)
    assert lag("support") == 0
    health.set_state("support", "waiting", connected=False, cause="refused")
    assert 100 <= lag("support") < 160
    assert lag("news") is None  # outbound only


def test_status_counts_what_waits_and_shows_a_lane_that_is_shut(daemon_desk: Desk) -> None:
    assert daemon_desk.health is not None
    daemon_desk.health.set_state("support", "watching", connected=True)
    outgoing.accept(daemon_desk.store, "b@clients.example", "c@clients.example")
    support = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert (support["queued"], support["deferred"], support["lane"]) == (2, 0, "open")
    shut(daemon_desk, "support")
    support = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert (support["queued"], support["deferred"], support["lane"]) == (0, 2, "paused")
    assert (support["state"], support["cause"]) == ("watching", "421 later")
    hold = Change("support", LaneEvent.HOLD, to_ms(datetime.now(UTC)), "login", "535 wrong password")
    daemon_desk.store.submit(lanes.change, hold).result(10)
    support = touchpoint_of(ask(daemon_desk, "status"), "support")
    assert (support["held"], support["deferred"], support["lane"]) == (2, 0, "held")
    assert touchpoint_of(ask(daemon_desk, "status"), "reports")["lane"] is None


def test_a_message_in_the_middle_of_an_attempt_counts_as_queued(daemon_desk: Desk) -> None:
    outgoing.accept(daemon_desk.store)
    want = Want("support", to_ms(datetime.now(UTC)) + 1000, (60_000,))
    claimed = daemon_desk.store.submit(outbox.step, outbox.Step(None, want)).result(10)
    assert claimed is not None
    rows = tuple((each.number, each.before) for each in claimed.recipients)
    daemon_desk.store.submit(outbox.begin_data, outbox.Begin(claimed.id, claimed.attempt, rows)).result(10)
    assert touchpoint_of(ask(daemon_desk, "status"), "support")["queued"] == 1


def test_unrouted_mail_is_an_alarm_that_goes_when_it_does(daemon_desk: Desk) -> None:
    arrive(daemon_desk.store, "<a@c>", into=UNROUTED)
    status = ask(daemon_desk, "status")
    (alarm,) = status["alarms"]
    assert list(alarm) == ["id", "touchpoint", "since", "cause", "action"]
    assert (alarm["id"], alarm["touchpoint"]) == ("unrouted", None)
    assert alarm["cause"].startswith("1 conversation lies in the queue unrouted")
    assert is_time(alarm["since"])
    (queue,) = [queue for queue in status["queues"] if queue["name"] == UNROUTED]
    assert (queue["open"], queue["agents"]) == (1, ["boss@example.com"])
    since = alarm["since"]
    arrive(daemon_desk.store, "<b@c>", into=UNROUTED)
    (alarm,) = ask(daemon_desk, "status")["alarms"]
    assert alarm["cause"].startswith("2 conversations lie in")
    assert alarm["since"] == since
    daemon_desk.store.submit(_close_all, None).result(10)
    assert ask(daemon_desk, "status")["alarms"] == []


def _close_all(db: Any, items: Any) -> list[None]:
    db.execute("UPDATE conversation SET state = 'closed'")
    return [None] * len(items)


def test_mail_of_a_touchpoint_that_the_file_has_no_more_is_an_alarm(daemon_desk: Desk) -> None:
    outgoing.accept(daemon_desk.store, "b@clients.example", "c@clients.example", touchpoint="formerly")
    (alarm,) = ask(daemon_desk, "status")["alarms"]
    assert alarm["touchpoint"] == "formerly"
    assert alarm["cause"].startswith("2 recipients in the outbox")
    assert 'put the touchpoint with id "formerly" back' in alarm["action"]
    daemon_desk.store.submit(_settle_all, None).result(10)
    assert ask(daemon_desk, "status")["alarms"] == []


def test_status_tells_of_a_file_that_was_edited_or_refused(daemon_desk: Desk, gateway_toml: Path) -> None:
    rules = gateway_toml.with_name("rules.toml")
    rules.write_text(rules.read_text() + "\n[[rule]]\nnme = 1\n")
    assert ask(daemon_desk, "status")["daemon"]["rules"]["changed_on_disk"]
    answer = ask(daemon_desk, "reload")
    assert answer["refused"]
    assert answer["lines"][0] == "refused, nothing was changed:"
    assert all(re.match(r"rules\.toml:\d+: ", line) for line in answer["lines"][1:])
    rules_now = ask(daemon_desk, "status")["daemon"]["rules"]
    assert not rules_now["changed_on_disk"]
    assert "rules.toml:" in rules_now["error"]


def test_reload_says_what_changed_and_what_to_look_at(daemon_desk: Desk, gateway_toml: Path) -> None:
    answer = ask(daemon_desk, "reload")
    assert not answer["refused"]
    assert answer["lines"][0] == "nothing changed"
    rules = gateway_toml.with_name("rules.toml")
    rules.write_text(rules.read_text().replace("Example News", "Example Letter"))
    assert ask(daemon_desk, "reload")["lines"][0] == "touchpoint news: name changed"


# --- while no daemon runs --------------------------------------------------------------------------------------------


def test_beside_a_holder_of_the_lock_the_store_is_not_opened(desk: Desk, gateway_toml: Path) -> None:
    in_use = f"in use by another mail-gateway \\(pid {os.getpid()}\\)"
    with pytest.raises(Unavailable, match=in_use), offline_desk(gateway_toml):
        raise AssertionError("opened")


def test_a_bad_gateway_file_is_told_with_all_problems(gateway_toml: Path) -> None:
    gateway_toml.write_text('state_dir = "/x"\nhostnme = "a"\ntimezone = "Lisbon"\n')
    with pytest.raises(ConfigError) as caught, offline_desk(gateway_toml):
        raise AssertionError("opened")
    assert len(caught.value.problems) == 2


def test_a_command_keeps_no_copy_of_the_rules(gateway_toml: Path, tmp_path: Path) -> None:
    with offline_desk(gateway_toml) as desk:
        assert ask(desk, "queue.list") == []
    assert not (tmp_path / "state" / "last-good").exists()
