"""An SMTP client that costs little, to load a server with: one event loop, no streams, pipelined commands.

Every client logs in (AUTH PLAIN), sends MAIL, RCPT and DATA in one write as RFC 2920 allows, and waits for the 250
behind the dot before the next message. What is not a 2xx or 354 ends the run.

Client and server share this machine, so what the client costs is part of every rate, ours and the peer's. `Result`
tells it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import uvloop

_PATIENCE = 120.0  # seconds for one run; a server that says nothing any more ends it


_numbers = itertools.count()
_RUN = os.urandom(6).hex().encode()


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    tls: ssl.SSLContext | None  # implicit TLS, or None
    login: str
    password: str
    sender: str
    recipient: str


@dataclass(frozen=True)
class Load:
    messages: int
    clients: int
    per_connection: int
    size_bytes: int = 4096
    answers: Callable[[int], str] | None = None  # the Message-ID that the message of a number replies to


@dataclass(frozen=True)
class Result:
    """`rate`: messages accepted per second. `cpu`: CPU seconds that a message has cost this client."""

    rate: float
    cpu: float


class ResumingContext(ssl.SSLContext):
    """A client's context that takes up its last session again, as mail clients do. Verifies like any other."""

    last: ssl.SSLSession | None = None

    def wrap_bio(self, *args: object, **keys: object) -> ssl.SSLObject:
        keys.setdefault("session", self.last)
        return super().wrap_bio(*args, **keys)  # type: ignore[arg-type]


def run(target: Target, load: Load) -> Result:
    """Raises RuntimeError when the server says no, or nothing at all."""
    return uvloop.run(_run(target, load))


async def _run(target: Target, load: Load) -> Result:
    body = _message(target.sender, target.recipient, load.size_bytes)
    loop = asyncio.get_running_loop()
    left = load.messages

    async def client() -> None:
        nonlocal left
        while left > 0:
            count = min(load.per_connection, left)
            left -= count
            session = _Session(target, body, count, load.answers, loop.create_future())
            server_hostname = target.host if target.tls else None
            transport, _ = await loop.create_connection(
                lambda session=session: session,
                "127.0.0.1",
                target.port,
                ssl=target.tls,
                server_hostname=server_hostname,
            )
            try:
                await session.ended
            finally:
                transport.abort()

    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(_PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(load.clients):
            group.create_task(client())
    return Result(load.messages / (time.perf_counter() - begun), (time.process_time() - cpu) / load.messages)


class _Session(asyncio.Protocol):
    """EHLO, AUTH, `count` messages, QUIT. `ended` is done with it, or has what the server said."""

    def __init__(
        self,
        target: Target,
        body: bytes,
        count: int,
        answers: Callable[[int], str] | None,
        ended: asyncio.Future[None],
    ) -> None:
        self._target = target
        self._answers = answers
        self._body = body
        self._left = count
        self.ended = ended
        self._rest = b""
        secret = base64.b64encode(f"\0{target.login}\0{target.password}".encode())
        self._envelope = f"MAIL FROM:<{target.sender}>\r\nRCPT TO:<{target.recipient}>\r\nDATA\r\n".encode()
        self._opening = [b"EHLO load.example\r\n", b"AUTH PLAIN " + secret + b"\r\n"]
        self._replies = 1  # that are awaited before the next write
        self._in_data = self._has_quit = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line[:1] not in (b"2", b"3"):
                self._end(RuntimeError(f"the server said {line!r}"))
                return
            if line[3:4] != b"-":
                self._replies -= 1
        if not self._replies and not self.ended.done():
            self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or RuntimeError("the server closed the connection"))

    def _go_on(self) -> None:
        if self._opening:
            self._send(self._opening.pop(0), 1)
        elif self._in_data:
            self._in_data = False
            # Real mail differs, and to us the same message again is a client that has lost our 250
            number = next(_numbers)
            head = b"Message-ID: <%d.%s@load.example>\r\n" % (number, _RUN)
            if self._answers is not None:
                head += f"In-Reply-To: {self._answers(number)}\r\n".encode()
            self._send(head + self._body, 1)
        elif self._left:
            self._left -= 1
            self._in_data = True
            self._send(self._envelope, 3)
        elif not self._has_quit:
            self._has_quit = True
            self._send(b"QUIT\r\n", 1)
        else:
            self._keep_session()
            self._end(None)

    def _keep_session(self) -> None:
        if isinstance(self._target.tls, ResumingContext):
            known = self._transport.get_extra_info("ssl_object").session
            if known is not None and known.has_ticket:
                self._target.tls.last = known

    def _send(self, data: bytes, replies: int) -> None:
        self._replies = replies
        self._transport.write(data)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


@lru_cache(maxsize=4)
def _message(sender: str, recipient: str, size_bytes: int) -> bytes:
    """Return prose, and where it is large, prose with an attachment."""
    head = (
        f"From: Support <{sender}>\r\nTo: <{recipient}>\r\nSubject: your order\r\n"
        "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    ).encode()
    text = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    line = b"The quick brown fox jumps over the lazy dog, and does it again.\r\n"
    prose = text + line * (max(0, min(size_bytes, 8192) - len(head) - len(text)) // len(line) + 1)
    if size_bytes <= 8192:
        return head + prose + b".\r\n"
    attachment = base64.encodebytes(os.urandom((size_bytes - len(prose)) // 78 * 57)).replace(b"\n", b"\r\n")
    return (
        head
        + b'Content-Type: multipart/mixed; boundary="part"\r\n\r\n--part\r\n'
        + prose
        + b"--part\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + attachment
        + b"--part--\r\n.\r\n"
    )
