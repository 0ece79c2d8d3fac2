"""Where in a body the signature goes: under what the agent wrote, above what is quoted, at the end when unsure.

Everything works on octets of a charset in which ASCII signs can be found (see `mime.charset`).
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.outbound.signature import client, text_quotes
from gateway.outbound.signature.elements import Extent, blanked, body_end, has_text, masked, own_blocks
from gateway.outbound.signature.html_quotes import quotes


class Place(NamedTuple):
    """`at`: offset for the block. `has_block`: a block with our marker is there, and not in what is quoted, where it
    would be an older message's (HTML only; text has no marker)."""

    at: int
    is_above_quote: bool
    has_block: bool = False


def place_in_text(text: bytes) -> Place:
    """Return the place in a decoded text/plain body; always at the beginning of a line or at the very end."""
    reading = text_quotes.read(text)
    count, begin = len(reading.lines), reading.begin
    starts = reading.starts()
    if begin < count:
        delimiter = text_quotes.delimiter(reading, begin, count)
        is_answered_below = any(map(reading.is_own, range(begin, count if delimiter is None else delimiter)))
        is_empty_above = not any(map(reading.is_own, range(begin)))
        # A quote with only the client's signature under it may be the end of an answer that is still to be written.
        if not is_answered_below and not (is_empty_above and delimiter is not None):
            return Place(starts[begin], True)
    end = next((i + 1 for i in range(count - 1, -1, -1) if reading.lines[i].strip()), 0)
    return Place(min(starts[end], len(text)), False)


def place_in_html(html: bytes) -> Place:
    """Return the place in a decoded text/html body; never within a tag, a comment, a style or a script."""
    low = masked(html)
    blocks = own_blocks(low)
    low = blanked(low, blocks)  # what our own signature looks like must not decide
    found = quotes(low)
    at, is_above_quote = _place(low, found)
    if is_above_quote:
        found = (Extent(at, len(low)),)
    has_block = any(not any(begin <= block.begin < end for begin, end in found) for block in blocks)
    return Place(at, is_above_quote, has_block)


def _place(low: bytes, found: tuple[Extent, ...]) -> tuple[int, bool]:
    end = body_end(low)
    if not found:
        return end, False
    start, behind = found[0]
    for begin, stop in found[1:]:
        if has_text(low[behind:begin]):
            return end, False  # answers between the quotes
        behind = stop
    below = low[behind : max(behind, end)]
    if has_text(blanked(below, client.containers(below))):
        return end, False  # the answer is below
    return start, True
