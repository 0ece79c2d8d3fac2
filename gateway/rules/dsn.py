"""What a report about mail of ours says, recipient by recipient: from RFC 3464 to the prose of qmail.

A bounce is written by a stranger's machine, about a message that may or may not have been ours. Here it is only read:
who did not get it, what became of it, what the other server said, and every clue to the message that caused it.
Whether that message was ours is asked elsewhere, of the store.

The machine-readable part is believed first (RFC 3464, RFC 6533), then the field that Exim and Gmail add, then the
text. Never raises, whatever the bytes; all work is bounded, for this runs on the event thread.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from gateway.mime.charset import charset
from gateway.mime.scan import HeaderFacts, parse_addresses, scan
from gateway.mime.structure import Bounds, Part
from gateway.mime.structure import scan as scan_structure
from gateway.mime.trace import traces
from gateway.mime.transfer import decode
from gateway.text import clean

READ_BYTES: Final = 256 * 1024  # of the report; what was returned whole may go on for megabytes
RECIPIENTS: Final = 100  # of one report; who writes to more is told of the first ones
SAID_LETTERS: Final = 300  # of what a server said

_BOUNDS: Final = Bounds(depth=5, parts=40, fields=300, header_bytes=64 * 1024, false_delimiters=300)
_STATUS_BYTES: Final = 96 * 1024
_RETURNED_BYTES: Final = 64 * 1024
_TEXT_BYTES: Final = 48 * 1024
_HTML_BYTES: Final = 64 * 1024
_LINES: Final = 500
_LINE_LETTERS: Final = 400
_PROSE_RECIPIENTS: Final = 30
_IDS: Final = 12
_TRACES: Final = 5

_STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_RETURNED_TYPES: Final = frozenset(
    {
        "message/rfc822",
        "text/rfc822-headers",
        "message/rfc822-headers",
        "message/global",  # RFC 6533
        "message/global-headers",
    }
)


class Action(StrEnum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class Told:
    """What a report says about one recipient.

    `address`: as the reporting system knows it; `original`: as the message was sent to, "" where that is not said.
    `status`: RFC 3463, `code`: SMTP, `said`: the words of the server, all "" or 0 where missing. `is_named`: a field
    or a line of its own names the address; otherwise it stands somewhere in the prose.
    """

    address: str
    action: Action
    status: str = ""
    code: int = 0
    said: str = ""
    original: str = ""
    is_named: bool = True

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for one in (self.original, self.address) if one))

    @property
    def is_permanent(self) -> bool:
        """Did the server say no for good? RFC 3463 §3.1: class 5."""
        return self.status.startswith("5") or (not self.status and 500 <= self.code < 600)


@dataclass(frozen=True, slots=True)
class Report:
    """What was read. `message_ids`: of the message that the report is about, the surest first; `related`: ids that it
    answered. `traces`: (queue id, attempt) of our own fields in the returned header. `envelope_id`: what the sender
    gave as ENVID. `general`: of nobody by name, for a report that names none.
    """

    recipients: tuple[Told, ...] = ()
    message_ids: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    traces: tuple[tuple[int, int], ...] = ()
    envelope_id: str = ""
    general: Told = Told("", Action.FAILED, is_named=False)


def read_report(raw: bytes) -> Report:
    """Return what a message of class `bounce` says; an empty report where it says nothing we understand.

    `raw`: the message, or as much of its beginning as is at hand; any bytes.
    """
    raw = raw[:READ_BYTES]
    facts = scan(raw)
    root = scan_structure(raw, _BOUNDS)
    about: list[HeaderFacts] = []
    recipients: list[Told] = []
    returned: HeaderFacts | None = None
    for part in root.walk():
        if part.content_type in _STATUS_TYPES and not recipients:
            blocks = _blocks(_octets(raw, part, _STATUS_BYTES))
            about += blocks[:1]
            recipients = _from_blocks(blocks)
        elif part.content_type in _RETURNED_TYPES and returned is None and part is not root:
            returned = scan(_octets(raw, part, _RETURNED_BYTES))

    lines, copied = _prose(raw, root)
    code, status, said = _reason(lines, "")
    general = Told("", _action_of(lines, facts.subject), status, code, said, is_named=False)
    if not recipients and any(line.lower().startswith("final-recipient:") for line in lines):
        # the parts have been flattened by something on the way
        blocks = _blocks("\n".join(lines).encode("utf-8", "replace"))
        about += blocks[:1]
        recipients = _from_blocks(blocks)
    strangers = {box.address.lower() for box in (*facts.authors, *facts.to)}
    by_text = _from_prose(lines, general, strangers)
    recipients = _join(recipients, facts, by_text, general)
    sources = [one for one in (returned, copied) if one is not None]
    return Report(
        tuple(recipients[:RECIPIENTS]),
        _first(_message_ids(sources, about, facts)),
        _first(one for source in (*sources, facts) for one in (*source.in_reply_to, *reversed(source.references))),
        tuple(dict.fromkeys((trace.queue_id, trace.attempt) for one in sources for trace in traces(one.block)))[
            :_TRACES
        ],
        _envelope_id(about),
        general,
    )


def _first(found: Iterable[str]) -> tuple[str, ...]:
    unique: dict[str, None] = {}
    for one in found:
        if one:
            unique[one] = None
        if len(unique) == _IDS:
            break
    return tuple(unique)


# --- which message it was --------------------------------------------------------------------------------------------

# seen in the part for machines: Gmail has the first one, gateways of X.400 the other
_ID_FIELDS: Final = ("x-original-message-id", "original-message-id")


def _message_ids(sources: Sequence[HeaderFacts], about: Sequence[HeaderFacts], facts: HeaderFacts) -> Iterator[str]:
    for source in sources:
        yield source.message_id
        yield _id(source.value("x-microsoft-original-message-id"))
    for block in about:
        yield from (_id(block.value(name)) for name in _ID_FIELDS)
    yield from (_id(facts.value(name)) for name in _ID_FIELDS)
    # Gmail and Exchange thread the report with the message
    yield from facts.in_reply_to
    yield from reversed(facts.references)


def _id(value: str) -> str:
    value = value.strip()
    if not value or "@" not in value or " " in value:
        return ""
    return value if value.startswith("<") else f"<{value}>"


def _envelope_id(about: Sequence[HeaderFacts]) -> str:
    return next((value for one in about if (value := one.value("original-envelope-id").strip())), "")[:200]


# --- the part for machines -------------------------------------------------------------------------------------------

_BLANK_LINES: Final = re.compile(rb"\n[ \t]*+\n\s*+")
_STATUS: Final = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)")
_UNICODE: Final = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")  # RFC 6533 §3
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")  # RFC 3461 §4


def _blocks(octets: bytes) -> list[HeaderFacts]:
    """Return the groups of fields, the one about the whole message first (RFC 3464 §2.1)."""
    text = octets.replace(b"\r\n", b"\n").strip()
    return [scan(block + b"\n\n") for block in _BLANK_LINES.split(text, RECIPIENTS + 5)[: RECIPIENTS + 5]]


def _from_blocks(blocks: Sequence[HeaderFacts]) -> list[Told]:
    return [told for block in blocks if (told := _told(block)) is not None]


def _told(block: HeaderFacts) -> Told | None:
    address = _address(block.value("final-recipient"))
    original = _address(block.value("original-recipient"), is_xtext=True)
    if not address and not original:
        return None
    said = block.value("diagnostic-code")
    kind, semicolon, text = said.partition(";")
    if semicolon and len(kind) < 30 and " " not in kind.strip():
        said = text
    code, status, said = read_reply(said)
    field = _STATUS.search(block.value("status"))
    # What the server said is more exact than what was made of it, but for one thing: it does not know that the
    # message has expired (x.4.7)
    if field and (not status or status.endswith(".0.0") or field[1].endswith(".4.7")):
        status = field[1]
    return Told(address or original, _action(block.value("action"), status), status, code, said, original)


def _action(value: str, status: str) -> Action:
    word = re.split(r"[;(\s]", value.strip(), maxsplit=1)[0].lower()
    try:
        return Action(word)
    except ValueError:
        return {"2": Action.DELIVERED, "4": Action.DELAYED}.get(status[:1], Action.FAILED)


def _address(value: str, *, is_xtext: bool = False) -> str:
    """Return the address of `rfc822; bob@example.net` and of what is like it; "" for a name that is none."""
    kind, semicolon, text = value.partition(";")
    if not semicolon:
        kind, text = "rfc822", value
    text = text.strip().strip("<>").strip()
    if kind.strip().lower() == "utf-8":
        text = _UNICODE.sub(_letter, text)
    elif is_xtext and "@" not in text:
        text = _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)
    text = clean(text, 320)
    return text if "@" in text and " " not in text else ""


def _letter(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""


# --- what people read ------------------------------------------------------------------------------------------------

# A reply code with its blank or hyphen; numbers of three digits stand in prose too, so only those that servers use.
_REPLY: Final = re.compile(
    r"(?<![\w.@#/-])(?<!\d:)(4[235]\d|5[01357]\d|54\d)(?:[ \-#;:]{1,3}|$)"
    r"(?:#?([245]\.\d{1,3}\.\d{1,3})(?!\d)[ :;-]{0,2})?"
)
_TAG: Final = re.compile(r"<[^<>]*+>")
_BREAK: Final = re.compile(r"<(?:br|/p|/div|/tr|/h\d|/li|/pre|/td|p|div|tr|pre)\b[^<>]*+>", re.IGNORECASE)
_HIDDEN: Final = re.compile(r"<(style|script|head)\b", re.IGNORECASE)
_COPY: Final = re.compile(
    r"[-_=*>\s]{0,40}+(?:below this line is a copy|(?:this|here|following|below) is a copy of (?:the|your)"
    r"|the following is a copy of|original message(?: headers?)?\s*(?:[-:]|$)|unsent message"
    r"|message headers? follows?|returned message|headers? of the (?:original )?message)",
    re.IGNORECASE,
)
_COPIED: Final = re.compile(r"(?:received: (?:from|by) |return-path: ?<|dkim-signature: ?v)", re.IGNORECASE)
_DELAYED: Final = re.compile(
    r"not (?:yet )?been delivered (?:yet|for)|not yet been delivered|delivery delayed|delivery incomplete"
    r"|(?:message|delivery|mail)(?: \S{1,40})? (?:is |was |has been )?delayed|is delayed to"
    r"|still (?:be )?(?:trying|retrying)|will (?:continue|keep|be retried|retry)|do not need to (?:re-?send|retry)"
    r"|no action is required|warning message only",
    re.IGNORECASE,
)
_FINAL: Final = re.compile(
    r"permanent|giv(?:en|ing) up|gave up|will not be (?:re)?tried|delivery has failed|failed permanently|no longer",
    re.IGNORECASE,
)
_NOBODY: Final = re.compile(r"(?:mailer-daemon|postmaster|mail-daemon|no-?reply|abuse|helpdesk)@", re.IGNORECASE)
_APART: Final = str.maketrans(dict.fromkeys("<>()[]{}\"',;:|=*`“”«»", " "))
_DOMAIN: Final = re.compile(r"[\w](?:[\w.-]{0,253}[\w])?")
_SHORT: Final = 24  # letters beside an address on a line of its own


def _prose(raw: bytes, root: Part) -> tuple[list[str], HeaderFacts | None]:
    """Return the lines that people read, and the header of a message that was copied into the text, if there is one."""
    lines = _text(raw, root)
    for number, line in enumerate(lines):
        if _COPY.match(line) or _COPIED.match(line):
            start = number if _COPIED.match(line) else number + 1
            rest = "\n".join(lines[start:]).lstrip("\n -=")
            return lines[:number], scan(rest.encode("utf-8", "replace"))
    return lines, None


def _text(raw: bytes, root: Part) -> list[str]:
    rich: Part | None = None
    for part in root.walk():
        if part.disposition == "attachment" or part.is_multipart:
            continue
        if part.content_type == "text/plain" and raw[part.body : part.end].strip():
            return _split(_decoded(raw, part, _TEXT_BYTES))
        if part.content_type == "text/html" and rich is None:
            rich = part
    if rich is None:
        return []
    text = _visible(_decoded(raw, rich, _HTML_BYTES))
    return _split(html.unescape(_TAG.sub("", _BREAK.sub("\n", text)))[:_TEXT_BYTES])


def _visible(text: str) -> str:
    """Return HTML without styles, scripts and its head; one that never ends hides nothing."""
    lower, kept, position = text.lower(), [], 0
    while found := _HIDDEN.search(text, position):
        end = lower.find(f"</{found[1].lower()}", found.end())
        if end < 0:
            break
        kept.append(text[position : found.start()])
        position = end
    return "".join([*kept, text[position:]])


def _split(text: str) -> list[str]:
    # a column of > in front of all of it: somebody forwarded the report
    return [line.rstrip()[:_LINE_LETTERS].lstrip(">") for line in text.split("\n", _LINES)[:_LINES]]


def _decoded(raw: bytes, part: Part, limit: int) -> str:
    octets = _octets(raw, part, limit)
    known = charset(part.charset)
    try:
        return octets.decode(known.codec if known else "utf-8")
    except (UnicodeError, ValueError):
        return octets.decode("cp1252", "replace")


def _octets(raw: bytes, part: Part, limit: int) -> bytes:
    body = raw[part.body : min(part.end, part.body + limit)]
    if part.encoding == "base64":
        plain = b"".join(body.split())
        return decode(plain[: len(plain) // 4 * 4], "base64") or b""
    return decode(body, part.encoding) or body


def _from_prose(lines: Sequence[str], general: Told, strangers: set[str]) -> list[Told]:
    """Return the recipients that the text names, those on lines of their own before those in sentences."""
    found: dict[str, tuple[int, str, bool]] = {}
    for number, line in enumerate(lines):
        if "@" not in line:
            continue
        words = line.translate(_APART).split()
        letters = sum(map(len, words))
        stands_out = not line.lstrip().startswith(("Received", "Reporting-MTA"))
        for word, times in Counter(words).items():
            if address := _plain_address(word):
                key = address.lower()
                is_alone = stands_out and letters - len(word) * times <= _SHORT
                if key in strangers or _NOBODY.match(key) or (key in found and (found[key][2] or not is_alone)):
                    continue
                found[key] = (number, address, is_alone)
        if len(found) >= _PROSE_RECIPIENTS:
            break
    if not found:
        return []
    ordered = sorted(found.values())
    starts = [number for number, _, is_alone in ordered if is_alone]
    told = []
    for number, address, is_alone in ordered:
        reach = number + (15 if is_alone else 3)
        behind = next((one for one in starts if one > number), reach)
        code, status, said = _reason(lines[number : min(behind, reach)], address)
        if not code and not is_alone:
            code, status, said = general.code, general.status, general.said
        told.append(Told(address, general.action, status, code, said, is_named=is_alone))
    return told


def _plain_address(word: str) -> str:
    local, at, domain = word.strip(".!?…-").partition("@")
    if not at or not 0 < len(local) <= 64 or len(domain) > 255 or _DOMAIN.fullmatch(domain) is None:
        return ""
    return f"{local}@{domain}"


def _action_of(lines: Sequence[str], subject: str) -> Action:
    text = " ".join([subject, *lines])[:6_000]
    return Action.DELAYED if _DELAYED.search(text) and not _FINAL.search(text) else Action.FAILED


def _reason(lines: Sequence[str], address: str) -> tuple[int, str, str]:
    """Return code, status and words of what stands behind an address, up to the end of its paragraph."""
    for number, line in enumerate(lines):
        if found := _REPLY.search(line):
            return read_reply(" ".join([line[found.start() :], *_paragraph(lines[number + 1 : number + 6])]))
    if not address:
        return 0, "", ""
    # no code of SMTP: the words beside the address, or those below it
    beside = lines[0].replace(address, "").strip(" <>:;,.-()")
    words = " ".join(([beside] if len(beside) > 3 else []) + _paragraph(lines[1:5]))
    status = next((found[1] for line in lines if (found := _STATUS.search(line))), "")
    if status:  # Exchange has <server #5.1.1>, qmail (#5.1.2)
        words = re.sub(rf"[<(][^<>()]{{0,200}}#{re.escape(status)}[>)]", "", words)
    return 0, status, _tidy(words)


def _paragraph(lines: Sequence[str]) -> list[str]:
    end = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    return [line.strip() for line in lines[:end]]


def _tidy(words: str) -> str:
    """Return words on one line, without the bracket or quote that closes what began before them."""
    text = clean(" ".join(words.split()), SAID_LETTERS)
    for opening, closing in ("()", "<>", "[]"):
        if text.endswith(closing) and text.count(opening) < text.count(closing):
            text = text[:-1]
    return text.rstrip(' ".')


def read_reply(text: str) -> tuple[int, str, str]:
    """Return code, status and words of `550-5.1.1 no such 550 5.1.1 user`: each once."""
    text = clean(text, 2 * SAID_LETTERS)
    found = _REPLY.search(text)
    code = int(found[1]) if found else 0
    status = (found[2] or "") if found else ""
    if not status and (other := _STATUS.search(text)):
        status = other[1]
    if found is None:
        return 0, status, _tidy(text.removeprefix(status) if status else text)
    words = text[found.end() :]
    if status:
        words = re.sub(rf"\b{code}[- ]#?{re.escape(status)}[ :]?", "", words).removeprefix(status)
    words = re.sub(rf"(?<!\S){code}-", "", words)
    return code, status, _tidy(words)


# --- together --------------------------------------------------------------------------------------------------------


def _join(told: list[Told], facts: HeaderFacts, by_text: Sequence[Told], general: Told) -> list[Told]:
    """Return who is told of, the surest source first; words that the fields lack are taken from the text."""
    texts = {one.address.lower(): one for one in by_text}
    joined = [_filled(one, texts) for one in told]
    known = {address.lower() for one in joined for address in one.addresses}
    for box in parse_addresses(b", ".join(facts.raw_values("x-failed-recipients")[:RECIPIENTS])):
        key = box.address.lower()
        if not box.address or key in known:
            continue
        known.add(key)
        said = texts.get(key) or Told(box.address, Action.FAILED)
        if not said.said and general.code:
            said = replace(said, code=general.code, status=general.status, said=general.said)
        joined.append(replace(said, address=box.address, action=Action.FAILED, is_named=True))
    if joined:
        return joined
    on_lines = [one for one in by_text if one.is_named]
    return on_lines or list(by_text)


def _filled(told: Told, texts: dict[str, Told]) -> Told:
    if told.said or told.code or told.action not in (Action.FAILED, Action.DELAYED):
        return told
    found = next((texts[one.lower()] for one in told.addresses if one.lower() in texts), None)
    if found is None or not (found.code or found.is_named):
        return told
    return replace(told, code=found.code, said=found.said, status=told.status or found.status)
