"""What a provider's replies, or a lost link, mean for each recipient and for the touchpoint's lane.

The shell keeps a `Transcript` of one SMTP transaction; `decide` reads it. The phase says whom a no is about: before a
message is named it is about the touchpoint, at RCPT about that recipient, behind the dot about that message. Only a
clear 5yz is permanent; whatever we do not know is temporary. A no to the touchpoint itself, in whatever phase it
comes, never bounces mail: `refusals` knows such texts, by provider. A reply that names a time is asked no sooner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from gateway.model import Fate, Outcome, Phase, Reply
from gateway.outbound.refusals import Cause as Cause
from gateway.outbound.refusals import Meaning, find, wait_asked
from gateway.state.lifecycle import LaneEvent


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about the touchpoint: pause its lane or hold it. `detail` is one line for a person. `asked`: how long
    the provider wants us to stay away."""

    event: LaneEvent
    cause: Cause
    detail: str
    asked: timedelta | None = None


class Wait(StrEnum):
    """What a deferred recipient waits for."""

    CLOCK = "clock"  # a reply about the message: its retry schedule, on the give-up clock
    BACKOFF = "backoff"  # a link lost in the middle: the same steps, off the clock
    LANE = "lane"  # nothing about the message: as soon as the lane is tried again
    NOW = "now"  # nobody's fault: the next transaction


@dataclass(frozen=True, slots=True)
class Judged:
    """One recipient's outcome; `wait` is set when it is deferred. `asked`: not to come again any sooner."""

    outcome: Outcome
    wait: Wait | None = None
    asked: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What happened in one transaction. A reply that did not come, or was not asked for, is None.

    `rcpt` has one element a recipient. `lost`: why the link cannot be used any more, one line; None while it can.
    `dotted`: bytes that hold the final dot were given to the link. `proven`: the connection had completed a
    transaction before, so that a lost link may just be the provider ending a session it was tired of.
    `farewell`: what the server said without being asked, before it ended the session.
    """

    rcpt: tuple[Reply | None, ...]
    mail: Reply | None = None
    data: Reply | None = None
    dot: Reply | None = None
    lost: str | None = None
    dotted: bool = False
    proven: bool = False
    farewell: Reply | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`judged` follows the recipients. `is_reusable`: the link is in step and the provider wants to go on.

    `worked`: the provider let us name a recipient, so whatever held the lane is over.
    """

    judged: tuple[Judged, ...]
    trouble: Trouble | None
    is_reusable: bool
    worked: bool


# Codes that ask for a login (RFC 4954 §6), in whatever phase the server thinks of it.
_LOGIN_CODES: Final = frozenset({530, 534, 535, 538})
_LOGIN_REST: Final = timedelta(minutes=5)  # after "too many logins", where no time is named: each try counts as one
# At MAIL: about this message's size, content or parameters, not about whose address stands there.
_MESSAGE_CODES: Final = frozenset({501, 504, 552, 555})
_MESSAGE_STATUS: Final = re.compile(r"5\.(2\.3|3\.4|5\.4|6\.\d+)$")


def decide(transcript: Transcript, *, table: str = "general", null_return_path: bool = False) -> Decision:
    """Return what one transaction means. A lost link behind the dot is uncertain for all who were to get it.

    `table`: of `refusals`, the provider's.
    """
    t = transcript
    if t.mail is None:
        return _all_alike(t, _lost(t, Phase.MAIL), table)
    if not _is_good(t.mail):
        return _mail_refused(t, t.mail, table, null_return_path)

    has_enough = _has_enough(t, table)
    judged = [_judge_rcpt(reply, t, table, has_enough) for reply in t.rcpt]
    troubles = [trouble for _, trouble in judged if trouble is not None]
    if any(found is None for found, _ in judged):
        rest, trouble = _judge_data(t, table, has_enough)
        judged = [(found or rest, None) for found, _ in judged]
        troubles += [trouble] if trouble else []
    if t.lost is not None and t.dot is None and not troubles and not t.proven and not has_enough:
        troubles.append(_ended(t, table))
    worked = any(reply is not None and reply.code != 421 for reply in t.rcpt) and not troubles
    return Decision(
        tuple(found for found, _ in judged if found is not None),
        troubles[0] if troubles else None,
        t.lost is None and not any(_ends_session(reply) for reply in (*t.rcpt, t.data, t.dot) if reply),
        worked,
    )


def decide_greeting(reply: Reply, table: str = "general") -> Trouble:
    """The provider answered the connection, EHLO or STARTTLS with a no: temporary, whatever its first digit."""
    known = find(reply, Phase.CONNECT, table)
    cause = known.cause if known is not None else None
    if cause is None:
        cause = Cause.THROTTLED if _is_throttle(reply) else Cause.UNREACHABLE
    return _trouble(LaneEvent.PAUSE, cause, reply, "the server does not let us begin: ")


def decide_login(reply: Reply, table: str = "general") -> Trouble:
    """AUTH was answered with a no: a clear one holds the lane, any other pauses it."""
    known = find(reply, Phase.LOGIN, table)
    if known is not None and known.cause is not None:
        trouble = _trouble(_EVENTS[known.meaning], known.cause, reply)
        is_too_often = known.cause is Cause.THROTTLED and trouble.asked is None
        return replace(trouble, asked=_LOGIN_REST) if is_too_often else trouble
    # 432: a password must be changed first (RFC 4954 §4.7.12), which waiting does not do
    if reply.code // 100 == 5 or (reply.code, reply.status) == (432, "4.7.12"):
        return _trouble(LaneEvent.HOLD, Cause.LOGIN, reply, "the login was refused: ")
    return _trouble(LaneEvent.PAUSE, Cause.LOGIN, reply, "the login was put off: ")


def defer_for(trouble: Trouble, phase: Phase, reply: Reply | None = None) -> Judged:
    """Return the outcome of a recipient whose attempt never came to MAIL."""
    return Judged(Outcome(Fate.DEFERRED, phase, reply, trouble.detail), Wait.LANE)


def refuse_all(recipients: int, phase: Phase, reply: Reply) -> Decision:
    """Return the decision for a message that this provider cannot take by what its EHLO said; nothing was sent."""
    return Decision((Judged(Outcome(Fate.REFUSED, phase, reply)),) * recipients, None, True, False)


# --- one phase each --------------------------------------------------------------------------------------------------


def _mail_refused(t: Transcript, reply: Reply, table: str, null_return_path: bool) -> Decision:
    judged, trouble = _judge_mail(reply, t.proven, table, null_return_path)
    return Decision(
        (judged,) * len(t.rcpt), trouble, t.lost is None and not _ends_session(reply) and reply.code != 503, False
    )


def _judge_mail(reply: Reply, proven: bool, table: str, null_return_path: bool) -> tuple[Judged, Trouble | None]:
    phase = Phase.MAIL
    known = find(reply, phase, table)
    meaning = known.meaning if known is not None else None
    trouble = _about_touchpoint(reply, phase, table)
    if trouble is not None:
        return _deferred(phase, reply, Wait.LANE), trouble
    if _ends_session(reply) or meaning is Meaning.SESSION:
        # A provider that wants a new session after some messages says so here.
        return (_deferred(phase, reply, Wait.NOW), None) if proven else _throttled(phase, reply, Wait.LANE)
    if _is_throttle(reply):
        return _throttled(phase, reply, Wait.LANE)
    if not _is_clear_no(reply) or meaning is Meaning.TEMPORARY or reply.code in (500, 502, 503):
        return _deferred(phase, reply, Wait.CLOCK), None  # 503: out of step, which is about nobody's mail
    if null_return_path or meaning is Meaning.MESSAGE:
        # Some providers take no null return path at all; that says nothing about the touchpoint.
        return _refused(phase, reply), None
    if reply.code in _MESSAGE_CODES and not reply.status.startswith(("5.1.", "5.7.")):
        return _refused(phase, reply), None
    if _MESSAGE_STATUS.match(reply.status):
        return _refused(phase, reply), None
    # All that MAIL names is the touchpoint's own address: a no to it is a no to the touchpoint.
    held = _trouble(LaneEvent.HOLD, Cause.PERMISSION, reply, "the provider refuses the touchpoint's address: ")
    return _deferred(phase, reply, Wait.LANE), held


def _judge_rcpt(
    reply: Reply | None, t: Transcript, table: str, has_enough: bool
) -> tuple[Judged | None, Trouble | None]:
    """Return None for a recipient whose fate the later phases decide."""
    if reply is None:
        return (_unasked(t, Phase.RCPT) if has_enough else _lost(t, Phase.RCPT)), None
    if _is_good(reply):
        return None, None
    trouble = _about_touchpoint(reply, Phase.RCPT, table)
    if trouble is not None:
        return _deferred(Phase.RCPT, reply, Wait.LANE), trouble
    if has_enough and _ends_session(reply):
        return _deferred(Phase.RCPT, reply, Wait.NOW), None
    known = find(reply, Phase.RCPT, table)
    is_too_many = reply.code in (452, 552) or (known is not None and known.meaning is Meaning.SPLIT)
    if is_too_many and any(other is not None and _is_good(other) for other in t.rcpt):
        # "Too many recipients": what was taken so far goes, the rest follows in a transaction of its own
        # (RFC 5321 §4.5.3.1.10, which knows 552 as the older form).
        return _deferred(Phase.RCPT, reply, Wait.NOW), None
    return _judge(Phase.RCPT, reply, t.proven, table)


def _judge_data(t: Transcript, table: str, has_enough: bool) -> tuple[Judged, Trouble | None]:
    if t.dot is not None:
        if t.dot.code // 100 in (2, 4, 5):
            return _judge(Phase.DOT, t.dot, t.proven, table)
        # Not an answer to what we asked. The message may be with them.
        return Judged(Outcome(Fate.UNCERTAIN, Phase.DOT, t.dot, "an answer that means nothing behind the dot")), None
    if t.dotted:
        detail = f"{t.lost or 'no answer'}; the message may have left"
        return Judged(Outcome(Fate.UNCERTAIN, Phase.DOT, None, detail)), None
    if has_enough and (t.data is None or (_ends_session(t.data) and not _about_touchpoint(t.data, Phase.DATA, table))):
        return _unasked(t, Phase.DATA), None
    if t.data is None or t.data.code == 354:
        return _lost(t, Phase.DATA), None
    if _is_good(t.data):  # 2yz to DATA: out of step
        return _deferred(Phase.DATA, t.data, Wait.BACKOFF), None
    return _judge(Phase.DATA, t.data, t.proven, table)


def _judge(phase: Phase, reply: Reply, proven: bool, table: str) -> tuple[Judged, Trouble | None]:
    if _is_good(reply):  # any 2yz behind the dot is an acceptance, not only 250
        return Judged(Outcome(Fate.ACCEPTED, phase, reply)), None
    trouble = _about_touchpoint(reply, phase, table)
    if trouble is not None:
        return _deferred(phase, reply, Wait.LANE), trouble
    known = find(reply, phase, table)
    if known is not None and known.meaning is Meaning.TEMPORARY:
        return _deferred(phase, reply, Wait.CLOCK), None
    if _is_throttle(reply) or (_ends_session(reply) and not proven):
        # From RCPT on the message itself may be what they cannot stand: it waits by its own clock, so that it
        # cannot stand before the others each time the lane opens.
        return _throttled(phase, reply, Wait.CLOCK)
    if _is_clear_no(reply):
        return _refused(phase, reply), None
    return _deferred(phase, reply, Wait.CLOCK), None


def _has_enough(t: Transcript, table: str) -> bool:
    """Return whether the server ended the session over recipients that it had said no to, each by itself.

    Postfix ends it after `smtpd_hard_error_limit` of them. Their own noes stand; the others go over another
    connection at once, and since these are settled or wait, the next one comes further.
    """
    ended = any(reply is not None and _ends_session(reply) for reply in (*t.rcpt, t.data, t.farewell))
    return ended and any(
        reply is not None
        and not _is_good(reply)
        and not _ends_session(reply)
        and _about_touchpoint(reply, Phase.RCPT, table) is None
        for reply in t.rcpt
    )


def _unasked(t: Transcript, phase: Phase) -> Judged:
    """The session ended over others before it came to this recipient."""
    return Judged(Outcome(Fate.DEFERRED, phase, None, t.lost or "the server ended the session"), Wait.NOW)


def _lost(t: Transcript, phase: Phase) -> Judged:
    """The link was lost and nothing has left us."""
    if phase is Phase.MAIL and t.proven:
        return Judged(Outcome(Fate.DEFERRED, phase, None, t.lost or "no answer"), Wait.NOW)
    return Judged(Outcome(Fate.DEFERRED, phase, None, t.lost or "no answer"), Wait.BACKOFF)


def _all_alike(t: Transcript, judged: Judged, table: str) -> Decision:
    trouble = None if t.proven else _ended(t, table)
    return Decision((judged,) * len(t.rcpt), trouble, False, False)


# --- reading a reply -------------------------------------------------------------------------------------------------

_EVENTS: Final = {Meaning.HOLD: LaneEvent.HOLD, Meaning.PAUSE: LaneEvent.PAUSE}


def _about_touchpoint(reply: Reply, phase: Phase, table: str) -> Trouble | None:
    """A no that is about the touchpoint, whatever its phase, or None."""
    known = find(reply, phase, table)
    if known is not None and known.cause is not None:
        return _trouble(_EVENTS[known.meaning], known.cause, reply)
    if reply.code in _LOGIN_CODES:
        return _trouble(LaneEvent.HOLD, Cause.LOGIN, reply, "the provider wants a login: ")
    return None


def _deferred(phase: Phase, reply: Reply, wait: Wait) -> Judged:
    return Judged(Outcome(Fate.DEFERRED, phase, reply), wait, wait_asked(reply) if wait is Wait.CLOCK else None)


def _refused(phase: Phase, reply: Reply) -> Judged:
    return Judged(Outcome(Fate.REFUSED, phase, reply))


def _throttled(phase: Phase, reply: Reply, wait: Wait) -> tuple[Judged, Trouble]:
    return _deferred(phase, reply, wait), _trouble(LaneEvent.PAUSE, Cause.THROTTLED, reply)


def _trouble(event: LaneEvent, cause: Cause, reply: Reply, before: str = "") -> Trouble:
    return Trouble(event, cause, f"{before}{reply}", wait_asked(reply))


def _ended(t: Transcript, table: str) -> Trouble:
    """A link that never worked was lost: the provider is in trouble, or said why it will have none of us now."""
    if t.farewell is not None and _ends_session(t.farewell):
        return decide_greeting(t.farewell, table)
    return Trouble(LaneEvent.PAUSE, Cause.UNREACHABLE, t.lost or "no answer")


def _is_good(reply: Reply) -> bool:
    return reply.code // 100 == 2


def _is_clear_no(reply: Reply) -> bool:
    return reply.code // 100 == 5


def _ends_session(reply: Reply) -> bool:
    return reply.code == 421


def _is_throttle(reply: Reply) -> bool:
    return reply.code == 432 or (reply.status == "4.3.2" and reply.code // 100 == 4)
