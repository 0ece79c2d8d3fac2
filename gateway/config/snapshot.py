"""The last good rules.toml with the files it names, kept so that a later bad one does not stop the mail.

A directory: `rules.toml` for people to look at, `files/` with every file by the hash of its content, and `index.json`
that says which is which. The index is replaced last and in one step, so a crash leaves the old copy or the new one.
Secrets are not kept: a reference goes on pointing to where the secret is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gateway.config.durable import holds, replace, sync
from gateway.config.load import Config, load_kept
from gateway.errors import ConfigError, Problem, Unavailable

_INDEX = "index.json"


def snapshot(config: Config, directory: Path) -> None:
    """Keep what `config` was loaded from; durable on return. Raises Unavailable. Blocks: call it in a thread."""
    try:
        _keep(config, directory)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(
            f"a copy of the good rules cannot be kept in {directory}: {reason}; make room there"
        ) from None


def _keep(config: Config, directory: Path) -> None:
    files = directory / "files"
    for each in (directory, files):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        each.chmod(0o700)
    names = {}
    for path, content in config.files.items():
        name = hashlib.sha256(content).hexdigest()
        names[str(path)] = name
        if not holds(files / name, content):
            replace(files / name, content)
    sync(files)
    index = {"rules": str(config.rules_path), "files": names}
    replace(directory / _INDEX, json.dumps(index, indent=1).encode())
    replace(directory / "rules.toml", config.files.get(config.rules_path, b""))
    sync(directory)
    for stray in files.iterdir():
        if stray.name not in names.values():
            stray.unlink(missing_ok=True)


def load_snapshot(directory: Path, gateway_path: Path) -> Config:
    """Return the configuration of gateway.toml as it is now with the rules that were kept. Raises ConfigError."""
    index = directory / _INDEX
    try:
        kept = json.loads(index.read_bytes())
        rules = Path(kept["rules"])
        files = {Path(path): directory / "files" / str(name) for path, name in kept["files"].items()}
    except FileNotFoundError:
        raise _unusable(index, "there is no copy of an earlier good rules.toml") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _unusable(index, "the copy of the earlier good rules.toml cannot be read; mend rules.toml") from None
    return load_kept(gateway_path, rules, files)


def _unusable(path: Path, message: str) -> ConfigError:
    return ConfigError((Problem(path, None, message),))
