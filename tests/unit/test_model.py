"""Ids as people see and type them, and times as the store keeps them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import (
    Arrival,
    Envelope,
    IdSource,
    Location,
    Reply,
    Submission,
    from_ms,
    personal_queue,
    read_id,
    show_id,
    to_ms,
)

_EPOCH_2025 = datetime(2025, 1, 1, tzinfo=UTC)
_numbers = st.integers(min_value=1, max_value=(1 << 46) - 1)


# --- ids -------------------------------------------------------------------------------------------------------------


@given(_numbers)
def test_an_id_that_is_shown_reads_back_as_itself(number: int) -> None:
    assert read_id(show_id(number)) == number


@given(_numbers)
def test_an_id_is_short_and_has_no_letter_that_is_misread(number: int) -> None:
    shown = show_id(number)
    assert 7 <= len(shown) <= 10
    assert not set(shown) & set("ilou")
    assert shown == shown.lower()


@given(st.integers(1, (1 << 40) - 1), st.integers(1, (1 << 40) - 1))
def test_ids_of_one_length_sort_as_their_numbers_do(one: int, other: int) -> None:
    shown = (show_id(one), show_id(other))
    if len(shown[0]) == len(shown[1]):
        assert (shown[0] < shown[1]) == (one < other)


@given(_numbers)
def test_misread_letters_and_case_do_not_matter(number: int) -> None:
    typed = show_id(number).upper().replace("0", "O").replace("1", "I")
    assert read_id(f"  {typed}\n") == number
    assert read_id(typed.replace("I", "l")) == number


@pytest.mark.parametrize("text", ["", " ", "u", "abc-def", "0000000", "é", "../etc", "z" * 30, "1r7h q2x"])
def test_what_is_no_id_is_none(text: str) -> None:
    assert read_id(text) is None


@given(st.text(max_size=40))
def test_reading_an_id_raises_nothing_and_gives_none_or_a_number_that_is_shown_alike(text: str) -> None:
    number = read_id(text)
    assert number is None or read_id(show_id(number)) == number


def test_ids_grow_with_the_clock_and_stay_at_eight_letters_for_a_generation() -> None:
    at = datetime(2058, 6, 1, tzinfo=UTC)
    assert len(show_id(IdSource(0, lambda: to_ms(at)).next())) == 8
    assert IdSource(0, lambda: to_ms(_EPOCH_2025) + 5).next() == 5


def test_ids_grow_while_the_clock_stands_or_goes_back() -> None:
    times = iter([1000, 1000, 400, 5000])
    source = IdSource(0, lambda: to_ms(_EPOCH_2025) + next(times))
    assert [source.next() for _ in range(4)] == [1000, 1001, 1002, 5000]


def test_ids_go_on_behind_the_last_of_the_store() -> None:
    assert IdSource(9000, lambda: to_ms(_EPOCH_2025)).next() == 9001


def test_no_id_is_given_twice_to_several_threads() -> None:
    source = IdSource(0, lambda: to_ms(_EPOCH_2025))
    taken: list[list[int]] = [[] for _ in range(4)]

    def take(into: list[int]) -> None:
        into.extend(source.next() for _ in range(2000))

    threads = [threading.Thread(target=take, args=(into,)) for into in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [number for into in taken for number in into]
    assert len(set(together)) == len(together)
    assert all(into == sorted(into) for into in taken)


# --- times -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 43))
def test_a_time_of_the_store_reads_back_as_itself(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    assert from_ms(ms).utcoffset() == timedelta(0)


def test_the_same_moment_in_another_zone_is_the_same_time_of_the_store() -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert to_ms(at.astimezone(timezone(timedelta(hours=-7)))) == to_ms(at)


# --- nouns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        pytest.param(Reply(550, "5.1.1", "no such user"), "550 5.1.1 no such user", id="enhanced"),
        pytest.param(Reply(450, "", "try later"), "450 try later", id="plain"),
        pytest.param(Reply(250, "", ""), "250", id="bare"),
    ],
)
def test_a_reply_reads_as_the_server_gave_it(reply: Reply, shown: str) -> None:
    assert str(reply) == shown


def test_values_with_bytes_do_not_print_them() -> None:
    arrival = Arrival(1, "support", Location("INBOX", 1, 1), _EPOCH_2025, _EPOCH_2025, raw=b"a secret letter")
    submission = Submission(
        1, "support", "ana", Envelope("a@x.example", ("b@x.example",)), "<1@x>", "s", _EPOCH_2025, b"a secret letter"
    )
    assert "secret" not in f"{arrival!r} {submission!r}"


def test_a_personal_queue_is_named_after_the_login() -> None:
    assert personal_queue("ana@example.com") == "agent:ana@example.com"
