"""Flags and moves: what we change at the provider, and never more than that."""

from __future__ import annotations

import pytest

from gateway.errors import Unavailable
from gateway.inbound.session import HalfMoved, Moved, NoFolder, NotGiven, NotOffered, Session
from tests.shell.imap_client import Client, client_of
from tests.shell.imap_script import ImapServer, Letter, Peer, letter

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN"
MOVE = f"{PLAIN} MOVE UIDPLUS"
COPY = f"{PLAIN} UIDPLUS"


async def opened(client: Client) -> Session:
    session = await client.connect()
    await client.call(session.select, "INBOX", True)
    return session


def server_with(capabilities: str, letters: int = 6) -> ImapServer:
    server = ImapServer()
    server.capabilities = capabilities
    server.folders["Done"] = {}
    server.uidvalidities["Done"] = 55
    for number in range(1, letters + 1):
        server.letters[number] = letter_of(number)
    server.uidnext = 100
    return server


def letter_of(number: int) -> Letter:
    return Letter(letter(number))


def raws(server: ImapServer, folder: str) -> list[bytes]:
    return [item.raw for item in server.folders[folder].values()]


async def test_a_flag_is_set_on_these_messages_only() -> None:
    server = server_with(PLAIN)
    async with client_of(server) as client:
        session = await opened(client)
        await client.call(session.flag, [2, 3, 5], "\\Seen")
        await client.call(session.flag, [3], "\\Answered")
        await client.call(session.flag, [77], "\\Seen")  # gone, which is nobody's fault
        assert [sorted(item.flags) for item in server.letters.values()] == [
            [], ["\\Seen"], ["\\Answered", "\\Seen"], [], ["\\Seen"], [],
        ]  # fmt: skip
        assert "UID STORE 2:3,5 +FLAGS.SILENT (\\Seen)" in server.commands
        await client.call(session.logout)


async def test_a_folder_that_is_open_for_reading_takes_no_flag() -> None:
    server = server_with(MOVE)
    async with client_of(server) as client:
        session = await client.connect()
        await client.call(session.select, "INBOX")
        with pytest.raises(NotGiven, match=r"does not set \\Seen: not here"):
            await client.call(session.flag, [1], "\\Seen")
        with pytest.raises(NotGiven, match="does not move to 'Done': not here"):
            await client.call(session.move, [1], "Done")
        assert await client.call(session.uids, 1) == [1, 2, 3, 4, 5, 6]
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [MOVE, COPY, f"{PLAIN} IMAP4rev2"], ids=["move", "copy", "rev2"])
async def test_messages_are_moved_and_said_where_to(capabilities: str) -> None:
    server = server_with(capabilities)
    async with client_of(server) as client:
        session = await opened(client)
        moved = await client.call(session.move, [2, 4, 99], "Done")
        known = "UIDPLUS" in capabilities
        assert moved == (Moved(55, {2: 100, 4: 101}) if known else Moved(None, {}))
        assert list(server.letters) == [1, 3, 5, 6]
        assert raws(server, "Done") == [letter(2), letter(4)]
        assert any(command.startswith("UID MOVE") for command in server.commands) == (capabilities != COPY)
        assert await client.call(session.move, [2, 4], "Done") == Moved(None, {})  # once more moves nothing
        assert raws(server, "Done") == [letter(2), letter(4)]
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [MOVE, COPY])
async def test_what_others_have_marked_as_deleted_stays(capabilities: str) -> None:
    server = server_with(capabilities)
    server.letters[1].flags.add("\\Deleted")
    async with client_of(server) as client:
        session = await opened(client)
        await client.call(session.move, [2], "Done")
        assert list(server.letters) == [1, 3, 4, 5, 6]
        await client.call(session.logout)
    for command in server.commands:
        assert command.upper() not in ("EXPUNGE", "CLOSE")


@pytest.mark.parametrize("capabilities", [MOVE, COPY])
async def test_after_a_copy_only_the_originals_go(capabilities: str) -> None:
    server = server_with(capabilities)
    async with client_of(server) as client:
        session = await opened(client)
        assert await client.call(session.move, [2, 3], "Done", True) == Moved(None, {})
        assert list(server.letters) == [1, 4, 5, 6]
        assert raws(server, "Done") == []
        await client.call(session.logout)


async def test_without_a_safe_way_nothing_is_moved() -> None:
    server = server_with(PLAIN)
    async with client_of(server) as client:
        session = await opened(client)
        for copied in (False, True):
            with pytest.raises(NotOffered, match="neither MOVE nor UIDPLUS"):
                await client.call(session.move, [1], "Done", copied)
        assert raws(server, "Done") == []
        assert len(server.letters) == 6
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [MOVE, COPY])
async def test_a_target_that_is_not_there_is_named(capabilities: str) -> None:
    server = server_with(capabilities)
    async with client_of(server) as client:
        session = await opened(client)
        with pytest.raises(NoFolder, match="to 'Nowhere': no such folder"):
            await client.call(session.move, [1], "Nowhere")
        assert len(server.letters) == 6
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [MOVE, COPY])
async def test_a_target_can_be_made(capabilities: str) -> None:
    server = server_with(capabilities)
    async with client_of(server) as client:
        session = await opened(client)
        assert session.can_move == (capabilities == MOVE)
        await client.call(session.create, "Käse & Brot")
        await client.call(session.create, "Käse & Brot")  # there already, which is as good
        await client.call(session.move, [1], "Käse & Brot")
        assert raws(server, "Käse & Brot") == [letter(1)]

        @server.on("CREATE")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} NO [NOPERM] not yours")
            return True

        with pytest.raises(NoFolder, match="does not create the folder 'Other': not yours"):
            await client.call(session.create, "Other")
        await client.call(session.logout)


@pytest.mark.parametrize("at", ["UID STORE", "UID EXPUNGE"])
@pytest.mark.parametrize("how", ["says-no", "cuts"])
async def test_who_has_copied_and_no_more_says_so(at: str, how: str) -> None:
    server = server_with(COPY)

    @server.on(at)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if how == "cuts":
            await peer.stream.aclose()
        else:
            await peer.say(f"{tag} NO [LIMIT] busy")
        return True

    async with client_of(server) as client:
        session = await opened(client)
        with pytest.raises(HalfMoved, match="busy" if how == "says-no" else "closed|lost") as caught:
            await client.call(session.move, [2, 3], "Done")
        assert caught.value.moved == Moved(55, {2: 100, 3: 101})
        if how == "cuts":
            with pytest.raises(Unavailable):
                await client.call(session.uids, 1)
            session = await opened(client)
        await client.call(session.move, [2, 3], "Done", True)
        assert list(server.letters) == [1, 4, 5, 6]
        assert raws(server, "Done") == [letter(2), letter(3)]
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [MOVE, COPY])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_server_with_a_limit_is_given_pieces(capabilities: str, announced: bool) -> None:
    server = server_with(capabilities, letters=12)
    async with client_of(server) as client:
        session = await opened(client)
        server.capabilities += " MESSAGELIMIT=5"
        if announced:
            session._wire.told = session.capabilities | {"MESSAGELIMIT=5"}
        wanted = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
        await client.call(session.flag, wanted, "\\Flagged")
        moved = await client.call(session.move, wanted, "Done")
        assert list(server.letters) == [4]
        assert not server.letters[4].flags
        assert sorted(raws(server, "Done")) == sorted(letter(number) for number in wanted)
        assert {old: server.folders["Done"][new].raw for old, new in moved.uids.items()} == {
            number: letter(number) for number in wanted
        }
        await client.call(session.logout)


async def test_a_move_that_is_told_in_the_last_line_is_heard_too() -> None:
    server = server_with(MOVE)

    @server.on("UID MOVE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("* 1 EXPUNGE", f"{tag} OK [COPYUID 9 3:1 8,9:10] done")
        return True

    async with client_of(server) as client:
        session = await opened(client)
        assert await client.call(session.move, [1, 2], "Done") == Moved(9, {1: 8, 2: 9})
        await client.call(session.logout)


@pytest.mark.parametrize(
    "code", ["COPYUID 9 1:2 8", "COPYUID x 1 2", "COPYUID 9", "COPYUID 9 1:4294967295 1:4294967295"]
)
async def test_a_broken_copyuid_is_none(code: str) -> None:
    server = server_with(MOVE)

    @server.on("UID MOVE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"* OK [{code}] moved", f"{tag} OK done")
        return True

    async with client_of(server) as client:
        session = await opened(client)
        assert await client.call(session.move, [1], "Done") == Moved(None, {})
        await client.call(session.logout)
