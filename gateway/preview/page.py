"""A message as one HTML page that needs nothing else: its pictures are in it, and nothing in it acts.

A policy (CSP) forbids scripts, frames, forms and the network, whatever a stranger's mail holds; the HTML itself is
sanitised too, because a policy does not stop a page from leading elsewhere. The lines of the header stand in a shadow
tree, so that the mail's style sheets do not reach them, and they do not reach the mail.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from html import escape, unescape
from typing import Final

from gateway.preview.letter import Block, Letter, Picture
from gateway.preview.sanitise import sanitise

_CID: Final = re.compile(r'(<img\b[^<>]*?\ssrc=")cid:([^"]*)(")', re.I)
_LOCAL: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_REMOTE: Final = _LOCAL.replace("img-src data:", "img-src data: https: http:")
_FRAME_STYLE: Final = (
    ":host { all: initial; display: block; font: 14px/1.5 sans-serif; color: #222; background: #f3f3f3;"
    " border-bottom: 1px solid #ccc; padding: 8px 12px; overflow-wrap: anywhere }"
    " b { font-weight: bold } span { color: #666 } div { margin: 0 }"
)

# As most clients do it, whatever the mail says of itself: a bar beside a quote; and in the dark pictures stay as they
# are, while Chromium would turn small ones of few colours inside out, and hide that a dark logo vanishes
_CLIENT_STYLE: Final = (
    "blockquote[type=cite] { margin: 0 0 0 4px; border-left: 2px solid #7a8fb8; padding-left: 10px }"
    " img { color-scheme: only light !important }"
)


def page(letter: Letter, *, remote: bool = False) -> str:
    """Return the page. `remote`: pictures may be loaded from the network, as in a mail client that allows it."""
    body = "\n".join(_shown(block, letter.pictures) for block in letter.blocks) or "<p><i>(no text)</i></p>"
    policy = _REMOTE if remote else _LOCAL
    return (
        "<!DOCTYPE html>\n<html><head>\n"
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(letter.facts.subject)}</title>\n"
        "<style>body { margin: 0 } .mail-gateway-preview { margin: 12px }"
        f" {_CLIENT_STYLE}"
        " .mail-gateway-preview > pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.4 monospace }"
        "</style>\n"
        f"</head><body>\n{_frame(letter)}\n"
        f'<div class="mail-gateway-preview">\n{body}\n</div>\n</body></html>\n'
    )


def _frame(letter: Letter) -> str:
    facts = letter.facts
    lines = [
        ("From", str(facts.from_)),
        ("To", ", ".join(map(str, facts.to))),
        ("Date", _date(facts.date)),
        ("Subject", facts.subject),
        ("Attached", ", ".join(letter.attached)),
    ]
    shown = "".join(
        f"<div><span>{name}:</span> {f'<b>{escape(value)}</b>' if name == 'Subject' else escape(value)}</div>"
        for name, value in lines
        if value
    )
    return f'<div><template shadowrootmode="open"><style>{_FRAME_STYLE}</style>{shown}</template></div>'


def _date(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _shown(block: Block, pictures: Mapping[str, Picture]) -> str:
    if block.picture:
        return f'<p><img src="{_data(block.media_type, block.picture)}" alt="" style="max-width: 100%"></p>'
    if not block.html:
        return f"<pre>{escape(block.text)}</pre>"

    def inside(match: re.Match[str]) -> str:
        picture = pictures.get(unescape(match[2]))
        return match[0] if picture is None else f"{match[1]}{_data(picture.media_type, picture.data)}{match[3]}"

    return _CID.sub(inside, sanitise(block.html, keep_style_sheets=True))


def _data(media_type: str, data: bytes) -> str:
    return f"data:{escape(media_type)};base64,{base64.b64encode(data).decode('ascii')}"
