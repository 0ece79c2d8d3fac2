"""One touchpoint's trouble never delays another's mail: thousands of messages for a provider that is dead, each in its
own way, and a handful for one that is well. The handful takes as long as it takes alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.despatch import TIMEOUTS, Despatch
from tests.support.outgoing import accept_many
from tests.support.ports import free_port
from tests.support.scripted import CUT, HANG, Script, ScriptedProvider, Session
from tests.support.waiting import wait_until

THOUSANDS = 3_000
HANDFUL = 80
MORE = 15  # for the dead one, before each of the handful

DEAD: dict[str, Script | None] = {
    "refuses-connections": None,
    "never-greets": lambda phase, argument, session: HANG if phase == "greeting" else None,
    "cuts-at-once": lambda phase, argument, session: CUT if phase == "greeting" else None,
    "hangs-behind-the-dot": lambda phase, argument, session: HANG if phase == "dot" else None,
    "refuses-the-login": lambda phase, argument, session: "535 5.7.8 wrong" if phase == "auth" else None,
    "throttles": lambda phase, argument, session: "421 4.3.2 too much" if phase == "mail" else None,
    "defers-everything": lambda phase, argument, session: "451 4.3.0 not now" if phase == "rcpt" else None,
}


def touchpoint(id: str, port: int, secret: Path) -> dict[str, Any]:
    return {
        "id": id,
        "address": f"{id}@example.com",
        "name": id.title(),
        "active": True,
        "direction": "outbound",
        "smtp": f"smtp+insecure://127.0.0.1:{port}",
        "password": f"file:{secret}",
        "pace": {"connections": 4},
    }


class Healthy:
    """A provider that notes when it took each message, by recipient."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def __call__(self, phase: str, argument: str, session: Session) -> str | None:
        if phase == "rcpt":
            self._last = argument
        if phase == "dot":
            self.taken[self._last] = time.monotonic()
        return None


@contextmanager
def dead_provider(script: Script | None) -> Iterator[int]:
    if script is None:
        yield free_port()
        return
    with ScriptedProvider(script) as provider:
        yield provider.port


def latencies(directory: Path, script: Script | None, load: int, more: int) -> tuple[list[float], dict[str, int]]:
    """Return how long each of the handful took from the agent's click to the provider (ms), and what became of all."""
    directory.mkdir()
    secret = directory / "secret"
    secret.write_text("open sesame")
    healthy = Healthy()
    with ScriptedProvider(healthy) as well, dead_provider(script) as port:
        places = [touchpoint("well", well.port, secret), touchpoint("dead", port, secret)]
        timeouts = replace(TIMEOUTS, dot=3)
        with Despatch(directory / "gateway.db", places, timeouts=timeouts) as despatch:
            accept_many(despatch.store, load, "dead")
            despatch.retry("dead")
            despatch.accept("well", "first@clients.example")  # there is a connection now
            wait_until(lambda: "first@clients.example" in healthy.taken, "the first one arrives", state=despatch.show)
            took = []
            for number in range(HANDFUL):
                accept_many(despatch.store, more, "dead")
                despatch.ring("dead")
                recipient = f"r{number}@clients.example"
                begun = time.monotonic()
                despatch.accept("well", recipient)
                wait_until(lambda: recipient in healthy.taken, "it arrives", every=0.001, state=despatch.show)  # noqa: B023
                took.append((healthy.taken[recipient] - begun) * 1000)
            despatch.settled("well")
            return took, despatch.count()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The same without the dead load."""
    took, fates = latencies(tmp_path_factory.mktemp("alone") / "run", None, 0, 0)
    assert fates == {"delivered": HANDFUL + 1}
    return took


@pytest.mark.parametrize("kind", DEAD)
def test_thousands_for_a_dead_provider_do_not_delay_a_handful_for_another(
    kind: str, alone: list[float], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    beside, fates = latencies(tmp_path / "run", DEAD[kind], THOUSANDS, MORE)
    before, after = statistics.median(alone), statistics.median(beside)
    record_property(
        "counts",
        f"median {before:.1f} ms alone, {after:.1f} ms beside {THOUSANDS + MORE * HANDFUL} for a dead one; "
        f"worst {max(alone):.0f} and {max(beside):.0f} ms; {fates}",
    )
    assert fates["delivered"] == HANDFUL + 1
    assert sum(fates.values()) == THOUSANDS + MORE * HANDFUL + HANDFUL + 1
    # Generous, for other tests run beside this one; a wait behind the dead one would be hundreds of times as long
    assert after < 3 * before + 25
    assert max(beside) < max(1_000, 5 * max(alone))
