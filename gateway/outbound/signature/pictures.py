"""The signature's pictures beside the HTML that shows them: one multipart/related, extended where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.mime.compose import Image, image_part
from gateway.mime.splice import Edit, fresh_boundary, line_end, set_field, splice
from gateway.mime.structure import Part, scan
from gateway.outbound.signature.bodies import Path, related_root
from gateway.outbound.signature.body import Refused


def picture_edits(raw: bytes, path: Path, images: Sequence[Image]) -> tuple[list[Edit], list[Edit]]:
    """Return the edits in front of the HTML part and those behind it that put the pictures beside it: into the
    multipart/related that shows it, else into one around it. The part is not the root: see `wrap_message`."""
    eol, part = line_end(raw), path[-1]
    pictures = [image_part(image, eol) for image in images]
    for outer, inner in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        if outer.content_type == "multipart/related" and related_root(outer) is inner:
            return [], [_extension(raw, outer, pictures, eol)]
    header, opening, tail = _related(raw, part, pictures, eol)
    return [Edit(part.start, part.start, header + eol + opening)], [Edit(part.end, part.end, tail)]


def _extension(raw: bytes, related: Part, pictures: list[bytes], eol: bytes) -> Edit:
    delimiter = b"--" + related.parameters["boundary"].rstrip().encode("latin-1", "replace")
    last = related.delimiters[-1]
    if last.closing:
        return Edit(last.start, last.start, b"".join(delimiter + eol + picture + eol for picture in pictures))
    for part in related.walk():
        last_part = part
    if last_part.body == last_part.header_end:  # cut off within its header, which a delimiter would end
        raise Refused("odd structure: the last part has no body")
    new = b"".join(eol + delimiter + eol + picture for picture in pictures)
    if raw.endswith(b"\r", 0, related.end):  # it is the part's, and with a line feed it would be the delimiter's
        new = b"\r\n" + new.removeprefix(eol)
    return Edit(related.end, related.end, new + eol + delimiter + b"--")


def _related(raw: bytes, html: Part, pictures: list[bytes], eol: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (fields, first delimiter, what comes behind the HTML) of a new multipart/related."""
    boundary = fresh_boundary(raw, "related", html.start, html.end)
    delimiter = eol + b"--" + boundary.encode("ascii")
    header = b'Content-Type: multipart/related; type="text/html";' + eol
    header += f' boundary="{boundary}"'.encode("ascii") + eol
    if html.encoding in ("8bit", "binary"):  # RFC 2045 §6.4: what holds 8-bit parts says so
        header += b"Content-Transfer-Encoding: " + html.encoding.encode("ascii") + eol
    tail = b"".join(delimiter + eol + picture for picture in pictures) + delimiter + b"--" + eol
    if raw.endswith(b"\r", 0, html.end):
        tail = b"\r\n" + tail.removeprefix(eol)
    return header, delimiter.removeprefix(eol) + eol, tail


def wrap_message(raw: bytes, images: Sequence[Image]) -> bytes:
    """Make a message that is one HTML part, signature and all, the root of a multipart/related: its content fields
    move into the part."""
    html, eol = scan(raw), line_end(raw)
    header, opening, tail = _related(raw, html, [image_part(image, eol) for image in images], eol)
    moved = [one for one in html.fields if one.name.startswith("content-")]
    edits = [Edit(one.start, one.end, b"" if index else header) for index, one in enumerate(moved)]
    inner = b"".join(raw[one.start : one.end] for one in moved)
    edits += mime_version(raw, html)
    edits += [Edit(html.body, html.body, opening + inner + eol), Edit(html.end, html.end, tail)]
    return splice(raw, edits)


def mime_version(raw: bytes, tree: Part) -> list[Edit]:
    """MIME fields count only beside this one (RFC 2045 §4); a message without any gets it with the first of them."""
    if tree.field("mime-version") is not None:
        return []
    return [set_field(raw, tree, "MIME-Version", "1.0", line_end(raw))]
