"""Messages to send: small, numbered, recognisable wherever they turn up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def letter(number: int, subject: str, sender: str = "customer@clients.example", to: str = "", body: str = "") -> bytes:
    """Return a plain message whose Message-ID and subject carry `number`."""
    return (
        f"From: Customer {number} <{sender}>\r\n"
        f"To: {to or 'team@support.example'}\r\n"
        f"Subject: {subject} {number}\r\n"
        f"Message-ID: <{subject.replace(' ', '-')}.{number}@clients.example>\r\n"
        "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "\r\n"
        f"{body or f'This is letter {number}.'}\r\n"
    ).encode()


def message_id(raw: bytes) -> str:
    """Return the Message-ID, with its brackets, or "" where there is none."""
    head = raw.partition(b"\r\n\r\n")[0]
    found = re.search(rb"^message-id:\s*(<[^>]*>)", head, re.I | re.M)
    return found[1].decode() if found else ""


def repeated(ids: Iterable[str]) -> dict[str, int]:
    """Return what occurs more than once, and how often: what a test of "each once" wants to see empty."""
    return {id: count for id, count in Counter(ids).items() if count > 1}
