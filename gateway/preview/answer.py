"""The automatic answer to a mail, as it would go out, and whether the rules would let it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from gateway.config import Touchpoint
from gateway.mime.scan import HeaderFacts, Mailbox, scan
from gateway.outbound.auto_reply import Composed, Draft, compose_answer
from gateway.preview.sample import CUSTOMER, SUBJECT, new
from gateway.rules.answering import Addressee, token

_KEY: Final = b"preview"  # tokens made with it are nobody's: what comes back of a preview is not known again


def answer(
    facts: HeaderFacts,
    touchpoint: Touchpoint,
    addressee: Addressee | None,
    *,
    address: str,
    hostname: str,
    at: datetime,
    is_open: bool,
) -> Composed:
    """Return the answer to the mail with this header. The touchpoint has an automatic reply, active or not.

    `addressee`: None where the rules would not answer; then it goes to whom they would have answered, else to the
    sample customer. Raises TemplateFault and Malformed.
    """
    reply = touchpoint.auto_reply
    assert reply is not None
    if addressee is None:
        author = facts.from_ if facts.from_.address else CUSTOMER
        addressee = Addressee(facts.return_path or author.address, author.name, ())
    return compose_answer(Draft(touchpoint, reply, addressee, facts, token(_KEY, 0), hostname, address, at, is_open))


def letter_to(touchpoint: Touchpoint, address: str, *, at: datetime, message_id: str) -> HeaderFacts:
    """Return the header of a sample mail from a customer."""
    sample = new(CUSTOMER, at=at, message_id=message_id, to=Mailbox(touchpoint.name, address), subject=SUBJECT)
    return scan(b"Return-Path: <" + CUSTOMER.address.encode() + b">\r\n" + sample.raw)
