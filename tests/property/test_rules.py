"""Laws of the rule chain, over random rules and random messages."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.conditions import If
from gateway.config.rules_file import RulesFile
from gateway.mime.scan import scan
from gateway.model import MessageClass
from gateway.rules.chain import Chain
from gateway.rules.classify import classify
from gateway.rules.match import Compiler, Evidence, Pattern

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
        "spf": st.just("pass"),
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


def chain(made: list[tuple[dict[str, Any], dict[str, Any], bool]], linked: list[str]) -> Chain:
    touchpoint = {"id": "t", "address": "t@example.com", "name": "T", "linked_queues": linked}
    written = [{"name": f"r{n}", "if": asked, "then": does, "stop": stop} for n, (asked, does, stop) in enumerate(made)]
    file = RulesFile.model_validate({"touchpoint": [touchpoint], "rule": written, "spam": {"blocklist": ["*a*@*"]}})
    return Chain(file.rules, {"t": file.touchpoints[0]}, blocklist=file.spam.blocklist)


@given(rules, messages, st.lists(st.sampled_from(["three", "four"]), unique=True), st.sampled_from(["t", "gone"]))
def test_a_verdict_is_total_deterministic_and_always_has_a_queue(
    made: list[tuple[dict[str, Any], dict[str, Any], bool]], raw: bytes, linked: list[str], touchpoint: str
) -> None:
    verdict = chain(made, linked).decide(touchpoint, scan(raw), len(raw))
    assert verdict.queues
    assert "linked" not in verdict.queues
    assert len(set(verdict.queues)) == len(verdict.queues)
    assert verdict == chain(made, linked).decide(touchpoint, scan(raw), len(raw))


@given(rules, messages)
def test_explaining_says_more_and_decides_the_same(
    made: list[tuple[dict[str, Any], dict[str, Any], bool]], raw: bytes
) -> None:
    both = chain(made, ["one"])
    plain, explained = (both.decide("t", scan(raw), len(raw), explain=explain) for explain in (False, True))
    assert {name: getattr(plain, name) for name in plain.__slots__ if name != "trail"} == {
        name: getattr(explained, name) for name in explained.__slots__ if name != "trail"
    }
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
