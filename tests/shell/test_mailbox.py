"""A touchpoint's mailbox task with the real store and the real intake, against a scripted server."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import events
from gateway.config import load
from gateway.errors import Unavailable
from gateway.inbound import folder as open_folder
from gateway.inbound import mailbox, plan, watcher
from gateway.model import Arrival
from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import box
from tests.support.authority import Authority

# --- where history begins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_uidnext", [True, False])
async def test_old_mail_stays_where_it_is_and_is_counted(tmp_path: Path, tells_uidnext: bool) -> None:
    server = ImapServer()
    server.tells_uidnext = tells_uidnext
    await server.deliver(*map(letter, range(50)))
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        folder = gateway.folder()
        assert folder is not None
        assert (folder.skipped, folder.cursor) == (50, 50)
        await server.deliver(letter(100))
        await gateway.has(100)
    assert not any(command.startswith("UID FETCH 1:") for command in server.commands)


async def test_an_empty_mailbox_of_a_server_that_tells_no_uidnext_begins_at_nothing(tmp_path: Path) -> None:
    server = ImapServer()
    server.tells_uidnext = False
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1)


async def test_all_of_history_comes_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_MESSAGES", 70)
    monkeypatch.setattr(plan, "BATCH_MESSAGES", 20)
    server = ImapServer()
    await server.deliver(*map(letter, range(200)))
    await server.expunge(3, 4, 90)
    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(*(number for number in range(200) if number not in (2, 3, 89)))
        folder = gateway.folder()
        assert folder is not None
        assert (folder.skipped, folder.cursor) == (0, 200)


async def test_thirty_days_of_history_are_thirty_days_wherever_they_lie(tmp_path: Path) -> None:
    server = ImapServer()
    now = datetime.now(UTC)
    ages = [40, 2, 300, 29, 31, 0]
    await server.deliver(*map(letter, range(len(ages))))
    for letter_, age in zip(server.letters.values(), ages, strict=True):
        letter_.internal = (now - timedelta(days=age)).strftime("%d-%b-%Y %H:%M:%S +0000")
    async with box(tmp_path, server, 'history = "30 days"') as gateway:
        await gateway.has(1, 3, 5)
        folder = gateway.folder()
        assert folder is not None
        assert folder.skipped == 3
        await server.deliver(letter(7))
        await gateway.has(1, 3, 5, 7)
        assert gateway.owed() == []


# --- watching --------------------------------------------------------------------------------------------------------


async def test_new_mail_is_seen_in_idle(tmp_path: Path) -> None:
    server = ImapServer()
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        for number in range(5):
            await server.deliver(letter(number))
            await gateway.has(*range(number + 1))
        assert server.connections == 1
        assert gateway.health.touchpoint("support").last_message_at is not None


async def test_mail_that_comes_while_we_fetch_is_not_forgotten(tmp_path: Path) -> None:
    server = ImapServer()

    @server.on(r"UID FETCH .*BODY\.PEEK\[\]")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await server.deliver(letter(2))  # its EXISTS comes with this FETCH, and never again
        return False

    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1, 2)


async def test_without_idle_we_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "POLL_WITHOUT_IDLE", timedelta(milliseconds=20))
    server = ImapServer()
    server.capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN"
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1)
        assert "IDLE" not in server.commands


async def test_the_poll_finds_what_idle_kept_to_itself(tmp_path: Path) -> None:
    server = ImapServer()
    idling = trio.Event()

    @server.on("IDLE", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("+ idling")
        idling.set()
        await peer.line()
        await peer.say(f"{tag} OK nothing to report")
        return True

    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await gateway.watching()
        await idling.wait()
        await server.deliver(letter(1))
        await gateway.has(1)


async def test_other_folders_are_looked_at_in_turn(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    server.folders |= {"Junk": {}, "Old & Co": {}}
    async with box(tmp_path, server, 'folders = ["INBOX", "Junk", "Old & Co"]') as gateway:
        await gateway.watching()
        await gateway.until(lambda: gateway.folder("Junk"), "the second folder")
        server.folders["Old &- Co"] = server.folders["Old & Co"]
        await gateway.until(lambda: gateway.folder("Old & Co"), "the third folder")
        await server.deliver(letter(1), folder="Junk")
        await server.deliver(letter(2), folder="Old & Co")
        await server.deliver(letter(3))
        await gateway.has(1, 2, 3)


async def test_a_folder_that_is_not_there_keeps_none_behind_it_from_being_read(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    server.folders |= {"Junk": {}}
    async with box(tmp_path, server, 'folders = ["INBOX", "Gone", "Junk"]') as gateway:
        await gateway.until(lambda: gateway.folder("Junk"), "the folder behind it")
        await server.deliver(letter(1), folder="Junk")
        await gateway.has(1)
        (alarm,) = gateway.health.alarms()
        assert "'Gone'" in alarm.cause
        server.folders["Gone"] = {}
        await gateway.until(lambda: not list(gateway.health.alarms()), "no alarm once it is there")


async def test_tls_is_verified_by_the_touchpoints_authority(tmp_path: Path, quick: None) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.private_key)
    server = ImapServer()
    async with box(tmp_path, server, f'ca_file = "{authority.ca_file}"', tls=context) as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1)


async def test_a_session_is_left_in_time_without_an_alarm(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = timedelta(milliseconds=10)  # the configuration asks for minutes
    monkeypatch.setattr(mailbox, "Watch", lambda poll, renew, idle, _: watcher.Watch(poll, renew, idle, soon))
    server = ImapServer()
    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await gateway.until(lambda: server.connections == 2, "the second connection")
        assert "LOGOUT" in server.commands
        await gateway.watching()
        assert list(gateway.health.alarms()) == []
        assert events.counts().get("connection-lost", 0) == gateway.lost_before


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_an_alarm_with_cause_and_action_and_mends_itself(tmp_path: Path, quick: None) -> None:
    server = ImapServer(password="another")
    async with box(tmp_path, server) as gateway:
        await gateway.until(lambda: gateway.health.touchpoint("support").state == "login refused", "refusal")
        (alarm,) = gateway.health.alarms()
        assert alarm.key == "imap-login"
        assert "refused the login of support@support.example" in alarm.cause
        assert "password" in alarm.action
        server.password = "secret"
        await gateway.watching()
        assert list(gateway.health.alarms()) == []
        assert gateway.health.touchpoint("support").cause is None


async def test_a_reload_ends_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "_RELOAD_SEEN_WITHIN", 0.01)
    server = ImapServer(password="another")
    async with box(tmp_path, server) as gateway:
        await gateway.until(lambda: gateway.health.touchpoint("support").state == "login refused", "refusal")
        (tmp_path / "secret").write_text("another")
        gateway.config = load(tmp_path / "gateway.toml")
        await gateway.watching()


async def test_a_reload_while_we_are_being_refused_ends_the_rest_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "_RELOAD_SEEN_WITHIN", 0.01)
    server = ImapServer(password="another")

    @server.on("AUTHENTICATE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        (tmp_path / "secret").write_text("another")
        gateway.config = load(tmp_path / "gateway.toml")
        return False

    async with box(tmp_path, server) as gateway:
        await gateway.watching()


async def test_a_missing_secret_is_named(tmp_path: Path, quick: None) -> None:
    async with box(tmp_path, ImapServer()) as gateway:
        await gateway.watching()
        gateway.stop()
        (tmp_path / "secret").unlink()
        gateway.start()
        await gateway.until(lambda: gateway.health.touchpoint("support").cause, "a cause")
        assert "file:secret" in (gateway.health.touchpoint("support").cause or "")


@pytest.mark.parametrize("at", ["EXAMINE", "UID SEARCH", "UID FETCH", "IDLE"])
async def test_a_connection_that_is_lost_anywhere_is_made_again(tmp_path: Path, quick: None, at: str) -> None:
    server = ImapServer()
    await server.deliver(*map(letter, range(3)))

    @server.on(at, times=2)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        raise trio.BrokenResourceError

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(0, 1, 2)
        await gateway.until(lambda: server.connections >= 3, "three connections")
        await gateway.watching()
        await server.deliver(letter(3))
        await gateway.has(0, 1, 2, 3)


async def test_three_failures_in_a_row_are_an_alarm_until_a_look_is_complete(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    down = [True]

    @server.on("EXAMINE", times=1_000_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if down[0]:
            await peer.say("* BYE maintenance")
        return down[0]

    async with box(tmp_path, server) as gateway:
        await gateway.until(lambda: list(gateway.health.alarms()), "an alarm")
        (alarm,) = gateway.health.alarms()
        assert "maintenance" in alarm.cause
        down[0] = False
        await gateway.watching()
        assert list(gateway.health.alarms()) == []


async def test_one_message_that_the_server_does_not_give_stops_no_other(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    await server.deliver(*map(letter, range(1, 6)))
    broken = [True]

    @server.on(r"UID FETCH (1:5|3) \(UID BODY", times=1_000_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if broken[0]:
            await peer.say(f"{tag} NO System Error (Failure)")
        return broken[0]

    async with box(tmp_path, server, 'history = "all"\nwatch = { poll = "1 s" }') as gateway:
        await gateway.has(1, 2, 4, 5)
        assert [uid for uid, _ in gateway.owed()] == [3]
        assert "System Error" in gateway.owed()[0][1]
        assert gateway.health.touchpoint("support").unfetched == 1
        broken[0] = False
        await gateway.has(1, 2, 3, 4, 5)
        assert gateway.owed() == []
        await gateway.until(lambda: gateway.health.touchpoint("support").unfetched == 0, "nothing owed")


@pytest.mark.parametrize("body", ["NIL", '""'])
async def test_a_body_that_is_not_there_is_owed(tmp_path: Path, quick: None, body: str) -> None:
    server = ImapServer()
    await server.deliver(letter(1), letter(2))

    @server.on(r"UID FETCH (1|1:2|2) \(UID BODY", times=1_000_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        one = "" if " 2 (" in command else f"* 1 FETCH (UID 1 BODY[] {body})\r\n"
        two = b"" if " 1 (" in command else b"* 2 FETCH (UID 2 BODY[] {300}\r\n" + letter(2) + b")\r\n"
        await peer.send(one.encode() + two + f"{tag} OK done\r\n".encode())
        return True

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(2)
        assert [uid for uid, _ in gateway.owed()] == [1]


async def test_a_message_that_kills_every_session_is_isolated(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "retry_after", lambda _: timedelta(minutes=1))
    server = ImapServer()
    await server.deliver(*map(letter, range(1, 41)))

    @server.on(r"UID FETCH .*BODY\.PEEK\[\]", times=1_000_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        low, _, high = command.split()[2].partition(":")
        if int(low) <= 17 <= int(high or low):
            await peer.send(b"* 17 FETCH (UID 17 BODY[] {4000}\r\n" + letter(17))
            await peer.stream.aclose()
            raise trio.BrokenResourceError
        return False

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(*(number for number in range(1, 41) if number != 17))
        assert [uid for uid, _ in gateway.owed()] == [17]


async def test_a_message_above_the_limit_is_left_and_counted(tmp_path: Path) -> None:
    server = ImapServer()
    await server.deliver(letter(1), letter(2, 200_000), letter(3))
    async with box(tmp_path, server, 'history = "all"', limit="100 kB") as gateway:
        await gateway.has(1, 2, 3)
        assert gateway.owed() == [(2, "larger than inbound.max_message_size")]
        assert gateway.health.touchpoint("support").unfetched == 1
        folder = gateway.folder()
        assert folder is not None
        assert folder.cursor == 3
    assert not any("BODY.PEEK[]" in command and " 2 " in command for command in server.commands)


async def test_what_vanishes_between_listing_and_fetching_is_not_waited_for(tmp_path: Path) -> None:
    server = ImapServer()
    await server.deliver(*map(letter, range(1, 5)))

    @server.on(r"UID FETCH .*BODY\.PEEK\[\]")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await server.expunge(2, 4)
        return False

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(1, 3)
        await gateway.watching()
        assert gateway.owed() == []
        folder = gateway.folder()
        assert folder is not None
        assert folder.cursor == 4


async def test_what_the_server_counts_and_does_not_list_is_not_passed_over(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    await server.deliver(*map(letter, range(1, 4)))

    @server.on(r"UID FETCH .*RFC822\.SIZE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        lines = [f'* {n} FETCH (UID {n} RFC822.SIZE 300 INTERNALDATE "17-Jul-2026 02:44:25 +0000")' for n in (1, 3)]
        await peer.say(*lines, f"{tag} OK done")
        return True

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(1, 2, 3)


# --- the store has trouble -------------------------------------------------------------------------------------------


async def test_a_message_that_cannot_be_stored_is_not_jumped_over_by_later_ones(tmp_path: Path, quick: None) -> None:
    server = ImapServer()
    await server.deliver(*map(letter, range(1, 6)))

    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        honest, is_full = gateway.intake.accept, [True]

        async def accept(arrivals: Sequence[Arrival]) -> Any:
            if is_full[0]:
                await honest([arrival for arrival in arrivals if b"letter 7" not in arrival.raw])
                raise Unavailable("the disk is full; make room")
            return await honest(arrivals)

        gateway.intake.accept = accept  # type: ignore[method-assign]  # one fault in an otherwise real intake
        await server.deliver(*map(letter, range(6, 10)))
        await gateway.until(lambda: gateway.subjects() == Counter(["letter 6", "letter 8", "letter 9"]), "the others")
        await gateway.until(lambda: server.connections > 3, "another look or two")
        assert "disk is full" in (gateway.health.touchpoint("support").cause or "")
        assert gateway.cursor() == 6
        is_full[0] = False
        await gateway.has(6, 7, 8, 9)
        await gateway.until(lambda: gateway.cursor() == 9, "the cursor behind the last one")


# --- UIDVALIDITY -----------------------------------------------------------------------------------------------------


async def renumber(server: ImapServer, *raws: bytes, first: int = 1) -> None:
    """The provider restores the folder: same messages, other numbers, another UIDVALIDITY."""
    old = server.letters
    server.folders["INBOX"] = {}
    server.uidvalidity += 1
    server.uidnext = first
    for kept in [*old.values(), *map(Letter, raws)]:
        server.folders["INBOX"][server.uidnext] = kept
        server.uidnext += 1


async def test_other_numbers_for_the_same_mail_bring_nothing_twice_and_lose_nothing(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_folder, "_RELIST_MESSAGES", 7)
    server = ImapServer()
    await server.deliver(*map(letter, range(100, 120)))  # older than the history
    for old in server.letters.values():
        old.internal = "01-Jan-2020 00:00:00 +0000"
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await server.deliver(letter(1), letter(2), letter(3), letter(3))  # twins
        await gateway.until(lambda: sum(gateway.subjects().values()) == 4, "four letters")
        gateway.stop()
        await server.deserted()
        fetched = len([command for command in server.commands if "BODY.PEEK[]" in command])
        await renumber(server, letter(4), letter(3), first=500)  # one new one, and a third twin
        for letter_ in list(server.letters.values())[-2:]:
            letter_.internal = datetime.now(UTC).strftime("%d-%b-%Y %H:%M:%S +0000")
        gateway.start()
        wanted = Counter({"letter 1": 1, "letter 2": 1, "letter 3": 3, "letter 4": 1})
        await gateway.until(lambda: gateway.subjects() == wanted, "the new ones")
        await gateway.watching()
        await server.deliver(letter(5))
        await gateway.until(lambda: gateway.subjects() == wanted + Counter(["letter 5"]), "one more")
        folder = gateway.folder()
        assert folder is not None
        assert (folder.uidvalidity, folder.cursor) == (8, server.uidnext - 1)
        assert gateway.owed() == []
        after = [command for command in server.commands if "BODY.PEEK[]" in command]
        assert len(after) - fetched == 2  # the mailbox was not downloaded again


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_stopping_says_goodbye(tmp_path: Path) -> None:
    server = ImapServer()
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await gateway.until(lambda: server.commands[-1] == "IDLE", "IDLE")
        gateway.stop()
        await server.deserted()
        assert server.commands[-2:] == ["DONE", "LOGOUT"]


async def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    server = ImapServer()
    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await server.deliver(letter(1))
        await gateway.has(1)
        gateway.stop()
        await server.deserted()
        await server.deliver(letter(2))
        gateway.start()
        await gateway.has(1, 2)
