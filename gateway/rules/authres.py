"""Reads Authentication-Results (RFC 8601): what the provider's own servers found out when a message came in.

Anybody can write such a field into a message. What counts is only what stands under one of the provider's names, and of
that only the topmost group: a provider puts its own above everything that came with the message, and what an outsider
wrote lies below at least one Received field. Some providers write one field for each method, so a group is the first
of them with all that follow before the next Received.

Read leniently, as they are written in the wild: Exchange gives no name of its own, Yahoo sets a comment directly behind
a result, values are quoted or not. Pure, linear in its input, never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from gateway.mime.scan import HeaderFacts, decode_text
from gateway.rules.dns import domain_of

FIELD: Final = "authentication-results"
_FIELDS: Final = 20  # of one group
_SEEN: Final = 60  # fields of whoever wrote them
_VALUE: Final = 8_192  # bytes of one field
_TOKENS: Final = 1_000  # of one field; a message with many signatures has two hundred
_NAME_TOKENS: Final = 12
_RESULTS: Final = 60  # of one field
_PROPERTIES: Final = 30

_TOKEN: Final = re.compile(
    r'\s*+(?:"((?:[^"\\]++|\\.)*+)"?|(\()|([;=/])|([^\s"();=/]++(?:/[^\s"();=]++)*+)|(.))', re.DOTALL
)
_IN_COMMENT: Final = re.compile(r"([()])|(?:[^()\\]++|\\.|\\)++", re.DOTALL)  # quotes mean nothing there
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)

_SPF: Final = frozenset({"pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror"})
_WORDS: Final = {
    "spf": _SPF,
    "dkim": _SPF - {"softfail"},
    "dmarc": frozenset({"pass", "fail", "none", "temperror", "permerror"}),
}
# Words that are in no registry and are written all the same (RFC 4408's, Microsoft's, Yahoo's)
_MEANT: Final = {
    "hardfail": "fail",
    "error": "temperror",
    "unknown": "permerror",
    "bestguesspass": "none",  # no policy is published, and the provider thinks well of it
    "success": "pass",
}


@dataclass(frozen=True, slots=True)
class Result:
    """`method`, `word` in lower case. `properties`: ("header.d", "example.com") …, in their order; `comment`: the first
    one behind the word."""

    method: str
    word: str
    properties: tuple[tuple[str, str], ...] = ()
    comment: str = ""

    def value(self, *names: str) -> str:
        """Return the first of these properties that is there, "" when none is."""
        known = dict(reversed(self.properties))
        return next((known[name] for name in names if name in known), "")


@dataclass(frozen=True, slots=True)
class Statement:
    """One field. `id`: its authserv-id in lower case, "" where it gives none."""

    id: str
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What a provider says about SPF, DKIM and DMARC: words of RFC 8601, "" where it says nothing.

    `spf_domain`: of the return path that SPF was asked for; `signers`: the domains whose signatures pass; `policy`:
    what the author's domain asks for, "" where that is not told.
    """

    by: str
    spf: str = ""
    spf_domain: str = ""
    dkim: str = ""
    signers: tuple[str, ...] = ()
    dmarc: str = ""
    policy: str = ""


def read(facts: HeaderFacts, ids: Sequence[str]) -> Said | None:
    """Return what the provider says, or None when no field of its own is there.

    `ids`: its authserv-ids as globs; "" for one that gives none (then the field begins with a result).
    """
    group: list[Statement] = []
    seen = 0
    for field in facts.fields:
        if field.name == "received":
            if group:
                break
        elif field.name == FIELD:
            value = facts.block[field.value : min(field.end, field.value + _VALUE)]
            text = decode_text(b" ".join(value.split()))
            id, _ = _named(_split(text, _NAME_TOKENS))  # whose it is costs little; what it says only where it counts
            if any(fnmatchcase(id, name.lower()) for name in ids):
                group.append(parse(text))
            seen += 1
            if len(group) == _FIELDS or seen == _SEEN:
                break
    return _sum_up(group) if group else None


def parse(value: str) -> Statement:
    """Return one field's statement. What makes no sense in it is left out."""
    id, parts = _named(_split(value, _TOKENS))
    found = (_result(part) for part in parts[:_RESULTS])
    return Statement(id, tuple(one for one in found if one is not None))


Token = tuple[str, str]  # text, kind: "word", "mark", "comment"


def _named(parts: Sequence[list[Token]]) -> tuple[str, Sequence[list[Token]]]:
    """Return the authserv-id, and the parts that are results. "name", "name 1" (a version), or a result already."""
    if not parts:
        return "", parts
    first = [token for token in parts[0] if token[1] != "comment"]
    if len(first) > 1 and first[1] == ("=", "mark"):
        return "", parts
    return (first[0][0].lower() if first else ""), parts[1:]


def _split(value: str, most: int) -> list[list[Token]]:
    """Return the first tokens of a value, those between semicolons together; a comment is one token."""
    parts: list[list[Token]] = [[]]
    position = 0
    for _ in range(most):
        if (found := _TOKEN.match(value, position)) is None:
            break
        position = found.end()
        quoted, bracket, mark, word, other = found.groups()
        if bracket:
            comment, position = _comment(value, position)
            parts[-1].append((comment, "comment"))
        elif mark == ";":
            parts.append([])
        elif mark:
            parts[-1].append((mark, "mark"))
        elif quoted is not None:
            parts[-1].append((_QUOTED_PAIR.sub(r"\1", quoted), "word"))
        else:
            parts[-1].append((word or other, "word"))
    return [part for part in parts if part]


def _comment(value: str, position: int) -> tuple[str, int]:
    """Return a comment without its brackets, and where it ends; one that never ends takes all."""
    start, depth = position, 1
    while found := _IN_COMMENT.match(value, position):
        position = found.end()
        if found[1]:
            depth += 1 if found[1] == "(" else -1
            if depth == 0:
                return value[start : position - 1].strip(), position
    return value[start:].strip(), len(value)


def _result(tokens: Sequence[Token]) -> Result | None:
    """Return `method[/version]=word (comment) [reason=…] property=value …`."""
    words = [token for token in tokens if token[1] != "comment"]
    if len(words) >= 4 and words[1] == ("/", "mark"):  # a method's version, with spaces around the stroke
        words = [words[0], *words[3:]]
    if len(words) < 3 or words[1] != ("=", "mark"):
        return None
    method = words[0][0].partition("/")[0].lower()
    comment = next((text for text, kind in tokens if kind == "comment"), "")
    properties: list[tuple[str, str]] = []
    at = 3
    while at + 2 < len(words) and len(properties) < _PROPERTIES:
        if words[at + 1] == ("=", "mark"):
            properties.append((words[at][0].lower(), words[at + 2][0]))
            at += 3
        else:
            at += 1
    return Result(method, words[2][0].lower(), tuple(properties), comment)


def _sum_up(group: Sequence[Statement]) -> Said:
    """Return what a group says. Of each method what comes first counts, but for DKIM, of which there may be many."""
    spf = _first(group, "spf")
    dmarc = _first(group, "dmarc")
    dkim = [one for statement in group for one in statement.results if one.method == "dkim"]
    passed = (domain_after_at(one.value("header.d", "header.i")) for one in dkim if word_of(one) == "pass")
    return Said(
        group[0].id,
        spf=word_of(spf),
        spf_domain=domain_after_at(spf.value("smtp.mailfrom", "smtp.mail", "smtp.helo")) if spf else "",
        dkim=best(map(word_of, dkim)),
        signers=tuple(dict.fromkeys(filter(None, passed))),
        dmarc=word_of(dmarc),
        policy=_policy(dmarc),
    )


def _first(group: Sequence[Statement], method: str) -> Result | None:
    return next((one for statement in group for one in statement.results if one.method == method), None)


def word_of(result: Result | None) -> str:
    """Return the word of RFC 8601 that is meant, "" for none."""
    if result is None:
        return ""
    word = _MEANT.get(result.word, result.word)
    return word if word in _WORDS.get(result.method, ()) else ""


def best(words: Iterable[str]) -> str:
    """Return what several signatures come to: one that passes is enough; one that may yet pass is no failure."""
    found = set(words)
    order = ("pass", "temperror", "fail", "policy", "neutral", "permerror", "none")
    return next((word for word in order if word in found), "")


def domain_after_at(value: str) -> str:
    return domain_of(value.strip("<>").rpartition("@")[2])


_POLICY_IN_COMMENT: Final = re.compile(r"\bp\s*=\s*(none|quarantine|reject)\b", re.IGNORECASE)


def _policy(dmarc: Result | None) -> str:
    """Return what the author's domain asks for, as providers tell it: in a property, or in a comment (Google, Yahoo).

    Exchange tells what it did instead: "oreject" is a domain's reject that it overrode.
    """
    if dmarc is None:
        return ""
    told = dmarc.value("policy.dmarc", "policy.published-domain-policy", "policy.published-org-policy", "policy.p")
    if not told and (found := _POLICY_IN_COMMENT.search(dmarc.comment)):
        told = found[1]
    if not told:
        told = {"oreject": "reject", "none": "none"}.get(dmarc.value("action").lower(), dmarc.value("action"))
    told = told.lower()
    return told if told in ("none", "quarantine", "reject") else ""
