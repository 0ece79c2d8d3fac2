"""What the running parts report about themselves: read by `status`, written only on the Trio thread.

Facts that must survive a restart (lanes, outbox, cursors) live in the store; here is only what a restart finds out
anew. An alarm is something a person should look at: it has a cause and an action, and makes `status` exit 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gateway.model import Role


@dataclass(slots=True)
class TouchpointHealth:
    """One touchpoint's state as `status` shows it. `state`: a word; `cause`: one line, with the remedy.

    `heard`: asks the session that waits for mail when the server last sent a byte; without it, what was noted last.
    """

    connected: bool = False
    state: str = "starting"
    cause: str | None = None
    since: datetime | None = None
    last_message_at: datetime | None = None
    synced_at: datetime | None = None  # when we had last seen everything that lay in the watched folder
    last_server_byte_at: datetime | None = None
    heard: Callable[[], datetime] | None = None
    folders: Mapping[str, Role] = field(default_factory=dict)  # that are watched, in their order
    unfetched: int = 0

    @property
    def heard_at(self) -> datetime | None:
        """When the server last sent a byte. None: never since we started."""
        now = self.heard() if self.heard else None
        return max((at for at in (now, self.last_server_byte_at) if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Alarm:
    touchpoint: str | None
    key: str
    since: datetime
    cause: str
    action: str

    @property
    def id(self) -> str:
        return f"{self.touchpoint}/{self.key}" if self.touchpoint else self.key


class Health:
    """All touchpoints' health and the alarms. `now` is a clock: aware UTC."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._touchpoints: dict[str, TouchpointHealth] = {}
        self._alarms: dict[tuple[str | None, str], Alarm] = {}
        self.bugs = 0  # tasks that ended by a bug of ours, since start
        self.strays: Callable[[], int] = lambda: 0  # asks for the faults that the bridge has caught, since start
        self._faults_told = 0

    def touchpoint(self, touchpoint: str) -> TouchpointHealth:
        return self._touchpoints.setdefault(touchpoint, TouchpointHealth(since=self._now()))

    def known(self) -> list[str]:
        return list(self._touchpoints)

    def set_state(self, touchpoint: str, state: str, *, connected: bool, cause: str | None = None) -> None:
        """Record a change of state; `since` moves only when state or connection really change."""
        health = self.touchpoint(touchpoint)
        if (health.state, health.connected) != (state, connected):
            health.since = self._now()
        health.state, health.connected, health.cause = state, connected, cause

    def forget(self, touchpoint: str) -> None:
        """Drop a touchpoint that the configuration no longer has, with its alarms."""
        self._touchpoints.pop(touchpoint, None)
        for place in [place for place in self._alarms if place[0] == touchpoint]:
            del self._alarms[place]

    def alarm(self, touchpoint: str | None, key: str, cause: str, action: str) -> bool:
        """Raise or refresh an alarm; True when it is new. `key` names the kind, e.g. "login"."""
        known = self._alarms.get((touchpoint, key))
        since = known.since if known else self._now()
        self._alarms[touchpoint, key] = Alarm(touchpoint, key, since, cause, action)
        return known is None

    def clear(self, touchpoint: str | None, key: str) -> bool:
        return self._alarms.pop((touchpoint, key), None) is not None

    def alarms(self) -> Iterator[Alarm]:
        yield from self._alarms.values()

    def new_faults(self) -> int:
        """Return how many faults of our own there were since this was last asked."""
        faults = self.bugs + self.strays()
        new, self._faults_told = faults - self._faults_told, faults
        return new
