"""What the line above a quote says, in any language: it has a date in it and ends with a colon.

The octets are those of a charset in which ASCII signs can be found, not always UTF-8.
"""

from __future__ import annotations

import re
from typing import Final

_ADDRESS = re.compile(rb"[^\s<>()@]{0,100}@[^\s<>()]{0,100}")  # "customer24@example.net" is no date
_DIGIT = re.compile(rb"\d|\xd9[\xa0-\xa9]|\xdb[\xb0-\xb9]")  # the latter two: Arabic and Persian ones in UTF-8
# Letters of no width that end a line from right to left, in UTF-8: Gmail writes them in Hebrew and Arabic.
_DIRECTION: Final = b"\xe2\x80\xac\xe2\x80\x8f\xe2\x80\x8e\xe2\x81\xa9"
_WIDE_COLONS: Final = tuple({"：".encode(codec) for codec in ("utf-8", "gb18030", "big5", "shift-jis", "euc-jp")})


def ends_with_colon(words: bytes) -> bool:
    words = words.rstrip()
    if words[-1:] != b":" and words[-3:-1] in (b"\xe2\x80", b"\xe2\x81"):
        words = words.rstrip(_DIRECTION)
    return words.endswith((b":", *_WIDE_COLONS))


def has_date(words: bytes) -> bool:
    """Is there a digit that is not part of an address? Dates are written in too many ways to ask for more."""
    return _DIGIT.search(_ADDRESS.sub(b"", words)) is not None


def has_address(words: bytes) -> bool:
    return _ADDRESS.search(words) is not None
