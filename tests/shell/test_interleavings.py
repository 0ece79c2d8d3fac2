"""What a server, another client and we ourselves do at the same time: nothing is missed by it, nothing taken twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import Box, box
from tests.shell.test_rounds import ALL, a_server, moved_by_a_colleague, rows, watched

pytestmark = pytest.mark.usefixtures("quick")


def renumber(server: ImapServer, uidvalidity: int, shift: int) -> None:
    server.uidvalidities["INBOX"] = uidvalidity
    server.folders["INBOX"] = {uid + shift: one.again() for uid, one in server.letters.items()}
    server.uidnext += abs(shift)


async def cut_off(server: ImapServer, pattern: str) -> None:
    """Cut the connection over which such a command comes next, and wait until that has happened."""
    done = trio.Event()

    @server.on(pattern)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        done.set()
        await peer.stream.aclose()
        return True

    await done.wait()


async def located(gateway: Box, *uids: int) -> None:
    wanted = [("INBOX", uid) for uid in uids]
    await gateway.until(lambda: [one for one in gateway.located() if one[0] == "INBOX"] == wanted, f"{uids} known")


async def test_a_search_that_finds_nothing_for_once_does_no_harm(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(1), letter(2))
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 2, "letter 2": 1}, "all three")

        lying = [True]

        @server.on(r"UID SEARCH RETURN \(ALL\) UID 1:\*", 10_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            if lying:
                await peer.say(f'* ESEARCH (TAG "{tag}") UID', f"{tag} OK")
            return bool(lying)

        await gateway.until(lambda: not gateway.located(), "it is believed")
        lying.clear()
        await located(gateway, 1, 2, 3)
        assert gateway.subjects() == {"letter 1": 2, "letter 2": 1}
        assert gateway.entries() == 2, "twins share a conversation"
        assert gateway.owed() == []


async def test_a_uidvalidity_that_changes_and_comes_back_brings_nothing_twice(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2))
        await gateway.has(1, 2)
        renumber(server, 8, 100)
        await cut_off(server, "STATUS")
        await located(gateway, 101, 102)
        renumber(server, 7, -100)
        await cut_off(server, "STATUS")
        await located(gateway, 1, 2)
        await gateway.until(lambda: (folder := gateway.folder()) and folder.uidvalidity == 7, "as before")
        server.letters[server.uidnext] = Letter(letter(3), internal=f"{datetime.now(UTC):%d-%b-%Y %H:%M:%S} +0000")
        server.uidnext += 1
        await server.deliver(letter(4))
        await gateway.has(1, 2, 3, 4)


async def test_a_cut_in_the_middle_of_finding_known_mail_again_brings_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.inbound.folder._RELIST_MESSAGES", 2)
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(*map(letter, (1, 1, 2, 3, 4)))
        await gateway.until(lambda: sum(gateway.subjects().values()) == 5, "all")
        renumber(server, 8, 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_off, server, r"UID FETCH 103:104 .*HEADER")
            await cut_off(server, "STATUS")
        renumber(server, 9, 100)  # and once more, before it was complete
        await located(gateway, 201, 202, 203, 204, 205)
        assert gateway.subjects() == {"letter 1": 2, "letter 2": 1, "letter 3": 1, "letter 4": 1}
        assert gateway.owed() == []


async def test_a_reconciliation_beside_the_watch_takes_nothing_twice(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        async with trio.open_nursery() as nursery:
            for number in range(1, 40):
                await server.deliver(letter(number))
                if number % 13 == 0:
                    nursery.start_soon(gateway.reconcile)
        await gateway.has(*range(1, 40))
        await located(gateway, *range(1, 40))
        assert gateway.owed() == []


async def test_a_cut_right_after_a_move_of_ours_brings_nothing_twice(tmp_path: Path) -> None:
    server = a_server()
    moved = trio.Event()

    @server.on("UID MOVE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        for uid in list(server.letters):
            server.folders["Elsewhere"][server.uidnext] = server.letters[uid].again()
            server.uidnext += 1
            server.take_out("INBOX", uid)
        moved.set()
        await peer.stream.aclose()  # it is done, and we are not told
        return True

    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"\nwatch = { poll = "1 s" }') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await moved.wait()
        await server.deliver(letter(2))
        await gateway.has(1, 2)
        await gateway.until(lambda: len(server.folders["Elsewhere"]) == 2 and not server.letters, "moved as well")
        assert rows(gateway, "SELECT count(*) FROM message") == [(2,)]


async def test_twins_with_ids_of_their_own_are_two_although_the_first_has_been_filed(tmp_path: Path) -> None:
    server = a_server(f"{ALL} OBJECTID")
    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        for number in (1, 2):
            server.letters[server.uidnext] = Letter(letter(1), own_id=f"M{number}")
            server.uidnext += 1
            await server.deliver()
            await gateway.until(lambda count=number: gateway.subjects() == {"letter 1": count}, "a twin")  # type: ignore[misc]  # bound here
            await gateway.until(lambda: not server.letters, "filed")


async def test_a_folder_emptied_and_filled_again_brings_nothing_twice(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await watched(gateway)
        uids = await server.deliver(*map(letter, range(1, 8)))
        await gateway.has(*range(1, 8))
        away = [moved_by_a_colleague(server, uid, "INBOX", "Elsewhere") for uid in uids]
        await gateway.until(lambda: not gateway.located(), "all gone")
        back = [moved_by_a_colleague(server, uid, "Elsewhere", "INBOX") for uid in away]
        await server.deliver(letter(8))
        await gateway.has(*range(1, 9))
        await located(gateway, *back, max(server.letters))
