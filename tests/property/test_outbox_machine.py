"""A state machine plays the outbox on a real file against a dictionary, with crashes wherever it likes.

The model knows what the provider has really been given (`ledger`). Its law is the promise: what is accepted is given
to the provider once, or stands in the outbox with a reason; `uncertain` only where a dot may have gone out unanswered.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from gateway.model import OutboxKind, from_ms, show_id
from gateway.state import lanes, outbox
from gateway.state.lanes import Change
from gateway.state.lifecycle import SETTLED, WAITING, Event, LaneEvent, State, move
from gateway.state.outbox import Ask, Begin, Claimed, Done, Fated, Step, Want
from gateway.state.store import Store, Tuning
from tests.support.outgoing import TOUCHPOINT, accept

MINUTE = 60_000
BACKOFFS = (MINUTE, 5 * MINUTE)
BEHIND_DOT = (Event.ACCEPTED, Event.INTERRUPTED)
BEFORE_DOT = (Event.REFUSED, Event.PUT_OFF, Event.GAVE_UP)
Key = tuple[int, int]  # message, recipient


@dataclass
class Modelled:
    state: State
    due: int | None
    attempts: int = 0


@dataclass
class Connection:
    """One provider connection with the message it is working on, in memory only: a crash forgets it."""

    claimed: Claimed
    life: int
    begun: set[int] = field(default_factory=set)
    dotted: bool = False


class OutboxMachine(RuleBasedStateMachine):
    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.now = 1_795_435_200_000
        self.life = 0  # of the process; a connection of an earlier one is gone
        self.model: dict[Key, Modelled] = {}
        self.ledger: Counter[Key] = Counter()  # what the provider has taken
        self.lane_shut_until: int | None = None
        self.store = self.open()

    def open(self) -> Store:
        # Crashes here forget memory, not the disk's cache: whether the disk is asked is tested elsewhere
        return Store.open(self.directory / "gateway.db", tuning=Tuning(synchronous="OFF"))

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    # --- what happens ------------------------------------------------------------------------------------------------

    @initialize()
    def begin_with_something(self) -> None:
        self.accept_message(2)

    @rule(recipients=st.integers(1, 3))
    def accept_message(self, recipients: int) -> None:
        addresses = [f"{number}@clients.example" for number in range(recipients)]
        id = accept(self.store, *addresses, at=from_ms(self.now))
        for number in range(recipients):
            self.model[id, number] = Modelled(State.QUEUED, self.now)

    @rule(minutes=st.integers(1, 20))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule(target=connections, begin=st.booleans(), count=st.integers(1, 3))
    def claim(self, begin: bool, count: int) -> object:
        want = Want(TOUCHPOINT, self.now, BACKOFFS, begin, probe_again=5 * MINUTE)
        tickets = [self.store.submit(outbox.step, Step(None, want)) for _ in range(count)]
        found = [claimed for ticket in tickets if (claimed := ticket.result(30)) is not None]
        return multiple(*[self.claimed(one) for one in found])

    def claimed(self, claimed: Claimed) -> Connection:
        if self.lane_shut_until is not None:
            assert self.lane_shut_until <= self.now, "a shut lane gave mail before its probe"
            self.lane_shut_until = self.now + 5 * MINUTE
        connection = Connection(claimed, self.life)
        for recipient in claimed.recipients:
            one = self.model[claimed.id, recipient.number]
            assert one.state in WAITING
            assert one.due is not None
            assert one.due <= self.now
            one.attempts += 1
            assert recipient.attempts == one.attempts
            one.due = self.now + BACKOFFS[min(one.attempts, len(BACKOFFS)) - 1]
            if claimed.begun:
                one.state = State.SENDING
                connection.begun.add(recipient.number)
        return connection

    @rule(connection=connections)
    def begin_data(self, connection: Connection) -> None:
        claimed = connection.claimed
        if connection.life != self.life or connection.begun or connection.dotted:
            return
        rows = tuple((recipient.number, recipient.before) for recipient in claimed.recipients)
        ticket = self.store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows))
        if ticket.result(30):
            for number, _ in rows:
                one = self.model[claimed.id, number]
                assert one.state in WAITING
                one.state = State.SENDING
                connection.begun.add(number)

    @rule(connection=connections)
    def dot_goes_out(self, connection: Connection) -> None:
        """The provider has it from here on, whether we hear of it or not. Only what is `sending` is ever sent."""
        if connection.life != self.life or not connection.begun or connection.dotted:
            return
        connection.dotted = True
        for number in connection.begun:
            self.ledger[connection.claimed.id, number] += 1

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
    )
    def record(self, connection: Connection, said: list[Event], minutes: list[int], goes_on: bool) -> object:
        """The attempt ends, for each recipient in its own way; perhaps the connection claims its next message in the
        same step."""
        if connection.life != self.life:
            return multiple()
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
            one = self.model[claimed.id, number]
            is_overtaken = one.state is not before or one.attempts != recipient.attempts
            if not is_overtaken:
                one.state = move(before, event) or one.state
                one.due = due if one.state is State.DEFERRED else None
        done = Done(claimed.id, TOUCHPOINT, claimed.attempt, OutboxKind.REPLY, tuple(fated), self.now)
        want = Want(TOUCHPOINT, self.now, BACKOFFS, begin=True) if goes_on else None
        following = self.store.submit(outbox.step, Step(done, want)).result(30)
        return self.claimed(following) if following is not None else multiple()

    @rule(everything=st.booleans())
    def person_retries(self, everything: bool) -> None:
        touched = {id for id, _ in self.model}
        id = None if everything or not touched else max(touched)
        self.store.submit(outbox.retry, Ask(self.now, id)).result(30)
        waiting = [key for key, one in self.model.items() if one.state in WAITING and (id is None or key[0] == id)]
        for key in waiting:
            one = self.model[key]
            assert one.due is not None
            one.due = min(one.due, self.now)
        if waiting and self.lane_shut_until is not None:
            self.lane_shut_until = min(self.lane_shut_until, self.now)

    @rule(event=st.sampled_from([LaneEvent.PAUSE, LaneEvent.HOLD, LaneEvent.WORKED]))
    def lane_changes(self, event: LaneEvent) -> None:
        change = Change(TOUCHPOINT, event, self.now, "login", "why", (3 * MINUTE,))
        self.store.submit(lanes.change, change).result(30)
        self.lane_shut_until = None if event is LaneEvent.WORKED else self.now + 3 * MINUTE

    @rule()
    def crash(self) -> None:
        """Everything that is only in memory is gone; the file is what the last commit left."""
        self.store.close()
        self.life += 1
        self.store = self.open()
        lost = [key for key, one in self.model.items() if one.state is State.SENDING]
        assert self.store.submit(outbox.recover, self.now).result(30) == len(lost)
        for key in lost:
            self.model[key].state, self.model[key].due = State.UNCERTAIN, None

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        listed = self.store.read(outbox.list_outbox, True).result(30)
        shown = {message["id"]: message["recipients"] for message in listed}
        assert len(shown) == len({id for id, _ in self.model})
        for (id, number), one in self.model.items():
            row = shown[show_id(id)][number]
            assert row["attempts"] == one.attempts
            if one.state not in WAITING or self.lane_shut_until is None:
                assert row["state"] == one.state.value
            assert (row["next_attempt_at"] is None) == (one.state not in (*WAITING, State.SENDING))

    @invariant()
    def nothing_is_sent_twice_and_nothing_is_gone(self) -> None:
        for key, one in self.model.items():
            given = self.ledger[key]
            assert given <= 1
            if one.state is State.DELIVERED:
                assert given == 1
            if one.state in (State.QUEUED, State.DEFERRED, State.REFUSED, State.EXPIRED):
                assert given == 0

    @invariant()
    def what_is_settled_has_no_clock(self) -> None:
        for one in self.model.values():
            assert one.due is None or one.state not in SETTLED


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
