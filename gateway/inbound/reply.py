"""What an IMAP server's status lines say (`OK`, `NO`, `BAD`, `BYE`): code, text, and the codes that we act upon."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.inbound.uids import read_number, spell

_CODE: Final = re.compile(
    rb"(?:\S+ )?(?:OK|NO|BAD|BYE|PREAUTH) \[([A-Z0-9!$&'+./:;<=>?@^_`|~-]+)(?: ([^\]]*))?\]", re.IGNORECASE
)
_MOST_COPIED: Final = 5_000  # a command names a thousand at most
_CAPABILITIES_BYTES: Final = 16 * 1024


class Cut(NamedTuple):
    """A command did only a part of its work (RFC 9738 §3.1): `most` messages, from the highest UID down to `lowest`.

    `lowest` is None where the server did nothing at all.
    """

    most: int
    lowest: int | None


def response_code(line: bytes) -> tuple[bytes, bytes]:
    """Return name and argument of `… OK [CODE argument] text`, both empty when there is none."""
    match = _CODE.match(line)
    return (match[1].upper(), match[2] or b"") if match else (b"", b"")


def human_text(line: bytes) -> str:
    """Return what a status line says to people, without tag, condition and code."""
    text = re.sub(rb"\A(?:\S+ )?(?:OK|NO|BAD|BYE|PREAUTH)\b ?(?:\[[^\]]*\] ?)?", b"", line, flags=re.IGNORECASE)
    return text.decode("utf-8", "replace").strip()


def read_capabilities(line: bytes) -> frozenset[str] | None:
    """Return the capabilities that a line without its `* ` or tag states, as a response or as a code; None for none."""
    words = line[:_CAPABILITIES_BYTES].split()
    if words[:1] != [b"CAPABILITY"]:
        code, argument = response_code(line)
        if code != b"CAPABILITY":
            return None
        words = [code, *argument[:_CAPABILITIES_BYTES].split()]
    return frozenset(word.decode("ascii", "replace").upper() for word in words[1:])


def read_cut(line: bytes) -> Cut | None:
    """Return what `[MESSAGELIMIT most lowest]` says."""
    code, argument = response_code(line)
    if code != b"MESSAGELIMIT":
        return None
    numbers = [read_number(word) for word in argument.split()[:2]]
    return Cut((numbers[0] if numbers else None) or 1, numbers[1] if len(numbers) > 1 else None)


def read_copied(line: bytes) -> tuple[int, dict[int, int]] | None:
    """Return UIDVALIDITY and {old UID: new UID} of `[COPYUID validity old new]` (RFC 4315 §3)."""
    code, argument = response_code(line)
    words = argument.split()
    if code != b"COPYUID" or len(words) != 3 or not (uidvalidity := read_number(words[0])):
        return None
    old, new = spell(words[1], _MOST_COPIED), spell(words[2], _MOST_COPIED)
    return (uidvalidity, dict(zip(old, new, strict=True))) if old and len(old) == len(new) else None
