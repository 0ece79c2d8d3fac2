"""Compose the notice that an agent gets about recipients of a message: a DSN (RFC 3464 in the report of RFC 6522).

One sentence in plain words first, because people read it; the machine-readable part and the header of the message
behind it. What the client asked for with RFC 3461 (ENVID, ORCPT, RET) is honoured; whether there is to be a notice at
all (NOTIFY) is for the caller to ask. There is never one about a message with a null return path (RFC 5321 §4.5.5),
nor about a report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from gateway.errors import Malformed
from gateway.mime.compose import CRLF, header_field, mailbox_text, multipart, text_part
from gateway.mime.scan import Mailbox, scan
from gateway.model import Reply
from gateway.rules.dsn import Action as Action
from gateway.rules.dsn import Told
from gateway.rules.undelivered import note_of

_HEADER_BYTES: Final = 64 * 1024  # of the returned header; nobody reads more
# also what turns the direction of writing: the words of a stranger's server must not rearrange ours
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_READ_LETTERS: Final = 2_000  # of a reply, which may have 64 KiB, for each of a thousand recipients
_REPLY_LETTERS: Final = 400
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
_REPORTS: Final = frozenset({"multipart/report", "message/delivery-status", "message/disposition-notification"})


@dataclass(frozen=True, slots=True)
class Failed:
    """One recipient and why. `reply`: the server's last, None when it never spoke; then `cause` may say what it is.

    `is_expired`: given up after temporary noes only. `orcpt`: as the client gave it (RFC 3461 §4.2).
    """

    address: str
    reply: Reply | None
    is_expired: bool = False
    orcpt: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """The message that the notice is about. `head`: bytes from its beginning, as far as they are at hand.

    `is_whole`: that is all of it, and the sender wants it back (RET=FULL). `envid`: as the client gave it.
    """

    touchpoint_address: str
    agent: str
    return_path: str
    message_id: str
    subject: str
    accepted_at: datetime
    head: bytes = field(repr=False)
    envid: str = ""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Bounce:
    """A finished notice. `raw`: CRLF, 7-bit but for what is returned of the message. `note`: all in plain sentences."""

    subject: str
    message_id: str
    sender: str
    raw: bytes = field(repr=False)
    note: str = ""


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
    """Return the notice, or None where there must be none. `relay`: the provider's server, as host.

    `action`: FAILED, DELAYED, or RELAYED for a sender who asked to hear of success, which the provider does not tell.
    """
    if not failed or not original.return_path or scan(original.head).content_type in _REPORTS:
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
        _returned_part(original, action),
    ]
    if not original.head.isascii():
        fields.append(b"Content-Transfer-Encoding: 8bit\r\n")
    raw = b"".join(fields) + multipart("report; report-type=delivery-status", parts)
    return Bounce(subject, message_id, sender, raw, note_of([_told(each, action) for each in failed]))


# --- for people ------------------------------------------------------------------------------------------------------


_SUBJECTS: Final = {Action.FAILED: "Not delivered", Action.DELAYED: "Delayed", Action.RELAYED: "Passed on"}


def _subject(original: Original, failed: Sequence[Failed], action: Action) -> str:
    who = failed[0].address if len(failed) == 1 else f"{len(failed)} recipients"
    return f"{_SUBJECTS[action]} to {_clean(who)}: {_clean(original.subject) or '(no subject)'}"


def _sentences(original: Original, failed: Sequence[Failed], queue_id: str, relay: str, action: Action) -> str:
    one = len(failed) == 1
    if action is Action.FAILED:
        opening = f"Your message was not delivered to {'this recipient' if one else 'these recipients'}:"
        closing = "It will not be tried again. Please check the address, or write to the recipient another way."
    elif action is Action.DELAYED:
        opening = f"Your message has not left for {'this recipient' if one else 'these recipients'} yet:"
        closing = "The gateway goes on trying. You need not send it again."
    else:
        opening = f"Your message was handed over for {'this recipient' if one else 'these recipients'}:"
        closing = f"You asked to hear of that. {relay} does not tell whether it reaches the mailbox."
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
    if failed.reply is not None:
        said = f"{relay} said: {_brief(failed.reply)}"
    else:
        said = _brief(failed.cause) or f"no answer from {relay}"
    return f"given up after many tries; the last time {said}" if failed.is_expired else said


def _told(failed: Failed, action: Action) -> Told:
    reply = failed.reply
    code, text = (reply.code, reply.text) if reply is not None else (0, failed.cause)
    return Told(failed.address, action, _status(failed, action), code, _brief(text))


def _to(agent: str) -> str:
    boxes = mailboxes_of(agent)
    return mailbox_text(boxes[0]) if boxes else "undisclosed-recipients:;"


def mailboxes_of(agent: str) -> list[Mailbox]:
    """Return whom a notice is addressed to; nobody where the login is no address, which it need not be."""
    try:
        mailbox_text(box := Mailbox("", agent))
    except Malformed:
        return []
    return [box]


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
            *((("Original-Envelope-Id", _clean(_plain(original.envid))),) if original.envid else ()),
            ("X-Queue-Id", queue_id),
            ("Arrival-Date", format_datetime(original.accepted_at)),
        ]
    ]
    for each in failed:
        reply = each.reply
        block = [
            *((("Original-Recipient", wanted),) if (wanted := _original(each.orcpt)) else ()),
            ("Final-Recipient", _address(each.address)),
            ("Action", action.value),
            ("Status", _status(each, action)),
        ]
        if reply is not None:
            diagnostic = _brief(reply).encode("ascii", "replace").decode("ascii")
            block += [("Remote-MTA", f"dns; {relay}"), ("Diagnostic-Code", f"smtp; {diagnostic}")]
        block.append(("Last-Attempt-Date", format_datetime(now)))
        blocks.append(block)
    body = CRLF.join(b"".join(header_field(name, value) for name, value in block) for block in blocks)
    return b"Content-Type: message/delivery-status\r\n\r\n" + body.removesuffix(CRLF)


def _status(failed: Failed, action: Action) -> str:
    if failed.is_expired:
        return "4.4.7"  # RFC 3463 §3.5: delivery time expired
    status = failed.reply.status if failed.reply else ""
    wanted = {Action.FAILED: "5", Action.DELAYED: "4"}.get(action, "2")
    return status if status[:1] == wanted else f"{wanted}.0.0"


def _original(orcpt: str) -> str:
    """Return the client's ORCPT as the field has it: decoded (RFC 3461 §6.3), "" where that makes no sense."""
    kind, semicolon, address = orcpt.partition(";")
    plain = _clean(_plain(address)) if kind.strip().lower() != "utf-8" else _clean(address)
    return f"{kind.strip()}; {plain}" if semicolon and plain and plain.isascii() and kind.isascii() else ""


def _plain(xtext: str) -> str:
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def _address(address: str) -> str:
    """RFC 3464 §2.3.2; an address beyond ASCII in the 7-bit form of RFC 6533 §3."""
    if address.isascii():
        return f"rfc822; {_clean(address)}"
    letters = "".join(c if " " < c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in _clean(address))
    return f"utf-8; {letters}"


def _returned_part(original: Original, action: Action) -> bytes:
    """The header of the message, or all of it. RET is about failures only (RFC 3461 §4.3)."""
    head = original.head
    end = head.find(b"\r\n\r\n")
    header = head if end < 0 else head[:end]
    # a header in UTF-8 has media types of its own: RFC 6533 §4
    is_global = not header.isascii()
    if original.is_whole and action is Action.FAILED:
        return _part("message/global" if is_global else "message/rfc822", head)
    if len(header) > _HEADER_BYTES:
        header = header[: header.rfind(CRLF, 0, _HEADER_BYTES)]
    return _part("message/global-headers" if is_global else "text/rfc822-headers", header)


def _part(media: str, content: bytes) -> bytes:
    encoding = b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return f"Content-Type: {media}\r\n".encode("ascii") + encoding + CRLF + content.removesuffix(CRLF)


def _brief(said: Reply | str) -> str:
    return _clean(str(said)[:_READ_LETTERS])[:_REPLY_LETTERS]


def _clean(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())
