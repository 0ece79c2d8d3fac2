"""A stranger's HTML, made fit to be looked at, and to be quoted: looks stay, what acts or asks the network goes.

The page that shows it has a policy against scripts and the network beside this (`page`); a quote in a sample mail has
only this.
"""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Final

import nh3

_TAGS: Final = nh3.ALLOWED_TAGS | {
    "style",
    "font",
    "big",
    "address",
    "label",
    "main",
    "section",
    "small",
    "tt",
    "u",
    "s",
}
_ACTING: Final = frozenset(
    {"script", "iframe", "object", "embed", "applet", "svg", "math", "template", "title", "textarea"}
)
_LOOKS: Final = frozenset(
    {
        *("style", "class", "align", "valign", "bgcolor", "background", "color", "face", "size", "width", "height"),
        *("border", "cellpadding", "cellspacing", "hspace", "vspace", "nowrap", "dir", "lang", "title", "role"),
    }
)
_ATTRIBUTES: Final = {
    "*": set(_LOOKS),
    "a": {"href", "name"},
    "img": {"src", "alt"},
    "blockquote": {"type", "cite"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
    "ol": {"start", "type"},
    "ul": {"type"},
    "li": {"type", "value"},
    "col": {"span"},
}
_SCHEMES: Final = {"http", "https", "mailto", "tel", "cid", "mid"}
_BODY: Final = re.compile(r"<(/?)body\b([^<>]{0,4000})>", re.I)
_COLOUR: Final = re.compile(r"""\bbgcolor\s*=\s*["']?([#\w]{1,40})""", re.I)
_TEXT_COLOUR: Final = re.compile(r"""(?<![\w-])text\s*=\s*["']?([#\w]{1,40})""", re.I)
_STYLE: Final = re.compile(r"""(?<![\w-])style\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')""", re.I)


def sanitise(html: str, *, keep_style_sheets: bool) -> str:
    """Return a fragment for the inside of a body. Its own body becomes a div that looks the same, as in webmail.

    `keep_style_sheets`: also the `<style>` elements; where the mail stands alone they hurt nobody.
    """
    tags = set(_TAGS) if keep_style_sheets else set(_TAGS) - {"style"}
    return nh3.clean(
        _BODY.sub(_body_as_div, html),
        tags=tags,
        clean_content_tags=set(_ACTING) if keep_style_sheets else set(_ACTING) | {"style"},
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        url_schemes=set(_SCHEMES),
    )


def _body_as_div(tag: re.Match[str]) -> str:
    if tag[1]:
        return "</div>"
    style = ""
    if colour := _COLOUR.search(tag[2]):
        style += f"background-color:{colour[1]};"
    if colour := _TEXT_COLOUR.search(tag[2]):
        style += f"color:{colour[1]};"
    if own := _STYLE.search(tag[2]):
        style += unescape(own[1] or own[2] or "")
    return f'<div style="{escape(style)}">' if style else "<div>"
