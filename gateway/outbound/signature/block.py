"""A touchpoint's signature, filled for one message: what is spliced in, and how it is known again.

HTML is known again by the class of the element around it, which is invisible and survives most clients. Text has
nothing invisible, so there the block itself is looked for.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Final

from gateway.mime.compose import Image

MARKER: Final = "mail-gateway-signature"
# Where a mail is built of <div> its last line has no space below it. A margin and no <br>: it is one with that of a
# last paragraph and of the signature's own first element, not added to them; Word knows margins of a div, not its
# padding.
_MARGIN: Final = "margin-top: 16px"
DELIMITER: Final = "-- "  # RFC 3676 §4.3: exactly so, the space included


@dataclass(frozen=True, slots=True)
class RenderedSignature:
    """The signature as a recipient will see it: nothing is left to fill. Either text may be empty, never both.

    `html`: a fragment for the inside of a body. `text`: lines parted by LF, without delimiter, no blanks at line ends.
    """

    html: str
    text: str
    images: tuple[Image, ...] = ()


def html_block(signature: RenderedSignature) -> bytes:
    """Return the HTML to splice in, in ASCII: a character reference means the same in every charset, so the part's
    own charset, and a `<meta>` that contradicts it, do not matter."""
    fragment = signature.html or text_as_html(signature.text)
    return f'<div class="{MARKER}" style="{_MARGIN}">{fragment}</div>'.encode("ascii", "xmlcharrefreplace")


def text_block(signature: RenderedSignature) -> str:
    """Return the text to splice in: the delimiter and the lines, each ended by LF."""
    return "".join(f"{line}\n" for line in (DELIMITER, *signature.text.split("\n")))


def text_as_html(text: str) -> str:
    """Return plain lines as an HTML fragment that looks the same."""
    return "<br>\n".join(html.escape(line, quote=False).replace("  ", " &nbsp;") for line in text.split("\n"))
