"""Finds the end of a message inside DATA, and says what is odd about its bytes.

Only CR LF . CR LF ends a message (RFC 5321 §4.1.1.4). Everything that other servers have taken for it (LF.LF, CR.CR,
LF.CRLF, CRLF.LF …) is content here, and content with a CR or LF of its own is then refused: passed on, it would
carry a second message into the next server that is more generous than we are.
"""

from __future__ import annotations

import hashlib
import io
from typing import Final

END: Final = b"\r\n.\r\n"
DIGEST_BYTES: Final = 16
LONGEST_LINE: Final = 998  # octets without CRLF: RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1
_BEGUN: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # what may turn out to be the beginning of END
_WINDOW: Final = LONGEST_LINE + 2  # octets from the beginning of a line in which its LF must lie


class DataReader:
    """Takes the bytes behind `354` as they come, in pieces of any size, and keeps the message.

    The facts (`size`, `has_bare`, `has_nul`, `has_long_line`, `is_eight_bit`) are about the message as the client meant
    it: without the dots that it added. Above `limit` octets the content is dropped and only `size` goes on counting.
    The digest grows with it, piece by piece: over 35 MB at once it would hold the loop for a tenth of a second.

    All of it happens on the loop, so it is made of few passes over the bytes, and of those that the interpreter does
    fast: it looks for one octet ten times as fast as for two. 1 MiB takes 1.2 ms, half of them for the digest.
    """

    __slots__ = (
        "_digest",
        "_has_begun",
        "_held",
        "_limit",
        "_line",
        "_newlines",
        "_parts",
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
        self._digest = hashlib.sha256()  # which newer processors have an instruction for
        self._newlines = io.IncrementalNewlineDecoder(None, translate=False)  # notes which kinds of line ends it sees
        self._line = 0  # octets of the line that the last piece left unfinished
        self.size = 0
        self.is_dropped = False
        self.has_nul = False
        self.has_long_line = False
        self.is_eight_bit = False

    @property
    def is_oversize(self) -> bool:
        return self.size > self._limit

    def feed(self, piece: bytes) -> bytes | None:
        """Take `piece`. Return what follows the end of the message (b"" if nothing does), None before the end."""
        window = self._held + piece
        first = window.find(b".")  # what is encoded as base64, most of what is large, has none
        dot = window.find(b"\r\n.", max(0, first - 2)) if first >= 0 else -1
        end = window.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            self._keep(window[: end + 2], is_stuffed=dot < end)
            self._held = b""
            return window[end + len(END) :]
        held = next((len(begun) for begun in _BEGUN if window.endswith(begun)), 0)
        cut = len(window) - held
        self._held = window[cut:]
        if cut:
            self._keep(window[:cut], is_stuffed=0 <= dot < cut)
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
        return self._digest.digest()[:DIGEST_BYTES]

    @property
    def has_bare(self) -> bool:
        return self._newlines.newlines not in (None, "\r\n")

    def _keep(self, part: bytes, *, is_stuffed: bool) -> None:
        # A part neither begins nor ends inside CRLF or CRLF-dot, so what is replaced here is whole.
        text = part
        if is_stuffed:
            text = part.replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2: one leading dot goes, whatever follows it
        if not self._has_begun:
            self._has_begun, text = True, text[2:]  # the CRLF of the DATA command
        self.size += len(text)
        self._newlines.decode(text.decode("latin-1"))
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
        if self._line + first - 1 > LONGEST_LINE or len(text) - last - 1 > LONGEST_LINE:
            self.has_long_line = True
        begin = first + 1
        while begin <= last and not self.has_long_line:  # from line to line, with steps as long as a line may be
            begin = text.rfind(b"\n", begin, begin + _WINDOW) + 1
            self.has_long_line = not begin
        self._line = len(text) - last - 1
