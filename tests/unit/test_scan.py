"""What the scanner reads from a header, and where it stops."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.mime.scan import (
    ADDRESS_LIMIT,
    FIELD_LIMIT,
    HEADER_LIMIT,
    IDS_KEPT,
    NOTHING,
    TEXT_LIMIT,
    Mailbox,
    decode_text,
    message_ids,
    parse_addresses,
    scan,
)

# --- the header's bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "names", "body"),
    [
        pytest.param(b"A: 1\r\nB: 2\r\n\r\nbody", ["a", "b"], b"body", id="crlf"),
        pytest.param(b"A: 1\nB: 2\n\nbody", ["a", "b"], b"body", id="lf"),
        pytest.param(b"A: 1\nB: 2\r\n\r\nbody\n\n", ["a", "b"], b"body\n\n", id="mixed-ends-with-crlf"),
        pytest.param(b"A: 1\r\nB: 2\n\nbody\r\n\r\n", ["a", "b"], b"body\r\n\r\n", id="mixed-ends-with-lf"),
        pytest.param(b"A: 1\r\nB: 2\r\n", ["a", "b"], b"", id="no-empty-line"),
        pytest.param(b"A: 1\r\nB: 2", ["a", "b"], b"", id="no-line-end"),
        pytest.param(b"\r\nA: 1\r\n", [], b"A: 1\r\n", id="no-header-crlf"),
        pytest.param(b"\nA: 1\r\n", [], b"A: 1\r\n", id="no-header-lf"),
        pytest.param(b"", [], b"", id="empty"),
        pytest.param(b"From me Mon Nov 23\r\nA: 1\r\n\r\n", ["a"], b"", id="mbox-line"),
        pytest.param(b" folded\r\nA: 1\r\n\r\n", ["a"], b"", id="begins-folded"),
        pytest.param(b"junk\r\nA: 1\r\njunk again\r\nB : 2\r\n\r\n", ["a", "b"], b"", id="junk-and-space-before-colon"),
        pytest.param(b"junk without end", [], b"", id="only-junk"),
        pytest.param(b"A:\r\n \r\n 1\r\n\r\nx", ["a"], b"x", id="a-line-of-white-space-is-folding"),
    ],
)
def test_fields_and_body_are_found(raw: bytes, names: list[str], body: bytes) -> None:
    facts = scan(raw)
    assert [field.name for field in facts.fields] == names
    assert facts.body_start is not None
    assert raw[facts.body_start :] == body
    assert not facts.truncated


def test_offsets_cut_the_raw_message() -> None:
    raw = b"From: a@b\r\nSubject: one\r\n two\r\nX-Last:3\r\n\r\nbody"
    cut = [(raw[one.start : one.end], raw[one.value : one.end]) for one in scan(raw).fields]
    assert cut == [
        (b"From: a@b\r\n", b" a@b\r\n"),
        (b"Subject: one\r\n two\r\n", b" one\r\n two\r\n"),
        (b"X-Last:3\r\n", b"3\r\n"),
    ]


def test_a_header_beyond_the_limit_is_cut_and_says_so() -> None:
    facts = scan(b"Subject: kept\r\n" + b"X: " + b"a" * HEADER_LIMIT + b"\r\nLost: 1\r\n\r\nbody")
    assert facts.truncated
    assert facts.body_start is None
    assert facts.subject == "kept"
    assert not facts.has("lost")
    assert len(facts.block) == HEADER_LIMIT


def test_a_header_of_just_the_limit_is_whole() -> None:
    raw = b"X: " + b"a" * (HEADER_LIMIT - 5) + b"\r\n\r\nbody"
    facts = scan(raw)
    assert not facts.truncated
    assert facts.body_start == len(raw) - 4


def test_fields_beyond_the_limit_are_left_out() -> None:
    facts = scan(b"a:\n" * (FIELD_LIMIT + 1) + b"\nbody")
    assert len(facts.fields) == FIELD_LIMIT
    assert facts.truncated
    assert facts.body_start is not None


def test_values_are_unfolded_and_of_repeated_fields_the_topmost_counts() -> None:
    facts = scan(b"Received: one\r\n\ttwo\r\nReceived: three\r\nSubject: a\r\n  b\r\nSubject: c\r\n\r\n")
    assert facts.raw_values("received") == (b"one\ttwo", b"three")
    assert facts.values("received") == ("one two", "three")
    assert facts.value("received") == "one two"
    assert facts.subject == "a  b"
    assert facts.value("missing") == facts.subject[:0] == ""
    assert facts.raw_values("missing") == ()
    assert facts.names == {"received", "subject"}


def test_nothing_stands_for_no_header() -> None:
    assert (NOTHING.subject, NOTHING.from_, NOTHING.message_id, NOTHING.date) == ("", Mailbox("", ""), "", None)


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(b"plain", "plain", id="plain"),
        pytest.param(b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße", id="q"),
        pytest.param(b"=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße", id="b"),
        pytest.param(b"=?utf-8?B?R3LDvMOfZQ?=", "Grüße", id="b-without-padding"),
        pytest.param(b"=?utf-8?B?R3LDvMOfZQ=?=", "Grüße", id="b-with-half-its-padding"),
        pytest.param(b"=?utf-8?B?Y?=!", "!", id="b-of-one-letter"),
        pytest.param(b"=?utf-8?B?Y!!!?=", "=?utf-8?B?Y!!!?=", id="b-of-nonsense"),
        pytest.param(b"=?utf-8?q?a?= =?utf-8?B?Y!!!?= b", "a =?utf-8?B?Y!!!?= b", id="nonsense-behind-sense"),
        pytest.param("=?utf-8?q?grün?=".encode(), "grün", id="raw-letters-inside-a-word"),
        pytest.param(b"=?iso-8859-1?Q?a_b?= c", "a b c", id="underscore-is-space"),
        pytest.param(b"x =?utf-8?q?a?= =?utf-8?q?b?= y", "x ab y", id="space-between-words-goes"),
        pytest.param(b"=?utf-8?q?a?= =?iso-8859-1?q?b?=", "ab", id="also-between-charsets"),
        pytest.param(b"=?utf-8?q?a?= and =?utf-8?q?b?=", "a and b", id="text-between-stays"),
        pytest.param(b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü", id="a-letter-over-two-words"),
        pytest.param(b"=?utf-8*de?q?a?=", "a", id="language: RFC 2231"),
        pytest.param(b"=?utf-8?q?a b?=", "a b", id="space-inside-a-word"),
        pytest.param(b"=?x-unknown?q?caf=C3=A9?=", "café", id="unknown-charset-is-utf-8"),
        pytest.param(b"=?x-unknown?q?caf=E9?=", "café", id="or-else-windows-1252"),
        pytest.param(b"=?punycode?q?caf-dma?=", "caf-dma", id="a-codec-that-is-no-charset"),
        pytest.param(b"=?gb2312?B?xOO6ww==?=", "你好", id="gb2312"),
        pytest.param(b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本", id="iso-2022-jp"),
        pytest.param(b"=?windows-1251?B?z/Do4uXy?=", "Привет", id="windows-1251"),
        pytest.param(b"=?utf-8?q?half", "=?utf-8?q?half", id="no-end"),
        pytest.param(b"=?utf-8?x?what?=", "=?utf-8?x?what?=", id="no-such-encoding"),
        pytest.param("grün".encode(), "grün", id="raw-utf-8"),
        pytest.param(b"gr\xfcn", "grün", id="raw-latin-1"),
        pytest.param(b"\x81", "�", id="raw-nonsense"),
        pytest.param(b"=?utf-8?q?a=0D=0ABcc:_x?=", "a  Bcc: x", id="line-ends-become-spaces"),
        pytest.param(b"a\0b\x1b[31m", "a b [31m", id="controls-become-spaces"),
        pytest.param(b"=?utf-7?q?+2AA-?=", " ", id="lone-surrogates-become-spaces"),
        pytest.param(b"=?utf-8?q?a=E2=80=A8b?=", "a b", id="line-separator-becomes-a-space"),
        pytest.param(b"=?utf-8?q?a=C2=A0b?=", "a\u00a0b", id="other-white-space-stays"),
    ],
)
def test_text_is_decoded(value: bytes, text: str) -> None:
    assert decode_text(value) == text


def test_a_bomb_of_encoded_words_is_read_as_far_as_its_limit() -> None:
    text = decode_text(b"=?utf-8?q?a?= " * 20_000)
    assert text.startswith("a" * 250)
    assert len(text) < 20_000


def test_a_subject_is_cut() -> None:
    assert scan(b"Subject: " + b"a" * 9_000 + b"\r\n\r\n").subject == "a" * TEXT_LIMIT


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        pytest.param(b"a@b.example", [("", "a@b.example")], id="bare"),
        pytest.param(b"<a@b.example>", [("", "a@b.example")], id="angle"),
        pytest.param(b"Ana Lima <a@b.example>", [("Ana Lima", "a@b.example")], id="name"),
        pytest.param(b'"Lima, Ana" <a@b.example>, c@d', [("Lima, Ana", "a@b.example"), ("", "c@d")], id="quoted"),
        pytest.param(rb'"A \"B\" C" <a@b>', [('A "B" C', "a@b")], id="escaped-quotes"),
        pytest.param(b"a@b (Ana)", [("Ana", "a@b")], id="name-in-a-comment"),
        pytest.param(b"Ana (not (really)) <a@b>", [("Ana", "a@b")], id="nested-comment"),
        pytest.param(b"(a, b) Ana <a@b>", [("Ana", "a@b")], id="comma-in-a-comment"),
        pytest.param(b"=?utf-8?q?Lima=2C_Ana?= <a@b>", [("Lima, Ana", "a@b")], id="encoded"),
        pytest.param(b'"=?utf-8?q?Ana_L?=" <a@b>', [("Ana L", "a@b")], id="encoded-in-quotes"),
        pytest.param(b"=?utf-8?q?Lima,_Ana?= <a@b>", [("Lima, Ana", "a@b")], id="raw-comma-in-encoded"),
        pytest.param(b"Ana a@b.example", [("Ana", "a@b.example")], id="no-angles"),
        pytest.param(b"c@d <a@b>", [("c@d", "a@b")], id="an-address-for-a-name"),
        pytest.param(b"undisclosed-recipients:;", [], id="empty-group"),
        pytest.param(b"Team: a@b, Ana <c@d>; e@f", [("", "a@b"), ("Ana", "c@d"), ("", "e@f")], id="group"),
        pytest.param(b"<@x,@y:a@b>", [("", "a@b")], id="route"),
        pytest.param(b"Ana <mailto:a@b>", [("Ana", "a@b")], id="mailto"),
        pytest.param(b"< a @ b >", [("", "a@b")], id="spaces-in-angles"),
        pytest.param(b"a @ b", [("", "a@b")], id="spaces-without-angles"),
        pytest.param(b'<"john doe"@b>', [("", '"john doe"@b')], id="quoted-local-part"),
        pytest.param(b"a@[IPv6:::1]", [("", "a@[IPv6:::1]")], id="domain-literal"),
        pytest.param(b"a@b, , c@d,", [("", "a@b"), ("", "c@d")], id="empty-places"),
        pytest.param(b"a@b; c@d", [("", "a@b"), ("", "c@d")], id="semicolons"),
        pytest.param(b"Ana", [("Ana", "")], id="name-only"),
        pytest.param(b'"Ana <a@b>, c@d', [("Ana", "a@b"), ("", "c@d")], id="quote-without-end"),
        pytest.param(b"Ana <a@b", [("Ana", "a@b")], id="angle-without-end"),
        pytest.param(b"Ana <>", [("Ana", "")], id="empty-angles"),
        pytest.param(b"<a@b> <c@d>", [("", "a@b")], id="two-angles"),
        pytest.param("Jürgen <j@b>".encode("latin-1"), [("Jürgen", "j@b")], id="raw-latin-1"),
        pytest.param("j@bücher.example".encode(), [("", "j@bücher.example")], id="internationalised"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b'""', [], id="empty-quotes"),
        pytest.param(b"\0", [], id="control"),
    ],
)
def test_addresses_are_parsed(value: bytes, boxes: list[tuple[str, str]]) -> None:
    assert parse_addresses(value) == tuple(Mailbox(*box) for box in boxes)


def test_an_endless_list_is_cut() -> None:
    assert len(parse_addresses(b"a@b," * 5_000)) == ADDRESS_LIMIT
    assert len(parse_addresses(b"a " * 20_000)) == 1


def test_address_fields_are_read() -> None:
    facts = scan(b"From: A <a@x>, B <b@x>\r\nSender: s@x\r\nTo: t@x\r\nTo: u@x\r\nCc: C <c@X>\r\nReply-To: r@x\r\n\r\n")
    assert facts.from_ == Mailbox("A", "a@x")
    assert [box.address for box in facts.authors] == ["a@x", "b@x"]
    assert facts.sender == Mailbox("", "s@x")
    assert [box.address for box in facts.to] == ["t@x", "u@x"]
    assert facts.cc[0].domain == "x"
    assert str(facts.cc[0]) == "C <c@X>"
    assert str(facts.reply_to[0]) == "r@x"
    assert scan(b"").sender is None


# --- ids, date, type -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"<a@b>", "<a@b>", id="plain"),
        pytest.param(b"\r\n <a@b>", "<a@b>", id="folded"),
        pytest.param(b"<a@b> (comment)", "<a@b>", id="comment"),
        pytest.param(b"a@b", "<a@b>", id="no-brackets"),
        pytest.param(b"<a b@\r\n c>", "<ab@c>", id="white-space-inside"),
        pytest.param(b"<[x]@y>", "<[x]@y>", id="odd-letters"),
        pytest.param(b"<\xfc@b>", "<ü@b>", id="eight-bit"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"nonsense", "", id="nonsense"),
        pytest.param(b"<>", "", id="empty-brackets"),
        pytest.param(b"< >", "", id="blank-brackets"),
        pytest.param(b"<" + b"a" * 2_000 + b"@b>", "", id="too-long"),
    ],
)
def test_message_ids_are_read(value: bytes, expected: str) -> None:
    assert scan(b"Message-ID:" + value + b"\r\n\r\n").message_id == expected


def test_references_keep_both_ends() -> None:
    ids = [f"<{number}@x>" for number in range(100)]
    assert message_ids(" ".join(ids).encode(), IDS_KEPT) == tuple(ids[:20] + ids[-20:])
    many = [f"<{number}@{'x' * 100}>" for number in range(2_000)]
    assert message_ids("".join(many).encode(), IDS_KEPT) == tuple(many[:20] + many[-20:])
    assert message_ids(b"<a@b> text <a@b> <c@d>", IDS_KEPT) == ("<a@b>", "<c@d>")


def test_answers_name_their_parents() -> None:
    facts = scan(b"In-Reply-To: your mail of today <p@x>\r\nReferences: <o@x>\r\n\t<p@x>\r\n\r\n")
    assert facts.in_reply_to == ("<p@x>",)
    assert facts.references == ("<o@x>", "<p@x>")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"<a@b>", "a@b", id="address"),
        pytest.param(b"a@b", "a@b", id="without-brackets"),
        pytest.param(b"<>", "", id="null"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_the_return_path_is_read(value: bytes, expected: str) -> None:
    assert scan(b"Return-Path: " + value + b"\r\n\r\n").return_path == expected
    assert scan(b"Subject: x\r\n\r\n").return_path is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"Mon, 23 Nov 2026 10:00:00 +0100", datetime(2026, 11, 23, 9, tzinfo=UTC), id="zone"),
        pytest.param(b"23 Nov 2026 10:00:00 -0000", datetime(2026, 11, 23, 10, tzinfo=UTC), id="unknown-zone"),
        pytest.param(b"Mon, 23 Nov 2026 10:00:00 GMT (comment)", datetime(2026, 11, 23, 10, tzinfo=UTC), id="gmt"),
        pytest.param(b"yesterday", None, id="nonsense"),
        pytest.param(b"Mon, 99 Nov 2026 10:00:00 +0100", None, id="no-such-day"),
        pytest.param(b"31 Dec 9999 23:59:00 -2359", None, id="after-the-end-of-time"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_dates_are_read(value: bytes, expected: datetime | None) -> None:
    assert scan(b"Date: " + value + b"\r\n\r\n").date == expected


@pytest.mark.parametrize(
    ("value", "kind", "report"),
    [
        pytest.param(b"Text/HTML; charset=x", "text/html", "", id="case"),
        pytest.param(b'multipart/report; boundary=b; report-type="Tlsrpt"', "multipart/report", "tlsrpt", id="quoted"),
        pytest.param(b"multipart/report;\r\n\treport-type=x", "multipart/report", "x", id="folded"),
        pytest.param(b"text", "text/plain", "", id="no-slash"),
        pytest.param(b"", "text/plain", "", id="empty"),
        pytest.param(b"a/b; x-report-type=y", "a/b", "", id="another-parameter"),
    ],
)
def test_the_content_type_is_read(value: bytes, kind: str, report: str) -> None:
    facts = scan(b"Content-Type: " + value + b"\r\n\r\n")
    assert facts.content_type == kind
    assert facts.content_type_parameter("report-type") == report
