"""What a server, another client and we ourselves do at the same time: nothing is missed by it, nothing taken twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateway.errors import Unavailable
from gateway.inbound import intake, watcher
from gateway.inbound import session as imap
from gateway.inbound.session import Session
from gateway.state import owed, quarantine, queues
from gateway.state.quarantine import Review
from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import Box, box
from tests.shell.test_rounds import (
    ALL,
    NOW,
    a_server,
    answer_to,
    moved_by_a_colleague,
    put_into_sent,
    rows,
    states,
    watched,
)

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


async def calm(gateway: Box) -> None:
    """Wait until the chores have been done ten times over the same connections."""
    server = gateway.server
    begun = [0, -1]  # how many commands there were when the last connection was made, and which it was

    def is_calm() -> bool:
        if begun[1] != server.connections:
            begun[:] = len(server.commands), server.connections
        return sum(command.startswith('STATUS "Junk"') for command in server.commands[begun[0] :]) >= 10

    await gateway.until(is_calm, "no new connections")


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
    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"\nwatch = { poll = "1 s" }') as gateway:
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


async def test_inbox_is_the_same_folder_however_it_is_written(tmp_path: Path) -> None:
    server = a_server()
    server.folders["inbox"] = server.folders["INBOX"]
    async with box(tmp_path, server, 'folders = ["inbox"]') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.has(1)
        found = {row["folder"]: row for row in await gateway.reconcile()}
        assert found.keys() == {"INBOX", "Junk", "Sent"}
        assert found["INBOX"]["known"] == 1


# --- what a server says of itself ------------------------------------------------------------------------------------


async def test_a_uidnext_that_only_status_tells_makes_no_round_after_round(tmp_path: Path) -> None:
    server = a_server()
    server.tells_uidnext = False
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await calm(gateway)


@pytest.mark.parametrize("older", [0, 3])
async def test_a_uidnext_that_is_too_high_hides_no_mail(tmp_path: Path, older: int) -> None:
    server = a_server()
    await server.deliver(*map(letter, range(1, older + 1)))

    @server.on('EXAMINE "?INBOX')
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"* {older} EXISTS", "* OK [UIDVALIDITY 7] valid", "* OK [UIDNEXT 100] next", f"{tag} OK done")
        return True

    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1)


async def test_a_round_whose_login_is_refused_rests_as_long_as_the_watch_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = a_server()
    refused: list[int] = []

    def rest_after(failures: int, refusals: int, jitter: float) -> timedelta:
        refused.append(refusals)
        return timedelta(milliseconds=5)

    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        monkeypatch.setattr(watcher, "rest_after", rest_after)
        server.password = "changed"
        await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: len(refused) > 3, "some tries")
        assert refused[:4] == [1, 2, 3, 4]


# --- folders come and go ---------------------------------------------------------------------------------------------


async def test_a_folder_that_goes_while_a_round_is_on_its_way_is_left_out(tmp_path: Path) -> None:
    server = a_server()
    is_asked, is_visited, go_on = trio.Event(), trio.Event(), trio.Event()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await calm(gateway)

        @server.on("AUTHENTICATE")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await is_asked.wait()  # the round begins when it is known that both have mail
            return False

        @server.on('EXAMINE "Junk"')
        async def _(peer: Peer, tag: str, command: str) -> bool:
            is_visited.set()
            await go_on.wait()
            return False

        put_into_sent(server, letter(2))
        asked = len(server.commands)
        await server.deliver(letter(1), folder="Junk")
        await gateway.until(
            lambda: sum(command.startswith('STATUS "Sent"') for command in server.commands[asked:]) > 2, "asked"
        )
        is_asked.set()
        await is_visited.wait()
        del server.folders["Sent"]
        await cut_off(server, "STATUS")
        await gateway.until(
            lambda: "Sent" not in gateway.health.touchpoint("support").folders, "it is known to be gone"
        )
        go_on.set()
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 1}, "the other folder's mail")
        await gateway.until(lambda: server.open == 1, "the end of the round")
        assert gateway.health.bugs == 0


async def test_an_alarm_about_a_folder_ends_when_it_is_not_watched_any_more(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        del server.folders["Junk"]
        await gateway.until(lambda: [alarm.key for alarm in gateway.health.alarms()] == ["missing-folder"], "an alarm")
        await cut_off(server, "STATUS")  # the next session lists the folders
        await gateway.until(lambda: not list(gateway.health.alarms()), "no alarm any more")


@pytest.mark.parametrize(
    "raw",
    [letter(1), b"Auto-Submitted: auto-replied\r\n" + answer_to(1)],
    ids=["mail-to-ourselves", "vacation-note-of-the-webmail"],
)
async def test_what_nobody_wrote_as_an_answer_answers_nothing(tmp_path: Path, raw: bytes) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.has(1)
        put_into_sent(server, raw)
        await gateway.until(lambda: (folder := gateway.folder("Sent")) and folder.cursor >= 2, "it was looked at")
        assert states(gateway) == {"letter 1": "open"}


# --- a person decides ------------------------------------------------------------------------------------------------


async def test_a_placeholder_that_is_released_is_still_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "PLACEHOLDER_AFTER_MS", 0)
    server = a_server()
    refusing = [True]

    @server.on(r"UID FETCH .*BODY\.PEEK\[\]\)", 100_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if refusing:
            await peer.say(f"{tag} NO System Error (Failure)")
        return bool(refusing)

    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: states(gateway) == {"letter 1": "quarantined"}, "a placeholder in quarantine")
        ((id,),) = rows(gateway, "SELECT id FROM message")
        gateway.store.submit(quarantine.release, Review(id, NOW)).result(5)
        gateway.doorbell.ring("mailbox support")
        await gateway.until(lambda: not server.folders["Junk"] and server.letters, "moved")
        refusing.clear()
        await server.deliver(letter(9), folder="Junk")
        await gateway.until(
            lambda: rows(gateway, "SELECT placeholder FROM message WHERE subject = 'letter 1'") == [(None,)], "fetched"
        )
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 1, "letter 9": 1}, "the other")
        assert gateway.owed() == []


# --- ends and beginnings ---------------------------------------------------------------------------------------------


async def test_a_touchpoint_ends_only_when_the_reconciliation_that_was_asked_of_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = a_server()
    sessions: list[Session] = []
    closing: list[Session] = []
    held: list[Session] = []
    ended: list[str] = []
    connect, close = imap.connect, Session.close

    async def connect_and_note(*args: Any, **settings: Any) -> Session:
        sessions.append(await connect(*args, **settings))
        return sessions[-1]

    async def close_slowly(session: Session) -> None:
        closing.append(session)
        while session in held:  # noqa: ASYNC110 - the test releases it from another thread
            await asyncio.sleep(0.001)
        await close(session)

    monkeypatch.setattr(imap, "connect", connect_and_note)
    async with box(tmp_path, server) as gateway, trio.open_nursery() as nursery:
        await watched(gateway)
        await calm(gateway)
        monkeypatch.setattr(Session, "close", close_slowly)
        is_reading = trio.Event()

        @server.on('EXAMINE "?INBOX')
        async def _(peer: Peer, tag: str, command: str) -> bool:
            is_reading.set()
            await peer.closed()
            return True

        async def ask() -> None:
            with pytest.raises(Unavailable, match="settings of support have changed"):
                await gateway.reconcile()
            ended.append("request")

        async def see_the_end() -> None:
            await gateway.until(lambda: "support" not in gateway.reconcilers, "the end of the task")
            ended.append("task")

        nursery.start_soon(ask)
        await is_reading.wait()
        held.append(sessions[-1])
        nursery.start_soon(see_the_end)
        gateway.stop()
        await gateway.until(lambda: {sessions[0], sessions[-1]} <= set(closing), "all hang up")
        await trio.testing.wait_all_tasks_blocked(0.004)
        early = list(ended)
        held.clear()
        await gateway.until(lambda: len(ended) == 2, "both ends")
        assert not early
        assert ended == ["request", "task"]
        assert server.open == 0


async def test_what_is_stored_on_a_full_disk_while_others_are_being_placed_is_placed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_RETRY_SECONDS", (0,))
    server = a_server()
    full = [True]
    async with box(tmp_path, server) as gateway, trio.open_nursery() as nursery:
        door, submit = gateway.intake, gateway.store.submit
        route, stranded = door._route, door._stranded
        meanwhile = [2]

        def refuse(db: Any, items: Sequence[Any]) -> Sequence[Any]:
            raise Unavailable("the disk is full")

        async def route_and_let_another_come(messages: Sequence[Any], unread: str | None = None) -> Any:
            is_again = bool(messages) and messages[0].id in stranded
            placed = await route(messages, unread)
            if is_again and meanwhile:
                full.append(True)
                await server.deliver(letter(meanwhile.pop()))
                await gateway.until(lambda: len(stranded) == 2, "another is stored and not placed")
                full.clear()
            return placed

        monkeypatch.setattr(
            gateway.store,
            "submit",
            lambda operation, item: submit(refuse if full and operation is queues.route else operation, item),
        )
        monkeypatch.setattr(door, "_route", route_and_let_another_come)
        nursery.start_soon(door.run)
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.until(lambda: stranded, "stored and not placed")
        full.clear()
        await gateway.has(1, 2)
        assert not meanwhile
        nursery.cancel_scope.cancel()
