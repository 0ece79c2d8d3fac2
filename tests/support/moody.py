"""A provider's SMTP server with moods: it accepts, refuses, throttles, stalls or cuts in every phase, and goes away and
comes back. What it accepted is in its ledger from the moment it decided so, whether the client could hear of it or not.

What an address means is in its first word, and holds in every weather: `nobody.` is refused at RCPT, `spam.` behind the
dot; `grey.` is put off once at RCPT, `later.` once behind the dot; `heard.` is accepted and the link cut instead of the
first 250, `unheard.` is cut behind the dot without having been accepted. All else is the weather's: moods by chance,
from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.letters import message_id
from tests.support.ports import free_port, give_back

_TRACE: Final = re.compile(rb"\(mail-gateway\)\s+id\s+([0-9a-z]+)\.(\d+)\s*;")
_LONGEST: Final = 64 * 1024 * 1024
_PATIENCE: Final = 20.0  # seconds of a stall; longer than anybody waits here


@dataclass(frozen=True)
class Mood:
    """What is done in place of the friendly answer: nothing for `after` seconds, then `say` (None: nothing), then go
    on, or cut, or stall until the client has had enough. `takes`: the message counts as accepted first. `half`: only
    part of the answer leaves.
    """

    name: str
    say: str | None = None
    then: str = "go on"
    takes: bool = False
    half: bool = False
    after: float = 0.0


CUT: Final = Mood("cut", then="cut")
STALL: Final = Mood("stall", then="stall")


def says(reply: str) -> Mood:
    return Mood(reply[:3], reply, "cut" if reply.startswith("421") else "go on")


# Phase → moods with their weights among each other
MOODS: Final[Mapping[str, Sequence[tuple[Mood, float]]]] = {
    "connect": ((CUT, 1),),
    "greeting": ((STALL, 0.5), (CUT, 1), (says("421 4.3.2 too many connections"), 1), (says("554 5.3.2 not now"), 0.5)),
    "ehlo": ((STALL, 0.5), (CUT, 1), (says("421 4.7.0 come back later"), 1)),
    "auth": (
        (STALL, 0.5),
        (CUT, 1),
        (says("454 4.7.0 Temporary authentication failure"), 1),
        (says("535 5.7.8 authentication failed"), 0.5),
    ),
    "mail": (
        (STALL, 0.5),
        (CUT, 1),
        (says("421 4.3.2 Service not available"), 1),
        (says("432 4.3.2 Concurrent connections limit exceeded"), 1),
        (says("451 4.7.1 try again in 1 second"), 1),
        (says("452 4.3.1 insufficient system storage"), 1),
        (says("550 5.4.5 Daily user sending quota exceeded"), 0.3),
        (says("550 5.7.60 SMTP; Client does not have permissions to send as this sender"), 0.3),
    ),
    "rcpt": (
        (STALL, 0.2),
        (CUT, 1),
        (says("421 4.7.0 too many recipients today"), 0.5),
        (says("450 4.2.0 mailbox busy"), 2),
        (says("452 4.5.3 too many recipients"), 2),
    ),
    "data": ((STALL, 0.5), (CUT, 1), (says("421 4.3.0 restarting"), 1), (says("451 4.3.0 no room for it"), 1)),
    "content": ((STALL, 0.5), (CUT, 1), (Mood("452 early", "452 4.3.1 out of space", "cut"), 1)),
    "dot": (
        (Mood("taken, cut", takes=True, then="cut"), 4),
        (Mood("taken, cut in the 250", "250 2.0.0 taken", "cut", takes=True, half=True), 2),
        (Mood("taken, cut after the 250", "250 2.0.0 taken", "cut", takes=True), 3),
        (Mood("taken, stall", takes=True, then="stall"), 1),
        (Mood("taken, 250 too late", "250 2.0.0 taken", "cut", takes=True, after=6.0), 1),
        (Mood("not taken, cut", then="cut"), 4),
        (Mood("not taken, stall", then="stall"), 1),
        (says("451 4.3.0 try again later"), 2),
        (says("452 4.2.2 mailbox full"), 1),
        (says("421 4.4.5 too busy"), 1),
        (says("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"), 1),
    ),
}


class Weather:
    """Moods by chance. `rates`: phase → share of the occasions on which there is one; none of them while calm."""

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        self._dice = random.Random(seed)
        self._rates = rates
        self.is_calm = False

    def mood(self, phase: str) -> Mood | None:
        rate = self._rates.get(phase, 0.0)
        if self.is_calm or not rate or self._dice.random() >= rate:
            return None
        moods, weights = zip(*MOODS[phase], strict=True)
        (chosen,) = self._dice.choices(moods, weights)
        return chosen  # type: ignore[no-any-return]  # a Mood


@dataclass(frozen=True)
class Entry:
    """One recipient of a message that was accepted. `at`: time.monotonic(). `body`: a digest of what came."""

    queue_id: str
    attempt: int
    recipient: str
    message_id: str
    body: str
    at: float


Attempt = tuple[str, int, str]
"""Queue id, number of the attempt, recipient."""


@dataclass
class Ledger:
    """`begun`: attempts whose content came, or began to. `cut`: those among them that got no answer of ours in full, or
    whose link we cut before anything showed that they had read it. `unread`: recipients of whose message we asked for
    the content and then did not look at it; which attempt it was, we do not know.
    """

    entries: list[Entry] = field(default_factory=list)
    begun: Counter[Attempt] = field(default_factory=Counter)
    cut: set[Attempt] = field(default_factory=set)
    unread: list[tuple[str, ...]] = field(default_factory=list)
    strangers: list[bytes] = field(default_factory=list)  # without our trace field
    moods: Counter[str] = field(default_factory=Counter)
    sessions: int = 0


def digest(raw: bytes) -> str:
    """Of the body: the gateway may add to the header."""
    return hashlib.sha256(raw.partition(b"\r\n\r\n")[2]).hexdigest()


class _Ended(Exception):
    pass


class MoodyProvider:
    """Listens from the start; every method may be called from every thread. `on_taken` is called in ours.

    `most`: recipients of one transaction, 452 for those beyond.
    """

    def __init__(
        self,
        weather: Weather,
        *,
        extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "SIZE 50000000", "AUTH PLAIN LOGIN"),
        most: int = 100,
        on_taken: Callable[[bytes], None] = lambda raw: None,
    ) -> None:
        self.port = free_port()
        self.weather = weather
        self.ledger = Ledger()
        self._extensions = extensions
        self._most = most
        self._on_taken = on_taken
        self._once: set[tuple[str, str]] = set()
        self._sessions: set[_Session] = set()
        self._server: asyncio.Server | None = None
        self._full: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="moody provider", daemon=True)
        self._thread.start()
        self.come_back()

    # --- its life ----------------------------------------------------------------------------------------------------

    def leave(self, *, silently: bool = False) -> None:
        """Go away: all links are cut, and nobody can connect. `silently`: connecting is not refused, only never
        answered, as behind a firewall that swallows packets.
        """

        async def leave() -> None:
            self._reopen()
            if self._server is not None:
                # asyncio loses a connection that it lets in while the server is being closed: first let in nobody more
                for listening in self._server.sockets:
                    self._loop.remove_reader(listening.fileno())
                await asyncio.sleep(0.01)
                self._server.close()
                self._server = None
            self._cut_all()
            if silently:
                self._fill_up()

        self._call(leave())

    def come_back(self) -> None:
        async def listen() -> None:
            self._reopen()
            if self._server is None:
                self._server = await asyncio.start_server(
                    self._serve, "127.0.0.1", self.port, limit=_LONGEST, backlog=100
                )

        self._call(listen())

    def calm_down(self) -> None:
        """No moods from now on; whoever waits in one is cut."""

        async def calm_down() -> None:
            self.weather.is_calm = True
            self._cut_all()

        self._call(calm_down())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.leave()

        async def rest() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._call(rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        give_back(self.port)

    def entries(self) -> list[Entry]:
        return list(self.ledger.entries)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _cut_all(self) -> None:
        for session in list(self._sessions):
            self.ledger.cut.update(session.unheard)
            session.cut()

    def _fill_up(self) -> None:
        """A listener that accepts nobody, its queue filled by ourselves: the kernel answers no further SYN."""
        blocked = socket.socket()
        blocked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocked.bind(("127.0.0.1", self.port))
        blocked.listen(0)
        self._full = [blocked]
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._full.append(filler)

    def _reopen(self) -> None:
        for each in self._full:
            each.close()
        self._full = []

    # --- a session ---------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        self._sessions.add(session)
        self.ledger.sessions += 1
        try:
            with contextlib.suppress(_Ended, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await session.play()
        except asyncio.CancelledError:  # by `close`; a streams callback would ask for our exception, and complain
            pass
        finally:
            self._sessions.discard(session)
            if session.unread:
                self.ledger.unread.append(session.unread)
            writer.close()

    def happens_once(self, what: str, key: str) -> bool:
        """Whether it is the first time."""
        if (what, key) in self._once:
            return False
        self._once.add((what, key))
        return True


class _Session:
    def __init__(self, provider: MoodyProvider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._of = provider
        self._reader = reader
        self._writer = writer
        self._recipients: list[str] = []
        self.unheard: list[Attempt] = []  # have been answered; whether they have read it we do not know
        self.unread: tuple[str, ...] = ()
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True
        self._writer.transport.abort()

    async def play(self) -> None:
        await self._answer("connect", None)
        await self._answer("greeting", "220 provider.example ESMTP")
        while line := await self._line():
            self.unheard = []
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    lines = ["provider.example", *self._of._extensions]
                    offers = "\r\n".join(f"250{' ' if each is lines[-1] else '-'}{each}" for each in lines)
                    await self._answer("ehlo", offers)
                case "AUTH":
                    await self._log_in(rest)
                case "MAIL":
                    self._recipients = []
                    await self._answer("mail", "250 2.1.0 ok")
                case "RCPT":
                    await self._rcpt(rest.partition("<")[2].partition(">")[0])
                case "DATA":
                    if not self._recipients:
                        self._say("554 5.5.1 no valid recipients")
                    elif (await self._answer("data", "354 go on")).startswith("354"):
                        await self._content()
                case "RSET":
                    self._recipients = []
                    self._say("250 2.0.0 reset")
                case "QUIT":
                    self._say("221 2.0.0 bye")
                    return
                case _:
                    self._say("500 5.5.1 unknown")

    async def _log_in(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        for _ in range((2 if mechanism.upper() == "LOGIN" else 1) - bool(initial)):
            self._say("334 ")
            await self._line()
        await self._answer("auth", "235 2.7.0 welcome")

    async def _rcpt(self, address: str) -> None:
        kind = address.partition(".")[0]
        if kind == "nobody":
            self._say("550 5.1.1 no such user here")
        elif kind == "grey" and self._of.happens_once("grey", address):
            self._say("450 4.7.1 greylisted, try again")
        elif len(self._recipients) >= self._of._most:
            self._say("452 4.5.3 too many recipients")
        elif (await self._answer("rcpt", "250 2.1.5 ok")).startswith("250"):
            self._recipients.append(address)

    async def _content(self) -> None:
        ledger = self._of.ledger
        self.unread = tuple(self._recipients)
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.unread = ()
        found = _TRACE.search(head)
        if found is None:
            ledger.strangers.append(head)
            raise _Ended
        queue_id, number = found[1].decode(), int(found[2])
        attempts = [(queue_id, number, recipient) for recipient in self._recipients]
        ledger.begun.update(attempts)
        ledger.cut.update(attempts)
        if (mood := self._of.weather.mood("content")) is not None:
            await self._be(mood, "content", "")
        rest = head[-2:] + await self._reader.readuntil(b"\r\n.\r\n")
        raw = (head[:-2] + rest[:-3]).replace(b"\r\n.", b"\r\n")
        id = message_id(raw)

        mood = self._of.weather.mood("dot") or Mood("", "250 2.0.0 taken", takes=True)
        kinds = {recipient.partition(".")[0] for recipient in self._recipients}
        for kind, instead in _BEHIND_THE_DOT.items():
            if kind in kinds and (kind == "spam" or self._of.happens_once(kind, id)):
                mood = instead
        if mood.takes:
            at = time.monotonic()
            ledger.entries.extend(Entry(*attempt, id, digest(raw), at) for attempt in attempts)
            self._of._on_taken(raw)
        if mood.say is not None and not mood.half and not mood.after and not self._is_cut:
            ledger.cut.difference_update(attempts)
            self.unheard = attempts
        self._recipients = []
        await self._be(mood, "dot", "")

    # --- answers -----------------------------------------------------------------------------------------------------

    async def _answer(self, phase: str, friendly: str | None) -> str:
        mood = self._of.weather.mood(phase)
        if mood is not None:
            return await self._be(mood, phase, friendly or "")
        if friendly is not None:
            self._say(friendly)
        return friendly or ""

    async def _be(self, mood: Mood, phase: str, friendly: str) -> str:
        if mood.name:
            self._of.ledger.moods[f"{phase}: {mood.name}"] += 1
        if mood.after:
            await asyncio.sleep(mood.after)
        if mood.say is not None:
            if mood.half:
                self._writer.write(mood.say[:2].encode())
            else:
                self._say(mood.say)
        if mood.then == "cut":
            await self._writer.drain()
            raise _Ended
        if mood.then == "stall":
            # Read nothing: a client that sends much is to find out that nobody reads
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport of StreamWriter
            await asyncio.sleep(_PATIENCE)
            raise _Ended
        return mood.say or friendly

    def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")

    async def _line(self) -> str:
        await self._writer.drain()
        return (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")


_BEHIND_THE_DOT: Final[Mapping[str, Mood]] = {
    "later": says("451 4.3.0 later, please"),
    "heard": Mood("heard", takes=True, then="cut"),
    "unheard": Mood("unheard", then="cut"),
    "spam": says("554 5.6.0 we do not like this content"),
}
