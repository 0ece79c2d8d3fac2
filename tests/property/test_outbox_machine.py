"""A state machine plays the outbox on a real file against a dictionary, with crashes and restores wherever it likes.

The model knows what the provider has really been given (`ledger`). Its law is the promise: what is accepted is given
to the provider once, or stands in the outbox with a reason; `uncertain` only where a dot may have gone out unanswered.
Evidence, and the people in here, tell the truth, sooner or later; what comes too late must change nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from gateway.model import Envelope, OutboxKind, Submission, from_ms, show_id
from gateway.state import backup, copies, doubts, lanes, outbox
from gateway.state.backup import Facts
from gateway.state.doubts import Doubt, Finding, Held, Why
from gateway.state.lanes import Change
from gateway.state.lifecycle import SETTLED, WAITING, Event, LaneEvent, State, move
from gateway.state.outbox import Accepted, Accepting, Ask, Begin, Claimed, Done, Fated, Settle, Step, Want
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning
from tests.support.outgoing import ADDRESS, AGENT, TOUCHPOINT

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
BACKOFFS = (MINUTE, 5 * MINUTE)
BEHIND_DOT = (Event.ACCEPTED, Event.INTERRUPTED)
BEFORE_DOT = (Event.REFUSED, Event.PUT_OFF, Event.GAVE_UP)
GONE = (State.REFUSED, State.EXPIRED, State.CANCELLED)
WORDS = ("one", "two", "three", "four")
Key = tuple[int, int]  # message, recipient


@dataclass
class Modelled:
    """One recipient. `attempt`: the number that the file has for it."""

    state: State = State.QUEUED
    due: int | None = None
    attempts: int = 0
    attempt: int = 0
    doubt: tuple[Why, int] | None = None

    @property
    def waits(self) -> bool:
        return self.state in WAITING


@dataclass
class World:
    """All that the file should say; what a backup keeps."""

    recipients: dict[Key, Modelled] = field(default_factory=dict)
    held: dict[int, Held | None] = field(default_factory=dict)
    submitted: dict[str, tuple[int, int]] = field(default_factory=dict)
    copies: set[int] = field(default_factory=set)
    lane_shut_until: int | None = None
    lane_held: bool = False

    def of(self, id: int) -> dict[Key, Modelled]:
        return {key: one for key, one in self.recipients.items() if key[0] == id}

    def release(self, id: int, now: int) -> int:
        self.held[id] = None
        waiting = [one for one in self.of(id).values() if one.waits]
        for one in waiting:
            one.due = now
        return len(waiting)


@dataclass
class Connection:
    """One provider connection with the message it is working on, in memory only: a crash forgets it."""

    claimed: Claimed
    life: int
    begun: set[int] = field(default_factory=set)
    dotted: bool = False


class OutboxMachine(RuleBasedStateMachine):
    connections = Bundle("connections")
    findings = Bundle("findings")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.now = 1_795_435_200_000
        self.life = 0  # of the process; a connection of an earlier one is gone
        self.world = World()
        self.kept: World | None = None  # in the backup
        self.ledger: Counter[Key] = Counter()  # what the provider has taken
        self.numbers: dict[int, set[int]] = {}  # of the attempts of each message, ever
        self.settled: dict[Key, State] = {}
        self.store = self.open()

    @property
    def path(self) -> Path:
        return self.directory / "gateway.db"

    def open(self) -> Store:
        # Crashes here forget memory, not the disk's cache: whether the disk is asked is tested elsewhere
        return Store.open(self.path, tuning=Tuning(synchronous="OFF"), now_ms=lambda: self.now)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    # --- submissions -------------------------------------------------------------------------------------------------

    @initialize()
    def begin_with_something(self) -> None:
        self.submit(2, None)

    @rule(recipients=st.integers(1, 3), word=st.sampled_from((None, *WORDS)))
    def submit(self, recipients: int, word: str | None) -> None:
        id = self.store.ids.next()
        addresses = tuple(f"{number}@clients.example" for number in range(recipients))
        submission = Submission(
            id, TOUCHPOINT, AGENT, Envelope(ADDRESS, addresses), f"<{id}@us>", "x", from_ms(self.now), b"x"
        )
        digest = None if word is None else hashlib.blake2b(word.encode(), digest_size=16).digest()
        item = Accepting(submission, ((chunk_key(id, 0), b"x"),), digest)
        accepted = self.store.submit(outbox.accept, item).result(30)
        if word is not None:
            first, at = self.world.submitted.get(word, (0, 0))
            may_arrive = any(one.state not in GONE for one in self.world.of(first).values())
            if first and at > self.now - DAY and may_arrive:
                assert accepted == Accepted(first, is_repeated=True)
                return
            self.world.submitted[word] = (id, self.now)
        assert accepted == Accepted(id)
        self.world.held[id] = None
        for number in range(recipients):
            self.world.recipients[id, number] = Modelled(due=self.now)

    @rule(minutes=st.one_of(st.integers(1, 20), st.just(DAY // MINUTE)))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    # --- connections -------------------------------------------------------------------------------------------------

    @rule(target=connections, begin=st.booleans(), count=st.integers(1, 3), recipients=st.integers(1, 3))
    def claim(self, begin: bool, count: int, recipients: int) -> object:
        want = Want(TOUCHPOINT, self.now, BACKOFFS, begin, probe_again=5 * MINUTE, recipients=recipients)
        tickets = [self.store.submit(outbox.step, Step(None, want)) for _ in range(count)]
        found = [claimed for ticket in tickets if (claimed := ticket.result(30)) is not None]
        return multiple(*[self.claimed(one) for one in found])

    def claimed(self, claimed: Claimed) -> Connection:
        assert not self.world.lane_held, "a lane that a person holds gave mail"
        if self.world.lane_shut_until is not None:
            assert self.world.lane_shut_until <= self.now, "a shut lane gave mail before its probe"
            self.world.lane_shut_until = self.now + 5 * MINUTE
        assert self.world.held[claimed.id] is None, "a message that is held was given out"
        used = self.numbers.setdefault(claimed.id, set())
        assert claimed.attempt not in used, "two attempts under one number"
        used.add(claimed.attempt)
        connection = Connection(claimed, self.life)
        for recipient in claimed.recipients:
            one = self.world.recipients[claimed.id, recipient.number]
            assert one.waits
            assert one.due is not None
            assert one.due <= self.now
            one.attempts += 1
            one.attempt = claimed.attempt
            assert recipient.attempts == one.attempts
            one.due = self.now + BACKOFFS[min(one.attempts, len(BACKOFFS)) - 1]
            if claimed.begun:
                one.state = State.SENDING
                connection.begun.add(recipient.number)
        return connection

    @rule(connection=connections, dots=st.booleans())
    def send(self, connection: Connection, dots: bool) -> None:
        """DATA, where the outbox allows it; and perhaps the dot. The provider has it from there on, whether we hear of
        it or not. Only what is `sending` is ever sent."""
        claimed = connection.claimed
        if connection.life != self.life or connection.dotted:
            return
        if not connection.begun:
            self.begin_data(connection)
        if dots and connection.begun:
            connection.dotted = True
            for number in connection.begun:
                self.ledger[claimed.id, number] += 1

    def begin_data(self, connection: Connection) -> None:
        claimed = connection.claimed
        rows = tuple((recipient.number, recipient.before) for recipient in claimed.recipients)
        ticket = self.store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows))
        if ticket.result(30):
            assert not self.world.lane_held
            assert self.world.held[claimed.id] is None
            for number, _ in rows:
                one = self.world.recipients[claimed.id, number]
                assert one.waits
                assert one.attempt == claimed.attempt
                one.state = State.SENDING
                connection.begun.add(number)

    @rule(
        connection=consumes(connections),
        said=st.lists(
            st.sampled_from([Event.ACCEPTED, Event.REFUSED, Event.PUT_OFF, Event.INTERRUPTED, Event.GAVE_UP]),
            min_size=3,
            max_size=3,
        ),
        minutes=st.lists(st.integers(0, 9), min_size=3, max_size=3),
        target=connections,
        goes_on=st.booleans(),
        dots=st.booleans(),
    )
    def record(
        self, connection: Connection, said: list[Event], minutes: list[int], goes_on: bool, dots: bool
    ) -> object:
        """The attempt ends, for each recipient in its own way; perhaps the connection claims its next message in the
        same step."""
        if connection.life != self.life:
            return multiple()
        if dots:
            self.send(connection, dots)
        claimed = connection.claimed
        fated = []
        for recipient in claimed.recipients:
            number = recipient.number
            has_begun = number in connection.begun
            is_dotted = has_begun and connection.dotted
            possible, otherwise = (BEHIND_DOT, Event.INTERRUPTED) if is_dotted else (BEFORE_DOT, Event.CUT_BEFORE_DOT)
            event = said[number] if said[number] in possible else otherwise
            before = State.SENDING if has_begun else recipient.before
            due = self.now + minutes[number] * MINUTE
            fated.append(Fated(number, before, event, "said", due))
            one = self.world.recipients[claimed.id, number]
            if one.state is before and one.attempt == claimed.attempt:
                one.state = move(before, event) or one.state
                one.due = due if one.state is State.DEFERRED and not self.world.held[claimed.id] else None
                if one.state is State.UNCERTAIN:
                    one.doubt = (Why.UNCERTAIN, claimed.attempt)
        self.owe_copy(claimed, fated)
        done = Done(claimed.id, TOUCHPOINT, claimed.attempt, OutboxKind.REPLY, tuple(fated), self.now, copies=True)
        want = Want(TOUCHPOINT, self.now, BACKOFFS, begin=True) if goes_on else None
        following = self.store.submit(outbox.step, Step(done, want)).result(30)
        return self.claimed(following) if following is not None else multiple()

    def owe_copy(self, claimed: Claimed, fated: list[Fated]) -> None:
        others = [one for one in self.world.of(claimed.id).values() if one.attempt != claimed.attempt]
        if any(one.event is Event.ACCEPTED for one in fated) and State.DELIVERED not in [one.state for one in others]:
            self.world.copies.add(claimed.id)

    # --- people ------------------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(
            ["hold or release"] * 3 + ["settle"] * 2 + ["retry", "retry all", "cancel", "lane", "cancel all"]
        ),
        data=st.data(),
    )
    def person_asks(self, what: str, data: st.DataObject) -> None:
        if what == "lane":
            self.shut_or_open_the_lane(not self.world.lane_held)
        elif what == "settle":
            self.settle(data)
        else:
            # Rather one about which there is something to decide
            open_ = {id for (id, _), one in self.world.recipients.items() if one.state not in SETTLED}
            id = data.draw(st.sampled_from(sorted(open_ or self.world.held)))
            if what == "hold or release":
                (self.hold if self.world.held[id] is None else self.release)(id)
            else:
                (self.retry if what.startswith("retry") else self.cancel)(None if what.endswith(" all") else id)

    def retry(self, id: int | None) -> None:
        retried = self.store.submit(outbox.retry, Ask(self.now, id)).result(30)
        due = [one for key, one in self.world.recipients.items() if one.waits and id in (None, key[0])]
        due = [one for one in due if one.due is not None]
        assert retried.recipients == len(due)
        for one in due:
            one.due = min(one.due or self.now, self.now)
        if due and self.world.lane_shut_until is not None:
            self.world.lane_shut_until = min(self.world.lane_shut_until, self.now)

    def hold(self, id: int) -> None:
        asked = self.store.submit(outbox.hold, Ask(self.now, id)).result(30)
        waiting = [one for one in self.world.of(id).values() if one.waits]
        if not waiting:
            assert asked.recipients == 0
            return
        assert asked.recipients == len(waiting)
        assert len(asked.too_late) == self.count(id, State.SENDING)
        self.world.held[id] = Held.PERSON
        for one in waiting:
            one.due, one.attempt = None, one.attempt + 1

    def release(self, id: int) -> None:
        """What may have left since a backup was made only after having looked: else it is for a person to settle."""
        if any(one.waits and self.ledger[key] for key, one in self.world.of(id).items()):
            return
        asked = self.store.submit(outbox.release, Ask(self.now, id)).result(30)
        assert asked.recipients == self.world.release(id, self.now)
        for one in self.world.of(id).values():
            if one.waits:
                one.doubt = None

    def cancel(self, id: int | None) -> None:
        ask = Ask(self.now, touchpoint=TOUCHPOINT) if id is None else Ask(self.now, id)
        asked = self.store.submit(outbox.cancel, ask).result(30)
        states = WAITING if id is None else {*WAITING, State.UNCERTAIN}
        chosen = {
            key: one for key, one in self.world.recipients.items() if one.state in states and id in (None, key[0])
        }
        assert asked.recipients == len(chosen)
        for key, one in chosen.items():
            one.state, one.due, one.doubt, one.attempt = State.CANCELLED, None, None, one.attempt + 1
            self.world.held[key[0]] = None

    def settle(self, data: st.DataObject) -> None:
        """One recipient at a time, and truly."""
        doubted = sorted(key for key, one in self.world.recipients.items() if one.doubt is not None)
        if not doubted:
            return
        id, number = data.draw(st.sampled_from(doubted))
        sent = self.ledger[id, number] > 0
        settle = Settle(id, sent, f"{number}@clients.example", self.now)
        assert self.store.submit(outbox.settle, settle).result(30).recipients == 1
        self.decide((id, number), sent)

    def decide(self, key: Key, sent: bool) -> None:
        one = self.world.recipients[key]
        one.state = move(one.state, Event.FOUND_SENT if sent else Event.FOUND_ABSENT) or one.state
        one.due = self.now if one.waits and not self.world.held[key[0]] else None
        one.doubt = None
        restored = [one for one in self.world.of(key[0]).values() if one.doubt and one.doubt[0] is Why.RESTORED]
        if self.world.held[key[0]] is Held.RESTORED and not restored:
            self.world.release(key[0], self.now)

    # --- evidence ----------------------------------------------------------------------------------------------------

    @rule(target=findings)
    def look_into_sent(self) -> object:
        found: list[Doubt] = self.store.read(doubts.due, TOUCHPOINT, self.now).result(30)
        expected = {(*key, *one.doubt) for key, one in self.world.recipients.items() if one.doubt is not None}
        assert {(one.outbox, one.number, one.why, one.attempt) for one in found} <= expected
        return multiple(
            *[Finding(one.outbox, one.number, one.attempt, self.ledger[one.outbox, one.number] > 0, 0) for one in found]
        )

    @rule(finding=findings)
    def evidence_settles(self, finding: Finding) -> None:
        """Perhaps late, perhaps twice, perhaps of a store that has been replaced since."""
        key = (finding.outbox, finding.number)
        one = self.world.recipients.get(key)
        is_the_same = one is not None and one.doubt is not None and one.doubt[1] == finding.attempt
        if is_the_same and finding.sent != (self.ledger[key] > 0):
            return  # somebody has looked before the backup that is in force was made: no such task is left
        did = self.store.submit(doubts.settle, replace(finding, now=self.now)).result(30)
        assert did == is_the_same
        if did:
            self.decide(key, finding.sent)

    @rule(absent=st.booleans())
    def look_in_vain(self, absent: bool) -> None:
        """Copies are made in the same session."""
        for one in self.store.read(doubts.due, TOUCHPOINT, self.now).result(30):
            look = (one.outbox, one.number, absent, self.now, self.now + 5 * MINUTE)
            self.store.submit(doubts.put_off, look).result(30)
        for copy in self.store.read(copies.due, TOUCHPOINT, self.now, 2).result(30):
            self.store.submit(copies.done, copy.outbox).result(30)
            self.world.copies.remove(copy.outbox)

    # --- the lane ----------------------------------------------------------------------------------------------------

    @rule(event=st.sampled_from([LaneEvent.PAUSE, LaneEvent.HOLD, LaneEvent.WORKED]))
    def lane_changes(self, event: LaneEvent) -> None:
        change = Change(TOUCHPOINT, event, self.now, "login", "why", (3 * MINUTE,))
        self.store.submit(lanes.change, change).result(30)
        if not self.world.lane_held:
            self.world.lane_shut_until = None if event is LaneEvent.WORKED else self.now + 3 * MINUTE

    def shut_or_open_the_lane(self, holds: bool) -> None:
        self.store.submit(outbox.hold if holds else outbox.release, Ask(self.now, touchpoint=TOUCHPOINT)).result(30)
        self.world.lane_held, self.world.lane_shut_until = holds, None

    # --- stops -------------------------------------------------------------------------------------------------------

    @rule(how=st.sampled_from(["crash", "back up", "restore"]))
    def stop(self, how: str) -> None:
        if how == "restore" and self.kept is None:
            how = "back up"
        {"crash": self.crash, "back up": self.back_up, "restore": self.restore}[how]()

    def crash(self) -> None:
        """Everything that is only in memory is gone; the file is what the last commit left."""
        self.store.close()
        self.begin_again()

    def begin_again(self) -> None:
        self.life += 1
        self.store = self.open()
        lost = [one for one in self.world.recipients.values() if one.state is State.SENDING]
        assert self.store.submit(outbox.recover, self.now).result(30) == len(lost)
        for one in lost:
            one.state, one.due, one.doubt = State.UNCERTAIN, None, (Why.UNCERTAIN, one.attempt)

    def back_up(self) -> None:
        with closing(sqlite3.connect(self.path)) as db, closing(sqlite3.connect(self.directory / "backup")) as into:
            db.backup(into)
        backup.seal(self.directory / "backup", Facts(self.now, "0", Path("/x"), ()), ())
        self.kept = deepcopy(self.world)

    def restore(self) -> None:
        """What was accepted since the backup is not known any more; what was sent since may be in Sent."""
        assert self.kept is not None
        self.store.close()
        for file in self.directory.glob("gateway.db*"):
            file.unlink()
        shutil.move(self.directory / "backup", self.path)
        self.now += MINUTE
        backup.make_store(self.path, self.now, None)
        self.world, self.kept, self.settled = self.kept, None, {}
        for (id, _), one in self.world.recipients.items():
            if one.state in SETTLED:
                continue
            if one.state is State.SENDING:
                one.state = State.UNCERTAIN
            before = one.attempt - 1 if one.doubt is None or one.doubt[0] is Why.UNCERTAIN else one.doubt[1]
            one.due, one.doubt, one.attempt = None, (Why.RESTORED, max(0, before)), one.attempt + 1000
            self.world.held[id] = self.world.held[id] or Held.RESTORED
        self.begin_again()

    # --- what must hold ----------------------------------------------------------------------------------------------

    def count(self, id: int, state: State) -> int:
        return [one.state for one in self.world.of(id).values()].count(state)

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        def rows(db: sqlite3.Connection) -> list[tuple[object, ...]]:
            return db.execute(
                "SELECT outbox, number, state, attempts, attempt, next_attempt_at, held,"
                " (SELECT attempt FROM doubt WHERE doubt.outbox = id AND doubt.number = recipient.number)"
                " FROM recipient JOIN outbox ON outbox = id ORDER BY 1, 2"
            ).fetchall()

        assert self.store.read(rows).result(30) == [
            (
                *key,
                one.state.value,
                one.attempts,
                one.attempt,
                one.due,
                self.world.held[key[0]],
                one.doubt[1] if one.doubt else None,
            )
            for key, one in sorted(self.world.recipients.items())
        ]

    @invariant()
    def people_see_why_mail_waits(self) -> None:
        shown = {one["id"]: one for one in self.store.read(outbox.list_outbox, True).result(30)}
        for (id, number), one in self.world.recipients.items():
            row = shown[show_id(id)]["recipients"][number]
            if one.waits and (self.world.held[id] or self.world.lane_held):
                assert (row["state"], row["next_attempt_at"]) == ("held", None)
                assert shown[show_id(id)]["cause"]
            elif not one.waits or self.world.lane_shut_until is None:
                assert row["state"] == one.state.value
            assert (row["next_look_at"] is not None) == (one.doubt is not None)

    @invariant()
    def copies_are_owed_once(self) -> None:
        owed = self.store.read(copies.due, TOUCHPOINT, self.now, 1000).result(30)
        assert {one.outbox for one in owed} == self.world.copies

    @invariant()
    def nothing_is_sent_twice_and_nothing_is_gone(self) -> None:
        for key, one in self.world.recipients.items():
            given = self.ledger[key]
            assert given <= 1
            if one.state is State.DELIVERED:
                assert given == 1
            if one.state in (*WAITING, State.REFUSED, State.EXPIRED) and one.doubt is None:
                assert given == 0

    @invariant()
    def nothing_moves_what_is_settled(self) -> None:
        for key, state in self.settled.items():
            assert self.world.recipients[key].state is state
        self.settled = {key: one.state for key, one in self.world.recipients.items() if one.state in SETTLED}

    @invariant()
    def what_does_not_wait_has_no_clock_and_what_is_uncertain_is_looked_for(self) -> None:
        for key, one in self.world.recipients.items():
            if one.waits:
                assert (one.due is None) == (self.world.held[key[0]] is not None)
            elif one.state is not State.SENDING:
                assert one.due is None
            if one.state is State.UNCERTAIN:
                assert one.doubt is not None


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
