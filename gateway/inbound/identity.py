"""What makes a message the same message when its UID has changed (DESIGN §5): computed without its body.

RFC822.SIZE and INTERNALDATE come from the listing, the three fields from the header; a provider gives all of them
for a whole folder without sending one body. Two equal messages have equal fingerprints: whoever uses them counts.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Final

FIELDS: Final = ("MESSAGE-ID", "DATE", "FROM")

# What a message in Sent is recognised by besides: what it answers, the Message-ID that it had before Microsoft gave it
# another, and our own trace
SENT_FIELDS: Final = (*FIELDS, "IN-REPLY-TO", "REFERENCES", "X-MICROSOFT-ORIGINAL-MESSAGE-ID", "RECEIVED")

_FIELD: Final = re.compile(rb"^(message-id|date|from)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)
_HEADER_BYTES: Final = 256 * 1024  # a longer header is somebody's experiment; both callers stop at the same place


def fingerprint(header: bytes, size: int, internal_at: datetime | None) -> int:
    """Return 64 bits (signed, as SQLite has them) of identity: the outline, and 32 bits of the three fields.

    `header`: the message, its header, or just the three fields. `size`: as the provider lists it, which is not
    always the length of what it sends.
    """
    found: dict[bytes, bytes] = {}
    for match in _FIELD.finditer(header, 0, _header_end(header)):
        found.setdefault(match[1].lower(), b" ".join(match[2].split()))  # the first wins; folding does not matter
    known = b"\n".join(found.get(name.lower().encode(), b"") for name in FIELDS)
    return outline(size, internal_at) << 32 | int.from_bytes(hashlib.blake2b(known, digest_size=4).digest())


def outline(size: int, internal_at: datetime | None) -> int:
    """Return 32 bits (signed) of what a listing alone tells: a message whose outline is unknown is a new one.

    Signed, so that `outline << 32` is the lowest fingerprint with this outline, in Python and in SQLite.
    """
    seconds = 0 if internal_at is None else int(internal_at.timestamp())
    return int.from_bytes(hashlib.blake2b(b"%d %d" % (size, seconds), digest_size=4).digest(), signed=True)


def outline_of(fingerprint: int) -> int:
    """Return the outline that a fingerprint was made with: its upper half."""
    return fingerprint >> 32


def object_id(kind: bytes, value: bytes) -> int:
    """Return 64 bits (signed) for the provider's own name of a message: kind `emailid` (RFC 8474) or `gm` (Gmail)."""
    return int.from_bytes(hashlib.blake2b(kind + b":" + value, digest_size=8).digest(), signed=True)


def _header_end(message: bytes) -> int:
    if message.startswith((b"\r\n", b"\n")):
        return 0
    ends = (message.find(blank, 0, _HEADER_BYTES) for blank in (b"\n\r\n", b"\n\n"))
    return min((end + 1 for end in ends if end >= 0), default=_HEADER_BYTES)
