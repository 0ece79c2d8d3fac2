"""A mail as an agent's client would hand it over: text and HTML, new or answering, in the original's own charset.

The answer has the shape of one of the common clients: a line that names the author, and below it the original in a
`<blockquote type="cite">`, in the text behind "> ".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape, unescape
from typing import Final

from gateway.mime.charset import UTF_8, Charset, charset
from gateway.mime.compose import CRLF, Image, compose, image_part, multipart
from gateway.mime.scan import Mailbox
from gateway.mime.transfer import encode_text
from gateway.preview.letter import Letter
from gateway.preview.sanitise import sanitise

CUSTOMER: Final = Mailbox("Sample Customer", "customer@example.com")
SUBJECT: Final = "A sample mail"
_LARGEST_PICTURES: Final = 10 * 1024 * 1024  # of the original that its quote shows, together
_CID: Final = re.compile(r'<img\b[^<>]*?\ssrc="cid:([^"]*)"', re.I)
_ANSWER: Final = re.compile(r"(?:re|aw|sv|vs|antw|odp|回复|res)\s*(?:\[\d+\])?\s*[::]", re.I)
_SPLIT: Final = b"MIME-Version: 1.0\r\n"  # what `compose` writes behind the last of our fields


@dataclass(frozen=True, slots=True)
class Sample:
    """`raw`: CRLF. `customer`: the one To."""

    raw: bytes = field(repr=False)
    customer: Mailbox
    subject: str


def new(author: Mailbox, *, at: datetime, message_id: str, to: Mailbox = CUSTOMER, subject: str = SUBJECT) -> Sample:
    """Return a new mail. `author`: as the agent's client writes it."""
    words = _greeting(to.name)
    html = f"<p>{escape(words)}</p>".replace("\n\n", "</p>\n<p>")
    head = _head(author, to, subject, at, message_id)
    return Sample(head + _body(f"{words}\n", _document(html), (), UTF_8, "us-ascii"), to, subject)


def answer(author: Mailbox, original: Letter, *, at: datetime, message_id: str) -> Sample:
    """Return an answer to the author of `original`, which is quoted whole."""
    facts = original.facts
    customer = next((box for box in (*facts.reply_to, *facts.authors) if box.address), CUSTOMER)
    if not customer.name and facts.from_.address.lower() == customer.address.lower():
        customer = Mailbox(facts.from_.name, customer.address)
    subject = facts.subject if _ANSWER.match(facts.subject) else f"Re: {facts.subject}".strip()
    wrote = f"{f'On {facts.date:%Y-%m-%d %H:%M}, ' if facts.date else ''}{customer.name or customer.address} wrote:"
    greeting = _greeting(customer.name)
    text = f"{greeting}\n\n{wrote}\n{_quoted(original.text)}\n"
    quote, images = _html_quote(original)
    html = (
        f"<p>{escape(greeting)}</p>".replace("\n\n", "</p>\n<p>")
        + f'\n<div class="moz-cite-prefix">{escape(wrote)}<br></div>\n<blockquote type="cite">\n{quote}\n</blockquote>'
    )
    named = charset(original.charset)
    label, named = (original.charset, named) if named is not None and original.charset else ("us-ascii", UTF_8)
    head = _head(
        author,
        customer,
        subject,
        at,
        message_id,
        in_reply_to=facts.message_id,
        references=(*facts.references, facts.message_id),
    )
    return Sample(head + _body(text, _document(html), images, named, label), customer, subject)


def _greeting(name: str) -> str:
    return f"Hello{f' {name}' if name else ''},\n\nhere stands what the agent writes."


def _head(
    author: Mailbox,
    to: Mailbox,
    subject: str,
    at: datetime,
    message_id: str,
    in_reply_to: str = "",
    references: Sequence[str] = (),
) -> bytes:
    """Return the header up to the fields of the body. Raises Malformed for an address that cannot be written."""
    whole = compose(
        author=author,
        to=[to],
        subject=subject,
        at=at,
        message_id=message_id,
        text="",
        in_reply_to=in_reply_to,
        references=references,
    )
    return whole.partition(_SPLIT)[0] + _SPLIT


def _body(text: str, html: str, images: Sequence[Image], named: Charset, label: str) -> bytes:
    """Return the parts, in the charset where it has all the letters, else in UTF-8."""
    try:
        text.encode(named.codec)
        html.encode(named.codec)
    except UnicodeEncodeError:
        named = UTF_8
    if named.codec == UTF_8.codec:
        label = "us-ascii" if text.isascii() and html.isascii() else UTF_8.codec
    rich = _text_part("html", html, named, label)
    if images:
        rich = multipart('related; type="text/html"', [rich, *(image_part(image) for image in images)])
    return multipart("alternative", [_text_part("plain", text, named, label), rich]) + CRLF


def _text_part(subtype: str, text: str, named: Charset, label: str) -> bytes:
    encoding, body = encode_text(text.replace("\n", "\r\n").encode(named.codec), CRLF)
    head = f"Content-Type: text/{subtype}; charset={label}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + body.removesuffix(CRLF)


def _document(fragment: str) -> str:
    return f"<!DOCTYPE html>\n<html><body>\n{fragment}\n</body></html>\n"


def _quoted(text: str) -> str:
    lines = [line.rstrip() for line in text.strip("\n").split("\n")]
    return "\n".join(f">{line}" if line.startswith(">") else f"> {line}".rstrip() for line in lines)


def _html_quote(original: Letter) -> tuple[str, tuple[Image, ...]]:
    """Return the original for the inside of a blockquote, and the pictures that it shows by Content-ID."""
    pieces = [
        sanitise(block.html, keep_style_sheets=False) if block.html else f"<pre>{escape(block.text)}</pre>"
        for block in original.blocks
        if not block.picture
    ]
    quote = "\n".join(pieces).replace("\r\n", "\n").replace("\r", "\n")
    images: dict[str, Image] = {}
    room = _LARGEST_PICTURES
    for name in map(unescape, _CID.findall(quote)):
        picture = original.pictures.get(name)
        if picture is not None and name not in images and _PLAIN.match(name) and len(picture.data) <= room:
            room -= len(picture.data)
            kind = picture.media_type if picture.media_type in _IMAGE_TYPES else "application/octet-stream"
            images[name] = Image(name, kind, f"quoted{len(images) + 1}", picture.data)
    return quote, tuple(images.values())


_PLAIN: Final = re.compile(r"[!-;=?-~]{1,200}\Z")
_IMAGE_TYPES: Final = frozenset(f"image/{subtype}" for subtype in ("png", "jpeg", "gif", "bmp", "webp"))
