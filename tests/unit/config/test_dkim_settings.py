"""What `check` says about the keys that touchpoints sign with."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers

from gateway import config
from gateway.config.dkim import load_key
from gateway.errors import ConfigError, Severity
from tests.support import dkim_keys
from tests.support.dkim_keys import PKCS1, PKCS8, pem_of, public_pem_of
from tests.unit.config.writing import AGENT, TOUCHPOINT, check, load, marked_line, said, write

DKIM = 'dkim = { selector = "s1", domain = "example.com", private_key = "file:dkim.pem" }  # here\n'


def put_key(directory: Path, text: str, mode: int = 0o600) -> None:
    (directory / "dkim.pem").write_text(text)
    (directory / "dkim.pem").chmod(mode)


@pytest.mark.parametrize(
    "pem",
    [
        pem_of(dkim_keys.rsa(), PKCS1),
        pem_of(dkim_keys.rsa(), PKCS8),
        pem_of(dkim_keys.rsa(3072)),
        pem_of(dkim_keys.ed25519()),
        "made with openssl\n" + pem_of(dkim_keys.rsa()),
    ],
    ids=["PKCS#1", "PKCS#8", "3072 bits", "Ed25519", "a comment before it"],
)
def test_a_good_key_is_taken_without_a_word(tmp_path: Path, pem: str) -> None:
    put_key(tmp_path, pem)
    problems = check(tmp_path, TOUCHPOINT + DKIM + AGENT)
    assert said(problems) == said(problems, Severity.WARNING) == []
    assert not any("dkim" in str(problem) for problem in problems)


def _damaged() -> str:
    """Return a key whose two halves do not belong together."""
    good = dkim_keys.rsa().private_numbers()
    numbers = RSAPrivateNumbers(
        p=good.p,
        q=good.q,
        d=good.d,
        dmp1=good.dmp1,
        dmq1=good.dmq1,
        iqmp=good.iqmp,
        public_numbers=RSAPublicNumbers(e=3, n=good.public_numbers.n),
    )
    return pem_of(numbers.private_key(unsafe_skip_rsa_key_validation=True))


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        ("hello", "holds no key; it must be a private key in PEM"),
        (public_pem_of(dkim_keys.rsa()), "holds a public key or a certificate"),
        (pem_of(dkim_keys.rsa(), PKCS8, "secret"), "is locked by a password"),
        (pem_of(dkim_keys.rsa(), PKCS1, "secret"), "is locked by a password"),
        (pem_of(dkim_keys.elliptic()), "is neither RSA nor Ed25519"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read as a key"),
        (_damaged(), "is damaged"),
        ("", "is empty"),
        (pem_of(dkim_keys.rsa(5120)), "has 5120 bits; receivers check keys of 1024 to 4096 bits"),
    ],
    ids=["text", "public", "locked", "locked PKCS#1", "elliptic", "nonsense", "damaged", "empty", "too long"],
)
def test_a_key_that_cannot_sign_is_an_error_with_its_line(tmp_path: Path, pem: str, words: str) -> None:
    put_key(tmp_path, pem)
    rules = TOUCHPOINT + DKIM + AGENT
    (error,) = said(check(tmp_path, rules))
    assert error.startswith(f"rules.toml:{marked_line(rules)}: dkim: the ")
    assert "file:dkim.pem" in error
    assert words in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("bits", "expected"), [(1024, ["fewer than 2048 bits"]), (2048, []), (4096, [])], ids=["1024", "2048", "4096"]
)
def test_a_short_key_is_a_warning(tmp_path: Path, bits: int, expected: list[str]) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa(bits)))
    problems = check(tmp_path, TOUCHPOINT + DKIM + AGENT)
    assert said(problems) == []
    warnings = said(problems, Severity.WARNING)
    assert len(warnings) == len(expected)
    assert all(words in warning for words, warning in zip(expected, warnings, strict=True))


def test_a_key_that_is_missing_or_open_to_all_is_a_warning(tmp_path: Path) -> None:
    rules = TOUCHPOINT + DKIM + AGENT
    (missing,) = said(check(tmp_path, rules), Severity.WARNING)
    assert "dkim.pem does not exist" in missing
    put_key(tmp_path, pem_of(dkim_keys.rsa()), 0o644)
    (readable,) = said(check(tmp_path, rules), Severity.WARNING)
    assert "everybody on this machine can read" in readable


def test_a_key_that_this_user_may_not_read_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_key(tmp_path, "x", 0)
    opened = Path.open

    def open_as_anybody(path: Path, *arguments: Any, **keywords: Any) -> Any:
        """Root, who often runs the tests, would be let in."""
        if path.name == "dkim.pem":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", open_as_anybody)
    problems = check(tmp_path, TOUCHPOINT + DKIM + AGENT)
    assert said(problems) == []
    assert "the daemon must be able to" in said(problems, Severity.WARNING)[0]


@pytest.mark.parametrize(
    ("domain", "warned"),
    [
        *(("example.com", False), ("EXAMPLE.com", False), ("mail.example.com", False), ("com", False)),
        *(("other.example", True), ("ample.com", True), ("notexample.com", True)),
    ],
)
def test_a_signature_for_another_domain_is_a_warning(tmp_path: Path, domain: str, warned: bool) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    rules = TOUCHPOINT + DKIM.replace("example.com", domain) + AGENT
    warnings = said(check(tmp_path, rules), Severity.WARNING)
    assert len(warnings) == warned
    if warned:
        assert f"mail from support@example.com is signed for {domain}" in warnings[0]
        assert warnings[0].startswith(f"rules.toml:{marked_line(rules)}:")


def test_an_alias_of_another_domain_is_a_warning(tmp_path: Path) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    warnings = said(check(tmp_path, TOUCHPOINT + 'aliases = ["help@else.example"]\n' + DKIM + AGENT), Severity.WARNING)
    assert len(warnings) == 1
    assert "mail from help@else.example is signed for example.com" in warnings[0]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("selector", "s 1", 'dkim.selector "s 1" is not a name'),
        ("selector", "s1;", "is not a name in the DNS"),
        ("domain", "exämple.com", "write it as xn--…"),
        ("domain", "example.com.", "is not a name in the DNS"),
    ],
)
def test_a_name_that_cannot_stand_in_the_dns_is_an_error(tmp_path: Path, key: str, value: str, words: str) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    old = {"selector": '"s1"', "domain": '"example.com"'}[key]
    errors = said(check(tmp_path, TOUCHPOINT + DKIM.replace(old, f'"{value}"') + AGENT))
    assert len(errors) == 1
    assert words in errors[0] or "selector" in errors[0]


def test_a_key_that_has_gone_bad_does_not_stop_the_copy_of_the_good_rules(tmp_path: Path) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    config.snapshot(load(tmp_path, TOUCHPOINT + DKIM + AGENT), tmp_path / "copy")
    put_key(tmp_path, "spoilt")
    with pytest.raises(ConfigError):
        load(tmp_path, TOUCHPOINT + DKIM + AGENT)
    kept = config.load_snapshot(tmp_path / "copy", write(tmp_path, "no toml"))
    assert kept.touchpoints["support"].dkim is not None


def test_the_copy_of_the_good_rules_has_no_key(tmp_path: Path) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    config.snapshot(load(tmp_path, TOUCHPOINT + DKIM + AGENT), tmp_path / "copy")
    kept = [path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert kept
    assert not any(b"PRIVATE KEY" in content for content in kept)


def test_a_new_key_needs_a_new_task_for_outgoing_mail_alone(tmp_path: Path) -> None:
    put_key(tmp_path, pem_of(dkim_keys.rsa()))
    before = load(tmp_path, TOUCHPOINT + AGENT).touchpoints["support"]
    after = load(tmp_path, TOUCHPOINT + DKIM + AGENT).touchpoints["support"]
    assert config.outbound_settings(before) != config.outbound_settings(after)
    assert config.inbound_settings(before) == config.inbound_settings(after)


def test_every_kind_of_key_is_what_it_was() -> None:
    for key in (dkim_keys.rsa(), dkim_keys.rsa(4096), dkim_keys.ed25519()):
        assert load_key(pem_of(key)).public_key() == key.public_key()
