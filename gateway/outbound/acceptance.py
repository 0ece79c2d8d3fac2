"""The door for agents' mail: may this agent write so? Then signature and fields, then the outbox, then `250`.

Three beats: gather the facts, decide in cores, write once. The reply says "queued" only after the commit. A client
that goes away in the middle changes nothing here: what was read whole is stored, and only its 250 is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import format_datetime
from functools import partial
from typing import Final, Protocol, TypeVar, TypeVarTuple

from gateway import events
from gateway.config import Agent, Config, Touchpoint
from gateway.errors import Unavailable
from gateway.mime.scan import HeaderFacts, scan
from gateway.mime.templates import TemplateFault, render_line
from gateway.model import Envelope, Signed, Submission, Wish, show_id
from gateway.outbound.addressing import plain, same_mailbox
from gateway.outbound.data import DIGEST_BYTES
from gateway.outbound.header import compose_from, finish_header, refuse_header
from gateway.outbound.sender import (
    Refusal,
    Sender,
    decide_sender,
    is_own,
    is_signed,
    read_author,
)
from gateway.outbound.signature.inject import inject
from gateway.outbound.signature.render import context, render
from gateway.rules.conversation import thread_keys
from gateway.state import agents, outbox, queues, raw
from gateway.state.offers import Offer
from gateway.state.store import Store

_NEAREST: Final = 5  # ids of References, the parent first, by which the conversation of a reply is looked for
_TRACE_BYTES: Final = 200  # what an attempt puts in front, at most
_DKIM_BYTES: Final = 1_000

_INLINE_BYTES: Final = 64 * 1024  # up to here a signature costs less than the way to a worker process and back
_INJECT_SECONDS: Final = 20.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Workers(Protocol):
    """What we need of `gateway.workers.WorkerPool`."""

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts, timeout: float) -> T: ...


class Offers(Protocol):
    """What we need of `gateway.outbound.offers.Offers`: what a provider's EHLO said last, None where nobody knows."""

    def of(self, touchpoint: str) -> Offer | None: ...


class Warnings(Protocol):
    """Knows what an agent should hear about the recipients of a message that is accepted all the same."""

    def of(self, submission: Submission) -> queues.Notice | None: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """A message as a client has handed it over, read whole. `login`: the verified agent's, in lower case.

    `recipients`: at least one, no mailbox twice; `wishes` follows them, or is empty. `message`: CRLF, unstuffed;
    `digest`: of its bytes. `smtputf8`: the client said that it may hold UTF-8.
    """

    login: str
    return_path: str
    recipients: tuple[str, ...]
    message: bytes = field(repr=False)
    digest: bytes
    wishes: tuple[Wish, ...] = ()
    smtputf8: bool = False
    envid: str = ""
    ret: str = ""


class Acceptance:
    """One for the whole daemon; used on the asyncio thread. `on_accepted(touchpoint)` is called after each commit."""

    def __init__(
        self,
        current: Callable[[], Config],
        store: Store,
        workers: Workers,
        on_accepted: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        offers: Offers | None = None,
        warnings: Warnings | None = None,
    ) -> None:
        self._current = current
        self._offers = offers
        self._warnings = warnings
        self._store = store
        self._workers = workers
        self._on_accepted = on_accepted
        self._now = now
        self._allowed_in: Config | None = None
        self._allowed: dict[str, tuple[Touchpoint, ...]] = {}

    async def accept(self, draft: Draft) -> str:
        """Return the SMTP reply to a whole message. `250` means that it is on disk, and that it is there once.

        A client that has lost our 250 comes again with the same bytes; it gets the id that the first one got. Raises
        Unavailable when the store is away; then nothing is kept.
        """
        config = self._current()  # once: no message sees half of two configurations
        login, message = draft.login, draft.message
        agent = config.agents.get(login)
        if agent is None or not agent.active:
            return self._refuse(login, "550 5.7.1 this login has been switched off")
        facts = scan(message)
        if reply := refuse_header(facts, config.gateway.hostname):
            return self._refuse(login, reply)
        signed = is_signed(facts)
        sender = await self._decide(config, agent, facts, signed)
        if isinstance(sender, Refusal):
            return self._refuse(login, sender.reply)

        number, at = self._store.ids.next(), self._now()
        here = at.astimezone(config.gateway.timezone)
        touchpoint = config.touchpoints[sender.touchpoint]
        message_id = facts.message_id or f"<{show_id(number)}@{config.gateway.hostname}>"
        finished = finish_header(
            message,
            facts,
            login=agent.login,
            is_signed=signed,
            from_field=None if signed else _from_field(touchpoint, agent, sender, facts, here.date()),
            missing=_missing_fields(facts, message_id, here),
        )
        finished, signature = await self._sign(finished, touchpoint, agent, facts, here.date(), show_id(number))
        envelope = _envelope(draft, touchpoint, facts, finished)
        if reply := self._refuse_for_provider(touchpoint, envelope, len(finished)):
            return self._refuse(login, reply)
        submission = Submission(
            id=number,
            touchpoint=touchpoint.id,
            agent=agent.login,
            envelope=envelope,
            message_id=message_id,
            subject=facts.subject,
            accepted_at=at,
            raw=finished,
            references=_references(facts),
            signature=signature,
            signs_once=touchpoint.signature is not None and touchpoint.signature.when == "first",
        )
        notice = self._warnings.of(submission) if self._warnings is not None else None
        chunks = await raw.stage(self._store, number, finished)
        try:
            accepting = outbox.Accepting(submission, chunks, _digest(draft), notice)
            accepted = await self._store.submit(outbox.accept, accepting)
        except Exception:  # not a cancellation: then it may still be written
            raw.abandon(self._store, chunks)
            raise
        if accepted.is_repeated:
            raw.abandon(self._store, chunks)
            events.say("repeated", queue_id=show_id(accepted.id), agent=agent.login, message_id=message_id)
        else:
            self._on_accepted(touchpoint.id)
            recipients = len(draft.recipients)
            events.accepted(show_id(number), touchpoint.id, agent.login, len(finished), recipients, message_id)
            if signature not in tuple(Signed):
                events.warn("signature-left-out", queue_id=show_id(number), touchpoint=touchpoint.id, cause=signature)
        return f"250 2.0.0 queued as {show_id(accepted.id)}"

    def _refuse_for_provider(self, touchpoint: Touchpoint, envelope: Envelope, size: int) -> str | None:
        """Return the reply to what the provider could never take, while its writer is still there to hear it.

        `size`: octets, signature and all. A provider that we have never met is believed to take everything, but for
        the size that its kind is known for.
        """
        host = touchpoint.smtp.host if touchpoint.smtp is not None else touchpoint.provider
        offer = self._offers.of(touchpoint.id) if self._offers is not None else None
        largest = offer.size if offer is not None else touchpoint.profile.size
        size += _TRACE_BYTES + (_DKIM_BYTES if touchpoint.dkim is not None else 0)
        if largest is not None and size > largest:
            return f"552 5.3.4 as it would be sent the message has {size} octets, {host} takes {largest}"
        if offer is None:
            return None
        if envelope.eight_bit and not offer.eight_bit:
            return f"554 5.6.3 the message has 8-bit text, {host} takes none; send it as quoted-printable or base64"
        if envelope.smtputf8 and not offer.smtputf8:
            return f"550 5.6.7 an address or the header is beyond ASCII, {host} takes no such mail (SMTPUTF8)"
        return None

    async def _decide(self, config: Config, agent: Agent, facts: HeaderFacts, signed: bool) -> Sender | Refusal:
        author = read_author(facts)
        if isinstance(author, Refusal):
            return author
        conversations: tuple[str, ...] = ()
        if is_own(agent.login, author) and (references := _references(facts)[:_NEAREST]):
            keys = tuple(key for touchpoint in config.touchpoints for key in thread_keys(touchpoint, references))
            conversations = await self._store.read(agents.touchpoints_of, keys)
        return decide_sender(
            author,
            login=agent.login,
            named=_named(config, author),
            allowed=self._may_write_as(config, agent),
            rewrites_own=config.gateway.submission.own_address == "rewrite",
            is_signed=signed,
            conversations=conversations,
        )

    async def _sign(
        self, message: bytes, touchpoint: Touchpoint, agent: Agent, facts: HeaderFacts, on: date, queue_id: str
    ) -> tuple[bytes, str]:
        """Return the message with the touchpoint's signature, or as it is, and what became of the signature, as in
        `Submission`: it is never a reason to refuse."""
        signature = touchpoint.signature
        if signature is None or not signature.active:
            return message, Signed.UNWANTED
        keys = thread_keys(touchpoint.id, _references(facts)) if signature.when == "first" else ()
        if keys:
            is_given = await self._store.read(outbox.is_signed_already, keys)
            if is_given:
                return message, Signed.EARLIER
        customer = (facts.to[0].name, facts.to[0].address) if len(facts.to) == 1 else None
        try:
            rendered = render(
                signature.html,
                signature.text,
                context(touchpoint, agent, subject=facts.subject, on=on, customer=customer),
                images={name: image.data for name, image in signature.images.items()},
                unique=queue_id,
                conditional_comments=signature.conditional_comments,
            )
            work = partial(inject, message, rendered, strip_client_signature=signature.strip_client_signature)
            injected = (
                work() if len(message) <= _INLINE_BYTES else await self._workers.run(work, timeout=_INJECT_SECONDS)
            )
        except (TemplateFault, Unavailable) as error:
            return message, str(error)
        if not injected.placed:
            return message, injected.reason
        return injected.raw, Signed.PRESENT if injected.reason else Signed.PLACED

    def _may_write_as(self, config: Config, agent: Agent) -> tuple[Touchpoint, ...]:
        if self._allowed_in is not config:
            self._allowed_in, self._allowed = config, {}
        if agent.login not in self._allowed:
            self._allowed[agent.login] = config.may_write_as(agent)
        return self._allowed[agent.login]

    def _refuse(self, login: str, reply: str) -> str:
        events.refused_submission(login, reply)
        return reply


def _named(config: Config, author: str) -> Touchpoint | None:
    if (named := config.touchpoint_at(author)) is not None or "xn--" not in author:
        return named
    # An admin may have written the domain in its own letters; there are few touchpoints, and few such domains
    for touchpoint in config.touchpoints.values():
        if any(plain(own).lower() == author.lower() for own in (touchpoint.address, *touchpoint.aliases)):
            return touchpoint
    return None


def _envelope(draft: Draft, touchpoint: Touchpoint, facts: HeaderFacts, finished: bytes) -> Envelope:
    # The return path is the touchpoint's, whatever the client gave, so that bounces come back to us. Also in place of
    # the null one: read receipts are no reason for a provider to doubt the whole account.
    is_ascii = finished.isascii()
    # Many clients say SMTPUTF8 to everybody who offers it. Only what cannot do without it needs it on its way
    has_plain_header = is_ascii or facts.block.isascii()
    smtputf8 = draft.smtputf8 and not (has_plain_header and all(recipient.isascii() for recipient in draft.recipients))
    return Envelope(
        plain(touchpoint.address),
        draft.recipients,
        eight_bit=not is_ascii,
        smtputf8=smtputf8,
        wishes=draft.wishes,
        envid=draft.envid,
        ret=draft.ret,
    )


def _digest(draft: Draft) -> bytes:
    """Return what two submissions of one message have in common. The order of recipients is nothing to go by."""
    mailboxes = sorted(map(same_mailbox, draft.recipients))
    text = "\n".join((draft.login, draft.return_path, *mailboxes))  # none of them can hold a line break
    return hashlib.blake2b(draft.digest + text.encode(), digest_size=DIGEST_BYTES).digest()


def _from_field(touchpoint: Touchpoint, agent: Agent, sender: Sender, facts: HeaderFacts, on: date) -> bytes | None:
    """Return the From field to put in, or None to leave the client's as it is."""
    if touchpoint.from_name == "touchpoint":
        return compose_from(touchpoint.name, sender.address)
    if touchpoint.from_name == "client":
        return compose_from(facts.from_.name, sender.address) if sender.is_rewritten else None
    try:
        name = render_line(touchpoint.from_name, context(touchpoint, agent, subject=facts.subject, on=on))
    except TemplateFault as fault:
        events.warn("from-name-unusable", touchpoint=touchpoint.id, cause=str(fault))
        name = touchpoint.name
    return compose_from(name, sender.address)


def _missing_fields(facts: HeaderFacts, message_id: str, at: datetime) -> bytes:
    missing = ""
    if not facts.has("date"):
        missing += f"Date: {format_datetime(at)}\r\n"
    if not facts.message_id:
        missing += f"Message-ID: {message_id}\r\n"
    return missing.encode()


def _references(facts: HeaderFacts) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*facts.in_reply_to, *reversed(facts.references))))
