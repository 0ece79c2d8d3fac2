"""What a provider's replies, or a lost link, mean for each recipient and for the touchpoint's lane.

The shell keeps a `Transcript` of one SMTP transaction; `decide` reads it. The phase says whom a no is about: before a
message is named it is about the touchpoint, at RCPT about that recipient, behind the dot about that message. Only a
clear 5yz is permanent; whatever we do not know is temporary. A no to the touchpoint itself, in whatever phase it
comes, never bounces mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.model import Fate, Outcome, Phase, Reply
from gateway.state.lifecycle import LaneEvent


class Cause(StrEnum):
    """Why a lane is not open. Shown by `status` and `outbox list`."""

    LOGIN = "login"
    PERMISSION = "permission"
    SWITCHED_OFF = "switched-off"
    CERTIFICATE = "certificate"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    QUOTA = "quota"
    FULL = "mailbox-full"
    BLOCKED = "blocked"
    DKIM = "dkim"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about the touchpoint: pause its lane or hold it. `detail` is one line for a person."""

    event: LaneEvent
    cause: Cause
    detail: str


class Wait(StrEnum):
    """What a deferred recipient waits for."""

    CLOCK = "clock"  # a reply about the message: its retry schedule, on the give-up clock
    BACKOFF = "backoff"  # a link lost in the middle: the same steps, off the clock
    LANE = "lane"  # nothing about the message: as soon as the lane is tried again
    NOW = "now"  # nobody's fault: the next transaction


@dataclass(frozen=True, slots=True)
class Judged:
    """One recipient's outcome; `wait` is set when it is deferred."""

    outcome: Outcome
    wait: Wait | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What happened in one transaction. A reply that did not come, or was not asked for, is None.

    `rcpt` has one element a recipient. `lost`: why the link cannot be used any more, one line; None while it can.
    `dotted`: bytes that hold the final dot were given to the link. `proven`: the connection had completed a
    transaction before, so that a lost link may just be the provider ending a session it was tired of.
    """

    rcpt: tuple[Reply | None, ...]
    mail: Reply | None = None
    data: Reply | None = None
    dot: Reply | None = None
    lost: str | None = None
    dotted: bool = False
    proven: bool = False


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
# At MAIL: about this message's size, content or parameters, not about whose address stands there.
_MESSAGE_CODES: Final = frozenset({501, 504, 552, 555})
_MESSAGE_STATUS: Final = re.compile(r"5\.(2\.3|3\.4|5\.4|6\.\d+)$")
# Noes to the touchpoint that providers utter late. Microsoft 365: 5.7.30, 5.7.60, 5.7.139, SendAsDenied; Postfix
# says what MAIL FROM deserved only at RCPT (smtpd_delay_reject).
_TOUCHPOINT_TEXTS: Final = (
    (re.compile(r"SmtpClientAuthentication is disabled|\b5\.7\.(30|139)\b", re.I), Cause.SWITCHED_OFF),
    (
        re.compile(
            r"SendAsDenied|\b5\.7\.60\b|sender address rejected: not (owned|logged)|permissions? to send as", re.I
        ),
        Cause.PERMISSION,
    ),
)
_QUOTA: Final = re.compile(r"\b5\.4\.5\b.*\bquota\b|\bdaily\b.*\b(quota|limit)\b.*\bexceeded\b", re.I | re.S)


def decide(transcript: Transcript, *, null_return_path: bool = False) -> Decision:
    """Return what one transaction means. A lost link behind the dot is uncertain for all who were to get it."""
    t = transcript
    if t.mail is None:
        return _all_alike(t, Phase.MAIL, _lost(t, Phase.MAIL))
    if not _is_good(t.mail):
        return _mail_refused(t, t.mail, null_return_path)

    judged = [_judge_rcpt(reply, t) for reply in t.rcpt]
    troubles = [trouble for _, trouble in judged if trouble is not None]
    pending = [index for index, (found, _) in enumerate(judged) if found is None]
    if pending:
        rest, trouble = _judge_data(t)
        judged = [(found or rest, None) for found, _ in judged]
        troubles += [trouble] if trouble else []
    if t.lost is not None and t.dot is None and not troubles and not t.proven:
        troubles.append(_unreachable(t.lost))
    worked = any(reply is not None and reply.code != 421 for reply in t.rcpt) and not troubles
    return Decision(
        tuple(found for found, _ in judged if found is not None),
        troubles[0] if troubles else None,
        t.lost is None and not any(_ends_session(reply) for reply in (*t.rcpt, t.data, t.dot) if reply),
        worked,
    )


def decide_greeting(reply: Reply) -> Trouble:
    """The provider answered the connection, EHLO or STARTTLS with a no: temporary, whatever its first digit."""
    cause = Cause.THROTTLED if _is_throttle(reply) else Cause.UNREACHABLE
    return Trouble(LaneEvent.PAUSE, cause, f"the server does not let us begin: {reply}")


def decide_login(reply: Reply) -> Trouble:
    """AUTH was answered with a no: a clear one holds the lane, any other pauses it."""
    if reply.code // 100 == 5:
        trouble = _about_touchpoint(reply)
        if trouble is not None and trouble.cause is not Cause.QUOTA:
            return trouble
        return Trouble(LaneEvent.HOLD, Cause.LOGIN, f"the login was refused: {reply}")
    return Trouble(LaneEvent.PAUSE, Cause.LOGIN, f"the login was put off: {reply}")


def defer_for(trouble: Trouble, phase: Phase, reply: Reply | None = None) -> Judged:
    """Return the outcome of a recipient whose attempt never came to MAIL."""
    return Judged(Outcome(Fate.DEFERRED, phase, reply, trouble.detail), Wait.LANE)


def refuse_all(recipients: int, phase: Phase, reply: Reply) -> Decision:
    """Return the decision for a message that this provider cannot take by what its EHLO said; nothing was sent."""
    return Decision((Judged(Outcome(Fate.REFUSED, phase, reply)),) * recipients, None, True, False)


# --- one phase each --------------------------------------------------------------------------------------------------


def _mail_refused(t: Transcript, reply: Reply, null_return_path: bool) -> Decision:
    judged, trouble = _judge_mail(reply, t.proven, null_return_path)
    return Decision(
        (judged,) * len(t.rcpt), trouble, t.lost is None and not _ends_session(reply) and reply.code != 503, False
    )


def _judge_mail(reply: Reply, proven: bool, null_return_path: bool) -> tuple[Judged, Trouble | None]:
    trouble = _about_touchpoint(reply)
    if trouble is not None:
        return _deferred(Phase.MAIL, reply, Wait.LANE), trouble
    if _ends_session(reply):
        # A provider that wants a new session after some messages says so here.
        return (_deferred(Phase.MAIL, reply, Wait.NOW), None) if proven else _throttled(Phase.MAIL, reply, Wait.LANE)
    if _is_throttle(reply):
        return _throttled(Phase.MAIL, reply, Wait.LANE)
    if not _is_clear_no(reply) or reply.code in (500, 502, 503):  # 503: out of step, which is about nobody's mail
        return _deferred(Phase.MAIL, reply, Wait.CLOCK), None
    if null_return_path or (reply.code in _MESSAGE_CODES and not reply.status.startswith(("5.1.", "5.7."))):
        # Some providers take no null return path at all; that says nothing about the touchpoint.
        return Judged(Outcome(Fate.REFUSED, Phase.MAIL, reply)), None
    if _MESSAGE_STATUS.match(reply.status):
        return Judged(Outcome(Fate.REFUSED, Phase.MAIL, reply)), None
    # All that MAIL names is the touchpoint's own address: a no to it is a no to the touchpoint.
    held = Trouble(LaneEvent.HOLD, Cause.PERMISSION, f"the provider refuses the touchpoint's address: {reply}")
    return _deferred(Phase.MAIL, reply, Wait.LANE), held


def _judge_rcpt(reply: Reply | None, t: Transcript) -> tuple[Judged | None, Trouble | None]:
    """Return None for a recipient whose fate the later phases decide."""
    if reply is None:
        return _lost(t, Phase.RCPT), None
    if _is_good(reply):
        return None, None
    trouble = _about_touchpoint(reply)
    if trouble is not None:
        return _deferred(Phase.RCPT, reply, Wait.LANE), trouble
    if reply.code in (452, 552) and any(other is not None and _is_good(other) for other in t.rcpt):
        # "Too many recipients": what was taken so far goes, the rest follows in a transaction of its own
        # (RFC 5321 §4.5.3.1.10, which knows 552 as the older form).
        return _deferred(Phase.RCPT, reply, Wait.NOW), None
    return _judge(Phase.RCPT, reply, t.proven)


def _judge_data(t: Transcript) -> tuple[Judged, Trouble | None]:
    if t.dot is not None:
        if t.dot.code // 100 in (2, 4, 5):
            return _judge(Phase.DOT, t.dot, t.proven)
        # Not an answer to what we asked. The message may be with them.
        return Judged(Outcome(Fate.UNCERTAIN, Phase.DOT, t.dot, "an answer that means nothing behind the dot")), None
    if t.dotted:
        detail = f"{t.lost or 'no answer'}; the message may have left"
        return Judged(Outcome(Fate.UNCERTAIN, Phase.DOT, None, detail)), None
    if t.data is None or t.data.code == 354:
        return _lost(t, Phase.DATA), None
    if _is_good(t.data):  # 2yz to DATA: out of step
        return _deferred(Phase.DATA, t.data, Wait.BACKOFF), None
    return _judge(Phase.DATA, t.data, t.proven)


def _judge(phase: Phase, reply: Reply, proven: bool) -> tuple[Judged, Trouble | None]:
    if _is_good(reply):  # any 2yz behind the dot is an acceptance, not only 250
        return Judged(Outcome(Fate.ACCEPTED, phase, reply)), None
    trouble = _about_touchpoint(reply)
    if trouble is not None:
        return _deferred(phase, reply, Wait.LANE), trouble
    if _is_throttle(reply) or (_ends_session(reply) and not proven):
        # From RCPT on the message itself may be what they cannot stand: it waits by its own clock, so that it
        # cannot stand before the others each time the lane opens.
        return _throttled(phase, reply, Wait.CLOCK)
    if _is_clear_no(reply):
        return Judged(Outcome(Fate.REFUSED, phase, reply)), None
    return _deferred(phase, reply, Wait.CLOCK), None


def _lost(t: Transcript, phase: Phase) -> Judged:
    """The link was lost and nothing has left us."""
    if phase is Phase.MAIL and t.proven:
        return Judged(Outcome(Fate.DEFERRED, phase, None, t.lost or "no answer"), Wait.NOW)
    return Judged(Outcome(Fate.DEFERRED, phase, None, t.lost or "no answer"), Wait.BACKOFF)


def _all_alike(t: Transcript, phase: Phase, judged: Judged) -> Decision:
    trouble = None if t.proven else _unreachable(t.lost or "no answer")
    return Decision((judged,) * len(t.rcpt), trouble, False, False)


# --- reading a reply -------------------------------------------------------------------------------------------------


def _about_touchpoint(reply: Reply) -> Trouble | None:
    """A no that is about the touchpoint in every phase, or None."""
    text = f"{reply.status} {reply.text}"
    for pattern, cause in _TOUCHPOINT_TEXTS:
        if reply.code // 100 == 5 and pattern.search(text):
            return Trouble(LaneEvent.HOLD, cause, str(reply))
    if reply.code in _LOGIN_CODES:
        return Trouble(LaneEvent.HOLD, Cause.LOGIN, f"the provider wants a login: {reply}")
    if reply.code // 100 in (4, 5) and _QUOTA.search(text):
        return Trouble(LaneEvent.PAUSE, Cause.QUOTA, str(reply))
    return None


def _deferred(phase: Phase, reply: Reply, wait: Wait) -> Judged:
    return Judged(Outcome(Fate.DEFERRED, phase, reply), wait)


def _throttled(phase: Phase, reply: Reply, wait: Wait) -> tuple[Judged, Trouble]:
    return _deferred(phase, reply, wait), Trouble(LaneEvent.PAUSE, Cause.THROTTLED, str(reply))


def _unreachable(detail: str) -> Trouble:
    return Trouble(LaneEvent.PAUSE, Cause.UNREACHABLE, detail)


def _is_good(reply: Reply) -> bool:
    return reply.code // 100 == 2


def _is_clear_no(reply: Reply) -> bool:
    return reply.code // 100 == 5


def _ends_session(reply: Reply) -> bool:
    return reply.code == 421


def _is_throttle(reply: Reply) -> bool:
    return reply.code == 432 or (reply.status == "4.3.2" and reply.code // 100 == 4)
