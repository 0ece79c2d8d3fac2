"""What a look into Sent says about an attempt whose answer never came."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from gateway.inbound.evidence import APART_MS, Open, Settled, Sight, Trace, judge, traces
from gateway.model import read_id, show_id, to_ms
from gateway.outbound.attempt import trace_field

ID = read_id("1r7hq2x0") or 0
AT = datetime(2026, 11, 23, 10, 0, 7, tzinfo=UTC)
NOW = to_ms(AT)
MINUTE = 60_000
HOUR = 60 * MINUTE


def test_what_the_relay_writes_is_what_we_find() -> None:
    field = trace_field("gateway.example", ID, 3, NOW)
    assert traces(field + b"From: a@b.example\r\n\r\n") == [Trace(ID, 3, AT)]


@pytest.mark.parametrize(
    "header",
    [
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.12; Mon, 23 Nov 2026 10:00:07 +0000\r\n",
        b"X-Received: by gw.example (mail-gateway) id 1r7hq2x0.12; Mon, 23 Nov 2026 10:00:07 +0000\r\n",
        b"RECEIVED :by gw.example\r\n (Mail-Gateway)\r\n\tid\r\n  1R7HQ2X0.12\r\n ;\r\n\tMon, 23 Nov 2026\r\n 10:00:07 +0",
        b"Subject: x\nReceived: by gw.example (mail-gateway) id 1r7hq2x0.12;\n\tMon, 23 Nov 2026 10:00:07 +0000\n",
        b"X-Old: from [10.0.0.1] by gw.example (mail-gateway) id 1r7hq2x0.12; 23 Nov 2026 10:00:07 -0000; more\r\n",
    ],
    ids=["as-written", "renamed", "folded-anew", "bare-line-feeds", "added-to"],
)
def test_a_trace_is_found_whatever_the_provider_makes_of_its_field(header: bytes) -> None:
    assert traces(b"Return-Path: <x>\r\n" + header) == [Trace(ID, 12, AT)]


@pytest.mark.parametrize(
    "date", [b"", b";", b"; yesterday", b"; Mon, 99 Nov 2026 99:00:07 +0000", b"; \xff", b"; Mon, 23 Nov 99999999999"]
)
def test_a_trace_without_a_date_that_can_be_read_is_one(date: bytes) -> None:
    assert traces(b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1" + date + b"\r\n") == [Trace(ID, 1, None)]


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: Re: by gw.example (mail-gateway) id 1r7hq2x0.1; now\r\n",
        b"Thread-Topic: by gw.example (mail-gateway) id 1r7hq2x0.1; now\r\n",
        b'To: "by gw.example (mail-gateway) id 1r7hq2x0.1" <a@b.example>\r\n',
        b"Received: by gw.example (postfix) id 1r7hq2x0.1;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1.2;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1abc;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0;\r\n",
        b"Received: by gw.example (mail-gateway) id uuuuuuuu.1;\r\n",
        b"Received: by gw.example (mail-gateway)\r\nid 1r7hq2x0.1;\r\n",
        b"",
    ],
    ids=["subject", "topic", "name", "postfix", "dotted", "letters", "no-attempt", "no-id", "cut", "empty"],
)
def test_what_people_write_and_what_others_trace_is_no_trace(header: bytes) -> None:
    assert traces(header) == []


@pytest.mark.parametrize(
    "header",
    [
        b"Received: " + b"by " * 200_000 + b"(mail-gateway)",
        b"Received: by" + b" " * 500_000 + b"(mail-gateway)",
        b"Received: by " + b"x" * 500_000 + b" (mail-gateway)",
        b"Received: " + b"by x (mail-gateway) id 1r7hq2x0.1; " * 20_000,
        b"Received:\r\n" + b" \r\n" * 100_000 + b"(mail-gateway)",
        b"A:" * 200_000 + b"(mail-gateway)",
    ],
    ids=["words", "spaces", "a-long-host", "many-traces", "empty-folds", "colons"],
)
def test_a_hostile_header_costs_no_more_than_its_length(header: bytes) -> None:
    begun = time.process_time()
    assert len(traces(header)) <= 20
    assert time.process_time() - begun < 1.0


# --- what a look means -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doubt:
    outbox: int = ID
    why: str = "uncertain"
    attempt: int = 2
    tried_at: int = NOW
    absent_at: int | None = None
    recipients_of_message: int = 2


def sight(*seen: tuple[int, int, int], complete: bool = True) -> Sight:
    """(queue id, attempt, seconds after the attempt in doubt)"""
    dates = [Trace(id, attempt, datetime.fromtimestamp(NOW / 1000 + after, UTC)) for id, attempt, after in seen]
    return Sight.of(dates, complete)


LATER = (ID + 1, 1, 30)


@pytest.mark.parametrize("provider_files", [True, False])
def test_a_copy_of_this_very_attempt_settles_it(provider_files: bool) -> None:
    assert judge(Doubt(), sight((ID, 2, 0)), NOW + MINUTE, provider_files) == Settled(sent=True)
    late = replace(Doubt(), absent_at=NOW + MINUTE)  # between the two looks the copy has come
    assert judge(late, sight(LATER, (ID, 2, 0)), NOW + HOUR, provider_files) == Settled(sent=True)
    undated = Sight.of([Trace(ID, 2, None)], False)
    assert judge(Doubt(), undated, NOW + MINUTE, provider_files) == Settled(sent=True)


def test_a_copy_of_another_attempt_at_the_same_message_is_none() -> None:
    """A greylisted second recipient: the first one's attempt has left its copy, with the same Message-ID."""
    verdict = judge(Doubt(attempt=2), sight((ID, 1, -60), (ID, 3, 60)), NOW + MINUTE, True)
    assert verdict == Open(True, NOW + MINUTE + APART_MS, "no copy")


def test_absence_takes_two_looks_five_minutes_apart() -> None:
    first = judge(Doubt(), sight(LATER), NOW + MINUTE, True)
    assert first == Open(True, NOW + 6 * MINUTE, "no copy")
    seen_once = Doubt(absent_at=NOW + MINUTE)
    assert judge(seen_once, sight(LATER), NOW + 6 * MINUTE - 1, True) == Open(True, NOW + 6 * MINUTE, "no copy")
    assert judge(seen_once, sight(LATER), NOW + 6 * MINUTE, True) == Settled(sent=False)


@pytest.mark.parametrize(
    "seen",
    [sight(), sight((ID + 1, 1, -30)), sight((ID + 1, 1, 0)), Sight.of([Trace(ID + 1, 1, None)], True)],
    ids=["nothing", "earlier", "the-same-moment", "undated"],
)
def test_without_a_later_message_in_sight_absence_is_not_counted(seen: Sight) -> None:
    for doubt in (Doubt(), Doubt(absent_at=NOW + MINUTE)):
        verdict = judge(doubt, seen, NOW + HOUR, True)
        assert isinstance(verdict, Open)
        assert (verdict.absent, verdict.because) == (False, "nothing later")


def test_where_not_everything_was_seen_absence_is_not_counted() -> None:
    verdict = judge(Doubt(absent_at=NOW), sight(LATER, complete=False), NOW + HOUR, True)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "not all seen")


def test_where_the_provider_keeps_no_copies_absence_means_nothing() -> None:
    verdict = judge(Doubt(absent_at=NOW), sight(LATER), NOW + HOUR, False)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "no copies kept")


def test_the_looks_grow_rare() -> None:
    ages = []
    now = NOW
    for _ in range(124):
        verdict = judge(Doubt(), sight(), now, True)
        assert isinstance(verdict, Open)
        now = verdict.next_at
        ages.append((now - NOW) // MINUTE)
    assert ages[:7] == [1, 5, 15, 60, 120, 180, 240]
    assert ages[-2] - ages[-3] == 60
    assert ages[-1] - ages[-2] == 24 * 60, "after five days once a day, for ever: a person may have forgotten it"


# --- after an old copy of the store was restored ---------------------------------------------------------------------

RESTORED = Doubt(why="restored", attempt=4, recipients_of_message=1)


def test_after_a_restore_every_later_attempt_counts() -> None:
    assert judge(RESTORED, sight((ID, 7, 5)), NOW + MINUTE, True) == Settled(sent=True)
    assert judge(RESTORED, sight((ID, 5, -9000)), NOW + MINUTE, False) == Settled(sent=True)
    earlier = judge(RESTORED, sight((ID, 4, -9000), LATER), NOW + MINUTE, True)
    assert earlier == Open(True, NOW + 6 * MINUTE, "no copy"), "what the backup knows of already proves nothing new"


def test_after_a_restore_nobody_knows_whom_an_attempt_went_to() -> None:
    verdict = judge(replace(RESTORED, recipients_of_message=3), sight((ID, 5, 5), LATER), NOW + HOUR, True)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "sent to some")


def test_what_was_not_sent_since_the_restored_copy_is_let_go() -> None:
    doubt = replace(RESTORED, absent_at=NOW + MINUTE, recipients_of_message=3)
    assert judge(doubt, sight(LATER), NOW + 6 * MINUTE, True) == Settled(sent=False)


def test_ids_in_traces_are_those_that_people_see() -> None:
    for number in (1, 31, 32, ID, (1 << 46) - 1):
        assert [trace.queue_id for trace in traces(trace_field("gw", number, 1, NOW))] == [number], show_id(number)
