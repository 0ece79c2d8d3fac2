"""The way of an agent's mail through the gateway, as far as it changes the mail: header and signature.

The same functions as in `outbound.acceptance`, without a store: what is shown here is what would be relayed, but for
DKIM and the trace field, which an attempt puts in front.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.config import Agent, Touchpoint
from gateway.mime.scan import scan
from gateway.mime.templates import render_line
from gateway.outbound.header import compose_from, finish_header
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import inject
from gateway.outbound.signature.render import context, render
from gateway.preview.sample import Sample


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`raw`: the message as it would be relayed; `without`: the same without the signature. `reason`: as of inject."""

    raw: bytes = field(repr=False)
    without: bytes = field(repr=False)
    signature: RenderedSignature
    is_placed: bool
    reason: str


def signed(sample: Sample, touchpoint: Touchpoint, agent: Agent, address: str, at: datetime) -> Outgoing:
    """Return the sample with the touchpoint's signature. `address`: the touchpoint's, in ASCII; `at`: in the gateway's
    time zone. The touchpoint has a signature, active or not. Raises TemplateFault.
    """
    signature = touchpoint.signature
    assert signature is not None
    facts = scan(sample.raw)
    filled = context(
        touchpoint, agent, subject=facts.subject, on=at.date(), customer=(sample.customer.name, sample.customer.address)
    )
    names = {"touchpoint": touchpoint.name, "client": agent.name}
    name = names.get(touchpoint.from_name)
    if name is None:  # a template; it may not name the customer
        name = render_line(touchpoint.from_name, context(touchpoint, agent, subject=facts.subject, on=at.date()))
    without = finish_header(
        sample.raw,
        facts,
        login=agent.login,
        is_signed=False,
        from_field=compose_from(name, address),
        missing=b"",
    )
    rendered = render(
        signature.html,
        signature.text,
        filled,
        images={name: image.data for name, image in signature.images.items()},
        unique="preview",
        conditional_comments=signature.conditional_comments,
    )
    injected = inject(without, rendered, strip_client_signature=signature.strip_client_signature)
    return Outgoing(injected.raw, without, rendered, injected.placed, injected.reason)
