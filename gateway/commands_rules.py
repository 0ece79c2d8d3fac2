"""Handlers behind `rules`: the rules in force, and the good versions before them, each with its files.

What judges with them, and what writes them, is the command, as whoever runs it: the daemon may not write there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from gateway.config.history import History, Version
from gateway.desk import Args, Command, Desk, rfc3339
from gateway.errors import CommandError


async def _current(desk: Desk, args: Args) -> Any:
    """Return the rules in force with their files in base64; `rules` None where none are in force."""
    book, current = desk.rulebook, desk.current()
    return {
        "origin": book.origin,
        "loaded_at": rfc3339(book.loaded_at),
        "rules": None if book.origin == "none" else str(current.rules_path),
        "files": _in_base64(current.files),
    }


async def _history(desk: Desk, args: Args) -> Any:
    """Return every version that is kept, the newest first."""
    history = desk.rulebook.history
    versions, in_force = await trio.to_thread.run_sync(_read, history, desk)
    return [_shown(version, version.number == in_force) for version in versions[: args.get("limit")]]


async def _version(desk: Desk, args: Args) -> Any:
    """Return one version, with its files in base64."""
    history, number = desk.rulebook.history, int(args["number"])
    version = await trio.to_thread.run_sync(history.find, number)
    if version is None:
        raise CommandError(f"there is no version {number} of the rules; `mail-gateway rules history` shows them", 2)
    content = await trio.to_thread.run_sync(history.content, version)
    in_force = (await trio.to_thread.run_sync(_read, history, desk))[1]
    return {
        **_shown(version, version.number == in_force),
        "rules": str(version.rules),
        "content": _in_base64(content),
    }


def _read(history: History, desk: Desk) -> tuple[list[Version], int | None]:
    """Return the versions and the number of the one in force, if it is the newest."""
    versions = history.versions()
    is_in_force = bool(versions) and desk.rulebook.origin != "none" and history.is_newest(desk.current())
    return versions, versions[0].number if is_in_force else None


def _shown(version: Version, in_force: bool) -> dict[str, Any]:
    return {
        "number": version.number,
        "at": rfc3339(version.at),
        "by": version.by,
        "in_force": in_force,
        "changes": list(version.changes),
        "files": [
            {"path": str(path), "size": kept.size, "sha256": kept.name} for path, kept in sorted(version.files.items())
        ],
    }


def _in_base64(files: Mapping[Path, bytes]) -> dict[str, str]:
    return {str(path): base64.b64encode(content).decode() for path, content in files.items()}


COMMANDS: Final[Mapping[str, Command]] = {
    "rules.current": _current,
    "rules.history": _history,
    "rules.version": _version,
}
