"""The line of every key in a TOML text.

`tomllib` forgets where a value stood, and a problem without a line is a search. So this scanner walks a text that
`tomllib` has already accepted: it only has to find its way, not to judge. It costs as much as the parse itself and is
run only when there is something to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}\n#]*")  # a number, date or truth value: up to what ends it
_STRINGS = {
    '"""': re.compile(r'"""(?:[^\\"]|\\[\s\S]|"(?!""))*"""(?:"{1,2}(?!"))?'),
    "'''": re.compile(r"'''(?:[^']|'(?!''))*'''(?:'{1,2}(?!'))?"),
    '"': re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    "'": re.compile(r"'[^'\n]*'"),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A table header, or a key with its value. `first`, `last`: its lines, from 1. `path`: of the table or key."""

    first: int
    last: int
    path: Path
    is_header: bool


@dataclass(frozen=True, slots=True)
class Positions:
    """`lines`: the line (from 1) on which a key, an array element or a table header stands, by path.
    `texts`: for multi-line strings the line on which their first character stands. `statements`: in their order.
    """

    lines: Mapping[Path, int]
    texts: Mapping[Path, int]
    statements: Sequence[Statement] = ()

    def line(self, path: Path) -> int | None:
        """Return the line of `path`, or of the nearest thing around it that is written in the file."""
        found = self._as_written(path)
        while found:
            if found in self.lines:
                return self.lines[found]
            found = found[:-1]
        return None

    def text_line(self, path: Path, line: int) -> int | None:
        """Return the line in the file of line number `line` (from 1) of the string at `path`.

        Exact for multi-line strings without a backslash at a line's end; a one-line string is where it is.
        """
        first = self.texts.get(self._as_written(path))
        return self.line(path) if first is None else first + line - 1

    def _as_written(self, path: Path) -> Path:
        """`header.x-name` may be one quoted key or two: follow what the file has."""
        if path in self.lines:
            return path
        found: Path = ()
        rest = list(path)
        while rest:
            part = rest.pop(0)
            if isinstance(part, int) and (*found, part) not in self.lines:
                continue  # a list of one may go without its brackets
            if (*found, part) not in self.lines and rest and isinstance(part, str) and isinstance(rest[0], str):
                joined = f"{part}.{rest[0]}"
                if (*found, joined) in self.lines:
                    part = joined
                    rest.pop(0)
            found = (*found, part)
        return found


def find_positions(text: str) -> Positions:
    """Return the lines of everything in `text`, which `tomllib` must have accepted."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return Positions(scanner.lines, scanner.texts, scanner.statements)


def last_statement(text: str) -> int:
    """Return the line on which the last statement of a broken text begins: the one whose end is missing."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with suppress(IndexError, ValueError, RecursionError):
        scanner.document()
    return scanner.statement


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.statement = 1
        self.lines: dict[Path, int] = {}
        self.texts: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # tables opened so far under each [[name]]
        self.statements: list[Statement] = []

    def document(self) -> None:
        table: Path = ()
        self.take(_BLANK)
        while self.at < len(self.text):
            self.statement = self.line
            is_header = self.text[self.at] == "["
            if is_header:
                path = table = self.header()
            else:
                path = self.pair(table)
            self.statements.append(Statement(self.statement, self.line, path, is_header))
            self.take(_BLANK)

    def header(self) -> Path:
        line = self.line
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        parts = self.key()
        self.at += 2 if many else 1
        path: Path = ()
        for part in parts[:-1]:
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
        path = (*path, parts[-1])
        if many:
            self.lines.setdefault(path, line)
            count = self.arrays.get(path, 0)
            self.arrays[path] = count + 1
            path = (*path, count)
        self.lines[path] = line
        return path

    def pair(self, table: Path) -> Path:
        line = self.line
        path = table
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.take(_SPACE)
        self.at += 1  # the equals sign
        self.take(_SPACE)
        self.value(path)
        return path

    def key(self) -> list[str]:
        parts = []
        while True:
            self.take(_SPACE)
            quote = self.text[self.at]
            if quote in "\"'":
                written = self.take(_STRINGS[quote])
                # The escapes of keys are those of strings; tomllib knows them.
                parts.append(tomllib.loads(f"key = {written}")["key"] if "\\" in written else written[1:-1])
            else:
                parts.append(self.take(_BARE))
            self.take(_SPACE)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def value(self, path: Path) -> None:
        start = self.text[self.at : self.at + 3]
        if start in ('"""', "'''"):
            self.texts[path] = self.line + (self.text[self.at + 3] == "\n")  # a newline right there is trimmed
            self.take(_STRINGS[start])
        elif start[0] in "\"'":
            self.take(_STRINGS[start[0]])
        elif start[0] == "[":
            self.array(path)
        elif start[0] == "{":
            self.inline_table(path)
        else:
            self.take(_PLAIN)

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self.take(_BLANK)
            if self.text[self.at] == "]":
                break
            self.lines[*path, index] = self.line
            start = self.at
            self.value((*path, index))
            if self.at == start:
                raise ValueError(f"line {self.line} is not TOML")
            index += 1
            self.take(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self.take(_BLANK)
            if self.text[self.at] == "}":
                break
            self.pair(path)
            self.take(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"line {self.line} is not TOML")
        taken = found.group()
        self.at = found.end()
        self.line += taken.count("\n")
        return taken
