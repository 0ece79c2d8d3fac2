"""What sanitising takes out of a template, and where: so that nobody wonders why a signature looks otherwise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.markup import policy, styles
from gateway.markup.comments import is_conditional
from gateway.markup.document import take_apart
from gateway.markup.sanitise import sanitise
from gateway.markup.tags import Kind, Lines, Piece, pieces

FILLED: Final = "\ue000"  # stands for a value in a template that is looked at unfilled; no letter of anybody's

_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S)  # Jinja's three


@dataclass(frozen=True, slots=True)
class Removal:
    """`line`: from 1, None where it cannot be known. `what`: is left out, and why."""

    line: int | None
    what: str


def unfilled(template: str) -> str:
    """Return a template with `FILLED` for every value; each line stays in its place."""

    def sign(match: re.Match[str]) -> str:
        return (FILLED if match[0].startswith("{{") else "") + "\n" * match[0].count("\n")

    return _EXPRESSION.sub(sign, template)


@lru_cache(maxsize=256)
def find_removals(html: str, *, conditional_comments: bool = True) -> tuple[Removal, ...]:
    """Return what would not be sent of a template whose values are `FILLED`, by line."""
    found = [*_of_pieces(html, conditional_comments), *_of_style_sheets(html)]
    if conditional_comments:
        lines = Lines(html)
        at = next((p.start for p in pieces(html) if p.kind is Kind.COMMENT and is_conditional(p.data)), None)
        of_sheets = {fault for sheet in take_apart(html).style_sheets for _, fault in styles.read(sheet.css, "").faults}
        found += [
            Removal(None if at is None else lines.at(at), fault)
            for fault in sanitise(html).faults
            if fault not in of_sheets
        ]
    if not found:
        found = [*_unexplained(html)]
    return tuple(dict.fromkeys(sorted(found, key=lambda one: (one.line is None, one.line or 0))))


def _of_pieces(html: str, conditional_comments: bool) -> Iterator[Removal]:
    lines = Lines(html)
    for piece in pieces(html):
        line = lines.at(piece.start)
        if piece.kind is not Kind.START:
            continue
        name = piece.name
        if name == "link":
            yield Removal(line, "<link>: nothing is loaded from elsewhere; write style sheets into <style>")
        elif name in ("base", "frame"):
            yield Removal(line, f"<{name}>")
        elif name in policy.FRAME or name == "style":
            if name == "meta" and "refresh" in piece.attributes.get("http-equiv", "").lower():
                yield Removal(line, "<meta http-equiv=refresh>")
        elif name in policy.ACTING:
            yield Removal(line, f"<{name}> and what stands in it")
        elif name not in policy.TAGS:
            if FILLED not in name:
                yield Removal(line, f"<{_short(name)}>; what stands in it stays")
        else:
            for fault in _attribute_faults(piece):
                yield Removal(line, fault)
        if piece.is_cut and name in ("style", *policy.ACTING):
            yield Removal(line, f"all behind <{name}>, which is not closed")


def _attribute_faults(piece: Piece) -> Iterator[str]:
    for name, value in piece.attributes.items():
        where = f"{_short(name)} of <{piece.name}>"
        if FILLED in name:
            continue
        if name.startswith("on"):
            yield f"{where}: nothing may act in a mail"
        elif not policy.is_allowed_attribute(piece.name, name):
            yield where
        elif fault := policy.address_fault(piece.name, name, value):
            yield f"{where}: {fault}"
        elif name == "style":
            for fault in policy.clean_style(value)[1]:
                yield f"{where}, in part: {fault}"


def _of_style_sheets(html: str) -> Iterator[Removal]:
    for sheet in take_apart(html).style_sheets:
        for line, fault in styles.read(sheet.css, "").faults:
            yield Removal(sheet.line + line - 1, fault)


def _unexplained(html: str) -> Iterator[Removal]:
    """What only the parser knows to drop: a cell without its table, a link without an address that can be read."""
    lines = Lines(html)
    after = Counter(key for piece in pieces(sanitise(html).html) for key in _keys(piece))
    seen: Counter[tuple[str, str]] = Counter()
    for piece in pieces(html):
        if piece.kind is Kind.START and piece.name in policy.TAGS:
            for key in _keys(piece):
                seen[key] += 1
                if seen[key] == after[key] + 1:
                    name, attribute = key
                    what = f"{attribute} of <{name}>" if attribute else f"<{name}>"
                    yield Removal(lines.at(piece.start), f"{what}: it cannot stand here, or cannot be read")


def _keys(piece: Piece) -> Iterator[tuple[str, str]]:
    if piece.kind is Kind.START:
        yield piece.name, ""
        for name in piece.attributes:
            if FILLED not in name and (name != "style" or piece.attributes[name].strip()):
                yield piece.name, name


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
