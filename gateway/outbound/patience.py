"""How long somebody who cannot log in has to wait for the answer, growing with each failure.

Counted by address and login together: a whole office behind one address is not slowed by one colleague's old phone.
Who tries logins that do not exist is counted by address alone, for the next name is as good as the last one, and every
failure from there is then answered late, so that the wait does not tell which logins exist. Where somebody has logged
in within a day it is an office, and nobody there is counted together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

_FIRST_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 16.0  # below the half minute after which clients give up and say something confusing
_FORGOTTEN_SECONDS: Final = 15 * 60
_GOOD_SECONDS: Final = 24 * 60 * 60
_REMEMBERED: Final = 10_000


class Patience:
    """`clock` in seconds; it only has to run evenly. `address`: whatever stands for one client's place."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._failures: TTLCache[tuple[str, str], int] = TTLCache(_REMEMBERED, _FORGOTTEN_SECONDS, timer=clock)
        self._strangers: TTLCache[str, int] = TTLCache(_REMEMBERED, _FORGOTTEN_SECONDS, timer=clock)
        self._good: TTLCache[str, None] = TTLCache(_REMEMBERED, _GOOD_SECONDS, timer=clock)

    def failed(self, address: str, login: str, *, is_known: bool) -> float:
        """Count a failure; return how many seconds to wait before saying so. `is_known`: there is such a login."""
        failures = self._failures.get((address, login), 0) + 1
        self._failures[address, login] = failures
        if address not in self._good:
            strangers = self._strangers.get(address, 0)
            if not is_known:
                self._strangers[address] = strangers + 1
            failures = max(failures, strangers + 1)
        return min(_FIRST_SECONDS * 2.0 ** (min(failures, 10) - 1), _LONGEST_SECONDS)

    def is_good(self, address: str) -> bool:
        """Has somebody logged in from there within a day?"""
        return address in self._good

    def succeeded(self, address: str, login: str) -> None:
        self._good[address] = None
        self._failures.pop((address, login), None)
        self._strangers.pop(address, None)
