"""What we change at the provider: flags, the folder that a message lies in, copies that we lay down. Never a bare
EXPUNGE.

For flags and moves the folder must have been selected for writing, and both may be repeated: a flag that is set stays
set, and a message that has been moved is no longer there to be moved. A copy that is laid down twice lies there twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from gateway.errors import Unavailable
from gateway.inbound.dialog import NoFolder, NotGiven, NotOffered
from gateway.inbound.framing import Response
from gateway.inbound.names import MONTHS
from gateway.inbound.naming import Naming
from gateway.inbound.protocol import Answer
from gateway.inbound.reply import read_copied
from gateway.text import clean

_AT_ONCE_BYTES: Final = 4096  # what LITERAL- takes unasked (RFC 7888 §5); whatever is larger may be refused first
_SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Moved:
    """Where messages went: {old UID: new UID}, as far as the server says (UIDPLUS)."""

    uidvalidity: int | None
    uids: Mapping[int, int] = field(default_factory=dict)


class HalfMoved(Unavailable):
    """The messages have been copied, but the originals are still there: next time `move` with `copied`."""

    def __init__(self, text: str, moved: Moved) -> None:
        super().__init__(text)
        self.moved = moved


class Changing(Naming):
    """Filing what has been read."""

    @property
    def can_move(self) -> bool:
        """Whether the server moves in one step; else a cut may leave a message in both folders for a while."""
        return bool(self.capabilities & {"MOVE", "IMAP4REV2"})

    async def create(self, folder: str) -> None:
        """Make a folder; that it is there already is no error. Raises NoFolder when the server does not."""
        answer = await self._run("CREATE", self._folder_argument(folder))
        if not answer.ok and answer.code != b"ALREADYEXISTS":
            raise NoFolder(f"{self._server} does not create the folder {folder!r}: {clean(answer.text)}")

    async def flag(self, uids: Sequence[int], flag: str) -> None:
        """Set a flag, like `\\Seen`, on `uids` (ascending). Raises NotGiven when the server does not."""

        async def store(text: str) -> Answer:
            answer = await self._run("STORE", text, "+FLAGS.SILENT", f"({flag})", by_uid=True)
            if not answer.ok and answer.cut is None:
                raise NotGiven(f"{self._server} does not set {flag}: {clean(answer.text)}")
            return answer

        await self._in_batches(uids, store)

    async def move(self, uids: Sequence[int], target: str, copied: bool = False) -> Moved:
        """Move `uids` (ascending) of the open folder to `target`; return where they lie now.

        By MOVE (RFC 6851), else by COPY, \\Deleted and UID EXPUNGE. `copied`: there is a copy already, only the
        originals are to go. UIDs that are not there are passed over, as IMAP does. Raises NotOffered where the server
        can do neither, NoFolder without the target, NotGiven when it says no, HalfMoved after the copy.
        """
        can_expunge = bool(self.capabilities & {"UIDPLUS", "IMAP4REV2"})
        if not copied and self.can_move:
            return await self._transfer("MOVE", uids, target)
        if not can_expunge:
            raise NotOffered(f"{self._server} has neither MOVE nor UIDPLUS; messages stay where they are")
        moved = Moved(None) if copied else await self._transfer("COPY", uids, target)
        # An OK alone is no copy: an original stays until its copy has been named
        taken = uids if copied else [uid for uid in uids if uid in moved.uids]
        if not taken:
            return moved
        try:
            await self.flag(taken, "\\Deleted")
            await self._in_batches(taken, self._expunge)
        except Unavailable as error:
            if copied:
                raise
            raise HalfMoved(str(error), moved) from error
        return moved

    async def append(
        self, folder: str, chunks: AsyncIterator[bytes], size: int, at: datetime, utf8: bool = False
    ) -> None:
        """Lay a message of `size` bytes, CRLF, into a folder, which need not be open, with `at` as INTERNALDATE and the
        mark \\Seen. `utf8`: there may be UTF-8 in its header.

        `chunks` is asked for a piece at a time, and for none before the server wants them. Raises NoFolder when the
        folder is not there, NotGiven when the server says no (full, too large), Unavailable when the session is lost:
        then the message may lie there or not.
        """
        most = self._append_limit
        if most is not None and size > most:
            raise NotGiven(f"{self._server} takes messages of {most} bytes at most, and this one has {size}")
        offers = self.capabilities & {"LITERAL+", "LITERAL-", "IMAP4REV2"}
        with self._named():
            answer = await self._wire.send_literal(
                "APPEND", self._folder_argument(folder), "(\\Seen)", f'"{_internaldate(at)}"',
                chunks=chunks, size=size, waits=not (offers and size <= _AT_ONCE_BYTES),
                utf8=utf8 and self._speaks_utf8, quiet=self._answer_seconds,
                total=10 * self._answer_seconds + size / _SLOWEST_BYTES_PER_SECOND,
            )  # fmt: skip
        if not answer.ok:
            says = f"{self._server} does not take a copy into {folder!r}: {clean(answer.text)}"
            if answer.code == b"OVERQUOTA" and "quota" not in says.lower():
                says += " (the mailbox is full)"
            raise NoFolder(says) if answer.code in (b"TRYCREATE", b"NONEXISTENT") else NotGiven(says)

    @property
    def _append_limit(self) -> int | None:
        """Bytes of the largest message that APPEND takes, where the server says so (RFC 7889)."""
        said = [name.removeprefix("APPENDLIMIT=") for name in self.capabilities if name.startswith("APPENDLIMIT=")]
        return min((int(number) for number in said if number.isdigit() and len(number) < 16), default=None)

    async def _expunge(self, text: str) -> Answer:
        answer = await self._run("EXPUNGE", text, by_uid=True)
        if not answer.ok and answer.cut is None:
            raise NotGiven(f"{self._server} does not expunge: {clean(answer.text)}")
        return answer

    async def _transfer(self, command: str, uids: Sequence[int], target: str) -> Moved:
        """Run MOVE or COPY. What a part of them was told before the server said no is not forgotten."""
        wanted = set(uids)
        uidvalidity: int | None = None
        went: dict[int, int] = {}

        def note(line: bytes) -> None:
            nonlocal uidvalidity
            if (found := read_copied(line)) is not None:
                uidvalidity = found[0]
                went.update({old: new for old, new in found[1].items() if old in wanted})

        def take(response: Response) -> None:
            if response[0][:5].upper() == b"* OK ":  # MOVE tells it before it begins to expunge (RFC 6851 §4.3)
                note(response[0][2:])

        async def transfer(text: str) -> Answer:
            answer = await self._run(
                command, text, self._folder_argument(target), by_uid=True, take=take, total=10 * self._answer_seconds
            )
            note(answer.line)
            if not answer.ok and answer.cut is None:
                says = f"{self._server} does not {command.lower()} to {target!r}: {clean(answer.text)}"
                raise NoFolder(says) if answer.code in (b"TRYCREATE", b"NONEXISTENT") else NotGiven(says)
            return answer

        await self._in_batches(uids, transfer, found=went.keys())
        return Moved(uidvalidity, went)


def _internaldate(at: datetime) -> str:
    """Return a time as APPEND wants it (RFC 9051 §9, date-time), whatever the locale."""
    at = at.astimezone(UTC)
    return f"{at.day:2}-{MONTHS[at.month - 1]}-{at:%Y %H:%M:%S} +0000"
