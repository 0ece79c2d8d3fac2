"""What each reply in each phase, and each lost link, means for the mail and for the lane."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.model import Fate, Phase, Reply
from gateway.outbound.outcome import (
    Cause,
    Decision,
    Transcript,
    Wait,
    decide,
    decide_greeting,
    decide_login,
    defer_for,
    refuse_all,
)
from gateway.state.lifecycle import LaneEvent

OK = Reply(250, "2.1.0", "ok")
GO = Reply(354, "", "go on")


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    status, _, words = rest.partition(" ")
    return Reply(int(code), status, words) if status[:2] in ("2.", "4.", "5.") else Reply(int(code), "", rest)


def behind(phase: Phase, said: str | None, *, proven: bool = False, lost: str | None = None) -> Transcript:
    """A transaction with one recipient that went well up to `phase`, where the server said `said`."""
    there = reply(said) if said is not None else None
    steps: dict[Phase, Reply | None] = {Phase.MAIL: OK, Phase.RCPT: OK, Phase.DATA: GO, Phase.DOT: None}
    order = list(steps)
    for later in order[order.index(phase) :]:
        steps[later] = None
    steps[phase] = there
    return Transcript(
        (steps[Phase.RCPT],),
        steps[Phase.MAIL],
        steps[Phase.DATA],
        steps[Phase.DOT],
        lost,
        dotted=phase is Phase.DOT,
        proven=proven,
    )


def only(decision: Decision) -> tuple[Fate, Wait | None]:
    (judged,) = decision.judged
    return judged.outcome.fate, judged.wait


MATRIX = [
    # phase, reply, fate, wait, lane event, cause
    ("mail-451", Phase.MAIL, "451 4.3.0 later", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("mail-421", Phase.MAIL, "421 4.3.2 busy", Fate.DEFERRED, Wait.LANE, LaneEvent.PAUSE, Cause.THROTTLED),
    ("mail-432", Phase.MAIL, "432 4.3.2 Concurrent connections limit exceeded", Fate.DEFERRED, Wait.LANE,
     LaneEvent.PAUSE, Cause.THROTTLED),
    ("mail-530", Phase.MAIL, "530 5.7.0 log in first", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.LOGIN),
    ("mail-535", Phase.MAIL, "535 5.7.3 no", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.LOGIN),
    ("mail-5.7.1", Phase.MAIL, "550 5.7.1 not allowed", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.PERMISSION),
    ("mail-bad-sender", Phase.MAIL, "553 5.1.8 no such sender", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD,
     Cause.PERMISSION),
    ("mail-bare-550", Phase.MAIL, "550 go away", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.PERMISSION),
    ("mail-501-sender", Phase.MAIL, "501 5.1.7 bad", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.PERMISSION),
    ("mail-too-big", Phase.MAIL, "552 5.3.4 too big", Fate.REFUSED, None, None, None),
    ("mail-too-big-554", Phase.MAIL, "554 5.3.4 too big", Fate.REFUSED, None, None, None),
    ("mail-parameter", Phase.MAIL, "555 5.5.4 unknown parameter", Fate.REFUSED, None, None, None),
    ("mail-eight-bit", Phase.MAIL, "554 5.6.3 no 8-bit here", Fate.REFUSED, None, None, None),
    ("mail-out-of-step", Phase.MAIL, "503 5.5.1 nested MAIL", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("mail-unknown", Phase.MAIL, "354 what", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-450", Phase.RCPT, "450 4.2.0 greylisted", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-452-alone", Phase.RCPT, "452 4.5.3 too many", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-550", Phase.RCPT, "550 5.1.1 no such user", Fate.REFUSED, None, None, None),
    ("rcpt-5.7.1", Phase.RCPT, "554 5.7.1 blocked by recipient", Fate.REFUSED, None, None, None),
    ("rcpt-552-alone", Phase.RCPT, "552 5.2.2 mailbox full", Fate.REFUSED, None, None, None),
    ("rcpt-530", Phase.RCPT, "530 5.7.0 log in first", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.LOGIN),
    ("rcpt-not-owned", Phase.RCPT, "553 5.7.1 <a@b>: Sender address rejected: not owned by user x", Fate.DEFERRED,
     Wait.LANE, LaneEvent.HOLD, Cause.PERMISSION),
    ("rcpt-421", Phase.RCPT, "421 4.7.0 slow down", Fate.DEFERRED, Wait.CLOCK, LaneEvent.PAUSE, Cause.THROTTLED),
    ("data-451", Phase.DATA, "451 4.3.0 later", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("data-554", Phase.DATA, "554 5.5.1 no", Fate.REFUSED, None, None, None),
    ("data-250", Phase.DATA, "250 what", Fate.DEFERRED, Wait.BACKOFF, None, None),
    ("dot-250", Phase.DOT, "250 2.0.0 taken", Fate.ACCEPTED, None, None, None),
    ("dot-251", Phase.DOT, "251 will forward", Fate.ACCEPTED, None, None, None),
    ("dot-299", Phase.DOT, "299 odd but a yes", Fate.ACCEPTED, None, None, None),
    ("dot-452", Phase.DOT, "452 4.3.1 disk full", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("dot-421", Phase.DOT, "421 4.3.0 bye", Fate.DEFERRED, Wait.CLOCK, LaneEvent.PAUSE, Cause.THROTTLED),
    ("dot-554", Phase.DOT, "554 5.7.1 looks like spam", Fate.REFUSED, None, None, None),
    ("dot-send-as", Phase.DOT, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", Fate.DEFERRED,
     Wait.LANE, LaneEvent.HOLD, Cause.PERMISSION),
    ("dot-quota", Phase.DOT, "550 5.4.5 Daily user sending quota exceeded", Fate.DEFERRED, Wait.LANE, LaneEvent.PAUSE,
     Cause.QUOTA),
    ("mail-session-unproven", Phase.MAIL, "421 4.7.0 host Error: too many errors", Fate.DEFERRED, Wait.LANE,
     LaneEvent.PAUSE, Cause.THROTTLED),
    ("mail-too-large-bare", Phase.MAIL, "550 message too large", Fate.REFUSED, None, None, None),
    ("mail-quota", Phase.MAIL, "450 4.7.1 you have reached the hourly limit", Fate.DEFERRED, Wait.LANE, LaneEvent.PAUSE,
     Cause.QUOTA),
    ("mail-452", Phase.MAIL, "452 4.3.1 insufficient system storage", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("mail-502", Phase.MAIL, "502 5.5.1 not implemented", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-432-of-recipient", Phase.RCPT, "450 4.7.1 greylisted, come back", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-greylisted-550", Phase.RCPT, "550 5.7.1 greylisted, try again later", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("rcpt-relay-denied", Phase.RCPT, "554 5.7.1 <b@c.example>: Relay access denied", Fate.DEFERRED, Wait.LANE,
     LaneEvent.HOLD, Cause.PERMISSION),
    ("rcpt-quoting", Phase.RCPT, "554 5.7.1 host mx.c.example said: 554 5.7.1 Relay access denied", Fate.REFUSED, None,
     None, None),
    ("rcpt-anvil", Phase.RCPT, "450 4.7.1 Error: too many recipients from 192.0.2.1", Fate.DEFERRED, Wait.LANE,
     LaneEvent.PAUSE, Cause.THROTTLED),
    ("rcpt-too-many-alone", Phase.RCPT, "550 5.5.3 too many recipients", Fate.REFUSED, None, None, None),
    ("rcpt-501", Phase.RCPT, "501 5.1.3 bad address", Fate.REFUSED, None, None, None),
    ("rcpt-354", Phase.RCPT, "354 what", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("data-421", Phase.DATA, "421 4.3.2 closing", Fate.DEFERRED, Wait.CLOCK, LaneEvent.PAUSE, Cause.THROTTLED),
    ("data-432", Phase.DATA, "432 4.3.2 slower", Fate.DEFERRED, Wait.CLOCK, LaneEvent.PAUSE, Cause.THROTTLED),
    ("data-530", Phase.DATA, "530 5.7.0 log in", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.LOGIN),
    ("data-quota", Phase.DATA, "550 5.7.1 You have exceeded your daily sending limit", Fate.DEFERRED, Wait.LANE,
     LaneEvent.PAUSE, Cause.QUOTA),
    ("dot-451", Phase.DOT, "451 4.3.0 queue file write error", Fate.DEFERRED, Wait.CLOCK, None, None),
    ("dot-552", Phase.DOT, "552 5.3.4 message too big", Fate.REFUSED, None, None, None),
    ("dot-432", Phase.DOT, "432 4.3.2 slower", Fate.DEFERRED, Wait.CLOCK, LaneEvent.PAUSE, Cause.THROTTLED),
    ("dot-535", Phase.DOT, "535 5.7.8 who are you", Fate.DEFERRED, Wait.LANE, LaneEvent.HOLD, Cause.LOGIN),
    ("dot-full", Phase.DOT, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceeded", Fate.DEFERRED,
     Wait.LANE, LaneEvent.HOLD, Cause.FULL),
    ("dot-354", Phase.DOT, "354 what", Fate.UNCERTAIN, None, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "said", "fate", "wait", "event", "cause"), [row[1:] for row in MATRIX],
                         ids=[row[0] for row in MATRIX])  # fmt: skip
def test_a_reply_is_about_whom_its_phase_says(
    phase: Phase, said: str, fate: Fate, wait: Wait | None, event: LaneEvent | None, cause: Cause | None
) -> None:
    decision = decide(behind(phase, said))
    assert only(decision) == (fate, wait)
    assert decision.judged[0].outcome.phase is phase
    assert decision.judged[0].outcome.reply == reply(said)
    trouble = decision.trouble
    assert (trouble.event if trouble else None, trouble.cause if trouble else None) == (event, cause)
    if trouble is not None:
        assert said.split()[0] in trouble.detail


@pytest.mark.parametrize("code", range(200, 600, 7))
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
def test_only_a_clear_no_is_for_good(phase: Phase, code: int) -> None:
    fate, _ = only(decide(behind(phase, f"{code} something unheard of")))
    if fate is Fate.REFUSED:
        assert code // 100 == 5
    if fate is Fate.ACCEPTED:
        assert (phase, code // 100) == (Phase.DOT, 2)


def test_a_null_return_path_that_is_refused_says_nothing_about_the_touchpoint() -> None:
    decision = decide(behind(Phase.MAIL, "550 5.7.1 no null senders"), null_return_path=True)
    assert only(decision) == (Fate.REFUSED, None)
    assert decision.trouble is None


def test_a_null_return_path_does_not_hide_that_a_login_is_wanted() -> None:
    decision = decide(behind(Phase.MAIL, "530 5.7.0 log in first"), null_return_path=True)
    assert decision.trouble is not None
    assert only(decision) == (Fate.DEFERRED, Wait.LANE)


# --- several recipients ----------------------------------------------------------------------------------------------


def test_each_recipient_has_a_fate_of_its_own() -> None:
    rcpt = (OK, reply("550 5.1.1 unknown"), reply("450 4.2.0 greylisted"), OK)
    decision = decide(Transcript(rcpt, OK, GO, reply("250 2.0.0 taken"), dotted=True))
    assert [judged.outcome.fate for judged in decision.judged] == [
        Fate.ACCEPTED, Fate.REFUSED, Fate.DEFERRED, Fate.ACCEPTED,
    ]  # fmt: skip
    assert decision.is_reusable
    assert decision.worked


@pytest.mark.parametrize(
    "code", ["452 4.5.3 too many recipients", "552 too many recipients", "550 5.5.3 too many", "451 4.5.3 no more"]
)
def test_too_many_recipients_split_the_message(code: str) -> None:
    decision = decide(Transcript((OK, reply(code)), OK, GO, OK, dotted=True))
    taken, rest = decision.judged
    assert taken.outcome.fate is Fate.ACCEPTED
    assert (rest.outcome.fate, rest.wait) == (Fate.DEFERRED, Wait.NOW)


def test_all_recipients_refused_needs_no_data() -> None:
    decision = decide(Transcript((reply("550 5.1.1 a"), reply("551 5.1.6 b")), OK))
    assert [judged.outcome.fate for judged in decision.judged] == [Fate.REFUSED, Fate.REFUSED]
    assert decision.is_reusable
    assert decision.trouble is None


def test_a_clear_no_to_one_recipient_survives_a_link_that_is_lost_later() -> None:
    decision = decide(Transcript((reply("550 5.1.1 unknown"), OK), OK, GO, None, "lost", dotted=True))
    assert [judged.outcome.fate for judged in decision.judged] == [Fate.REFUSED, Fate.UNCERTAIN]


def ended_over_errors(*said: str, data: Reply | None = None) -> Transcript:
    """Some recipients answered, then 421, and nothing more."""
    rcpt = tuple(reply(one) for one in said) + (None,) * 2
    return Transcript(rcpt, OK, data, None, "the server closed the connection")


def test_a_session_that_ends_over_bad_recipients_does_not_hold_up_the_others() -> None:
    """Postfix's smtpd_hard_error_limit: what was refused is settled, so the next connection comes further."""
    decision = decide(
        ended_over_errors("250 2.1.5 ok", "550 5.1.1 unknown", "450 4.2.1 busy", "421 4.7.0 too many errors")
    )
    assert [(one.outcome.fate, one.wait) for one in decision.judged] == [
        (Fate.DEFERRED, Wait.NOW), (Fate.REFUSED, None), (Fate.DEFERRED, Wait.CLOCK), (Fate.DEFERRED, Wait.NOW),
        (Fate.DEFERRED, Wait.NOW), (Fate.DEFERRED, Wait.NOW),
    ]  # fmt: skip
    assert decision.trouble is None
    assert not decision.is_reusable


@pytest.mark.parametrize("phase", [Phase.RCPT, Phase.DATA])
def test_a_session_that_ends_over_a_quota_is_not_begun_again_at_once(phase: Phase) -> None:
    said = reply("421 4.7.0 you have exceeded your daily limit")
    bad = reply("550 5.1.1 unknown")
    t = Transcript((bad, said), OK) if phase is Phase.RCPT else Transcript((bad, OK), OK, said)
    decision = decide(t)
    assert decision.trouble is not None
    assert decision.trouble.cause is Cause.QUOTA
    assert [one.wait for one in decision.judged] == [None, Wait.LANE]


def test_a_session_that_ends_at_data_over_bad_recipients_is_nobodys_fault() -> None:
    rcpt = (OK, reply("550 5.1.1 unknown"))
    decision = decide(Transcript(rcpt, OK, reply("421 4.7.0 too many errors"), None, "closed"))
    assert [(one.outcome.fate, one.wait) for one in decision.judged] == [
        (Fate.DEFERRED, Wait.NOW),
        (Fate.REFUSED, None),
    ]
    assert decision.trouble is None


def test_a_session_that_is_ended_without_being_asked_counts_too() -> None:
    """Postfix says 421 as soon as it has had enough, which may be before we ask for DATA."""
    farewell = reply("421 4.7.0 too many errors")
    rcpt = (OK, reply("550 5.1.1 unknown"))
    decision = decide(Transcript(rcpt, OK, None, None, "said, unasked", farewell=farewell))
    assert [(one.outcome.fate, one.wait) for one in decision.judged] == [
        (Fate.DEFERRED, Wait.NOW),
        (Fate.REFUSED, None),
    ]
    assert decision.trouble is None
    alone = decide(Transcript((OK,), OK, None, None, "said, unasked", farewell=reply("421 4.3.2 wait 10 minutes")))
    assert alone.trouble is not None
    assert (alone.trouble.cause, alone.trouble.asked) == (Cause.THROTTLED, timedelta(minutes=10))


def test_a_session_that_ends_without_a_no_of_its_own_pauses_the_lane() -> None:
    """Nothing would be different the next time: dialling at once would go on for ever."""
    decision = decide(ended_over_errors("250 2.1.5 ok", "421 4.7.0 enough"))
    assert decision.trouble is not None
    assert decision.trouble.event is LaneEvent.PAUSE
    assert Wait.NOW not in [one.wait for one in decision.judged]


def test_a_session_that_ends_over_the_touchpoint_is_not_about_recipients() -> None:
    decision = decide(ended_over_errors("554 5.7.1 Relay access denied", "421 4.7.0 too many errors"))
    assert decision.trouble is not None
    assert decision.trouble.cause is Cause.PERMISSION


# --- times that the server names -------------------------------------------------------------------------------------


def test_a_time_that_the_server_names_is_kept_for_the_message_and_for_the_lane() -> None:
    greylisted = decide(behind(Phase.RCPT, "450 4.2.0 greylisted, try again in 5 minutes"))
    assert greylisted.judged[0].asked == timedelta(minutes=5)
    assert greylisted.trouble is None
    throttled = decide(behind(Phase.MAIL, "432 4.3.2 slow down, retry after 90 seconds"))
    assert throttled.trouble is not None
    assert throttled.trouble.asked == timedelta(seconds=90)
    assert decide_greeting(reply("421 4.7.0 try again in 1 hour")).asked == timedelta(hours=1)
    assert decide_login(reply("454 4.7.0 too many logins, wait 10 minutes")).asked == timedelta(minutes=10)


def test_too_many_logins_are_not_answered_with_another_one_at_once() -> None:
    trouble = decide_login(reply("454 4.7.0 Too many login attempts, please try again later"), "gmail")
    assert (trouble.event, trouble.cause, trouble.asked) == (LaneEvent.PAUSE, Cause.THROTTLED, timedelta(minutes=5))


def test_what_the_lane_waits_for_is_not_waited_for_twice() -> None:
    decision = decide(behind(Phase.MAIL, "432 4.3.2 retry after 90 seconds"))
    assert decision.judged[0].wait is Wait.LANE
    assert decision.judged[0].asked is None


# --- links that are lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
def test_a_cut_before_the_dot_is_deferred_and_pauses_a_lane_that_never_worked(phase: Phase) -> None:
    decision = decide(behind(phase, None, lost="cut"))
    assert only(decision) == (Fate.DEFERRED, Wait.BACKOFF)
    assert decision.trouble is not None
    assert decision.trouble.event is LaneEvent.PAUSE
    assert not decision.is_reusable


def test_a_cut_in_the_middle_of_the_content_is_before_the_dot() -> None:
    decision = decide(Transcript((OK,), OK, GO, None, "cut", dotted=False))
    assert only(decision) == (Fate.DEFERRED, Wait.BACKOFF)


def test_a_session_that_ended_between_messages_costs_nothing() -> None:
    decision = decide(behind(Phase.MAIL, None, lost="closed", proven=True))
    assert only(decision) == (Fate.DEFERRED, Wait.NOW)
    assert decision.trouble is None
    said = decide(behind(Phase.MAIL, "421 4.7.0 enough for one session", proven=True))
    assert only(said) == (Fate.DEFERRED, Wait.NOW)
    assert said.trouble is None
    assert not said.is_reusable


def test_a_message_that_cuts_a_good_connection_waits_alone() -> None:
    decision = decide(behind(Phase.RCPT, None, lost="cut", proven=True))
    assert only(decision) == (Fate.DEFERRED, Wait.BACKOFF)
    assert decision.trouble is None


def test_a_cut_behind_the_dot_is_uncertain() -> None:
    decision = decide(behind(Phase.DOT, None, lost="the server closed the connection"))
    assert only(decision) == (Fate.UNCERTAIN, None)
    assert not decision.is_reusable


def test_no_answer_in_time_behind_the_dot_is_uncertain() -> None:
    decision = decide(Transcript((OK,), OK, GO, None, "the server did not answer in time", dotted=True, proven=True))
    assert only(decision) == (Fate.UNCERTAIN, None)
    assert decision.trouble is None


def test_a_no_in_the_middle_of_the_content_counts_although_the_link_is_gone() -> None:
    decision = decide(Transcript((OK,), OK, GO, reply("552 5.3.4 too big"), "ended early"))
    assert only(decision) == (Fate.REFUSED, None)
    assert decision.trouble is None
    assert not decision.is_reusable


@pytest.mark.parametrize("said", ["421 4.3.0 closing", "421 bye"])
def test_a_session_that_the_server_ends_is_not_used_again(said: str) -> None:
    for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT):
        assert not decide(behind(phase, said)).is_reusable


@pytest.mark.parametrize("said", ["421 4.7.0 Error: too many errors", "450 4.3.0 too many messages in this session"])
def test_a_connection_that_has_done_enough_is_exchanged_for_another(said: str) -> None:
    decision = decide(behind(Phase.MAIL, said, proven=True))
    assert only(decision) == (Fate.DEFERRED, Wait.NOW)
    assert decision.trouble is None


# --- before MAIL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "event", "cause"),
    [
        ("535 5.7.8 bad credentials", LaneEvent.HOLD, Cause.LOGIN),
        ("535 authentication failed", LaneEvent.HOLD, Cause.LOGIN),
        ("550 5.7.30 Basic authentication is not supported", LaneEvent.HOLD, Cause.SWITCHED_OFF),
        ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant", LaneEvent.HOLD,
         Cause.SWITCHED_OFF),
        ("454 4.7.0 temporary authentication failure", LaneEvent.PAUSE, Cause.LOGIN),
        ("421 4.7.0 too many logins", LaneEvent.PAUSE, Cause.LOGIN),
        ("432 4.7.12 a password transition is needed", LaneEvent.HOLD, Cause.LOGIN),
        ("504 5.5.4 unrecognized authentication type", LaneEvent.HOLD, Cause.LOGIN),
        ("421 4.7.0 too many connections from your address", LaneEvent.PAUSE, Cause.THROTTLED),
        ("435 what", LaneEvent.PAUSE, Cause.LOGIN),
        ("354 what", LaneEvent.PAUSE, Cause.LOGIN),
    ],
)  # fmt: skip
def test_a_clear_no_to_the_login_holds_the_lane(said: str, event: LaneEvent, cause: Cause) -> None:
    trouble = decide_login(reply(said))
    assert (trouble.event, trouble.cause) == (event, cause)


@pytest.mark.parametrize("said", ["554 5.3.2 no service", "421 4.3.2 too many connections", "450 later"])
def test_a_greeting_that_is_a_no_is_temporary(said: str) -> None:
    assert decide_greeting(reply(said)).event is LaneEvent.PAUSE


def test_mail_that_never_came_to_mail_waits_for_the_lane() -> None:
    judged = defer_for(decide_greeting(reply("554 no")), Phase.CONNECT)
    assert (judged.outcome.fate, judged.outcome.phase, judged.wait) == (Fate.DEFERRED, Phase.CONNECT, Wait.LANE)


def test_what_the_ehlo_rules_out_is_refused_on_a_connection_that_stays_good() -> None:
    decision = refuse_all(2, Phase.MAIL, Reply(552, "5.3.4", "too big"))
    assert [judged.outcome.fate for judged in decision.judged] == [Fate.REFUSED, Fate.REFUSED]
    assert decision.is_reusable
    assert decision.trouble is None
