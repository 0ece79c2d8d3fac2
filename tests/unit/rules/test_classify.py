"""The class of each message in tests/data, and the sign that decided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.mime.scan import scan
from gateway.model import MessageClass, Step
from gateway.rules.classify import classify

DATA = Path(__file__).parents[2] / "data"
MESSAGES = sorted(path for path in DATA.glob("*.eml") if path.with_suffix(".expect.json").exists())


@pytest.mark.parametrize("path", MESSAGES, ids=[path.stem for path in MESSAGES])
def test_a_message_is_what_its_header_says(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expect.json").read_text())
    facts = scan(path.read_bytes())
    found, step = classify(facts, frozenset(expected.get("own", ())))
    assert (found.value, step.detail) == (expected["class"], expected["sign"])
    assert step == Step("class", expected["sign"], expected["class"])
    seen = {"subject": facts.subject, "message_id": facts.message_id, "from": list(facts.from_)}
    assert {key: seen[key] for key in seen if key in expected} == {
        key: expected[key] for key in seen if key in expected
    }


def test_every_class_has_its_messages() -> None:
    assert len(MESSAGES) > 40
    assert {json.loads(path.with_suffix(".expect.json").read_text())["class"] for path in MESSAGES} == set(MessageClass)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(b"Precedence: BULK (really)", MessageClass.LIST, id="comment-and-case"),
        pytest.param(b"Precedence: first-class", MessageClass.HUMAN, id="first-class"),
        pytest.param(b"Delivered-To: Autoresponder", MessageClass.AUTO_REPLY, id="delivered-to-autoresponder"),
        pytest.param(b"X-POST-MessageClass: 9; Autoresponder", MessageClass.AUTO_REPLY, id="post-messageclass"),
        pytest.param(b"X-FC-MachineGenerated: true", MessageClass.AUTO_REPLY, id="machine-generated"),
        pytest.param(b"Auto-Submitted: auto-notified", MessageClass.AUTO_REPLY, id="sieve-notify"),
        pytest.param(b"Auto-Submitted:", MessageClass.HUMAN, id="empty-auto-submitted"),
        pytest.param(b"Auto-Submitted: something-new", MessageClass.AUTO_REPLY, id="not-no"),
        pytest.param(b"X-MS-Exchange-Message-Is-Ndr:", MessageClass.BOUNCE, id="exchange-ndr"),
        pytest.param(b"Content-Type: message/delivery-status", MessageClass.BOUNCE, id="bare-delivery-status"),
        pytest.param(b"Content-Type: message/disposition-notification", MessageClass.REPORT, id="bare-receipt"),
        pytest.param(b"Return-Path: <talk-owner@lists.example>", MessageClass.LIST, id="owner"),
        pytest.param(b"Return-Path: <bounces+123@mailer.example>", MessageClass.HUMAN, id="a-mailers-return-path"),
        pytest.param(b"Return-Path: <>", MessageClass.AUTO_REPLY, id="null-return-path"),
        pytest.param(b"Return-Path:  < > ", MessageClass.AUTO_REPLY, id="null-with-spaces"),
    ],
)
def test_one_field_makes_the_class(header: bytes, expected: MessageClass) -> None:
    assert classify(scan(b"From: a@b.example\r\nSubject: x\r\n" + header + b"\r\n\r\n"))[0] is expected
