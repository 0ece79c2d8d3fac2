"""Decides which touchpoint a message leaves as, from what its header says and who submits it.

The header From decides, not the return path that the client gave. Everything here is comparison of addresses, which
ignores case throughout: the standard lets a local part differ by case, no provider does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import Malformed
from gateway.mime.scan import HeaderFacts
from gateway.outbound.addressing import in_ascii, plain

SIGNED_TYPES: Final = frozenset(
    {
        "multipart/signed",
        "multipart/encrypted",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
    }
)
_LABEL: Final = "[A-Za-z0-9\u00a0-\U0010ffff-]+"
_ADDRESS: Final = re.compile(rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]+@{_LABEL}(?:\.{_LABEL})*\Z")
# What From may look like once quoted strings and comments are out of the way: a name and one address in angle brackets,
# or an address alone. Readers do not agree on `<a@x> <b@y>`, `a@x b@y` or `<a@x>@y`: what one of them shows as the
# author would not be what was checked here.
_ASIDE: Final = re.compile(rb'\\.|"(?:[^"\\]|\\.)*+"|\((?:[^()\\]|\\.)*+\)', re.DOTALL)
_ONE_AUTHOR: Final = re.compile(
    rb'(?:[^<>()"]*+<\s*+[^<>()"@,;]++@[^<>()"@,;]++>|(?:[^<>()"@:]*+:)?\s*+[^<>()"@,;\s\1]++\s*+@\s*+[^<>()"@,;\s\1]++)'
    rb"\s*+[,;]?\s*+\Z"
)
_NAMED: Final = 6  # touchpoints that a refusal names before it says "…": a reply line has 512 octets


class Touchpoint(Protocol):
    """What this decision needs of a configured touchpoint."""

    @property
    def id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def active(self) -> bool: ...
    @property
    def is_outbound(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Sender:
    """The decision. `address`: what From must say; `is_rewritten`: the client wrote the agent's own login there."""

    touchpoint: str
    address: str
    is_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An SMTP reply with its enhanced code, for the person in front of the mail client to read."""

    reply: str


def is_signed(facts: HeaderFacts) -> bool:
    """Would a change to the body or to an existing field break a signature (RFC 1847, 8551, 3156, 6376)?"""
    return facts.content_type in SIGNED_TYPES or facts.has("dkim-signature")


def read_author(facts: HeaderFacts) -> str | Refusal:
    """Return the one address in the one From field, its domain in ASCII, or why there is no such thing."""
    fields = len(facts.raw_values("from"))
    if fields != 1:
        found = "none" if not fields else str(fields)
        return Refusal(f"550 5.6.0 the message needs exactly one From field, and has {found}")
    authors = facts.authors
    if len(authors) != 1:
        return Refusal("550 5.6.0 From must name exactly one address")
    address = authors[0].address
    if not _ADDRESS.match(address):
        return Refusal("550 5.6.0 the address in From cannot be understood")
    value = facts.raw_value("from")
    if b'"' in value or b"(" in value:
        value = _ASIDE.sub(_blot_out, value)
    if _ONE_AUTHOR.match(value) is None:
        return Refusal("550 5.6.0 From must name exactly one address, after the name and in angle brackets")
    try:
        return in_ascii(address)
    except Malformed:
        return Refusal("550 5.6.0 the domain in From cannot be understood")


def _blot_out(aside: re.Match[bytes]) -> bytes:
    return b" " if aside[0][:1] == b"(" else b"\1"  # a quoted string may be a name, and nothing else here


def is_own(login: str, author: str) -> bool:
    """Has the client put the agent's own login into From, as phones do?"""
    return author.lower() == login.lower()


def decide_sender(
    author: str,
    *,
    login: str,
    named: Touchpoint | None,
    allowed: Sequence[Touchpoint],
    rewrites_own: bool,
    is_signed: bool,
    conversations: Collection[str] = (),
) -> Sender | Refusal:
    """Return the touchpoint that `author` (the address in From) stands for, or the refusal.

    `named`: the touchpoint, of all there are, that has `author` as its address or alias; it goes before a login of the
    same address. `allowed`: what this agent may write as, in any state. `conversations`: ids of the touchpoints that
    have the conversations named by In-Reply-To and References; they count when From is the agent's own login.
    """
    usable = [touchpoint for touchpoint in allowed if touchpoint.active and touchpoint.is_outbound]
    if named is not None:
        return _as_named(named, author, login, allowed, usable)
    if not is_own(login, author):
        return Refusal(f"550 5.7.1 {login} may not write as {author}; {_choice(usable)}")
    if not rewrites_own:
        return Refusal(f"550 5.7.1 {author} is a login, not an address to write as; {_choice(usable)}")
    if is_signed:
        return Refusal(f"550 5.7.1 From is signed and cannot be changed from {author}; {_choice(usable)}")
    return _instead_of_own(usable, conversations)


def _as_named(
    touchpoint: Touchpoint, author: str, login: str, allowed: Sequence[Touchpoint], usable: Sequence[Touchpoint]
) -> Sender | Refusal:
    if not touchpoint.is_outbound:
        return Refusal(f"550 5.7.1 {touchpoint.address} only receives mail; {_choice(usable)}")
    if touchpoint.id not in {one.id for one in allowed}:
        return Refusal(f"550 5.7.1 {login} may not write as {author}; {_choice(usable)}")
    if not touchpoint.active:
        return Refusal(f"550 5.7.1 {touchpoint.address} is switched off; {_choice(usable)}")
    return Sender(touchpoint.id, author)


def _instead_of_own(usable: Sequence[Touchpoint], conversations: Collection[str]) -> Sender | Refusal:
    if conversations:
        # An answer goes out as the address that was asked, or not at all: another one would puzzle the customer.
        answering = [touchpoint for touchpoint in usable if touchpoint.id in conversations]
        if len(answering) == 1:
            return Sender(answering[0].id, plain(answering[0].address), is_rewritten=True)
        reason = "more than one address has this conversation" if answering else "this conversation is not yours"
        return Refusal(f"550 5.7.1 {reason}; {_choice(usable)}")
    if len(usable) == 1:
        return Sender(usable[0].id, plain(usable[0].address), is_rewritten=True)
    return Refusal(f"550 5.7.1 choose the address to write as: {_choice(usable)}")


def _choice(usable: Sequence[Touchpoint]) -> str:
    if not usable:
        return "no address is open to you; ask your administrator"
    names = ", ".join(plain(touchpoint.address) for touchpoint in usable[:_NAMED])
    return f"set From to {names}" + (" …" if len(usable) > _NAMED else "")
