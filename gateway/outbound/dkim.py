"""A DKIM signature (RFC 6376, 8301, 8463), made while the body passes by in pieces.

Canonicalisation is relaxed/relaxed. Only the making is here, and in our own words: dkimpy wants the whole message in
memory, several times over, and 60 ms of the interpreter's lock for each megabyte; here a megabyte takes a few
milliseconds, none of them in one go, so the daemon needs no worker process for it. What verifies it in the tests is
dkimpy.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.config.dkim import PrivateKey

FIELD_NAME: Final = b"dkim-signature"
# Named once more than they are there, so that nobody can put a second one on top of a signed message (RFC 6376 §8.15).
# A message without them is also signed as one without: a Cc or a Reply-To cannot be added to it.
_SEALED: Final = (b"from", b"to", b"cc", b"subject", b"reply-to")
# The same where they are there at all. A server on the way may add the ones that are missing.
_SEALED_IF_THERE: Final = (
    *(b"sender", b"date", b"message-id", b"in-reply-to", b"references"),
    *(b"mime-version", b"content-type", b"content-transfer-encoding", b"auto-submitted"),
)
# Just signed: there may be several, or a list on the way puts its own. RFC 8058 wants List-Unsubscribe(-Post) signed.
_SIGNED: Final = (
    *(b"resent-from", b"resent-to", b"resent-cc", b"resent-date", b"resent-message-id", b"resent-sender"),
    *(b"list-id", b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post"),
)
_LINE: Final = 76
_BLOCK: Final = 16384  # of blank lines, where a body has that many


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs. `selector`, `domain`: ASCII, as they stand in the DNS: `selector._domainkey.domain`."""

    selector: str
    domain: str


class BodyHash:
    """SHA-256 of a body in relaxed canonical form (RFC 6376 §3.4.4), fed with pieces as they go over the wire.

    Linear in the length of the body, whatever is in it; holds a few bytes between two pieces. A body that does not
    end with CRLF is taken to get one, as the relay does it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held = b""  # the end of what came: white space or CR that what follows may make part of a line's end
        self._blank = 0  # CRLFs that count only if something other than CRLF follows
        self._is_empty = True
        self._last = b"\r\n"  # the last two bytes that came

    def update(self, piece: bytes) -> None:
        if piece:
            self._last = (self._last + piece[-2:])[-2:]
            self._take(piece)

    def digest(self) -> bytes:
        """End the body and return its hash."""
        if self._last != b"\r\n":
            self._take(b"\r\n")
        if not self._is_empty:
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _take(self, piece: bytes) -> None:
        data = self._held + piece
        if b"\t" in data:
            data = data.replace(b"\t", b" ")
        while b"  " in data:  # each round halves the longest run
            data = data.replace(b"  ", b" ")
        data = data.replace(b" \r\n", b"\r\n")
        kept = len(data) - data.endswith(b"\r")
        kept -= data.endswith(b" ", 0, kept)
        self._held, data = data[kept:], data[:kept]
        line_ends = _crlfs_at_end(data)
        if data := data[: len(data) - 2 * line_ends]:
            self._write_blank()
            self._hash.update(data)
            self._is_empty = False
            self._blank = 0
        self._blank += line_ends

    def _write_blank(self) -> None:
        block = b"\r\n" * min(self._blank, _BLOCK)
        for _ in range(self._blank // _BLOCK):
            self._hash.update(block)
        self._hash.update(b"\r\n" * (self._blank % _BLOCK))


def _crlfs_at_end(data: bytes) -> int:
    tail = data[len(data.rstrip(b"\r\n")) :]
    count = len(tail) // 2
    while tail[len(tail) - 2 * count :] != b"\r\n" * count:  # a bare CR or LF among them: never, in what was accepted
        count -= 1
    return count


Field = tuple[bytes, bytes]
"""(name in lower case, value in relaxed canonical form)"""


def read_fields(head: bytes) -> list[Field]:
    """Return the header fields of a message, from its beginning up to the empty line, in relaxed canonical form
    (RFC 6376 §3.4.2). Lines that are no field are passed over: nobody can sign those."""
    lines = head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.replace(b"\t", b" ").partition(b":")
        name = name.rstrip(b" ").lower()
        if colon and name and b" " not in name:
            fields.append((name, b" ".join(filter(None, value.split(b" ")))))
    return fields


def sign(fields: Sequence[Field], body_hash: bytes, identity: Identity, key: PrivateKey, at: int) -> bytes:
    """Return the DKIM-Signature field, with its CRLF. `fields`: those of the message, from the top. `at`: seconds."""
    names = _names_to_sign(fields)
    algorithm = "ed25519-sha256" if isinstance(key, Ed25519PrivateKey) else "rsa-sha256"
    value = (
        f" v=1; a={algorithm}; c=relaxed/relaxed; d={identity.domain};\r\n"
        f"\ts={identity.selector}; t={at};\r\n"
        f"\th={_fold([name.decode() for name in names])};\r\n"
        f"\tbh={b64encode(body_hash).decode()};\r\n"
        f"\tb="
    ).encode()
    ((_, own),) = read_fields(b"DKIM-Signature:" + value)
    # The last one of a name is signed first (§5.4.2); what is named and not there counts as nothing.
    left: dict[bytes, list[bytes]] = {}
    for name, content in fields:
        left.setdefault(name, []).append(content)
    signed = [b"%s:%s\r\n" % (name, left[name].pop()) for name in names if left.get(name)]
    digest = hashlib.sha256(b"".join(signed) + FIELD_NAME + b":" + own).digest()
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(digest)  # RFC 8463 §3: of the hash
    else:
        signature = key.sign(digest, PKCS1v15(), Prehashed(SHA256()))
    folded = b"\r\n\t".join(_cut(b64encode(signature), _LINE - 4))
    return b"DKIM-Signature:" + value + folded + b"\r\n"


def _names_to_sign(fields: Sequence[Field]) -> list[bytes]:
    there = Counter(name for name, _ in fields)
    names: list[bytes] = []
    for name in _SEALED:
        names += [name] * (there[name] + 1)
    for name in _SEALED_IF_THERE:
        names += [name] * (there[name] + 1 if there[name] else 0)
    for name in _SIGNED:
        names += [name] * there[name]
    return names


def _fold(names: Sequence[str]) -> str:
    """Return `a:b:c` in lines of a decent length; white space may stand around the colons (§3.5)."""
    lines, line = [], ""
    for name in names:
        if line and len(line) + len(name) > _LINE - 4:
            lines.append(line)
            line = ""
        line += f"{name}:"
    return "\r\n\t ".join([*lines, line.removesuffix(":")])


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
