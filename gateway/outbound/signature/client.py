"""What the agent's own mail client put under the text as a signature, never in what is quoted.

In text it is what follows the delimiter (RFC 3676 §4.3); in HTML it is in an element that clients name. Where taking
it out would leave nothing that the agent wrote, it is none: people do write into these elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.outbound.signature import text_quotes
from gateway.outbound.signature.elements import (
    Extent,
    blanked,
    body_end,
    element_end,
    has_text,
    masked,
    own_blocks,
    tag_with,
)
from gateway.outbound.signature.html_quotes import quotes

# Class or id, or a piece of it, of an element that holds a client's signature.
_CONTAINERS: Final = (
    b"gmail_signature",  # also its prefix, "-- "
    b"moz-signature",
    b"k9mail-signature",
    b"applemailsignature",
    b"ms-outlook-mobile-signature",
    b"protonmail_signature_block",
    b"composer_signature",  # Samsung
    b"_rc_sig",  # Roundcube
    b"ymail_android_signature",
    b"ymail_ios_signature",
    b"tutanota_signature",
)
_OUTLOOK = re.compile(rb"""<[a-z]{1,10}\b[^<>]{0,500}\bid\s{0,3}=\s{0,3}["']?(?:x_)?signature["'\s>]""")  # on the web
# iOS parts what it writes below from the text by a line break with a name.
_IOS = re.compile(
    rb"""<br\b[^<>]{0,300}\bid\s{0,3}=\s{0,3}["']?linebreakatbeginningofsignature\b[^<>]{0,300}>\s{0,20}"""
)
_MOST: Final = 50  # elements
_MOST_LINES: Final = 30  # of a signature behind "-- "
_FEW_LINES: Final = 8  # behind a delimiter that lost its blank: it may be a ruler


def containers(low: bytes) -> tuple[Extent, ...]:
    """Return the elements that clients keep their signature in; `low`: as of `elements.masked`, in order."""
    return tuple(sorted(islice(_containers(low), _MOST)))


def _containers(low: bytes) -> Iterator[Extent]:
    for token in _CONTAINERS:
        position = 0
        while (start := tag_with(low, token, position)) is not None:
            position = max(element_end(low, start), start + 1)
            yield Extent(start, position)
    for match in _OUTLOOK.finditer(low):
        yield Extent(match.start(), element_end(low, match.start()))
    for match in _IOS.finditer(low):
        if low.startswith(b"<div", match.end()):
            yield Extent(match.start(), element_end(low, match.end()))


def in_html(html: bytes) -> tuple[tuple[int, int], ...]:
    """Return the octets of a decoded text/html body that are the client's signature, in order."""
    low = masked(html)
    low = blanked(low, own_blocks(low))
    quoted = quotes(low)
    found: list[Extent] = []
    for extent in containers(low):
        touches_quote = any(extent.begin < quote.end and quote.begin < extent.end for quote in quoted)
        if not touches_quote and (not found or extent.begin >= found[-1].end):
            found.append(extent)
    if not found or not has_text(blanked(low, (*found, *quoted))[: body_end(low)]):
        return ()
    return tuple(found)


def in_text(text: bytes) -> tuple[int, int] | None:
    """Return the octets of a decoded text/plain body that are the client's signature, or None."""
    reading = text_quotes.read(text)
    count = len(reading.lines)
    for begin, end in ((reading.begin, count), (0, reading.begin)):  # below the quote, else above it
        at = text_quotes.delimiter(reading, begin, end)
        if at is None:
            continue
        last = next((i for i in range(end - 1, at, -1) if reading.lines[i].strip()), at)
        is_exact = reading.lines[at].startswith(b"-- ")
        has_words = any(reading.is_own(i) for i in (*range(at), *range(end, count)))
        if last - at > (_MOST_LINES if is_exact else _FEW_LINES) or not has_words:
            return None
        starts = reading.starts()
        return starts[at], min(starts[last + 1], len(text))
    return None
