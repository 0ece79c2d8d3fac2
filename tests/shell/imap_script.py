"""A scripted IMAP server: a small honest one, and a way to make it misbehave at any command."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import trio

from tests.shell.imap_dialog import Dialog

MONDAY = "17-Jul-2026 02:44:25 +0000"


@dataclass
class Peer:
    """One connection, from the server's side."""

    stream: trio.abc.Stream
    received: bytearray = field(default_factory=bytearray)

    async def say(self, *lines: str | bytes) -> None:
        """Send lines, in one write."""
        encoded = (line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape") for line in lines)
        await self.stream.send_all(b"".join(line + b"\r\n" for line in encoded))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def line(self) -> str:
        """Return the next line; "" at the end."""
        while b"\n" not in self.received:
            data = await self.stream.receive_some(65536)
            if not data:
                return ""
            self.received += data
        line, _, rest = bytes(self.received).partition(b"\n")
        self.received[:] = rest
        return line.rstrip(b"\r").decode("utf-8", "surrogateescape")

    async def exactly(self, count: int) -> bytes:
        while len(self.received) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                break
            self.received += data
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    async def closed(self) -> None:
        """Wait until the client is gone."""
        try:
            while await self.stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve every connection with `script` on a free port; yields the port. Scripts may end early."""

    async def handle(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
        try:
            await script(Peer(secured))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has left, which is its right
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await trio.aclose_forcefully(secured)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@dataclass
class Letter:
    raw: bytes
    internal: str = MONDAY
    size: int | None = None  # what RFC822.SIZE says; None: the truth
    flags: set[str] = field(default_factory=set)
    own_id: str = ""  # EMAILID or X-GM-MSGID, for the server that lists OBJECTID or X-GM-EXT-1
    envelope: bytes = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"

    @property
    def day(self) -> date:
        return datetime.strptime(self.internal.strip()[:11], "%d-%b-%Y").date()

    def again(self) -> Letter:
        """Return a copy, for another place."""
        return replace(self, flags=set(self.flags))


# Handles a command instead of the server; False: the server goes on
Fault = Callable[[Peer, str, str], Awaitable[bool]]


class ImapServer:
    """One user, some folders, as much IMAP as we speak. Everything may be changed while it runs.

    What it can do is what `capabilities` say: ESEARCH, ENABLE, CONDSTORE, QRESYNC, UTF8=ACCEPT, UIDONLY, MOVE, UIDPLUS,
    OBJECTID, X-GM-EXT-1, MESSAGELIMIT=n.
    """

    def __init__(self, *, password: str = "secret") -> None:
        self.password = password
        self.capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ESEARCH"
        self.folders: dict[str, dict[int, Letter]] = {"INBOX": {}}
        self.attributes: dict[str, str] = {}  # of folders, as LIST shows them
        self.uidvalidity = 7
        self.uidvalidities: dict[str, int] = {}  # of folders that have another one
        self.uidnext = 1
        self.tells_uidnext = True
        self.commands: list[str] = []  # without tags and credentials
        self.connections = 0
        self.open = 0
        self.faults: list[Fault] = []
        self.modseq = 1
        self.expunged: list[tuple[int, str, int]] = []  # modseq, folder, UID
        self._news = trio.Condition()

    @property
    def letters(self) -> dict[int, Letter]:
        return self.folders["INBOX"]

    @property
    def message_limit(self) -> int | None:
        match = re.search(r"MESSAGELIMIT=(\d+)", self.capabilities)
        return int(match[1]) if match else None

    async def deliver(self, *raws: bytes, folder: str = "INBOX") -> list[int]:
        """Add messages, and tell those who idle."""
        uids = []
        for raw in raws:
            self.folders[folder][self.uidnext] = Letter(raw)
            self.modseq += 1
            uids.append(self.uidnext)
            self.uidnext += 1
        async with self._news:
            self._news.notify_all()
        return uids

    def lay_down(self, folder: str, raw: bytes, **about: Any) -> int:
        """Put a message into a folder; return its UID. `about`: as of a Letter."""
        uid = self.uidnext
        self.folders[folder][uid] = Letter(raw, **about)
        self.uidnext += 1
        self.modseq += 1
        return uid

    async def expunge(self, *uids: int, folder: str = "INBOX") -> None:
        for uid in uids:
            self.take_out(folder, uid)

    def take_out(self, folder: str, uid: int) -> None:
        del self.folders[folder][uid]
        self.modseq += 1
        self.expunged.append((self.modseq, folder, uid))

    def on(self, pattern: str, times: int = 1) -> Callable[[Fault], Fault]:
        """Let the decorated function handle the next `times` commands that match."""
        left = [times]

        def register(fault: Fault) -> Fault:
            async def counted(peer: Peer, tag: str, command: str) -> bool:
                if not left[0] or not re.match(pattern, command, re.IGNORECASE):
                    return False
                left[0] -= 1
                return await fault(peer, tag, command)

            self.faults.append(counted)
            return fault

        return register

    async def __call__(self, peer: Peer) -> None:
        self.connections += 1
        self.open += 1
        try:
            await peer.say(f"* OK [CAPABILITY {self.capabilities}] ready")
            await Dialog(self, peer).run()
        finally:
            self.open -= 1
            async with self._news:
                self._news.notify_all()

    async def deserted(self) -> None:
        """Wait until nobody is connected."""
        with trio.fail_after(5):
            async with self._news:
                while self.open:
                    await self._news.wait()


def letter(number: int, size: int = 300) -> bytes:
    """Return a small message that is like no other."""
    head = (
        f"From: Customer {number} <c{number}@clients.example>\r\nTo: support@support.example\r\n"
        f"Subject: letter {number}\r\nDate: Fri, 17 Jul 2026 02:44:25 +0000\r\n"
        f"Message-ID: <{number}@clients.example>\r\n\r\n"
    ).encode()
    return head + b"x" * max(0, size - len(head) - 2) + b"\r\n"
