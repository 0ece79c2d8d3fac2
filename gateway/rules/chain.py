"""The rule chain: class, sender lists, the provider's verdict, the scanner's, DMARC's, the rules in their order, a
place for what is left.

One pure function from a header, and what was found out beyond it, to a verdict. Its trail tells what had a part in the
verdict; asked to explain, it tells of every rule what it looked at. Which queue a *continued* conversation stays in is
not known here: that is decided where the conversation is found (`rules.conversation.place`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Literal

from gateway.config.rules_file import Action, Rule, Touchpoint
from gateway.mime.scan import HeaderFacts
from gateway.model import NO_FINDINGS, REPLY_TO, UNROUTED, Answering, Findings, MessageClass, Priority, Step, Verdict
from gateway.rules.classify import classify
from gateway.rules.match import Clock, Compiler, Evidence, Need, Node, is_costly, matches_glob, needs_of
from gateway.rules.telling import tell_each

if TYPE_CHECKING:
    from gateway.config import Config

LINKED: Final = "linked"  # in a rule's `queue`: the touchpoint's own queues
UNREAD_TAG: Final = "unreadable"
DMARC_TAG: Final = "dmarc-fail"  # on mail whose sender is not who it says, by the word of the sender's own domain
_WILD: Final = frozenset("*@")
_SHOWN_DETAIL: Final = 600  # characters
_EXPLAINED_DETAIL: Final = 8_000  # characters: all of a condition
_SYMBOLS_SHOWN: Final = 8
_UNANSWERED_TOLD: Final = 10  # rules in a trail that had no answer: where DMARC is not known, a thousand may ask for it
IN_JUNK: Final = "it lies in the provider's Junk"


class _Standing(Enum):
    """What the lists say of a sender."""

    ALLOWED = auto()
    BLOCKED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    node: Node
    action: Action
    stop: bool
    verdict: str  # what the action does, in words
    needs: frozenset[Need]
    is_costly: bool


@dataclass(slots=True)
class _Draft:
    """What has been said so far. `by_us`: what lists and rules alone say about quarantine."""

    quarantine: bool
    by_us: bool
    queues: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    priority: Priority | None = None
    discard: bool = False
    auto_reply: Answering = True
    reroute: bool = False

    def apply(self, action: Action, linked: Sequence[str]) -> None:
        for queue in action.queue:
            self.queues.extend(linked if queue == LINKED else (queue,))
        self.tags.extend(action.tags)
        self.priority = action.priority or self.priority
        if action.quarantine is not None:
            self.quarantine = self.by_us = action.quarantine
        if action.auto_reply is not None:
            self.auto_reply = action.auto_reply
        self.discard |= action.discard
        self.reroute |= action.reroute


class SenderList:
    """Addresses, `*@domain`, and other patterns. The first two are one lookup, however long the list: a message may
    name 500 authors.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self._exact = frozenset(one for one in patterns if "*" not in one)
        self._domains = frozenset(one for one in patterns if one.startswith("*@") and not _WILD & set(one[2:]))
        self._globs = tuple((one, tuple(one.split("*"))) for one in patterns if "*" in one and one not in self._domains)

    def find(self, addresses: Collection[str]) -> tuple[str, str] | None:
        """Return (address, pattern) of the first hit. Addresses and patterns in lower case."""
        for address in addresses:
            if address in self._exact:
                return address, address
            _, at, domain = address.rpartition("@")
            if at and (whole := f"*@{domain}") in self._domains:
                return address, whole
            for pattern, parts in self._globs:
                if matches_glob(parts, address):
                    return address, pattern
        return None


class Chain:
    """All rules of one configuration, compiled. Immutable after construction; safe to use from any thread."""

    def __init__(
        self,
        rules: Sequence[Rule],
        touchpoints: Mapping[str, Touchpoint],
        *,
        allowlist: Collection[str] = (),
        blocklist: Collection[str] = (),
        hours: Mapping[str, Clock] | None = None,
        quarantine_over: float = 6.0,
        on_dmarc_fail: Literal["tag", "quarantine"] = "tag",
    ) -> None:
        compiler = Compiler(hours)
        compiled = [(rule.touchpoints, _compile(compiler, rule)) for rule in rules]
        compiler.finish()
        self._everywhere = tuple(rule for only, rule in compiled if only is None)
        self._by_touchpoint = {
            id: tuple(rule for only, rule in compiled if only is None or id in only) for id in touchpoints
        }
        self._linked = {id: touchpoint.linked_queues for id, touchpoint in touchpoints.items()}
        self._own = {id: touchpoint.addresses for id, touchpoint in touchpoints.items()}
        self._marks = {id: marks for id, one in touchpoints.items() if (marks := one.profile.spam_marks)}
        self._allowed = SenderList(allowlist)
        self._blocked = SenderList(blocklist)
        self._quarantine_over = quarantine_over
        self._on_dmarc_fail = on_dmarc_fail
        self._needing_everywhere = tuple(rule for rule in self._everywhere if rule.needs)
        self._needing = {id: tuple(rule for rule in its if rule.needs) for id, its in self._by_touchpoint.items()}
        self._needs = {id: frozenset[Need]().union(*(rule.needs for rule in its)) for id, its in self._needing.items()}
        self._costly = {id: any(rule.is_costly for rule in its) for id, its in self._by_touchpoint.items()}

    def needs(self, touchpoint: str) -> frozenset[Need]:
        """Return what some rule of that touchpoint asks about beyond the header."""
        found = self._needs.get(touchpoint)
        return frozenset[Need]().union(*(rule.needs for rule in self._needing_everywhere)) if found is None else found

    def wants(self, touchpoint: str, facts: HeaderFacts, size: int, findings: Findings) -> frozenset[Need]:
        """Return what the rules hang on for this message, given what is known already: what is not asked for would
        change no verdict. Takes as long as deciding.
        """
        rules = self._needing.get(touchpoint, self._needing_everywhere)
        if not rules:
            return frozenset()
        message_class, _ = classify(facts, self._own.get(touchpoint, frozenset()))
        evidence = Evidence(facts, size, message_class, findings)
        return frozenset[Need]().union(*(rule.needs for rule in rules if rule.node.holds(evidence) is None))

    def is_costly(self, touchpoint: str) -> bool:
        """May deciding take longer than a loop has to spare?"""
        return self._costly.get(touchpoint, True)

    def decide(
        self,
        touchpoint: str,
        facts: HeaderFacts,
        size: int,
        *,
        junk: bool = False,
        findings: Findings = NO_FINDINGS,
        explain: bool = False,
    ) -> Verdict:
        """Return the verdict on a message of `size` bytes. Its queues are those of a new conversation.

        `junk`: the provider has put it into its Junk. A touchpoint that the configuration no longer has gets the rules
        for all touchpoints. `explain` makes the trail tell of every rule, also of those that did not match or were not
        looked at, each part of a condition with its answer; nothing else differs.
        """
        message_class, step = classify(facts, self._own.get(touchpoint, frozenset()))
        trail = [step]
        standing = self._look_up_sender(facts, findings.block, trail, explain=explain)
        draft = _Draft(quarantine=standing is _Standing.BLOCKED, by_us=standing is _Standing.BLOCKED)
        if junk:
            draft.quarantine = standing is not _Standing.ALLOWED
            verdict = "quarantine" if draft.quarantine else "no quarantine: the sender is on the allowlist"
            trail.append(Step("provider", IN_JUNK, verdict))
        elif mark := self._find_mark(touchpoint, facts):
            is_spared = standing is _Standing.ALLOWED
            draft.quarantine = draft.by_us = draft.quarantine or not is_spared
            trail.append(Step("provider", mark, _spared(is_spared)))
        elif explain:
            trail.append(Step("provider", "it does not lie in the provider's Junk", "no quarantine"))
        self._weigh(findings, standing, draft, trail, explain=explain)
        linked = self._linked.get(touchpoint, ())
        evidence = Evidence(facts, size, message_class, findings)
        rules = self._by_touchpoint.get(touchpoint, self._everywhere)
        untold = _UNANSWERED_TOLD
        for number, rule in enumerate(rules):
            holds = rule.node.holds(evidence)
            if holds:
                draft.apply(rule.action, linked)
                trail.append(_step(rule, evidence, rule.verdict, explain=explain))
                if rule.stop:
                    if explain:
                        trail += (Step(f"rule {one.name}", "not looked at", "-") for one in rules[number + 1 :])
                    break
            elif holds is None and (explain or (untold := untold - 1) >= 0):
                trail.append(_step(rule, evidence, "no match: a condition cannot be answered", explain=explain))
            elif explain:
                trail.append(_step(rule, evidence, "no match", explain=True))
        queues, reason = _place(draft.queues, linked)
        trail.append(Step("queues", reason, ", ".join(queues)))
        return Verdict(
            message_class=message_class,
            queues=queues,
            tags=tuple(dict.fromkeys(draft.tags)),
            priority=draft.priority or Priority.NORMAL,
            priority_set=draft.priority is not None,
            quarantine=draft.quarantine,
            junk_alone=draft.quarantine and not draft.by_us,
            blocked=draft.quarantine and standing is _Standing.BLOCKED,
            discard=draft.discard,
            reroute=draft.reroute,
            auto_reply=draft.auto_reply,
            trail=tuple(trail),
        )

    def _look_up_sender(self, facts: HeaderFacts, block: str, trail: list[Step], *, explain: bool) -> _Standing:
        """Return how the lists see the sender: what people see as sender counts, for blocks also the return path.

        `block`: the pattern of an agent's block that the sender meets.
        """
        authors = [box.address.lower() for box in facts.authors if box.address]
        if hit := self._allowed.find(authors):
            trail.append(Step("allowlist", f"{hit[0]} is on it as {hit[1]}", "not blocked"))
            return _Standing.ALLOWED
        path = facts.return_path
        if hit := self._blocked.find([*authors, path.lower()] if path else authors):
            trail.append(Step("blocklist", f"{hit[0]} is on it as {hit[1]}", "quarantine"))
            return _Standing.BLOCKED
        if block:
            trail.append(
                Step("blocklist", f"{', '.join(authors[:1]) or path or 'it'} is blocked as {block}", "quarantine")
            )
            return _Standing.BLOCKED
        if explain:
            trail.append(Step("blocklist", f"{', '.join(authors) or 'no sender'} is on neither list", "not blocked"))
        return _Standing.UNKNOWN

    def _find_mark(self, touchpoint: str, facts: HeaderFacts) -> str:
        """Return how the provider has marked it as spam, "" where it has not."""
        for name, values in self._marks.get(touchpoint, ()):
            if (value := facts.value(name).strip()) in values:
                return f"the provider marks it: {name} is {value}"
        return ""

    def _weigh(
        self, findings: Findings, standing: _Standing, draft: _Draft, trail: list[Step], *, explain: bool
    ) -> None:
        """Add what the scanner and DMARC say. Who is on the allowlist is only noted."""
        is_allowed = standing is _Standing.ALLOWED
        if (score := findings.score) is not None:
            is_over = score.value > self._quarantine_over
            if is_over and not is_allowed:
                draft.quarantine = draft.by_us = True
            if is_over or explain:
                symbols = f" ({', '.join(score.symbols[:_SYMBOLS_SHOWN])})" if score.symbols else ""
                said = f"{score.by} says {score.value:g}, {'over' if is_over else 'not over'} {self._quarantine_over:g}"
                trail.append(Step("scanner", said + symbols, _spared(is_allowed) if is_over else "no quarantine"))
        elif findings.no_score:
            trail.append(Step("scanner", findings.no_score, "no score"))
        authentication = findings.authentication
        if authentication is not None and authentication.fails_by_policy:
            draft.tags.append(DMARC_TAG)
            verdict = f"tag {DMARC_TAG}"
            if self._on_dmarc_fail == "quarantine":
                if not is_allowed:
                    draft.quarantine = draft.by_us = True
                verdict = f"{_spared(is_allowed)}, {verdict}"
            trail.append(Step("dmarc", authentication.detail or f"fail, says {authentication.by}", verdict))
        elif explain:
            word = authentication.dmarc if authentication is not None else ""
            trail.append(
                Step("dmarc", f"{word}, says {authentication.by}" if word and authentication else "not known", "-")
            )


def _spared(is_allowed: bool) -> str:
    return "no quarantine: the sender is on the allowlist" if is_allowed else "quarantine"


def compile_chain(config: Config) -> Chain:
    """Return the chain of a configuration. May take a tenth of a second for a thousand rules: not on a loop."""
    rules = config.rules
    spam = rules.spam
    return Chain(
        rules.rules,
        config.touchpoints,
        allowlist=spam.allowlist,
        blocklist=spam.blocklist,
        hours=rules.hours,
        quarantine_over=spam.quarantine_over,
        on_dmarc_fail=spam.on_dmarc_fail,
    )


def last_resort(linked: Sequence[str], cause: str, *, junk: bool = False) -> Verdict:
    """Return the verdict on a message that cannot be read or judged: it still reaches the linked queues, unread; out of
    the provider's Junk (`junk`) the quarantine.
    """
    queues, reason = _place((), linked)
    provider = (Step("provider", IN_JUNK, "quarantine"),) if junk else ()
    trail = (Step("intake", cause, "taken as it is"), *provider, Step("queues", reason, ", ".join(queues)))
    return Verdict(
        MessageClass.HUMAN,
        queues,
        tags=(UNREAD_TAG,),
        quarantine=junk,
        junk_alone=junk,
        auto_reply=False,
        trail=trail,
    )


def _compile(compiler: Compiler, rule: Rule) -> _Rule:
    condition = rule.condition
    node = compiler.compile(condition)
    return _Rule(rule.name, node, rule.action, rule.stop, _say(rule), needs_of(condition), is_costly(condition))


def _place(chosen: Sequence[str], linked: Sequence[str]) -> tuple[tuple[str, ...], str]:
    if chosen:
        return tuple(dict.fromkeys(chosen)), "rules say so"
    if linked:
        return tuple(dict.fromkeys(linked)), "no rule names one; linked to the touchpoint"
    return (UNROUTED,), "no rule and no link names one"


def _step(rule: _Rule, evidence: Evidence, verdict: str, *, explain: bool) -> Step:
    if explain:
        return Step(f"rule {rule.name}", tell_each(rule.node, evidence)[:_EXPLAINED_DETAIL], verdict)
    return Step(f"rule {rule.name}", rule.node.tell(evidence)[:_SHOWN_DETAIL], verdict)


ANSWERING: Final[Mapping[Answering, str]] = {
    True: "auto-reply",
    False: "no auto-reply",
    REPLY_TO: "auto-reply to Reply-To",
}


def _say(rule: Rule) -> str:
    action = rule.action
    said = [f"queue {', '.join(action.queue)}"] if action.queue else []
    said += [f"priority {action.priority.value}"] if action.priority else []
    said += [f"tag {tag}" for tag in action.tags]
    said += [] if action.quarantine is None else ["quarantine" if action.quarantine else "no quarantine"]
    said += [word for word, does in (("discard", action.discard), ("reroute", action.reroute)) if does]
    said += [] if action.auto_reply is None else [ANSWERING[action.auto_reply]]
    said += ["stop"] if rule.stop else []
    return ", ".join(said) or "matches, and does nothing"
