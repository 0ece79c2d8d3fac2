"""What a busy moment of the agents costs: one submits 30 MB, and fifty log in, all at once.

    python -m benchmarks.agentload PORT PASSWORD ADDRESS MEGABYTES PER_ROUND LOGIN…

Prints `ready`, then a line `BEGUN ENDED` (seconds since the epoch) for each round of PER_ROUND logins. Every login is
used once, since the gateway remembers a password that it has verified.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time

import uvloop


async def session(port: int, login: str, password: str, address: str = "", message: bytes = b"") -> None:
    """Log in, submit `message` if there is one, leave."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say(data: bytes) -> None:
        writer.write(data)
        await reply(reader)

    try:
        await reply(reader)
        await say(b"EHLO load.example\r\n")
        await say(b"AUTH PLAIN " + base64.b64encode(f"\0{login}\0{password}".encode()) + b"\r\n")
        if message:
            await say(f"MAIL FROM:<{address}>\r\n".encode())
            await say(b"RCPT TO:<customer@clients.example>\r\n")
            await say(b"DATA\r\n")
            writer.write(message)
            await writer.drain()
            await say(b".\r\n")
        await say(b"QUIT\r\n")
    finally:
        writer.close()


async def reply(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if line[:1] not in (b"2", b"3"):
            raise RuntimeError(f"the gateway said {line!r}")
        if line[3:4] != b"-":
            return


def large_message(address: str, size: int) -> bytes:
    """Return a message of about `size` bytes, most of it an attachment; a worker process puts the signature into it."""
    attachment = base64.encodebytes(os.urandom(size // 78 * 57)).replace(b"\n", b"\r\n")
    return (
        f"From: Support <{address}>\r\nTo: <customer@clients.example>\r\nSubject: the drawings\r\n"
        "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHere they are.\r\n"
        "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + b"".join((attachment, b"\r\n--b--\r\n"))


async def main(port: int, password: str, address: str, megabytes: int, per_round: int, logins: list[str]) -> None:
    message = large_message(address, megabytes * 1_000_000)
    print("ready", flush=True)
    for first in range(0, len(logins), per_round):
        await asyncio.sleep(0.5)
        author, *others = logins[first : first + per_round]
        begun = time.time()
        await asyncio.gather(
            session(port, author, password, address, message), *(session(port, login, password) for login in others)
        )
        print(begun, time.time(), flush=True)


if __name__ == "__main__":
    port, password, address, megabytes, per_round, *logins = sys.argv[1:]
    uvloop.run(main(int(port), password, address, int(megabytes), int(per_round), logins))
