"""Bytes from an IMAP server → whole responses, without I/O.

A response is a line, or a line that ends in `{n}`, then n bytes of literal, then the rest of the line, and so on
(RFC 9051 §4.3). It is given as a tuple of bytes: line, literal, line, … without line ends; text at even places,
literals at odd ones. Nothing is interpreted but the literal's length. Work is linear in the bytes, however they are
cut up, and memory is bounded by the two limits.

A SEARCH of a folder of a million messages is one line of ten megabytes. A line that only lists UIDs is therefore
given in pieces, each a response of its own: `* SEARCH 1 2 3 4` may come as `* SEARCH 1 2` and `* SEARCH 3 4`.
"""

from __future__ import annotations

import re
from collections import deque
from io import BytesIO
from typing import Final

from gateway.errors import Malformed

Response = tuple[bytes, ...]

LINE_BYTES: Final = 1024 * 1024  # the longest LIST or ENVELOPE fits
PIECE_BYTES: Final = 8 * 1024  # of a line of UIDs: read in less than a millisecond, whatever is in it
_PARTS: Final = 2_000
_PREFIX_BYTES: Final = 1024

_LITERAL: Final = re.compile(rb"~?\{([0-9]{1,12})\+?\}\Z")
# These end in text for people, where "{7}" means nothing; so does everything that does not begin with "* "
_STATUS: Final = re.compile(rb"\* (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)
_UIDS: Final = re.compile(rb"\* (?:(SEARCH)|ESEARCH|VANISHED) ", re.IGNORECASE)


class Framer:
    """Cuts a stream into responses. After Malformed the stream is lost: there is no way back into step.

    `literal_bytes`: what one response may have in literals; it may change at any time.
    """

    def __init__(self, literal_bytes: int) -> None:
        self.literal_bytes = literal_bytes
        self._literal_total = 0
        self._data = b""
        self._at = 0  # how far `_data` has been read
        self._line = bytearray()  # the beginning of a line that has no end yet
        self._parts: list[bytes] = []
        self._pieces: deque[Response] = deque()
        self._line_total = 0
        self._literal = BytesIO()
        self._missing = 0

    @property
    def is_clean(self) -> bool:
        """Whether the stream stands between two responses, and nothing is left to be pulled."""
        return not (self._at < len(self._data) or self._parts or self._line or self._missing or self._pieces)

    def feed(self, data: bytes) -> list[Response]:
        """Return the responses that `data` completes. Raises Malformed when a limit is exceeded."""
        self.push(data)
        done: list[Response] = []
        while (response := self.pull()) is not None:
            done.append(response)
        return done

    def push(self, data: bytes) -> None:
        """Take bytes, for `pull` to read."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def pull(self) -> Response | None:
        """Return the next response, None when that takes more bytes. Raises Malformed when a limit is exceeded."""
        while not self._pieces:
            if self._at >= len(self._data):
                self._data = b""
                self._at = 0
                return None
            if self._missing:
                self._fill_literal()
                continue
            newline = self._data.find(b"\n", self._at)
            if newline < 0:
                self._line += self._data[self._at :]
                self._at = len(self._data)
                self._cut_up()
                continue
            line = self._data[self._at : newline]
            self._at = newline + 1
            if self._line or len(line) > PIECE_BYTES:
                self._line += line
                self._cut_up()
                line = bytes(self._line)
                self._line.clear()
            if (response := self._end_line(line)) is not None:
                self._pieces.append(response)
        return self._pieces.popleft()

    def _end_line(self, line: bytes) -> Response | None:
        self._check_line(len(line))
        if line.endswith(b"\r"):
            line = line[:-1]
        self._parts.append(line)
        if line.endswith(b"}") and (size := self._announced(line)) is not None:
            self._line_total += len(line)
            self._begin_literal(size)
            return None
        response = tuple(self._parts)
        self._parts.clear()
        self._line_total = self._literal_total = 0
        return response

    def _cut_up(self) -> None:
        """Give what has come of a long line of UIDs, cut behind the same UIDs however the bytes came."""
        while len(self._line) > PIECE_BYTES and not self._parts and (match := _UIDS.match(self._line)):
            separator = b" " if match[1] else b","
            end = self._line.find(separator, PIECE_BYTES, LINE_BYTES)
            begin = match.end() if match[1] else self._line.rfind(b" ", 0, max(end, 0)) + 1
            if end < 0 or begin > _PREFIX_BYTES:
                break
            self._pieces.append((bytes(self._line[:end]),))
            del self._line[begin : end + 1]
        self._check_line(len(self._line))

    def _announced(self, line: bytes) -> int | None:
        first = self._parts[0]
        if not first.startswith(b"* ") or _STATUS.match(first):
            return None
        match = _LITERAL.search(line)
        return int(match[1]) if match else None

    def _begin_literal(self, size: int) -> None:
        self._literal_total += size
        if self._literal_total > self.literal_bytes:
            raise Malformed(f"a literal of {size} bytes, more than the limit of {self.literal_bytes}")
        if len(self._parts) > _PARTS:
            raise Malformed(f"a response of more than {_PARTS} parts")
        self._missing = size
        if not size:
            self._parts.append(b"")

    def _fill_literal(self) -> None:
        taken = self._data[self._at : self._at + self._missing]
        self._at += len(taken)
        self._missing -= len(taken)
        self._literal.write(taken)
        if not self._missing:
            self._parts.append(self._literal.getvalue())
            self._literal = BytesIO()

    def _check_line(self, length: int) -> None:
        if self._line_total + length > LINE_BYTES:
            raise Malformed(f"a line of more than {LINE_BYTES} bytes")
