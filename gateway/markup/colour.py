"""Colours of HTML that is shown on a light or a dark ground, and how well they are told apart (WCAG 2.2 §1.4.3)."""

from __future__ import annotations

from typing import Final, NamedTuple

import tinycss2
from tinycss2.color3 import parse_color


class Colour(NamedTuple):
    """Red, green and blue from 0 to 1."""

    red: float
    green: float
    blue: float

    def __str__(self) -> str:
        return "#" + "".join(f"{round(value * 255):02x}" for value in self)


BLACK: Final = Colour(0, 0, 0)
WHITE: Final = Colour(1, 1, 1)
# What mail programs put below a mail in dark mode lies between #121212 and #2b2b2b.
DARK: Final = Colour(0x1E / 255, 0x1E / 255, 0x1E / 255)


def read_colour(value: str) -> Colour | None:
    """Return the first colour in the value of an attribute or a declaration, or None: none, or one that lets the
    ground shine through."""
    for token in tinycss2.parse_component_value_list(value, skip_comments=True):
        found = parse_color(token)
        if found is not None and not isinstance(found, str):
            red, green, blue, alpha = found
            return Colour(*(min(1.0, max(0.0, one)) for one in (red, green, blue))) if alpha >= 0.5 else None
    return None


def contrast(one: Colour, other: Colour) -> float:
    """Return the ratio of two colours, from 1 (the same) to 21 (black and white)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Colour) -> float:
    """Return the relative luminance, from 0 to 1 (WCAG 2.2, "relative luminance")."""
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
