"""Whatever strangers write into headers and into the DNS: a word comes back, soon, and nothing is raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mime.scan import scan
from gateway.rules import authres, dmarc, received, signatures, spf
from gateway.rules.dmarc import Identifiers
from gateway.rules.dns import Answer, Kind, Question, Unanswered, domain_of, run

SPF_WORDS = {"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"}
DMARC_WORDS = {"pass", "fail", "none", "temperror"}

names = st.sampled_from(
    ["a.example", "b.a.example", "c.example", "example", "x" * 70 + ".example", "a..example", "ü.example"]
)
terms = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["", "-", "~", "?", "+"]), st.sampled_from(["all", "a", "mx", "ptr"])),
    st.builds("{}:{}".format, st.sampled_from(["a", "mx", "include", "exists", "ptr", "redirect", "ip4"]), names),
    st.builds("redirect={}".format, names),
    st.builds("exists:%{{{}}}.{}".format, st.text("slodiphv0123456789r.-+", max_size=5), names),
    st.sampled_from(["ip4:192.0.2.0/24", "ip6:2001:db8::/32", "a/24//64", "mx/0", "ip4:", "exp=%{d}"]),
    st.text(max_size=20),
)
spf_records = st.lists(terms, max_size=12).map(lambda found: " ".join(["v=spf1", *found]))
dmarc_records = st.lists(
    st.one_of(
        st.builds(
            "{}={}".format, st.sampled_from(["p", "sp", "np"]), st.sampled_from(["none", "quarantine", "reject", "x"])
        ),
        st.sampled_from(["psd=y", "psd=n", "t=y", "adkim=s", "aspf=s", "rua=mailto:a@b.example"]),
        st.text(max_size=10),
    ),
    max_size=6,
).map(lambda found: "; ".join(["v=DMARC1", *found]))
addresses = st.sampled_from(["192.0.2.1", "198.51.100.1", "2001:db8::1", "not an address"])


def world(data: st.DataObject) -> Callable[[Question], Answer]:
    """Return a DNS that makes up an answer to each question, and stays with it."""
    kinds = {
        Kind.TXT: st.one_of(spf_records, dmarc_records, st.text(max_size=30)),
        Kind.A: addresses,
        Kind.AAAA: addresses,
        Kind.MX: names,
        Kind.PTR: names,
    }
    known: dict[Question, Answer | None] = {}

    def answer(question: Question) -> Answer:
        if question not in known:
            known[question] = data.draw(st.none() | st.lists(kinds[question.kind], max_size=3).map(tuple))
        if (found := known[question]) is None:
            raise Unanswered("away")
        return found

    return answer


@given(st.data(), names, names)
def test_spf_comes_to_one_of_its_words_within_its_limits(data: st.DataObject, sender: str, helo: str) -> None:
    asked: list[Question] = []
    answer = world(data)

    def count(question: Question) -> Answer:
        asked.append(question)
        return answer(question)

    found = run(spf.check(ip_address("192.0.2.1"), f"joe@{sender}", helo), count)
    assert found.result in SPF_WORDS
    assert len(asked) <= 1 + spf.LOOKUPS * (2 + spf.NAMES)


@given(st.data(), names, st.lists(names, max_size=4), names, st.booleans())
def test_dmarc_comes_to_one_of_its_words(
    data: st.DataObject, author: str, signers: list[str], return_path: str, is_uncertain: bool
) -> None:
    known = Identifiers(return_path, tuple(signers), is_uncertain)
    found = run(dmarc.evaluate([author], known), world(data))
    assert found.result in DMARC_WORDS
    assert found.policy in ("", "none", "quarantine", "reject")


@given(st.data(), names)
def test_nothing_authenticated_never_passes(data: st.DataObject, author: str) -> None:
    assert run(dmarc.evaluate([author], Identifiers()), world(data)).result != "pass"


@given(st.data(), names, st.lists(names, max_size=4), names)
def test_what_is_uncertain_never_fails(data: st.DataObject, author: str, signers: list[str], return_path: str) -> None:
    known = Identifiers(return_path, tuple(signers), is_uncertain=True)
    assert run(dmarc.evaluate([author], known), world(data)).result != "fail"


@given(st.text())
def test_a_field_is_read_whatever_it_says(text: str) -> None:
    statement = authres.parse(text)
    assert all(one.method and one.word for one in statement.results)
    received.read(text)


@given(st.text('abc=;()"\\ /.\t1', max_size=200))
def test_a_field_of_nothing_but_marks_is_read(text: str) -> None:
    authres.parse(text)


@given(st.text(" fromby()[]:;.0123456789abcdefhelo=", max_size=200))
def test_a_hop_of_nothing_but_marks_is_read(text: str) -> None:
    received.read(f"from {text}")


@given(st.text())
def test_a_domain_once_read_reads_the_same(text: str) -> None:
    assert domain_of(domain_of(text)) == domain_of(text)


@given(st.binary(max_size=300))
@settings(max_examples=60)
def test_signatures_of_any_bytes_come_to_something(junk: bytes) -> None:
    raw = b"From: a@a.example\r\nDKIM-Signature: v=1; d=a.example; s=k; " + junk + b"\r\n\r\nbody\r\n"
    names_of = signatures.keys_of(scan(raw), "a.example")
    found = signatures.check_dkim(raw, dict.fromkeys(names_of, "v=DKIM1; p=AAAA"), 0.0)
    assert all(one.word != "pass" for one in found)
    assert not signatures.check_arc(raw.replace(b"DKIM-Signature", b"ARC-Seal"), {}, 0.0)


def test_hostile_headers_of_the_largest_size_take_no_time() -> None:
    kilobyte = {
        "quotes": b'"' * 1_000,
        "brackets": b"(" * 1_000,
        "marks": b";" * 1_000,
        "pairs": b"a=b;" * 250,
        "words": b"=?utf-8?q?a?= " * 70,
        "addresses": b"[1.2.3.4] " * 100,
        "colons": b"1:" * 500,
    }
    for what, junk in kilobyte.items():
        for name in (b"Authentication-Results", b"Received", b"DKIM-Signature", b"ARC-Seal"):
            for one in (junk * 240, junk):  # one endless field, and as many as fit
                field = name + b": from mx; " + one + b"\r\n"
                facts = scan(field * max(1, 250_000 // len(field)) + b"\r\n")
                began = time.process_time()
                authres.read(facts, ["mx", "", "*.example"])
                received.border(facts)
                signatures.keys_of(facts, "a.example")
                signatures.arc_keys_of(facts)
                assert time.process_time() - began < 0.25, (what, name)  # tens of milliseconds on a slow machine


def _always(record: str, question: Question) -> Answer:
    return (record,)


def test_hostile_records_take_no_time() -> None:
    for record in (
        "v=spf1 " + "%{" * 4_000,
        "v=spf1 exists:" + "%{l}" * 2_000,
        "v=spf1 " + "a:" + "/" * 8_000,
        "v=spf1 " + "?all " * 1_600,
        "v=spf1 exists:" + "a" * 8_000,
        "v=spf1 " + "x" * 8_000 + "=" + "%" * 8_000,
        "v=DMARC1; p=" + " " * 60_000 + "x; rua=" + "a" * 60_000,
        "v=DMARC1" + ";" * 60_000,
    ):
        began = time.process_time()
        run(spf.check(ip_address("192.0.2.1"), "joe@a.example", "h.example"), partial(_always, record))
        dmarc.parse(record)
        assert time.process_time() - began < 0.25, record[:40]
