"""The outbound door for automatic answers: what the gateway itself wants to say enters the outbox here.

Two halves. Before a message is routed the answer is decided and composed, from values alone; whether it is given is
decided in the transaction that routes the message (`state.answers`), because only that knows who has had one.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway import events
from gateway.config import AutoReply, Config, Touchpoint
from gateway.config.providers import takes_null_return_path
from gateway.errors import Malformed, Unavailable
from gateway.mime.scan import HeaderFacts
from gateway.mime.templates import TemplateFault
from gateway.model import Envelope, Findings, Notify, OutboxKind, Step, Submission, Verdict, Wish, show_id, to_ms
from gateway.outbound.addressing import plain
from gateway.outbound.auto_reply import Composed, Draft, compose_answer
from gateway.rules.answering import Addressee, Asked, decide_answer, hours_of, token
from gateway.state import answers, raw
from gateway.state.answers import NONE, STEP, Answer, Given
from gateway.state.store import Store

_KEY_BITS: Final = 62  # the store's numbers are signed
_NEVER: Final = Wish(Notify(0))  # nobody wants to hear what became of it
_INLINE_LETTERS: Final = 8 * 1024  # of the templates; up to here an answer costs less than two milliseconds


class AutoReplies:
    """One for the whole daemon; used from Trio only. `on_given(touchpoint)`: called after the commit of an answer.

    `alarm(touchpoint, most)`: so many were given in an hour, and another was due; None: one was given again. `compose`:
    composes what is large, in a worker process.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_given: Callable[[str], None] = lambda touchpoint: None,
        alarm: Callable[[str, int | None], None] = lambda touchpoint, most: None,
        compose: Callable[[Draft], Awaitable[Composed]] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._on_given = on_given
        self._alarm = alarm
        self._compose_elsewhere = compose
        self._now = now
        self._key: bytes | None = None
        self._ours: tuple[Config | None, frozenset[str]] = (None, frozenset())

    async def prepare(
        self,
        touchpoint: Touchpoint,
        config: Config,
        facts: HeaderFacts,
        verdict: Verdict,
        findings: Findings,
        internal_at: datetime,
    ) -> Answer | Step | None:
        """Return the answer to a message, or the step that says why there is none; None where none is configured.

        Raises Unavailable when the store is away. What is returned and not given is to be abandoned (`settle`).
        """
        reply = touchpoint.auto_reply
        if reply is None or not reply.active or not (touchpoint.active and touchpoint.is_outbound):
            return None
        at = self._now()
        is_open, is_wanted = hours_of(reply, config.rules.hours, findings.at or at)
        key = await self._token_key()
        asked = Asked(
            facts=facts,
            verdict=verdict,
            findings=findings,
            internal_at=internal_at,
            at=at,
            own=touchpoint.addresses,
            ours=self._own_addresses(config),
            max_age=reply.max_age,
            is_wanted_now=is_wanted,
            key=key,
        )
        addressee = decide_answer(asked)
        if isinstance(addressee, str):
            return Step(STEP, addressee, NONE)
        if await self._store.read(answers.was_answered, touchpoint.id, addressee.keys, to_ms(at) - _ms(reply.every)):
            return Step(STEP, "its sender has had one in this period", NONE)
        return await self._compose(touchpoint, reply, config, facts, addressee, key, internal_at, at, is_open)

    async def _compose(
        self,
        touchpoint: Touchpoint,
        reply: AutoReply,
        config: Config,
        facts: HeaderFacts,
        addressee: Addressee,
        key: bytes,
        internal_at: datetime,
        at: datetime,
        is_open: bool,
    ) -> Answer | Step:
        id = self._store.ids.next()
        address = plain(touchpoint.address)
        draft = Draft(
            touchpoint,
            reply,
            addressee,
            facts,
            token(key, id),
            config.gateway.hostname,
            address,
            at.astimezone(config.gateway.timezone),
            is_open,
        )
        try:
            if self._compose_elsewhere is not None and len(reply.html) + len(reply.text) > _INLINE_LETTERS:
                composed = await self._compose_elsewhere(draft)
            else:
                composed = compose_answer(draft)
        except (TemplateFault, Malformed, Unavailable) as fault:
            events.warn("auto-reply-left-out", touchpoint=touchpoint.id, cause=str(fault))
            return Step(STEP, f"it cannot be written: {fault}", NONE)
        host = touchpoint.smtp.host if touchpoint.smtp is not None else ""
        return_path = "" if takes_null_return_path(touchpoint.profile, host) else address
        submission = Submission(
            id=id,
            touchpoint=touchpoint.id,
            agent="",
            envelope=Envelope(return_path, (addressee.address,), wishes=(_NEVER,)),
            message_id=composed.message_id,
            subject=composed.subject,
            accepted_at=at,
            raw=composed.raw,
            kind=OutboxKind.AUTO_REPLY,
        )
        return Answer(
            submission=submission,
            chunks=await raw.stage(self._store, id, composed.raw),
            keys=addressee.keys,
            every=_ms(reply.every),
            begins_only=reply.on == "new-conversation",
            most_per_hour=reply.most_per_hour,
            internal_at=to_ms(internal_at),
            drop_at=to_ms(internal_at + reply.max_age),
        )

    def settle(self, answer: Answer, given: Given | None) -> None:
        """Hear what became of an answer, now that its message is routed."""
        submission = answer.submission
        if given is None or given.id is None:
            raw.abandon(self._store, answer.chunks)
        else:
            self._on_given(submission.touchpoint)
            events.say(
                "answered",
                queue_id=show_id(submission.id),
                touchpoint=submission.touchpoint,
                to=f"<{submission.envelope.recipients[0]}>",
                message_id=submission.message_id,
            )
        if given is not None and (given.is_over or given.id is not None):
            self._alarm(submission.touchpoint, answer.most_per_hour if given.is_over else None)

    async def _token_key(self) -> bytes:
        if self._key is None:
            number = await self._store.submit(answers.keep_key, secrets.randbits(_KEY_BITS))
            self._key = answers.key_of(number)
        return self._key

    def _own_addresses(self, config: Config) -> frozenset[str]:
        if self._ours[0] is not config:
            own = (touchpoint.addresses for touchpoint in config.touchpoints.values())
            self._ours = (config, frozenset().union(*own))
        return self._ours[1]


def _ms(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)
