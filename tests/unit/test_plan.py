"""How a listing is taken in: together, alone, in parts, later, or not at all."""

from __future__ import annotations

from datetime import timedelta

from gateway.inbound.plan import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    PART_BYTES,
    Pass,
    Planned,
    Take,
    plan,
    retry_after,
    split,
    unchained,
)

LARGEST = 10_000_000


def test_what_is_owed_is_asked_for_at_growing_distances() -> None:
    assert [retry_after(tries) for tries in (0, 1, 2, 5, 99)] == [
        timedelta(minutes=minutes) for minutes in (1, 1, 5, 240, 240)
    ]


def uids(steps: list[Take | Pass]) -> list[list[int]]:
    return [[message.uid for message in step.messages] for step in steps]


def test_a_batch_ends_at_its_bytes_or_its_number() -> None:
    third = BATCH_BYTES // 3
    steps = list(plan(LARGEST, 0, [(uid, third) for uid in range(1, 8)], (), {}))
    assert uids(steps) == [[1, 2, 3], [4, 5, 6], [7]]
    assert [step.total_bytes for step in steps if isinstance(step, Take)] == [3 * third, 3 * third, third]
    many = list(plan(LARGEST, 0, [(uid, 1) for uid in range(1, BATCH_MESSAGES + 2)], (), {}))
    assert [len(step.messages) for step in many] == [BATCH_MESSAGES, 1]


def test_a_huge_message_comes_alone() -> None:
    steps = list(plan(LARGEST, 0, [(1, 10), (2, 3 * BATCH_BYTES), (3, 10)], (), {}))
    assert uids(steps) == [[1], [2], [3]]


def test_what_is_known_or_too_large_is_passed_over_in_its_place() -> None:
    steps = list(plan(LARGEST, 4, [(5, 10), (6, 10_000_001), (7, 10), (9, 10), (10, 10)], {7, 9}, {}))
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
    assert [len(step.messages) for step in plan(LARGEST, 0, sizes, (), once)] == [25, 15, 20]
    twice = {1: 2, 2: 3, 3: 4}
    steps = list(plan(LARGEST, 0, sizes[:4], (), twice))
    assert uids(steps) == [[1], [2], [3], [4]]
    given_up = steps[2]
    assert isinstance(given_up, Pass)
    assert given_up.reason is not None
    assert not given_up.hopeless


def test_a_step_that_is_unchained_moves_no_cursor() -> None:
    assert unchained(Take((Planned(7, 10, 3), Planned(9, 10, 7)))) == Take((Planned(7, 10, 7), Planned(9, 10, 9)))


def test_what_comes_in_parts_is_alone_and_large() -> None:
    steps = list(plan(LARGEST, 0, [(1, PART_BYTES), (2, PART_BYTES + 1), (3, 10)], (), {}))
    assert [isinstance(step, Take) and step.in_parts for step in steps] == [False, True, False]


def test_a_batch_without_room_comes_in_small_ones() -> None:
    batch = Take(tuple(Planned(uid, 100, uid - 1) for uid in range(1, 8)))
    assert uids(list(split(batch, 250))) == [[1, 2], [3, 4], [5, 6], [7]]
    assert uids(list(split(batch, 1))) == [[1], [2], [3], [4], [5], [6], [7]]
