"""What of a message is shown, how a stranger's HTML looks, and how an answer quotes it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from gateway.mime.scan import Mailbox
from gateway.preview import sample
from gateway.preview.letter import read
from gateway.preview.page import page
from gateway.preview.sanitise import sanitise
from gateway.preview.sheet import sheet

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
IMAGE = base64.b64encode(PNG).decode()
AUTHOR = Mailbox("Ana Lima", "support@example.com")
AT = datetime(2026, 11, 24, 9, tzinfo=UTC)


def message(content_type: str, body: str | bytes, *fields: str) -> bytes:
    head = ["From: Carla <carla@customer.example>", "MIME-Version: 1.0", f"Content-Type: {content_type}", *fields]
    text = body if isinstance(body, bytes) else body.replace("\n", "\r\n").encode()
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


def part(content_type: str, body: str, *fields: str) -> str:
    return "\n".join((f"Content-Type: {content_type}", *fields, "", body, ""))


def multipart(*parts: str) -> str:
    return "".join(f"--b\n{one}" for one in parts) + "--b--\n"


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_html_is_shown_and_text_is_for_the_terminal() -> None:
    both = multipart(part("text/plain", "plain"), part("text/html", "<b>rich</b>"))
    letter = read(message("multipart/alternative; boundary=b", both))
    assert [block.html.strip() for block in letter.blocks] == ["<b>rich</b>"]
    assert letter.text.strip() == "plain"


def test_html_alone_is_read_as_text() -> None:
    assert read(message("text/html", "<p>one</p><p>two</p>")).text.split() == ["one", "two"]


def test_texts_and_pictures_are_shown_in_their_order() -> None:
    picture = part("image/png; name=a.png", IMAGE, "Content-Transfer-Encoding: base64", "Content-Disposition: inline")
    letter = read(
        message(
            "multipart/mixed; boundary=b", multipart(part("text/plain", "above"), picture, part("text/plain", "below"))
        )
    )
    assert [(block.text.strip(), block.picture) for block in letter.blocks] == [
        ("above", b""),
        ("", PNG),
        ("below", b""),
    ]
    shown = page(letter)
    assert shown.index("above") < shown.index("data:image/png;base64,") < shown.index("below")
    assert letter.attached == ()


def test_what_is_attached_is_named() -> None:
    parts = multipart(
        part("text/plain", "see the files"),
        part('application/pdf; name="=?utf-8?q?caf=C3=A9=2Epdf?="', "JVBERi0=", "Content-Transfer-Encoding: base64"),
        part("message/rfc822", "From: x@example.net\n\ninner"),
        part("text/plain; name=notes.txt", "notes", "Content-Disposition: attachment"),
        part(
            "image/png; name=photo.png", IMAGE, "Content-Transfer-Encoding: base64", "Content-Disposition: attachment"
        ),
    )
    letter = read(message("multipart/mixed; boundary=b", parts))
    assert letter.text.strip() == "see the files"
    assert letter.attached == ("café.pdf", "message/rfc822", "notes.txt", "photo.png")
    assert "Attached:</span> café.pdf, message/rfc822, notes.txt, photo.png" in page(letter)


@pytest.mark.parametrize(
    ("charset", "octets", "shown"),
    [
        pytest.param("", "Olá".encode(), "Olá", id="unlabelled-utf-8"),
        pytest.param("", b"Ol\xe1", "Olá", id="unlabelled-latin-1"),
        pytest.param("us-ascii", b"\x93Ol\xe1\x94", "“Olá”", id="windows-1252-that-says-ascii"),
        pytest.param("x-nobody-knows", "Olá".encode(), "Olá", id="unknown"),
        pytest.param("utf-8", b"Ol\xe1", "Ol\ufffd", id="not-what-it-says"),
        pytest.param("utf-16", "Olá".encode("utf-16"), "Olá", id="utf-16"),
    ],
)
def test_text_is_read_as_well_as_can_be(charset: str, octets: bytes, shown: str) -> None:
    kind = f"text/plain; charset={charset}" if charset else "text/plain"
    raw = message(kind, base64.b64encode(octets), "Content-Transfer-Encoding: base64")
    assert read(raw).text == shown


def test_a_footer_behind_base64_does_not_hide_the_text() -> None:
    raw = message(
        "text/plain",
        base64.b64encode(b"Hello there!") + b"\r\n-- list footer --\r\n",
        "Content-Transfer-Encoding: base64",
    )
    assert read(raw).text.startswith("Hello there!")


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ('<body bgcolor="#ffeeaa" text=navy><p>x</p></body>', 'style="background-color:#ffeeaa;color:navy;"'),
        ("<body style='margin: 0; color: \"red\"'>x", 'style="margin: 0; color: &quot;red&quot;"'),
        ('<table width="100%" bgcolor=red><tr><td nowrap>x</td></tr></table>', '<td nowrap="">'),
        ("<!--[if mso]><b>Word</b><![endif]--><![if !mso]>others<![endif]>", "others"),
        ('<font face="Arial" color="#123456">x</font>', 'color="#123456"'),
    ],
)
def test_looks_stay(html: str, shown: str) -> None:
    assert shown in sanitise(html, keep_style_sheets=True)


def test_style_sheets_stay_where_the_mail_stands_alone() -> None:
    html = "<style>p > b { color: red }</style><p>x"
    assert "<style>p > b { color: red }</style>" in sanitise(html, keep_style_sheets=True)
    assert "color" not in sanitise(html, keep_style_sheets=False)


def test_one_picture_stays_as_it_is_on_its_sheet() -> None:
    assert sheet([[("title", PNG)]]) == PNG


# --- answers ---------------------------------------------------------------------------------------------------------


def test_quotes_of_quotes_are_deeper() -> None:
    raw = message("text/plain", "Yes.\n\n> a question\n>> an older one\n")
    answer = read(sample.answer(AUTHOR, read(raw), at=AT, message_id="<x@gateway.example>").raw)
    assert answer.text.split("wrote:\n")[1].rstrip("\n").split("\n") == [
        "> Yes.",
        ">",
        ">> a question",
        ">>> an older one",
    ]


def test_an_answer_to_nobody_goes_to_the_sample_customer() -> None:
    answer = sample.answer(AUTHOR, read(b"Subject: x\r\n\r\ny"), at=AT, message_id="<x@gateway.example>")
    assert answer.customer == sample.CUSTOMER


def test_a_forwarded_original_is_quoted_with_its_text_alone() -> None:
    parts = multipart(part("text/plain", "see below"), part("message/rfc822", "From: x@example.net\n\ninner"))
    answer = read(
        sample.answer(
            AUTHOR, read(message("multipart/mixed; boundary=b", parts)), at=AT, message_id="<x@g.example>"
        ).raw
    )
    assert "> see below" in answer.text
    assert "inner" not in answer.text
