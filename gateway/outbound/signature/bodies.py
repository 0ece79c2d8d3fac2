"""Which parts of a message a person wrote: those that a recipient reads first, and nothing that was attached."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.mime.structure import Part

Path = tuple[Part, ...]  # from the root down to the part itself

_NO_TEXT: Final = frozenset({"multipart/digest", "multipart/form-data", "multipart/appledouble"})


class Bodies(NamedTuple):
    """The parts that say the same as text and as HTML; either may be empty. Several of one kind are read one after
    the other: Apple's clients cut a text in two where a file or a picture stands in it."""

    plain: tuple[Path, ...] = ()
    html: tuple[Path, ...] = ()


def bodies(path: Path) -> Bodies:
    """Return the first text and the first HTML that a person wrote, both only when they say the same."""
    part = path[-1]
    if not part.is_multipart:
        return _leaf(path)
    if part.content_type == "multipart/alternative":
        found = [bodies((*path, child)) for child in part.children]
        return Bodies(
            next((one.plain for one in found if one.plain), ()), next((one.html for one in found if one.html), ())
        )
    if part.content_type == "multipart/related":
        return bodies((*path, root)) if (root := related_root(part)) else Bodies()
    if part.content_type in _NO_TEXT:
        return Bodies()
    for index, child in enumerate(part.children):
        first = bodies((*path, child))
        if first.plain or first.html:
            return _with_the_rest(first, path, part.children[index + 1 :])
    return Bodies()


def _leaf(path: Path) -> Bodies:
    part = path[-1]
    if part.disposition == "attachment" or part.filename:
        return Bodies()
    if part.content_type == "text/plain":
        return Bodies(plain=(path,))
    return Bodies(html=(path,)) if part.content_type == "text/html" else Bodies()


def _with_the_rest(first: Bodies, path: Path, children: tuple[Part, ...]) -> Bodies:
    """Add what goes on with a text behind a file or a picture. A text right behind a text, or one that says how it
    wants to be shown, is what a mailing list or a scanner put there."""
    if first.plain and first.html:
        return first
    pieces, is_parted = [*first.plain, *first.html], False
    for child in children:
        piece = _piece((*path, child))
        if piece is None:
            is_parted = True
        elif is_parted and piece[-1].content_type == pieces[0][-1].content_type and not piece[-1].disposition:
            pieces.append(piece)
            is_parted = False
        else:
            break
    return Bodies(plain=tuple(pieces)) if first.plain else Bodies(html=tuple(pieces))


def _piece(path: Path) -> Path | None:
    """A text, also one with its pictures."""
    if path[-1].is_multipart and path[-1].content_type != "multipart/related":
        return None
    found = bodies(path)
    return next((one[0] for one in found if len(one) == 1), None)


def related_root(part: Part) -> Part | None:
    """RFC 2387 §3.2: the part that `start` names, else the first."""
    if wanted := part.parameters.get("start", "").strip():
        for child in part.children:
            content_id = child.field("content-id")
            if content_id is not None and content_id.text == wanted:
                return child
    return part.children[0] if part.children else None
