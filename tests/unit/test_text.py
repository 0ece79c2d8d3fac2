"""Text from mail, made fit for a log and a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.text import LONGEST, clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        pytest.param("Invoice 7", "Invoice 7", id="plain"),
        pytest.param("Ação 🙂 日本", "Ação 🙂 日本", id="letters-of-the-world"),
        pytest.param("a\r\nevent=accepted", "a event=accepted", id="a-second-line-of-the-log"),
        pytest.param("\x1b[2J\x1b]0;title\x07x", "[2J ]0;title x", id="terminal-escapes"),
        pytest.param("\x9b31mred", "31mred", id="eight-bit-escape"),
        pytest.param("invoice\u202efdp.exe", "invoice fdp.exe", id="right-to-left-override"),
        pytest.param("a\u2066b\u2069c", "a b c", id="directional-isolates"),
        pytest.param("a\u2028b\u2029c", "a b c", id="line-separators"),
        pytest.param("caf\udce9", "caf\ufffd", id="bytes-that-were-no-utf-8"),
        pytest.param("  \t ", "", id="nothing-but-space"),
    ],
)
def test_text_is_cleaned(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 5000) == "x" * (LONGEST - 1) + "…"
    assert clean("x" * LONGEST) == "x" * LONGEST
    assert clean("abcdef", 4) == "abc…"


@given(st.text())
def test_cleaned_text_is_one_printable_line_within_its_length(text: str) -> None:
    cleaned = clean(text, 50)
    assert len(cleaned) <= 50
    assert len(cleaned.splitlines()) <= 1
    assert not [letter for letter in cleaned if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")]
    cleaned.encode()


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)
