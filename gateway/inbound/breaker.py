"""When to leave a service in peace that does not answer: a line of messages must not wait for each of them in turn."""

from __future__ import annotations

from typing import Final

_FAILURES: Final = 3  # in a row; a single message may be at fault for one
_FIRST_PAUSE: Final = 10.0  # seconds
_LONGEST_PAUSE: Final = 300.0


class Breaker:
    """Closed: everybody may ask. Open: nobody, until the pause is over; then one, whose luck decides for all.

    `now`: seconds of a clock that only goes forward.
    """

    def __init__(self) -> None:
        self.cause = ""  # of the last failure, "" since a success
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0
        self._is_trying = False  # one has been let through

    @property
    def is_open(self) -> bool:
        return self._pause > 0

    def may_ask(self, now: float) -> bool:
        """May somebody ask now? While it is open, whoever is told yes is the only one for another pause."""
        if not self.is_open:
            return True
        if now < self._until:
            return False
        self._until = now + self._pause
        self._is_trying = True
        return True

    def fail(self, cause: str, now: float) -> bool:
        """Record a failure; return whether it has just opened."""
        self.cause = cause
        self._failures += 1
        if self._failures < _FAILURES:
            return False
        if not self.is_open:
            self._pause, self._until = _FIRST_PAUSE, now + _FIRST_PAUSE
            return True
        if self._is_trying:  # the others began before it opened, and say nothing new
            self._is_trying = False
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._until = now + self._pause
        return False

    def succeed(self) -> bool:
        """Record a success; return whether it was open."""
        was_open = self.is_open
        self.cause, self._failures, self._pause, self._is_trying = "", 0, 0.0, False
        return was_open
