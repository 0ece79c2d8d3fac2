"""What one attempt sends and what is recorded of it, without a network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.config import Touchpoint
from gateway.mime.trace import compose_trace
from gateway.model import Fate, OutboxKind, Outcome, Phase, Reply, read_id, to_ms
from gateway.outbound.attempt import (
    Moment,
    Settings,
    change_of,
    conclude,
    leaves_something_to_look_at,
    part_of,
    put_back,
    refuse_beforehand,
    show_delay,
)
from gateway.outbound.outcome import Cause, Decision, Judged, Trouble, Wait
from gateway.outbound.schedule import RetryPolicy
from gateway.state.lifecycle import Event, LaneEvent, State
from gateway.state.outbox import Claimed, Recipient

NOW = to_ms(datetime(2026, 11, 23, 12, tzinfo=UTC))
AT = Moment(NOW, 0.0)
MINUTE = 60_000
SETTINGS = Settings(
    Touchpoint.model_validate(
        {"id": "support", "address": "support@example.com", "name": "Support", "direction": "outbound",
         "smtp": "smtps://smtp.example.com"}
    ), "gateway.example", "", RetryPolicy(),
)  # fmt: skip


def claimed(*recipients: Recipient, **changes: Any) -> Claimed:
    values: dict[str, Any] = {
        "id": 59_752_489_325, "touchpoint": "support", "attempt": 3,
        "recipients": recipients or (Recipient(0, "b@clients.example", 1, 0, State.QUEUED),),
        "begun": False, "agent": "ana@example.com", "kind": OutboxKind.REPLY, "return_path": "support@example.com",
        "eight_bit": False, "smtputf8": False, "message_id": "<m@example.com>", "subject": "Your order", "size": 10,
        "accepted_at": NOW - MINUTE, "conversation": 7, "answers": None, "more": False, "probing": None,
        "raw": b"Subject: x\r\n\r\n",
    }  # fmt: skip
    return Claimed(**{**values, **changes})


def judged(fate: Fate, wait: Wait | None = None, reply: str = "450 4.2.0 said", phase: Phase = Phase.RCPT) -> Judged:
    code, status, text = reply.split(" ", 2)
    return Judged(Outcome(fate, phase, Reply(int(code), status, text)), wait)


def decided(*judged: Judged, trouble: Trouble | None = None, worked: bool = False) -> Decision:
    return Decision(judged, trouble, True, worked)


def test_the_trace_names_this_very_attempt_and_nobody() -> None:
    id = read_id("1r7hq2x0")
    assert id is not None
    assert compose_trace("gateway.example", id, 3, NOW) == (
        b"Received: by gateway.example (mail-gateway) id 1r7hq2x0.3;\r\n\tMon, 23 Nov 2026 12:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("fate", "wait", "event", "due"),
    [
        (Fate.ACCEPTED, None, Event.ACCEPTED, None),
        (Fate.REFUSED, None, Event.REFUSED, None),
        (Fate.UNCERTAIN, None, Event.INTERRUPTED, None),
        (Fate.DEFERRED, Wait.CLOCK, Event.PUT_OFF, NOW + MINUTE),
        (Fate.DEFERRED, Wait.BACKOFF, Event.PUT_OFF, NOW + 5 * MINUTE),
        (Fate.DEFERRED, Wait.LANE, Event.PUT_OFF, NOW),
        (Fate.DEFERRED, Wait.NOW, Event.PUT_OFF, NOW),
    ],
)
def test_each_outcome_becomes_an_event_with_its_due_time(
    fate: Fate, wait: Wait | None, event: Event, due: int | None
) -> None:
    one = judged(fate, wait)
    of = claimed(Recipient(0, "b@clients.example", 2, 0, State.QUEUED))
    done = conclude(of, [one], {0}, decided(one), SETTINGS, AT)
    (fated,) = done.fated
    assert (fated.event, fated.next_attempt_at, fated.before) == (event, due, State.SENDING)
    assert fated.reply == "450 4.2.0 said"
    assert done.counted is (fate is Fate.ACCEPTED)


def test_only_replies_about_the_message_move_its_clock() -> None:
    for wait, waited in ((Wait.CLOCK, 6 * MINUTE), (Wait.BACKOFF, MINUTE), (Wait.LANE, MINUTE), (Wait.NOW, MINUTE)):
        one = judged(Fate.DEFERRED, wait)
        of = claimed(Recipient(0, "b@clients.example", 9, MINUTE, State.DEFERRED))
        (fated,) = conclude(of, [one], set(), decided(one), SETTINGS, AT).fated
        assert fated.waited == waited
        assert fated.before is State.DEFERRED


def test_patience_ends_with_the_clock_and_not_with_the_attempts() -> None:
    days = round(timedelta(days=5).total_seconds() * 1000)
    one = judged(Fate.DEFERRED, Wait.CLOCK)
    (fated,) = conclude(
        claimed(Recipient(0, "b@c.example", 2, days, State.DEFERRED)), [one], {0}, decided(one), SETTINGS, AT
    ).fated
    assert fated.event is Event.GAVE_UP
    (patient,) = conclude(
        claimed(Recipient(0, "b@c.example", 500, 0, State.DEFERRED)), [one], {0}, decided(one), SETTINGS, AT
    ).fated
    assert patient.event is Event.PUT_OFF


def test_a_link_that_was_lost_is_a_cut_and_says_what_happened() -> None:
    one = Judged(Outcome(Fate.DEFERRED, Phase.DATA, None, "the server closed the connection"), Wait.BACKOFF)
    (fated,) = conclude(claimed(), [one], {0}, decided(one), SETTINGS, AT).fated
    assert (fated.event, fated.reply) == (Event.CUT_BEFORE_DOT, "the server closed the connection")


def test_a_server_cannot_write_into_our_listing() -> None:
    one = judged(Fate.REFUSED, None, "550 5.1.1 \x1b[31mred\r\nalert " + "x" * 5_000)
    (fated,) = conclude(claimed(), [one], {0}, decided(one), SETTINGS, AT).fated
    assert fated.reply is not None
    assert fated.reply.isprintable()
    assert len(fated.reply) <= 300


def test_a_server_that_names_a_time_is_not_asked_sooner() -> None:
    asked = Judged(judged(Fate.DEFERRED, Wait.CLOCK).outcome, Wait.CLOCK, timedelta(minutes=20))
    (fated,) = conclude(claimed(), [asked], set(), decided(asked), SETTINGS, AT).fated
    assert (fated.next_attempt_at, fated.waited) == (NOW + 20 * MINUTE, 20 * MINUTE)
    trouble = Trouble(LaneEvent.PAUSE, Cause.THROTTLED, "x", timedelta(hours=2))
    assert change_of(trouble, SETTINGS, AT).until == NOW + 120 * MINUTE
    assert change_of(Trouble(LaneEvent.PAUSE, Cause.THROTTLED, "x"), SETTINGS, AT).until is None


def test_a_held_lane_is_never_probed_sooner_than_by_its_ladder() -> None:
    hasty = change_of(Trouble(LaneEvent.HOLD, Cause.LOGIN, "x", timedelta(seconds=1)), SETTINGS, AT)
    assert (hasty.until, hasty.delays) == (None, (5 * MINUTE, 15 * MINUTE, 60 * MINUTE))
    patient = change_of(Trouble(LaneEvent.HOLD, Cause.LOGIN, "x", timedelta(minutes=30)), SETTINGS, AT)
    assert patient.delays == (30 * MINUTE, 30 * MINUTE, 60 * MINUTE)


# --- who goes together -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "domains", "part"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        (2, None, [0, 1]),
        (None, 1, [0, 2]),
        (None, 2, [0, 1, 2, 4]),
        (3, 2, [0, 1, 2]),
        (1, 1, [0]),
    ],
)
def test_a_server_gets_no_more_recipients_than_it_says(most: int | None, domains: int | None, part: list[int]) -> None:
    addresses = ["a@one.example", "b@two.example", "c@ONE.example", "d@three.example", "e@two.example"]
    assert part_of(addresses, most, domains) == part


# --- what is owed to the mailbox -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "owes"),
    [
        ({"sent_copy": "append", "imap": "imaps://imap.example.com"}, True),
        ({"sent_copy": "provider", "imap": "imaps://imap.example.com"}, False),
        ({"sent_copy": "append"}, False),
    ],
)
def test_a_copy_is_owed_where_the_provider_keeps_none_and_there_is_a_mailbox(keys: dict[str, Any], owes: bool) -> None:
    touchpoint = Touchpoint.model_validate(
        {"address": "support@example.com", "name": "Support", "smtp": "smtps://smtp.example.com", **keys}
    )
    of = Settings(touchpoint, "gateway.example", "", RetryPolicy())
    one, no = judged(Fate.ACCEPTED, None, "250 2.0.0 taken"), judged(Fate.REFUSED)
    assert conclude(claimed(), [one], {0}, decided(one), of, AT).copies is owes
    assert conclude(claimed(), [no], {0}, decided(no), of, AT).copies is False


@pytest.mark.parametrize(
    ("fate", "answers", "looks"),
    [(Fate.UNCERTAIN, None, True), (Fate.ACCEPTED, 7, True), (Fate.ACCEPTED, None, False), (Fate.REFUSED, 7, False)],
)
def test_the_mailbox_hears_of_what_it_has_to_look_at(fate: Fate, answers: int | None, looks: bool) -> None:
    one = judged(fate)
    done = conclude(claimed(answers=answers), [one], {0}, decided(one), SETTINGS, AT)
    assert leaves_something_to_look_at(done) is looks


# --- lanes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "delays"),
    [
        (Trouble(LaneEvent.HOLD, Cause.LOGIN, "x"), (5 * MINUTE, 15 * MINUTE, 60 * MINUTE)),
        (Trouble(LaneEvent.PAUSE, Cause.UNREACHABLE, "x"), (5_000, 15_000, 30_000, 60_000, 120_000, 300_000)),
        (Trouble(LaneEvent.PAUSE, Cause.QUOTA, "x"), (60 * MINUTE,)),
    ],
    ids=["held", "paused", "quota"],
)
def test_a_trouble_is_tried_again_by_its_own_ladder(trouble: Trouble, delays: tuple[int, ...]) -> None:
    change = change_of(trouble, SETTINGS, AT)
    assert (change.event, change.cause, change.delays, change.at) == (trouble.event, trouble.cause, delays, NOW)


@pytest.mark.parametrize(
    ("probing", "worked", "opens"),
    [
        ("login", False, True),
        ("unreachable", False, True),
        ("certificate", False, True),
        ("permission", False, False),
        ("permission", True, True),
        ("throttled", False, False),
        ("throttled", True, True),
        (None, True, False),
    ],
)
def test_a_lane_opens_when_what_shut_it_is_over(probing: str | None, worked: bool, opens: bool) -> None:
    one = judged(Fate.DEFERRED, Wait.CLOCK)
    done = conclude(claimed(probing=probing), [one], {0}, decided(one, worked=worked), SETTINGS, AT)
    assert (done.lane is not None and done.lane.event is LaneEvent.WORKED) is opens


def test_a_trouble_shuts_the_lane_in_the_same_record() -> None:
    one = judged(Fate.DEFERRED, Wait.LANE)
    trouble = Trouble(LaneEvent.HOLD, Cause.PERMISSION, "no")
    done = conclude(claimed(probing="login"), [one], set(), decided(one, trouble=trouble), SETTINGS, AT)
    assert done.lane is not None
    assert (done.lane.event, done.lane.cause) == (LaneEvent.HOLD, "permission")


def test_what_never_had_a_connection_is_due_with_its_lane() -> None:
    one = Judged(Outcome(Fate.DEFERRED, Phase.CONNECT, None, "nobody there"), Wait.LANE)
    two = (Recipient(0, "b@c.example", 1, 0, State.QUEUED), Recipient(1, "c@c.example", 4, 9, State.DEFERRED))
    done = put_back(claimed(*two), one, None, SETTINGS, AT)
    assert [(fated.before, fated.event, fated.next_attempt_at, fated.waited) for fated in done.fated] == [
        (State.QUEUED, Event.CUT_BEFORE_DOT, NOW, 0), (State.DEFERRED, Event.CUT_BEFORE_DOT, NOW, 9),
    ]  # fmt: skip
    assert not done.counted


def test_an_address_that_fits_no_command_is_known_beforehand() -> None:
    assert refuse_beforehand("b@c.example", False) is None
    refused = refuse_beforehand("b@c.example>\r\nDATA", False)
    assert refused is not None
    assert refused.outcome.fate is Fate.REFUSED


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5, "0.0s"),
        (420, "0.4s"),
        (59_949, "59.9s"),
        (187_000, "3m07s"),
        (7_440_000, "2h04m"),
        (360_000_000, "100h00m"),
    ],
)
def test_a_delay_reads_well(ms: int, shown: str) -> None:
    assert show_delay(ms) == shown
