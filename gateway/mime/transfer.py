"""Content transfer encodings (RFC 2045 §6): undo them, redo them, and find the encoded place of a decoded one."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

IDENTITY: Final = frozenset({"7bit", "8bit", "binary"})
MAX_LINE: Final = 998  # octets without the line break: RFC 5322 §2.1.1

_QP_TOKEN = re.compile(rb"=[0-9A-Fa-f]{2}|=[ \t]*\r?\n|.", re.DOTALL)


def decode(body: bytes, encoding: str) -> bytes | None:
    """Return the octets that `body` stands for, or None when they cannot be known."""
    if encoding in IDENTITY:
        return body
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding == "base64":
        try:
            octets = binascii.a2b_base64(body)
        except binascii.Error:
            return None
        # Python passes over what is no base64 and stops at padding: a footer that a list put behind would be lost.
        return octets if binascii.b2a_base64(octets, newline=False) == b"".join(body.split()) else None
    return None


def quoted_printable(data: bytes, eol: bytes) -> bytes:
    """Return text octets as quoted-printable. Line breaks of `data` become `eol`; a last line without one stays so."""
    # The leading line break is what tells binascii to end soft breaks with CRLF.
    encoded = binascii.b2a_qp(b"\r\n" + to_eol(data, b"\r\n"))[2:]
    return encoded if eol == b"\r\n" else encoded.replace(b"\r\n", eol)


def base64_lines(data: bytes, eol: bytes) -> bytes:
    """Return octets as base64 in lines of 76 letters, each with its line break."""
    return base64.encodebytes(data).replace(b"\n", eol)


def to_eol(text: bytes, eol: bytes) -> bytes:
    """Return `text` with every CRLF and every LF as `eol`."""
    plain = text.replace(b"\r\n", b"\n")
    return plain if eol == b"\n" else plain.replace(b"\n", eol)


def encode_text(data: bytes, eol: bytes) -> tuple[str, bytes]:
    """Return (transfer encoding, body) for text of any octets: 7bit where it can be, else the shorter of the two."""
    if b"\0" in data:  # UTF-16 and its like, in which a line break is no single octet
        return "base64", base64_lines(data, eol)
    data = to_eol(data, eol)
    if data.isascii() and is_short_lined(data) and b"\r" not in data.replace(b"\r\n", b""):
        return "7bit", data
    quoted = quoted_printable(data, eol)
    if len(quoted) > len(data) * 2:  # mostly outside ASCII
        return "base64", base64_lines(data, eol)
    return "quoted-printable", quoted


def is_short_lined(data: bytes) -> bool:
    return len(data) <= MAX_LINE or max(map(len, data.split(b"\n"))) <= MAX_LINE


def encoded_offset(body: bytes, offset: int) -> int:
    """Return where in a quoted-printable `body` the decoded octet number `offset` begins.

    The offset lies in front of a soft line break when one stands there, and never inside an escape.
    """
    position = decoded = 0
    while position < len(body):
        end = body.find(b"\n", position) + 1 or len(body)
        line = body[position:end]
        width = len(binascii.a2b_qp(line))
        if decoded + width > offset:
            for token in _QP_TOKEN.finditer(line):
                if decoded >= offset:
                    return position + token.start()
                decoded += len(binascii.a2b_qp(token[0]))
        decoded, position = decoded + width, end
    return len(body)
