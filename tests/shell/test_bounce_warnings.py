"""Who writes to an address that bounced for good is warned beside the acceptance, once a day."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from gateway.model import Envelope, MessageClass, Submission, personal_queue
from gateway.outbound.warnings import BounceWarnings
from gateway.state import conversations, outbox
from gateway.state.bounces import Hard, HardBounces
from gateway.state.outbox import Accepting
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
TEXT = "Not delivered to bob@example.net: there is no such mailbox (550 5.1.1 user unknown)."
KNOWN = {("support", "bob@example.net"): Hard(0, TEXT)}


def submission(*recipients: str, agent: str = "ana@example.com", touchpoint: str = "support") -> Submission:
    envelope = Envelope("support@example.com", recipients or ("Bob@Example.NET",))
    return Submission(5, touchpoint, agent, envelope, "<m@x>", "Your order", AT, b"x")


@pytest.fixture
def warnings() -> BounceWarnings:
    return BounceWarnings(HardBounces(KNOWN), lambda: "gw.example.com", count(10).__next__)


def test_a_warning_says_what_came_back(warnings: BounceWarnings) -> None:
    notice = warnings.of(submission("ann@example.org", "Bob@Example.NET"))
    assert notice is not None
    assert (notice.login, notice.touchpoint, notice.reopens) == ("ana@example.com", "support", False)
    assert notice.message_class is MessageClass.REPORT
    assert notice.subject == "Perhaps not reached: Bob@Example.NET: Your order"
    assert notice.note == f"Mail to Bob@Example.NET has come back before: {TEXT}"
    ((_, raw),) = notice.chunks
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert (message["Return-Path"], message["Auto-Submitted"]) == ("<>", "auto-generated")
    assert TEXT in " ".join(message.get_content().split())
    assert "ann@example.org" not in message.get_content()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(submission("ann@example.org"), id="another-address"),
        pytest.param(submission(touchpoint="billing"), id="another-touchpoint"),
    ],
)
def test_nobody_else_is_warned(warnings: BounceWarnings, other: Submission) -> None:
    assert warnings.of(other) is None


def test_a_writer_is_warned_once_a_day(warnings: BounceWarnings) -> None:
    assert warnings.of(submission()) is not None
    assert warnings.of(submission()) is None
    assert warnings.of(submission(agent="eva@example.com")) is not None
    tomorrow = replace(submission(), accepted_at=AT + timedelta(days=1))
    assert warnings.of(tomorrow) is not None
    assert warnings.of(tomorrow) is None


def test_an_address_that_is_in_use_again_warns_nobody() -> None:
    hard = HardBounces(KNOWN)
    warnings = BounceWarnings(hard, lambda: "gw.example.com", count(10).__next__)
    hard.forget("support", "BOB@example.net")
    assert warnings.of(submission()) is None


def test_many_addresses_are_one_warning() -> None:
    known = {("support", f"u{n}@example.net"): Hard(0, TEXT) for n in range(50)}
    warnings = BounceWarnings(HardBounces(known), lambda: "gw.example.com", count(10).__next__)
    notice = warnings.of(submission(*(address for _, address in known)))
    assert notice is not None
    assert notice.subject == "Perhaps not reached: 50 recipients: Your order"
    ((_, raw),) = notice.chunks
    assert b"30 more" in raw


def test_the_warning_is_stored_with_the_message(tmp_path, warnings: BounceWarnings) -> None:
    store = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    try:
        warnings._next_id = store.ids.next  # the store's own numbers
        one = replace(submission(), id=store.ids.next())
        accepting = Accepting(one, ((chunk_key(one.id, 0), b"x"),), notice=warnings.of(one))
        store.submit(outbox.accept, accepting).result(5)
        queue = personal_queue("ana@example.com")
        (found,) = store.read(conversations.list_conversations, queue).result(5)
        assert found["subject"].startswith("Perhaps not reached")
        assert len(store.read(outbox.list_outbox).result(5)) == 1
    finally:
        store.close()
