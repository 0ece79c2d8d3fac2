"""An earlier version of the rules is written back: by whoever runs the command, checked first, with nothing lost.

The files that rules.toml names come first, each in one step, and rules.toml itself last. What stood there and is in no
version is put aside under another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import durable, edition
from gateway.config.load import load_edition, load_gateway
from gateway.errors import CommandError


@dataclass(frozen=True, slots=True)
class Restored:
    """Files that were written, and the copies of what stood there and was kept nowhere else. `before`: what stood in
    the place of those written, None where there was nothing.
    """

    written: tuple[Path, ...] = ()
    aside: tuple[Path, ...] = ()
    before: Mapping[Path, bytes | None] = field(default_factory=dict, repr=False)


def restore(
    config_path: Path, rules: Path, contents: Mapping[Path, bytes], known: Collection[str], suffix: str
) -> Restored:
    """Put the files of a version in place; durable on return. `rules`: which of them is rules.toml. `known`: SHA-256
    of what the history keeps; the copy of anything else gets `suffix` behind its name.

    Raises ConfigError when gateway.toml does not take that version any more, CommandError when a file cannot be
    replaced; each time with all files as they were.
    """
    named = load_gateway(config_path).rules
    if named != rules:
        raise CommandError(f"that version is of {rules}, and gateway.toml names {named}; nothing was changed")
    with edition.locked(rules.resolve().parent):
        before = {path: _read(path) for path in contents}
        changed = [path for path in contents if before[path] != contents[path]]
        changed.sort(key=lambda path: path == rules)  # it comes last
        aside = []
        done: list[Path] = []
        try:
            for path in changed:
                if path == rules:
                    _try(config_path, rules, contents[rules])
                old = before[path]
                if old is not None and hashlib.sha256(old).hexdigest() not in known:
                    copy = path.with_name(f"{path.name}.{suffix}")
                    _put(copy, old, like=path)
                    aside.append(copy)
                if _read(path) != old:
                    raise CommandError(f"{path} was edited by somebody else just now; nothing was changed, try again")
                _put(path, contents[path], like=path if old is not None else rules)
                done.append(path)
            if changed and changed[-1] != rules:
                _try(config_path, rules, contents[rules])
        except BaseException:
            take_back(Restored(tuple(done), tuple(aside), before))
            raise
    return Restored(tuple(changed), tuple(aside), before)


def take_back(restored: Restored) -> None:
    """Put everything as it was before, as far as that can be done."""
    for path in reversed(restored.written):
        _take_back(path, restored.before[path])
    for copy in restored.aside:
        copy.unlink(missing_ok=True)


def _try(config_path: Path, rules: Path, content: bytes) -> None:
    """Raise ConfigError where these rules, with the files as they are now, could not be loaded."""
    temporary = edition.write_beside(rules.resolve(), content)
    try:
        load_edition(config_path, rules, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _put(path: Path, content: bytes, like: Path) -> None:
    path = path.resolve()  # a symbolic link stays one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        edition.write_beside(path, content, like.resolve()).replace(path)
        durable.sync(path.parent)
    except OSError as error:
        raise CommandError(f"{path} cannot be replaced: {(error.strerror or str(error)).lower()}") from None


def _take_back(path: Path, content: bytes | None) -> None:
    with suppress(CommandError, OSError):
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _put(path, content, like=path)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
