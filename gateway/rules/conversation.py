"""Which messages belong together, and what a message does to the conversation that it joins.

A conversation is tied by Message-ID, In-Reply-To and References, within one touchpoint. It is known by hashes of
these ids: an index of 64-bit numbers stays small and quick with millions of messages, and two ids in one store
share a number about once in 10^7 stores of a million ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from gateway.mime.scan import HeaderFacts
from gateway.model import MessageClass, Step, Verdict
from gateway.rules.classify import auto_submitted


class ConversationState(StrEnum):
    OPEN = "open"
    CLAIMED = "claimed"
    ANSWERED = "answered"
    CLOSED = "closed"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Ties:
    """Thread keys. `own`: of the message itself; `parents`: of what it answers, the likeliest first."""

    own: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()


def thread_key(touchpoint: str, message_id: str) -> int:
    """Return 64 bits, signed as SQLite has them. Angle brackets, white space and case do not matter: some systems
    change them on the way.
    """
    plain = "".join(message_id.split()).strip("<>").lower()
    digest = blake2b(f"{touchpoint}\0{plain}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def thread_keys(touchpoint: str, message_ids: Sequence[str]) -> tuple[int, ...]:
    """Return the keys of several ids, each once, in their order."""
    return tuple(dict.fromkeys(thread_key(touchpoint, one) for one in message_ids if one))


def ties_of(touchpoint: str, facts: HeaderFacts) -> Ties:
    """Return what ties a message: In-Reply-To names the parent, References names it last (RFC 5322 §3.6.4)."""
    # Outlook.com's SMTP replaces the Message-ID and keeps the first one here (seen in chatmail/core#2250)
    original = facts.value("x-microsoft-original-message-id")
    own = thread_keys(touchpoint, (facts.message_id, original))
    parents = thread_keys(touchpoint, (*facts.in_reply_to, *reversed(facts.references)))
    return Ties(own, tuple(key for key in parents if key not in own))


def is_reopening(message_class: MessageClass, facts: HeaderFacts) -> bool:
    """Does this message ask for somebody's attention when it joins an answered conversation?

    An absence note and a read receipt do not: each of our answers would bring its conversation back. Other automatic
    mail does, for ticket systems mark what people wrote in them as generated.
    """
    if message_class is MessageClass.REPORT:
        return False
    return message_class is not MessageClass.AUTO_REPLY or auto_submitted(facts) == "auto-generated"


def begin(verdict: Verdict) -> ConversationState:
    """Return the state of a conversation that begins with a message of this verdict."""
    if verdict.quarantine:
        return ConversationState.QUARANTINED
    return ConversationState.CLOSED if verdict.discard else ConversationState.OPEN


def follow(state: ConversationState, owner: str | None, verdict: Verdict, *, is_reopening: bool) -> ConversationState:
    """Return the state after a message has joined. One that is quarantined or discarded changes nothing."""
    if verdict.quarantine or verdict.discard:
        return state
    if state is ConversationState.QUARANTINED:
        return ConversationState.OPEN
    if is_reopening and state in (ConversationState.ANSWERED, ConversationState.CLOSED):
        return ConversationState.CLAIMED if owner else ConversationState.OPEN
    return state


def answer(state: ConversationState) -> ConversationState:
    """Return the state after an agent has replied."""
    return state if state is ConversationState.QUARANTINED else ConversationState.ANSWERED


def place(verdict: Verdict, existing: Sequence[str]) -> tuple[tuple[str, ...], Step | None]:
    """Return the queues of a message that joins a conversation in the queues `existing`, and the step that says why.

    A conversation stays where it is, so that a customer's second mail does not land with strangers; `reroute` in a
    rule moves it.
    """
    if not existing:
        return verdict.queues, None
    there, wanted = ", ".join(existing), ", ".join(verdict.queues)
    if verdict.reroute:
        return verdict.queues, Step("conversation", f"was in {there}; a rule says reroute", f"moved to {wanted}")
    return tuple(existing), Step("conversation", "continues one that is here", f"stays in {there}")
