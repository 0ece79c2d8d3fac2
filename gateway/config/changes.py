"""What a reload changes, so that it can be said and so that nothing else is touched."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config.base import Model
from gateway.config.gateway_file import NEEDS_RESTART
from gateway.config.load import Config
from gateway.config.rules_file import Touchpoint


@dataclass(frozen=True, slots=True)
class Changed:
    """One named thing. `kind`: added, removed or changed; `keys`: which of its keys, as in the file."""

    name: str
    kind: str
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.keys)} changed" if self.keys else f"{self.name}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Changes:
    """`gateway`: keys of gateway.toml; those in `restart` are not in force before a restart."""

    touchpoints: tuple[Changed, ...] = ()
    agents: tuple[Changed, ...] = ()
    rules: tuple[Changed, ...] = ()  # rules, hours, templates and spam
    gateway: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.touchpoints or self.agents or self.rules or self.gateway)

    def lines(self) -> list[str]:
        """Return a line for each thing that changed; nothing when nothing did."""
        lines = [f"touchpoint {each}" for each in self.touchpoints]
        lines += [f"agent {each}" for each in self.agents]
        lines += [str(each) for each in self.rules]
        lines += [f"gateway.toml: {key} changed" for key in self.gateway if key not in self.restart]
        lines += [
            f"gateway.toml: {key} changed: needs a restart, the old value stays until then" for key in self.restart
        ]
        return lines


def diff(old: Config, new: Config) -> Changes:
    """Return what `new` changes. A touchpoint is the same when its id is."""
    gateway = tuple(_keys(old.gateway, new.gateway))
    return Changes(
        touchpoints=tuple(_compare(old.touchpoints, new.touchpoints)),
        agents=tuple(_compare(old.agents, new.agents)),
        rules=tuple(_compare_rules(old, new)),
        gateway=gateway,
        restart=tuple(key for key in gateway if key in NEEDS_RESTART),
    )


def inbound_settings(touchpoint: Touchpoint) -> Hashable:
    """Return all that the IMAP session of a touchpoint was opened with. While it is equal, a reload leaves the
    session alone; everything else about the touchpoint is looked up for each message."""
    return (
        touchpoint.id,
        touchpoint.provider,
        touchpoint.imap,
        touchpoint.imap_login,
        touchpoint.password,
        touchpoint.auth,
        touchpoint.ca_file,
        touchpoint.folders,
        touchpoint.history,
        touchpoint.after_fetch,
        touchpoint.watch,
    )


def outbound_settings(touchpoint: Touchpoint) -> Hashable:
    """Return all that the SMTP connections of a touchpoint were opened with, as `inbound_settings`."""
    return (
        touchpoint.id,
        touchpoint.direction,  # alone it also says what `status` shows
        touchpoint.provider,
        touchpoint.smtp,
        touchpoint.smtp_login,
        touchpoint.password,
        touchpoint.auth,
        touchpoint.ca_file,
        touchpoint.dkim,
        touchpoint.pace,
    )


def _compare(old: Mapping[str, Model], new: Mapping[str, Model]) -> Iterator[Changed]:
    for name, model in new.items():
        if name not in old:
            yield Changed(name, "added")
        elif old[name] != model:
            yield Changed(name, "changed", tuple(_keys(old[name], model)))
    for name in old:
        if name not in new:
            yield Changed(name, "removed")


def _compare_rules(old: Config, new: Config) -> Iterator[Changed]:
    old_rules = {f"rule {each.name}": each for each in old.rules.rules}
    new_rules = {f"rule {each.name}": each for each in new.rules.rules}
    yield from _compare(old_rules, new_rules)
    if sorted(old_rules) == sorted(new_rules) and [*old_rules] != [*new_rules]:
        yield Changed("rules", "in another order")
    yield from _compare(_named("hours", old.rules.hours), _named("hours", new.rules.hours))
    yield from _compare(
        {f"template {each.name}": each for each in old.rules.templates},
        {f"template {each.name}": each for each in new.rules.templates},
    )
    if keys := tuple(_keys(old.rules.spam, new.rules.spam)):
        yield Changed("spam", "changed", keys)


def _named(kind: str, models: Mapping[str, Model]) -> dict[str, Model]:
    return {f"{kind} {name}": model for name, model in models.items()}


def _keys(old: Any, new: Any, before: str = "") -> Iterator[str]:
    """Yield the keys whose values differ; of tables that both have, the keys within."""
    for name, field in type(new).model_fields.items():
        key = f"{before}{field.alias or name}"
        was, now = getattr(old, name), getattr(new, name)
        if was == now:
            continue
        if isinstance(was, Model) and type(was) is type(now):
            # What differs may be an image that the text names: then it is the text that looks different.
            yield from tuple(_keys(was, now, f"{key}.")) or (f"{key}.images",)
        else:
            yield key
