"""Mail whose bytes are not ours to change: a signature in it would break a seal, a protocol or a promise."""

from __future__ import annotations

import re
from typing import Final

from gateway.mime.structure import Part

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


def protection(tree: Part) -> str:
    """Return why the message as a whole must stay as it is, in a few words, or ""."""
    for field in tree.fields:
        if field.name == "dkim-signature":
            return "already DKIM-signed"
        if field.name == "auto-submitted" and field.text.partition(";")[0].partition("(")[0].strip().lower() != "no":
            return "automatically submitted (RFC 3834)"
    if tree.content_type.startswith("message/"):
        return f"a {tree.content_type} as a whole"
    if tree.filename.lower().endswith((".p7m", ".p7s")):  # RFC 8551 §3.9: some agents name only the file
        return "S/MIME (RFC 8551)"
    for part in tree.walk():
        if reason := _SEALED.get(part.content_type):
            return reason
        if part.content_type == "text/calendar" and part.parameters.get("method", "").lower() == "reply":
            return "the answer to an invitation (RFC 6047)"
    return ""


def has_armour(text: bytes, *, is_html: bool) -> bool:
    """Does the decoded body hold inline PGP or S/MIME that is its own, not quoted?"""
    if b"-----BEGIN P" not in text:
        return False
    return _ARMOUR.search(text) is not None or (is_html and any(armour in text for armour in _HTML_ARMOUR))
