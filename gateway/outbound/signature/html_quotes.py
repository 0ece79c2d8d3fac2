"""Which extents of a text/html body are somebody else's.

Each client quotes in a way of its own; the tables here name the structures, not the words, because the words come
in forty languages. `low` is always a body as `elements.masked` returns it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from gateway.outbound.signature.elements import Extent, Search, element_end, has_text, tag_with, visible
from gateway.outbound.signature.wording import ends_with_colon, has_address, has_date

# Class, id or name of an element that holds the quote and nothing else.
_ELEMENTS: Final = (
    b"gmail_quote",  # Gmail, also in what it forwards; K-9
    b"yahoo_quoted",
    b"protonmail_quote",
    b"moz-forward-container",  # Thunderbird
    b"zmail_extra",  # Zoho
    b"tutanota_quote",
    b"messagereplysection",  # Spark
    b"mail-editor-reference-message-container",  # Outlook for Android and iOS, new Outlook
    b"ms-outlook-mobile-reference-message",
)
# What stands at the head of a quote that runs to the end of the message.
_HEADS: Final = (
    b"appendonsend",  # Outlook on the web, in front of the line and the header block
    b"divrplyfwdmsg",
    b"stopspelling",  # Hotmail
    b"zwchr",  # Zimbra
)
_SIGNS: Final = (*_ELEMENTS, *_HEADS, b"<blockquote", b"border-", b"-----")  # without any of these there is no quote
# What introduces a quote, in whatever words.
_INTRODUCTIONS: Final = (b"moz-cite-prefix", b"reply-intro")
_QUOTE_SIGN = re.compile(rb"""\btype\s*=\s*["']?cite|\bclass\s*=\s*["']?[^"'<>]{0,200}(?:quote|replybody)""")
_BORDER = re.compile(
    rb"border:\s{0,3}none;\s{0,3}border-top:\s{0,3}solid [^;\"'<>]{3,30}(?:;\s{0,3}padding:\s{0,3}3|[\"'])"
    rb"|border-style:\s{0,3}solid none none"
)  # Outlook for Windows and Mac, Windows Mail; with an <hr>: K-9
_BOLD_LABEL = re.compile(rb"<b\b[^<>]{0,300}>(?:<[^<>]{0,300}>|\s){0,10}[^<>:]{1,40}:")
_DASHED = re.compile(rb"(?<!-)-{5,}+\s{0,3}[^<>\n-]{3,60}-{5,}")  # Samsung, K-9, AOL, Roundcube
_LINE_START = re.compile(rb"<(?:div|p|table|pre|h[1-6])\b|(?:<(?:br|hr|li|td)\b[^<>]{0,500}>|</(?:div|p|table)\s*>)()")
_RULER = re.compile(rb"<hr\b[^<>]{0,500}>\s*\Z")
_PLAIN_DIV = re.compile(rb"<div\b(?![^<>]{0,500}\b(?:class|id)\s{0,3}=)[^<>]{0,500}>\s*\Z")
_LOOK_BACK = 3_000
_MAX_CANDIDATES = 50
_MAX_UNMARKED = 20
_MAX_QUOTES = 500
_MAX_WRAPPERS = 4
_MAX_ATTRIBUTION = 3  # lines


def quotes(low: bytes) -> tuple[Extent, ...]:
    """Return what is quoted: outermost extents in their order, the first five hundred."""
    if not any(sign in low for sign in _SIGNS):
        return ()
    return tuple(islice(_quotes(low), _MAX_QUOTES))


def _quotes(low: bytes) -> Iterator[Extent]:
    elements = [Search(partial(tag_with, low, token), len(low)) for token in _ELEMENTS]
    elements.append(Search(partial(_cited, low), len(low)))
    heads = [Search(partial(tag_with, low, token), len(low)) for token in _HEADS]
    heads += [Search(partial(_border, low), len(low)), Search(partial(_dashed, low), len(low))]
    position = 0
    while position < len(low):
        element = min(search.next(position) for search in elements)
        head = min(search.next(position) for search in heads)
        if element < head:
            end = _quote_end(low, element)
            yield Extent(_unwrapped(low, _attributed(low, element, position), position), end)
            position = max(end, position + 1)
        elif head < len(low):
            head = _unwrapped(low, head, position)
            if ruler := _RULER.search(low[max(position, head - 600) : head]):
                head -= len(ruler[0])
            yield Extent(_unwrapped(low, head, position), len(low))
            return
        else:
            return


def _unwrapped(low: bytes, at: int, position: int) -> int:
    """Go out of the nameless elements that begin here: they are around the quote."""
    for _ in range(_MAX_WRAPPERS):
        outer = _PLAIN_DIV.search(low[max(position, at - 600) : at])
        if outer is None:
            break
        at -= len(outer[0])
    return at


def _cited(low: bytes, position: int) -> int | None:
    unmarked = 0
    while (at := low.find(b"<blockquote", position)) >= 0:
        tag_end = low.find(b">", at, at + 2000)
        if _QUOTE_SIGN.search(low, at, max(at, tag_end)):
            return at
        if unmarked < _MAX_UNMARKED and tag_end > 0:  # Yahoo on phones, and clients that nobody has listed
            unmarked += 1
            if _attributed(low, at, position) < at or _begins_with_attribution(low[tag_end + 1 : tag_end + 1500]):
                return at
        position = at + 11
    return None


def _begins_with_attribution(inside: bytes) -> bool:
    """Yahoo on phones writes it into the quote: "On …, Customer <c@example.net> wrote:"."""
    words = visible(inside)[:200]
    head, colon, _ = words.partition(b"; wrote:") if b"; wrote:" in words else words.partition(b"&gt; ")
    return bool(colon) and b"@" in head and has_date(head)


def _border(low: bytes, position: int) -> int | None:
    if b"border-" not in low:
        return None
    for match in islice(_BORDER.finditer(low, position), _MAX_CANDIDATES):
        opened = low.rfind(b"<", max(0, match.start() - 1000), match.start())
        is_block = opened >= position and low.startswith((b"<div", b"<hr"), opened)
        if is_block and _BOLD_LABEL.search(low, match.end(), match.end() + 900):
            return opened
    return None


def _dashed(low: bytes, position: int) -> int | None:
    if b"-----" not in low:
        return None
    for match in islice(_DASHED.finditer(low, position), _MAX_CANDIDATES):
        if b":" in visible(low[match.end() : match.end() + 1500])[:300]:
            opened = max(low.rfind(tag, max(position, match.start() - 300), match.start()) for tag in (b"<div", b"<p"))
            is_first = opened >= 0 and not has_text(low[opened : match.start()])
            return opened if is_first else match.start()
    return None


def _attributed(low: bytes, start: int, position: int) -> int:
    """Go from the quote to the beginning of "On …, Ana wrote:" when that is the line above it."""
    begin = max(position, start - _LOOK_BACK)
    for token in _INTRODUCTIONS:
        at = tag_with(low[:start], token, begin) if low.find(token, begin, start) >= 0 else None
        if at is not None and (end := element_end(low, at)) <= start and not has_text(low[end:start]):
            return at
    window = low[begin:start]
    texts = 0
    for match in reversed(list(_LINE_START.finditer(window))):
        at = match.start() if match[1] is None else match.end()
        words = visible(window[at:])
        if not words:
            continue
        texts += 1
        if len(words) > 400 or not ends_with_colon(words) or texts > _MAX_ATTRIBUTION:
            break
        if has_date(words) or (texts == 1 and (has_address(words) or _begins_with_headers(low, start))):
            return begin + at
    return start


def _begins_with_headers(low: bytes, start: int) -> bool:
    """Apple writes "Begin forwarded message:" above a quote that begins with a header block."""
    return len(_BOLD_LABEL.findall(low, start, start + 2000)) >= 2


def _quote_end(low: bytes, start: int) -> int:
    """Where the quote that begins at this tag ends. A Gmail reply ends with its blockquote, not with the div around
    it: answers written between the lines stand in that div too."""
    if low.startswith(b"<div", start):
        inner = low.find(b"<blockquote", start, start + 4000)
        if inner >= 0 and ends_with_colon(visible(low[start:inner])):
            return element_end(low, inner)
    return element_end(low, start)
