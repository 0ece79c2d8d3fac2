"""Whatever stands in the files: a configuration, or problems with their places. Never anything else."""

from __future__ import annotations

import tempfile
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.config.gateway_file import GatewayFile
from gateway.config.rules_file import RulesFile
from gateway.config.sentences import keys_of, model_in
from gateway.config.values import parse_duration, show_duration
from gateway.errors import ConfigError, Severity

WORDS = st.sampled_from(
    [
        *("support", "support@example.com", "new", "all", "file:x", "env:HOME", "imaps://a", "smtps://a", "/a/", "/(/"),
        *("{{ agent.x }}", "{{", "5 days", "35 MB", "office:open", "mon 09:00-10:00", "2026-11-23", "", "linked"),
    ]
)
ANYTHING = st.recursive(
    st.one_of(WORDS, st.booleans(), st.integers(-5, 10**12), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)


def tables(model: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Tables with the keys of `model`, some misspelt, and values of all kinds."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for key, annotation in keys_of(model).items():
        inner = model_in(annotation)
        if inner is None or depth > 3:
            fields[key] = ANYTHING
        else:
            one = st.deferred(lambda inner=inner: tables(inner, depth + 1))  # type: ignore[misc]  # bound at once
            fields[key] = st.one_of(one, st.lists(one, max_size=3), st.dictionaries(WORDS, one, max_size=2), ANYTHING)
    return st.fixed_dictionaries({}, optional=fields)


@settings(deadline=None)
@given(gateway=tables(GatewayFile), rules=tables(RulesFile))
def test_tables_of_any_form_are_a_configuration_or_problems_with_a_line(
    gateway: dict[str, Any], rules: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.toml"
        path.write_text(tomlkit.dumps({**gateway, "rules": "rules.toml"}))
        text = tomlkit.dumps(rules)
        (path.parent / "rules.toml").write_text(text)
        tomllib.loads(text)
        problems = config.check(path)
        for problem in problems:
            assert "\n" not in problem.message or "no touchpoint yet" in problem.message
            assert problem.line is not None or problem.severity is Severity.NOTICE
        errors = [problem for problem in problems if problem.severity is Severity.ERROR]
        if errors:
            with pytest.raises(ConfigError) as caught:
                config.load(path)
            assert [*caught.value.problems] == errors
        else:
            assert not config.diff(config.load(path), config.load(path))


@given(st.text(st.sampled_from("[]{}=\"'#\\\n .a1é\x00\r"), max_size=40))
def test_text_of_any_form_is_a_configuration_or_problems(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.toml"
        path.write_text("")
        (path.parent / "rules.toml").write_bytes(text.encode())
        for problem in config.check(path):
            assert problem.line is None or 1 <= problem.line <= text.count("\n") + 1


@given(st.integers(1, 10**6), st.sampled_from([timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)]))
def test_a_duration_survives_being_written(count: int, unit: timedelta) -> None:
    duration = min(count * unit, timedelta(days=36_500))
    assert parse_duration(show_duration(duration)) == duration
