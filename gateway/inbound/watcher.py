"""What a mailbox task does next: (state, event) → (state, action), without I/O, clock or dice.

One turn of the wheel: connect, open the folder, list what lies above the cursor, take it, do the chores (fetch what
is owed, ask after the other folders), wait for more. The shell (`mailbox.py`) does each action and comes back with an
event. `now` is seconds of any clock that does not go back; `jitter` is in [0, 1).

The laws, each a property test: whatever fails, the next thing is a rest and then a new connection; a session never
waits for mail before it has listed; no wait is longer than the poll interval, because IDLE is not believed, nor than
the chores' interval; new mail and chores take turns, so that neither starves the other; the growing rests begin anew
only after a completed look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from gateway.inbound.plan import accuse, acquit

CHORES_EVERY: Final = timedelta(seconds=60)  # STATUS of the other folders, and what is owed
POLL_WITHOUT_IDLE: Final = timedelta(seconds=60)

_FIRST_REST: Final = timedelta(seconds=1)
_LONGEST_REST: Final = timedelta(minutes=5)
# A server that speaks of new messages again and again, and has none, is listened to less often
_FALSE_ALARMS: Final = 3
_LONGEST_DEAFNESS: Final = 5.0  # seconds
# A refused login is not tried often: providers lock out who keeps knocking (DESIGN §5 has the same for a lane)
_REFUSED_RESTS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))


@dataclass(frozen=True, slots=True)
class Watch:
    """How to watch. `reconnect_after`: a planned new connection, before the provider's patience ends."""

    poll: timedelta
    renew_idle: timedelta
    may_idle: bool = True
    reconnect_after: timedelta | None = None

    def look_every(self, can_idle: bool) -> float:
        """Seconds after which the folder is listed whatever the server says, or does not say.

        An IDLE that said nothing until its renewal is distrusted: a dead one looks exactly like a quiet mailbox.
        """
        return min(self.poll, self.renew_idle if can_idle else POLL_WITHOUT_IDLE).total_seconds()


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The task has begun, or its rest is over."""


@dataclass(frozen=True, slots=True)
class Connected:
    can_idle: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The folder is open. `cursor` is the store's; `renumbered`: the UIDVALIDITY is not the one that it counts in."""

    cursor: int
    renumbered: bool = False
    uidvalidity: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """What lay above the cursor was listed and taken, as far as `cursor`.

    `more`: a window was full. `stirred`: the server spoke of new messages since the listing.
    """

    cursor: int
    more: bool = False
    stirred: bool = False


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """One batch of what is owed was asked for. `more`: there is more that is due now."""

    more: bool = False
    stirred: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The other folders' STATUS was asked for."""

    stirred: bool = False


@dataclass(frozen=True, slots=True)
class Waited:
    """A wait on a live session is over. `stirred`: the server spoke of new messages. `can_idle`: it still does IDLE."""

    stirred: bool = False
    can_idle: bool = True


@dataclass(frozen=True, slots=True)
class Left:
    """The planned goodbye has been said."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Connection, server or store failed. `fetching`: the UIDs that were asked for when the session was lost."""

    refused: bool = False
    fetching: tuple[int, ...] = ()


Event = Begun | Connected | Opened | Looked | CaughtUp | Asked | Waited | Left | Failed


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    pass


@dataclass(frozen=True, slots=True)
class Open:
    pass


@dataclass(frozen=True, slots=True)
class Renumber:
    """Match the folder's messages with those we know, under the new UIDVALIDITY; ends in Opened."""


@dataclass(frozen=True, slots=True)
class Look:
    """List what lies above `cursor`, plan, take. `few`: all at once can be listed, and only what is new."""

    cursor: int
    few: bool


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Ask for a batch of what is owed and due."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for the STATUS of the other folders."""


@dataclass(frozen=True, slots=True)
class Idle:
    seconds: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait on the live session without IDLE."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Log out; a new connection follows."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait without a session; then Begun."""

    seconds: float


Action = Connect | Open | Renumber | Look | CatchUp | Ask | Idle | Sleep | Leave | Rest


# --- the wheel -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered from one decision to the next.

    `leave_at`: when this session is to end, in time for the provider. `looked_at`: when the folder was last listed
    whatever the server said. `chores_from`: when the chores are due. `is_behind`: there is more above the cursor than
    was listed; `is_owing`: there is more that is owed than was asked for. `false_alarms`: looks in a row that the
    server called for and that found nothing. `failures`: in a row, since the last completed look. `suspects`: UID →
    sessions that it may have cost.
    """

    cursor: int = 0
    uidvalidity: int = 0
    can_idle: bool = False
    leave_at: float | None = None
    looked_at: float = 0.0
    chores_from: float = 0.0
    is_behind: bool = False
    is_owing: bool = False
    false_alarms: int = 0
    failures: int = 0
    refusals: int = 0
    suspects: Mapping[int, int] = field(default_factory=dict)


def decide(watch: Watch, state: State, event: Event, now: float, jitter: float) -> tuple[State, Action]:
    """Return what to do now, and what to remember."""
    match event:
        case Begun() | Left():
            return state, Connect()
        case Connected(can_idle):
            can_idle = can_idle and watch.may_idle
            leave_at = None
            if watch.reconnect_after is not None:
                leave_at = now + _a_little_less(watch.reconnect_after, jitter)
            return replace(state, leave_at=leave_at, chores_from=now, refusals=0, can_idle=can_idle), Open()
        case Opened(cursor, renumbered, uidvalidity):
            if uidvalidity != state.uidvalidity:  # UIDs under suspicion were other messages' UIDs
                state = replace(state, uidvalidity=uidvalidity, suspects={})
            if renumbered:
                return state, Renumber()
            return replace(state, cursor=cursor, looked_at=now, is_behind=False), Look(cursor, few=False)
        case Looked(cursor, more, stirred):
            overdue = now >= state.chores_from + CHORES_EVERY.total_seconds()
            false_alarms = state.false_alarms + 1 if stirred and cursor == state.cursor else 0
            suspects = acquit(state.suspects, cursor)
            state = replace(state, cursor=cursor, suspects=suspects, false_alarms=false_alarms)
            state = replace(state, is_behind=more)
            if more:  # a long backlog; the other folders are not kept waiting until its end
                return state, Ask() if overdue else Look(cursor, few=False)
            state = replace(state, failures=0)
            if now >= state.chores_from:
                return state, CatchUp()
            return _onward(watch, state, stirred, now)
        case CaughtUp(more, stirred):
            overdue = now >= state.chores_from + CHORES_EVERY.total_seconds()
            if more and not overdue:  # new mail first, and then the next batch
                return state, Look(state.cursor, few=True) if stirred else CatchUp()
            return replace(state, is_owing=more), Ask()
        case Asked(stirred):
            due = now if state.is_owing else now + _a_little_less(CHORES_EVERY, jitter)
            state = replace(state, chores_from=due, is_owing=False)
            if state.is_behind:
                return state, Look(state.cursor, few=False)
            return (state, CatchUp()) if due <= now and not stirred else _onward(watch, state, stirred, now)
        case Waited(stirred, can_idle):
            state = replace(state, can_idle=state.can_idle and can_idle)
            if now - state.looked_at >= watch.look_every(state.can_idle) - 1:
                return replace(state, looked_at=now), Look(state.cursor, few=False)
            if stirred:
                return state, Look(state.cursor, few=True)
            if now >= state.chores_from:
                return state, CatchUp()
            return _onward(watch, state, stirred, now)
        case Failed(refused, fetching):
            failures, refusals = state.failures + 1, state.refusals + refused
            state = replace(state, failures=failures, refusals=refusals, suspects=accuse(state.suspects, fetching))
            return state, Rest(rest_after(failures, refusals if refused else 0, jitter).total_seconds())


def _onward(watch: Watch, state: State, stirred: bool, now: float) -> tuple[State, Action]:
    if stirred and state.false_alarms < _FALSE_ALARMS:
        return state, Look(state.cursor, few=True)
    if state.leave_at is not None and now >= state.leave_at:
        return state, Leave()
    until = min(state.looked_at + watch.look_every(state.can_idle), state.chores_from)
    seconds = max(0.1, until - now)
    if stirred:
        return state, Sleep(min(seconds, _LONGEST_DEAFNESS, 2.0 ** (min(state.false_alarms, 9) - 4)))
    if state.can_idle:
        return state, Idle(min(seconds, watch.renew_idle.total_seconds()))
    return state, Sleep(seconds)


def _a_little_less(interval: timedelta, jitter: float) -> float:
    """Seconds: two thousand touchpoints that began together do not do everything together for ever."""
    return interval.total_seconds() * (1 - jitter / 4)


def rest_after(failures: int, refusals: int, jitter: float) -> timedelta:
    """Return how long to stay away after that many failures in a row, or `refusals` (from 1) of the login.

    `jitter` in [0, 1) spreads a hundred touchpoints of one provider over half the time again.
    """
    if refusals:
        base = _REFUSED_RESTS[min(refusals, len(_REFUSED_RESTS)) - 1]
    else:
        base = min(_FIRST_REST * 2 ** min(max(failures, 1) - 1, 16), _LONGEST_REST)
    return base * (1 + jitter / 2)
