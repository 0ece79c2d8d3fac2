"""An editor's whole document, made a fragment for the inside of somebody else's body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Final

from gateway.markup import policy
from gateway.markup.comments import is_conditional
from gateway.markup.policy import clean_style
from gateway.markup.tags import Kind, Lines, Piece, pieces

FRAME: Final = "mail-gateway-body"  # class of the element that stands for the document's body
_QUICK = re.compile(r"<(?:!doctype|/?(?:html|head|body|meta|title|style|link|base)\b|\?)", re.I)
_COLOURS: Final = {"bgcolor": "background-color", "text": "color"}
_WORD = re.compile(r"[\w #(),.%-]{1,60}")
_MEDIA = re.compile(r"[\w\s(),.:/-]{1,200}")


@dataclass(frozen=True, slots=True)
class StyleSheet:
    """`line`: from 1, where the text begins in the document."""

    css: str
    line: int


@dataclass(frozen=True, slots=True)
class Parts:
    """`body`: the fragment. `frame`: attributes of the body for an element around it, "" for none needed."""

    body: str
    style_sheets: tuple[StyleSheet, ...] = ()
    style: str = ""
    attributes: str = ""

    def framed(self, style: str, *, is_named: bool = False) -> str:
        """Return the body, within a div where the document's own says something. `style`: what its style sheets say.
        `is_named`: what stays of them speaks of it by its class."""
        own = "; ".join(filter(None, (style, self.style)))
        if not own and not self.attributes and not is_named:
            return self.body
        name = f' class="{FRAME}"' if is_named else ""
        looks = f' style="{escape(own)}"' if own else ""
        return f"<div{name}{looks}{self.attributes}>{self.body}</div>"


def take_apart(html: str) -> Parts:
    """Return the fragment and the style sheets. Of a head nothing else stays but Outlook's comments."""
    if not _QUICK.search(html):
        return Parts(html.strip())
    found = list(pieces(html))
    lines = Lines(html)
    body: list[str] = []
    sheets: list[StyleSheet] = []
    style = attributes = ""
    is_head = False
    for piece in found:
        if piece.kind is Kind.START and piece.name == "style":
            sheets += _style_sheet(html, piece, lines)
        elif piece.kind is Kind.START and piece.name == "body":
            is_head = False
            style = style or _body_style(piece.attributes)
            attributes = attributes or _body_attributes(piece.attributes)
        elif piece.kind in (Kind.START, Kind.END) and (piece.name in policy.FRAME or piece.name in ("link", "base")):
            if piece.name == "head":
                is_head = piece.kind is Kind.START
        elif piece.kind is Kind.DECLARATION and not piece.data.startswith("["):
            continue
        elif not is_head or (piece.kind is Kind.COMMENT and is_conditional(piece.data)):
            body.append(html[piece.start : piece.end])
    return Parts("".join(body).strip(), tuple(sheets), style, attributes)


def _style_sheet(html: str, piece: Piece, lines: Lines) -> list[StyleSheet]:
    if piece.attributes.get("type", "text/css").strip().lower() not in ("", "text/css"):
        return []
    css, media = piece.data, piece.attributes.get("media", "").strip()
    if media and media.lower() not in ("all", "screen"):
        css = f"@media {media} {{ {css} }}" if _MEDIA.fullmatch(media) else ""
    start = html.find(">", piece.start) + 1
    return [StyleSheet(css, lines.at(start))]


def _body_style(attributes: dict[str, str]) -> str:
    own = [f"{name}: {attributes[key]}" for key, name in _COLOURS.items() if _WORD.fullmatch(attributes.get(key, ""))]
    style = clean_style(attributes.get("style", ""))[0].strip().rstrip(";")
    return "; ".join(filter(None, (*own, style)))


def _body_attributes(attributes: dict[str, str]) -> str:
    return "".join(
        f' {name}="{escape(attributes[name])}"' for name in ("dir", "lang") if _WORD.fullmatch(attributes.get(name, ""))
    )
