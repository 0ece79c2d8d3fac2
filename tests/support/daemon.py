"""The real daemon as a process: configured, started, asked, reloaded, killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import smtplib
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from argon2 import PasswordHasher

from gateway import control_client
from tests.support.ports import free_port, give_back
from tests.support.process import Process
from tests.support.waiting import wait_until

_hash = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash  # cheap: these tests are not about guessing


@dataclass
class Site:
    """What an operator and an admin would write. `touchpoints`, `agents`, `rules`: TOML keys and values."""

    touchpoints: list[dict[str, Any]] = field(default_factory=list)
    agents: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    gateway: dict[str, Any] = field(default_factory=dict)  # merged into gateway.toml
    more: dict[str, Any] = field(default_factory=dict)  # merged into rules.toml

    def add_agent(self, login: str, password: str, ring_groups: Sequence[str], **keys: Any) -> None:
        agent = {"login": login, "name": login.partition("@")[0].title(), "ring_groups": list(ring_groups)}
        self.agents.append({**agent, "password_hash": _hash(password), **keys})

    def touchpoint(self, id: str) -> dict[str, Any]:
        return next(touchpoint for touchpoint in self.touchpoints if touchpoint.get("id") == id)


class Daemon:
    """`mail-gateway run` in a directory of its own. The directory outlives kills and restarts until `close()`.

    `submission_port`: smtp+insecure on loopback. `wrapper`: a command that runs the daemon's (strace …).
    `program`: what is the daemon, where a test spoils it on purpose. `state`: files to begin with.
    """

    def __init__(
        self,
        site: Site,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = ("-m", "gateway"),
        state: Path | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gateway-"))  # short: the control socket's path has 107 bytes at most
        self.site = site
        self.state_dir = self.home / "state"
        if state is None:
            self.state_dir.mkdir()
        else:
            shutil.copytree(state, self.state_dir)
        self.submission_port = free_port()
        self.log = self.home / "daemon.log"
        self.config = self.home / "gateway.toml"
        self.rules = self.home / "rules.toml"
        self._env = {"MAIL_GATEWAY_CONFIG": str(self.config), **(env or {})}
        self._command = [*wrapper, sys.executable, *program, "run"]
        self._is_wrapped = bool(wrapper)
        self.more_env: dict[str, str] = {}  # for the next start of the daemon, not for commands
        self._process: Process | None = None
        self._notify: socket.socket | None = None
        self.write_config()

    # --- configuration -----------------------------------------------------------------------------------------------

    def write_config(self) -> None:
        """Write both files from `site`, as an admin would; a running daemon hears of it by `reload`."""
        gateway: dict[str, Any] = {
            "hostname": "gateway.example",
            "state_dir": str(self.state_dir),
            "rules": "rules.toml",
            "submission": {"listen": [f"smtp+insecure://127.0.0.1:{self.submission_port}"]},
            "imap": {"listen": []},
            "http": {"listen": ""},
            "inbound": {"authentication": "provider"},  # no test asks the network's DNS
            "log": {"format": "json"},
        }
        for key, value in self.site.gateway.items():
            gateway[key] = {**gateway[key], **value} if isinstance(gateway.get(key), dict) else value
        self.config.write_text(tomlkit.dumps(gateway))
        self.rules.write_text(self.rules_toml())

    def rules_toml(self) -> str:
        """Return rules.toml as `site` wants it now."""
        rules: dict[str, Any] = {**self.site.more}
        tables = {"touchpoint": self.site.touchpoints, "agent": self.site.agents, "rule": self.site.rules}
        return tomlkit.dumps(rules | {name: items for name, items in tables.items() if items})

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The daemon's own pid, also when a wrapper started it."""
        return int(self.status()["daemon"]["pid"])

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def launch(self) -> None:
        """Start it without waiting for anything."""
        assert not self.is_running
        if self._notify is not None:
            self._notify.close()
        address = self.home / "notify"
        address.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(address))
        self._notify.settimeout(0.1)
        env = {key: value for key, value in os.environ.items() if key not in ("RUNTIME_DIRECTORY", "LISTEN_PID")}
        env |= self._env | self.more_env | {"NOTIFY_SOCKET": str(address)}
        self._process = self._run(env)

    def _run(self, env: dict[str, str]) -> Process:
        return Process(self._command, self.log, env)

    def start(self, timeout: float = 30) -> None:
        """Start it and wait until it says READY=1, as systemd would."""
        self.launch()
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 30) -> None:
        self.wait_notified("READY=1", timeout)

    def wait_notified(self, word: str, timeout: float = 30) -> None:
        """Wait for the next time that the daemon says `word` to systemd, e.g. "STOPPING=1"."""
        assert self._notify is not None
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while True:
            code = self._process.returncode
            with contextlib.suppress(TimeoutError):
                if word.encode() in self._notify.recv(65536).split(b"\n"):
                    return
                continue
            if code is not None:
                raise AssertionError(f"the daemon ended with {code} before it said {word}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not say {word} in {timeout} s:\n{self.log_tail()}")

    def hear(self) -> None:
        """Take what the daemon has told systemd: where nobody listens, it waits a little each time."""
        assert self._notify is not None
        while select.select([self._notify], [], [], 0)[0]:
            self._notify.recv(65536)

    def wait_end(self, timeout: float = 30) -> int:
        """Return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.signal(number)

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; return the exit code."""
        assert self._process is not None
        if self._is_wrapped and self.is_running:  # a tracer keeps signals to itself
            os.kill(self.pid, signal.SIGTERM)
            self._process.wait(timeout)
        return self._process.stop(timeout)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.run("reload")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
        if self._notify is not None:
            self._notify.close()
        if self.home.exists():
            shutil.rmtree(self.home, ignore_errors=True)
            give_back(self.submission_port)

    # --- asking ------------------------------------------------------------------------------------------------------

    def run(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one `mail-gateway` command as an operator would."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            env=os.environ | self._env,
            capture_output=True,
            text=True,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            timeout=60,
        )

    def ask(self, command: str, **args: Any) -> Any:
        """Ask over the control socket: what a command would, without the cost of a new interpreter."""
        return control_client.ask(control_client.socket_path(self.state_dir), command, args, timeout=30)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("status")
        return answer

    def touchpoint_status(self, id: str) -> dict[str, Any]:
        return next(touchpoint for touchpoint in self.status()["touchpoints"] if touchpoint["id"] == id)

    def conversations(self) -> list[dict[str, Any]]:
        return list(self.ask("queue.list", all=True))

    def outbox(self) -> list[dict[str, Any]]:
        return list(self.ask("outbox.list", all=True))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's lines, or those of one event."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and (name is None or event.get("event") == name):
                    found.append(event)
        return found

    def log_tail(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_connected(self, *ids: str, timeout: float = 30) -> None:
        def all_connected() -> bool:
            known = {touchpoint["id"]: touchpoint for touchpoint in self.status()["touchpoints"]}
            return all(known[id]["connected"] for id in ids)

        wait_until(all_connected, f"{ids} connected", timeout=timeout, state=self.log_tail)

    def database(self) -> sqlite3.Connection:
        """Open the store of a *stopped* daemon for looking. Never use it beside a running one."""
        assert not self.is_running
        return sqlite3.connect(self.state_dir / "gateway.db")

    def submit(self, login: str, password: str) -> smtplib.SMTP:
        """Return a logged-in session with the submission port."""
        session = smtplib.SMTP("127.0.0.1", self.submission_port, timeout=60)
        try:
            session.login(login, password)
        except BaseException:
            session.close()
            raise
        return session
