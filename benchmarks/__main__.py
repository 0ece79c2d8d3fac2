"""Every benchmark, one after the other: `make bench`, or `make bench BENCH=relay` for one of them."""

from __future__ import annotations

import subprocess
import sys

ALL = ("store", "accept", "relay", "rules", "inbound", "latency", "sessions", "stall")


def main(names: list[str]) -> int:
    failed = 0
    for name in names or ALL:
        print(f"\n=== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
