"""The daemon with short waits: it asks after the other folders every second or two, rests briefly after a failure,
tries soon again, and gives a silent server some seconds. What it does is what it always does. Run as a program:

    python tests/support/hasty.py run
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from gateway.cli.main import main
from gateway.inbound import plan, session, watcher

CHORES_SECONDS = 1.5
ANSWER_SECONDS = 5.0
SHORTER = 30  # rests and retries


def hasten(chores: float = CHORES_SECONDS) -> None:
    """Shorten what this process waits for. `chores`: seconds between two looks at what is not the first folder."""
    dial: Any = session.connect
    rest: Any = watcher.rest_after

    async def connect(*arguments: Any, **options: Any) -> Any:
        limits = {"connect_seconds": ANSWER_SECONDS, "answer_seconds": ANSWER_SECONDS}
        return await dial(*arguments, **{**options, **limits})

    def rest_after(*arguments: Any, **options: Any) -> timedelta:
        longer: timedelta = rest(*arguments, **options)
        return longer / SHORTER

    session.connect = connect
    watcher.rest_after = rest_after
    watcher.CHORES_EVERY = timedelta(seconds=chores)  # type: ignore[misc]  # that is the haste
    plan._RETRIES = tuple(wait / SHORTER for wait in plan._RETRIES)  # type: ignore[misc]  # as above


if __name__ == "__main__":
    hasten()
    sys.exit(main())
