"""The typed IMAP session against servers that lie, stall, chatter and leave."""

from __future__ import annotations

import base64
import logging
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.config import Server
from gateway.connections.reach import tls_context
from gateway.errors import Unavailable
from gateway.inbound.session import LoginRefused, NotGiven, Selected
from tests.shell.imap_client import client_of, selected
from tests.shell.imap_script import ImapServer, Letter, Peer, Script, letter
from tests.support.authority import Authority

SECRET = 'a "quoted\\ secret'

# --- coming in -------------------------------------------------------------------------------------------------------


async def test_capabilities_are_read_again_after_login() -> None:
    server = ImapServer()
    server.capabilities = "IMAP4rev1 AUTH=PLAIN SASL-IR"

    @server.on("AUTHENTICATE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        server.capabilities = "IMAP4rev1 idle X-NEW"  # and the OK says nothing of them
        await peer.say(f"{tag} OK welcome")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        assert session.capabilities == {"IMAP4REV1", "IDLE", "X-NEW"}
        assert session.can_idle
        assert server.commands == ["AUTHENTICATE", "CAPABILITY"]
        await client.call(session.logout)


async def test_we_say_who_we_are_where_that_is_wanted() -> None:
    server = ImapServer()
    async with client_of(server) as client:
        session = await client.connect()
        assert server.commands[1].startswith('ID ("name" "mail-gateway" "version" "')
        await client.call(session.logout)
        assert server.commands[-1] == "LOGOUT"


@pytest.mark.parametrize("password", [SECRET, "Grüße 🔑", "with space", "{5}", "a%b*c"])
@pytest.mark.parametrize("capabilities", ["AUTH=PLAIN SASL-IR", "AUTH=PLAIN", ""], ids=["initial", "waits", "login"])
async def test_any_password_arrives_as_it_is(capabilities: str, password: str) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.say(f"* OK [CAPABILITY IMAP4rev1 {capabilities}] ready")
        tag, _, command = (await peer.line()).partition(" ")
        if command.startswith("AUTHENTICATE PLAIN"):
            token = command[19:]
            if not token:
                await peer.say("+ ")
                token = await peer.line()
            heard.append(base64.b64decode(token))
        elif command.endswith("{4}"):
            await peer.say("+ go on")
            name = await peer.exactly(4)
            size = int((await peer.line()).strip(" {}"))
            await peer.say("+ go on")
            heard.append(b"\0" + name + b"\0" + await peer.exactly(size))
            await peer.line()
        else:
            _, login, quoted = command.split(" ", 2)
            plain = quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\")
            heard.append(f"\0{login[1:-1]}\0{plain}".encode())
        await peer.say(f"{tag} OK [CAPABILITY IMAP4rev1] welcome")
        await peer.closed()

    async with client_of(script) as client:
        session = await client.connect("anna", password)
        await client.call(session.close)
    assert heard == [f"\0anna\0{password}".encode()]


async def test_a_refused_login_says_so_without_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = ImapServer(password="another")
    async with client_of(server) as client:
        with pytest.raises(LoginRefused, match=r"refused the login of anna: wrong; check login and password") as caught:
            await client.connect("anna", SECRET)
    token = base64.b64encode(f"\0anna\0{SECRET}".encode()).decode()
    chain = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert SECRET not in chain
    assert token not in chain


@pytest.mark.parametrize(
    "answer",
    [
        "NO [UNAVAILABLE] database is down",
        "NO [ALERT] Too many simultaneous connections. (Failure)",
        "BAD User is authenticated but not connected.",
        "NO [INUSE] locked",
    ],
    ids=["unavailable", "gmail", "exchange", "in-use"],
)
async def test_a_refusal_that_is_not_about_the_password_is_no_refusal(answer: str) -> None:
    server = ImapServer()

    @server.on("AUTHENTICATE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} {answer}")
        return True

    async with client_of(server) as client:
        with pytest.raises(Unavailable) as caught:
            await client.connect()
    assert not isinstance(caught.value, LoginRefused)


async def test_a_login_that_is_disabled_sends_no_password() -> None:
    lines: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.say("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready")
        lines.append(await peer.line())

    async with client_of(script) as client:
        with pytest.raises(LoginRefused, match="LOGINDISABLED"):
            await client.connect()
    assert lines == [""]


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        ("* BYE too many of you", "turned us away: too many of you"),
        ("* PREAUTH who needs names", "PREAUTH"),
        ("220 mail.example ESMTP", "does not greet like an IMAP server"),
    ],
    ids=["bye", "preauth", "smtp"],
)
async def test_a_greeting_that_is_none_is_explained(greeting: str, says: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(greeting)
        await peer.closed()

    async with client_of(script) as client:
        with pytest.raises(Unavailable, match=says):
            await client.connect()


async def test_a_server_that_does_not_greet_is_given_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async with client_of(script) as client:
        with pytest.raises(Unavailable, match="no greeting within"):
            await client.connect(connect_seconds=0.1)


async def test_a_server_that_hangs_up_while_greeting_is_away() -> None:
    async def script(peer: Peer) -> None:
        pass

    async with client_of(script) as client:
        with pytest.raises(Unavailable, match="closed the connection"):
            await client.connect()


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_context(authority: Authority, **how: Any) -> ssl.SSLContext:
    pair = authority.issue("server", **how)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.private_key)
    return context


async def test_tls_is_verified_by_the_authority_that_was_named(authority: Authority) -> None:
    async with client_of(ImapServer(), server_context(authority)) as client:
        tls = tls_context(authority.ca_file)
        session = await client.connect(server=Server("imaps", "localhost", client.port), tls=tls)
        await client.call(session.logout)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("expired", "has expired"), ("name", "is not for 127.0.0.2"), ("issuer", "nobody we trust.*`ca_file`")],
)
async def test_a_bad_certificate_is_named_with_its_remedy(
    authority: Authority, tmp_path: Path, trouble: str, says: str
) -> None:
    server = ImapServer()
    async with client_of(server, server_context(authority, expired=trouble == "expired"), host="0.0.0.0") as client:
        trusted = authority
        if trouble == "issuer":
            (tmp_path / "other").mkdir()
            trusted = Authority(tmp_path / "other")
        host = "127.0.0.2" if trouble == "name" else "localhost"
        with pytest.raises(Unavailable, match=says):
            await client.connect(server=Server("imaps", host, client.port), tls=tls_context(trusted.ca_file))
    assert not server.commands


async def test_a_plain_port_is_told_from_a_tls_port(authority: Authority) -> None:
    async with client_of(ImapServer()) as client:
        with pytest.raises(Unavailable, match="no TLS connection"):
            await client.connect(server=Server("imaps", "localhost", client.port), tls=tls_context(authority.ca_file))


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"ca_file .*nowhere\.pem"):
        tls_context(tmp_path / "nowhere.pem")


class StartTls:
    """A server that speaks STARTTLS. `before`: what it sends in the clear together with its OK."""

    def __init__(self, tls: ssl.SSLContext, inner: Script, *, before: bytes = b"", offers: bool = True) -> None:
        self.tls, self.inner, self.before, self.offers = tls, inner, before, offers
        self.lines: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        await peer.say(f"* OK [CAPABILITY IMAP4rev1 {'STARTTLS' if self.offers else ''} AUTH=PLAIN] hello")
        line = await peer.line()
        self.lines.append(line)
        tag, _, command = line.partition(" ")
        if command != "STARTTLS":
            return
        await peer.send(f"{tag} OK begin\r\n".encode() + self.before)
        secured = trio.SSLStream(peer.stream, self.tls, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError, ssl.SSLError):
            await self.inner(Peer(secured))


async def test_starttls_comes_before_the_password_and_forgets_what_was_said_in_the_clear(authority: Authority) -> None:
    inner = ImapServer()
    lines: list[str] = []

    async def without_greeting(peer: Peer) -> None:
        tag, _, command = (await peer.line()).partition(" ")
        lines.append(command)
        await peer.say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN", f"{tag} OK")
        while line := await peer.line():
            tag, _, command = line.partition(" ")
            lines.append(command.split()[0])
            await peer.say(f"{tag} OK [CAPABILITY IMAP4rev1] fine")

    async with client_of(StartTls(server_context(authority), without_greeting)) as client:
        session = await client.connect(
            server=Server("imap", "localhost", client.port), tls=tls_context(authority.ca_file)
        )
        await client.call(session.close)
    assert lines == ["CAPABILITY", "AUTHENTICATE"]
    assert not inner.commands


async def test_without_starttls_no_password_leaves_us(authority: Authority) -> None:
    server = StartTls(server_context(authority), ImapServer(), offers=False)
    async with client_of(server) as client:
        with pytest.raises(Unavailable, match="offers no STARTTLS"):
            await client.connect(server=Server("imap", "localhost", client.port), tls=tls_context(authority.ca_file))
    assert server.lines == [""]


async def test_half_a_line_smuggled_in_before_tls_ends_the_connection(authority: Authority) -> None:
    server = StartTls(server_context(authority), ImapServer(), before=b"* OK [CAPABILITY evil")
    async with client_of(server) as client:
        with pytest.raises(Unavailable):
            await client.connect(server=Server("imap", "localhost", client.port), tls=tls_context(authority.ca_file))


# --- folders and messages --------------------------------------------------------------------------------------------


async def test_reading_changes_nothing_over_there() -> None:
    server = ImapServer()
    await server.deliver(letter(1), letter(2))
    async with selected(server) as (client, session):
        assert await client.call(session.uids_above, 0) == [1, 2]
        listed = await client.call(session.listed, [1, 2])
        assert [item.size for item in listed] == [300, 300]
        assert [item.raw for item in await client.call(session.fetch, [1, 2], 600)] == [letter(1), letter(2)]
        await client.call(session.headed, [1, 2])
        await client.call(session.logout)
    said = " ".join(server.commands[2:]).upper()
    assert "BODY[" not in said
    for word in ("SELECT ", "CLOSE", "EXPUNGE", "STORE", "RFC822 "):
        assert word not in said


async def test_a_folder_says_what_it_is() -> None:
    server = ImapServer()
    await server.deliver(letter(1))
    async with client_of(server) as client:
        session = await client.connect()
        assert await client.call(session.select, "INBOX") == Selected(7, 2, 1)
        server.tells_uidnext = False
        assert await client.call(session.select, "INBOX") == Selected(7, None, 1)
        await client.call(session.logout)


async def test_a_folder_that_is_not_there_is_named() -> None:
    async with client_of(ImapServer()) as client:
        session = await client.connect()
        with pytest.raises(Unavailable, match=r"does not open the folder 'Wünsche'.*check `folders`"):
            await client.call(session.select, "Wünsche")
        with pytest.raises(Unavailable, match="control character"):
            await client.call(session.select, "IN\r\nBOX")
        await client.call(session.logout)


async def test_a_folder_without_uidvalidity_cannot_be_read_without_loss() -> None:
    server = ImapServer()

    @server.on("EXAMINE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("* 3 EXISTS", f"{tag} OK done")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(Unavailable, match="no UIDVALIDITY"):
            await client.call(session.select, "INBOX")
        await client.call(session.logout)


async def test_the_last_message_is_not_above_itself() -> None:
    server = ImapServer()
    await server.deliver(letter(1), letter(2))
    async with selected(server) as (client, session):
        assert await client.call(session.uids_above, 2) == []
        assert await client.call(session.listed_above, 2) == []
        assert [item.uid for item in await client.call(session.listed_above, 1)] == [2]


async def test_three_thousand_lines_in_one_write_are_three_thousand_lines() -> None:
    server = ImapServer()
    await server.deliver(*(letter(number, 10) for number in range(3000)))
    async with selected(server) as (client, session):
        assert len(await client.call(session.listed_above, 0)) == 3000
        found = await client.call(session.fetch, list(range(1, 3001)), 900_000)
        assert len(found) == 3000


async def test_new_mail_that_is_announced_during_a_fetch_is_not_forgotten() -> None:
    server = ImapServer()
    await server.deliver(letter(1))
    async with selected(server) as (client, session):
        await client.call(session.listed_above, 0)
        assert not session.is_stirred
        await server.deliver(letter(2))
        await client.call(session.fetch, [1], 300)
        assert session.is_stirred
        assert await client.call(session.idle, 60.0)
        assert "IDLE" not in server.commands  # there was no need to wait
        assert [item.uid for item in await client.call(session.listed_above, 1)] == [2]
        assert not session.is_stirred


async def test_garbage_and_unasked_data_are_passed_over() -> None:
    server = ImapServer()
    await server.deliver(letter(1))
    rubbish: list[str | bytes] = [
        "* 1 FETCH (FLAGS (\\Seen))",
        "* 1 FETCH (UID 1 FLAGS (\\Seen))",
        "* 9 FETCH (UID 99 BODY[] {3}\r\nabc)",
        '* 1 FETCH (UID 1 BODY[] "unfinished)',
        "* 1 FETCH ((((((((",
        "* 1 FETCH (UID nonsense BODY[] NIL)",
        "* XYZZY plugh",
        "*",
        "* ",
        b"* \xff\xfe\x00 8-bit",
        "* OK [ALERT] text with { and {5}",
        '* LIST () {3}\r\na"b',
        "* 99999999999999999999999 RECENT",
        "+ what?",
    ]

    @server.on("UID FETCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(*rubbish)
        return False

    async with selected(server) as (client, session):
        assert [item.raw for item in await client.call(session.fetch, [1], 300)] == [letter(1)]


async def test_no_is_told_from_nothing() -> None:
    server = ImapServer()
    await server.deliver(letter(1), letter(2))

    @server.on("UID FETCH 1:2")
    async def refuse(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO System Error (Failure)")
        return True

    @server.on("UID FETCH 2 ")
    async def half(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("* 2 FETCH (UID 2 BODY[] NIL)", f"{tag} OK done")
        return True

    async with selected(server) as (client, session):
        with pytest.raises(NotGiven, match="System Error"):
            await client.call(session.fetch, [1, 2], 600)
        assert [item.raw for item in await client.call(session.fetch, [2], 300)] == [None]
        assert await client.call(session.present, [1, 2, 3]) == [1, 2]


@pytest.mark.parametrize("esearch", [True, False])
async def test_uids_are_found_with_and_without_esearch(esearch: bool) -> None:
    server = ImapServer()
    if not esearch:
        server.capabilities = server.capabilities.replace("ESEARCH", "")
    await server.deliver(*(letter(number) for number in range(5)))
    await server.expunge(2, 4)
    async with selected(server) as (client, session):
        assert await client.call(session.uids_above, 1) == [3, 5]
    assert any("RETURN" in command for command in server.commands) == esearch


# --- what ends a session ---------------------------------------------------------------------------------------------


async def test_a_cut_inside_a_literal_is_heard_at_once() -> None:
    server = ImapServer()
    await server.deliver(letter(1))

    @server.on("UID FETCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.send(b"* 1 FETCH (UID 1 BODY[] {5000}\r\nonly this")
        await peer.stream.aclose()
        raise trio.BrokenResourceError

    async with selected(server) as (client, session):
        with pytest.raises(Unavailable, match=r"lost|closed"):
            await client.call(session.fetch, [1], 5000)
        with pytest.raises(Unavailable):
            await client.call(session.uids_above, 0)


async def test_bye_in_the_middle_of_idle_wakes_who_waits() -> None:
    server = ImapServer()

    @server.on("IDLE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("+ idling")
        await peer.say("* BYE Session invalidated - AccessTokenExpired")
        await peer.closed()  # and keeps the connection open
        return True

    async with selected(server) as (client, session):
        with pytest.raises(Unavailable, match="Session invalidated"):
            await client.call(session.idle, 600.0)


async def test_a_link_that_dies_in_idle_wakes_who_waits() -> None:
    server = ImapServer()

    @server.on("IDLE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("+ idling")
        await peer.stream.aclose()
        raise trio.BrokenResourceError

    async with selected(server) as (client, session):
        with pytest.raises(Unavailable):
            await client.call(session.idle, 600.0)


@pytest.mark.parametrize("silent_at", ["IDLE", "DONE", "UID SEARCH"])
async def test_a_silent_server_is_given_up_and_the_session_with_it(silent_at: str) -> None:
    server = ImapServer()

    @server.on("IDLE" if silent_at == "DONE" else silent_at)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if silent_at == "DONE":
            await peer.say("+ idling")
        await peer.closed()
        return True

    async with selected(server, answer_seconds=0.1) as (client, session):
        question = (session.uids_above, 0) if silent_at == "UID SEARCH" else (session.idle, 0.05)
        with pytest.raises(Unavailable, match="no answer to"):
            await client.call(*question)
        with pytest.raises(Unavailable):
            await client.call(session.select, "INBOX")


async def test_a_server_that_drips_bytes_for_ever_is_given_up() -> None:
    server = ImapServer()

    @server.on("UID SEARCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        while True:
            await peer.send(b"x")
            await trio.sleep(0.01)

    async with selected(server, answer_seconds=0.05) as (client, session):
        with pytest.raises(Unavailable, match="no answer to SEARCH"):
            await client.call(session.present, [1])


async def test_a_literal_above_the_limit_ends_the_session() -> None:
    server = ImapServer()
    server.letters[1] = Letter(letter(1, 5000))

    async with selected(server, literal_bytes=4000) as (client, session):
        with pytest.raises(Unavailable, match="literal of 5000 bytes"):
            await client.call(session.fetch, [1], 5000)


async def test_an_answer_to_another_question_ends_the_session() -> None:
    server = ImapServer()

    @server.on("UID SEARCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("X999 OK done")
        await peer.closed()
        return True

    async with selected(server) as (client, session):
        with pytest.raises(Unavailable, match="not asked"):
            await client.call(session.uids_above, 0)


async def test_a_new_uidvalidity_in_mid_session_ends_it() -> None:
    server = ImapServer()
    async with selected(server) as (client, session):

        @server.on("IDLE")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say("+ idling", "* OK [UIDVALIDITY 8] moved")
            await peer.closed()
            return True

        with pytest.raises(Unavailable, match="UIDVALIDITY"):
            await client.call(session.idle, 600.0)


async def test_idle_ends_at_its_deadline_and_when_mail_comes() -> None:
    server = ImapServer()
    async with selected(server) as (client, session):
        assert not await client.call(session.idle, 0.05)
        assert server.commands[-2:] == ["IDLE", "DONE"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.deliver, letter(1))
            assert await client.call(session.idle, 600.0)


@pytest.mark.parametrize("answers", [["{tag} BAD no such command"], ["+ idling", "{tag} OK that was it"]])
async def test_a_server_that_refuses_idle_is_not_asked_again(answers: list[str]) -> None:
    server = ImapServer()

    @server.on("IDLE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(*(answer.format(tag=tag) for answer in answers))
        return True

    async with selected(server) as (client, session):
        assert session.can_idle
        assert not await client.call(session.idle, 600.0)
        assert not session.can_idle


async def test_cancelling_idle_says_goodbye() -> None:
    server = ImapServer()
    async with selected(server) as (client, session):
        with trio.move_on_after(0.1):
            await client.bridge.call(session.idle, 600.0)
        await server.deserted()
        assert server.commands[-2:] == ["DONE", "LOGOUT"]


async def test_cancelling_anything_else_cuts_the_connection() -> None:
    server = ImapServer()

    @server.on("UID SEARCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.closed()
        raise trio.BrokenResourceError

    async with selected(server) as (client, session):
        with trio.move_on_after(0.1):
            await client.bridge.call(session.uids_above, 0)
        await server.deserted()
        with pytest.raises(Unavailable):
            await client.call(session.uids_above, 0)


async def test_the_time_of_the_last_byte_is_known() -> None:
    server = ImapServer()
    async with selected(server) as (client, session):
        before = session.last_byte_at
        await client.call(session.uids_above, 0)
        assert session.last_byte_at > before
