"""Write the automatic answer to a message: the touchpoint's templates, filled, under a header that stops loops.

`Auto-Submitted: auto-replied` tells every responder that keeps to RFC 3834, `X-Auto-Response-Suppress: All` tells
Exchange, and our own field tells ourselves. There is no Precedence: RFC 3834 §3.1.8 does not want one, and some filters
take it for advertising.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from gateway.config import AutoReply, Touchpoint
from gateway.mime.compose import compose
from gateway.mime.scan import HeaderFacts, Mailbox
from gateway.mime.templates import Values, render_line
from gateway.outbound.signature.render import render
from gateway.rules.answering import TOKEN_FIELD, Addressee, references_for

SUPPRESS: Final = {"X-Auto-Response-Suppress": "All"}


def variables(
    touchpoint: Touchpoint, facts: HeaderFacts, addressee: Addressee, *, at: datetime, is_open: bool
) -> dict[str, Any]:
    """Return what an answer's templates can use. `at`: in the gateway's time zone.

    No agent writes it, so `agent` has what the touchpoint supplies. A sender without a name is shown as nothing;
    `default(…)` works.
    """
    sender = {"name": facts.from_.name, "address": facts.from_.address or facts.return_path or ""}
    if addressee.is_form:
        sender = {"name": addressee.name, "address": addressee.address}
    return {
        "agent": Values(touchpoint.variables),
        "touchpoint": Values({**touchpoint.variables, "name": touchpoint.name, "address": touchpoint.address}),
        "sender": Values({key: value for key, value in sender.items() if value}, frozenset(sender)),
        "subject": " ".join(facts.subject.split()),
        "date": at.date(),
        "open": is_open,
    }


@dataclass(frozen=True, slots=True)
class Draft:
    """All that an answer is made of; it can be sent to a worker process.

    `address`: the touchpoint's, in ASCII. `token`: of `rules.answering`. `at`: in the gateway's time zone.
    """

    touchpoint: Touchpoint
    reply: AutoReply
    addressee: Addressee
    facts: HeaderFacts
    token: str
    hostname: str
    address: str
    at: datetime
    is_open: bool


@dataclass(frozen=True, slots=True)
class Composed:
    """`raw`: CRLF, 7-bit."""

    raw: bytes = field(repr=False)
    message_id: str
    subject: str


def compose_answer(draft: Draft) -> Composed:
    """Return the whole message. Raises TemplateFault, and Malformed for an address that cannot be written.

    A millisecond for 5 KiB of templates, and more for more: HTML is read to make text of it.
    """
    touchpoint, reply, facts = draft.touchpoint, draft.reply, draft.facts
    filled = variables(touchpoint, facts, draft.addressee, at=draft.at, is_open=draft.is_open)
    subject = render_line(reply.subject, filled)
    images = {name: image.data for name, image in reply.images.items()}
    body = render(
        reply.html,
        reply.text,
        filled,
        images=images,
        unique=draft.token.partition(".")[0],
        conditional_comments=reply.conditional_comments,
        scope="",
    )
    message_id = f"<{draft.token}@{draft.hostname}>"
    raw = compose(
        author=Mailbox(touchpoint.name, draft.address),
        to=[Mailbox(draft.addressee.name, draft.addressee.address)],
        subject=subject,
        at=draft.at,
        message_id=message_id,
        text=body.text,
        html=_document(body.html),
        images=body.images,
        in_reply_to=facts.message_id,
        references=references_for(facts),
        auto_submitted="auto-replied",
        more={**SUPPRESS, TOKEN_FIELD: draft.token},
    )
    return Composed(raw, message_id, subject)


def _document(fragment: str) -> str:
    return f"<!DOCTYPE html>\n<html><body>\n{fragment}\n</body></html>\n" if fragment else ""
