"""Handlers of `touchpoint list | show`, and what `touchpoint remove` asks beforehand.

The commands that edit rules.toml do so themselves, as whoever runs them: the daemon may not write there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from gateway.config import Content, SecretRef, Server, Touchpoint
from gateway.config.base import Model
from gateway.config.values import show_duration
from gateway.desk import Args, Command, Desk, find_touchpoint, rfc3339
from gateway.state.unsettled import count_unsettled


async def _list(desk: Desk, args: Args) -> Any:
    return [
        {
            "id": each.id,
            "address": each.address,
            "name": each.name,
            "active": each.active,
            **_connection(desk, each),
            "direction": each.direction,
            "provider": each.provider,
            "linked_queues": list(each.linked_queues),
            "aliases": list(each.aliases),
        }
        for each in desk.current().touchpoints.values()
    ]


async def _show(desk: Desk, args: Args) -> Any:
    """Every setting as it is in force, also those that nobody wrote; no secret, only where it is kept."""
    touchpoint, current = find_touchpoint(desk, args["touchpoint"]), desk.current()
    agents = [agent for agent in current.agents.values() if agent.active]
    settings = {key: _plain(value) for key, value in _settings(touchpoint)}
    own = ("id", "address", "name", "active")
    return {
        **{key: settings.pop(key) for key in own},
        **_connection(desk, touchpoint),
        **settings,
        "seen_by": [each.login for each in agents if not set(each.ring_groups).isdisjoint(touchpoint.linked_queues)],
        "written_as_by": [each.login for each in agents if touchpoint in current.may_write_as(each)],
        "previewed_by": [each.login for each in agents if each.role in touchpoint.preview_roles],
        "waiting": asdict(await desk.store.read(count_unsettled, touchpoint.id)),
    }


async def _unsettled(desk: Desk, args: Args) -> Any:
    """Return what waits, also of a touchpoint that is in the file and not yet, or no longer, in force."""
    return asdict(await desk.store.read(count_unsettled, args["id"]))


def _connection(desk: Desk, touchpoint: Touchpoint) -> dict[str, Any]:
    """Return whether the provider lets us in; None where no daemon runs that could know."""
    if desk.health is None or not touchpoint.active:
        state = None if touchpoint.active else "inactive"
        return {"connected": None if desk.health is None else False, "state": state, "cause": None, "since": None}
    known = desk.health.touchpoint(touchpoint.id)
    return {
        "connected": known.connected,
        "state": known.state,
        "cause": known.cause,
        "since": rfc3339(known.since),
    }


def _settings(model: Model) -> list[tuple[str, Any]]:
    return [(field.alias or name, getattr(model, name)) for name, field in type(model).model_fields.items()]


def _plain(value: Any) -> Any:
    """Return a setting the way it is written in the file."""
    match value:
        case Model():
            return {key: _plain(inner) for key, inner in _settings(value)}
        case Content() if value.file is not None:
            return f"file:{value.file}"
        case timedelta():
            return show_duration(value)
        case Server() | SecretRef() | Path():
            return str(value)
        case Mapping():
            return {key: _plain(inner) for key, inner in value.items()}
        case tuple():
            return [_plain(inner) for inner in value]
    return value


COMMANDS: Final[Mapping[str, Command]] = {
    "touchpoint.list": _list,
    "touchpoint.show": _show,
    "touchpoint.unsettled": _unsettled,
}
