"""All benchmarks by name: each prints our figure, the peer's and the ratio.

    python -m benchmarks                           what there is
    python -m benchmarks all                       one after the other (`make bench`)
    python -m benchmarks NAME … [-- OPTION …]      these; options go to each of them (`--help` tells them)

Exit status 1 when a budget of theirs was not met.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ALL = (
    "store", "accept", "relay", "grown", "start", "large", "rules", "inbound", "latency", "sessions", "stall",
    "signature",
)  # fmt: skip


def main(words: list[str]) -> int:
    cut = words.index("--") if "--" in words else len(words)
    names, options = words[:cut], words[cut + 1 :]
    if not names:
        print(__doc__)
        for name in ALL:
            print(f"{name:<10} {_first_line(name)}")
        return 0
    if unknown := sorted(set(names) - {*ALL, "all"}):
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    failed = 0
    for name in ALL if "all" in names else names:
        print(f"\n=== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options]).returncode != 0
    return 1 if failed else 0


def _first_line(name: str) -> str:
    """Return the first sentence of a benchmark's docstring, without running what it imports."""
    text = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or ""
    return " ".join(text.split("\n\n", 1)[0].split()).partition(". ")[0].removesuffix(".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
