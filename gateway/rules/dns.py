"""What a core wants to know of the DNS, asked without touching it.

A core that needs the DNS is a generator: it yields a `Question` and is sent the answer. Whoever drives it (the resolver
in the daemon, a dict in a test) may throw `Unanswered` in instead. So SPF and DMARC stay pure, are tested without a
server, and it is the shell that decides about caches, time-outs and servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

import idna

T = TypeVar("T")


class Kind(StrEnum):
    TXT = "TXT"  # an answer is one record, its strings joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2)
    A = "A"
    AAAA = "AAAA"
    MX = "MX"  # an answer is a host name; the best preference first
    PTR = "PTR"


class Question(NamedTuple):
    """`name`: in A-labels, lower case, without the final dot."""

    name: str
    kind: Kind


Answer = tuple[str, ...]  # empty: there is no such name, or nothing of that kind
Inquiry = Generator[Question, Answer, T]


class Unanswered(Exception):
    """The DNS gave no answer that counts: nobody answered in time, or a server failed. Never the same as "none"."""


_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NAME_OCTETS: Final = 253  # RFC 1035 §2.3.4, as text without the final dot


def domain_of(text: str) -> str:
    """Return a domain in A-labels and lower case, without a final dot; "" for what can be no domain."""
    text = text.strip().rstrip(".").lower()
    if not text or len(text) > 4 * _NAME_OCTETS:
        return ""
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError, ValueError):
            return ""
    return text if len(text) <= _NAME_OCTETS and all(map(_LABEL.match, text.split("."))) else ""


def run(inquiry: Inquiry[T], answer: Callable[[Question], Answer]) -> T:
    """Return what an inquiry comes to when `answer` knows the DNS (and may raise Unanswered): for tests and tools."""
    try:
        question = next(inquiry)
        while True:
            try:
                answered = answer(question)
            except Unanswered as error:
                question = inquiry.throw(error)
            else:
                question = inquiry.send(answered)
    except StopIteration as end:
        result: T = end.value
        return result
