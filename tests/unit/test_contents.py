"""What a message holds: the text that people see, and what they would call attached."""

from __future__ import annotations

import base64
import time

import pytest

from gateway.mime import reading
from gateway.mime.reading import ATTACHMENTS, TEXT_PARTS, VIEW_CHARACTERS, Content, read
from gateway.mime.structure import Part
from gateway.model import Attachment

BASE64 = "Content-Transfer-Encoding: base64\r\n"
QUOTED = "Content-Transfer-Encoding: Quoted-Printable\r\n"
ATTACHED = "Content-Disposition: attachment\r\n"
CID = "Content-ID: <i>\r\n"


def multipart(kind: str, *parts: bytes, boundary: bytes = b"b") -> bytes:
    inner = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    head = b"Content-Type: multipart/" + kind.encode() + b'; boundary="' + boundary + b'"\r\n\r\n'
    return head + inner + b"--" + boundary + b"--\r\n"


def part(content_type: str, content: bytes = b"x", more: str = "") -> bytes:
    return f"Content-Type: {content_type}\r\n{more}\r\n".encode() + content


TEXT = part("text/plain", b"hello")

BODIES = {
    "plain": (b"Subject: x\r\n\r\nHello  there,\r\n\r\nCarla", "Hello there, Carla"),
    "nothing": (b"Subject: x\r\n\r\n", ""),
    "no-body-at-all": (b"Subject: x", ""),
    "empty": (b"", ""),
    "quoted-printable": (
        part("text/plain; charset=iso-8859-15", b"Gr=FC=DFe, 5 =A4, end=\r\ned", QUOTED),
        "Grüße, 5 €, ended",
    ),
    "base64": (part("text/plain; charset=utf-8", base64.b64encode("Grüße".encode()), BASE64), "Grüße"),
    "html": (
        part("text/html", b"<style>p{}</style><p>Good <b>mor</b>ning &amp; more</p><script>x</script>"),
        "Good morning & more",
    ),
    "hidden-text-is-not-seen": (part("text/html", b'<p>seen<span style="display:none">hidden</span></p>'), "seen"),
    "two-views": (
        multipart("alternative", part("text/plain", b"in plain"), part("text/html", b"<p>in colour</p>")),
        "in plain\nin colour",
    ),
    "the-same-in-both-views": (
        multipart("alternative", part("text/plain", b"Hello"), part("text/html", b"<p>Hello</p>")),
        "Hello",
    ),
    "two-text-parts": (multipart("mixed", TEXT, part("text/plain", b"footer")), "hello footer"),
    "named-text-is-attached": (multipart("mixed", TEXT, part('text/plain; name="log.txt"', b"secret")), "hello"),
    "a-forwarded-message-is-closed": (multipart("mixed", TEXT, part("message/rfc822", b"\r\ninner")), "hello"),
    "8-bit-without-a-charset": ("\r\nGrüße".encode(), "Grüße"),
    "8-bit-that-is-not-utf-8": (b"\r\nGr\xfc\xdfe", "Grüße"),
    "unknown-charset": (part("text/plain; charset=klingon", b"Gr\xfc\xdfe"), "Grüße"),
    "hostile-charset": (part('text/plain; charset="a\\"; x=y"', b"text"), "text"),
    "control-characters": (b"\r\na\x00\x1b[31mb\xe2\x80\xa8c", "a [31mb c"),
    "broken-base64": (part("text/plain", b"!!!!", BASE64), ""),
    "no-end": (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ncut", "cut"),
}


@pytest.mark.parametrize(("raw", "expected"), BODIES.values(), ids=BODIES.keys())
def test_the_body_is_what_people_see(raw: bytes, expected: str) -> None:
    assert read(raw).body == expected


ATTACHED_THINGS = {
    "none": (TEXT, ()),
    "named": (
        multipart("mixed", TEXT, part('application/pdf; name="a.pdf"')),
        (Attachment("a.pdf", "application/pdf", 1),),
    ),
    "without-a-name": (multipart("mixed", TEXT, part("application/zip")), (Attachment("", "application/zip", 1),)),
    "text-that-says-so": (
        multipart("mixed", TEXT, part("text/plain", b"x", ATTACHED)),
        (Attachment("", "text/plain", 1),),
    ),
    "the-name-that-the-disposition-gives": (
        part("image/png; name=b.png", b"x", 'Content-Disposition: inline; filename="a.png"\r\n'),
        (Attachment("a.png", "image/png", 1),),
    ),
    "encoded-name": (
        part("application/pdf; name==?utf-8?q?Rechnung_=C3=BC=2Epdf?="),
        (Attachment("Rechnung ü.pdf", "application/pdf", 1),),
    ),
    "name-of-rfc-2231": (
        part("application/pdf", b"x", "Content-Disposition: attachment; filename*=utf-8''%e2%82%ac.exe\r\n"),
        (Attachment("€.exe", "application/pdf", 1),),
    ),
    "name-in-raw-utf-8": (part('application/pdf; name="ü.pdf"'), (Attachment("ü.pdf", "application/pdf", 1),)),
    "a-picture-of-the-text": (
        multipart("related", part("text/html", b"<img src=cid:i>"), part("image/png; name=logo.png", b"x", CID)),
        (),
    ),
    "a-picture-beside-the-text": (
        multipart("mixed", TEXT, part("image/png", b"x", CID)),
        (Attachment("", "image/png", 1),),
    ),
    "a-program-among-the-pictures": (
        multipart("related", part("text/html", b"<p>"), part("application/x-msdownload; name=a.exe", b"x", CID)),
        (Attachment("a.exe", "application/x-msdownload", 1),),
    ),
    "a-seal": (multipart("signed", TEXT, part("application/pgp-signature; name=signature.asc")), ()),
    "a-forwarded-message": (
        multipart("mixed", TEXT, part("message/rfc822", b"Subject: inner\r\n\r\nx")),
        (Attachment("", "message/rfc822", 19),),
    ),
    "base64-is-counted-decoded": (
        part("application/pdf", base64.encodebytes(b"0123456789" * 25), BASE64),
        (Attachment("", "application/pdf", 250),),
    ),
}


@pytest.mark.parametrize(("raw", "expected"), ATTACHED_THINGS.values(), ids=ATTACHED_THINGS.keys())
def test_attachments_are_what_people_would_call_so(raw: bytes, expected: tuple[Attachment, ...]) -> None:
    assert read(raw).attachments == expected


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    (attachment,) = read(part(f'application/pdf; name="invoice {"x" * 2_000}.exe"')).attachments
    assert attachment.name.startswith("invoice x")
    assert attachment.name.endswith("x.exe")
    assert len(attachment.name) == 255


def test_what_lies_beyond_a_limit_is_left_out_and_told_of() -> None:
    long = read(b"\r\n" + b"word " * VIEW_CHARACTERS)
    assert (len(long.body), long.cut) == (VIEW_CHARACTERS, True)
    many = read(multipart("mixed", *[part(f"image/png; name=p{n}") for n in range(ATTACHMENTS + 1)]))
    assert (len(many.attachments), many.cut) == (ATTACHMENTS, True)
    texts = read(multipart("mixed", *[part("text/plain", b"t%d" % n) for n in range(TEXT_PARTS + 1)]))
    assert (len(texts.body.split()), texts.cut) == (TEXT_PARTS, True)
    assert not read(TEXT).cut


HOSTILE = {
    "nested": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3_000)),
    "deep-html": part("text/html", b"<div>" * 100_000),
    "wide-html": part("text/html", b"<p>x" * 120_000),
    "tables": part("text/html", b"<table><tr><td>" * 30_000),
    "angles": part("text/html", b"<" * 400_000),
    "only-a-comment": part("text/html", b"<!-- x -->"),
    "many-parts": multipart("mixed", *[TEXT] * 5_000),
    "zeros": bytes(300_000),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_messages_are_read_within_the_time_that_a_worker_gives(raw: bytes) -> None:
    begun = time.process_time()
    assert isinstance(read(raw), Content)
    assert time.process_time() - begun < 8, "a worker is ended after ten seconds"


def test_nothing_large_is_handed_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    parse = reading._parse

    def spy(part: Part, codec: str, content: bytes) -> str:
        handed.append(len(content))
        return parse(part, codec, content)

    monkeypatch.setattr(reading, "_parse", spy)
    zipped = part("application/zip", base64.encodebytes(bytes(6_000_000)), BASE64)
    found = read(multipart("mixed", part("text/plain", b"a" * 1_000_000), zipped))
    assert handed == [128 * 1024]
    assert found.attachments == (Attachment("", "application/zip", 6_000_000),)
