"""The picture files that a template names, found as a browser would find them: letters written as references, `>` in
an attribute, text that only looks like a tag."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.markup.comments import is_conditional
from gateway.markup.policy import file_name, is_file
from gateway.markup.removal import unfilled
from gateway.markup.tags import Kind, Lines, pieces


def file_pictures(template: str) -> Iterator[tuple[str, int]]:
    """Yield the name behind `file:` of every picture, and its line (from 1); also of those in Outlook's comments.

    `FILLED` stands in the name for what only a message would know.
    """
    html = unfilled(template)
    lines = Lines(html)
    for name, offset in _found(html):
        yield name, lines.at(offset)


def _found(html: str) -> Iterator[tuple[str, int]]:
    for piece in pieces(html):
        if piece.kind is Kind.COMMENT and is_conditional(piece.data):
            for name, offset in _found(piece.data):
                yield name, piece.start + len("<!--") + offset
        elif piece.kind is Kind.START:
            source = piece.attributes.get("src", "")
            if is_file(piece.name, "src", source):
                yield file_name(source), piece.start
