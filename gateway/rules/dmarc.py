"""DMARC (RFC 9989): does what was authenticated belong to the domain that the message says it is from?

The organizational domain is found by walking up the DNS (§4.10), not by a list of public suffixes; `pct` is gone, and
`t`, `np` and `psd` have come. Pure: the DNS is asked by `yield`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.rules.dns import Inquiry, Kind, Question, Unanswered, domain_of

WALK_LABELS: Final = 8  # §4.10: a name of so many labels or more …
WALK_ON_WITH: Final = 7  # … goes on at so many, which bounds a walk to eight questions
IDENTIFIERS: Final = 10  # signers whose organizational domain is looked for; each may cost a walk

_POLICIES: Final = ("none", "quarantine", "reject")
_MILDER: Final = {"reject": "quarantine", "quarantine": "none", "none": "none"}
_RECORD: Final = re.compile(r"\s*v\s*=\s*DMARC1\s*(?:;|\Z)", re.IGNORECASE)
_TAGS: Final = 60  # of one record; a dozen are known
_REPORT_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[^\s,!]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Record:
    """One policy record, with the defaults of §4.7 filled in. `p`, `sp`, `np`: "" where not given."""

    p: str
    sp: str = ""
    np: str = ""
    psd: str = "u"
    is_test: bool = False
    is_dkim_strict: bool = False
    is_spf_strict: bool = False


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What was authenticated. `spf`: the domain that SPF passed for, "" none; `dkim`: domains of signatures that pass.

    `is_uncertain`: something that did not pass could not be looked at, so that no failure can be concluded.
    """

    spf: str = ""
    dkim: tuple[str, ...] = ()
    is_uncertain: bool = False


@dataclass(frozen=True, slots=True)
class Dmarc:
    """`result`: pass, fail, none, temperror, permerror. `policy`: what the domain's owner asks for where it fails,
    "" where there is no record. `detail`: for people."""

    result: str
    policy: str = ""
    detail: str = ""


def parse(text: str) -> Record | None:
    """Return a record, or None for what is none or asks for nothing (§4.7, §4.10.1). Never raises."""
    tags: dict[str, str] = {}
    for number, part in enumerate(text.split(";", _TAGS)[:_TAGS]):
        name, equals, value = (one.strip() for one in part.partition("="))
        if number == 0 and (name.lower(), value) != ("v", "DMARC1"):
            return None
        if equals:
            tags.setdefault(name.lower(), value)
    asked = {name: tags[name].lower() for name in ("p", "sp", "np") if name in tags}
    if "p" not in asked or any(value not in _POLICIES for value in asked.values()):
        if not _REPORT_URI.match(tags.get("rua", "")):
            return None
        asked = {"p": "none"}
    psd = tags.get("psd", "u").lower()
    return Record(
        asked["p"],
        asked.get("sp", ""),
        asked.get("np", ""),
        psd if psd in ("y", "n") else "u",
        is_test=tags.get("t", "").lower() == "y",
        is_dkim_strict=tags.get("adkim", "").lower() == "s",
        is_spf_strict=tags.get("aspf", "").lower() == "s",
    )


def evaluate(authors: Sequence[str], known: Identifiers) -> Inquiry[Dmarc]:
    """Return the verdict for a message whose From field names these domains. Never raises.

    The DNS away: temperror, never fail. Several different domains in From: exempt (§5.3.1), so "none".
    """
    domains = {domain_of(author) for author in authors} - {""}
    if len(domains) != 1:
        return Dmarc("none", detail="From names several domains" if domains else "From names no domain")
    (author,) = domains
    try:
        return (yield from _evaluate(author, known))
    except Unanswered as error:
        return Dmarc("temperror", detail=str(error))


def _evaluate(author: str, known: Identifiers) -> Inquiry[Dmarc]:
    walked = yield from _walk(author)
    found = _policy_of(author, walked)
    if found is None:
        return Dmarc("none", detail=f"{author} publishes no policy")
    where, record = found
    aligned, is_all_seen = yield from _aligned(author, _organizational(author, walked), record, known)
    if aligned:
        return Dmarc("pass", record.p, aligned)
    policy = yield from _asked_of(author, where, record)
    if known.is_uncertain or not is_all_seen:
        return Dmarc("temperror", policy, f"nothing of {author} passed, and not everything could be looked at")
    return Dmarc("fail", policy, f"nothing that passed belongs to {author}, which asks for {policy}")


Walked = Sequence[tuple[str, Record]]  # from the longest name to the shortest


def _walk(domain: str) -> Inquiry[Walked]:
    """Return the records on the way from a domain up to its top label (§4.10)."""
    found: list[tuple[str, Record]] = []
    target = domain
    while target:
        answers = yield Question(f"_dmarc.{target}", Kind.TXT)
        records = [one for one in answers if _RECORD.match(one)]
        record = parse(records[0]) if len(records) == 1 else None
        if record is not None:
            found.append((target, record))
            if record.psd == "n" or (record.psd == "y" and target != domain):
                break
        labels = target.split(".")
        target = ".".join(labels[-WALK_ON_WITH:] if len(labels) >= WALK_LABELS else labels[1:])
    return found


def _organizational(domain: str, walked: Walked) -> str:
    """Return the organizational domain (§4.10.2)."""
    for name, record in walked:
        if record.psd == "n":
            return name
        if record.psd == "y" and name != domain:
            labels = domain.split(".")
            return ".".join(labels[-(name.count(".") + 2) :])
    return walked[-1][0] if walked else domain


def _policy_of(author: str, walked: Walked) -> tuple[str, Record] | None:
    """Return the record that applies and where it stands: at the author, the organization, or above (§4.10.1)."""
    by_name = dict(walked)
    organization = _organizational(author, walked)
    for name in (author, organization):
        if name in by_name:
            return name, by_name[name]
    return next(((name, record) for name, record in walked if record.psd == "y"), None)


def _aligned(author: str, organization: str, record: Record, known: Identifiers) -> Inquiry[tuple[str, bool]]:
    """Return what that was authenticated is the author's own, "" nothing (§4.4), and whether all was looked at."""
    candidates = [(domain, "DKIM", record.is_dkim_strict) for domain in known.dkim]
    if known.spf:
        candidates.append((known.spf, "SPF", record.is_spf_strict))
    relaxed: list[tuple[str, str]] = []
    for domain, method, is_strict in candidates:
        name = domain_of(domain)
        if name == author:
            return f"by {method} of {name}", True
        # what lies outside of the author's organization has another one, whatever it publishes
        if not is_strict and (name == organization or name.endswith(f".{organization}")):
            relaxed.append((name, method))
    unique = list(dict.fromkeys(relaxed))
    is_all_seen = len(unique) <= IDENTIFIERS
    for name, method in unique[:IDENTIFIERS]:
        try:
            walked = yield from _walk(name)
        except Unanswered:  # another one may be aligned all the same
            is_all_seen = False
            continue
        if _organizational(name, walked) == organization:
            return f"by {method} of {name}", True
    return "", is_all_seen


def _asked_of(author: str, where: str, record: Record) -> Inquiry[str]:
    """Return what the owner asks for where the check fails (§4.7: p, sp, np, t)."""
    policy = record.p
    if where != author:
        policy = record.sp or record.p
        if record.np and record.np != policy:
            try:
                policy = policy if (yield from _exists(author)) else record.np
            except Unanswered:
                policy = min(policy, record.np, key=_POLICIES.index)
    return _MILDER[policy] if record.is_test else policy


def _exists(domain: str) -> Inquiry[bool]:
    """Is there anything under that name that mail could have to do with (§3.2)?"""
    for kind in (Kind.MX, Kind.A, Kind.AAAA):
        if (yield Question(domain, kind)):
            return True
    return False
