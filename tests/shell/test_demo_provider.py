"""The built-in provider, as the standard library's clients see it: what is promised here, real providers keep too."""

from __future__ import annotations

import asyncio
import gc
import imaplib
import smtplib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gateway.demo.provider import HOST, Account, Provider, ProviderThread

SUPPORT = Account("support@demo.example", "s3cret", aliases=("help@demo.example",))
CARLA = Account("carla@customer.example", 'pa ss"w0rd\\')

LETTER = b"From: carla@customer.example\r\nTo: support@demo.example\r\nSubject: Hello\r\n\r\nGood morning.\r\n"


@pytest.fixture
def provider() -> Iterator[ProviderThread]:
    with ProviderThread([SUPPORT, CARLA]) as provider:
        yield provider


def log_in_to_imap(provider: ProviderThread | Provider, account: Account = SUPPORT) -> imaplib.IMAP4:
    client = imaplib.IMAP4(HOST, provider.imap_port, timeout=10)
    client.login(account.address, account.password)
    return client


def log_in_to_smtp(provider: ProviderThread | Provider, account: Account = SUPPORT) -> smtplib.SMTP:
    client = smtplib.SMTP(HOST, provider.smtp_port, "client.example", timeout=10)
    client.login(account.address, account.password)
    return client


def idle(client: imaplib.IMAP4) -> None:
    client.send(b"I1 IDLE\r\n")
    assert client.readline().startswith(b"+")


def wait_for_exists(client: imaplib.IMAP4) -> int:
    while True:
        line = client.readline()
        assert line, "the server closed the connection"
        if line.rstrip().endswith(b"EXISTS"):
            return int(line.split()[1])


def uidvalidity(client: imaplib.IMAP4) -> bytes:
    value = client.response("UIDVALIDITY")[1][0]
    assert isinstance(value, bytes)
    return value


# --- IMAP ------------------------------------------------------------------------------------------------------------


def test_delivered_mail_is_fetched_byte_for_byte(provider: ProviderThread):
    odd = b"Subject: \xe9 not quite right\nX-Odd:no space\r\n\r\n8-bit \xff\x00 and bare \n and \r done"
    first = provider.deliver("support@demo.example", LETTER)
    second = provider.deliver("Support@Demo.Example", odd)
    client = log_in_to_imap(provider)
    assert client.select("INBOX") == ("OK", [b"2"])
    for uid, raw in ((first, LETTER), (second, odd)):
        _, data = client.uid("FETCH", str(uid), "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[])")
        assert data[0][1] == raw
        assert b"RFC822.SIZE %d" % len(raw) in b"".join([data[0][0], data[1]])
    client.logout()
    assert [mail.raw for mail in provider.mailbox("support@demo.example")] == [LETTER, odd]
    assert [mail.uid for mail in provider.mailbox("support@demo.example")] == [first, second]


def test_the_internal_date_is_what_the_delivery_said(provider: ProviderThread):
    provider.deliver("support@demo.example", LETTER, internal_at=datetime(2026, 3, 1, 8, 30, tzinfo=UTC))
    client = log_in_to_imap(provider)
    client.select("INBOX", readonly=True)
    _, data = client.uid("FETCH", "1:*", "(INTERNALDATE)")
    assert b"01-Mar-2026 08:30:00 +0000" in data[0]
    client.logout()


def test_aliases_lead_to_the_same_mailbox_and_accounts_to_their_own(provider: ProviderThread):
    provider.deliver("help@demo.example", LETTER)
    assert len(provider.mailbox("support@demo.example")) == 1
    assert provider.mailbox("carla@customer.example") == []
    client = log_in_to_imap(provider, CARLA)
    assert client.select("INBOX") == ("OK", [b"0"])
    client.logout()


def test_a_wrong_password_and_an_unknown_login_are_refused(provider: ProviderThread):
    for login, password in (("support@demo.example", "wrong"), ("nobody@demo.example", "s3cret")):
        client = imaplib.IMAP4(HOST, provider.imap_port, timeout=10)
        with pytest.raises(imaplib.IMAP4.error):
            client.login(login, password)
        client.shutdown()


def test_capabilities_name_idle_and_no_starttls(provider: ProviderThread):
    client = log_in_to_imap(provider)
    capabilities = set(client.capability()[1][0].decode().split())  # longer than before the login
    assert {"IDLE", "UIDPLUS", "MOVE"} <= capabilities
    assert "STARTTLS" not in capabilities
    client.logout()


def test_the_folders_of_a_mailbox_are_listed(provider: ProviderThread):
    client = log_in_to_imap(provider)
    names = b" ".join(line for line in client.list()[1] if isinstance(line, bytes))
    assert all(name in names for name in (b"INBOX", b"Sent", b"Junk"))
    client.logout()


def test_an_idling_client_is_told_of_each_new_message_at_once(provider: ProviderThread):
    client = log_in_to_imap(provider)
    client.select("INBOX")
    idle(client)
    for number in range(1, 6):
        begun = time.monotonic()
        provider.deliver("support@demo.example", LETTER)
        assert wait_for_exists(client) == number
        assert time.monotonic() - begun < 2
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"I1 OK"):
        pass
    client.logout()


def test_an_idling_client_is_told_of_a_burst_in_full(provider: ProviderThread):
    client = log_in_to_imap(provider)
    client.select("INBOX")
    idle(client)
    for _ in range(30):
        provider.deliver("support@demo.example", LETTER)
    while wait_for_exists(client) < 30:
        pass
    client.shutdown()


def test_mail_that_comes_between_select_and_idle_is_told_too(provider: ProviderThread):
    client = log_in_to_imap(provider)
    client.select("INBOX")
    provider.deliver("support@demo.example", LETTER)
    client.send(b"I1 IDLE\r\n")
    assert wait_for_exists(client) == 1
    client.shutdown()


def test_two_clients_idle_on_one_mailbox(provider: ProviderThread):
    clients = [log_in_to_imap(provider) for _ in range(2)]
    for client in clients:
        client.select("INBOX")
        idle(client)
    provider.deliver("support@demo.example", LETTER)
    assert [wait_for_exists(client) for client in clients] == [1, 1]
    for client in clients:
        client.shutdown()


def test_an_imap_outage_cuts_sessions_and_keeps_uids(provider: ProviderThread):
    uid = provider.deliver("support@demo.example", LETTER)
    idling, resting = log_in_to_imap(provider), log_in_to_imap(provider)
    idling.select("INBOX")
    idle(idling)
    resting.select("INBOX")
    validity, port = uidvalidity(resting), provider.imap_port
    provider.stop_imap()
    for client in (idling, resting):
        with pytest.raises((imaplib.IMAP4.abort, OSError)):
            client.noop()
        client.shutdown()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 5)
    while_away = provider.deliver("support@demo.example", LETTER)
    provider.start_imap()
    assert provider.imap_port == port
    client = log_in_to_imap(provider)
    client.select("INBOX")
    assert uidvalidity(client) == validity
    assert client.uid("SEARCH", "ALL")[1] == [b"%d %d" % (uid, while_away)]
    assert while_away > uid
    client.logout()


# --- SMTP ------------------------------------------------------------------------------------------------------------


def test_submitted_mail_reaches_the_recipients_mailbox_with_trace_fields(provider: ProviderThread):
    with log_in_to_smtp(provider) as client:
        client.sendmail("support@demo.example", ["carla@customer.example"], LETTER)
    [message] = provider.received
    assert message.raw == LETTER
    assert (message.login, message.return_path) == ("support@demo.example", "support@demo.example")
    assert message.recipients == ("carla@customer.example",)
    [stored] = provider.mailbox("carla@customer.example")
    assert stored.raw.startswith(b"Return-Path: <support@demo.example>\r\nReceived: from client.example by ")
    assert stored.raw.endswith(LETTER)


def test_mail_without_a_login_is_refused(provider: ProviderThread):
    with smtplib.SMTP(HOST, provider.smtp_port, timeout=10) as client:
        client.ehlo()
        assert "plain" in client.esmtp_features["auth"].lower()
        assert client.mail("support@demo.example") == (530, b"5.7.0 Authentication required")


def test_a_wrong_smtp_password_is_535(provider: ProviderThread):
    with smtplib.SMTP(HOST, provider.smtp_port, timeout=10) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login("support@demo.example", "wrong")
        assert caught.value.smtp_code == 535


def test_an_unknown_recipient_is_550_and_the_others_are_served(provider: ProviderThread):
    with log_in_to_smtp(provider) as client:
        refused = client.sendmail("support@demo.example", ["carla@customer.example", "gone@customer.example"], LETTER)
    [(code, text)] = refused.values()
    assert code == 550
    assert text.startswith(b"5.1.1 <gone@customer.example>")
    assert len(provider.mailbox("carla@customer.example")) == 1


def test_only_own_addresses_and_the_null_return_path_may_send(provider: ProviderThread):
    with log_in_to_smtp(provider) as client:
        assert client.mail("carla@customer.example")[0] == 553
        assert client.mail("help@demo.example")[0] == 250
        client.rset()
        assert client.docmd("MAIL FROM:<>")[0] == 250
        assert client.rcpt("carla@customer.example")[0] == 250
        assert client.data(LETTER)[0] == 250
    assert provider.received[0].return_path == ""


def test_an_smtp_outage_refuses_and_cuts_and_is_over_on_the_same_port(provider: ProviderThread):
    client = log_in_to_smtp(provider)
    port = provider.smtp_port
    provider.stop_smtp()
    with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
        client.noop()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 5)
    provider.start_smtp()
    assert provider.smtp_port == port
    with log_in_to_smtp(provider) as again:
        again.sendmail("support@demo.example", ["carla@customer.example"], LETTER)
    assert len(provider.received) == 1


# --- as a guest on somebody's loop -----------------------------------------------------------------------------------


def test_it_runs_on_a_given_loop_and_leaves_nothing_behind():
    stray: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: stray.append(context))
        seen: list[str] = []
        async with Provider.open([SUPPORT, CARLA]) as provider:
            provider.on_received = lambda message: seen.append(message.return_path)
            client = await asyncio.to_thread(log_in_to_smtp, provider)
            await asyncio.to_thread(client.sendmail, SUPPORT.address, [CARLA.address], LETTER)
            reader = await asyncio.to_thread(log_in_to_imap, provider)
            await asyncio.to_thread(reader.select)
            await asyncio.to_thread(idle, reader)
        client.close()
        reader.shutdown()
        assert seen == [SUPPORT.address]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    gc.collect()
    assert stray == []


def test_a_port_that_is_taken_is_said_at_once():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), ProviderThread([SUPPORT], imap_port=port):
            pass
