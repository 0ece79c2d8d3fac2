"""Folders, and months, as IMAP names and describes them; without I/O.

Names are modified UTF-7 (RFC 3501 §5.1.3), or UTF-8 where the server has agreed to it (RFC 6855). There are servers
that send neither: then the name is what can be read of it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from gateway.inbound.framing import Response

_LIST: Final = re.compile(
    rb'\* (?:LIST|XLIST|LSUB) \(([^()]*)\) +(NIL|"[^"\\]*(?:\\.[^"\\]*)*") +'
    rb'(?:"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"|(?P<literal>~?\{[0-9]+\+?\})\Z|(?P<atom>[^ "(){]+))',
    re.IGNORECASE | re.DOTALL,
)
_NAME_BYTES: Final = 16 * 1024  # of a LIST or STATUS response: what is longer names no folder that anybody made
_MOST_ATTRIBUTES: Final = 16
_MOST_ITEMS: Final = 20
_STATUS: Final = re.compile(rb"\(([^()]*)\) *\Z")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in dates
_SHIFTED: Final = re.compile(r"&([^-]*)-")
_BASE64: Final = re.compile(r"[A-Za-z0-9+,]*\Z")


@dataclass(frozen=True, slots=True)
class FolderListing:
    """A folder as the server lists it.

    `name`: decoded. `attributes`: lower case with backslash, like `\\junk` (RFC 6154).
    """

    name: str
    delimiter: str | None
    attributes: frozenset[str]


def quote(text: str) -> str:
    """Return an IMAP quoted string. The caller has seen to it that `text` has no control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def can_be_quoted(text: str) -> bool:
    """Whether a quoted string can carry `text` (RFC 3501 §9: 7-bit, no NUL, CR or LF); else it needs a literal."""
    return text.isascii() and not any(character in text for character in "\0\r\n")


def encode_folder(name: str, *, utf8: bool = False) -> str:
    """Return a folder's name, quoted. Raises ValueError for control characters, and for what is no text."""
    if any(ord(character) < 0x20 or character == "\x7f" for character in name):
        raise ValueError("a folder's name has a control character")
    name.encode()  # half a surrogate pair is no text
    if utf8:
        return quote(name)
    pieces: list[str] = []
    wide = ""
    for character in [*name, ""]:
        if character and not " " <= character <= "~":
            wide += character
            continue
        if wide:
            packed = base64.b64encode(wide.encode("utf-16-be")).decode("ascii")
            pieces.append(f"&{packed.rstrip('=').replace('/', ',')}-")
            wide = ""
        pieces.append("&-" if character == "&" else character)
    return quote("".join(pieces))


def decode_folder(raw: bytes, *, utf8: bool = False) -> str:
    """Return a folder's name as people write it; where it is not encoded as it should be, as near as we can read it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
    if utf8 or not text.isascii():
        return text
    try:
        return _SHIFTED.sub(_unshift, text)
    except (ValueError, binascii.Error):
        return text


def _unshift(match: re.Match[str]) -> str:
    packed = match[1]
    if not packed:
        return "&"
    if not _BASE64.match(packed):
        raise ValueError("not base64")
    return base64.b64decode(packed.replace(",", "/") + "=" * (-len(packed) % 4)).decode("utf-16-be")


def read_folder(response: Response, *, utf8: bool = False) -> tuple[FolderListing, bytes] | None:
    """Return a LIST response, and the name as the server has it; None for any other."""
    match = _LIST.match(response[0]) if _fits(response) else None
    if match is None:
        return None
    if match["literal"] is not None:
        raw = response[1] if len(response) > 1 else b""
    elif match["quoted"] is not None:
        raw = _unescape(match["quoted"])
    else:
        raw = match["atom"]
    name = decode_folder(raw, utf8=utf8)
    delimiter = None if match[2].upper() == b"NIL" else decode_folder(_unescape(match[2][1:-1]), utf8=True)
    attributes = frozenset(word.decode("ascii", "replace").lower() for word in match[1].split()[:_MOST_ATTRIBUTES])
    return (FolderListing(name, delimiter or None, attributes), raw) if name else None


def _fits(response: Response) -> bool:
    return sum(map(len, response)) <= _NAME_BYTES


def _unescape(quoted: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL)


def read_status(response: Response) -> dict[bytes, int] | None:
    """Return the items of a STATUS response by upper-case name, None for any other."""
    if response[0][:9].upper() != b"* STATUS " or not _fits(response):
        return None
    match = _STATUS.search(response[-1])
    words = match[1].split()[: 2 * _MOST_ITEMS] if match else []
    return {
        name.upper(): int(value)
        for name, value in zip(words[::2], words[1::2], strict=False)
        if value.isdigit() and len(value) < 20
    }
