"""Compose the notice that an agent gets for recipients that failed: a DSN (RFC 3464 in the report of RFC 6522).

One sentence in plain words first, because people read it; the machine-readable part and the header of the message
behind it. There is never a notice about a message with a null return path (RFC 5321 §4.5.5), nor about a notice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum
from typing import Final

from gateway.errors import Malformed
from gateway.mime.compose import CRLF, header_field, mailbox_text, multipart, text_part
from gateway.mime.scan import Mailbox
from gateway.model import Reply

_HEADER_BYTES: Final = 64 * 1024  # of the returned header; nobody reads more
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_REPLY_LETTERS: Final = 400


class Action(StrEnum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"


@dataclass(frozen=True, slots=True)
class Failed:
    """One recipient and why. `reply`: the server's last, None when it never spoke. `is_expired`: given up after
    temporary noes only."""

    address: str
    reply: Reply | None
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class Original:
    """The message that the notice is about. `head`: bytes from its beginning, as far as they are at hand."""

    touchpoint_address: str
    agent: str
    return_path: str
    message_id: str
    subject: str
    accepted_at: datetime
    head: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bounce:
    """A finished notice. `raw`: CRLF, 7-bit but for the returned header."""

    subject: str
    message_id: str
    sender: str
    raw: bytes = field(repr=False)


def compose_bounce(
    original: Original,
    failed: Sequence[Failed],
    *,
    queue_id: str,
    bounce_id: str,
    hostname: str,
    relay: str,
    now: datetime,
    action: Action = Action.FAILED,
) -> Bounce | None:
    """Return the notice, or None where there must be none. `relay`: the provider's server, as host."""
    if not failed or not original.return_path:
        return None
    sender = f"mailer-daemon@{hostname}"
    subject = _subject(original, failed, action)
    message_id = f"<{bounce_id}.notice@{hostname}>"
    fields = [
        b"Return-Path: <>\r\n",
        header_field("From", f"Mail gateway <{sender}>"),
        header_field("To", _to(original.agent)),
        header_field("Subject", subject),
        header_field("Date", format_datetime(now)),
        header_field("Message-ID", message_id),
        *_ties(original.message_id),
        b"Auto-Submitted: auto-replied\r\n",
        b"MIME-Version: 1.0\r\n",
    ]
    parts = [
        text_part("plain", _sentences(original, failed, queue_id, relay, action)),
        _status_part(original, failed, queue_id, hostname, relay, now, action),
        _header_part(original.head),
    ]
    raw = b"".join(fields) + multipart("report; report-type=delivery-status", parts)
    return Bounce(subject, message_id, sender, raw)


# --- for people ------------------------------------------------------------------------------------------------------


def _subject(original: Original, failed: Sequence[Failed], action: Action) -> str:
    who = failed[0].address if len(failed) == 1 else f"{len(failed)} recipients"
    what = "Not delivered" if action is Action.FAILED else "Delayed"
    return f"{what} to {_clean(who)}: {_clean(original.subject) or '(no subject)'}"


def _sentences(original: Original, failed: Sequence[Failed], queue_id: str, relay: str, action: Action) -> str:
    one = len(failed) == 1
    if action is Action.FAILED:
        opening = f"Your message was not delivered to {'this recipient' if one else 'these recipients'}:"
        closing = "It will not be tried again. Please check the address, or write to the recipient another way."
    else:
        opening = f"Your message has not reached {'this recipient' if one else 'these recipients'} yet:"
        closing = "The gateway goes on trying. You need not send it again."
    lines = [opening, ""]
    for each in failed:
        lines += [f"    {_clean(each.address)}", f"        {_reason(each, relay)}", ""]
    return "\r\n".join(
        [
            *lines,
            closing,
            "",
            f"    Subject:  {_clean(original.subject) or '(no subject)'}",
            f"    From:     {original.touchpoint_address}",
            f"    Accepted: {format_datetime(original.accepted_at)}",
            f"    Queue id: {queue_id}",
            "",
        ]
    )


def _reason(failed: Failed, relay: str) -> str:
    said = f"{relay} said: {_clean(str(failed.reply))[:_REPLY_LETTERS]}" if failed.reply else f"no answer from {relay}"
    return f"given up after many tries; the last time {said}" if failed.is_expired else said


def _to(agent: str) -> str:
    try:
        return mailbox_text(Mailbox("", agent))
    except Malformed:  # a login need not be an address
        return "undisclosed-recipients:;"


def _ties(message_id: str) -> tuple[bytes, ...]:
    if not re.fullmatch(r"<[!-;=?-~]+>", message_id):
        return ()
    return header_field("In-Reply-To", message_id), header_field("References", message_id)


# --- for machines ----------------------------------------------------------------------------------------------------


def _status_part(
    original: Original,
    failed: Sequence[Failed],
    queue_id: str,
    hostname: str,
    relay: str,
    now: datetime,
    action: Action,
) -> bytes:
    blocks = [
        [
            ("Reporting-MTA", f"dns; {hostname}"),
            ("X-Queue-Id", queue_id),
            ("Arrival-Date", format_datetime(original.accepted_at)),
        ]
    ]
    for each in failed:
        reply = each.reply
        block = [
            ("Final-Recipient", _address(each.address)),
            ("Action", action.value),
            ("Status", _status(each)),
        ]
        if reply is not None:
            diagnostic = _clean(str(reply))[:_REPLY_LETTERS].encode("ascii", "replace").decode("ascii")
            block += [("Remote-MTA", f"dns; {relay}"), ("Diagnostic-Code", f"smtp; {diagnostic}")]
        block.append(("Last-Attempt-Date", format_datetime(now)))
        blocks.append(block)
    body = CRLF.join(b"".join(header_field(name, value) for name, value in block) for block in blocks)
    return b"Content-Type: message/delivery-status\r\n\r\n" + body.removesuffix(CRLF)


def _status(failed: Failed) -> str:
    if failed.is_expired:
        return "4.4.7"  # RFC 3463 §3.5: delivery time expired
    return (failed.reply.status if failed.reply else "") or "5.0.0"


def _address(address: str) -> str:
    """RFC 3464 §2.3.2; an address beyond ASCII in the 7-bit form of RFC 6533 §3."""
    if address.isascii():
        return f"rfc822; {_clean(address)}"
    letters = "".join(c if " " < c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in _clean(address))
    return f"utf-8; {letters}"


def _header_part(head: bytes) -> bytes:
    end = head.find(b"\r\n\r\n")
    header = head if end < 0 else head[:end]
    if len(header) > _HEADER_BYTES:
        header = header[: header.rfind(CRLF, 0, _HEADER_BYTES)]
    encoding = b"" if header.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: text/rfc822-headers\r\n" + encoding + CRLF + header.removesuffix(CRLF)


def _clean(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())
