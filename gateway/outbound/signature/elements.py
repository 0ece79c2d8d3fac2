"""Elements of an HTML body, found in its octets.

There is no tree: half of the body is a stranger's, may be broken, and must not change. What is looked for is rare, so
it is searched for as it stands, in lower case; each expression is bounded, and each search goes through the body once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from gateway.outbound.signature.block import MARKER

_HIDDEN = re.compile(rb"<!--.*?(?:-->|\Z)|<(style|script|title)\b.*?(?:</\1|\Z)", re.DOTALL)
_TAG = re.compile(rb"<[^<>]{0,4000}>")
_INVISIBLE = re.compile(rb"&nbsp;|&#160;|&#8203;|&zwnj;|\xc2\xa0|\xe2\x80\x8b|\xa0")
_NAME = re.compile(rb"<([a-z]{1,20}\d?)\b")
_OPEN_ATTRIBUTE = re.compile(rb"""\b(?:class|id|name)\s{0,3}=\s{0,3}["']?[^"'<>=]{0,300}\Z""")
_MAX_BLOCKS = 500


class Extent(NamedTuple):
    """Octets from `begin` up to `end`."""

    begin: int
    end: int


def masked(html: bytes) -> bytes:
    """Return the HTML in lower case, of the same length, with blanks for comments, styles and scripts."""
    low = html.lower()
    if any(sign in low for sign in (b"<!--", b"<style", b"<script", b"<title")):
        low = _HIDDEN.sub(lambda match: b" " * (match.end() - match.start()), low)
    return low


def blanked(low: bytes, extents: tuple[Extent, ...]) -> bytes:
    """Return the body with blanks for these extents."""
    if not extents:
        return low
    changed = bytearray(low)
    for begin, end in extents:
        changed[begin:end] = b" " * (end - begin)
    return bytes(changed)


def own_blocks(low: bytes) -> tuple[Extent, ...]:
    """The elements with our marker, those in what is quoted as well."""
    return tuple(islice(_elements(low, MARKER.encode("ascii")), _MAX_BLOCKS))


def _elements(low: bytes, token: bytes) -> Iterator[Extent]:
    position = 0
    while (start := tag_with(low, token, position)) is not None:
        position = max(element_end(low, start), start + 1)
        yield Extent(start, position)


def tag_with(low: bytes, token: bytes, position: int) -> int | None:
    """Where the next tag begins that has the token in its class, id or name."""
    while (at := low.find(token, position)) >= 0:
        opened = tag_around(low, at)
        if opened is not None and _OPEN_ATTRIBUTE.search(low, opened, at):
            return opened
        position = at + len(token)
    return None


def tag_around(low: bytes, at: int) -> int | None:
    """Where the start tag begins that this offset is in."""
    opened = low.rfind(b"<", max(0, at - 1000), at)
    is_tag = opened >= 0 and low[opened + 1 : opened + 2].isalpha() and low.find(b">", opened, at) < 0
    return opened if is_tag else None


def element_end(low: bytes, start: int) -> int:
    """Behind the end tag of the element that begins here; the end of all when it has none."""
    match = _NAME.match(low, start)
    if match is None:
        return len(low)
    depth = 0
    for tag in re.compile(rb"<(/?)" + match[1] + rb"\b[^<>]{0,4000}>?").finditer(low, start):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return tag.end()
    return len(low)


def visible(low: bytes) -> bytes:
    """Return the words that can be seen, parted by single blanks."""
    return b" ".join(_INVISIBLE.sub(b" ", _TAG.sub(b" ", low)).split())


def has_text(low: bytes) -> bool:
    return bool(low) and bool(visible(low))


def body_end(low: bytes) -> int:
    """Where the last thing of a body ends: before its end tag, if it has one."""
    end = low.rfind(b"</body")
    if end < 0:
        end = low.rfind(b"</html")
    return len(low) if end < 0 else end


class Search:
    """Remembers where its sign comes next, so that many quotes do not mean many searches of the same text."""

    def __init__(self, find: Callable[[int], int | None], end: int) -> None:
        self._find = find
        self._end: Final = end
        self._at = -1

    def next(self, position: int) -> int:
        if self._at < position:
            at = self._find(position)
            self._at = self._end if at is None else at
        return self._at
