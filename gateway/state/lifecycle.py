"""Every legal move of an outbound recipient and of a touchpoint's lane. Nothing else decides a move.

The diagram in DESIGN.md is drawn from these tables; the state machine in the tests plays the store against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """What stands in a recipient's row."""

    QUEUED = "queued"  # accepted, never tried to an end
    SENDING = "sending"  # DATA may have begun; no answer is recorded yet
    DELIVERED = "delivered"  # the provider has said 2yz behind the dot
    DEFERRED = "deferred"  # tried, and due again
    REFUSED = "refused"  # a clear no
    UNCERTAIN = "uncertain"  # the final dot may have been written and no answer is known
    EXPIRED = "expired"  # temporary noes for longer than `give_up_after`
    CANCELLED = "cancelled"  # taken back by a person, or an automatic message that is not worth a second try


class Event(StrEnum):
    """What can happen to a recipient."""

    DATA_BEGUN = "data-begun"
    PUT_OFF = "put-off"  # a temporary no, or no connection
    CUT_BEFORE_DOT = "cut-before-dot"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    GAVE_UP = "gave-up"
    INTERRUPTED = "interrupted"  # cut behind the dot, or stopped before the answer was recorded (RFC 1047)
    FOUND_SENT = "found-sent"  # evidence of the attempt in doubt, or a person's word
    FOUND_ABSENT = "found-absent"  # proven not to have left, or a person wants it sent again
    DROPPED = "dropped"  # uncertain, and not worth a second try: automatic replies and notices
    CANCELLED = "cancelled"


_WAITING: Final = (State.QUEUED, State.DEFERRED)

TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    # Claimed, and it came to nothing before DATA: no connection, MAIL or RCPT answered otherwise than 2yz.
    **{(state, Event.PUT_OFF): State.DEFERRED for state in _WAITING},
    **{(state, Event.CUT_BEFORE_DOT): State.DEFERRED for state in _WAITING},
    **{(state, Event.REFUSED): State.REFUSED for state in _WAITING},
    **{(state, Event.GAVE_UP): State.EXPIRED for state in _WAITING},
    **{(state, Event.CANCELLED): State.CANCELLED for state in _WAITING},
    # In a store that was restored from an old copy: it has been sent since, or is still to be sent.
    **{(state, Event.FOUND_SENT): State.DELIVERED for state in _WAITING},
    **{(state, Event.FOUND_ABSENT): state for state in _WAITING},
    # Committed before DATA, with the attempt and its next due time.
    **{(state, Event.DATA_BEGUN): State.SENDING for state in _WAITING},
    (State.SENDING, Event.ACCEPTED): State.DELIVERED,
    (State.SENDING, Event.PUT_OFF): State.DEFERRED,
    (State.SENDING, Event.CUT_BEFORE_DOT): State.DEFERRED,  # nothing has left us
    (State.SENDING, Event.REFUSED): State.REFUSED,
    (State.SENDING, Event.GAVE_UP): State.EXPIRED,
    # Sending again may duplicate, not sending may lose. Evidence of this very attempt settles it, or a person; a
    # guess never does. A person who cancels while `sending` is too late, so there is no such row.
    (State.SENDING, Event.INTERRUPTED): State.UNCERTAIN,
    (State.UNCERTAIN, Event.FOUND_SENT): State.DELIVERED,
    (State.UNCERTAIN, Event.FOUND_ABSENT): State.DEFERRED,
    (State.UNCERTAIN, Event.DROPPED): State.CANCELLED,
    (State.UNCERTAIN, Event.CANCELLED): State.CANCELLED,
}

SETTLED: Final = frozenset({State.DELIVERED, State.REFUSED, State.EXPIRED, State.CANCELLED})
WAITING: Final = frozenset(_WAITING)


def move(state: State, event: Event) -> State | None:
    """Return the state that follows, or None when `event` cannot happen there (it came too late, or twice)."""
    return TRANSITIONS.get((state, event))


class LaneState(StrEnum):
    """What stands in a touchpoint's lane; no row means open."""

    OPEN = "open"
    PAUSED = "paused"  # until a time; releases itself
    HELD = "held"  # by the provider's no to the touchpoint (probed), or by a person (not probed)


class LaneEvent(StrEnum):
    """What can happen to a lane."""

    PAUSE = "pause"
    HOLD = "hold"
    WORKED = "worked"  # the provider let us do what it had refused
    PERSON_HOLDS = "person-holds"
    PERSON_RELEASES = "person-releases"


PERSON: Final = "person"  # the cause of a hold that only a person releases

_Lane = tuple[LaneState, bool]  # state, held by a person?

_LANES: Final[Mapping[tuple[_Lane, LaneEvent], _Lane]] = {
    **{((state, False), LaneEvent.PAUSE): (LaneState.PAUSED, False) for state in (LaneState.OPEN, LaneState.PAUSED)},
    # A held lane whose probe finds nobody at home is still held: the hold's cause is what a person must mend.
    ((LaneState.HELD, False), LaneEvent.PAUSE): (LaneState.HELD, False),
    **{((state, False), LaneEvent.HOLD): (LaneState.HELD, False) for state in LaneState},
    **{((state, False), LaneEvent.WORKED): (LaneState.OPEN, False) for state in LaneState},
    **{((state, False), LaneEvent.PERSON_HOLDS): (LaneState.HELD, True) for state in LaneState},
    **{((state, False), LaneEvent.PERSON_RELEASES): (LaneState.OPEN, False) for state in LaneState},
    # What is still under way when a person holds the lane may end as it likes; the hold stays.
    **{((LaneState.HELD, True), event): (LaneState.HELD, True) for event in LaneEvent},
    ((LaneState.HELD, True), LaneEvent.PERSON_RELEASES): (LaneState.OPEN, False),
}


def move_lane(state: LaneState, cause: str | None, event: LaneEvent) -> tuple[LaneState, bool]:
    """Return the lane's next state and whether a person holds it."""
    return _LANES[(state, state is LaneState.HELD and cause == PERSON), event]
