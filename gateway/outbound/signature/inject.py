"""Splice a rendered signature into a message, once.

The message stays the client's: header fields, other parts and the octets around the place are carried over as they
are. Only where the signature does not fit into a part's charset or transfer encoding is that one part written anew,
and then its decoded text is still the same text with a block in it. In doubt nothing is changed, and the reason says
so; the caller counts it.

Decided here: a multipart/mixed of attachments without any text gets a text part in front, because the agent wrote to
a customer, with nothing but files. A message that *is* a file (one part, no text) stays as it is: machines send
those. An invitation without text stays as it is too. A text in pieces with files between them has its signature above
the quote, else behind the last piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.mime.compose import body_part
from gateway.mime.splice import Edit, line_end, splice
from gateway.mime.structure import Part, scan
from gateway.outbound.signature import client
from gateway.outbound.signature.block import RenderedSignature, html_block, text_block
from gateway.outbound.signature.bodies import Path, bodies
from gateway.outbound.signature.body import Change, Refused, Text, read, write
from gateway.outbound.signature.pictures import mime_version, picture_edits, wrap_message
from gateway.outbound.signature.placement import Place, place_in_html, place_in_text
from gateway.outbound.signature.protect import protection
from gateway.outbound.signature.recognition import blocks_in_text, would_put

ALREADY_THERE: Final = "already there"
_BREAK: Final = "<br>\n"  # between the signature and the quote below it

# What is odd but leaves no doubt where the text begins and ends.
_TOLERATED: Final = frozenset({"multipart without its end"})
_LONGEST_LOOK: Final = 1_000  # octets behind an edit that may become a line of their own
_LONGEST_REASON: Final = 100  # letters
_STUFFED = re.compile(r"^(?=[ >]|From )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Injected:
    """`placed`: the message carries the signature, from now or from before. `reason`: why `raw` is unchanged, or ""."""

    raw: bytes = field(repr=False)
    placed: bool
    reason: str


class _Placing(NamedTuple):
    """What is done to one part, known by its path."""

    path: Path
    edits: list[Edit]


def inject(raw: bytes, signature: RenderedSignature, *, strip_client_signature: bool = False) -> Injected:
    """Return the message with the signature in its text and in its HTML, or unchanged with a reason. Never raises.

    `raw`: any octets; CRLF or LF line ends are kept. Injecting twice is injecting once. With `strip_client_signature`
    what the agent's own client put under the text goes, where ours comes; what is quoted stays. Pure Python, about
    linear in the size of the text parts: above some 100 KiB of text this belongs into a worker process.
    """
    tree = scan(raw)
    if reason := protection(raw, tree):
        return Injected(raw, False, _short(reason))
    try:
        done = _injected(raw, tree, signature, strip_client_signature)
    except Refused as refusal:
        return Injected(raw, False, _short(str(refusal)))
    return Injected(raw, True, ALREADY_THERE) if done is None else Injected(done, True, "")


def _short(reason: str) -> str:
    """A reason quotes the message and goes into a log: one line, without controls, of a bounded length."""
    said = "".join(letter if letter.isprintable() else " " for letter in reason[: _LONGEST_REASON + 1])
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 1] + "…"


def _injected(raw: bytes, tree: Part, signature: RenderedSignature, is_stripped: bool) -> bytes | None:
    found = bodies((tree,))
    if not found.plain and not found.html:
        return _with_text_part(raw, tree, signature)
    if not signature.text:  # a delimiter alone says nothing
        found = found._replace(plain=())
        if not found.html:
            raise Refused("the signature has no text")
    _refuse_odd(part for path in (*found.plain, *found.html) for part in path)
    text = _text(raw, found.plain, signature, is_stripped) if found.plain else None
    html = _html(raw, found.html, signature, is_stripped) if found.html else None
    for placing in filter(None, (text, html)):
        _refuse_boundaries(raw, placing.path[:-1], placing.edits)
    edits = list(text.edits) if text else []
    if html:
        in_front: list[Edit] = []
        behind: list[Edit] = []
        if signature.images and len(html.path) > 1:
            in_front, behind = picture_edits(raw, html.path, signature.images)
            if in_front:
                _refuse_boundaries(raw, html.path[:-1], in_front)
        edits += [*in_front, *html.edits, *behind]
    if not edits:
        return None
    if any(edit.start < tree.body for edit in edits):
        edits += mime_version(raw, tree)
    done = splice(raw, edits)
    if html and signature.images and len(html.path) == 1:
        done = wrap_message(done, signature.images)
    return done


# --- text ------------------------------------------------------------------------------------------------------------


def _text(raw: bytes, paths: Sequence[Path], signature: RenderedSignature, is_stripped: bool) -> _Placing | None:
    """None when a block is there."""
    texts = [read(raw, path[-1]) for path in paths]
    block = text_block(signature)
    blocks = [_stuffed(block) if _is_flowed(path[-1]) else block for path in paths]
    places = [place_in_text(text.octets) for text in texts]
    if any(map(_has_text_block, texts, blocks, places)):
        return None
    chosen = _chosen(places)
    text = texts[chosen]
    cuts = _cuts_in_text(text.octets) if is_stripped else ()
    octets = _without(text.octets, cuts)
    at, block = _text_insertion(octets, place_in_text(octets) if cuts else places[chosen], blocks[chosen])
    return _Placing(paths[chosen], write(raw, paths[chosen][-1], text, _changes(at, block, cuts)))


def _cuts_in_text(octets: bytes) -> tuple[tuple[int, int], ...]:
    """The client's signature; with the blank lines above it where nothing comes behind it."""
    cut = client.in_text(octets)
    if cut is None:
        return ()
    start, end = cut
    if not octets[end:].strip():
        kept = len(octets[:start].rstrip())
        start = octets.find(b"\n", kept, start) + 1 or start
    return ((start, end),)


def _chosen(places: Sequence[Place]) -> int:
    """Of a text in pieces: the first that has the quote, else the last."""
    return next((index for index, place in enumerate(places) if place.is_above_quote), len(places) - 1)


def _is_flowed(part: Part) -> bool:
    return part.parameters.get("format", "").lower() == "flowed"


def _stuffed(block: str) -> str:
    """Keep flowed readers from taking a line for quoted (RFC 3676 §4.4)."""
    delimiter, _, rest = block.partition("\n")
    return delimiter + "\n" + _STUFFED.sub(" ", rest)


def _text_insertion(octets: bytes, place: Place, block: str) -> tuple[int, str]:
    """Where the block goes, and the block with the blank lines that it needs there."""
    at = place.at
    if at and not octets.endswith(b"\n", 0, at):
        block = "\n\n" + block
    elif at and not octets.endswith((b"\n\n", b"\n\r\n"), 0, at):
        block = "\n" + block
    return at, block + "\n" if place.is_above_quote else block


def _has_text_block(text: Text, block: str, place: Place) -> bool:
    for found in blocks_in_text(text.octets, text.codec, block):
        if not place.is_above_quote or found <= place.at:
            return True
    try:
        wanted = block.encode(text.codec)
    except UnicodeEncodeError:
        return False
    octets = text.octets.replace(b"\r\n", b"\n")
    if wanted not in octets:
        return False

    def again(rest: bytes) -> bytes:
        at, put = _text_insertion(rest, place_in_text(rest), block)
        return rest[:at] + put.encode(text.codec) + rest[at:]

    return would_put(octets, wanted, b"\n\n", b"\n", again)


# --- HTML ------------------------------------------------------------------------------------------------------------


def _html(raw: bytes, paths: Sequence[Path], signature: RenderedSignature, is_stripped: bool) -> _Placing | None:
    """None when a block is there."""
    texts = [read(raw, path[-1]) for path in paths]
    block = html_block(signature).decode("ascii") + "\n"
    places = [place_in_html(text.octets) for text in texts]
    if any(_has_html_block(text, block, place) for text, place in zip(texts, places, strict=True)):
        return None
    chosen = _chosen(places)
    text = texts[chosen]
    cuts = client.in_html(text.octets) if is_stripped else ()
    octets = _without(text.octets, cuts)
    at, block = _html_insertion(octets, place_in_html(octets) if cuts else places[chosen], block)
    return _Placing(paths[chosen], write(raw, paths[chosen][-1], text, _changes(at, block, cuts)))


def _has_html_block(text: Text, block: str, place: Place) -> bool:
    def again(rest: bytes) -> bytes:
        at, put = _html_insertion(rest, place_in_html(rest), block)
        return rest[:at] + put.encode("ascii") + rest[at:]

    if place.has_block:
        return True
    octets, wanted = text.octets.replace(b"\r\n", b"\n"), block.encode("ascii")
    return wanted in octets and would_put(octets, wanted, b"\n", _BREAK.encode("ascii"), again)


def _html_insertion(octets: bytes, place: Place, block: str) -> tuple[int, str]:
    if place.at and octets[place.at - 1] != 0x0A:
        block = "\n" + block
    return place.at, block + _BREAK if place.is_above_quote else block


# --- both ------------------------------------------------------------------------------------------------------------


def _without(octets: bytes, cuts: Sequence[tuple[int, int]]) -> bytes:
    return splice(octets, [Edit(start, end, b"") for start, end in cuts]) if cuts else octets


def _changes(at: int, block: str, cuts: Iterable[tuple[int, int]]) -> list[Change]:
    """`at` counts without what is cut out."""
    changes: list[Change] = []
    for start, end in sorted(cuts):
        if start < at:
            at += end - start
        changes.append(Change(start, end, ""))
    return sorted([Change(at, at, block), *changes], key=lambda change: (change.start, change.end))


def _with_text_part(raw: bytes, tree: Part, signature: RenderedSignature) -> bytes:
    if tree.content_type != "multipart/mixed" or not tree.children:
        raise Refused("no text that the signature could follow")
    for part in tree.walk():
        if part is not tree and (part.is_multipart or part.content_type == "text/calendar" or part.defects):
            raise Refused("no text that the signature could follow")
    _refuse_odd([tree])
    eol = line_end(raw)
    first = tree.delimiters[0]
    delimiter = raw[first.start : first.end]
    text = text_block(signature) if signature.text else ""
    new = body_part(text, html_block(signature).decode("ascii"), signature.images, eol=eol)
    edit = Edit(first.start, first.start, new + eol)
    _refuse_boundaries(raw, (tree,), [edit])
    return splice(raw, [edit._replace(data=delimiter + edit.data)])


def _refuse_odd(parts: Iterable[Part]) -> None:
    for part in parts:
        if odd := next((defect for defect in part.defects if defect not in _TOLERATED), None):
            raise Refused(f"odd structure: {odd}")


def _refuse_boundaries(raw: bytes, path: Path, edits: Sequence[Edit]) -> None:
    """No line that the edits bring, and none that they make of two or of a piece, may look like the end of a part
    around them."""
    delimiters = tuple(
        b"--" + boundary.encode("latin-1", "replace")
        for part in path
        if part.is_multipart and (boundary := part.parameters.get("boundary", "").rstrip())
    )
    if not delimiters or not edits:
        return
    start = raw.rfind(b"\n", 0, min(edit.start for edit in edits)) + 1
    last = max(edit.end for edit in edits)
    end = raw.find(b"\n", last, last + _LONGEST_LOOK)
    was = raw[start : end if end >= 0 else last + _LONGEST_LOOK]
    now = splice(was, [Edit(edit.start - start, edit.end - start, edit.data) for edit in edits])
    if _beginning(now, delimiters) != _beginning(was, delimiters):
        raise Refused("a boundary of the message stands where the signature would be")


def _beginning(octets: bytes, delimiters: tuple[bytes, ...]) -> list[bytes]:
    if b"--" not in octets:
        return []
    return [line.rstrip(b"\r") for line in octets.split(b"\n") if line.startswith(delimiters)]
