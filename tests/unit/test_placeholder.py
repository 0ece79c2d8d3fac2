"""What stands in a queue for a message that cannot be fetched."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from gateway.inbound.placeholder import LONGEST, compose_placeholder
from gateway.mime.scan import scan
from gateway.model import MessageClass, Placeholder
from gateway.rules.classify import classify

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CAME = datetime(2026, 11, 23, 11, 40, tzinfo=UTC)

HEADER = (
    b"Return-Path: <carla@customer.example>\r\n"
    b"Received: from a.example\r\n\tby b.example; Mon, 23 Nov 2026 11:39:00 +0000\r\n"
    b"From: Carla <carla@customer.example>\r\n"
    b"To: support@example.com,\r\n help@example.com\r\n"
    b"Subject: =?utf-8?q?Rechnung_f=C3=BCr_M=C3=A4rz?=\r\n"
    b"Date: Mon, 23 Nov 2026 12:39:00 +0100\r\n"
    b"Message-ID: <big@customer.example>\r\n"
    b"References: <a@x> <b@x>\r\n"
    b"In-Reply-To: <b@x>\r\n"
    b"X-Priority: 1\r\n"
    b"MIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed;\r\n boundary="xyz"\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
)


def compose(header: bytes, **changes: Any) -> tuple[bytes, Placeholder]:
    facts = {
        "uid": 42,
        "folder": "INBOX",
        "size": 123_456_789,
        "internal_at": CAME,
        "reason": "larger than inbound.max_message_size",
        "message_id": "<1r7hq2x0.placeholder@gateway.example.com>",
        "now": NOW,
    }
    return compose_placeholder(header, **(facts | changes))  # type: ignore[arg-type]  # a mixed table


def parsed(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def body(raw: bytes) -> str:
    return str(parsed(raw).get_content()).replace("\r\n", "\n")


def test_a_header_is_carried_as_it_came_but_for_what_tells_of_the_body() -> None:
    raw, kind = compose(HEADER)
    assert kind is Placeholder.HEADED
    kept = HEADER[: HEADER.index(b"MIME-Version")]
    assert raw.startswith(kept + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=")
    assert b"multipart" not in raw.partition(b"\r\n\r\n")[0]


def test_rules_and_threads_see_what_they_would_have_seen() -> None:
    was, now = scan(HEADER), scan(compose(HEADER)[0])
    for fact in ("from_", "to", "subject", "date", "message_id", "references", "in_reply_to", "return_path"):
        assert getattr(now, fact) == getattr(was, fact)
    assert now.values("x-priority") == ("1",)
    assert now.content_type == "text/plain"


def test_the_text_says_why_how_large_since_when_where_and_what_to_do() -> None:
    text = body(compose(HEADER)[0])
    for said in (
        "larger than inbound.max_message_size",
        "123.5 MB",
        "Mon, 23 Nov 2026 11:40:00 +0000",
        "INBOX",
        "42 (its UID there)",
        "open it in the provider's webmail",
        "As soon as the gateway can fetch it, the message itself\nstands here",
        "    From: Carla <carla@customer.example>\n",
    ):
        assert said in text


def test_without_a_header_it_is_ours_and_says_so() -> None:
    raw, kind = compose(b"", internal_at=None)
    assert kind is Placeholder.BLIND
    message = parsed(raw)
    assert message["From"] == "Mail gateway <mail-gateway@gateway.example.com>"
    assert message["Subject"] == "A message that cannot be fetched (INBOX, number 42, 123.5 MB)"
    assert message["Message-ID"] == "<1r7hq2x0.placeholder@gateway.example.com>"
    assert message["Date"].datetime == NOW
    assert "at a time not known" in body(raw)
    assert "How it begins" not in body(raw)


def test_a_blind_one_is_not_hidden_by_a_rule_about_machines() -> None:
    assert classify(scan(compose(b"")[0]))[0] is MessageClass.HUMAN


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        pytest.param(b"From: a@b.example\r\n\r\n", Placeholder.HEADED, id="from-alone"),
        pytest.param(b"From: a@b.example\r\nSubject: Hel", Placeholder.HEADED, id="cut-behind-from"),
        pytest.param(b"Received: x\r\nFrom: a@b.exam", Placeholder.BLIND, id="cut-within-from"),
        pytest.param(b"Received: x\r\nSubject: y\r\n", Placeholder.BLIND, id="cut-before-from"),
        pytest.param(b"Subject: y\r\n\r\n", Placeholder.HEADED, id="whole-and-without-from"),
        pytest.param(b"\r\nFrom: a@b.example\r\n", Placeholder.BLIND, id="no-header"),
        pytest.param(b"Content-Type: text/plain\r\n\r\n", Placeholder.BLIND, id="nothing-to-carry"),
        pytest.param(b"\x00\xff junk\r\n\r\n", Placeholder.BLIND, id="junk"),
    ],
)
def test_a_header_that_was_cut_before_its_author_cannot_be_judged(header: bytes, kind: Placeholder) -> None:
    raw, found = compose(header)
    assert found is kind
    assert parsed(raw).get_content_type() == "text/plain"


def test_half_a_line_is_not_carried() -> None:
    facts = scan(compose(b"From: a@b.example\r\nTo: x@y.example,\r\n bob@y.exam")[0])
    assert [box.address for box in facts.to] == ["x@y.example"]


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"X-A: b\rBcc: c@d.example", id="bare-cr"),
        pytest.param(b"X-A: b\r\r\r\rhello", id="many-bare-cr"),
        pytest.param(b"X-A: b\x00\x0b\x0c\x1c\x85hello", id="controls"),
        pytest.param(b"X-A: b\r\n \t \r\n hello", id="folded-line-of-blanks"),
        pytest.param(b"X-A: b\r\n \r", id="folded-line-of-a-cr"),
        pytest.param(b"X-A : b", id="blank-before-the-colon"),
        pytest.param(b"From nobody Mon Nov 23 11:39:00 2026", id="mbox-line"),
        pytest.param(b"hello world", id="no-field"),
        pytest.param(b"content-type: text/html", id="lower-case-content-type"),
        pytest.param(b"Content-Type : text/html", id="content-type-with-a-blank"),
        pytest.param(b"Mime-Version: 2.0", id="mime-version"),
    ],
)
def test_nothing_in_the_header_breaks_out(field: bytes) -> None:
    raw, kind = compose(b"From: a@b.example\r\n" + field + b"\r\nSubject: last\r\n\r\n")
    assert kind is Placeholder.HEADED
    message = parsed(raw)
    assert not message.defects
    assert set(map(str.lower, message.keys())) <= {
        *("from", "x-a", "subject", "mime-version", "content-type", "content-transfer-encoding"),
    }
    assert (message["Subject"], message.get_content_type(), message["MIME-Version"]) == ("last", "text/plain", "1.0")
    assert message.get_content().startswith("A message has come")


def test_a_value_keeps_its_letters_where_it_loses_its_controls() -> None:
    raw, _ = compose(b"From: a@b.example\r\nSubject: Gr\xc3\xbc\xc3\x9fe\x07 an\rAlle\r\n\r\n")
    assert b"Subject: Gr\xc3\xbc\xc3\x9fe  an Alle\r\n" in raw


def test_lines_that_end_in_lf_end_in_crlf() -> None:
    raw, _ = compose(b"From: a@b.example\nTo: a@x.example,\n b@x.example\n\n")
    assert raw.startswith(b"From: a@b.example\r\nTo: a@x.example,\r\n b@x.example\r\nMIME-Version")


def test_what_matters_is_kept_where_there_is_no_room_for_all() -> None:
    noise = b"".join(b"X-Noise-%d: %s\r\n" % (number, b"y" * 900) for number in range(200))
    raw, kind = compose(noise + HEADER)
    facts = scan(raw)
    assert kind is Placeholder.HEADED
    assert (facts.from_.address, facts.message_id) == ("carla@customer.example", "<big@customer.example>")
    assert facts.references == ("<a@x>", "<b@x>")
    assert facts.has("x-noise-0")
    assert len(raw) < LONGEST


def test_a_long_list_of_addresses_is_cut_between_two() -> None:
    to = b",".join(b"person%05d@customer.example" % number for number in range(2_000))
    facts = scan(compose(b"From: a@b.example\r\nTo: " + to + b"\r\n\r\n")[0])
    assert len(facts.to) > 200
    assert all(len(box.address) == len("person00000@customer.example") for box in facts.to)


def test_control_characters_are_shown_and_drive_nothing() -> None:
    text = body(compose(b"From: a@b.example\r\nSubject: \x1b[2J\x00\xe2\x80\xae\xff\r\n\r\n")[0])
    assert r"Subject: \x1b[2J\x00\x202e\xff" in text


def test_a_folders_and_a_servers_words_are_one_line_each() -> None:
    text = body(compose(b"", folder="A\r\nB\u202e", reason="NO\r\n\r\nhello\x1b" + "x" * 1_000)[0])
    assert "    Folder:  A B\n" in text
    assert "    Reason:  NO hello x" in text
    assert "x" * 301 not in text
    assert "    Reason:  the provider does not give it" in body(compose(b"", reason="")[0])
