"""What a block is, and whom it meets."""

from __future__ import annotations

import pytest

from gateway.rules.blocking import canonical, covered, is_whole_provider, parse_block, patterns_of, spellings
from gateway.rules.freemail import WHOLE_PROVIDERS


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        pytest.param("Spammer@Bad.Example", "spammer@bad.example", id="address"),
        pytest.param(" *@Worse.example ", "*@worse.example", id="domain"),
        pytest.param("*@worse.example.", "*@worse.example", id="root-dot"),
        pytest.param(".odd..one@bad.example", ".odd..one@bad.example", id="no-address-by-the-grammar"),
        pytest.param("*@MÜNCHEN.example", "*@xn--mnchen-3ya.example", id="umlaut"),
        pytest.param("jürgen@münchen.example", "jürgen@xn--mnchen-3ya.example", id="umlauts-on-both-sides"),
        pytest.param("a@b@c.example", "a@b@c.example", id="two-ats"),
    ],
)
def test_a_block_is_kept_in_one_form(typed: str, kept: str) -> None:
    assert parse_block(typed) == kept
    assert parse_block(kept) == kept


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        pytest.param("bad.example", 'for a whole domain write "*@bad.example"', id="domain-alone"),
        pytest.param("@bad.example", 'for a whole domain write "*@bad.example"', id="at-and-domain"),
        pytest.param("", 'write "*@example.com"', id="nothing"),
        pytest.param("spammer@", "neither", id="no-domain"),
        pytest.param("a b@bad.example", "neither", id="space"),
        pytest.param("Bad <a@bad.example>", "neither", id="with-a-name"),
        pytest.param("a\x1b@bad.example", "neither", id="escape"),
        pytest.param("*@*.example", "spam.blocklist", id="glob-in-domain"),
        pytest.param("news*@bad.example", "spam.blocklist", id="glob-in-name"),
        pytest.param("a" * 400 + "@bad.example", "neither", id="endless"),
    ],
)
def test_what_is_no_block_is_refused_with_a_hint(typed: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_block(typed)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "address", "meets"),
    [
        ("spammer@bad.example", "Spammer@BAD.example", True),
        ("spammer@bad.example", "other@bad.example", False),
        ("spammer@bad.example", "xspammer@bad.example", False),
        ("*@bad.example", "anybody@bad.example", True),
        ("*@bad.example", "anybody@sub.bad.example", False),
        ("*@bad.example", "anybody@notbad.example", False),
        ("*@xn--mnchen-3ya.example", "a@münchen.example", True),
        ("*@xn--mnchen-3ya.example", "a@XN--MNCHEN-3YA.example", True),
        ("*@bad.example", "no address", False),
        ("*@", "no address", False),
    ],
)
def test_a_block_meets_its_address_or_exactly_its_domain(pattern: str, address: str, meets: bool) -> None:
    assert bool(covered(pattern, [address])) is meets
    assert (pattern in patterns_of(address)) is meets


@pytest.mark.parametrize("domain", ["x" * 300 + "ü", "ü" * 200, "..ü", "ü..example", "xn--ü"])
def test_a_domain_that_dns_cannot_know_is_itself(domain: str) -> None:
    assert canonical(f"a@{domain}") == f"a@{domain.rstrip('.')}"


def test_a_stored_sender_is_looked_for_in_both_spellings() -> None:
    assert spellings("*@xn--mnchen-3ya.example") == ("*@xn--mnchen-3ya.example", "*@münchen.example")
    assert spellings("*@bad.example") == ("*@bad.example",)


def test_only_a_whole_domain_is_a_whole_provider() -> None:
    assert is_whole_provider("*@gmail.com")
    assert not is_whole_provider("someone@gmail.com")
    assert not is_whole_provider("*@mail.gmail.example")


def test_every_provider_is_kept_as_a_block_of_it_is() -> None:
    assert {parse_block(f"*@{domain}")[2:] for domain in WHOLE_PROVIDERS} == WHOLE_PROVIDERS
    assert {"gmail.com", "outlook.com", "hotmail.com", "yahoo.com", "icloud.com", "web.de", "qq.com"} <= WHOLE_PROVIDERS
