"""Whatever the file looks like: the change is there, nothing else is, and every other line is as it was."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import amendments

COMMENT = st.sampled_from(
    ["", "", "\n", "# a comment\n", "\n# --- a banner ---\n", "# one\n# two\n\n", '# [[touchpoint]] "\n']
)
PAIRS = st.lists(
    st.sampled_from(
        [
            'login = "ana@example.com"\n',
            'password = "file:x" # secret\n',
            'aliases = [\n  "x@example.com", # one\n\n  "y@example.com",\n]\n',
            'folders = [\'INBOX\', "Or\\"ders"]\n',
            "pace.connections = 3\n",
            'variables = { phone = "# 1", "a b" = \'\' }\n',
            'note = """\n[[touchpoint]]\naddress = "z"\n"""\n',
            "dkim.selector = 's1'\n",
        ]
    ),
    unique_by=lambda text: text.split("=")[0],
    max_size=4,
)
TABLES = st.lists(
    st.sampled_from(
        [
            '[touchpoint.signature]\nhtml = "<p>"\n',
            "  [touchpoint.auto_reply]\n  active = true\n",
            "[touchpoint.watch]\n",
        ]
    ),
    unique=True,
    max_size=2,
)
OTHER = ['[[agent]]\nlogin = "{}"\n', '[[rule]]\nname = "{}"\nthen = {{ queue = "a" }}\n', '[hours."{}"]\nopen = []\n']


@st.composite
def files(draw: st.DrawFn) -> str:
    parts = [draw(COMMENT)]
    count = draw(st.integers(1, 4))
    for number in range(count):
        for other in draw(st.lists(st.sampled_from(OTHER), max_size=1)):
            parts += [other.format(f"{number}"), draw(COMMENT)]
        active = draw(st.sampled_from(["", "active = true\n", "active=false # not yet\n", "'active' = true\n"]))
        head = [f'address = "t{number}@example.com"\n', f'name = "T {number}"\n', active, *draw(PAIRS)]
        parts.append(draw(st.sampled_from(["[[touchpoint]]\n", "[[ touchpoint ]] # here\n"])))
        for line in draw(st.permutations(head)):
            parts += [line, draw(COMMENT)]
        for table in draw(TABLES):
            parts += [table, draw(COMMENT)]
    text = "".join(parts)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return text.replace("\n", "\r\n") if draw(st.booleans()) and '"""' not in text else text


def is_within(lines: list[str], others: list[str]) -> bool:
    """Whether `lines` are among `others`, in their order."""
    rest = iter(others)
    return all(line in rest for line in lines)


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


@given(files(), st.integers(0, 3), st.booleans())
def test_switching_changes_one_value(text: str, number: int, active: bool) -> None:
    data: dict[str, Any] = tomllib.loads(text)
    number %= len(data["touchpoint"])
    expected = copy.deepcopy(data)
    if data["touchpoint"][number].get("active", False) is not active:
        expected["touchpoint"][number]["active"] = active
    after = amendments.set_active(text, [f"t{number}@example.com"], active)
    assert tomllib.loads(after) == expected
    was, now = lines_of(text), lines_of(after)
    assert sum(line not in was for line in now) <= 1
    assert abs(len(now) - len(was)) <= 1
    assert amendments.set_active(after, [f"t{number}@example.com"], active) == after


@given(files(), st.integers(0, 3))
def test_a_copy_adds_lines_and_removing_it_gives_back_the_file(text: str, number: int) -> None:
    data: dict[str, Any] = tomllib.loads(text)
    number %= len(data["touchpoint"])
    after = amendments.duplicate(text, f"t{number}@example.com", {"address": "copy@example.com"})
    copied = tomllib.loads(after)["touchpoint"][number + 1]
    assert copied["active"] is False
    assert not {"id", "login", "imap_login", "smtp_login", "password", "aliases", "dkim"} & copied.keys()
    assert is_within(lines_of(text), lines_of(after))
    assert tomllib.loads(amendments.remove(after, "copy@example.com")) == data


@given(files(), st.integers(0, 3))
def test_removing_takes_lines_away_and_changes_none(text: str, number: int) -> None:
    data: dict[str, Any] = tomllib.loads(text)
    number %= len(data["touchpoint"])
    after = amendments.remove(text, f"t{number}@example.com")
    del data["touchpoint"][number]
    assert tomllib.loads(after).get("touchpoint", []) == data["touchpoint"]
    assert is_within(lines_of(after), lines_of(text))


@given(files())
def test_adding_leaves_every_line_as_it_is(text: str) -> None:
    after = amendments.add(text, {"address": "new@example.com", "linked_queues": ["a"]})
    assert tomllib.loads(after)["touchpoint"][-1] == {"address": "new@example.com", "linked_queues": ["a"]}
    assert is_within(lines_of(text), lines_of(after))
    assert lines_of(amendments.remove(after, "new@example.com")) == lines_of(text)
