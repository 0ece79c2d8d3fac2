"""Find what is rare in what is large: a boundary in megabytes of base64.

`bytes.find` looks at a long needle at some 10 GB/s at best; for one octet it is `memchr`, three times as quick. So an
octet of the needle that attachments hardly have shows where it is worth looking.
"""

from __future__ import annotations

from typing import Final

_FIRST_WINDOW: Final = 1024
_LAST_WINDOW: Final = 4 * 1024 * 1024


def find_by(sign: bytes, needle: bytes, octets: bytes, start: int, end: int) -> int:
    """Return what `octets.find(needle, start, end)` does. `sign`: one octet of the needle, the rarer the quicker;
    where it turns out to be frequent, longer and longer pieces are searched the ordinary way."""
    offset, window = needle.index(sign), _FIRST_WINDOW
    while (at := octets.find(sign, start, end)) >= 0:
        stop = at + window
        found = octets.find(needle, max(start, at - offset), min(end, stop + len(needle)))
        if found >= 0:
            return found
        window = min(window * 2, _LAST_WINDOW) if at - start < window else _FIRST_WINDOW
        start = stop
    return -1
