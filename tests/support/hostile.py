"""An IMAP server on a real socket: honest, until a fault is put in force.

One account, a few folders, TLS where it is given a certificate. It lives in a thread of its own; every method may be
called from the test's. What it can do wrong is a `Fault` (the catalogue is in `imap_faults`): a hook that has its turn
before the honest server has, at one place of the dialog.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from tests.support.authority import Pair
from tests.support.imap_model import (
    Argument,
    Folder,
    Message,
    Unknown,
    fetched,
    format_set,
    in_set,
    item_names,
    parse_arguments,
    plain,
    search,
    words,
)

T = TypeVar("T")

CAPABILITIES: Final = (
    "IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ESEARCH UIDPLUS MOVE ENABLE UTF8=ACCEPT SPECIAL-USE UNSELECT"
)
_ESTABLISHED: Final = 1  # the first byte of TCP_INFO
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST


@dataclass(frozen=True)
class Command:
    """`name` in upper case, `UID FETCH` and its like as one; `text`: the whole line without the tag."""

    tag: str
    name: str
    text: str
    arguments: list[Argument] = field(repr=False)


Quirk = Callable[["Dialog", int, Sequence[bytes]], Awaitable[str | bool]]
"""(dialog, uid, items) → what a message says to a FETCH by itself: True when it has, False to leave it to the server,
or how the whole command ends."""


@dataclass(eq=False)
class Fault:
    """What the server does otherwise, `times` times, or as long as it is in force (0).

    `opening`: when a connection comes, before TLS. `greeting`: instead of the greeting. `command`: instead of what
    the server would do at a command that matches `on`; False: the server does it. `found`: the UIDs of a SEARCH.
    `met` counts how often it has begun, `ended` how often the hook has come to its end.
    """

    name: str
    opening: Callable[[Dialog], Awaitable[None]] | None = None
    greeting: Callable[[Dialog], Awaitable[None]] | None = None
    command: Callable[[Dialog, Command], Awaitable[bool]] | None = None
    on: str = ""
    found: Callable[[Dialog, list[int]], list[int]] | None = None
    times: int = 1
    met: int = 0
    ended: int = 0

    @property
    def is_left(self) -> bool:
        return not self.times or self.met < self.times


class HostileServer:
    """Listens on a free loopback port until `close`. `capabilities`: what it says, and what it does."""

    def __init__(self, login: str, password: str, pair: Pair | None = None, capabilities: str = CAPABILITIES) -> None:
        self.login, self.password = login, password
        self.capabilities = capabilities
        self.folders = {
            one.name: one for one in (Folder("INBOX"), Folder("Junk", b"\\Junk"), Folder("Sent", b"\\Sent"))
        }
        self.commands: list[str] = []  # without tags and credentials
        self.misunderstood: list[str] = []  # what we have answered with BAD
        self.connections = 0
        self.crowds: list[list[str]] = []  # more than two logged in at the same time: what each had last said
        self.dialogs: list[Dialog] = []
        self._faults: list[Fault] = []
        self._tls: ssl.SSLContext | None = None
        if pair is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pair.certificate, pair.private_key)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile", daemon=True)
        self._thread.start()
        self._listener = self._wait(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, backlog=200))
        self.port: int = self._listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        async def end() -> None:
            self._listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # transports close in the loop's next round

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- for the test's thread ---------------------------------------------------------------------------------------

    def do(self, function: Callable[[], T]) -> T:
        """Run `function` in the server's thread, then tell the clients what it has changed."""

        async def run() -> T:
            result = function()
            self.ring()
            return result

        return self._wait(run())

    def deliver(self, *messages: bytes | Message, folder: str = "INBOX") -> list[int]:
        made = [one if isinstance(one, Message) else Message(one) for one in messages]
        return self.do(lambda: [self.folders[folder].add(message) for message in made])

    def expunge(self, *uids: int, folder: str = "INBOX") -> None:
        def remove() -> None:
            for uid in uids:
                self.folders[folder].messages.pop(uid, None)

        self.do(remove)

    def messages(self, folder: str = "INBOX") -> dict[int, Message]:
        return self.do(lambda: dict(self.folders[folder].messages))

    def drop(self) -> None:
        """Cut every connection."""

        def cut() -> None:
            for dialog in self.dialogs:
                dialog.reset()

        self.do(cut)

    @property
    def has_idler(self) -> bool:
        """Whether somebody waits in IDLE."""
        return self.do(lambda: any(dialog.last == "IDLE" for dialog in self.dialogs))

    @contextlib.contextmanager
    def in_force(self, *faults: Fault) -> Iterator[None]:
        self.do(lambda: self._faults.extend(faults))
        try:
            yield
        finally:
            self.do(lambda: self._withdraw(faults))

    # --- for dialogs and faults, in the server's thread ---------------------------------------------------------------

    def ring(self) -> None:
        """Let those who idle look whether there is news."""
        for dialog in self.dialogs:
            dialog.news.set()

    def faults(self, hook: str) -> Iterator[Fault]:
        for fault in list(self._faults):
            if getattr(fault, hook) is not None and fault.is_left:
                yield fault

    def _withdraw(self, faults: Sequence[Fault]) -> None:
        self._faults = [fault for fault in self._faults if fault not in faults]

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        dialog = Dialog(self, reader, writer)
        self.dialogs.append(dialog)
        try:
            await dialog.run(self._tls)
        except (OSError, EOFError, asyncio.CancelledError, asyncio.LimitOverrunError):
            pass  # the client has left, or has been left
        finally:
            self.dialogs.remove(dialog)
            self._tasks.discard(task)
            writer.transport.abort()


@contextlib.contextmanager
def _counted(fault: Fault) -> Iterator[None]:
    fault.met += 1
    try:
        yield
    finally:
        fault.ended += 1


class Dialog:
    """One connection, from the server's side."""

    def __init__(self, server: HostileServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.capabilities = server.capabilities
        self.is_logged_in = False
        self.folder: Folder | None = None
        self.uidvalidity = 0  # of `folder` when it was opened
        self.writable = False
        self.told: list[int] = []  # the UIDs that the client can know of, in order: place in it + 1 = sequence number
        self.news = asyncio.Event()
        self.last = ""  # command
        self._reader = reader
        self._writer = writer
        self._bytes_left: int | None = None

    # --- bytes -------------------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        await asyncio.sleep(0)  # `drain` alone gives the loop no chance to hear that the connection is lost
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        if self._bytes_left is not None:
            self._bytes_left -= len(data)
            if self._bytes_left <= 0:
                self._writer.write(data[: self._bytes_left + len(data)])
                await self._writer.drain()
                self.reset()
                raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def say(self, *lines: str | bytes) -> None:
        """Send lines, in one write."""
        encoded = (line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line for line in lines)
        await self.send(b"".join(line + b"\r\n" for line in encoded))

    async def drip(self, data: bytes, every: float) -> None:
        """Send one byte now and then, until the client has had enough or all has gone out."""
        gone = asyncio.ensure_future(self.hang())
        try:
            for at in range(len(data)):
                await self.send(data[at : at + 1])
                await asyncio.wait((gone,), timeout=every)
                if gone.done():
                    return
        finally:
            gone.cancel()

    async def hang(self) -> None:
        """Say nothing and do nothing until the client leaves."""
        with contextlib.suppress(OSError):
            while await self._reader.read(65536):
                pass

    async def turn_deaf(self) -> None:
        """Read nothing any more, until the client has closed its side."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's type is a write transport's
        sock = self._writer.get_extra_info("socket")
        # The loop that does not read does not hear of a FIN either
        while (  # noqa: ASYNC110 - the kernel's state rings no bell
            sock.fileno() >= 0 and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
        ):
            await asyncio.sleep(0.02)
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above

    def cut_after(self, count: int) -> None:
        """Reset the connection when so many more bytes have been written."""
        self._bytes_left = count

    def reset(self) -> None:
        """Go as a crashed host does: RST."""
        if (sock := self._writer.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Go politely: FIN, behind all that was written."""
        with contextlib.suppress(OSError, EOFError):
            await self._writer.drain()
            self._writer.close()
            await asyncio.wait_for(self._writer.wait_closed(), 1)

    async def line(self) -> bytes:
        """Return the next line without its end. Raises EOFError."""
        return (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")

    async def _command(self) -> Command:
        line = await self.line()
        literals: list[bytes] = []
        while match := re.search(rb"\{([0-9]+)(\+?)\}\Z", line):
            if not match[2]:
                await self.say("+ go on")
            literals.append(await self._reader.readexactly(int(match[1])))
            line += await self.line()
        tag, _, text = line.partition(b" ")
        name, _, rest = text.partition(b" ")
        if name.upper() == b"UID":
            verb, _, rest = rest.partition(b" ")
            name += b" " + verb
        named = name.upper().decode("ascii", "replace")
        shown = named if named in ("LOGIN", "AUTHENTICATE") else text.decode("utf-8", "replace")
        self.server.commands.append(shown)
        self.last = shown
        return Command(tag.decode("ascii", "replace"), named, shown, parse_arguments(rest, literals))

    # --- the dialog --------------------------------------------------------------------------------------------------

    async def run(self, tls: ssl.SSLContext | None) -> None:
        for fault in self.server.faults("opening"):
            assert fault.opening is not None
            with _counted(fault):
                await fault.opening(self)
            return
        if tls is not None:
            await self._start_tls(tls)
        for fault in self.server.faults("greeting"):
            assert fault.greeting is not None
            with _counted(fault):
                await fault.greeting(self)
            return
        await self.say(f"* OK [CAPABILITY {self.capabilities}] ready")
        while True:
            command = await self._command()
            if not await self._misbehave(command):
                await self.obey(command)
            if command.name == "LOGOUT":
                return

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        plain: Any = self._writer.transport
        try:
            await self._writer.start_tls(tls)
        except AttributeError:  # CPython's way of saying that the client has left in the middle of the handshake
            self._writer._transport = plain  # type: ignore[attr-defined]  # else nobody could close it
            raise ConnectionResetError from None

    async def _misbehave(self, command: Command) -> bool:
        for fault in self.server.faults("command"):
            if re.match(fault.on, command.text, re.IGNORECASE):
                assert fault.command is not None
                with _counted(fault):
                    return await fault.command(self, command)
        return False

    async def obey(self, command: Command) -> None:
        """Do what an honest server does."""
        handler = _HANDLERS.get(command.name)
        try:
            if handler is None:
                raise Unknown(f"no such command: {command.name}")
            if not self.is_logged_in and command.name not in _BEFORE_LOGIN:
                raise Unknown("log in first")
            if self.folder is None and command.name in _WITH_FOLDER:
                raise Unknown("no folder is open")
            if (needed := _NEEDS.get(command.name)) and needed not in self.capabilities.split():
                raise Unknown(f"no {needed}")
            await handler(self, command)
        except (Unknown, StopIteration, IndexError, ValueError) as error:
            self.server.misunderstood.append(f"{command.text}: {error}")
            await self.say(f"{command.tag} BAD {error}")

    def changes(self) -> list[str]:
        """Return what the client does not know yet of the open folder, and take it as told."""
        if self.folder is None:
            return []
        now = list(self.folder.messages)
        lines = []
        for place in range(len(self.told), 0, -1):
            if self.told[place - 1] not in self.folder.messages:
                lines.append(f"* {place} EXPUNGE")
        if set(now) - set(self.told):
            lines.append(f"* {len(now)} EXISTS")
        self.told = now
        return lines

    async def done(self, command: Command, text: str = "OK done", lines: Sequence[str | bytes] = ()) -> None:
        """Answer, with the news in front. A folder that was made anew meanwhile ends the session."""
        if self.folder is not None and self.uidvalidity != self.folder.uidvalidity:
            await self.say("* BYE the folder has been made anew")
            self.reset()
            raise EOFError
        await self.say(*lines, *self.changes(), f"{command.tag} {text}")

    # --- commands ----------------------------------------------------------------------------------------------------

    async def capability(self, command: Command) -> None:
        await self.say(f"* CAPABILITY {self.capabilities}", f"{command.tag} OK done")

    async def authenticate(self, command: Command) -> None:
        mechanism, *initial = (plain(argument) for argument in command.arguments)
        if mechanism.upper() != b"PLAIN":
            raise Unknown("PLAIN only")
        if not initial:
            await self.say("+ ")
            initial = [await self.line()]
        try:
            _, login, password = base64.b64decode(initial[0], validate=True).decode().split("\0")
        except (binascii.Error, ValueError):
            raise Unknown("that is not base64 of NUL login NUL password") from None
        await self._let_in(command, login, password)

    async def log_in(self, command: Command) -> None:
        login, password = (plain(argument).decode() for argument in command.arguments)
        await self._let_in(command, login, password)

    async def _let_in(self, command: Command, login: str, password: str) -> None:
        if (login, password) != (self.server.login, self.server.password):
            await self.say(f"{command.tag} NO [AUTHENTICATIONFAILED] wrong login or password")
            return
        self.is_logged_in = True
        crowd = [one.last for one in self.server.dialogs if one.is_logged_in]
        if len(crowd) > 2:
            self.server.crowds.append(crowd)
        await self.say(f"{command.tag} OK [CAPABILITY {self.capabilities}] welcome")

    async def log_out(self, command: Command) -> None:
        await self.say("* BYE see you", f"{command.tag} OK done")
        await self.close()

    async def nothing(self, command: Command) -> None:
        await self.done(command)

    async def identify(self, command: Command) -> None:
        await self.say('* ID ("name" "hostile")', f"{command.tag} OK done")

    async def enable(self, command: Command) -> None:
        known = [name for name in map(plain, command.arguments) if name.upper() == b"UTF8=ACCEPT"]
        await self.say(b"* ENABLED " + b" ".join(known), f"{command.tag} OK done")

    async def list_folders(self, command: Command) -> None:
        arguments = list(command.arguments)
        only_special = isinstance(arguments[0], list) and bool(arguments.pop(0))
        patterns = words(arguments[1])
        lines = []
        for folder in self.server.folders.values():
            if any(_matches(pattern, folder.name) for pattern in patterns):
                if only_special and not folder.attributes:
                    continue
                flags = b" ".join((b"\\HasNoChildren", *folder.attributes))
                lines.append(b'* LIST (%b) "/" "%b"' % (flags, folder.name.encode()))
        await self.done(command, lines=lines)

    async def create(self, command: Command) -> None:
        name = plain(command.arguments[0]).decode()
        if name in self.server.folders:
            await self.done(command, "NO [ALREADYEXISTS] it is there")
            return
        self.server.folders[name] = Folder(name)
        await self.done(command)

    async def status(self, command: Command) -> None:
        folder = self.server.folders.get(plain(command.arguments[0]).decode())
        if folder is None:
            await self.done(command, "NO [NONEXISTENT] no such folder")
            return
        known = {
            b"MESSAGES": len(folder.messages),
            b"UIDNEXT": folder.uidnext,
            b"UIDVALIDITY": folder.uidvalidity,
            b"RECENT": 0,
            b"UNSEEN": sum(b"\\Seen" not in message.flags for message in folder.messages.values()),
        }
        asked = [name.upper() for name in words(command.arguments[1])]
        if unknown := set(asked) - set(known):
            raise Unknown(f"no such status: {unknown}")
        values = b" ".join(b"%b %d" % (name, known[name]) for name in asked)
        await self.done(command, lines=[b'* STATUS "%b" (%b)' % (folder.name.encode(), values)])

    async def select(self, command: Command) -> None:
        folder = self.server.folders.get(plain(command.arguments[0]).decode())
        self.folder = None
        if folder is None:
            await self.done(command, "NO [NONEXISTENT] no such folder")
            return
        if len(command.arguments) > 1:
            raise Unknown("SELECT takes no parameters here")
        self.folder, self.writable = folder, command.name == "SELECT"
        self.told, self.uidvalidity = list(folder.messages), folder.uidvalidity
        await self.say(
            rb"* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)",
            f"* {len(self.told)} EXISTS",
            "* 0 RECENT",
            f"* OK [UIDVALIDITY {folder.uidvalidity}] valid",
            f"* OK [UIDNEXT {folder.uidnext}] next",
            f"{command.tag} OK [{'READ-WRITE' if self.writable else 'READ-ONLY'}] open",
        )

    async def close_folder(self, command: Command) -> None:
        assert self.folder is not None
        if command.name == "CLOSE" and self.writable:  # that is why nobody but the owner should say it
            self._remove([uid for uid, message in self.folder.messages.items() if b"\\Deleted" in message.flags])
        self.folder = None
        await self.done(command)

    async def find(self, command: Command) -> None:
        assert self.folder is not None
        arguments = list(command.arguments)
        wants = None
        if isinstance(arguments[0], bytes) and arguments[0].upper() == b"RETURN":
            if "ESEARCH" not in self.capabilities.split():
                raise Unknown("no ESEARCH")
            wants = [word.upper() for word in words(arguments[1])] or [b"ALL"]
            del arguments[:2]
        uids = search(arguments, self.folder)
        for fault in self.server.faults("found"):
            assert fault.found is not None
            with _counted(fault):
                uids = fault.found(self, uids)
        if wants is None:
            await self.done(command, lines=[b" ".join([b"* SEARCH", *(b"%d" % uid for uid in uids)])])
            return
        parts = [b'* ESEARCH (TAG "%b") UID' % command.tag.encode()]
        if b"ALL" in wants and uids:
            parts.append(b"ALL " + format_set(uids))
        if b"MIN" in wants and uids:
            parts.append(b"MIN %d" % uids[0])
        if b"MAX" in wants and uids:
            parts.append(b"MAX %d" % uids[-1])
        if b"COUNT" in wants:
            parts.append(b"COUNT %d" % len(uids))
        await self.done(command, lines=[b" ".join(parts)])

    async def fetch(self, command: Command) -> None:
        assert self.folder is not None
        names = item_names(command.arguments[1])
        answer = "OK done"
        for uid in in_set(plain(command.arguments[0]), list(self.folder.messages)):
            message = self.folder.messages.get(uid)
            if message is None or uid not in self.told:
                continue
            said = await message.quirk(self, uid, names) if message.quirk else False
            if said is False:
                await self.say(self.show(uid, names))  # one write each, as a server that reads them from a disk does
            elif isinstance(said, str):
                answer = said
        await self.done(command, answer)

    def show(self, uid: int, names: Sequence[bytes]) -> bytes:
        """Return one FETCH response."""
        assert self.folder is not None
        message = self.folder.messages[uid]
        items = []
        for name in names:
            shown, value = fetched(name, uid, message)
            items.append(shown + b" " + value)
            if shown.startswith(b"BODY") and b".PEEK" not in name and self.writable:
                message.flags.add(b"\\Seen")
        return b"* %d FETCH (%b)" % (self.told.index(uid) + 1, b" ".join(items))

    async def store(self, command: Command) -> None:
        assert self.folder is not None
        if not self.writable:
            await self.done(command, "NO [READ-ONLY] opened with EXAMINE")
            return
        how, flags = plain(command.arguments[1]).upper(), set(words(command.arguments[2]))
        lines = []
        for uid in in_set(plain(command.arguments[0]), list(self.folder.messages)):
            message = self.folder.messages[uid]
            if how.startswith(b"+"):
                message.flags |= flags
            elif how.startswith(b"-"):
                message.flags -= flags
            else:
                message.flags = flags
            if not how.endswith(b".SILENT"):
                lines.append(self.show(uid, [b"UID", b"FLAGS"]))
        await self.done(command, lines=lines)

    async def copy(self, command: Command) -> None:
        assert self.folder is not None
        moves = command.name == "UID MOVE"
        if moves and not self.writable:
            await self.done(command, "NO [READ-ONLY] opened with EXAMINE")
            return
        target = self.server.folders.get(plain(command.arguments[1]).decode())
        if target is None:
            await self.done(command, "NO [TRYCREATE] no such folder")
            return
        uids = in_set(plain(command.arguments[0]), list(self.folder.messages))
        originals = [self.folder.messages[uid] for uid in uids]
        copies = [target.add(Message(one.raw, one.internal_at, set(one.flags), number=one.number)) for one in originals]
        code = f"[COPYUID {target.uidvalidity} {format_set(uids).decode()} {format_set(copies).decode()}]"
        if not uids or "UIDPLUS" not in self.capabilities.split():
            code = ""
        self.server.ring()
        if moves:
            self._remove(uids)
            await self.done(command, lines=[f"* OK {code} moved"] if code else [])
        else:
            await self.done(command, f"OK {code} copied")

    async def expunge(self, command: Command) -> None:
        assert self.folder is not None
        uids = in_set(plain(command.arguments[0]), list(self.folder.messages))
        self._remove([uid for uid in uids if b"\\Deleted" in self.folder.messages[uid].flags])
        await self.done(command)

    def _remove(self, uids: Sequence[int]) -> None:
        assert self.folder is not None
        for uid in uids:
            del self.folder.messages[uid]
        self.server.ring()

    async def idle(self, command: Command) -> None:
        await self.say("+ idling")
        await self.until_done()
        await self.done(command)

    async def until_done(self) -> bytes:
        """Tell what is new until the client has said something; return what."""
        said = asyncio.ensure_future(self.line())
        try:
            while not said.done():
                self.news.clear()
                if self.folder is None or self.folder.uidvalidity == self.uidvalidity:
                    if lines := self.changes():
                        await self.say(*lines)
                else:
                    await self.say("* BYE the folder has been made anew")
                    self.reset()
                    raise EOFError
                bell = asyncio.ensure_future(self.news.wait())
                await asyncio.wait((said, bell), return_when=asyncio.FIRST_COMPLETED)
                bell.cancel()
            return said.result()
        finally:
            said.cancel()


def _matches(pattern: bytes, name: str) -> bool:
    parts = {b"*": ".*", b"%": "[^/]*"}
    pieces = re.split(rb"([*%])", pattern)
    return re.fullmatch("".join(parts.get(one, re.escape(one.decode())) for one in pieces), name) is not None


_BEFORE_LOGIN: Final = frozenset(("CAPABILITY", "AUTHENTICATE", "LOGIN", "LOGOUT", "NOOP", "ID"))
_NEEDS: Final = {"IDLE": "IDLE", "UID MOVE": "MOVE", "UID EXPUNGE": "UIDPLUS", "ENABLE": "ENABLE", "ID": "ID"}
_WITH_FOLDER: Final = frozenset(
    ("UID SEARCH", "UID FETCH", "UID STORE", "UID COPY", "UID MOVE", "UID EXPUNGE", "UNSELECT", "CLOSE", "CHECK")
)
_HANDLERS: Final[dict[str, Callable[[Dialog, Command], Awaitable[None]]]] = {
    "CAPABILITY": Dialog.capability,
    "AUTHENTICATE": Dialog.authenticate,
    "LOGIN": Dialog.log_in,
    "LOGOUT": Dialog.log_out,
    "NOOP": Dialog.nothing,
    "CHECK": Dialog.nothing,
    "ID": Dialog.identify,
    "ENABLE": Dialog.enable,
    "LIST": Dialog.list_folders,
    "CREATE": Dialog.create,
    "STATUS": Dialog.status,
    "SELECT": Dialog.select,
    "EXAMINE": Dialog.select,
    "UNSELECT": Dialog.close_folder,
    "CLOSE": Dialog.close_folder,
    "IDLE": Dialog.idle,
    "UID SEARCH": Dialog.find,
    "UID FETCH": Dialog.fetch,
    "UID STORE": Dialog.store,
    "UID COPY": Dialog.copy,
    "UID MOVE": Dialog.copy,
    "UID EXPUNGE": Dialog.expunge,
}
