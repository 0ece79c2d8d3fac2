"""An SMTP server that takes everything at once and counts it, in a process of its own: what a relay is measured into.

    python -m benchmarks.smtpsink PORT     prints the running count once a second when it has moved

Knows EHLO, AUTH PLAIN, pipelining and the dot; nothing is parsed beyond the first letters of a line.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

EHLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n250 AUTH PLAIN LOGIN\r\n"


class Counter:
    def __init__(self) -> None:
        self.messages = 0
        self.connections = 0
        self.open = 0


class Session(asyncio.Protocol):
    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._buffer = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self._counter.connections += 1
        self._counter.open += 1
        self._transport.write(b"220 sink\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self._counter.open -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answers = []
        while True:
            if self._in_data:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    self._buffer = self._buffer[-4:]  # what the end may begin with
                    break
                self._buffer = self._buffer[end + 5 :]
                self._in_data = False
                self._counter.messages += 1
                answers.append(b"250 2.0.0 taken\r\n")
                continue
            line, newline, rest = self._buffer.partition(b"\r\n")
            if not newline:
                break
            self._buffer = rest
            verb = line[:4].upper()
            if verb == b"EHLO":
                answers.append(EHLO)
            elif verb == b"DATA":
                self._in_data = True
                self._buffer = b"\r\n" + self._buffer  # so that an empty message ends too
                answers.append(b"354 go on\r\n")
            elif verb == b"AUTH":
                answers.append(b"235 2.7.0 welcome\r\n")
            elif verb == b"QUIT":
                answers.append(b"221 bye\r\n")
                self._transport.write(b"".join(answers))
                self._transport.close()
                return
            else:
                answers.append(b"250 ok\r\n")
        if answers:
            self._transport.write(b"".join(answers))


async def serve(port: int) -> None:
    counter = Counter()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Session(counter), "127.0.0.1", port, backlog=512)
    shown = -1
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.02)
        if counter.messages != shown:
            shown = counter.messages
            print(shown, counter.connections, flush=True)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
