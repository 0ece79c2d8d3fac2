"""The judge of the loop rig is tested before it is believed: it finds each thing that may go wrong, and nothing where
nothing did.
"""

from __future__ import annotations

from email.utils import formatdate

import pytest

from tests.support.loops import Evidence, Sighting, judge, most_within

WE, ANN, BOB, MACHINE = "team@us.example", "ann@people.example", "robert@people.example", "desk@machine.example"
ECHO = "echo1@wall.example"
NOON = 1_795_000_000.0


def letter(author: str, to: str, at: float, number: int = 1, *fields: str, path: str | None = None) -> Sighting:
    lines = [
        f"From: {author}",
        f"To: {to}",
        f"Message-ID: <{number}@{author}>",
        f"Date: {formatdate(NOON + at)}",
        *fields,
    ]
    raw = "\r\n".join(["Subject: Hello", *lines, "", "Text."]).encode()
    return Sighting(NOON + at + 0.3, author if path is None else path, (to,), raw)


def answer(
    to: str, at: float, number: int = 1, *, of: str = "", marks: str = "auto-replied", suppress: str = "All"
) -> Sighting:
    asked = of or f"<{number}@{to}>"
    fields = [f"Auto-Submitted: {marks}", f"X-Auto-Response-Suppress: {suppress}"]
    return letter(
        WE, to, at, 1000 * len(to) + number, *fields, f"In-Reply-To: {asked}", f"References: {asked}", path=""
    )


def complaints(*sightings: Sighting, most: int = 10, due: tuple[tuple[str, str], ...] = ()) -> set[str]:
    found = judge(Evidence(sightings, {WE: most}, 20.0, due, ("echo",)))
    return {trouble.partition(":")[0] for trouble in found.wrong}


ANN_WROTE, BOB_WROTE = letter(ANN, WE, 0.0), letter(BOB, WE, 1.0)
AGAIN = [letter(ANN, WE, 20.0 * number, number) for number in range(1, 6)]
MACHINE_WROTE = letter(MACHINE, WE, 0.0, 1, "Auto-Submitted: auto-generated")
PROVOKED = letter(MACHINE, WE, 2.0, 2, "Auto-Submitted: auto-replied", f"In-Reply-To: <{1000 * len(MACHINE) + 1}@{WE}>")


def test_one_answer_each_and_again_in_the_next_period_is_how_it_should_be() -> None:
    answers = [answer(ANN, 20.0 * number, number) for number in range(1, 6)]
    assert not complaints(*AGAIN, *answers, BOB_WROTE, answer(BOB, 1.5), due=((WE, ANN), (WE, BOB)))


@pytest.mark.parametrize(
    ("sightings", "complaint"),
    [
        pytest.param([ANN_WROTE, AGAIN[1], answer(ANN, 0), answer(ANN, 41, 2), answer(ANN, 59, 3, of=f"<2@{ANN}>")],
                     "twice in a period", id="twice"),
        pytest.param([*AGAIN, *(answer(ANN, 20 + 19 * number, number) for number in range(1, 6))],
                     "more than periods", id="a-little-too-soon-each-time"),
        pytest.param([MACHINE_WROTE, answer(MACHINE, 1)], "answered a machine", id="machine"),
        pytest.param([ANN_WROTE, answer(ANN, 1, of="<unknown@people.example>")], "out of the blue", id="unasked"),
        pytest.param([ANN_WROTE, answer(BOB, 1, of=f"<1@{ANN}>")], "somebody else", id="somebody-else"),
        pytest.param([ANN_WROTE, answer(ANN, 1, marks="auto-generated")], "unmarked", id="the-wrong-mark"),
        pytest.param([ANN_WROTE, answer(ANN, 1, suppress="OOF")], "unmarked", id="not-suppressing"),
        pytest.param([ANN_WROTE, answer(ANN, 1), answer(ANN, 1)], "passed twice", id="sent-twice"),
        pytest.param([letter(ECHO, WE, 0), answer(ECHO, 1)], "answered its own echo", id="echo"),
        pytest.param([letter(MACHINE, WE, 0.0), answer(MACHINE, 1), PROVOKED], "provoked a machine", id="provoking"),
        pytest.param([ANN_WROTE, Sighting(NOON + 99, "", (ANN,), answer(ANN, 1).raw)], "misdated", id="late"),
        pytest.param([ANN_WROTE, Sighting(NOON + 1, ANN, (ANN,), answer(ANN, 1).raw)], "return path", id="path"),
        pytest.param([ANN_WROTE, Sighting(NOON + 1, "", (ANN, BOB), answer(ANN, 1).raw)], "recipients", id="two"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_found(sightings: list[Sighting], complaint: str) -> None:
    assert complaint in complaints(*sightings)


def test_too_many_answers_in_all_and_none_at_all_are_found() -> None:
    both = [ANN_WROTE, BOB_WROTE, answer(ANN, 2), answer(BOB, 2)]
    assert complaints(*both, most=1) == {"too many"}
    assert complaints(ANN_WROTE, BOB_WROTE, answer(ANN, 2), due=((WE, ANN), (WE, BOB))) == {"silent"}


def test_the_table_has_a_line_for_each_pair() -> None:
    found = judge(Evidence([ANN_WROTE, answer(ANN, 1), AGAIN[1], answer(ANN, 41, 2)], {WE: 9}, 20.0))
    (line,) = [line.split() for line in found.table(20.0).splitlines() if WE in line]
    assert line == [WE, ANN, "2", "1", "40", "s"]


def test_a_stretch_does_not_hold_its_end() -> None:
    assert most_within([0.0, 20.0, 25.0], 20.0) == 2
    assert most_within([0.0, 20.0, 40.0], 20.0) == 1
    assert most_within([], 20.0) == 0
