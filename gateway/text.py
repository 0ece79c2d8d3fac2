"""Text that came from mail or a server, made fit for a log or a terminal."""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_NO_LETTER: Final = re.compile(r"[\ud800-\udfff]")  # bytes that were no UTF-8; no file and no terminal takes them
LONGEST: Final = 300  # characters of one value; a hostile server may answer with a megabyte


def clean(text: str, longest: int = LONGEST) -> str:
    """Return `text` on one line without control characters or terminal escapes, at most `longest` characters."""
    flat = _NO_LETTER.sub("\ufffd", _CONTROL.sub(" ", text)).strip()
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
