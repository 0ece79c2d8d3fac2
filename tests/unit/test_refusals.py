"""The words of each provider's noes, and the times that they ask us to wait."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from gateway.config.providers import PROFILES, refusals_of
from gateway.model import Phase, Reply
from gateway.outbound.refusals import TABLES, Cause, Meaning, _look_up, find, wait_asked

MAIL, RCPT, DATA, DOT, LOGIN = Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT, Phase.LOGIN
HOLD, PAUSE = Meaning.HOLD, Meaning.PAUSE


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    status, _, words = rest.partition(" ")
    return Reply(int(code), status, words) if status[:2] in ("2.", "4.", "5.") else Reply(int(code), "", rest)


# table, phase, what the server said, meaning, cause
SAID = [
    (
        "microsoft",
        MAIL,
        "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending",
        PAUSE,
        Cause.THROTTLED,
    ),
    (
        "microsoft",
        DOT,
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=A.example]",
        PAUSE,
        Cause.THROTTLED,
    ),
    ("microsoft", RCPT, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", Meaning.TEMPORARY, None),
    (
        "microsoft",
        DOT,
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process",
        PAUSE,
        Cause.QUOTA,
    ),
    (
        "microsoft",
        DOT,
        "550 5.1.90 Your message can't be sent because you've reached your daily limit",
        PAUSE,
        Cause.QUOTA,
    ),
    (
        "microsoft",
        DOT,
        "550 5.7.233 Your message can't be sent because your tenant exceeded its limit",
        PAUSE,
        Cause.QUOTA,
    ),
    (
        "microsoft",
        DOT,
        "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException."
        "MapiExceptionShutoffQuotaExceeded",
        HOLD,
        Cause.FULL,
    ),
    ("microsoft", MAIL, "550 5.2.251 Sender throttled due to continuous mailbox full errors", HOLD, Cause.FULL),
    ("microsoft", MAIL, "550 5.2.252 Sender throttled due to continuous send as denied errors", HOLD, Cause.PERMISSION),
    ("microsoft", MAIL, "550 5.2.253 Sender throttled due to continuous invalid license errors", HOLD, Cause.BLOCKED),
    (
        "microsoft",
        RCPT,
        "550 5.2.255 Sender throttled due to continuous invalid recipients errors",
        PAUSE,
        Cause.THROTTLED,
    ),
    (
        "microsoft",
        DOT,
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
        HOLD,
        Cause.PERMISSION,
    ),
    (
        "microsoft",
        MAIL,
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        HOLD,
        Cause.PERMISSION,
    ),
    ("microsoft", MAIL, "530 5.7.57 Client not authenticated to send mail", HOLD, Cause.LOGIN),
    ("microsoft", RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", HOLD, Cause.PERMISSION),
    (
        "microsoft",
        LOGIN,
        "550 5.7.30 Basic authentication is not supported for Client Submission",
        HOLD,
        Cause.SWITCHED_OFF,
    ),
    (
        "microsoft",
        LOGIN,
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant",
        HOLD,
        Cause.SWITCHED_OFF,
    ),
    (
        "microsoft",
        LOGIN,
        "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect",
        HOLD,
        Cause.LOGIN,
    ),
    ("microsoft", MAIL, "550 5.1.8 Access denied, bad outbound sender AS(42004)", HOLD, Cause.BLOCKED),
    ("microsoft", DATA, "550 5.7.705 Access denied, tenant has exceeded threshold", HOLD, Cause.BLOCKED),
    ("microsoft", RCPT, "451 4.7.500 Server busy. Please try again later", PAUSE, Cause.THROTTLED),
    ("gmail", DOT, "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail", PAUSE, Cause.QUOTA),
    ("gmail", MAIL, "421 4.7.0 Daily SMTP relay limit exceeded for customer", PAUSE, Cause.QUOTA),
    ("gmail", LOGIN, "454 4.7.0 Too many login attempts, please try again later", PAUSE, Cause.THROTTLED),
    (
        "gmail",
        RCPT,
        "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
        Meaning.TEMPORARY,
        None,
    ),
    ("gmail", DOT, "421 4.7.28 Our system has detected an unusual rate of unsolicited mail", PAUSE, Cause.THROTTLED),
    ("gmail", RCPT, "550 5.7.0 Mail relay denied [192.0.2.1]. Invalid credentials for relay", HOLD, Cause.PERMISSION),
    (
        "yahoo",
        MAIL,
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints",
        PAUSE,
        Cause.THROTTLED,
    ),
    ("yahoo", DOT, "553 From: address not verified", HOLD, Cause.PERMISSION),
    ("yahoo", DOT, "554 Transaction failed : Cannot send message due to possible abuse", HOLD, Cause.BLOCKED),
    ("icloud", DOT, "550 5.7.0 From address is not one of your addresses", HOLD, Cause.PERMISSION),
    ("icloud", DOT, "550 5.7.1 You have exceeded your daily sending limit", PAUSE, Cause.QUOTA),
    # Postfix, Exim, cPanel, and whatever else stands behind `custom`
    ("general", RCPT, "553 5.7.1 <a@b.example>: Sender address rejected: not owned by user x", HOLD, Cause.PERMISSION),
    ("general", RCPT, "554 5.7.1 <a@b.example>: Relay access denied", HOLD, Cause.PERMISSION),
    ("general", RCPT, "550 relay not permitted", HOLD, Cause.PERMISSION),
    ("general", MAIL, "550 authentication required", HOLD, Cause.LOGIN),
    ("general", MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1", PAUSE, Cause.THROTTLED),
    ("general", RCPT, "450 4.7.1 Error: too many recipients from 192.0.2.1", PAUSE, Cause.THROTTLED),
    ("general", MAIL, "421 4.7.0 host.example Error: too many errors", Meaning.SESSION, None),
    ("general", MAIL, "421 too many messages in this connection", Meaning.SESSION, None),
    ("general", RCPT, "550 5.5.3 Too many recipients", Meaning.SPLIT, None),
    ("general", RCPT, "450 4.7.1 <b@c.example>: Recipient address rejected: Greylisted", Meaning.TEMPORARY, None),
    (
        "general",
        DOT,
        "550 Domain example.com has exceeded the max emails per hour (105/100 (105%)) allowed",
        PAUSE,
        Cause.QUOTA,
    ),
    (
        "general",
        RCPT,
        "554 5.7.1 <b@c.example>: Recipient address rejected: You have exceeded your Outmail quota.",
        PAUSE,
        Cause.QUOTA,
    ),
    ("general", RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", HOLD, Cause.PERMISSION),
    ("general", RCPT, "550 host.example is not permitted to relay through this server", HOLD, Cause.PERMISSION),
    ("general", RCPT, "503 This mail server requires authentication when attempting to send", HOLD, Cause.LOGIN),
    ("general", RCPT, "550 Please turn on SMTP Authentication in your mail client", HOLD, Cause.LOGIN),
    ("general", MAIL, "550 5.7.1 SMTP AUTH is required", HOLD, Cause.LOGIN),
    ("gmail", DOT, "550 5.7.1 You've reached a limit for sending mail", PAUSE, Cause.QUOTA),
    (
        "microsoft",
        RCPT,
        "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required",
        Meaning.MESSAGE,
        None,
    ),
    ("general", DOT, "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", Meaning.MESSAGE, None),
    ("general", MAIL, "550 message too large", Meaning.MESSAGE, None),
    ("general", MAIL, "550 5.7.1 your account has been suspended", HOLD, Cause.BLOCKED),
]


@pytest.mark.parametrize(("table", "phase", "said", "meaning", "cause"), SAID, ids=[row[2][:44] for row in SAID])
def test_the_words_of_a_no_say_whom_it_is_about(
    table: str, phase: Phase, said: str, meaning: Meaning, cause: Cause | None
) -> None:
    found = find(reply(said), phase, table)
    assert found is not None
    assert (found.meaning, found.cause) == (meaning, cause)


# Noes that look like one of the above and are about a recipient or a message: code and phase decide.
ORDINARY = [
    (RCPT, "550 5.1.1 no such user"),
    (RCPT, "552 5.2.2 mailbox full"),
    (RCPT, "452 4.2.2 The recipient's mailbox is over its storage limit"),
    (RCPT, "550 5.2.1 The email account that you tried to reach is disabled"),
    (RCPT, "550 5.7.1 you are not welcome here"),
    (DOT, "554 5.7.1 Message rejected as spam"),
    (DOT, "552 5.3.4 Message size exceeds fixed limit"),
    (DOT, "550 5.7.26 This mail is unauthenticated, which poses a security risk"),
    (DOT, "451 4.3.0 Temporary lookup failure"),
    (MAIL, "452 4.3.1 Insufficient system storage"),
    (LOGIN, "535 5.7.8 Username and Password not accepted"),
]


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize(("phase", "said"), ORDINARY, ids=[row[1][:44] for row in ORDINARY])
def test_an_ordinary_no_is_left_to_code_and_phase(table: str, phase: Phase, said: str) -> None:
    assert find(reply(said), phase, table) is None


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize(
    "address",
    [
        "<sendasdenied@clients.example>",
        "<greylist@clients.example>",
        '<"relay access denied"@clients.example>',
        '<"login required"@clients.example>',
        '"you have exceeded your quota"@clients.example',
        "[too-many-connections@5.7.57]",
        "(5.5.3@clients.example)",
        "rate.limited@blocked.example",
        "host 198.5.7.57 and 5.7.30.9 and 62.5.1.90 and 10.5.4.5",
        "'too many connections'",
    ],
)
@pytest.mark.parametrize("phase", [RCPT, DOT])
def test_what_a_customer_is_called_holds_nobodys_mail(table: str, address: str, phase: Phase) -> None:
    assert find(Reply(550, "5.1.1", f"{address}: Recipient address rejected: User unknown"), phase, table) is None
    assert find(Reply(554, "5.7.1", f"Rejected: {address}"), phase, table) is None


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (DOT, "552 5.3.4 Your message exceeded Google's message size limits. Please visit https://support.google.com"),
        (DATA, "552 5.2.3 Your message exceeded the size limit"),
        (DOT, "552 Your email has exceeded the limit of this server"),
        (RCPT, "552 5.2.2 Your message could not be delivered, the mailbox has exceeded its quota"),
        (RCPT, "452 4.2.2 your recipient has exceeded the quota"),
        (RCPT, "450 4.2.1 <b@c.example>: incoming daily limit exceeded"),
        (DOT, "552 5.2.2 daily quota exceeded"),
        (DOT, "554 5.7.1 Spam: the subject is 'You have exceeded your mailbox quota'"),
        (DOT, '554 5.7.1 forbidden words: "you have reached your limit"'),
        (RCPT, "452 4.2.2 mailbox of b: relay access denied"),
    ],
)
def test_the_recipients_quota_and_the_messages_size_are_not_the_touchpoints(
    table: str, phase: Phase, said: str
) -> None:
    found = find(reply(said), phase, table)
    assert found is None or found.cause is None


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize(
    "said",
    [
        "550 Verification failed for <b@c.example> Called: 192.0.2.1 Sent: RCPT TO:<b@c.example>"
        " Response: 550 relay not permitted",
        "550 Callout verification failed: 550 Relaying denied",
        "550 5.1.1 <b@c.example>: Recipient address rejected: unverified address: Relay access denied",
        "450 4.1.1 <b@c.example>: Recipient address rejected: unverified address:"
        " host mx.c.example[192.0.2.2] refused to talk to me: 421 too many connections",
        "550 5.1.1 address lookup failed; 554 5.7.1 Relay access denied",
        "550 5.1.1 <b@c.example>: address rejected: host mx.c.example said: 550 5.7.60 SendAsDenied",
        "450 4.1.1 host mx.c.example[192.0.2.9] said: 421 4.7.0 Too many connections (in reply to MAIL FROM command)",
        "554 5.7.1 the remote server answered: relay access denied",
    ],
)
def test_what_a_recipients_server_said_is_not_about_the_touchpoint(table: str, said: str) -> None:
    found = find(reply(said), RCPT, table)
    assert found is None or found.cause is None


def test_every_pattern_is_quick_on_a_long_reply() -> None:
    """A server chooses its words; 64 KiB of them must not keep the thread."""
    words = [
        "your sending ",
        "message size ",
        "5.7.139 ",
        "try again in ",
        "said: ",
        "you have exceeded ",
        "a" * 60 + " ",
        "<a@",
        '"@',
        "<",
        "'a",
        "1.2.3",
        "a" * 2_000,
        "@",
    ]
    begun = time.perf_counter()
    for word in words:
        long = Reply(550, "5.7.1", word * (65_536 // len(word)))
        for table in TABLES:
            for phase in Phase:
                find(long, phase, table)
        wait_asked(long)
    assert (time.perf_counter() - begun) / (len(words) * len(TABLES) * len(Phase)) < 0.02


def test_the_same_words_about_a_thousand_recipients_are_looked_up_once() -> None:
    words = "Recipient address rejected: User unknown in virtual mailbox table, looked up for this test"
    before = _look_up.cache_info().misses
    for number in range(1_000):
        assert find(Reply(550, "5.1.1", f"<kim{number}@clients.example>: {words}"), RCPT, "general") is None
    assert _look_up.cache_info().misses - before == 1


def test_a_hold_or_a_pause_names_its_cause_and_nothing_else_has_one() -> None:
    for table in TABLES.values():
        for pattern in table:
            assert (pattern.cause is not None) == (pattern.meaning in (HOLD, PAUSE))


def test_every_profile_has_its_table() -> None:
    assert {profile.refusals for profile in PROFILES.values()} <= set(TABLES)
    assert {refusals_of(PROFILES[name], "") for name in PROFILES} == set(TABLES)


@pytest.mark.parametrize(
    ("host", "table"),
    [
        ("smtp.office365.com", "microsoft"),
        ("SMTP-Mail.Outlook.com", "microsoft"),
        ("smtp.gmail.com", "gmail"),
        ("smtp.example.com", "general"),
        ("localhost", "general"),
    ],
)
def test_a_custom_touchpoint_at_a_known_host_is_understood(host: str, table: str) -> None:
    assert refusals_of(PROFILES["custom"], host) == table
    assert refusals_of(PROFILES["yahoo"], host) == "yahoo"


# --- when to come again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("please try again in 5 minutes", timedelta(minutes=5)),
        ("Retry after 300 seconds", timedelta(minutes=5)),
        ("Greylisting in action, please come back in 00:05:00", timedelta(minutes=5)),
        ("Retry-After: 120", timedelta(minutes=2)),
        ("limit reached, try again within 24 hours", timedelta(hours=24)),
        ("Greylisted for 300s", timedelta(minutes=5)),
        ("wait 10 min", timedelta(minutes=10)),
        ("you may retry in an hour", timedelta(hours=1)),
        ("please retry in 4m", timedelta(minutes=4)),
        ("try again in 90 days", timedelta(hours=24)),
        ("try again in 0 seconds", timedelta(seconds=1)),
        ("try again later", None),
        ("at most 500 messages in 24 hours", None),
        ("Greylisted, see http://postgrey.example/help/4.2.html", None),
        ("wait a moment", None),
        ("", None),
    ],
)
def test_a_time_that_the_server_names_is_read_within_bounds(text: str, asked: timedelta | None) -> None:
    assert wait_asked(Reply(450, "4.2.0", text)) == asked
