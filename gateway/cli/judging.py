"""Messages judged by the command itself: with the rules in force, or with others, on what the daemon knows of them."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway import config
from gateway.cli.client import Ask
from gateway.config import AutoReply, Config
from gateway.config.load import load_kept
from gateway.errors import CommandError
from gateway.mime import reading
from gateway.mime.scan import NOTHING, HeaderFacts, scan
from gateway.model import Findings, MessageClass, Placeholder, Step, Verdict, to_ms
from gateway.rules import answering, authenticity, authres, explaining
from gateway.rules.answering import CONTINUES, Addressee, Asked, hours_of
from gateway.rules.chain import Chain, compile_chain
from gateway.rules.explaining import Case, Outcome
from gateway.rules.match import Need
from gateway.state import findings as kept_findings
from gateway.state.blocks import Blocks


@dataclass(frozen=True, slots=True)
class Judge:
    """A configuration, with its rules compiled."""

    config: Config
    chain: Chain

    @classmethod
    def of(cls, config: Config) -> Judge:
        return cls(config, compile_chain(config))

    def linked(self, touchpoint: str) -> Sequence[str]:
        found = self.config.touchpoints.get(touchpoint)
        return found.linked_queues if found is not None else ()

    def judge(self, case: Case, *, explain: bool = False) -> Verdict:
        return explaining.judge(self.chain, case, self.linked(case.touchpoint), explain=explain)

    def answers(self, touchpoint: str) -> AutoReply | None:
        """Return the automatic reply that is in force at a touchpoint."""
        found = self.config.touchpoints.get(touchpoint)
        if found is None or not (found.active and found.is_outbound) or found.auto_reply is None:
            return None
        return found.auto_reply if found.auto_reply.active else None


def decide_answer(judge: Judge, case: Case, verdict: Verdict, internal_at: datetime, key: bytes) -> Addressee | str:
    """Return whom to answer automatically, or why nobody is; who has had an answer is not looked at. `key`: of the
    tokens in our own answers.
    """
    reply, at = judge.answers(case.touchpoint), case.findings.at or internal_at
    if reply is None:
        return "there is no automatic reply"
    known = judge.config.touchpoints
    asked = Asked(
        facts=case.facts,
        verdict=verdict,
        findings=case.findings,
        internal_at=internal_at,
        at=at,
        own=known[case.touchpoint].addresses,
        ours=frozenset().union(*(touchpoint.addresses for touchpoint in known.values())),
        max_age=reply.max_age,
        is_wanted_now=hours_of(reply, judge.config.rules.hours, at)[1],
        key=key,
    )
    decided = answering.decide_answer(asked)
    if isinstance(decided, str) or not case.existing or reply.on == "every-message":
        return decided
    return CONTINUES


# --- rules -----------------------------------------------------------------------------------------------------------


def rules_in_force(ask: Ask, config_path: Path) -> Config:
    """Return the configuration of gateway.toml with the rules that the daemon has in force. Raises ConfigError."""
    found = ask("rules.current")
    if found["rules"] is None:
        return config.without_rules(config_path)
    return load_from(config_path, Path(found["rules"]), contents_of(found["files"]))


def load_from(config_path: Path, rules: Path, contents: Mapping[Path, bytes]) -> Config:
    """Return the configuration of gateway.toml with rules whose files are given, by path. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="mail-gateway-") as directory:
        files = {path: Path(directory) / str(number) for number, path in enumerate(contents)}
        for path, file in files.items():
            file.write_bytes(contents[path])
        return load_kept(config_path, rules, files)


def contents_of(files: Mapping[str, str]) -> dict[Path, bytes]:
    return {Path(path): base64.b64decode(content) for path, content in files.items()}


# --- messages --------------------------------------------------------------------------------------------------------


def stored(ask: Ask, found: Mapping[str, Any], blocks: Blocks | None, needs: frozenset[Need]) -> Case | None:
    """Return a message as it was judged; None where its bytes are no longer kept.

    `blocks`: those of today take the place of what was blocked then. `needs`: what the rules ask about beyond the
    header; what nobody asked about then and can still be known is found out.
    """
    if found["head"] is None:
        return None
    facts = scan(base64.b64decode(found["head"]))
    findings = kept_findings.load(found["findings"])
    trail = trail_of(found)
    routed_at = datetime.fromisoformat(found["routed_at"]) if found["routed_at"] else datetime.now(UTC)
    if findings.at is None:
        findings = replace(findings, at=routed_at)
    if blocks is not None:
        findings = replace(findings, block=blocks.find(found["touchpoint"], senders_of(facts)))
    if findings.known_sender is None and Need.KNOWN_SENDER in needs:
        since = found["known_since"]
        findings = replace(findings, known_sender=since is not None and since < to_ms(routed_at))
    if not found["placeholder"] and not explaining.was_unread(trail):  # what could not be known then counts as that
        findings = with_content(findings, needs, lambda: b"".join(_chunks(ask, found["id"])))
    return Case(
        found["touchpoint"],
        facts,
        found["size"],
        is_junk=explaining.lay_in_junk(trail) if trail else found["is_junk"],
        placeholder=None if found["placeholder"] is None else Placeholder(found["placeholder"]),
        findings=findings,
        trail=trail,
        existing=explaining.existing_queues(trail),
    )


def trail_of(found: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps that were recorded when a message was judged."""
    return tuple(Step(step["step"], step["detail"], step["verdict"]) for step in found["trail"])


def was_of(found: Mapping[str, Any]) -> Outcome | None:
    """Return where a message went when it was judged, None while it waits for that."""
    if not found["is_routed"]:
        return None
    was = explaining.recorded(trail_of(found), MessageClass(found["class"]), discarded=found["discarded"])
    return was if found["reviewed_at"] is not None else replace(was, quarantine=found["quarantined"])


def senders_of(facts: HeaderFacts) -> list[str]:
    """Return the addresses that a block is about, in lower case."""
    addresses = [box.address.lower() for box in facts.authors if box.address]
    return [*addresses, facts.return_path.lower()] if facts.return_path else addresses


def with_content(findings: Findings, needs: frozenset[Need], raw_of: Callable[[], bytes]) -> Findings:
    """Return the findings with what the rules ask about the body, where that was not kept or never asked."""
    if not needs & {Need.BODY, Need.ATTACHMENTS}:
        return findings
    try:
        content = reading.read(raw_of())
    except Exception:  # a message that cannot be read has no body that a rule could ask about
        return findings
    attachments = findings.attachments if findings.attachments is not None else content.attachments
    return replace(findings, body=content.body, attachments=attachments)


def _chunks(ask: Ask, id: str) -> Iterator[bytes]:
    number = 0
    while (part := ask("message.chunk", id=id, number=number)) is not None:
        yield base64.b64decode(part)
        number += 1


def message_of(raw: bytes, judge: Judge, touchpoint: str, findings: Findings) -> Case:
    """Return a message that was never here, as it would be judged at that touchpoint.

    Of its sender only what the provider has written on it is known: neither the DNS nor the scanner is asked.
    """
    facts = scan(raw)
    known = judge.config.touchpoints[touchpoint]
    said = authres.read(facts, known.authserv_ids or known.profile.authserv_ids)
    if said is not None:
        findings = replace(findings, authentication=authenticity.of_provider(said, known.provider))
    findings = with_content(findings, judge.chain.needs(touchpoint), lambda: raw)
    return Case(touchpoint, facts, len(raw), findings=findings)


def find_touchpoint(current: Config, facts: HeaderFacts | None, named: str | None) -> str:
    """Return the id of the touchpoint that is named, else of the one that a message is addressed to."""
    if named is not None:
        touchpoint = current.touchpoints.get(named) or current.touchpoint_at(named)
        if touchpoint is None:
            raise CommandError(f'unknown touchpoint "{named}"; there are: {", ".join(current.touchpoints)}', 2)
        return touchpoint.id
    facts = facts or NOTHING
    addresses = [*(box.address for box in (*facts.to, *facts.cc)), *facts.values("delivered-to")]
    found = {known.id for one in addresses if (known := current.touchpoint_at(one.strip("<> "))) is not None}
    inbound = [touchpoint.id for touchpoint in current.touchpoints.values() if touchpoint.is_inbound]
    if len(found) == 1 or len(inbound) == 1:
        return found.pop() if len(found) == 1 else inbound[0]
    raise CommandError(f"say with --touchpoint at which it would arrive: {', '.join(inbound) or 'there is none'}", 2)
