"""Where a command's answer comes from: the running daemon, else the store itself under the daemon's lock."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway import control_client
from gateway.errors import CommandError

NOT_RUNNING: Final = 69
_STATE_DIR: Final = "/var/lib/mail-gateway"


def ask(config_path: Path, command: str, *, must_run: bool = False, **args: object) -> Any:
    """Return the result of `command`. `must_run`: without a daemon it makes no sense (exit 69).

    Raises CommandError, and ConfigError for a gateway.toml that cannot be read.
    """
    state_dir = _state_dir(config_path)
    for place in control_client.places_to_ask(state_dir):
        try:
            return control_client.ask(place, command, args)
        except ConnectionError:
            pass
    if must_run:
        raise CommandError(
            f"the daemon is not running (nothing answers in {state_dir}); start it with: systemctl start mail-gateway",
            NOT_RUNNING,
        )
    return _ask_the_store(config_path, command, args)


def _state_dir(config_path: Path) -> Path:
    """Return where the daemon keeps its state. The daemon has checked the file; a command need not do it again."""
    try:
        state_dir = tomllib.loads(config_path.read_text("utf-8")).get("state_dir", _STATE_DIR)
    except (OSError, ValueError):
        state_dir = None
    if isinstance(state_dir, str) and Path(state_dir).is_absolute():
        return Path(state_dir)
    from gateway.config import load_gateway  # slow to import, and rarely needed: it says what is wrong

    return load_gateway(config_path).state_dir


def _ask_the_store(config_path: Path, command: str, args: Mapping[str, object]) -> Any:
    import trio  # as above

    from gateway.commands import handlers, offline_desk

    async def answer() -> Any:
        async with offline_desk(config_path) as desk:
            return await handlers(desk)[command](args)

    return trio.run(answer)
