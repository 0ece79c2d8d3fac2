"""What a message holds behind its header: the text that people see, and what is attached. For worker processes.

Bodies are written by strangers and are read only where some rule asks. The tree is found by our own scanner, which
never raises and is bounded; mail-parser decodes the few parts that are text, each by itself and only its beginning. Of
a message of 100 MB it would otherwise make seven times as much, of a thousand nested parts an overflow of the stack,
and of an attachment without a name one with a name that is another each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

from gateway.mime import structure
from gateway.mime.charset import ASCII, charset
from gateway.mime.scan import decode_text
from gateway.mime.structure import Part
from gateway.model import Attachment

VIEW_CHARACTERS: Final = 32_000  # of each view that rules see
TEXT_PARTS: Final = 50  # that are decoded
ATTACHMENTS: Final = 500  # that are listed
_TEXT_BYTES: Final = 128 * 1024  # of one text part, as it was sent
_HTML_BYTES: Final = 512 * 1024  # most of a newsletter is markup
_NAME_CHARACTERS: Final = 255
_SIGNATURES: Final = frozenset(
    {"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}
)
_UNCLEAN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_UNSAFE: Final = re.compile(r"[^\w.:+-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Content:
    """`body`: one line for each view that the message has, the plain one first, white space made single blanks: "" for
    a message without text. `cut`: a limit left something out.
    """

    body: str = field(repr=False)
    attachments: tuple[Attachment, ...]
    cut: bool = False


def read(raw: bytes) -> Content:
    """Return what lies in a message; what cannot be understood is left out. Raises what mail-parser raises."""
    tree = structure.scan(raw)
    plain: list[str] = []
    html: list[str] = []
    attachments: list[Attachment] = []
    cut = any("too " in defect for part in tree.walk() for defect in part.defects)
    for part, parent in _leaves(tree, None):
        if is_attachment(part, parent):
            if len(attachments) == ATTACHMENTS:
                cut = True
            else:
                attachments.append(
                    Attachment(_name(part.filename), part.content_type[:_NAME_CHARACTERS], _size(raw, part))
                )
        elif part.content_type in ("text/plain", "text/html"):
            if len(plain) + len(html) == TEXT_PARTS:
                cut = True
                continue
            is_html = part.content_type == "text/html"
            limit = _HTML_BYTES if is_html else _TEXT_BYTES
            cut |= part.end - part.body > limit
            (html if is_html else plain).append(_text(raw, part, limit))
    views = [" ".join(_UNCLEAN.sub(" ", " ".join(texts)).split()) for texts in (plain, html)]
    cut |= any(len(view) > VIEW_CHARACTERS for view in views)
    return Content("\n".join(dict.fromkeys(view[:VIEW_CHARACTERS] for view in views if view)), tuple(attachments), cut)


def is_attachment(part: Part, parent: Part | None) -> bool:
    """Would a person call this leaf attached? Not the text itself, not the pictures in it, not its seal."""
    container = parent.content_type if parent is not None else ""
    if container == "multipart/signed" and part.content_type in _SIGNATURES:
        return False
    if part.disposition == "attachment":
        return True
    if container == "multipart/related" and part.content_type.startswith("image/") and part.field("content-id"):
        return False
    return bool(part.filename) or part.content_type not in ("text/plain", "text/html")


def _leaves(part: Part, parent: Part | None) -> Iterator[tuple[Part, Part | None]]:
    if not part.is_multipart:
        yield part, parent
    for child in part.children:
        yield from _leaves(child, part)


def _text(raw: bytes, part: Part, limit: int) -> str:
    """Return the text of a part. Bytes outside ASCII whose charset nobody can know are read as UTF-8, and if they are
    not that, as Windows-1252.
    """
    content = raw[part.body : min(part.end, part.body + limit)]
    named = charset(part.charset)
    text = _parse(part, named.codec if named is not None and named is not ASCII else "utf-8", content)
    if "\ufffd" in text and named in (None, ASCII):
        text = _parse(part, "windows-1252", content)
    return _seen(text) if part.content_type == "text/html" else text


def _parse(part: Part, codec: str, content: bytes) -> str:
    """Hand the part to mail-parser as a message of its own that says no more than how to read it."""
    import mailparser  # here, so that the daemon does not carry what only its workers need

    encoding = _UNSAFE.sub("", part.encoding)[:40] or "7bit"
    head = f'Content-Type: {part.content_type}; charset="{codec}"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    letter = mailparser.parse_from_bytes(head.encode() + content)
    return " ".join(letter.text_html if part.content_type == "text/html" else letter.text_plain)


def _seen(html: str) -> str:
    """Return what a reader of the HTML sees; where that cannot be found out, the HTML without its marks."""
    try:
        return str(get_text(html, ParserConfig(css=CSS_PROFILES["strict"])))
    except (ValueError, RecursionError):  # lxml: nothing but comments, or deeper than it goes
        return re.sub(r"<[^<>]*>", " ", html)


def _name(filename: str) -> str:
    """Return an attachment's name decoded; of a very long one the beginning and the end, which says what it is."""
    try:
        name = decode_text(filename.encode("latin-1"))
    except UnicodeEncodeError:  # RFC 2231 said which charset, and it has been read by that
        name = _UNCLEAN.sub(" ", filename)
    name = " ".join(name.split())
    half = _NAME_CHARACTERS // 2
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:half]}…{name[-half:]}"


def _size(raw: bytes, part: Part) -> int:
    """Return bytes once decoded; of what is neither base64 nor plain, about."""
    size = part.end - part.body
    if part.encoding != "base64":
        return size
    breaks = sum(raw.count(sign, part.body, part.end) for sign in (b"\r", b"\n"))
    padding = raw.count(b"=", max(part.body, part.end - 80), part.end)
    return max(0, (size - breaks) * 3 // 4 - min(padding, 2))
