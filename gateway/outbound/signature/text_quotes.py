"""Which lines of a text/plain body are somebody else's.

Known by structure: the sign `>`, a line of dashes with a header block behind it, a line with a date and a colon above
a quote. The words come in forty languages. Lines are octets without their LF, of a charset in which ASCII signs can
be found; each expression is bounded, because the quoted text is a stranger's.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final, NamedTuple

from gateway.outbound.signature.wording import ends_with_colon, has_date

# How "From:" is called at the head of a quoted message, where no line of dashes is above it.
_FROM_WORDS: Final = (
    *(
        "From",
        "Von",
        "De",
        "Da",
        "Van",
        "Fra",
        "Od",
        "Från",
        "Lähettäjä",
        "Feladó",
        "De la",
        "Kimden",
        "Saatja",
        "Pošiljatelj",
    ),
    *("От", "Від", "Από", "发件人", "寄件者", "差出人", "보낸 사람", "מאת", "من"),
)
_CODECS: Final = (
    *("utf-8", "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8-r"),
    *("gb18030", "big5", "euc-jp", "shift-jis", "euc-kr"),
)


def _in_charsets(words: tuple[str, ...]) -> tuple[bytes, ...]:
    found = set()
    for word in words:
        for codec in _CODECS:
            try:
                found.add(word.encode(codec))
            except UnicodeEncodeError:
                continue
    return tuple(sorted(found, reverse=True))


_FROM_ALL: Final = _in_charsets(_FROM_WORDS)
_COLON: Final = rb"(?::|" + b"|".join(map(re.escape, _in_charsets(("：",)))) + rb")"
_FROM_LINE = re.compile(
    rb"\*?(?:" + b"|".join(map(re.escape, _FROM_ALL)) + rb")[ \t]?" + _COLON + rb"\*?[ \t\xc2\xa3]?"
)
_HEADER_LINE = re.compile(rb"\*?[^\s:>*-][^:\n]{0,40}?" + _COLON + rb"\*?(?:[ \t\xa0]|\xc2\xa0)*\S")
# "-----Original Message-----", "---------- Forwarded message ---------", "----- Forwarded message from Ana -----"
_DASHED = re.compile(rb"[ \t]*+-{4,}+[ \t]?[^-\s][^\n]{1,200}?-{4,}+\s*\Z")
# The same with the header block behind it in one line: Yahoo and Samsung make such text of their HTML
_JOINED = re.compile(rb"[ \t]*+-{4,}+[ \t]?[^-\s][^\n-]{1,60}-{4,}+[ \t]{0,3}[^\s:<>-]{1,20}[ \t]?:[ \t]")
_RULE = re.compile(rb"_{20,}\s*\Z")  # Outlook on the web
_FORWARD_END: Final = (b"----- End forwarded message -----", b"----- End of forwarded message -----")  # mutt
_SIGNS: Final = frozenset(bytes([sign]) for sign in b"-_ \t*") | {word[:1] for word in _FROM_ALL}
# Yahoo, and what Exchange makes of other clients' HTML: one line with all of it, and then no sign at all
_TIME = re.compile(rb"\d[:.]\d\d")
_YEAR = re.compile(rb"\d{4}")
_MAX_ATTRIBUTION = 3  # lines


class Reading(NamedTuple):
    """A text in lines. `quoted`: for each, whether it is somebody else's. `begin`: the first of these, with the line
    that introduces the quote; the number of lines when there is none."""

    lines: list[bytes]
    quoted: list[bool]
    begin: int

    def starts(self) -> list[int]:
        """Return where each line begins, and where the text ends."""
        return [0, *accumulate(len(line) + 1 for line in self.lines)]

    def is_own(self, index: int) -> bool:
        """Has the line words of the agent's?"""
        return not self.quoted[index] and bool(self.lines[index].strip())


def read(text: bytes) -> Reading:
    lines = text.split(b"\n")
    quoted = [line.startswith(b">") for line in lines]
    first = next((index for index, is_quoted in enumerate(quoted) if is_quoted), len(lines))
    begin = _separator(lines, first)
    if begin is not None:
        end = next((i + 1 for i in range(begin, len(lines)) if lines[i].rstrip() in _FORWARD_END), len(lines))
        quoted[begin:end] = [True] * (end - begin)
    elif first < len(lines):
        begin = _attribution(lines, first)
        quoted[begin:first] = [True] * (first - begin)
    return Reading(lines, quoted, len(lines) if begin is None else begin)


def _separator(lines: list[bytes], first_quoted: int) -> int | None:
    """A line behind which everything is somebody else's, known by what follows it."""
    for index in range(first_quoted):
        line = lines[index]
        if line[:1] in _SIGNS:
            if _FROM_LINE.match(line):
                following = lines[index + 1 : index + 6]
                headers = [one for one in following if _HEADER_LINE.match(one)]
                if len(headers) >= 2 and any(map(has_date, headers)):
                    return index
            elif _JOINED.match(line):
                return index
            elif _DASHED.match(line) or _RULE.match(line):
                said = [one for one in lines[index + 1 : index + 6] if one.strip()][:3]
                if any(map(_has_colon, said)) and not any(one.startswith(b">") for one in said):
                    return index
        if b"@" in line and _is_complete_attribution(line) and (index == 0 or not lines[index - 1].strip()):
            following = [one for one in lines[index + 1 : index + 6] if one.strip()]
            if following and not following[0].startswith(b">"):
                return index
    return None


def _has_colon(line: bytes) -> bool:
    return b":" in line or _HEADER_LINE.match(line) is not None


def _is_complete_attribution(line: bytes) -> bool:
    return (
        ends_with_colon(line) and b"<" in line and len(line) < 400 and bool(_TIME.search(line) and _YEAR.search(line))
    )


def _attribution(lines: list[bytes], first_quoted: int) -> int:
    """The first line of "On …, Ana wrote:" above the quote."""
    index = first_quoted
    while index > 0 and not lines[index - 1].strip():
        index -= 1
    if index == 0 or not ends_with_colon(lines[index - 1]):
        return first_quoted
    begin = None
    for at in range(index - 1, max(-1, index - 1 - _MAX_ATTRIBUTION), -1):
        if not lines[at].strip():
            break
        if has_date(lines[at]):
            begin = at
            break
    if begin is None:
        is_paragraph = index < 2 or not lines[index - 2].strip()
        if not is_paragraph or not (index == first_quoted or _is_header_block(lines[first_quoted : first_quoted + 6])):
            return first_quoted  # the agent's own words: "Here is what you need:"
        begin = index - 1
    if begin > 0 and _DASHED.match(lines[begin - 1]):  # Proton writes "------- Original Message -------" above it
        begin -= 1
    return begin


def _is_header_block(quoted: list[bytes]) -> bool:
    """Apple writes "Begin forwarded message:" above "> From: …"."""
    return sum(1 for line in quoted if _HEADER_LINE.match(line.lstrip(b"> "))) >= 2


def delimiter(reading: Reading, begin: int, end: int) -> int | None:
    """The last line from `begin` up to `end` that parts a signature from the text above it (RFC 3676 §4.3), also when
    the blank at its end was lost on the way; None when something quoted follows it."""
    for index in range(end - 1, begin - 1, -1):
        if reading.quoted[index]:
            return None
        if reading.lines[index].rstrip(b"\r") in (b"-- ", b"--"):
            return index
    return None
