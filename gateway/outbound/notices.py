"""Notices to the writer about an attempt: what was refused or given up, and what was handed over where they asked.

Composed before the record of the attempt, and stored with it: a crash leaves both or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.model import Notify, OutboxKind, from_ms, show_id
from gateway.outbound.bounce import Action, Bounce, Failed, Original, compose_bounce
from gateway.outbound.outcome import Judged
from gateway.state.lifecycle import Event
from gateway.state.outbox import Claimed, Done, Fated, Recipient, Told
from gateway.state.queues import Notice
from gateway.state.raw import chunk_key

_FAILED = frozenset({Event.REFUSED, Event.GAVE_UP})


def wants_notice(claimed: Claimed, done: Done, *, tells_success: bool) -> bool:
    """Return whether the writer has to hear of this attempt. `tells_success`: the provider does that (RFC 3461)."""
    if claimed.kind is not OutboxKind.REPLY or claimed.return_path == "":
        return False
    return any(
        _action(recipient, fated, tells_success) is not None
        for recipient, fated in zip(claimed.recipients, done.fated, strict=True)
    )


def _action(recipient: Recipient, fated: Fated, tells_success: bool) -> Action | None:
    """Return what is to be told of a recipient; None for nothing."""
    if fated.event in _FAILED:
        return Action.FAILED if recipient.wish.wants(Notify.FAILURE) else None
    # Without the extension the provider cannot tell of delivery, and that it has the message is all that can be known:
    # RFC 3461 §5.2.2
    wants_success = fated.event is Event.ACCEPTED and not tells_success and recipient.wish.wants(Notify.SUCCESS)
    return Action.RELAYED if wants_success else None


def notices_of(
    claimed: Claimed,
    judged: Sequence[Judged],
    done: Done,
    head: bytes,
    *,
    address: str,
    hostname: str,
    relay: str,
    tells_success: bool,
    next_id: Callable[[], int],
) -> tuple[Told, ...]:
    """Return at most two notices: about what failed, and about what was handed over. `head`: the first chunk of the
    message; `address`: of the touchpoint; `relay`: the provider's server.
    """
    told: dict[Action, list[Failed]] = {}
    numbers: dict[Action, list[int]] = {}
    for recipient, one, fated in zip(claimed.recipients, judged, done.fated, strict=True):
        if (action := _action(recipient, fated, tells_success)) is not None:
            numbers.setdefault(action, []).append(recipient.number)
            told.setdefault(action, []).append(
                Failed(
                    recipient.address, one.outcome.reply, fated.event is Event.GAVE_UP, recipient.wish.orcpt,
                    one.outcome.detail,
                )
            )  # fmt: skip
    original = Original(
        address,
        claimed.agent,
        claimed.return_path,
        claimed.message_id,
        claimed.subject,
        from_ms(claimed.accepted_at),
        head,
        claimed.envid,
        is_whole=claimed.ret == "full" and len(head) == claimed.size,
    )
    notices: list[Told] = []
    for action, failed in sorted(told.items()):
        id, conversation = next_id(), next_id()
        bounce = compose_bounce(
            original,
            failed,
            queue_id=show_id(claimed.id),
            bounce_id=show_id(id),
            hostname=hostname,
            relay=relay,
            now=from_ms(done.at),
            action=action,
        )
        if bounce is not None:
            composed = notice(bounce, claimed, id, conversation, done.at, reopens=action is Action.FAILED)
            notices.append(Told(composed, tuple(numbers[action])))
    return tuple(notices)


def notice(bounce: Bounce, about: Claimed, id: int, conversation: int, at: int, *, reopens: bool) -> Notice:
    """Return a finished notice as it is stored. `at`: ms."""
    return Notice(
        id,
        conversation,
        about.touchpoint,
        about.agent,
        bounce.subject,
        ((chunk_key(id, 0), bounce.raw),),
        len(bounce.raw),
        at,
        bounce.message_id,
        bounce.sender,
        about=about.conversation,
        reopens=reopens,
        note=bounce.note,
    )
