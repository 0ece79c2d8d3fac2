"""How long a wrong password has to wait for its answer."""

from __future__ import annotations

from gateway.outbound.patience import Patience

HOME, OFFICE = "192.0.2.1", "192.0.2.2"
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_it_grows_with_each_failure_and_ends_with_a_good_login() -> None:
    clock = Clock()
    patience = Patience(clock)
    assert [patience.failed(HOME, "ana", is_known=True) for _ in range(7)] == [0.5, 1, 2, 4, 8, 16, 16]
    patience.succeeded(HOME, "ana")
    assert patience.failed(HOME, "ana", is_known=True) == 0.5
    assert patience.failed(HOME, "ana", is_known=True) == 1
    clock.seconds = 901
    assert patience.failed(HOME, "ana", is_known=True) == 0.5


def test_another_login_and_another_place_begin_anew() -> None:
    patience = Patience(Clock())
    for _ in range(5):
        patience.failed(HOME, "ana", is_known=True)
    assert patience.failed(HOME, "ben", is_known=True) == 0.5
    assert patience.failed(OFFICE, "ana", is_known=True) == 0.5


def test_logins_that_do_not_exist_are_counted_together() -> None:
    patience = Patience(Clock())
    assert [patience.failed(HOME, f"name{n}", is_known=False) for n in range(6)] == [0.5, 1, 2, 4, 8, 16]
    assert patience.failed(OFFICE, "name", is_known=False) == 0.5


def test_the_wait_does_not_tell_which_logins_exist() -> None:
    patience = Patience(Clock())
    for n in range(6):
        patience.failed(HOME, f"name{n}", is_known=False)
    assert patience.failed(HOME, "ana", is_known=True) == patience.failed(HOME, "none", is_known=False) == 16


def test_where_somebody_has_logged_in_nobody_is_counted_together() -> None:
    clock = Clock()
    patience = Patience(clock)
    for n in range(6):
        patience.failed(OFFICE, f"name{n}", is_known=False)
    patience.succeeded(OFFICE, "ana")
    assert [patience.failed(OFFICE, f"other{n}", is_known=False) for n in range(4)] == [0.5] * 4
    assert patience.failed(OFFICE, "ben", is_known=True) == 0.5
    clock.seconds = DAY + 1  # and then it is a place like any other again
    assert [patience.failed(OFFICE, f"third{n}", is_known=False) for n in range(3)] == [0.5, 1, 2]


def test_a_good_place_does_not_help_to_guess_at_one_login() -> None:
    patience = Patience(Clock())
    patience.succeeded(OFFICE, "ben")
    assert [patience.failed(OFFICE, "ana", is_known=True) for _ in range(6)][-1] == 16


def test_what_is_remembered_is_bounded() -> None:
    patience = Patience(Clock())
    for n in range(20_001):
        patience.failed(f"place{n}", f"name{n}", is_known=False)
    assert len(patience._failures) == len(patience._strangers) == 10_000
