"""The files of the configuration as they go into a backup, and come out of it again.

Both TOML files and all that rules.toml names are in it; no secret, and no key or certificate of the listeners: those
come from elsewhere, belong together, and must not lie about in copies. What is left out is listed by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config.load import Config
from gateway.config.secrets import SecretRef


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """`mode`: permissions."""

    path: Path
    mode: int
    content: bytes


def collect(config: Config) -> tuple[ConfigFile, ...]:
    """Return the files as they are in force, and gateway.toml as it is on disk. Blocks. Raises OSError."""
    contents: dict[Path, bytes] = {config.path.absolute(): config.path.read_bytes()}
    contents |= {path.absolute(): content for path, content in config.files.items()}
    rules = config.gateway.rules.absolute()
    if rules not in contents and rules.is_file():  # no rules are in force; what is in the file may yet be mended
        contents[rules] = rules.read_bytes()
    return tuple(ConfigFile(path, _mode(path), content) for path, content in contents.items())


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o666
    except OSError:
        return 0o640  # it is gone since it was loaded


def left_out(config: Config) -> tuple[str, ...]:
    """Return what the configuration needs beside these files, a line each."""
    return tuple(dict.fromkeys(_needed(config)))


def _needed(config: Config) -> Iterator[str]:
    gateway = config.gateway
    for section, model in (("submission", gateway.submission), ("imap", gateway.imap)):
        for key, path in (("certificate", model.certificate), ("private_key", model.private_key)):
            if path is not None:
                yield f"{path} ([{section}] {key})"
    for name, application in gateway.oauth.items():
        for key in ("client_secret", "certificate", "service_account"):
            yield from _secret(getattr(application, key), f"[oauth.{name}] {key}")
    for touchpoint in config.rules.touchpoints:
        yield from _secret(touchpoint.password, f"password of {touchpoint.id}")
        if touchpoint.dkim is not None:
            yield from _secret(touchpoint.dkim.private_key, f"DKIM key of {touchpoint.id}")
    yield from _secret(config.rules.spam.learn_password, "[spam] learn_password")


def _secret(reference: SecretRef | None, use: str) -> Iterator[str]:
    if reference is not None:
        yield f"{reference.path or reference} ({use})"


@dataclass(frozen=True, slots=True)
class PutBack:
    """`outside`: files that lay elsewhere than beside gateway.toml; those are never written."""

    written: tuple[Path, ...]
    same: tuple[Path, ...]
    kept: tuple[Path, ...]  # there, and different
    outside: tuple[Path, ...]


def put_back(files: Sequence[ConfigFile], config_path: Path, old_config_path: Path, group: int | None) -> PutBack:
    """Write those files that are missing; durable on return. What is there is never touched.

    `config_path`: of gateway.toml now; what lay beside or below the old one goes beside or below this one. `group`:
    of the daemon, which must be able to read what was not for everybody; None where we are not root. Raises OSError.
    """
    here, there = config_path.absolute().parent, old_config_path.parent
    found: Mapping[str, list[Path]] = {"written": [], "same": [], "kept": [], "outside": []}
    for file in files:
        if file.path == old_config_path:
            path = config_path.absolute()
        elif file.path.is_relative_to(there) and ".." not in file.path.parts:
            path = here / file.path.relative_to(there)
        else:
            path = file.path
            if not path.exists():
                found["outside"].append(path)
                continue
        if not os.path.lexists(path):
            _write(path, file, group)
            found["written"].append(path)
        else:
            found["same" if _holds(path, file.content) else "kept"].append(path)
    return PutBack(*(tuple(found[key]) for key in ("written", "same", "kept", "outside")))


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, file: ConfigFile, group: int | None) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(file.content)
        if group is not None:
            os.fchown(out.fileno(), -1, group)
        os.fchmod(out.fileno(), file.mode)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
