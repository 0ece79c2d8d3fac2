"""Laws of the rule chain, over random rules and random messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.conditions import If
from gateway.config.rules_file import RulesFile
from gateway.mime.scan import scan
from gateway.model import Attachment, Authentication, Findings, MessageClass, Score, Verdict
from gateway.rules.chain import Chain, SenderList
from gateway.rules.classify import classify
from gateway.rules.match import Compiler, Evidence, Need, Pattern, matches_glob

Made = list[tuple[dict[str, Any], dict[str, Any], bool]]  # condition, action, stop
LETTERS = "abAB .@?ßü"
texts = st.text(LETTERS, max_size=12)
patterns = st.text(LETTERS + "**", min_size=1, max_size=8).filter(lambda text: text.strip())
expressions = st.sampled_from(["/a/", "/^b/", "/a+b*$/", "/[^a]@/", "/(a|b)b/", "/./"])
some = st.lists(patterns | expressions, min_size=1, max_size=3)
tests = st.fixed_dictionaries(
    {},
    optional={
        "subject": some,
        "from": some,
        "header.x-a": some,
        "class": st.sampled_from(list(MessageClass)),
        "size_over": st.integers(1, 100),
        "spf": st.sampled_from(["pass", "fail"]),
        "dmarc": st.sampled_from(["pass", "fail"]),
        "body": some,
        "return_path": some,
        "attachment_name": some,
        "has_attachment": st.booleans(),
        "known_sender": st.booleans(),
        "spam_score_over": st.integers(0, 9),
        "hours": st.sampled_from(["office:open", "office:closed"]),
    },
)
conditions: st.SearchStrategy[dict[str, Any]] = st.recursive(
    tests,
    lambda inner: st.fixed_dictionaries(
        {}, optional={"all": inner, "any": st.lists(inner, min_size=1, max_size=3), "not": inner}
    ),
)
actions = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.lists(st.sampled_from(["one", "two", "linked"]), min_size=1, max_size=2),
        "tags": st.lists(st.sampled_from("xyz"), max_size=2),
        "priority": st.sampled_from(["low", "normal", "high"]),
        "quarantine": st.booleans(),
        "discard": st.booleans(),
        "reroute": st.booleans(),
    },
)
rules = st.lists(st.tuples(conditions, actions, st.booleans()), max_size=6)
messages = st.tuples(texts, texts, texts).map(
    lambda made: f"Subject: {made[0]}\r\nFrom: {made[1]}\r\nX-A: {made[2]}\r\n\r\n".encode()
) | st.binary(max_size=200)
words = st.sampled_from(["", "pass", "fail"])
findings = st.builds(
    Findings,
    at=st.none() | st.sampled_from([datetime(2026, 11, 23, hour, tzinfo=UTC) for hour in (3, 12)]),
    block=st.sampled_from(["", "*@a"]),
    authentication=st.none()
    | st.builds(Authentication, spf=words, dmarc=words, policy=st.sampled_from(["", "reject"])),
    score=st.none() | st.builds(Score, st.floats(0, 9), st.just("scanner")),
    known_sender=st.none() | st.booleans(),
    attachments=st.none() | st.lists(st.builds(Attachment, texts, st.just("x/y"), st.just(1)), max_size=2).map(tuple),
    body=st.none() | st.lists(texts, max_size=2).map("\n".join),
)
OFFICE = {"office": {"timezone": "UTC", "open": ["mon-sun 09:00-18:00"]}}


def chain(made: Made, linked: list[str]) -> Chain:
    touchpoint = {"id": "t", "address": "t@example.com", "name": "T", "linked_queues": linked}
    written = [{"name": f"r{n}", "if": asked, "then": does, "stop": stop} for n, (asked, does, stop) in enumerate(made)]
    spam = {"blocklist": ["*a*@*"], "quarantine_over": 5.0, "on_dmarc_fail": "quarantine"}
    file = RulesFile.model_validate({"touchpoint": [touchpoint], "rule": written, "spam": spam, "hours": OFFICE})
    return Chain(
        file.rules,
        {"t": file.touchpoints[0]},
        blocklist=file.spam.blocklist,
        hours=file.hours,
        quarantine_over=file.spam.quarantine_over,
        on_dmarc_fail=file.spam.on_dmarc_fail,
    )


def without_trail(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in verdict.__slots__ if name != "trail"}


@given(
    rules, messages, findings, st.lists(st.sampled_from(["three", "four"]), unique=True), st.sampled_from(["t", "gone"])
)
def test_a_verdict_is_total_deterministic_and_always_has_a_queue(
    made: Made, raw: bytes, found: Findings, linked: list[str], touchpoint: str
) -> None:
    verdict = chain(made, linked).decide(touchpoint, scan(raw), len(raw), findings=found)
    assert verdict.queues
    assert "linked" not in verdict.queues
    assert len(set(verdict.queues)) == len(verdict.queues)
    assert verdict == chain(made, linked).decide(touchpoint, scan(raw), len(raw), findings=found)


@given(rules, messages, findings, st.booleans())
def test_explaining_says_more_and_decides_the_same(made: Made, raw: bytes, found: Findings, junk: bool) -> None:
    both = chain(made, ["one"])
    plain, explained = (
        both.decide("t", scan(raw), len(raw), junk=junk, findings=found, explain=explain) for explain in (False, True)
    )
    assert without_trail(plain) == without_trail(explained)
    said = {(step.step, step.verdict) for step in plain.trail}
    assert [one.step for one in explained.trail if (one.step, one.verdict) in said] == [one.step for one in plain.trail]
    assert sum(step.step.startswith("rule ") for step in explained.trail) == len(made)


@given(st.lists(patterns | expressions, min_size=1, max_size=5), st.lists(texts, max_size=4))
def test_the_quick_way_to_match_agrees_with_the_plain_one(written: list[str], values: list[str]) -> None:
    raw = "".join(f"X-A: {value}\r\n" for value in values).encode() + b"\r\n"
    compiler = Compiler()
    node = compiler.compile(If.model_validate({"header.x-a": written}).tree)
    compiler.finish()
    evidence = Evidence(scan(raw), 1, MessageClass.HUMAN)
    plain = any(Pattern.read(one).meets(value) for one in written for value in evidence.values("header.x-a"))
    assert node.holds(evidence) is plain
    assert (" matches none of " in node.tell(evidence) or " is missing" in node.tell(evidence)) is not plain


@given(rules, messages, findings)
def test_what_is_not_wanted_would_change_no_verdict(made: Made, raw: bytes, found: Findings) -> None:
    judge = chain(made, ["one"])
    at_once = replace(found, body=None, attachments=None, known_sender=None)
    wanted = judge.wants("t", scan(raw), len(raw), at_once)
    assert wanted <= judge.needs("t")
    asked = replace(
        at_once,
        body=found.body if Need.BODY in wanted else None,
        attachments=found.attachments if Need.ATTACHMENTS in wanted else None,
        known_sender=found.known_sender if Need.KNOWN_SENDER in wanted else None,
    )
    verdicts = [judge.decide("t", scan(raw), len(raw), findings=each) for each in (found, asked)]
    assert without_trail(verdicts[0]) == without_trail(verdicts[1])


@given(st.lists(st.lists(patterns | expressions, min_size=1, max_size=3), min_size=1, max_size=12), st.lists(texts))
def test_bodies_are_searched_together_as_one_by_one(written: list[list[str]], views: list[str]) -> None:
    compiler = Compiler()
    nodes = [compiler.compile(If.model_validate({"body": one}).tree) for one in written]
    compiler.finish()
    evidence = Evidence(scan(b""), 1, MessageClass.HUMAN, Findings(body="\n".join(views)))
    seen = [view for view in views if view]
    for node, its in zip(nodes, written, strict=True):
        assert node.holds(evidence) is any(Pattern.read(one).meets(view) for one in its for view in seen)


@given(rules, messages, findings)
def test_knowing_more_changes_no_answer_that_was_given(made: Made, raw: bytes, found: Findings) -> None:
    compiler = Compiler(RulesFile.model_validate({"hours": OFFICE}).hours)
    nodes = [compiler.compile(If.model_validate(asked).tree) for asked, _, _ in made]
    compiler.finish()
    nothing, all_of_it = (Evidence(scan(raw), 1, MessageClass.HUMAN, each) for each in (Findings(), found))
    for node in nodes:
        before = node.holds(nothing)
        assert before is None or node.holds(all_of_it) is before


def by_definition(parts: str, value: str) -> bool:
    """A glob as everybody would define it, and as nobody should compute it."""
    if not parts:
        return not value
    if parts[0] == "*":
        return any(by_definition(parts[1:], value[cut:]) for cut in range(len(value) + 1))
    return bool(value) and parts[0] == value[0] and by_definition(parts[1:], value[1:])


@given(st.text("ab*", min_size=1, max_size=6), st.text("ab", max_size=8))
def test_a_glob_means_what_it_says(pattern: str, value: str) -> None:
    assert Pattern.read(pattern).meets(value) is by_definition(pattern, value)


@given(st.binary(max_size=1_000))
def test_every_message_has_a_class(raw: bytes) -> None:
    found, step = classify(scan(raw), frozenset({"t@example.com"}))
    assert step.verdict == found.value
    assert step.detail


_LETTERS = "ab.@"


@given(
    patterns=st.lists(st.text(_LETTERS + "*", min_size=1, max_size=6) | st.text("ab.", max_size=3).map("*@{}".format)),
    address=st.text(_LETTERS, max_size=6),
)
def test_a_list_of_senders_holds_whom_one_of_its_patterns_matches(patterns: list[str], address: str) -> None:
    def matches(pattern: str) -> bool:
        return matches_glob(tuple(pattern.split("*")), address) if "*" in pattern else pattern == address

    found = SenderList(patterns).find([address])
    assert (found is not None) == any(map(matches, patterns))
    if found is not None:
        assert found[0] == address
        assert matches(found[1])
