"""Write a new message: notices, automatic answers, and the parts that a signature adds.

What comes out is 7-bit clean, has CRLF line ends and no line above 998 octets, whatever went in. No value can begin
another header field: control characters become blanks before anything else is looked at.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from hashlib import blake2b
from typing import Final

from gateway.errors import Malformed
from gateway.mime.scan import Mailbox
from gateway.mime.transfer import base64_lines, encode_text

CRLF: Final = b"\r\n"
MAX_REFERENCES: Final = 40  # ids; RFC 5537 §3.4.4: the first and the last ones are what threading needs

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+\Z")  # words of a phrase that need no quotes (RFC 5322 §3.2.3)
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\\\"@]+@[^\s<>()\[\],;:\\\"@]+\Z")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+>\Z")
_WIDTH = 76


@dataclass(frozen=True, slots=True)
class Image:
    """An inline picture. `content_id` without angle brackets, as in the `cid:` address that shows it."""

    content_id: str
    content_type: str
    filename: str  # ASCII without quotes; ours, never a stranger's
    data: bytes = field(repr=False)


def compose(
    *,
    author: Mailbox,
    to: Sequence[Mailbox],
    subject: str,
    at: datetime,
    message_id: str,
    text: str,
    html: str = "",
    images: Sequence[Image] = (),
    in_reply_to: str = "",
    references: Sequence[str] = (),
    auto_submitted: str = "",
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Return a whole message. Ids carry their angle brackets; those that are none are left out.

    `more`: further fields, written as unstructured text; a name that is no field name is a ValueError. Malformed when
    an address cannot be written without SMTPUTF8.
    """
    lines = [
        _address_field("From", [author]),
        _address_field("To", to),
        header_field("Subject", subject),
        header_field("Date", format_datetime(at)),
        _id_field("Message-ID", [message_id]),
        _id_field("In-Reply-To", [in_reply_to]),
        _id_field("References", trim_references(references)),
        header_field("Auto-Submitted", auto_submitted) if auto_submitted else b"",
        *(header_field(name, value) for name, value in (more or {}).items()),
        b"MIME-Version: 1.0\r\n",
    ]
    return b"".join(lines) + body_part(text, html, images) + CRLF


def header_field(name: str, value: str) -> bytes:
    """Return one unstructured field with its line break: folded, anything but ASCII in encoded words (RFC 2047)."""
    if not _FIELD_NAME.match(name):
        raise ValueError(f"{name!r} is no field name")
    return _fold(name, _words(_one_line(value), len(name) + 2))


def body_part(text: str, html: str = "", images: Sequence[Image] = (), *, eol: bytes = CRLF) -> bytes:
    """Return a part: its fields, the blank line and the body, without a line break at the end.

    text alone; with HTML a multipart/alternative of both; with images the HTML within a multipart/related (RFC 2387).
    """
    if not html:
        return text_part("plain", text, eol)
    rich = text_part("html", html, eol)
    if images:
        rich = multipart('related; type="text/html"', [rich, *(image_part(image, eol) for image in images)], eol)
    return multipart("alternative", [text_part("plain", text, eol), rich], eol) if text else rich


def text_part(subtype: str, text: str, eol: bytes = CRLF) -> bytes:
    octets = _CONTROL_BUT_LINES.sub("", text).encode("utf-8", "replace")
    encoding, body = encode_text(octets, eol)
    charset = "us-ascii" if octets.isascii() else "utf-8"
    lines = (f"Content-Type: text/{subtype}; charset={charset}", f"Content-Transfer-Encoding: {encoding}", "", "")
    return eol.join(line.encode("ascii") for line in lines) + body.removesuffix(eol)


_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


def image_part(image: Image, eol: bytes = CRLF) -> bytes:
    lines = (
        f'Content-Type: {image.content_type}; name="{image.filename}"',
        "Content-Transfer-Encoding: base64",
        f"Content-ID: <{image.content_id}>",
        f'Content-Disposition: inline; filename="{image.filename}"',
        "",
        "",
    )
    return eol.join(line.encode("ascii") for line in lines) + base64_lines(image.data, eol).removesuffix(eol)


def multipart(subtype: str, parts: Sequence[bytes], eol: bytes = CRLF) -> bytes:
    """Return a multipart of finished parts; its boundary stands in none of them."""
    digest = blake2b(digest_size=12, person=b"multipart")
    for part in parts:
        digest.update(part)
    boundary = f"=_{subtype.partition(';')[0]}-{digest.hexdigest()}"  # "=_" is in no base64 and no quoted-printable
    while any(boundary.encode("ascii") in part for part in parts):
        boundary += "_"
    delimiter = b"--" + boundary.encode("ascii")
    header = f"Content-Type: multipart/{subtype};".encode("ascii") + eol + f' boundary="{boundary}"'.encode("ascii")
    return (
        header
        + eol + eol
        + b"".join(delimiter + eol + part + eol for part in parts)
        + delimiter + b"--" + eol
    )  # fmt: skip


def trim_references(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the ids once each; of more than 40 those in the middle go."""
    unique = tuple(dict.fromkeys(ids))
    return unique if len(unique) <= MAX_REFERENCES else (unique[0], *unique[1 - MAX_REFERENCES :])


def mailbox_text(box: Mailbox) -> str:
    """Return one mailbox as it stands in a header field, unfolded. Malformed when it needs SMTPUTF8."""
    return " ".join(_mailbox_words(box, 0))


def _one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())


def _words(text: str, column: int) -> list[str]:
    """The pieces between which a fold may go. All of it becomes encoded words when one letter needs it."""
    if text.isascii() and "=?" not in text and not any(len(word) > 900 for word in text.split(" ")):
        return text.split(" ")
    return list(_encoded_words(text, column))


def _encoded_words(text: str, column: int) -> Iterator[str]:
    """RFC 2047 §2: at most 75 letters each, never cut within a character."""
    room = max(12, min(45, (_WIDTH - column - 14) // 4 * 3))  # the first one shares its line with the field's name
    piece = b""
    for letter in text:
        octets = letter.encode()
        if len(piece) + len(octets) > room:
            yield _encoded_word(piece)
            piece, room = b"", 45
        piece += octets
    yield _encoded_word(piece)


def _encoded_word(octets: bytes) -> str:
    return f"=?utf-8?B?{base64.b64encode(octets).decode('ascii')}?="


def _address_field(name: str, boxes: Sequence[Mailbox]) -> bytes:
    words: list[str] = []
    for index, box in enumerate(boxes):
        one = _mailbox_words(box, len(name) + 2)
        if index < len(boxes) - 1:
            one[-1] += ","
        words += one
    return _fold(name, words) if words else b""


def _mailbox_words(box: Mailbox, column: int) -> list[str]:
    name, address = _one_line(box.name), _ascii_address(box.address)
    if not name:
        return [address]
    if not name.isascii() or "=?" in name:
        return [*_encoded_words(name, column), f"<{address}>"]
    if not _ATOMS.match(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return [*name.split(" "), f"<{address}>"]


def _ascii_address(address: str) -> str:
    local, _, domain = address.rpartition("@")
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            raise Malformed(f"{address!r} is no address") from None
    written = f"{local}@{domain}"
    if not written.isascii():
        raise Malformed(f"the address {address!r} needs SMTPUTF8", "550 5.6.7 an address is not plain ASCII")
    if not _ADDRESS.match(written) or len(written) > 320:
        raise Malformed(f"{address!r} is no address", "550 5.1.3 an address cannot be understood")
    return written


def _id_field(name: str, ids: Sequence[str]) -> bytes:
    good = [one for one in ids if _MESSAGE_ID.match(one) and len(one) < 900]
    return _fold(name, good) if good else b""


def _fold(name: str, words: Sequence[str]) -> bytes:
    lines, line = [], f"{name}:"
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH and line.strip() and line != f"{name}:":
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\r\n".join([*lines, line, ""]).encode("ascii")
