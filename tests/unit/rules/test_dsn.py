"""What reports say that come back: the corpus in tests/data/bounces, and what no sample shows."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gateway.mime.scan import scan
from gateway.model import MessageClass, show_id
from gateway.rules.classify import classify
from gateway.rules.dsn import READ_BYTES, RECIPIENTS, Action, Report, Told, read_report
from gateway.rules.undelivered import is_hard, note_of

DATA = Path(__file__).parents[2] / "data" / "bounces"
SAMPLES = sorted(DATA.glob("*.eml"))


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_a_report_says_who_did_not_get_what(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expect.json").read_text())
    report = read_report(path.read_bytes())
    assert {
        "recipients": [
            {
                "address": one.address,
                "original": one.original,
                "action": one.action.value,
                "status": one.status,
                "code": one.code,
                "named": one.is_named,
                "hard": is_hard(one),
            }
            for one in report.recipients
        ],
        "message_ids": list(report.message_ids),
        "traces": [list(trace) for trace in report.traces],
        "envelope_id": report.envelope_id,
        "note": note_of(report.recipients),
    } == expected


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_every_sample_is_taken_for_a_bounce(path: Path) -> None:
    assert classify(scan(path.read_bytes()))[0] is MessageClass.BOUNCE


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_line_ends_do_not_matter(path: Path) -> None:
    raw = path.read_bytes()
    assert read_report(raw.replace(b"\r\n", b"\n")) == read_report(raw)


def test_the_samples_show_every_action() -> None:
    told = {one.action for path in SAMPLES for one in read_report(path.read_bytes()).recipients}
    assert told == set(Action)


def test_what_is_behind_a_copy_of_the_message_is_not_taken_for_a_recipient() -> None:
    report = read_report((DATA / "05-exim-text-only.eml").read_bytes())
    assert [one.address for one in report.recipients] == ["bob@example.net", "ann@example.org"]


def status_report(*fields: str, about: str = "Reporting-MTA: dns; mx.example") -> bytes:
    blocks = "\r\n\r\n".join([about, *fields])
    return (
        "From: MAILER-DAEMON@mx.example\r\nTo: support@example.com\r\nSubject: Undelivered\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        f"--b\r\nContent-Type: message/delivery-status\r\n\r\n{blocks}\r\n--b--\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            "Final-Recipient: bob@example.net\r\nAction: failed", Told("bob@example.net", Action.FAILED), id="no-type"
        ),
        pytest.param(
            "Original-Recipient: rfc822;bob+40example.net\r\nAction: failed",
            Told("bob@example.net", Action.FAILED, original="bob@example.net"),
            id="xtext-and-no-final-recipient",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@example.net\r\nStatus: 4.4.1",
            Told("bob@example.net", Action.DELAYED, "4.4.1"),
            id="no-action-temporary",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@example.net\r\nAction: exploded\r\nStatus: 5.1.1",
            Told("bob@example.net", Action.FAILED, "5.1.1"),
            id="unknown-action",
        ),
        pytest.param(
            "Final-Recipient: utf-8; b\\x{110000}\\x{D800}\\x{F6}b@example.net\r\nAction: failed",
            Told("böb@example.net", Action.FAILED),
            id="letters-that-do-not-exist",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.0.0\r\n"
            "Diagnostic-Code: smtp; 550 5.1.1 no such user",
            Told("bob@example.net", Action.FAILED, "5.1.1", 550, "no such user"),
            id="the-server-is-more-exact",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.4.7\r\n"
            "Diagnostic-Code: smtp; 451 4.3.0 try later",
            Told("bob@example.net", Action.FAILED, "5.4.7", 451, "try later"),
            id="expired-is-more-exact",
        ),
        pytest.param(
            "Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\n"
            "Diagnostic-Code: smtp; 550-5.1.1 no such\r\n 550-5.1.1 user here,\r\n 550 5.1.1 sorry",
            Told("bob@example.net", Action.FAILED, "5.1.1", 550, "no such user here, sorry"),
            id="a-reply-of-several-lines",
        ),
    ],
)
def test_the_fields_of_one_recipient(fields: str, expected: Told) -> None:
    assert read_report(status_report(fields)).recipients == (expected,)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param("Final-Recipient: x400; /C=de/ADMD=x/", id="no-address"),
        pytest.param("Final-Recipient: rfc822; two words@example.net", id="no-single-word"),
        pytest.param("Action: failed\r\nStatus: 5.1.1", id="nobody"),
    ],
)
def test_a_block_that_names_no_address_tells_of_nobody(fields: str) -> None:
    assert read_report(status_report(fields)).recipients == ()


def test_of_very_many_recipients_the_first_are_told() -> None:
    blocks = [f"Final-Recipient: rfc822; u{n}@example.net\r\nAction: failed" for n in range(3 * RECIPIENTS)]
    told = read_report(status_report(*blocks)).recipients
    assert [one.address for one in told] == [f"u{n}@example.net" for n in range(RECIPIENTS)]


def test_a_message_that_somebody_attached_to_the_message_is_not_looked_into() -> None:
    inner = status_report("Final-Recipient: rfc822; eve@example.net\r\nAction: failed")
    raw = (
        b"From: MAILER-DAEMON@mx.example\r\nTo: support@example.com\r\nSubject: Undelivered\r\n"
        b"Content-Type: multipart/mixed; boundary=outer\r\n\r\n"
        b"--outer\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <a@example.com>\r\n" + inner + b"\r\n--outer--\r\n"
    )
    report = read_report(raw)
    assert report.recipients == ()
    assert report.message_ids == ("<a@example.com>",)


def test_a_trace_that_the_provider_folded_elsewhere_is_found() -> None:
    raw = (
        b"From: MAILER-DAEMON@mx.example\r\nSubject: failure notice\r\n\r\n"
        b"--- Below this line is a copy of the message\r\n\r\nReceived: by gateway.example.com\r\n (mail-gateway)\r\n"
        b"\tid 1R7HQ2X0.7; Mon, 23 Nov 2026\r\n 09:14 +0000\r\n"
    )
    ((number, attempt),) = read_report(raw).traces
    assert (show_id(number), attempt) == ("1r7hq2x0", 7)


@pytest.mark.parametrize("word", [b"a@b ", b"abuse@b ", b"support@example.com ", b"%d@b "])
def test_lines_full_of_addresses_are_read_in_a_few_milliseconds(word: bytes) -> None:
    """Anybody can send one, and it is read on the thread that all mail coming in has in common."""
    line = b"".join(word.replace(b"%d", b"%d" % number) for number in range(390 // len(word))) + b"\r\n"
    raw = b"From: MAILER-DAEMON@mx.example\r\nTo: support@example.com\r\nSubject: failed\r\n\r\n" + line * 500
    took = []
    for _ in range(5):
        begun = time.process_time()
        read_report(raw)
        took.append(time.process_time() - begun)
    assert min(took) < 0.015


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\0" * 1_000, b"From: MAILER-DAEMON@x"])
def test_nothing_is_read_out_of_nothing(raw: bytes) -> None:
    assert read_report(raw) == Report()


def test_what_lies_far_behind_is_not_read() -> None:
    raw = b"From: MAILER-DAEMON@mx.example\r\nSubject: failure notice\r\n\r\n" + b"\r\n" * READ_BYTES
    assert read_report(raw + b"<bob@example.net>:\r\n550 5.1.1 no\r\n").recipients == ()
