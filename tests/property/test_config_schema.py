"""What the loader takes the schema takes: an editor never complains about a file that is in force."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.config import schema
from gateway.config.gateway_file import GatewayFile
from gateway.config.rules_file import RulesFile
from gateway.config.sentences import keys_of, model_in

ETC = Path(__file__).parents[2] / "etc"
LISTS = frozenset({"touchpoint", "agent", "template", "rule"})
NEEDED: dict[str, dict[str, Any]] = {
    "touchpoint": {"address": "a@b.example", "name": "A"},
    "touchpoint.dkim": {"selector": "a", "domain": "b", "private_key": "env:A"},
    "agent": {"login": "a", "name": "A"},
    "template": {"name": "A"},
    "rule": {"name": "A"},
}

WORDS = st.sampled_from(
    [
        *("support", "a@b.example", "*@b.example", "agent:x", "new", "all", "env:HOME", "file: x", "keep", "move: A b"),
        *("imaps://a", " imap://[::1]:99/", "imap+insecure://localhost", "smtps://:465", "smtp://a.example:25", "/a/"),
        *(
            "rspamd+http://127.0.0.1:11333",
            "spamd://a:783/",
            "127.0.0.1:8025",
            "192.0.2.0/24",
            "[::1]:53",
            "2001:db8::1",
        ),
        *("{{ agent.x }}", "5 days", " 1 Hour30MIN ", "0.5s", "35 MB", "1KIB", "office:open", "always", "a:b:closed"),
        *("mon-fri 9:00-12:00, 13:00-18:00", "2026-12-25", "", " ", "gmail", "UTC", "Europe/Lisbon", "b.example."),
        *("pass", "fail", "human", "high", "both", "first", "$argon2id$v=19", "quarantine", "https://a.example/", "é"),
    ]
)
VALUES = st.one_of(WORDS, st.booleans(), st.integers(-2, 10**7), st.floats(-9, 9), st.text(max_size=4))
ANYTHING = st.one_of(
    VALUES, st.lists(VALUES, max_size=3), st.dictionaries(st.text("ab_", min_size=1), VALUES, max_size=2)
)


def keys(model: type[BaseModel], before: str = "") -> list[tuple[str, str]]:
    """Return every table of the file with every key in it."""
    found: list[tuple[str, str]] = []
    for key, annotation in keys_of(model).items():
        inner = model_in(annotation)
        if inner is None or inner is model:
            found.append((before, key))
        else:
            found += keys(inner, f"{before}.{key}".removeprefix("."))
    return found


def document(table: str, key: str, value: Any) -> dict[str, Any]:
    found: Any = {**NEEDED.get(table, {}), key: value}
    parts = table.split(".") if table else []
    for depth in range(len(parts), 0, -1):
        name = ".".join(parts[: depth - 1])
        inner = [found] if parts[depth - 1] in LISTS else {"x": found} if table in ("hours", "oauth") else found
        found = {**NEEDED.get(name, {}), parts[depth - 1]: inner}
    return dict(found)


@cache
def checker(name: str) -> Any:
    return jsonschema.Draft7Validator(schema.compose(name, ETC))


@pytest.mark.parametrize(("name", "model"), [("gateway", GatewayFile), ("rules", RulesFile)])
@given(data=st.data())
def test_a_value_that_is_taken_meets_the_schema(name: str, model: type[BaseModel], data: st.DataObject) -> None:
    table, key = data.draw(st.sampled_from(keys(model)))
    written = document(table, key, data.draw(ANYTHING))
    try:
        model.model_validate(written, context={"directory": ETC})
    except ValidationError:
        return
    checker(name).validate(written)
