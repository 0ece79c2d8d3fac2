"""Every good version of the rules that was in force, with the files it names: to be looked at, and brought back.

A directory: `N.json` tells of version N when, by whom, what changed, and which files it is made of; `files/` has each
of those once, by the hash of its content. Versions are numbered from 1; the oldest go when there are too many.
Secrets are not in it: a reference goes on pointing to where the secret is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gateway.config.durable import holds, replace, sync
from gateway.config.load import Config, load_kept
from gateway.errors import Unavailable

VERSIONS: Final = 100
_LINES: Final = 200  # of what changed that are kept with a version


@dataclass(frozen=True, slots=True)
class KeptFile:
    """`name`: of its content in `files/`, which is the SHA-256 of it. `size`: bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Version:
    """`by`: what brought it into force. `changes`: in words, against the version before. `files`: by path, also `rules`
    itself."""

    number: int
    at: datetime
    by: str
    changes: tuple[str, ...]
    rules: Path
    files: Mapping[Path, KeptFile]


class History:
    """Versions in `directory`. Every method blocks: call them in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = directory / "files"

    def versions(self) -> list[Version]:
        """Return what is kept, the newest first. A version that cannot be read is left out."""
        return [found for number in self._numbers() if (found := self.find(number)) is not None]

    def find(self, number: int) -> Version | None:
        try:
            return _read(number, json.loads((self._directory / f"{number}.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def newest(self) -> Version | None:
        return next((found for number in self._numbers() if (found := self.find(number)) is not None), None)

    def content(self, version: Version) -> dict[Path, bytes]:
        """Return its files. Raises Unavailable where one is gone or is not what it was."""
        found = {}
        for path, kept in version.files.items():
            try:
                content = (self._files / kept.name).read_bytes()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise Unavailable(f"{path} of version {version.number} cannot be read: {reason}") from None
            if hashlib.sha256(content).hexdigest() != kept.name:
                raise Unavailable(f"{path} of version {version.number} is not any more what was kept; its disk is bad")
            found[path] = content
        return found

    def load(self, version: Version, gateway_path: Path) -> Config:
        """Return the configuration of gateway.toml as it is now with those rules. Raises ConfigError."""
        return load_kept(
            gateway_path, version.rules, {path: self._files / kept.name for path, kept in version.files.items()}
        )

    def is_newest(self, config: Config) -> bool:
        """Whether the version that was kept last is this one."""
        newest = self.newest()
        return newest is not None and (newest.rules, newest.files) == (config.rules_path, _kept(config.files))

    def keep(self, config: Config, at: datetime, by: str, changes: Sequence[str]) -> int | None:
        """Keep what `config` was loaded from as the newest version; durable on return. Return its number, None where
        it is the newest already. Raises Unavailable.
        """
        if self.is_newest(config):
            return None
        try:
            return self._keep(config, at, by, changes)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unavailable(f"this version cannot be kept in {self._directory}: {reason}; make room there") from None

    def _keep(self, config: Config, at: datetime, by: str, changes: Sequence[str]) -> int:
        for each in (self._directory, self._files):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            each.chmod(0o700)
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        files = _kept(config.files)
        for path, content in config.files.items():
            if not holds(self._files / files[path].name, content):
                replace(self._files / files[path].name, content)
        sync(self._files)
        entry = {
            "at": at.isoformat(),
            "by": by,
            "changes": list(changes[:_LINES]),
            "rules": str(config.rules_path),
            "files": {str(path): [kept.name, kept.size] for path, kept in files.items()},
        }
        replace(self._directory / f"{number}.json", json.dumps(entry, indent=1).encode(errors="backslashreplace"))
        sync(self._directory)
        self._forget(numbers[VERSIONS - 1 :])
        return number

    def _forget(self, numbers: Sequence[int]) -> None:
        """Take these away, and the files that no version has any more."""
        if not numbers:
            return
        for number in numbers:
            (self._directory / f"{number}.json").unlink(missing_ok=True)
        needed = {kept.name for version in self.versions() for kept in version.files.values()}
        for stray in self._files.iterdir():
            if stray.name not in needed:
                stray.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        """Return the numbers of what is there, the highest first."""
        with suppress(OSError):
            return sorted(
                (int(path.stem) for path in self._directory.glob("*.json") if path.stem.isdecimal()), reverse=True
            )
        return []


def _kept(files: Mapping[Path, bytes]) -> dict[Path, KeptFile]:
    return {path: KeptFile(hashlib.sha256(content).hexdigest(), len(content)) for path, content in files.items()}


def _read(number: int, entry: Any) -> Version:
    return Version(
        number,
        datetime.fromisoformat(entry["at"]),
        str(entry["by"]),
        tuple(str(line) for line in entry["changes"]),
        Path(entry["rules"]),
        {Path(path): KeptFile(str(name), int(size)) for path, (name, size) in entry["files"].items()},
    )
