"""What was read so far, right or wrong: the checks look at all of it, so that all problems are found in one go."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from gateway.config.base import Model
from gateway.config.document import Document
from gateway.config.files import Files
from gateway.config.gateway_file import GatewayFile
from gateway.config.positions import Path
from gateway.config.rules_file import Agent, Hours, Rule, Spam, Template, Touchpoint

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Entry(Generic[M]):
    """One table. `raw`: as written. `model`: as understood, without the keys in `wrong`, which have their problem
    already; None when too little was left."""

    path: Path
    raw: Any
    model: M | None
    wrong: frozenset[str]

    def has(self, key: str) -> bool:
        """Return whether the key is written there."""
        return isinstance(self.raw, dict) and key in self.raw


@dataclass
class Draft:
    gateway: GatewayFile
    gateway_document: Document | None
    files: Files
    now: datetime
    rules_document: Document | None = None
    touchpoints: list[Entry[Touchpoint]] = field(default_factory=list)
    hours: dict[str, Entry[Hours]] = field(default_factory=dict)
    agents: list[Entry[Agent]] = field(default_factory=list)
    templates: list[Entry[Template]] = field(default_factory=list)
    spam: Entry[Spam] | None = None
    rules: list[Entry[Rule]] = field(default_factory=list)

    @cached_property
    def touchpoint_names(self) -> dict[str, str]:
        """Ids by what a touchpoint may be called elsewhere: id or address, lower case. Also of those that are wrong,
        because a name that is there is not unknown."""
        found = {}
        for entry in self.touchpoints:
            raw = entry.raw if isinstance(entry.raw, dict) else {}
            address, id_ = raw.get("address"), raw.get("id")
            own = entry.model.id if entry.model else str(id_ or address or "").lower()
            found.update({each.strip().lower(): own for each in (address, id_) if isinstance(each, str)})
        return found

    def id_of(self, name: str) -> str | None:
        return self.touchpoint_names.get(name.lower())
