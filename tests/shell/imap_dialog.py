"""The scripted IMAP server's side of one connection: how it obeys, when no fault gets in between."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import trio

from gateway.inbound.names import decode_folder, encode_folder

if TYPE_CHECKING:
    from tests.shell.imap_script import ImapServer, Letter, Peer

HIGHEST = 2**32 - 1


def field_holds(raw: bytes, name: str, text: str) -> bool:
    """As SEARCH HEADER: whether a field of that name holds the text, in any case; folding does not matter."""
    head = re.sub(rb"\r\n[ \t]", b" ", raw.partition(b"\r\n\r\n")[0])
    return any(
        line.lower().startswith(f"{name.lower()}:".encode()) and text.lower().encode() in line.lower()
        for line in head.split(b"\r\n")
    )


class Dialog:
    def __init__(self, server: ImapServer, peer: Peer) -> None:
        self.server = server
        self.peer = peer
        self.folder = "INBOX"
        self.told = 0  # how many messages the client knows of
        self.known: set[int] = set()  # and which, for VANISHED
        self.writable = False
        self.enabled: set[str] = set()

    @property
    def letters(self) -> dict[int, Letter]:
        return self.server.folders[self.folder]

    @property
    def tells_vanished(self) -> bool:
        return bool(self.enabled & {"QRESYNC", "UIDONLY"})

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
        elif upper == "LOGOUT":
            await say("* BYE see you", f"{tag} OK")
            return False
        else:
            obey = {
                "ENABLE": self.enable,
                "EXAMINE": self.select,
                "SELECT": self.select,
                "LIST": self.list_folders,
                "STATUS": self.status,
                "CREATE": self.create,
                "APPEND": self.append,
                "IDLE": self.idle,
                "UID SEARCH": self.search,
                "UID FETCH": self.fetch,
                "UID STORE": self.store,
                "UID COPY": self.transfer,
                "UID MOVE": self.transfer,
                "UID EXPUNGE": self.expunge,
            }.get(" ".join(upper.split()[: 2 if upper.startswith("UID ") else 1]))
            if obey is None:
                await say(f"{tag} OK")
            else:
                await obey(tag, command)
        return True

    # --- folders -----------------------------------------------------------------------------------------------------

    async def enable(self, tag: str, command: str) -> None:
        wanted = set(command.upper().split()[1:]) & set(self.server.capabilities.upper().split())
        self.enabled |= wanted
        await self.peer.say(" ".join(["* ENABLED", *sorted(wanted)]), f"{tag} OK")

    def folder_named(self, text: str) -> str | None:
        match = re.search(r'"((?:[^"\\]|\\.)*)"', text)
        wire = re.sub(r"\\(.)", r"\1", match[1]) if match else text.split()[-1]
        decoded = decode_folder(wire.encode(), utf8="UTF8=ACCEPT" in self.enabled)
        return next((name for name in (wire, decoded) if name in self.server.folders), None)

    async def select(self, tag: str, command: str) -> None:
        server = self.server
        name = self.folder_named(command)
        if name is None:
            await self.peer.say(f"{tag} NO [NONEXISTENT] no such folder")
            return
        self.folder, self.told, self.known = name, len(server.folders[name]), set(server.folders[name])
        self.writable = command.upper().startswith("SELECT")
        uidvalidity = server.uidvalidities.get(name, server.uidvalidity)
        lines = [f"* {self.told} EXISTS", "* 0 RECENT", f"* OK [UIDVALIDITY {uidvalidity}] valid"]
        if server.tells_uidnext:
            lines.append(f"* OK [UIDNEXT {server.uidnext}] next")
        if {"CONDSTORE", "QRESYNC"} & set(server.capabilities.split()):
            lines.append(f"* OK [HIGHESTMODSEQ {server.modseq}] highest")
        if match := re.search(r"\(QRESYNC \((\d+) (\d+)\)\)", command):
            gone = sorted(uid for at, folder, uid in server.expunged if folder == name and at > int(match[2]))
            if gone and "QRESYNC" in self.enabled and int(match[1]) == uidvalidity:
                lines.append(f"* VANISHED (EARLIER) {','.join(map(str, gone))}")
        await self.peer.say(*lines, f"{tag} OK [{'READ-WRITE' if self.writable else 'READ-ONLY'}] done")

    async def list_folders(self, tag: str, command: str) -> None:
        utf8 = "UTF8=ACCEPT" in self.enabled
        lines = [
            f'* LIST ({self.server.attributes.get(name, "")}) "/" {encode_folder(name, utf8=utf8)}'
            for name in self.server.folders
        ]
        await self.peer.say(*lines, f"{tag} OK")

    async def status(self, tag: str, command: str) -> None:
        server = self.server
        name = self.folder_named(command)
        if name is None:
            await self.peer.say(f"{tag} NO [NONEXISTENT] no such folder")
            return
        values = {
            "MESSAGES": len(server.folders[name]),
            "UIDNEXT": server.uidnext,
            "UIDVALIDITY": server.uidvalidities.get(name, server.uidvalidity),
            "HIGHESTMODSEQ": server.modseq,
        }
        wanted = command[command.rindex("(") + 1 : -1].split()
        text = " ".join(f"{item} {values[item]}" for item in wanted)
        await self.peer.say(f"* STATUS {encode_folder(name)} ({text})", f"{tag} OK")

    # --- reading -----------------------------------------------------------------------------------------------------

    def matching(self, text: str) -> list[int]:
        highest = max(self.letters, default=0)
        found: set[int] = set()
        for piece in text.split(","):
            ends = [highest if end == "*" else int(end) for end in piece.split(":")]
            low, high = min(ends), max(ends)  # `9:*` in a folder whose last UID is 5 means 5:9
            found |= {uid for uid in self.letters if low <= uid <= high}
        return sorted(found)

    def within_limit(self, uids: Sequence[int]) -> tuple[Sequence[int], str]:
        """Return those that one command may come to, from the highest down, and the code for the answer."""
        most = self.server.message_limit
        if most is None or len(uids) <= most:
            return uids, ""
        return uids[-most:], f"[MESSAGELIMIT {most} {uids[-most]}] "

    async def news(self) -> list[str]:
        lines = []
        gone = self.known - self.letters.keys()
        if gone and self.tells_vanished:
            self.known -= gone
            self.told -= len(gone)
            lines.append(f"* VANISHED {','.join(map(str, sorted(gone)))}")
        if len(self.letters) != self.told:
            self.told, self.known = len(self.letters), set(self.letters)
            lines.append(f"* {self.told} EXISTS")
        return lines

    async def search(self, tag: str, command: str) -> None:
        words = command.upper().split()
        uids: Sequence[int] = sorted(self.letters)
        if "UID" in words[2:]:
            uids = self.matching(words[words.index("UID", 2) + 1])
        uids, code = self.within_limit(uids)
        if match := re.search(r'HEADER (\S+) "([^"]*)"', command):
            uids = [uid for uid in uids if field_holds(self.letters[uid].raw, match[1], match[2])]
        if match := re.search(r"SINCE (\S+)", command):
            since = datetime.strptime(match[1], "%d-%b-%Y").date()
            uids = [uid for uid in uids if self.letters[uid].day >= since]
        if "RETURN" in words:
            found = f" ALL {','.join(map(str, uids))}" if uids else ""
            await self.peer.say(f'* ESEARCH (TAG "{tag}") UID{found}', *await self.news(), f"{tag} OK {code}")
        else:
            await self.peer.say(" ".join(["* SEARCH", *map(str, uids)]), *await self.news(), f"{tag} OK {code}")

    async def fetch(self, tag: str, command: str) -> None:
        uids, code = self.within_limit(self.matching(command.split()[2]))
        upper = command.upper()
        lines = [self.fetched(uid, upper) for uid in uids]
        await self.peer.say(*lines, *await self.news(), f"{tag} OK {code}")

    def fetched(self, uid: int, upper: str) -> bytes:
        letter = self.letters[uid]
        number = sorted(self.letters).index(uid) + 1
        items = [] if "UIDONLY" in self.enabled else [b"UID %d" % uid]
        if "RFC822.SIZE" in upper:
            items.append(b"RFC822.SIZE %d" % (len(letter.raw) if letter.size is None else letter.size))
        if "INTERNALDATE" in upper:
            items.append(f'INTERNALDATE "{letter.internal}"'.encode())
        if "EMAILID" in upper and letter.own_id:
            items.append(f"EMAILID ({letter.own_id})".encode())
        if "X-GM-MSGID" in upper and letter.own_id:
            items.insert(0, f"X-GM-MSGID {letter.own_id}".encode())
        if "ENVELOPE" in upper:
            items.append(b"ENVELOPE " + letter.envelope)
        if match := re.search(r"BODY\.PEEK(\[(HEADER)?\])(?:<(\d+)\.(\d+)>)?", upper):
            text = letter.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if match[2] else letter.raw
            part = ""
            if match[3]:
                text, part = text[int(match[3]) : int(match[3]) + int(match[4])], f"<{match[3]}>"
            items.append(b"BODY%b%b {%d}\r\n%b" % (match[1].encode(), part.encode(), len(text), text))
        elif match := re.search(r"BODY\.PEEK(\[HEADER\.FIELDS \(([^)]*)\)\])", upper):
            wanted = tuple(f"{name.lower()}:".encode() for name in match[2].split())
            head = letter.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
            text = b"".join(line + b"\r\n" for line in head if line.lower().startswith(wanted)) + b"\r\n"
            items.append(b"BODY%b {%d}\r\n%b" % (match[1].encode(), len(text), text))
        if "UIDONLY" in self.enabled:
            return b"* %d UIDFETCH (%b)" % (uid, b" ".join(items))
        return b"* %d FETCH (%b)" % (number, b" ".join(items))

    async def idle(self, tag: str, command: str) -> None:
        await self.peer.say("+ idling")
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                while True:
                    async with self.server._news:
                        if len(self.letters) == self.told:
                            await self.server._news.wait()
                    with trio.CancelScope(shield=True):  # what counts as told is said, although DONE comes meanwhile
                        await self.peer.say(*await self.news())

            nursery.start_soon(tell)
            done = await self.peer.line()
            nursery.cancel_scope.cancel()
        self.server.commands.append(done)
        await self.peer.say(f"{tag} OK idle is over")

    # --- changing ----------------------------------------------------------------------------------------------------

    async def create(self, tag: str, command: str) -> None:
        wire = command.split(" ", 1)[1].strip('"')
        name = decode_folder(wire.encode(), utf8="UTF8=ACCEPT" in self.enabled)
        if name in self.server.folders:
            await self.peer.say(f"{tag} NO [ALREADYEXISTS] it is there")
            return
        self.server.folders[name] = {}
        await self.peer.say(f"{tag} OK made")

    async def append(self, tag: str, command: str) -> None:
        match = re.search(r'\(([^)]*)\) "([^"]*)" (?:UTF8 \(~)?\{(\d+)(\+?)\}$', command)
        assert match, command
        name = self.folder_named(command)
        if name is None and not match[4]:
            await self.peer.say(f"{tag} NO [TRYCREATE] no such folder")
            return
        if not match[4]:
            await self.peer.say("+ go on")
        raw = await self.peer.exactly(int(match[3]))
        if len(raw) < int(match[3]) or await self.peer.line() != (")" if "UTF8 (~" in command else ""):
            return  # the client has left in the middle, or is out of step: nothing is kept
        if name is None:
            await self.peer.say(f"{tag} NO [TRYCREATE] no such folder")
            return
        uid = self.server.lay_down(name, raw, internal=match[2], flags=set(match[1].split()))
        uidvalidity = self.server.uidvalidities.get(name, self.server.uidvalidity)
        await self.peer.say(*await self.news(), f"{tag} OK [APPENDUID {uidvalidity} {uid}] done")

    async def store(self, tag: str, command: str) -> None:
        if not self.writable:
            await self.peer.say(f"{tag} NO [READ-ONLY] not here")
            return
        uids, code = self.within_limit(self.matching(command.split()[2]))
        for uid in uids:
            self.letters[uid].flags |= set(command[command.rindex("(") + 1 : -1].split())
        await self.peer.say(f"{tag} OK {code}")

    async def transfer(self, tag: str, command: str) -> None:
        moving = command.upper().startswith("UID MOVE")
        target = self.folder_named(command)
        if target is None:
            await self.peer.say(f"{tag} NO [TRYCREATE] no such folder")
            return
        if moving and not self.writable:
            await self.peer.say(f"{tag} NO [READ-ONLY] not here")
            return
        server = self.server
        uids, code = self.within_limit(self.matching(command.split()[2]))
        if code and not moving:  # COPY does all or nothing (RFC 9738 §3.1)
            await self.peer.say(f"{tag} NO [MESSAGELIMIT {server.message_limit}] too many")
            return
        new = []
        for uid in uids:
            server.folders[target][server.uidnext] = self.letters[uid].again()
            new.append(server.uidnext)
            server.uidnext += 1
        copied = ""
        if new and "UIDPLUS" in server.capabilities:
            old_set, new_set = ",".join(map(str, uids)), ",".join(map(str, new))
            copied = f"[COPYUID {server.uidvalidities.get(target, server.uidvalidity)} {old_set} {new_set}]"
        if not moving:
            await self.peer.say(f"{tag} OK {copied} done")
            return
        lines = [f"* OK {copied}", *self.remove(uids)] if copied else self.remove(uids)
        await self.peer.say(*lines, f"{tag} OK {code}")

    async def expunge(self, tag: str, command: str) -> None:
        deleted = [uid for uid in self.matching(command.split()[2]) if "\\Deleted" in self.letters[uid].flags]
        gone, code = self.within_limit(deleted)
        await self.peer.say(*self.remove(gone), f"{tag} OK {code}")

    def remove(self, uids: Sequence[int]) -> list[str]:
        """Take messages out of the folder; return how the client is told."""
        lines = []
        for uid in uids:
            lines.append(f"* {sorted(self.letters).index(uid) + 1} EXPUNGE")
            self.server.take_out(self.folder, uid)
            self.known.discard(uid)
            self.told -= 1
        if lines and self.tells_vanished:
            return [f"* VANISHED {','.join(map(str, uids))}"]
        return lines
