"""The MIME tree of a message as byte offsets: what lies where, nothing decoded, nothing copied.

The standard library's parser answers with objects that cannot be written back unchanged. Who wants to splice needs
offsets instead: of every header field, every body, every delimiter line. The scanner never raises, whatever the
bytes; what is odd becomes a *defect* on the part that has it, and the caller decides what a defect costs.

Time is linear in the size for each level of nesting, and the levels are bounded: delimiters are found by
`bytes.find`, never by looking at each line, so that 20 MB of base64 cost milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.mime.search import find_by

MAX_DEPTH: Final = 50
MAX_PARTS: Final = 1_000
MAX_FIELDS: Final = 1_000  # per part; honest mail has below a hundred
MAX_HEADER_BYTES: Final = 256 * 1024  # per part
MAX_FALSE_DELIMITERS: Final = 10_000  # lines that begin like a delimiter and are none

# RFC 5322 §2.2: a name of printable characters without colon; old senders put blanks before the colon (§4.5.3).
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_PARAMETER = re.compile(r'([^\s=;"]++)\s*+=\s*+')
_BETWEEN = re.compile(r"[;\s]*+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?\Z")  # RFC 2231 §4.1: name*0, name*0*, name*


class Field(NamedTuple):
    """One header field. `value` is what stands between the colon and the last line break, folds included."""

    name: str  # lower case
    start: int
    value: bytes
    end: int  # behind its line break

    @property
    def text(self) -> str:
        """Return the value on one line, stripped, octets above 127 as Latin-1: for looking, not for showing."""
        return " ".join(self.value.decode("latin-1").split())


class Delimiter(NamedTuple):
    """A boundary line: `start` at its first hyphen, `end` behind its line break."""

    start: int
    end: int
    closing: bool


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Bounds(NamedTuple):
    """How far a scan goes. The defaults are for who has to find every part."""

    depth: int = MAX_DEPTH
    parts: int = MAX_PARTS
    fields: int = MAX_FIELDS
    header_bytes: int = MAX_HEADER_BYTES
    false_delimiters: int = MAX_FALSE_DELIMITERS


WHOLE: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one. Offsets are into the bytes that were scanned.

    `start:header_end` are the fields, `body:end` is the body; between the two lies the blank line. The line break in
    front of a delimiter belongs to the delimiter (RFC 2046 §5.1.1). message/* is a leaf: what was forwarded as an
    attachment is never looked into.
    """

    start: int
    header_end: int
    body: int
    end: int
    fields: tuple[Field, ...]
    content_type: str  # "type/subtype", lower case, the default filled in
    parameters: Mapping[str, str]  # of Content-Type
    encoding: str  # of transfer, lower case; "7bit" when none is named
    disposition: str  # "inline", "attachment" or ""
    filename: str
    delimiters: tuple[Delimiter, ...] = ()
    children: tuple[Part, ...] = ()
    defects: tuple[str, ...] = ()

    @property
    def charset(self) -> str:
        """Return the named charset in lower case, or ""."""
        return self.parameters.get("charset", "").strip().lower()

    @property
    def is_multipart(self) -> bool:
        return self.content_type.startswith("multipart/")

    def field(self, name: str) -> Field | None:
        """Return the first field of that (lower-case) name, or None."""
        return next((field for field in self.fields if field.name == name), None)

    def walk(self) -> Iterator[Part]:
        """Yield this part and all below it, in the order in which they stand in the message."""
        yield self
        for child in self.children:
            yield from child.walk()


def scan(raw: bytes, bounds: Bounds = WHOLE) -> Part:
    """Return the tree of a message with any line ends; never raises."""
    return _Scan(raw, bounds).part(0, len(raw), len(raw), "text/plain", 0)


class _Scan:
    def __init__(self, raw: bytes, bounds: Bounds) -> None:
        self._raw = raw
        self._bounds = bounds
        self._parts = 0
        self._false_delimiters = 0

    def part(self, start: int, end: int, limit: int, default_type: str, depth: int) -> Part:
        """`limit` is where the next delimiter begins: its line break may also be the blank line of a bodyless part."""
        self._parts += 1
        defects: list[str] = []
        fields, header_end = self._fields(start, end, defects)
        if self._raw.startswith(b"\r\n", header_end, limit):
            body = header_end + 2
        elif self._raw.startswith(b"\n", header_end, limit):
            body = header_end + 1
        else:
            body = header_end
        if body == header_end or (fields and self._raw[header_end - 1] != 0x0A):
            body = header_end
            defects.append("no blank line behind the header")
        end = max(body, end)

        content_type, parameters, encoding, disposition, filename = _describe(fields, default_type, defects)
        delimiters: tuple[Delimiter, ...] = ()
        children: tuple[Part, ...] = ()
        if content_type.startswith("multipart/") and depth >= self._bounds.depth:
            defects.append("nested too deeply")
        elif content_type.startswith("multipart/"):
            delimiters, children = self._children(body, end, content_type, parameters, depth, defects)
        return Part(
            start, header_end, body, end, fields, content_type, parameters, encoding, disposition, filename,
            delimiters, children, tuple(defects),
        )  # fmt: skip

    def _fields(self, start: int, end: int, defects: list[str]) -> tuple[tuple[Field, ...], int]:
        position = start
        if start == 0 and self._raw.startswith(b"From "):  # an mbox line that some client left in front
            position = (self._raw.find(b"\n", 0, end) + 1) or end
        fields: list[Field] = []
        limit = min(end, start + self._bounds.header_bytes)
        while match := _FIELD.match(self._raw, position, limit):
            if len(fields) == self._bounds.fields or (match.end() == limit and limit < end):
                defects.append("header too long")
                break
            name, value = match.groups()
            fields.append(Field(name.decode("ascii").lower(), position, value.removesuffix(b"\r"), match.end()))
            position = match.end()
        return tuple(fields), position

    def _children(
        self, body: int, end: int, content_type: str, parameters: Mapping[str, str], depth: int, defects: list[str]
    ) -> tuple[tuple[Delimiter, ...], tuple[Part, ...]]:
        boundary = parameters.get("boundary", "").rstrip()
        if not boundary:
            defects.append("multipart without a boundary")
            return (), ()
        delimiters = tuple(self._delimiters(b"--" + boundary.encode("latin-1", "replace"), body, end, defects))
        if not delimiters:
            defects.append("no part behind the boundary")
        elif not delimiters[-1].closing:
            defects.append("multipart without its end")
        default_type = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
        children: list[Part] = []
        for index, delimiter in enumerate(delimiters):
            if delimiter.closing:
                break
            if self._parts >= self._bounds.parts:
                defects.append("too many parts")
                break
            if index + 1 < len(delimiters):
                limit = delimiters[index + 1].start
                stop = limit - (2 if self._raw.endswith(b"\r\n", 0, limit) else 1)
            else:
                limit = stop = end
            children.append(self.part(delimiter.end, max(delimiter.end, stop), limit, default_type, depth + 1))
        return delimiters, tuple(children)

    def _delimiters(self, line: bytes, body: int, end: int, defects: list[str]) -> Iterator[Delimiter]:
        """Like most readers we take whole lines only: RFC 2046 would let a prefix count, and nested boundaries that
        are prefixes of each other exist."""
        raw, position = self._raw, body
        found = 0
        while True:
            if position == body and raw.startswith(line, body, end):
                start = body
            elif (start := find_by(b"-", b"\n" + line, raw, position, end) + 1) == 0:
                return
            behind = start + len(line)
            closing = raw.startswith(b"--", behind, end)
            behind += 2 if closing else 0
            if (line_end := raw.find(b"\n", behind, end) + 1) == 0:
                line_end = end
            if raw[behind:line_end].strip(b" \t\r\n"):
                self._false_delimiters += 1
                if self._false_delimiters > self._bounds.false_delimiters:
                    defects.append("too many lines that look like delimiters")
                    return
                position = behind
                continue
            yield Delimiter(start, line_end, closing)
            found += 1
            if closing or found > self._bounds.parts:
                return
            position = line_end - 1  # two delimiters in a row share this line break


def _describe(
    fields: tuple[Field, ...], default_type: str, defects: list[str]
) -> tuple[str, Mapping[str, str], str, str, str]:
    content_type, parameters, encoding, disposition, filename = default_type, _NONE, "7bit", "", ""
    seen: set[str] = set()
    for field in fields:
        if not field.name.startswith("content-"):
            continue
        if field.name in seen:
            defects.append(f"two fields named {field.name}")
            continue
        seen.add(field.name)
        if field.name == "content-type":
            content_type, parameters = read_parameters(field.value)
            if content_type.count("/") != 1:
                content_type = "text/plain"  # RFC 2045 §5.2 for what cannot be understood
                defects.append("unreadable content-type")
        elif field.name == "content-transfer-encoding":
            encoding = _bare(field.value.decode("latin-1")).lower() or "7bit"
        elif field.name == "content-disposition":
            disposition, more = read_parameters(field.value)
            filename = more.get("filename", "")
    return content_type, parameters, encoding, disposition, filename or parameters.get("name", "")


def read_parameters(value: bytes) -> tuple[str, Mapping[str, str]]:
    """Return the lower-case main value and the parameters of a Content-Type or Content-Disposition.

    Quoted strings, comments behind a value, and the pieces and charsets of RFC 2231 are understood; octets above 127
    come back as Latin-1.
    """
    text = value.decode("latin-1")
    main, semicolon, rest = text.partition(";")
    found: dict[str, str] = {}
    position = 0
    while semicolon:
        # Never from within a run of semicolons again: there may be a hundred thousand of them.
        behind = position = between.end() if (between := _BETWEEN.match(rest, position)) else position
        if match := _PARAMETER.match(rest, position):
            if quoted := _QUOTED.match(rest, match.end()):
                content = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL) if "\\" in quoted[1] else quoted[1]
                content = content.replace("\r", "").replace("\n", "")
                behind = quoted.end()
            else:
                behind = len(rest) if rest.startswith('"', match.end()) else match.end()
                content = _bare(rest[match.end() : (end if (end := rest.find(";", behind)) >= 0 else len(rest))])
            found.setdefault(match[1].lower(), content)
        if (position := rest.find(";", behind) + 1) == 0:
            break
    if "*" in rest and any("*" in name for name in found):
        found = _join_sections(found)
    return _bare(main).lower(), found


def _bare(text: str) -> str:
    return text.partition("(")[0].strip().strip('"')


def _join_sections(found: Mapping[str, str]) -> dict[str, str]:
    joined = {name: value for name, value in found.items() if "*" not in name}
    sections: dict[str, list[tuple[int, bool, str]]] = {}
    for name, value in found.items():
        if "*" in name and (match := _SECTION.match(name)):
            sections.setdefault(match[1], []).append((int(match[2] or 0), bool(match[3]), value))
    for name, pieces in sections.items():
        pieces.sort(key=lambda piece: piece[0])
        encoded = pieces[0][1] and pieces[0][2].count("'") >= 2
        charset, _, first = pieces[0][2].split("'", 2) if encoded else ("", "", pieces[0][2])
        octets = b"".join(
            unquote_to_bytes(text) if extended else text.encode("latin-1")
            for (_, extended, _), text in zip(pieces, [first, *(piece[2] for piece in pieces[1:])], strict=True)
        )
        try:
            joined[name] = octets.decode(charset or "latin-1", "replace")
        except (LookupError, ValueError):  # an unknown charset; "idna" and friends refuse in ways of their own
            joined[name] = octets.decode("latin-1")
    return joined
