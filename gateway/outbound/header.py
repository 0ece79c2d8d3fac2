"""Finishes the header of a submitted message by cutting and splicing bytes; what stays is untouched.

Added in front: Date and Message-ID where missing (RFC 6409 §8). Taken out: Bcc, and the fields by which a client names
the agent's login, which no customer should answer to. Replaced: From, when the touchpoint's name belongs there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from textwrap import wrap
from typing import Final

from gateway.mime.compose import mailbox_text
from gateway.mime.scan import Field, HeaderFacts, Mailbox, parse_addresses

MOST_HOPS: Final = 100  # Received fields; more is a loop: RFC 5321 §6.3
_HOP_BYTES: Final = 2_000  # of one of them that are looked at
_BLIND: Final = frozenset({"bcc", "resent-bcc"})
_ANSWERED: Final = frozenset({"reply-to", "sender", "disposition-notification-to", "return-receipt-to"})
_LINE: Final = 76


def refuse_header(facts: HeaderFacts, hostname: str) -> str | None:
    """Return the reply to a header that we cannot finish safely, or None. `hostname`: ours, as in our trace fields.

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
    if not facts.has("received"):
        return None
    hops = facts.raw_values("received")
    if len(hops) > MOST_HOPS:
        return f"554 5.4.6 the message has passed {len(hops)} servers; it seems to run in a loop"
    trace = _trace(hostname)
    for hop in hops:
        if found := trace.search(hop, 0, _HOP_BYTES):
            return f"554 5.4.6 the message has gone out from here as {found[1].decode()}; it seems to run in a loop"
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


@lru_cache(maxsize=8)
def _trace(hostname: str) -> re.Pattern[bytes]:
    """Return what our own trace fields look like, once unfolded; its group is the queue id."""
    host = re.escape(hostname).encode("ascii", "replace")
    return re.compile(rb"(?i)(?:^|\s)by\s+" + host + rb"\s+\(mail-gateway\)\s+id\s+([0-9a-z]{1,10})\.\d")


@lru_cache(maxsize=1024)
def compose_from(name: str, address: str) -> bytes:
    """Return a From field, folded. `name` may hold anything; line breaks in it become spaces."""
    text = f"From: {mailbox_text(Mailbox(name, address))}"
    lines = wrap(text, _LINE, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line}\r\n" for line in lines).encode()


def _names(facts: HeaderFacts, field: Field, login: str) -> bool:
    if field.name not in _ANSWERED:
        return False
    value = facts.block[field.value : field.end].replace(b"\r\n", b"")
    return any(mailbox.address.lower() == login.lower() for mailbox in parse_addresses(value))
