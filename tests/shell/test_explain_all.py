"""Judged again on what was kept of it, every message of a store of 5,000 goes where it went."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from gateway.cli import judging
from gateway.cli.judging import Judge
from gateway.commands import handlers
from gateway.config import Config, Touchpoint, load
from gateway.desk import Desk, offline_desk
from gateway.errors import Unavailable
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.mime import reading
from gateway.mime.scan import HeaderFacts
from gateway.model import Arrival, Authentication, Location, Role, Score, Step, Verdict
from gateway.rules.explaining import outcome_of, same_place, with_other_rules
from gateway.state import folders
from gateway.state.folders import Folder, Opening

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
DATA = Path(__file__).parents[1] / "data"
MESSAGES, AT_ONCE, SITES = 1_000, 100, 5

_WORDS = ("invoice", "refund", "order", "Rechnung", "hello", "urgent", "Über", "(", "100%", "a.b", "")
_DOMAINS = ("shop.example", "bank.example", "customer.example", "[192.0.2.1]")
_QUEUES = ("sales", "billing", "linked", "second")


def pick(dice: random.Random, *options: Any) -> Any:
    return dice.choice(options)


def pattern(dice: random.Random) -> str:
    word = dice.choice(_WORDS)
    forms = (
        f"*{word}*",
        word or "*",
        f"{word}*",
        f"?*{word[:2]}*",
        f"*@{dice.choice(_DOMAINS)}",
        "/[aeiou]r?n/",
        "/^re/",
    )
    return str(dice.choice(forms))


def condition(dice: random.Random, depth: int = 2) -> dict[str, Any]:
    tests: dict[str, Callable[[], Any]] = {
        "subject": lambda: [pattern(dice) for _ in range(dice.randint(1, 3))],
        "from": lambda: pattern(dice),
        "to": lambda: "*support*",
        "cc": lambda: "*",
        "header.x-mailer": lambda: pattern(dice),
        "return_path": lambda: pick(dice, "<>", "*@bank.example", "*"),
        "body": lambda: pattern(dice),
        "attachment_name": lambda: pick(dice, "*.pdf", "*"),
        "attachment_type": lambda: "image/*",
        "has_attachment": lambda: pick(dice, True, False),
        "size_over": lambda: pick(dice, "300 B", "1 KiB"),
        "class": lambda: pick(dice, "human", "bounce", "list", ["auto-reply", "report"]),
        "spf": lambda: pick(dice, "pass", "fail"),
        "dkim": lambda: "pass",
        "dmarc": lambda: "fail",
        "spam_score_over": lambda: dice.choice([2.0, 5.5]),
        "known_sender": lambda: pick(dice, True, False),
        "hours": lambda: pick(dice, "office:open", "office:closed"),
    }
    found = {name: tests[name]() for name in dice.sample(sorted(tests), dice.randint(0, 2))}
    if depth and dice.random() < 0.4:
        kind = pick(dice, "any", "not", "all")
        parts = [condition(dice, depth - 1) for _ in range(dice.randint(1, 3))]
        found[kind] = parts if kind == "any" else parts[0]
    return found


def action(dice: random.Random) -> dict[str, Any]:
    actions: dict[str, Any] = {
        "queue": dice.sample(_QUEUES, dice.randint(1, 2)),
        "tags": [dice.choice("xyz")],
        "priority": pick(dice, "low", "high"),
        "quarantine": dice.random() < 0.5,
        "discard": True,
        "reroute": True,
        "auto_reply": False,
    }
    weights = {"queue": 8, "discard": 1, "quarantine": 2}
    names = [name for name in actions for _ in range(weights.get(name, 3))]
    return {name: actions[name] for name in {dice.choice(names) for _ in range(dice.randint(0, 2))}}


def write_site(directory: Path, dice: random.Random) -> Path:
    lines = [
        '[hours.office]\ntimezone = "Europe/Lisbon"\nopen = ["mon-fri 09:00-18:00"]',
        '[spam]\nscanner = "rspamd+http://127.0.0.1:11334"\nquarantine_over = 5.0\nblocklist = ["*@bad.example"]',
        f'allowlist = ["*good@*"]\non_dmarc_fail = "{pick(dice, "tag", "quarantine")}"',
    ]
    for name, linked in (("support", '["support"]'), ("billing", '["billing", "second"]')):
        lines.append(
            f'[[touchpoint]]\nid = "{name}"\naddress = "{name}@example.com"\nname = "{name.title()}"\n'
            'imap = "imaps://imap.example.com"\nsmtp = "smtps://smtp.example.com"\npassword = "env:SECRET"\n'
            f"linked_queues = {linked}"
        )
    for number in range(40):
        asked, does = condition(dice), action(dice)
        if does.get("discard") or does.get("quarantine"):  # else nothing is left for the others
            asked["subject"] = f"*{dice.choice(_WORDS)}*{dice.choice(_WORDS)}"
        lines.append(f'[[rule]]\nname = "rule {number}"\nif = {inline(asked)}\nthen = {inline(does)}')
        lines += [f"stop = {str(dice.random() < 0.1).lower()}"]
        if dice.random() < 0.2:
            lines.append(f'touchpoints = ["{pick(dice, "support", "billing")}"]')
    (directory / "rules.toml").write_text("\n".join(lines))
    path = directory / "gateway.toml"
    path.write_text(f'hostname = "gw.example.com"\nstate_dir = "{directory / "state"}"\n')
    return path


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def message(dice: random.Random, number: int, known: Sequence[str]) -> bytes:
    """Return a letter, sometimes one that continues another, or one of those that odd senders have sent us."""
    if dice.random() < 0.2:
        return dice.choice(sorted(DATA.glob("*.eml"))).read_bytes()
    sender = f"{pick(dice, 'ana', 'bo', 'good', 'list-bounces')}@{pick(dice, *_DOMAINS, 'bad.example')}"
    fields = [
        f"Return-Path: <{pick(dice, sender, '')}>" if dice.random() < 0.7 else "X-Nothing: here",
        f"From: {pick(dice, 'Ana Lima', '')} <{sender}>",
        f"To: {pick(dice, 'support', 'billing')}@example.com",
        f"Subject: {' '.join(dice.choices(_WORDS, k=2))}",
        f"Message-ID: <{number}@letters.example>",
        f"X-Mailer: {dice.choice(_WORDS)}",
    ]
    fields += [f"In-Reply-To: {dice.choice(known)}"] if known and dice.random() < 0.3 else []
    fields += ["Cc: <carbon@copy.example>"] if dice.random() < 0.2 else []
    fields += [pick(dice, "Auto-Submitted: auto-replied", "List-Id: <l.example>", "Precedence: bulk")] * (
        dice.random() < 0.2
    )
    body = " ".join(dice.choices(_WORDS, k=8))
    if dice.random() < 0.3:
        fields += ["MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b"]
        kind, name = pick(dice, ("application/pdf", "a.pdf"), ("image/png", "a.png"))
        body = (
            f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
            f"--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename={name}\r\n\r\nxx\r\n--b--"
        )
    return "\r\n".join([*fields, "", body, ""]).encode()


class Oracle:
    """Answers what is asked beyond the header, by the dice, and sometimes not at all."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def authenticate(
        self, raw_of: Callable[[], Awaitable[bytes]], facts: HeaderFacts, touchpoint: Touchpoint, config: Config
    ) -> Authentication:
        if self._dice.random() < 0.1:
            raise Unavailable("nobody answers")
        spf, dkim, dmarc = (self._dice.choice(["pass", "fail", ""]) for _ in range(3))
        return Authentication(spf, dkim, dmarc, pick(self._dice, "", "none", "reject"), "mx.example", "so it says")

    async def score(self, *args: Any, **rest: Any) -> Score:
        if self._dice.random() < 0.1:
            raise Unavailable("the scanner does not answer")
        return Score(self._dice.choice([0.0, 3.25, 7.5]), "scanner", ("ONE", "TWO"))

    def find(self, touchpoint: str, addresses: Sequence[str]) -> str:
        return "*@customer.example" if self._dice.random() < 0.05 else ""

    async def read(self, raw: bytes) -> reading.Content:
        if self._dice.random() < 0.1:
            raise Unavailable("the worker took too long")
        return reading.read(raw)


class Site:
    """A store that has judged `MESSAGES` messages by rules of its own."""

    def __init__(self, directory: Path, seed: int, stack: ExitStack) -> None:
        self.dice = random.Random(seed)
        self.config_path = write_site(directory, self.dice)
        self.desk: Desk = stack.enter_context(offline_desk(self.config_path))
        self.config = load(self.config_path)

    def fill(self) -> None:
        for name in ("support", "billing"):
            for folder, role in (("INBOX", Role.QUEUE), ("Junk", Role.JUNK)):
                opening = Opening(Folder(name, folder, 1, 0, 0, 0, 0, role), ())
                self.desk.store.submit(folders.open_folder, opening).result(5)
        trio.run(self._fill)

    async def _fill(self) -> None:
        oracle = Oracle(self.dice)
        now = iter(range(10**12, 10**14, 3_600_000))
        inquiry = Inquiry(self.desk.store, authenticator=oracle, scanner=oracle, blocks=oracle, read=oracle.read)
        intake = Intake(self.desk.store, lambda: self.config, now_ms=lambda: next(now), inquiry=inquiry)
        known: list[str] = []
        for start in range(0, MESSAGES, AT_ONCE):
            await intake.accept([self._arrival(number, known) for number in range(start, start + AT_ONCE)])

    def _arrival(self, number: int, known: list[str]) -> Arrival:
        raw = message(self.dice, number, known[-50:])
        known.append(f"<{number}@letters.example>")
        folder, role = pick(self.dice, *[("INBOX", Role.QUEUE)] * 5, ("Junk", Role.JUNK))
        touchpoint = pick(self.dice, "support", "billing")
        at = AT + timedelta(seconds=number)
        location = Location(folder, 1, number + 1)
        return Arrival(self.desk.store.ids.next(), touchpoint, location, at, at, raw, 0, number + 1, role=role)

    def ask(self, command: str, **args: Any) -> Any:
        return trio.run(handlers(self.desk)[command], args)

    def stored(self) -> Iterator[dict[str, Any]]:
        after = None
        while page := self.ask("judged.page", after=after):
            yield from page
            after = page[-1]["id"]


def judged(verdict: Verdict) -> list[Step]:
    return [one for one in verdict.trail if one.step != "conversation"]


@pytest.mark.parametrize("seed", range(SITES))
def test_every_message_is_explained_as_it_was_judged(tmp_path: Path, seed: int) -> None:
    with ExitStack() as stack, capture_logs():
        site = Site(tmp_path, seed, stack)
        site.fill()
        judge = Judge.of(judging.rules_in_force(site.ask, site.config_path))
        places: Counter[str] = Counter()
        for found in site.stored():
            case = judging.stored(site.ask, found, None, judge.chain.needs(found["touchpoint"]))
            was = judging.was_of(found)
            assert case is not None
            assert was is not None
            plain, explained = judge.judge(case), judge.judge(case, explain=True)
            shown = with_other_rules(explained.trail, judge.config.rules.rules, case.touchpoint)
            assert [one for one in shown if one.step.startswith("rule ")] != []
            assert len([one for one in shown if one.step.startswith("rule ")]) == len(judge.config.rules.rules)
            assert outcome_of(explained, case.existing) == outcome_of(plain, case.existing)
            recorded = [one for one in case.trail or () if one.step != "conversation"]
            assert judged(plain) == recorded, found
            assert same_place(outcome_of(explained, case.existing), was), found
            assert plain.message_class.value == found["class"]
            places[was.place.partition(" ")[0]] += 1
        assert sum(places.values()) == MESSAGES
        assert min(places[place] for place in ("queue", "quarantine")) > MESSAGES / 50, places
