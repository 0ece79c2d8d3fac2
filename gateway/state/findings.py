"""Findings as they are kept beside a message, so that its verdict can be explained later: JSON, without the body."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from gateway.model import NO_FINDINGS, Attachment, Authentication, Findings, Score, from_ms, to_ms


def dump(findings: Findings) -> str | None:
    """Return the text for the store, None where there is nothing to keep."""
    kept: dict[str, Any] = {}
    if findings.at is not None:
        kept["at"] = to_ms(findings.at)
    if findings.block:
        kept["block"] = findings.block
    if (authentication := findings.authentication) is not None:
        kept["authentication"] = {name: value for name, value in asdict(authentication).items() if value}
    if (score := findings.score) is not None:
        kept["score"] = {"value": score.value, "by": score.by, "symbols": list(score.symbols)}
    if findings.no_score:
        kept["no_score"] = findings.no_score
    if findings.known_sender is not None:
        kept["known_sender"] = findings.known_sender
    if findings.attachments is not None:
        kept["attachments"] = [[one.name, one.type, one.size] for one in findings.attachments]
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")) if kept else None


def load(text: str | None) -> Findings:
    """Return what `dump` was given, but for the body; a time to the millisecond."""
    if not text:
        return NO_FINDINGS
    kept: dict[str, Any] = json.loads(text)
    found = Findings(
        block=kept.get("block", ""), no_score=kept.get("no_score", ""), known_sender=kept.get("known_sender")
    )
    if "at" in kept:
        found = replace(found, at=from_ms(kept["at"]))
    if "authentication" in kept:
        found = replace(found, authentication=Authentication(**kept["authentication"]))
    if "score" in kept:
        score = kept["score"]
        found = replace(found, score=Score(score["value"], score["by"], tuple(score["symbols"])))
    if "attachments" in kept:
        found = replace(found, attachments=tuple(Attachment(*one) for one in kept["attachments"]))
    return found
