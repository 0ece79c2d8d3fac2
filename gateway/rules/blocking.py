"""Blocks: addresses and whole domains whose mail no longer reaches queues.

A block is an exact address or `*@domain` and nothing else, so that looking one up costs the same however many there
are; finer patterns are what `spam.blocklist` and rules are for. `*@domain` does not include its subdomains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from gateway.rules.freemail import WHOLE_PROVIDERS

_LONGEST: Final = 320  # 64 + 1 + 255: RFC 5321 §4.5.3.1
_UNFIT: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\"<>()\[\],;:\ud800-\udfff]")
ANYBODY: Final = "*"


def parse_block(text: str) -> str:
    """Return what a person typed as it is kept: lower case, the domain in the form that DNS knows.

    More is taken than may be configured as an address: who sends spam need not keep to the grammar. Raises ValueError.
    """
    pattern = text.strip()
    local, at, domain = pattern.rpartition("@")
    if not at or not local:
        raise ValueError(f'"{text}" is no address; for a whole domain write "*@{domain.lstrip("*.") or "example.com"}"')
    if not domain or len(pattern) > _LONGEST or _UNFIT.search(pattern):
        raise ValueError(f'"{text}" is neither an address nor "*@domain"')
    if "*" in domain or ("*" in local and local != ANYBODY):
        raise ValueError(
            f'"{text}": a block is an address or "*@domain"; other patterns go into spam.blocklist in rules.toml'
        )
    return canonical(pattern)


def canonical(address: str) -> str:
    """Return an address in lower case, with a domain of other letters in its ASCII form (RFC 5890)."""
    local, at, domain = address.lower().rpartition("@")
    domain = domain.rstrip(".")
    if not domain.isascii() and len(domain) <= 255:
        with suppress(UnicodeError):  # else it is nothing that DNS knows, and stays itself
            domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain}"


def spellings(pattern: str) -> tuple[str, ...]:
    """Return a block in the forms that a stored sender may have: with its domain in ASCII, and in its own letters."""
    local, at, domain = pattern.rpartition("@")
    if "xn--" not in domain:
        return (pattern,)
    try:
        return pattern, f"{local}{at}{domain.encode('ascii').decode('idna')}"
    except UnicodeError:
        return (pattern,)


def is_domain(pattern: str) -> bool:
    return pattern.startswith("*@")


def patterns_of(address: str) -> tuple[str, str]:
    """Return the two blocks that an address can meet: itself, and its domain."""
    address = canonical(address)
    return address, f"{ANYBODY}@{address.rpartition('@')[2]}"


def covered(pattern: str, addresses: Iterable[str]) -> list[str]:
    """Return those of `addresses` that a block keeps away."""
    return [address for address in addresses if pattern in patterns_of(address)]


def is_whole_provider(pattern: str) -> bool:
    """Would this block everybody who has a mailbox at one of the large public providers?"""
    return is_domain(pattern) and pattern[2:] in WHOLE_PROVIDERS
