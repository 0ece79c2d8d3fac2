"""Write the automatic answer to a message: the touchpoint's templates, filled, under a header that stops loops.

`Auto-Submitted: auto-replied` tells every responder that keeps to RFC 3834, `X-Auto-Response-Suppress: All` tells
Exchange, and our own field tells ourselves. There is no Precedence: RFC 3834 §3.1.8 does not want one, and some filters
take it for advertising.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from gateway.config import AutoReply, Touchpoint
from gateway.mime.compose import compose
from gateway.mime.scan import HeaderFacts, Mailbox
from gateway.mime.templates import Values, render_line
from gateway.outbound.signature.render import render
from gateway.rules.answering import TOKEN_FIELD, Addressee, references_for

SUPPRESS: Final = {"X-Auto-Response-Suppress": "All"}


def variables(touchpoint: Touchpoint, facts: HeaderFacts, *, at: datetime, is_open: bool) -> dict[str, Any]:
    """Return what an answer's templates can use. `at`: in the gateway's time zone.

    No agent writes it, so `agent` has what the touchpoint supplies. A sender without a name is shown as nothing;
    `default(…)` works.
    """
    sender = {"name": facts.from_.name, "address": facts.from_.address or facts.return_path or ""}
    return {
        "agent": Values(touchpoint.variables),
        "touchpoint": Values({**touchpoint.variables, "name": touchpoint.name, "address": touchpoint.address}),
        "sender": Values({key: value for key, value in sender.items() if value}, frozenset(sender)),
        "subject": " ".join(facts.subject.split()),
        "date": at.date(),
        "open": is_open,
    }


def compose_answer(
    touchpoint: Touchpoint,
    reply: AutoReply,
    addressee: Addressee,
    facts: HeaderFacts,
    *,
    token: str,
    hostname: str,
    address: str,
    at: datetime,
    is_open: bool,
) -> tuple[bytes, str, str]:
    """Return the whole message, its Message-ID and its subject. Raises TemplateFault, and Malformed for an address
    that cannot be written.

    `address`: the touchpoint's, in ASCII. `token`: of `rules.answering`. `at`: in the gateway's time zone.
    """
    filled = variables(touchpoint, facts, at=at, is_open=is_open)
    subject = render_line(reply.subject, filled)
    images = {name: image.data for name, image in reply.images.items()}
    body = render(reply.html, reply.text, filled, images=images, unique=token.partition(".")[0])
    message_id = f"<{token}@{hostname}>"
    raw = compose(
        author=Mailbox(touchpoint.name, address),
        to=[Mailbox(addressee.name, addressee.address)],
        subject=subject,
        at=at,
        message_id=message_id,
        text=body.text,
        html=_document(body.html),
        images=body.images,
        in_reply_to=facts.message_id,
        references=references_for(facts),
        auto_submitted="auto-replied",
        more={**SUPPRESS, TOKEN_FIELD: token},
    )
    return raw, message_id, subject


def _document(fragment: str) -> str:
    return f"<!DOCTYPE html>\n<html><body>\n{fragment}\n</body></html>\n" if fragment else ""
