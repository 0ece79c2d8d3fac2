"""DMARC by RFC 9989: which policy, whose organization, and what passes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.rules import dmarc
from gateway.rules.dmarc import Dmarc, Identifiers, parse
from gateway.rules.dns import Answer, Question, Unanswered, run
from tests.support.zone import Zone

ZONE = """
_dmarc.org.example. TXT "v=DMARC1; p=reject; sp=quarantine"
_dmarc.team.org.example. TXT "v=DMARC1; p=none"
_dmarc.own.example. TXT "v=DMARC1; p=reject; psd=n"
_dmarc.suffix.example. TXT "v=DMARC1; p=quarantine; psd=y"
_dmarc.inner.suffix.example. TXT "v=DMARC1; p=reject"
_dmarc.two.example. TXT "v=DMARC1; p=reject"
_dmarc.two.example. TXT "v=DMARC1; p=none"
_dmarc.mixed.example. TXT "some words"
_dmarc.mixed.example. TXT "v = DMARC1 ; p = reject ;"
_dmarc.tight.example. TXT "v=DMARC1; p=reject; adkim=s; aspf=s"
_dmarc.trial.example. TXT "v=DMARC1; p=quarantine; t=y"
_dmarc.void.example. TXT "v=DMARC1; p=none; sp=none; np=reject"
there.void.example. MX 10 mx.example.
"""


def judge(author: str | tuple[str, ...], zone: Zone | None = None, **known: Any) -> Dmarc:
    authors = (author,) if isinstance(author, str) else author
    return run(dmarc.evaluate(authors, Identifiers(**known)), zone or Zone(ZONE, broken=["away.example"]))


@pytest.mark.parametrize(
    ("author", "known", "result"),
    [
        pytest.param("org.example", {"dkim": ("org.example",)}, "pass", id="its own signature"),
        pytest.param("org.example", {"spf": "org.example"}, "pass", id="its own return path"),
        pytest.param("org.example", {"dkim": ("a.org.example",)}, "pass", id="a signature of a subdomain"),
        pytest.param("a.org.example", {"spf": "org.example"}, "pass", id="a return path of the organization"),
        pytest.param("a.org.example", {"spf": "b.org.example"}, "pass", id="a return path beside it"),
        pytest.param("a.team.org.example", {"spf": "org.example"}, "pass", id="the organization has the fewest labels"),
        pytest.param("org.example", {"dkim": ("evilorg.example", "org.example.evil.example")}, "fail", id="lookalikes"),
        pytest.param("org.example", {}, "fail", id="nothing passed"),
        pytest.param("own.example", {"spf": "a.own.example"}, "pass", id="psd=n names the organization"),
        pytest.param("a.suffix.example", {"spf": "b.suffix.example"}, "fail", id="two under one suffix"),
        pytest.param("x.a.suffix.example", {"spf": "y.a.suffix.example"}, "pass", id="one organization under a suffix"),
        pytest.param("suffix.example", {"spf": "a.suffix.example"}, "fail", id="the suffix itself"),
        pytest.param("tight.example", {"spf": "a.tight.example"}, "fail", id="strict return path"),
        pytest.param("tight.example", {"dkim": ("a.tight.example",)}, "fail", id="strict signature"),
        pytest.param("tight.example", {"dkim": ("tight.example",)}, "pass", id="strict, and the very same"),
        pytest.param("nobody.example", {"spf": "nobody.example"}, "none", id="no policy"),
        pytest.param("two.example", {}, "none", id="two records are none"),
        pytest.param("mixed.example", {}, "fail", id="blanks, and another record beside it"),
        pytest.param("ORG.example.", {"spf": "Org.Example"}, "pass", id="capitals and a final dot"),
        pytest.param("away.example", {"spf": "away.example"}, "temperror", id="nobody answers"),
        pytest.param("org.example", {"is_uncertain": True}, "temperror", id="something could not be looked at"),
        pytest.param(("org.example", "other.example"), {}, "none", id="several domains"),
        pytest.param(("org.example", "ORG.example"), {}, "fail", id="one domain twice"),
        pytest.param((), {}, "none", id="no author"),
        pytest.param("not a domain", {}, "none", id="no domain"),
    ],
)
def test_what_was_authenticated_must_belong_to_the_author(
    author: str | tuple[str, ...], known: dict[str, Any], result: str
) -> None:
    assert judge(author, **known).result == result


@pytest.mark.parametrize(
    ("author", "policy"),
    [
        pytest.param("org.example", "reject", id="its own"),
        pytest.param("a.org.example", "quarantine", id="sp of the organization"),
        pytest.param("team.org.example", "none", id="its own, not that of the organization"),
        pytest.param("x.team.org.example", "quarantine", id="that of the organization, not of a step between"),
        pytest.param("x.suffix.example", "quarantine", id="of the suffix"),
        pytest.param("inner.suffix.example", "reject", id="its own before that of the suffix"),
        pytest.param("trial.example", "none", id="t=y is one step milder"),
        pytest.param("there.void.example", "none", id="it exists: sp"),
        pytest.param("never.void.example", "reject", id="it does not exist: np"),
    ],
)
def test_the_policy_is_the_author_s_or_the_organization_s(author: str, policy: str) -> None:
    found = judge(author)
    assert (found.result, found.policy) == ("fail", policy)


def test_a_walk_asks_eight_times_at_most() -> None:
    zone = Zone(ZONE)
    assert judge("a.b.c.d.e.f.g.h.i.j.org.example", zone).result == "fail"
    assert zone.asked[0].name == "_dmarc.a.b.c.d.e.f.g.h.i.j.org.example"
    assert zone.asked[1].name == "_dmarc.f.g.h.i.j.org.example"
    assert [one.name for one in zone.asked[-2:]] == ["_dmarc.org.example", "_dmarc.example"]
    assert len(zone.asked) == 8


def test_a_walk_ends_at_a_record_that_says_what_it_is() -> None:
    zone = Zone(ZONE)
    judge("a.own.example", zone)
    assert [one.name for one in zone.asked] == ["_dmarc.a.own.example", "_dmarc.own.example"]


def test_one_signer_that_cannot_be_looked_at_does_not_hide_another() -> None:
    zone = Zone(ZONE, broken=["_dmarc.lost.org.example"])
    assert judge("org.example", zone, dkim=("lost.org.example", "a.org.example")).result == "pass"
    assert judge("org.example", zone, dkim=("lost.org.example",)).result == "temperror"


def test_of_a_crowd_of_signers_a_few_are_looked_at_and_none_is_called_a_failure() -> None:
    signers = tuple(f"s{number}.tight.org.example" for number in range(30))
    zone = Zone(ZONE + "".join(f'_dmarc.{name}. TXT "v=DMARC1; p=none; psd=n"\n' for name in signers))
    assert judge("org.example", zone, dkim=signers).result == "temperror"
    assert len(zone.asked) < 30


def test_where_it_cannot_be_known_whether_a_name_exists_the_milder_policy_holds() -> None:
    zone = Zone(ZONE)

    def answer(question: Question) -> Answer:
        if question.name == "away.void.example":
            raise Unanswered("away")
        return zone(question)

    found = run(dmarc.evaluate(("away.void.example",), Identifiers()), answer)
    assert (found.result, found.policy) == ("fail", "none")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("v=DMARC1; p=reject", "reject"),
        ("v=DMARC1;p=REJECT;", "reject"),
        ("v=DMARC1", None),
        ("v=DMARC1; rua=mailto:a@b.example", "none"),
        ("v=DMARC1; p=banish", None),
        ("v=DMARC1; p=banish; rua=mailto:a@b.example", "none"),
        ("v=DMARC1; p=reject; sp=banish; rua=mailto:a@b.example", "none"),
        ("v=DMARC1; p=reject; p=none", "reject"),
        ("v=dmarc1; p=reject", None),
        ("v=DMARC2; p=reject", None),
        ("p=reject; v=DMARC1", None),
        ("v=DMARC1; p=reject; pct=0; rf=afrf; ri=1; nonsense; =", "reject"),
        ("", None),
    ],
)
def test_a_record_is_read_as_far_as_it_makes_sense(text: str, policy: str | None) -> None:
    record = parse(text)
    assert (record.p if record else None) == policy
