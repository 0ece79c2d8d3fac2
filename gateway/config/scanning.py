"""Warnings about the scanner: who reads the mail on its way there, and what asks for a score that nobody gives."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gateway.config.document import Document
from gateway.config.draft import Draft
from gateway.config.positions import Path
from gateway.errors import Problem, Severity

_SCORE = "spam_score_over"


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    spam = draft.spam.model if draft.spam else None
    if spam is not None:
        for key, url in (("scanner", spam.scanner), ("learn_at", spam.learn_at)):
            if (host := _readable_on_the_way_to(url)) is not None:
                message = f"all mail goes to {host} in the clear; use rspamd+https, or a scanner on this machine"
                yield document.problem(("spam", key), message, Severity.WARNING)
        if spam.learn_password is not None and not spam.lessons_at.startswith("rspamd"):
            message = "only rspamd's controller asks for a password; nobody is told this one"
            yield document.problem(("spam", "learn_password"), message, Severity.WARNING)
        if spam.scanner:
            return
    if draft.spam is not None and "scanner" in draft.spam.wrong:
        return
    for rule in draft.rules:
        if rule.model is not None and isinstance(rule.raw, dict):
            for path in _asking(rule.raw.get("if"), (*rule.path, "if")):
                message = f'{_SCORE} is never answered: there is no scanner; name one, [spam] scanner = "…"'
                yield document.problem(path, message, Severity.WARNING)


def _readable_on_the_way_to(url: str) -> str | None:
    """Return the host, where others may read what goes there. A name may be that of this machine: only `localhost` is
    for certain.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.scheme == "rspamd+https" or host == "localhost" or host.endswith(".localhost"):
        return None
    try:
        return None if ip_address(host).is_loopback else host
    except ValueError:
        return host


def _asking(written: Any, path: Path) -> Iterator[Path]:
    """Walk the conditions as written: there is the place of each."""
    if isinstance(written, list):
        for index, each in enumerate(written):
            yield from _asking(each, (*path, index))
    elif isinstance(written, dict):
        for key in ("all", "any", "not"):
            yield from _asking(written.get(key), (*path, key))
        if _SCORE in written:
            yield (*path, _SCORE)
