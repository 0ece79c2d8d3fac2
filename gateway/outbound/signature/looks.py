"""What a picture looks like on a light and on a dark ground."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from PIL import Image

from gateway.markup.colour import DARK, WHITE, Colour, contrast

_FORMATS: Final = ("JPEG", "GIF", "PNG", "BMP")
_MOST_PIXELS: Final = 4_000_000  # a file of 50 KiB may claim a thousand times as many
_SAMPLE: Final = 96  # pixels on a side that are looked at
_OPAQUE: Final = 128  # of 255
_LOST: Final = 1.7  # a contrast at which nobody sees a thin line


@dataclass(frozen=True, slots=True)
class Looks:
    """`width`, `height`: in pixels. `lost_on_dark`, `lost_on_light`: the share (0…1) of what is not transparent that
    cannot be told from the ground; 0 for a picture without transparency."""

    width: int
    height: int
    lost_on_dark: float = 0.0
    lost_on_light: float = 0.0


@contextmanager
def _no_bombs() -> Iterator[None]:
    """Pillow only warns of pictures that are large, not huge."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@lru_cache(maxsize=64)
def looks_of(data: bytes) -> Looks | None:
    """Return how a picture looks, None when it cannot be read."""
    try:
        with _no_bombs(), Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > _MOST_PIXELS:
                return Looks(width, height)
            picture.load()
            if not picture.has_transparency_data:
                return Looks(width, height)
            small = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    small.thumbnail((_SAMPLE, _SAMPLE))
    octets = small.tobytes()
    pixels = zip(octets[0::4], octets[1::4], octets[2::4], octets[3::4], strict=True)
    seen = [Colour(red / 255, green / 255, blue / 255) for red, green, blue, alpha in pixels if alpha >= _OPAQUE]
    if not seen or len(seen) * 4 == len(octets):
        return Looks(width, height)
    lost = [sum(contrast(colour, ground) < _LOST for colour in seen) / len(seen) for ground in (DARK, WHITE)]
    return Looks(width, height, *lost)
