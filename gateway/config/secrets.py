"""Secrets are named, not written: the configuration holds where to find one, and finds it when it is needed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from gateway.errors import Unavailable

KINDS = ("file", "env", "credential", "command")
_LARGEST_BYTES = 64 * 1024  # a private key is 3 KB; this keeps a mistaken path from filling the memory
_PATIENCE = timedelta(seconds=20)  # a command may have to ask a vault over the network


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A reference to a secret. Prints as the reference only.

    `name`: a path (relative to `directory`, where the file that names it lies), a variable of the environment, a
    systemd credential, or a command line (split as a shell would, but no shell runs it).
    """

    kind: str
    name: str
    directory: Path = field(default=Path(), repr=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def path(self) -> Path | None:
        """The file of a `file:` secret."""
        return self.directory / Path(self.name).expanduser() if self.kind == "file" else None

    def resolve(self) -> str:
        """Return the secret without the newline at its end. Blocks: call it in a thread.

        Raises Unavailable, with one line that names the reference and what to do, never the secret.
        """
        secret = self._find(os.environ).removesuffix("\n").removesuffix("\r")
        if not secret:
            raise Unavailable(f"the secret {self} is empty; put the secret there")
        return secret

    def _find(self, environ: Mapping[str, str]) -> str:
        match self.kind:
            case "env":
                if self.name not in environ:
                    raise Unavailable(f"the secret {self} is not set; set the variable for this process")
                return environ[self.name]
            case "credential":
                directory = environ.get("CREDENTIALS_DIRECTORY")
                if not directory:
                    raise Unavailable(
                        f"the secret {self} is out of reach: there is no CREDENTIALS_DIRECTORY;"
                        f" add LoadCredential={self.name}:… to the systemd unit and restart"
                    )
                return self._read(Path(directory) / self.name)
            case "command":
                return self._run()
            case _:
                return self._read(self.directory / Path(self.name).expanduser())

    def _read(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST_BYTES + 1)
        except OSError as error:
            raise Unavailable(f"the secret {self} cannot be read from {path}: {error.strerror}") from None
        return self._text(content, str(path))

    def _run(self) -> str:
        command = shlex.split(self.name)
        try:
            # What the command says about itself may hold the secret too, so its errors are not repeated.
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_PATIENCE.total_seconds(),
                cwd=self.directory,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the secret {self} did not come within {_PATIENCE.seconds} s; run it by hand") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"the secret {self} cannot be had: the command does not start: {reason}") from None
        if done.returncode != 0:
            raise Unavailable(f"the secret {self} cannot be had: the command ended with status {done.returncode}")
        return self._text(done.stdout, "the command")

    def _text(self, content: bytes, source: str) -> str:
        if len(content) > _LARGEST_BYTES:
            raise Unavailable(f"the secret {self} is larger than 64 KiB; {source} is hardly what was meant")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Unavailable(f"the secret {self} is not UTF-8 text; look at {source}") from None


def parse_secret(value: object, info: ValidationInfo) -> SecretRef | None:
    """Return the reference, or None for "". The message never repeats `value`: it may be the secret itself."""
    if value is None or isinstance(value, SecretRef):
        return value
    if value == "":
        return None
    kind, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in KINDS or not colon:
        raise ValueError(
            "must name where the secret is kept, never the secret itself:"
            ' "file:PATH", "env:NAME", "credential:NAME" (systemd) or "command:PROGRAM ARGUMENTS"'
        )
    name = name.strip()
    if not name or "\0" in name:
        raise ValueError(f'"{kind}:" must be followed by where the secret is kept')
    if kind == "credential" and ("/" in name or name in (".", "..")):
        raise ValueError('"credential:" takes the name of a systemd credential, not a path')
    if kind == "command":
        try:
            shlex.split(name)
        except ValueError as error:
            raise ValueError(f'"command:" cannot be split into words: {str(error).lower()}') from None
    directory = (info.context or {}).get("directory", Path())
    return SecretRef(kind, name, directory)


Secret = Annotated[SecretRef | None, PlainValidator(parse_secret)]
