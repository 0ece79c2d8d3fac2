"""Conditions about what was found out beyond the header: each with what it knows, and with what nobody knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.config.conditions import If
from gateway.config.hours import parse_opening
from gateway.config.rules_file import Hours
from gateway.mime.scan import scan
from gateway.model import NO_FINDINGS, Attachment, Authentication, Findings, MessageClass, Score
from gateway.rules.match import _MANY, Compiler, Evidence, Need, Node, is_costly, needs_of

UTC_ZONE = ZoneInfo("UTC")
MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RAW = b"From: Ana <ana@bank.example>\r\nReturn-Path: <bounce+7@mailer.example>\r\nSubject: x\r\n\r\n"
NULL = b"From: Ana <ana@bank.example>\r\nReturn-Path: <>\r\n\r\n"
NOT_NOTED = b"From: Ana <ana@bank.example>\r\n\r\n"
PDF = Attachment("Rechnung.PDF", "application/pdf", 10)
NAMELESS = Attachment("", "image/png", 10)

KNOWN = Findings(
    at=MONDAY_NOON,
    authentication=Authentication(spf="pass", dkim="none", dmarc="fail", by="mx.example"),
    score=Score(6.5, "rspamd"),
    known_sender=True,
    attachments=(PDF, NAMELESS),
    body="please CANCEL my contract\nplease cancel my contract today",
)


def compiled(written: dict[str, Any]) -> Node:
    office = Hours(timezone=UTC_ZONE, open=(parse_opening("mon-fri 09:00-18:00"),))
    night = Hours(timezone=UTC_ZONE, open=(parse_opening("mon-sun 22:00-06:00"),))
    compiler = Compiler({"office": office, "night": night})
    node = compiler.compile(If.model_validate(written).tree)
    compiler.finish()
    return node


def evidence(findings: Findings = KNOWN, raw: bytes = RAW) -> Evidence:
    return Evidence(scan(raw), 10, MessageClass.HUMAN, findings)


@pytest.mark.parametrize(
    ("written", "expected", "words"),
    [
        ({"return_path": "*@mailer.example"}, True, 'return_path "bounce+7@mailer.example" matches *@mailer.example'),
        ({"return_path": "*@bank.example"}, False, "matches none of *@bank.example"),
        ({"return_path": "<>"}, False, "matches none of <>"),
        ({"body": "*cancel*"}, True, 'body "please CANCEL my contract" matches *cancel*'),
        ({"body": "*cancel my contract"}, True, "matches *cancel my contract"),
        ({"body": "*today"}, True, "matches *today"),
        ({"body": "cancel"}, False, "matches none of cancel"),
        ({"body": "*please*contract*"}, True, "matches *please*contract*"),
        ({"body": "*today*please*"}, False, "matches none of *today*please*"),
        ({"body": "/contract$/"}, True, "matches /contract$/"),
        ({"body": "/contract today please/"}, False, "matches none of"),
        ({"body": "pl?ase*"}, True, "matches pl?ase*"),
        ({"attachment_name": "*.pdf"}, True, 'attachment_name "Rechnung.PDF" matches *.pdf'),
        ({"attachment_name": ["*.exe", "*.zip"]}, False, "matches none of *.exe, *.zip"),
        ({"attachment_type": "image/*"}, True, 'attachment_type "image/png" matches image/*'),
        ({"has_attachment": True}, True, "it has 2: Rechnung.PDF, image/png"),
        ({"has_attachment": False}, False, "it has 2: Rechnung.PDF, image/png"),
        ({"spf": "pass"}, True, "spf is pass, says mx.example"),
        ({"dkim": ["pass", "none"]}, True, "dkim is none, says mx.example"),
        ({"dmarc": "pass"}, False, "dmarc is fail, says mx.example"),
        ({"spam_score_over": 6.4}, True, "spam score 6.5 is over 6.4"),
        ({"spam_score_over": 6.5}, False, "spam score 6.5 is not over 6.5"),
        ({"known_sender": True}, True, "the sender is known"),
        ({"known_sender": False}, False, "the sender is known"),
        ({"hours": "office:open"}, True, "at 2026-11-23 12:00 UTC office is open"),
        ({"hours": "office:closed"}, False, "at 2026-11-23 12:00 UTC office is open"),
        ({"hours": ["office:closed", "night:closed"]}, True, "office is open, night is closed"),
    ],
    ids=str,
)
def test_what_was_found_out_answers(written: dict[str, Any], expected: bool, words: str) -> None:
    node, seen = compiled(written), evidence()
    assert node.holds(seen) is expected
    assert words in node.tell(seen)
    negated = compiled({"not": written})
    assert negated.holds(evidence()) is not expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"return_path": "*"}, "return_path is not known"),
        ({"body": "*"}, "body is not known"),
        ({"attachment_name": "*"}, "attachment_name is not known"),
        ({"attachment_type": "*"}, "attachment_type is not known"),
        ({"has_attachment": False}, "has_attachment is not known"),
        ({"spf": "none"}, "spf is not known"),
        ({"dkim": "none"}, "dkim is not known"),
        ({"dmarc": "none"}, "dmarc is not known"),
        ({"spam_score_over": -100}, "the spam score is not known"),
        ({"known_sender": False}, "whether the sender is known was not found out"),
        ({"hours": "office:open"}, "when it was judged is not known"),
    ],
    ids=str,
)
def test_what_was_not_found_out_neither_holds_nor_is_denied(written: dict[str, Any], words: str) -> None:
    for asked in (written, {"not": written}):
        assert compiled(asked).holds(evidence(NO_FINDINGS, NOT_NOTED)) is None
    assert words in compiled(written).tell(evidence(NO_FINDINGS, NOT_NOTED))


def test_the_null_return_path_is_written_as_angle_brackets() -> None:
    assert compiled({"return_path": "<>"}).holds(evidence(raw=NULL)) is True
    assert compiled({"return_path": "*@*"}).holds(evidence(raw=NULL)) is False


def test_a_message_without_attachments_or_text_is_known_to_have_none() -> None:
    bare = Findings(attachments=(), body="")
    for written in ({"attachment_name": "*"}, {"attachment_type": "*"}, {"body": "*"}, {"has_attachment": True}):
        assert compiled(written).holds(evidence(bare)) is False
    assert compiled({"has_attachment": False}).holds(evidence(bare)) is True


def test_why_there_is_no_score_is_told() -> None:
    silent = Findings(no_score="rspamd does not answer")
    told = compiled({"spam_score_over": 1}).tell(evidence(silent))
    assert told == "the spam score is not known: rspamd does not answer"


def test_one_result_that_was_not_looked_at_is_not_none() -> None:
    partly = Findings(authentication=Authentication(spf="pass", by="us"))
    assert compiled({"spf": "pass"}).holds(evidence(partly)) is True
    assert compiled({"dmarc": "none"}).holds(evidence(partly)) is None


def test_many_patterns_of_bodies_are_asked_together_and_answer_as_alone() -> None:
    compiler = Compiler()
    patterns = [f"*order {number} *" for number in range(_MANY * 5)] + ["*a*b*", "please*", "*STRASSE"]
    nodes = [compiler.compile(If.model_validate({"body": one}).tree) for one in patterns]
    compiler.finish()
    for body, expected in (
        ("order 7 and order 3 are", {"*order 7 *", "*order 3 *"}),
        ("Please, xbxax\naxxb", {"please*", "*a*b*"}),
        ("in der Straße", {"*STRASSE"}),
        ("nothing", set()),
    ):
        seen = evidence(Findings(body=body))
        assert {pattern for pattern, node in zip(patterns, nodes, strict=True) if node.holds(seen)} == expected


@pytest.mark.parametrize("answer", [None, []], ids=["none", "empty"])
def test_a_set_of_literals_that_gives_up_is_not_believed(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    nodes = [compiler.compile(If.model_validate({"body": f"*{number}x*"}).tree) for number in range(_MANY)]
    compiler.finish()

    class OutOfMemory:
        def Match(self, text: str) -> object:
            return answer

    assert compiler._literals["body"]._set is not None
    monkeypatch.setattr(compiler._literals["body"], "_set", OutOfMemory())
    seen = evidence(Findings(body="1x and 3x"))
    assert [number for number, node in enumerate(nodes) if node.holds(seen)] == [1, 3]


@pytest.mark.parametrize(
    ("written", "needs"),
    [
        ({"subject": "x", "return_path": "*", "hours": "office:open", "class": "human"}, set()),
        ({"body": "x"}, {Need.BODY}),
        ({"any": [{"attachment_type": "x"}, {"not": {"spf": "pass"}}]}, {Need.ATTACHMENTS, Need.AUTHENTICATION}),
        ({"all": [{"known_sender": True}], "spam_score_over": 1}, {Need.KNOWN_SENDER, Need.SCORE}),
    ],
    ids=["header", "body", "any and not", "all"],
)
def test_a_condition_says_what_it_needs(written: dict[str, Any], needs: set[Need]) -> None:
    assert needs_of(If.model_validate(written).tree) == needs


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"subject": ["*a*", "b*c"], "from": "x"}, False),
        ({"size_over": 10, "spf": "pass"}, False),
        ({"subject": "/a/"}, True),
        ({"any": [{"from": "x"}, {"not": {"to": ["x", "a?c"]}}]}, True),
        ({"body": "*a*"}, True),
    ],
    ids=str,
)
def test_what_may_take_long_is_known_before(written: dict[str, Any], expected: bool) -> None:
    assert is_costly(If.model_validate(written).tree) is expected
