"""Copies that we lay down at the provider: sizes, literals, refusals, cuts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
import trio

from gateway.errors import Unavailable
from gateway.inbound.session import NoFolder, NotGiven, Session
from tests.shell.imap_client import Client, client_of
from tests.shell.imap_script import ImapServer, Letter, Peer, letter

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN"
AT = datetime(2026, 3, 5, 9, 7, 1, tzinfo=timezone(timedelta(hours=1)))


def a_server(capabilities: str = PLAIN) -> ImapServer:
    server = ImapServer()
    server.capabilities = capabilities
    server.folders["Sent"] = {}
    return server


async def in_pieces(raw: bytes, size: int = 100_000, asked: list[int] | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), size):
        if asked is not None:
            asked.append(start)
        yield raw[start : start + size]


async def append(client: Client, session: Session, raw: bytes, folder: str = "Sent", **about: Any) -> None:
    chunks = about.pop("chunks", None) or in_pieces(raw)
    await client.call(partial(session.append, folder, chunks, about.pop("size", len(raw)), AT))


def appends(server: ImapServer) -> list[str]:
    return [command for command in server.commands if command.startswith("APPEND")]


async def test_a_copy_lies_there_as_it_is_seen_and_dated() -> None:
    server = a_server()
    async with client_of(server) as client:
        session = await client.connect()
        await append(client, session, letter(1))
        (copy,) = server.folders["Sent"].values()
        assert (copy.raw, copy.flags, copy.internal) == (letter(1), {"\\Seen"}, " 5-Mar-2026 08:07:01 +0000")
        await client.call(session.select, "Sent")
        assert await client.call(session.with_message_id, "<1@clients.example>") == list(server.folders["Sent"])
        await client.call(session.logout)


async def test_a_large_message_goes_in_pieces_that_are_asked_for_once_the_server_wants_them() -> None:
    server = a_server(f"{PLAIN} LITERAL+")
    raw = letter(1, 8_000_000)
    asked: list[int] = []

    @server.on("APPEND")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await trio.sleep(0.05)
        assert asked == []
        return False

    async with client_of(server) as client:
        session = await client.connect(answer_seconds=10.0)
        await append(client, session, raw, chunks=in_pieces(raw, asked=asked))
        assert [copy.raw for copy in server.folders["Sent"].values()] == [raw]
        assert len(asked) == 80
        await client.call(session.logout)


@pytest.mark.parametrize(
    ("capabilities", "size", "unasked"),
    [
        (PLAIN, 300, False),
        (f"{PLAIN} LITERAL+", 4096, True),
        (f"{PLAIN} LITERAL-", 4096, True),
        (f"{PLAIN} LITERAL+", 4097, False),
        (f"{PLAIN} IMAP4rev2", 300, True),
    ],
    ids=["not-offered", "plus", "minus", "larger", "rev2"],
)
async def test_small_copies_follow_unasked_where_the_server_takes_that(
    capabilities: str, size: int, unasked: bool
) -> None:
    server = a_server(capabilities)
    async with client_of(server) as client:
        session = await client.connect()
        await append(client, session, letter(1, size))
        await append(client, session, letter(2, size))
        assert [command.endswith("+}") for command in appends(server)] == [unasked] * 2
        assert [copy.raw for copy in server.folders["Sent"].values()] == [letter(1, size), letter(2, size)]
        await client.call(session.logout)


@pytest.mark.parametrize("size", [300, 5000], ids=["unasked", "asked"])
@pytest.mark.parametrize("offered", [True, False])
async def test_utf8_in_a_header_is_announced_where_the_server_knows_what_that_is(size: int, offered: bool) -> None:
    server = a_server(f"{PLAIN} LITERAL+ ENABLE{' UTF8=ACCEPT' if offered else ''}")
    raw = letter(1, size).replace(b"Customer", "Künde".encode())
    async with client_of(server) as client:
        session = await client.connect()
        await client.call(session.append, "Sent", in_pieces(raw), len(raw), AT, True)
        await append(client, session, letter(2))
        assert [("UTF8 (~{" in command) for command in appends(server)] == [offered, False]
        assert [copy.raw for copy in server.folders["Sent"].values()] == [raw, letter(2)]
        await client.call(session.logout)


@pytest.mark.parametrize("size", [300, 5000], ids=["unasked", "asked"])
async def test_a_folder_that_is_not_there_can_be_made(size: int) -> None:
    server = a_server(f"{PLAIN} LITERAL+")
    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(NoFolder, match="does not take a copy into 'Sent Items': no such folder"):
            await append(client, session, letter(1, size), "Sent Items")
        await client.call(session.create, "Sent Items")
        await append(client, session, letter(1, size), "Sent Items")
        assert [copy.raw for copy in server.folders["Sent Items"].values()] == [letter(1, size)]
        await client.call(session.logout)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("NO [OVERQUOTA] no room", r"no room \(the mailbox is full\)"),
        ("NO [LIMIT] too many", "too many"),
        ("NO [TOOBIG] no", "does not take a copy"),
        ("BAD what?", "what"),
    ],
    ids=["quota", "limit", "too-big", "bad"],
)
async def test_a_refusal_costs_nothing_but_an_answer(answer: str, text: str) -> None:
    server = a_server()
    asked: list[int] = []

    @server.on("APPEND")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} {answer}")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(NotGiven, match=text):
            await append(client, session, letter(1), chunks=in_pieces(letter(1), asked=asked))
        assert asked == []
        await append(client, session, letter(2))
        assert [copy.raw for copy in server.folders["Sent"].values()] == [letter(2)]
        await client.call(session.logout)


async def test_a_no_behind_the_bytes_leaves_the_session_in_step() -> None:
    server = a_server()

    @server.on("APPEND")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("+ go on")
        await peer.exactly(100)
        await peer.say(f"{tag} NO [OVERQUOTA] no room after all")
        await peer.exactly(200)
        assert await peer.line() == ""
        return True

    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(NotGiven, match="no room after all"):
            await append(client, session, letter(1), chunks=in_pieces(letter(1), 50))
        await append(client, session, letter(2))
        assert [copy.raw for copy in server.folders["Sent"].values()] == [letter(2)]
        await client.call(session.logout)


async def test_what_the_server_says_is_too_large_is_not_offered() -> None:
    server = a_server(f"{PLAIN} APPENDLIMIT=1000")
    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(NotGiven, match="takes messages of 1000 bytes at most, and this one has 1001"):
            await append(client, session, letter(1, 1001))
        await append(client, session, letter(1, 1000))
        assert len(appends(server)) == len(server.folders["Sent"]) == 1
        await client.call(session.logout)


@pytest.mark.parametrize("when", ["before", "amid", "behind"])
async def test_a_cut_ends_the_session(when: str) -> None:
    server = a_server()

    @server.on("APPEND")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if when != "before":
            await peer.say("+ go on")
            await peer.exactly(100_000 if when == "amid" else 9_000_000)
        await peer.stream.aclose()
        return True

    async with client_of(server) as client:
        session = await client.connect()
        with trio.fail_after(3), pytest.raises(Unavailable) as caught:
            await append(client, session, letter(1, 9_000_000))
        assert not isinstance(caught.value, NotGiven)
        with pytest.raises(Unavailable):
            await client.call(session.create, "Sent")


async def test_a_server_that_takes_nothing_is_left() -> None:
    server = a_server()

    @server.on("APPEND")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("+ go on")
        await trio.sleep_forever()
        return True

    async with client_of(server) as client:
        session = await client.connect(answer_seconds=0.3)
        with pytest.raises(Unavailable, match="does not take what we send"):
            await append(client, session, letter(1, 30_000_000))


async def test_bytes_that_cannot_be_read_cut_the_session() -> None:
    """The store is away in the middle: the server must not take the next command for the rest of the message."""
    server = a_server()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise Unavailable("the disk does not answer")

    async with client_of(server) as client:
        session = await client.connect()
        with pytest.raises(Unavailable, match="the disk does not answer"):
            await append(client, session, letter(1), chunks=broken())
        with pytest.raises(Unavailable):
            await client.call(session.create, "Sent")
        await server.deserted()
    assert not server.folders["Sent"]


# --- finding copies --------------------------------------------------------------------------------------------------


def dated(number: int, day: int) -> Letter:
    raw = b"Received: by gw (mail-gateway)\r\n id abcdefg.%d; x\r\n%b" % (number, letter(number))
    return Letter(raw, internal=f"{day:02}-Nov-2026 10:00:00 +0000")


async def test_copies_are_found_by_any_field_and_by_day() -> None:
    server = a_server()
    server.folders["Sent"] = {5: dated(1, 20), 6: dated(2, 21), 9: dated(2, 22)}
    async with client_of(server) as client:
        session = await client.connect()
        await client.call(session.select, "Sent")
        assert await client.call(session.with_field, "Received", "ABCDEFG.2") == [6, 9]
        assert await client.call(session.with_field, "Received", "abcdefg.2", date(2026, 11, 22)) == [9]
        assert await client.call(session.with_field, "Received", "abcdefg.3") == []
        assert await client.call(session.with_field, "Received", "é") == [], "it cannot be asked for"

        @server.on("UID SEARCH")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} NO not by this field")
            return True

        with pytest.raises(NotGiven, match="not by this field"):
            await client.call(session.with_field, "Received", "abcdefg.2")
        heads = await client.call(session.headers, [5, 7, 9], 60)
        assert [(head.uid, head.raw[:60]) for head in heads] == [
            (5, server.folders["Sent"][5].raw[:60]), (9, server.folders["Sent"][9].raw[:60]),
        ]  # fmt: skip
        await client.call(session.logout)


@pytest.mark.parametrize("tells_uidnext", [True, False])
@pytest.mark.parametrize(
    "uids",
    [[], [7], [*range(1, 9)], [*range(1, 2000, 3)], [1, 2, 3, 900_000, 4_000_000_000], [4_000_000_000, 4_000_000_009]],
    ids=["none", "one", "few", "gaps", "spread", "high"],
)
async def test_the_newest_are_those_with_the_highest_uids(uids: list[int], tells_uidnext: bool) -> None:
    server = a_server(f"{PLAIN} ESEARCH")
    server.tells_uidnext = tells_uidnext
    server.folders["Sent"] = {uid: Letter(b"Subject: x\r\n\r\n") for uid in uids}
    server.uidnext = max(uids, default=0) + 1
    async with client_of(server) as client:
        session = await client.connect()
        await client.call(session.select, "Sent")
        for count in (1, 4, 5000):
            assert await client.call(session.newest, count) == uids[-count:]
        await client.call(session.logout)
