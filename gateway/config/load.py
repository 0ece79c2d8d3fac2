"""Both files → one frozen Config, or every problem in them at once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.config.base import Model
from gateway.config.checks import find_problems
from gateway.config.document import Document, SyntaxProblem, read_text
from gateway.config.draft import Draft, Entry
from gateway.config.files import Files
from gateway.config.gateway_file import GatewayFile
from gateway.config.positions import Path as KeyPath
from gateway.config.rules_file import Agent, Hours, Rule, RulesFile, Spam, Template, Touchpoint
from gateway.config.sentences import explain, keys_of
from gateway.config.values import suggest
from gateway.errors import ConfigError, Problem, Severity

M = TypeVar("M", bound=Model)

_NO_RULES = "create it (an empty one will do to begin with), or correct `rules` in gateway.toml"


@dataclass(frozen=True)
class Config:
    """Both files, checked. `path`: gateway.toml. `problems`: warnings and notices. `files`: what was read, by path."""

    path: Path
    gateway: GatewayFile
    rules: RulesFile
    problems: tuple[Problem, ...] = ()
    files: Mapping[Path, bytes] = field(default_factory=dict, repr=False)
    rules_path: Path = Path("rules.toml")

    @cached_property
    def touchpoints(self) -> Mapping[str, Touchpoint]:
        """By id."""
        return {each.id: each for each in self.rules.touchpoints}

    @cached_property
    def agents(self) -> Mapping[str, Agent]:
        """By login, lower case."""
        return {each.login.lower(): each for each in self.rules.agents}

    @cached_property
    def _by_address(self) -> Mapping[str, Touchpoint]:
        return {address: each for each in self.rules.touchpoints for address in each.addresses}

    def touchpoint_at(self, address: str) -> Touchpoint | None:
        """Return the touchpoint whose address or alias this is."""
        return self._by_address.get(address.lower())

    def may_write_as(self, agent: Agent) -> tuple[Touchpoint, ...]:
        """Return the outbound touchpoints whose name this agent may put on mail, in the order of the file."""
        return tuple(each for each in self.rules.touchpoints if each.is_outbound and _may_write_as(agent, each))

    @cached_property
    def queue_names(self) -> frozenset[str]:
        """What [queues] names, or else every queue that mail can reach or an agent looks at."""
        if self.gateway.queues.names is not None:
            return frozenset(self.gateway.queues.names)
        named = {name for each in self.rules.touchpoints for name in each.linked_queues}
        named |= {name for each in self.rules.agents for name in each.ring_groups}
        named |= {name for each in self.rules.rules for name in each.action.queue}
        return frozenset(named - {"linked"})


def _may_write_as(agent: Agent, touchpoint: Touchpoint) -> bool:
    if agent.touchpoints is not None:
        return touchpoint.id in agent.touchpoints
    return not set(agent.ring_groups).isdisjoint(touchpoint.linked_queues)


def load(path: Path, *, rules: Path | None = None, now: datetime | None = None) -> Config:
    """Return the configuration of gateway.toml at `path` and the rules.toml it names, or `rules` instead.

    Raises ConfigError with all problems of both. `now` is for the opening hours that a notice shows.
    """
    return _Loader(path, rules, Files(), now or datetime.now(UTC)).load()


def load_rules(path: Path, gateway_path: Path) -> Config:
    """Return the configuration as it would be with the rules file at `path`. Raises ConfigError."""
    return load(gateway_path, rules=path)


def load_kept(path: Path, rules: Path, kept: Mapping[Path, Path]) -> Config:
    """As `load`, but every file in `kept`, also `rules` itself, is read from where it was kept."""
    return _Loader(path, rules, Files(kept), datetime.now(UTC)).load()


def load_edition(path: Path, rules: Path, edition: Path) -> Config:
    """As `load`, as it would be if `edition` were in the place of `rules`."""
    return _Loader(path, rules, Files({rules: edition}, is_copy=False), datetime.now(UTC)).load()


def load_gateway(path: Path) -> GatewayFile:
    """Return gateway.toml alone. Raises ConfigError with its problems: the ones that stop a start."""
    loader = _Loader(path, None, Files(), datetime.now(UTC))
    gateway = loader.read_gateway()
    loader.refuse()
    return gateway


def without_rules(path: Path) -> Config:
    """Return gateway.toml alone as a configuration in which no mail moves. Raises ConfigError."""
    return Config(path=path, gateway=load_gateway(path), rules=RulesFile())


def check(path: Path, file: Path | None = None, *, now: datetime | None = None) -> tuple[Problem, ...]:
    """Return all there is to say about both files: errors, warnings and notices, in the order of the files.

    `path`: gateway.toml. `file`: a rules file to look at instead of the one that it names, or another gateway.toml.
    """
    if file is not None and _is_gateway_file(file):
        path, file = file, None
    loader = _Loader(path, file, Files(), now or datetime.now(UTC))
    loader.look()
    return loader.in_order()


def _is_gateway_file(path: Path) -> bool:
    try:
        keys = set(Document(path, read_text(path, path)).data)
    except SyntaxProblem:
        return path.name == "gateway.toml"
    return len(keys & set(keys_of(GatewayFile))) > len(keys & set(keys_of(RulesFile)))


class _Loader:
    def __init__(self, path: Path, rules: Path | None, files: Files, now: datetime) -> None:
        self.path = path
        self.rules_path = rules
        self.files = files
        self.now = now
        self.problems: list[Problem] = []
        self.gateway_document: Document | None = None
        self.rules_document: Document | None = None

    def load(self) -> Config:
        draft = self.look()
        self.refuse()
        return Config(
            path=self.path,
            gateway=draft.gateway,
            rules=_finish(draft),
            problems=self.in_order(),
            files=dict(self.files.read_so_far),
            rules_path=self.rules_path or draft.gateway.rules,
        )

    def look(self) -> Draft:
        """Read and check everything; what is found is among the problems."""
        draft = self.read_rules(self.read_gateway())
        self.problems += find_problems(draft)
        return draft

    def refuse(self) -> None:
        errors = tuple(problem for problem in self.in_order() if problem.severity is Severity.ERROR)
        if errors:
            raise ConfigError(errors)

    def in_order(self) -> tuple[Problem, ...]:
        unique = dict.fromkeys(self.problems)
        return tuple(sorted(unique, key=lambda each: (each.file != self.path, str(each.file), each.line or 0)))

    # --- gateway.toml

    def read_gateway(self) -> GatewayFile:
        """Return gateway.toml, with defaults where it is wrong (which is then among the problems)."""
        document = self._open(self.path, self.path, "create it, or name another with --config or MAIL_GATEWAY_CONFIG")
        if document is None:
            return GatewayFile.model_validate({}, context=self._context(self.path))
        self.gateway_document = document
        entry = self._read(document, (), GatewayFile, document.path.name)
        return entry.model or GatewayFile.model_validate({}, context=self._context(self.path))

    # --- rules.toml

    def read_rules(self, gateway: GatewayFile) -> Draft:
        path = self.rules_path or gateway.rules
        draft = Draft(gateway=gateway, gateway_document=self.gateway_document, files=self.files, now=self.now)
        if self.gateway_document is None and not path.exists():
            return draft  # where the rules are is not known as long as gateway.toml cannot be read
        document = self._open(self.files.where(path), path, _NO_RULES)
        if document is None:
            return draft
        self.files.read_so_far[path] = document.text.encode()
        self.rules_document = draft.rules_document = document
        for key in document.data:
            if key not in keys_of(RulesFile):
                hint = suggest(key, keys_of(RulesFile))
                self.problems.append(document.problem((key,), f'unknown key "{key}" in {path.name}{hint}'))
        draft.touchpoints = self._read_many(document, "touchpoint", Touchpoint, "address")
        draft.agents = self._read_many(document, "agent", Agent, "login")
        draft.templates = self._read_many(document, "template", Template, "name")
        draft.rules = self._read_many(document, "rule", Rule, "name")
        hours = document.data.get("hours", {})
        if isinstance(hours, dict):
            draft.hours = {name: self._read(document, ("hours", name), Hours, f"[hours.{name}]") for name in hours}
        else:
            self.problems.append(document.problem(("hours",), "hours must be tables, for example [hours.office]"))
        if "spam" in document.data:
            draft.spam = self._read(document, ("spam",), Spam, "[spam]")
        return draft

    def _read_many(self, document: Document, key: str, model: type[M], title: str) -> list[Entry[M]]:
        tables = document.data.get(key, [])
        if not isinstance(tables, list):
            self.problems.append(document.problem((key,), f"write [[{key}]] with two brackets: there can be several"))
            return []
        found = []
        for index, table in enumerate(tables):
            name = table.get(title) if isinstance(table, dict) else None
            shown = f'[[{key}]] "{name}"' if isinstance(name, str) and name else f"[[{key}]]"
            found.append(self._read(document, (key, index), model, shown))
        return found

    # --- one table

    def _read(self, document: Document, path: KeyPath, model: type[M], shown: str) -> Entry[M]:
        """Return the table as understood. What is wrong in it joins the problems, and the rest is still read, so that
        the checks behind this one find theirs too."""
        data = document.at(path)
        context = self._context(document.path)
        try:
            return Entry(path, data, model.model_validate(data, context=context), frozenset())
        except ValidationError as error:
            for inner, message in explain(error, model, data, shown):
                self.problems.append(document.problem((*path, *inner), message))
            places = [each["loc"] for each in error.errors(include_url=False, include_input=False) if each["loc"]]
        wrong = frozenset(str(place[0]) for place in places)
        rest = _without(data, places)
        understood = _try(model, rest, context)
        if understood is None:
            understood = _try(model, {key: value for key, value in rest.items() if key not in wrong}, context)
        return Entry(path, data, understood, wrong)

    def _context(self, path: Path) -> dict[str, Any]:
        return {"directory": path.absolute().parent, "files": self.files}

    def _open(self, path: Path, shown: Path, remedy: str) -> Document | None:
        try:
            return Document(shown, read_text(path, shown, remedy))
        except SyntaxProblem as error:
            self.problems.append(error.problem)
            return None


def _without(data: Any, places: list[KeyPath]) -> dict[str, Any]:
    """Return the table without the keys at `places`; of a list, with one wrong element, nothing is left."""
    rest = copy.deepcopy(data) if isinstance(data, dict) else {}
    for place in places:
        table = rest
        keys = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), place)]
        while len(keys) > 1 and isinstance(table.get(keys[0]), dict):
            table = table[keys.pop(0)]
        table.pop(".".join(keys), None)  # "header.x-name" is one key as well
    return rest


def _try(model: type[M], data: Any, context: Any) -> M | None:
    try:
        return model.model_validate(data, context=context)
    except ValidationError:
        return None


def _finish(draft: Draft) -> RulesFile:
    """Return the rules with every name of a touchpoint turned into its id."""
    timezone = draft.gateway.timezone

    def with_ids(entries: list[Entry[M]]) -> list[M]:
        found = []
        for entry in entries:
            model: Any = entry.model
            if getattr(model, "touchpoints", None) is not None:
                ids = tuple(dict.fromkeys(draft.id_of(name) or name for name in model.touchpoints))
                model = model.model_copy(update={"touchpoints": ids})
            found.append(model)
        return found

    hours = {
        name: entry.model if entry.model.timezone else entry.model.model_copy(update={"timezone": timezone})
        for name, entry in draft.hours.items()
        if entry.model is not None
    }
    return RulesFile.model_validate(
        {
            "touchpoint": with_ids(draft.touchpoints),
            "hours": hours,
            "agent": with_ids(draft.agents),
            "template": with_ids(draft.templates),
            "spam": (draft.spam.model if draft.spam else None) or Spam(),
            "rule": with_ids(draft.rules),
        }
    )
