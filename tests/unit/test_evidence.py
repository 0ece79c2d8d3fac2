"""What a look into Sent says about an attempt whose answer never came."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from gateway.inbound.evidence import THINKING_MS, Open, Settled, Sight, judge
from gateway.mime.trace import Trace
from gateway.model import read_id, to_ms

ID = read_id("1r7hq2x0") or 0
AT = datetime(2026, 11, 23, 10, 0, 7, tzinfo=UTC)
NOW = to_ms(AT)
MINUTE = 60_000
HOUR = 60 * MINUTE


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
    return Sight.of(dates, complete, NOW + HOUR)


LATER = (ID + 1, 1, 30)


@pytest.mark.parametrize("provider_files", [True, False])
def test_a_copy_of_this_very_attempt_settles_it(provider_files: bool) -> None:
    assert judge(Doubt(), sight((ID, 2, 0)), NOW + MINUTE, provider_files) == Settled(sent=True)
    late = replace(Doubt(), absent_at=NOW + MINUTE)  # between the two looks the copy has come
    assert judge(late, sight(LATER, (ID, 2, 0)), NOW + HOUR, provider_files) == Settled(sent=True)
    undated = Sight.of([Trace(ID, 2, None)], False, NOW)
    assert judge(Doubt(), undated, NOW + MINUTE, provider_files) == Settled(sent=True)


def test_a_copy_of_another_attempt_at_the_same_message_is_none() -> None:
    """A greylisted second recipient: the first one's attempt has left its copy, with the same Message-ID."""
    verdict = judge(Doubt(attempt=2), sight((ID, 1, -60), (ID, 3, 60)), NOW + MINUTE, True)
    assert verdict == Open(True, NOW + THINKING_MS, "no copy")


def test_absence_takes_two_looks_five_minutes_apart() -> None:
    first = judge(Doubt(), sight(LATER), NOW + 8 * MINUTE, True)
    assert first == Open(True, NOW + 13 * MINUTE, "no copy")
    seen_once = Doubt(absent_at=NOW + 8 * MINUTE)
    assert judge(seen_once, sight(LATER), NOW + 13 * MINUTE - 1, True) == Open(True, NOW + 13 * MINUTE, "no copy")
    assert judge(seen_once, sight(LATER), NOW + 13 * MINUTE, True) == Settled(sent=False)


def test_a_message_is_not_absent_while_the_provider_may_still_think_about_it() -> None:
    """We were killed behind the dot, and a scanner takes its time: what it takes in the end must not be sent again."""
    first = judge(Doubt(), sight(LATER), NOW + MINUTE, True)
    assert first == Open(True, NOW + 10 * MINUTE, "no copy")
    seen_once = Doubt(absent_at=NOW + MINUTE)
    assert judge(seen_once, sight(LATER), NOW + 7 * MINUTE, True) == Open(True, NOW + 10 * MINUTE, "no copy")
    assert judge(seen_once, sight(LATER), NOW + 10 * MINUTE, True) == Settled(sent=False)


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


def test_a_copy_that_a_wrong_clock_has_dated_ahead_is_no_later_message() -> None:
    """It may have been there before the attempt, and then it does not show that copies come today."""
    ahead = sight((ID + 1, 1, 2 * 3600))
    verdict = judge(Doubt(absent_at=NOW), ahead, NOW + HOUR, True)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "nothing later")


def test_where_not_everything_was_seen_absence_is_not_counted() -> None:
    verdict = judge(Doubt(absent_at=NOW), sight(LATER, complete=False), NOW + HOUR, True)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "not all seen")


def test_where_one_copy_stands_for_all_attempts_absence_is_not_counted() -> None:
    """Gmail: "if a similar message is in Sent, nothing is done", whoever put it there."""
    seen = replace(sight((ID, 1, -60), LATER), merged=frozenset({ID}))
    verdict = judge(Doubt(absent_at=NOW), seen, NOW + HOUR, True)
    assert isinstance(verdict, Open)
    assert (verdict.absent, verdict.because) == (False, "one copy of all")
    assert judge(Doubt(), replace(seen, attempts={ID: frozenset({2})}), NOW + HOUR, True) == Settled(sent=True)


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
