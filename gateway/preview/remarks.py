"""What the linter says about the templates of a touchpoint, with the file and line where to change it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import Agent, Config, Touchpoint


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` counts from 1; None where no line can be blamed. `severity`: error, warning or hint."""

    file: Path
    line: int | None
    severity: str
    message: str

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.severity}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "line": self.line, "severity": self.severity, "message": self.message}


def of_signature(current: Config, touchpoint: Touchpoint, agent: Agent) -> list[Finding]:
    return []


def of_auto_reply(current: Config, touchpoint: Touchpoint) -> list[Finding]:
    return []
