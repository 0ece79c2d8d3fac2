"""CPU seconds of a process and all that it started, and of everybody else, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of `pid`, its descendants, and those of them that have ended and were waited for."""
    total = 0.0
    for one in descendants(pid):
        if fields := _stat(one):
            total += sum(map(int, fields[11:15])) / _TICK  # utime stime cutime cstime
    return total


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


@contextmanager
def neighbours_told() -> Iterator[None]:
    """Say at the end how much of this machine others have used meanwhile: figures taken beside them are theirs too."""
    begun, busy, own = time.monotonic(), _busy_seconds(), cpu_seconds(os.getpid())
    yield
    there = (time.monotonic() - begun) * (os.cpu_count() or 1)
    theirs = (_busy_seconds() - busy) - (cpu_seconds(os.getpid()) - own)
    print(f"other processes have used {max(0.0, theirs) / there:.0%} of this machine meanwhile", flush=True)


def _busy_seconds() -> float:
    """Return CPU seconds that anybody has used since the machine started."""
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICK


def flushes(path: Path) -> int:
    """Return how often the disk under `path` was told to empty its cache since the machine started: an fsync that
    waits for nothing else is one. Others' are counted too. 0 where the kernel does not say (Linux < 5.5)."""
    device = path.stat().st_dev
    place = f"{os.major(device)} {os.minor(device)} "
    for line in Path("/proc/diskstats").read_text().splitlines():
        words = line.split()
        if line.split(None, 2)[:2] == place.split() and len(words) >= 20:
            return int(words[18])
    return 0


def resident_bytes(pid: int) -> int:
    """Return the resident memory of one process, without its children."""
    return _memory(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that one process has had since it began, or since `forget_peak`."""
    return _memory(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let `peak_bytes` begin anew (Linux: proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descendants(pid: int) -> list[int]:
    """Return `pid` and all that it has started and that still runs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def _memory(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {key}")
