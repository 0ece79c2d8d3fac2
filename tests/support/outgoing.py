"""Outbound mail for tests of the store and of what sends it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.model import Envelope, OutboxKind, Submission, show_id
from gateway.state import outbox
from gateway.state.outbox import Accepting
from gateway.state.raw import CHUNK_BYTES, chunk_key
from gateway.state.store import Store

TOUCHPOINT = "support"
ADDRESS = "support@example.com"
AGENT = "ana@example.com"


def raw_of(id: int, body: bytes = b"Dear customer,\r\n") -> bytes:
    return (
        f"From: {ADDRESS}\r\nTo: b@clients.example\r\nSubject: Your order\r\n"
        f"Message-ID: <{show_id(id)}@example.com>\r\n\r\n"
    ).encode() + body


def accept(
    store: Store,
    *recipients: str,
    touchpoint: str = TOUCHPOINT,
    body: bytes = b"Dear customer,\r\n",
    at: datetime | None = None,
    **changes: Any,
) -> int:
    """Accept one message and return its id. Its bytes are cut into chunks as the door does it."""
    id = store.ids.next()
    raw = changes.pop("raw", None) or raw_of(id, body)
    return_path = changes.pop("return_path", ADDRESS)
    eight_bit = changes.pop("eight_bit", False)
    envelope = Envelope(
        return_path, recipients or ("b@clients.example",), eight_bit, changes.pop("smtputf8", False),
        changes.pop("wishes", ()), changes.pop("envid", ""), changes.pop("ret", ""),
    )  # fmt: skip
    submission = Submission(
        id, touchpoint, AGENT, envelope, f"<{show_id(id)}@example.com>", "Your order", at or datetime.now(UTC), raw,
        changes.pop("kind", OutboxKind.REPLY), changes.pop("references", ()),
        changes.pop("signature", ""),
    )  # fmt: skip
    assert not changes
    parts = [raw[start : start + CHUNK_BYTES] for start in range(0, len(raw), CHUNK_BYTES)] or [b""]
    chunks = tuple((chunk_key(id, number), part) for number, part in enumerate(parts))
    store.submit(outbox.accept, Accepting(submission, chunks)).result(10)
    return id


def accept_many(store: Store, count: int, touchpoint: str = TOUCHPOINT) -> None:
    """Accept so many small messages at once, as a rush of agents would: many share a commit."""
    tickets = []
    for _ in range(count):
        id = store.ids.next()
        envelope = Envelope(ADDRESS, ("b@clients.example",))
        message_id = f"<{show_id(id)}@example.com>"
        raw = raw_of(id)
        submission = Submission(id, touchpoint, AGENT, envelope, message_id, "Your order", datetime.now(UTC), raw)
        tickets.append(store.submit(outbox.accept, Accepting(submission, ((chunk_key(id, 0), raw),))))
    for ticket in tickets:
        ticket.result(60)


def listed(store: Store, *, settled: bool = True) -> list[dict[str, Any]]:
    return store.read(outbox.list_outbox, settled).result(10)


def states(store: Store, id: int | None = None) -> list[str]:
    """The states of all recipients, or of one message's."""
    return [
        recipient["state"]
        for message in listed(store)
        if id is None or message["id"] == show_id(id)
        for recipient in message["recipients"]
    ]


def counted(states: Sequence[str]) -> dict[str, int]:
    return {state: states.count(state) for state in sorted(set(states))}
