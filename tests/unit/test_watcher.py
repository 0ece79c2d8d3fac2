"""What a mailbox task does next, one decision at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

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
    Missing,
    Open,
    Opened,
    Pass,
    Planned,
    Renumber,
    Rest,
    Sleep,
    State,
    Take,
    Waited,
    Watch,
    decide,
    plan,
    rest_after,
    retry_after,
    unchained,
)

WATCH = Watch(
    ("INBOX",),
    poll=timedelta(minutes=10),
    renew_idle=timedelta(minutes=24),
    reconnect_after=timedelta(hours=12),
    largest_bytes=10_000_000,
)


def play(*events: Event, watch: Watch = WATCH, at: float = 0.0) -> tuple[State, Action]:
    """Return state and action after `events`, all at the time `at`."""
    state, action = State(), None
    for event in events:
        state, action = decide(watch, state, event, at, 0.0)
    assert action is not None
    return state, action


QUIET = (Begun(), Connected(can_idle=True), Opened(5), Looked(5))


def test_a_task_connects_opens_looks_and_idles() -> None:
    assert play(Begun())[1] == Connect()
    assert play(*QUIET[:2])[1] == Open("INBOX")
    assert play(*QUIET[:3])[1] == Look("INBOX", 5, few=False, retry=True)
    assert play(*QUIET)[1] == Idle(600.0)


def test_news_is_looked_at_in_one_go() -> None:
    assert play(*QUIET, Waited(stirred=True))[1] == Look("INBOX", 5, few=True, retry=False)
    assert play(*QUIET, Waited(stirred=True), Looked(6, stirred=True))[1] == Look("INBOX", 6, few=True, retry=False)
    assert play(*QUIET, Waited(stirred=True), Looked(6))[1] == Idle(600.0)


def test_a_full_window_is_followed_by_the_next() -> None:
    assert play(*QUIET[:3], Looked(2005, more=True, stirred=True))[1] == Look("INBOX", 2005, few=False, retry=False)


def test_idle_is_renewed_without_a_look_and_never_believed_for_longer_than_the_poll() -> None:
    watch = replace(WATCH, renew_idle=timedelta(minutes=4))
    state, action = play(*QUIET, watch=watch)
    assert action == Idle(240.0)
    state, action = decide(watch, state, Waited(), 240.0, 0.0)
    assert action == Idle(240.0)
    state, action = decide(watch, state, Waited(), 480.0, 0.0)
    assert action == Idle(120.0)
    state, action = decide(watch, state, Waited(), 600.0, 0.0)
    assert action == Look("INBOX", 5, few=False, retry=True)


@pytest.mark.parametrize("watch", [WATCH, replace(WATCH, may_idle=False)], ids=["not-offered", "not-wanted"])
def test_without_idle_every_minute_is_a_look(watch: Watch) -> None:
    events = (Begun(), Connected(can_idle=watch is not WATCH), Opened(5), Looked(5))
    state, action = play(*events, watch=watch)
    assert action == Sleep(60.0)
    assert decide(watch, state, Waited(), 60.0, 0.0)[1] == Look("INBOX", 5, few=False, retry=True)


def test_a_server_that_refuses_idle_is_polled_from_then_on() -> None:
    state, action = play(*QUIET, Waited(can_idle=False))
    assert action == Look("INBOX", 5, few=False, retry=True)
    assert decide(WATCH, state, Looked(5), 0.0, 0.0)[1] == Sleep(60.0)


def test_other_folders_are_opened_in_turn_and_again() -> None:
    watch = replace(WATCH, folders=("Junk", "Old"), poll=timedelta(minutes=1))
    state, action = play(Begun(), Connected(True), Opened(5), Looked(5), watch=watch)
    assert action == Open("Old")
    state, action = decide(watch, state, Opened(9), 0.0, 0.0)
    assert action == Look("Old", 9, few=False, retry=True)
    state, action = decide(watch, state, Looked(9), 0.0, 0.0)
    assert action == Sleep(60.0)
    assert decide(watch, state, Waited(), 60.0, 0.0)[1] == Open("Junk")


def test_a_missing_folder_is_passed_over() -> None:
    watch = replace(WATCH, folders=("Junk", "Gone", "Old"), poll=timedelta(minutes=1))
    state, _ = play(Begun(), Connected(True), Opened(5), Looked(5), watch=watch)
    state, action = decide(watch, state, Missing(), 0.0, 0.0)
    assert action == Open("Old")
    assert decide(watch, state, Missing(), 0.0, 0.0)[1] == Sleep(60.0)


def test_other_numbers_are_matched_before_anything_is_listed() -> None:
    state, action = play(*QUIET[:2], Failed(fetching=(8,)), Begun(), Connected(True), Opened(5, renumbered=True))
    assert action == Renumber("INBOX")
    assert not state.suspects
    assert decide(WATCH, state, Opened(77), 0.0, 0.0)[1] == Look("INBOX", 77, few=False, retry=True)


def test_a_session_is_left_in_time_and_made_again_at_once() -> None:
    state, _ = play(*QUIET)
    state, action = decide(WATCH, state, Waited(), 12 * 3600.0, 0.0)
    assert action == Look("INBOX", 5, few=False, retry=True)
    state, action = decide(WATCH, state, Looked(5), 12 * 3600.0, 0.0)
    assert action == Leave()
    assert decide(WATCH, state, Left(), 12 * 3600.0, 0.0) == (state, Connect())


def test_a_session_without_an_end_is_kept() -> None:
    watch = replace(WATCH, reconnect_after=None)
    state, _ = play(*QUIET, watch=watch)
    assert decide(watch, state, Looked(5), 1e9, 0.0)[1] == Idle(600.0)


def test_rests_grow_and_begin_anew_only_after_a_completed_look() -> None:
    rests = []
    state = State()
    for _ in range(12):
        state, action = decide(WATCH, state, Failed(), 0.0, 0.0)
        assert isinstance(action, Rest)
        rests.append(action.seconds)
        for event in (Begun(), Connected(True), Opened(5), Looked(6, more=True)):  # all this is not yet success
            state, _ = decide(WATCH, state, event, 0.0, 0.0)
    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    state, _ = decide(WATCH, state, Looked(6), 0.0, 0.0)
    assert decide(WATCH, state, Failed(), 0.0, 0.0)[1] == Rest(1.0)


def test_a_refused_login_is_tried_rarely_until_it_is_let_in() -> None:
    rests = []
    state = State()
    for _ in range(5):
        state, action = decide(WATCH, state, Failed(refused=True), 0.0, 0.0)
        assert isinstance(action, Rest)
        rests.append(action.seconds / 60)
    assert rests == [1, 5, 15, 60, 60]
    state, action = decide(WATCH, state, Failed(), 0.0, 0.0)  # the network, for once
    assert action == Rest(32.0)
    state, _ = decide(WATCH, state, Connected(True), 0.0, 0.0)
    assert decide(WATCH, state, Failed(refused=True), 0.0, 0.0)[1] == Rest(60.0)


def test_jitter_spreads_by_half() -> None:
    assert rest_after(1, 0, 0.0) == timedelta(seconds=1)
    assert rest_after(1, 0, 0.5) == timedelta(seconds=1.25)
    assert rest_after(10_000, 0, 0.0) == timedelta(minutes=5)
    assert rest_after(0, 0, 0.0) == timedelta(seconds=1)


def test_what_is_owed_is_asked_for_at_growing_distances() -> None:
    assert [retry_after(tries) for tries in (0, 1, 2, 5, 99)] == [
        timedelta(minutes=minutes) for minutes in (1, 1, 5, 240, 240)
    ]


# --- the plan --------------------------------------------------------------------------------------------------------


def uids(steps: list[Take | Pass]) -> list[list[int]]:
    return [[message.uid for message in step.messages] for step in steps]


def test_a_batch_ends_at_its_bytes_or_its_number() -> None:
    third = BATCH_BYTES // 3
    steps = list(plan(WATCH, 0, [(uid, third) for uid in range(1, 8)], (), {}))
    assert uids(steps) == [[1, 2, 3], [4, 5, 6], [7]]
    assert [step.total_bytes for step in steps if isinstance(step, Take)] == [3 * third, 3 * third, third]
    many = list(plan(WATCH, 0, [(uid, 1) for uid in range(1, BATCH_MESSAGES + 2)], (), {}))
    assert [len(step.messages) for step in many] == [BATCH_MESSAGES, 1]


def test_a_huge_message_comes_alone() -> None:
    steps = list(plan(WATCH, 0, [(1, 10), (2, 3 * BATCH_BYTES), (3, 10)], (), {}))
    assert uids(steps) == [[1], [2], [3]]


def test_what_is_known_or_too_large_is_passed_over_in_its_place() -> None:
    steps = list(plan(WATCH, 4, [(5, 10), (6, 10_000_001), (7, 10), (9, 10), (10, 10)], {7, 9}, {}))
    assert uids(steps) == [[5], [6], [7, 9], [10]]
    assert [getattr(step, "reason", "take") for step in steps] == [
        "take",
        "larger than inbound.max_message_size",
        None,
        "take",
    ]
    assert [message.follows for step in steps for message in step.messages] == [4, 5, 6, 7, 9]
    assert isinstance(steps[1], Pass)
    assert steps[1].hopeless


def test_suspects_come_in_small_batches_then_alone_then_later() -> None:
    sizes = [(uid, 10) for uid in range(1, 61)]
    once = dict.fromkeys(range(1, 41), 1)
    assert [len(step.messages) for step in plan(WATCH, 0, sizes, (), once)] == [25, 15, 20]
    twice = {1: 2, 2: 3, 3: 4}
    steps = list(plan(WATCH, 0, sizes[:4], (), twice))
    assert uids(steps) == [[1], [2], [3], [4]]
    given_up = steps[2]
    assert isinstance(given_up, Pass)
    assert given_up.reason is not None
    assert not given_up.hopeless


def test_a_lost_batch_is_suspected_until_the_cursor_has_passed_it() -> None:
    state, _ = play(*QUIET, Failed(fetching=(6, 7)), Failed(fetching=(7,)))
    assert state.suspects == {6: 1, 7: 2}
    state, _ = decide(WATCH, state, Looked(6), 0.0, 0.0)
    assert state.suspects == {7: 2}


def test_a_step_that_is_unchained_moves_no_cursor() -> None:
    assert unchained(Take((Planned(7, 10, 3), Planned(9, 10, 7)))) == Take((Planned(7, 10, 7), Planned(9, 10, 9)))
