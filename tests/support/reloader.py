"""Writes good and bad rules over and over and has a running daemon load them, by the command and by SIGHUP."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from tests.support.daemon import Daemon

_BAD: Final[Mapping[str, Callable[[str], bytes | None]]] = {
    "cut off": lambda text: text[: len(text) * 2 // 3].encode() + b'\n[[touchpoint]]\nid = "',
    "unknown key": lambda text: text.encode() + b'\n[[rule]]\nnam = "x"\n',
    "one address twice": lambda text: text.replace('address = "', 'address = "twice@support.example" #').encode(),
    "no such file": lambda text: text.encode() + b'\n[[template]]\nname = "x"\nhtml = "file:nowhere.html"\n',
    "not linear": lambda text: text.encode() + b'\n[[rule]]\nname = "x"\nif = { subject = "/(?=a)/" }\n',
    "no text": lambda text: b"\xff\xfe" + text.encode("utf-16"),
    "gone": lambda text: None,
}


class Reloader:
    """`site` is edited by `edit(number)` for each good version; then the name of the touchpoint `marked` says which
    version is in force, and each message gets a tag from the first and one from the last of its rules.

    `wrong`: in words, whatever is in force and must not be. `did`: what was done, and how often. `latest`: seconds by
    which a turn was late, at most.
    """

    def __init__(self, daemon: Daemon, edit: Callable[[int], None], marked: str, seed: int) -> None:
        self.wrong: list[str] = []
        self.did: Counter[str] = Counter()
        self.latest = 0.0
        self.last_good = 1
        self._daemon = daemon
        self._edit = edit
        self._marked = marked
        self._numbers = itertools.count(2)  # the first one is what the daemon is started with
        self._possible: set[int] = set()  # acknowledged last, or asked for by a signal since
        self._dice = random.Random(seed)

    @property
    def is_sure(self) -> bool:
        """Whether `last_good` is in force, and no other good version can be before it is written."""
        return self._possible == {self.last_good}

    def storm(self, per_second: float, seconds: float, is_over: Callable[[], bool] = lambda: True) -> None:
        """Reload so often, for so long and then until `is_over()`."""
        due = began = time.monotonic()
        while time.monotonic() < began + seconds or not is_over():
            self.turn(is_good=self._dice.random() < 0.5, by_signal=self._dice.random() < 0.5)
            due += 1 / per_second
            self.latest = max(self.latest, time.monotonic() - due)
            time.sleep(max(0.0, due - time.monotonic()))

    def turn(self, *, is_good: bool, by_signal: bool) -> None:
        """Write one file and have it loaded."""
        self._daemon.hear()
        number = next(self._numbers) if is_good else None
        kind = "good" if is_good else self._dice.choice(tuple(_BAD))
        if number is None:
            self._replace(_BAD[kind](self._daemon.rules_toml()))
        else:
            self.prepare(number)
            self._replace(self._daemon.rules_toml().encode())
        if by_signal:
            self._possible |= {number} if number is not None else set()
            self._daemon.signal(signal.SIGHUP)
        else:
            self._ask(kind, number)
        self.did[f"{'good' if is_good else 'bad'}, by {'SIGHUP' if by_signal else 'the command'}"] += 1

    def prepare(self, number: int) -> None:
        """Make `site` the version `number`."""
        site = self._daemon.site
        self._edit(number)
        site.touchpoint(self._marked)["name"] = f"Version {number}"
        between = [
            {"name": f"rule {place}", "if": {"subject": f"*nothing {place}*"}, "then": {"priority": "high"}}
            for place in range(20)
        ]
        first, last = ({"name": name, "then": {"tags": [f"{name}-{number}"]}} for name in ("first", "last"))
        site.rules = [first, *between, last]

    def _replace(self, text: bytes | None) -> None:
        """Put it there in one move, as editors do: a reload that a signal has asked for may be reading at any time."""
        if text is None:
            self._daemon.rules.unlink(missing_ok=True)
            return
        new = self._daemon.rules.with_name("rules.toml.new")
        new.write_bytes(text)
        os.replace(new, self._daemon.rules)

    def _ask(self, kind: str, number: int | None) -> None:
        answer = self._daemon.ask("reload")
        if number is None and not answer["refused"]:
            self.wrong.append(f"taken into force: {kind}")
        elif number is not None and answer["refused"]:
            self.wrong.append(f"version {number} is refused: {answer['lines']}")
        elif number is not None:
            self._possible, self.last_good = {number}, number
        name = self._daemon.touchpoint_status(self._marked)["name"]
        if self._possible and name not in {f"Version {number}" for number in self._possible}:
            self.wrong.append(f"{name} is in force; it should be one of {sorted(self._possible)}")
