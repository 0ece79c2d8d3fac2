"""DKIM signatures and ARC chains, with the records that the DNS has for them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import dkim
import pytest

from gateway.mime.scan import scan
from gateway.rules import authenticity, authres, dmarc, received, signatures, spf
from gateway.rules.dns import Kind, Question, Unanswered, run
from gateway.rules.signatures import Records, check_arc, check_dkim, keys_of
from tests.support.zone import Zone

DATA = Path(__file__).parents[2] / "data" / "authentication"
AT = datetime(2026, 11, 23, 11, 59, 30, tzinfo=UTC).timestamp()
CASES = {path.stem: json.loads((DATA / f"{path.stem}.expect.json").read_text()) for path in sorted(DATA.glob("*.eml"))}
OURS = [name for name, case in CASES.items() if case["expect"]["by"] == "us" or name.endswith("forged-fills-no-gap")]


def zone() -> Zone:
    return Zone((DATA / "zone").read_text(), broken=["broken.example"])


def records(names: tuple[str, ...], known: Zone) -> Records:
    def one(name: str) -> str | None:
        try:
            return next(iter(known(Question(name, Kind.TXT))), "")
        except Unanswered:
            return None

    return {name: one(name) for name in names}


def raw_of(ending: str) -> bytes:
    (name,) = (name for name in CASES if name[3:] == ending)
    return (DATA / f"{name}.eml").read_bytes()


@pytest.mark.parametrize("name", OURS)
def test_the_parts_come_to_what_the_whole_comes_to(name: str) -> None:
    """The same messages as in tests/peers/test_authentication.py, step by step, without a server or a process."""
    case, raw, known = CASES[name], (DATA / f"{name}.eml").read_bytes(), zone()
    facts = scan(raw)
    authors = authenticity.authors_of(facts)
    said = authres.read(facts, case.get("authserv_ids") or ("mx.google.com",) * (case["provider"] == "gmail"))
    peer = received.border(facts)
    found = run(spf.check(peer.ip, facts.return_path or "", peer.helo), known) if peer else None
    signed = check_dkim(raw, records(keys_of(facts, authors[0]), known), AT)
    is_touched = case["provider"] == "microsoft"
    proven = authenticity.identifiers(said, found, signed, is_touched=is_touched)
    verdict = run(dmarc.evaluate(authors, proven), known)
    via = ""
    if trusted := case.get("trusted_sealers"):
        sealed = check_arc(raw, records(signatures.arc_keys_of(facts), known), AT)
        via = authenticity.vouched(sealed or (), trusted, authors)
    result = authenticity.found_out(
        said, found, signed, verdict, provider=case["provider"], is_touched=is_touched, via=via
    )
    assert {key: getattr(result, key) for key in case["expect"]} == case["expect"], result.detail


def test_the_author_s_own_signature_is_looked_at_first() -> None:
    signature = "DKIM-Signature: v=1; a=rsa-sha256; d={}; s=k; h=from; bh=x; b=y\r\n"
    others = "".join(signature.format(f"d{number}.example") for number in range(20))
    facts = scan((others + signature.format("mail.author.example") + "\r\n").encode())
    names = keys_of(facts, "author.example")
    assert len(names) == signatures.SIGNATURES
    assert names[0] == "k._domainkey.mail.author.example"


def test_signatures_without_a_key_among_the_records_are_not_looked_at() -> None:
    assert check_dkim(raw_of("dkim-passes"), {}, AT) == []


def test_a_header_that_cannot_be_read_proves_nothing() -> None:
    (found,) = check_dkim(b"no field at all\r\n\r\nbody", {}, AT)
    assert found.word == "permerror"


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ("v=DKIM2; p=x", "permerror"),
        ("v=DKIM1; k=rsa; p=!!!!", "permerror"),
        ("v=DKIM1; k=strange; p=AAAA", "permerror"),
        ("v=DKIM1; k=ed25519; p=AAAA", "permerror"),
        ("no tags", "permerror"),
        ("\xff\xfe", "permerror"),
        ("", "permerror"),
        (None, "temperror"),
    ],
)
def test_a_key_that_makes_no_sense_is_no_key(record: str | None, word: str) -> None:
    raw = raw_of("dkim-passes")
    names = keys_of(scan(raw), "customer.example")
    (found,) = check_dkim(raw, dict.fromkeys(names, record), AT)
    assert found.word == word
    assert found.detail


def test_a_signature_of_the_far_future_is_none() -> None:
    raw = raw_of("dkim-passes")
    (found,) = check_dkim(raw, records(keys_of(scan(raw), ""), zone()), AT - 10 * 86_400)
    assert found.word == "permerror"


def test_a_message_without_a_chain_has_none_and_a_broken_one_does_not_hold() -> None:
    assert check_arc(raw_of("dkim-passes"), {}, AT) == []
    assert check_arc(raw_of("arc-of-a-stranger"), {}, AT) is None
    assert check_arc(b"junk in place of a header\r\nmore\r\n", {}, AT) is None
    assert check_arc(b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=a.example; s=k; b=!\r\n\r\n", {}, AT) is None


def test_a_chain_that_is_too_long_is_not_followed() -> None:
    seal = "ARC-Seal: i={}; d=a.example; s=k{}; b=x\r\nARC-Message-Signature: i={}; d=a.example; s=k{}; b=x\r\n"
    long = "".join(seal.format(number, number, number, number) for number in range(1, 20))
    assert signatures.arc_keys_of(scan(f"{long}\r\n".encode())) == ()
    assert signatures.arc_keys_of(scan(b"ARC-Seal: nothing\r\n\r\n")) == ()


def test_behind_a_sealer_that_is_not_trusted_nothing_counts() -> None:
    good = "dmarc=pass header.from=author.example"
    chain = [signatures.Sealed("last.example", "last; dmarc=fail"), signatures.Sealed("first.example", f"x; {good}")]
    authors = ("author.example",)
    assert authenticity.vouched(chain, ["last.example", "first.example"], authors) == "first.example"
    assert authenticity.vouched(chain, ["first.example"], authors) == ""
    assert authenticity.vouched(chain, ["last.example"], authors) == ""
    assert authenticity.vouched([signatures.Sealed("a.mx.example", f"x; {good}")], ["mx.example"], authors)
    assert not authenticity.vouched([signatures.Sealed("badmx.example", f"x; {good}")], ["mx.example"], authors)


def test_the_library_has_its_own_clock_again_afterwards() -> None:
    """It is one module for all who check and sign in a process."""
    check_dkim(b"DKIM-Signature: v=1; d=example.com; s=s1\r\n\r\n", {"s1._domainkey.example.com": "p=x"}, 1.0)
    check_arc(b"ARC-Seal: i=1; d=example.com; s=s1\r\n\r\n", {}, 1.0)
    assert dkim.time is time
