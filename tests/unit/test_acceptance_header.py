"""The header of a submitted message, finished by cutting and splicing."""

from __future__ import annotations

import pytest

from gateway.mime.scan import scan
from gateway.outbound.header import compose_from, finish_header, refuse_header

LOGIN = "Ana@example.com"


def finish(raw: bytes, *, is_signed: bool = False, from_field: bytes | None = None, missing: bytes = b"") -> bytes:
    return finish_header(
        raw, scan(raw), login=LOGIN, is_signed=is_signed, from_field=from_field, missing=missing
    )  # fmt: skip


def test_what_needs_nothing_stays_byte_for_byte() -> None:
    raw = b"FROM :  a@example.com\r\nsubject:\tf\xfcnf\r\n folded \r\nX: \r\n\r\nbody\r\n.\r\n"
    assert finish(raw) == raw


def test_bcc_goes_in_every_spelling_and_folded() -> None:
    blind = b"BCC: a@x.example,\r\n b@x.example\r\n", b"Bcc:\r\nResent-Bcc: c@x.example\r\n"
    raw = blind[0] + b"From: s@example.com\r\n" + blind[1] + b"\r\nBcc: stays\r\n"
    assert finish(raw) == b"From: s@example.com\r\n\r\nBcc: stays\r\n"


def test_of_signed_mail_only_bcc_goes() -> None:
    raw = b"From: s@example.com\r\nReply-To: ana@example.com\r\nBcc: a@x.example\r\n\r\nbody\r\n"
    assert finish(raw, is_signed=True, missing=b"Date: now\r\n") == (
        b"Date: now\r\nFrom: s@example.com\r\nReply-To: ana@example.com\r\n\r\nbody\r\n"
    )


@pytest.mark.parametrize("name", ["Reply-To", "Sender", "Disposition-Notification-To", "Return-Receipt-To"])
@pytest.mark.parametrize(
    ("value", "goes"),
    [
        ("ana@example.com", True),
        ("Ana Lima <ANA@EXAMPLE.COM>", True),
        ("Team <team@example.com>,\r\n ana@example.com", True),
        ("team@example.com", False),
        ('"ana@example.com" <team@example.com>', False),
    ],
)
def test_a_field_by_which_customers_would_reach_the_login_goes(name: str, value: str, goes: bool) -> None:
    raw = f"From: s@example.com\r\n{name}: {value}\r\nSubject: x\r\n\r\n".encode()
    assert finish(raw) == (b"From: s@example.com\r\nSubject: x\r\n\r\n" if goes else raw)


def test_from_is_replaced_in_its_place() -> None:
    raw = b"Subject: x\r\nFrom: Ana\r\n <ana@example.com>\r\nTo: k@x.example\r\n\r\n"
    assert finish(raw, from_field=b"From: S <s@example.com>\r\n") == (
        b"Subject: x\r\nFrom: S <s@example.com>\r\nTo: k@x.example\r\n\r\n"
    )


def test_a_message_of_nothing_but_a_header_is_finished_too() -> None:
    assert finish(b"From: s@example.com\r\nBcc: a@x.example\r\n", missing=b"Date: now\r\n") == (
        b"Date: now\r\nFrom: s@example.com\r\n"
    )


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"From: a@example.com\r\n\r\nbody\r\n", None),
        (b"From: a@example.com\r\n", None),
        (b"\r\nbody\r\n", None),
        (b"", None),
        (b"From: a@example.com\r\nnot a field\r\nTo: b@example.com\r\n\r\n", "550 5.6.0"),
        (b"From ana Mon Nov 23\r\nFrom: a@example.com\r\n\r\n", "550 5.6.0"),
        (b" folded: from the start\r\nFrom: a@example.com\r\n\r\n", "550 5.6.0"),
        (b"From: a@example.com\r\nlast line without colon\r\n", "550 5.6.0"),
        (b"X: " + b"y" * 300_000 + b"\r\n\r\n", "552 5.3.4"),
        (b"X: y\r\n" * 1_500 + b"\r\n", "552 5.3.4"),
        (b"Received: x\r\n" * 100 + b"\r\n", None),
        (b"Received: x\r\n" * 101 + b"\r\n", "554 5.4.6"),
    ],
    ids=["plain", "no-body", "no-header", "empty", "junk", "mbox", "folded-first", "junk-last", "long", "many", "hops",
         "loop"],
)  # fmt: skip
def test_a_header_that_readers_may_take_differently_is_refused(raw: bytes, status: str | None) -> None:
    reply = refuse_header(scan(raw), "gateway.example")
    assert (reply or "")[:9] == (status or "")


TRACE = b"by gateway.example (mail-gateway) id 1qnep7y7.3;\r\n\tMon, 23 Nov 2026 10:00:00 +0000\r\n"


@pytest.mark.parametrize(
    ("field", "is_loop"),
    [
        (b"Received: " + TRACE, True),
        (b"received:" + TRACE.upper(), True),
        (
            b"Received: from x.example\r\n\tby gateway.example\r\n (mail-gateway)\r\n\tid 1qnep7y7.12; x\r\n",
            True,
        ),
        (b"Received: " + TRACE.replace(b"gateway.example", b"other.example"), False),
        (b"Received: " + TRACE.replace(b"gateway.example", b"my-gateway.example"), False),
        (b"Received: " + TRACE.replace(b"gateway.example", b"gatewayxexample"), False),
        (b"Received: " + TRACE.replace(b"(mail-gateway)", b"(Postfix)"), False),
        (b"Subject: " + TRACE, False),
    ],
    ids=["plain", "shouted", "refolded", "other-host", "longer-host", "no-dot", "other-server", "quoted"],
)
def test_a_message_that_carries_our_own_trace_is_a_loop(field: bytes, is_loop: bool) -> None:
    raw = b"Received: by one.example; x\r\n" + field + b"From: a@example.com\r\n\r\nbody\r\n"
    reply = refuse_header(scan(raw), "gateway.example")
    assert (reply is not None) == is_loop
    assert reply is None or reply.lower().startswith("554 5.4.6 the message has gone out from here as 1qnep7y7;")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Example Support", b"From: Example Support <s@example.com>\r\n"),
        ("", b"From: s@example.com\r\n"),
        ("A, B", b'From: "A, B" <s@example.com>\r\n'),
        ('A "B" \\', b'From: "A \\"B\\" \\\\" <s@example.com>\r\n'),
        ("K\xf6ln", b"From: =?utf-8?B?S8O2bG4=?= <s@example.com>\r\n"),
        ("=?utf-8?q?x?=", b"From: =?utf-8?B?PT91dGYtOD9xP3g/PQ==?= <s@example.com>\r\n"),
        ("evil\r\nBcc: x@y.example", b'From: "evil Bcc: x@y.example" <s@example.com>\r\n'),
    ],
)
def test_from_is_composed(name: str, field: bytes) -> None:
    assert compose_from(name, "s@example.com") == field


@pytest.mark.parametrize("name", ["word " * 60, "ä" * 200, "x" * 300], ids=["words", "encoded", "one-word"])
def test_a_long_name_is_folded_and_reads_the_same(name: str) -> None:
    field = compose_from(name, "s@example.com")
    assert scan(field + b"\r\n").from_ == (name.strip(), "s@example.com")
    lines = field.rstrip(b"\r\n").split(b"\r\n")
    assert all(line.startswith(b" ") for line in lines[1:])
    assert name.startswith("x") or all(len(line) <= 78 for line in lines)
