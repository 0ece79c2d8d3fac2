"""Judging a message again: why it went where it went, and where it would go now.

What was found out about it then is taken as it was; the rules are those that are asked. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.config.rules_file import Rule
from gateway.mime.scan import HeaderFacts
from gateway.model import NO_FINDINGS, Answering, Findings, MessageClass, Placeholder, Step, Verdict
from gateway.rules.chain import Chain, last_resort
from gateway.rules.conversation import place

CONTENT: Final = "content"  # the step that says why not all of a body was known
_CONVERSATION: Final = "conversation"
_RULE: Final = "rule "


@dataclass(frozen=True, slots=True)
class Case:
    """A message as it was judged, or as it would be. `trail`: what was recorded then, None where it never was.

    `existing`: the queues of the conversation that it continued.
    """

    touchpoint: str
    facts: HeaderFacts
    size: int
    is_junk: bool = False
    placeholder: Placeholder | None = None
    findings: Findings = NO_FINDINGS
    trail: tuple[Step, ...] | None = None
    existing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a message goes, and what goes with it."""

    message_class: MessageClass
    queues: tuple[str, ...]
    quarantine: bool
    discard: bool
    tags: tuple[str, ...] = ()
    priority: str = ""
    auto_reply: Answering = True

    @property
    def place(self) -> str:
        """Where a person would find it."""
        if self.quarantine:
            return "quarantine"
        return "discarded" if self.discard else f"queue {', '.join(self.queues)}"


def judge(chain: Chain, case: Case, linked: Sequence[str], *, explain: bool = False) -> Verdict:
    """Return the verdict of `chain`, and the steps that placing the message adds to it. `linked`: the touchpoint's
    queues.
    """
    if case.placeholder is Placeholder.BLIND:
        verdict = last_resort(linked, "nothing of the message could be had", junk=case.is_junk)
    else:
        verdict = chain.decide(
            case.touchpoint, case.facts, case.size, junk=case.is_junk, findings=case.findings, explain=explain
        )
    read = [step for step in case.trail or () if step.step == CONTENT]
    added = [step for step in case.trail or () if step.step == "bounce"]
    proof = _proof(case.trail or ())
    if proof is not None and verdict.junk_alone:
        verdict = replace(verdict, quarantine=False, junk_alone=False)
        added.append(proof)
    _, step = place(verdict, case.existing)
    trail = (*verdict.trail[:1], *read, *verdict.trail[1:], *added, *((step,) if step else ()))
    return replace(verdict, trail=trail)


def outcome_of(verdict: Verdict, existing: Sequence[str]) -> Outcome:
    """Return where a verdict sends a message that continues a conversation in `existing` (none: begins one)."""
    queues, _ = place(verdict, existing)
    return Outcome(
        verdict.message_class,
        queues,
        verdict.quarantine,
        verdict.discard,
        verdict.tags,
        verdict.priority.value,
        verdict.auto_reply,
    )


def recorded(trail: Sequence[Step], message_class: MessageClass, *, discarded: bool) -> Outcome:
    """Return where a message went when it was judged, whatever a person has decided since."""
    queues = ""
    for step in trail:
        if step.step == "queues":
            queues = step.verdict
        elif step.step == _CONVERSATION:
            queues = step.verdict.removeprefix("stays in ").removeprefix("moved to ")
    return Outcome(message_class, tuple(filter(None, queues.split(", "))), _was_quarantined(trail), discarded)


def existing_queues(trail: Sequence[Step]) -> tuple[str, ...]:
    """Return the queues in which the conversation was that a message continued, as its trail tells."""
    for step in trail:
        if step.step == _CONVERSATION and step.verdict.startswith("stays in "):
            return tuple(step.verdict.removeprefix("stays in ").split(", "))
        if step.step == _CONVERSATION and step.detail.startswith("was in "):
            return tuple(step.detail.removeprefix("was in ").partition(";")[0].split(", "))
    return ()


def was_unread(trail: Sequence[Step]) -> bool:
    """Was the body asked about when the message was judged, and could it not be read?"""
    return any(step.step == CONTENT and step.verdict == "not known" for step in trail)


def lay_in_junk(trail: Sequence[Step]) -> bool:
    """Did the message lie in the provider's Junk when it was judged?"""
    return any(step.step == "provider" and step.detail.startswith("it lies in") for step in trail)


def same_place(one: Outcome, other: Outcome) -> bool:
    """Would a person find it in the same place? Queues count as a set; where nobody sees them they do not count."""
    if (one.quarantine, one.discard) != (other.quarantine, other.discard):
        return False
    return one.quarantine or one.discard or set(one.queues) == set(other.queues)


def with_other_rules(trail: Sequence[Step], rules: Sequence[Rule], touchpoint: str) -> list[Step]:
    """Return an explained trail with the rules of other touchpoints in their places, so that every rule is in it."""
    first = next((number for number, step in enumerate(trail) if step.step.startswith(_RULE)), None)
    if first is None:
        first = next((number for number, step in enumerate(trail) if step.step == "queues"), len(trail))
    told = iter([step for step in trail if step.step.startswith(_RULE)])
    every: list[Step] = []
    for rule in rules:
        if rule.touchpoints is None or touchpoint in rule.touchpoints:
            every.extend(step for step in (next(told, None),) if step is not None)
        else:
            detail = f"only for {', '.join(rule.touchpoints)}"
            every.append(Step(f"{_RULE}{rule.name}", detail, "not for this touchpoint"))
    rest = [step for step in trail[first:] if not step.step.startswith(_RULE)]
    return [*trail[:first], *every, *rest]


def deciding(trail: Sequence[Step], verdict: Verdict) -> str:
    """Return the names of the steps that put a message where it goes."""
    if verdict.quarantine:
        names = [step.step for step in trail if "quarantine" in step.verdict.split(", ")]
    elif verdict.discard:
        names = [step.step for step in trail if "discard" in step.verdict.split(", ")]
    else:
        names = [step.step for step in trail if step.step.startswith(_RULE) and step.verdict.startswith("queue ")]
    return ", ".join(dict.fromkeys(names)) or "queues"


def _proof(trail: Sequence[Step]) -> Step | None:
    """Return the step that says that a report in Junk is about mail of ours, and so none."""
    for step in trail:
        if step.step == "provider" and "is about mail of ours" in step.detail:
            return step
    return None


def _was_quarantined(trail: Sequence[Step]) -> bool:
    is_in = False
    for step in trail:
        for word in step.verdict.split(", "):
            if word == "quarantine":
                is_in = True
            elif word == "no quarantine" or word.startswith("no quarantine:"):
                is_in = False
    return is_in
