"""A message as a person reads it: header, text, names of what is attached; whatever it is, something readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.reading import harmless, readable
from tests.property.mime_trees import messages


def letter(*fields: str, body: str = "Hello,\r\n\r\nwhere is it?\r\n") -> bytes:
    return "\r\n".join(("From: Carla <carla@customer.example>", *fields, "", body)).encode()


def test_a_plain_letter_reads_as_written() -> None:
    raw = letter("To: support@example.com", "Subject: =?utf-8?q?Order_n=C2=BA_7?=", "X-Other: x")
    assert readable(raw) == (
        "From: Carla <carla@customer.example>\nTo: support@example.com\nSubject: Order nº 7\n\nHello,\n\nwhere is it?"
    )


def test_the_text_is_shown_before_the_html_and_attachments_by_name() -> None:
    raw = letter(
        "Subject: x",
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="b"',
        body=(
            '--b\r\nContent-Type: multipart/alternative; boundary="a"\r\n\r\n'
            "--a\r\nContent-Type: text/plain\r\n\r\nthe text\r\n"
            "--a\r\nContent-Type: text/html\r\n\r\n<p>the html</p>\r\n--a--\r\n"
            "--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;"
            ' filename="invoice\x1b[2J.pdf"\r\n\r\nx\r\n--b--\r\n'
        ),
    )
    shown = readable(raw)
    assert "the text" in shown
    assert "the html" not in shown
    assert shown.splitlines()[-1] == "[attached: invoice [2J.pdf]"


def test_html_alone_is_shown_without_its_tags() -> None:
    raw = letter("MIME-Version: 1.0", "Content-Type: text/html", body="<p>one <b>two</b></p>")
    assert readable(raw).endswith("\n\none two")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        pytest.param(("Content-Type: text/plain; charset=klingon",), "cannot be decoded; --raw shows", id="charset"),
        pytest.param(("Content-Type: application/pdf",), "(no text)", id="no-text"),
    ],
)
def test_what_cannot_be_read_says_so(fields: tuple[str, ...], shown: str) -> None:
    assert shown in readable(letter("MIME-Version: 1.0", *fields))


def test_a_letter_cannot_drive_the_terminal() -> None:
    shown = readable(letter("Subject: a\x1b]0;owned\x07b", body="\x1b[2Jgone\r\nx\u202ey\u2066z\x9bm\ttab"))
    assert not set(shown) & set("\x1b\x07\u202e\u2066\x9b\r")
    assert "gone" in shown
    assert "\ttab" in shown


def test_nothing_at_all_is_readable() -> None:
    assert readable(b"").strip() == ""


@given(st.binary(max_size=300) | messages())
def test_whatever_comes_is_shown_without_control_characters(raw: bytes) -> None:
    shown = readable(raw)
    assert harmless(shown) == shown
