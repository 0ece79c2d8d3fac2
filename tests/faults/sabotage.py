"""The daemon with one promise taken out, to see that the tests of that promise notice. Run as a program:

    python tests/faults/sabotage.py normal run     commits are not synced (synchronous = NORMAL)
    python tests/faults/sabotage.py early run      the 250 is said before the commit
    python tests/faults/sabotage.py small:400 run  not sabotage, a quota: the store may have 400 pages

It changes the running code, so that the product needs no switch for it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

from gateway.cli.main import main
from gateway.state import outbox, store
from gateway.state.ticket import Ticket, wake


def never_sync() -> None:
    _tune(synchronous="NORMAL")


def answer_early() -> None:
    """Acceptances are reported as done when they are handed in, and written a moment later."""
    honest = store.Store.submit

    def late(db: Any, items: Sequence[Any]) -> Sequence[Any]:
        time.sleep(0.02)
        return outbox.accept(db, items)

    def submit(self: store.Store, operation: Any, item: Any) -> Any:
        if operation is not outbox.accept:
            return honest(self, operation, item)
        honest(self, late, item)
        ticket: Ticket[Any] = Ticket()
        ticket.settle(outbox.Accepted(item.submission.id), None)
        wake([ticket])
        return ticket

    store.Store.submit = submit  # type: ignore[method-assign]  # that is the sabotage


def limit_pages(pages: int) -> None:
    _tune(max_pages=pages)


def _tune(**changes: Any) -> None:
    honest = store.Tuning

    def tuning(*arguments: Any, **options: Any) -> store.Tuning:
        return dataclasses.replace(honest(*arguments, **options), **changes)

    store.Tuning = tuning  # type: ignore[misc, assignment]  # that is the sabotage


if __name__ == "__main__":
    what, _, value = sys.argv.pop(1).partition(":")
    {"normal": never_sync, "early": answer_early, "small": lambda: limit_pages(int(value))}[what]()
    sys.exit(main())
