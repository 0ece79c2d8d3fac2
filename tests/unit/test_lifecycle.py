"""The table of moves: what it must hold whatever else is added to it."""

from __future__ import annotations

import itertools

import pytest

from gateway.state.lifecycle import (
    PERSON,
    SETTLED,
    TRANSITIONS,
    WAITING,
    Event,
    LaneEvent,
    LaneState,
    State,
    move,
    move_lane,
)


def test_nothing_moves_what_is_settled() -> None:
    assert [pair for pair in TRANSITIONS if pair[0] in SETTLED] == []


def test_every_state_can_be_reached_and_every_open_one_can_be_left() -> None:
    assert {State.QUEUED} | set(TRANSITIONS.values()) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - SETTLED


def test_only_evidence_or_a_person_moves_what_is_uncertain() -> None:
    events = {event for state, event in TRANSITIONS if state is State.UNCERTAIN}
    assert events == {Event.FOUND_SENT, Event.FOUND_ABSENT, Event.DROPPED, Event.CANCELLED}


def test_only_sending_becomes_delivered_or_uncertain_by_an_attempt() -> None:
    sources = {state for (state, event), after in TRANSITIONS.items() if after is State.UNCERTAIN}
    assert sources == {State.SENDING}
    assert [state for state in State if move(state, Event.ACCEPTED)] == [State.SENDING]


def test_evidence_never_takes_back_what_is_known() -> None:
    """What waits may have left only in a store that was restored; evidence that it has not changes nothing."""
    assert {state for state in State if move(state, Event.FOUND_SENT)} == {*WAITING, State.UNCERTAIN}
    assert {move(state, Event.FOUND_SENT) for state in State} == {State.DELIVERED, None}
    assert [move(state, Event.FOUND_ABSENT) for state in sorted(WAITING)] == sorted(WAITING)
    assert move(State.UNCERTAIN, Event.FOUND_ABSENT) is State.DEFERRED


def test_data_begins_only_for_what_waits() -> None:
    assert {state for state in State if move(state, Event.DATA_BEGUN) is State.SENDING} == WAITING


def test_cancelling_what_is_being_sent_is_too_late() -> None:
    assert move(State.SENDING, Event.CANCELLED) is None
    assert move(State.QUEUED, Event.CANCELLED) is State.CANCELLED


@pytest.mark.parametrize("state", sorted(WAITING))
def test_a_cut_before_the_dot_defers(state: State) -> None:
    assert move(state, Event.CUT_BEFORE_DOT) is State.DEFERRED
    assert move(State.SENDING, Event.CUT_BEFORE_DOT) is State.DEFERRED


@pytest.mark.parametrize(
    ("state", "cause", "event"),
    [(state, cause, event) for state, cause, event in itertools.product(LaneState, ("login", PERSON), LaneEvent)],
)
def test_a_lane_that_a_person_holds_waits_for_a_person(state: LaneState, cause: str, event: LaneEvent) -> None:
    after, by_person = move_lane(state, cause, event)
    was_held_by_person = state is LaneState.HELD and cause == PERSON
    assert by_person == (
        event is LaneEvent.PERSON_HOLDS or (was_held_by_person and event is not LaneEvent.PERSON_RELEASES)
    )
    assert not by_person or after is LaneState.HELD


def test_a_held_lane_stays_held_when_its_probe_finds_nobody_at_home() -> None:
    assert move_lane(LaneState.HELD, "login", LaneEvent.PAUSE) == (LaneState.HELD, False)


def test_a_lane_opens_when_it_worked() -> None:
    assert move_lane(LaneState.HELD, "login", LaneEvent.WORKED) == (LaneState.OPEN, False)
    assert move_lane(LaneState.PAUSED, "unreachable", LaneEvent.WORKED) == (LaneState.OPEN, False)
