"""A service that does not answer is left in peace for a growing while, and one message finds out whether it is back."""

from __future__ import annotations

from gateway.inbound.breaker import Breaker


def broken(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.fail("silent", now) for _ in range(3)] == [False, False, True]
    return breaker


def test_one_or_two_failures_stop_nobody() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.fail("silent", 0.0)
        breaker.fail("silent", 0.0)
        assert breaker.may_ask(0.0)
        assert not breaker.succeed(), "it was never open"


def test_after_three_in_a_row_nobody_asks_until_the_pause_is_over_and_then_one() -> None:
    breaker = broken()
    assert breaker.is_open
    assert not breaker.may_ask(9.9)
    assert breaker.may_ask(10.0)
    assert not breaker.may_ask(10.1), "one is enough to find out"
    assert breaker.succeed()
    assert breaker.may_ask(10.2)
    assert breaker.cause == ""


def test_each_try_in_vain_doubles_the_pause_up_to_five_minutes() -> None:
    breaker, now, pauses = broken(), 0.0, []
    for _ in range(8):
        began = now
        while not breaker.may_ask(now):
            now += 1.0
        pauses.append(now - began)
        breaker.fail("still silent", now)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    assert breaker.cause == "still silent"


def test_failures_of_those_that_asked_before_it_opened_do_not_prolong_it() -> None:
    breaker = broken()
    for _ in range(20):
        assert not breaker.fail("silent", 1.0)
    assert breaker.may_ask(10.0)


def test_one_that_was_let_through_and_never_told_blocks_nobody_for_good() -> None:
    breaker = broken()
    assert breaker.may_ask(10.0)  # cancelled: neither success nor failure
    assert not breaker.may_ask(19.9)
    assert breaker.may_ask(20.0)


def test_a_success_begins_all_anew() -> None:
    breaker = broken()
    breaker.may_ask(10.0)
    breaker.fail("silent", 11.0)
    breaker.succeed()
    assert [breaker.fail("silent", 12.0) for _ in range(3)] == [False, False, True]
    assert breaker.may_ask(22.0), "the first pause again"
