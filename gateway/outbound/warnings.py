"""Warns the writer of a message to an address that bounced for good: it is accepted, and they are told beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

from gateway.mime.compose import compose
from gateway.mime.scan import Mailbox
from gateway.model import MessageClass, Submission, from_ms, show_id, to_ms
from gateway.outbound.bounce import mailboxes_of
from gateway.state.bounces import Hard, HardBounces
from gateway.state.queues import Notice
from gateway.state.raw import chunk_key
from gateway.text import clean

_LISTED: Final = 20


class BounceWarnings:
    """Called on the asyncio thread, for every submission; costs a look-up a recipient.

    A writer is warned of an address once a day. Who has been is remembered in memory only: a restart warns again.
    """

    def __init__(self, hard: HardBounces, hostname: Callable[[], str], next_id: Callable[[], int]) -> None:
        self._hard = hard
        self._hostname = hostname
        self._next_id = next_id
        self._day: date | None = None
        self._warned: set[tuple[str, str, str]] = set()

    def of(self, submission: Submission) -> Notice | None:
        """Return the warning, to be stored with the submission, or None."""
        if self._hard.is_empty:
            return None
        found: dict[str, Hard] = {}
        for address in submission.envelope.recipients:
            if (hard := self._hard.of(submission.touchpoint, address)) and self._is_first(submission, address):
                found[address] = hard
        return self._compose(submission, found) if found else None

    def _is_first(self, submission: Submission, address: str) -> bool:
        day = submission.accepted_at.date()
        if day != self._day:
            self._day, self._warned = day, set()
        key = (submission.touchpoint, submission.agent.lower(), address.lower())
        if key in self._warned:
            return False
        self._warned.add(key)
        return True

    def _compose(self, submission: Submission, found: dict[str, Hard]) -> Notice:
        id, conversation, hostname = self._next_id(), self._next_id(), self._hostname()
        who = next(iter(found)) if len(found) == 1 else f"{len(found)} recipients"
        subject = f"Perhaps not reached: {clean(who)}: {clean(submission.subject) or '(no subject)'}"
        lines = [
            "Your message was accepted and is being sent, but mail to "
            f"{'this address' if len(found) == 1 else 'these addresses'} has come back before:",
            "",
        ]
        for address, hard in list(found.items())[:_LISTED]:
            lines += [f"    {clean(address)}", f"        {from_ms(hard.at):%Y-%m-%d}: {clean(hard.text)}", ""]
        if len(found) > _LISTED:
            lines += [f"    … and {len(found) - _LISTED} more", ""]
        lines += [
            "Please check the address. This warning comes once a day; it ends when somebody writes to us from there.",
            "",
            f"    Subject:  {clean(submission.subject) or '(no subject)'}",
            f"    Queue id: {show_id(submission.id)}",
            "",
        ]
        sender, message_id = f"mailer-daemon@{hostname}", f"<{show_id(id)}.notice@{hostname}>"
        at = submission.accepted_at
        raw = compose(
            author=Mailbox("Mail gateway", sender),
            to=mailboxes_of(submission.agent),
            subject=subject,
            at=at,
            message_id=message_id,
            text="\r\n".join(lines),
            auto_submitted="auto-generated",
            more={"Return-Path": "<>"},
        )
        first = next(iter(found.values()))
        return Notice(
            id, conversation, submission.touchpoint, submission.agent, subject, ((chunk_key(id, 0), raw),), len(raw),
            to_ms(at), message_id, sender, reopens=False, message_class=MessageClass.REPORT,
            note=f"Mail to {clean(who)} has come back before: {clean(first.text)}",
        )  # fmt: skip
