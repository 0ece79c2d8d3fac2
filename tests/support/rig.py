"""Agents submit, providers have moods and go away, the daemon is killed; then calm, and the count.

A `Rig` is a daemon with its touchpoints, each with a `MoodyProvider`; some of the providers keep Sent copies in a real
Dovecot. What happens is up to the tests; what has to be true at the end is always the same (`tests/support/reckoning`).
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.model import show_id
from tests.support import brisk
from tests.support.daemon import Site
from tests.support.letters import message_id, repeated
from tests.support.moody import Attempt, Entry, MoodyProvider, Weather
from tests.support.provider import Provider
from tests.support.reckoning import Evidence, Reckoning, reckon
from tests.support.sentbox import Habits, Sentbox
from tests.support.steps import Deadly, Forge, SteppedDaemon
from tests.support.waiting import wait_until
from tests.support.writers import PASSWORD, Submission, Writers, compose

AGENTS: Final = ("ana@gateway.example", "ben@gateway.example", "eva@gateway.example")
ENV: Final = {"PROVIDER_PASSWORD": "provider's secret"}
BRISK: Final = "tests.support.brisk:quicken"
RETRY_STEP: Final = max(*brisk.STEPS, *brisk.PROBES, *brisk.DIALS) * 1.1  # seconds, with the jitter
_ODD: Final[Mapping[str, float]] = {"nobody": 0.03, "grey": 0.03, "later": 0.02}  # share of the addresses
_OPEN: Final = ("queued", "sending", "deferred", "held")


@dataclass(frozen=True)
class Kind:
    """What makes touchpoints differ. `habits`: of a provider that keeps copies in Sent; None: it keeps none.

    `session`: the touchpoint has IMAP all the same, for a copy that we file. `rates`: the weather's.
    """

    id: str
    rates: Mapping[str, float] = field(default_factory=dict)
    habits: Habits | None = None
    session: bool = False
    direction: str = "outbound"
    most: int = 100
    extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "SIZE 50000000", "AUTH PLAIN LOGIN")
    pace: Mapping[str, int] = field(default_factory=lambda: {"connections": 2})


class Place:
    """A touchpoint at its provider."""

    def __init__(self, kind: Kind, mailboxes: Provider | None, seed: int) -> None:
        self.kind = kind
        self.id = kind.id
        self.address = f"{kind.id}@support.example"
        self.sentbox: Sentbox | None = None
        self._mailboxes = mailboxes
        self._keys: dict[str, Any] = {"password": "env:PROVIDER_PASSWORD", "linked_queues": ["support"]}
        if kind.habits is not None or kind.session:
            assert mailboxes is not None
            self._keys = mailboxes.touchpoint(kind.id, "inbound", tls=False, watch={"poll": "5 s", "renew_idle": "5 s"})
            if kind.habits is not None:
                self._keys["sent_copy"] = "provider"
                self.sentbox = Sentbox(mailboxes.server, self.address, kind.habits, seed)
        self.provider = MoodyProvider(
            Weather(seed, kind.rates),
            extensions=kind.extensions,
            most=kind.most,
            on_taken=self.sentbox.file if self.sentbox else lambda raw: None,
        )

    def touchpoint(self) -> dict[str, Any]:
        smtp = f"smtp+insecure://127.0.0.1:{self.provider.port}"
        return {
            "id": self.id,
            "address": self.address,
            "name": self.id.title(),
            "active": True,
            "provider": "custom",
            **self._keys,
            "direction": self.kind.direction,
            "smtp": smtp,
            "pace": dict(self.kind.pace),
        }

    @property
    def is_filed_by_us(self) -> bool:
        return self.kind.session and self.sentbox is None

    def copies(self) -> list[str]:
        """Return the Message-IDs of what lies in Sent."""
        assert self._mailboxes is not None
        return [message_id(raw) for raw in self._mailboxes.server.messages(self.address, "Sent")]

    def close(self) -> None:
        self.provider.close()
        if self.sentbox is not None:
            self.sentbox.close()


class Rig:
    """`changes`: what else is done to the daemon's code ("module:function"), after it was made brisk."""

    def __init__(
        self, forge: Forge, kinds: Sequence[Kind], mailboxes: Provider | None, seed: int, changes: Sequence[str] = ()
    ) -> None:
        self.places = [Place(kind, mailboxes, seed * 1000 + number) for number, kind in enumerate(kinds)]
        site = Site([place.touchpoint() for place in self.places])
        for agent in AGENTS:
            site.add_agent(agent, PASSWORD, [], touchpoints=[place.address for place in self.places])
        self.daemon = SteppedDaemon(forge, site, env=ENV, outbound=True, changes=[BRISK, *changes])
        self.submissions: list[Submission] = []
        self.did: Counter[str] = Counter()
        self.killed: set[Attempt] = set()  # in `sending`
        self.latest = 0.0  # seconds from the providers' return to the last delivery that evidence did not delay
        self.settled: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.is_mortal = False  # the daemon may die by itself, and is then started again
        self._returned_at = self._postscript_at = 0.0  # time.monotonic()
        self._written_before = 0  # the return
        self._dice = random.Random(seed)

    def close(self) -> None:
        self.daemon.close()
        for place in self.places:
            place.close()

    # --- what agents write -------------------------------------------------------------------------------------------

    def write(self, place: Place, recipients: Sequence[str], body: str = "", **how: Any) -> Submission:
        """Note down a submission. The address gets the number, so that each belongs to one submission."""
        number = len(self.submissions) + 1
        addresses = tuple(f"{kind}.{number}.{index}@clients.example" for index, kind in enumerate(recipients))
        raw = compose(number, place.address, addresses, body)
        agent = AGENTS[number % len(AGENTS)]
        submission = Submission(number, agent, place.id, place.address, addresses, raw, **how)
        self.submissions.append(submission)
        return submission

    def write_any(self) -> Submission:
        dice = self._dice
        if dice.random() < 0.02:
            recipients = ["spam"] * dice.randrange(1, 3)
        else:
            kinds, weights = zip(*_ODD.items(), ("bob", 1 - sum(_ODD.values())), strict=True)
            recipients = dice.choices(kinds, weights, k=dice.choice((1, 1, 1, 2, 2, 3, 4, 5)))
        lines = dice.choice((1, 5, 20, 20, 400, 4000)) if dice.random() < 0.2 else dice.randrange(1, 30)
        fate = dice.random()
        return self.write(
            dice.choice(self.places),
            recipients,
            "\r\n".join(f"line {number} {'x' * 50}" for number in range(lines)),
            loses=1 if fate < 0.05 else 2 if fate < 0.06 else 0,
            insists=fate < 0.9,
        )

    # --- life and death ----------------------------------------------------------------------------------------------

    def died(self) -> None:
        """The daemon has been killed: see whose fate it took along."""
        path = self.daemon.state_dir / "gateway.db"
        if not path.exists():
            return
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
            contextlib.suppress(sqlite3.OperationalError),  # killed before there was a schema
        ):
            self.killed |= _attempts(db, "sending")

    def kill(self) -> None:
        self.daemon.kill()
        self.did["kill"] += 1
        self.died()

    # --- calm --------------------------------------------------------------------------------------------------------

    def settle(self, patience: float, *, by_evidence: bool) -> None:
        """Everything heals; all that can leaves. Then evidence settles what is uncertain, then a person does.

        Raises AssertionError when that takes too long.
        """
        for place in self.places:
            place.provider.come_back()
            place.provider.calm_down()
        if not self.daemon.is_running:
            self.daemon.start()
        for place in self.places:
            self.daemon.ask("outbox.release", touchpoint=place.id)
        for id in {id for id, *_ in self.waiting("held")}:
            self.daemon.ask("outbox.release", id=id)
        self._returned_at, self._written_before = time.monotonic(), len(self.submissions)
        self.until(lambda: not self.waiting(), "all that waits has left", patience)
        if by_evidence:
            self.settle_by_evidence(patience)

    def until(self, check: Callable[[], Any], what: str, patience: float) -> None:
        """Wait until it is so; start the daemon again when it has died its death."""

        def is_so() -> bool:
            if not self.is_mortal:
                return bool(check())
            self.revive()
            try:
                return bool(check())
            except (OSError, GatewayError):
                return False

        wait_until(is_so, what, timeout=patience, every=0.05 if self.is_mortal else 0.2, state=self.plight)

    def revive(self) -> None:
        if self.daemon.is_running:
            return
        code = self.daemon.wait_end()
        assert code == -signal.SIGKILL, f"it ended with {code}"
        self.did["kill"] += 1
        self.died()
        self.daemon.launch()

    def waiting(self, *states: str) -> list[tuple[str, str, str | None, Any]]:
        """Return queue id, touchpoint, cause and recipient of all that is in one of these states, or in any but
        settled and uncertain.
        """
        return [
            (row["id"], row["touchpoint"], row["cause"], one)
            for row in self.daemon.ask("outbox.list")
            for one in row["recipients"]
            if one["state"] in (states or _OPEN)
        ]

    def plight(self) -> str:
        found = self.waiting(*_OPEN, "uncertain")
        return f"{len(found)} are open, such as {found[:5]}\n{self.daemon.status()['alarms']}\n{self.daemon.log_tail()}"

    def settle_by_evidence(self, patience: float) -> None:
        """Where copies are kept, everything is settled once a later message lies there."""
        keeping = [place for place in self.places if place.sentbox is not None]
        ids = {place.id for place in keeping}

        def is_settled() -> bool:
            found = self.waiting(*_OPEN, "uncertain")  # in one look: what is sent again may become uncertain again
            doubtful = {place for _, place, _, one in found if place in ids and one["state"] == "uncertain"}
            if doubtful and time.monotonic() > self._postscript_at:
                self._postscript_at = time.monotonic() + 3
                for place in keeping:
                    if place.id in doubtful:
                        self.send(self.write(place, ["bob"]))
            return not doubtful and all(one["state"] == "uncertain" for *_, one in found)

        self.until(is_settled, "evidence has settled what was uncertain", patience)

    def send(self, *submissions: Submission, patience: float = 60) -> None:
        writers = Writers(self.daemon, submissions, threads=1)
        writers.start()
        try:
            self.until(lambda: writers.are_done, "it is submitted", patience)
        finally:
            writers.stop()

    def settle_by_hand(self, patience: float) -> None:
        """A person who knows what the provider has says so, recipient by recipient."""

        def is_settled() -> bool:
            taken = {(entry.queue_id, entry.recipient) for entry in self.entries()}
            found = self.waiting(*_OPEN, "uncertain")
            for id, _, _, one in found:
                if one["state"] != "uncertain":
                    continue
                is_delivered = (id, one["address"]) in taken
                self.daemon.ask("outbox.settle", id=id, delivered=is_delivered, recipient=one["address"])
                self.settled["delivered" if is_delivered else "resend"] += 1
            return not found

        self.until(is_settled, "all is settled", patience)

    def wait_for_copies(self, patience: float) -> None:
        """Where we are the one who files copies, wait until each message of which we know has one."""
        for place in self.places:
            if not place.is_filed_by_us:
                continue
            wanted = self._known_to_have_left(place)
            self.until(lambda place=place, wanted=wanted: wanted <= set(place.copies()), "copies are filed", patience)  # type: ignore[misc]  # mypy and lambdas

    def _known_to_have_left(self, place: Place) -> set[str]:
        """Return the Message-IDs of what has left and was never in doubt: that is not filed on a person's word."""
        doubted = {queue_id for queue_id, _, _ in self._doubted() | self.killed}
        return {entry.message_id for entry in place.provider.entries() if entry.queue_id not in doubted}

    # --- the count ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        return [entry for place in self.places for entry in place.provider.entries()]

    def count(self) -> Reckoning:
        """Stop the daemon and count. It may be started again."""
        listed = self.daemon.outbox()
        code = self.daemon.stop()
        if code == -signal.SIGKILL and self.is_mortal:
            self.revive()
            self.until(self.daemon.outbox, "it is there again", 20)
            listed = self.daemon.outbox()
            code = self.daemon.stop()
        assert code == 0, f"it ended with {code}"
        with contextlib.closing(self.daemon.database()) as db:
            doubtful = _attempts(db, "uncertain")
            bounced = _bounces(db)
        doubted = self._doubted() | doubtful
        delayed = {(queue_id, recipient) for queue_id, _, recipient in doubted | self.killed}
        before = {submission.message_id for submission in self.submissions[: self._written_before]}
        in_time = [
            entry
            for entry in self.entries()
            if entry.message_id in before and (entry.queue_id, entry.recipient) not in delayed
        ]
        self.latest = max((entry.at - self._returned_at for entry in in_time), default=0.0)
        begun: Counter[Attempt] = Counter()
        cut: set[Attempt] = set()
        unread: list[tuple[str, ...]] = []
        for place in self.places:
            begun += place.provider.ledger.begun
            cut |= place.provider.ledger.cut
            unread += place.provider.ledger.unread
        found = reckon(
            Evidence(
                submissions=self.submissions,
                listed=listed,
                entries=self.entries(),
                begun=begun,
                cut=cut,
                unread=unread,
                killed=self.killed,
                doubted=doubted,
                doubtful=doubtful,
                bounced=bounced,
                cancelled=self.cancelled,
            )
        )
        for place in self.places:
            if place.is_filed_by_us and (more := repeated(place.copies())):
                found.wrong.append(f"{place.id}: more than one copy in Sent: {more}")
            if place.provider.ledger.strangers:
                found.wrong.append(f"{place.id}: sent without a trace field: {place.provider.ledger.strangers[:2]}")
            if place.sentbox is not None and place.sentbox.fault is not None:
                raise place.sentbox.fault
        bugs = [event for event in self.daemon.events() if "exception" in event or event.get("level") == "critical"]
        found.wrong += [f"a fault of ours: {bug}" for bug in bugs[:5]]
        return found

    def _doubted(self) -> set[Attempt]:
        return {
            (event["queue_id"], int(event["attempt"]), event["to"].strip("<>"))
            for event in self.daemon.events("attempt")
            if event["outcome"] == "uncertain"
        }

    def evidence(self) -> Counter[str]:
        """What Sent folders have decided, by outcome."""
        return Counter(event["outcome"] for event in self.daemon.events("settled"))

    def moods(self) -> Counter[str]:
        return sum((place.provider.ledger.moods for place in self.places), Counter[str]())


def _attempts(db: sqlite3.Connection, state: str) -> set[Attempt]:
    rows = db.execute("SELECT outbox, attempt, address FROM recipient WHERE state = ?", (state,))
    return {(show_id(id), attempt, address) for id, attempt, address in rows}


def _bounces(db: sqlite3.Connection) -> Counter[tuple[str, str]]:
    """Count what the notices say has failed: (queue id, recipient)."""
    found: Counter[tuple[str, str]] = Counter()
    for (raw,) in db.execute(
        "SELECT bytes FROM message JOIN chunk ON chunk.id = message.id << 16 WHERE origin = 'notice'"
    ):
        queue_id = re.search(rb"^X-Queue-Id: (\S+)", raw, re.M)
        for block in raw.split(b"\r\n\r\n"):
            recipient = re.search(rb"^Final-Recipient: rfc822; *(\S+)", block, re.M)
            if queue_id and recipient and b"\r\nAction: failed" in block:
                found[queue_id[1].decode(), recipient[1].decode()] += 1
    return found


# --- a storm ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """`submissions`, before postscripts. `lull`: seconds that the daemon lives at most between two deaths."""

    submissions: int
    kills: int
    seed: int
    lull: float
    patience: float
    threads: int = 4


class OutboundStorm:
    """All at once: agents write, an operator meddles, providers have their moods and go away, the daemon is killed."""

    def __init__(self, rig: Rig, size: Size) -> None:
        self.rig, self._size = rig, size
        self._dice = random.Random(size.seed)
        self._away: dict[Place, float] = {}

    def rage(self) -> None:
        rig, size, dice = self.rig, self._size, self._dice
        submissions = [rig.write_any() for _ in range(size.submissions)]
        writers = Writers(rig.daemon, submissions, size.threads, size.seed)
        writers.limit = 0
        writers.start()
        try:
            while rig.did["kill"] < size.kills:
                rig.daemon.launch()
                if is_awaited := dice.random() < 0.8:
                    rig.daemon.wait_ready(60)  # the other times it dies somewhere on its way
                writers.limit = round(size.submissions * (rig.did["kill"] + 1) / (size.kills + 1))
                until = time.monotonic() + dice.uniform(0.0, size.lull)
                while time.monotonic() < until:
                    time.sleep(dice.uniform(0.0, max(0.0, min(0.3, until - time.monotonic()))))
                    self._come_and_go()
                    self._meddle()
                assert rig.daemon.is_running, f"it ended by itself\n{rig.daemon.log_tail()}"
                if is_awaited and dice.random() < 0.1:
                    assert (code := rig.daemon.stop()) == 0, f"SIGTERM: {code}\n{rig.daemon.log_tail()}"
                    rig.did["stop"] += 1
                else:
                    rig.kill()
            writers.limit = size.submissions
            rig.daemon.start(60)
            while not writers.are_done:
                time.sleep(0.05)
                self._come_and_go()
            writers.join(1)
        finally:
            writers.stop()

    def _come_and_go(self) -> None:
        now = time.monotonic()
        for place, until in list(self._away.items()):
            if now >= until:
                place.provider.come_back()
                del self._away[place]
        if self._dice.random() < 0.05:
            place = self._dice.choice(self.rig.places)
            if place not in self._away:
                silently = self._dice.random() < 0.3
                place.provider.leave(silently=silently)
                self.rig.did["provider silent" if silently else "provider away"] += 1
                self._away[place] = now + self._dice.uniform(0.1, 2.0)

    def _meddle(self) -> None:
        """What an operator may do at any moment. It may come too late, or the daemon be gone."""
        rig, dice = self.rig, self._dice
        if dice.random() > 0.15:
            return
        with contextlib.suppress(OSError, GatewayError):
            what = dice.choice(("retry", "hold", "release", "release", "hold one", "release one", "cancel"))
            place = dice.choice(rig.places).id
            if what == "retry":
                rig.daemon.ask("outbox.retry")
            elif what in ("hold", "release"):
                rig.daemon.ask(f"outbox.{what}", touchpoint=place)
            elif waiting := rig.waiting("held") if what == "release one" else rig.waiting():
                id = dice.choice(waiting)[0]
                if what == "cancel":
                    if not any(id in submission.ids for submission in rig.submissions):
                        return  # its client may come again, and would be right to be taken for new
                    rig.cancelled.add(id)
                rig.daemon.ask(f"outbox.{what.split()[0]}", id=id)
            rig.did[f"person: {what}"] += 1


# --- an errand that is killed at one step ----------------------------------------------------------------------------


class OutboundErrand:
    """A few messages of every fate, with a daemon that dies at one step and is started again.

    `play` raises AssertionError with what is wrong. `steps`: of the daemon that was started last.
    """

    patience = 40.0  # seconds

    def __init__(self, rig: Rig, deadly: Deadly | None = None) -> None:
        self.rig = rig
        self.steps: list[tuple[str, int, str]] = []
        rig.is_mortal = True
        rig.daemon.deadly = deadly

    @property
    def deaths(self) -> int:
        return self.rig.did["kill"]

    def play(self) -> Reckoning:
        rig, plain, narrow = self.rig, self.rig.places[0], self.rig.places[-1]
        big = "\r\n".join("y" * 70 for _ in range(400))  # several chunks
        rig.daemon.launch()
        self._submit(
            rig.write(plain, ["bob"], loses=1),
            rig.write(plain, ["bob", "nobody", "grey"]),
            rig.write(narrow, ["bob", "eve", "ned"], big),
            rig.write(plain, ["heard"]),
        )
        self._submit(
            rig.write(narrow, ["unheard", "bob"]),
            rig.write(plain, ["spam"]),
            rig.write(narrow, ["later", "nobody"], big),
        )
        rig.settle_by_evidence(self.patience)
        rig.settle_by_hand(self.patience)
        self.steps = rig.daemon.taken_steps()
        return rig.count()

    def _submit(self, *submissions: Submission) -> None:
        writers = Writers(self.rig.daemon, submissions, threads=2)
        writers.start()
        try:
            self.rig.until(lambda: writers.are_done, "all is submitted", self.patience)
            self.rig.until(lambda: not self.rig.waiting(), "all that can leaves", self.patience)
        finally:
            writers.stop()
