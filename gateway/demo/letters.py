"""What is written in the demo: customers' mail as a provider stores it, and agents' replies as a client sends them."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid
from html import escape


def write(sender: tuple[str, str], to: str, subject: str, text: str) -> EmailMessage:
    """Return a customer's message. `sender`: name and address."""
    message = EmailMessage(policy.SMTP)
    message["From"] = formataddr(sender)
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender[1].partition("@")[2])
    message.set_content(text)
    return message


def reply(to: EmailMessage, sender: tuple[str, str], text: str) -> EmailMessage:
    """Return an answer to `to` in text and HTML with the original below, as mail clients write it."""
    asked = to["From"].addresses[0]
    message = write(sender, str(asked), f"Re: {to['Subject']}", "")
    message["In-Reply-To"] = message["References"] = to["Message-ID"]
    original = to.get_content().rstrip("\n")
    attribution = f"{asked.display_name} wrote:"
    quoted = "\n".join(f"> {line}" for line in original.splitlines())
    message.set_content(f"{text}\n\n{attribution}\n{quoted}\n")
    message.add_alternative(
        f"<html><body><p>{escape(text)}</p>\n<p>{escape(attribution)}</p>\n"
        f'<blockquote type="cite"><p>{escape(original)}</p></blockquote></body></html>\n',
        subtype="html",
    )
    return message


def read(raw: bytes) -> EmailMessage:
    """Return mail of the demo's own making for looking into; never use this on mail of strangers."""
    message = message_from_bytes(raw, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    """Return the text of the part that a reader sees: `plain` or `html`; empty when there is none."""
    part = message.get_body((kind,))
    content = part.get_content() if isinstance(part, EmailMessage) else ""
    assert isinstance(content, str)
    return content
