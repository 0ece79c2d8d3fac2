"""IMAP responses → typed values, and values → IMAP arguments; without I/O.

Anything may come from a server at any time, so every reader here answers None for what it does not know and raises
nothing: an odd response is passed over, the one that we wait for counts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, TypeGuard

from gateway.inbound.framing import Response

Value = bytes | int | None | list["Value"]

_DEPTH: Final = 30
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), start=1
    )
}

_FETCH: Final = re.compile(rb"\* [0-9]+ FETCH (?=\()", re.IGNORECASE)
_TOKEN: Final = re.compile(
    rb"""[ ]*(?:
      (?P<open>\() | (?P<close>\))
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | ~?\{(?P<literal>[0-9]+)\+?\}\Z
    | (?P<atom>[^ ()"{\[\]]+ (?:\[[^\]]*\](?:<[0-9]+>)?)?)
    )""",
    re.VERBOSE | re.DOTALL,
)
# What Dovecot, Cyrus, Gmail and Exchange answer to our listing; anything else takes the long way
_LARGEST_NUMBER: Final = 2**32 - 1
_LISTED: Final = re.compile(
    rb'\* [0-9]+ FETCH \(UID ([0-9]{1,10}) RFC822\.SIZE ([0-9]{1,18}) INTERNALDATE "([^"]{26})"\)\Z', re.IGNORECASE
)
_INTERNALDATE: Final = re.compile(
    rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})\Z"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as the listing shows it. `size`: RFC822.SIZE in bytes, which some servers only estimate."""

    uid: int
    size: int
    internal_at: datetime | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message's bytes; None where the server has the message and does not give them (NIL)."""

    uid: int
    raw: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Headed:
    """A listed message with the header fields that we asked for, as the server gave them."""

    listed: Listed
    header: bytes


def read_number(text: bytes) -> int | None:
    """Return a UID, UIDVALIDITY or count: 32 bits (RFC 9051 §9, nz-number), which is what the store can keep."""
    return number if text.isdigit() and len(text) <= 10 and (number := int(text)) <= _LARGEST_NUMBER else None


def _is_uid(value: Value | None) -> TypeGuard[int]:
    return isinstance(value, int) and 0 < value <= _LARGEST_NUMBER


def read_items(response: Response) -> dict[bytes, Value] | None:
    """Return the items of a FETCH response by upper-case name, or None for anything else or anything broken."""
    match = _FETCH.match(response[0])
    if match is None:
        return None
    root: list[Value] = []
    stack = [root]
    at = match.end()
    for place in range(0, len(response), 2):
        line = response[place]
        while at < len(line):
            token = _TOKEN.match(line, at)
            if token is None:
                return None
            at = token.end()
            kind = token.lastgroup
            if kind == "atom":
                stack[-1].append(_atom(token["atom"]))
            elif kind == "quoted":
                stack[-1].append(re.sub(rb"\\(.)", rb"\1", token["quoted"], flags=re.DOTALL))
            elif kind == "literal":
                if place + 1 >= len(response):
                    return None
                stack[-1].append(response[place + 1])
            elif kind == "open":
                inner: list[Value] = []
                stack[-1].append(inner)
                stack.append(inner)
                if len(stack) > _DEPTH:
                    return None
            else:
                stack.pop()
                if not stack:
                    return None
        at = 0
    if len(stack) != 1 or len(root) != 1 or not isinstance(root[0], list):
        return None
    items = root[0]
    return {
        name.upper(): value for name, value in zip(items[::2], items[1::2], strict=False) if isinstance(name, bytes)
    }


def _atom(text: bytes) -> Value:
    if text.isdigit():
        return int(text) if len(text) < 20 else None
    return None if text.upper() == b"NIL" else text


def read_listed(response: Response) -> Listed | None:
    """Return the answer to `UID FETCH … (RFC822.SIZE INTERNALDATE)`."""
    if len(response) == 1 and (match := _LISTED.match(response[0])):
        uid = read_number(match[1])
        return Listed(uid, int(match[2]), read_internaldate(match[3])) if uid else None
    items = read_items(response)
    return None if items is None else _listed(items)


def _listed(items: dict[bytes, Value]) -> Listed | None:
    uid, size, internal = items.get(b"UID"), items.get(b"RFC822.SIZE"), items.get(b"INTERNALDATE")
    if not _is_uid(uid) or not isinstance(size, int):
        return None
    return Listed(uid, size, read_internaldate(internal) if isinstance(internal, bytes) else None)


def read_fetched(response: Response) -> Fetched | None:
    """Return the answer to `UID FETCH … (BODY.PEEK[])`."""
    items = read_items(response)
    if items is None or b"BODY[]" not in items:
        return None
    uid, raw = items.get(b"UID"), items[b"BODY[]"]
    if not _is_uid(uid):
        return None
    return Fetched(uid, raw if isinstance(raw, bytes) else None)


def read_headed(response: Response) -> Headed | None:
    """Return the answer to `UID FETCH … (RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (…)])`."""
    items = read_items(response)
    listed = None if items is None else _listed(items)
    if items is None or listed is None:
        return None
    header = next((value for name, value in items.items() if name.startswith(b"BODY[HEADER.FIELDS")), None)
    return Headed(listed, header if isinstance(header, bytes) else b"")


def read_internaldate(text: bytes) -> datetime | None:
    """Return `17-Jul-1996 02:44:25 -0700` (RFC 9051 §9, date-time) as an aware time, None when it is not one."""
    match = _INTERNALDATE.match(text)
    month = _MONTHS.get(match[2].lower()) if match else None
    if match is None or month is None:
        return None
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    offset = int(match[8]) * 60 + int(match[9])
    try:
        zone = UTC if not offset else timezone(timedelta(minutes=-offset if match[7] == b"-" else offset))
        at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone)
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_search(response: Response) -> list[int] | None:
    """Return the UIDs of a SEARCH or ESEARCH response, None for any other."""
    words = response[0].split()
    if len(words) < 2:
        return None
    kind = words[1].upper()
    if kind == b"SEARCH":
        return [number for word in words[2:] if (number := read_number(word))]
    if kind == b"ESEARCH":
        upper = [word.upper() for word in words]
        return read_uid_set(words[upper.index(b"ALL") + 1]) if b"ALL" in upper[2:-1] else []
    return None


_MOST_UIDS: Final = 5_000_000


def read_uid_set(text: bytes) -> list[int]:
    """Return the numbers of `1:3,7` in the order given. A server cannot make it long with a short text."""
    uids: list[int] = []
    for piece in text.split(b","):
        first, _, last = piece.partition(b":")
        ends = read_number(first), read_number(last or first)
        if not ends[0] or not ends[1]:
            continue
        low, high = sorted((ends[0], ends[1]))
        if high - low + len(uids) > _MOST_UIDS:
            break
        uids.extend(range(low, high + 1))
    return uids


def format_uid_set(uids: Iterable[int]) -> str:
    """Return `1:3,7` for ascending UIDs."""
    runs: list[list[int]] = []
    for uid in uids:
        if runs and uid == runs[-1][1] + 1:
            runs[-1][1] = uid
        else:
            runs.append([uid, uid])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in runs)


def response_code(line: bytes) -> tuple[bytes, bytes]:
    """Return name and argument of `… [CODE argument] text`, both empty when there is none."""
    match = re.search(rb"\[([A-Z0-9-]+)(?: ([^\]]*))?\]", line, re.IGNORECASE)
    return (match[1].upper(), match[2] or b"") if match else (b"", b"")


def human_text(line: bytes) -> str:
    """Return what a status line says to people, without tag, condition and code."""
    text = re.sub(rb"\A(?:\S+ )?(?:OK|NO|BAD|BYE|PREAUTH)\b ?(?:\[[^\]]*\] ?)?", b"", line, flags=re.IGNORECASE)
    return text.decode("utf-8", "replace").strip()


def quote(text: str) -> str:
    """Return an IMAP quoted string. The caller has seen to it that `text` is ASCII without control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def can_be_quoted(text: str) -> bool:
    """Whether a quoted string can carry `text` (RFC 3501 §9: 7-bit, no NUL, CR or LF); else it needs a literal."""
    return text.isascii() and not any(character in text for character in "\0\r\n")


def encode_folder(name: str) -> str:
    """Return a folder's name in modified UTF-7 (RFC 3501 §5.1.3), quoted. Raises ValueError for control characters."""
    if any(ord(character) < 0x20 or character == "\x7f" for character in name):
        raise ValueError("a folder's name has a control character")
    pieces: list[str] = []
    wide = ""
    for character in [*name, ""]:
        if character and not " " <= character <= "~":
            wide += character
            continue
        if wide:
            packed = base64.b64encode(wide.encode("utf-16-be", "surrogatepass")).decode("ascii")
            pieces.append(f"&{packed.rstrip('=').replace('/', ',')}-")
            wide = ""
        pieces.append("&-" if character == "&" else character)
    return quote("".join(pieces))
