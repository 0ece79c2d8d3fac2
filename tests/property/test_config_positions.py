"""A generated TOML document knows where each of its keys stands; so must the scanner."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.positions import Path, find_positions, last_statement

BARE = st.text("abcXYZ019_-", min_size=1, max_size=5)
QUOTED = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str]:
    """A key, and one way to write it."""
    if draw(st.booleans()):
        key = draw(BARE)
        return key, key
    key = draw(QUOTED)
    literal = f"'{key}'"
    if "'" not in key and draw(st.booleans()):
        return key, literal
    return key, json.dumps(key, ensure_ascii=max(key, default="") < "\U00010000" and draw(st.booleans()))


SCALARS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["true", "false", "1.5", "-1e3", "inf", "2026-11-23", "07:32:00", "1979-05-27 07:32:00Z", "0xff"]),
    QUOTED.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text("a #[]{},=.'\"", max_size=8).map(json.dumps),
    st.text('a #[]{},=."\\', max_size=8).map(lambda text: f"'{text}'"),
)
MULTI_LINE = st.one_of(
    st.text("a\n #[]{},='", max_size=10).map(lambda text: f'"""{text}"""'),
    st.text('a\n #[]{},="', max_size=10)
    .filter(lambda text: '"""' not in text and not text.endswith('"'))
    .map(lambda text: f'"""{text}\\"\\\n  b"""'),
    st.text('a\n #[]{},="\\', max_size=10).map(lambda text: f"'''{text}'''"),
    st.sampled_from(['""""a"""', '"""a""""', '"""a"""""', "'''a''''", "''''a'''''", '"""\n\n"""', '"""\\\\"""']),
)
BLANK = st.sampled_from(["", " ", "\n", ' # [a] = "\n', "\n\n\t"])


class Writer:
    """Writes a document and notes on which line each thing came to stand."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def value(self, path: Path, depth: int, inline: bool) -> None:
        kinds = ["scalar"] if depth > 2 else ["scalar", "scalar", "table", "list"] + ([] if inline else ["text"])
        match self.draw(st.sampled_from(kinds)):
            case "scalar":
                self.text += self.draw(SCALARS)
            case "text":
                self.text += self.draw(MULTI_LINE)
            case "list":
                self.array(path, depth, inline)
            case _:
                self.table(path, depth)

    def array(self, path: Path, depth: int, inline: bool) -> None:
        blank = st.sampled_from(["", " "]) if inline else BLANK
        self.text += "["
        count = self.draw(st.integers(0, 3))
        for index in range(count):
            self.text += self.draw(blank)
            self.lines[*path, index] = self.line
            self.value((*path, index), depth + 1, inline)
            self.text += self.draw(blank)
            if index < count - 1 or self.draw(st.booleans()):
                self.text += ","
        self.text += self.draw(blank) + "]"

    def table(self, path: Path, depth: int) -> None:
        """In braces: what it holds stands on one line, but for the text of its values."""
        self.text += "{"
        used: set[str] = set()
        for _ in range(self.draw(st.integers(0, 3))):
            key, written = self.draw(keys())
            if key in used:
                continue
            self.text += ", " if used else " "
            used.add(key)
            self.pair((*path, key), [written], depth + 1, inline=True)
        self.text += " }"

    def pair(self, path: Path, written: list[str], depth: int, inline: bool = False) -> None:
        for length in range(len(path) - len(written) + 1, len(path) + 1):
            self.lines.setdefault(path[:length], self.line)
        self.text += self.draw(st.sampled_from([".", " . "])).join(written)
        self.text += self.draw(st.sampled_from(["=", " = ", "\t="]))
        self.value(path, depth, inline)

    def body(self, path: Path) -> None:
        used: set[str] = set()
        for _ in range(self.draw(st.integers(0, 4))):
            found = [self.draw(keys()) for _ in range(self.draw(st.integers(1, 2)))]
            if found[0][0] in used:
                continue
            used.add(found[0][0])
            self.text += self.draw(st.sampled_from(["", "  ", "# a = 1\n", "\n"]))
            self.pair((*path, *(key for key, _ in found)), [written for _, written in found], 0)
            self.text += self.draw(st.sampled_from(["\n", ' # [x] "\n', "\n\n"]))

    def document(self) -> None:
        self.body(())
        top = {path[0] for path in self.lines}
        for _ in range(self.draw(st.integers(0, 4))):
            key, written = self.draw(keys())
            if key in top:
                continue
            top.add(key)
            if self.draw(st.booleans()):
                self.header((key,), f"[{written}]")
                self.body((key,))
            else:
                self.tables(key, written)

    def tables(self, key: str, written: str) -> None:
        for index in range(self.draw(st.integers(1, 3))):
            self.lines.setdefault((key,), self.line)
            self.header((key, index), f"[[ {written} ]]")
            self.body((key, index))
            inner, inner_written = self.draw(keys())
            if (key, index, inner) not in self.lines and self.draw(st.booleans()):
                many = self.draw(st.booleans())
                path = (key, index, inner, 0) if many else (key, index, inner)
                self.lines[key, index, inner] = self.line
                self.header(path, f"[[{written}.{inner_written}]]" if many else f"[{written} . {inner_written}]")
                self.body(path)

    def header(self, path: Path, text: str) -> None:
        self.lines[path] = self.line
        self.text += text + self.draw(st.sampled_from(["\n", " # a\n", "\n\n"]))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    writer = Writer(draw)
    writer.document()
    return writer.text, writer.lines


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    if before:
        yield before
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*before, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*before, index))


@given(documents(), st.booleans())
def test_every_key_and_element_has_the_line_on_which_it_was_written(
    document: tuple[str, dict[Path, int]], windows: bool
) -> None:
    text, lines = document
    found = find_positions(text.replace("\n", "\r\n") if windows else text)
    assert found.lines == lines
    assert set(paths(tomllib.loads(text))) == set(found.lines)


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 9), st.text("ab\n\"'\\#[]{}=,.é", max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(QUOTED, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(QUOTED, VALUES, max_size=4))
def test_what_another_writer_wrote_is_found_as_well(value: dict[str, Any]) -> None:
    text = tomlkit.dumps(value)
    assert set(paths(tomllib.loads(text))) == set(find_positions(text).lines)


@given(documents(), st.data())
def test_a_broken_document_has_a_last_statement(document: tuple[str, dict[Path, int]], data: st.DataObject) -> None:
    text, _ = document
    cut = text[: data.draw(st.integers(0, len(text)))] + data.draw(st.text("[]{}\"'=,.#\n a", max_size=5))
    assert 1 <= last_statement(cut) <= cut.count("\n") + 1
