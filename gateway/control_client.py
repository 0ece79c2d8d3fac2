"""Asks the daemon: the other end of `control.py`, for commands. Imports next to nothing, so that a command is quick."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import CommandError


def socket_path(state_dir: Path) -> Path:
    """Return where the daemon listens: systemd's runtime directory when there is one, else the state directory."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(runtime or state_dir) / "control.sock"


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
