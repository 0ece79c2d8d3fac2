"""Throw odd mail at the signature's core, for a bounded time, and count what becomes of it.

    python -m tests.fuzz.signature [--seconds 600] [--seed N] [--found DIR]

Begins with mail that is made to be slow. Then it starts from the corpus and from drawn trees, keeps what led to
something new, and mutates it: octets, lines, tokens that mean something to a parser, pieces of other mail, many
repetitions. After each step the laws are checked. A message that breaks one is written to a file with the law's name
and the exit status is 1; no state is shared, so several may run beside each other with seeds of their own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from gateway.mime.compose import Image
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject
from tests.fuzz.shapes import hostile, message
from tests.property.mime_trees import PIECES
from tests.support.octet_laws import broken_law

CORPUS: Final = Path(__file__).parents[1] / "data" / "signature"
POOL: Final = 2_000
LARGEST: Final = 300_000
# A step may take this long; what takes longer is tried again, because others may have had the processor.
SLOWEST: Final = 0.1
SLOWEST_PER_OCTET: Final = 4e-6

PICTURE: Final = Image("logo.7@signature.example", "image/png", "image1.png", b"\x89PNG\r\n\x1a\n" + bytes(80))
SIGNATURES: Final = (
    RenderedSignature("<p>Ana Lima</p>", "Ana Lima"),
    RenderedSignature("<p>Ana Límá – 支援</p>", "Ana Límá – 支援\n> and\n From: x\n\nOn 1 Jan 2026 y wrote:"),
    RenderedSignature("<blockquote type=cite>-----Original x-----: x</blockquote>", "-----Original Message-----\nX: 1"),
    RenderedSignature("", "Ana Lima & partners\n" + "long line " * 120),
    RenderedSignature(f'<img src="cid:{PICTURE.content_id}" alt="Logo">', "Ana", (PICTURE,)),
)  # fmt: skip


class Case(NamedTuple):
    raw: bytes
    signature: RenderedSignature
    is_stripped: bool


PARTS: Final[tuple[bytes, ...]] = PIECES


def mutated(raw: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return `raw` with one thing done to it."""
    at, to = sorted((dice.randint(0, len(raw)), dice.randint(0, len(raw))))
    kind = dice.randrange(13)
    if kind == 0:
        return raw[:at] + bytes([dice.randrange(256)]) + raw[at + 1 :]
    if kind == 1:
        return raw[:at] + raw[min(to, at + dice.choice((1, 3, 30, 1_000))) :]
    if kind in (2, 3):
        return raw[:at] + dice.choice(PARTS) + raw[at:]
    if kind == 4:
        return raw[:at] + b"\n" + dice.choice(PARTS) + b"\n" + raw[at:]
    if kind == 5:
        begin = dice.randint(0, len(other))
        return raw[:at] + other[begin : begin + dice.choice((10, 100, 2_000))] + raw[at:]
    if kind == 6:
        return raw[:at] + raw[at : min(to, at + 200)] * dice.choice((2, 3, 40)) + raw[at:]
    if kind == 7:
        return raw[:at] + dice.choice(PARTS) * dice.choice((2, 50, 1_000)) + raw[at:]
    lines = raw.split(b"\n")
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    if kind == 8:
        lines[one], lines[two] = lines[two], lines[one]
    elif kind == 9:
        del lines[one]
    elif kind == 10:
        lines.insert(two, lines[one])
    elif kind == 11:
        lines[one] = lines[one].removesuffix(b"\r") if dice.random() < 0.7 else lines[one] + b"\r"
    else:
        return raw.replace(b"\r\n", b"\n") if dice.random() < 0.5 else raw[:at]
    return b"\n".join(lines)


def drawn(pool: list[bytes], dice: random.Random) -> Case:
    kind = dice.random()
    if kind < 0.03:
        raw = dice.randbytes(dice.randrange(200))
    elif kind < 0.25:
        raw = message(dice)
    else:
        raw = dice.choice(pool)
        for _ in range(dice.choice((1, 1, 2, 3, 6))):
            raw = mutated(raw, dice.choice(pool), dice)[:LARGEST]
    return Case(raw, dice.choice(SIGNATURES), dice.random() < 0.3)


def injected(case: Case) -> tuple[Injected, float]:
    begun = time.perf_counter()
    done = inject(case.raw, case.signature, strip_client_signature=case.is_stripped)
    return done, time.perf_counter() - begun


def outcome(case: Case, done: Injected) -> str:
    if not done.placed:
        return next((f"{said} …" for said in _QUOTING if done.reason.startswith(said)), done.reason)
    return ALREADY_THERE if done.reason else "placed"


def fault(case: Case) -> tuple[str, Injected | None, float]:
    """Return the law that this message breaks, or "", and what came of it."""
    try:
        done, seconds = injected(case)
    except Exception as raised:  # any exception at all is what is looked for
        return f"it raised {raised!r}", None, 0.0
    allowed = SLOWEST + SLOWEST_PER_OCTET * len(case.raw)
    for _ in range(3):
        if seconds < allowed:
            break
        seconds = min(seconds, injected(case)[1])
    else:
        return f"it took {seconds:.2f} s", done, seconds
    return broken_law(case.raw, done, case.signature, is_stripped=case.is_stripped), done, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS") or 600))
    parser.add_argument("--seed", type=int, default=None, help="the same seed draws the same mail (default: the time)")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"), help="where a found message is written")
    options = parser.parse_args()
    seed = time.time_ns() if options.seed is None else options.seed
    dice = random.Random(seed)
    pool = [mail.read_bytes() for mail in sorted(CORPUS.glob("*.eml"))]
    seen: set[tuple[str, ...]] = set()
    counts: Counter[str] = Counter()
    slowest, octets, executions = (0.0, 0), 0, 0
    begun = time.monotonic()
    first = [Case(raw, SIGNATURES[0], is_stripped=True) for raw in hostile(500_000).values()]
    while first or time.monotonic() - begun < options.seconds:
        case = first.pop() if first else drawn(pool, dice)
        law, done, seconds = fault(case)
        executions, octets = executions + 1, octets + len(case.raw)
        slowest = max(slowest, (seconds, len(case.raw)))
        if law or done is None:
            options.found.mkdir(parents=True, exist_ok=True)
            path = options.found / f"{seed}-{executions}.eml"
            path.write_bytes(case.raw)
            number = SIGNATURES.index(case.signature)
            print(f"{law}\n{path}: signature {number}, stripped: {case.is_stripped}, seed {seed}", file=sys.stderr)
            return 1
        came = outcome(case, done)
        counts[came] += 1
        shape = (came, *sorted(set(_signs(case.raw))), str(len(done.raw).bit_length()))
        if shape not in seen and len(case.raw) <= LARGEST:
            seen.add(shape)
            if len(pool) < POOL:
                pool.append(case.raw)
            else:
                pool[dice.randrange(len(pool))] = case.raw
    spent = time.monotonic() - begun
    print(
        f"seed {seed}: {executions:,} messages, {octets / 1e6:.0f} MB in {spent:.0f} s,"
        f" {executions / spent:.0f} a second"
    )
    print(f"{len(seen):,} different shapes; slowest {slowest[0] * 1e3:.0f} ms for {slowest[1]:,} octets")
    for came, count in counts.most_common():
        print(f"{count:>10,}  {came}")
    return 0


def _signs(raw: bytes) -> list[str]:
    """What of the things that matter to a parser stands in a message."""
    low = raw.lower()
    return [sign for sign in _SIGNS if sign.encode() in low]


_QUOTING: Final = (  # reasons that quote the message
    "a message/", "the text is not", "the charset", "the transfer encoding", "odd structure: two fields named",
)  # fmt: skip
_SIGNS: Final = (
    "multipart/mixed", "multipart/alternative", "multipart/related", "message/rfc822", "text/html", "text/calendar",
    "base64", "quoted-printable", "8bit", "format=flowed", "utf-16", "iso-2022-jp", "gb18030", "blockquote",
    "gmail_quote", "divrplyfwdmsg", "\n> ", "-----", "\n-- \r\n", "mail-gateway-signature", "charset*0", "attachment",
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
