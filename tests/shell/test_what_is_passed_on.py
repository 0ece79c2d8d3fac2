"""What a client says in MAIL and RCPT reaches the provider that can use it: from one socket to the other."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.scripted import ScriptedProvider
from tests.support.submission import PASSWORD
from tests.support.waiting import wait_until

FULL = ("PIPELINING", "8BITMIME", "SIZE 50000000", "SMTPUTF8", "DSN", "AUTH PLAIN")
POOR = ("8BITMIME", "AUTH PLAIN")
LETTER = "From: support@example.com\r\nTo: é@clients.example\r\nSubject: Grüße\r\n\r\nHello\r\n"


def passed_on(
    make_daemon: Callable[..., Daemon],
    extensions: tuple[str, ...],
    letter: str,
    mail: tuple[str, ...],
    recipients: Mapping[str, tuple[str, ...]],
) -> list[str]:
    """Submit through a daemon; return MAIL and RCPT as the provider heard them."""
    with ScriptedProvider(extensions=extensions) as provider:
        site = Site(
            touchpoints=[
                {
                    "id": "support", "address": "support@example.com", "name": "Support", "active": True,
                    "direction": "outbound", "smtp": f"smtp+insecure://127.0.0.1:{provider.port}",
                    "password": "env:SECRET", "linked_queues": ["support"],
                }
            ]
        )  # fmt: skip
        site.add_agent("ana@example.com", PASSWORD, ["support"])
        daemon = make_daemon(site, {"SECRET": "nobody asks for it"})
        daemon.start()
        client: smtplib.SMTP
        with daemon.submit("ana@example.com", PASSWORD) as client:
            client.command_encoding = "utf-8"
            assert client.mail("ana@example.com", mail)[0] == 250
            for address, options in recipients.items():
                assert client.rcpt(address, options)[0] == 250
            assert client.data(letter.encode())[0] == 250
        wait_until(lambda: provider.taken, "the provider has it")
        daemon.stop()
        (session,) = provider.sessions
        return [command for command in session.commands if command[:4] in ("MAIL", "RCPT")]


def words(command: str) -> set[str]:
    return set(command.split(" ")[1:])


def test_wishes_and_letters_beyond_ascii_are_passed_on(make_daemon: Callable[..., Daemon]) -> None:
    mail, first, second = passed_on(
        make_daemon,
        FULL,
        LETTER,
        ("SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ+3D1"),
        {
            "é@clients.example": ("NOTIFY=SUCCESS,FAILURE", "ORCPT=utf-8;é@clients.example"),
            "kim@bücher.example": ("NOTIFY=NEVER",),
        },
    )
    assert {"SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ+3D1"} <= words(mail)
    assert mail.startswith("MAIL FROM:<support@example.com>")
    assert first.startswith("RCPT TO:<é@clients.example> ")
    assert {"NOTIFY=SUCCESS,FAILURE", "ORCPT=utf-8;\\x{E9}@clients.example"} <= words(first)
    assert second.startswith("RCPT TO:<kim@xn--bcher-kva.example> ")
    assert "NOTIFY=NEVER" in words(second)


@pytest.mark.parametrize("extensions", [FULL, POOR], ids=["full", "poor"])
def test_who_says_more_than_is_needed_is_passed_on_plainly(
    make_daemon: Callable[..., Daemon], extensions: tuple[str, ...]
) -> None:
    letter = LETTER.replace("é", "e").replace("Grüße", "Hello")
    mail, rcpt = passed_on(make_daemon, extensions, letter, ("SMTPUTF8", "BODY=8BITMIME"), {"kim@clients.example": ()})
    assert "SMTPUTF8" not in mail
    assert "NOTIFY" not in rcpt or extensions is FULL


def test_to_a_provider_without_dsn_no_wish_is_told(make_daemon: Callable[..., Daemon]) -> None:
    letter = LETTER.replace("é", "e").replace("Grüße", "Hello")
    wishes = {"kim@clients.example": ("NOTIFY=FAILURE", "ORCPT=rfc822;kim@clients.example")}
    mail, rcpt = passed_on(make_daemon, POOR, letter, ("RET=FULL", "ENVID=x"), wishes)
    assert not any(word in mail + rcpt for word in ("RET", "ENVID", "NOTIFY", "ORCPT"))
