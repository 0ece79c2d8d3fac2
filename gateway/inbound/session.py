"""The typed IMAP session: what the mailbox task needs of a provider, and nothing of how IMAP says it.

Runs in the asyncio thread; one caller at a time. A time-out, a cancellation or anything unexpected ends it, and then
every method raises Unavailable with the cause. Its parts, from below: `protocol` (bytes), `dialog` (one command),
`login`, `naming`, `searching`, `reading`, `changing`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.config import Server
from gateway.errors import Unavailable
from gateway.inbound.changing import Changing
from gateway.inbound.changing import HalfMoved as HalfMoved
from gateway.inbound.changing import Moved as Moved
from gateway.inbound.dialog import LoginRefused as LoginRefused
from gateway.inbound.dialog import NoFolder as NoFolder
from gateway.inbound.dialog import NotGiven as NotGiven
from gateway.inbound.dialog import NotOffered as NotOffered
from gateway.inbound.framing import Response
from gateway.inbound.login import Entrance
from gateway.inbound.names import FolderListing as FolderListing
from gateway.inbound.naming import Status as Status
from gateway.inbound.naming import as_modseq
from gateway.inbound.protocol import Wire
from gateway.inbound.reading import Reading
from gateway.inbound.reply import response_code
from gateway.inbound.uids import Run, expand, read_number, read_vanished

CONNECT_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 60.0
LOGOUT_SECONDS: Final = 5.0
MOST_VANISHED: Final = 10_000  # a server that has forgotten what it expunged names all UIDs that it ever gave
_RESYNC_BYTES: Final = 64 * 1024 * 1024  # what QRESYNC may tell of flags, which we do not keep


@dataclass(frozen=True, slots=True)
class Selected:
    """A folder as it was when selected. `uidnext`, `modseq`: None where the server does not say.

    `vanished`: UIDs, ascending, that have gone since the mod-sequence that the caller knew; the highest 10,000.
    """

    uidvalidity: int
    uidnext: int | None
    exists: int
    modseq: int | None = None
    vanished: tuple[int, ...] = ()


async def connect(
    server: Server,
    tls: ssl.SSLContext | None,
    login: str,
    password: str,
    *,
    literal_bytes: int,
    uid_only: bool = False,
    connect_seconds: float = CONNECT_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> Session:
    """Open a connection, secure it as the scheme says, log in; return the session. Raises LoginRefused, Unavailable.

    `tls` is needed for imaps and imap. `literal_bytes`: the largest message that this session may ever fetch.
    `uid_only`: do without sequence numbers where the server offers that (RFC 9586); Yahoo shows whole folders only so.
    """
    session = Session(Wire(asyncio.get_running_loop(), literal_bytes), server, answer_seconds)
    try:
        await session._come_in(tls, login, password, seconds=connect_seconds, uid_only=uid_only)
    except BaseException:
        await session.close()
        raise
    return session


class Session(Entrance, Reading, Changing):
    """A logged-in connection."""

    _idle_refused = False

    @property
    def can_idle(self) -> bool:
        return "IDLE" in self.capabilities and not self._idle_refused

    @property
    def is_stirred(self) -> bool:
        """Whether the server has mentioned new messages since the last listing began."""
        return self._wire.is_stirred

    @property
    def last_byte_at(self) -> datetime:
        """When the server last said anything. Safe to read from another thread."""
        return datetime.now(UTC) - timedelta(seconds=time.monotonic() - self._wire.heard_at)

    # --- the open folder ---------------------------------------------------------------------------------------------

    async def select(self, folder: str, writable: bool = False, known: tuple[int, int] | None = None) -> Selected:
        """Open a folder, for reading if not `writable`. Raises NoFolder when the server does not have it.

        `known`: UIDVALIDITY and mod-sequence up to which the caller knows the folder; where the server can, it tells
        what has vanished since (RFC 7162 §3.2.5).
        """
        found = _Opening()
        self._wire.exists = 0
        self._wire.vanished = []

        def take(response: Response) -> None:
            nonlocal found
            if response_code(response[0][2:])[0] == b"CLOSED":  # what came so far was about the other folder
                found, self._wire.exists, self._wire.vanished = _Opening(), 0, []
            found.read(response[0])

        command, name = "SELECT" if writable else "EXAMINE", self._folder_argument(folder)
        resync = f"(QRESYNC ({known[0]} {known[1]}))" if known and "QRESYNC" in self.enabled and known[1] > 0 else ""
        answer = await self._run(
            command, *filter(None, (name, resync)), take=take, expected_bytes=_RESYNC_BYTES if resync else 0,
            total=10 * self._answer_seconds,
        )  # fmt: skip
        if answer.condition == b"BAD" and resync:
            answer = await self._run(command, name, take=take)
        if not answer.ok:
            raise self._no_folder(folder, answer.text)
        if found.uidvalidity is None:
            raise Unavailable(f"{self._server} gives no UIDVALIDITY for {folder!r}; it cannot be read without loss")
        self._exists, self._uidnext = found.exists, found.uidnext
        gone = found.vanished if known and known[0] == found.uidvalidity else []
        return Selected(found.uidvalidity, found.uidnext, found.exists, found.modseq, expand(gone, MOST_VANISHED))

    def vanished(self) -> frozenset[int]:
        """Return the UIDs that have gone from the open folder since this was last asked, as far as the server says."""
        runs, self._wire.vanished = self._wire.vanished, []
        return frozenset(expand(runs, MOST_VANISHED))

    # --- waiting and leaving -----------------------------------------------------------------------------------------

    async def idle(self, seconds: float) -> bool:
        """Wait in IDLE until the server speaks of new messages or `seconds` have passed; True when it spoke.

        Cancelling says DONE and LOGOUT and closes, without waiting for an answer.
        """
        if self._wire.is_stirred:
            return True
        begun = time.monotonic()
        with self._named():
            answer = await self._wire.idle(seconds, min(30.0, self._answer_seconds))
        early = time.monotonic() - begun < min(seconds, 1.0) / 2
        if not answer.ok or (early and not self._wire.is_stirred):
            self._idle_refused = True  # also where it is accepted and ended at once: asking again would go round
        return self._wire.is_stirred

    async def logout(self) -> None:
        """Say LOGOUT, wait a little for the goodbye, close. Raises nothing."""
        try:
            async with asyncio.timeout(LOGOUT_SECONDS):
                await self._wire.execute("LOGOUT", quiet=LOGOUT_SECONDS, total=LOGOUT_SECONDS)
        except (Unavailable, TimeoutError):
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        """Cut the connection, unless it is saying goodbye; return when it is gone."""
        await self._wire.close()


@dataclass(slots=True)
class _Opening:
    """What the answers to SELECT or EXAMINE say."""

    uidvalidity: int | None = None
    uidnext: int | None = None
    exists: int = 0
    modseq: int | None = None
    vanished: list[Run] = field(default_factory=list)

    def read(self, line: bytes) -> None:
        words = line.split(None, 3)
        if len(words) > 2 and words[2].upper() == b"EXISTS":
            self.exists = read_number(words[1]) or 0
        code, argument = response_code(line[2:])
        argument = argument.strip()
        match code:
            case b"UIDVALIDITY":
                self.uidvalidity = read_number(argument) or self.uidvalidity
            case b"UIDNEXT":
                self.uidnext = read_number(argument) or self.uidnext
            case b"HIGHESTMODSEQ":
                self.modseq = as_modseq(int(argument)) if argument.isdigit() and len(argument) < 20 else None
        if (gone := read_vanished(line)) is not None and gone[0]:
            self.vanished += gone[1]
            del self.vanished[:-MOST_VANISHED]
