"""How long somebody who cannot log in has to wait for the answer, growing with each failure.

Counted by address and login together: a whole office behind one address is not slowed by one colleague's old phone.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import TTLCache

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 16.0  # below the half minute after which clients give up and say something confusing
_FORGOTTEN_SECONDS = 15 * 60
_REMEMBERED = 10_000


class Patience:
    """`clock` in seconds; it only has to run evenly."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._failures: TTLCache[tuple[str, str], int] = TTLCache(_REMEMBERED, _FORGOTTEN_SECONDS, timer=clock)

    def failed(self, address: str, login: str) -> float:
        """Count a failure; return how many seconds to wait before saying so."""
        failures = self._failures.get((address, login), 0) + 1
        self._failures[address, login] = failures
        return min(_FIRST_SECONDS * 2.0 ** (min(failures, 10) - 1), _LONGEST_SECONDS)

    def succeeded(self, address: str, login: str) -> None:
        self._failures.pop((address, login), None)
