"""One text or HTML part: its decoded octets, and what must be edited so that they become others.

Only where new letters do not fit into the part's charset or transfer encoding is it written anew, and then its
decoded text is still the same text with the changes in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.mime import transfer
from gateway.mime.charset import UTF_8, charset
from gateway.mime.splice import Edit, line_end, set_charset, set_field, splice
from gateway.mime.structure import Part
from gateway.outbound.signature.protect import has_armour


class Refused(Exception):
    """This part cannot take the signature; the message stays as it is."""


@dataclass(frozen=True, slots=True)
class Text:
    """A decoded body in which ASCII signs can be found. `codec` is that of `octets`; `is_exact`: the octets are those
    of the part, not a translation."""

    octets: bytes
    codec: str
    eol: bytes
    is_exact: bool = True


class Change(NamedTuple):
    """Replace `octets[start:end]` of a Text by `new`, whose lines end with LF."""

    start: int
    end: int
    new: str


def read(raw: bytes, part: Part) -> Text:
    """Refused when the octets cannot be known, or are not ours to change."""
    body = raw[part.body : part.end]
    octets = transfer.decode(body, part.encoding)
    if octets is None:
        raise Refused(f"the transfer encoding {part.encoding!r} cannot be read")
    named = charset(part.charset)
    if named is None:
        raise Refused(f"the charset {part.charset!r} is not known")
    codec, is_exact = named.codec, True
    if not named.is_ascii_superset:
        try:
            octets, codec, is_exact = octets.decode(codec).encode("utf-8"), "utf-8", False
        except (UnicodeError, LookupError):
            raise Refused(f"the text is not {part.charset}") from None
    elif codec == "ascii" and not octets.isascii():
        codec = "utf-8" if _decodes(octets, "utf-8") else "ascii"  # 8-bit text that does not say what it is
    if has_armour(octets, is_html=part.content_type == "text/html"):
        raise Refused("inline PGP or S/MIME")
    return Text(octets, codec, _eol_of(octets) or line_end(raw), is_exact)


def _eol_of(octets: bytes) -> bytes | None:
    first = octets.find(b"\n")
    if first < 0:
        return None
    return b"\r\n" if octets[first - 1 : first] == b"\r" else b"\n"


def _decodes(octets: bytes, codec: str) -> bool:
    try:
        octets.decode(codec)
    except UnicodeError:
        return False
    return True


def write(raw: bytes, part: Part, text: Text, changes: Sequence[Change]) -> list[Edit]:
    """Return the edits of the message that make `changes`, sorted and apart, in the decoded text."""
    octets, codec, label = text.octets, text.codec, None
    named = charset(part.charset)
    new = "".join(change.new for change in changes)
    if not _encodes(new, codec):
        changes, octets = _in_utf_8(changes, octets, codec, part)
        codec = "utf-8"
    if codec == "utf-8" and text.is_exact and not new.isascii() and (named is None or named.codec != "utf-8"):
        label = UTF_8.codec
    pieces = [Edit(change.start, change.end, transfer.to_eol(change.new.encode(codec), text.eol)) for change in changes]
    changed = splice(octets, pieces)

    if not text.is_exact:
        changed, label = _translated_back(raw, part, text, changed)
        return _written_anew(raw, part, changed, label, text.eol)
    if label is None and part.encoding in transfer.IDENTITY and _fits(octets, pieces, changed):
        return [
            Edit(part.body + start, part.body + end, data + _own_break(raw, part, end == len(octets)))
            for start, end, data in pieces
        ]
    if (
        label is None
        and part.encoding == "quoted-printable"
        and (edits := _quoted_edits(raw, part, pieces, changed)) is not None
    ):
        return edits
    return _written_anew(raw, part, changed, label, text.eol)


def _encodes(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _in_utf_8(changes: Sequence[Change], octets: bytes, codec: str, part: Part) -> tuple[list[Change], bytes]:
    """The same text and places in UTF-8."""
    moved: list[Change] = []
    pieces, position, width = [], 0, 0

    def up_to(at: int) -> int:
        nonlocal position, width
        pieces.append(octets[position:at].decode(codec).encode("utf-8"))
        position, width = at, width + len(pieces[-1])
        return width

    try:
        for change in changes:
            moved.append(Change(up_to(change.start), up_to(change.end), change.new))
        up_to(len(octets))
    except UnicodeError:
        raise Refused(f"the text is not {part.charset or 'us-ascii'}") from None
    return moved, b"".join(pieces)


def _fits(octets: bytes, pieces: Sequence[Edit], changed: bytes) -> bool:
    """Can the pieces stand in the body as they are?"""
    if not all(transfer.is_short_lined(data) for _, _, data in pieces):
        return False
    if any(start < end for start, end, _ in pieces) and not transfer.is_short_lined(changed):
        return False  # lines that were two may have become one
    # Never the first 8-bit octet of a part: the relay may not take 8-bit mail, and this one was none.
    return not octets.isascii() or all(data.isascii() for _, _, data in pieces)


def _translated_back(raw: bytes, part: Part, text: Text, changed: bytes) -> tuple[bytes, str | None]:
    """Return the UTF-8 text in the part's own charset and None; in UTF-8 and that label where it would not come back
    to the same octets, or has letters that the charset lacks."""
    named = charset(part.charset) or UTF_8
    try:
        written = changed.decode("utf-8").encode(named.codec)
        is_same = text.octets.decode("utf-8").encode(named.codec) == transfer.decode(
            raw[part.body : part.end], part.encoding
        )
    except UnicodeError:
        is_same = False
    return (written, None) if is_same else (changed, UTF_8.codec)


def _quoted_edits(raw: bytes, part: Part, pieces: Sequence[Edit], changed: bytes) -> list[Edit] | None:
    """Change a quoted-printable body without touching what is around the places; None when that does not work out."""
    body = raw[part.body : part.end]
    eol = line_end(raw)
    edits: list[Edit] = []
    for piece in pieces:
        start = transfer.encoded_offset(body, piece.start)
        end = start if piece.end == piece.start else transfer.encoded_offset(body, piece.end)
        # A blank that would now end its line must be held by a soft line break.
        lead = b"=" + eol if piece.data and start and body[start - 1] in b" \t" else b""
        edits.append(Edit(start, end, lead + transfer.quoted_printable(piece.data, eol)))
    try:
        if transfer.decode(splice(body, edits), part.encoding) != changed:
            return None
    except ValueError:  # two places in one escape
        return None
    return [
        Edit(part.body + start, part.body + end, data + _own_break(raw, part, end == len(body)))
        for start, end, data in edits
    ]


def _own_break(raw: bytes, part: Part, is_at_end: bool) -> bytes:
    """A part without a body may share its blank line with the delimiter behind it; then one of the breaks is ours."""
    return line_end(raw) if is_at_end and raw.startswith(b"-", part.end) else b""


def _written_anew(raw: bytes, part: Part, octets: bytes, label: str | None, eol: bytes) -> list[Edit]:
    """Replace the body, with another transfer encoding where needed and, with `label`, another charset."""
    line_break = line_end(raw)
    if part.encoding == "base64":
        encoding, body = "base64", transfer.base64_lines(octets, line_break).removesuffix(line_break)
        if raw.endswith(b"\n", part.body, part.end):
            body += line_break
    else:
        encoding, body = transfer.encode_text(octets, line_break)
    edits = [Edit(part.body, part.end, body + _own_break(raw, part, True))]
    if label is not None:
        edits.append(set_charset(raw, part, label, line_break))
    if encoding != part.encoding:
        edits.append(set_field(raw, part, "Content-Transfer-Encoding", encoding, line_break))
    return edits
