"""DKIM as the last step before the wire: one signature an attempt, above our trace field.

Only for `custom` touchpoints with a key; every other provider signs by itself. What is signed are the stored bytes as
the relay will send them; the trace field is not part of it. A message that came with a DKIM-Signature is somebody
else's to vouch for, and passes untouched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from gateway.config import Touchpoint
from gateway.config.dkim import PrivateKey, load_key
from gateway.config.rules_file import Dkim
from gateway.config.secrets import SecretRef
from gateway.errors import Unavailable
from gateway.outbound import dkim
from gateway.outbound.dkim import BodyHash, Field, Identity, read_fields
from gateway.state import outbox
from gateway.state.outbox import Claimed
from gateway.state.store import Store

_SLICE: Final = 64 * 1024  # bytes between two looks at what else the loop has to do: 0.4 ms

ReadChunk = Callable[[int], Awaitable[bytes | None]]


class Signer:
    """Signs for all touchpoints, and keeps their keys in memory until `forget`. Belongs to the asyncio thread.

    `now`: seconds since the epoch.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._keys: dict[SecretRef, PrivateKey] = {}

    def forget(self) -> None:
        """Read every key anew when it is needed next. May be called from every thread."""
        self._keys = {}

    def signs_for(self, touchpoint: Touchpoint) -> Callable[[Claimed], Awaitable[bytes]] | None:
        """Return what signs this touchpoint's messages (`attempt.Sign`), or None where nothing is signed."""
        if touchpoint.dkim is None or touchpoint.provider != "custom":
            return None
        settings = touchpoint.dkim

        async def sign(claimed: Claimed) -> bytes:
            return await self.sign(claimed, settings)

        return sign

    async def sign(self, claimed: Claimed, settings: Dkim) -> bytes:
        """Return the field to send before everything else, or "" for a message that is signed already.

        Raises Unavailable, with one line, when the key cannot be had.
        """

        async def read_chunk(number: int) -> bytes | None:
            return await self._store.read(outbox.read_chunk, claimed.id, number)

        key = await self._key(settings)
        return await sign_stream(
            _pieces(claimed.raw, read_chunk),
            Identity(settings.selector, settings.domain),
            key,
            int(self._now()),
        )

    async def _key(self, settings: Dkim) -> PrivateKey:
        keys = self._keys  # that of now: what is read here must not outlive a `forget` in between
        reference = settings.private_key
        assert reference is not None
        if (key := keys.get(reference)) is None:
            try:
                key = load_key(await asyncio.to_thread(reference.resolve))
            except ValueError as error:
                raise Unavailable(f"the key {reference} {error}") from None
            keys[reference] = key
        return key


async def sign_stream(pieces: AsyncIterator[bytes], identity: Identity, key: PrivateKey, at: int) -> bytes:
    """Return the DKIM-Signature field of a message that comes in pieces, "" when it has one already. `at`: seconds."""
    head = bytearray()
    fields: list[Field] | None = None
    body = BodyHash()
    async for piece in pieces:
        if fields is None:
            searched = max(0, len(head) - 3)
            head += piece
            if (end := _end_of_head(head, searched)) is None:
                continue
            fields = read_fields(bytes(head[: end[0]]))
            if _is_signed(fields):
                return b""
            piece = bytes(head[end[1] :])
        body.update(piece)
        await asyncio.sleep(0)
    if fields is None:  # all header, no body
        fields = read_fields(bytes(head))
        if _is_signed(fields):
            return b""
    return dkim.sign(fields, body.digest(), identity, key, at)


def _end_of_head(head: bytearray, searched: int) -> tuple[int, int] | None:
    """Return where the header ends and the body begins, or None as long as that has not come."""
    if head.startswith(b"\r\n"):
        return 0, 2
    found = head.find(b"\r\n\r\n", searched)
    return None if found < 0 else (found + 2, found + 4)


def _is_signed(fields: Sequence[Field]) -> bool:
    return any(name == dkim.FIELD_NAME for name, _ in fields)


async def _pieces(raw: bytes | None, read_chunk: ReadChunk) -> AsyncIterator[bytes]:
    """Yield the stored bytes in slices: those in memory, else chunk by chunk from the store."""
    number = 0
    chunk = raw if raw is not None else await read_chunk(0)
    while chunk is not None:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]
        number += 1
        chunk = None if raw is not None else await read_chunk(number)
