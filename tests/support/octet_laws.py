"""The laws of injecting for mail that no two parsers need to read alike: judged by offsets of our own scanner.

`message_laws` asks the standard library and wants whole messages; here every message is welcome.
"""

from __future__ import annotations

from gateway.mime import transfer
from gateway.mime.charset import charset
from gateway.mime.structure import Part, scan
from gateway.outbound.signature import client
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject

NAMED_FIELDS = {"content-type", "content-transfer-encoding", "mime-version"}


def broken_law(raw: bytes, done: Injected, signature: RenderedSignature, *, is_stripped: bool = False) -> str:
    """Return the first law that does not hold between a message and what came of it, or ""."""
    if not done.placed or done.reason:
        if done.raw != raw:
            return "a message that was left alone is another one"
        return "" if done.reason else "a message was left alone without a reason"
    for again in (is_stripped, not is_stripped):
        if inject(done.raw, signature, strip_client_signature=again) != Injected(done.raw, True, ALREADY_THERE):
            return "injecting twice is not injecting once"
    if raw.isascii() and not done.raw.isascii():
        return "a seven-bit message became eight-bit"
    if _longest(done.raw) > max(998, _longest(raw) + 1):  # a line that was too long may get a soft break at its end
        return "a line grew beyond what SMTP takes"
    return _broken_structure(raw, done.raw, signature, is_stripped)


def _longest(raw: bytes) -> int:
    return max(len(line.rstrip(b"\r")) for line in raw.split(b"\n"))


def _leaves(tree: Part) -> list[Part]:
    return [part for part in tree.walk() if not part.children]


def _broken_structure(raw: bytes, done: bytes, signature: RenderedSignature, is_stripped: bool) -> str:
    old_tree, new_tree = scan(raw), scan(done)
    is_single = not old_tree.is_multipart
    if _other_fields(raw, old_tree, is_single) != _other_fields(done, new_tree, is_single):
        return "another header field was changed"
    pictures = {f"<{image.content_id}>" for image in signature.images}
    old, new = _leaves(old_tree), [part for part in _leaves(new_tree) if _content_id(part) not in pictures]
    old = [part for part in old if _content_id(part) not in pictures]
    if len(new) in (len(old) + 1, len(old) + 2) and done.endswith(raw[old_tree.delimiters[0].start :]):
        return ""  # a text in front of nothing but files
    if len(new) != len(old):
        return "there are more or fewer parts"
    changed: list[str] = []
    for was, now in zip(old, new, strict=True):
        if raw[was.start : was.end] == done[now.start : now.end] or (
            is_single and raw[was.body : was.end] == done[now.body : now.end]
        ):
            continue
        if was.content_type != now.content_type or was.content_type not in ("text/plain", "text/html"):
            return f"{was.content_type} was changed"
        changed.append(was.content_type)
        if not is_single and _other_fields(raw, was, False) != _other_fields(done, now, False):
            return "another field of a part was changed"
        if law := _broken_text(raw, was, done, now, is_stripped):
            return law
    return "" if len(changed) == len(set(changed)) and changed else f"changed: {changed}"


def _content_id(part: Part) -> str:
    field = part.field("content-id")
    return field.text if field else ""


def _other_fields(raw: bytes, part: Part, is_content_movable: bool) -> list[bytes]:
    """`is_content_movable`: all content fields go into the part, when pictures are put beside the root."""
    return [
        raw[field.start : field.end].rstrip(b"\r\n")
        for field in part.fields
        if field.name not in NAMED_FIELDS and not (is_content_movable and field.name.startswith("content-"))
    ]


def _broken_text(raw: bytes, was: Part, done: bytes, now: Part, is_stripped: bool) -> str:
    old, new = _octets(raw, was), _octets(done, now)
    if old is None or new is None:
        return "a text can no longer be read"
    if is_stripped:
        ranges = client.in_html(old) if was.content_type == "text/html" else filter(None, [client.in_text(old)])
        for start, end in sorted(ranges, reverse=True):
            old = old[:start] + old[end:]
    one, two = (_text(octets, part) for octets, part in ((old, was), (new, now)))
    if is_stripped and was.content_type == "text/plain":  # the blank lines above a signature go with it
        one, two = one.rstrip(), two.rstrip()
    same = _same(one, two)
    if same + _same(one[same:][::-1], two[same:][::-1]) < len(one):
        return "more or less than one run of letters was put in"
    return "" if len(two) > len(one) else "nothing was put in"


def _octets(raw: bytes, part: Part) -> bytes | None:
    octets = transfer.decode(raw[part.body : part.end], part.encoding)
    named = charset(part.charset)
    if octets is None or named is None:
        return None
    return octets if named.is_ascii_superset else octets.decode(named.codec, "replace").encode()


def _text(octets: bytes, part: Part) -> str:
    """Without carriage returns: a lone one may get its line feed from the block behind it."""
    named = charset(part.charset)
    codec = named.codec if named and named.is_ascii_superset else "utf-8"
    if codec == "ascii" and not octets.isascii():
        try:
            return octets.decode("utf-8").replace("\r", "")
        except UnicodeError:
            pass
    return octets.decode(codec, "surrogateescape").replace("\r", "")


def _same(one: str, two: str) -> int:
    """How many letters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
