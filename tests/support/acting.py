"""What in HTML could act, found by a parser that has no part in making it safe."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_ELEMENTS = frozenset(
    {
        *("script", "iframe", "frame", "frameset", "object", "embed", "applet", "form", "input", "button", "base"),
        *("meta", "link", "svg", "math", "template", "xml", "html", "head", "body", "title", "textarea", "audio"),
        *("video", "noscript"),
    }
)
_ADDRESSES = frozenset({"href", "src", "background", "action", "formaction", "poster", "data", "srcset", "srcdoc"})
_SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms", "cid", ""})
_CSS = re.compile(r"expression\s*\(|javascript:|behaviou?r\s*:|-moz-binding|@import|url\((?!\s*[\"']?https?:)", re.I)
_CONDITIONAL = re.compile(r"\[if [^\]]*\]>(.*)<!\[endif\]", re.S)


class _Acts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag in _ELEMENTS:
            self.found.append(tag)
        for name, value in attrs:
            bare = re.sub(r"[\x00-\x20]", "", value or "").lower()
            scheme = bare.partition(":")[0] if re.match(r"[a-z][a-z0-9+.-]*:", bare) else ""
            if name.startswith("on") or (name in _ADDRESSES and scheme not in _SCHEMES):
                self.found.append(f"{tag} {name}")
            if name == "style" and _CSS.search(value or ""):
                self.found.append(f"{tag} style")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style and _CSS.search(data):
            self.found.append("style sheet")

    def handle_comment(self, data: str) -> None:
        if inner := _CONDITIONAL.fullmatch(data):  # Word reads it
            self.found += acts(inner[1])


def acts(html: str) -> list[str]:
    """Return what acts, loads by itself other things than pictures, or reaches beyond a fragment. A picture that has
    no Content-ID yet (`file:`) is told too."""
    parser = _Acts()
    parser.feed(html)
    parser.close()
    return parser.found
