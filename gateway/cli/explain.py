"""`explain`: every rule, each condition with the value that it looked at, and the verdict; then, and now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import arguments, client, show
from gateway.errors import CommandError
from gateway.text import clean

if TYPE_CHECKING:
    from gateway.cli.judging import Judge
    from gateway.model import Step, Verdict
    from gateway.rules.explaining import Case, Outcome

_DETAIL_LETTERS: Final = 8_000
_LARGEST: Final = 64 * 1024 * 1024


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "explain", parents=[config], help="why a message went where it went, and where it would go now; changes nothing"
    )
    parser.add_argument("message", metavar="FILE|ID", help="a message in a file (- for standard input), or an id")
    parser.add_argument(
        "--touchpoint",
        metavar="T",
        help="judge it as if it came to this one; default: where it did, for a file the one that it is addressed to",
    )
    arguments.add_json(parser)
    parser.set_defaults(run=explain)


def explain(options: argparse.Namespace) -> int:
    path = _file(options.message)
    raw = None if path is None else _read(path)  # as whoever asks: without a daemon we become its user below
    with client.asking(options.config) as ask:
        steps = _explain_stored(ask, options) if raw is None else _explain_file(ask, options, raw)
    if options.json:
        show.as_json(steps)
    else:
        _print(steps)
    return 0


def _file(word: str) -> Path | None:
    """Return the file that is meant, None for an id. A name that could be either is an id unless it has a dot or a
    slash.
    """
    if word == "-":
        return Path("/dev/stdin")
    path = Path(word)
    return path if "/" in word or "." in word else None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise CommandError(f"{path} is larger than any message that would be taken", 2)
    return raw


def _explain_file(ask: client.Ask, options: argparse.Namespace, raw: bytes) -> list[dict[str, Any]]:
    from gateway.cli import judging  # slow to import, as below
    from gateway.mime.scan import scan
    from gateway.model import Findings, to_ms
    from gateway.state.blocks import Blocks

    judge = judging.Judge.of(judging.rules_in_force(ask, options.config))
    facts = scan(raw)
    touchpoint = judging.find_touchpoint(judge.config, facts, options.touchpoint)
    since = ask("judged.sender", touchpoint=touchpoint, address=facts.from_.address)
    now = datetime.now(UTC)
    findings = Findings(
        at=now,
        block=Blocks([tuple(one) for one in ask("judged.blocks")]).find(touchpoint, judging.senders_of(facts)),
        known_sender=since is not None and since < to_ms(now),
    )
    case = judging.message_of(raw, judge, touchpoint, findings)
    steps, outcome = _judged(ask, judge, case, now)
    return [*_shown("now", now, steps), _verdict("now", now, outcome, f"as new mail of {touchpoint}")]


def _explain_stored(ask: client.Ask, options: argparse.Namespace) -> list[dict[str, Any]]:
    from gateway.cli import judging
    from gateway.model import to_ms
    from gateway.rules.explaining import same_place
    from gateway.state.blocks import Blocks

    found = ask("judged.find", id=options.message)
    judge = judging.Judge.of(judging.rules_in_force(ask, options.config))
    touchpoint = found["touchpoint"]
    if options.touchpoint is not None:
        touchpoint = judging.find_touchpoint(judge.config, None, options.touchpoint)
    blocks = Blocks([tuple(one) for one in ask("judged.blocks")])
    case = judging.stored(ask, {**found, "touchpoint": touchpoint}, blocks, judge.chain.needs(touchpoint))
    shown: list[dict[str, Any]] = []
    was = judging.was_of(found)
    if was is not None:
        then = datetime.fromisoformat(found["routed_at"])
        shown += [*_shown("then", then, judging.trail_of(found)), _verdict("then", then, was, found["touchpoint"])]
    if case is None:
        gone = f"{options.message}: its bytes are no longer kept, so that it cannot be judged again"
        if not shown:
            raise CommandError(gone)
        print(gone, file=sys.stderr)
        return shown
    if touchpoint != found["touchpoint"]:
        since = ask("judged.sender", touchpoint=touchpoint, address=case.facts.from_.address)
        known = since is not None and since < to_ms(case.findings.at or datetime.now(UTC))
        case = replace(case, existing=(), findings=replace(case.findings, known_sender=known))
    steps, outcome = _judged(ask, judge, case, datetime.fromisoformat(found["at"]))
    now = datetime.now(UTC)
    same = "" if was is None else ", as then" if same_place(was, outcome) else ", not as then"
    return [*shown, *_shown("now", now, steps), _verdict("now", now, outcome, f"{touchpoint}{same}")]


def _judged(ask: client.Ask, judge: Judge, case: Case, internal_at: datetime) -> tuple[list[Step], Outcome]:
    from gateway.rules.explaining import outcome_of, with_other_rules

    verdict = judge.judge(case, explain=True)
    steps = with_other_rules(verdict.trail, judge.config.rules.rules, case.touchpoint)
    steps += _answer(ask, judge, case, verdict, internal_at)
    return steps, outcome_of(verdict, case.existing)


def _answer(ask: client.Ask, judge: Judge, case: Case, verdict: Verdict, internal_at: datetime) -> list[Step]:
    """Return the step that says whether there would be an automatic answer, as far as the message alone decides it."""
    from gateway.cli import judging
    from gateway.model import Step
    from gateway.state.answers import NONE, STEP, key_of

    if case.placeholder is not None or judge.answers(case.touchpoint) is None:
        return []
    key = key_of(ask("judged.answer_key"))
    addressee = judging.decide_answer(judge, case, verdict, internal_at, key)
    if isinstance(addressee, str):
        return [Step(STEP, addressee, NONE)]
    return [Step(STEP, f"to {addressee.address}, unless its sender has had one in this period", "answered")]


def _shown(when: str, at: datetime, steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [
        {"at": _time(at), "step": step.step, "detail": step.detail, "verdict": step.verdict, "when": when}
        for step in steps
    ]


def _verdict(when: str, at: datetime, outcome: Outcome, detail: str) -> dict[str, Any]:
    said = [outcome.place, f"class {outcome.message_class.value}"]
    said += [f"priority {outcome.priority}"] if outcome.priority else []
    said += [f"tag {tag}" for tag in outcome.tags]
    return {"at": _time(at), "step": "verdict", "detail": detail, "verdict": ", ".join(said), "when": when}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print(steps: list[dict[str, Any]]) -> None:
    for number, step in enumerate(steps):
        if number == 0 or steps[number - 1]["when"] != step["when"]:
            titles = {"then": f"Then, at {step['at']}:", "now": "Now:"}
            print("\n" * (number > 0) + titles[step["when"]])
        print(f"  {clean(step['step'])}: {clean(step['verdict'])}")
        if step["detail"]:
            print(f"      {clean(step['detail'], _DETAIL_LETTERS)}")
