"""The laws of the watcher, for every history of events and every listing."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.inbound.plan import ALONE_FROM, BATCH_BYTES, BATCH_MESSAGES, Pass, Take, plan
from gateway.inbound.watcher import (
    CHORES_EVERY,
    Action,
    Ask,
    Asked,
    Begun,
    CatchUp,
    CaughtUp,
    Connect,
    Connected,
    Event,
    Failed,
    Idle,
    Leave,
    Left,
    Look,
    Looked,
    Open,
    Opened,
    Renumber,
    Rest,
    Sleep,
    State,
    Waited,
    Watch,
    decide,
)

seconds = st.integers(1, 100_000).map(lambda number: timedelta(seconds=number))
watches = st.builds(
    Watch, poll=seconds, renew_idle=seconds, may_idle=st.booleans(), reconnect_after=st.none() | seconds
)
failures = st.builds(Failed, refused=st.booleans(), fetching=st.lists(st.integers(1, 20), max_size=5).map(tuple))


def answers(data: st.DataObject, action: Action) -> Event:
    """Draw what an honest shell may report after `action`: it went well, or it failed."""
    if isinstance(action, Rest):
        return Begun()
    if data.draw(st.integers(0, 4), "fails") == 0:
        return data.draw(failures, "failure")
    some = data.draw(st.booleans())
    match action:
        case Connect():
            return Connected(some)
        case Open():
            return Opened(data.draw(st.integers(0, 20)), some)
        case Renumber():
            return Opened(data.draw(st.integers(0, 20)))
        case Look(cursor=cursor):
            more = data.draw(st.booleans())
            return Looked(cursor + data.draw(st.integers(int(more), 5)), more, some)
        case CatchUp():
            return CaughtUp(data.draw(st.booleans()), some)
        case Ask():
            return Asked(some)
        case Idle() | Sleep():
            return Waited(some, data.draw(st.booleans()))
        case Leave():
            return Left()


@given(st.data(), watches)
def test_every_history_obeys_the_laws(data: st.DataObject, watch: Watch) -> None:
    state, now = State(), 0.0
    event: Event = Begun()
    connected = looked = False
    last_look = last_chores = 0.0
    since_chores = 0
    for _ in range(data.draw(st.integers(1, 60), "steps")):
        state, action = decide(watch, state, event, now, data.draw(st.floats(0, 1, exclude_max=True)))
        if isinstance(event, Failed):
            assert isinstance(action, Rest), "whatever fails, we rest"
            assert action.seconds >= 1
            connected = looked = False
        if isinstance(action, Connect):
            assert not connected, "one connection at a time"
        if isinstance(action, Idle | Sleep):
            assert looked, "nobody waits for mail before having looked"
            assert action.seconds > 0
            assert now + action.seconds - last_look <= watch.poll.total_seconds() + 1, "a listing at every poll"
            assert now + action.seconds - last_chores <= CHORES_EVERY.total_seconds() + 1, "chores once a minute"
        if isinstance(action, Idle):
            assert state.can_idle
            assert watch.may_idle
            assert action.seconds <= watch.renew_idle.total_seconds()
        if isinstance(action, Look | CatchUp | Ask):
            assert connected
        if isinstance(action, Look):
            since_chores += 1
            if not action.few:
                last_look = now
        if isinstance(action, Rest | Idle | Sleep):
            now += action.seconds
        event = answers(data, action)
        if isinstance(event, Looked) and event.more:
            since_chores = 0  # a backlog comes first
        if isinstance(action, CatchUp):
            since_chores = 0
        if isinstance(event, Asked):
            last_chores = now
        if isinstance(event, Connected):
            connected, looked, last_chores, since_chores = True, False, now, 0
        if isinstance(action, Leave):
            connected = looked = False
        if isinstance(event, Looked):
            looked = True
        if isinstance(event, Waited | Failed):  # a lost session ends the turns
            since_chores = 0
        assert since_chores <= 3 or now < state.chores_from, "chores are not starved by news"


@given(st.lists(failures, min_size=1, max_size=30))
def test_rests_only_grow_until_a_look_is_complete(history: list[Failed]) -> None:
    watch = Watch(timedelta(minutes=5), timedelta(minutes=9))
    rests: dict[bool, list[float]] = {True: [], False: []}
    state = State()
    for failure in history:
        state, action = decide(watch, state, failure, 0.0, 0.0)
        assert isinstance(action, Rest)
        rests[failure.refused].append(action.seconds)
    for kind in rests.values():
        assert kind == sorted(kind)


listings = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, BATCH_BYTES + 10)), max_size=40, unique_by=lambda item: item[0]
).map(sorted)


@given(
    st.integers(0, 2 * BATCH_BYTES),
    listings,
    st.frozensets(st.integers(1, 60)),
    st.dictionaries(st.integers(1, 60), st.integers(1, 6)),
)
def test_every_message_is_in_exactly_one_step_and_the_chain_is_whole(
    largest: int, sizes: list[tuple[int, int]], known: frozenset[int], suspects: dict[int, int]
) -> None:
    steps = list(plan(largest, 0, sizes, known, suspects))
    messages = list(chain.from_iterable(step.messages for step in steps))
    assert [(message.uid, message.size) for message in messages] == sizes
    assert all(later.follows == earlier.uid for earlier, later in pairwise(messages))
    assert not messages or messages[0].follows == 0
    for step in steps:
        if isinstance(step, Take):
            assert len(step.messages) == 1 or step.total_bytes <= BATCH_BYTES
            assert len(step.messages) <= BATCH_MESSAGES
            for message in step.messages:
                assert message.uid not in known
                assert message.size <= largest
                strikes = suspects.get(message.uid, 0)
                assert strikes < ALONE_FROM or len(step.messages) == 1
        else:
            assert isinstance(step, Pass)
            for message in step.messages:
                assert (message.uid in known) == (step.reason is None)
