"""Conditions: what each is held against, and how they combine."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.conditions import All, If, Test
from gateway.mime.scan import scan
from gateway.model import MessageClass
from gateway.rules.match import FIELD_CHARACTERS, IN_FORCE, VALUE_CHARACTERS, Compiler, Evidence, Node

MESSAGE = (
    b"From: Ana Lima <Ana@Bank.example>\r\nTo: Support <support@example.com>, help@example.com\r\n"
    b"Cc: boss@customer.example\r\nSubject: =?utf-8?q?Re=3A_Your_INVOICE_17_f=C3=BCr_die_Stra=C3=9Fe?=\r\n"
    b"X-Tag: one\r\nX-Tag: Two\r\nX-Empty:\r\n\r\nbody"
)


def evidence(raw: bytes = MESSAGE, size: int = 1_000, message_class: MessageClass = MessageClass.HUMAN) -> Evidence:
    return Evidence(scan(raw), size, message_class)


def compiled(written: dict[str, Any]) -> Node:
    compiler = Compiler()
    node = compiler.compile(If.model_validate(written).tree)
    compiler.finish()
    return node


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param({}, True, id="nothing-asked"),
        # globs hold against the whole value, whatever its case
        pytest.param({"subject": "*invoice*"}, True, id="part"),
        pytest.param({"subject": "invoice"}, False, id="whole"),
        pytest.param({"subject": "RE: your invoice 17 für die straße"}, True, id="whole-without-case"),
        pytest.param({"subject": "*STRASSE"}, True, id="folding-of-sharp-s"),
        pytest.param({"subject": "re:*"}, True, id="beginning"),
        pytest.param({"subject": "your*"}, False, id="not-the-beginning"),
        pytest.param({"subject": "*straße"}, True, id="end"),
        pytest.param({"subject": "re:*17*straße"}, True, id="stars-inside"),
        pytest.param({"subject": "re:*17*17*"}, False, id="each-part-needs-its-own-place"),
        pytest.param({"subject": "*your*re:*"}, False, id="parts-in-order"),
        pytest.param({"subject": "*invoice ?7*"}, True, id="question-mark-is-one-letter"),
        pytest.param({"subject": "*invoice ?17*"}, False, id="question-mark-is-not-none"),
        pytest.param({"subject": "*f?r*"}, True, id="question-mark-for-a-letter-beyond-ascii"),
        pytest.param({"subject": "*"}, True, id="anything"),
        pytest.param({"subject": "**"}, True, id="anything-twice"),
        pytest.param({"subject": ["nothing", "*invoice*"]}, True, id="any-of-a-list"),
        pytest.param({"subject": "[re]*"}, False, id="brackets-are-letters"),
        # regular expressions are searched for
        pytest.param({"subject": "/invoice [0-9]+/"}, True, id="expression"),
        pytest.param({"subject": "/^invoice/"}, False, id="expression-anchored"),
        pytest.param({"subject": "/(?-i)invoice/"}, False, id="expression-with-case"),
        pytest.param({"subject": ["/nothing/", "/F.R/"]}, True, id="expressions-in-a-list"),
        # addresses
        pytest.param({"from": "*@bank.example"}, True, id="domain"),
        pytest.param({"from": "ana@bank.example"}, True, id="address"),
        pytest.param({"from": "*lima*"}, True, id="name"),
        pytest.param({"from": "Ana Lima"}, False, id="a-name-alone-is-no-value"),
        pytest.param({"from": "ana lima <ana@bank.example>"}, True, id="name-and-address"),
        pytest.param({"from": "/^ana@/"}, True, id="expression-on-the-address"),
        pytest.param({"to": "help@example.com"}, True, id="any-recipient"),
        pytest.param({"to": "boss@customer.example"}, False, id="cc-is-not-to"),
        pytest.param({"cc": "boss@*"}, True, id="cc"),
        # header fields
        pytest.param({"header.x-tag": "two"}, True, id="any-field-of-that-name"),
        pytest.param({"header": {"X-Tag": "one"}}, True, id="header-as-a-table"),
        pytest.param({"header.x-empty": "*"}, True, id="an-empty-field-is-there"),
        pytest.param({"header.x-empty": "/./"}, False, id="and-is-empty"),
        pytest.param({"header.x-missing": "*"}, False, id="a-missing-field-matches-nothing"),
        pytest.param({"header.x-missing": "/.*/"}, False, id="not-even-an-empty-expression"),
        pytest.param({"not": {"header.x-missing": "*"}}, True, id="not-a-missing-field"),
        # size and class
        pytest.param({"size_over": "999"}, None, id="size-over-without-a-unit"),
        pytest.param({"size_over": 999}, True, id="size-over"),
        pytest.param({"size_over": 1000}, False, id="size-not-over-itself"),
        pytest.param({"class": "human"}, True, id="class"),
        pytest.param({"class": ["list", "bounce"]}, False, id="other-classes"),
        # together
        pytest.param({"subject": "*invoice*", "from": "*@bank.example"}, True, id="all-keys"),
        pytest.param({"subject": "*invoice*", "from": "*@other.example"}, False, id="one-key-fails"),
        pytest.param({"any": [{"from": "x"}, {"subject": "*17*"}]}, True, id="any"),
        pytest.param({"any": [{"from": "x"}, {"subject": "y"}]}, False, id="any-of-none"),
        pytest.param({"all": [{"from": "*"}, {"subject": "*17*"}]}, True, id="all"),
        pytest.param({"not": [{"from": "x"}, {"subject": "*17*"}]}, False, id="not-any-of"),
        pytest.param({"not": {"from": "x"}, "subject": "*17*"}, True, id="not-beside-another"),
        # not found out: never a match, nor a match by denial
        pytest.param({"spf": "pass"}, None, id="not-known"),
        pytest.param({"not": {"spf": "pass"}}, None, id="not-of-what-is-not-known"),
        pytest.param({"spf": "pass", "subject": "*17*"}, None, id="not-known-beside-a-match"),
        pytest.param({"spf": "pass", "subject": "x"}, False, id="not-known-beside-a-miss"),
        pytest.param({"any": [{"spf": "pass"}, {"subject": "*17*"}]}, True, id="any-does-not-need-it"),
        pytest.param({"any": [{"spf": "pass"}, {"subject": "x"}]}, None, id="any-would-need-it"),
        pytest.param({"not": {"any": [{"spf": "pass"}, {"subject": "*17*"}]}}, False, id="denied-without-it"),
    ],
)
def test_a_condition_holds(written: dict[str, Any], expected: bool | None) -> None:
    if written == {"size_over": "999"}:
        with pytest.raises(ValueError, match="size"):
            compiled(written)
        return
    node, seen = compiled(written), evidence()
    assert node.holds(seen) is expected
    assert node.holds(seen) is expected, "asking does not change the answer"
    assert node.tell(seen)


def test_a_missing_subject_is_not_an_empty_one() -> None:
    for raw, expected in ((b"From: a@b\r\n\r\n", False), (b"Subject:\r\n\r\n", True)):
        assert compiled({"subject": "*"}).holds(evidence(raw)) is expected


def test_a_name_that_looks_like_an_address_is_not_one() -> None:
    raw = b'From: "ceo@bank.example" <evil@elsewhere.example>\r\n\r\n'
    assert compiled({"from": "*@bank.example"}).holds(evidence(raw)) is False
    assert compiled({"from": "ceo@bank.example"}).holds(evidence(raw)) is False


def test_a_line_end_in_a_value_cannot_pretend_to_be_two_values() -> None:
    raw = b"Subject: =?utf-8?q?a=0Ainvoice=0Ab?=\r\n\r\n"
    assert compiled({"subject": "invoice"}).holds(evidence(raw)) is False


def test_patterns_see_values_up_to_their_limits() -> None:
    long = b"X-Long: " + b"a" * (VALUE_CHARACTERS - 1) + b"zEND\r\n\r\n"
    assert compiled({"header.x-long": "*z"}).holds(evidence(long)) is True
    assert compiled({"header.x-long": "*end"}).holds(evidence(long)) is False
    many = b"X-Many: " + b"b" * 1_000 + b"\r\n"
    raw = many * (FIELD_CHARACTERS // 1_000 + 1) + b"X-Many: last\r\n\r\n"
    assert compiled({"header.x-many": "last"}).holds(evidence(raw)) is False


def test_many_expressions_are_asked_together_and_answer_as_alone() -> None:
    sources = [f"order {number}\\b" for number in range(50)] + ["(?P<a>x)", "(?P<a>y)"]
    compiler = Compiler()
    nodes = [compiler.compile(All((Test("subject", (f"/{source}/",)),))) for source in sources]
    compiler.finish()
    for subject, expected in (("Order 17 and order 3", {3, 17}), ("order", set()), ("x", {50})):
        seen = evidence(f"Subject: {subject}\r\n\r\n".encode())
        assert {number for number, node in enumerate(nodes) if node.holds(seen)} == expected


def test_expressions_that_are_too_large_together_are_asked_alone() -> None:
    compiler = Compiler()
    nodes = [compiler.compile(All((Test("subject", (f"/x{number}(?:[a-z]{{300}}){{3}}/",)),))) for number in range(300)]
    compiler.finish()
    assert nodes[0].expressions._union is None  # type: ignore[attr-defined]
    seen = evidence(b"Subject: x7" + b"a" * 900 + b"\r\n\r\n")
    assert [number for number, node in enumerate(nodes) if node.holds(seen)] == [7]


def test_a_set_that_gives_up_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    node = compiler.compile(All((Test("subject", ("/a/", "/b/")),)))
    compiler.finish()

    class OutOfMemory:
        def Match(self, text: str) -> None:
            return None

    monkeypatch.setattr(node.expressions, "_set", OutOfMemory())  # type: ignore[attr-defined]
    assert node.holds(evidence(b"Subject: b\r\n\r\n")) is True


def test_every_condition_of_the_file_can_be_asked() -> None:
    keys = {(field.alias or name) for name, field in If.model_fields.items()} - {"all", "any", "not"}
    assert keys == IN_FORCE


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"subject": ["x", "*invoice*"]}, 'subject "Re: Your INVOICE 17 für die Straße" matches *invoice*'),
        ({"subject": "x"}, 'subject "Re: Your INVOICE 17 für die Straße" matches none of x'),
        ({"from": "/lima/"}, 'from "Ana Lima <Ana@Bank.example>" matches /lima/'),
        ({"header.x-no": "*"}, "header.x-no is missing"),
        ({"size_over": 10}, "size 1000 is over 10"),
        ({"size_over": 10_000}, "size 1000 is not over 10000"),
        ({"class": "list"}, "class is human"),
        ({"spf": "pass"}, "spf is not known"),
        ({"class": "human", "size_over": 10}, "class is human; size 1000 is over 10"),
        ({"class": "human", "size_over": 10_000}, "size 1000 is not over 10000"),
        ({"not": {"size_over": 10}}, "not (size 1000 is over 10)"),
        ({"any": [{"class": "list"}, {"size_over": 10}]}, "any of: size 1000 is over 10"),
        ({"any": [{"class": "list"}, {"size_over": 10_000}]}, "any of: class is human; size 1000 is not over 10000"),
        ({}, "no condition"),
    ],
)
def test_a_condition_tells_what_it_saw(written: dict[str, Any], told: str) -> None:
    assert compiled(written).tell(evidence()) == told
