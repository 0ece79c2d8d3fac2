"""What a hostile provider does to its touchpoint, one thing after the other, and what the daemon makes of it: told.

The story is played by a test; nothing is asserted here. `Story.lines` and `Story.odd` say what happened.
"""

from __future__ import annotations

import base64
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import CommandError
from tests.support.daemon import Daemon
from tests.support.hostile import HostileServer, Quirk
from tests.support.imap_faults import (
    Trial,
    announced_as,
    cuts_the_link,
    empty,
    has_body,
    is_not_shown,
    longer_than_announced,
    nil,
    refuses,
    shorter_than_announced,
)
from tests.support.imap_model import Message
from tests.support.letters import letter, message_id
from tests.support.onlooker import Correspondents, LogReader, Memory, Onlooker, quantiles

RATE: Final = 100  # the daemon's minutes are 0.6 seconds of ours (`hurried`)
LARGEST: Final = 500_000  # bytes: inbound.max_message_size
PATIENCE: Final = 12.0  # seconds for one trial's fault to be met and left, and then again for its mail to come


@dataclass
class Odd:
    """A message that cannot be fetched, and what has become of it. `heals`: one day it can."""

    name: str
    message: Message
    heals: bool = True
    uid: int = 0
    since: float = 0.0
    stood_in_after: float | None = None  # seconds until a placeholder stood in its queue
    replaced_after: float | None = None  # seconds until the message itself did

    @property
    def is_settled(self) -> bool:
        return (self.replaced_after if self.heals else self.stood_in_after) is not None


def odd_messages() -> list[Odd]:
    numbers = itertools.count(1)

    def odd(name: str, quirk: Quirk | None = None, body: str = "", size: bytes = b"", heals: bool = True) -> Odd:
        lies = {b"RFC822.SIZE": size} if size else {}
        return Odd(name, Message(letter(next(numbers), "odd", body=body), lies=lies, quirk=quirk), heals)

    line = "x" * 70 + "\r\n"
    large = line * (LARGEST // len(line) + 100)
    return [
        odd("the link is cut in it, for ever", cuts_the_link(40), heals=False),  # it has the lowest UID of all
        odd("NO for one UID, for ever", refuses("NO System Error (Failure)"), heals=False),
        odd("NO for one UID, for long", refuses("NO System Error (Failure)")),
        odd("NO for one UID, its header too", refuses("NO System Error (Failure)", blind=True)),
        odd("NO [UNAVAILABLE] for one UID", refuses("NO [UNAVAILABLE] try later")),
        odd("BODY[] NIL, for ever", has_body(nil), heals=False),
        odd("an empty literal", has_body(empty)),
        odd("a literal longer than announced", has_body(longer_than_announced)),
        odd("a literal shorter than announced", has_body(shorter_than_announced)),
        odd("a literal of 2^36 bytes", has_body(announced_as(2**36))),
        odd("a literal of 2^40 bytes", has_body(announced_as(2**40))),
        odd("the link is cut in it", cuts_the_link(60)),
        odd("found, and never shown", is_not_shown),
        odd("over inbound.max_message_size", body=large, heals=False),
        odd("the same by far, and its size is a lie", body=5 * large, size=b"1000", heals=False),
    ]


STRANGE: Final[dict[str, bytes]] = {
    "8-bit-header": b"From: J\xf6rg <j@clients.example>\r\nSubject: \xe9t\xe9 \xff\xfe\r\n",
    "nul-in-header": b"From: a\0b@clients.example\r\nSubject: nul\0nul\r\nX-\0: \0\r\n",
    "huge-line": b"X-Long: " + b"y" * 300_000 + b"\r\nSubject: a huge line\r\n",
    "5000-fields": b"X: y\r\n" * 5_000,
    "bare-line-ends": b"Subject: bare\nX-A: b\rX-C: d\r\n",
    "imap-in-header": b"Subject: {20}\r\nX-A: )\r\n A1 OK done\r\n* BYE\r\n",
}


def strange_messages() -> list[bytes]:
    """Return messages with odd things in the middle of their headers; each is to come as it is."""
    whole = [letter(number, f"strange {name}") for number, name in enumerate(STRANGE)]
    return [raw.replace(b"Date: ", odd + b"Date: ", 1) for raw, odd in zip(whole, STRANGE.values(), strict=True)]


@dataclass
class Line:
    """What a trial came to. `took`: seconds; `back`: of these, until its mail was there; `slowest`: ms, of `status`."""

    name: str
    met: int = 0
    took: float = 0.0
    said: list[str] = field(default_factory=list)
    back: float = 0.0
    slowest: float = 0.0
    peak: float = 0.0
    trouble: str = ""


class Story:
    """The hostile touchpoint's life: trials, odd messages, and what the daemon made of them."""

    def __init__(self, daemon: Daemon, server: HostileServer, onlooker: Onlooker) -> None:
        self.daemon, self.server, self.onlooker = daemon, server, onlooker
        self.log = LogReader(daemon.log)
        self.memory = Memory(daemon.pid)
        self.lines: list[Line] = []
        self.bugs: list[str] = []
        self.disturbed: list[str] = []  # what the log has about other touchpoints beside their mail
        self.odd: list[Odd] = []
        self._tend_at = 0.0
        self._numbers = itertools.count(1)

    # --- mail --------------------------------------------------------------------------------------------------------

    def write(self, count: int, lies: Mapping[bytes, bytes] | None = None) -> list[str]:
        """Deliver letters to the hostile mailbox; return their Message-IDs. `lies`: how the server shows them."""
        raws = [letter(next(self._numbers), "to hostile") for _ in range(count)]
        self.server.deliver(*(Message(raw, lies=dict(lies or {})) for raw in raws))
        return [message_id(raw) for raw in raws]

    def missing(self, ids: list[str]) -> list[str]:
        """Return those that lie in the mailbox and are not to be seen in a queue."""
        there = {message_id(message.raw) for message in self.server.messages().values()}
        return [id for id in ids if id in there and id not in self.onlooker.seen]

    def wait(self, check: Callable[[], object], patience: float = PATIENCE) -> bool:
        deadline = time.monotonic() + patience
        while not check():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
            self.tend()
        return True

    # --- trials ------------------------------------------------------------------------------------------------------

    def play(self, trial: Trial) -> None:
        line = Line(trial.name)
        self.lines.append(line)
        self.onlooker.slowest = 0.0
        self.memory.begin_peak()
        faults = trial.make()
        begun = time.monotonic()
        with self.server.in_force(*faults):
            if trial.begins == "reconnect":
                self.server.drop()
            elif trial.begins == "reload":
                watch = self.daemon.site.touchpoint("hostile")["watch"]
                watch["poll"] = "1200 ms" if watch["poll"] == "1 s" else "1 s"
                self.daemon.write_config()
                self.daemon.ask("reload")
            ids = self.write(2, trial.lies)
            if not self.wait(lambda: all(fault.ended for fault in faults)):
                over = "the client does not leave it" if all(fault.met for fault in faults) else "it is never met"
                line.trouble = f"{over} in {PATIENCE:.0f} s"
            elif trial.flows and not self.wait(lambda: not self.missing(ids)):
                line.trouble = f"no mail comes while it lasts: {self.missing(ids)}"
        honest_at = time.monotonic()
        if not self.wait(lambda: not self.missing(ids)):
            line.trouble += f" LOST, or later than {PATIENCE:.0f} s: {self.missing(ids)}"
        line.back = time.monotonic() - (begun if trial.flows else honest_at)
        self.wait(lambda: self.server.has_idler, 1.0)  # all its chores are done, or it has lost the taste for IDLE
        line.took = time.monotonic() - begun
        line.met = sum(fault.met for fault in faults)
        line.slowest = 1000 * self.onlooker.slowest
        line.peak = self.memory.peak
        self.hear(line)

    def begin(self) -> None:
        """Forget what the log has so far."""
        self.log.new_events()

    def changed(self, raws: Iterable[bytes]) -> list[str]:
        """Return the Message-IDs of those that do not stand in the queue byte for byte."""
        listed = self.daemon.ask("queue.list", queue="hostile", all=True)
        where = {id: conversation["id"] for conversation in listed for id in conversation["message_ids"]}
        return [message_id(raw) for raw in raws if self.text_of(where.get(message_id(raw), "0")) != raw]

    def hear(self, line: Line) -> None:
        """Note what the log has about the hostile touchpoint since last time, every bug, and what others felt."""
        told: Counter[str] = Counter()
        for event in self.log.new_events():
            name = event["event"]
            if event.get("level") == "error" or "exception" in event or name == "not an event":
                self.bugs.append(f"{line.name}: {event}")
                line.trouble += f" BUG {name}"
            elif name in ("connected", "arrived", "routed") and event["touchpoint"] == "hostile":
                pass
            elif event.get("touchpoint") == "hostile":
                cause = str(event.get("cause", "")).replace(f"imaps://localhost:{self.server.port}", "it")
                told[f"{name} {cause.removesuffix('; we connect again')}".strip()] += 1
            elif "touchpoint" in event and name not in ("arrived", "routed"):
                self.disturbed.append(f"{line.name}: {event}")
        line.said = [text if count == 1 else f"{count} × {text}" for text, count in told.items()]

    # --- odd messages ------------------------------------------------------------------------------------------------

    def meet_odd_messages(self) -> None:
        """Each comes with a good letter on either side, which must not wait for it."""
        for odd in odd_messages():
            line = Line(odd.name, met=1)
            self.lines.append(line)
            self.onlooker.slowest = 0.0
            self.memory.begin_peak()
            begun = time.monotonic()
            before, after = (letter(next(self._numbers), "beside an odd one") for _ in range(2))
            _, odd.uid, _ = self.server.deliver(before, odd.message, after)
            odd.since = time.monotonic()
            self.odd.append(odd)
            ids = [message_id(before), message_id(after)]
            if not self.wait(lambda ids=ids: not self.missing(ids)):  # type: ignore[misc]  # a bound loop variable
                line.trouble = f"others do not flow on: {self.missing(ids)}"
            line.took = line.back = time.monotonic() - begun
            line.slowest = 1000 * self.onlooker.slowest
            line.peak = self.memory.peak
            self.hear(line)

    def tend(self) -> None:
        """See what has become of odd messages; one that has its placeholder is healed, if it is of that kind."""
        if time.monotonic() < self._tend_at or all(odd.is_settled for odd in self.odd):
            return
        listed = self.daemon.ask("queue.list", queue="hostile", all=True)
        for odd in self.odd:
            if odd.is_settled or (standing := self.standing_for(odd, listed)) is None:
                continue
            if odd.stood_in_after is not None:
                if standing == odd.message.raw:
                    odd.replaced_after = time.monotonic() - odd.since
            elif b"webmail" in standing:
                odd.stood_in_after = time.monotonic() - odd.since
                if odd.heals:
                    self.server.do(lambda odd=odd: setattr(odd.message, "quirk", None))  # type: ignore[misc]  # bound
        self._tend_at = time.monotonic() + 0.3

    def standing_for(self, odd: Odd, listed: list[dict[str, Any]]) -> bytes | None:
        """Return what stands in the queue for an odd message: by its Message-ID, or as a note that has only its UID."""
        id = message_id(odd.message.raw)
        for conversation in listed:
            if id in conversation["message_ids"]:
                return self.text_of(conversation["id"])
            if any(".placeholder@" in one for one in conversation["message_ids"]):
                text = self.text_of(conversation["id"])
                if b"Number:  %d " % odd.uid in text:
                    return text
        return None

    def text_of(self, conversation: str) -> bytes:
        """Return its first message; b"" when it has been replaced this very moment."""
        try:
            (first, *_) = self.daemon.ask("queue.read", id=conversation)
        except CommandError:
            return b""
        chunks = (self.daemon.ask("message.chunk", id=first["id"], number=number) for number in itertools.count())
        return b"".join(base64.b64decode(chunk) for chunk in itertools.takewhile(lambda one: one is not None, chunks))

    def surface_late(self) -> None:
        """Two letters come, and then one under a lower UID."""
        line = Line("a lower UID surfaces late", met=1)
        self.lines.append(line)
        inbox = self.server.folders["INBOX"]
        kept = self.server.do(inbox.reserve)
        others = self.write(2)
        assert self.wait(lambda: not self.missing(others)), self.daemon.log_tail()
        raw = letter(1, "late")
        begun = time.monotonic()
        self.server.do(lambda: inbox.add(Message(raw), kept))
        if not self.wait(lambda: not self.missing([message_id(raw)])):
            line.trouble = f"not found in {PATIENCE:.0f} s"
        line.took = line.back = time.monotonic() - begun
        self.hear(line)

    # --- the end -----------------------------------------------------------------------------------------------------

    def table(self) -> str:
        rows = [f"{'fault':40} met  took s  back s  status ms  peak MB  what was said, and what went wrong"]
        for line in self.lines:
            words = "; ".join([*line.said, *([f"!! {line.trouble.strip()}"] if line.trouble else [])])
            rows.append(
                f"{line.name:40} {line.met:3}  {line.took:6.2f}  {line.back:6.2f}  {line.slowest:9.0f}"
                f"  {line.peak:7.1f}  {words}"
            )
        for odd in self.odd:
            minutes = [
                "never" if seconds is None else f"after {seconds * RATE / 60:.0f} min"
                for seconds in (odd.stood_in_after, odd.replaced_after)
            ]
            rows.append(f"{odd.name:40} placeholder {minutes[0]}, the message {minutes[1]}")
        return "\n".join(rows)


class Latencies:
    """Of the healthy letters, from the beginning of their delivery until they are visible; seconds."""

    def __init__(self, customers: Correspondents, onlooker: Onlooker) -> None:
        self._sent, self._seen = customers.sent, onlooker.seen
        self.hostile_from = float("inf")

    @property
    def before(self) -> list[float]:
        return [self._seen[id] - at for id, at in self._sent.items() if id in self._seen and at < self.hostile_from]

    @property
    def beside(self) -> list[float]:
        return [self._seen[id] - at for id, at in self._sent.items() if id in self._seen and at >= self.hostile_from]

    def table(self) -> str:
        rows = []
        for name, seconds in (("without the hostile one", self.before), ("beside the hostile one", self.beside)):
            figures = ", ".join(f"{key} {value:.0f} ms" for key, value in quantiles(seconds).items())
            rows.append(f"latency of {len(seconds)} healthy letters {name}: {figures}")
        late = sorted(((self._seen[id] - at, id) for id, at in self._sent.items() if id in self._seen), reverse=True)
        rows.append("the latest: " + ", ".join(f"{id} {1000 * seconds:.0f} ms" for seconds, id in late[:5]))
        return "\n".join(rows)
