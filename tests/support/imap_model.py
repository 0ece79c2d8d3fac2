"""What an IMAP server keeps and how it words it, without sockets: folders, messages, arguments, FETCH items, SEARCH.

As much of RFC 9051 and RFC 3501 as a mail fetcher speaks. What a client asks beyond that is `Unknown`, and the server
says BAD: a test sees at once that it must learn something.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from email.utils import getaddresses
from typing import Final

Argument = bytes | list["Argument"]

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_numbers = itertools.count(1)
_uidvalidities = itertools.count(1_700_000_000)


class Unknown(Exception):
    """The client has said something that this server does not understand."""


@dataclass(eq=False)
class Message:
    """`lies`: FETCH items that it shows otherwise, with their values. `quirk`: what it says to a FETCH by itself
    (`hostile.Quirk`).
    """

    raw: bytes = field(repr=False)
    internal_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    flags: set[bytes] = field(default_factory=set)
    lies: dict[bytes, bytes] = field(default_factory=dict)
    quirk: Callable[..., Awaitable[str | bool]] | None = None
    number: int = field(default_factory=lambda: next(_numbers))  # stays the same in every folder, under every UID

    @property
    def header(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


class Folder:
    """Messages by UID, in order. `attributes`: as LIST shows them, e.g. b"\\Junk"."""

    def __init__(self, name: str, *attributes: bytes) -> None:
        self.name = name
        self.attributes = attributes
        self.uidvalidity = next(_uidvalidities)
        self.uidnext = 1
        self.messages: dict[int, Message] = {}

    def add(self, message: Message, uid: int | None = None) -> int:
        """Store a message under the next UID, or under one that was kept back by `reserve`."""
        uid = self.reserve() if uid is None else uid
        self.messages[uid] = message
        self.messages = dict(sorted(self.messages.items()))
        return uid

    def reserve(self) -> int:
        self.uidnext += 1
        return self.uidnext - 1

    def renumber(self, start: int = 1) -> None:
        """Begin again under another UIDVALIDITY, the messages in their order."""
        self.uidvalidity = next(_uidvalidities)
        self.messages = dict(enumerate(self.messages.values(), start=start))
        self.uidnext = start + len(self.messages)


# --- arguments -------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    rb"""[ ]*(?:
      (?P<open>\() | (?P<close>\))
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | (?P<literal>\{[0-9]+\+?\})
    | (?P<atom>[^ ()"{\[]+(?:\[[^\]]*\](?:<[0-9.]+>)?)?)
    )""",
    re.VERBOSE | re.DOTALL,
)


def parse_arguments(text: bytes, literals: Sequence[bytes] = ()) -> list[Argument]:
    """Return atoms and strings as bytes, lists as lists; each `{n}` is the next of `literals`."""
    stack: list[list[Argument]] = [[]]
    given = iter(literals)
    at = 0
    text = text.rstrip(b" ")
    while at < len(text):
        if (token := _TOKEN.match(text, at)) is None:
            raise Unknown(f"cannot read {text[at:]!r}")
        at = token.end()
        if token.lastgroup == "open":
            stack.append([])
        elif token.lastgroup == "close":
            if len(stack) < 2:
                raise Unknown(f"a list ends that has not begun: {text!r}")
            stack[-2].append(stack.pop())
        elif token.lastgroup == "quoted":
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", token["quoted"]))
        elif token.lastgroup == "literal":
            stack[-1].append(next(given))
        else:
            stack[-1].append(token["atom"])
    if len(stack) != 1:
        raise Unknown(f"a list does not end: {text!r}")
    return stack[0]


def plain(argument: Argument) -> bytes:
    if not isinstance(argument, bytes):
        raise Unknown(f"a list where a word should be: {argument!r}")
    return argument


def words(argument: Argument) -> list[bytes]:
    """Return what is in a list, or the one word."""
    return [plain(item) for item in argument] if isinstance(argument, list) else [argument]


def in_set(text: bytes, numbers: Sequence[int]) -> list[int]:
    """Return those of `numbers` (ascending) that a set such as `1:3,7,9:*` names."""
    highest = numbers[-1] if numbers else 0
    ranges: list[tuple[int, int]] = []
    for piece in text.split(b","):
        if not re.fullmatch(rb"(?:[1-9][0-9]*|\*)(?::(?:[1-9][0-9]*|\*))?", piece):
            raise Unknown(f"not a set of numbers: {text!r}")
        ends = [highest if end == b"*" else int(end) for end in piece.split(b":")]
        ranges.append((min(ends), max(ends)))  # `9:*` where the last is 5 means 5:9 (RFC 9051 §9, seq-range)
    return [number for number in numbers if any(low <= number <= high for low, high in ranges)]


def format_set(numbers: Sequence[int]) -> bytes:
    """Return `1:3,7` for ascending numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return b",".join(b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in runs)


# --- FETCH -----------------------------------------------------------------------------------------------------------


def literal(text: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(text), text)


def quoted(text: str) -> bytes:
    return b'"' + text.encode("utf-8", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def item_names(arguments: Argument) -> list[bytes]:
    """Return the items of a FETCH in upper case, `UID` among them, macros written out."""
    names = [name.upper() for name in words(arguments)]
    if names == [b"FAST"]:
        names = [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"]
    return names if b"UID" in names else [b"UID", *names]


def fetched(name: bytes, uid: int, message: Message) -> tuple[bytes, bytes]:
    """Return an item as a FETCH response names it, and its value."""
    if name in message.lies:
        return name, message.lies[name]
    if name == b"UID":
        return name, b"%d" % uid
    if name == b"FLAGS":
        return name, b"(" + b" ".join(sorted(message.flags)) + b")"
    if name == b"RFC822.SIZE":
        return name, b"%d" % len(message.raw)
    if name == b"INTERNALDATE":
        return name, b'"%b"' % internaldate(message.internal_at)
    if name == b"EMAILID":
        return name, b"(M%d)" % message.number
    if name == b"ENVELOPE":
        return name, envelope(message.raw)
    if match := re.fullmatch(rb"BODY(?:\.PEEK)?\[([^\]]*)\](?:<([0-9]+)\.([0-9]+)>)?", name):
        section = match[1]
        text = _section(section, message)
        shown = b"BODY[%b]" % section
        if match[2] is not None:
            start = int(match[2])
            return shown + b"<%d>" % start, literal(text[start : start + int(match[3])])
        return shown, literal(text)
    raise Unknown(f"no such item: {name!r}")


def _section(section: bytes, message: Message) -> bytes:
    if not section:
        return message.raw
    if section == b"HEADER":
        return message.header
    if section == b"TEXT":
        return message.raw.partition(b"\r\n\r\n")[2]
    if match := re.fullmatch(rb"HEADER\.FIELDS \(([^)]*)\)", section):
        wanted = {name.lower() for name in match[1].split()}
        fields = re.findall(rb"([^\r\n:]+:[^\n]*\n(?:[ \t][^\n]*\n)*)", message.header)
        return b"".join(one for one in fields if one.partition(b":")[0].strip().lower() in wanted) + b"\r\n"
    raise Unknown(f"no such section: {section!r}")


def internaldate(at: datetime) -> bytes:
    return f"{at.day:2d}-{_MONTHS[at.month - 1]}-{at:%Y %H:%M:%S %z}".encode()


def envelope(raw: bytes) -> bytes:
    """Return date, subject, from, sender, reply-to, to, cc, bcc, in-reply-to, message-id (RFC 9051 §7.5.2)."""
    header = message_from_bytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", policy=policy.compat32)

    def text(name: str) -> bytes:
        value = header.get(name)
        return b"NIL" if value is None else quoted(re.sub(r"[\r\n\0]", "", str(value)))

    def people(*names: str) -> bytes:
        for name in names:
            found = getaddresses([re.sub(r"[\r\n\0]", "", str(value)) for value in header.get_all(name, [])])
            parts = []
            for shown, address in found:
                local, _, domain = address.partition("@")
                parts.append(b"(%b NIL %b %b)" % (quoted(shown) if shown else b"NIL", quoted(local), quoted(domain)))
            if parts:
                return b"(" + b"".join(parts) + b")"
        return b"NIL"

    persons = [people("from"), people("sender", "from"), people("reply-to", "from")]
    persons += [people("to"), people("cc"), people("bcc")]
    return b"(" + b" ".join([text("date"), text("subject"), *persons, text("in-reply-to"), text("message-id")]) + b")"


# --- SEARCH ----------------------------------------------------------------------------------------------------------


def search(criteria: Sequence[Argument], folder: Folder) -> list[int]:
    """Return the UIDs of the messages that meet all criteria."""
    uids = list(folder.messages)
    found = set(uids)
    rest = iter(criteria)
    for one in rest:
        found &= _meeting(one, rest, folder, uids)
    return sorted(found)


def _meeting(one: Argument, rest: Iterator[Argument], folder: Folder, uids: list[int]) -> set[int]:
    if isinstance(one, list):
        return set(search(one, folder))
    key = one.upper()
    messages = folder.messages
    if key == b"ALL":
        return set(uids)
    if key == b"UID":
        return set(in_set(plain(next(rest)), uids))
    if key == b"NOT":
        return set(uids) - _meeting(next(rest), rest, folder, uids)
    if key in (b"SINCE", b"BEFORE", b"ON"):
        day = _day(plain(next(rest)))
        then = {uid: message.internal_at.date() for uid, message in messages.items()}
        return {uid for uid in uids if (then[uid] >= day, then[uid] < day, then[uid] == day)[_WHEN.index(key)]}
    if key == b"HEADER":
        name, value = plain(next(rest)).lower(), plain(next(rest)).lower()
        field = re.compile(rb"^" + re.escape(name) + rb":[^\n]*" + re.escape(value), re.IGNORECASE | re.MULTILINE)
        return {uid for uid in uids if field.search(messages[uid].header)}
    if key in _FLAGS:
        return {uid for uid in uids if _FLAGS[key] in messages[uid].flags}
    if key.removeprefix(b"UN") in _FLAGS:
        return {uid for uid in uids if _FLAGS[key.removeprefix(b"UN")] not in messages[uid].flags}
    if key[:1].isdigit() or key[:1] == b"*":
        places = in_set(key, range(1, len(uids) + 1))
        return {uids[place - 1] for place in places}
    raise Unknown(f"no such criterion: {key!r}")


_WHEN: Final = (b"SINCE", b"BEFORE", b"ON")
_FLAGS: Final = {
    b"SEEN": b"\\Seen",
    b"DELETED": b"\\Deleted",
    b"ANSWERED": b"\\Answered",
    b"FLAGGED": b"\\Flagged",
    b"DRAFT": b"\\Draft",
}


def _day(text: bytes) -> date:
    day, month, year = text.decode("ascii", "replace").split("-")
    return date(int(year), _MONTHS.index(month.title()) + 1, int(day))
