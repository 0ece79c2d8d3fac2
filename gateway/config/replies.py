"""Warnings about automatic replies: nothing here stops one, but it may go out differently than the admin thinks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from gateway.config.document import Document
from gateway.config.draft import Draft, Entry
from gateway.config.rules_file import AutoReply, Touchpoint
from gateway.config.templates import TemplateProblem, find_uses
from gateway.errors import Problem, Severity

# RFC 5230 §4.1 wants a day at least, RFC 6131 lets scripts say seconds; below this a quick exchange is answered twice
SHORTEST: Final = timedelta(hours=1)


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None or (reply := touchpoint.auto_reply) is None or not reply.active:
            continue
        for key, message in _warnings(draft, entry, touchpoint, reply):
            path = (*entry.path, "auto_reply", *([key] if key else []))
            yield document.problem(path, message, Severity.WARNING)


def _warnings(
    draft: Draft, entry: Entry[Touchpoint], touchpoint: Touchpoint, reply: AutoReply
) -> Iterator[tuple[str, str]]:
    shown = f'touchpoint "{touchpoint.id}"'
    if not touchpoint.is_outbound:
        yield "", f'{shown} is inbound only, so its automatic reply is never sent; set direction = "both"'
    elif not touchpoint.is_inbound:
        yield "", f'{shown} is outbound only, so no mail comes that could be answered; set direction = "both"'
    if reply.every < SHORTEST:
        yield (
            "every",
            (
                f"who writes to {shown} may get an automatic reply after each {reply.every.total_seconds():g} s;"
                ' a day or more is usual, for example every = "7 days"'
            ),
        )
    if reply.when == "always" and len(draft.hours) != 1 and _uses_open(reply):
        said = "there are none" if not draft.hours else f"there are {len(draft.hours)}"
        yield (
            "",
            (
                f'the automatic reply of {shown} asks "open" and no hours are meant ({said}), so it is always true;'
                ' name them in when, for example when = "office:closed"'
            ),
        )


def _uses_open(reply: AutoReply) -> bool:
    for source in (reply.subject, reply.html, reply.text):
        try:
            if any(use.variable == "open" for use in find_uses(source)):
                return True
        except TemplateProblem:  # told by the check of templates
            continue
    return False
