"""Authentication-Results: whose field it is, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config.providers import PROFILES
from gateway.mime.scan import scan
from gateway.rules import authenticity, authres
from gateway.rules.authres import Result, best, parse, read

DATA = Path(__file__).parents[2] / "data" / "authentication"
TOLD = [
    name
    for path in sorted(DATA.glob("*.eml"))
    if not json.loads((DATA / f"{(name := path.stem)}.expect.json").read_text())["expect"]["by"].endswith("us")
]


@pytest.mark.parametrize("name", TOLD)
def test_what_the_provider_says_is_read(name: str) -> None:
    case = json.loads((DATA / f"{name}.expect.json").read_text())
    ids = case.get("authserv_ids") or PROFILES[case["provider"]].authserv_ids
    said = read(scan((DATA / f"{name}.eml").read_bytes()), ids)
    if not case["expect"]["by"]:
        assert said is None
        return
    assert said is not None
    found = authenticity.of_provider(said, case["provider"])
    expected = (
        case["expect"] if found.policy else case["expect"] | {"policy": ""}
    )  # where it is not told, the DNS is asked
    assert {key: getattr(found, key) for key in case["expect"]} == expected
    assert found.detail.startswith("spf=")


@pytest.mark.parametrize(
    ("value", "id", "results"),
    [
        ("mx.example; none", "mx.example", []),
        ("mx.example 1; spf=pass", "mx.example", [("spf", "pass")]),
        ("MX.Example", "mx.example", []),
        ("spf=pass; dkim=none", "", [("spf", "pass"), ("dkim", "none")]),
        ("", "", []),
        (";;;", "", []),
        ("mx.example; spf=pass(all is well); DKIM = FAIL", "mx.example", [("spf", "pass"), ("dkim", "fail")]),
        ("mx.example; dkim/1=pass; dkim / 2 = fail", "mx.example", [("dkim", "pass"), ("dkim", "fail")]),
        ('mx.example; spf=pass reason="a; dmarc=pass"; dkim=none', "mx.example", [("spf", "pass"), ("dkim", "none")]),
        ("mx.example; spf=pass (a (b) ; dkim=pass; dmarc=fail", "mx.example", [("spf", "pass")]),
        (r"mx.example; spf=fail (a \) dkim=pass) x=y; dkim=none", "mx.example", [("spf", "fail"), ("dkim", "none")]),
        ('mx.example; spf=fail ( " ) x=y; dkim=none', "mx.example", [("spf", "fail"), ("dkim", "none")]),
        ('"quoted name"; spf=pass', "quoted name", [("spf", "pass")]),
        ("mx.example; = ; spf= ; =pass; spf", "mx.example", []),
    ],
)
def test_a_field_is_read_as_it_is_written_in_the_wild(value: str, id: str, results: list[tuple[str, str]]) -> None:
    statement = parse(value)
    assert statement.id == id
    assert [(one.method, one.word) for one in statement.results] == results


def test_properties_keep_their_first_value() -> None:
    (result,) = parse('x; dkim=pass (ok) header.d="a.example" stray header.i = @b.example header.d=c.example').results
    assert result == Result(
        "dkim", "pass", (("header.d", "a.example"), ("header.i", "@b.example"), ("header.d", "c.example")), "ok"
    )
    assert result.value("header.x", "header.d") == "a.example"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["fail", "pass"], "pass"),
        (["fail", "temperror"], "temperror"),
        (["none", "fail"], "fail"),
        (["", "none"], "none"),
        ([], ""),
        (["strange"], ""),
    ],
)
def test_one_signature_that_passes_is_enough_and_one_that_may_yet_is_no_failure(words: list[str], word: str) -> None:
    assert best(words) == word


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("dmarc=fail (p=REJECT sp=NONE dis=NONE) header.from=a.example", "reject"),
        ("dmarc=fail action=oreject header.from=a.example", "reject"),
        ("dmarc=fail action=quarantine", "quarantine"),
        ("dmarc=fail action=none", "none"),
        ("dmarc=fail policy.dmarc=Quarantine (p=reject)", "quarantine"),
        ("dmarc=fail action=pct.quarantine", ""),
        ("dmarc=fail", ""),
        ("spf=fail", ""),
    ],
)
def test_the_policy_is_told_in_many_ways(text: str, policy: str) -> None:
    said = read(scan(f"Authentication-Results: mx; {text}\r\n\r\n".encode()), ["mx"])
    assert said is not None
    assert said.policy == policy


def test_words_that_are_in_no_registry_are_understood_or_nothing() -> None:
    text = b"Authentication-Results: mx; spf=hardfail; dkim=excellent; dmarc=unknown\r\n\r\n"
    said = read(scan(text), ["mx"])
    assert said is not None
    assert (said.spf, said.dkim, said.dmarc) == ("fail", "", "permerror")


def test_only_the_topmost_group_counts() -> None:
    text = (
        b"Authentication-Results: other; dmarc=pass\r\n"
        b"Authentication-Results: mx; spf=fail\r\n"
        b"Subject: between\r\n"
        b"Authentication-Results: mx; dkim=none; spf=pass\r\n"
        b"Received: from x by mx\r\n"
        b"Authentication-Results: mx; dmarc=pass\r\n\r\n"
    )
    said = read(scan(text), ["mx"])
    assert said is not None
    assert (said.spf, said.dkim, said.dmarc) == ("fail", "none", "")


def test_a_flood_of_fields_ends_the_search() -> None:
    flood = b"Authentication-Results: other; dmarc=pass\r\n" * 500
    assert read(scan(flood + b"Authentication-Results: mx; dmarc=pass\r\n\r\n"), ["mx"]) is None
    said = read(scan(b"Authentication-Results: mx; " + b"x=y; " * 5_000 + b"dmarc=pass\r\n\r\n"), ["mx"])
    assert said is not None
    assert said.dmarc == ""


def test_a_glob_stands_for_the_many_names_of_one_provider() -> None:
    text = scan(b"Authentication-Results: Atlas-7.mail.yahoo.com; dmarc=pass\r\n\r\n")
    assert read(text, ["*.Yahoo.com"]) is not None
    assert read(text, ["yahoo.com"]) is None
    assert read(text, [""]) is None
    assert read(text, []) is None


def test_the_signer_is_who_passed() -> None:
    text = (
        b"Authentication-Results: mx; dkim=fail header.d=a.example; dkim=pass header.i=x@B.example; dkim=pass\r\n\r\n"
    )
    said = authres.read(scan(text), ["mx"])
    assert said is not None
    assert (said.dkim, said.signers) == ("pass", ("b.example",))
