"""An ENVELOPE becomes header lines, and nothing that a server writes into it becomes a field of its own."""

from __future__ import annotations

import pytest

from gateway.inbound.envelope import compose_header
from gateway.inbound.fetch import Fetched, Value, read_head

ANNA: Value = [b"Anna", None, b"anna", b"x.example"]
EMPTY: list[Value] = [None] * 10


def envelope(**given: Value) -> list[Value]:
    names = ("date", "subject", "from_", "sender", "reply_to", "to", "cc", "bcc", "in_reply_to", "message_id")
    return [given.get(name) for name in names]


def test_what_is_there_becomes_a_field() -> None:
    whole = envelope(
        date=b"Fri, 17 Jul 2026 02:44:25 +0000", subject=b"Hello", from_=[ANNA], to=[ANNA, ANNA], in_reply_to=b"<0@x>",
        message_id=b"<1@x>",
    )  # fmt: skip
    assert compose_header(whole) == (
        b"Date: Fri, 17 Jul 2026 02:44:25 +0000\r\nSubject: Hello\r\nFrom: Anna <anna@x.example>\r\n"
        b"To: Anna <anna@x.example>, Anna <anna@x.example>\r\nIn-Reply-To: <0@x>\r\nMessage-ID: <1@x>\r\n"
    )


def test_of_nothing_comes_nothing() -> None:
    assert compose_header(EMPTY) == b""
    assert compose_header([]) == b""
    assert compose_header([b"Fri"] * 9) == b""


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"subject": b"a\r\nBcc: evil@x.example"}, b"Subject: a Bcc: evil@x.example\r\n"),
        ({"subject": b" \r\n "}, b""),
        ({"subject": 2026}, b"Subject: 2026\r\n"),
        ({"subject": b"\xe4\xf6\xfc"}, b"Subject: \xe4\xf6\xfc\r\n"),
        ({"subject": [b"a", b"list"]}, b""),
        ({"from_": [[b'A "B" \\', None, b"a", b"x.example"]]}, b'From: "A \\"B\\" \\\\" <a@x.example>\r\n'),
        ({"from_": [[b"=?utf-8?q?J=C3=B6?=", None, b"a", b"x"]]}, b"From: =?utf-8?q?J=C3=B6?= <a@x>\r\n"),
        ({"from_": [[None, None, b"a", b"x.example"]]}, b"From: a@x.example\r\n"),
        ({"from_": [[b"A", None, b"a\r\nTo: b", b"x"]]}, b"From: A <a To: b@x>\r\n"),
        ({"from_": [[None, None, b"group", None], ANNA, [None] * 4]}, b"From: Anna <anna@x.example>\r\n"),
        ({"from_": [b"rubbish", [b"three", None, b"a"], None]}, b""),
        ({"from_": b"rubbish"}, b""),
    ],
)
def test_each_field_is_one_line_or_none(given: dict[str, Value], line: bytes) -> None:
    assert compose_header(envelope(**given)) == line


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ((b"* 1 FETCH (UID 5 BODY[HEADER]<0> {6}", b"A: b\r\n", b")"), Fetched(5, b"A: b\r\n")),
        ((b'* 5 UIDFETCH (BODY[HEADER] "A: b")',), Fetched(5, b"A: b")),
        ((b'* 1 FETCH (UID 5 ENVELOPE (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL))',), Fetched(5, b"Subject: s\r\n")),
        ((b"* 1 FETCH (UID 5 BODY[HEADER] NIL)",), None),
        ((b'* 1 FETCH (UID 5 BODY[HEADER.FIELDS (FROM)] "From: a")',), None),
        ((b'* 1 FETCH (BODY[HEADER] "no uid")',), None),
        ((b"* 1 FETCH (UID 5 ENVELOPE NIL)",), None),
        ((b"* 1 EXISTS",), None),
    ],
)
def test_a_head_is_read_from_either(response: tuple[bytes, ...], expected: Fetched | None) -> None:
    assert read_head(response) == expected
