"""Microseconds to judge one message: header scan, class, and a thousand rules of each kind. Budget: 2 ms.

    python -m benchmarks.rules [--rules 1000]

"Hostile" is a message made to cost the most that the scanner's limits allow, with rules that look at all of it. What
was found out beyond the header is given: its body and attachments, too, are as large as we read them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from gateway.config.rules_file import RulesFile
from gateway.mime.scan import scan
from gateway.model import Attachment, Authentication, Findings, Score
from gateway.rules.chain import Chain

BUDGET_US: Final = 2_000

ORDINARY: Final = (
    b"".join(
        b"Received: from mx%d.example (mx%d.example [192.0.2.%d]) by mx.example with ESMTPS;\r\n"
        b"\tMon, 23 Nov 2026 10:00:00 +0000\r\n" % (n, n, n)
        for n in range(6)
    )
    + b"".join(b"X-Field-%d: some value\r\n" % n for n in range(16))
    + b"Return-Path: <carla@customer.example>\r\nFrom: =?utf-8?q?Carla_Reis?= <carla@customer.example>\r\n"
    b"To: Support <support@example.com>\r\nSubject: Re: about the order of last week\r\n"
    b"Message-ID: <a@customer.example>\r\nIn-Reply-To: <b@example.com>\r\nReferences: <b@example.com>\r\n"
    b"Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nContent-Type: text/plain\r\n\r\nbody"
)
HOSTILE: Final = (
    b"From: " + b", ".join(b'"A %d" <a%d@x.example>' % (n, n) for n in range(2_000)) + b"\r\n"
    b"Subject: " + b"order order- 1 " * 2_000 + b"\r\n" + b"X-Foo: abcabc\r\n" * 900 + b"\r\nbody"
)

KINDS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "addresses and subjects": lambda n: {
        "subject": [f"*invoice{n}*", f"*rechnung{n}*"],
        "class": "human",
        "not": {"from": f"*@bank{n}.example"},
    },
    "globs with stars inside": lambda n: {"subject": f"*a*{n}*"},
    "globs with question marks": lambda n: {"from": f"?a{n}@*"},
    "a header field each": lambda n: {f"header.x-h{n}": "*"},
    "regular expressions": lambda n: {"subject": f"/\\border[ -]?{n}x\\b/"},
    "regular expressions on bodies": lambda n: {"body": f"/\\bcontract[ -]?{n}x\\b/"},
    "globs on bodies": lambda n: {"body": [f"*cancel {n}x*", f"*order*number {n}x*"]},
    "attachments": lambda n: {"attachment_name": f"*x{n}.exe", "attachment_type": f"application/x{n}"},
    "who, how likely, when": lambda n: {
        "dmarc": "pass",
        "spam_score_over": -n,
        "known_sender": True,
        "hours": "office:open",
        "return_path": f"*@x{n}.example",
    },
    "any of three fields": lambda n: {"any": [{"subject": f"x{n}"}, {"from": f"y{n}"}, {"to": f"*z{n}*"}]},
}


FINDINGS: Final = Findings(
    at=datetime(2026, 11, 23, 10, tzinfo=UTC),
    authentication=Authentication("pass", "pass", "pass", by="mx.example"),
    score=Score(1.5, "rspamd"),
    known_sender=True,
    attachments=(Attachment("offer.pdf", "application/pdf", 70_000),),
    body="Dear all, please find the order of last week, and cancel the number of the contract. " * 20,
)
HOSTILE_FINDINGS: Final = replace(
    FINDINGS,
    attachments=tuple(Attachment(f"{'x' * 240}{n}", "application/x", 1) for n in range(500)),
    body="\n".join(("cancel contract order number " * 1_100, "Cancel Contract Order Number " * 1_100)),
)
OFFICE: Final = {"office": {"timezone": "Europe/Lisbon", "open": ["mon-fri 09:00-18:00"]}}


def chain(kind: Callable[[int], dict[str, Any]], rules: int) -> Chain:
    written = [{"name": f"r{n}", "if": kind(n), "then": {"queue": "q"}} for n in range(rules)]
    file = RulesFile.model_validate({"rule": written, "hours": OFFICE})
    return Chain(file.rules, {}, hours=file.hours)


def microseconds(made: Chain, raw: bytes, rounds: int, findings: Findings = FINDINGS) -> float:
    """Return the best of a few rounds: what it costs when nothing else runs."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(20):
            made.decide("t", scan(raw), len(raw), findings=findings)
        best = min(best, (time.perf_counter() - begun) / 20)
    return best * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=1_000)
    options = parser.parse_args()
    print(f"{'no rules':<28}{microseconds(Chain((), {}), ORDINARY, 10):>8.0f} µs a message")
    worst = 0.0
    for name, kind in KINDS.items():
        made = chain(kind, options.rules)
        ordinary, hostile = microseconds(made, ORDINARY, 5), microseconds(made, HOSTILE, 2, HOSTILE_FINDINGS)
        worst = max(worst, ordinary)
        print(f"{name:<28}{ordinary:>8.0f} µs, hostile {hostile:>8.0f} µs")
    print(f"worst of the ordinary: {worst:.0f} µs; budget {BUDGET_US} µs; ratio {worst / BUDGET_US:.2f}")
    return 0 if worst < BUDGET_US else 1


if __name__ == "__main__":
    sys.exit(main())
