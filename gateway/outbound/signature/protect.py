"""Mail whose bytes are not ours to change: a signature in it would break a seal, a protocol or a promise."""

from __future__ import annotations

import re
from typing import Final

from gateway.mime import transfer
from gateway.mime.structure import Part

# What a guest's calendar says to the host's (RFC 5546 §1.4): the organizer's program reads it, nobody else.
_GUEST_SAYS: Final = frozenset({"reply", "counter", "refresh"})
_METHOD = re.compile(rb"^METHOD[ \t]*:[ \t]*(\w{1,20})", re.I | re.M)
_LARGEST_CALENDAR: Final = 256 * 1024  # octets that are looked through
_SEALED: Final = {
    "multipart/signed": "signed (RFC 1847)",
    "multipart/encrypted": "encrypted (RFC 1847)",
    "application/pkcs7-mime": "S/MIME (RFC 8551)",
    "application/x-pkcs7-mime": "S/MIME (RFC 8551)",
    "application/pgp-encrypted": "encrypted (RFC 3156)",
    "multipart/report": "a report (RFC 6522)",
}
# Armour begins a line (RFC 9580 §6.2.1); quoted armour has its quote sign in front and is no armour of this message.
_ARMOUR = re.compile(rb"(?:^|\n)-----BEGIN (?:PGP (?:SIGNED )?MESSAGE|PKCS7)-----")
_HTML_ARMOUR: Final = (b"-----BEGIN PGP MESSAGE-----", b"-----BEGIN PGP SIGNED MESSAGE-----")


def protection(raw: bytes, tree: Part) -> str:
    """Return why the message as a whole must stay as it is, in a few words, or "". `tree`: the scan of `raw`."""
    for field in tree.fields:
        if field.name == "dkim-signature":
            return "already DKIM-signed"
        if field.name == "arc-message-signature":
            return "already signed by ARC (RFC 8617)"
        if field.name == "resent-from":
            return "somebody else's mail that is passed on (RFC 5322 §3.6.6)"
        if field.name == "auto-submitted" and field.text.partition(";")[0].partition("(")[0].strip().lower() != "no":
            return "automatically submitted (RFC 3834)"
    if tree.content_type.startswith("message/"):
        return f"a {tree.content_type} as a whole"
    if tree.filename.lower().endswith((".p7m", ".p7s")):  # RFC 8551 §3.9: some agents name only the file
        return "S/MIME (RFC 8551)"
    for part in tree.walk():
        if reason := _SEALED.get(part.content_type):
            return reason
        if part.content_type == "text/calendar" and _method(raw, part) in _GUEST_SAYS:
            return "the answer to an invitation (RFC 6047)"
    return ""


def _method(raw: bytes, part: Part) -> str:
    """RFC 6047 §2.4 wants the method as a parameter; some clients have it in the calendar only."""
    if method := part.parameters.get("method"):
        return method.strip().lower()
    if part.end - part.body > _LARGEST_CALENDAR:
        return ""
    found = _METHOD.search(transfer.decode(raw[part.body : part.end], part.encoding) or b"")
    return found[1].decode("ascii").lower() if found else ""


def has_armour(text: bytes, *, is_html: bool) -> bool:
    """Does the decoded body hold inline PGP or S/MIME that is its own, not quoted?"""
    if b"-----BEGIN P" not in text:
        return False
    return _ARMOUR.search(text) is not None or (is_html and any(armour in text for armour in _HTML_ARMOUR))
