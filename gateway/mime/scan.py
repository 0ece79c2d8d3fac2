"""What the header of a message says, read within limits, from any bytes, without ever raising.

Every inbound message passes here on the event thread, so the work is bounded twice: by the limits below, and by
expressions that look at each byte a fixed number of times. What lies beyond a limit is left out (of the header as a
whole, `truncated` says so); the raw bytes are untouched and stay the truth.

Why not the standard library's `email`: its default policy needs seconds for a bomb of encoded words and overflows
the stack on nested parentheses; its older policy asks a charset's name of the import system, hostile names included.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Final, NamedTuple

HEADER_LIMIT: Final = 256 * 1024  # bytes of header that we look at; real ones stay below 64 KiB
FIELD_LIMIT: Final = 1_000  # lines that begin a field (or are junk); a long Received chain has a hundred
VALUE_LIMIT: Final = 16 * 1024  # bytes of one value that are decoded to text
WORD_LIMIT: Final = 256  # encoded words in one value; each costs a decoder call
ADDRESS_BYTES: Final = 48 * 1024  # of one address list; a thousand plain recipients
ADDRESS_LIMIT: Final = 500  # addresses of one list
TOKEN_LIMIT: Final = 3_000  # words, commas and brackets of one list
TEXT_LIMIT: Final = 2_000  # characters of a subject or a name that we keep
IDS_KEPT: Final = 20  # message ids kept from each end of References: PROVIDERS' cure for endless ones
_ID_BYTES: Final = 998  # one line: RFC 5322 §2.1.1

# One field: name, colon, value with its folded lines. Possessive throughout: nothing is looked at twice.
_FIELD: Final = re.compile(rb"([!-9;-~]{1,200}+)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?")
_ENCODED: Final = re.compile(r"=\?([\w.:()+-]{1,40}+)(?:\*[\w-]{0,20})?\?([bBqQ])\?([^?]*+)\?=", re.ASCII)
_UNCLEAN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MESSAGE_ID: Final = re.compile(rb"<([^<>]{1,998}+)>")
_SPACE: Final = re.compile(r"\s+")
_SPACE_BYTES: Final = re.compile(rb"\s+")

_QUOTED = r'\s*+(?:"((?:[^"\\]++|\\.)*+)("?)'
_REST = (
    r"|(=\?[^?\s]{1,60}+\?[bBqQ]\?[^?\s]*+\?=)"  # an encoded word, which may hold a comma it should not
    r"|<([^<>]*+)>?"
    r"|\(((?:[^()\\]++|\\.)*+)\)"  # a comment without another one inside
    r"|(\[[^\[\]]*+\])"  # a domain literal, whose colons are no group
    r"|([(),:;])"
    r"|((?:[^\"<>(),:;\[\]\s\\]|\\.)++)"
    r"|(.))"  # a stray quote or bracket
)
_TOKEN: Final = re.compile(_QUOTED + _REST, re.DOTALL)
_TOKEN_UNQUOTED: Final = re.compile(r"\s*+(?:(?!)()()" + _REST, re.DOTALL)
_STRAY = 9
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_PLAIN_ADDRESS: Final = re.compile(r"[^@\s]++@[^@\s]++")


class Field(NamedTuple):
    """One header field. `raw[start:end]` is all of it with its line end, `raw[value:end]` what follows the colon."""

    name: str  # lower case
    start: int
    value: int
    end: int


class Mailbox(NamedTuple):
    """A display name, decoded, and an address as written. Either may be empty, never both."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name else self.address

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2].lower()


@dataclass(frozen=True)
class HeaderFacts:
    """The header of one message. Nothing but offsets is computed ahead; each fact costs when it is first asked for.

    `block`: the header's bytes as received, line ends included, at most `HEADER_LIMIT`. `body_start`: offset of the
    first byte behind the empty line; the message's length when it has no empty line; None when none came within the
    limit. `truncated`: a limit cut something off. All text is free of control characters and of lone surrogates.
    """

    block: bytes
    fields: tuple[Field, ...]
    body_start: int | None
    truncated: bool = False

    @cached_property
    def _index(self) -> Mapping[str, list[Field]]:
        index: dict[str, list[Field]] = {}
        for one in self.fields:
            index.setdefault(one.name, []).append(one)
        return index

    def has(self, name: str) -> bool:
        """Is there such a field? `name` in lower case, here and below."""
        return name in self._index

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._index)

    def raw_values(self, name: str) -> tuple[bytes, ...]:
        """Return the values of every field of that name, unfolded and stripped, as bytes, in their order."""
        return tuple(_unfold(self.block[field.value : field.end]) for field in self._index.get(name, ()))

    def raw_value(self, name: str) -> bytes:
        """Return the value of the topmost field of that name, b"" when there is none."""
        found = self._index.get(name)
        return _unfold(self.block[found[0].value : found[0].end]) if found else b""

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of every field of that name as text, encoded words decoded."""
        return tuple(map(decode_text, self.raw_values(name)))

    def value(self, name: str) -> str:
        """Return the topmost value of that name as text, "" when there is none."""
        return decode_text(self.raw_value(name))

    def mailboxes(self, name: str) -> tuple[Mailbox, ...]:
        """Return the addresses of every field of that name: a broken sender splits a long To over several."""
        return parse_addresses(b", ".join(self.raw_values(name)))

    @cached_property
    def from_(self) -> Mailbox:
        """The first author. Empty name and address when the field is missing or says nothing."""
        authors = self.authors
        return authors[0] if authors else Mailbox("", "")

    @cached_property
    def authors(self) -> tuple[Mailbox, ...]:
        return self.mailboxes("from")

    @cached_property
    def sender(self) -> Mailbox | None:
        return next(iter(self.mailboxes("sender")), None)

    @cached_property
    def to(self) -> tuple[Mailbox, ...]:
        return self.mailboxes("to")

    @cached_property
    def cc(self) -> tuple[Mailbox, ...]:
        return self.mailboxes("cc")

    @cached_property
    def reply_to(self) -> tuple[Mailbox, ...]:
        return self.mailboxes("reply-to")

    @cached_property
    def subject(self) -> str:
        return self.value("subject")[:TEXT_LIMIT]

    @cached_property
    def message_id(self) -> str:
        """The Message-ID with its angle brackets (added where a sender forgot them), or ""."""
        value = self.raw_value("message-id")[:VALUE_LIMIT]
        if found := message_ids(value, 1):
            return found[0]
        bare = _SPACE_BYTES.sub(b"", value.strip(b"<> \t"))
        return _id_text(bare) if b"@" in bare and len(bare) <= _ID_BYTES else ""

    @cached_property
    def in_reply_to(self) -> tuple[str, ...]:
        return message_ids(self.raw_value("in-reply-to"), IDS_KEPT)

    @cached_property
    def references(self) -> tuple[str, ...]:
        """Ids of References, oldest first: the first and the last 20 where there are more."""
        return message_ids(self.raw_value("references"), IDS_KEPT)

    @cached_property
    def return_path(self) -> str | None:
        """The envelope's return path as the provider noted it: "" is the null one, None when nothing is noted."""
        if not self.has("return-path"):
            return None
        value = _plain(self.raw_value("return-path")[:_ID_BYTES]).strip()
        inner = value.partition("<")[2].partition(">")[0] if "<" in value else value
        return _clean(inner).strip()

    @cached_property
    def date(self) -> datetime | None:
        """The Date field as aware UTC, or None when it is missing or is no date."""
        text = _plain(self.raw_value("date")[:120])
        try:
            parsed = parsedate_to_datetime(text)
            # "-0000" gives a naive time: UTC, of an unknown zone (RFC 5322 §3.3)
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None

    @cached_property
    def content_type(self) -> str:
        """The media type in lower case, "text/plain" when none is given (RFC 2045 §5.2)."""
        value = _plain(self.raw_value("content-type")[:200]).partition(";")[0].strip().lower()
        return value if "/" in value else "text/plain"

    def content_type_parameter(self, name: str) -> str:
        """Return a parameter of Content-Type in lower case, "" when missing. Not for boundaries: their case counts."""
        value = _plain(self.raw_value("content-type")[:4_000])
        found = re.search(rf';\s*{re.escape(name)}\s*=\s*(?:"([^"]*)"|([^\s;"]+))', value, re.IGNORECASE)
        return (found[1] or found[2] or "").strip().lower() if found else ""


NOTHING: Final = HeaderFacts(b"", (), 0)  # stands in for a header that nobody may read any more


def scan(raw: bytes) -> HeaderFacts:
    """Return the header of `raw`: any bytes, with CRLF or LF line ends.

    A line that is neither a field nor a continuation (an mbox "From " line, junk) is passed over. A header that ends
    with the message has no body. Source: RFC 5322 §2.2, read leniently.
    """
    body_start: int | None
    if raw[:2] == b"\r\n" or raw[:1] == b"\n":
        return HeaderFacts(b"", (), 2 if raw[:1] == b"\r" else 1)
    window = HEADER_LIMIT + 3
    crlf = raw.find(b"\n\r\n", 0, window)
    lf = raw.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else window)
    truncated = False
    if crlf >= 0 and (lf < 0 or crlf < lf):
        end, body_start = crlf + 1, crlf + 3
    elif lf >= 0:
        end, body_start = lf + 1, lf + 2
    elif len(raw) <= HEADER_LIMIT:
        end = body_start = len(raw)
    else:
        end, body_start, truncated = HEADER_LIMIT, None, True
    block = raw[:end]
    fields: list[Field] = []
    position = lines = 0
    match = _FIELD.match
    while position < end:
        if lines == FIELD_LIMIT:
            truncated = True
            break
        lines += 1
        if found := match(block, position):
            value, stop = found.start(2), found.end()
            fields.append(Field(found[1].decode("ascii").lower(), position, value, stop))
            position = stop
        elif (newline := block.find(b"\n", position)) >= 0:
            position = newline + 1
        else:
            break
    return HeaderFacts(block, tuple(fields), body_start, truncated)


def message_ids(value: bytes, keep: int) -> tuple[str, ...]:
    """Return the ids in angle brackets, each once, in their order: the first `keep` and the last `keep`."""
    room = keep * (_ID_BYTES // 6)  # ids that fill whole lines exist on paper only
    if len(value) <= 2 * room:
        found = _MESSAGE_ID.findall(value)
    else:
        found = _MESSAGE_ID.findall(value[:room])[:keep] + _MESSAGE_ID.findall(value[-room:])[-keep:]
    if len(found) > 2 * keep:
        found = found[:keep] + found[-keep:]
    elif keep == 1:
        found = found[:1]
    return tuple(dict.fromkeys(_id_text(_SPACE_BYTES.sub(b"", one)) for one in found if not one.isspace()))


def decode_text(value: bytes) -> str:
    """Return an unfolded header value as text: encoded words (RFC 2047) decoded, raw 8-bit read as UTF-8 or else as
    Windows-1252, control characters made spaces. Never raises; an encoded word that makes no sense stays as it is.
    """
    text = _plain(value[:VALUE_LIMIT])
    if "=?" in text:
        text = _decode_words(text)
    return _clean(text)


def parse_addresses(value: bytes) -> tuple[Mailbox, ...]:
    """Return the mailboxes of an unfolded address list, groups flattened, comments and routes dropped, in linear time.

    Lenient: a display name without quotes, an address without angle brackets and a name without an address are taken.
    Source: RFC 5322 §3.4, §4.4.
    """
    text = _plain(value[:ADDRESS_BYTES])
    found: list[Mailbox] = []
    words: list[str] = []
    comment = angle = ""
    depth = 0
    token, position = _TOKEN, 0
    for _ in range(TOKEN_LIMIT):
        if (matched := token.match(text, position)) is None:
            break  # the end
        kind = matched.lastindex or _STRAY
        position = matched.end()
        if kind == 2:
            if not matched[2]:  # a quote that never closes: from here on a quote is a letter
                token, position = _TOKEN_UNQUOTED, matched.start(1)
                continue
            part = matched[1]
            if not depth:
                words.append(_QUOTED_PAIR.sub(r"\1", part) if "\\" in part else part)
        elif kind == 5:
            comment = comment or matched[5]
        elif kind == 7:
            mark = matched[7]
            if mark == "(":
                depth += 1
            elif mark == ")":
                depth = max(0, depth - 1)
            elif depth:
                continue
            elif mark == ":":
                words.clear()  # the name of a group
            else:
                if (words or angle) and (box := _mailbox(words, angle, comment)):
                    found.append(box)
                    if len(found) == ADDRESS_LIMIT:
                        return tuple(found)
                words, comment, angle = [], "", ""
        elif kind == 4:
            if not depth:
                angle = angle or matched[4]
        elif kind != _STRAY and not depth:
            words.append(matched[kind])
    if box := _mailbox(words, angle, comment):
        found.append(box)
    return tuple(found)


def _mailbox(words: list[str], angle: str, comment: str) -> Mailbox | None:
    address = ""
    if angle:
        address = angle.strip() if '"' in angle else _SPACE.sub("", angle)
        if address.startswith("@"):  # a source route: RFC 5322 §4.4
            address = address.rpartition(":")[2]
        elif address[:7].lower() == "mailto:":
            address = address[7:]
    elif len(words) == 1:
        if "@" in words[0]:
            address, words = words[0], []
    else:
        joined = "".join(words)
        if joined.count("@") == 1 and not any(_PLAIN_ADDRESS.fullmatch(word) for word in words):
            address, words = joined, []  # white space around the @, or "a b"@c
        else:
            for number, word in enumerate(words):
                if _PLAIN_ADDRESS.fullmatch(word):
                    address, words = word, words[:number] + words[number + 1 :]
                    break
    name = " ".join(words) or comment
    if "=?" in name:
        name = _decode_words(name[:VALUE_LIMIT])
    name = _clean(name[:TEXT_LIMIT]).strip()
    address = _clean(address[:_ID_BYTES]).strip()
    return Mailbox(name, address) if name or address else None


def _unfold(value: bytes) -> bytes:
    # the line end goes, the white space that folded it stays: RFC 5322 §2.2.3
    value = value.strip()
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    return value


def _plain(value: bytes) -> str:
    if value.isascii():
        return value.decode("ascii")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def _clean(text: str) -> str:
    return text if text.isprintable() else _UNCLEAN.sub(" ", text)


def _id_text(inner: bytes) -> str:
    return f"<{_clean(_plain(inner))}>"


def _decode_words(text: str) -> str:
    """Replace encoded words. Neighbours of one charset are joined as bytes first: senders cut in mid-character."""
    out: list[str] = []
    pending, charset, end = b"", "", 0
    for count, word in enumerate(_ENCODED.finditer(text)):
        if count == WORD_LIMIT:
            break
        between = text[end : word.start()]
        end = word.end()
        octets = _word_bytes(word[2], word[3])
        if octets is None:
            out += (_charset_text(pending, charset), between, word[0])
            pending = b""
            continue
        name = word[1].lower()
        if pending and name == charset and not between.strip():
            pending += octets
            continue
        out.append(_charset_text(pending, charset))
        if between.strip() or not count:
            out.append(between)  # white space between two encoded words is not shown: RFC 2047 §6.2
        pending, charset = octets, name
    out += (_charset_text(pending, charset), text[end:])
    return "".join(out)


def _word_bytes(encoding: str, payload: str) -> bytes | None:
    try:
        octets = payload.encode("ascii")
    except UnicodeEncodeError:
        octets = payload.encode()
    if encoding in "qQ":
        return binascii.a2b_qp(octets, header=True)
    try:
        return binascii.a2b_base64(octets + b"==")
    except binascii.Error:
        try:
            return binascii.a2b_base64(octets.rstrip(b"=")[: len(octets.rstrip(b"=")) // 4 * 4])
        except binascii.Error:
            return None


def _charset_text(octets: bytes, charset: str) -> str:
    if not octets:
        return ""
    codec = _CODECS.get(charset.replace("_", "-"))
    if codec is None or codec == "utf-8":
        return _plain(octets)
    return octets.decode(codec, "replace")


def _codecs() -> dict[str, str]:
    # A closed list. Python's own registry would import by a sender's wish, keep every unknown name for ever, and
    # knows "punycode", which takes quadratic time. Where browsers read a superset, so do we (WHATWG encoding standard).
    codecs = {f"iso-8859-{n}": f"iso8859-{n}" for n in range(2, 17) if n != 12}
    codecs |= {f"{prefix}{n}": f"cp{n}" for n in range(1250, 1259) for prefix in ("windows-", "cp", "cp-", "x-cp")}
    codecs |= {f"{prefix}{n}": f"cp{n}" for n in (437, 850, 852, 855, 858, 866) for prefix in ("ibm", "cp")}
    codecs |= {"iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "iso8859-1": "cp1252"}
    codecs |= {"iso-8859-9": "cp1254", "iso-8859-8-i": "iso8859-8", "iso-8859-11": "cp874", "tis-620": "cp874"}
    codecs |= {"windows-874": "cp874", "koi8-r": "koi8-r", "koi8-u": "koi8-u", "macintosh": "mac-roman"}
    codecs |= {"euc-jp": "euc-jp", "shift-jis": "cp932", "sjis": "cp932", "windows-31j": "cp932", "cp932": "cp932"}
    codecs |= {"iso-2022-jp": "iso2022-jp", "iso-2022-jp-2": "iso2022-jp-2", "iso-2022-kr": "iso2022-kr"}
    codecs |= {"euc-kr": "cp949", "ks-c-5601-1987": "cp949", "cp949": "cp949", "big5": "cp950", "cp950": "cp950"}
    codecs |= {"big5-hkscs": "big5hkscs", "hz-gb-2312": "hz", "gb2312": "gb18030", "gbk": "gb18030"}
    codecs |= {"gb18030": "gb18030", "cp936": "gb18030", "utf-16": "utf-16", "utf-16le": "utf-16-le"}
    codecs |= {"utf-16be": "utf-16-be", "utf-32": "utf-32", "utf-7": "utf-7", "unicode-1-1-utf-7": "utf-7"}
    return codecs | {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8"}


_CODECS: Final = _codecs()
