"""A message as its recipient sees it: the parts that are shown, in their order, and what is attached.

Read leniently, from any bytes, for looking at only: what goes out is never made of this.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.mime import structure, transfer
from gateway.mime.charset import ASCII, charset
from gateway.mime.reading import is_attachment
from gateway.mime.scan import HeaderFacts, decode_text, scan
from gateway.mime.structure import Part
from gateway.outbound.signature.plain import text_of_html

View = Literal["html", "text"]

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]*")
_SHOWN: Final = ("html", "plain")  # subtypes of text/ that mail clients show


@dataclass(frozen=True, slots=True)
class Block:
    """One part that is shown: `html` or `text` is filled, or `picture` and its `media_type`."""

    html: str = ""
    text: str = ""
    picture: bytes = field(default=b"", repr=False)
    media_type: str = ""
    charset: str = ""  # as the part names it


@dataclass(frozen=True, slots=True)
class Picture:
    """A part that HTML may show by its Content-ID."""

    media_type: str
    filename: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Letter:
    """`blocks`: what a client that shows HTML shows, `texts`: what one that does not. `pictures`: by Content-ID."""

    facts: HeaderFacts
    blocks: tuple[Block, ...]
    texts: tuple[Block, ...]
    pictures: Mapping[str, Picture]
    attached: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the mail as lines parted by LF; HTML that came alone is read as a text client would read it."""
        pieces = [block.text or text_of_html(block.html) for block in self.texts if not block.picture]
        return "\n".join(piece.replace("\r\n", "\n").replace("\r", "\n") for piece in pieces)

    @property
    def charset(self) -> str:
        """Return the charset that the first text names, or ""."""
        return next((block.charset for block in self.texts if block.charset), "")


def read(raw: bytes) -> Letter:
    """Return what a message shows. Never raises."""
    tree = structure.scan(raw)
    pictures: dict[str, Picture] = {}
    attached: list[str] = []
    for part, parent in _leaves(tree, None):
        content_id = part.field("content-id")
        if content_id is not None and part.content_type.startswith("image/"):
            picture = Picture(part.content_type, _name(part), _octets(raw, part))
            pictures.setdefault(content_id.text.strip("<> "), picture)
        if is_attachment(part, parent) and not _is_picture(part):
            attached.append(_name(part) or part.content_type)
    return Letter(
        scan(raw), tuple(_blocks(raw, tree, "html")), tuple(_blocks(raw, tree, "text")), pictures, tuple(attached)
    )


def _leaves(part: Part, parent: Part | None) -> Iterator[tuple[Part, Part | None]]:
    if not part.is_multipart:
        yield part, parent
    for child in part.children:
        yield from _leaves(child, part)


def _blocks(raw: bytes, part: Part, view: View) -> Iterator[Block]:
    if part.content_type == "multipart/alternative":
        yield from _chosen(raw, part, view)
    elif part.content_type == "multipart/related":
        if part.children:
            yield from _blocks(raw, _root(part), view)
    elif part.is_multipart:
        for child in part.children:
            yield from _blocks(raw, child, view)
    elif _is_picture(part) and part.field("content-id") is None:
        yield Block(picture=_octets(raw, part), media_type=part.content_type)
    elif part.content_type.removeprefix("text/") in _SHOWN and not is_attachment(part, None):
        shown = _decoded(_octets(raw, part), part.charset)
        html, text = (shown, "") if part.content_type == "text/html" else ("", shown)
        yield Block(html, text, charset=part.charset)


def _chosen(raw: bytes, part: Part, view: View) -> Iterator[Block]:
    """RFC 2046 §5.1.4: the last one that can be shown; who shows no HTML takes the first text."""
    found = [blocks for child in part.children if (blocks := list(_blocks(raw, child, view)))]
    if view == "text":
        found = [blocks for blocks in found if any(block.text for block in blocks)] or found
    if found:
        yield from found[0 if view == "text" else -1]


def _root(part: Part) -> Part:
    wanted = part.parameters.get("start", "").strip()
    for child in part.children:
        content_id = child.field("content-id")
        if wanted and content_id is not None and content_id.text == wanted:
            return child
    return part.children[0]


def _is_picture(part: Part) -> bool:
    return part.content_type.startswith("image/") and part.disposition != "attachment"


def _octets(raw: bytes, part: Part) -> bytes:
    body = raw[part.body : part.end]
    if part.encoding == "base64":  # also with a footer behind it, which `transfer` does not take
        letters = b"".join(_BASE64.match(body)[0].split())  # type: ignore[index]  # it matches nothing, if need be
        return base64.b64decode(letters[: -1 if len(letters) % 4 == 1 else None] + b"==")
    octets = transfer.decode(body, part.encoding)
    return body if octets is None else octets


def _decoded(octets: bytes, label: str) -> str:
    named = charset(label)
    for codec in ("utf-8", "windows-1252") if named in (None, ASCII) else (named.codec, "utf-8"):
        try:
            return octets.decode(codec)
        except UnicodeError:
            continue
    return octets.decode(named.codec if named is not None else "latin-1", "replace")


def _name(part: Part) -> str:
    try:
        return decode_text(part.filename.encode("latin-1"))
    except UnicodeEncodeError:  # RFC 2231 said which charset, and it has been read by that
        return part.filename
