"""Daemons from `tests/faults/stepper.py`: started in no time, counted step by step, killed at the one that is named."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.support.daemon import Daemon, Site
from tests.support.process import Process

STEPPER = Path(__file__).parents[1] / "faults" / "stepper.py"


@dataclass(frozen=True, order=True)
class Deadly:
    """Where a daemon is to die: at the `number`th step of its kind (commit, write, smtp, reply), `when` = "before" it
    or "after" it.
    """

    kind: str
    number: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} {self.kind} {self.number}"


class Forked:
    """A daemon that the stepper has forked; for `Daemon` it is what `Process` is."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = threading.Event()

    def signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("the daemon", timeout)
        assert self.returncode is not None
        return self.returncode

    def stop(self, timeout: float = 10) -> int:
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait(5)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(5)


class Forge:
    """The loaded interpreter that daemons are forked from. `fork` may be called from every thread."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self._stepper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, str(STEPPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": str(STEPPER.parents[2])},
        )
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._made: dict[int, Forked] = {}  # by order
        self._living: dict[int, Forked] = {}  # by pid
        self._changed = threading.Condition(self._lock)
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self, **order: Any) -> Forked:
        with self._changed:
            number = next(self._numbers)
            assert self._stepper.stdin is not None
            self._stepper.stdin.write(json.dumps({**order, "order": number}).encode() + b"\n")
            self._stepper.stdin.flush()
            if not self._changed.wait_for(lambda: number in self._made, timeout=60):
                raise RuntimeError(f"the stepper does not answer; see {self._log.name}")
            return self._made.pop(number)

    def _listen(self) -> None:
        assert self._stepper.stdout is not None
        for line in self._stepper.stdout:
            said = json.loads(line)
            with self._changed:
                if "pid" in said:
                    forked = Forked(said["pid"])
                    self._made[said["order"]] = self._living[forked.pid] = forked
                    self._changed.notify_all()
                else:
                    forked = self._living.pop(said["ended"])
                    forked.returncode = said["code"]
                    forked.ended.set()

    def close(self) -> None:
        assert self._stepper.stdin is not None
        assert self._stepper.stdout is not None
        self._stepper.stdin.close()
        self._stepper.wait(30)
        deadline = time.monotonic() + 5
        while self._living and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stepper.stdout.close()
        self._log.close()


class SteppedDaemon(Daemon):
    """A daemon from the forge. `deadly` is where its next start dies, and only that one. `chores`: seconds.

    `outbound`: its SMTP is counted, too. `changes`: functions, as "module:function", that change the running code.
    """

    def __init__(
        self,
        forge: Forge,
        site: Site,
        *,
        env: Mapping[str, str] | None = None,
        chores: float = 0.4,
        outbound: bool = False,
        changes: Sequence[str] = (),
    ) -> None:
        super().__init__(site, env)
        self._outbound, self._changes = outbound, list(changes)
        self._forge = forge
        self._chores = chores
        self.deadly: Deadly | None = None
        self.forgetful = False  # it is to break a promise
        self.steps = self.home / "steps"  # of the last start

    def _run(self, env: dict[str, str]) -> Process:
        deadly, self.deadly = self.deadly, None
        self.steps.unlink(missing_ok=True)
        forked = self._forge.fork(
            log=str(self.log),
            env={key: value for key, value in env.items() if os.environ.get(key) != value},
            steps=str(self.steps),
            deadly=[deadly.kind, deadly.number, deadly.when] if deadly else None,
            chores=self._chores,
            forgetful=self.forgetful,
            outbound=self._outbound,
            changes=self._changes,
        )
        return cast(Process, forked)

    def taken_steps(self) -> list[tuple[str, int, str]]:
        """Return kind, number and label of the last start's steps so far."""
        found = []
        for line in self.steps.read_text().splitlines():
            kind, number, label = line.split(" ", 2)
            found.append((kind, int(number), label))
        return found
