"""A scripted IMAP server: a small honest one, and a way to make it misbehave at any command."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

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


# Handles a command instead of the server; False: the server goes on
Fault = Callable[[Peer, str, str], Awaitable[bool]]


class ImapServer:
    """One user, one folder, as much IMAP as a watcher speaks. Everything may be changed while it runs."""

    def __init__(self, *, password: str = "secret") -> None:
        self.password = password
        self.capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ESEARCH"
        self.folders: dict[str, dict[int, Letter]] = {"INBOX": {}}
        self.uidvalidity = 7
        self.uidnext = 1
        self.tells_uidnext = True
        self.commands: list[str] = []  # without tags and credentials
        self.connections = 0
        self.open = 0
        self.faults: list[Fault] = []
        self._news = trio.Condition()

    @property
    def letters(self) -> dict[int, Letter]:
        return self.folders["INBOX"]

    async def deliver(self, *raws: bytes, folder: str = "INBOX") -> list[int]:
        """Add messages, and tell those who idle."""
        uids = []
        for raw in raws:
            self.folders[folder][self.uidnext] = Letter(raw)
            uids.append(self.uidnext)
            self.uidnext += 1
        async with self._news:
            self._news.notify_all()
        return uids

    async def expunge(self, *uids: int) -> None:
        for uid in uids:
            del self.letters[uid]

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
            await _Dialog(self, peer).run()
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


class _Dialog:
    def __init__(self, server: ImapServer, peer: Peer) -> None:
        self.server = server
        self.peer = peer
        self.folder = "INBOX"
        self.told = 0  # how many messages the client knows of

    @property
    def letters(self) -> dict[int, Letter]:
        return self.server.folders[self.folder]

    async def run(self) -> None:
        while line := await self.peer.line():
            tag, _, command = line.partition(" ")
            self.server.commands.append("AUTHENTICATE" if command.startswith("AUTH") else command)
            for fault in self.server.faults:
                if await fault(self.peer, tag, command):
                    break
            else:
                if not await self.obey(tag, command):
                    return

    async def obey(self, tag: str, command: str) -> bool:
        say = self.peer.say
        upper = command.upper()
        if upper.startswith("AUTHENTICATE PLAIN "):
            _, _, password = base64.b64decode(command.split()[2]).decode().split("\0")
            if password == self.server.password:
                await say(f"{tag} OK [CAPABILITY {self.server.capabilities}] welcome")
            else:
                await say(f"{tag} NO [AUTHENTICATIONFAILED] wrong")
        elif upper == "CAPABILITY":
            await say(f"* CAPABILITY {self.server.capabilities}", f"{tag} OK")
        elif upper.startswith("EXAMINE "):
            await self.examine(tag, command)
        elif upper.startswith("UID SEARCH "):
            await self.search(tag, upper)
        elif upper.startswith("UID FETCH "):
            await self.fetch(tag, upper)
        elif upper == "IDLE":
            await self.idle(tag)
        elif upper == "LOGOUT":
            await say("* BYE see you", f"{tag} OK")
            return False
        else:
            await say(f"{tag} OK")
        return True

    async def examine(self, tag: str, command: str) -> None:
        name = command.split(" ", 1)[1].strip('"')
        if name not in self.server.folders:
            await self.peer.say(f"{tag} NO [NONEXISTENT] no such folder")
            return
        self.folder, self.told = name, len(self.server.folders[name])
        lines = [f"* {self.told} EXISTS", "* 0 RECENT", f"* OK [UIDVALIDITY {self.server.uidvalidity}] valid"]
        if self.server.tells_uidnext:
            lines.append(f"* OK [UIDNEXT {self.server.uidnext}] next")
        await self.peer.say(*lines, f"{tag} OK [READ-ONLY] done")

    def matching(self, text: str) -> list[int]:
        highest = max(self.letters, default=0)
        found: set[int] = set()
        for piece in text.split(","):
            ends = [highest if end == "*" else int(end) for end in piece.split(":")]
            low, high = min(ends), max(ends)  # `9:*` in a folder whose last UID is 5 means 5:9
            found |= {uid for uid in self.letters if low <= uid <= high}
        return sorted(found)

    async def news(self) -> list[str]:
        if len(self.letters) == self.told:
            return []
        self.told = len(self.letters)
        return [f"* {self.told} EXISTS"]

    async def search(self, tag: str, upper: str) -> None:
        words = upper.split()
        uids = self.matching(words[words.index("UID", 2) + 1]) if "UID" in words[2:] else sorted(self.letters)
        if "RETURN" in words:
            found = f" ALL {','.join(map(str, uids))}" if uids else ""
            await self.peer.say(f'* ESEARCH (TAG "{tag}") UID{found}', *await self.news(), f"{tag} OK")
        else:
            await self.peer.say(" ".join(["* SEARCH", *map(str, uids)]), *await self.news(), f"{tag} OK")

    async def fetch(self, tag: str, upper: str) -> None:
        lines: list[bytes] = []
        for uid in self.matching(upper.split()[2]):
            lines.append(self.fetched(uid, upper))
        await self.peer.say(*lines, *await self.news(), f"{tag} OK")

    def fetched(self, uid: int, upper: str) -> bytes:
        letter = self.letters[uid]
        number = sorted(self.letters).index(uid) + 1
        items = [b"UID %d" % uid]
        if "RFC822.SIZE" in upper:
            items.append(b"RFC822.SIZE %d" % (len(letter.raw) if letter.size is None else letter.size))
        if "INTERNALDATE" in upper:
            items.append(f'INTERNALDATE "{letter.internal}"'.encode())
        if "BODY.PEEK[]" in upper:
            items.append(b"BODY[] {%d}\r\n%b" % (len(letter.raw), letter.raw))
        elif match := re.search(r"BODY\.PEEK(\[HEADER\.FIELDS \(([^)]*)\)\])", upper):
            wanted = tuple(f"{name.lower()}:".encode() for name in match[2].split())
            head = letter.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
            text = b"".join(line + b"\r\n" for line in head if line.lower().startswith(wanted)) + b"\r\n"
            items.append(b"BODY%b {%d}\r\n%b" % (match[1].encode(), len(text), text))
        return b"* %d FETCH (%b)" % (number, b" ".join(items))

    async def idle(self, tag: str) -> None:
        await self.peer.say("+ idling")
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                while True:
                    async with self.server._news:
                        if len(self.letters) == self.told:
                            await self.server._news.wait()
                    await self.peer.say(*await self.news())

            nursery.start_soon(tell)
            done = await self.peer.line()
            nursery.cancel_scope.cancel()
        self.server.commands.append(done)
        await self.peer.say(f"{tag} OK idle is over")


def letter(number: int, size: int = 300) -> bytes:
    """Return a small message that is like no other."""
    head = (
        f"From: Customer {number} <c{number}@clients.example>\r\nTo: support@support.example\r\n"
        f"Subject: letter {number}\r\nDate: Fri, 17 Jul 2026 02:44:25 +0000\r\n"
        f"Message-ID: <{number}@clients.example>\r\n\r\n"
    ).encode()
    return head + b"x" * max(0, size - len(head) - 2) + b"\r\n"
