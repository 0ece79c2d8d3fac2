"""Why a message did not arrive, in one plain sentence; and whether the address is to blame for good.

Servers agree on little. The enhanced status (RFC 3463) is believed where it says something exact; where it is one of
the codes that everybody uses for everything (5.0.0, 5.7.1 …) the words decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from gateway.rules.dsn import Action, Told
from gateway.text import clean

SENTENCES: Final = 5  # of one note
NOTE_LETTERS: Final = 1_000
_DETAIL_LETTERS: Final = 150


class Reason(Enum):
    """The value goes into the sentence."""

    NO_MAILBOX = "there is no such mailbox"
    NO_DOMAIN = "its domain takes no mail"
    SWITCHED_OFF = "the mailbox is switched off"
    REFUSED = "the other server refused it"
    FULL = "the mailbox is full"
    BUSY = "the mailbox gets too much mail at the moment"
    TOO_LARGE = "the message is too large for the other server"
    POLICY = "the other server takes it for spam, or a policy forbids it"
    CONTENT = "the other server cannot take what is in the message"
    LOOP = "it went round in circles"
    UNREACHABLE = "the other server could not be reached"
    EXPIRED = "the other server did not take it for too long"
    UNSAID = "no reason is given"


# About the address itself, whoever writes to it and whatever it is
_HARD: Final = frozenset({Reason.NO_MAILBOX, Reason.NO_DOMAIN, Reason.SWITCHED_OFF, Reason.REFUSED})

# RFC 3463 §3, without its class; Exchange's own three-digit details as it documents them
_BY_STATUS: Final = {
    "1.1": Reason.NO_MAILBOX,
    "1.2": Reason.NO_DOMAIN,
    "1.3": Reason.NO_MAILBOX,
    "1.6": Reason.NO_MAILBOX,  # moved
    "1.10": Reason.NO_MAILBOX,  # Exchange: RecipientNotFound; RFC 7505 null MX says 5.1.10 as well
    "1.351": Reason.NO_MAILBOX,
    "2.1": Reason.SWITCHED_OFF,
    "2.2": Reason.FULL,
    "2.3": Reason.TOO_LARGE,
    "3.4": Reason.TOO_LARGE,
    "4.1": Reason.UNREACHABLE,
    "4.2": Reason.UNREACHABLE,
    "4.3": Reason.UNREACHABLE,
    "4.4": Reason.NO_DOMAIN,
    "4.6": Reason.LOOP,
    "4.7": Reason.EXPIRED,
    "4.14": Reason.LOOP,
    "4.300": Reason.EXPIRED,
    "4.310": Reason.NO_DOMAIN,
    "4.316": Reason.UNREACHABLE,
    "6.0": Reason.CONTENT,
    "6.1": Reason.CONTENT,
    "6.2": Reason.CONTENT,
    "6.3": Reason.CONTENT,
    "6.7": Reason.CONTENT,
}
_BY_SUBJECT: Final = {"3": Reason.REFUSED, "4": Reason.UNREACHABLE, "6": Reason.CONTENT, "7": Reason.POLICY}

_NO_MAILBOX: Final = re.compile(
    r"(?:user|recipient|mailbox|address|account)(?: \S{1,80})? (?:is )?"
    r"(?:unknown|not found|not known|unavailable|invalid)"
    r"|(?:unknown|no such|invalid|non-?existent) (?:\w{1,20} )?(?:user|recipient|mailbox|address|account|local|person)"
    r"|(?:does not|doesn't|do not|didn't) exist|couldn't be found|could not be found|unrouteable|recipientnotfound"
    r"|no mailbox here|no user\b",
    re.IGNORECASE,
)
_POLICY: Final = re.compile(
    r"\bspam|\bblock|blacklist|reputation|\bdmarc|\bspf\b|\bdkim|\bpolic(?:y|ies)|not authori[sz]ed|banned"
    r"|access denied|unsolicited|\blisted (?:at|in|by)|relay(?:ing)? (?:access )?denied|not permitted|unauthenticated",
    re.IGNORECASE,
)
_WORDS: Final = (
    (r"over ?quota|quota (?:is )?exceeded|exceed\w* \S{0,20} ?quota|\bfull\b", Reason.FULL),
    (r"at a rate|too (?:quickly|many messages)|receiving mail too", Reason.BUSY),
    (_NO_MAILBOX.pattern, Reason.NO_MAILBOX),
    (r"(?:host|domain|name)(?: \S{1,80})? (?:not found|unknown|does not|no mail)", Reason.NO_DOMAIN),
    (r"name service error|nxdomain", Reason.NO_DOMAIN),
    (r"null mx|no mx\b|does not accept mail", Reason.NO_DOMAIN),
    (
        r"(?:mailbox|account|user)(?: \S{1,80})? (?:is |has been )?(?:disabled|inactive|suspended|closed)",
        Reason.SWITCHED_OFF,
    ),
    (r"too (?:large|big)|size (?:limit|exceed)|exceeds? (?:\w{1,20} ){0,4}size|maximum size", Reason.TOO_LARGE),
    (_POLICY.pattern, Reason.POLICY),
    (r"too many hops|mail loop|loops back|routing loop", Reason.LOOP),
    (r"expired|too long|retry time", Reason.EXPIRED),
    (r"timed? ?out|connection refused|unreachable|no route|lost connection|couldn't connect", Reason.UNREACHABLE),
)
_BY_WORDS: Final = tuple((re.compile(shape, re.IGNORECASE), reason) for shape, reason in _WORDS)
_ADDRESS_AHEAD: Final = re.compile(r"<[^<>\s]{1,320}>[:.\s]*")  # the sentence names it already


def reason_of(told: Told) -> Reason:
    """Return the reason as far as status, code and words tell it."""
    words = told.said
    exact = _BY_STATUS.get(told.status.partition(".")[2])
    if exact is Reason.NO_MAILBOX and _POLICY.search(words) and not _NO_MAILBOX.search(words):
        return Reason.POLICY  # seen: 550 5.1.1 from servers that refuse the sender
    if exact is Reason.SWITCHED_OFF:  # seen: Gmail's 5.2.1 for one that gets mail too quickly
        return next((reason for shape, reason in _BY_WORDS[:3] if shape.search(words)), exact)
    if exact is not None:
        return exact
    if words and (found := next((reason for shape, reason in _BY_WORDS if shape.search(words)), None)):
        return found
    if (subject := _BY_SUBJECT.get(told.status[2:3])) is not None:
        return subject
    return Reason.REFUSED if told.code or told.status or words else Reason.UNSAID


def is_hard(told: Told) -> bool:
    """Is it of no use to write to this address again? Never for quota, policy, size, or what is temporary, nor for an
    address that only stands in a sentence.
    """
    return told.is_named and told.action is Action.FAILED and told.is_permanent and reason_of(told) in _HARD


def sentence(told: Told) -> str:
    """Return e.g. "Not delivered to bob@example.net: there is no such mailbox (550 5.1.1 user unknown)."."""
    who = _who(told)
    match told.action:
        case Action.FAILED:
            return f"Not delivered to {who}: {reason_of(told).value}{_detail(told)}."
        case Action.DELAYED:
            because = "" if reason_of(told) is Reason.UNSAID else f": {reason_of(told).value}"
            return f"Delayed on its way to {who}{because}{_detail(told)}; it is still being tried."
        case Action.DELIVERED:
            return f"Delivered to {who}, as the other system says."
        case Action.RELAYED:
            return f"Passed on for {who} to a system that will not report again."
        case Action.EXPANDED:
            return f"Passed on to the members of {who}."


def note_of(told: Sequence[Told]) -> str:
    """Return the sentences about all recipients, "" about none."""
    said = " ".join(sentence(one) for one in told[:SENTENCES])
    if len(told) > SENTENCES:
        said += f" The report names {len(told) - SENTENCES} more."
    return clean(said, NOTE_LETTERS)


def _who(told: Told) -> str:
    address = clean(told.original or told.address, 120)
    if told.original and told.address and told.original.lower() != told.address.lower():
        return f"{address} (it leads to {clean(told.address, 120)})"
    return address or "its recipient"


def _detail(told: Told) -> str:
    said = _ADDRESS_AHEAD.sub("", told.said, count=1) if told.said.startswith("<") else told.said
    parts = (str(told.code) if told.code else "", told.status, said)
    text = clean(" ".join(part for part in parts if part), _DETAIL_LETTERS).rstrip(" .,;:")
    return f" ({text})" if text else ""
