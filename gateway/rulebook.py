"""The configuration in force: what was loaded, when, what is wrong with the file, and the last good copy.

At start a bad rules.toml does not stop the mail: the last good copy runs, kept in state_dir with the files it names.
Reload is atomic: everything is read, parsed and compiled first, then one reference is swapped. Each version that came
into force is kept in the history, so that an admin can go back to it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway import config, events
from gateway.config import Changes, Config
from gateway.config.history import History
from gateway.errors import ConfigError, Unavailable

_COPY: Final = "last-good"
_HISTORY: Final = "history"


class Rulebook:
    """Holds the current `Config`. `error`: why the file on disk is not in force, or None.

    `origin`: where the rules in force are from: "file", "last-good" (the copy), or "none" (no mail moves).
    """

    def __init__(self, config_path: Path, current: Config, error: str | None, origin: str = "file") -> None:
        self._path = config_path
        self.config = current
        self.error = error
        self.origin = origin
        self.loaded_at = datetime.now(UTC)
        self._seen = self._stamp()

    @classmethod
    def open(cls, config_path: Path, gateway: config.GatewayFile, *, keep: bool = True) -> Rulebook:
        """Load both files; with a bad rules.toml the last good copy, else no rules at all.

        `gateway` was loaded from `config_path` a moment ago: whatever is wrong now is about the rules. `keep`: a good
        one is the last good copy from now on.
        """
        copy = gateway.state_dir / _COPY
        try:
            current = config.load(config_path)
        except ConfigError as error:
            try:
                return cls(config_path, config.load_snapshot(copy, config_path), str(error), "last-good")
            except ConfigError:
                return cls(config_path, config.without_rules(config_path), str(error), "none")
        if keep:
            _keep(current, copy)
        book = cls(config_path, current, None)
        if keep:
            book._remember(None, "start")
        return book

    @property
    def history(self) -> History:
        """The good versions so far."""
        return History(self.config.gateway.state_dir / _HISTORY)

    def reload(self, by: str = "reload") -> Changes:
        """Load both files anew and swap. Raises ConfigError, with nothing changed. Blocking: call it in a thread.

        `by`: who or what asked for it, in a few words, for the history.
        """
        self._seen = self._stamp()  # before: an edit while we read is one that we have not seen
        try:
            new = config.load(self._path)
        except ConfigError as error:
            self.error = str(error)
            raise
        changes = config.diff(self.config, new)
        _keep(new, self.config.gateway.state_dir / _COPY)
        self.config, self.error, self.origin, self.loaded_at = new, None, "file", datetime.now(UTC)
        self._seen = self._stamp() | self._seen
        self._remember(changes, by)
        return changes

    def _remember(self, changes: Changes | None, by: str) -> None:
        """Keep what is in force now in the history. `changes`: against what was before; None: look at the newest."""
        try:
            if changes is None:
                changes = self._since_newest()
            lines = replace(changes, gateway=(), restart=()).lines() if changes else []
            self.history.keep(self.config, self.loaded_at, by, lines)
        except Unavailable as error:  # as with the copy
            events.warn("rules-not-kept", cause=str(error))

    def _since_newest(self) -> Changes | None:
        """Return what was edited since the newest version, while nobody ran."""
        newest = self.history.newest()
        if newest is None or self.history.is_newest(self.config):
            return None
        try:
            return config.diff(self.history.load(newest, self._path), self.config)
        except ConfigError:  # written for another gateway.toml, or by an older version of ours
            return None

    @property
    def changed_on_disk(self) -> bool:
        """Whether gateway.toml, rules.toml or a file that it names was edited since we last looked."""
        return any(self._seen.get(path, stamp) != stamp for path, stamp in self._stamp().items())

    def _stamp(self) -> dict[Path, tuple[int, int] | None]:
        paths = (self._path, self.config.gateway.rules, *self.config.files)
        return {path: _stamp_of(path) for path in paths}


def _keep(current: Config, copy: Path) -> None:
    try:
        config.snapshot(current, copy)
    except Unavailable as error:  # the new rules count all the same; only a later bad file would miss them
        events.warn("rules-not-kept", cause=str(error))


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
