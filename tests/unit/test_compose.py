"""New messages: 7-bit clean, folded, and closed to whoever would add a field."""

from __future__ import annotations

import email
import email.message
from datetime import UTC, datetime, timedelta, timezone
from email import policy

import pytest

from gateway.errors import Malformed
from gateway.mime.compose import (
    MAX_REFERENCES,
    Image,
    body_part,
    compose,
    header_field,
    mailbox_text,
    multipart,
    trim_references,
)
from gateway.mime.scan import Mailbox

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
PNG = Image("logo@x.example", "image/png", "image1.png", bytes(200))


def notice(**changes: object) -> bytes:
    given: dict[str, object] = {
        "author": Mailbox("Mail gateway", "gateway@example.com"),
        "to": [Mailbox("Ana Lima", "ana@example.com")],
        "subject": "Not delivered",
        "at": AT,
        "message_id": "<1@gateway.example.com>",
        "text": "Dear Ana,\n\nit was refused.\n",
    }
    return compose(**(given | changes))  # type: ignore[arg-type]


def read(raw: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(raw, policy=policy.default)


def test_a_notice_is_a_whole_message() -> None:
    raw = notice(
        in_reply_to="<q@x.example>", references=["<p@x.example>", "<q@x.example>"], auto_submitted="auto-generated"
    )
    assert raw == (
        b"From: Mail gateway <gateway@example.com>\r\n"
        b"To: Ana Lima <ana@example.com>\r\n"
        b"Subject: Not delivered\r\n"
        b"Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
        b"Message-ID: <1@gateway.example.com>\r\n"
        b"In-Reply-To: <q@x.example>\r\n"
        b"References: <p@x.example> <q@x.example>\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Dear Ana,\r\n\r\nit was refused.\r\n"
    )


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028"])
def test_no_value_begins_another_field(break_: str) -> None:
    evil = f"x{break_}Bcc: victim@example.net{break_}{break_}body"
    raw = notice(
        subject=evil,
        author=Mailbox(evil, "a@example.com"),
        to=[Mailbox(evil, "b@example.com")],
        message_id=f"<a{break_}Bcc: victim@example.net>",
        in_reply_to=evil,
        references=[evil, "<good@x>"],
        auto_submitted=evil,
        more={"X-Note": evil},
    )
    message = read(raw)
    assert "bcc" not in {name.lower() for name in message}
    assert list(message.keys()) == [
        "From", "To", "Subject", "Date", "References", "Auto-Submitted", "X-Note", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    ]  # fmt: skip
    assert message["References"] == "<good@x>"


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nBcc", "Ä"])
def test_a_name_that_is_none_is_a_bug(name: str) -> None:
    with pytest.raises(ValueError, match="field name"):
        header_field(name, "x")


@pytest.mark.parametrize(
    "subject",
    [
        "", "plain", "Grüße aus Köln", "日本語" * 40, "a " * 200, "=?utf-8?q?not_encoded?=", "x" * 2000, "👩‍🚀" * 30,
        "ends with \ud800",
    ],
    ids=["empty", "ascii", "umlauts", "japanese", "long", "looks-encoded", "one-word", "joined", "surrogate"],
)  # fmt: skip
def test_a_subject_comes_back_as_it_was(subject: str) -> None:
    raw = notice(subject=subject)
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert read(raw)["Subject"] == " ".join(subject.replace("\ud800", " ").split())


@pytest.mark.parametrize(
    ("box", "written"),
    [
        (Mailbox("", "a@x.example"), "a@x.example"),
        (Mailbox("Ana Lima", "a@x.example"), "Ana Lima <a@x.example>"),
        (Mailbox("Lima, Ana (Support)", "a@x.example"), '"Lima, Ana (Support)" <a@x.example>'),
        (Mailbox('Ana "the" \\ Lima', "a@x.example"), '"Ana \\"the\\" \\\\ Lima" <a@x.example>'),
        (Mailbox("Límá", "a@x.example"), "=?utf-8?B?TMOtbcOh?= <a@x.example>"),
        (Mailbox("", "a@bücher.example"), "a@xn--bcher-kva.example"),
    ],
    ids=["bare", "atoms", "quoted", "escaped", "encoded", "idn"],
)
def test_a_mailbox_is_written_so_that_it_is_read_back(box: Mailbox, written: str) -> None:
    assert mailbox_text(box) == written


@pytest.mark.parametrize("address", ["", "no-at", "a b@x.example", "ä@x.example", "a@" + "ü" * 300, "a@x>, <b@y", "a@"])
def test_an_address_that_cannot_be_written_is_refused(address: str) -> None:
    with pytest.raises(Malformed):
        notice(to=[Mailbox("", address)])


def test_many_recipients_fold() -> None:
    boxes = [Mailbox(f"Person {n}", f"person{n}@example.net") for n in range(50)]
    raw = notice(to=boxes)
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert [str(one) for one in read(raw)["To"].addresses] == [str(box) for box in boxes]
    assert b"To:" not in notice(to=[])


def test_references_lose_their_middle() -> None:
    ids = [f"<{n}@x>" for n in range(100)]
    kept = trim_references(["<0@x>", *ids])
    assert len(kept) == MAX_REFERENCES
    assert kept[0] == ids[0]
    assert kept[-1] == ids[-1]
    assert trim_references(ids[:3]) == tuple(ids[:3])


def test_a_date_keeps_its_zone() -> None:
    assert b"Date: Mon, 23 Nov 2026 12:00:00 +0200" in notice(at=AT.astimezone(timezone(timedelta(hours=2))))


@pytest.mark.parametrize(
    ("html", "images", "shape"),
    [
        ("", (), ["text/plain"]),
        ("<p>x</p>", (), ["multipart/alternative", "text/plain", "text/html"]),
        ("<p>x</p>", (PNG,), ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]),
    ],
    ids=["text", "html", "images"],
)
def test_the_body_has_as_many_parts_as_it_needs(html: str, images: tuple[Image, ...], shape: list[str]) -> None:
    message = read(notice(html=html, images=images))
    assert [part.get_content_type() for part in message.walk()] == shape
    assert all(not part.defects for part in message.walk())
    if images:
        picture = list(message.walk())[-1]
        assert picture["Content-ID"] == "<logo@x.example>"
        assert picture.get_content() == PNG.data


@pytest.mark.parametrize(
    "text", ["Grüße\n", "日本語\n" * 30, "x" * 2000 + "\n", ".\n..\n", "a \nb\t\n", "a\x00b\rc\n"],
    ids=["quoted-printable", "base64", "long-line", "dots", "blanks", "controls"],
)  # fmt: skip
def test_text_comes_back_as_it_was(text: str) -> None:
    raw = notice(text=text)
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert read(raw).get_content().replace("\r\n", "\n") == text.replace("\x00", "").replace("\r", "")


def test_html_alone_is_no_alternative() -> None:
    assert body_part("", "<p>x</p>").startswith(b"Content-Type: text/html")


def test_a_boundary_avoids_what_the_parts_say() -> None:
    once = multipart("mixed", [b"\r\nx"])
    boundary = once.partition(b'boundary="')[2].partition(b'"')[0]
    again = multipart("mixed", [once])
    assert again.count(b"--" + boundary + b"--") == 1
