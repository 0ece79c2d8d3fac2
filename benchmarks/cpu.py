"""CPU seconds of a process and all that it started, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of `pid`, its descendants, and those of them that have ended and were waited for."""
    total, waiting = 0.0, [pid]
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    while waiting:
        one = waiting.pop()
        if fields := _stat(one):
            total += sum(map(int, fields[11:15])) / _TICK  # utime stime cutime cstime
        waiting += children.get(one, [])
    return total


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
