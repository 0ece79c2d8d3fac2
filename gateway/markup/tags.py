"""The pieces of an HTML text, as a browser's tokeniser would cut them (HTML Standard §13.2.5), with their places.

No tree is built and nothing is mended, so that a place can be named in the file that an admin wrote. What decides about
safety is not this but the parser in nh3.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from html import unescape
from typing import Final

VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
RAW_TEXT: Final = frozenset({"script", "style", "textarea", "title", "iframe", "noembed", "noframes", "xmp"})

_NEXT = re.compile(r"<(?:!--|[!?]|/?(?=[A-Za-z])|/)")
_NAME = re.compile(r"[^\s/>]+")
_ATTRIBUTE = re.compile(r"""[\s/]*+(=?[^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*)("|\Z)|'([^']*)('|\Z)|([^\s>]*)))?""")


class Kind(Enum):
    TEXT = auto()
    START = auto()
    END = auto()
    COMMENT = auto()
    DECLARATION = auto()  # <!doctype>, <![if …]>, <?xml …?>


@dataclass(frozen=True, slots=True)
class Piece:
    """`start`, `end`: offsets of the whole. `name`: of a tag, in small letters. `data`: of a comment, a declaration, a
    text; of a start tag whose content is raw text, that content, which is then a part of the piece."""

    kind: Kind
    start: int
    end: int
    name: str = ""
    data: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    is_self_closing: bool = False
    is_cut: bool = False  # the text ended within it


def pieces(html: str) -> Iterator[Piece]:
    """Yield what `html` consists of, in order and without a gap."""
    at = 0
    while match := _NEXT.search(html, at):
        start, opening = match.start(), match[0]
        if start > at:
            yield Piece(Kind.TEXT, at, start, data=html[at:start])
        if opening == "<!--":
            piece = _comment(html, start)
        elif opening in ("<!", "<?") or (opening == "</" and not html[match.end() : match.end() + 1].isalpha()):
            piece = _declaration(html, start)
        else:
            piece = _tag(html, start, match.end(), is_end=opening == "</")
        yield piece
        at = piece.end
    if at < len(html):
        yield Piece(Kind.TEXT, at, len(html), data=html[at:])


def nesting(html: str) -> int:
    """Return how deep elements may be nested at the most: where end tags lack, a parser finds less."""
    depth = deepest = 0
    opened: Counter[str] = Counter()
    for piece in pieces(html):
        if piece.kind is Kind.START and piece.name not in VOID:
            opened[piece.name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif piece.kind is Kind.END and opened[piece.name]:
            opened[piece.name] -= 1
            depth -= 1
    return deepest


def _comment(html: str, start: int) -> Piece:
    body = start + 4
    for abrupt in (">", "->"):
        if html.startswith(abrupt, body):
            return Piece(Kind.COMMENT, start, body + len(abrupt))
    if match := _COMMENT_END.search(html, body):
        return Piece(Kind.COMMENT, start, match.end(), data=html[body : match.start()])
    return Piece(Kind.COMMENT, start, len(html), data=html[body:], is_cut=True)


_COMMENT_END = re.compile(r"--!?>")


def _declaration(html: str, start: int) -> Piece:
    end = html.find(">", start + 2)
    is_cut, end = end < 0, len(html) if end < 0 else end + 1
    return Piece(Kind.DECLARATION, start, end, data=html[start + 2 : end if is_cut else end - 1], is_cut=is_cut)


def _tag(html: str, start: int, at: int, *, is_end: bool) -> Piece:
    found = _NAME.match(html, at)
    assert found is not None  # a letter stands there
    name, at = found[0].lower(), found.end()
    attributes: dict[str, str] = {}
    is_self_closing = False
    while True:
        match = _ATTRIBUTE.match(html, at)
        assert match is not None  # it may match nothing
        if match[1]:
            value = next((one for one in (match[2], match[4], match[6]) if one is not None), "")
            attributes.setdefault(match[1].lower(), unescape(value))
        is_self_closing = html[match.end() - 1] == "/" if match.end() > at and not match[1] else False
        is_cut = match.end() >= len(html)
        if is_cut or html[match.end()] == ">":
            at = match.end() + (not is_cut)
            break
        at = match.end() if match.end() > at else at + 1
    if is_end:
        return Piece(Kind.END, start, at, name, is_cut=is_cut)
    data = ""
    if name in RAW_TEXT and not is_cut:
        close = re.compile(rf"</{name}(?=[\s/>])[^>]*>?", re.I).search(html, at)
        data, at = (html[at : close.start()], close.end()) if close else (html[at:], len(html))
        is_cut = close is None
    return Piece(Kind.START, start, at, name, data, attributes, is_self_closing, is_cut)


class Lines:
    """Finds the line, from 1, of an offset."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> int:
        return bisect_right(self._starts, offset)
