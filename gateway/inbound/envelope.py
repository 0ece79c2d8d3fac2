"""An ENVELOPE (RFC 9051 §7.5.2) → header lines: what can be shown of a message that the server does not give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.inbound.fetch import Value

_ADDRESSES = (b"From", b"Sender", b"Reply-To", b"To", b"Cc", b"Bcc")


def compose_header(envelope: Sequence[Value]) -> bytes:
    """Return header lines, each with its CRLF; none of what is missing or broken."""
    if len(envelope) != 10:
        return b""
    date, subject, *addresses, answered, id = envelope
    fields = [(b"Date", _text(date)), (b"Subject", _text(subject))]
    fields += [(name, _mailboxes(value)) for name, value in zip(_ADDRESSES, addresses, strict=True)]
    fields += [(b"In-Reply-To", _text(answered)), (b"Message-ID", _text(id))]
    return b"".join(b"%b: %b\r\n" % field for field in fields if field[1])


def _text(value: Value) -> bytes:
    """Return a value on one line: what the server says here must not become a field of its own."""
    if isinstance(value, int):
        return b"%d" % value
    return re.sub(rb"[\0\r\n\t ]+", b" ", value).strip() if isinstance(value, bytes) else b""


def _mailboxes(value: Value) -> bytes:
    return b", ".join(filter(None, map(_mailbox, value))) if isinstance(value, list) else b""


def _mailbox(value: Value) -> bytes:
    """Return `name <mailbox@host>`; nothing for the begin and end of a group, which have no host."""
    if not isinstance(value, list) or len(value) != 4:
        return b""
    name, _, local, host = map(_text, value)
    if not local or not host:
        return b""
    if name and not re.fullmatch(rb"[\w !#$%&'*+/=?^`{|}~-]+", name):
        name = b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", name)
    address = b"%b@%b" % (local, host)
    return b"%b <%b>" % (name, address) if name else address
