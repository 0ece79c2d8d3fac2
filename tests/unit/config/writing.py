"""Write the two files for a test and look at what is said about them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gateway import config
from gateway.config import Config
from gateway.errors import Problem, Severity

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # a Monday

TOUCHPOINT = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Example Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
linked_queues = ["support"]
"""

AGENT = """
[[agent]]
login = "ana@example.com"
name = "Ana Lima"
ring_groups = ["support"]
"""

SUPPORT = TOUCHPOINT + AGENT  # nothing to complain about

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def write(directory: Path, rules: str = "", gateway: str = "") -> Path:
    """Write both files and return the path of gateway.toml."""
    (directory / "rules.toml").write_text(rules, encoding="utf-8")
    path = directory / "gateway.toml"
    path.write_text(gateway, encoding="utf-8")
    return path


def load(directory: Path, rules: str = "", gateway: str = "") -> Config:
    return config.load(write(directory, rules, gateway), now=NOW)


def check(directory: Path, rules: str = "", gateway: str = "") -> tuple[Problem, ...]:
    return config.check(write(directory, rules, gateway), now=NOW)


def said(problems: tuple[Problem, ...], severity: Severity = Severity.ERROR) -> list[str]:
    """Return the problems of that severity, each as it is shown, but without its severity."""
    return [str(each).replace(f"{severity}: ", "", 1) for each in problems if each.severity is severity]


def marked_line(text: str, mark: str = "# here") -> int:
    """Return the line (from 1) that ends with the mark."""
    lines = [number for number, line in enumerate(text.split("\n"), 1) if line.endswith(mark)]
    assert len(lines) == 1, f"one line must be marked, not {lines}"
    return lines[0]
