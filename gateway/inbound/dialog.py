"""The one way to run an IMAP command, for the parts of a session: deadlines, names, limits, errors.

Every error is mapped here, once: LoginRefused says that the provider does not want this login, Unavailable everything
else, each in one line with cause and remedy and without a secret. Three of its kinds leave the session alive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Final

from gateway.config import Server
from gateway.errors import Unavailable
from gateway.inbound.framing import Response
from gateway.inbound.protocol import Answer, Take, Wire
from gateway.inbound.reply import Cut
from gateway.inbound.uids import batches
from gateway.text import clean

_MOST_AT_ONCE: Final = 1_000  # messages that one command names


class LoginRefused(Unavailable):
    """The provider answered, and does not let this login in."""


class NoFolder(Unavailable):
    """The provider does not open a folder; the session goes on."""


class NotGiven(Unavailable):
    """The provider answered NO or BAD to what we asked; the session goes on."""


class NotOffered(Unavailable):
    """The provider has no command that does what we want; the session goes on."""


class Dialog:
    """A connection that runs one command after the other."""

    def __init__(self, wire: Wire, server: Server, answer_seconds: float) -> None:
        self._wire = wire
        self._server = server
        self._answer_seconds = answer_seconds
        self._limit = _MOST_AT_ONCE
        self.enabled: frozenset[str] = frozenset()  # extensions that change how the server talks (RFC 5161)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server said last that it can do; it may say so at any time."""
        return self._wire.told or frozenset()

    @property
    def _most_at_once(self) -> int:
        """How many messages a command may name: a server with less patience says so (RFC 9738 §3)."""
        said = [name.removeprefix("MESSAGELIMIT=") for name in self.capabilities if name.startswith("MESSAGELIMIT=")]
        return max(1, min([self._limit, *(int(number) for number in said if number.isdigit() and len(number) < 10)]))

    def _note_cut(self, cut: Cut) -> None:
        self._limit = max(1, min(self._limit, cut.most))

    async def _run(
        self,
        name: str,
        *args: str,
        by_uid: bool = False,
        take: Take | None = None,
        replies: Sequence[bytes] = (),
        expected_bytes: int = 0,
        literal_bytes: int = 0,
        total: float | None = None,
    ) -> Answer:
        with self._named():
            return await self._wire.execute(
                name,
                *args,
                by_uid=by_uid,
                take=take or _nothing,
                replies=replies,
                expected_bytes=expected_bytes,
                literal_bytes=literal_bytes,
                quiet=self._answer_seconds,
                total=total or 2 * self._answer_seconds,
            )

    async def _in_batches(
        self,
        uids: Sequence[int],
        ask: Callable[[str], Awaitable[Answer]],
        *,
        found: Collection[int] = (),
        loose: bool = False,
    ) -> None:
        """Run a command over ascending UIDs, by sets that it can name, until the server has been through all of them.

        A command that was cut is continued below the last UID that it came to. `found`: UIDs that have been answered.
        """
        stretches = [uids]
        while stretches:
            for batch, text in batches(stretches.pop(), self._most_at_once, loose=loose):
                cut = (await ask(text)).cut
                if cut is None:
                    continue
                self._note_cut(cut)
                lowest = cut.lowest or batch[-1] + 1
                if any(uid < lowest and uid in found for uid in batch):
                    lowest = batch[-1] + 1  # it did not begin at the highest, as it should have
                rest = [uid for uid in batch if uid < lowest and uid not in found]
                if len(rest) == len(batch):
                    middle = len(rest) // 2  # one message is never too many: then this is just how it says no
                    stretches += [rest[:middle], rest[middle:]] if middle else []
                elif rest:
                    stretches.append(rest)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Put the server's name before what the wire has to say; it does not know it."""
        try:
            yield
        except Unavailable as error:
            raise Unavailable(f"{self._server}: {clean(str(error))}; we connect again") from error


def _nothing(response: Response) -> None:
    """Nobody asked for it."""
