"""swaks against the daemon: every refusal of the manual, as an administrator sees it who tries things out.

One daemon for all; in front of its two touchpoints stand providers that take nothing special. What is refused leaves no
trace in the outbox: at the end it is counted.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.ports import free_port
from tests.support.scripted import ScriptedProvider
from tests.support.swaks import Talk, login, swaks
from tests.support.waiting import wait_until

ANA, PASSWORD = "ana@example.com", "correct horse"
SUPPORT, LEGACY, KIM = "support@example.com", "legacy@example.com", "kim@clients.example"
LIMIT = 200_000


class Desk:
    """The daemon with its three listeners, and what swaks is told each time."""

    def __init__(self, daemon: Daemon, home: Path, starttls: int, smtps: int) -> None:
        self.daemon = daemon
        self.home = home
        self.starttls = starttls
        self.smtps = smtps
        self.accepted = 0

    def send(self, *arguments: str | Path, **options: Any) -> Talk:
        """As Ana, from and to the usual addresses, where `arguments` do not say otherwise."""
        talk = self.bare(*login(ANA, PASSWORD), *arguments, **options)
        self.accepted += bool(re.search(r"250 2\.0\.0 queued as", talk.output))
        return talk

    def bare(self, *arguments: str | Path, data: bytes | None = None, port: int | None = None) -> Talk:
        given = [str(argument) for argument in arguments]
        usual = {"--from": SUPPORT, "--to": KIM}
        for option, value in usual.items():
            if option not in given:
                given += [option, value]
        return swaks(port or self.daemon.submission_port, *given, data=data, home=self.home)


@pytest.fixture(scope="module")
def desk(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    pair = authority.issue("refusals")
    home = tmp_path_factory.mktemp("refusals")
    starttls, smtps = free_port(), free_port()
    with ExitStack() as stack:
        modern = stack.enter_context(ScriptedProvider(extensions=("8BITMIME", "SIZE 50000000", "AUTH PLAIN")))
        legacy = stack.enter_context(ScriptedProvider(extensions=("SIZE 20000", "AUTH PLAIN")))
        site = Site()
        for id, address, provider in (("support", SUPPORT, modern), ("legacy", LEGACY, legacy)):
            site.touchpoints.append(
                {
                    "id": id, "address": address, "name": id.title(), "active": True, "direction": "outbound",
                    "smtp": f"smtp+insecure://127.0.0.1:{provider.port}", "password": "env:SECRET",
                    "linked_queues": ["support"],
                }
            )  # fmt: skip
        site.touchpoints.append(
            {
                "id": "billing", "address": "billing@example.com", "name": "Billing", "active": True,
                "direction": "outbound", "smtp": f"smtp+insecure://127.0.0.1:{modern.port}", "password": "env:SECRET",
                "linked_queues": ["billing"],
            }
        )  # fmt: skip
        site.add_agent(ANA, PASSWORD, ["support"])
        site.add_agent("old@example.com", PASSWORD, ["support"], active=False)
        daemon = Daemon(site, {"SECRET": "nobody asks for it"})
        stack.callback(daemon.close)
        site.gateway["submission"] = {
            "listen": [
                f"smtp+insecure://127.0.0.1:{daemon.submission_port}",
                f"smtp://127.0.0.1:{starttls}",
                f"smtps://127.0.0.1:{smtps}",
            ],
            "certificate": str(pair.certificate),
            "private_key": str(pair.private_key),
            "max_message_size": f"{LIMIT} B",
            "trusted_networks": ["127.0.0.0/8"],  # failed logins of one test must not slow the next
            "max_connections_per_address": 30,
        }
        daemon.write_config()
        daemon.start()
        desk = Desk(daemon, home, starttls, smtps)
        for address, provider in ((SUPPORT, modern), (LEGACY, legacy)):  # what they offer is learnt by meeting them
            assert desk.send("--from", address, "--h-From", address).code == 0
            wait_until(lambda provider=provider: provider.taken, "the provider has been met")  # type: ignore[misc]
        yield desk
        daemon.stop()
        with closing(daemon.database()) as db:
            (count,) = db.execute("SELECT count(*) FROM outbox").fetchone()
        assert count == desk.accepted, "of what was refused nothing is kept"


def letter(*fields: str, body: str = "Hello\r\n", sender: str = SUPPORT, end: str = ".\r\n") -> bytes:
    head = "".join(f"{field}\r\n" for field in (f"From: {sender}", f"To: {KIM}", "Subject: x", *fields))
    return f"{head}\r\n{body}{end}".encode("utf-8", "surrogateescape")


# --- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("how", ["clear", "starttls", "smtps"])
def test_a_message_goes_through_every_listener(desk: Desk, how: str, mechanism: str) -> None:
    tls = {"clear": (), "starttls": ("-tls",), "smtps": ("-tlsc",)}[how]
    port = {"clear": None, "starttls": desk.starttls, "smtps": desk.smtps}[how]
    talk = desk.bare(*login(ANA, PASSWORD, mechanism), *tls, "--pipeline", port=port)
    assert talk.code == 0, talk.output
    assert re.search(r"250 2\.0\.0 queued as \w{7,}", talk.output)
    desk.accepted += 1


def test_the_extensions_are_offered(desk: Desk) -> None:
    talk = desk.bare("--quit-after", "EHLO")
    offered = set(re.findall(r"250[ -]([A-Z0-9]+)", talk.output))
    assert {"SIZE", "8BITMIME", "PIPELINING", "AUTH", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"} <= offered
    assert f"SIZE {LIMIT}" in talk.output


# --- who may come in -------------------------------------------------------------------------------------------------


def test_before_tls_nobody_logs_in_or_sends(desk: Desk) -> None:
    assert "AUTH" not in desk.bare("--quit-after", "EHLO", port=desk.starttls).output
    assert desk.bare(port=desk.starttls).last.startswith("530 5.7.0 issue STARTTLS first")


def test_without_a_login_nothing_is_sent(desk: Desk) -> None:
    assert desk.bare().last.startswith("530 5.7.0")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(
    ("name", "password"),
    [(ANA, "wrong"), ("nobody@example.com", PASSWORD), ("old@example.com", PASSWORD)],
    ids=["password", "login", "switched-off"],
)
def test_a_wrong_login_is_refused(desk: Desk, name: str, password: str, mechanism: str) -> None:
    talk = desk.bare(*login(name, password, mechanism))
    assert talk.last == "535 5.7.8 wrong login or password"
    assert talk.code == 28


def test_too_many_connections_from_one_address(desk: Desk) -> None:
    plugs = [socket.create_connection(("127.0.0.1", desk.daemon.submission_port), timeout=10) for _ in range(30)]
    try:
        for plug in plugs:
            plug.recv(10)
        assert "421 4.7.0 too many connections" in desk.bare().output
    finally:
        for plug in plugs:
            plug.close()
    wait_until(lambda: desk.bare("--quit-after", "EHLO").code == 0, "they are given back")


# --- the envelope ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("--from", f"{SUPPORT}> SIZE={LIMIT + 1} AUTH=<"), "552 5.3.4"),
        (("--from", f"{SUPPORT}> HOLDFOR=60 AUTH=<"), "555 5.5.4"),
        (("--from", f"{SUPPORT}> BODY=BINARYMIME AUTH=<"), "501 5.5.4"),
        (("--from", f"{SUPPORT}> RET=ALL AUTH=<"), "501 5.5.4"),
        (("--from", f"{SUPPORT}> ENVID={'x' * 101} AUTH=<"), "501 5.5.4"),
        (("--from", f"{SUPPORT}> ENVID=a+0D+0Ab AUTH=<"), "501 5.5.4"),
        (("--from", "not an address"), "501 5.1.7"),
        (("--from", "é@example.com"), "553 5.6.7"),
        (("--to", "é@clients.example"), "553 5.6.7"),
        (("--to", "kim"), "501 5.1.3"),
        (("--to", "kim@clients..example"), "501 5.1.3"),
        (("--to", f"{'x' * 255}@clients.example"), "501 5.1.3"),
        (("--to", f"{KIM}> NOTIFY=LATE ORCPT=rfc822;<"), "501 5.5.4"),
        (("--to", f"{KIM}> X=1 ORCPT=rfc822;<"), "555 5.5.4"),
    ],
)
def test_an_envelope_that_is_refused(desk: Desk, arguments: tuple[str, str], reply: str) -> None:
    assert desk.send(*arguments).last.startswith(reply)


def test_more_than_a_thousand_recipients_are_put_off_and_the_number_is_named(desk: Desk) -> None:
    talk = desk.send("--to", ",".join(f"n{n}@clients.example" for n in range(1001)), "--pipeline")
    assert talk.output.count("250 2.1.5") == 1000
    assert "452 4.5.3 no more than 1000 recipients in one message" in talk.output


# --- the message -----------------------------------------------------------------------------------------------------

BIG = ("x" * 76 + "\r\n") * (LIMIT // 78 + 10)
MEDIUM = ("x" * 76 + "\r\n") * 300


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (letter(body=BIG), f"552 5.3.4 the message is larger than {LIMIT} octets"),
        (letter(f"X: {'y' * 900}\r\n" * 300), "552 5.3.4"),
        (letter(body="a\nb\r\n"), "550 5.6.11"),
        (letter(body="a\rb\r\n"), "550 5.6.11"),
        (letter(body="a\0b\r\n"), "550 5.6.11"),
        (letter(body="a\n.\nMAIL FROM:<x@y.example>\r\n"), "550 5.6.11"),
        (letter(body="x" * 999 + "\r\n"), "550 5.6.0"),
        (letter("no field at all"), "550 5.6.0"),
        (letter("From: second@example.com"), "550 5.6.0"),
        (letter(sender="support@example.com, eve@example.com"), "550 5.6.0"),
        (b"To: kim@clients.example\r\n\r\nno author\r\n.\r\n", "550 5.6.0"),
        (letter(sender="eve@elsewhere.example"), "550 5.7.1 ana@example.com may not write as eve@elsewhere.example; "
                                                 "set From to support@example.com, legacy@example.com"),
        (letter(sender="billing@example.com"), "550 5.7.1 ana@example.com may not write as billing@example.com"),
        (letter(sender=ANA), "550 5.7.1 choose the address to write as: set From to support@example.com, legacy"),
        (letter(*["Received: by relay.example; now"] * 101), "554 5.4.6 the message has passed 101 servers"),
        (letter(sender=LEGACY, body=MEDIUM), "552 5.3.4 as it would be sent the message has 2"),
        (letter(sender=LEGACY, body="Grüße\r\n"), "554 5.6.3 the message has 8-bit text, 127.0.0.1 takes none"),
    ],
    ids=["size", "header", "bare-lf", "bare-cr", "nul", "smuggled", "long-line", "no-field", "two-from", "two-authors",
         "no-from", "stranger", "another-touchpoint", "own-login", "hops", "provider-size", "provider-8-bit"],
)  # fmt: skip
def test_a_message_that_is_refused(desk: Desk, data: bytes, reply: str) -> None:
    talk = desk.send(data=data)
    assert talk.last.startswith(reply), talk.output[-2000:]


def test_a_message_that_has_gone_out_from_here_is_a_loop(desk: Desk) -> None:
    hostname = re.findall(r"220 (\S+)", desk.bare("--quit-after", "EHLO").output)[0]
    trace = f"Received: by {hostname} (mail-gateway) id 1qnep7y7.1;\r\n\tMon, 23 Nov 2026 10:00:00 +0000"
    assert desk.send(data=letter(trace)).last.startswith("554 5.4.6 the message has gone out from here as 1qnep7y7")
    other = trace.replace(hostname, f"not-{hostname}")
    assert desk.send(data=letter(other)).code == 0


@pytest.mark.parametrize(("to", "subject"), [("é@clients.example", "x"), (KIM, "Grüße")], ids=["address", "header"])
def test_mail_that_needs_smtputf8_is_refused_for_a_provider_without_it(desk: Desk, to: str, subject: str) -> None:
    data = letter().replace(b"Subject: x", f"Subject: {subject}".encode())
    talk = desk.send("--from", f"{SUPPORT}> SMTPUTF8 AUTH=<", "--to", to, data=data)
    assert talk.last.startswith("550 5.6.7")


def test_signed_mail_cannot_be_rewritten(desk: Desk) -> None:
    signed = letter('Content-Type: multipart/signed; boundary="b"', sender=ANA)
    assert desk.send(data=signed).last.startswith(f"550 5.7.1 From is signed and cannot be changed from {ANA}")


def test_the_same_message_again_gets_the_first_queue_id(desk: Desk) -> None:
    data = letter("Message-ID: <again@clients.example>")
    ids = [re.findall(r"queued as (\w+)", desk.send(data=data).output) for _ in range(2)]
    assert ids[0] == ids[1] != []
    desk.accepted -= 1
