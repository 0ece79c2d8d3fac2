"""The submission server on real sockets: an agent's client, a real store, nothing else."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import select
import smtplib
import socket
import sqlite3
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.errors import Unavailable
from gateway.model import read_id
from gateway.outbound.certificates import Certificates
from gateway.outbound.submission import SubmissionServer
from gateway.state.store import Store
from tests.support.authority import Authority
from tests.support.submission import PASSWORD, NoWorkers, Rig, replies
from tests.support.waiting import wait_until

TO = ["kim@clients.example"]
LETTER = (
    "From: support@example.com\r\nTo: kim@clients.example\r\nSubject: Your question\r\n"
    "Message-ID: <one@client.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nHello Kim\r\n"
)
PLAIN = base64.b64encode(f"\0ana@example.com\0{PASSWORD}".encode()).decode()
ENVELOPE = "MAIL FROM:<ana@example.com>\r\nRCPT TO:<kim@clients.example>\r\n"


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    rig = Rig(tmp_path, authority)
    yield rig
    rig.close()


@pytest.fixture
def make_rig(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**keys: Any) -> Rig:
        home = tmp_path / str(len(made))
        home.mkdir()
        made.append(Rig(home, authority, **keys))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def talk(plug: socket.socket, text: str, count: int) -> list[str]:
    plug.sendall(text.encode("latin-1"))
    return replies(plug, count)


def logged_in(rig: Rig) -> socket.socket:
    plug = rig.plug()
    assert talk(plug, f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\n", 2)[1].startswith("235 2.7.0")
    return plug


def refusal(client: smtplib.SMTP, letter: str | bytes, sender: str = "x@example.com", to: list[str] = TO) -> str:
    with pytest.raises(smtplib.SMTPDataError) as error:
        client.sendmail(sender, to, letter)
    text = error.value.smtp_error
    return f"{error.value.smtp_code} {text.decode() if isinstance(text, bytes) else text}"


_numbers = itertools.count()


def another() -> str:
    """A letter that nobody has sent before: the same one again would be taken for a lost 250."""
    return LETTER.replace("one@client", f"{next(_numbers)}@client")


def send(client: smtplib.SMTP, letter: str | bytes, to: list[str] = TO) -> int:
    """Submit; return the queue id."""
    client.mail("ana@example.com")
    for address in to:
        client.rcpt(address)
    code, text = client.data(letter)
    assert code == 250, text
    matched = re.fullmatch(rb"2\.0\.0 queued as (\w+)", text)
    assert matched, text
    queue_id = read_id(matched[1].decode())
    assert queue_id is not None
    return queue_id


# --- listeners and TLS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("scheme", ["smtp+insecure", "smtp", "smtps"])
def test_each_listener_takes_a_login_and_a_message(
    make_rig: Callable[..., Rig], scheme: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    rig = make_rig(loop_factory=loop_factory)
    for mechanism in ("auth_plain", "auth_login"):
        client = rig.connect(scheme)
        client.ehlo()
        client.user, client.password = "Ana@Example.com", PASSWORD
        assert client.auth(mechanism[5:], getattr(client, mechanism))[0] == 235
        queue_id = send(client, another())
        assert rig.stored(queue_id).endswith(b"\r\n\r\nHello Kim\r\n")
        client.quit()
    assert rig.woken == ["support", "support"]
    assert [message["agent"] for message in rig.outbox()] == ["ana@example.com"] * 2


def test_what_is_offered_depends_on_tls(rig: Rig) -> None:
    clear = smtplib.SMTP("localhost", rig.port("smtp"), timeout=20)
    clear.ehlo()
    assert "auth" not in clear.esmtp_features
    assert clear.esmtp_features["size"] == "35000000"
    offered = {"8bitmime", "pipelining", "enhancedstatuscodes", "starttls", "dsn", "smtputf8"}
    assert offered <= set(clear.esmtp_features)
    assert not {"chunking", "binarymime"} & set(clear.esmtp_features)
    for command in (f"AUTH PLAIN {PLAIN}", "MAIL FROM:<ana@example.com>"):
        assert clear.docmd(command) == (530, b"5.7.0 issue STARTTLS first")
    clear.starttls(context=rig.tls())
    clear.ehlo()
    assert clear.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
    assert "starttls" not in clear.esmtp_features
    clear.close()


def test_nothing_said_before_the_handshake_survives_it(rig: Rig) -> None:
    """RFC 3207 §4.2, and the injection of commands behind STARTTLS."""
    plug = socket.create_connection(("127.0.0.1", rig.port("smtp")), timeout=20)
    replies(plug, 1)
    talk(plug, "EHLO me\r\n", 1)
    plug.sendall(b"STARTTLS\r\nEHLO injected\r\nNOOP\r\n")
    assert replies(plug, 1) == ["220 2.0.0 go ahead"]
    with rig.tls().wrap_socket(plug, server_hostname="localhost") as secure:
        secure.sendall(f"AUTH PLAIN {PLAIN}\r\n".encode())
        assert replies(secure, 1)[0].startswith("503 5.5.1")  # EHLO again first; no reply to what was injected


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("STARTTLS\r\nEHLO injected\r\nNOOP\r\n", ""),
        ("STARTTLS\r\nEHLO injec", ""),
        ("STARTTLS\r\n" + "NOOP\r\n" * 5_000, ""),
        ("STARTTLS\r\n" + "NOOP\r\n" * 100_000, ""),
        ("NOOP\r\nSTARTTLS\r\n\r\n", ""),
        ("STARTTLS\r\n", "EHLO injected\r\n"),
        ("STARTTLS\r\n", "EHLO injected\r\n" * 20_000),
    ],
    ids=["behind", "half-a-line", "much", "flood", "piped", "after-the-reply", "much-after-the-reply"],
)
def test_nothing_in_the_clear_is_ever_obeyed_within_tls(
    make_rig: Callable[..., Rig], loop_factory: Callable[[], asyncio.AbstractEventLoop], before: str, after: str
) -> None:
    """However it is timed: it is forgotten, or it spoils the handshake."""
    rig = make_rig(loop_factory=loop_factory)
    plug = socket.create_connection(("127.0.0.1", rig.port("smtp")), timeout=20)
    replies(plug, 1)
    talk(plug, "EHLO me\r\n", 1)
    plug.sendall(before.encode())
    replies(plug, 2 if before.startswith("NOOP") else 1)
    with suppress(OSError):  # reset in the middle of it
        plug.sendall(after.encode())
    with plug, suppress(OSError):  # a spoilt handshake ends in a reset
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = rig.tls().wrap_bio(incoming, outgoing, server_hostname="localhost")

        def pump(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    plug.sendall(outgoing.read())
                    data = plug.recv(65_536)
                    assert data[:1] in (b"", b"\x14", b"\x15", b"\x16", b"\x17"), "an answer in the clear"
                    if not data:
                        raise ConnectionResetError from None
                    incoming.write(data)

        pump(secure.do_handshake)
        assert not after
        secure.write(b"MAIL FROM:<ana@example.com>\r\nNOOP\r\n")
        heard = b""
        while heard.count(b"\r\n") < 2:
            heard += pump(secure.read)
        # no EHLO is remembered, and no other reply comes in front
        assert re.fullmatch(rb"503 5\.5\.1 .*\r\n250 2\.0\.0 .*\r\n", heard)
        return
    assert after or len(before) > 1_000  # more than was there to be forgotten
    wait_until(lambda: not rig.server._dialogs, "the connection is gone")


def test_a_client_that_never_shakes_hands_counts_against_its_limit(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"max_connections_per_address": 3})
    silent = [socket.create_connection(("127.0.0.1", rig.port("smtps"))) for _ in range(3)]

    wait_until(lambda: rig.server._from.total() == 3, "all are shaking hands")

    def refused() -> bool:  # in a listener where a reply can be read
        with socket.create_connection(("127.0.0.1", rig.port("smtp+insecure")), timeout=20) as plug:
            return plug.recv(100).startswith(b"421 4.7.0")

    assert refused()
    for one in silent:
        one.close()
    wait_until(lambda: not refused(), "connections that end are given back")


def test_all_addresses_together_have_a_limit_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbound.submission.MOST_CONNECTIONS", 2)
    plugs = [rig.plug() for _ in range(2)]
    with socket.create_connection(("127.0.0.1", rig.port("smtp+insecure")), timeout=20) as refused:
        assert replies(refused, 1)[0].startswith("421 4.7.0 too many connections")
    for plug in plugs:
        plug.close()
    wait_until(lambda: not rig.server._from, "they are given back")
    rig.plug()


def test_no_host_means_ipv4_and_ipv6(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"listen": ["smtp://:0"]})
    assert len({bound.port for bound in rig.server.addresses}) == 1
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    assert "0.0.0.0" in {bound.host for bound in rig.server.addresses}
    for bound in rig.server.addresses:
        with socket.create_connection((loopback[bound.host], bound.port), timeout=20) as plug:
            assert replies(plug, 1)[0].startswith("220 gateway.example ESMTP")


def test_sockets_from_systemd_are_used_by_their_port(make_rig: Callable[..., Rig]) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    stray = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    rig = make_rig(submission={"listen": [f"smtp+insecure://127.0.0.1:{port}"]}, sockets=[given, stray])
    assert [bound.port for bound in rig.server.addresses] == [port]
    assert rig.login().noop()[0] == 250
    assert stray.fileno() == -1


def test_a_new_certificate_is_used_and_a_mismatched_pair_is_not(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbound.submission._TICK_SECONDS", 0.05)
    rig = make_rig()

    def shown() -> bytes | None:
        plug = socket.create_connection(("localhost", rig.port("smtps")), timeout=20)
        with rig.tls().wrap_socket(plug, server_hostname="localhost") as secure:
            return secure.getpeercert(binary_form=True)

    first = shown()
    other = rig.authority.issue("other")
    rig.pair.certificate.write_bytes(other.certificate.read_bytes())  # the key does not match yet
    rig.call(rig.server.apply, rig.config)
    assert shown() == first
    rig.pair.private_key.write_bytes(other.private_key.read_bytes())
    assert wait_until(lambda: shown() != first, "the files are watched")  # nobody asked for a reload


@pytest.mark.parametrize(
    ("certificate", "private_key", "words"),
    [
        ("missing.pem", "one.key", "missing.pem: No such file or directory; the daemon must be able to read it"),
        ("one.pem", "two.key", "is not the key of"),
        ("text", "one.key", "both must be PEM"),
    ],
    ids=["missing", "mismatch", "not-pem"],
)
def test_a_certificate_that_cannot_be_used_is_named_at_the_start(
    tmp_path: Path, authority: Authority, certificate: str, private_key: str, words: str
) -> None:
    for name in ("one", "two"):
        pair = authority.issue(name)
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate.read_bytes())
        (tmp_path / f"{name}.key").write_bytes(pair.private_key.read_bytes())
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(Unavailable, match=re.escape(words)) as error:
        Certificates(tmp_path / certificate, tmp_path / private_key)
    assert "\n" not in str(error.value)


def test_an_address_that_is_taken_is_named_at_the_start(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    taken = f"smtp+insecure://127.0.0.1:{rig.port('smtp+insecure')}"
    server = SubmissionServer(lambda: config, rig.store, NoWorkers(), rig.woken.append)
    rig.submission = {"listen": [taken]}
    config = rig.reload()
    with pytest.raises(Unavailable, match=r"cannot listen on .*Address already in use; is another server there"):
        rig.run(server.start)
    rig.run(server.close, 0)


def test_a_broken_handshake_costs_only_its_own_connection(rig: Rig) -> None:
    for scheme, said in (("smtps", b"EHLO me\r\n"), ("smtp", b"EHLO me\r\nSTARTTLS\r\n")):
        plug = socket.create_connection(("127.0.0.1", rig.port(scheme)), timeout=20)
        plug.sendall(said)
        if scheme == "smtp":
            replies(plug, 3)
            plug.sendall(b"this is no handshake\r\n" * 10)
        with suppress(ConnectionResetError):
            while plug.recv(1000):
                pass
        plug.close()
    wait_until(lambda: not rig.server._from, "both are gone")
    send(rig.login(scheme="smtps"), LETTER)


def test_a_client_that_does_not_read_its_last_reply_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbound.dialog._MOST_RCPT", 10_000_000)
    plug = logged_in(rig)
    (dialog,) = rig.server._dialogs
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.settimeout(1)
    plug.sendall(b"MAIL FROM:<>\r\n")
    recipients = memoryview(b"RCPT TO:<a@b.example>\r\n" * 10_000_000)
    with suppress(TimeoutError):  # until our replies fill every buffer on the way, and for a second we read nothing
        while recipients:
            recipients = recipients[plug.send(recipients[:65_536]) :]
    rig.call(dialog.hang_up, "421 4.3.2 enough")
    pass_time(rig, 11)
    wait_until(lambda: not rig.server._dialogs, "it is dropped")


# --- logins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "password"),
    [("ana@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("", ""), ("ana@example.com", "")],
    ids=["password", "login", "empty", "no-password"],
)
def test_a_wrong_login_is_refused_without_saying_what_is_wrong(
    make_rig: Callable[..., Rig], login: str, password: str
) -> None:
    client = make_rig(submission={"trusted_networks": ["127.0.0.0/8"]}).connect()
    with pytest.raises(smtplib.SMTPAuthenticationError) as error:
        client.login(login, password)
    assert error.value.smtp_code == 535
    assert error.value.smtp_error == b"5.7.8 wrong login or password"


def test_mail_needs_a_login(rig: Rig) -> None:
    client = rig.connect()
    client.ehlo()
    for command in ("MAIL FROM:<ana@example.com>", "RCPT TO:<kim@clients.example>", "DATA"):
        assert client.docmd(command)[0] == 530


def test_an_agent_switched_off_is_out_at_once_cached_or_connected(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"trusted_networks": ["127.0.0.0/8"]})
    client = rig.login()
    send(client, LETTER)
    rig.agents[0]["active"] = False
    rig.reload()
    assert client.mail("ana@example.com") == (530, b"5.7.0 your login has changed; log in again")
    with pytest.raises(smtplib.SMTPAuthenticationError):
        rig.login()


@pytest.mark.parametrize("mechanism", ["plain", "Plain"])
def test_names_of_mechanisms_may_be_in_any_case(rig: Rig, mechanism: str) -> None:
    assert talk(rig.plug(), f"EHLO me\r\nAUTH {mechanism} {PLAIN}\r\n", 2)[1].startswith("235")


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("AUTH PLAIN =\r\n", "501 5.5.2"),
        ("AUTH PLAIN !!!\r\n", "501 5.5.2"),
        ("AUTH PLAIN\r\n*\r\n", "501 5.7.0"),
        ("AUTH LOGIN\r\n*\r\n", "501 5.7.0"),
        ("AUTH CRAM-MD5\r\n", "504 5.5.4"),
        ("AUTH SCRAM-SHA-256 biwsbj1hbmE=\r\n", "504 5.5.4"),
        ("AUTH\r\n", "504 5.5.4"),
        ("AUTH PLAIN AGFuYQ==\r\n", "501 5.5.2"),  # two fields
        ("AUTH PLAIN AGEAYgBj\r\n", "501 5.5.2"),  # four
        ("AUTH PLAIN AGEAYg== x\r\n", "501 5.5.2"),
        ("AUTH LOGIN !!!\r\n", "501 5.5.2"),
        ("AUTH LOGIN YW5h\r\n!!!\r\n", "501 5.5.2"),
        ("AUTH LOGIN\r\nYW5h\r\n*\r\n", "501 5.7.0"),
        (f"AUTH PLAIN {'A' * 20_000}\r\n", "500 5.5.6"),
        (f"AUTH PLAIN\r\n{'A' * 20_000}\r\n", "500 5.5.6"),
        ("AUTH PLAIN \0\r\n", "501 5.5.2"),
    ],
)
def test_a_broken_exchange_is_named(rig: Rig, said: str, reply: str) -> None:
    plug = rig.plug()
    plug.sendall(f"EHLO me\r\n{said}".encode())
    found = [one for one in replies(plug, 1 + said.count("\r\n")) if not one.startswith("334")]
    assert found[1].startswith(reply)


@pytest.mark.parametrize(
    ("acts_as", "reply"),
    [("", "235"), ("ana@example.com", "235"), ("ANA@example.com", "235"), ("ben@example.com", "535")],
)
def test_nobody_acts_as_somebody_else(rig: Rig, acts_as: str, reply: str) -> None:
    plain = base64.b64encode(f"{acts_as}\0ana@example.com\0{PASSWORD}".encode()).decode()
    assert talk(rig.plug(), f"EHLO me\r\nAUTH PLAIN {plain}\r\n", 2)[1].startswith(reply)


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (f"AUTH PLAIN {PLAIN}\r\n", "503 5.5.1"),
        (f"HELO me\r\nAUTH PLAIN {PLAIN}\r\n", "235 2.7.0"),  # some old clients do so
        (f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\nAUTH PLAIN {PLAIN}\r\n", "503 5.5.1"),
        (f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\nEHLO me\r\nMAIL FROM:<>\r\n", "250 2.1.0"),  # a login outlives EHLO
    ],
    ids=["before-ehlo", "helo", "twice", "ehlo-again"],
)
def test_when_a_login_may_come(rig: Rig, said: str, reply: str) -> None:
    assert talk(rig.plug(), said, said.count("\r\n"))[-1].startswith(reply)


def test_three_failed_logins_end_the_connection(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"trusted_networks": ["127.0.0.0/8"]})  # where failures are not slowed
    wrong = base64.b64encode(b"\0ana@example.com\0wrong").decode()
    found = talk(rig.plug(), "EHLO me\r\n" + f"AUTH PLAIN {wrong}\r\n" * 3, 5)
    assert [one[:3] for one in found[1:]] == ["535", "535", "535", "421"]


# --- the dialog ------------------------------------------------------------------------------------------------------


def test_a_pipeline_is_answered_in_order_and_goes_on_behind_the_dot(rig: Rig) -> None:
    plug = logged_in(rig)
    text = f"{ENVELOPE}RCPT TO:<lee@clients.example>\r\nDATA\r\n"
    assert [reply[:3] for reply in talk(plug, text, 4)] == ["250", "250", "250", "354"]
    found = talk(plug, f"{LETTER}.\r\n{ENVELOPE}RCPT TO:<bad>\r\nDATA\r\n", 5)
    assert [reply[:3] for reply in found] == ["250", "250", "250", "501", "354"]
    found = talk(plug, f"{LETTER}.\r\nNOOP\r\nQUIT\r\n", 3)
    assert [reply[:3] for reply in found] == ["250", "250", "221"]
    assert plug.recv(1) == b""
    assert [len(message["recipients"]) for message in rig.outbox()] == [2, 1]


def test_a_long_pipeline_lets_the_other_connections_have_their_turn(rig: Rig) -> None:
    plug = logged_in(rig)
    (dialog,) = rig.server._dialogs
    commands, steps = 3_000, [0]
    done = threading.Event()

    def look() -> None:  # once in every turn of the loop
        steps.append(dialog.envelope.rcpt_commands)
        if steps[-1] < commands:
            asyncio.get_running_loop().call_soon(look)
        else:
            done.set()

    rig.call(look)
    text = "MAIL FROM:<ana@example.com>\r\n" + "RCPT TO:<kim@clients.example>\r\n" * commands
    assert {reply[:3] for reply in talk(plug, text, 1 + commands)} == {"250"}
    assert done.wait(20)
    assert max(now - before for before, now in itertools.pairwise(steps)) <= 60


def test_every_reply_carries_an_enhanced_code(rig: Rig) -> None:
    plug = rig.plug()
    commands = [
        "BOGUS", "MAIL FROM:<a@b.example>", "HELO", "NOOP x", "RSET", "RSET x", "VRFY", "VRFY a@b.example", "EXPN a",
        "HELP", "DATA", "RCPT TO:<a@b.example>", "STARTTLS", "AUTH PLAIN", "*", "AUTH X", "", "NOOP \xe9",
    ]  # fmt: skip
    plug.sendall(b"EHLO me\r\n")
    replies(plug, 1)
    found = talk(plug, "".join(f"{command}\r\n" for command in commands), len(commands))
    for command, reply in zip(commands, found, strict=True):
        if not reply.startswith("334"):
            assert re.match(rf"({reply[0]})\d\d \1\.\d{{1,3}}\.\d{{1,3}} ", reply), (command, reply)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<> SIZE=100 BODY=8BITMIME AUTH=<>", "250 2.1.0"),
        ("MAIL FROM:<a@b.example> AUTH=ana@example.com", "250 2.1.0"),
        ("mail from: a@b.example", "250 2.1.0"),
        ("MAIL FROM:<@relay.example:a@b.example>", "250 2.1.0"),
        ('MAIL FROM:<"a b"@b.example>', "250 2.1.0"),
        ("MAIL FROM:<a@b.example> SIZE=35000001", "552 5.3.4"),
        ("MAIL FROM:<a@b.example> SIZE=99999999999999999999999999999", "552 5.3.4"),
        ("MAIL FROM:<a@b.example> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314159", "250 2.1.0"),
        ("MAIL FROM:<a@b.example> HOLDFOR=5", "555 5.5.4"),
        ("MAIL FROM:<\xe9@b.example>", "501 5.5.2"),  # no UTF-8
        ("MAIL FROM:<\xc3\xa9@b.example>", "553 5.6.7"),
        ("MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<a@b.example>\tX", "501 5.1.7"),
        ("MAIL FROM:<a\0@b.example>", "501 5.5.2"),
        ("MAIL FROM:<a@b.example> ENVID=\rX", "501 5.5.2"),
        ("MAIL FROM:<a b@c>", "501 5.1.7"),
        ("MAIL FROM:<a@b@c>", "501 5.1.7"),
        ("MAIL TO:<a@b.example>", "501 5.1.7"),
        ("MAIL", "501 5.1.7"),
    ],
)
def test_mail_from(rig: Rig, command: str, reply: str) -> None:
    assert talk(logged_in(rig), f"{command}\r\n", 1)[0].startswith(reply)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("RCPT TO:<a@[192.0.2.1]>", "250 2.1.5"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER", "250 2.1.5"),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c.example", "250 2.1.5"),
        ("RCPT TO:<\xc3\xa9@b.example>", "553 5.6.7"),
        ("VRFY \xc3\xa9@b.example", "501 5.5.2"),
        ("VRFY " + "(" * 1_500, "252 2.5.2"),
        ("RCPT TO:<>", "550 5.1.3"),
        ("RCPT TO:<a>", "501 5.1.3"),
        ("RCPT TO:<a@b..example>", "501 5.1.3"),
        ("RCPT TO:<a@b.example>x", "501 5.1.3"),
        ("MAIL FROM:<a@b.example>", "503 5.5.1"),
        ("DATA", "554 5.5.1"),
        ("DATA x", "501 5.5.4"),
        (f"AUTH PLAIN {PLAIN}", "503 5.5.1"),
    ],
)
def test_inside_a_transaction(rig: Rig, command: str, reply: str) -> None:
    assert talk(logged_in(rig), f"MAIL FROM:<>\r\n{command}\r\n", 2)[1].startswith(reply)


def test_a_recipient_named_twice_gets_one_copy_and_too_many_are_put_off(rig: Rig) -> None:
    plug = logged_in(rig)
    talk(plug, ENVELOPE + "RCPT TO:<kim@clients.example>\r\n", 3)
    found = talk(plug, "".join(f"RCPT TO:<n{n}@clients.example>\r\n" for n in range(1000)), 1000)
    assert found[998].startswith("250")
    assert found[999].startswith("452 4.5.3")
    talk(plug, f"DATA\r\n{LETTER}.\r\n", 2)
    addresses = [recipient["address"] for recipient in rig.outbox()[0]["recipients"]]
    assert len(addresses) == len(set(addresses)) == 1000


def test_a_line_too_long_or_with_a_bare_line_feed_is_an_error(rig: Rig) -> None:
    plug = logged_in(rig)
    assert talk(plug, "NOOP\n", 1)[0].startswith("500 5.5.2")
    assert talk(plug, f"NOOP {'x' * 3000}\r\n", 1)[0].startswith("500 5.5.6")
    assert talk(plug, "x" * 200_000, 1)[0].startswith("500 5.5.6")
    with suppress(ConnectionResetError):  # there was more to read
        assert plug.recv(1) == b""


def test_endless_errors_and_idle_commands_end_the_connection(rig: Rig) -> None:
    assert talk(rig.plug(), "BOGUS\r\n" * 20, 21)[-1].startswith("421 4.7.0")
    assert talk(rig.plug(), "NOOP\r\n" * 101, 101)[-1].startswith("421 4.7.0")


def test_endless_recipients_end_the_connection(rig: Rig) -> None:
    plug = logged_in(rig)
    talk(plug, "MAIL FROM:<>\r\n", 1)
    for _ in range(10):
        assert talk(plug, "RCPT TO:<a@b.example>\r\n" * 1_000, 1_000)[-1].startswith("250")
    assert talk(plug, "RCPT TO:<a@b.example>\r\n", 1)[0].startswith("421 4.7.0 too many recipients")


def test_errors_are_forgotten_with_each_message_that_is_taken(rig: Rig) -> None:
    plug = logged_in(rig)
    for _ in range(4):
        talk(plug, "RCPT TO:<bad>\r\n" * 15, 15)
        assert talk(plug, f"{ENVELOPE}DATA\r\n{another()}.\r\n", 4)[3].startswith("250")
    assert talk(plug, "RCPT TO:<bad>\r\n" * 20, 21)[-1].startswith("421 4.7.0")


def test_a_client_may_send_all_and_close_its_side(rig: Rig) -> None:
    plug = logged_in(rig)
    plug.sendall(f"{ENVELOPE}DATA\r\n{LETTER}.\r\n".encode())
    plug.shutdown(socket.SHUT_WR)
    assert replies(plug, 4)[3].startswith("250 2.0.0 queued as")
    assert plug.recv(1) == b""


# --- the message -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", ["a\rb", "a\nb", "\n", "\r"], ids=repr)
def test_a_cr_or_lf_of_its_own_is_refused(rig: Rig, bare: str) -> None:
    found = talk(logged_in(rig), f"{ENVELOPE}DATA\r\n{LETTER}{bare}\r\n.\r\n", 4)
    assert found[3].startswith("550 5.6.11")


def test_dots_arrive_as_they_were_written(rig: Rig) -> None:
    body = "\r\n".join([".", "..", ".a", "a.", "", "."]) + "\r\n"
    queue_id = send(rig.login(), LETTER + body)  # smtplib adds the dots
    assert rig.stored(queue_id).endswith(f"Hello Kim\r\n{body}".encode())


def test_lines_may_have_998_octets_and_no_more(rig: Rig) -> None:
    client = rig.login()
    send(client, LETTER + "x" * 998 + "\r\n")
    assert refusal(client, LETTER + "x" * 999 + "\r\n").startswith("550 5.6.0")


def test_a_message_too_large_is_refused_after_it_was_read(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"max_message_size": "100 kB"})
    client = rig.login()
    big = LETTER + ("x" * 78 + "\r\n") * 1300
    with pytest.raises(smtplib.SMTPSenderRefused) as error:
        client.sendmail("ana@example.com", TO, big)
    assert error.value.smtp_code == 552  # SIZE at MAIL
    del client.esmtp_features["size"]
    client.rset()
    assert refusal(client, big) == "552 5.3.4 the message is larger than 100000 octets"
    send(client, LETTER)


def test_who_sends_far_too_much_before_listening_hears_why(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"max_message_size": "100 kB"})
    client = rig.login()
    del client.esmtp_features["size"]
    assert refusal(client, LETTER + ("x" * 76 + "\r\n") * 300_000).startswith("552 5.3.4")
    send(client, LETTER)


def test_a_message_that_never_ends_is_cut_off(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"max_message_size": "100 kB"})
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        plug.sendall(b"x" * 100_000_000)
    assert rig.outbox() == []


def test_eight_bit_content_is_kept_and_noted(rig: Rig) -> None:
    queue_id = send(rig.login(), LETTER.encode() + "Grüße\r\n".encode("latin-1"))
    assert rig.stored(queue_id).endswith(b"Gr\xfc\xdfe\r\n")
    noted = rig.store.read(lambda db: db.execute("SELECT eight_bit FROM outbox").fetchall()).result(timeout=10)
    assert noted == [(1,)]


# --- the store behind it ---------------------------------------------------------------------------------------------


class Gate:
    """Keeps the store's writer busy, so that what is submitted waits for its commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = threading.Event()
        self._shut = threading.Event()
        store.submit(self._wait, None)
        assert self._shut.wait(20)

    def _wait(self, db: Any, items: Any) -> list[None]:
        self._shut.set()
        assert self._open.wait(20)
        return [None] * len(items)

    def wait_for_submission(self) -> None:
        wait_until(lambda: self._store._units.qsize() > 0, "a message waits for its commit")

    def open(self) -> None:
        self._open.set()


def is_silent(plug: socket.socket) -> bool:
    return not select.select([plug], [], [], 0)[0]


def test_the_reply_comes_after_the_commit(rig: Rig) -> None:
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    gate = Gate(rig.store)
    plug.sendall(f"{LETTER}.\r\nNOOP\r\n".encode())
    gate.wait_for_submission()
    assert is_silent(plug)
    assert rig.woken == []
    gate.open()
    assert replies(plug, 2)[0].startswith("250 2.0.0 queued as")
    with closing(sqlite3.connect(rig.home / "gateway.db")) as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_goes_in_mid_commit_leaves_exactly_one_message(rig: Rig, how: str) -> None:
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    gate = Gate(rig.store)
    plug.sendall(f"{LETTER}.\r\n".encode())
    gate.wait_for_submission()
    if how == "reset":
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half-close":
        plug.shutdown(socket.SHUT_WR)
    else:
        plug.close()
    other = rig.connect()
    assert other.noop()[0] == 250  # the loop has seen what happened before this
    gate.open()
    wait_until(lambda: rig.woken == ["support"], "the message is kept")
    assert len(rig.outbox()) == 1


def test_half_a_message_is_not_kept(rig: Rig) -> None:
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    plug.sendall(f"{LETTER}\r\n.".encode())
    plug.close()
    send(rig.login(), LETTER)
    assert len(rig.outbox()) == 1


def test_a_store_that_is_full_puts_mail_off_and_then_takes_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    client = rig.login()
    send(client, LETTER)

    def limit(db: Any, items: Any) -> list[Any]:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages if items[0] else 1_000_000_000}")
        return [None] * len(items)

    rig.store.submit(limit, True).result(timeout=10)
    large = LETTER + ("x" * 76 + "\r\n") * 10_000  # more than the free pages of the file
    assert refusal(client, large).startswith("452 4.3.1")
    assert len(rig.outbox()) == 1
    rig.store.submit(limit, False).result(timeout=10)
    queue_id = send(client, large)
    assert rig.stored(queue_id).endswith(large.encode()[-1000:])


def test_a_bug_of_ours_puts_mail_off_and_shows_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("secret of the house")

    client = rig.login()
    with monkeypatch.context() as patched:
        patched.setattr("gateway.outbound.acceptance.scan", break_down)
        reply = refusal(client, LETTER)
    assert reply == "451 4.3.0 something went wrong here; try again later"
    send(client, LETTER)


def test_more_than_fits_in_memory_is_put_off_and_the_account_is_balanced(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbound.submission._LEAST_MEMORY", 100_000)
    monkeypatch.setattr("gateway.outbound.submission._MESSAGES_AT_ONCE", 1)
    rig = make_rig(submission={"max_message_size": "100 kB"})
    first = logged_in(rig)
    talk(first, f"{ENVELOPE}DATA\r\n", 3)
    first.sendall(LETTER.encode() + b"".join(b"x" * 76 + b"\r\n" for _ in range(1000)))
    wait_until(lambda: rig.server._reserved > 70_000, "the first message takes most of the memory")
    other = rig.login()
    del other.esmtp_features["size"]
    assert refusal(other, LETTER + ("y" * 76 + "\r\n") * 600).startswith("452 4.3.1")
    first.sendall(b".\r\n")
    assert replies(first, 1)[0].startswith("250")
    send(other, LETTER)
    assert rig.server._reserved == 0


def test_large_messages_arrive_whole(rig: Rig) -> None:
    large = LETTER.encode() + b"".join(b"%06d " % n + b"x" * 70 + b"\r\n" for n in range(30_000))
    queue_id = send(rig.login(), large)
    assert rig.stored(queue_id).partition(b"\r\n\r\n")[2] == large.partition(b"\r\n\r\n")[2]


# --- time and the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", 301), ("EHLO me\r\n", 301), (f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\n", 301), ("EHLO me\r\nAUTH LOGIN\r\n", 301)],
    ids=["greeted", "before-login", "logged-in", "in-auth"],
)
def test_a_silent_client_is_sent_away(rig: Rig, said: str, seconds: float) -> None:
    plug = rig.plug()
    talk(plug, said, said.count("\r\n"))
    pass_time(rig, seconds - 2)
    assert is_silent(plug)
    pass_time(rig, seconds)
    assert replies(plug, 1)[0].startswith("421 4.4.2")


def test_where_it_is_crowded_who_has_not_logged_in_has_half_a_minute(rig: Rig) -> None:
    stranger, agent = rig.plug(), logged_in(rig)

    def look(seconds: float) -> None:
        for dialog in tuple(rig.server._dialogs):
            dialog.check_time(dialog.loop.time() + seconds, is_crowded=True)

    rig.call(look, 28)
    assert is_silent(stranger)
    rig.call(look, 31)
    assert replies(stranger, 1)[0].startswith("421 4.4.2")
    assert is_silent(agent)


def test_a_client_that_reads_no_replies_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbound.dialog._MOST_RCPT", 10_000_000)
    plug = logged_in(rig)
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.settimeout(1)
    plug.sendall(b"MAIL FROM:<>\r\n")
    recipients = memoryview(b"RCPT TO:<a@b.example>\r\n" * 10_000_000)
    with suppress(TimeoutError):  # until our replies fill every buffer on the way, and for a second we read nothing
        while recipients:
            recipients = recipients[plug.send(recipients[:65_536]) :]
    pass_time(rig, 298)
    assert rig.server._dialogs
    pass_time(rig, 301)
    pass_time(rig, 312)
    wait_until(lambda: not rig.server._dialogs, "it is dropped")


def test_a_client_that_never_logs_in_cannot_stay_by_talking(rig: Rig) -> None:
    plug = rig.plug()
    pass_time(rig, 301)
    assert replies(plug, 1)[0].startswith("421 4.4.2")


def test_an_hour_without_a_message_is_the_longest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a client talks: one command every few minutes would keep a connection for a day."""
    monkeypatch.setattr("gateway.outbound.dialog.COMMAND_SECONDS", 1e9)
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n{LETTER}.\r\nMAIL FROM:<>\r\n", 5)
    pass_time(rig, 3599)
    assert is_silent(plug)
    pass_time(rig, 3601)
    assert replies(plug, 1)[0].startswith("421 4.4.2 an hour")


def test_a_slow_message_has_time_according_to_its_size(rig: Rig) -> None:
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    plug.sendall(b"x" * 409_600)
    (dialog,) = rig.server._dialogs
    wait_until(lambda: dialog._received == 409_600, "it has been read")
    pass_time(rig, 398)
    assert is_silent(plug)
    pass_time(rig, 402)
    assert replies(plug, 1)[0].startswith("421 4.4.2")


def pass_time(rig: Rig, seconds: float) -> None:
    """Look at all dialogs as if `seconds` had passed since now."""

    def look() -> None:
        for dialog in tuple(rig.server._dialogs):
            dialog.check_time(dialog.loop.time() + seconds)

    rig.call(look)


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_rude_clients_leave_nothing_behind(
    make_rig: Callable[..., Rig], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Every way of going away in the middle, on every listener: all is given back and no exception gets loose."""
    rig = make_rig(loop_factory=loop_factory)
    stray: list[Any] = []
    rig.call(rig._loop.set_exception_handler, lambda loop, context: stray.append(context))
    session = f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\n{ENVELOPE}DATA\r\n{LETTER}.\r\nNOOP\r\n".encode()
    hello = b"EHLO me\r\nSTARTTLS\r\n"
    received_whole = len(session) - len("NOOP\r\n")
    cuts = [0, 5, 12, 60, 110, 150, 200, received_whole - 1, received_whole, len(session)]
    whole = 0
    for scheme in ("smtp+insecure", "smtp", "smtps"):
        for cut in cuts:
            for resets in (False, True):
                plug = socket.create_connection(("127.0.0.1", rig.port(scheme)), timeout=20)
                plug.sendall((hello if scheme == "smtp" else b"") + session[:cut])
                if resets:
                    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                plug.close()
                whole += scheme == "smtp+insecure" and cut >= received_whole
    wait_until(lambda: not rig.server._dialogs and not rig.server._from, "all are gone")
    assert stray == []
    assert rig.server._reserved == 0
    assert len(rig.outbox()) <= whole
    send(rig.login(), LETTER)


def test_closing_lets_a_commit_finish_and_says_goodbye_to_the_others(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    busy, idle = logged_in(rig), logged_in(rig)
    talk(busy, f"{ENVELOPE}DATA\r\n", 3)
    gate = Gate(rig.store)
    busy.sendall(f"{LETTER}.\r\n".encode())
    gate.wait_for_submission()
    closing_ = asyncio.run_coroutine_threadsafe(rig.server.close(20), rig._loop)
    assert replies(idle, 1)[0].startswith("421 4.3.2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", rig.port("smtp+insecure")), timeout=1)
    assert not closing_.done()
    gate.open()
    found = replies(busy, 2)
    assert found[0].startswith("250 2.0.0 queued as")
    assert found[1].startswith("421 4.3.2")
    closing_.result(timeout=20)
    assert len(rig.outbox()) == 1


def test_closing_does_not_wait_for_ever(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    plug = logged_in(rig)
    talk(plug, f"{ENVELOPE}DATA\r\n", 3)
    rig.run(rig.server.close, 0.1)
    assert plug.recv(1) == b""
    assert rig.outbox() == []
