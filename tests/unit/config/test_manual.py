"""etc/*.toml is the manual: every key stands there, and everything there is true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import BaseModel

from gateway import config
from gateway.config.gateway_file import NEEDS_RESTART, GatewayFile
from gateway.config.providers import PROFILES, Profile
from gateway.config.rules_file import RulesFile
from gateway.config.sentences import keys_of, model_in
from gateway.config.values import show_duration
from gateway.errors import Severity
from tests.support import dkim_keys
from tests.support.dkim_keys import pem_of
from tests.unit.config.writing import PNG

ETC = Path(__file__).parents[3] / "etc"
FILES: dict[str, type[BaseModel]] = {"gateway.toml": GatewayFile, "rules.toml": RulesFile}
NAMED_TABLES = {"oauth.microsoft": "oauth", "hours.office": "hours"}

_KEY = re.compile(r"#(?P<key>[a-z_.-]+) = (?P<value>.+)")
_HEADER = re.compile(r"#?(\[{1,2})(?P<table>[a-z_.]+)\]{1,2}(?: #.*)?")
_FACTS = re.compile(
    r"# Type: (?P<type>.+?)\. Default: (?P<default>.+?)\.(?: Takes effect: (?P<effect>reload|restart)\.)?", re.DOTALL
)


@dataclass(frozen=True)
class Entry:
    """One key of the manual with its table, its example and what is said about it."""

    table: str
    key: str
    example: str
    type: str
    default: str
    effect: str | None

    @property
    def path(self) -> str:
        return f"{self.table}.{self.key}".removeprefix(".")


def entries(name: str) -> Iterator[Entry]:
    table, facts = "", None
    for line in (ETC / name).read_text().split("\n"):
        if header := _HEADER.fullmatch(line):
            found = header["table"]
            table, facts = NAMED_TABLES.get(found, found), None
        elif line.startswith("# Type:"):
            facts = _FACTS.fullmatch(line)
            assert facts, f"{name}: {line}"
        elif key := _KEY.fullmatch(line):
            assert facts, f"{name}: nothing is said about {key['key']}"
            yield Entry(table, key["key"], key["value"], facts["type"], facts["default"], facts["effect"])
            facts = None
        else:
            assert not line or line.startswith(("# ", "#:schema ")) or line == "#", f"{name}: {line}"


def leaves(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for key, annotation in keys_of(model).items():
        inner = model_in(annotation)
        if inner is None or inner is model:
            yield f"{before}{key}"
        else:
            yield from leaves(inner, f"{before}{key}.")


def uncommented(name: str) -> str:
    return re.sub(r"^#(?=[a-z\[])", "", (ETC / name).read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_every_key_stands_in_the_manual_and_every_key_there_exists(name: str) -> None:
    written = [entry.path.replace("header.x-name", "header") for entry in entries(name)]
    assert len(written) == len(set(written))
    assert set(written) == set(leaves(FILES[name]))


def test_the_files_load_as_shipped() -> None:
    problems = config.check(ETC / "gateway.toml")
    assert {problem.severity for problem in problems} == {Severity.NOTICE}
    assert any("no touchpoint yet" in problem.message for problem in problems)
    assert any("agents cannot send" in problem.message for problem in problems)
    assert not any("not yet in force" in problem.message for problem in problems)


def test_a_key_says_restart_when_it_needs_one() -> None:
    effects = {entry.path: entry.effect for entry in entries("gateway.toml")}
    assert {path for path, effect in effects.items() if effect == "restart"} == NEEDS_RESTART
    assert None not in effects.values()
    assert {entry.effect for entry in entries("rules.toml")} == {None}


@pytest.mark.parametrize("name", FILES)
def test_a_default_is_what_happens_without_the_key(name: str) -> None:
    needed = {
        "touchpoint": {"address": "a@b.example", "name": "A"},
        "agent": {"login": "a@b.example", "name": "A"},
        "template": {"name": "A"},
        "rule": {"name": "A"},
        "touchpoint.dkim": {"selector": "a", "domain": "b", "private_key": "env:A"},
    }
    context = {"directory": ETC}
    checked = 0
    for entry in entries(name):
        model: Any = FILES[name]
        for part in entry.table.split(".") if entry.table else ():
            model = model_in(keys_of(model)[part])
        field = next(
            field for field, info in model.model_fields.items() if (info.alias or field) == entry.key.split(".")[0]
        )
        base = needed.get(entry.table, {})
        if entry.default == "mandatory":
            assert model.model_fields[field].is_required(), entry.path
            assert entry.key in base
            continue
        without = getattr(model.model_validate(base, context=context), field)
        if entry.default == "none":
            assert without in (None, ()), entry.path
        elif not entry.default.startswith("("):
            explicit = model.model_validate(base | tomllib.loads(f"{entry.key} = {entry.default}"), context=context)
            assert getattr(explicit, field) == without, entry.path
        else:
            continue
        checked += 1
    assert checked > 30


def test_the_examples_are_a_configuration_without_a_mistake(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text(uncommented(name))
    for directory in ("tls", "secrets", "signatures", "templates"):
        (tmp_path / directory).mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "tls" / "authority.pem")
    for certificate, key in (("fullchain.pem", "privkey.pem"), ("imap.pem", "imap-key.pem")):
        issued = authority.issue_cert("gateway.example.com")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "tls" / certificate)
        issued.private_key_pem.write_to_path(tmp_path / "tls" / key)
    (tmp_path / "signatures" / "logo.png").write_bytes(PNG)
    for text in ("signatures/support.html", "signatures/support.txt", "templates/reset.html", "templates/reset.txt"):
        (tmp_path / text).write_text("{{ agent.name }}, {{ agent.title }} {{ agent.phone }}")
    for secret in ("support", "dkim.pem", "microsoft", "microsoft.pem", "service-account.json"):
        (tmp_path / "secrets" / secret).write_text(pem_of(dkim_keys.rsa()) if secret == "dkim.pem" else "x")
        (tmp_path / "secrets" / secret).chmod(0o600)
    loaded = config.load(tmp_path / "gateway.toml")
    assert loaded.touchpoints["support"].active
    warnings = [str(problem) for problem in loaded.problems if problem.severity is Severity.WARNING]
    assert [each.partition("warning: ")[2] for each in warnings] == [
        'no agent has role "supervisor"; there is "agent"',
        'mail can reach queue "billing", but no agent sees it; add it to an agent\'s ring_groups',
    ]


def test_the_first_steps_of_the_manual_work() -> None:
    text = (ETC / "rules.toml").read_text()
    begin, end = text.index("#[[touchpoint]]"), text.index("#[touchpoint.pace]")
    touchpoint = re.sub(r"^#(?=[a-z\[])", "", text[begin:end], flags=re.MULTILINE)
    assert tomllib.loads(touchpoint)["touchpoint"][0]["address"] == "support@example.com"


def test_the_table_of_providers_is_that_of_the_profiles() -> None:
    text = (ETC.parent / "docs" / "configuration.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n") if line.startswith("| ")]
    told = {name: cells for name, *cells in rows if name in PROFILES}
    assert told == {name: list(_cells(profile)) for name, profile in PROFILES.items()}


def _cells(profile: Profile) -> Iterator[str]:
    yield "yes" if profile.idle else "no"
    yield from (f"{time // timedelta(minutes=1)} min" for time in (profile.renew_idle, profile.poll))
    yield show_duration(profile.reconnect) if profile.reconnect else "token"
    yield str(profile.connections)
    limits = {"a minute": profile.per_minute, "a day": profile.per_day, "a connection": profile.per_connection}
    yield ", ".join(f"{limit} {unit}" for unit, limit in limits.items() if limit is not None)
    yield profile.sent_copy
