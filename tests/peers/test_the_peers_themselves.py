"""The stage must be right before the play: what the other tests of this folder take for granted about their peers."""

from __future__ import annotations

import imaplib
import smtplib
import ssl

import pytest

from tests.support.letters import letter, message_id
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until


def test_what_postfix_accepts_from_a_login_reaches_the_mailbox_through_lmtp(shared_provider: Provider) -> None:
    shared_provider.touchpoint("stage", direction="both")
    context = shared_provider.authority.client_context()
    with smtplib.SMTP("localhost", shared_provider.postfix.starttls_port) as session:
        session.starttls(context=context)
        session.login("stage@support.example", "secret of stage")
        session.sendmail("stage@support.example", [CUSTOMER], letter(1, "stage"))
    arrived = wait_until(
        lambda: [raw for raw in shared_provider.dovecot.messages(CUSTOMER) if b"<stage.1@" in raw], "the letter arrives"
    )
    assert len(arrived) == 1
    assert "stage@support.example" in {accepted.login for accepted in shared_provider.postfix.accepted()}


def test_postfix_refuses_and_defers_the_recipients_that_are_made_for_it(shared_provider: Provider) -> None:
    with smtplib.SMTP("localhost", shared_provider.postfix.mx_port) as session:
        session.ehlo()
        session.mail("someone@clients.example")
        assert session.rcpt("refused@clients.example")[0] == 550
        assert session.rcpt("busy@clients.example")[0] == 450
        assert session.rcpt(CUSTOMER)[0] == 250


def test_postfix_takes_no_foreign_mail_without_a_login(shared_provider: Provider) -> None:
    with smtplib.SMTP("localhost", shared_provider.postfix.plain_port) as session:
        session.ehlo()
        session.mail("someone@clients.example")
        assert session.rcpt(CUSTOMER)[0] == 554


def test_mailboxes_and_accepted_mail_outlive_an_outage(provider: Provider) -> None:
    provider.touchpoint("outage")
    provider.dovecot.deliver("outage@support.example", letter(1, "before"))
    assert provider.postfix.is_empty()
    provider.dovecot.stop()
    with smtplib.SMTP("localhost", provider.postfix.mx_port) as session:
        session.sendmail("someone@clients.example", ["outage@support.example"], letter(2, "meanwhile"))
    provider.postfix.stop()
    with pytest.raises(OSError):  # noqa: PT011  refused or reset, as the moment has it
        smtplib.SMTP("localhost", provider.postfix.mx_port, timeout=5)
    provider.dovecot.start()
    provider.postfix.start()
    wait_until(
        lambda: provider.dovecot.count("outage@support.example") == 2,
        "both letters are there",
        state=provider.postfix.log_tail,
    )
    found = [message_id(raw) for raw in provider.dovecot.messages("outage@support.example")]
    assert found == ["<before.1@clients.example>", "<meanwhile.2@clients.example>"]


def test_a_seeded_mailbox_is_an_ordinary_one(shared_provider: Provider) -> None:
    shared_provider.touchpoint("seeded")
    shared_provider.dovecot.seed("seeded@support.example", (letter(n, "old") for n in range(50)))
    assert shared_provider.dovecot.count("seeded@support.example") == 50
    shared_provider.dovecot.deliver("seeded@support.example", letter(50, "new"))
    assert shared_provider.dovecot.count("seeded@support.example") == 51


def test_the_certificate_holds_for_localhost_only_with_our_authority(shared_provider: Provider) -> None:
    port = shared_provider.dovecot.imaps_port
    with imaplib.IMAP4_SSL("localhost", port, ssl_context=shared_provider.authority.client_context()) as session:
        assert session.state == "NONAUTH"
    with pytest.raises(ssl.SSLCertVerificationError):
        imaplib.IMAP4_SSL("localhost", port, ssl_context=ssl.create_default_context())
