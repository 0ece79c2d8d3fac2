"""What a mailbox task does next: (state, event) → (state, action), without I/O, clock or dice.

One turn of the wheel: connect, open the folder, list what lies above the cursor, take it, wait for more. The shell
(`mailbox.py`) does each action and comes back with an event. `now` is seconds of any clock that does not go back;
`jitter` is in [0, 1).

The laws, each a property test: whatever fails, the next thing is a rest and then a new connection; a session never
waits for mail before it has listed; no wait is longer than the poll interval, because IDLE is not believed; every
listed message is in exactly one step of the plan; the growing rests begin anew only after a completed look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Final

BATCH_BYTES: Final = 2 * 1024 * 1024
BATCH_MESSAGES: Final = 500
WINDOW_MESSAGES: Final = 2_000  # so many are listed with their sizes at a time

_FIRST_REST: Final = timedelta(seconds=1)
_LONGEST_REST: Final = timedelta(minutes=5)
# A refused login is not tried often: providers lock out who keeps knocking (DESIGN §5 has the same for a lane)
_REFUSED_RESTS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))

# A session that is lost while a batch is fetched puts its messages under suspicion: next time they come in small
# batches, then one by one, and one that loses the session again is left for later. No message stops the mailbox.
_SUSPECTS_TOGETHER: Final = 25
ALONE_FROM: Final = 2
_GIVEN_UP_FROM: Final = 4

_POLL_WITHOUT_IDLE: Final = timedelta(seconds=60)

# When to try again to fetch what could not be fetched
_RETRIES: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240))


@dataclass(frozen=True, slots=True)
class Watch:
    """How to watch. `folders`: in turn, over one session; the first may be watched by IDLE if it is the only one."""

    folders: tuple[str, ...]
    poll: timedelta
    renew_idle: timedelta
    may_idle: bool = True
    reconnect_after: timedelta | None = None  # a planned new connection, before the provider's patience ends
    largest_bytes: int = 100_000_000


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


@dataclass(frozen=True, slots=True)
class Missing:
    """The server does not open this folder. The session goes on, and the folders behind it have their turn."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What lay above the cursor was listed and taken, as far as `cursor`.

    `more`: a window was full. `stirred`: the server spoke of new messages since the listing.
    """

    cursor: int
    more: bool = False
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


Event = Begun | Connected | Opened | Missing | Looked | Waited | Left | Failed


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    pass


@dataclass(frozen=True, slots=True)
class Open:
    folder: str


@dataclass(frozen=True, slots=True)
class Renumber:
    """Match the folder's messages with those we know, under the new UIDVALIDITY; ends in Opened."""

    folder: str


@dataclass(frozen=True, slots=True)
class Look:
    """List what lies above `cursor`, plan, take. `few`: all at once can be listed. `retry`: also what is owed."""

    folder: str
    cursor: int
    few: bool
    retry: bool


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


Action = Connect | Open | Renumber | Look | Idle | Sleep | Leave | Rest


# --- the wheel -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """`failures`: in a row, since the last completed look. `suspects`: UID → sessions that it may have cost."""

    folder: int = 0  # which of the folders
    cursor: int = 0
    can_idle: bool = False
    connected_at: float = 0.0
    looked_at: float = 0.0
    failures: int = 0
    refusals: int = 0
    suspects: Mapping[int, int] = field(default_factory=dict)


def decide(watch: Watch, state: State, event: Event, now: float, jitter: float) -> tuple[State, Action]:
    """Return what to do now, and what to remember."""
    match event:
        case Begun() | Left():
            return state, Connect()
        case Connected(can_idle):
            state = replace(state, folder=0, connected_at=now, refusals=0, can_idle=can_idle and watch.may_idle)
            return state, Open(watch.folders[0])
        case Opened(renumbered=True):
            # UIDs under suspicion were other messages' UIDs
            return replace(state, suspects={}), Renumber(watch.folders[state.folder])
        case Opened(cursor):
            return replace(state, cursor=cursor), _look(watch, state, cursor, few=False, retry=True)
        case Looked(cursor, more, stirred):
            state = replace(state, cursor=cursor, suspects=_above(state.suspects, cursor))
            if more or stirred:
                return state, _look(watch, state, cursor, few=not more)
            return _onward(watch, replace(state, failures=0, looked_at=now), now)
        case Missing():
            return _onward(watch, replace(state, looked_at=now), now)
        case Waited(stirred, can_idle):
            state = replace(state, can_idle=state.can_idle and can_idle)
            if len(watch.folders) > 1:
                return replace(state, folder=0), Open(watch.folders[0])
            if stirred:
                return state, _look(watch, state, state.cursor, few=True)
            if not state.can_idle or now - state.looked_at >= watch.poll.total_seconds() - 1:
                return state, _look(watch, state, state.cursor, few=False, retry=True)
            return state, _wait(watch, state, now)
        case Failed(refused, fetching):
            suspects = dict(state.suspects)
            for uid in fetching:
                suspects[uid] = suspects.get(uid, 0) + 1
            failures, refusals = state.failures + 1, state.refusals + refused
            state = replace(state, failures=failures, refusals=refusals, suspects=suspects)
            return state, Rest(rest_after(failures, refusals if refused else 0, jitter).total_seconds())


def _onward(watch: Watch, state: State, now: float) -> tuple[State, Action]:
    if state.folder + 1 < len(watch.folders):
        return replace(state, folder=state.folder + 1), Open(watch.folders[state.folder + 1])
    return state, _wait(watch, state, now)


def _look(watch: Watch, state: State, cursor: int, few: bool, retry: bool = False) -> Look:
    return Look(watch.folders[state.folder], cursor, few, retry)


def _wait(watch: Watch, state: State, now: float) -> Action:
    if watch.reconnect_after is not None and now - state.connected_at >= watch.reconnect_after.total_seconds():
        return Leave()
    until_poll = max(0.1, state.looked_at + watch.poll.total_seconds() - now)
    if state.can_idle and len(watch.folders) == 1:
        return Idle(min(until_poll, watch.renew_idle.total_seconds()))
    return Sleep(min(until_poll, _POLL_WITHOUT_IDLE.total_seconds()))


def _above(suspects: Mapping[int, int], cursor: int) -> Mapping[int, int]:
    return {uid: count for uid, count in suspects.items() if uid > cursor} if suspects else suspects


def rest_after(failures: int, refusals: int, jitter: float) -> timedelta:
    """Return how long to stay away after that many failures in a row, or `refusals` (from 1) of the login.

    `jitter` in [0, 1) spreads a hundred touchpoints of one provider over half the time again.
    """
    if refusals:
        base = _REFUSED_RESTS[min(refusals, len(_REFUSED_RESTS)) - 1]
    else:
        base = min(_FIRST_REST * 2 ** min(max(failures, 1) - 1, 16), _LONGEST_REST)
    return base * (1 + jitter / 2)


def retry_after(tries: int) -> timedelta:
    """Return when to ask again for a message that could not be fetched `tries` times (from 1)."""
    return _RETRIES[min(max(tries, 1), len(_RETRIES)) - 1]


# --- the plan --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Planned:
    """A listed message. `follows`: the UID listed before it, or the cursor: the link of the chain (state.mailboxes)."""

    uid: int
    size: int
    follows: int


@dataclass(frozen=True, slots=True)
class Take:
    """Fetch these together."""

    messages: tuple[Planned, ...]

    @property
    def total_bytes(self) -> int:
        return sum(message.size for message in self.messages)


@dataclass(frozen=True, slots=True)
class Pass:
    """Do not fetch these: they are known (`reason` None), or owed for a reason. `hopeless`: not by ourselves."""

    messages: tuple[Planned, ...]
    reason: str | None
    hopeless: bool = False


PlanStep = Take | Pass


def plan(
    watch: Watch, cursor: int, sizes: Sequence[tuple[int, int]], known: Collection[int], suspects: Mapping[int, int]
) -> Iterator[PlanStep]:
    """Yield the steps that bring the cursor over `sizes` ((uid, bytes), ascending, all above `cursor`).

    A Take has at most BATCH_BYTES, unless it is a single message. Every message is in exactly one step, in order.
    """
    messages = [Planned(uid, size, before) for (before, _), (uid, size) in pairwise([(cursor, 0), *sizes])]
    batch: list[Planned] = []
    batch_bytes = 0
    batch_kind: object = None
    for message in messages:
        kind = _kind(watch, message, known, suspects)
        limit = _batch_limit(kind, suspects.get(message.uid, 0))
        full = len(batch) >= limit or (kind.startswith("take") and batch_bytes + message.size > BATCH_BYTES)
        if batch and (kind != batch_kind or full):
            yield _step(batch_kind, batch)
            batch, batch_bytes = [], 0
        batch.append(message)
        batch_bytes += message.size
        batch_kind = kind
    if batch:
        yield _step(batch_kind, batch)


def unchained(step: PlanStep) -> PlanStep:
    """Return the step for messages that the cursor has passed already: taking them moves nothing."""
    return replace(step, messages=tuple(replace(message, follows=message.uid) for message in step.messages))


def _kind(watch: Watch, message: Planned, known: Collection[int], suspects: Mapping[int, int]) -> str:
    if message.uid in known:
        return "known"
    if message.size > watch.largest_bytes:
        return "large"
    strikes = suspects.get(message.uid, 0)
    if strikes >= _GIVEN_UP_FROM:
        return "suspect"
    return "take" if strikes == 0 else f"take {min(strikes, ALONE_FROM)}"


def _batch_limit(kind: str, strikes: int) -> int:
    if not kind.startswith("take") or not strikes:
        return BATCH_MESSAGES
    return 1 if strikes >= ALONE_FROM else _SUSPECTS_TOGETHER


def _step(kind: object, batch: Sequence[Planned]) -> PlanStep:
    messages = tuple(batch)
    if kind == "known":
        return Pass(messages, None)
    if kind == "large":
        return Pass(messages, "larger than inbound.max_message_size", hopeless=True)
    if kind == "suspect":
        return Pass(messages, "the connection is lost whenever it is fetched")
    return Take(messages)
