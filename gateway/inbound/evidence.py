"""What lies in the provider's Sent folder, and what that says about attempts whose answer never came (DESIGN §5).

Only the trace field of an attempt proves anything: a Message-ID is the same in another recipient's attempt and in a
copy that a client filed itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gateway.mime.trace import Trace
from gateway.model import to_ms

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS

# Two looks that see nothing have to be so far apart: providers file copies late now and then
APART_MS: Final = 5 * _MINUTE_MS
# So long a server may think about the final dot (RFC 5321 §4.5.3.2.6). It goes on when we are killed and our link is
# gone, takes the message in the end, and files its copy then
THINKING_MS: Final = 10 * _MINUTE_MS
# When to look, by the age of the attempt; then hourly until it is five days old, as long as mail is tried, then daily
LOOKS_MS: Final = (_MINUTE_MS, 5 * _MINUTE_MS, 15 * _MINUTE_MS, _HOUR_MS)
HOURLY_MS: Final = _HOUR_MS
DAILY_AFTER_MS: Final = 5 * _DAY_MS
# A copy's INTERNALDATE is the server's clock, or the Date that the agent's client wrote
SLACK_MS: Final = _HOUR_MS


class Doubted(Protocol):
    """A recipient whose fate is not known (`state.doubts.Doubt`). Times are ms.

    `why`: uncertain: just this `attempt`; restored: every later one. `absent_at`: when nothing was seen for the first
    time, although a later message was; None: not yet. `recipients_of_message`: how many there are beside this one, and
    this one.
    """

    @property
    def outbox(self) -> int: ...
    @property
    def why(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def tried_at(self) -> int: ...
    @property
    def absent_at(self) -> int | None: ...
    @property
    def recipients_of_message(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw. `attempts`: by queue id. `latest_at` (ms): of the youngest attempt that was seen, 0 for none;
    what is dated later than `now` was dated by a wrong clock, ours or another gateway's, and is later than nothing.

    `complete`: everything was looked at that could be the copy. `merged`: messages of which a copy is there at a
    provider that keeps one of each Message-ID: Gmail files no second one, and lets a client's copy take the place of
    its own, so that the trace of an attempt may be missing although it has left.
    """

    attempts: dict[int, frozenset[int]]
    latest_at: int
    complete: bool
    merged: frozenset[int] = frozenset()

    @classmethod
    def of(cls, seen: Iterable[Trace], complete: bool, now: int | None = None) -> Sight:
        attempts: dict[int, set[int]] = {}
        latest_at = 0
        for trace in seen:
            attempts.setdefault(trace.queue_id, set()).add(trace.attempt)
            if trace.at is not None and (now is None or to_ms(trace.at) <= now):
                latest_at = max(latest_at, to_ms(trace.at))
        return cls({id: frozenset(numbers) for id, numbers in attempts.items()}, latest_at, complete)


@dataclass(frozen=True, slots=True)
class Settled:
    """It is known. `sent`: a copy carries this attempt's trace; else the attempt never reached the provider."""

    sent: bool


@dataclass(frozen=True, slots=True)
class Open:
    """It is not known. `absent`: nothing was seen although a later message was. `next_at` (ms): of the next look."""

    absent: bool
    next_at: int
    because: Literal["no copy", "nothing later", "not all seen", "sent to some", "no copies kept", "one copy of all"]


def is_sent(doubt: Doubted, sight: Sight) -> bool:
    """Whether an attempt in doubt has left its copy."""
    seen = sight.attempts.get(doubt.outbox, frozenset())
    return doubt.attempt in seen if doubt.why == "uncertain" else any(attempt > doubt.attempt for attempt in seen)


def judge(doubt: Doubted, sight: Sight, now: int, provider_files: bool) -> Settled | Open:
    """Return what a look at Sent means for a recipient. `provider_files`: whether the provider keeps copies at all.

    Absence counts where the provider keeps copies, after two looks at least five minutes apart, each with a later
    message of the same touchpoint in sight: so the folder is the right one, its traces can be read, and what was sent
    since has come there. The second look waits until the provider cannot be thinking about the message any more.
    """
    if is_sent(doubt, sight):
        if doubt.why == "uncertain" or doubt.recipients_of_message == 1:
            return Settled(sent=True)
        # To whom that attempt went stood in the store that is lost
        return Open(False, _next_look(doubt.tried_at, now), "sent to some")
    if not provider_files:
        return Open(False, _next_look(doubt.tried_at, now), "no copies kept")
    if doubt.outbox in sight.merged:
        return Open(False, _next_look(doubt.tried_at, now), "one copy of all")
    if not sight.complete:
        return Open(False, _next_look(doubt.tried_at, now), "not all seen")
    if sight.latest_at <= doubt.tried_at:
        return Open(False, _next_look(doubt.tried_at, now), "nothing later")
    certain_at = (now if doubt.absent_at is None else doubt.absent_at) + APART_MS
    if doubt.why == "uncertain":
        certain_at = max(certain_at, doubt.tried_at + THINKING_MS)
    if doubt.absent_at is not None and now >= certain_at:
        return Settled(sent=False)
    return Open(True, certain_at, "no copy")


def _next_look(tried_at: int, now: int) -> int:
    for age in LOOKS_MS:
        if tried_at + age > now:
            return tried_at + age
    return now + (HOURLY_MS if now - tried_at < DAILY_AFTER_MS else _DAY_MS)
