"""The notice about a refusal: for people first, then for machines; never about a null return path."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage, Message

import pytest

from gateway.model import Reply
from gateway.outbound.bounce import Action, Bounce, Failed, Original, compose_bounce

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HEAD = b"From: support@example.com\r\nSubject: Your order\r\nTo: b@clients.example\r\n\r\nDear customer,\r\n"
REFUSED = Failed("b@clients.example", Reply(550, "5.1.1", "no such user"))


def original(**changes: object) -> Original:
    values: dict[str, object] = {
        "touchpoint_address": "support@example.com",
        "agent": "ana@example.com",
        "return_path": "support@example.com",
        "message_id": "<order.1@example.com>",
        "subject": "Your order",
        "accepted_at": datetime(2026, 11, 23, 12, tzinfo=UTC),
        "head": HEAD,
    }
    return Original(**{**values, **changes})  # type: ignore[arg-type]  # a table of defaults


def compose(of: Original, *failed: Failed, action: Action = Action.FAILED) -> Bounce | None:
    return compose_bounce(
        of, failed, queue_id="1r7hq2x0", bounce_id="1r7hq2x1", hostname="gateway.example.com",
        relay="smtp.example.com", now=NOW, action=action,
    )  # fmt: skip


def parse(bounce: Bounce | None) -> EmailMessage:
    assert bounce is not None
    return email.message_from_bytes(bounce.raw, policy=email.policy.default)


def blocks(message: EmailMessage) -> list[Message]:
    (status,) = [part for part in message.walk() if part.get_content_type() == "message/delivery-status"]
    payload = status.get_payload()
    assert isinstance(payload, list)
    return [block for block in payload if isinstance(block, Message) and block.items()]


def test_there_is_none_about_a_null_return_path() -> None:
    assert compose(original(return_path=""), REFUSED) is None


def test_there_is_none_without_anybody_who_failed() -> None:
    assert compose(original()) is None


def test_it_is_a_report_of_three_parts_with_a_null_return_path_that_nobody_answers() -> None:
    message = parse(compose(original(), REFUSED))
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain", "message/delivery-status", "text/rfc822-headers",
    ]  # fmt: skip
    assert message["Return-Path"] == "<>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<order.1@example.com>"
    assert not message.defects


def test_the_first_part_says_it_in_words() -> None:
    bounce = compose(original(), REFUSED)
    message = parse(bounce)
    text = next(message.iter_parts()).get_content()
    assert "Your message was not delivered to this recipient:" in text
    assert "b@clients.example" in text
    assert "smtp.example.com said: 550 5.1.1 no such user" in text
    assert "1r7hq2x0" in text
    assert bounce is not None
    assert bounce.subject == message["Subject"] == "Not delivered to b@clients.example: Your order"


def test_the_second_part_says_it_recipient_by_recipient() -> None:
    message = parse(compose(original(), REFUSED, Failed("c@clients.example", Reply(554, "", "no"), is_expired=False)))
    about, first, second = blocks(message)
    assert about["Reporting-MTA"] == "dns; gateway.example.com"
    assert first["Final-Recipient"] == "rfc822; b@clients.example"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert second["Status"] == "5.0.0"


def test_what_was_given_up_says_so() -> None:
    message = parse(compose(original(), Failed("b@clients.example", Reply(450, "4.2.0", "greylisted"), True)))
    _, block = blocks(message)
    assert block["Status"] == "4.4.7"
    assert "given up after many tries" in next(message.iter_parts()).get_content()


def test_a_delay_promises_more_tries() -> None:
    message = parse(compose(original(), Failed("b@clients.example", None), action=Action.DELAYED))
    _, block = blocks(message)
    assert block["Action"] == "delayed"
    assert "goes on trying" in next(message.iter_parts()).get_content()


def test_the_third_part_is_the_header_and_not_the_body() -> None:
    message = parse(compose(original(), REFUSED))
    header = list(message.iter_parts())[2].get_payload(decode=True)
    assert header == HEAD.partition(b"\r\n\r\n")[0]


def test_a_huge_header_is_cut_at_a_line() -> None:
    head = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 60) for n in range(5_000))
    header = list(parse(compose(original(head=head), REFUSED)).iter_parts())[2].get_payload(decode=True)
    assert isinstance(header, bytes)
    assert len(header) <= 64 * 1024
    assert head.startswith(header + b"\r\n")


@pytest.mark.parametrize("nasty", ["evil\r\nBcc: x@y", "evil\nX: y", "\x1b[31mred", "\u2028line"])
def test_no_value_begins_another_field(nasty: str) -> None:
    failed = Failed(f"{nasty}@x.example", Reply(550, "5.1.1", nasty))
    bounce = compose(original(subject=nasty, agent=nasty, message_id=nasty), failed)
    message = parse(bounce)
    assert "Bcc" not in message
    assert "X" not in message
    assert bounce is not None
    assert b"\x1b" not in bounce.raw
    assert message["In-Reply-To"] is None
    assert message["To"] is not None


def test_nothing_that_a_server_says_turns_the_direction_of_writing() -> None:
    bounce = compose(
        original(subject="a\u202eb"), Failed("b\u2066@x.example", Reply(550, "", "no\u202e such\u2069 user"))
    )
    message = parse(bounce)
    shown = str(message["Subject"]) + message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert not set(shown) & set("\u202e\u2066\u2069")
    assert "no such user" in shown


def test_of_an_endless_reply_only_its_beginning_is_read() -> None:
    bounce = compose(original(), *[Failed("b@x.example", Reply(550, "5.1.1", "no " * 20_000))] * 3)
    assert bounce is not None
    assert len(bounce.raw) < 10_000


def test_addresses_and_subjects_beyond_ascii_stay_readable() -> None:
    message = parse(compose(original(subject="Überfällig"), Failed("jürgen@b.example", Reply(550, "", "nein"))))
    assert message["Subject"] == "Not delivered to jürgen@b.example: Überfällig"
    _, block = blocks(message)
    assert block["Final-Recipient"] == "utf-8; j\\x{FC}rgen@b.example"


def test_a_header_of_eight_bits_says_so() -> None:
    bounce = compose(original(head="Subject: Grüße\r\n\r\n".encode()), REFUSED)
    assert bounce is not None
    assert b"Content-Transfer-Encoding: 8bit" in bounce.raw
