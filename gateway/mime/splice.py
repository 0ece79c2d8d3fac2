"""Change some octets of a message and no others.

An edit says which octets go and which come; everything between the edits is carried over as it is, which is what
keeps DKIM, S/MIME and odd but honest mail whole. The functions that make edits know MIME's rules for the one place
that they touch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from gateway.mime.search import find_by
from gateway.mime.structure import Part, read_parameters
from gateway.mime.transfer import is_short_lined

_WIDTH: Final = 76
_CHARSET_PARAMETER = re.compile(rb"""(;\s*charset\s*=\s*)("[^"]*"|[^\s;"]*)""", re.IGNORECASE)


class Edit(NamedTuple):
    """Replace `raw[start:end]` by `data`; `start == end` inserts."""

    start: int
    end: int
    data: bytes


def splice(raw: bytes, edits: Iterable[Edit]) -> bytes:
    """Return `raw` with the edits made; several at one place come in the order given. ValueError when they overlap."""
    view, position = memoryview(raw), 0
    pieces: list[bytes | memoryview] = []
    for edit in sorted(edits, key=lambda edit: edit.start):
        if edit.start < position or edit.end < edit.start:
            raise ValueError(f"edits overlap at {edit.start}")
        pieces += (view[position : edit.start], edit.data)
        position = edit.end
    pieces.append(view[position:])
    return b"".join(pieces)


def line_end(raw: bytes) -> bytes:
    """Return the line break that the message's first line has; CRLF when it has none."""
    first = raw.find(b"\n")
    return b"\n" if first == 0 or (first > 0 and raw[first - 1] != 0x0D) else b"\r\n"


def set_field(raw: bytes, part: Part, name: str, value: str, eol: bytes) -> Edit:
    """Replace the value of the part's first field of that name, in its place; or add the field behind the others."""
    octets = value.encode("ascii")
    if field := part.field(name.lower()):
        colon = raw.index(b":", field.start, field.end)
        return Edit(colon + 1, field.end, b" " + octets + eol)
    return Edit(part.header_end, part.header_end, b"%s: %s%s" % (name.encode("ascii"), octets, eol))


def set_charset(raw: bytes, part: Part, label: str, eol: bytes) -> Edit:
    """Change or add the charset parameter of the part's Content-Type and nothing else of it."""
    field = part.field("content-type")
    if field is None:
        return set_field(raw, part, "Content-Type", f"{part.content_type}; charset={label}", eol)
    octets = label.encode("ascii")
    colon = raw.index(b":", field.start, field.end) + 1
    new, count = _CHARSET_PARAMETER.subn(rb"\g<1>" + octets, field.value, count=1)
    if not count:
        kept_value = field.value.rstrip(b"; \t\r\n")
        width = len(b"Content-Type:") + len(kept_value) - (kept_value.rfind(b"\n") + 1)
        fold = eol + b"\t" if width > _WIDTH - len(b"; charset=utf-8") else b" "
        new = kept_value + b";" + fold + b"charset=" + octets
    content_type, parameters = read_parameters(new)
    is_odd = content_type != part.content_type or parameters.get("charset") != label
    if is_odd or not is_short_lined(b"Content-Type:" + new):  # not to be mended in place
        kept = [
            f"{key}={part.parameters[key]}" for key in ("format", "delsp") if part.parameters.get(key, "").isalnum()
        ]
        new = "; ".join([f" {part.content_type}", f"charset={label}", *kept]).encode("ascii")
    return Edit(colon, field.end, new + eol)


def fresh_boundary(raw: bytes, purpose: str, start: int = 0, end: int | None = None) -> str:
    """Return a boundary that stands nowhere in `raw[start:end]`, what it is to part. The same message and purpose
    give the same one: no dice."""
    seed, number = blake2b(raw[:4096], digest_size=12, person=b"boundary").hexdigest(), 0
    end = len(raw) if end is None else end
    while find_by(b"_", (boundary := f"=_{purpose}-{number}-{seed}").encode("ascii"), raw, start, end) >= 0:
        number += 1
    return boundary
