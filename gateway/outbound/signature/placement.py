"""Where in a body the signature goes: under what the agent wrote, above what is quoted, at the end when unsure.

Each client quotes in a way of its own; the tables here name the structures, not the words, because the words come
in forty languages. Everything works on octets of a charset in which ASCII signs can be found (see
`mime.charset`), and each expression is bounded, because the quoted text is a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from gateway.outbound.signature.block import MARKER

_DIGIT = re.compile(rb"\d")
_COLONS: Final = (b":", b"\xef\xbc\x9a")
_NAME = re.compile(rb"<([a-z]{1,20}\d?)\b")


class Place(NamedTuple):
    """`at`: offset for the block. `has_block`: a block with our marker is there, and not in what is quoted, where it
    would be an older message's (HTML only; text has no marker)."""

    at: int
    is_above_quote: bool
    has_block: bool = False


# --- text ------------------------------------------------------------------------------------------------------------

# "-----Original Message-----", "---------- Forwarded message ---------", "----- Forwarded message from Ana -----"
_DASHED = re.compile(rb"[ \t]*+-{4,}+[ \t]?[^-\s][^\n]{1,200}?-{4,}+\s*\Z")
_RULE = re.compile(rb"_{20,}\s*\Z")  # Outlook on the web
_FROM_LINE = re.compile(
    rb"\*?(?:From|Von|De|Da|Van|Fra|Od|Fr\xc3\xa5n|\xd0\x9e\xd1\x82|\xe5\x8f\x91\xe4\xbb\xb6\xe4\xba\xba"
    rb"|\xe5\xb7\xae\xe5\x87\xba\xe4\xba\xba)[ \t]?:\*?[ \t][^\n]*"
)
_HEADER_LINE = re.compile(rb"\*?[^\s:>*-][^:\n]{0,40}:\*?(?:[ \t]|\xc2\xa0)\S")
_SEPARATOR_SIGNS: Final = frozenset(bytes([sign]) for sign in b"-_ \t*FVDO\xc3\xd0\xe5")
_MAX_ATTRIBUTION = 3  # lines


def place_in_text(text: bytes) -> Place:
    """Return the place in a decoded text/plain body; always at the beginning of a line or at the very end."""
    lines = text.split(b"\n")
    starts = _line_starts(lines)
    quoted = [line.startswith(b">") for line in lines]
    first_quoted = next((i for i, is_quoted in enumerate(quoted) if is_quoted), len(lines))
    separator = _separator(lines)
    if separator is not None and separator < first_quoted:
        return Place(starts[separator], True)
    if first_quoted < len(lines):
        signature = _client_signature(lines, quoted)
        last_own = _last(signature, lambda i: not quoted[i] and bool(lines[i].strip()))
        begin = _attribution(lines, first_quoted)
        is_empty_above = not any(line.strip() for line in lines[:begin])
        # A quote with only the client's signature under it may be the end of an answer that is still to be written.
        if last_own < first_quoted and not (is_empty_above and signature < len(lines)):
            return Place(starts[begin], True)
    end = _last(len(lines), lambda i: bool(lines[i].strip())) + 1
    return Place(starts[end] if end < len(starts) else len(text), False)


def _line_starts(lines: list[bytes]) -> list[int]:
    starts, position = [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    return starts


def _last(before: int, holds: Callable[[int], bool]) -> int:
    return next((i for i in range(before - 1, -1, -1) if holds(i)), -1)


def _separator(lines: list[bytes]) -> int | None:
    """A line behind which everything is somebody else's, known by what follows it."""
    for index, line in enumerate(lines):
        first = line[:1]
        if first not in _SEPARATOR_SIGNS:
            continue
        following = lines[index + 1 : index + 6]
        if _FROM_LINE.match(line):
            if sum(1 for one in following if _HEADER_LINE.match(one)) >= 2 and _DIGIT.search(b"".join(following)):
                return index
        elif _DASHED.match(line) or _RULE.match(line):
            said = [one for one in following if one.strip()][:3]
            if any(b":" in one for one in said) and not any(one.startswith(b">") for one in said):
                return index
    return None


def _client_signature(lines: list[bytes], quoted: list[bool]) -> int:
    """The line of the client's own delimiter when nothing quoted follows it, else the number of lines."""
    for index in range(len(lines) - 1, -1, -1):
        if quoted[index]:
            break
        if lines[index].rstrip(b"\r") in (b"-- ", b"--"):
            return index
    return len(lines)


def _attribution(lines: list[bytes], first_quoted: int) -> int:
    """The first line of "On …, Ana wrote:" above the quote: it ends with a colon and has a date in it."""
    index = first_quoted
    while index > 0 and not lines[index - 1].strip():
        index -= 1
    if index == 0 or not lines[index - 1].rstrip().endswith(_COLONS):
        return first_quoted
    begin = index - 1
    while begin > 0 and index - begin < _MAX_ATTRIBUTION and not _DIGIT.search(lines[begin]):
        if not lines[begin - 1].strip():
            break
        begin -= 1
    if not _DIGIT.search(b"".join(lines[begin:index])):
        begin = index - 1
    if begin > 0 and _DASHED.match(lines[begin - 1]):  # Proton writes "------- Original Message -------" above it
        begin -= 1
    return begin


# --- HTML ------------------------------------------------------------------------------------------------------------

_HIDDEN = re.compile(rb"<!--.*?(?:-->|\Z)|<(style|script|title)\b.*?(?:</\1|\Z)", re.DOTALL)
_TAG = re.compile(rb"<[^<>]{0,4000}>")
_INVISIBLE = re.compile(rb"&nbsp;|&#160;|&#8203;|&zwnj;|\xc2\xa0|\xe2\x80\x8b|\xa0")
_QUOTE_SIGN = re.compile(rb"""\btype\s*=\s*["']?cite|\bclass\s*=\s*["']?[^"'<>]{0,200}(?:quote|replybody)""")

# Class, id or name of an element that holds the quote and nothing else.
_ELEMENTS: Final = (
    b"gmail_quote",  # Gmail, also in what it forwards
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
_BORDER = re.compile(
    rb"border:\s*none;\s*border-top:\s*solid [^;\"'<>]{3,30};\s*padding:\s*3"
)  # Outlook for Windows and Mac
_BOLD_LABEL = re.compile(rb"<b\b[^<>]{0,300}>(?:<[^<>]{0,300}>|\s){0,10}[^<>:]{1,40}:")
_DASHED_HTML = re.compile(rb"(?<!-)-{5,}+\s{0,3}[^<>\n-]{3,60}-{5,}")  # Samsung, K-9, AOL
_CLIENT_SIGNATURE = re.compile(
    rb"""<[a-z]+\b[^<>]{0,300}\b(?:class|id)\s*=\s*["']?[^"'<>]{0,100}(?:moz-|gmail_|k9mail-|_)signature"""
)
_LINE_START = re.compile(
    rb"<(?:div|p|table|td|pre|h[1-6]|li|span)\b|(?:<br\b[^<>]{0,500}>|</(?:div|p)\s*>|<hr\b[^<>]{0,500}>)()"
)
_RULER = re.compile(rb"<hr\b[^<>]{0,500}>\s*\Z")
_OUTER_DIV = re.compile(rb"<div\b[^<>]{0,500}>\s*\Z")
_OPEN_ATTRIBUTE = re.compile(rb"""\b(?:class|id|name)\s{0,3}=\s{0,3}["']?[^"'<>=]{0,300}\Z""")
_LOOK_BACK = 1_500
_MAX_CANDIDATES = 50
_MAX_QUOTES = 500


def place_in_html(html: bytes) -> Place:
    """Return the place in a decoded text/html body; never within a tag, a comment, a style or a script."""
    low = _mask(html)
    blocks = tuple(islice(_own_blocks(low), _MAX_QUOTES))
    if blocks:  # what our own signature looks like must not decide
        blanked = bytearray(low)
        for begin, stop in blocks:
            blanked[begin:stop] = b" " * (stop - begin)
        low = bytes(blanked)
    quotes = tuple(islice(_quotes(low), _MAX_QUOTES))
    at, is_above_quote = _place(low, quotes)
    if is_above_quote:
        quotes = ((at, len(low)),)
    has_block = any(not any(begin <= block < stop for begin, stop in quotes) for block, _ in blocks)
    return Place(at, is_above_quote, has_block)


def _place(low: bytes, quotes: tuple[tuple[int, int], ...]) -> tuple[int, bool]:
    end = low.rfind(b"</body")
    if end < 0:
        end = low.rfind(b"</html")
    if end < 0:
        end = len(low)
    if not quotes:
        return end, False
    start, behind = quotes[0]
    for begin, stop in quotes[1:]:
        if _has_text(low[behind:begin]):
            return end, False  # answers between the quotes
        behind = stop
    if _has_text(_without_client_signature(low[behind : max(behind, end)])):
        return end, False  # the answer is below
    return start, True


def _mask(html: bytes) -> bytes:
    """Return the HTML in lower case, of the same length, with blanks for comments, styles and scripts."""
    low = html.lower()
    if any(sign in low for sign in (b"<!--", b"<style", b"<script", b"<title")):
        low = _HIDDEN.sub(lambda match: b" " * (match.end() - match.start()), low)
    return low


def _own_blocks(low: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while (start := _tag_with(low, MARKER.encode("ascii"), position)) is not None:
        position = max(_element_end(low, start), start + 1)
        yield start, position


def _quotes(low: bytes) -> Iterator[tuple[int, int]]:
    """What is quoted, outermost extents in their order."""
    elements = [_Search(partial(_tag_with, low, token), len(low)) for token in _ELEMENTS]
    elements.append(_Search(partial(_cited, low), len(low)))
    heads = [_Search(partial(_tag_with, low, token), len(low)) for token in _HEADS]
    heads += [_Search(partial(_border, low), len(low)), _Search(partial(_dashed, low), len(low))]
    position = 0
    while position < len(low):
        element = min(search.next(position) for search in elements)
        head = min(search.next(position) for search in heads)
        if element < head:
            end = _quote_end(low, element)
            yield _attributed(low, element, position), end
            position = max(end, position + 1)
        elif head < len(low):
            if ruler := _RULER.search(low[max(position, head - 600) : head]):
                head -= len(ruler[0])
            yield head, len(low)
            return
        else:
            return


class _Search:
    """Remembers where its sign comes next, so that many quotes do not mean many searches of the same text."""

    def __init__(self, find: Callable[[int], int | None], end: int) -> None:
        self._find = find
        self._end = end
        self._at = -1

    def next(self, position: int) -> int:
        if self._at < position:
            at = self._find(position)
            self._at = self._end if at is None else at
        return self._at


def _tag_with(low: bytes, token: bytes, position: int) -> int | None:
    """Where the next tag begins that has the token in its class, id or name."""
    while (at := low.find(token, position)) >= 0:
        opened = low.rfind(b"<", max(0, at - 1000), at)
        if opened >= 0 and low[opened + 1 : opened + 2].isalpha():
            attribute = low[opened:at]
            if b">" not in attribute and _OPEN_ATTRIBUTE.search(attribute):
                return opened
        position = at + len(token)
    return None


def _cited(low: bytes, position: int) -> int | None:
    while (at := low.find(b"<blockquote", position)) >= 0:
        if _QUOTE_SIGN.search(low, at, min(len(low), max(at, low.find(b">", at, at + 2000)))):
            return at
        position = at + 11
    return None


def _border(low: bytes, position: int) -> int | None:
    if b"border-top" not in low:
        return None
    for match in islice(_BORDER.finditer(low, position), _MAX_CANDIDATES):
        opened = low.rfind(b"<", max(0, match.start() - 1000), match.start())
        if (
            opened >= position
            and low.startswith(b"<div", opened)
            and _BOLD_LABEL.search(low, match.end(), match.end() + 900)
        ):
            outer = _OUTER_DIV.search(low[max(position, opened - 600) : opened])
            return opened - len(outer[0]) if outer else opened
    return None


def _dashed(low: bytes, position: int) -> int | None:
    if b"-----" not in low:
        return None
    for match in islice(_DASHED_HTML.finditer(low, position), _MAX_CANDIDATES):
        following = _TAG.sub(b" ", low[match.end() : match.end() + 1500])
        if b":" in following[:300]:
            opened = max(low.rfind(tag, max(position, match.start() - 300), match.start()) for tag in (b"<div", b"<p"))
            is_first = opened >= 0 and not _has_text(low[opened : match.start()])
            return opened if is_first else match.start()
    return None


def _attributed(low: bytes, start: int, position: int) -> int:
    """Go from the quote to the beginning of "On …, Ana wrote:" when that is the line above it."""
    begin = max(position, start - _LOOK_BACK)
    window = low[begin:start]
    texts = 0
    for match in reversed(list(_LINE_START.finditer(window))):
        at = match.start() if match[1] is None else match.end()
        words = _visible(window[at:])
        if not words:
            continue
        texts += 1
        if len(words) > 400 or not words.endswith(_COLONS) or texts > _MAX_ATTRIBUTION:
            break
        if _DIGIT.search(words):
            return begin + at
    return start


def _quote_end(low: bytes, start: int) -> int:
    """Where the quote that begins at this tag ends. A Gmail reply ends with its blockquote, not with the div around
    it: answers written between the lines stand in that div too."""
    if low.startswith(b"<div", start):
        inner = low.find(b"<blockquote", start, start + 4000)
        if inner >= 0 and _visible(low[start:inner]).endswith(_COLONS):
            return _element_end(low, inner)
    return _element_end(low, start)


def _element_end(low: bytes, start: int) -> int:
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


def _without_client_signature(low: bytes) -> bytes:
    match = _CLIENT_SIGNATURE.search(low)
    return low[: match.start()] if match else low


def _visible(low: bytes) -> bytes:
    return b" ".join(_INVISIBLE.sub(b" ", _TAG.sub(b" ", low)).split())


def _has_text(low: bytes) -> bool:
    return bool(low) and bool(_visible(low))
