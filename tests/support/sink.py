"""A provider's SMTP server of a few lines that remembers everything it was given, also what it never acknowledged."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.letters import message_id
from tests.support.ports import free_port


@dataclass(frozen=True)
class Taken:
    """A message whose final dot was read. `note`: what `on_dot` returned at that moment, before any answer."""

    recipient: str
    message_id: str
    raw: bytes
    note: object


class Sink:
    """Takes any login and any mail. `reply` decides the answer to the dot; None: cut the connection instead."""

    def __init__(
        self,
        on_dot: Callable[[], object] = lambda: None,
        reply: Callable[[Taken], str | None] = lambda taken: "250 2.0.0 taken",
    ) -> None:
        self.port = free_port()
        self.taken: list[Taken] = []
        self._on_dot = on_dot
        self._reply = reply
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def message_ids(self) -> list[str]:
        with self._lock:
            return [taken.message_id for taken in self.taken]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            with contextlib.suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                session, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(session)
            threading.Thread(target=self._serve, args=(session,), daemon=True).start()

    def _serve(self, session: socket.socket) -> None:
        with session, session.makefile("rb") as lines, contextlib.suppress(OSError):
            session.sendall(b"220 sink.example ESMTP\r\n")
            recipient = ""
            while line := lines.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    session.sendall(
                        b"250-sink.example\r\n250-8BITMIME\r\n250-SIZE 50000000\r\n250 AUTH PLAIN LOGIN\r\n"
                    )
                elif verb == b"AUTH":
                    if line.upper().split()[1] == b"LOGIN":
                        session.sendall(b"334 \r\n")
                        lines.readline()
                    if len(line.split()) < 3 or line.upper().split()[1] == b"LOGIN":
                        session.sendall(b"334 \r\n")
                        lines.readline()
                    session.sendall(b"235 2.7.0 welcome\r\n")
                elif verb == b"RCPT":
                    recipient = line.decode().partition("<")[2].partition(">")[0]
                    session.sendall(b"250 2.1.5 ok\r\n")
                elif verb == b"DATA":
                    session.sendall(b"354 go on\r\n")
                    if (raw := _read_data(lines.readline)) is None:
                        break
                    taken = Taken(recipient, message_id(raw), raw, self._on_dot())
                    with self._lock:
                        self.taken.append(taken)
                    reply = self._reply(taken)
                    if reply is None:
                        break
                    session.sendall(reply.encode() + b"\r\n")
                elif verb == b"QUIT":
                    session.sendall(b"221 2.0.0 bye\r\n")
                    break
                else:
                    session.sendall(b"250 2.0.0 ok\r\n")
        with self._lock:
            self._open.discard(session)


def _read_data(read_line: Callable[[], bytes]) -> bytes | None:
    parts: list[bytes] = []
    while line := read_line():
        if line == b".\r\n":
            return b"".join(parts)
        parts.append(line[1:] if line.startswith(b".") else line)
    return None
