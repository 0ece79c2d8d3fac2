"""Where a command's answer comes from: the running daemon, else the store itself under the daemon's lock."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gateway import control_client
from gateway.errors import CommandError

NOT_RUNNING: Final = 69
_STATE_DIR: Final = "/var/lib/mail-gateway"


Ask = Callable[..., Any]
"""(command, **args) → its result. Raises CommandError, Unavailable, and ConfigError for an unusable gateway.toml."""


def ask(config_path: Path, command: str, *, must_run: bool = False, **args: object) -> Any:
    """Return the result of `command`, as `Ask`. `must_run`: without a daemon it makes no sense (exit 69)."""
    with asking(config_path, must_run=must_run) as ask_it:
        return ask_it(command, **args)


@contextmanager
def asking(config_path: Path, *, must_run: bool = False) -> Iterator[Ask]:
    """Yield a function that asks several things; while no daemon runs, it opens the store once for all of them."""
    state_dir = _state_dir(config_path)
    ask_store: Ask | None = None
    with ExitStack() as stack:

        def ask_it(command: str, **args: object) -> Any:
            nonlocal ask_store
            if ask_store is None:
                for place in control_client.places_to_ask(state_dir):
                    with suppress(ConnectionError):
                        return control_client.ask(place, command, args)
                if must_run:
                    raise CommandError(
                        f"the daemon is not running (nothing answers in {state_dir}); "
                        "start it with: systemctl start mail-gateway",
                        NOT_RUNNING,
                    )
                ask_store = stack.enter_context(_asking_the_store(config_path))
            return ask_store(command, **args)

        yield ask_it


def who() -> str:
    """Return who runs the command, for people to read; it proves nothing."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"


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


@contextmanager
def _asking_the_store(config_path: Path) -> Iterator[Ask]:
    import trio  # as above

    from gateway.commands import handlers
    from gateway.desk import offline_desk

    with offline_desk(config_path) as desk:
        answers = handlers(desk)

        def ask_it(command: str, **args: object) -> Any:
            return trio.run(answers[command], args)

        yield ask_it
