"""What providers mean by the words of a no, where its code and phase do not say it.

One table a provider, and one for all: the first pattern that fits decides. Whatever no table knows is judged by code
and phase alone (`outcome`). A text belongs here when it turns a no to a message into a no to the touchpoint, or back;
the source stands beside it, because providers change their texts and somebody has to look again.

A recipient's server may be quoted in a provider's reply ("host mx.example said: 550 …"). What it says is about that
recipient, so a quoting reply never touches the lane. Nor does what a stranger has chosen, and what servers like to
repeat: an address may read `sendasdenied@…`, a subject "You have exceeded your quota".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

from gateway.model import Phase, Reply


class Cause(StrEnum):
    """Why a lane is not open. Shown by `status` and `outbox list`."""

    LOGIN = "login"
    PERMISSION = "permission"
    SWITCHED_OFF = "switched-off"
    CERTIFICATE = "certificate"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    QUOTA = "quota"
    FULL = "mailbox-full"  # the touchpoint's own
    BLOCKED = "blocked"  # the account, by its provider
    DKIM = "dkim"


class Meaning(StrEnum):
    """Whom a no is about, and for how long."""

    HOLD = "hold"  # the touchpoint, until a person mends something
    PAUSE = "pause"  # the touchpoint, for a while
    SESSION = "session"  # nobody: the provider wants a new connection
    SPLIT = "split"  # nobody: too many recipients at once
    MESSAGE = "message"  # this message, for good
    TEMPORARY = "temporary"  # this recipient or message, for a while


_SENDING: Final = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT})
_ANY: Final = frozenset(Phase)


@dataclass(frozen=True, slots=True)
class Pattern:
    """`text` is searched in "status text". `codes`: first digits of the reply. `cause`: of a HOLD or PAUSE.

    `is_guess`: words that many servers use, for more than one thing: a status that is about the recipient outweighs
    them.
    """

    text: re.Pattern[str]
    meaning: Meaning
    cause: Cause | None = None
    codes: str = "45"
    phases: frozenset[Phase] = _ANY
    is_guess: bool = False


def _hold(cause: Cause, text: str, phases: frozenset[Phase] = _ANY) -> Pattern:
    return Pattern(re.compile(text, re.I), Meaning.HOLD, cause, "5", phases)


def _pause(cause: Cause, text: str, codes: str = "45", phases: frozenset[Phase] = _ANY) -> Pattern:
    return Pattern(re.compile(text, re.I), Meaning.PAUSE, cause, codes, phases)


def _other(meaning: Meaning, text: str, codes: str = "45", phases: frozenset[Phase] = _SENDING) -> Pattern:
    return Pattern(re.compile(text, re.I), meaning, None, codes, phases)


# Exchange, in the cloud and on the premises. learn.microsoft.com: "Message storage and concurrent connection throttling
# for SMTP Authenticated Submission", "Continuous error throttling for SMTP AUTH submissions", "Email non-delivery
# reports and SMTP errors in Exchange Online"; looked at 2026-11-23.
_EXCHANGE: Final = (
    # A group or a mailbox that only takes mail from within, or from some: "authentication required" of whoever writes
    _other(Meaning.MESSAGE, r"RESOLVER\.RST\b|\b5\.7\.(124|13[3-6])\b", "5"),
    _hold(Cause.SWITCHED_OFF, r"SmtpClientAuthentication is disabled|\b5\.7\.30\b|basic authentication is disabled"),
    _hold(Cause.SWITCHED_OFF, r"\b5\.7\.139\b.*(disabled|security defaults)"),
    _hold(Cause.LOGIN, r"\b5\.7\.139\b|\b5\.7\.57\b"),
    _hold(Cause.PERMISSION, r"SendAsDenied|\b5\.7\.60\b|permissions? to send as|\b5\.2\.252\b"),
    _hold(
        Cause.FULL, r"mailbox full; STOREDRV\.Submission|QuotaExceededException\.MapiException|\b5\.2\.251\b", _SENDING
    ),
    _pause(Cause.QUOTA, r"SubmissionQuotaExceeded", "45", _SENDING),
)

_MICROSOFT: Final = (
    # Their word for "the recipient's mailbox gets too much at once": MicrosoftDocs/OfficeDocs-Exchange#2409.
    _other(Meaning.TEMPORARY, r"recipient thread limit exceeded"),
    _pause(Cause.THROTTLED, r"sender thread limit exceeded|concurrent connections? limit exceeded"),
    # 10,000 recipients a day for the mailbox; the tenant's limit of external recipients.
    _pause(Cause.QUOTA, r"\b5\.1\.90\b|\b5\.7\.23[23]\b|reached your daily limit"),
    _pause(Cause.THROTTLED, r"\b5\.2\.25[45]\b|\b4\.7\.500\b"),
    # No licence; banned for what it sent; a tenant over its threshold; an unregistered domain.
    _hold(Cause.BLOCKED, r"\b5\.2\.253\b|bad outbound sender|\b5\.7\.(50[123]|705|708|750)\b"),
    _hold(Cause.PERMISSION, r"\b5\.7\.(54|64)\b|TenantAttribution"),
)

# support.google.com: "Gmail SMTP errors and codes"; nodemailer/nodemailer#1388 for the logins. 2026-11-23.
_GMAIL: Final = (
    _other(Meaning.TEMPORARY, r"receiving mail (at a rate|too quickly)|tried to reach is (over quota|receiving)", "4"),
    _pause(Cause.QUOTA, r"\b5\.4\.5\b|daily (user )?(sending|smtp relay)"),
    _pause(Cause.THROTTLED, r"too many login attempts", "4"),
    _pause(Cause.THROTTLED, r"\b4\.7\.28\b|unusual rate|rate of (unsolicited )?(mail|messages)|server busy", "4"),
    _hold(Cause.PERMISSION, r"mail relay denied|invalid credentials for relay"),
)

# senders.yahooinc.com "SMTP error codes"; 2026-11-23.
_YAHOO: Final = (
    _pause(Cause.THROTTLED, r"\[TSS?\d\d\]", "4"),
    _hold(Cause.PERMISSION, r"from:? address not verified"),
    _hold(Cause.BLOCKED, r"cannot send message due to possible abuse", _SENDING),
)

# TryGhost/Ghost#17012; 2026-11-23. The text of its limits is not published: the general table catches the usual ones.
_ICLOUD: Final = (_hold(Cause.PERMISSION, r"from address is not one of your addresses"),)

# Postfix (smtpd_check.c, smtpd.c), Exim (acl and smtp_in.c), Dovecot's submission proxy, cPanel, Sendmail; 2026-11-23.
_WORDS: Final = (
    _other(Meaning.TEMPORARY, r"gr[ae]y-?list"),
    # Postfix's smtpd_hard_error_limit, Exim's smtp_accept_max_per_connection, and servers that were bored.
    _other(Meaning.SESSION, r"too many errors|idle (for )?too long|timeout exceeded", "4"),
    _other(Meaning.SESSION, r"too many (messages|mails)( (in|on|per|for))? (this|one|session|connection)", "4"),
    _pause(Cause.THROTTLED, r"too many recipients from|too much mail from|too many connections|connection rate limit"),
    _pause(Cause.THROTTLED, r"too many (concurrent|simultaneous) (smtp )?connections"),
    _other(Meaning.SPLIT, r"too many recipients|\b[45]\.5\.3\b", "45", frozenset({Phase.RCPT})),
    _hold(Cause.PERMISSION, r"sender address rejected: not (owned|logged)|not owned by (the )?(auth )?user"),
    _hold(Cause.PERMISSION, r"not one of your (e-?mail )?addresses"),
    _hold(Cause.PERMISSION, r"not (allowed|authori[sz]ed|permitted) to send (as|from)"),
    _hold(Cause.PERMISSION, r"relay(ing)?( access)? (denied|disallowed|not permitted|prohibited)|unable to relay"),
    # qmail; Exim as cPanel sets it up
    _hold(Cause.PERMISSION, r"allowed rcpthosts|not (permitted|allowed) to relay", frozenset({Phase.MAIL, Phase.RCPT})),
    _hold(
        Cause.LOGIN,
        r"authentication (is )?required|must authenticate|(client|you) (was |are )?not authenticated|login required"
        # hMailServer, cPanel, and those that say it in few words
        r"|\brequires? (smtp[ -]?)?auth|turn on smtp auth|smtp[ -]auth (is )?required",
        frozenset({Phase.MAIL, Phase.RCPT}),
    ),
    _hold(
        Cause.BLOCKED,
        r"account (has been |is |was )?(temporarily )?(suspended|disabled|blocked|restricted)",
        frozenset({Phase.MAIL}),
    ),
    _pause(
        Cause.QUOTA,
        # not: Your message exceeded Google's message size limits
        r"\byou(r (?!message|e?-?mail\b|recipient|correspondent)[^.,;]{1,40})?('ve| have| has)? (exceeded|reached)\b"
        r"(?! [^.;]{0,40}\bsize)[^.;]{0,60}\b(quota|limit)"
        r"|\b(daily|hourly|sending|submission|outgoing|outbound)\b(?! message size)[^.;]{0,40}\b(quota|limit)\b"
        r"[^.;]{0,20}\b(exceeded|reached)|exceeded the max(imum)? (e-?mails|messages) per (hour|day)",
        "45",
        _SENDING,
    ),
    _pause(
        Cause.THROTTLED, r"\b(sending|submission|message|sender) rate\b[^.;]{0,30}\b(exceeded|limit)|rate limited", "4"
    ),
    # A bare "550 message too large" at MAIL is about the message, though it has no status.
    _other(Meaning.MESSAGE, r"\b(message|mail|size)\b[^.;]{0,30}\b(too (big|large)|exceeds|limit)", "5",
           frozenset({Phase.MAIL})),
)  # fmt: skip
_GENERAL: Final = tuple(replace(pattern, is_guess=True) for pattern in _WORDS)

TABLES: Final[Mapping[str, tuple[Pattern, ...]]] = {
    "microsoft": (*_MICROSOFT, *_EXCHANGE, *_GENERAL),
    "gmail": (*_GMAIL, *_GENERAL),
    "yahoo": (*_YAHOO, *_GENERAL),
    "icloud": (*_ICLOUD, *_GENERAL),
    "general": (*_EXCHANGE, *_GENERAL),
}
"""By the name that a profile has in `refusals` (config/providers.py)."""

_LONGEST: Final = 2_000  # characters of a reply that are looked at
_QUOTED: Final = re.compile(
    r"\bsaid:? ?[\"'(]?[245]\d\d\b|\bremote (server|host|mail)|\bin reply to\b"
    r"|\b[245]\d\d[ -][245]\.\d{1,3}\.\d{1,3}\b"  # a second reply within the first
    # Postfix and Exim, who ask a recipient's server first
    r"|\bunverified address:|\brefused to talk to me\b|\b(callout|callback|verification failed|response:)",
    re.I,
)
# What is in a reply without being said by it: addresses, what stands in quotes, and IPv4, which may look like a status
_ASIDE: Final = re.compile(
    r"<[^<>@]*+@[^<>]*+>"
    r'|"[^"]*+"(?:@\S*+)?'
    r"|(?<!\w)'[^']*+'(?!\w)"
    r"|(?<!\S)[^\s@\"]*+@\S*+"
    r"|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)"
)
# RFC 3463 §3.2, §3.3: there is no such mailbox, it has moved, it is switched off, it is full, it takes no such size
_ABOUT_RECIPIENT: Final = re.compile(r"[45]\.(?:1\.[1236]|2\.[1-4])\Z")


def find(reply: Reply, phase: Phase, table: str) -> Pattern | None:
    """Return what the words of a no mean in this phase, or None where code and phase decide."""
    said = reply.text[:_LONGEST]
    if phase in _SENDING:  # who answers to a login, or to the connection itself, speaks of nobody else
        text = _ASIDE.sub("", said)
        is_about_recipient = phase is not Phase.MAIL and _ABOUT_RECIPIENT.match(reply.status) is not None
    else:
        text, is_about_recipient = said, False
    found = _look_up(f"{reply.status} {text}", reply.code // 100, phase, table, is_about_recipient, False)
    if found is not None and found.cause is not None and phase in _SENDING and _QUOTED.search(said):
        return _look_up(f"{reply.status} {text}", reply.code // 100, phase, table, is_about_recipient, True)
    return found


@lru_cache(maxsize=256)  # a thousand recipients of one message are refused in the same words, but for their addresses
def _look_up(text: str, digit: int, phase: Phase, table: str, is_about_recipient: bool, quotes: bool) -> Pattern | None:
    for pattern in TABLES[table]:
        if str(digit) not in pattern.codes or phase not in pattern.phases:
            continue
        if pattern.cause is not None and (quotes or (is_about_recipient and pattern.is_guess)):
            continue
        if pattern.text.search(text):
            return pattern
    return None


# --- when to come again ----------------------------------------------------------------------------------------------

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ASKED: Final = re.compile(
    r"\b(?:again|retry|retry-after|retried|back|wait|after|grey-?list(?:ed|ing)?|gray-?list(?:ed|ing)?|delay(?:ed)?|resets?)\b"
    r"[^0-9;]{0,24}?"
    r"(?:\b(?P<hours>\d{1,2}):(?P<minutes>\d\d):(?P<seconds>\d\d)\b"
    r"|\b(?P<number>\d{1,6}|an?|one)\s?(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)\b"
    r"|:\s?(?P<bare>\d{1,6})\b)",
    re.I,
)
SHORTEST: Final = timedelta(seconds=1)
LONGEST: Final = timedelta(hours=24)


def wait_asked(reply: Reply) -> timedelta | None:
    """Return how long the server asks us to wait ("try again in 5 minutes", "retry after 300 seconds", "come back in
    00:05:00", "Retry-After: 120"), between a second and a day; None where it names no time.
    """
    found = _ASKED.search(reply.text[:_LONGEST])
    if found is None:
        return None
    if found["hours"] is not None:
        seconds = int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + int(found["seconds"])
    elif found["bare"] is not None:
        seconds = int(found["bare"])
    else:
        number = int(found["number"]) if found["number"].isdigit() else 1
        seconds = number * _UNITS[found["unit"][0].lower()]
    return min(max(timedelta(seconds=seconds), SHORTEST), LONGEST)
