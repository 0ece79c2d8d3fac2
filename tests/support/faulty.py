"""The daemon with a fault of its own in one place, to see that it stays there. Run as a program:

python tests/support/faulty.py task:ID:2 run     the inbound task of touchpoint ID fails in its first two runs
python tests/support/faulty.py stray run         a callback on the asyncio thread raises, and nobody waits for it
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gateway.cli.main import main
from gateway.inbound import mailbox
from gateway.outbound.submission import SubmissionServer


def fail_task(touchpoint_id: str, runs: str) -> None:
    honest: Any = mailbox.run
    left = int(runs)

    async def run(touchpoint: Any, **parts: Any) -> None:
        nonlocal left
        if touchpoint.id == touchpoint_id and left:
            left -= 1
            raise ZeroDivisionError("a fault made to order")
        await honest(touchpoint, **parts)

    mailbox.run = run  # that is the fault


def raise_astray() -> None:
    honest = SubmissionServer.start

    def fail() -> None:
        raise ZeroDivisionError("a fault made to order")

    async def start(self: SubmissionServer, sockets: Sequence[Any] | None = None) -> None:
        await honest(self, sockets)
        asyncio.get_running_loop().call_soon(fail)

    SubmissionServer.start = start  # type: ignore[method-assign]  # that is the fault


if __name__ == "__main__":
    what, *values = sys.argv.pop(1).split(":")
    faults: dict[str, Callable[..., None]] = {"task": fail_task, "stray": raise_astray}
    faults[what](*values)
    sys.exit(main())
