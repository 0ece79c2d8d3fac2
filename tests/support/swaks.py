"""swaks, the client that administrators use to try a server: one message a run, every line of the dialog shown."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import program


@dataclass(frozen=True)
class Talk:
    """What came of one run. `refusals`: the replies that swaks marks as errors; `output`: the whole dialog."""

    code: int
    output: str

    @property
    def refusals(self) -> list[str]:
        return re.findall(r"^<(?:\*\*|~\*)\s+(\d{3}[ -].*)$", self.output, re.MULTILINE)

    @property
    def last(self) -> str:
        """The last refusal, or "" where there was none."""
        return self.refusals[-1] if self.refusals else ""


def swaks(port: int, *arguments: str | Path, data: bytes | None = None, home: Path | None = None) -> Talk:
    """Run swaks against loopback. `data`: sent byte for byte behind DATA, its end included; needs `home` for a file."""
    command: list[str] = [program("swaks", "swaks"), "--server", "127.0.0.1", "--port", str(port), "--timeout", "20s"]
    if data is not None:
        assert home is not None
        path = home / "data"
        path.write_bytes(data.removesuffix(b"\r\n"))  # swaks adds that one
        command += ["--no-data-fixup", "--data", f"@{path}"]
    command += [str(argument) for argument in arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    return Talk(done.returncode, done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace"))


def login(name: str, password: str, mechanism: str = "PLAIN") -> Sequence[str]:
    return "--auth", mechanism, "--auth-user", name, "--auth-password", password
