"""The field that names one attempt at a message, `Received: by HOST (mail-gateway) id QUEUE-ID.ATTEMPT; DATE`.

Every attempt prepends it; whoever finds it in a copy at the provider knows that this very attempt has arrived there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.model import read_id, show_id

_MOST_TRACES: Final = 20  # of one message
_NAME: Final = b"(mail-gateway)"
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_FIELD: Final = re.compile(rb"^([!-9;-~]{1,100})[ \t]*:([^\r\n]*)", re.MULTILINE)
# Linear: every run that could be given back is bounded, or ends where the next one cannot begin
_TRACE: Final = re.compile(
    rb"\bby[ \t]+[^ \t]{1,255}[ \t]+\(mail-gateway\)[ \t]+id[ \t]+([0-9a-z]{1,10})\.([0-9]{1,9})(?![0-9a-z.])"
    rb"(?:[ \t]*;[ \t]*([^\r\n;]{0,64}))?",
    re.IGNORECASE,
)
# What people write, and what is made of that: a customer's subject comes back in the agent's answer
_WRITTEN: Final = re.compile(
    rb"(?:.*(?:subject|topic)|comments|keywords|from|to|cc|bcc|sender|reply-to|message-id|in-reply-to|references"
    rb"|content-.*)\Z",
    re.IGNORECASE,
)


def compose_trace(hostname: str, id: int, attempt: int, at: int) -> bytes:
    """Return the field, with its line end. `at`: ms. Who wrote, and from where, is nobody's business."""
    line = f"Received: by {hostname} (mail-gateway) id {show_id(id)}.{attempt};\r\n\t{_date_of(at // 1000)}\r\n"
    return line.encode("ascii", "replace")


@lru_cache(maxsize=4)
def _date_of(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


class Trace(NamedTuple):
    """One attempt, as its trace field tells. `at`: when it was sent, by our clock; None where that cannot be read."""

    queue_id: int
    attempt: int
    at: datetime | None


def traces(header: bytes) -> list[Trace]:
    """Return the attempts that a header names, whatever its fields are called by now and however they are folded.

    A provider may rename `Received`; what people write (subjects, addresses) is not asked.
    """
    if _NAME not in header.lower():
        return []
    found: list[Trace] = []
    for field in _FIELD.finditer(_FOLD.sub(b" ", header)):
        if _NAME not in field[2].lower() or _WRITTEN.match(field[1]):
            continue
        for match in _TRACE.finditer(field[2]):
            queue_id = read_id(match[1].decode("ascii"))
            if queue_id is not None:
                found.append(Trace(queue_id, int(match[2]), _read_date(match[3])))
            if len(found) == _MOST_TRACES:
                return found
    return found


def _read_date(text: bytes | None) -> datetime | None:
    try:
        at = parsedate_to_datetime((text or b"").decode("ascii"))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
