"""The daemon for which some waits are short: a test cannot wait for an hour. Run as a program:

    python tests/support/hurried.py PORT:RATE run

With the IMAP server on PORT it has less patience than with others: 0.8 seconds for a connection or a goodbye, 0.4
seconds for an answer. It rests a sixtieth of the time after a failure. What the inbound path takes for the time of day
runs RATE times as fast, so that the fifteen minutes after which a placeholder stands in for a message pass in a test.
Where it polls every few seconds, the chores of each minute come RATE times as often, too.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from gateway.cli.main import main
from gateway.inbound import mailbox, session, watcher  # with all that they import

CONNECT_SECONDS = 0.8
ANSWER_SECONDS = 0.4
SHORTER = 60
QUICK_POLL = timedelta(seconds=5)


def hurry(port: int, rate: int) -> None:
    began = time.time()
    dial: Any = session.connect
    rest: Any = watcher.rest_after
    turn: Any = watcher.decide
    chores_every = watcher.CHORES_EVERY

    class Hurried(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime is wanted
            now = time.time()
            return datetime.fromtimestamp(began + (now - began) * rate, UTC).astimezone(tz)

    async def connect(server: Any, *arguments: Any, **options: Any) -> Any:
        if server.port == port:
            options |= {"connect_seconds": CONNECT_SECONDS, "answer_seconds": ANSWER_SECONDS}
        return await dial(server, *arguments, **options)

    def rest_after(*arguments: Any, **options: Any) -> timedelta:
        longer: timedelta = rest(*arguments, **options)
        return longer / SHORTER

    def decide(watch: Any, *arguments: Any) -> Any:
        is_quick = watch.poll < QUICK_POLL
        watcher.CHORES_EVERY = chores_every / rate if is_quick else chores_every  # type: ignore[misc]  # that is the hurry
        return turn(watch, *arguments)

    assert mailbox.__name__ in sys.modules
    assert session.LOGOUT_SECONDS > CONNECT_SECONDS
    session.LOGOUT_SECONDS = CONNECT_SECONDS  # type: ignore[misc]  # as above
    for replaced, by in ((datetime, Hurried), (dial, connect), (rest, rest_after), (turn, decide)):
        places = [
            (module, name)
            for module_name, module in list(sys.modules.items())
            if module_name.startswith("gateway.inbound")
            for name, value in list(vars(module).items())
            if value is replaced
        ]
        assert places, f"nothing in gateway.inbound is called {replaced}; has it moved?"
        for module, name in places:
            setattr(module, name, by)


if __name__ == "__main__":
    port, rate = sys.argv.pop(1).split(":")
    hurry(int(port), int(rate))
    sys.exit(main())
