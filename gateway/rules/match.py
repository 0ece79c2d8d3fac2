"""Conditions of rules, compiled once at load, asked once a message.

A condition answers True, False, or None for "cannot be said": what it asks about was not found out. None travels
through `all`, `any` and `not` as in three-valued logic, so that such a condition never makes a rule match, not even
inside a `not`.

How a thousand rules stay below two milliseconds: the values of a field are folded once a message and joined into one
string, `\\n` around each; an ordinary glob is then one substring search, `*invoice*` for `invoice`, `*@x.example` for
`@x.example\\n`. No value contains a line end (`mime.scan` sees to it). Regular expressions of one field are first asked
all together, in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

import re2

from gateway.config.conditions import All, AnyOf, Condition, Not, Test
from gateway.config.values import compile_expression, expression_of
from gateway.mime.scan import HeaderFacts, Mailbox
from gateway.model import NO_FINDINGS, Findings, MessageClass

VALUE_CHARACTERS: Final = 2_000  # of one value that patterns see
FIELD_CHARACTERS: Final = 8_000  # of all values of one field together
_SHOWN: Final = 120  # characters of a value in an explanation
_SET_MEMORY: Final = 64 * 1024 * 1024  # bytes: a set that needs more answers "no match" for everything
_MANY: Final = 8  # so few are looked for one by one
NULL_PATH: Final = "<>"  # how the null return path is written in a pattern


class Need(StrEnum):
    """What has to be found out before a condition can answer, beyond the header."""

    BODY = "body"
    ATTACHMENTS = "attachments"
    AUTHENTICATION = "authentication"
    KNOWN_SENDER = "known_sender"
    SCORE = "score"


NEEDS: Final[Mapping[str, Need]] = {
    "body": Need.BODY,
    **dict.fromkeys(("attachment_name", "attachment_type", "has_attachment"), Need.ATTACHMENTS),
    **dict.fromkeys(("spf", "dkim", "dmarc"), Need.AUTHENTICATION),
    "known_sender": Need.KNOWN_SENDER,
    "spam_score_over": Need.SCORE,
}


def is_costly(condition: Condition) -> bool:
    """May answering take long, when the admin wrote something unwise and the message fits to it? What is a search for
    fixed text may not; a regular expression may need milliseconds for each value, though never more than linear time.
    """
    match condition:
        case All(conditions) | AnyOf(conditions):
            return any(map(is_costly, conditions))
        case Not(inner):
            return is_costly(inner)
        case Test("body"):
            return True
        case Test(_, values):
            return any(isinstance(one, str) and (expression_of(one) is not None or "?" in one) for one in values)


def needs_of(condition: Condition) -> frozenset[Need]:
    """Return everything that some part of the condition asks about."""
    match condition:
        case All(conditions) | AnyOf(conditions):
            return frozenset().union(*map(needs_of, conditions))
        case Not(inner):
            return needs_of(inner)
        case Test(field):
            return frozenset((NEEDS[field],)) if field in NEEDS else frozenset()


class Clock(Protocol):
    """Office hours."""

    def is_open(self, at: datetime) -> bool: ...


class Evidence:
    """One message as the conditions see it. Every value is computed when it is first asked for, and then kept."""

    def __init__(
        self, facts: HeaderFacts, size: int, message_class: MessageClass, findings: Findings = NO_FINDINGS
    ) -> None:
        self.facts = facts
        self.size = size
        self.message_class = message_class
        self.findings = findings
        self.open: dict[str, bool] = {}  # hours by name
        self._values: dict[str, tuple[str, ...]] = {}
        self.folded: dict[str, str] = {}
        self.hits: dict[str, frozenset[int]] = {}
        self.literals: dict[str, frozenset[int]] = {}

    def values(self, name: str) -> tuple[str, ...]:
        """Return what patterns of condition `name` are held against. Empty when the field is missing."""
        found = self._values.get(name)
        if found is None:
            if name in _FOUND_OUT:  # bounded where it was read
                found = tuple(_FOUND_OUT[name](self) or ())
            else:
                found = tuple(_bounded(_read(name, self.facts)))
            self._values[name] = found
        return found

    def knows(self, name: str) -> bool:
        """Was it found out what condition `name` asks about? Only for those that are not about the header."""
        return name in self._values or _FOUND_OUT[name](self) is not None

    def fold(self, name: str) -> str:
        """Return the values folded, joined, with a line end around each; "" when there are none."""
        values = self.values(name)
        folded = "\n" + "\n".join(values).casefold() + "\n" if values else ""
        self.folded[name] = folded
        return folded


def _read(name: str, facts: HeaderFacts) -> Iterable[str]:
    if name.startswith("header."):
        return facts.values(name.removeprefix("header."))
    if name == "subject":
        return (facts.subject,) if facts.has("subject") else ()
    if name == "from":
        return _forms(facts.authors)
    return _forms(facts.to if name == "to" else facts.cc)


def _return_path(evidence: Evidence) -> Iterable[str] | None:
    path = evidence.facts.return_path
    return None if path is None else (path[:VALUE_CHARACTERS] or NULL_PATH,)


def _body(evidence: Evidence) -> Iterable[str] | None:
    body = evidence.findings.body
    return None if body is None else (view for view in body.split("\n") if view)


def _attachment_names(evidence: Evidence) -> Iterable[str] | None:
    attachments = evidence.findings.attachments
    return None if attachments is None else (one.name for one in attachments if one.name)


def _attachment_types(evidence: Evidence) -> Iterable[str] | None:
    attachments = evidence.findings.attachments
    return None if attachments is None else (one.type for one in attachments)


_FOUND_OUT: Final[Mapping[str, Callable[[Evidence], Iterable[str] | None]]] = {
    "return_path": _return_path,
    "body": _body,
    "attachment_name": _attachment_names,
    "attachment_type": _attachment_types,
}


def _forms(boxes: Sequence[Mailbox]) -> Iterable[str]:
    # The addresses alone, so that "*@bank.example" means the domain; then with the names, for "*Lima*". Never a name
    # alone: anybody can call themselves "ceo@bank.example". Addresses first: the room is limited.
    yield from (box.address for box in boxes if box.address)
    yield from (f"{box.name} <{box.address}>" for box in boxes if box.name)


def _bounded(values: Iterable[str]) -> Iterable[str]:
    room = FIELD_CHARACTERS
    for value in values:
        yield value[: min(VALUE_CHARACTERS, room)]
        room -= len(value)
        if room <= 0:
            return


# --- conditions ------------------------------------------------------------------------------------------------------


class Node(Protocol):
    """A compiled condition."""

    def holds(self, evidence: Evidence) -> bool | None: ...

    def tell(self, evidence: Evidence) -> str:
        """Return what was looked at and what it was, in one line; for explanations only."""
        ...


@dataclass(slots=True)
class Expressions:
    """All regular expressions of one condition name; `numbers` of those that match come from `search`."""

    sources: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _compiled: list[Any] = field(default_factory=list)
    _union: Any = None
    _set: Any = None

    def add(self, source: str) -> int:
        number = self._numbers.get(source)
        if number is None:
            number = self._numbers[source] = len(self.sources)
            self.sources.append(source)
            self._compiled.append(compile_expression(source))
        return number

    def finish(self) -> None:
        """Compile what asks many at once. Either may be missing: it saves time, it decides nothing."""
        if len(self.sources) < 2:
            return
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = False
        options.never_capture = True
        try:
            self._union = re2.compile("|".join(f"(?:{source})" for source in self.sources), options)
            options.max_mem = _SET_MEMORY
            together = re2.Set.SearchSet(options)
            for source in self.sources:
                together.Add(source)
            together.Compile()
            self._set = together
        except re2.error:  # too large together: each is asked by itself
            return

    def search(self, values: Sequence[str]) -> frozenset[int]:
        """Return the numbers of the expressions that are found in any of the values."""
        return frozenset(number for value in values for number in self._search_one(value))

    def _search_one(self, value: str) -> Iterable[int]:
        if self._union is not None and self._union.search(value) is None:
            return ()
        # A set that ran out of memory answers like one in which nothing matched; the union has told us that
        # something does, so an empty answer is not believed.
        if self._set is not None and (found := self._set.Match(value)):
            return tuple(found)
        return [number for number, one in enumerate(self._compiled) if one.search(value) is not None]


@dataclass(slots=True)
class Literals:
    """All that is looked for in a long folded text; `find` answers for all of it together."""

    _numbers: dict[str, int] = field(default_factory=dict)
    _union: Any = None
    _set: Any = None

    def add(self, needle: str) -> int:
        return self._numbers.setdefault(needle, len(self._numbers))

    def finish(self) -> None:
        """Compile what asks all at once. It may be missing: it saves time, it decides nothing."""
        if len(self._numbers) < _MANY:
            return
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        options.max_mem = _SET_MEMORY
        escaped = [re2.escape(needle) for needle in self._numbers]
        try:
            self._union = re2.compile("|".join(escaped), options)
            together = re2.Set.SearchSet(options)
            for one in escaped:
                together.Add(one)
            together.Compile()
            self._set = together
        except re2.error:  # too many together
            return

    def find(self, folded: str) -> frozenset[int]:
        if self._union is not None and self._union.search(folded) is None:
            return frozenset()
        # As with expressions, a set that ran out of memory is not believed
        if self._set is not None and (found := self._set.Match(folded)):
            return frozenset(found)
        return frozenset(number for needle, number in self._numbers.items() if needle in folded)


@dataclass(frozen=True, slots=True)
class LongText:
    """A field whose values are too long to be searched once for each pattern. `needles`: numbers of what decides alone;
    `globs`: cut at their stars, each with the number of what must be there before it is looked at. `text`: the rest.
    """

    text: Text
    needles: frozenset[int]
    globs: tuple[tuple[int, tuple[str, ...]], ...]
    literals: Literals

    @property
    def name(self) -> str:
        return self.text.name

    def holds(self, evidence: Evidence) -> bool:
        name = self.text.name
        found = evidence.literals.get(name)
        if found is None:
            found = evidence.literals[name] = self.literals.find(evidence.fold(name))
        if not self.needles.isdisjoint(found):
            return True
        for number, parts in self.globs:
            if number in found and any(matches_glob(parts, one) for one in evidence.folded[name].split("\n")[1:-1]):
                return True
        return self.text.holds(evidence)

    def tell(self, evidence: Evidence) -> str:
        return self.text.tell(evidence)


@dataclass(frozen=True, slots=True)
class Text:
    """A field against patterns: any of the values, any of the patterns."""

    name: str
    patterns: tuple[Pattern, ...]
    needles: tuple[str, ...]
    globs: tuple[tuple[str, ...], ...]  # with a star in the middle, cut at the stars
    numbers: frozenset[int]
    expressions: Expressions

    def holds(self, evidence: Evidence) -> bool:
        folded = evidence.folded.get(self.name)
        if folded is None:
            folded = evidence.fold(self.name)
        for needle in self.needles:
            if needle in folded:
                return True
        if self.globs and any(matches_glob(parts, value) for parts in self.globs for value in folded.split("\n")[1:-1]):
            return True
        if self.numbers:
            hits = evidence.hits.get(self.name)
            if hits is None:
                hits = evidence.hits[self.name] = self.expressions.search(evidence.values(self.name))
            return not self.numbers.isdisjoint(hits)
        return False

    def tell(self, evidence: Evidence) -> str:
        values = evidence.values(self.name)
        if not values:
            return f"{self.name} is missing"
        for value in values:
            for pattern in self.patterns:
                if pattern.meets(value):
                    return f'{self.name} "{_shorten(value)}" matches {pattern.written}'
        patterns = ", ".join(pattern.written for pattern in self.patterns[:_SHOWN])
        return f'{self.name} "{_shorten(", ".join(values))}" matches none of {_shorten(patterns)}'


@dataclass(frozen=True, slots=True)
class Class:
    classes: frozenset[str]

    def holds(self, evidence: Evidence) -> bool:
        return evidence.message_class.value in self.classes

    def tell(self, evidence: Evidence) -> str:
        return f"class is {evidence.message_class.value}"


@dataclass(frozen=True, slots=True)
class SizeOver:
    limit: int

    def holds(self, evidence: Evidence) -> bool:
        return evidence.size > self.limit

    def tell(self, evidence: Evidence) -> str:
        return f"size {evidence.size} is {'over' if evidence.size > self.limit else 'not over'} {self.limit}"


@dataclass(frozen=True, slots=True)
class FoundOut:
    """A text that is not in the header: nothing can be said while it is not known."""

    text: Text | LongText

    def holds(self, evidence: Evidence) -> bool | None:
        return self.text.holds(evidence) if evidence.knows(self.text.name) else None

    def tell(self, evidence: Evidence) -> str:
        name = self.text.name
        if not evidence.knows(name):
            return f"{name} is not known"
        return self.text.tell(evidence)


@dataclass(frozen=True, slots=True)
class HasAttachment:
    wanted: frozenset[bool]

    def holds(self, evidence: Evidence) -> bool | None:
        attachments = evidence.findings.attachments
        return None if attachments is None else bool(attachments) in self.wanted

    def tell(self, evidence: Evidence) -> str:
        attachments = evidence.findings.attachments
        if attachments is None:
            return "has_attachment is not known"
        names = ", ".join(one.name or one.type for one in attachments)
        return f"it has {len(attachments)}: {_shorten(names)}" if attachments else "it has no attachment"


@dataclass(frozen=True, slots=True)
class Authenticated:
    """`kind`: spf, dkim or dmarc. What was not looked at has no result word."""

    kind: str
    words: frozenset[str]

    def holds(self, evidence: Evidence) -> bool | None:
        word = self._word(evidence)
        return word in self.words if word else None

    def tell(self, evidence: Evidence) -> str:
        found, word = evidence.findings.authentication, self._word(evidence)
        if not word or found is None:
            return f"{self.kind} is not known"
        return f"{self.kind} is {word}, says {found.by}" if found.by else f"{self.kind} is {word}"

    def _word(self, evidence: Evidence) -> str:
        found = evidence.findings.authentication
        if found is None:
            return ""
        return found.spf if self.kind == "spf" else found.dkim if self.kind == "dkim" else found.dmarc


@dataclass(frozen=True, slots=True)
class SpamScoreOver:
    limit: float

    def holds(self, evidence: Evidence) -> bool | None:
        score = evidence.findings.score
        return None if score is None else score.value > self.limit

    def tell(self, evidence: Evidence) -> str:
        score = evidence.findings.score
        if score is None:
            reason = evidence.findings.no_score
            return f"the spam score is not known: {reason}" if reason else "the spam score is not known"
        return f"spam score {score.value:g} is {'over' if score.value > self.limit else 'not over'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class KnownSender:
    wanted: frozenset[bool]

    def holds(self, evidence: Evidence) -> bool | None:
        known = evidence.findings.known_sender
        return None if known is None else known in self.wanted

    def tell(self, evidence: Evidence) -> str:
        known = evidence.findings.known_sender
        if known is None:
            return "whether the sender is known was not found out"
        return "the sender is known" if known else "the sender is not known"


@dataclass(frozen=True, slots=True)
class Hours:
    """`wanted`: (name, whether it is to be open, the hours of that name), any of them."""

    wanted: tuple[tuple[str, bool, Clock], ...]

    def holds(self, evidence: Evidence) -> bool | None:
        if evidence.findings.at is None:
            return None
        return any(self._is_open(name, clock, evidence) is state for name, state, clock in self.wanted)

    def tell(self, evidence: Evidence) -> str:
        if (at := evidence.findings.at) is None:
            return "when it was judged is not known"
        states = {name: self._is_open(name, clock, evidence) for name, _, clock in self.wanted}
        said = ", ".join(f"{name} is {'open' if is_open else 'closed'}" for name, is_open in states.items())
        return f"at {at:%Y-%m-%d %H:%M} UTC {said}"

    @staticmethod
    def _is_open(name: str, clock: Clock, evidence: Evidence) -> bool:
        found = evidence.open.get(name)
        if found is None:
            assert evidence.findings.at is not None
            found = evidence.open[name] = clock.is_open(evidence.findings.at)
        return found


@dataclass(frozen=True, slots=True)
class Every:
    parts: tuple[Node, ...]

    def holds(self, evidence: Evidence) -> bool | None:
        result: bool | None = True
        for part in self.parts:
            answer = part.holds(evidence)
            if answer is False:
                return False
            if answer is None:
                result = None
        return result

    def tell(self, evidence: Evidence) -> str:
        if not self.parts:
            return "no condition"
        if self.holds(evidence):
            return "; ".join(part.tell(evidence) for part in self.parts)
        return "; ".join(part.tell(evidence) for part in self.parts if not part.holds(evidence))


@dataclass(frozen=True, slots=True)
class Either:
    parts: tuple[Node, ...]

    def holds(self, evidence: Evidence) -> bool | None:
        result: bool | None = False
        for part in self.parts:
            answer = part.holds(evidence)
            if answer:
                return True
            if answer is None:
                result = None
        return result

    def tell(self, evidence: Evidence) -> str:
        if self.holds(evidence):
            return "any of: " + next(part.tell(evidence) for part in self.parts if part.holds(evidence))
        return "any of: " + "; ".join(part.tell(evidence) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Negation:
    part: Node

    def holds(self, evidence: Evidence) -> bool | None:
        answer = self.part.holds(evidence)
        return None if answer is None else not answer

    def tell(self, evidence: Evidence) -> str:
        return f"not ({self.part.tell(evidence)})"


# --- compiling -------------------------------------------------------------------------------------------------------


class Compiler:
    """Turns conditions of one configuration into nodes. `finish` once at the end, before any message is asked about.

    `hours`: by the name that conditions call them.
    """

    def __init__(self, hours: Mapping[str, Clock] | None = None) -> None:
        self.hours = hours or {}
        self._expressions: dict[str, Expressions] = {}
        self._literals: dict[str, Literals] = {}

    def compile(self, condition: Condition) -> Node:
        match condition:
            case All(conditions):
                parts = tuple(self.compile(one) for one in conditions)
                return parts[0] if len(parts) == 1 else Every(parts)
            case AnyOf(conditions):
                return Either(tuple(self.compile(one) for one in conditions))
            case Not(inner):
                return Negation(self.compile(inner))
            case Test():
                return _MAKERS["header" if condition.field.startswith("header.") else condition.field](self, condition)

    def finish(self) -> None:
        for expressions in self._expressions.values():
            expressions.finish()
        for literals in self._literals.values():
            literals.finish()

    def long_text(self, test: Test) -> LongText:
        text = self.text(test)
        literals = self._literals.setdefault(test.field, Literals())
        globs = ((max(parts, key=len), parts) for parts in text.globs)
        return LongText(
            replace(text, needles=(), globs=()),
            frozenset(literals.add(needle) for needle in text.needles),
            tuple((literals.add(longest), parts) for longest, parts in globs),
            literals,
        )

    def text(self, test: Test) -> Text:
        expressions = self._expressions.setdefault(test.field, Expressions())
        needles: list[str] = []
        globs: list[tuple[str, ...]] = []
        numbers: list[int] = []
        patterns = tuple(Pattern.read(str(value)) for value in test.values)
        for pattern in patterns:
            if pattern.expression is not None:
                numbers.append(expressions.add(pattern.expression))
            elif (needle := _needle(pattern.written)) is not None:
                needles.append(needle)
            else:
                globs.append(pattern.parts)
        return Text(test.field, patterns, tuple(needles), tuple(globs), frozenset(numbers), expressions)


def _size_over(compiler: Compiler, test: Test) -> Node:
    return SizeOver(min(int(value) for value in test.values))


def _class(compiler: Compiler, test: Test) -> Node:
    return Class(frozenset(str(value) for value in test.values))


def _found_out(compiler: Compiler, test: Test) -> Node:
    return FoundOut(compiler.text(test) if test.field == "return_path" else compiler.long_text(test))


def _authenticated(compiler: Compiler, test: Test) -> Node:
    return Authenticated(test.field, frozenset(map(str, test.values)))


def _has_attachment(compiler: Compiler, test: Test) -> Node:
    return HasAttachment(frozenset(map(bool, test.values)))


def _known_sender(compiler: Compiler, test: Test) -> Node:
    return KnownSender(frozenset(map(bool, test.values)))


def _spam_score_over(compiler: Compiler, test: Test) -> Node:
    return SpamScoreOver(min(float(value) for value in test.values))


def _hours(compiler: Compiler, test: Test) -> Node:
    wanted = [str(value).rpartition(":") for value in test.values]
    return Hours(tuple((name, state == "open", compiler.hours[name]) for name, _, state in wanted))


_MAKERS: Final[Mapping[str, Callable[[Compiler, Test], Node]]] = {
    **dict.fromkeys(("from", "to", "cc", "subject", "header"), Compiler.text),
    **dict.fromkeys(_FOUND_OUT, _found_out),
    **dict.fromkeys(("spf", "dkim", "dmarc"), _authenticated),
    "has_attachment": _has_attachment,
    "known_sender": _known_sender,
    "spam_score_over": _spam_score_over,
    "hours": _hours,
    "size_over": _size_over,
    "class": _class,
}
IN_FORCE: Final = frozenset(_MAKERS)


# --- patterns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern by itself: a glob cut at its stars, or a regular expression (also for a glob with a `?`)."""

    written: str
    parts: tuple[str, ...] = ()
    expression: str | None = None
    compiled: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def read(cls, written: str) -> Pattern:
        expression = expression_of(written)
        if expression is None and "?" in written:
            expression = _expression_for(written)
        if expression is None:
            return cls(written, tuple(written.casefold().split("*")))
        return cls(written, expression=expression, compiled=compile_expression(expression))

    def meets(self, value: str) -> bool:
        if self.compiled is not None:
            return self.compiled.search(value) is not None
        return matches_glob(self.parts, value.casefold())


def matches_glob(parts: Sequence[str], folded: str) -> bool:
    """Match a glob that was cut at its stars, by looking for each part behind the one before: linear time."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return folded == first
    if not folded.startswith(first) or not folded.endswith(last):
        return False
    position, end = len(first), len(folded) - len(last)
    if position > end:
        return False  # one letter cannot be both the beginning and the end
    for part in parts[1:-1]:
        position = folded.find(part, position, end)
        if position < 0:
            return False
        position += len(part)
    return True


def _needle(pattern: str) -> str | None:
    """Return what to look for in the folded values, or None when one search cannot say it."""
    body = pattern.strip("*")
    if "*" in body:
        return None
    if not body:
        return "\n"  # anything, as long as the field is there
    start = "" if pattern.startswith("*") else "\n"
    end = "" if pattern.endswith("*") else "\n"
    return start + body.casefold() + end


def _expression_for(pattern: str) -> str:
    letters = {"*": "(?s:.*)", "?": "(?s:.)"}
    return "^" + "".join(letters.get(letter) or re2.escape(letter) for letter in pattern) + "$"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
