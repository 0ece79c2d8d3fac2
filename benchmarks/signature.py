"""Milliseconds to put a signature into a mail of 4 KiB and into one of 20 MB, with altermime beside it.

    python -m benchmarks.signature [--rounds 200]

Budgets: 0.5 ms for 4 KiB; for 20 MB less than twice what it costs to copy the message once in memory (one allocation
and every octet written, which any splice does at least). The same copy through a file is given, too.

altermime has no library: a gateway that uses it starts a process for each message and has the message in a file. The
bare process (`altermime --version`) is given, so that its own work can be told from it. It puts its text at the end,
below the quote, and knows no marker; what it does is less.
"""

from __future__ import annotations

import argparse
import base64
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.mime.compose import Image, body_part, multipart
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import inject

BUDGET_MS: Final = 0.5
BUDGET_COPIES: Final = 2.0

SIGNATURE: Final = RenderedSignature(
    "<table width=400><tr><td><b>Ana Lima</b><br>Support<br><a href='tel:+351210000000'>+351 21 000 00 00</a></td></tr>"
    "</table>",
    "Ana Lima\nSupport\n+351 21 000 00 00",
)
PICTURE: Final = RenderedSignature(
    '<p>Ana Lima<br><img src="cid:logo@x.example" alt="Example" width=80 height=40></p>',
    "Ana Lima",
    (Image("logo@x.example", "image/png", "image1.png", b"\x89PNG\r\n\x1a\n" + bytes(12_000)),),
)
HEADER: Final = (
    b"From: Support <support@example.com>\r\nTo: customer@example.net\r\nSubject: Your order\r\n"
    b"Message-ID: <a@example.com>\r\nMIME-Version: 1.0\r\n"
)
SENTENCE: Final = "Thank you for your message about the order of last week.\n"
QUOTE: Final = (
    '<div class="gmail_quote"><div class="gmail_attr">On Mon, 23 Nov 2026 at 10:00, Bo wrote:<br></div>'
    '<blockquote class="gmail_quote">%s</blockquote></div>'
)


def small() -> dict[str, bytes]:
    """Messages of about 4 KiB."""
    rich = "".join(f"<p>{SENTENCE}</p>" for _ in range(30))
    quoted = "On Mon, 23 Nov 2026 at 10:00, Bo wrote:\n" + "".join(f"> {SENTENCE}" for _ in range(14))
    return {
        "plain": HEADER + body_part(SENTENCE * 67),
        "text and HTML": HEADER + body_part(SENTENCE * 23, rich),
        "reply": HEADER
        + body_part(SENTENCE * 8 + "\n" + quoted, "<div>Thank you.</div>" + QUOTE % "".join(rich[: 63 * 24])),
    }


def large() -> bytes:
    octets = random.Random(6).randbytes(15 * 1024 * 1024)
    file = (
        b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=offer.pdf\r\n\r\n"
        + base64.encodebytes(octets).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    )
    return HEADER + multipart("mixed", [body_part(SENTENCE, f"<p>{SENTENCE}</p>"), file])


def milliseconds(act: Callable[[], object], rounds: int) -> float:
    """Return the best of the rounds: what it costs when nothing else runs."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - begun)
    return best * 1e3


def in_turn(acts: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the best of each, taken in turn: what else this machine does then meets all of them."""
    best = [float("inf")] * len(acts)
    for _ in range(rounds):
        best = [min(one, milliseconds(act, 1)) for one, act in zip(best, acts, strict=True)]
    return best


def copied(raw: bytes) -> bytes:
    """A new bytes object with the same octets; `bytes(raw)` would be the same object."""
    return b"".join((memoryview(raw)[:1], memoryview(raw)[1:]))


def copied_through_a_file(raw: bytes, path: Path) -> bytes:
    path.write_bytes(raw)
    return path.read_bytes()


class Altermime:
    def __init__(self, where: Path) -> None:
        self._mail = where / "mail.eml"
        self._text, self._html = where / "block.txt", where / "block.html"
        self._text.write_text("\n-- \n" + SIGNATURE.text + "\n")
        self._html.write_text(SIGNATURE.html)
        self._command = [
            "altermime", f"--input={self._mail}", f"--disclaimer={self._text}", f"--disclaimer-html={self._html}",
        ]  # fmt: skip

    def put(self, raw: bytes) -> bytes:
        self._mail.write_bytes(raw)
        subprocess.run(self._command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self._mail.read_bytes()

    def start(self) -> None:
        subprocess.run(["altermime", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    if shutil.which("altermime") is None:
        print("altermime is not installed: tests/setup/peers", file=sys.stderr)
        return 2
    few = max(3, options.rounds // 10)
    failed = False
    with tempfile.TemporaryDirectory() as where:
        peer = Altermime(Path(where))
        print(f"{'altermime, a process that does nothing':<44}{milliseconds(peer.start, few):>9.2f} ms")
        for name, raw in small().items():
            for kind, signature in (("", SIGNATURE), (", with a picture", PICTURE)):
                ours = milliseconds(lambda raw=raw, signature=signature: inject(raw, signature), options.rounds)  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
                failed |= ours >= BUDGET_MS or not inject(raw, signature).placed
                print(
                    f"{f'{name}{kind}, {len(raw):,} octets':<44}{ours:>9.3f} ms; ratio to budget {ours / BUDGET_MS:.2f}"
                )
            theirs = milliseconds(lambda raw=raw: peer.put(raw), few)  # type: ignore[misc]  # likewise
            ours = milliseconds(lambda raw=raw: inject(raw, SIGNATURE), options.rounds)  # type: ignore[misc]  # likewise
            print(f"{'  altermime':<44}{theirs:>9.2f} ms; ratio {ours / theirs:.3f}")
        raw = large()
        file = Path(where) / "copy"
        through = milliseconds(lambda: copied_through_a_file(raw, file), 3)
        copy, bare, pictured = in_turn(
            [lambda: copied(raw), lambda: inject(raw, SIGNATURE), lambda: inject(raw, PICTURE)], options.rounds
        )
        print(f"{f'copy of {len(raw):,} octets':<44}{copy:>9.2f} ms; through a file {through:.2f} ms")
        for kind, ours in (("", bare), (", with a picture", pictured)):
            failed |= not kind and ours >= BUDGET_COPIES * copy
            print(f"{f'20 MB with a file{kind}':<44}{ours:>9.2f} ms; {ours / copy:.2f} copies, budget {BUDGET_COPIES}")
        theirs = milliseconds(lambda: peer.put(raw), 3)
        print(f"{'  altermime':<44}{theirs:>9.2f} ms; ratio {bare / theirs:.4f}")
        ours = bare + through
        print(f"{'  ours with one write and one read of a file':<44}{ours:>9.2f} ms; ratio {ours / theirs:.4f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
