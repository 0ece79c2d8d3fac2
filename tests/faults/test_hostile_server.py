"""One hostile provider among ten: the daemon lives, the nine keep their latency, and nothing of the tenth is lost."""

from __future__ import annotations

import base64
import contextlib
import imaplib
import itertools
import pprint
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.errors import CommandError
from tests.support import hurried
from tests.support.authority import Authority, Pair
from tests.support.daemon import Daemon, Site
from tests.support.hostile import CAPABILITIES, HostileServer, Quirk
from tests.support.imap_faults import (
    BYE,
    TRIALS,
    Trial,
    announced_as,
    answers,
    answers_after,
    at,
    cuts_the_link,
    empty,
    has_body,
    is_not_shown,
    longer_than_announced,
    nil,
    refuses,
    shorter_than_announced,
)
from tests.support.imap_model import Folder, Message
from tests.support.letters import letter, message_id, repeated
from tests.support.onlooker import Correspondents, LogReader, Memory, Onlooker, quantiles
from tests.support.provider import Provider
from tests.support.waiting import wait_until

RATE: Final = 100  # the daemon's minutes are 0.6 seconds of ours
LARGEST: Final = 500_000  # bytes: inbound.max_message_size
HEALTHY: Final = 9
LATEST: Final = 6.0  # seconds: no healthy letter may take longer, however slow the machine
PATIENCE: Final = 12.0  # seconds for one trial's fault to be met and left, and then again for its mail to come
CAPABILITY_GONE: Final = re.compile("no (IDLE|ESEARCH)$|HIGHESTMODSEQ")  # of what is asked in those trials
MOST_MEMORY: Final = 150.0  # MB that hostility may cost beside what the daemon had before


# --- the server in its honest mode -----------------------------------------------------------------------------------


@pytest.fixture(params=["hostile-server", "dovecot"])
def imap(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[imaplib.IMAP4, Callable[..., object]]]:
    """A logged-in client of either server, and what delivers to it."""
    if request.param == "dovecot":
        provider: Provider = request.getfixturevalue("shared_provider")
        login = "contract@support.example"
        provider.dovecot.set_password(login, "secret")
        with imaplib.IMAP4("127.0.0.1", provider.dovecot.imap_port) as client:
            client.login(login, "secret")
            yield client, lambda *raws: provider.dovecot.deliver(login, *raws)
        return
    server = request.getfixturevalue("make_server")("contract")
    with imaplib.IMAP4("127.0.0.1", server.port) as client:
        client.login(server.login, server.password)
        yield client, server.deliver
    assert server.misunderstood == []


def said(answer: tuple[str, list[Any]]) -> bytes:
    """Return what an OK came with, as one text."""
    status, data = answer
    assert status == "OK", data
    return b" ".join(b"\r\n".join(piece) if isinstance(piece, tuple) else piece for piece in data if piece is not None)


def told(response: tuple[str, list[Any]]) -> bytes:
    """Return what came beside an answer."""
    return b" ".join(piece for piece in response[1] if piece is not None)


def test_the_hostile_server_in_its_honest_mode_answers_as_dovecot_does(
    imap: tuple[imaplib.IMAP4, Callable[..., object]],
) -> None:
    client, deliver = imap
    first, second, third = (letter(number, "contract", body="x" * number) for number in (1, 2, 300))
    deliver(first, second)
    assert re.search(rb'\(.*\\Junk.*\) "?[./]"? "?Junk"?', said(client.list()))
    assert re.search(rb'"?INBOX"? \(MESSAGES 2 UIDNEXT 3 UIDVALIDITY [1-9]\d*\)', said(
        client.status("INBOX", "(MESSAGES UIDNEXT UIDVALIDITY)")
    ))  # fmt: skip
    assert client.select("INBOX", readonly=True) == ("OK", [b"2"])
    assert int(told(client.response("UIDVALIDITY"))) > 0
    assert told(client.response("UIDNEXT")) == b"3"
    assert said(client.uid("SEARCH", "UID 2:*")) == b"2"
    assert said(client.uid("SEARCH", "UID 9:*")) == b"2"  # the last one, whatever its number
    assert said(client.uid("SEARCH", "SINCE", "1-Jan-2020")) == b"1 2"
    whole = said(client.uid("FETCH", "1:*", "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[])"))
    for raw in (first, second):
        assert raw[raw.index(b"Subject") :] in whole  # Dovecot's LMTP has put trace fields before it
    assert whole.count(b"RFC822.SIZE") == 2
    fields = said(client.uid("FETCH", "2", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)])"))
    assert b"Message-ID: <contract.2@clients.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n" in fields
    part = said(client.uid("FETCH", "2", "(UID BODY.PEEK[]<3.5>)"))
    assert re.search(rb"UID 2 BODY\[\]<3> \{5\}\r\n.{5} \)", part, re.DOTALL)
    assert said(client.uid("FETCH", "2", "(UID BODY.PEEK[]<999999.5>)")).endswith((b'BODY[]<999999> "")', b"{0}\r\n )"))
    assert re.search(
        rb'ENVELOPE \("Mon, 23 Nov 2026 10:00:00 \+0000" "contract 2" \(\("Customer 2" NIL "customer" "clients',
        said(client.uid("FETCH", "2", "(UID ENVELOPE)")),
    )
    client.uid("STORE", "2", "+FLAGS.SILENT", "(\\Seen)")  # opened with EXAMINE: in vain, with NO or without
    assert b"Seen" not in said(client.uid("FETCH", "2", "(UID FLAGS)"))
    assert client.select("INBOX") == ("OK", [b"2"])
    said(client.uid("STORE", "2", "+FLAGS.SILENT", "(\\Answered)"))
    assert re.search(rb"\(UID 2 FLAGS \(.*\\Answered.*\)\)", said(client.uid("FETCH", "2", "(UID FLAGS)")))
    deliver(third)
    said(client.noop())
    assert told(client.response("EXISTS")).split()[-1] == b"3"
    assert said(client.uid("FETCH", "3", "(UID RFC822.SIZE)")).startswith(b"3 (UID 3 RFC822.SIZE ")
    said(client.uid("MOVE", "1", "Junk"))
    assert re.fullmatch(rb"\d+ 1 1", told(client.response("COPYUID")))
    assert told(client.response("EXPUNGE")) == b"1"
    said(client.uid("STORE", "3", "+FLAGS.SILENT", "(\\Deleted)"))
    said(client.uid("EXPUNGE", "2"))  # not marked
    assert said(client.uid("SEARCH", "ALL")) == b"2 3"
    said(client.uid("EXPUNGE", "2:3"))
    assert said(client.uid("SEARCH", "ALL")) == b"2"
    assert client.select("Nowhere")[0] == "NO"


# --- ten touchpoints -------------------------------------------------------------------------------------------------


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

    def hear(self, line: Line) -> None:
        """Note what the log has about the hostile touchpoint since last time, and every bug."""
        told: Counter[str] = Counter()
        for event in self.log.new_events():
            name = event["event"]
            if event.get("level") == "error" or "exception" in event or name == "not an event":
                self.bugs.append(f"{line.name}: {event}")
                line.trouble += f" BUG {name}"
            elif event.get("touchpoint") == "hostile" and name not in ("connected", "arrived", "routed"):
                cause = str(event.get("cause", "")).replace(f"imaps://localhost:{self.server.port}", "it")
                told[f"{name} {cause.removesuffix('; we connect again')}".strip()] += 1
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


def a_touchpoint(id: str, server: HostileServer, secrets: Path, **keys: Any) -> dict[str, Any]:
    secret = secrets / id
    secret.write_text(server.password)
    return {
        "id": id,
        "address": server.login,
        "name": id.title(),
        "active": True,
        "direction": "inbound",
        "linked_queues": [id],
        "imap": f"imap+insecure://127.0.0.1:{server.port}",
        "password": f"file:{secret}",
        "history": "all",
        **keys,
    }


@pytest.fixture
def make_server() -> Iterator[Callable[..., HostileServer]]:
    """Makes servers that are gone at the end of the test."""
    made: list[HostileServer] = []

    def make(id: str, pair: Pair | None = None, capabilities: str = CAPABILITIES) -> HostileServer:
        made.append(HostileServer(f"{id}@support.example", f"secret of {id}", pair, capabilities))
        return made[-1]

    try:
        yield make
    finally:
        for server in made:
            server.close()


@pytest.mark.timeout(390)
def test_one_hostile_server_costs_nine_healthy_touchpoints_nothing_and_loses_nothing_itself(
    make_server: Callable[..., HostileServer],
    authority: Authority,
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
) -> None:
    honest = {id: make_server(id) for id in (f"well-{number}" for number in range(1, HEALTHY + 1))}
    server = make_server("hostile", authority.issue("hostile"))
    site = Site([a_touchpoint(id, one, tmp_path) for id, one in honest.items()])
    site.gateway = {"inbound": {"max_message_size": LARGEST}}
    daemon = make_daemon(site, program=(hurried.__file__, f"{server.port}:{RATE}"))
    daemon.start()
    daemon.wait_connected(*honest)
    onlooker = Onlooker(daemon)
    story = Story(daemon, server, onlooker)
    customers = Correspondents({id: one.deliver for id, one in honest.items()}, pause=0.08)
    latencies = Latencies(customers, onlooker)
    with contextlib.ExitStack() as ending, onlooker.looking():
        ending.callback(lambda: print(story.table(), latencies.table(), sep="\n"))
        with customers.writing():
            time.sleep(5)  # the measured time without the hostile one: nothing is waited for
            latencies.hostile_from = time.monotonic()
            memory_before = story.memory.now
            daemon.site.touchpoints.append(
                a_touchpoint(
                    "hostile",
                    server,
                    tmp_path,
                    imap=f"imaps://localhost:{server.port}",
                    ca_file=str(authority.ca_file),
                    watch={"poll": "1 s"},
                )
            )
            daemon.write_config()
            daemon.ask("reload")
            first = story.write(5)
            assert story.wait(lambda: not story.missing(first)), daemon.log_tail()
            server.deliver(*strange_messages())
            story.meet_odd_messages()
            for trial in TRIALS:
                story.play(trial)
            surface_late(story)
            story.wait(lambda: all(odd.is_settled for odd in story.odd), 30)
        wanted = {message_id(message.raw) for message in server.messages().values()}
        story.wait(lambda: not story.missing(list(wanted)), 20)
        story.wait(lambda: set(customers.sent) <= set(onlooker.seen), 10)
    # Everything that is wrong, and not just the first of it; each of these is empty when all is well
    listed = daemon.ask("queue.list", all=True)
    found = [id for conversation in listed for id in conversation["message_ids"]]
    in_hostile = [conversation for conversation in listed if "hostile" in conversation["queues"]]
    in_queue = Counter(id for conversation in in_hostile for id in conversation["message_ids"])
    kept = Counter(message_id(message.raw) for message in server.messages().values())
    noted = Counter(message_id(odd.message.raw) for odd in story.odd if not odd.heals)  # perhaps without their headers
    notes = [(one["subject"], one["message_ids"]) for one in in_hostile if not set(one["message_ids"]) & set(kept)]
    most = max(line.peak for line in story.lines) - memory_before
    slow = max(latencies.beside)
    looked_at: dict[str, Any] = {
        # (a) the daemon lives
        "ended": [] if daemon.is_running else ["it has"],
        "restarted": sorted(onlooker.pids)[1:],
        "did not answer": onlooker.troubles,
        "bugs": story.bugs,
        # (b) the nine have every letter once, and in time
        "lost beside it": sorted(set(customers.sent) - set(found)),
        "twice beside it": repeated(id for id in found if id in customers.sent),
        "late beside it": [] if slow < max(LATEST, 2 * max(latencies.before)) else [f"{slow:.1f} s"],
        # (c) the tenth too: all that stayed has its one place, and nothing else has
        "troubles": {line.name: line.trouble for line in story.lines if line.trouble},
        "lost": sorted(kept - in_queue - noted),
        "twice": repeated(in_queue.elements()),
        "of nothing": notes if len(notes) > len(noted - in_queue) else [],
        "forged": [id for id in in_queue if id == "<forged@x>"],
        # (d) what could not be fetched had a placeholder, and the message when it could
        "without a placeholder": [odd.name for odd in story.odd if odd.stood_in_after is None],
        "not replaced": [odd.name for odd in story.odd if not odd.is_settled],
        # (e) memory is bounded
        "memory": [] if most < MOST_MEMORY else [f"{most:.0f} MB more"],
        # and we were a good client all the while
        "connections": server.crowds,
        "rude": [one for one in server.commands if re.match(r"(CLOSE|EXPUNGE|STORE|FETCH|SEARCH)\b", one)],
        "misunderstood": [one for one in server.misunderstood if not CAPABILITY_GONE.search(one)],
        "marked": [uid for uid, message in server.messages().items() if message.flags],
        "told": [server.password] if server.password in daemon.log.read_text() else [],
    }
    wrong = {name: found for name, found in looked_at.items() if found}
    assert not wrong, pprint.pformat(wrong, width=160)


def surface_late(story: Story) -> None:
    """Two letters come, and then one under a lower UID."""
    line = Line("a lower UID surfaces late", met=1)
    story.lines.append(line)
    inbox = story.server.folders["INBOX"]
    kept = story.server.do(inbox.reserve)
    others = story.write(2)
    assert story.wait(lambda: not story.missing(others)), story.daemon.log_tail()
    raw = letter(1, "late")
    begun = time.monotonic()
    story.server.do(lambda: inbox.add(Message(raw), kept))
    if not story.wait(lambda: not story.missing([message_id(raw)])):
        line.trouble = f"not found in {PATIENCE:.0f} s"
    line.took = line.back = time.monotonic() - begun
    story.hear(line)


# --- filing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "verbs"), [("", ["MOVE"]), ("MOVE ", ["COPY", "STORE", "EXPUNGE"])], ids=["move", "copy-and-expunge"]
)
def test_what_is_filed_lies_in_one_place_in_the_end_whatever_the_server_does_meanwhile(
    make_server: Callable[..., HostileServer],
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
    without: str,
    verbs: list[str],
) -> None:
    server = make_server("filing", capabilities=CAPABILITIES.replace(without, ""))
    keys = {"after_fetch": "move:Done", "watch": {"poll": "1 s"}}
    daemon = make_daemon(
        Site([a_touchpoint("filing", server, tmp_path, **keys)]),
        program=(hurried.__file__, f"{server.port}:{3 * RATE}"),
    )
    daemon.start()
    written: list[Message] = []

    def is_filed() -> bool:
        return not server.messages() and len(server.folders.get("Done", Folder("")).messages) >= len(written)

    for verb in verbs:
        for fault in (
            answers_after(f"UID {verb}", 1),
            answers(f"UID {verb}", "TAG OK done, says the server"),
            answers(f"UID {verb}", "TAG NO [UNAVAILABLE] not now"),
            *((at(f"UID {verb}", BYE), at(f"UID {verb}")) if verb in ("MOVE", "COPY") else ()),
        ):
            with server.in_force(fault):
                written.append(Message(letter(len(written), f"filed by {verb}")))
                server.deliver(written[-1])
                wait_until(lambda fault=fault: fault.ended, f"{verb} is met", state=daemon.log_tail)  # type: ignore[misc]
            wait_until(is_filed, f"it is filed in spite of its {verb}", state=daemon.log_tail)
    for folder in ("INBOX", "Junk", "Sent"):
        assert server.messages(folder) == {}
    filed = Counter(message.number for message in server.messages("Done").values())
    assert filed == Counter(message.number for message in written)
    in_queue = [id for conversation in daemon.conversations() for id in conversation["message_ids"]]
    assert sorted(in_queue) == sorted(message_id(message.raw) for message in written)
    assert [one for one in server.commands if re.match(r"(CLOSE|EXPUNGE|STORE)\b", one)] == []
    assert [one for one in server.misunderstood if "Done" not in one] == []
    assert "Traceback" not in daemon.log.read_text()
