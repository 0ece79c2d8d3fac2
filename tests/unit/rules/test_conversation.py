"""Thread keys, and what a message does to the conversation that it joins."""

from __future__ import annotations

import pytest

from gateway.mime.scan import scan
from gateway.model import MessageClass, Step, Verdict
from gateway.rules.conversation import (
    ConversationState,
    answer,
    begin,
    follow,
    is_reopening,
    place,
    thread_key,
    thread_keys,
    ties_of,
)

OPEN, CLAIMED = ConversationState.OPEN, ConversationState.CLAIMED
ANSWERED, CLOSED, QUARANTINED = ConversationState.ANSWERED, ConversationState.CLOSED, ConversationState.QUARANTINED


def verdict(quarantine: bool = False, discard: bool = False, reroute: bool = False) -> Verdict:
    return Verdict(MessageClass.HUMAN, ("billing",), quarantine=quarantine, discard=discard, reroute=reroute)


def test_a_key_is_the_same_however_the_id_is_written() -> None:
    key = thread_key("t", "<Abc@X.example>")
    assert key == thread_key("t", "abc@x.example") == thread_key("t", " < abc@x.\texample>")
    assert key != thread_key("u", "<Abc@X.example>")
    assert key != thread_key("t", "<abd@x.example>")
    assert -(2**63) <= key < 2**63
    assert isinstance(thread_key("t", "\ud800"), int)


def test_keys_come_once_each_and_only_for_ids() -> None:
    assert thread_keys("t", ("<a@b>", "", "<A@B>", "<c@d>")) == (thread_key("t", "<a@b>"), thread_key("t", "<c@d>"))


def test_parents_come_likeliest_first() -> None:
    facts = scan(
        b"Message-ID: <d@x>\r\nIn-Reply-To: <c@x>\r\nReferences: <a@x> <b@x> <c@x> <d@x>\r\n"
        b"X-Microsoft-Original-Message-ID: <o@x>\r\n\r\n"
    )
    ties = ties_of("t", facts)
    assert ties.own == (thread_key("t", "<d@x>"), thread_key("t", "<o@x>"))
    assert ties.parents == tuple(thread_key("t", f"<{one}@x>") for one in "cba")


@pytest.mark.parametrize(
    ("message_class", "header", "expected"),
    [
        pytest.param(MessageClass.HUMAN, b"", True, id="person"),
        pytest.param(MessageClass.BOUNCE, b"", True, id="bounce"),
        pytest.param(MessageClass.LIST, b"", True, id="list"),
        pytest.param(MessageClass.REPORT, b"", False, id="read-receipt"),
        pytest.param(MessageClass.AUTO_REPLY, b"Auto-Submitted: auto-replied", False, id="absence-note"),
        pytest.param(MessageClass.AUTO_REPLY, b"Auto-Submitted: auto-generated", True, id="ticket-system"),
        pytest.param(MessageClass.AUTO_REPLY, b"X-Autoreply: yes", False, id="vendor"),
    ],
)
def test_who_reopens(message_class: MessageClass, header: bytes, expected: bool) -> None:
    assert is_reopening(message_class, scan(header + b"\r\n\r\n")) is expected


def test_how_it_begins() -> None:
    assert begin(verdict()) is OPEN
    assert begin(verdict(quarantine=True)) is QUARANTINED
    assert begin(verdict(discard=True)) is CLOSED
    assert begin(verdict(quarantine=True, discard=True)) is QUARANTINED


@pytest.mark.parametrize(
    ("state", "owner", "reopening", "expected"),
    [
        (OPEN, None, True, OPEN),
        (CLAIMED, "ana", True, CLAIMED),
        (ANSWERED, None, True, OPEN),
        (ANSWERED, "ana", True, CLAIMED),
        (CLOSED, None, True, OPEN),
        (CLOSED, "ana", True, CLAIMED),
        (ANSWERED, None, False, ANSWERED),
        (CLOSED, None, False, CLOSED),
        (QUARANTINED, None, True, OPEN),
        (QUARANTINED, None, False, OPEN),
    ],
)
def test_what_a_message_does(
    state: ConversationState, owner: str | None, reopening: bool, expected: ConversationState
) -> None:
    assert follow(state, owner, verdict(), is_reopening=reopening) is expected
    for nothing in (verdict(quarantine=True), verdict(discard=True)):
        assert follow(state, owner, nothing, is_reopening=reopening) is state


def test_what_a_reply_does() -> None:
    assert {state: answer(state) for state in ConversationState} == {
        OPEN: ANSWERED,
        CLAIMED: ANSWERED,
        ANSWERED: ANSWERED,
        CLOSED: ANSWERED,
        QUARANTINED: QUARANTINED,
    }


def test_where_it_is_placed() -> None:
    assert place(verdict(), ()) == (("billing",), None)
    assert place(verdict(), ("one", "two")) == (
        ("one", "two"),
        Step("conversation", "continues one that is here", "stays in one, two"),
    )
    assert place(verdict(reroute=True), ("one", "two")) == (
        ("billing",),
        Step("conversation", "was in one, two; a rule says reroute", "moved to billing"),
    )
