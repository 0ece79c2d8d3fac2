"""What is known about each kind of provider: hosts, how to log in, how fast, how to watch.

Gathered 2026-11-23 from the providers' own pages where there are any; figures without a published source are
cautious. Every one of them may be overridden in rules.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Profile:
    """`imap`, `smtp`: None where the admin names them. `auth`: what the provider still accepts for mail.
    `per_minute`, `per_day`, `per_connection`: messages out. `idle`: whether IDLE is worth trying.
    """

    imap: str | None = None
    smtp: str | None = None
    auth: str = "password"
    connections: int = 2
    per_minute: int | None = None
    per_day: int | None = None
    per_connection: int | None = None
    renew_idle: timedelta = 9 * _MINUTE
    poll: timedelta = 5 * _MINUTE
    idle: bool = True
    reconnect: timedelta | None = field(default=timedelta(hours=6))  # planned; None: when the token runs out
    keeps_sent: bool = False  # saves a copy in Sent by itself what is sent through its SMTP


# 15 messages per connection: Yahoo cuts at 20. 480, 950 and 1,900 a day stay below the published 500, 1,000, 2,000.
_YAHOO: Final = {
    "per_day": 480,
    "per_connection": 15,
    "connections": 1,
    "renew_idle": 3 * _MINUTE,
    "poll": _MINUTE,
    "idle": False,  # not offered, or broken where it is
}

PROFILES: Final[Mapping[str, Profile]] = {
    # 30 a minute is the published limit, above it mail is delayed; 3 connections at most.
    "microsoft": Profile(
        imap="imaps://outlook.office365.com",
        smtp="smtp://smtp.office365.com",
        auth="oauth2",
        connections=2,
        per_minute=25,
        reconnect=None,
        keeps_sent=True,
    ),
    "gmail": Profile(
        imap="imaps://imap.gmail.com",
        smtp="smtps://smtp.gmail.com",
        auth="oauth2",
        connections=1,
        per_day=1900,
        reconnect=None,
        keeps_sent=True,
    ),
    "yahoo": Profile(imap="imaps://imap.mail.yahoo.com", smtp="smtps://smtp.mail.yahoo.com", **_YAHOO),  # type: ignore[arg-type]  # a mixed table
    "aol": Profile(imap="imaps://imap.aol.com", smtp="smtps://smtp.aol.com", **_YAHOO),  # type: ignore[arg-type]  # as above
    "icloud": Profile(imap="imaps://imap.mail.me.com", smtp="smtp://smtp.mail.me.com", connections=1, per_day=950),
    # RFC 2177 allows 29 minutes, but a NAT on the way forgets an idle connection sooner, and we cannot see one.
    "fastmail": Profile(
        imap="imaps://imap.fastmail.com",
        smtp="smtps://smtp.fastmail.com",
        renew_idle=24 * _MINUTE,
        poll=10 * _MINUTE,
        reconnect=timedelta(hours=12),
    ),
    "custom": Profile(renew_idle=24 * _MINUTE, poll=10 * _MINUTE, reconnect=timedelta(hours=12)),
}

NOT_YET = frozenset({"graph", "ews", "eas"})  # names that are spoken for
