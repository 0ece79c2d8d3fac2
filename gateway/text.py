"""Text that came from mail or a server, made fit for a log or a terminal."""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]+")
LONGEST: Final = 300  # characters of one value; a hostile server may answer with a megabyte


def clean(text: str, longest: int = LONGEST) -> str:
    """Return `text` on one line without control characters or terminal escapes, at most `longest` characters."""
    flat = _CONTROL.sub(" ", text).strip()
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
