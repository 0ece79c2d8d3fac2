"""What must hold between a message and the same message with a signature in it, judged by the standard library."""

from __future__ import annotations

import email
import re
from email import policy
from email.message import Message
from typing import NamedTuple

from gateway.mime import transfer
from gateway.mime.structure import Part, scan
from gateway.outbound.signature.block import MARKER, RenderedSignature, text_block

CHANGEABLE = {"content-type", "content-transfer-encoding", "mime-version", "content-language", "content-disposition"}
TEXTS = ("text/plain", "text/html")


class Insertion(NamedTuple):
    """What stands above and below the block in one decoded text."""

    above: str
    below: str


def parse(raw: bytes) -> Message:
    return email.message_from_bytes(raw, policy=policy.compat32)


def leaves(message: Message) -> list[Message]:
    """All parts that hold something themselves, without looking into attached messages."""
    children = message.get_payload()
    if message.get_content_maintype() != "multipart" or not isinstance(children, list):
        return [message]
    return [leaf for child in children if isinstance(child, Message) for leaf in leaves(child)]


def stored(leaf: Message) -> str:
    """The leaf with all its octets as they stand in the message."""
    return str(leaf)


def text_of(leaf: Message) -> str:
    octets = leaf.get_payload(decode=True)
    assert isinstance(octets, bytes)
    charset = leaf.get_content_charset() or "utf-8"
    return octets.decode(charset, "surrogateescape" if charset in ("utf-8", "us-ascii") else "strict").replace(
        "\r\n", "\n"
    )


def top_fields(message: Message) -> list[tuple[str, str]]:
    return [(name, value) for name, value in message.raw_items() if name.lower() not in CHANGEABLE]


def check_splice(before: bytes, after: bytes, signature: RenderedSignature) -> dict[str, Insertion]:
    """Assert the laws; return where the block stands, by media type.

    Everything but one text/plain and one text/html is there as it was, in its order; these two are what they were
    with one thing put in; what is new beside them are the signature's pictures; other fields are untouched.
    """
    old, new = parse(before), parse(after)
    assert top_fields(new) == top_fields(old)
    old_leaves, new_leaves = leaves(old), leaves(new)
    pictures = {image.content_id for image in signature.images}
    fresh = [leaf for leaf in new_leaves if (leaf["Content-ID"] or "").strip("<>") in pictures]
    kept = [leaf for leaf in new_leaves if leaf not in fresh]
    assert len(fresh) in (0, len(signature.images))
    assert len(kept) == len(old_leaves)
    changed: dict[str, Insertion] = {}
    is_single = len(old_leaves) == 1 and not old.is_multipart()
    for was, now in zip(old_leaves, kept, strict=True):
        assert now.get_content_type() == was.get_content_type()
        if (is_single and now.get_payload() == was.get_payload()) or (not is_single and stored(was) == stored(now)):
            continue
        kind = was.get_content_type()
        assert kind in TEXTS, f"{kind} was changed"
        assert kind not in changed, f"a second {kind} was changed"
        changed[kind] = one_insertion(text_of(was), text_of(now), kind, signature)
    return changed


def one_insertion(was: str, now: str, kind: str, signature: RenderedSignature) -> Insertion:
    """Return what is around the block, having seen that taking out one run of letters with it gives `was` back."""
    plain = text_block(signature)
    stuffed = re.sub(r"(?m)^(?=[ >]|From )", " ", plain)  # RFC 3676, where the part is flowed
    blocks = (plain, stuffed) if kind == "text/plain" else (f'<div class="{MARKER}"',)
    length = len(now) - len(was)
    assert length >= min(map(len, blocks))
    for block in blocks:
        for found in re.finditer(re.escape(block), now):
            # In front of the block there may be two line breaks of ours.
            for start in range(found.start(), max(-1, found.start() - 4), -1):
                if now[:start] + now[start + length :] == was:
                    return Insertion(now[:start], now[start + length :])
    raise AssertionError("the block is not there, or more than one run of letters was put in")


def no_new_defects(before: bytes, after: bytes) -> None:
    def defects(raw: bytes) -> set[str]:
        return {type(defect).__name__ for part in parse(raw).walk() for defect in part.defects}

    assert defects(after) <= defects(before)


def agreed_leaves(raw: bytes) -> list[tuple[Part, Message]]:
    """Return the leaves as our scanner and as the standard library see them, having seen that they are the same ones
    with the same octets in them. Not for a message that lacks an end: there the library leaves out a line break."""
    ours, theirs = [part for part in scan(raw).walk() if not part.children], leaves(parse(raw))
    assert [part.content_type for part in ours] == [leaf.get_content_type() for leaf in theirs]
    for part, leaf in zip(ours, theirs, strict=True):
        if part.content_type != "message/rfc822":
            assert transfer.decode(raw[part.body : part.end], part.encoding) == leaf.get_payload(decode=True)
    return list(zip(ours, theirs, strict=True))
