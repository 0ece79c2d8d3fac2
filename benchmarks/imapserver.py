"""A provider that answers at once, in a process of its own: IMAP with and without TLS, and LMTP to deliver into it.

    python -m benchmarks.imapserver CERTIFICATE KEY      prints the ports of IMAP, IMAPS and LMTP when it listens

Where Dovecot gathers notifications for half a second, this one says EXISTS in the turn in which the message came, so
that what is measured is the client. Every login is let in and has INBOX, Junk and Sent of its own, in memory.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import uvloop

CAPABILITIES: Final = b"IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ENABLE ESEARCH SPECIAL-USE UIDPLUS MOVE"
_WHEN: Final = b'"23-Nov-2026 10:00:00 +0000"'
_ITEM: Final = re.compile(
    rb"(?P<name>UID|FLAGS|RFC822\.SIZE|INTERNALDATE)"
    rb"|BODY(?:\.PEEK)?\[(?P<section>[^\]]*)\](?:<(?P<offset>[0-9]+)\.(?P<count>[0-9]+)>)?"
)
_SPECIAL: Final = {b"INBOX": b"", b"Junk": b"\\Junk", b"Sent": b"\\Sent"}


@dataclass
class Folder:
    messages: dict[int, bytes] = field(default_factory=dict)  # UID → bytes, ascending
    idlers: set[Imap] = field(default_factory=set)
    next_uid: int = 1

    def add(self, raw: bytes) -> None:
        self.messages[self.next_uid] = raw
        self.next_uid += 1
        for idler in self.idlers:
            idler.announce()

    def chosen(self, uid_set: bytes) -> list[int]:
        """Return the UIDs in `1:3,7,9:*` that exist, ascending."""
        highest = max(self.messages, default=0)
        found: set[int] = set()
        for piece in uid_set.split(b","):
            first, _, last = piece.partition(b":")
            ends = [highest if end == b"*" else int(end) for end in (first, last or first)]
            low, high = min(ends), max(ends)
            if high - low > len(self.messages):
                found.update(uid for uid in self.messages if low <= uid <= high)
            else:
                found.update(uid for uid in range(low, high + 1) if uid in self.messages)
        return sorted(found)


Folders = dict[bytes, Folder]


class Lines(asyncio.Protocol):
    """Cuts what comes into lines and hands each to `take`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self._buffer = b""
        self.greet()

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        *lines, self._buffer = data.split(b"\r\n")
        for line in lines:
            self.take(line)

    def say(self, *lines: bytes) -> None:
        self.transport.write(b"".join(line + b"\r\n" for line in lines))

    def greet(self) -> None:
        raise NotImplementedError

    def take(self, line: bytes) -> None:
        raise NotImplementedError


class Imap(Lines):
    def __init__(self, accounts: dict[bytes, Folders]) -> None:
        self._accounts = accounts
        self._folders: Folders = {}
        self._open = Folder()
        self._told = 0  # messages in the open folder, as the client knows
        self._idling: bytes | None = None  # the tag of IDLE

    def greet(self) -> None:
        self.say(b"* OK [CAPABILITY " + CAPABILITIES + b"] ready")

    def connection_lost(self, error: Exception | None) -> None:
        self._open.idlers.discard(self)

    def take(self, line: bytes) -> None:
        if self._idling is not None:
            if line.upper() == b"DONE":
                self._open.idlers.discard(self)
                tag, self._idling = self._idling, None
                self.say(tag + b" OK done")
            return
        tag, _, rest = line.partition(b" ")
        verb, _, rest = rest.partition(b" ")
        name = verb.upper()
        if name == b"UID":
            verb, _, rest = rest.partition(b" ")
            name = b"UID_" + verb.upper()
        do = _COMMANDS.get(name)
        if do is None:
            self.say(tag + b" BAD unknown here: " + name)
            return
        do(self, tag, rest)
        self.announce()

    def announce(self) -> None:
        """Say how many messages there are if that is news."""
        if len(self._open.messages) != self._told:
            self._told = len(self._open.messages)
            self.say(b"* %d EXISTS" % self._told)

    # --- commands ----------------------------------------------------------------------------------------------------

    def authenticate(self, tag: bytes, rest: bytes) -> None:
        words = base64.b64decode(rest.split()[1]).split(b"\0")
        self._let_in(tag, words[1])

    def login(self, tag: bytes, rest: bytes) -> None:
        self._let_in(tag, rest.split()[0].strip(b'"'))

    def _let_in(self, tag: bytes, user: bytes) -> None:
        self._folders = self._accounts[user]
        self.say(tag + b" OK [CAPABILITY " + CAPABILITIES + b"] welcome")

    def capability(self, tag: bytes, rest: bytes) -> None:
        self.say(b"* CAPABILITY " + CAPABILITIES, tag + b" OK")

    def identify(self, tag: bytes, rest: bytes) -> None:
        self.say(b'* ID ("name" "benchmark")', tag + b" OK")

    def nothing(self, tag: bytes, rest: bytes) -> None:
        self.say(tag + b" OK")

    def list(self, tag: bytes, rest: bytes) -> None:
        for name, use in _SPECIAL.items():
            self.say(b'* LIST (%s) "/" %s' % (use, name))
        self.say(tag + b" OK")

    def _find(self, argument: bytes) -> tuple[bytes, Folder | None]:
        """Return a folder's name as we spell it and the folder, from the head of an argument."""
        name = (argument[1:].partition(b'"') if argument[:1] == b'"' else argument.partition(b" "))[0]
        name = b"INBOX" if name.upper() == b"INBOX" else name
        return name, self._folders.get(name)

    def status(self, tag: bytes, rest: bytes) -> None:
        name, folder = self._find(rest)
        if folder is None:
            self.say(tag + b" NO no such folder")
            return
        numbers = len(folder.messages), folder.next_uid
        self.say(b"* STATUS %s (MESSAGES %d UIDNEXT %d UIDVALIDITY 1 UNSEEN 0)" % (name, *numbers), tag + b" OK")

    def select(self, tag: bytes, rest: bytes) -> None:
        _, folder = self._find(rest)
        if folder is None:
            self.say(tag + b" NO no such folder")
            return
        self._open = folder
        self._told = len(folder.messages)
        self.say(
            b"* FLAGS (\\Seen \\Answered \\Deleted)",
            b"* %d EXISTS" % self._told,
            b"* OK [UIDVALIDITY 1] valid",
            b"* OK [UIDNEXT %d] next" % folder.next_uid,
            tag + b" OK [READ-WRITE] open",
        )

    def idle(self, tag: bytes, rest: bytes) -> None:
        self._idling = tag
        self._open.idlers.add(self)
        self.say(b"+ idling")

    def uid_search(self, tag: bytes, rest: bytes) -> None:
        extended = rest.upper().startswith(b"RETURN")
        criteria = rest.partition(b") ")[2] if extended else rest
        words = criteria.split()
        uids = self._open.chosen(words[1]) if words[0].upper() == b"UID" else list(self._open.messages)
        if extended:
            found = b" ALL " + b",".join(b"%d" % uid for uid in uids) if uids else b""
            self.say(b'* ESEARCH (TAG "%s") UID%s' % (tag, found), tag + b" OK")
        else:
            self.say(b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids), tag + b" OK")

    def uid_fetch(self, tag: bytes, rest: bytes) -> None:
        uid_set, _, wanted = rest.partition(b" ")
        items = list(_ITEM.finditer(wanted))
        numbers = {uid: number for number, uid in enumerate(self._open.messages, start=1)}
        written: list[bytes] = []
        for uid in self._open.chosen(uid_set):
            raw = self._open.messages[uid]
            told = b" ".join(_told(item, uid, raw) for item in items)
            written += (b"* %d FETCH (" % numbers[uid], told, b")\r\n")
        self.transport.writelines([*written, tag + b" OK\r\n"])

    def leave(self, tag: bytes, rest: bytes) -> None:
        self.say(b"* BYE", tag + b" OK")
        self.transport.close()


def _told(item: re.Match[bytes], uid: int, raw: bytes) -> bytes:
    match item["name"]:
        case b"UID":
            return b"UID %d" % uid
        case b"FLAGS":
            return b"FLAGS ()"
        case b"RFC822.SIZE":
            return b"RFC822.SIZE %d" % len(raw)
        case b"INTERNALDATE":
            return b"INTERNALDATE " + _WHEN
    section, part = item["section"], raw
    if section.upper().startswith(b"HEADER"):
        part = raw[: raw.find(b"\r\n\r\n") + 4]
        if names := section.partition(b"(")[2].strip(b")").split():
            fields = rb"^(?:" + b"|".join(map(re.escape, names)) + rb"):.*\r\n(?:[ \t].*\r\n)*"
            part = b"".join(re.findall(fields, part, re.IGNORECASE | re.MULTILINE)) + b"\r\n"
    where = b""
    if item["offset"] is not None:
        begin = int(item["offset"])
        where, part = b"<%d>" % begin, part[begin : begin + int(item["count"])]
    return b"BODY[%s]%s {%d}\r\n%s" % (section, where, len(part), part)


_COMMANDS: Final[dict[bytes, Callable[[Imap, bytes, bytes], None]]] = {
    b"CAPABILITY": Imap.capability,
    b"AUTHENTICATE": Imap.authenticate,
    b"LOGIN": Imap.login,
    b"ID": Imap.identify,
    b"ENABLE": Imap.nothing,
    b"NOOP": Imap.nothing,
    b"LIST": Imap.list,
    b"STATUS": Imap.status,
    b"SELECT": Imap.select,
    b"EXAMINE": Imap.select,
    b"IDLE": Imap.idle,
    b"UID_SEARCH": Imap.uid_search,
    b"UID_FETCH": Imap.uid_fetch,
    b"UID_STORE": Imap.nothing,
    b"LOGOUT": Imap.leave,
}


class Lmtp(Lines):
    """MAIL, RCPT, DATA (RFC 2033), pipelined or not; one recipient a message."""

    def __init__(self, accounts: dict[bytes, Folders]) -> None:
        self._accounts = accounts
        self._user = b""
        self._data: list[bytes] | None = None

    def greet(self) -> None:
        self.say(b"220 benchmark")

    def take(self, line: bytes) -> None:
        if self._data is not None:
            if line != b".":
                self._data.append(line[1:] if line[:1] == b"." else line)
                return
            raw, self._data = b"\r\n".join([*self._data, b""]), None
            self._accounts[self._user][b"INBOX"].add(raw)
            self.say(b"250 2.0.0 kept")
            return
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._user = line[line.index(b"<") + 1 : line.index(b">")]
        if verb == b"DATA":
            self._data = []
        self.say(b"354 go on" if verb == b"DATA" else b"250 ok")


async def serve(certificate: Path, key: Path) -> None:
    accounts: dict[bytes, Folders] = defaultdict(lambda: {name: Folder() for name in _SPECIAL})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: Imap(accounts), "127.0.0.1", 0, backlog=2048),
        await loop.create_server(lambda: Imap(accounts), "127.0.0.1", 0, ssl=context, backlog=2048),
        await loop.create_server(lambda: Lmtp(accounts), "127.0.0.1", 0),
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
