"""The least an IMAP client can do: IDLE, EXISTS, UID FETCH. What we add to that is ours.

    python -m benchmarks.idleclient PORT CA_FILE PASSWORD USER…     one TLS session each, in this process

Prints `ready` when all idle, then a line `MESSAGE-ID TIME` for each message, the time (seconds since the epoch) taken
when its last byte is here. Nothing is checked, kept or retried. DONE and the FETCH travel together.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
import time
from typing import Final

import uvloop

_AT_ONCE: Final = 50  # handshakes
_LITERAL: Final = re.compile(rb"\{([0-9]+)\}\r\n\Z")
_MESSAGE_ID: Final = re.compile(rb"^Message-ID: (\S+)", re.IGNORECASE | re.MULTILINE)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter, int]  # and UIDNEXT


async def connect(port: int, context: ssl.SSLContext, user: str, password: str, gate: asyncio.Semaphore) -> Connection:
    """Return a connection that idles."""
    async with gate:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        await reader.readline()
        writer.write(f'a LOGIN "{user}" "{password}"\r\nb EXAMINE INBOX\r\n'.encode())
        uid_next = 1
        while not (line := await reader.readline()).startswith(b"b "):
            if found := re.search(rb"\[UIDNEXT ([0-9]+)\]", line):
                uid_next = int(found[1])
        writer.write(b"i IDLE\r\n")
        await reader.readline()
    return reader, writer, uid_next


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid_next: int) -> None:
    while line := await reader.readline():
        if not line.endswith(b" EXISTS\r\n"):
            continue
        writer.write(b"DONE\r\nf UID FETCH %d:* (UID BODY.PEEK[])\r\n" % uid_next)
        while not (line := await reader.readline()).startswith(b"f "):
            if literal := _LITERAL.search(line):
                uid = re.search(rb"UID ([0-9]+)", line)
                raw = await reader.readexactly(int(literal[1]))
                at = time.time()
                if uid is not None and int(uid[1]) >= uid_next and (name := _MESSAGE_ID.search(raw)):
                    uid_next = int(uid[1]) + 1
                    print(name[1].decode(), at, flush=True)
        writer.write(b"i IDLE\r\n")


async def main(port: int, ca_file: str, password: str, users: list[str]) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    gate = asyncio.Semaphore(_AT_ONCE)
    connections = await asyncio.gather(*(connect(port, context, user, password, gate) for user in users))
    print("ready", flush=True)
    await asyncio.gather(*(idle(*connection) for connection in connections))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
