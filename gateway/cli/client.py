"""Where a command's answer comes from: the running daemon, else the store itself under the daemon's lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from gateway import config, control
from gateway.commands import handlers, offline_desk
from gateway.control import CommandError

NOT_RUNNING: Final = 69


def ask(config_path: Path, command: str, *, must_run: bool = False, **args: object) -> Any:
    """Return the result of `command`. `must_run`: without a daemon it makes no sense (exit 69).

    Raises CommandError, and ConfigError for a gateway.toml that cannot be read.
    """
    state_dir = config.load_gateway(config_path).state_dir
    try:
        return control.ask(control.socket_path(state_dir), command, args)
    except ConnectionError:
        if must_run:
            raise CommandError(
                f"the daemon is not running (nothing answers in {state_dir}); "
                "start it with: systemctl start mail-gateway",
                NOT_RUNNING,
            ) from None
    return trio.run(_ask_the_store, config_path, command, args)


async def _ask_the_store(config_path: Path, command: str, args: Mapping[str, object]) -> Any:
    async with offline_desk(config_path) as desk:
        return await handlers(desk)[command](args)
