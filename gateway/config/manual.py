"""What etc/*.toml tell about each key, for those who read it elsewhere: in an editor, by the JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_KEY: Final = re.compile(r"#?(?P<key>[a-z_.-]+) = .+")
_HEADER: Final = re.compile(r"#?\[{1,2}(?P<table>[a-z_.]+)\]{1,2}(?: # (?P<remark>.*))?")
_FACTS: Final = re.compile(
    r"Type: .+?\. Default: (?P<default>.+?)\.(?: Takes effect: (?P<effect>reload|restart)\.)?$", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: of a key or a table, as written there. `text`: what it is, in a paragraph, "" where the name says it all.

    `default`: as written in TOML, "none", "mandatory" or a remark in parentheses; "" for a table. `effect`: of a key of
    gateway.toml, what it takes to change it.
    """

    path: tuple[str, ...]
    text: str
    default: str = ""
    effect: str = ""


def read(text: str) -> Iterator[Entry]:
    """Yield every key and every table of the manual. Raises ValueError for a key about which nothing is said."""
    table: tuple[str, ...] = ()
    said: list[str] = []
    for line in text.split("\n"):
        if header := _HEADER.fullmatch(line):
            table = tuple(header["table"].split("."))
            yield Entry(table, " ".join(said) or header["remark"] or "")
            said = []
        elif found := _KEY.fullmatch(line):
            remark, _, facts = " ".join(said).rpartition("Type: ")
            known = _FACTS.match(f"Type: {facts}")
            if known is None:
                raise ValueError(f"nothing is said about {found['key']}")
            path = (*table, *found["key"].split("."))
            yield Entry(path, remark.strip(), known["default"], known["effect"] or "")
            said = []
        elif line.startswith("# "):
            said.append(line.removeprefix("# "))
        else:
            said = []
