"""The laws of the watcher, for every history of events and every listing."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.inbound import watcher
from gateway.inbound.watcher import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    Action,
    Begun,
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
    Pass,
    Renumber,
    Rest,
    Sleep,
    State,
    Take,
    Waited,
    Watch,
    decide,
    plan,
)

seconds = st.integers(1, 100_000).map(lambda number: timedelta(seconds=number))
watches = st.builds(
    Watch,
    folders=st.sampled_from([("INBOX",), ("Junk", "Old"), ("a", "b", "c")]),
    poll=seconds,
    renew_idle=seconds,
    may_idle=st.booleans(),
    reconnect_after=st.none() | seconds,
    largest_bytes=st.integers(0, 2 * BATCH_BYTES),
)
failures = st.builds(Failed, refused=st.booleans(), fetching=st.lists(st.integers(1, 20), max_size=5).map(tuple))


def answers(data: st.DataObject, action: Action) -> Event:
    """Draw what an honest shell may report after `action`: it went well, or it failed."""
    if isinstance(action, Rest):
        return Begun()
    if data.draw(st.booleans(), "fails"):
        return data.draw(failures, "failure")
    match action:
        case Connect():
            return Connected(data.draw(st.booleans()))
        case Open():
            return Opened(data.draw(st.integers(0, 20)), data.draw(st.booleans()))
        case Renumber():
            return Opened(data.draw(st.integers(0, 20)))
        case Look(cursor=cursor):
            more, stirred = data.draw(st.booleans()), data.draw(st.booleans())
            return Looked(cursor + data.draw(st.integers(int(more), 5)), more, stirred)
        case Idle() | Sleep():
            return Waited(data.draw(st.booleans()))
        case Leave():
            return Left()


@given(st.data(), watches)
def test_every_history_obeys_the_laws(data: st.DataObject, watch: Watch) -> None:
    state, now = State(), 0.0
    event: Event = Begun()
    connected = looked = False
    last_look = 0.0
    for _ in range(data.draw(st.integers(1, 40), "steps")):
        state, action = decide(watch, state, event, now, data.draw(st.floats(0, 1, exclude_max=True)))
        if isinstance(event, Failed):
            assert isinstance(action, Rest), "whatever fails, we rest"
            assert action.seconds >= 1
            connected = looked = False
        if isinstance(action, Connect):
            assert not connected, "one connection at a time"
        if isinstance(action, Idle | Sleep):
            assert looked, "nobody waits for mail before having looked"
            assert 0 < action.seconds <= watch.poll.total_seconds(), "no wait is longer than the poll interval"
            assert now + action.seconds - last_look <= watch.poll.total_seconds() + 1
        if isinstance(action, Idle):
            assert state.can_idle
            assert watch.may_idle
            assert action.seconds <= watch.renew_idle.total_seconds()
        if isinstance(action, Look):
            assert connected
            assert action.folder in watch.folders
        if isinstance(action, Rest | Idle | Sleep):
            now += action.seconds
        event = answers(data, action)
        if isinstance(action, Connect) and isinstance(event, Connected):
            connected, looked = True, False
        if isinstance(action, Leave):
            connected = looked = False
        if isinstance(event, Looked):
            looked, last_look = True, now


@given(st.lists(failures, min_size=1, max_size=30))
def test_rests_only_grow_until_a_look_is_complete(history: list[Failed]) -> None:
    watch = Watch(("INBOX",), timedelta(minutes=5), timedelta(minutes=9))
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
    watches,
    listings,
    st.frozensets(st.integers(1, 60)),
    st.dictionaries(st.integers(1, 60), st.integers(1, 6)),
)
def test_every_message_is_in_exactly_one_step_and_the_chain_is_whole(
    watch: Watch, sizes: list[tuple[int, int]], known: frozenset[int], suspects: dict[int, int]
) -> None:
    steps = list(plan(watch, 0, sizes, known, suspects))
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
                assert message.size <= watch.largest_bytes
                strikes = suspects.get(message.uid, 0)
                assert strikes < watcher.ALONE_FROM or len(step.messages) == 1
        else:
            assert isinstance(step, Pass)
            for message in step.messages:
                assert (message.uid in known) == (step.reason is None)
