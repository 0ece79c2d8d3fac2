"""Who is told what about an attempt: refusals to all who do not mind, success to those who asked (RFC 3461)."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from itertools import count
from typing import Any

import pytest

from gateway.model import NO_WISH, Fate, Notify, OutboxKind, Outcome, Phase, Reply, Wish, to_ms
from gateway.outbound.notices import notices_of, wants_notice
from gateway.outbound.outcome import Judged
from gateway.rules.dsn import Action, read_report
from gateway.state.lifecycle import Event, State
from gateway.state.outbox import Claimed, Done, Fated, Recipient
from gateway.state.queues import Notice

NOW = to_ms(datetime(2026, 11, 23, 12, tzinfo=UTC))
HEAD = b"From: support@example.com\r\nMessage-ID: <m@example.com>\r\nSubject: x\r\n\r\nbody\r\n"
REFUSED = Reply(550, "5.1.1", "unknown")
TAKEN = Reply(250, "2.0.0", "taken")
SUCCESS = Wish(Notify.SUCCESS)


def to(*wishes: Wish) -> tuple[Recipient, ...]:
    return tuple(Recipient(n, f"{'bcde'[n]}@c.example", 1, 0, State.QUEUED, wish) for n, wish in enumerate(wishes))


def claimed(*wishes: Wish, **changes: Any) -> Claimed:
    values: dict[str, Any] = {
        "id": 59_752_489_325, "touchpoint": "support", "attempt": 3, "recipients": to(*(wishes or (NO_WISH,))),
        "begun": False, "agent": "ana@example.com", "kind": OutboxKind.REPLY, "return_path": "support@example.com",
        "eight_bit": False, "smtputf8": False, "message_id": "<m@example.com>", "subject": "Your order",
        "size": len(HEAD), "accepted_at": NOW - 60_000, "conversation": 7, "answers": None, "more": False,
        "probing": None, "raw": HEAD,
    }  # fmt: skip
    return Claimed(**{**values, **changes})


def ended(of: Claimed, *events: Event) -> tuple[list[Judged], Done]:
    replies = {Event.REFUSED: REFUSED, Event.ACCEPTED: TAKEN, Event.GAVE_UP: Reply(450, "4.2.0", "not now")}
    fates = {Event.REFUSED: Fate.REFUSED, Event.ACCEPTED: Fate.ACCEPTED}
    judged = [
        Judged(Outcome(fates.get(event, Fate.DEFERRED), Phase.RCPT, replies.get(event)), None) for event in events
    ]
    fated = tuple(Fated(n, State.SENDING, event, None) for n, event in enumerate(events))
    return judged, Done(of.id, of.touchpoint, of.attempt, of.kind, fated, NOW)


def told(of: Claimed, *events: Event, tells_success: bool = False, head: bytes = HEAD) -> tuple[Notice, ...]:
    judged, done = ended(of, *events)
    notices = notices_of(
        of, judged, done, head, address="support@example.com", hostname="gateway.example", relay="smtp.example.com",
        tells_success=tells_success, next_id=count(10).__next__,
    )  # fmt: skip
    assert bool(notices) <= wants_notice(of, done, tells_success=tells_success)
    return tuple(one.notice for one in notices)


def raw(notice: Notice) -> bytes:
    ((_, content),) = notice.chunks
    return content


def parsed(notice: Notice) -> EmailMessage:
    return email.message_from_bytes(raw(notice), policy=email.policy.default)


def blocks(notice: Notice) -> list[Message]:
    (status,) = [part for part in parsed(notice).walk() if part.get_content_type() == "message/delivery-status"]
    payload = status.get_payload()
    assert isinstance(payload, list)
    return [block for block in payload if isinstance(block, Message) and block.items()]


@pytest.mark.parametrize(
    ("wish", "event", "tells_success", "action"),
    [
        pytest.param(NO_WISH, Event.REFUSED, False, "failed", id="refused"),
        pytest.param(NO_WISH, Event.GAVE_UP, False, "failed", id="given-up"),
        pytest.param(Wish(Notify.FAILURE), Event.REFUSED, True, "failed", id="failure"),
        pytest.param(Wish(Notify(0)), Event.REFUSED, False, None, id="never"),
        pytest.param(Wish(Notify(0)), Event.GAVE_UP, False, None, id="never-expired"),
        pytest.param(Wish(Notify.SUCCESS), Event.REFUSED, False, None, id="only-success"),
        pytest.param(NO_WISH, Event.ACCEPTED, False, None, id="nobody-asked"),
        pytest.param(SUCCESS, Event.ACCEPTED, False, "relayed", id="success"),
        pytest.param(SUCCESS, Event.ACCEPTED, True, None, id="the-provider-tells"),
        pytest.param(NO_WISH, Event.INTERRUPTED, False, None, id="uncertain"),
        pytest.param(NO_WISH, Event.PUT_OFF, False, None, id="deferred"),
    ],
)
def test_what_the_writer_hears(wish: Wish, event: Event, tells_success: bool, action: str | None) -> None:
    of = claimed(wish)
    assert wants_notice(of, ended(of, event)[1], tells_success=tells_success) is (action is not None)
    notices = told(of, event, tells_success=tells_success)
    assert [block["Action"] for one in notices for block in blocks(one)[1:]] == ([action] if action else [])


@pytest.mark.parametrize("changes", [{"return_path": ""}, {"kind": OutboxKind.AUTO_REPLY}, {"kind": OutboxKind.NOTICE}])
def test_nobody_hears_of_mail_that_nobody_wrote(changes: dict[str, Any]) -> None:
    of = claimed(Wish(Notify(7)), **changes)
    for event in (Event.REFUSED, Event.GAVE_UP, Event.ACCEPTED):
        assert not wants_notice(of, ended(of, event)[1], tells_success=False)


@pytest.mark.parametrize(
    "media",
    [
        "multipart/report; report-type=delivery-status; boundary=b",
        "multipart/report; report-type=disposition-notification; boundary=b",
        "message/delivery-status",
    ],
)
def test_there_is_none_about_a_report(media: str) -> None:
    head = f"Content-Type: {media}\r\n".encode() + HEAD
    assert told(claimed(Wish(Notify(7)), raw=head), Event.REFUSED, head=head) == ()
    assert told(claimed(Wish(Notify(7)), raw=head), Event.ACCEPTED, head=head) == ()


def test_a_notice_names_those_who_failed_and_the_conversation() -> None:
    (notice,) = told(claimed(NO_WISH, NO_WISH), Event.ACCEPTED, Event.REFUSED)
    assert (notice.id, notice.conversation, notice.about, notice.login) == (10, 11, 7, "ana@example.com")
    assert notice.reopens
    assert notice.note == "Not delivered to c@c.example: there is no such mailbox (550 5.1.1 unknown)."
    ((key, content),) = notice.chunks
    assert key == 10 << 16
    assert notice.size == len(content)
    assert b"c@c.example" in content
    assert b"b@c.example" not in content


def test_failure_and_success_are_two_notices_and_only_one_brings_the_conversation_back() -> None:
    notices = told(claimed(SUCCESS, NO_WISH, Wish(Notify(0)), SUCCESS), *(Event.ACCEPTED, Event.REFUSED) * 2)
    assert [(one.subject, one.reopens) for one in notices] == [
        ("Not delivered to c@c.example: Your order", True),
        ("Passed on to b@c.example: Your order", False),
    ]
    assert blocks(notices[1])[1]["Status"] == "2.0.0"
    assert notices[1].note == "Passed on for b@c.example to a system that will not report again."


def test_what_was_given_up_says_so() -> None:
    (notice,) = told(claimed(), Event.GAVE_UP)
    assert blocks(notice)[1]["Status"] == "4.4.7"
    assert notice.note == (
        "Not delivered to b@c.example: the other server did not take it for too long (450 4.4.7 not now)."
    )


def test_the_senders_own_names_come_back_decoded() -> None:
    wish = Wish(None, "rfc822;B+40c.example")
    (notice,) = told(claimed(wish, envid="order+2B4711"), Event.REFUSED)
    message, recipient = blocks(notice)
    assert message["Original-Envelope-Id"] == "order+4711"
    assert recipient["Original-Recipient"] == "rfc822; B@c.example"


@pytest.mark.parametrize("orcpt", ["", ";", "rfc822", "rfc822;", "rfc822;+0D+0A", "rfc822;b+0D+0AEvil: x@c"])
def test_a_name_that_makes_no_sense_begins_no_field(orcpt: str) -> None:
    (notice,) = told(claimed(Wish(None, orcpt), envid="a+0D+0AEvil: x"), Event.REFUSED)
    assert b"\nEvil:" not in raw(notice)
    assert [one.address for one in read_report(raw(notice)).recipients] == ["b@c.example"]


@pytest.mark.parametrize(
    ("ret", "event", "returned"),
    [
        ("", Event.REFUSED, "text/rfc822-headers"),
        ("hdrs", Event.REFUSED, "text/rfc822-headers"),
        ("full", Event.REFUSED, "message/rfc822"),
        ("full", Event.ACCEPTED, "text/rfc822-headers"),
    ],
)
def test_a_failure_returns_the_whole_message_to_who_wants_it(ret: str, event: Event, returned: str) -> None:
    (notice,) = told(claimed(Wish(Notify(7)), ret=ret), event)
    parts = list(parsed(notice).iter_parts())
    assert parts[2].get_content_type() == returned
    assert (b"body" in raw(notice).partition(b"Message-ID: <m@")[2]) is (returned == "message/rfc822")


def test_of_a_large_message_the_header_comes_back() -> None:
    (notice,) = told(claimed(ret="full", size=1_000_000, raw=None), Event.REFUSED)
    assert list(parsed(notice).iter_parts())[2].get_content_type() == "text/rfc822-headers"


def test_a_header_in_utf_8_has_a_type_of_its_own() -> None:
    head = "Subject: ö\r\n\r\nbody\r\n".encode()
    (notice,) = told(claimed(ret="full", size=len(head), raw=head), Event.REFUSED, head=head)
    assert parsed(notice)["Content-Transfer-Encoding"] == "8bit"
    assert list(parsed(notice).iter_parts())[2].get_content_type() == "message/global"
    (notice,) = told(claimed(raw=head), Event.REFUSED, head=head)
    assert list(parsed(notice).iter_parts())[2].get_content_type() == "message/global-headers"


def test_our_own_notice_reads_like_any_other_report() -> None:
    (notice,) = told(claimed(NO_WISH, NO_WISH), Event.REFUSED, Event.GAVE_UP)
    report = read_report(raw(notice))
    assert [(one.address, one.action, one.status, one.code) for one in report.recipients] == [
        ("b@c.example", Action.FAILED, "5.1.1", 550),
        ("c@c.example", Action.FAILED, "4.4.7", 450),
    ]
    assert report.message_ids == ("<m@example.com>",)
