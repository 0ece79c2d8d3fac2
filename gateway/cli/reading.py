"""A message as a person reads it in a terminal."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Final

from gateway.text import clean

_FIELDS: Final = ("From", "To", "Cc", "Date", "Subject")
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return `text`, of several lines, without anything that could drive a terminal."""
    return _UNSAFE.sub("�", text)


def readable(raw: bytes) -> str:
    """Return header and text of `raw`, without control characters, and the names of what is attached.

    Runs in the command's own process: here a hostile message can hold up only the person who reads it.
    """
    message = message_from_bytes(raw, _class=EmailMessage, policy=policy.SMTP)
    lines = [f"{name}: {clean(_field(message, name), 500)}" for name in _FIELDS if message.get(name) is not None]
    lines += ["", harmless(_text(message).replace("\r\n", "\n")).rstrip()]
    try:
        attachments = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    except Exception:  # the standard parser gives up on some trees; what can be read is shown all the same
        attachments = []
    lines += [f"[attached: {clean(name)}]" for name in attachments]
    return "\n".join(lines)


def _field(message: EmailMessage, name: str) -> str:
    try:
        return str(message[name])
    except Exception:  # a header the standard library cannot decode
        return "(unreadable)"


def _text(message: EmailMessage) -> str:
    try:
        body = message.get_body(("plain", "html"))
        if body is None:
            return "(no text)"
        text = str(body.get_content())
    except Exception:  # an unknown charset or a broken tree
        return "(the text cannot be decoded; --raw shows the bytes)"
    return text if body.get_content_type() == "text/plain" else re.sub(r"<[^>]+>", "", text)
