"""Tells writers that their mail still waits, `outbound.delay_notice_after` after it was accepted.

A few late messages of one agent are a notice each, in the form of RFC 3464; when a provider is away for hours and a
hundred are late, one notice lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Final

import trio

from gateway import events
from gateway.config import Config
from gateway.errors import Unavailable
from gateway.mime.compose import compose
from gateway.mime.scan import Mailbox
from gateway.model import Reply, from_ms, show_id, to_ms
from gateway.outbound.bounce import Action, Failed, Original, compose_bounce, mailboxes_of
from gateway.rules.dsn import read_reply
from gateway.state import delays
from gateway.state.delays import ALONE, Late, Overdue, Telling, Waiting
from gateway.state.queues import Notice
from gateway.state.raw import chunk_key
from gateway.state.store import Store
from gateway.text import clean

_PERIOD: Final = 60.0
_SUBJECT_LETTERS: Final = 80


async def run(
    store: Store, current: Callable[[], Config], now: Callable[[], datetime], period: float = _PERIOD
) -> None:
    """Look once a minute, until cancelled. Not at once: after a pause of ours most of it leaves within a minute."""
    while True:
        await trio.sleep(period)
        try:
            await tell(store, current(), now())
        except Unavailable as error:  # the mark has not moved: the next minute tells
            events.warn("delays-not-told", cause=str(error))


async def tell(store: Store, config: Config, now: datetime) -> int:
    """Write the notices that are due; return how many. Durable on return. Raises Unavailable when the store is away."""
    before = to_ms(now - config.gateway.outbound.delay_notice_after)
    found = await store.read(delays.look, before, _stopped(config))
    if found is None or not found.overdue:  # then the mark may wait: an idle gateway need not write once a minute
        return 0
    notices: list[Notice] = []
    for group in found.overdue:
        for messages in [[one] for one in group.messages] if group.count <= ALONE else [group.messages]:
            await trio.lowlevel.checkpoint()
            try:
                notice = _compose(store.ids.next, config, group, messages, now)
            except Exception as error:  # one that cannot be told must not keep the others from it, minute by minute
                events.bug("delay-not-told", error, queue_id=show_id(messages[0].id))
                continue
            if notice is not None:
                notices.append(notice)
    await store.submit(delays.tell, Telling(tuple(notices), found.mark))
    for notice in notices:
        events.say("delay-told", queue_id=show_id(notice.id), touchpoint=notice.touchpoint, agent=notice.login)
    return len(notices)


def _stopped(config: Config) -> Callable[[str], str | None]:
    def why(id: str) -> str | None:
        touchpoint = config.touchpoints.get(id)
        if touchpoint is None or not touchpoint.active:
            return "the touchpoint is not active"
        return None if touchpoint.is_outbound else "the touchpoint is inbound only"

    return why


def _compose(
    next_id: Callable[[], int], config: Config, group: Overdue, messages: Sequence[Late], now: datetime
) -> Notice | None:
    touchpoint = config.touchpoints.get(group.touchpoint)
    address = touchpoint.address if touchpoint is not None else group.touchpoint
    relay = touchpoint.smtp.host if touchpoint is not None and touchpoint.smtp is not None else group.touchpoint
    hostname = config.gateway.hostname
    if group.count <= ALONE:
        return _alone(next_id, group, messages[0], address, relay, hostname, now)
    return _together(next_id, group, messages, address, hostname, now)


def _alone(
    next_id: Callable[[], int], group: Overdue, late: Late, address: str, relay: str, hostname: str, now: datetime
) -> Notice | None:
    id, conversation = next_id(), next_id()
    accepted_at = from_ms(late.accepted_at)
    bounce = compose_bounce(
        Original(
            address, group.agent, late.return_path, late.message_id, late.subject, accepted_at, late.head, late.envid
        ),
        [_failed(one) for one in late.recipients],
        queue_id=show_id(late.id),
        bounce_id=show_id(id),
        hostname=hostname,
        relay=relay,
        now=now,
        action=Action.DELAYED,
    )
    if bounce is None:
        return None
    return Notice(
        id, conversation, group.touchpoint, group.agent, bounce.subject, ((chunk_key(id, 0), bounce.raw),),
        len(bounce.raw), to_ms(now), bounce.message_id, bounce.sender, about=late.conversation, reopens=False,
        note=bounce.note,
    )  # fmt: skip


def _failed(waiting: Waiting) -> Failed:
    code, status, words = read_reply(waiting.reply)
    reply = Reply(code, status, words) if code and not waiting.cause else None
    return Failed(waiting.address, reply, orcpt=waiting.orcpt, cause=waiting.cause or waiting.reply)


def _together(
    next_id: Callable[[], int], group: Overdue, messages: Sequence[Late], address: str, hostname: str, now: datetime
) -> Notice:
    id, conversation = next_id(), next_id()
    subject = f"Delayed: {group.count:,} messages from {address}"
    sender, message_id = f"mailer-daemon@{hostname}", f"<{show_id(id)}.notice@{hostname}>"
    lines = [
        f"{group.count:,} of your messages from {address} have not left yet.",
        "The gateway goes on trying. You need not send them again.",
        "",
    ]
    for late in messages:
        first, *others = [one.address for one in late.recipients] or [""]
        more = f" and {len(others)} more" if others else ""
        lines += [
            f"    {clean(late.subject, _SUBJECT_LETTERS) or '(no subject)'}",
            f"        to {clean(first)}{more}, {format_datetime(from_ms(late.accepted_at))}, {show_id(late.id)}",
        ]
    if group.count > len(messages):
        lines.append(f"    … and {group.count - len(messages):,} more")
    raw = compose(
        author=Mailbox("Mail gateway", sender),
        to=mailboxes_of(group.agent),
        subject=subject,
        at=now,
        message_id=message_id,
        text="\r\n".join([*lines, ""]),
        auto_submitted="auto-generated",
        more={"Return-Path": "<>"},
    )
    note = f"{group.count:,} messages from {address} have not left yet; they are still being tried."
    return Notice(
        id, conversation, group.touchpoint, group.agent, subject, ((chunk_key(id, 0), raw),), len(raw), to_ms(now),
        message_id, sender, reopens=False, note=note,
    )  # fmt: skip
