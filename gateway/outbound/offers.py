"""What each touchpoint's provider takes, in memory: written by the relay at each connection, read by the door.

Known from the last EHLO, also one of an earlier run. A touchpoint that has never been connected, or whose server is
another one since, is not known, and nothing is refused for what might be.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from gateway.errors import Unavailable
from gateway.state import offers
from gateway.state.offers import Learnt, Offer
from gateway.state.store import Store


class Offers:
    """Safe to use from every thread: a look-up is one of a dict, and a change replaces one value.

    `server_of`: which server a touchpoint has now; None: whichever was there last.
    """

    def __init__(
        self,
        store: Store,
        known: Mapping[str, tuple[str, Offer]] | None = None,
        *,
        server_of: Callable[[str], str | None] = lambda touchpoint: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._known = dict(known or {})
        self._server_of = server_of
        self._now_ms = now_ms

    def of(self, touchpoint: str) -> Offer | None:
        """Return what the provider offered last; None: we have never been there."""
        server, offer = self._known.get(touchpoint, (None, None))
        return offer if self._server_of(touchpoint) in (None, server) else None

    def learn(self, touchpoint: str, server: str, offer: Offer) -> None:
        """Remember what a provider offers. Nobody waits for the disk: what it cannot take a later run learns again."""
        if self._known.get(touchpoint) != (server, offer):
            self._known[touchpoint] = server, offer
            with contextlib.suppress(Unavailable):
                self._store.submit(offers.learn, Learnt(touchpoint, server, offer, self._now_ms()))
