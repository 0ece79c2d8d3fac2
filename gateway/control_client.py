"""Asks the daemon: the other end of `control.py`, for commands. Imports next to nothing, so that a command is quick."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.errors import CommandError

_NAME: Final = "control.sock"
_STATES: Final = Path("/var/lib")
_RUNTIMES: Final = Path("/run")


def socket_path(state_dir: Path) -> Path:
    """Return where the daemon listens: systemd's runtime directory when there is one, else the state directory."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(runtime or state_dir) / _NAME


def places_to_ask(state_dir: Path) -> tuple[Path, ...]:
    """Return where a command may find the daemon of `state_dir`, the likeliest place first.

    systemd tells the daemon its RUNTIME_DIRECTORY, but not the shell in which a command is run: beside
    `StateDirectory=X` (/var/lib/X) the unit has `RuntimeDirectory=X` (/run/X).
    """
    by_convention = [_RUNTIMES / state_dir.relative_to(_STATES) / _NAME] if state_dir.is_relative_to(_STATES) else []
    set_here = [socket_path(state_dir)] if os.environ.get("RUNTIME_DIRECTORY") else []
    # Last, as members of the socket's group that are not root may not even look into it
    return (*set_here, *by_convention, state_dir / _NAME)


def ask(path: Path, command: str, args: Mapping[str, Any], timeout: float | None = None) -> Any:
    """Send one request and return its result; blocking, for the command line.

    Raises ConnectionError when no daemon answers there, CommandError when it says no.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(str(path))
            client.sendall(json.dumps({"command": command, "args": dict(args)}).encode() + b"\n")
            with client.makefile("rb") as stream:
                line = stream.readline()
        except PermissionError:
            raise CommandError(
                f"{path}: permission denied; run the command as root or as a member of the socket's group"
            ) from None
        except FileNotFoundError:
            raise ConnectionError(f"{path}: no daemon answers") from None
    if not line:
        raise ConnectionError("the daemon ended before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise CommandError(answer["error"], answer["exit"])
    return answer["result"]
