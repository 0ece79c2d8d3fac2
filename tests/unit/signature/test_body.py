"""Changing one decoded part: what goes out, what comes in, and that the octets around stay as they were."""

from __future__ import annotations

import base64

import pytest

from gateway.mime import transfer
from gateway.mime.splice import splice
from gateway.mime.structure import Part, scan
from gateway.outbound.signature.body import Change, Refused, read, write

TEXT = "Olá,\nhere it is.\n\n-- \nsent from my phone\n\nOn 1 Jan, Bo wrote:\n> hi =)\n"
CUT = (TEXT.index("-- \n"), TEXT.index("On 1 Jan"))


def part_of(charset: str, encoding: str) -> bytes:
    octets = TEXT.replace("\n", "\r\n").encode(charset)
    body = {
        "8bit": lambda: octets,
        "quoted-printable": lambda: transfer.quoted_printable(octets, b"\r\n"),
        "base64": lambda: transfer.base64_lines(octets, b"\r\n"),
    }[encoding]()
    fields = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return fields.encode() + body


def changed(raw: bytes, new: str, start: int = CUT[0], end: int = CUT[1]) -> tuple[bytes, str]:
    """Return the message and its decoded text with `TEXT[start:end]` replaced."""
    part = scan(raw)
    text = read(raw, part)
    at, to = (len(TEXT[:where].replace("\n", "\r\n").encode(text.codec)) for where in (start, end))
    done = splice(raw, write(raw, part, text, [Change(at, at, new), Change(at, to, "")]))
    return done, decoded(done, scan(done))


def decoded(raw: bytes, part: Part) -> str:
    octets = transfer.decode(raw[part.body : part.end], part.encoding)
    assert octets is not None
    return octets.decode(part.charset).replace("\r\n", "\n")


@pytest.mark.parametrize("new", ["-- \nAna\n\n", "-- \nΆννα\n\n", ""], ids=["ascii", "greek", "nothing"])
@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("utf-8", "8bit"), ("iso-8859-1", "8bit"), ("utf-8", "quoted-printable"), ("iso-8859-1", "quoted-printable"),
        ("utf-8", "base64"), ("iso-8859-1", "base64"), ("utf-16", "base64"), ("utf-7", "quoted-printable"),
    ],
)  # fmt: skip
def test_what_is_cut_out_makes_room_for_what_comes_in(charset: str, encoding: str, new: str) -> None:
    _, text = changed(part_of(charset, encoding), new)
    assert text == TEXT[: CUT[0]] + new + TEXT[CUT[1] :]


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable"])
def test_the_octets_around_a_cut_stay_as_they_were(encoding: str) -> None:
    raw = part_of("iso-8859-1", encoding)
    before, after = raw.index(b"--"), raw.index(b"On 1 Jan")
    done, _ = changed(raw, "-- \nAna\n\n")
    assert done.startswith(raw[:before])
    assert done.endswith(raw[after:])


def test_a_cut_within_an_escape_s_line_leaves_no_half_of_one() -> None:
    raw = part_of("iso-8859-1", "quoted-printable")
    _, text = changed(raw, "", TEXT.index("á"), TEXT.index("here"))
    assert text == TEXT.replace("á,\n", "")


def test_a_cut_that_makes_one_line_of_two_makes_none_too_long() -> None:
    raw = b"Content-Type: text/html; charset=utf-8\r\n\r\n" + b"x" * 900 + b"<i>\r\n</i>" + b"y" * 900
    part = scan(raw)
    done = splice(raw, write(raw, part, read(raw, part), [Change(900, 909, "")]))
    assert decoded(done, scan(done)) == "x" * 900 + "y" * 900
    assert transfer.is_short_lined(done)


def test_half_a_letter_is_not_cut() -> None:
    raw = b"Content-Type: text/plain; charset=shift_jis\r\n\r\n" + "支援".encode("shift_jis")
    part = scan(raw)
    with pytest.raises(Refused, match="the text is not shift_jis"):
        write(raw, part, read(raw, part), [Change(1, 1, "😀")])


def test_base64_without_its_last_line_break_stays_so() -> None:
    raw = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(b"Hello")
    part = scan(raw)
    done = splice(raw, write(raw, part, read(raw, part), [Change(5, 5, "\n")]))
    assert done.endswith(base64.b64encode(b"Hello\r\n"))
