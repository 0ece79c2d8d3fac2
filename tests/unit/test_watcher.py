"""What a mailbox task does next, one decision at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.inbound.watcher import (
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
    rest_after,
)

WATCH = Watch(poll=timedelta(minutes=10), renew_idle=timedelta(minutes=24), reconnect_after=timedelta(hours=12))


def play(*events: Event, watch: Watch = WATCH, at: float = 0.0) -> tuple[State, Action]:
    """Return state and action after `events`, all at the time `at`."""
    state, action = State(), None
    for event in events:
        state, action = decide(watch, state, event, at, 0.0)
    assert action is not None
    return state, action


QUIET = (Begun(), Connected(can_idle=True), Opened(5), Looked(5), CaughtUp(), Asked())


def test_a_task_connects_opens_looks_does_its_chores_and_idles() -> None:
    assert [play(*QUIET[:count])[1] for count in range(1, 7)] == [
        Connect(),
        Open(),
        Look(5, few=False),
        CatchUp(),
        Ask(),
        Idle(60.0),
    ]


def test_news_is_looked_at_in_one_go() -> None:
    assert play(*QUIET, Waited(stirred=True))[1] == Look(5, few=True)
    assert play(*QUIET, Waited(stirred=True), Looked(6, stirred=True))[1] == Look(6, few=True)
    assert play(*QUIET, Waited(stirred=True), Looked(6))[1] == Idle(60.0)


def test_a_full_window_is_followed_by_the_next() -> None:
    assert play(*QUIET[:3], Looked(2005, more=True, stirred=True))[1] == Look(2005, few=False)


def test_new_mail_and_what_is_owed_take_turns() -> None:
    state, action = play(*QUIET[:4])
    assert action == CatchUp()
    state, action = decide(WATCH, state, CaughtUp(more=True, stirred=True), 0.0, 0.0)
    assert action == Look(5, few=True)
    state, action = decide(WATCH, state, Looked(6, stirred=True), 0.0, 0.0)
    assert action == CatchUp(), "a mailbox that is never quiet does not keep us from what is owed"
    assert decide(WATCH, state, CaughtUp(more=True), 0.0, 0.0)[1] == CatchUp()
    assert decide(WATCH, state, CaughtUp(stirred=True), 0.0, 0.0)[1] == Ask()


def test_the_chores_come_once_a_minute() -> None:
    state, _ = play(*QUIET)
    assert decide(WATCH, state, Waited(), 59.0, 0.0)[1] == Idle(1.0)
    state, action = decide(WATCH, state, Waited(), 60.0, 0.0)
    assert action == CatchUp()
    state, _ = decide(WATCH, state, CaughtUp(), 61.0, 0.0)
    assert decide(WATCH, state, Asked(), 61.0, 0.0)[1] == Idle(60.0)


def test_idle_is_never_believed_for_longer_than_the_poll_nor_than_its_renewal() -> None:
    state, _ = play(*QUIET)
    assert decide(WATCH, state, Waited(), 598.0, 0.0)[1] == CatchUp()
    assert decide(WATCH, state, Waited(), 600.0, 0.0)[1] == Look(5, few=False)
    distrusting = replace(WATCH, renew_idle=timedelta(minutes=4))
    assert decide(distrusting, state, Waited(), 240.0, 0.0)[1] == Look(5, few=False)
    assert decide(distrusting, state, Waited(), 50.0, 0.0)[1] == Idle(10.0)


@pytest.mark.parametrize("watch", [WATCH, replace(WATCH, may_idle=False)], ids=["not-offered", "not-wanted"])
def test_without_idle_every_minute_is_a_look(watch: Watch) -> None:
    state, action = play(Begun(), Connected(can_idle=watch is not WATCH), *QUIET[2:], watch=watch)
    assert action == Sleep(60.0)
    assert decide(watch, state, Waited(), 60.0, 0.0)[1] == Look(5, few=False)


def test_a_server_that_refuses_idle_is_polled_from_then_on() -> None:
    state, action = play(*QUIET, Waited(can_idle=False))
    assert action == Sleep(60.0)
    assert decide(WATCH, state, Waited(), 60.0, 0.0)[1] == Look(5, few=False)


def test_a_server_that_cries_wolf_is_listened_to_less_often() -> None:
    state, _ = play(*QUIET)
    waits = []
    for _ in range(12):
        state, action = decide(WATCH, state, Looked(5, stirred=True), 0.0, 0.0)
        waits.append(action.seconds if isinstance(action, Sleep) else 0.0)
        if isinstance(action, Sleep):
            state, action = decide(WATCH, state, Waited(stirred=True), 0.0, 0.0)
        assert action == Look(5, few=True)
    assert waits == [0, 0, 0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5]
    state, action = decide(WATCH, state, Looked(6, stirred=True), 0.0, 0.0)
    assert action == Look(6, few=True), "and believed again once there was something"


def test_other_numbers_are_matched_before_anything_is_listed() -> None:
    state, action = play(*QUIET[:2], Failed(fetching=(8,)), Begun(), Connected(True), Opened(5, True, 2))
    assert action == Renumber()
    assert not state.suspects
    assert decide(WATCH, state, Opened(77, uidvalidity=2), 0.0, 0.0)[1] == Look(77, few=False)


def test_a_message_that_costs_sessions_while_numbers_are_matched_is_remembered() -> None:
    state, _ = play(*QUIET[:2], Opened(5, True, 2), Failed(fetching=(8,)), Begun(), Connected(True))
    state, action = decide(WATCH, state, Opened(5, True, 2), 0.0, 0.0)
    assert action == Renumber()
    assert state.suspects == {8: 1}


def test_a_session_is_left_in_time_and_made_again_at_once() -> None:
    state, _ = play(*QUIET)
    late = 12 * 3600.0
    for event, expected in ((Waited(), Look(5, few=False)), (Looked(5), CatchUp()), (CaughtUp(), Ask())):
        state, action = decide(WATCH, state, event, late, 0.0)
        assert action == expected
    state, action = decide(WATCH, state, Asked(), late, 0.0)
    assert action == Leave()
    assert decide(WATCH, state, Left(), late, 0.0) == (state, Connect())


def test_a_session_without_an_end_is_kept() -> None:
    watch = replace(WATCH, reconnect_after=None)
    state, _ = play(*QUIET, watch=watch)
    state, _ = decide(watch, state, Waited(), 1e9, 0.0)
    state, _ = decide(watch, state, Looked(5), 1e9, 0.0)
    state, _ = decide(watch, state, CaughtUp(), 1e9, 0.0)
    assert decide(watch, state, Asked(), 1e9, 0.0)[1] == Idle(60.0)


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


def test_a_lost_batch_is_suspected_until_the_cursor_has_passed_it() -> None:
    state, _ = play(*QUIET, Failed(fetching=(6, 7)), Failed(fetching=(7,)))
    assert state.suspects == {6: 1, 7: 2}
    state, _ = decide(WATCH, state, Looked(6), 0.0, 0.0)
    assert state.suspects == {7: 2}


def test_those_that_began_together_drift_apart() -> None:
    state, _ = decide(WATCH, State(), Connected(True), 0.0, 0.8)
    assert state.leave_at == 12 * 3600 * 0.8
    state, _ = decide(WATCH, state, CaughtUp(), 0.0, 0.8)
    state, _ = decide(WATCH, state, Asked(), 0.0, 0.8)
    assert state.chores_from == 48.0


def test_a_long_backlog_does_not_keep_the_other_folders_waiting() -> None:
    state, action = play(*QUIET[:3], Looked(2005, more=True))
    assert action == Look(2005, few=False)
    state, action = decide(WATCH, state, Looked(4005, more=True), 61.0, 0.0)
    assert action == Ask()
    state, action = decide(WATCH, state, Asked(), 62.0, 0.0)
    assert action == Look(4005, few=False)
    state, action = decide(WATCH, state, Looked(6005, more=True), 63.0, 0.0)
    assert action == Look(6005, few=False)


def test_much_that_is_owed_does_not_keep_the_other_folders_waiting() -> None:
    state, _ = play(*QUIET[:4])
    assert decide(WATCH, state, CaughtUp(more=True), 59.0, 0.0)[1] == CatchUp()
    state, action = decide(WATCH, state, CaughtUp(more=True), 60.0, 0.0)
    assert action == Ask()
    state, action = decide(WATCH, state, Asked(), 61.0, 0.0)
    assert action == CatchUp()
    assert decide(WATCH, state, CaughtUp(more=True), 62.0, 0.0)[1] == CatchUp()
