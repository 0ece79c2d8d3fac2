"""A provider's SMTP server that plays a script: any reply, a cut or silence, in any phase. Remembers what it took."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.support.ports import free_port

CUT: Final = "cut"  # close the connection instead of answering
HANG: Final = "hang"  # never answer

Script = Callable[[str, str, "Session"], str | None]
"""(phase, argument, session) → the reply's text, CUT, HANG, or None for the friendly default.

Phases: greeting ehlo starttls auth mail rcpt data content dot rset quit. `content` is asked when half of a message has
been read; a reply there is given in the middle of it, and then the connection is cut.
"""

_FRIENDLY: Final = {
    "greeting": "220 provider.example ESMTP",
    "starttls": "220 2.0.0 go ahead",
    "auth": "235 2.7.0 welcome",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "dot": "250 2.0.0 taken",
    "rset": "250 2.0.0 reset",
    "quit": "221 2.0.0 bye",
}


@dataclass
class Session:
    """One connection as the provider saw it. `number` counts from 1; `commands`: every line, without CRLF."""

    number: int
    commands: list[str] = field(default_factory=list)
    taken: int = 0  # messages whose dot was read


@dataclass(frozen=True)
class Taken:
    """A message whose final dot was read, whatever was answered."""

    return_path: str
    recipients: tuple[str, ...]
    raw: bytes
    session: int
    at: float = field(default_factory=time.time, compare=False)  # Unix seconds


class _Ended(Exception):
    pass


class ScriptedProvider:
    """Listens on a loopback port until `close`. Threads, so that tests of either world can use it."""

    def __init__(
        self,
        script: Script = lambda phase, argument, session: None,
        *,
        extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE 50000000", "AUTH PLAIN LOGIN"),
        tls: ssl.SSLContext | None = None,
        starttls: bool = False,
        port: int | None = None,
    ) -> None:
        self.script = script
        self.extensions = extensions
        self.port = port or free_port()
        self.taken: list[Taken] = []
        self.sessions: list[Session] = []
        self._tls = tls
        self._starttls = starttls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut_all()
        self._thread.join(5)

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):  # gone already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # replies in a row must not wait
            with self._lock:
                self._open.add(connection)
                session = Session(len(self.sessions) + 1)
                self.sessions.append(session)
            threading.Thread(target=self._serve, args=(connection, session), daemon=True).start()

    def _serve(self, connection: socket.socket, session: Session) -> None:
        talk = _Talk(connection, session, self)
        try:
            with contextlib.suppress(OSError, _Ended):
                talk.play()
        finally:
            with self._lock:
                self._open.discard(connection)
            talk.close()

    def _take(self, taken: Taken) -> None:
        with self._lock:
            self.taken.append(taken)


class _Talk:
    def __init__(self, connection: socket.socket, session: Session, provider: ScriptedProvider) -> None:
        self._connection = connection
        self._session = session
        self._provider = provider
        self._is_secure = False
        self._wrap()

    def _wrap(self) -> None:
        self._lines = self._connection.makefile("rb")

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def play(self) -> None:
        provider = self._provider
        if provider._tls is not None and not provider._starttls:
            self._secure()
        self._answer("greeting", "")
        return_path = ""
        recipients: list[str] = []
        while line := self._lines.readline():
            command = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            self._session.commands.append(command)
            verb, _, rest = command.partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    self._ehlo()
                case "STARTTLS":
                    self._answer("starttls", "")
                    self._secure()
                case "AUTH":
                    self._auth(rest)
                case "MAIL":
                    if self._answer("mail", rest).startswith("2"):
                        return_path, recipients = _address(rest), []
                case "RCPT":
                    if self._answer("rcpt", _address(rest)).startswith("2"):
                        recipients.append(_address(rest))
                case "DATA":
                    if self._answer("data", "").startswith("3"):
                        raw = self._content()
                        self._session.taken += 1
                        if recipients:
                            provider._take(Taken(return_path, tuple(recipients), raw, self._session.number))
                        self._answer("dot", raw.decode("utf-8", "replace"))
                        recipients = []
                case "RSET":
                    self._answer("rset", "")
                    recipients = []
                case "QUIT":
                    self._answer("quit", "")
                    return
                case _:
                    self._send("500 5.5.1 unknown")

    def _secure(self) -> None:
        assert self._provider._tls is not None
        self._connection = self._provider._tls.wrap_socket(self._connection, server_side=True)
        self._is_secure = True
        self._wrap()

    def _ehlo(self) -> None:
        reply = self._provider.script("ehlo", "", self._session)
        if reply is None:
            offers = [*self._provider.extensions]
            if self._provider._starttls and not self._is_secure:
                offers = [offer for offer in offers if not offer.startswith("AUTH")] + ["STARTTLS"]
            lines = ["provider.example", *offers]
            reply = "\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines)
        self._give(reply)

    def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        words = [initial] if initial else []
        while len(words) < (2 if mechanism.upper() == "LOGIN" else 1):
            self._send("334 ")
            words.append(self._lines.readline().decode().strip())
        self._answer("auth", " ".join([mechanism, *words]))

    def _content(self) -> bytes:
        parts: list[bytes] = []
        asked = False
        while line := self._lines.readline():
            if line == b".\r\n":
                return b"".join(parts)
            parts.append(line[1:] if line.startswith(b".") else line)
            if not asked:
                asked = True
                if (reply := self._provider.script("content", "", self._session)) is not None:
                    self._give(reply)
                    raise _Ended
        raise _Ended

    def _answer(self, phase: str, argument: str) -> str:
        reply = self._provider.script(phase, argument, self._session)
        if reply is None:
            reply = _FRIENDLY[phase]
        self._give(reply)
        if reply.startswith("421"):
            raise _Ended
        return reply

    def _give(self, reply: str) -> None:
        if reply == CUT:
            raise _Ended
        if reply == HANG:
            while self._connection.recv(65536):
                pass
            raise _Ended
        self._send(reply)

    def _send(self, reply: str) -> None:
        self._connection.sendall(reply.encode() + b"\r\n")


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]
