"""What the agent's own mail client put under the text as a signature, never in what is quoted."""

from __future__ import annotations


def in_text(text: bytes) -> tuple[int, int] | None:
    """Return the octets of a decoded text/plain body that are the client's signature, or None."""
    return None


def in_html(html: bytes) -> tuple[tuple[int, int], ...]:
    """Return the octets of a decoded text/html body that are the client's signature."""
    return ()
