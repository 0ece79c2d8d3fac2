"""One TOML file: what it says, and where it says it."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway.config import positions
from gateway.config.files import why_unreadable
from gateway.errors import Problem, Severity

LARGEST_BYTES = 8 * 1024 * 1024  # ten thousand rules are 2 MB

_WHERE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
# tomllib's words → what an admin would say; what is not here is clear enough as it is.
_SENTENCES = {
    "Cannot overwrite a value": "this key is already set above; keep one of the two",
    "Cannot declare": "this table is already there above, or its name is that of a key; keep one of the two",
    "Cannot mutate immutable namespace": "this table is complete above; put all its keys in one place",
    "Duplicate inline table key": "a key stands twice between these braces; keep one of the two",
    "Expected '=' after a key": 'a key must be followed by = and a value, for example name = "Support"',
    "Invalid value": 'the value cannot be read; text needs quotes, for example name = "Support"',
    "Invalid statement": 'this is neither key = value nor a [table]; text needs quotes, comments begin with "#"',
    "Unescaped '\\' in a string": "a \\ in double quotes must be written \\\\, or use single quotes",
    "Unterminated string": "the text has no closing quote",
    "Unclosed array": "the list has no closing ], or lacks a comma",
    "Unclosed inline table": "the table has no closing }, or lacks a comma; it must stand on one line",
    "Invalid initial character": "a key must begin here; a table in braces must stand on one line",
    "Expected ']'": "the table has no closing ]",
    "Expected newline or end of document after a statement": "something stands behind the value; one key to a line",
    "Illegal character": "there is a character here that TOML does not allow, or the text has no closing quote",
    "Found invalid character": "there is a character here that TOML does not allow, or the text has no closing quote",
}


class Document:
    """`data`: what tomllib read; `path`: whose name problems carry."""

    def __init__(self, path: Path, text: str) -> None:
        """Raises SyntaxProblem when `text` is not TOML."""
        self.path = path
        self.text = text
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SyntaxProblem(_explain(path, text, str(error))) from None
        except RecursionError:
            raise SyntaxProblem(Problem(path, None, "lists or tables are nested far too deep")) from None

    @cached_property
    def _positions(self) -> positions.Positions:
        return positions.find_positions(self.text)

    def line(self, path: positions.Path) -> int | None:
        return self._positions.line(path)

    def problem(self, path: positions.Path, message: str, severity: Severity = Severity.ERROR) -> Problem:
        return Problem(self.path, self.line(path), message, severity)

    def text_problem(self, path: positions.Path, line: int, message: str) -> Problem:
        """A problem on line `line` (from 1) of the multi-line text at `path`."""
        return Problem(self.path, self._positions.text_line(path, line), message)

    def at(self, path: positions.Path) -> Any:
        """Return the value at `path` as written, or None."""
        found: Any = self.data
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return None
        return found


class SyntaxProblem(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _explain(path: Path, text: str, reason: str) -> Problem:
    where = _WHERE.search(reason)
    if where is None:
        line = None
    elif where[1]:
        line = int(where[1])
    else:
        line = positions.last_statement(text)
    reason = reason[: where.start()] if where else reason
    for begin, sentence in _SENTENCES.items():
        if reason.startswith(begin):
            return Problem(path, line, sentence)
    return Problem(path, line, f"not TOML: {reason[:1].lower()}{reason[1:]}")


def read_text(path: Path, shown: Path, remedy: str = "create it or correct the name") -> str:
    """Return the text of `path`. Raises SyntaxProblem, which names it `shown` and, when it is missing, the `remedy`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise SyntaxProblem(Problem(shown, None, f"{shown} {why_unreadable(error, remedy)}")) from None
    if len(content) > LARGEST_BYTES:
        raise SyntaxProblem(Problem(shown, None, f"{shown} is larger than {LARGEST_BYTES // 2**20} MiB"))
    try:
        return content.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SyntaxProblem(Problem(shown, line, "this line is not UTF-8; save the file as UTF-8")) from None
