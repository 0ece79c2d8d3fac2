"""How results look: JSON for programs, aligned columns for people.

Text that came from mail is stripped of control characters first: a subject must not be able to drive a terminal.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from gateway.text import clean


def as_json(result: Any) -> None:
    is_plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    json.dump(result, sys.stdout, ensure_ascii=is_plain, indent=2)
    print()


def facts(found: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Print `key: value` lines, aligned, with words for true, false, none and lists."""
    names = {key: f"{key.replace('_', ' ')}:" for key in keys}
    width = max(map(len, names.values()))
    for key, name in names.items():
        print(f"{name:<{width}} {clean(_word(found[key]))}")


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "") -> None:
    """Print aligned columns; on a terminal the last column is cut at the edge, in a pipe nothing is."""
    cells = [[clean("" if value is None else str(value), 200) for value in row] for row in rows]
    if not cells:
        return
    widths = [max(cell_len(row[n]) for row in [list(headings), *cells]) for n in range(len(headings))]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in [list(headings), *cells]:
        line = indent + "  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if edge is None or cell_len(line) <= edge else set_cell_size(line, edge))


def ago(at: str | None, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was (`5m`, `3h`, `2d`), "in 5m" for the future, "-" for none."""
    if at is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(at)).total_seconds()
    return duration(seconds) if seconds >= 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
