"""What an explanation tells of a condition: every part, its value, its answer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import All, AnyOf, Not, Test
from gateway.mime.scan import scan
from gateway.model import Authentication, Findings, MessageClass
from gateway.rules.match import Compiler, Evidence
from gateway.rules.telling import NO_CONDITION, tell_each

RAW = b"From: Ana <ana@bank.example>\r\nSubject: Your invoice\r\n\r\nbody\r\n"
SUBJECT = Test("subject", ("*invoice*",))
SENDER = Test("from", ("*@shop.example",))
SPF = Test("spf", ("pass",))


def told(condition: Any, findings: Findings | None = None) -> str:
    compiler = Compiler()
    node = compiler.compile(condition)
    compiler.finish()
    return tell_each(node, Evidence(scan(RAW), 10, MessageClass.HUMAN, findings or Findings()))


YES = 'yes: subject "Your invoice" matches *invoice*'
NO = 'no: from "ana@bank.example, Ana <ana@bank.example>" matches none of *@shop.example'


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        pytest.param(All(()), NO_CONDITION, id="none"),
        pytest.param(SUBJECT, YES, id="one"),
        pytest.param(All((SUBJECT, SENDER)), f"{YES}; {NO}", id="all"),
        pytest.param(AnyOf((SUBJECT, SENDER)), f"yes: any of ({YES}; {NO})", id="any"),
        pytest.param(Not(SENDER), f"yes: not ({NO})", id="not"),
        pytest.param(
            AnyOf((All((SUBJECT, SENDER)), SPF)),
            f"unknown: any of (no: all of ({YES}; {NO}); unknown: spf is not known)",
            id="nested",
        ),
        pytest.param(Not(SPF), "unknown: not (unknown: spf is not known)", id="unknown"),
    ],
)
def test_every_part_is_told_with_its_value_and_its_answer(condition: Any, words: str) -> None:
    assert told(condition) == words


def test_what_was_found_out_is_told_with_whose_word_it_is() -> None:
    assert told(SPF, Findings(authentication=Authentication(spf="fail", by="mx.example"))) == (
        "no: spf is fail, says mx.example"
    )
