"""Who is answered automatically: each line of RFC 3834 and its kin is a message in tests/data/auto_reply."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from encodings import idna
from pathlib import Path
from typing import Any

import pytest

from gateway.mime.scan import scan
from gateway.model import Authentication, Findings, MessageClass, Verdict
from gateway.rules.answering import (
    TOKEN_FIELD,
    Addressee,
    Asked,
    decide_answer,
    is_token,
    references_for,
    token,
)
from gateway.rules.classify import classify

DATA = Path(__file__).parents[2] / "data" / "auto_reply"
CASES = sorted(DATA.glob("*.eml"))
KEY = b"a key of the tests"
TOKEN = token(KEY, 4711)
AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
OWN = frozenset({"support@example.com", "help@example.com"})
OURS = OWN | {"sales@example.com"}


def asked(raw: bytes, **given: Any) -> Asked:
    facts = scan(raw.replace(b"@TOKEN@", TOKEN.encode()))
    verdict = Verdict(
        classify(facts, OWN)[0],
        ("support",),
        quarantine=given.get("quarantine", False),
        discard=given.get("discard", False),
        auto_reply=given.get("auto_reply", True),
    )
    return Asked(
        facts=facts,
        verdict=verdict,
        findings=Findings(authentication=Authentication(dmarc=given["dmarc"]) if "dmarc" in given else None),
        internal_at=AT - timedelta(hours=given.get("age_hours", 1)),
        at=AT,
        own=OWN,
        ours=OURS,
        max_age=timedelta(days=2),
        is_wanted_now=given.get("is_wanted_now", True),
        key=KEY,
    )


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_people_are_answered_and_nobody_else(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expect.json").read_text())
    decided = decide_answer(asked(path.read_bytes(), **expected.pop("given", {})))
    if isinstance(decided, str):
        assert {"silence": decided} == expected
    else:
        assert {"to": decided.address} == expected


def test_every_message_that_is_not_a_persons_is_met_with_silence() -> None:
    """The messages that the classes are tested with, addressed to us: what is no person's has no answer."""
    for path in sorted(DATA.parent.glob("*.eml")):
        question = asked(b"To: support@example.com\r\n" + path.read_bytes().lstrip(b"\r\n"))
        if question.verdict.message_class is not MessageClass.HUMAN:
            assert isinstance(decide_answer(question), str), path.name


def person() -> Asked:
    return asked(CASES[0].read_bytes())


def test_the_name_is_written_where_it_belongs_to_the_address() -> None:
    decided = decide_answer(person())
    assert decided == Addressee("carla@customer.example", "Carla Costa", ("carla@customer.example",))
    other = CASES[0].read_bytes().replace(b"<carla@customer.example>\r\nFrom", b"<c@mail.example>\r\nFrom")
    assert decide_answer(asked(other)) == Addressee("c@mail.example", "", ("c@mail.example", "carla@customer.example"))


@pytest.mark.parametrize(
    "path",
    ["Carla+1@customer.example", "CARLA@Customer.Example", "prvs=0987zyxwvu=carla@customer.example"],
)
def test_the_ledger_knows_a_sender_by_every_spelling(path: str) -> None:
    raw = CASES[0].read_bytes().replace(b"<carla@customer.example>\r\nFrom", f"<{path}>\r\nFrom".encode())
    decided = decide_answer(asked(raw))
    assert isinstance(decided, Addressee)
    assert decided.address == path
    assert decided.keys == ("carla@customer.example",)


def test_a_token_is_made_by_one_key_for_one_answer_only() -> None:
    assert is_token(KEY, TOKEN)
    assert not is_token(b"another", TOKEN)
    assert not is_token(KEY, TOKEN[:-1])
    assert not is_token(KEY, token(KEY, 4712).partition(".")[0] + "." + TOKEN.partition(".")[2])
    for junk in ("", ".", "é.é", "a" * 5000, "1.", ".ab"):
        assert not is_token(KEY, junk)
    assert TOKEN_FIELD.isascii()


def test_references_of_an_answer_end_with_the_message_that_it_answers() -> None:
    raw = b"Message-ID: <3@c>\r\nIn-Reply-To: <2@c>\r\n"
    assert references_for(scan(raw + b"References: <1@c> <2@c>\r\n\r\n")) == ("<1@c>", "<2@c>", "<3@c>")
    assert references_for(scan(raw + b"\r\n")) == ("<2@c>", "<3@c>")
    assert references_for(scan(b"Subject: x\r\n\r\n")) == ()


def test_a_header_that_is_not_read_to_its_end_is_answered_with_silence() -> None:
    long = b"".join(b"X-%d: y\r\n" % number for number in range(2_000))
    assert decide_answer(asked(long + CASES[0].read_bytes())) == "its header is too long to be read"


def test_hours_and_rules_come_before_what_the_message_says() -> None:
    machine = asked(b"Return-Path: <a@b.example>\r\nAuto-Submitted: auto-replied\r\n\r\n", auto_reply=False)
    assert decide_answer(machine) == "a rule says no"
    assert decide_answer(replace(machine, verdict=replace(machine.verdict, auto_reply=True))) == (
        "Auto-Submitted: auto-replied"
    )


@pytest.mark.parametrize("own", ["support@münchen.example", "support@xn--mnchen-3ya.example"])
@pytest.mark.parametrize("written", ["Support@MÜNCHEN.example", "support+tag@xn--mnchen-3ya.example"])
def test_our_own_domain_is_known_in_both_its_forms(own: str, written: str) -> None:
    raw = f"Return-Path: <c@customer.example>\r\nFrom: c@customer.example\r\nTo: {written}\r\n\r\nHello".encode()
    question = asked(raw)
    ours = frozenset({own})
    assert isinstance(decide_answer(replace(question, own=ours, ours=ours)), Addressee)
    again = replace(question, facts=scan(raw.replace(b"From: c@customer.example", f"From: {written}".encode())))
    assert "one of ours" in str(decide_answer(replace(again, own=ours, ours=ours)))


def test_a_header_full_of_domains_of_other_letters_costs_no_more_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    to_ascii = idna.ToASCII

    def counted(label: str) -> bytes:
        done.append(label)
        return to_ascii(label)

    monkeypatch.setattr(idna, "ToASCII", counted)
    strangers = ", ".join(f"a{number}@{chr(233) * 60}.example" for number in range(300))
    raw = f"Return-Path: <c@customer.example>\r\nFrom: c@customer.example\r\nTo: {strangers}\r\n\r\nHello".encode()
    assert decide_answer(asked(raw)) == "it is not addressed to the touchpoint"
    assert len(done) < 10
