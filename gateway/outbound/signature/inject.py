"""Splice a rendered signature into a message, once.

The message stays the client's: header fields, other parts and the octets around the place are carried over as they
are. Only where the signature does not fit into a part's charset or transfer encoding is that one part written anew,
and then its decoded text is still the same text with a block in it. In doubt nothing is changed, and the reason says
so; the caller counts it.

Decided here: a multipart/mixed of attachments without any text gets a text part in front, because the agent wrote to
a customer, with nothing but files. A message that *is* a file (one part, no text) stays as it is: machines send
those. An invitation without text stays as it is too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Final, NamedTuple

from gateway.mime import transfer
from gateway.mime.charset import UTF_8, charset
from gateway.mime.compose import body_part, image_part
from gateway.mime.splice import Edit, fresh_boundary, line_end, set_charset, set_field, splice
from gateway.mime.structure import Part, scan
from gateway.outbound.signature.block import RenderedSignature, html_block, text_block
from gateway.outbound.signature.placement import Place, place_in_html, place_in_text
from gateway.outbound.signature.protect import has_armour, protection

ALREADY_THERE: Final = "already there"
_BREAK: Final = "<br>\n"  # between the signature and the quote below it

# What is odd but leaves no doubt where the text begins and ends.
_TOLERATED: Final = frozenset({"multipart without its end"})
_STUFFED = re.compile(r"^(?=[ >]|From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Injected:
    """`placed`: the message carries the signature, from now or from before. `reason`: why `raw` is unchanged, or ""."""

    raw: bytes = field(repr=False)
    placed: bool
    reason: str


class _Refused(Exception):
    """This part cannot take the signature; the message stays as it is."""


Path = tuple[Part, ...]  # from the root down to the part itself


class _Bodies(NamedTuple):
    plain: Path | None = None
    html: Path | None = None


def inject(raw: bytes, signature: RenderedSignature) -> Injected:
    """Return the message with the signature in its text and in its HTML, or unchanged with a reason. Never raises.

    `raw`: any octets; CRLF or LF line ends are kept. Injecting twice is injecting once. Pure Python, about linear in
    the size of the text parts: above some 100 KiB this belongs into a worker process.
    """
    tree = scan(raw)
    if reason := protection(tree):
        return Injected(raw, False, reason)
    bodies = _bodies((tree,))
    try:
        if bodies.plain is None and bodies.html is None:
            return Injected(_with_text_part(raw, tree, signature), True, "")
        for path in filter(None, bodies):
            for part in path:
                if odd := next((defect for defect in part.defects if defect not in _TOLERATED), None):
                    raise _Refused(f"odd structure: {odd}")
        text_edits = _text_edits(raw, bodies.plain, signature) if bodies.plain is not None else []
        html_edits = _html_edits(raw, bodies.html, signature) if bodies.html is not None else []
        is_html_alone = bodies.html is not None and len(bodies.html) == 1
        _refuse_boundaries(raw, (bodies.plain or ())[:-1], text_edits)
        _refuse_boundaries(raw, (bodies.html or ())[:-1], html_edits)
        if html_edits and signature.images and bodies.html is not None and not is_html_alone:
            html_edits = _picture_edits(raw, bodies.html, signature, html_edits)
        edits = [*text_edits, *html_edits]
        if not edits:
            return Injected(raw, True, ALREADY_THERE)
        if any(edit.start < tree.body for edit in edits):
            edits += _mime_version(raw, tree)
        done = splice(raw, edits)
        if html_edits and signature.images and is_html_alone:
            done = _wrap_message(done, signature)
    except _Refused as refusal:
        return Injected(raw, False, str(refusal))
    return Injected(done, True, "")


# --- which parts -----------------------------------------------------------------------------------------------------


def _bodies(path: Path) -> _Bodies:
    """The first text/plain and the first text/html that a person wrote, both only when they say the same."""
    part = path[-1]
    if not part.is_multipart:
        if part.disposition == "attachment" or part.filename:
            return _Bodies()
        return _Bodies(
            path if part.content_type == "text/plain" else None, path if part.content_type == "text/html" else None
        )
    if part.content_type == "multipart/alternative":
        found = [_bodies((*path, child)) for child in part.children]
        return _Bodies(
            next((bodies.plain for bodies in found if bodies.plain), None),
            next((bodies.html for bodies in found if bodies.html), None),
        )
    if part.content_type == "multipart/related":
        return _bodies((*path, root)) if (root := _related_root(part)) else _Bodies()
    if part.content_type in ("multipart/digest", "multipart/form-data", "multipart/appledouble"):
        return _Bodies()
    found = [_bodies((*path, child)) for child in part.children]
    return next((bodies for bodies in found if bodies.plain or bodies.html), _Bodies())


def _related_root(part: Part) -> Part | None:
    """RFC 2387 §3.2: the part that `start` names, else the first."""
    if wanted := part.parameters.get("start", "").strip():
        for child in part.children:
            content_id = child.field("content-id")
            if content_id is not None and content_id.text == wanted:
                return child
    return part.children[0] if part.children else None


# --- reading and writing one part ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    """A decoded body in which ASCII signs can be found. `codec` is that of `octets`; `is_exact`: the octets are those
    of the part, not a translation."""

    octets: bytes
    codec: str
    eol: bytes
    is_exact: bool = True


def _read(raw: bytes, part: Part) -> _Text:
    body = raw[part.body : part.end]
    octets = transfer.decode(body, part.encoding)
    if octets is None:
        raise _Refused(f"the transfer encoding {part.encoding!r} cannot be read")
    named = charset(part.charset)
    if named is None:
        raise _Refused(f"the charset {part.charset!r} is not known")
    codec, is_exact = named.codec, True
    if not named.is_ascii_superset:
        try:
            octets, codec, is_exact = octets.decode(codec).encode("utf-8"), "utf-8", False
        except (UnicodeError, LookupError):
            raise _Refused(f"the text is not {part.charset}") from None
    elif codec == "ascii" and not octets.isascii():
        codec = "utf-8" if _decodes(octets, "utf-8") else "ascii"  # 8-bit text that does not say what it is
    if has_armour(octets, is_html=part.content_type == "text/html"):
        raise _Refused("inline PGP or S/MIME")
    return _Text(octets, codec, _eol_of(octets) or line_end(raw), is_exact)


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


def _write(raw: bytes, part: Part, text: _Text, at: int, block: str) -> list[Edit]:
    """The edits that put `block`, whose lines end with LF, at offset `at` of the decoded text."""
    octets, codec, label = text.octets, text.codec, None
    named = charset(part.charset)
    try:
        data = block.encode(codec)
    except UnicodeEncodeError:
        if not _decodes(octets, codec):
            raise _Refused(f"the text is not {part.charset or 'us-ascii'}") from None
        at = len(octets[:at].decode(codec).encode("utf-8"))
        octets, data, codec = octets.decode(codec).encode("utf-8"), block.encode("utf-8"), "utf-8"
    if codec == "utf-8" and text.is_exact and not data.isascii() and (named is None or named.codec != "utf-8"):
        label = UTF_8.codec
    data = data if text.eol == b"\n" else data.replace(b"\n", text.eol)
    changed = octets[:at] + data + octets[at:]

    if not text.is_exact:
        changed, label = _translated_back(raw, part, text, changed)
        return _written_anew(raw, part, changed, label, text.eol)
    if label is None and part.encoding in transfer.IDENTITY and transfer.is_short_lined(data):
        # Never the first 8-bit octet of a part: the relay may not take 8-bit mail, and this one was none.
        if data.isascii() or not octets.isascii():
            return [Edit(part.body + at, part.body + at, data + _own_break(raw, part, at == len(octets)))]
    elif (
        label is None
        and part.encoding == "quoted-printable"
        and (edit := _quoted_edit(raw, part, at, data, changed)) is not None
    ):
        return [edit]
    return _written_anew(raw, part, changed, label, text.eol)


def _translated_back(raw: bytes, part: Part, text: _Text, changed: bytes) -> tuple[bytes, str | None]:
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


def _quoted_edit(raw: bytes, part: Part, at: int, data: bytes, changed: bytes) -> Edit | None:
    """Put `data` into a quoted-printable body without touching what is around it; None when that does not work out."""
    body = raw[part.body : part.end]
    eol = line_end(raw)
    position = transfer.encoded_offset(body, at)
    # A blank that would now end its line must be held by a soft line break.
    lead = b"=" + eol if position and body[position - 1] in b" \t" else b""
    inserted = lead + transfer.quoted_printable(data, eol)
    if transfer.decode(body[:position] + inserted + body[position:], part.encoding) != changed:
        return None
    inserted += _own_break(raw, part, position == len(body))
    return Edit(part.body + position, part.body + position, inserted)


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


# --- text ------------------------------------------------------------------------------------------------------------


def _text_edits(raw: bytes, path: Path, signature: RenderedSignature) -> list[Edit]:
    part = path[-1]
    text = _read(raw, part)
    block = text_block(signature)
    if part.parameters.get("format", "").lower() == "flowed":
        delimiter, _, rest = block.partition("\n")
        block = delimiter + "\n" + _stuffed(rest)
    if _has_block(text, block):
        return []
    at, block = _insertion(text.octets, block)
    return _write(raw, part, text, at, block)


def _insertion(octets: bytes, block: str) -> tuple[int, str]:
    """Where the block goes, and the block with the blank lines that it needs there."""
    place = place_in_text(octets)
    before = octets[: place.at]
    if before and not before.endswith(b"\n"):
        block = "\n\n" + block
    elif before and not before.endswith((b"\n\n", b"\n\r\n")):
        block = "\n" + block
    return place.at, block + "\n" if place.is_above_quote else block


def _stuffed(block: str) -> str:
    """Keep flowed readers from taking a line for quoted (RFC 3676 §4.4)."""
    return _STUFFED.sub(" ", block)


def _has_block(text: _Text, block: str) -> bool:
    """Is the block there, and not only in what is quoted? Line ends do not count."""
    try:
        wanted = block.encode(text.codec)
    except UnicodeEncodeError:
        return False
    octets = text.octets.replace(b"\r\n", b"\n")
    found = (b"\n" + octets + b"\n").find(b"\n" + wanted)
    if found < 0:
        return False

    def again(rest: bytes) -> bytes:
        at, put = _insertion(rest, block)
        return rest[:at] + put.encode(text.codec) + rest[at:]

    place = place_in_text(octets)
    return not place.is_above_quote or found <= place.at or _would_put(octets, wanted, b"\n\n", b"\n", again)


def _would_put(octets: bytes, block: bytes, lead: bytes, tail: bytes, insertion: Callable[[bytes], bytes]) -> bool:
    """Is a block just where we would put it, were it not there? Damaged text may be read in another way with it.

    `lead` and `tail`: what may have come with it; `insertion` puts the block into what it is given.
    """
    leads = {lead[:width] for width in range(len(lead) + 1)}
    for match in islice(re.finditer(re.escape(block), octets), 3):
        for before, behind in product(leads, {tail, b""}):
            if octets.endswith(before, 0, match.start()) and octets.startswith(behind, match.end()):
                rest = octets[: match.start() - len(before)] + octets[match.end() + len(behind) :]
                if insertion(rest) == octets:
                    return True
    return False


# --- HTML ------------------------------------------------------------------------------------------------------------


def _html_edits(raw: bytes, path: Path, signature: RenderedSignature) -> list[Edit]:
    part = path[-1]
    text = _read(raw, part)
    block = html_block(signature).decode("ascii") + "\n"

    def again(rest: bytes) -> bytes:
        at, put = _html_insertion(rest, place_in_html(rest), block)
        return rest[:at] + put.encode("ascii") + rest[at:]

    place = place_in_html(text.octets)
    octets = text.octets.replace(b"\r\n", b"\n")
    if place.has_block or _would_put(octets, block.encode("ascii"), b"\n", _BREAK.encode("ascii"), again):
        return []
    return _write(raw, part, text, *_html_insertion(text.octets, place, block))


def _html_insertion(octets: bytes, place: Place, block: str) -> tuple[int, str]:
    if place.at and octets[place.at - 1] != 0x0A:
        block = "\n" + block
    return place.at, block + _BREAK if place.is_above_quote else block


# --- more parts ------------------------------------------------------------------------------------------------------


def _with_text_part(raw: bytes, tree: Part, signature: RenderedSignature) -> bytes:
    if tree.content_type != "multipart/mixed" or not tree.children:
        raise _Refused("no text that the signature could follow")
    for part in tree.walk():
        if part is not tree and (part.is_multipart or part.content_type == "text/calendar" or part.defects):
            raise _Refused("no text that the signature could follow")
    if any(defect not in _TOLERATED for defect in tree.defects):
        raise _Refused(f"odd structure: {tree.defects[0]}")
    eol = line_end(raw)
    first = tree.delimiters[0]
    delimiter = raw[first.start : first.end]
    new = body_part(text_block(signature), html_block(signature).decode("ascii"), signature.images, eol=eol)
    edit = Edit(first.start, first.start, new + eol)
    _refuse_boundaries(raw, (tree,), [edit])
    return splice(raw, [edit._replace(data=delimiter + edit.data)])


def _refuse_boundaries(raw: bytes, path: Path, edits: list[Edit]) -> None:
    """No line that is put in, and no line that is cut in two by it, may end a part around it."""
    for part in path:
        if not part.is_multipart or not (boundary := part.parameters.get("boundary", "").rstrip()):
            continue
        delimiter = b"--" + boundary.encode("latin-1", "replace")
        for edit in edits:
            line = raw.rfind(b"\n", 0, edit.start) + 1
            is_cut = line < edit.start and (raw.startswith(delimiter, line) or raw.startswith(delimiter, edit.start))
            if is_cut or delimiter in edit.data:
                raise _Refused("a boundary of the message stands where the signature would be")


def _picture_edits(raw: bytes, path: Path, signature: RenderedSignature, html_edits: list[Edit]) -> list[Edit]:
    """The edits within the HTML, and around them those that put the pictures beside it: into the multipart/related
    that shows it, else into one around it."""
    eol, part = line_end(raw), path[-1]
    pictures = [image_part(image, eol) for image in signature.images]
    _refuse_boundaries(raw, path[:-1], [Edit(part.start, part.start, picture) for picture in pictures])
    for outer, inner in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        if outer.content_type == "multipart/related" and _related_root(outer) is inner:
            return [*html_edits, _extension(outer, pictures, eol)]
    header, opening, tail = _related(raw, part, pictures, eol)
    return [Edit(part.start, part.start, header + eol + opening), *html_edits, Edit(part.end, part.end, tail)]


def _extension(related: Part, pictures: list[bytes], eol: bytes) -> Edit:
    delimiter = b"--" + related.parameters["boundary"].rstrip().encode("latin-1", "replace")
    last = related.delimiters[-1]
    if last.closing:
        return Edit(last.start, last.start, b"".join(delimiter + eol + picture + eol for picture in pictures))
    new = b"".join(eol + delimiter + eol + picture for picture in pictures)
    return Edit(related.end, related.end, new + eol + delimiter + b"--")


def _related(raw: bytes, html: Part, pictures: list[bytes], eol: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (fields, first delimiter, what comes behind the HTML) of a new multipart/related."""
    boundary = fresh_boundary(raw, "related")
    delimiter = eol + b"--" + boundary.encode("ascii")
    header = b'Content-Type: multipart/related; type="text/html";' + eol
    header += f' boundary="{boundary}"'.encode("ascii") + eol
    if html.encoding in ("8bit", "binary"):  # RFC 2045 §6.4: what holds 8-bit parts says so
        header += b"Content-Transfer-Encoding: " + html.encoding.encode("ascii") + eol
    tail = b"".join(delimiter + eol + picture for picture in pictures) + delimiter + b"--" + eol
    return header, delimiter.removeprefix(eol) + eol, tail


def _wrap_message(raw: bytes, signature: RenderedSignature) -> bytes:
    """Make a message that is one HTML part, signature and all, the root of a multipart/related: its content fields
    move into the part."""
    html, eol = scan(raw), line_end(raw)
    header, opening, tail = _related(raw, html, [image_part(image, eol) for image in signature.images], eol)
    moved = [one for one in html.fields if one.name.startswith("content-")]
    edits = [Edit(one.start, one.end, b"" if index else header) for index, one in enumerate(moved)]
    inner = b"".join(raw[one.start : one.end] for one in moved)
    edits += _mime_version(raw, html)
    edits += [Edit(html.body, html.body, opening + inner + eol), Edit(html.end, html.end, tail)]
    return splice(raw, edits)


def _mime_version(raw: bytes, tree: Part) -> list[Edit]:
    """MIME fields count only beside this one (RFC 2045 §4); a message without any gets it with the first of them."""
    if tree.field("mime-version") is not None:
        return []
    return [set_field(raw, tree, "MIME-Version", "1.0", line_end(raw))]
