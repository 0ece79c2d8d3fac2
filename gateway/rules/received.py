"""From whom did the provider take a message? Its own Received fields say, and nobody else's count.

The topmost field was written by the provider's last server. As long as what a server noted down is a machine of its own
(a private address, or none at all for a step inside one machine), the field below was written by that machine and is as
good. The first one that names a public address is the border: what stands below came with the message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from gateway.mime.scan import HeaderFacts, decode_text

HOPS: Final = 12  # inside one provider
_VALUE: Final = 4_000  # characters of one field

# Not `is_private`: that counts addresses for documentation as well, and nobody hands mail over from there
_INTERNAL: Final = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)

_FROM: Final = re.compile(r"\s*from\s+(\S+)", re.IGNORECASE)
_BY: Final = re.compile(r"\sby\s", re.IGNORECASE)
_BY_NAME: Final = re.compile(r"\sby\s+(\S+)", re.IGNORECASE)
_LOCAL: Final = re.compile(r"\swith\s+(?:lmtp|local)", re.IGNORECASE)  # RFC 2033: never from outside
# What the client said of itself stands in the comment, too, in Exim's way and in qmail's: it may look like an address
_SAID: Final = re.compile(r"\b(?:helo|ehlo)[ =]\s*([^\s()]+)", re.IGNORECASE)
_COMMENT: Final = re.compile(r"\(([^()]*)\)")
_ADDRESS: Final = re.compile(
    r"(?<![\w.:-])(?:\[?(?:ipv6:)?([0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:(?:\d{1,3}\.){3}\d{1,3})?)\]?"
    r"|\[?(\d{1,3}(?:\.\d{1,3}){3})\]?)(?![\w.-]*\w\.)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Peer:
    """The host that a provider took a message from. `helo`: the name it gave itself, "" when not noted."""

    ip: IPv4Address | IPv6Address
    helo: str = ""


def border(facts: HeaderFacts) -> Peer | None:
    """Return who handed the message to the provider, or None when that cannot be said for certain."""
    for value in map(decode_text, facts.raw_values("received")[:HOPS]):
        value = value[:_VALUE]
        peer = read(value)
        if peer is None and not _is_inside(value):
            return None
        if peer is not None and not any(peer.ip in network for network in _INTERNAL):
            return peer
    return None


def read(value: str) -> Peer | None:
    """Return whom one field names in its from-part. None for none, and for several: then it is anybody's guess."""
    head = _from_part(value)
    found = _FROM.match(head)
    if found is None:
        return None
    said = _SAID.search(head)
    comments = " ".join(_COMMENT.findall(_SAID.sub(" ", head)))
    addresses = _addresses(comments)
    if not addresses and said is not None:  # Exim without a name: `from [192.0.2.1] (helo=…)`
        addresses = _addresses(found[1])
    if len(addresses) != 1:
        return None
    helo = said[1] if said is not None else found[1]
    return Peer(addresses.pop(), helo.strip("[]();,"))


def _from_part(value: str) -> str:
    by = _BY.search(value)
    return value[: by.start()] if by else value


def _addresses(text: str) -> set[IPv4Address | IPv6Address]:
    found: set[IPv4Address | IPv6Address] = set()
    for six, four in _ADDRESS.findall(text):
        try:
            found.add(ip_address(six or four))
        except ValueError:
            continue
    return found


def _is_inside(value: str) -> bool:
    """Is a field without an address that can be relied on a step inside one machine? Only then does the next count."""
    head = _from_part(value)
    found = _FROM.match(head)
    if found is None:
        return True
    by = _BY_NAME.search(value)
    name = found[1].lower()
    return not _addresses(head) and (
        name == "localhost" or _LOCAL.search(value) is not None or (by is not None and by[1].lower() == name)
    )
