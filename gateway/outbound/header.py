"""Finishes the header of a submitted message by cutting and splicing bytes; what stays is untouched.

Added in front: Date and Message-ID where missing (RFC 6409 §8). Taken out: Bcc, and the fields by which a client names
the agent's login, which no customer should answer to. Replaced: From, when the touchpoint's name belongs there.
"""

from __future__ import annotations

import re
from email.header import Header
from functools import lru_cache
from typing import Final

from gateway.mime.scan import Field, HeaderFacts, parse_addresses

MOST_HOPS: Final = 100  # Received fields; more is a loop: RFC 5321 §6.3
_BLIND: Final = frozenset({"bcc", "resent-bcc"})
_ANSWERED: Final = frozenset({"reply-to", "sender", "disposition-notification-to", "return-receipt-to"})
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+\Z")
_LINE: Final = 76


def refuse_header(facts: HeaderFacts) -> str | None:
    """Return the reply to a header that we cannot finish safely, or None.

    A line that is no field makes some readers end the header there and others go on: what one of them takes for the
    sender's address would not be what we checked.
    """
    if facts.truncated or facts.body_start is None:
        return "552 5.3.4 the header is too large"
    position = 0
    for field in facts.fields:
        if field.start != position:
            break
        position = field.end
    if facts.block[position:]:
        return "550 5.6.0 the header has a line that is not a header field"
    if len(facts.raw_values("received")) > MOST_HOPS:
        return "554 5.4.6 the message has passed too many servers; it seems to run in a loop"
    return None


def finish_header(
    raw: bytes,
    facts: HeaderFacts,
    *,
    login: str,
    is_signed: bool,
    from_field: bytes | None,
    missing: bytes,
) -> bytes:
    """Return `raw` (CRLF) with its header finished. `from_field` and `missing` are whole fields with their line ends.

    Of a signed message nothing is touched but Bcc; `from_field` must then be None.
    """
    pieces: list[bytes | memoryview] = [missing]
    whole = memoryview(raw)
    position = 0
    for field in facts.fields:
        if field.name in _BLIND or (not is_signed and _names(facts, field, login)):
            replacement = b""
        elif field.name == "from" and from_field is not None:
            replacement = from_field
        else:
            continue
        pieces += (whole[position : field.start], replacement)
        position = field.end
    pieces.append(whole[position:])
    return b"".join(pieces)


@lru_cache(maxsize=1024)
def compose_from(name: str, address: str) -> bytes:
    """Return a From field. `name` may hold anything; line breaks in it become spaces, other scripts are encoded."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    if not name:
        return f"From: {address}\r\n".encode()
    if not name.isascii():
        shown = Header(name, "utf-8", maxlinelen=_LINE, header_name="From").encode(linesep="\r\n")
    elif _ATOMS.match(name) and "=?" not in name:
        shown = name
    else:
        shown = '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"'
    last_line = len(shown) - shown.rfind("\n") + len(address)
    fold = " " if last_line + len("From:  <>") <= _LINE else "\r\n "
    return f"From: {shown}{fold}<{address}>\r\n".encode()


def _names(facts: HeaderFacts, field: Field, login: str) -> bool:
    if field.name not in _ANSWERED:
        return False
    value = facts.block[field.value : field.end].replace(b"\r\n", b"")
    return any(mailbox.address.lower() == login.lower() for mailbox in parse_addresses(value))
