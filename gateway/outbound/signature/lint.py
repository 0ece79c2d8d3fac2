"""What a recipient will not like about a signature, before one sees it: a linter for its templates.

The template is looked at unfilled, so that a remark can name the line in the file. Colours that a style sheet sets are
looked at where they end up, in the elements; then no line can be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import tinycss2

from gateway.markup.colour import BLACK, DARK, WHITE, Colour, contrast, read_colour
from gateway.markup.document import take_apart
from gateway.markup.policy import scheme_of
from gateway.markup.removal import FILLED, find_removals, unfilled
from gateway.markup.sanitise import sanitise
from gateway.markup.styles import for_the_dark, inline
from gateway.markup.tags import VOID, Kind, Lines, Piece, pieces
from gateway.outbound.signature.looks import Looks, looks_of

READABLE: Final = 4.5  # WCAG 2.2 §1.4.3
_READABLE_IN_THE_DARK: Final = 3.0  # there most programs mend colours themselves
_HEAVY: Final = 100 * 1024  # octets of HTML and pictures, as they travel
_LONG: Final = 20 * 1024  # octets of HTML: Gmail shows 102 KB of a mail, with everything that is quoted in it
_MOST_LOST: Final = 0.5
_SKEWED: Final = 0.03

_SHEET = re.compile(r"<style>([^<]*)</style>")
_NUMBER = re.compile(r"\s*(\d{1,5})(?:\.\d+)?(?:px)?\s*")
_TEXT_TAG = re.compile(r"</?(?:b|i|a|p|br|div|span|table|tr|td|img|font|strong|em)\b[^<>]*>", re.I)


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    HINT = "hint"


@dataclass(frozen=True, slots=True)
class Remark:
    """`line`: from 1, None where no line is to blame. `is_text`: it is about the text template, not the HTML."""

    line: int | None
    severity: Severity
    message: str
    is_text: bool = False


def lint(
    html: str, text: str, images: Mapping[str, bytes] | None = None, *, conditional_comments: bool = True
) -> list[Remark]:
    """Return what is to be said about two templates ("" for an absent one), in the order of their lines.

    `images`: bytes by the name that stands in `src="file:NAME"`, as for `render`. Raises nothing.
    """
    images = images or {}
    shape = unfilled(html)
    found = [
        *_of_elements(shape, images),
        *_of_colours(shape),
        *_of_weight(html, images),
        *(
            Remark(one.line, Severity.WARNING, f"left out: {one.what}")
            for one in find_removals(shape, conditional_comments=conditional_comments)
        ),
        *_of_text(text),
    ]
    shown = (replace(one, message=one.message.replace(FILLED, "…")) for one in found)
    return sorted(dict.fromkeys(shown), key=lambda one: (one.is_text, one.line is None, one.line or 0))


# --- elements --------------------------------------------------------------------------------------------------------


def _of_elements(html: str, images: Mapping[str, bytes]) -> Iterator[Remark]:
    lines = Lines(html)
    grounds = [False]  # has an element around this one a ground of its own?
    open_tags: list[str] = []
    for piece in pieces(html):
        if piece.kind is Kind.END and piece.name in open_tags:
            while open_tags.pop() != piece.name:
                grounds.pop()
            grounds.pop()
        if piece.kind is not Kind.START:
            continue
        has_ground = grounds[-1] or _ground(piece) is not None
        line = lines.at(piece.start)
        if piece.name == "img":
            for severity, message in _of_picture(piece, images, has_ground):
                yield Remark(line, severity, message)
        elif piece.name == "table" and not _size(piece, "width"):
            yield Remark(
                line, Severity.WARNING, '<table> has no width: Outlook then guesses one; write width="…" in pixels'
            )
        elif piece.name == "a" and not piece.attributes.get("href", "").strip():
            yield Remark(line, Severity.WARNING, "<a> leads nowhere: it has no href")
        if piece.name not in VOID:
            open_tags.append(piece.name)
            grounds.append(has_ground)


def _of_picture(piece: Piece, images: Mapping[str, bytes], has_ground: bool) -> Iterator[tuple[Severity, str]]:
    source = piece.attributes.get("src", "").strip()
    shown = f"the picture {source.removeprefix('file:')!r}" if source and FILLED not in source else "a picture"
    if "alt" not in piece.attributes:
        yield Severity.WARNING, f'{shown} has no alt: write what it says, or alt="" where it only decorates'
    scheme = scheme_of(source)
    if scheme == "http":
        yield Severity.ERROR, f"{shown} comes over http: readers see a warning, or nothing; use https or file:"
    elif scheme == "https":
        yield (
            Severity.HINT,
            f"{shown} is loaded from elsewhere: most mail programs ask first, and its server learns who reads",
        )
    wanted = [_size(piece, name) for name in ("width", "height")]
    looks = looks_of(data) if (data := images.get(source.removeprefix("file:").strip())) is not None else None
    if scheme == "file" and data is not None and looks is None:
        yield Severity.ERROR, f"{shown} cannot be read: the file is damaged, or has far too many pixels"
    lacking = [name for name, value in zip(("width", "height"), wanted, strict=True) if not value]
    if lacking:
        own = f" (its own are {looks.width} and {looks.height})" if looks else ""
        yield (
            Severity.WARNING,
            f"{shown} has no {' and no '.join(lacking)}: Outlook shows it in its own size, others jump while it loads"
            f"{own}",
        )
    if looks is not None:
        yield from _of_looks(shown, looks, wanted, has_ground)


def _of_looks(shown: str, looks: Looks, wanted: list[str], has_ground: bool) -> Iterator[tuple[Severity, str]]:
    width, height = (_NUMBER.fullmatch(one) for one in wanted)
    if width and height and int(width[1]) and int(height[1]):
        skew = (int(width[1]) / int(height[1])) / (looks.width / looks.height)
        if abs(skew - 1) > _SKEWED and abs(int(width[1]) - int(height[1]) * looks.width / looks.height) > 1:
            yield (
                Severity.WARNING,
                f"{shown} is drawn out of shape: {width[1]} × {height[1]} of {looks.width} × {looks.height} pixels",
            )
    if has_ground:
        return
    if looks.lost_on_dark > _MOST_LOST:
        yield (
            Severity.WARNING,
            f"{shown} is dark and transparent: in dark mode it cannot be seen; give it a light ground or an outline",
        )
    if looks.lost_on_light > _MOST_LOST:
        yield (
            Severity.WARNING,
            f"{shown} is light and transparent: on white it cannot be seen; give it a ground",
        )


def _size(piece: Piece, name: str) -> str:
    """The attribute's value, else that of the style; "" for none."""
    if value := piece.attributes.get(name, "").strip():
        return value
    style = _declarations(piece)
    return style.get(name, "") or style.get(f"max-{name}", "")


# --- colours ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ink:
    """Of an element and what is around it. `name`: of the tag."""

    name: str
    colour: Colour | None
    ground: Colour | None


def _of_colours(html: str) -> Iterator[Remark]:
    sheets = take_apart(html).style_sheets
    shown = sanitise(html).html if sheets else html
    at_night = for_the_dark(match[1]) if (match := _SHEET.match(shown)) else ""
    if at_night:
        yield from _of_own_dark(inline(shown, at_night))
    lines = None if sheets else Lines(html)
    for offset, ink in _inks(shown):
        for message in _of_ink(ink, bool(at_night)):
            yield Remark(lines.at(offset) if lines else None, Severity.WARNING, message)


def _of_own_dark(shown: str) -> Iterator[Remark]:
    """What the author's own style for dark mode leaves hard to read."""
    for _, ink in _inks(shown):
        ratio = contrast(ink.colour or WHITE, ink.ground or DARK)
        if ratio < _READABLE_IN_THE_DARK:
            on = f"{ink.colour or 'text without a colour (white)'} on {ink.ground or 'the dark ground of the program'}"
            yield Remark(None, Severity.WARNING, f"in its own dark style {on} has a contrast of {ratio:.1f}")


def _inks(shown: str) -> Iterator[tuple[int, _Ink]]:
    """Yield where words stand, and in which colours."""
    inks = [_Ink("", None, None)]
    for piece in pieces(shown):
        if piece.kind is Kind.START and piece.name not in VOID and piece.name != "style":
            ink = inks[-1]
            inks.append(_Ink(piece.name, _colour(piece) or ink.colour, _ground(piece) or ink.ground))
        elif piece.kind is Kind.END and any(ink.name == piece.name for ink in inks[1:]):
            while inks.pop().name != piece.name:
                pass
        elif piece.kind is Kind.TEXT and piece.data.strip():
            yield piece.start, inks[-1]


def _of_ink(ink: _Ink, minds_dark: bool) -> Iterator[str]:
    if ink.colour is not None and (ratio := contrast(ink.colour, ink.ground or WHITE)) < READABLE:
        yield (
            f"{ink.colour} on {ink.ground or 'white'} has a contrast of {ratio:.1f}, hard to read; "
            f"{READABLE} is the least for text (WCAG 2.2)"
        )
    if ink.colour is None and ink.ground is not None and contrast(ink.ground, BLACK) < READABLE:
        yield f"text without a colour stands on {ink.ground}: it is black there; set the colour as well"
    if minds_dark:
        return
    if ink.colour is not None and ink.ground is None:
        if (ratio := contrast(ink.colour, DARK)) < _READABLE_IN_THE_DARK:
            yield (
                f"{ink.colour} without a ground of its own has a contrast of {ratio:.1f} in dark mode, where a program "
                "keeps colours; leave the colour out, or set both"
            )
    elif ink.colour is None and ink.ground is not None and contrast(ink.ground, WHITE) < _READABLE_IN_THE_DARK:
        yield f"text without a colour stands on {ink.ground}: in dark mode it turns white there; set the colour as well"


def _colour(piece: Piece) -> Colour | None:
    value = _declarations(piece).get("color") or (piece.attributes.get("color") if piece.name == "font" else None)
    return read_colour(value) if value else None


def _ground(piece: Piece) -> Colour | None:
    style = _declarations(piece)
    value = style.get("background-color") or style.get("background") or piece.attributes.get("bgcolor")
    return read_colour(value) if value else None


def _declarations(piece: Piece) -> dict[str, str]:
    style = piece.attributes.get("style", "")
    if not style:
        return {}
    return {
        node.lower_name: tinycss2.serialize(node.value).strip()
        for node in tinycss2.parse_blocks_contents(style, skip_comments=True, skip_whitespace=True)
        if node.type == "declaration"
    }


# --- the whole -------------------------------------------------------------------------------------------------------


def _of_weight(html: str, images: Mapping[str, bytes]) -> Iterator[Remark]:
    own = len(html.encode())
    if own > _LONG:
        yield Remark(
            None,
            Severity.WARNING,
            f"the HTML has {own / 1024:.0f} KiB: Gmail cuts a mail off at 102 KB, with all that is quoted in it",
        )
    weight = own + sum(len(data) * 4 // 3 for data in images.values())
    if weight > _HEAVY:
        yield Remark(None, Severity.WARNING, f"it adds {weight / 1024:.0f} KiB to every mail; less than 100 is usual")


def _of_text(text: str) -> Iterator[Remark]:
    for number, line in enumerate(unfilled(text).split("\n"), 1):
        if _TEXT_TAG.search(line):
            yield Remark(number, Severity.WARNING, "HTML in the text: it is shown as it is written", is_text=True)
        if len(line) > 78:
            yield Remark(
                number, Severity.HINT, f"a line of {len(line)} letters: beyond 78 some programs break it", is_text=True
            )
