"""The daemon for which a minute of looking into Sent is a tenth of a second, and other waits are short as well. Run as
a program, and with DIES_AFTER_COPY=FILE killed once, at the moment when the provider has taken a copy:

    python tests/support/hindsight.py run
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.cli.main import main
from gateway.inbound import evidence, sentbox, witness
from gateway.inbound.session import Session
from gateway.state import doubts
from tests.support.hasty import hasten

SHORTER = 600


def foresee() -> None:
    """Shorten what this process waits for before it looks, and before it looks again."""
    hasten(chores=0.5)
    for module, name in (
        (evidence, "APART_MS"),
        (evidence, "THINKING_MS"),
        (evidence, "HOURLY_MS"),
        (doubts, "FIRST_LOOK_MS"),
        (witness, "PATIENCE_MS"),
    ):
        vars(module)[name] //= SHORTER
    vars(evidence)["LOOKS_MS"] = tuple(look // SHORTER for look in evidence.LOOKS_MS)
    vars(sentbox)["BREATH"] = sentbox.BREATH / SHORTER


def die_after_copy(flag: Path) -> None:
    lay_down: Any = Session.append

    async def append(*arguments: Any, **options: Any) -> None:
        await lay_down(*arguments, **options)
        if not flag.exists():  # noqa: ASYNC240 - the end is near
            flag.touch()  # noqa: ASYNC240
            os.kill(os.getpid(), signal.SIGKILL)

    Session.append = append  # type: ignore[method-assign]  # that is the accident


if __name__ == "__main__":
    foresee()
    if flag := os.environ.get("DIES_AFTER_COPY"):
        die_after_copy(Path(flag))
    sys.exit(main())
