"""What the handlers of commands work with, and what several of them need to read a person's words.

The same desk serves the control socket and, while no daemon runs, the command line itself (`offline_desk`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway import config
from gateway.config import Changes, Config, Touchpoint
from gateway.config.values import suggest
from gateway.errors import CommandError
from gateway.health import Health
from gateway.model import read_id
from gateway.rulebook import Rulebook
from gateway.state import blocks
from gateway.state.blocks import Blocks
from gateway.state.lock import StateLock, as_owner_of
from gateway.state.outbox_view import Stopped
from gateway.state.store import Store

Args = Mapping[str, Any]

Reconcile = Callable[[str | None], Awaitable[Sequence[Mapping[str, Any]]]]
"""(id of a touchpoint, None for all) → a mapping for each watched folder, with some of `RECONCILED`."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What handlers work with. `health`, `reload` and the rest are None while no daemon runs.

    `reload` is told who or what asks for it.
    """

    current: Callable[[], Config]
    store: Store
    rulebook: Rulebook
    health: Health | None
    started_at: datetime | None
    ring: Callable[[str], None]
    reload: Callable[[str], Awaitable[Changes]] | None
    forget_logins: Callable[[str], None]
    blocks: Blocks
    reconcile: Reconcile | None = None


Command = Callable[[Desk, Args], Awaitable[Any]]
"""Returns what the control socket answers. Raises CommandError for what cannot be done."""


@contextmanager
def offline_desk(config_path: Path) -> Iterator[Desk]:
    """Open the store while no daemon runs, under the daemon's own lock. Raises ConfigError and Unavailable."""
    gateway = config.load_gateway(config_path)
    with as_owner_of(gateway.state_dir):
        lock = StateLock(gateway.state_dir)
        try:
            rulebook = Rulebook.open(config_path, gateway, keep=False)
            store = Store.open(gateway.state_dir / "gateway.db")
            try:
                known = Blocks(store.read(blocks.all_blocks).result())
                yield Desk(
                    lambda: rulebook.config, store, rulebook, None, None, _nobody_listens, None, _nobody_listens, known
                )
            finally:
                store.close()
        finally:
            lock.release()


def _nobody_listens(_: str) -> None:
    pass


def instead(word: str, known: Iterable[str], offered: Iterable[str] | None = None) -> str:
    """Return what may have been meant, out of `known`; else what there is, out of `offered`."""
    hint = suggest(word, known)
    if "did you mean" in hint:
        return hint
    return f"; there are: {', '.join(sorted(known if offered is None else offered)) or 'none'}"


def rfc3339(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def id_of(text: str, kind: str) -> int:
    if (number := read_id(text)) is None:
        raise CommandError(f"{text!r} is not an id; `mail-gateway {kind} list` shows them", 2)
    return number


def find_touchpoint(desk: Desk, name: str) -> Touchpoint:
    """Return the touchpoint of that id, address or alias."""
    known = desk.current().touchpoints
    touchpoint = known.get(name) or desk.current().touchpoint_at(name)
    if touchpoint is None:
        raise CommandError(f'unknown touchpoint "{name}"{instead(name, known)}', 2)
    return touchpoint


def stopped_in(current: Config) -> Stopped:
    """Return what tells why a touchpoint's mail does not move, where that is because the admin does not want it to."""

    def why(id: str) -> str | None:
        touchpoint = current.touchpoints.get(id)
        if touchpoint is None:
            return "the touchpoint is not in rules.toml any more"
        if not touchpoint.active:
            return "the touchpoint is not active"
        return None if touchpoint.is_outbound else "the touchpoint is inbound only"

    return why
