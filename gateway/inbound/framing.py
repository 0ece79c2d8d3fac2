"""Bytes from an IMAP server → whole responses, without I/O.

A response is a line, or a line that ends in `{n}`, then n bytes of literal, then the rest of the line, and so on
(RFC 9051 §4.3). It is given as a tuple of bytes: line, literal, line, … without line ends; text at even places,
literals at odd ones. Nothing is interpreted but the literal's length. Work is linear in the bytes, however they are
cut up, and memory is bounded by the two limits.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import Malformed

Response = tuple[bytes, ...]

LINE_BYTES: Final = 1024 * 1024  # an ESEARCH of a folder full of holes, or a long LIST, fits
_PARTS: Final = 2_000

_LITERAL: Final = re.compile(rb"~?\{([0-9]{1,12})\+?\}\Z")
# These end in text for people, where "{7}" means nothing; so does everything that does not begin with "* "
_STATUS: Final = re.compile(rb"\* (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)


class Framer:
    """Cuts a stream into responses. After Malformed the stream is lost: there is no way back into step."""

    def __init__(self, literal_bytes: int) -> None:
        self._literal_bytes = literal_bytes
        self._parts: list[bytes] = []
        self._line = bytearray()
        self._line_total = 0
        self._literal = bytearray()
        self._missing = 0

    @property
    def is_clean(self) -> bool:
        """Whether the stream stands between two responses."""
        return not (self._parts or self._line or self._missing)

    def feed(self, data: bytes) -> list[Response]:
        """Return the responses that `data` completes. Raises Malformed when a limit is exceeded."""
        done: list[Response] = []
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                at = self._fill_literal(data, at)
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._line += data[at:]
                self._check_line(len(self._line))
                break
            line = data[at:newline]
            at = newline + 1
            if self._line:
                self._line += line
                line = bytes(self._line)
                self._line = bytearray()
            self._check_line(len(line))
            if line.endswith(b"\r"):
                line = line[:-1]
            self._parts.append(line)
            if line.endswith(b"}") and (size := self._announced(line)) is not None:
                self._line_total += len(line)
                self._begin_literal(size)
                continue
            done.append(tuple(self._parts))
            self._parts = []
            self._line_total = 0
        return done

    def _announced(self, line: bytes) -> int | None:
        first = self._parts[0]
        if not first.startswith(b"* ") or _STATUS.match(first):
            return None
        match = _LITERAL.search(line)
        return int(match[1]) if match else None

    def _begin_literal(self, size: int) -> None:
        if size > self._literal_bytes:
            raise Malformed(f"a literal of {size} bytes, more than the limit of {self._literal_bytes}")
        if len(self._parts) > _PARTS:
            raise Malformed(f"a response of more than {_PARTS} parts")
        self._missing = size
        if not size:
            self._parts.append(b"")

    def _fill_literal(self, data: bytes, at: int) -> int:
        taken = data[at : at + self._missing]
        self._missing -= len(taken)
        if self._literal or self._missing:
            self._literal += taken
        if not self._missing:
            self._parts.append(bytes(self._literal) if self._literal else taken)
            self._literal = bytearray()
        return at + len(taken)

    def _check_line(self, length: int) -> None:
        if self._line_total + length > LINE_BYTES:
            raise Malformed(f"a line of more than {LINE_BYTES} bytes")
