"""Filing at the provider when it says no, or has another folder under the same name by then: nothing is lost by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import Box, box
from tests.shell.test_interleavings import cut_off
from tests.shell.test_poison import names
from tests.shell.test_rounds import ALL, a_server, rows, watched

pytestmark = pytest.mark.usefixtures("quick")

WITHOUT_MOVE = ALL.replace("MOVE ", "")


def raws(server: ImapServer, folder: str) -> list[bytes]:
    return sorted(one.raw for one in server.folders[folder].values())


async def filed(gateway: Box) -> None:
    await gateway.until(lambda: rows(gateway, "SELECT count(*) FROM filing") == [(0,)], "nothing left to file")


async def test_a_no_about_one_keeps_no_other_from_being_marked(tmp_path: Path) -> None:
    server = a_server()
    refused: list[str] = []

    @server.on("UID STORE", 100_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if names(command, 2):
            refused.append(command)
            await peer.say(f"{tag} NO [EXPUNGEISSUED] cannot")
            return True
        return False

    async with box(tmp_path, server, 'after_fetch = "seen"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2), letter(3))
        await gateway.until(lambda: server.letters[1].flags and server.letters[3].flags, "the others are marked")
        assert names(refused[0], 1), "they were asked for together"
        assert not server.letters[2].flags
        await gateway.until(lambda: [alarm.key for alarm in gateway.health.alarms()] == ["filing"], "somebody is told")
        server.faults.clear()
        await gateway.until(lambda: server.letters[2].flags, "tried again")
        await filed(gateway)
        await gateway.has(1, 2, 3)


@pytest.mark.parametrize("capabilities", [ALL, WITHOUT_MOVE], ids=["by-move", "by-copy-and-expunge-of-one-uid"])
async def test_a_no_about_one_keeps_no_other_from_being_moved(tmp_path: Path, capabilities: str) -> None:
    server = a_server(capabilities)

    @server.on("UID (MOVE|COPY)", 100_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if names(command, 2):
            await peer.say(f"{tag} NO [CANNOT] not this one")
            return True
        return False

    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2), letter(3))
        await gateway.until(lambda: list(server.letters) == [2], "the others are moved")
        server.faults.clear()
        await filed(gateway)
        assert raws(server, "Elsewhere") == [letter(1), letter(2), letter(3)]
        assert not server.letters
        await gateway.has(1, 2, 3)


@pytest.mark.parametrize("ending", ["cut", "no"])
async def test_a_target_recreated_between_copy_and_expunge_gets_another_copy(tmp_path: Path, ending: str) -> None:
    server = a_server(WITHOUT_MOVE)

    @server.on("UID STORE .*Deleted")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        copies = server.folders["Elsewhere"]
        assert [one.raw for one in copies.values()] == [letter(1)]
        server.folders["Elsewhere"] = {uid: Letter(letter(9)) for uid in copies}  # something else has its number now
        server.uidvalidities["Elsewhere"] = 99
        if ending == "cut":
            await peer.stream.aclose()
        else:
            await peer.say(f"{tag} NO not now")
        return True

    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.until(lambda: not server.letters, "moved in the end")
        assert raws(server, "Elsewhere") == [letter(1), letter(9)]
        await filed(gateway)
        await gateway.has(1)


@pytest.mark.parametrize("step", ["UID COPY", "UID STORE .*Deleted"], ids=["before-the-copy", "after-the-copy"])
async def test_a_folder_recreated_in_the_middle_of_a_move_loses_nothing(tmp_path: Path, step: str) -> None:
    server = a_server(WITHOUT_MOVE)
    recreated = trio.Event()

    @server.on(step)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        assert names(command, 1)
        server.folders["INBOX"] = {1: server.letters[2].again(), 2: server.letters[1].again()}
        server.uidvalidities["INBOX"] = 8
        recreated.set()
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2))
        await recreated.wait()
        await cut_off(server, "STATUS")  # the first folder's session learns of it
        await gateway.until(lambda: not server.letters, "moved in the end")
        assert raws(server, "Elsewhere") == [letter(1), letter(2)]
        await filed(gateway)
        await gateway.has(1, 2)


async def test_copies_do_not_pile_up_where_the_original_must_stay(tmp_path: Path) -> None:
    server = a_server(WITHOUT_MOVE)
    refused = [0]

    @server.on("UID STORE .*Deleted", 100_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        refused[0] += 1
        await peer.say(f"{tag} NO [NOPERM] not yours")
        return True

    nameless = re.sub(rb"Message-ID: [^\r]*\r\n", b"", letter(1))
    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(nameless)
        await gateway.until(lambda: refused[0] > 5, "many tries")
        assert len(server.folders["Elsewhere"]) == 1
        assert len(server.letters) == 1


async def test_a_twin_that_was_filed_before_does_not_stand_for_the_copy_of_another(tmp_path: Path) -> None:
    server = a_server(WITHOUT_MOVE)
    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.until(lambda: server.folders["Elsewhere"] and not server.letters, "the first is filed")
        # One of these counts as the first that has been moved back; the other is filed
        server.letters[server.uidnext] = Letter(letter(1))
        server.uidnext += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_off, server, "UID COPY")
            await server.deliver(letter(1))
        await filed(gateway)
        assert (len(server.folders["Elsewhere"]), len(server.letters)) == (2, 1)
