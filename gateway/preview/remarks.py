"""What the linter says about the templates of a touchpoint, with the file and line where to change it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import Config, Touchpoint
from gateway.config.rules_file import AutoReply, Signature
from gateway.outbound.signature.lint import Severity, lint


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` counts from 1; None where no line can be blamed. `severity`: error, warning or hint."""

    file: Path
    line: int | None
    severity: str
    message: str

    @property
    def is_error(self) -> bool:
        return self.severity == Severity.ERROR

    def __str__(self) -> str:
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.severity}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "line": self.line, "severity": self.severity, "message": self.message}


def of_signature(current: Config, touchpoint: Touchpoint) -> list[Finding]:
    signature = touchpoint.signature
    return [] if signature is None else _of(current, signature)


def of_auto_reply(current: Config, touchpoint: Touchpoint) -> list[Finding]:
    reply = touchpoint.auto_reply
    return [] if reply is None else _of(current, reply)


def _of(current: Config, composed: Signature | AutoReply) -> list[Finding]:
    """A text that stands in rules.toml itself has its line there only as a whole; then none is told."""
    found = []
    images = {name: image.data for name, image in composed.images.items()}
    for remark in lint(composed.html, composed.text, images, conditional_comments=composed.conditional_comments):
        file: Path | None = composed.text_file if remark.is_text else composed.html_file
        line = remark.line if file is not None else None
        found.append(Finding(file or current.rules_path, line, remark.severity.value, remark.message))
    return found
