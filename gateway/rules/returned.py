"""What a report means for us: which of our recipients it is about, who has to hear of it, which address is no good.

Anybody can write a report, so an address is blamed only when the report names a message that really went to that
address; and a conversation is only reopened by a report about a message of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from gateway.model import Notify, OutboxKind, Wish, personal_queue
from gateway.rules.dsn import Action, Report, Told
from gateway.rules.undelivered import NOTE_LETTERS, is_hard, note_of
from gateway.text import clean

STRANGE: Final = "Not about mail that left through here. It says: "
_EVENTS: Final = {Action.FAILED: Notify.FAILURE, Action.DELAYED: Notify.DELAY}


@dataclass(frozen=True, slots=True)
class SentTo:
    """A recipient of a message of ours. `is_sent`: the message has left for this address, or may have."""

    number: int
    address: str
    is_sent: bool
    wish: Wish


@dataclass(frozen=True, slots=True)
class Sent:
    """The message of ours that a report is about."""

    id: int
    kind: OutboxKind
    agent: str
    conversation: int | None
    message_id: str
    recipients: tuple[SentTo, ...]

    def place_of(self, told: Told) -> SentTo | None:
        """Return the recipient that a report names, None where it names none of ours."""
        named = {_key(one) for one in told.addresses}
        return next((one for one in self.recipients if _key(one.address) in named), None)


@dataclass(frozen=True, slots=True)
class Meaning:
    """`note`: one plain sentence a recipient, "" where nothing is understood. `is_failure`: somebody must look.

    `is_wanted`: the writer asked to hear of this, or would. `is_proven`: it names a recipient to whom we sent this very
    message. `bounced`: (number, sentence) of recipients that did not
    get it; `hard`: (address in lower case, sentence) of those that nobody need write to again.
    """

    note: str
    is_failure: bool = False
    is_wanted: bool = False
    is_proven: bool = False
    bounced: tuple[tuple[int, str], ...] = ()
    hard: tuple[tuple[str, str], ...] = ()


def interpret(report: Report, sent: Sent | None, *, is_known: bool = False) -> Meaning:
    """Return what a report means. `sent`: what it is about, None where that did not leave through us; `is_known`: it is
    nevertheless part of a conversation of ours (an agent sent it past us).
    """
    if sent is None:
        note = note_of(report.recipients)
        if note and not is_known:
            note = clean(STRANGE + note, NOTE_LETTERS)
        return Meaning(note, is_failure=_is_failure(report.recipients or (report.general,)))
    told = [_meant(one, sent.place_of(one), sent.recipients) for one in report.recipients]
    known = [one for one in told if one[1] is not None or one[0].is_named]
    to_agent = sent.kind is OutboxKind.REPLY
    if not known:  # nobody is named that we can be sure of
        if not (report.general.code or report.general.status):
            return Meaning("", is_failure=to_agent, is_wanted=to_agent)
        known = [_meant(report.general, None, sent.recipients)]
    failed = [(one, place) for one, place in known if one.action is Action.FAILED]
    return Meaning(
        note_of([one for one, _ in known]),
        is_failure=bool(failed) and to_agent,
        is_wanted=to_agent and any(_is_wanted(one, place) for one, place in known),
        is_proven=any(one.is_sent for told in report.recipients if (one := sent.place_of(told)) is not None),
        bounced=tuple(_once({place.number: note_of([one]) for one, place in failed if place is not None})),
        hard=tuple(
            (place.address.lower(), note_of([one]))
            for one, place in failed
            if place is not None and place.is_sent and is_hard(one) and _names(one, place)
        ),
    )


def _meant(told: Told, place: SentTo | None, recipients: Sequence[SentTo]) -> tuple[Told, SentTo | None]:
    """Where the message went to one address only, that is who is meant, whatever it led to."""
    if place is None and len(recipients) == 1:
        (place,) = recipients
        told = replace(told, original=place.address, address=told.address or place.address)
    return told, place


def _names(told: Told, place: SentTo) -> bool:
    # An address that forwards is not to blame for where it leads
    return _key(told.address) == _key(place.address)


def _key(address: str) -> str:
    """Return what two ways to write one address have in common: case, and the letters of its domain (RFC 5891)."""
    local, at, domain = address.lower().rpartition("@")
    if not domain.isascii():
        with suppress(UnicodeError):
            domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain}"


def _is_wanted(told: Told, place: SentTo | None) -> bool:
    event = _EVENTS.get(told.action, Notify.SUCCESS)
    return place is None or place.wish.wants(event)


def _is_failure(told: Sequence[Told]) -> bool:
    return any(one.action is Action.FAILED for one in told)


def _once(found: Mapping[int, str]) -> Sequence[tuple[int, str]]:
    return sorted(found.items())


def queue_of_writer(sent: Sent) -> str:
    return personal_queue(sent.agent.lower())
