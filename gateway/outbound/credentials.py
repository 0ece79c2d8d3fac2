"""Reads what a client answers within AUTH: base64, and the three fields of PLAIN (RFC 4954 §4, RFC 4616 §2)."""

from __future__ import annotations

import binascii

from gateway.errors import Malformed


def decode_response(text: str) -> bytes:
    """Return the octets behind one response; "=" stands for none. Raises Malformed, also where the client gave up."""
    if text == "*":
        raise Malformed("cancelled", "501 5.7.0 the client has cancelled the login")
    if text == "=":
        return b""
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed("no base64", "501 5.5.2 the response is not base64") from None


def read_plain(response: bytes) -> tuple[bytes, bytes]:
    """Return login and password. Raises Malformed, also for who logs in as one and wants to act as another."""
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise Malformed("no PLAIN", "501 5.5.2 the response is not what RFC 4616 asks for")
    acts_as, login, password = fields
    if acts_as and acts_as.lower() != login.lower():
        raise Malformed("another identity", "535 5.7.8 nobody can act as somebody else here")
    return login, password
