"""An SMTP client that costs little, to load a server with: one event loop, pipelined commands, replies counted.

Every client logs in (AUTH PLAIN), sends MAIL, RCPT and DATA in one write as RFC 2920 allows, and waits for the 250
behind the dot before the next message. What is not a 2xx or 354 ends the run.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from dataclasses import dataclass

import uvloop


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


def run(target: Target, load: Load) -> float:
    """Return messages accepted per second."""
    return uvloop.run(_run(target, load))


async def _run(target: Target, load: Load) -> float:
    body = _message(target, load.size_bytes)
    left = load.messages
    begun = time.perf_counter()

    async def client() -> None:
        nonlocal left
        while left > 0:
            count = min(load.per_connection, left)
            left -= count
            await _session(target, body, count)

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return load.messages / (time.perf_counter() - begun)


async def _session(target: Target, body: bytes, count: int) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls)
    try:
        await _reply(reader)
        writer.write(b"EHLO load.example\r\n")
        await _reply(reader)
        secret = base64.b64encode(f"\0{target.login}\0{target.password}".encode())
        writer.write(b"AUTH PLAIN " + secret + b"\r\n")
        await _reply(reader)
        envelope = f"MAIL FROM:<{target.sender}>\r\nRCPT TO:<{target.recipient}>\r\nDATA\r\n".encode()
        for _ in range(count):
            writer.write(envelope)
            for _ in range(3):
                await _reply(reader)
            writer.write(body)
            await _reply(reader)
        writer.write(b"QUIT\r\n")
        await _reply(reader)
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if line[:1] not in (b"2", b"3"):
            raise RuntimeError(f"the server said {line!r}")
        if line[3:4] != b"-":
            return


def _message(target: Target, size_bytes: int) -> bytes:
    head = (
        f"From: Support <{target.sender}>\r\nTo: <{target.recipient}>\r\nSubject: your order\r\n"
        "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    line = b"The quick brown fox jumps over the lazy dog, and does it again.\r\n"
    return head + line * ((size_bytes - len(head)) // len(line) + 1) + b".\r\n"
