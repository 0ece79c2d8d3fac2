"""How HTML reads without its looks: the text alternative where an admin wrote none."""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Final
from urllib.parse import unquote

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

from gateway.markup.policy import SCHEMES, scheme_of

_CONFIG: Final = ParserConfig(css=CSS_PROFILES["strict"])
_NOT_SHOWN = re.compile(r"<!--.*?-->|<!\[[^<>]*>|<style>[^<]*</style>", re.S)
_IMAGE = re.compile(r"<img\b([^<>]*)>")
_ALT = re.compile(r'\salt="([^"]*)"')
_LINK = re.compile(r"<a\b([^<>]*)>(.*?)</a>", re.S)
_HREF = re.compile(r'\shref="([^"]*)"')
_TAG = re.compile(r"<[^<>]*>")


def text_of_html(fragment: str) -> str:
    """Return the text of sanitised HTML: table columns side by side, lists with their signs, pictures by what `alt`
    says, and behind a link its address, unless the link's own words are that address."""
    shown = _LINK.sub(_with_address, _IMAGE.sub(_alt, _NOT_SHOWN.sub("", fragment)))
    if not shown.strip():
        return ""
    try:
        text = str(get_text(shown, _CONFIG))
    except (ValueError, RecursionError):  # lxml: nothing to read, or deeper than it goes
        text = unescape(_TAG.sub(" ", shown))
    lines = [re.sub(r"\s+\Z", "", line) for line in text.replace("\xa0", " ").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", _without_margin("\n".join(lines)))


def _alt(match: re.Match[str]) -> str:
    alt = _ALT.search(match[1])
    return f"<span>{alt[1]}</span>" if alt and alt[1].strip() else ""


def _with_address(match: re.Match[str]) -> str:
    href = _HREF.search(match[1])
    address = unescape(href[1]).strip() if href else ""
    if scheme_of(address) not in SCHEMES:
        return match[2]
    words = " ".join(unescape(_TAG.sub("", match[2])).split())
    if _same(words, address):
        return match[2]
    shown = escape(_shown(address))
    return f"{match[2]} &lt;{shown}&gt;" if words else f"&lt;{shown}&gt;"


def _shown(address: str) -> str:
    """The address as a person would write it into text."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme.lower() in ("tel", "sms"):
        return unquote(rest)
    if colon and scheme.lower() == "mailto":
        return unquote(rest.partition("?")[0])
    return address


def _same(words: str, address: str) -> bool:
    scheme, colon, rest = address.partition(":")
    if colon and scheme.lower() in ("tel", "sms"):
        spoken, dialled = re.sub(r"\D", "", words.replace("(0)", "")), re.sub(r"\D", "", unquote(rest))
        return bool(spoken) and (spoken.removeprefix("00") == dialled.removeprefix("00"))
    if colon and scheme.lower() == "mailto":
        return words.lower() == unquote(rest.partition("?")[0]).lower()
    return _bare(words) == _bare(address)


def _bare(address: str) -> str:
    return re.sub(r"\A(?:https?:)?(?://)?(?:www\.)?", "", unquote(address).strip().lower()).rstrip("/")


def _without_margin(text: str) -> str:
    """Blanks that stand before every line are a cell's padding."""
    lines = text.split("\n")
    width = min((len(line) - len(line.lstrip(" ")) for line in lines if line), default=0)
    return "\n".join(line[width:] for line in lines)
