"""The three families of exceptions; what *mail* does is a value (an outcome), never an exception.

Library exceptions are mapped to these once, where the library is called, so that every caller can name what it
is ready to live with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class GatewayError(Exception):
    """The base of everything that we raise on purpose."""


class Severity(StrEnum):
    ERROR = "error"  # the file is refused
    WARNING = "warning"  # accepted, but mail may go where nobody looks
    NOTICE = "notice"  # accepted; the admin should know ("not yet in force")


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a configuration file. `line` counts from 1; None when no line can be blamed."""

    file: Path
    line: int | None
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = self.file.name if self.line is None else f"{self.file.name}:{self.line}"
        tag = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        return f"{place}: {tag}{self.message}"


class ConfigError(GatewayError):
    """A configuration that cannot be used. Carries *all* problems, so that one look mends them all."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Unavailable(GatewayError):
    """Disk or peer is away; the caller has a backoff. The text names cause and remedy in one line."""


class NotStored(GatewayError):
    """Messages that the store has a quarrel with, each by itself: a fault of ours. The others of the batch are stored.

    `ids`: theirs.
    """

    def __init__(self, message: str, ids: frozenset[int]) -> None:
        super().__init__(message)
        self.ids = ids


class Malformed(GatewayError):
    """Input that breaks its protocol or format. `reply` is the SMTP reply to give, where there is a peer to hear it."""

    def __init__(self, message: str, reply: str = "550 5.6.0 the message cannot be understood") -> None:
        super().__init__(message)
        self.reply = reply


class CommandError(GatewayError):
    """A command that cannot do what it was asked. `exit_code` as in the manual: 1 found wrong, 2 usage, 69, 75 …"""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
