"""One attempt at one message: what is sent, and what is recorded of it.

Between a claim and its record lies the network; here is what needs none. The clock and the dice come in as values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gateway import events
from gateway.config import Touchpoint
from gateway.config.providers import refusals_of
from gateway.mime.trace import compose_trace
from gateway.model import Fate, OutboxKind, Phase, Reply, from_ms, show_id, to_ms
from gateway.outbound.outcome import Cause, Decision, Judged, Transcript, Trouble, Wait, refuse_all
from gateway.outbound.relay import Letter, is_sendable
from gateway.outbound.schedule import RetryPolicy, delay_after, ladder_ms, next_attempt
from gateway.state import lanes
from gateway.state.lifecycle import Event, LaneEvent, State, move
from gateway.state.outbox import Claimed, Done, Fated, Recipient
from gateway.text import clean

_QUOTA_MS: Final = 3_600_000  # a day's quota comes back bit by bit
_FATES: Final = {Fate.ACCEPTED: Event.ACCEPTED, Fate.REFUSED: Event.REFUSED, Fate.UNCERTAIN: Event.INTERRUPTED}
# What held the lane and is over as soon as there is a connection. A throttle or a missing permission is over when the
# provider has let us name a recipient.
_OVER_WITH_A_LINK: Final = frozenset({Cause.LOGIN, Cause.SWITCHED_OFF, Cause.CERTIFICATE, Cause.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Settings:
    """What attempts are made by; a reload counts from the next drain."""

    touchpoint: Touchpoint
    hostname: str
    source_address: str
    policy: RetryPolicy

    @property
    def table(self) -> str:
        """The table of `refusals` that knows what this touchpoint's provider says."""
        host = self.touchpoint.smtp.host if self.touchpoint.smtp is not None else ""
        return refusals_of(self.touchpoint.profile, host)

    @property
    def owes_copies(self) -> bool:
        """Whether we put a copy of what was sent into Sent, because the provider does not."""
        return self.touchpoint.sent_copy == "append" and self.touchpoint.imap is not None


Sign = Callable[[Claimed], Awaitable[bytes]]
"""Returns a field that stands above our trace field (DKIM), "" for none. Raises Unavailable, with one line, where it
should sign and cannot: then the lane is held and the mail waits."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`now`: ms. `jitter` in [0, 1)."""

    now: int
    jitter: float


# --- what is sent ----------------------------------------------------------------------------------------------------


def letter_of(
    claimed: Claimed,
    recipients: Sequence[Recipient],
    settings: Settings,
    now: int,
    read_chunk: Callable[[int], Awaitable[bytes | None]],
    signature: bytes = b"",
) -> Letter:
    """Return what goes over the wire for these of the claimed recipients. `signature`: a field, with its CRLF."""
    return Letter(
        claimed.return_path,
        tuple(recipient.address for recipient in recipients),
        claimed.eight_bit,
        claimed.smtputf8,
        signature + compose_trace(settings.hostname, claimed.id, claimed.attempt, now),
        claimed.size,
        claimed.raw,
        read_chunk,
        tuple(recipient.wish for recipient in recipients),
        claimed.envid,
        claimed.ret,
    )


def wants_an_address(letter: Letter, transcript: Transcript) -> bool:
    """Return whether a server that has refused the null return path may take the touchpoint's own address instead.

    Some want an address of whoever has logged in, in automatic mail too (dovecot/documentation#680, of Gmail). What
    comes back there is then known by what it is about.
    """
    refused = transcript.mail is not None and transcript.mail.code // 100 == 5
    return not letter.return_path and refused and transcript.lost is None


def refuse_beforehand(address: str, smtputf8: bool) -> Judged | None:
    """Return the outcome of an address that no command can carry; None for all others."""
    if is_sendable(address, smtputf8):
        return None
    return refuse_all(1, Phase.RCPT, Reply(553, "5.1.3", "the address cannot be written in an SMTP command")).judged[0]


def part_of(addresses: Sequence[str], most: int | None, domains: int | None) -> list[int]:
    """Return which recipients go into one transaction of a server that takes so many, of so many domains (RFC 9422
    LIMITS; None: no word). At least one; the others follow in transactions of their own."""
    if domains is None:
        return list(range(len(addresses)))[:most]
    chosen: list[int] = []
    seen: set[str] = set()
    for index, address in enumerate(addresses):
        domain = address.rpartition("@")[2].lower()
        if len(chosen) == most:
            break
        if domain in seen or len(seen) < domains:
            seen.add(domain)
            chosen.append(index)
    return chosen


# --- what is recorded ------------------------------------------------------------------------------------------------


def conclude(
    claimed: Claimed, judged: Sequence[Judged], begun: set[int], decision: Decision, settings: Settings, at: Moment
) -> Done:
    """Return the record of an attempt that had a connection. `begun`: indexes of the recipients in `sending`."""
    change = None
    if decision.trouble is not None:
        change = change_of(decision.trouble, settings, at)
    elif claimed.probing is not None and (decision.worked or claimed.probing in _OVER_WITH_A_LINK):
        change = lanes.Change(claimed.touchpoint, LaneEvent.WORKED, at.now)
    counted = any(one.outcome.fate is Fate.ACCEPTED for one in judged)
    return _done(claimed, judged, begun, settings, at, counted, change)


def put_back(claimed: Claimed, judged: Judged, change: lanes.Change | None, settings: Settings, at: Moment) -> Done:
    """Return the record of an attempt that never had a connection."""
    count = len(claimed.recipients)
    begun = set(range(count)) if claimed.begun else set()
    return _done(claimed, [judged] * count, begun, settings, at, False, change)


def _done(
    claimed: Claimed,
    judged: Sequence[Judged],
    begun: set[int],
    settings: Settings,
    at: Moment,
    counted: bool,
    change: lanes.Change | None,
) -> Done:
    fated = tuple(
        _fated(recipient, one, State.SENDING if index in begun else recipient.before, settings.policy, at)
        for index, (recipient, one) in enumerate(zip(claimed.recipients, judged, strict=True))
    )
    is_written = claimed.kind is OutboxKind.REPLY  # automatic answers settle nothing, and nobody looks for them in Sent
    return Done(
        claimed.id, claimed.touchpoint, claimed.attempt, claimed.kind, fated, at.now, counted, change,
        answers=claimed.answers if is_written else None, copies=counted and is_written and settings.owes_copies,
    )  # fmt: skip


def _fated(recipient: Recipient, judged: Judged, before: State, policy: RetryPolicy, at: Moment) -> Fated:
    outcome = judged.outcome
    said = ": ".join(part for part in (outcome.detail, str(outcome.reply) if outcome.reply else "") if part)
    said = clean(said)
    if (event := _FATES.get(outcome.fate)) is not None:
        return Fated(recipient.number, before, event, said, None, recipient.waited)
    if judged.wait is Wait.CLOCK:
        waited = timedelta(milliseconds=recipient.waited)
        following = next_attempt(policy, waited, from_ms(at.now), at.jitter, judged.asked)
        if following is None:
            return Fated(recipient.number, before, Event.GAVE_UP, said, None, recipient.waited)
        new_waited = round(following.waited.total_seconds() * 1000)
        return Fated(recipient.number, before, Event.PUT_OFF, said, to_ms(following.due_at), new_waited)
    due = at.now
    if judged.wait is Wait.BACKOFF:
        delay = delay_after(policy.delays, recipient.attempts) * (1 + policy.spread * at.jitter)
        due += round(delay.total_seconds() * 1000)
    event = Event.PUT_OFF if outcome.reply else Event.CUT_BEFORE_DOT
    return Fated(recipient.number, before, event, said, due, recipient.waited)


def change_of(trouble: Trouble, settings: Settings, at: Moment) -> lanes.Change:
    """Return what a trouble does to the lane."""
    policy = settings.policy
    delays = policy.probe_delays if trouble.event is LaneEvent.HOLD else policy.dial_delays
    ladder = (_QUOTA_MS,) if trouble.cause is Cause.QUOTA else ladder_ms(delays, policy.spread, at.jitter)
    detail = clean(trouble.detail)
    asked = None if trouble.asked is None else round(trouble.asked.total_seconds() * 1000)
    until = None if asked is None else at.now + asked
    if asked is not None and trouble.event is LaneEvent.HOLD:
        # "wrong password, try again in a second": a login that is tried that often is locked before anybody mends it
        ladder, until = tuple(max(delay, asked) for delay in ladder), None
    return lanes.Change(settings.touchpoint.id, trouble.event, at.now, trouble.cause.value, detail, ladder, until)


def leaves_something_to_look_at(done: Done) -> bool:
    """Return whether the mailbox has something to do now: evidence to find, a copy to file, an answer to mark."""
    owed = done.counted and (done.copies or done.answers is not None)
    return owed or any(fated.event is Event.INTERRUPTED for fated in done.fated)


def log_attempt(claimed: Claimed, done: Done, relay: str) -> None:
    """One line a recipient, after the record is on disk."""
    delay = show_delay(done.at - claimed.accepted_at)
    id = show_id(claimed.id)
    for recipient, fated in zip(claimed.recipients, done.fated, strict=True):
        state = move(fated.before, fated.event)
        outcome = state.value if state else fated.event.value
        events.attempt(id, recipient.address, relay, claimed.attempt, outcome, fated.reply or "", delay)


def show_delay(ms: int) -> str:
    """Return a duration as people read it: 0.4s, 3m07s, 2h04m."""
    seconds = max(0, ms) / 1000
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{minutes}m{int(seconds % 60):02d}s" if minutes < 60 else f"{hours}h{minutes % 60:02d}m"
