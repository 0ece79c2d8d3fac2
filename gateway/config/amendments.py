"""Changes to rules.toml as a careful person would make them: text → text, and every other line stays as it was.

A touchpoint is a block of lines: its header, its keys, its tables, and the comment directly above. tomlkit writes
values and edits single statements; it is not given the whole file, because it moves tables and comments of a file in
which kinds of tables take turns. That nothing but the change was changed is verified before the text is returned.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import tomlkit

from gateway.config import positions
from gateway.config.positions import Statement
from gateway.config.values import suggest
from gateway.errors import CommandError

_BANNER: Final = re.compile(r"#\s*[-=#*~]{3,}")
_KEY: Final = "touchpoint"
# What a copy of a touchpoint does not have: what makes it this one, and what lets it in at the provider.
_PERSONAL: Final = ("id", "login", "imap_login", "smtp_login", "password", "aliases", "dkim")


class CannotAmend(CommandError):
    """The text cannot be changed so."""


def find(data: Mapping[str, Any], name: str) -> int:
    """Return the position of the touchpoint of that id, address or alias. Raises CannotAmend."""
    tables = _tables(data)
    wanted = name.strip().lower()
    for names in (_ids, _addresses, _aliases):
        for index, table in enumerate(tables):
            if wanted in names(table):
                return index
    known = {one for table in tables for one in (*_ids(table), *_addresses(table))}
    hint = suggest(wanted, known)
    if "did you mean" not in hint:
        hint = f"; there are: {', '.join(sorted(known)) or 'none'}"
    raise CannotAmend(f'unknown touchpoint "{name}"{hint}', 2)


def id_of(text: str, name: str) -> str:
    """Return the id of the touchpoint of that id, address or alias. Raises CannotAmend."""
    data = _read(text)
    table = data[_KEY][find(data, name)]
    return str(table["id"]).strip() if "id" in table else str(table["address"]).strip().lower()


def set_active(text: str, names: Iterable[str], active: bool) -> str:
    """Return the text in which these touchpoints are active, or not. Raises CannotAmend."""
    data = _read(text)
    expected = copy.deepcopy(data)
    for index in {find(data, name) for name in names}:
        if data[_KEY][index].get("active", False) is not active:
            text = _within(text, index, lambda block: _set(block, "active", active))
            expected[_KEY][index]["active"] = active
    return _verified(text, expected)


def add(text: str, table: Mapping[str, Any]) -> str:
    """Return the text with one more touchpoint, behind the last one. Raises CannotAmend."""
    data = _read(text)
    tables = _tables(data)
    expected = copy.deepcopy(data)
    expected[_KEY] = [*tables, dict(table)]
    block = _header() + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
    return _verified(_insert(text, block, len(tables) - 1 if tables else None), expected)


def duplicate(text: str, name: str, changes: Mapping[str, Any]) -> str:
    """Return the text with a copy of a touchpoint right behind it: inactive, without login, secrets and aliases, and
    with `changes`. Raises CannotAmend.
    """
    data = _read(text)
    index = find(data, name)
    new = {"active": False, **changes}
    block = _strip_margin(_copy_of(text, index))
    for key in _PERSONAL:
        block = _drop(block, key)
    for key, value in reversed(new.items()):  # those that were not there all go behind the header, the last one first
        block = _set(block, key, value)
    table = {key: value for key, value in data[_KEY][index].items() if key not in _PERSONAL}
    expected = copy.deepcopy(data)
    expected[_KEY].insert(index + 1, table | new)
    return _verified(_insert(text, block, index), expected)


def remove(text: str, name: str) -> str:
    """Return the text without a touchpoint, its tables, and the comment directly above. Raises CannotAmend."""
    data = _read(text)
    index = find(data, name)
    expected = copy.deepcopy(data)
    del expected[_KEY][index]
    if not expected[_KEY]:
        del expected[_KEY]
    lines = _lines(text)
    for begin, end in reversed(_spans(text, index)):
        begin = _lead(lines, begin)
        del lines[begin:end]
        _close_gap(lines, begin)
    return _verified("".join(lines), expected)


# --- what is there ---------------------------------------------------------------------------------------------------


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        raise CannotAmend("the file is not TOML as it stands; `mail-gateway check` tells where") from None


def _tables(data: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    tables = data.get(_KEY, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise CannotAmend("touchpoints must be written as [[touchpoint]] tables; `mail-gateway check` tells where")
    return tables


def _ids(table: Mapping[str, Any]) -> tuple[str, ...]:
    return _words(table.get("id", table.get("address")))


def _addresses(table: Mapping[str, Any]) -> tuple[str, ...]:
    return _words(table.get("address"))


def _aliases(table: Mapping[str, Any]) -> tuple[str, ...]:
    aliases = table.get("aliases")
    return _words(*aliases) if isinstance(aliases, list) else ()


def _words(*values: object) -> tuple[str, ...]:
    return tuple(value.strip().lower() for value in values if isinstance(value, str))


def _verified(text: str, expected: Mapping[str, Any]) -> str:
    """Return `text` when it says what is expected and nothing else; a hand is better than a guess."""
    try:
        if tomllib.loads(text) == expected:
            return text
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    raise CannotAmend("this file is written in a way that cannot be edited from here; edit it by hand")


# --- lines -----------------------------------------------------------------------------------------------------------


def _lines(text: str) -> list[str]:
    """Return the lines with their ends. The separators that only Unicode knows end none in TOML."""
    lines = text.split("\n")
    ended = [f"{line}\n" for line in lines[:-1]]
    return [*ended, lines[-1]] if lines[-1] else ended


def _statements(text: str) -> Sequence[Statement]:
    return positions.find_positions(text).statements


def _spans(text: str, index: int) -> list[tuple[int, int]]:
    """Return where the touchpoint stands, as ranges of lines counted from 0: one, unless other tables are in between.

    A range ends behind the last statement and the comment that clings to it.
    """
    ranges: list[tuple[int, int]] = []
    is_its, was_its = False, False
    for each in _statements(text):
        if each.is_header:
            is_its = each.path[:2] == (_KEY, index)
        if is_its and was_its:
            ranges[-1] = (ranges[-1][0], each.last)
        elif is_its:
            ranges.append((each.first - 1, each.last))
        was_its = is_its
    if not ranges:
        raise CannotAmend(
            "touchpoints must be written as [[touchpoint]] tables, not as one list, to be edited from here"
        )
    lines = _lines(text)
    return [(begin, _tail(lines, end)) for begin, end in ranges]


def _tail(lines: Sequence[str], end: int) -> int:
    """Return where the comment that clings to the lines before `end` is over; one that also clings to what follows
    belongs there."""
    after = end
    while after < len(lines) and lines[after].lstrip().startswith("#"):
        after += 1
    return after if after == len(lines) or not lines[after].strip() else end


def _lead(lines: Sequence[str], begin: int) -> int:
    """Return where the comment directly above `begin` starts; the file's own heading and banners are not its."""
    before = begin
    while before > 0 and lines[before - 1].lstrip().startswith("#") and not _BANNER.match(lines[before - 1].lstrip()):
        before -= 1
    return before if before > 0 else begin


def _close_gap(lines: list[str], at: int) -> None:
    """Take away the empty lines that stand twice now that something between them is gone."""
    while at < len(lines) and not lines[at].strip() and (at == 0 or not lines[at - 1].strip()):
        del lines[at]
    while at == len(lines) and lines and not lines[-1].strip():
        at -= 1
        del lines[-1]


def _within(text: str, index: int, change: Callable[[str], str]) -> str:
    """Return the text after `change` of the first block of a touchpoint, which is the one with its own keys."""
    begin, end = _spans(text, index)[0]
    lines = _lines(text)
    block = change("".join(lines[begin:end]))
    return "".join((*lines[:begin], block, *lines[end:]))


def _insert(text: str, block: str, behind: int | None) -> str:
    """Return the text with the lines of `block` behind a touchpoint, or at the end."""
    newline = _newline(text)
    lines = _lines(text)
    at = len(lines) if behind is None else _spans(text, behind)[-1][1]
    block = re.sub(r"\r?\n", lambda _: newline, block)
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    if at and lines[at - 1].strip():
        block = newline + block
    if at < len(lines) and lines[at].strip():
        block += newline
    return "".join((*lines[:at], block, *lines[at:]))


def _newline(text: str) -> str:
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


# --- one block -------------------------------------------------------------------------------------------------------


def _header() -> str:
    return f"[[{_KEY}]]\n"


def _copy_of(text: str, index: int) -> str:
    lines = _lines(text)
    parts = ["".join(lines[begin:end]) for begin, end in _spans(text, index)]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _strip_margin(block: str) -> str:
    """Return the block without a comment behind its header: it may well tell what this touchpoint is."""
    lines = _lines(block)
    return "".join((_header(), *lines[1:]))


def _own(block: str, key: str) -> list[Statement]:
    """Return the statements of a block that are about one key of the touchpoint itself."""
    return [each for each in _statements(block) if each.path[:3] == (_KEY, 0, key)]


def _set(block: str, key: str, value: Any) -> str:
    lines = _lines(block)
    there = next((each for each in _own(block, key) if not each.is_header and len(each.path) == 3), None)
    if there is None:
        anchor = next((one for name in ("name", "address") for one in _own(block, name)), None)
        after = _statements(block)[0] if anchor is None else anchor
        indent = re.match(r"[ \t]*", lines[after.first - 1])
        newline = _newline(block)
        if not lines[after.last - 1].endswith("\n"):
            lines[after.last - 1] += newline
        lines.insert(after.last, f"{indent.group() if indent else ''}{key} = {_value(value)}{newline}")
        return "".join(lines)
    statement = tomlkit.parse("".join(lines[there.first - 1 : there.last]))
    statement[key] = value
    lines[there.first - 1 : there.last] = [statement.as_string()]
    return "".join(lines)


def _drop(block: str, key: str) -> str:
    """Return the block without a key, or a table with all its keys, and the comments directly above them."""
    lines = _lines(block)
    for each in reversed(_own(block, key)):
        begin = _lead(lines, each.first - 1)
        del lines[begin : each.last]
        _close_gap(lines, begin)
    return "".join(lines)


def _value(value: Any) -> str:
    return str(tomlkit.item(value).as_string())
