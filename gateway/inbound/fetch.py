"""FETCH responses → typed values, without I/O.

Anything may come from a server at any time, so every reader here answers None for what it does not know and raises
nothing: an odd response is passed over, the one that we wait for counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, TypeGuard

from gateway.inbound.envelope import compose_header
from gateway.inbound.framing import Response
from gateway.inbound.identity import object_id
from gateway.inbound.uids import LARGEST_UID, read_number

Value = bytes | int | None | list["Value"]

_DEPTH: Final = 30
_TOKENS: Final = 6_000  # of a response; an ENVELOPE with a thousand addresses has so many
_TEXT_BYTES: Final = 256 * 1024  # of a response without its literals
_LARGEST_SIZE: Final = 2**48  # more is a lie, and the store counts to 2**63
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), start=1
    )
}

# With UIDONLY (RFC 9586 §3.3) the number in front is the UID, else it is a sequence number, which we never use
_FETCH: Final = re.compile(rb"\* ([0-9]+) (UID)?FETCH (?=\()", re.IGNORECASE)
_TOKEN: Final = re.compile(
    rb"""[ ]*(?:
      (?P<open>\() | (?P<close>\))
    | "(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"
    | ~?\{(?P<literal>[0-9]+)\+?\}\Z
    | (?P<atom>[^ ()"{\[\]]+ (?:\[[^\]]*\](?:<[0-9]+>)?)?)
    )""",
    re.VERBOSE | re.DOTALL,
)
# What Dovecot, Cyrus, Gmail and Exchange answer to our listing; anything else takes the long way
_LISTED: Final = re.compile(
    rb"\* ([0-9]+) (?:FETCH \(|(UID)FETCH \()(?:X-GM-MSGID ([0-9]{1,20}) )?(?:UID ([0-9]{1,10}) )?"
    rb'RFC822\.SIZE ([0-9]{1,18}) INTERNALDATE "([^"]{26})"(?: EMAILID \(([A-Za-z0-9_-]{1,255})\))?\)\Z',
    re.IGNORECASE,
)
_INTERNALDATE: Final = re.compile(
    rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})\Z"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as the listing shows it.

    `size`: RFC822.SIZE in bytes, which some servers only estimate. `object_id`: 64 bits (signed) of the name that the
    message keeps wherever it is moved (EMAILID, X-GM-MSGID), None where the server has none.
    """

    uid: int
    size: int
    internal_at: datetime | None
    object_id: int | None = None


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

    @property
    def uid(self) -> int:
        return self.listed.uid


def _is_uid(value: Value) -> TypeGuard[int]:
    return isinstance(value, int) and 0 < value <= LARGEST_UID


def _size(value: Value) -> int | None:
    return min(value, _LARGEST_SIZE) if isinstance(value, int) else None


def read_items(response: Response) -> dict[bytes, Value] | None:
    """Return the items of a FETCH response by upper-case name, or None for anything else or anything broken."""
    match = _FETCH.match(response[0])
    if match is None or sum(map(len, response[::2])) > _TEXT_BYTES:
        return None
    left = _TOKENS
    root: list[Value] = []
    stack = [root]
    at = match.end()
    for place in range(0, len(response), 2):
        line = response[place]
        while at < len(line):
            token = _TOKEN.match(line, at)
            left -= 1
            if token is None or left < 0:
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
    found = {
        name.upper(): value for name, value in zip(items[::2], items[1::2], strict=False) if isinstance(name, bytes)
    }
    if match[2]:
        found[b"UID"] = read_number(match[1])
    return found


def _atom(text: bytes) -> Value:
    if text.isdigit() and len(text) <= 20 and (len(text) == 1 or text[0] != 48):  # with zeros in front it is a name
        return int(text)
    return None if text.upper() == b"NIL" else text


def read_listed(response: Response) -> Listed | None:
    """Return the answer to `UID FETCH … (RFC822.SIZE INTERNALDATE)`, with or without an id of the message's own."""
    if len(response) == 1 and (match := _LISTED.match(response[0])):
        number, only, gmail, uid, size, internal, emailid = match.groups()
        if only:
            uid = number
        if uid is not None:
            found = read_number(uid)
            own = _own_id(emailid, int(gmail) if gmail else None)
            return Listed(found, min(int(size), _LARGEST_SIZE), read_internaldate(internal), own) if found else None
    items = read_items(response)
    return None if items is None else _listed(items)


def _listed(items: dict[bytes, Value]) -> Listed | None:
    uid, size, internal = items.get(b"UID"), _size(items.get(b"RFC822.SIZE")), items.get(b"INTERNALDATE")
    if not _is_uid(uid) or size is None:
        return None
    emailid = items.get(b"EMAILID")
    own = _own_id(emailid[0] if isinstance(emailid, list) and emailid else emailid, items.get(b"X-GM-MSGID"))
    return Listed(uid, size, read_internaldate(internal) if isinstance(internal, bytes) else None, own)


def _own_id(emailid: Value, gmail: Value) -> int | None:
    if isinstance(emailid, int):  # an id of nothing but digits, read as a number
        emailid = b"%d" % emailid
    if isinstance(emailid, bytes) and emailid:
        return object_id(b"emailid", emailid)
    return object_id(b"gm", b"%d" % gmail) if isinstance(gmail, int) else None


def read_fetched(response: Response) -> Fetched | None:
    """Return the answer to `UID FETCH … (BODY.PEEK[])`."""
    items = read_items(response)
    if items is None or b"BODY[]" not in items:
        return None
    uid, raw = items.get(b"UID"), items[b"BODY[]"]
    if not _is_uid(uid):
        return None
    return Fetched(uid, raw if isinstance(raw, bytes) else None)


def read_part(response: Response, offset: int) -> Fetched | None:
    """Return the answer to `UID FETCH … (BODY.PEEK[]<offset.count>)`: bytes from `offset` on.

    A server that does not know partial fetches gives the whole message, and there are such.
    """
    items = read_items(response)
    if items is None or not _is_uid(uid := items.get(b"UID")):
        return None
    if (part := b"BODY[]<%d>" % offset) in items:
        raw = items[part]
        return Fetched(uid, raw if isinstance(raw, bytes) else None)
    if b"BODY[]" in items:
        raw = items[b"BODY[]"]
        return Fetched(uid, raw[offset:] if isinstance(raw, bytes) else None)
    return None


def read_head(response: Response) -> Fetched | None:
    """Return the answer to `UID FETCH … (BODY.PEEK[HEADER])`, whole or partial, or to `(ENVELOPE)`, as header lines."""
    items = read_items(response)
    if items is None or not _is_uid(uid := items.get(b"UID")):
        return None
    for name, value in items.items():
        if name.startswith(b"BODY[HEADER]") and isinstance(value, bytes):
            return Fetched(uid, value)
        if name == b"ENVELOPE" and isinstance(value, list):
            return Fetched(uid, compose_header(value))
    return None


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
