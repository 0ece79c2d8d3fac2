"""Finds the end of a message inside DATA, and says what is odd about its bytes.

Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). Everything that other servers have taken for it (LF.LF, CR.CR,
LF.CRLF, CRLF.LF …) is content here, and content with a CR or LF of its own is then refused: passed on, it would
carry a second message into the next server that is more generous than we are.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

END: Final = b"\r\n.\r\n"
DIGEST_BYTES: Final = 16
LONGEST_LINE: Final = 998  # octets without CRLF: RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1
_BEGUN: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # what may turn out to be the beginning of END
_OVERLONG: Final = re.compile(rb"\n[^\n]{%d}" % (LONGEST_LINE + 2))  # the CR counts, and one octet more


class DataReader:
    """Takes the bytes behind `354` as they come, in pieces of any size, and keeps the message.

    The facts (`size`, `has_bare`, `has_nul`, `has_long_line`, `is_eight_bit`) are about the message as the client meant
    it: without the dots that it added. Above `limit` octets the content is dropped and only `size` goes on counting.
    The digest grows with it, piece by piece: over 35 MB at once it would hold the loop for a tenth of a second.
    """

    __slots__ = (
        "_digest",
        "_has_begun",
        "_held",
        "_limit",
        "_line",
        "_parts",
        "has_bare",
        "has_long_line",
        "has_nul",
        "is_dropped",
        "is_eight_bit",
        "size",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The CRLF of the DATA command: with it a first line is like any other, and a lone dot ends an empty message.
        self._held = b"\r\n"
        self._has_begun = False
        self._parts: list[bytes] = []
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._line = 0  # octets of the line that the last piece left unfinished
        self.size = 0
        self.is_dropped = False
        self.has_bare = False
        self.has_nul = False
        self.has_long_line = False
        self.is_eight_bit = False

    @property
    def is_oversize(self) -> bool:
        return self.size > self._limit

    def feed(self, piece: bytes) -> bytes | None:
        """Take `piece`. Return what follows the end of the message (b"" if nothing does), None before the end."""
        window = self._held + piece
        end = window.find(END)
        if end >= 0:
            self._keep(window[: end + 2])
            self._held = b""
            return window[end + len(END) :]
        held = next((len(begun) for begun in _BEGUN if window.endswith(begun)), 0)
        cut = len(window) - held
        self._held = window[cut:]
        if cut:
            self._keep(window[:cut])
        return None

    def drop(self) -> None:
        """Keep nothing from here on; only find the end."""
        self.is_dropped = True
        self._parts.clear()

    def message(self) -> bytes:
        """Return the message, CRLF, and let go of it. Empty when it was too large or dropped."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def digest(self) -> bytes:
        """Return a hash of the message. Of a dropped one it says nothing."""
        return self._digest.digest()

    def _keep(self, part: bytes) -> None:
        # A part neither begins nor ends inside CRLF or CRLF-dot, so what is counted and replaced here is whole.
        text = part.replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2: one leading dot goes, whatever follows it
        if not self._has_begun:
            self._has_begun, text = True, text[2:]  # the CRLF of the DATA command
        self.size += len(text)
        breaks = text.count(b"\r\n")
        self.has_bare = self.has_bare or not breaks == text.count(b"\r") == text.count(b"\n")
        self.has_nul = self.has_nul or b"\0" in text
        self.is_eight_bit = self.is_eight_bit or not text.isascii()
        self._look_for_long_line(text)
        if self.is_oversize:
            self.drop()
        if not self.is_dropped:
            self._parts.append(text)
            self._digest.update(text)

    def _look_for_long_line(self, text: bytes) -> None:
        first, last = text.find(b"\n"), text.rfind(b"\n")
        if first < 0:
            self._line += len(text)
            self.has_long_line = self.has_long_line or self._line > LONGEST_LINE
            return
        longest_ends = self._line + first - 1 > LONGEST_LINE, len(text) - last - 1 > LONGEST_LINE
        self.has_long_line = self.has_long_line or any(longest_ends) or _OVERLONG.search(text) is not None
        self._line = len(text) - last - 1
