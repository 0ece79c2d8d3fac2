"""Write what stands in a queue for a message that is at the provider and cannot be fetched.

As far as its header could be had, the placeholder carries it: the same author, subject and place in the conversation,
and whatever a rule may ask about. Only what tells of a body that is not there is left out. In place of the body stand
the reason and what to do. Nothing in the header can become anything else here: it comes from a stranger, and perhaps
broken is exactly what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from gateway.mime.compose import CRLF, header_field, text_part
from gateway.mime.scan import HEADER_LIMIT, Field, scan
from gateway.model import Placeholder
from gateway.text import clean

LONGEST: Final = 64 * 1024  # bytes of a placeholder
_FIELDS: Final = 900  # `mime.scan` looks at no more than a thousand
_FIELDS_BYTES: Final = 40 * 1024
_FIELD_BYTES: Final = 16 * 1024  # of one field; `mime.scan` looks at no more
_SHOWN_BYTES: Final = 2 * 1024  # of the header, shown as text
_SHOWN_WIDTH: Final = 100  # characters of a line of it
_SHOWN_LINES: Final = 60

# Room is limited, and these tell who wrote, in which conversation, and what kind of mail it is
_FIRST: Final = (
    "from", "message-id", "date", "subject", "reply-to", "sender", "return-path", "in-reply-to", "references",
    "auto-submitted", "precedence", "list-id", "to", "cc",
)  # fmt: skip
_OF_THE_BODY: Final = re.compile(r"content-|mime-version\Z")

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_BREAK: Final = re.compile(rb"[\s,]")
# In text, what could drive a terminal or hide itself is shown as its number
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]")


def compose_placeholder(
    header: bytes,
    *,
    uid: int,
    folder: str,
    size: int,
    internal_at: datetime | None,
    reason: str,
    message_id: str,
    now: datetime,
) -> tuple[bytes, Placeholder]:
    """Return the message (CRLF, one text body, at most LONGEST bytes) and which kind of placeholder it is.

    `header`: what could be had of it, perhaps cut anywhere, perhaps b"". `size`, `internal_at`: as the provider lists
    them. `reason`: why there is no more. `message_id`: for a placeholder that has none to carry, with its brackets.

    A header that was cut before its From cannot be judged: then the placeholder is blind, and says only where the
    message lies. It is not marked as automatic mail, or a rule about such mail might put it out of sight.
    """
    fields, kind = _fields(header)
    if kind is Placeholder.BLIND:
        subject = f"A message that cannot be fetched ({clean(folder, 80)}, number {uid}, {_size(size)})"
        host = message_id.rpartition("@")[2].rstrip(">") or "localhost"
        fields = [
            header_field("From", f"Mail gateway <mail-gateway@{host}>"),
            header_field("Subject", subject),
            header_field("Date", format_datetime(now.astimezone(UTC))),
            header_field("Message-ID", message_id),
        ]
    text = "\r\n".join(_sentences(header, uid, folder, size, internal_at, reason))
    raw = b"".join((*fields, b"MIME-Version: 1.0\r\n", text_part("plain", text), CRLF))
    return raw, kind


# --- the header ------------------------------------------------------------------------------------------------------


def _fields(header: bytes) -> tuple[list[bytes], Placeholder]:
    """Return the fields to carry in their order, each with its line end, and what they make of the placeholder."""
    header = header[:HEADER_LIMIT]
    is_whole = header.startswith((b"\r\n", b"\n")) or b"\n\n" in header or b"\n\r\n" in header
    if not is_whole:
        header = header[: header.rfind(b"\n") + 1]  # its last line may be half an address
    facts = scan(header)
    room = _FIELDS_BYTES
    carried: dict[int, bytes] = {}
    for field in sorted(facts.fields, key=_importance):
        if _OF_THE_BODY.match(field.name):
            continue
        written = _written(field, facts.block)
        if len(written) <= room and len(carried) < _FIELDS:
            carried[field.start] = written
            room -= len(written)
    names = {field.name for field in facts.fields if field.start in carried}
    judgeable = "from" in names or (is_whole and bool(names))
    fields = [carried[start] for start in sorted(carried)]
    return fields, Placeholder.HEADED if judgeable else Placeholder.BLIND


def _importance(field: Field) -> int:
    return _FIRST.index(field.name) if field.name in _FIRST else len(_FIRST)


def _written(field: Field, block: bytes) -> bytes:
    """Return a field as it was, but for what some reader could take for the end of the line, field or header."""
    name = block[field.start : field.value].partition(b":")[0].rstrip()
    lines = [_CONTROL.sub(b" ", line.removesuffix(b"\r")) for line in _cut(block[field.value : field.end]).split(b"\n")]
    # a folded line of nothing but white space looks like the empty line behind the header
    kept = [line for number, line in enumerate(lines) if number == 0 or line.strip()]
    return name + b":" + CRLF.join(kept) + CRLF


def _cut(value: bytes) -> bytes:
    """Return at most _FIELD_BYTES of a value, up to the last place where words or addresses meet."""
    if len(value) <= _FIELD_BYTES:
        return value
    breaks = [found.start() for found in _BREAK.finditer(value, _FIELD_BYTES - 2_000, _FIELD_BYTES)]
    return value[: breaks[-1]] if breaks else b""


# --- the text --------------------------------------------------------------------------------------------------------


def _sentences(
    header: bytes, uid: int, folder: str, size: int, internal_at: datetime | None, reason: str
) -> Iterator[str]:
    yield "A message has come for this touchpoint, and the gateway could not fetch it from the provider."
    yield ""
    yield f"    Reason:  {clean(reason) or 'the provider does not give it'}"
    yield f"    Size:    {_size(size)}"
    yield f"    Came:    {format_datetime(internal_at) if internal_at else 'at a time not known'}"
    yield f"    Folder:  {clean(folder)}"
    yield f"    Number:  {uid} (its UID there)"
    yield ""
    yield "To read it now, open it in the provider's webmail. As soon as the gateway can fetch it, the message itself"
    yield "stands here instead of this note."
    if shown := _shown(header):
        yield ""
        yield "How it begins, as far as it could be had:"
        yield ""
        yield from (f"    {line}".rstrip() for line in shown)


def _size(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB" if size >= 1_000_000 else f"{size:,} bytes"


def _shown(header: bytes) -> Sequence[str]:
    text = header[:_SHOWN_BYTES].decode("utf-8", "backslashreplace").replace("\r\n", "\n").rstrip("\n")
    lines = []
    for line in text.split("\n"):
        visible = _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", line.replace("\t", "    "))
        lines += [visible[at : at + _SHOWN_WIDTH] for at in range(0, max(1, len(visible)), _SHOWN_WIDTH)]
    if len(header) > _SHOWN_BYTES or len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], "…"]
    return lines if any(line.strip() for line in lines) else ()
