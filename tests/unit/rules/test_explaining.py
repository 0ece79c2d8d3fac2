"""Judging again: the words of a trail are read as they are written, and what was added to a verdict is added again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.config.rules_file import RulesFile
from gateway.mime.scan import scan
from gateway.model import Findings, MessageClass, Placeholder, Step, Verdict
from gateway.rules.chain import Chain
from gateway.rules.conversation import place
from gateway.rules.explaining import (
    Case,
    deciding,
    existing_queues,
    judge,
    lay_in_junk,
    outcome_of,
    recorded,
    same_place,
    was_unread,
    with_other_rules,
)

LETTER = b"From: ana@bank.example\r\nSubject: Your invoice\r\n\r\nbody\r\n"
REPORT = (
    b"From: MAILER-DAEMON@mx.example\r\nReturn-Path: <>\r\nSubject: Undelivered\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\nbody\r\n"
)
HUMAN = Verdict(MessageClass.HUMAN, ("new", "second"))


def file_of(*rules: dict[str, Any]) -> RulesFile:
    named = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules, 1)]
    touchpoint = {"id": "support", "address": "support@example.com", "name": "S", "linked_queues": ["support"]}
    return RulesFile.model_validate({"touchpoint": [touchpoint], "rule": named})


def chain_of(file: RulesFile) -> Chain:
    return Chain(file.rules, {each.id: each for each in file.touchpoints})


def case(raw: bytes = LETTER, **changes: Any) -> Case:
    return replace(Case("support", scan(raw), len(raw)), **changes)


@pytest.mark.parametrize("existing", [("here",), ("here", "there")])
@pytest.mark.parametrize("reroute", [False, True])
def test_the_queues_of_a_conversation_are_read_as_placing_has_written_them(
    existing: tuple[str, ...], reroute: bool
) -> None:
    verdict = replace(HUMAN, reroute=reroute)
    queues, step = place(verdict, existing)
    assert step is not None
    assert existing_queues([step]) == existing
    trail = [Step("queues", "rules say so", "new, second"), step]
    assert recorded(trail, MessageClass.HUMAN, discarded=False).queues == queues == outcome_of(verdict, existing).queues


def test_a_message_that_continues_nothing_has_no_queues_to_stay_in() -> None:
    assert existing_queues([Step("queues", "rules say so", "new")]) == ()


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param(["human", "support"], False, id="never"),
        pytest.param(["quarantine"], True, id="list"),
        pytest.param(["queue a, quarantine, stop"], True, id="rule"),
        pytest.param(["quarantine", "tag x, no quarantine"], False, id="taken-back"),
        pytest.param(["quarantine", "no quarantine: the sender is on the allowlist"], False, id="allowed"),
        pytest.param(["queue quarantined"], False, id="a-name-like-it"),
    ],
)
def test_what_a_trail_says_of_quarantine_is_understood(verdicts: list[str], expected: bool) -> None:
    trail = [Step("rule x", "", verdict) for verdict in verdicts]
    assert recorded(trail, MessageClass.HUMAN, discarded=False).quarantine is expected


def test_a_report_about_mail_of_ours_stays_out_of_quarantine() -> None:
    proof = Step("provider", "it lies in the provider's Junk, and is about mail of ours", "no quarantine")
    about = Step("bounce", "about 1abc", "joined to what it is about")
    chain = chain_of(file_of())
    again = judge(chain, case(REPORT, is_junk=True, trail=(about, proof)), ["support"])
    assert not again.quarantine
    assert [one for one in again.trail if one in (about, proof)] == [about, proof]
    assert judge(chain, case(REPORT, is_junk=True, trail=(about,)), ["support"]).quarantine


def test_a_body_that_could_not_be_read_then_is_told_behind_the_class() -> None:
    step = Step("content", "it could not be read: the worker took too long", "not known")
    again = judge(chain_of(file_of()), case(trail=(step,)), ["support"])
    assert again.trail[1] == step
    assert was_unread([step])
    assert not was_unread([Step("content", "it is larger than we read", "known in part")])


def test_of_a_message_of_which_nothing_could_be_had_no_rule_says_anything() -> None:
    chain = chain_of(file_of({"then": {"quarantine": True}}))
    again = judge(chain, case(placeholder=Placeholder.BLIND), ["support"])
    assert again.queues == ("support",)
    assert not again.quarantine


def test_junk_is_known_from_the_trail() -> None:
    chain = chain_of(file_of())
    for is_junk in (True, False):
        for explain in (True, False):
            assert lay_in_junk(judge(chain, case(is_junk=is_junk), [], explain=explain).trail) is is_junk


def test_every_rule_has_its_place_also_those_of_other_touchpoints() -> None:
    file = file_of(
        {"touchpoints": ["a", "b"]}, {}, {"touchpoints": ["support"], "stop": True}, {"touchpoints": ["a"]}, {}
    )
    verdict = judge(chain_of(file), case(), ["support"], explain=True)
    steps = with_other_rules(verdict.trail, file.rules, "support")
    rules = [(one.step, one.verdict) for one in steps if one.step.startswith("rule ")]
    assert rules == [
        ("rule r1", "not for this touchpoint"),
        ("rule r2", "matches, and does nothing"),
        ("rule r3", "stop"),
        ("rule r4", "not for this touchpoint"),
        ("rule r5", "-"),
    ]
    assert steps[0].step == "class"
    assert steps[-1].step == "queues"
    only_others = file_of({"touchpoints": ["a"]})
    steps = with_other_rules(judge(chain_of(only_others), case(), [], explain=True).trail, only_others.rules, "support")
    assert [one.step for one in steps[-2:]] == ["rule r1", "queues"]


def test_places_are_the_same_where_a_person_would_look_in_the_same() -> None:
    here = outcome_of(HUMAN, ())
    assert same_place(here, replace(here, queues=("second", "new"), tags=("x",)))
    assert not same_place(here, replace(here, queues=("new",)))
    assert not same_place(here, replace(here, quarantine=True))
    assert same_place(replace(here, discard=True), replace(here, queues=("x",), discard=True))
    assert [one.place for one in (here, replace(here, quarantine=True), replace(here, discard=True))] == [
        *("queue new, second", "quarantine", "discarded")
    ]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        pytest.param({"queue": "a"}, "rule r2", id="queue"),
        pytest.param({"quarantine": True, "queue": "a"}, "rule r2", id="quarantine"),
        pytest.param({"discard": True}, "rule r2", id="discard"),
        pytest.param({"tags": ["x"]}, "queues", id="no-place"),
    ],
)
def test_what_decided_is_named(action: dict[str, Any], expected: str) -> None:
    verdict = judge(chain_of(file_of({"then": {"tags": ["y"]}}, {"then": action})), case(findings=Findings()), ["s"])
    assert deciding(verdict.trail, verdict) == expected
