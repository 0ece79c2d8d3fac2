"""Several pictures on one sheet, each under its title."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_GAP: Final = 16
_TITLE: Final = 24
_PAPER: Final = (128, 128, 128)  # neither of the two looks
_INK: Final = (255, 255, 255)


def sheet(rows: Sequence[Sequence[tuple[str, bytes]]]) -> bytes:
    """Return one PNG of the pictures (title, PNG) in rows; a single one stays as it is, without a title."""
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0][1]
    pictures = [[(title, Image.open(io.BytesIO(png)).convert("RGB")) for title, png in row] for row in rows]
    width = max(sum(picture.width + _GAP for _, picture in row) for row in pictures) + _GAP
    heights = [max(picture.height for _, picture in row) + _TITLE for row in pictures]
    paper = Image.new("RGB", (width, sum(heights) + _GAP * (len(rows) + 1)), _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size=14)
    top = _GAP
    for row, height in zip(pictures, heights, strict=True):
        left = _GAP
        for title, picture in row:
            draw.text((left, top), title, fill=_INK, font=font)
            paper.paste(picture, (left, top + _TITLE))
            left += picture.width + _GAP
        top += height + _GAP
    written = io.BytesIO()
    paper.save(written, "PNG", optimize=True)
    return written.getvalue()
