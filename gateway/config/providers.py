"""What is known about each kind of provider: hosts, how to log in, how fast, how to watch, which folders are special.

Gathered 2026-11-23 from the providers' own pages where there are any; figures without a published source are
cautious. Every one of them may be overridden in rules.toml, but for `uid_only` and `imap_connections`, which are about
the server's ways and not about anybody's wishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)

SentCopy = Literal["provider", "append"]

# A session without a token has no end of its own: Gmail says goodbye after a day, others after less.
RECONNECT_WITHOUT_TOKEN: Final = 12 * _HOUR


@dataclass(frozen=True, slots=True)
class Profile:
    """`imap`, `smtp`: None where the admin names them. `auth`: what the provider still accepts for mail.
    `per_minute`, `per_day`, `per_connection`: messages out; `connections`: of SMTP at a time. `recipients`: of one
    transaction, None: what the server says, else 100. `size`: bytes of the largest message, where its EHLO has not yet
    told. `refusals`: which table of `outbound.refusals` knows what it says. `null_return_path`: it takes `MAIL FROM:<>`
    from who has logged in.

    `idle`: whether IDLE is worth trying. `poll`: how often to look without believing it. `reconnect`: a planned new
    session; None: before the token runs out. `uid_only`: large folders are shown in part unless the client does
    ENABLE UIDONLY (RFC 9586).

    `junk`, `sent`: the provider's own names for these folders, used where no special-use attribute tells.
    `sent_copy`: who files what went out through its SMTP: it does by itself, or we do.

    `authserv_ids`: under which names its servers write Authentication-Results (RFC 8601 §2.5), as globs; "" where they
    give no name. `rewrites_mail`: what it stores is not to the byte what was sent, so that signatures break.
    `spam_marks`: what it writes into a header of mail that it takes for spam, and nobody outside can: field (lower
    case) and values.
    """

    imap: str | None = None
    smtp: str | None = None
    auth: Literal["password", "oauth2"] = "password"
    connections: int = 2
    per_minute: int | None = None
    per_day: int | None = None
    per_connection: int | None = None
    recipients: int | None = None
    size: int | None = None
    refusals: str = "general"
    null_return_path: bool = False
    imap_connections: int = 2
    idle: bool = True
    renew_idle: timedelta = 9 * _MINUTE
    poll: timedelta = 5 * _MINUTE
    reconnect: timedelta | None = 6 * _HOUR
    uid_only: bool = False
    junk: tuple[str, ...] = ("Junk", "Spam")
    sent: tuple[str, ...] = ("Sent",)
    sent_copy: SentCopy = "append"
    authserv_ids: tuple[str, ...] = ()
    rewrites_mail: bool = False
    spam_marks: tuple[tuple[str, tuple[str, ...]], ...] = ()


def _yahoo(host: str) -> Profile:
    """One platform under two names. 15 messages a connection: it cuts at 20. 480 a day: the published limit is 500.
    IDLE is not offered, or broken where it is; whoever switches it on gets the interval that works."""
    return Profile(
        imap=f"imaps://imap.{host}",
        smtp=f"smtps://smtp.{host}",
        connections=1,
        per_day=480,
        per_connection=15,
        recipients=100,
        size=25_000_000,
        refusals="yahoo",
        idle=False,
        renew_idle=3 * _MINUTE,
        poll=_MINUTE,
        uid_only=True,
        junk=("Bulk Mail", "Bulk", "Spam"),
        sent=("Sent",),
        authserv_ids=("*.yahoo.com", "*.yahoodns.net"),
    )


PROFILES: Final[Mapping[str, Profile]] = {
    # 30 a minute is the published limit, above it mail is delayed; 3 connections of SMTP at most.
    "microsoft": Profile(
        imap="imaps://outlook.office365.com",
        smtp="smtp://smtp.office365.com",
        auth="oauth2",
        per_minute=25,
        recipients=500,
        size=35_000_000,
        refusals="microsoft",
        reconnect=None,
        junk=("Junk Email", "Junk E-Mail", "Junk"),
        sent=("Sent Items", "Sent"),
        sent_copy="provider",
        authserv_ids=("", "mx.microsoft.com", "*.protection.outlook.com"),
        rewrites_mail=True,
        # Such fields of strangers are taken out at its door. From 5 on it is spam; -1 is whom the organisation trusts.
        spam_marks=(("x-ms-exchange-organization-scl", ("5", "6", "7", "8", "9")),),
    ),
    # 1,900 a day stays below the 2,000 of a paid account; 15 connections of IMAP are allowed to all clients together.
    "gmail": Profile(
        imap="imaps://imap.gmail.com",
        smtp="smtps://smtp.gmail.com",
        auth="oauth2",
        connections=1,
        per_day=1900,
        recipients=100,
        size=25_000_000,
        refusals="gmail",
        imap_connections=3,
        reconnect=None,
        junk=("[Gmail]/Spam", "[Google Mail]/Spam"),
        sent=("[Gmail]/Sent Mail", "[Google Mail]/Sent Mail"),
        sent_copy="provider",
        authserv_ids=("mx.google.com",),
    ),
    "yahoo": _yahoo("mail.yahoo.com"),
    "aol": _yahoo("aol.com"),
    # 1,000 a day are published.
    "icloud": Profile(
        imap="imaps://imap.mail.me.com",
        smtp="smtp://smtp.mail.me.com",
        connections=1,
        per_day=950,
        recipients=500,
        size=20_000_000,
        refusals="icloud",
        junk=("Junk",),
        sent=("Sent Messages", "Sent"),
        authserv_ids=("*.icloud.com", "*.mail.me.com", "*.apple.com"),
    ),
    # RFC 2177 allows 29 minutes, but a NAT on the way forgets an idle connection sooner, and we cannot see one.
    "fastmail": Profile(
        imap="imaps://imap.fastmail.com",
        smtp="smtps://smtp.fastmail.com",
        renew_idle=24 * _MINUTE,
        poll=10 * _MINUTE,
        reconnect=12 * _HOUR,
        junk=("Spam", "Junk Mail", "Junk"),
        sent=("Sent", "Sent Items"),
        authserv_ids=("*.messagingengine.com",),
    ),
    "custom": Profile(
        null_return_path=True,
        renew_idle=24 * _MINUTE,
        poll=10 * _MINUTE,
        reconnect=12 * _HOUR,
        junk=("Junk", "Spam", "Junk E-mail", "Junk Email"),
        sent=("Sent", "Sent Items", "Sent Messages"),
    ),
}

_KNOWN_HOSTS: Final = {
    "office365.com": "microsoft",
    "outlook.com": "microsoft",
    "gmail.com": "gmail",
    "yahoo.com": "yahoo",
    "aol.com": "yahoo",
    "me.com": "icloud",
}


def refusals_of(profile: Profile, host: str) -> str:
    """Return which table knows what the server at `host` says: a `custom` touchpoint may well be at a known one."""
    if profile.refusals != "general":
        return profile.refusals
    return _KNOWN_HOSTS.get(".".join(host.lower().rsplit(".", 2)[-2:]), "general")


def takes_null_return_path(profile: Profile, host: str) -> bool:
    """Return whether automatic mail may leave with the null return path. The large providers want to see an address of
    whoever has logged in, and bounce or distrust the rest; so does a known one behind a `custom` touchpoint.
    """
    return profile.null_return_path and refusals_of(profile, host) == "general"


NOT_YET = frozenset({"graph", "ews", "eas"})  # names that are spoken for
