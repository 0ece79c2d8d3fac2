"""The daemon with an outbound path that counts seconds where it counts minutes: retries, probes, time-outs, looks into
Sent. What it does is what it always does. Run as a program:

    python tests/support/brisk.py run
"""

from __future__ import annotations

import functools
import sys
from datetime import timedelta
from typing import Any, Final

from gateway.cli.main import main
from gateway.inbound import evidence, sentbox, witness
from gateway.outbound import attempt, dispatcher
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.state import doubts

STEPS: Final = (0.5, 1.0, 1.5, 2.0)  # seconds between the tries of one message; the last one repeats
DIALS: Final = (0.2, 0.4, 0.8)
PROBES: Final = (0.5, 1.0, 1.5)
QUOTA_SECONDS: Final = 1.5
DOT_SECONDS: Final = 3.0
COMMAND_SECONDS: Final = 1.5
MINUTE_MS: Final = 500  # of the evidence: it looks when an attempt is 0.5, 2.5, 7.5 … seconds old


def quicken() -> None:
    """Shorten what this process waits for."""
    dispatcher.run = functools.partial(
        dispatcher.run,
        policy=RetryPolicy(delays=_deltas(STEPS), dial_delays=_deltas(DIALS), probe_delays=_deltas(PROBES)),
        timeouts=Timeouts(
            dial=COMMAND_SECONDS,
            tls=COMMAND_SECONDS,
            greeting=COMMAND_SECONDS,
            command=COMMAND_SECONDS,
            data=COMMAND_SECONDS,
            block=COMMAND_SECONDS,
            dot=DOT_SECONDS,
        ),
    )
    _set(attempt, "_QUOTA_MS", round(QUOTA_SECONDS * 1000))
    scale = 60_000 // MINUTE_MS
    _set(doubts, "FIRST_LOOK_MS", doubts.FIRST_LOOK_MS // scale)
    _set(evidence, "APART_MS", evidence.APART_MS // scale)
    _set(evidence, "THINKING_MS", evidence.THINKING_MS // scale)
    _set(evidence, "LOOKS_MS", tuple(look // scale for look in evidence.LOOKS_MS))
    _set(evidence, "HOURLY_MS", 4_000)
    _set(sentbox, "BREATH", 0.3)
    _set(witness, "PATIENCE_MS", 300)
    _set(witness, "_RESTS", tuple(rest / scale for rest in witness._RESTS))


def _deltas(seconds: tuple[float, ...]) -> tuple[timedelta, ...]:
    return tuple(timedelta(seconds=each) for each in seconds)


def _set(module: Any, name: str, value: Any) -> None:
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    setattr(module, name, value)


if __name__ == "__main__":
    quicken()
    sys.exit(main())
