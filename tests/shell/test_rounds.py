"""The other folders, what is filed at the provider, and what stands in for mail that cannot be had: a touchpoint's
task with the real store and the real intake, beside a scripted server.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.inbound import folder as open_folder
from gateway.inbound.plan import PART_BYTES
from gateway.state import owed, quarantine, raw
from gateway.state.quarantine import Review
from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import Box, box

pytestmark = pytest.mark.usefixtures("quick")

NOW = time.time_ns() // 1_000_000
ALL = "IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ESEARCH MOVE UIDPLUS SPECIAL-USE"


def a_server(capabilities: str = ALL) -> ImapServer:
    server = ImapServer()
    server.capabilities = capabilities
    server.folders |= {"Junk": {}, "Sent": {}, "Elsewhere": {}}
    server.attributes |= {"Junk": "\\Junk", "Sent": "\\Sent"}
    return server


def answer_to(number: int, name: str = "our answer") -> bytes:
    fields = f"Subject: {name}\r\nMessage-ID: <{name.replace(' ', '.')}@phone.example>\r\n"
    return (
        "From: support@support.example\r\nTo: c@clients.example\r\nDate: Fri, 17 Jul 2026 03:00:00 +0000\r\n"
        f"{fields}In-Reply-To: <{number}@clients.example>\r\n\r\nAs you wished.\r\n"
    ).encode()


def put_into_sent(server: ImapServer, raw: bytes) -> None:
    """As the provider files what was written in its webmail: some time after the mail that it answers."""
    server.folders["Sent"][server.uidnext] = Letter(raw, internal="17-Jul-2026 03:00:00 +0000")
    server.uidnext += 1


def rows(gateway: Box, sql: str) -> list[Any]:
    return gateway.store.read(lambda db: list(db.execute(sql))).result(5)


def states(gateway: Box) -> dict[str, str]:
    return dict(rows(gateway, "SELECT subject, state FROM conversation"))


def moved_by_a_colleague(server: ImapServer, uid: int, source: str, target: str) -> int:
    """Move a message as another client does: other UID, the same INTERNALDATE. Returns the UID."""
    letter = server.folders[source][uid]
    server.take_out(source, uid)
    server.folders[target][server.uidnext] = letter.again()
    server.uidnext += 1
    return server.uidnext - 1


async def watched(gateway: Box, *names: str) -> None:
    for name in names or ("INBOX", "Junk", "Sent"):
        await gateway.until(lambda name=name: gateway.folder(name), f"{name} is watched")  # type: ignore[misc]  # bound here


# --- Junk ------------------------------------------------------------------------------------------------------------


async def test_what_the_provider_calls_junk_goes_into_quarantine_and_comes_out_where_it_is_released(
    tmp_path: Path,
) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: states(gateway) == {"letter 1": "quarantined"}, "quarantine")
        ((id,),) = rows(gateway, "SELECT id FROM message")
        gateway.store.submit(quarantine.release, Review(id, NOW)).result(5)
        gateway.doorbell.ring("mailbox support")
        await gateway.until(lambda: not server.folders["Junk"] and server.letters, "it is moved back over there")
        await gateway.until(lambda: rows(gateway, "SELECT folder FROM location") == [("INBOX",)], "its place")
        await server.deliver(letter(2))
        await gateway.has(1, 2)
        assert states(gateway) == {"letter 1": "open", "letter 2": "open"}


async def test_a_colleague_who_takes_mail_out_of_junk_has_released_it(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        (uid,) = await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: states(gateway) == {"letter 1": "quarantined"}, "quarantine")
        moved_by_a_colleague(server, uid, "Junk", "INBOX")
        await server.deliver(letter(2))
        await gateway.has(1, 2)
        await gateway.until(lambda: states(gateway) == {"letter 1": "open", "letter 2": "open"}, "released")
    assert sum("BODY.PEEK[])" in command for command in server.commands) == 2, "no body is fetched twice"


async def test_a_confirmed_message_goes_to_junk_and_stays_in_quarantine(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        (uid,) = await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: states(gateway) == {"letter 1": "quarantined"}, "quarantine")
        ((id,),) = rows(gateway, "SELECT id FROM message")
        gateway.store.submit(quarantine.confirm, Review(id, NOW)).result(5)
        gateway.doorbell.ring("mailbox support")
        await server.deliver(letter(2))
        await gateway.has(1, 2)
        assert list(server.folders["Junk"]) == [uid]
        assert states(gateway) == {"letter 1": "quarantined", "letter 2": "open"}


# --- moved about -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_ids", [False, True], ids=["by-size-and-header", "by-the-providers-id"])
async def test_out_and_back_again_is_no_new_mail(tmp_path: Path, own_ids: bool) -> None:
    server = a_server(f"{ALL} OBJECTID" if own_ids else ALL)
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        (uid,) = await server.deliver(letter(1))
        if own_ids:
            server.letters[uid].own_id = "M1"
        await gateway.has(1)
        away = moved_by_a_colleague(server, uid, "INBOX", "Elsewhere")
        back = moved_by_a_colleague(server, away, "Elsewhere", "INBOX")
        await server.deliver(letter(2))
        await gateway.has(1, 2)
        await gateway.until(
            lambda: (back,) in rows(gateway, "SELECT uid FROM location") and len(gateway.located()) == 2,
            "its new place",
        )


async def test_twins_and_namesakes_are_kept(tmp_path: Path) -> None:
    server = a_server()
    namesake = letter(1).replace(b"xx", b"yyy")
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(1))
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 2}, "both twins")
        await server.deliver(letter(1), namesake, folder="Junk")  # a copy of one of them, and another message
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 3}, "the other message with that Message-ID")
        await server.deliver(letter(1))
        await gateway.until(lambda: gateway.subjects() == {"letter 1": 4}, "the third twin")


async def test_a_uid_that_surfaces_late_is_taken(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await watched(gateway)
        server.uidnext = 9
        await server.deliver(letter(9))
        await gateway.has(9)
        server.letters[5] = Letter(letter(5))
        await gateway.has(5, 9)


async def test_what_vanishes_is_forgotten_with_and_without_qresync(tmp_path: Path) -> None:
    server = a_server(f"{ALL} ENABLE CONDSTORE QRESYNC")
    async with box(tmp_path, server, 'watch = { poll = "1 s" }') as gateway:
        await watched(gateway)
        first, second = await server.deliver(letter(1), letter(2))
        await gateway.has(1, 2)
        await server.expunge(first)
        await gateway.until(lambda: gateway.located() == [("INBOX", second)], "one place less")
        await gateway.has(1, 2)


# --- Sent ------------------------------------------------------------------------------------------------------------


async def test_an_answer_from_the_webmail_stands_in_its_conversation_and_answers_it(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2))
        await gateway.has(1, 2)
        await server.deliver(letter(8), answer_to(1), folder="Sent")
        later = Letter(answer_to(1), internal="17-Jul-2026 03:00:00 +0000")
        server.folders["Sent"] = {
            uid: later if b"phone" in one.raw else one for uid, one in server.folders["Sent"].items()
        }
        await gateway.until(lambda: states(gateway) == {"letter 1": "answered", "letter 2": "open"}, "answered")
        assert rows(gateway, "SELECT subject FROM message WHERE origin = 'sent'") == [("our answer",)]
        assert rows(gateway, "SELECT low, high FROM left_alone WHERE folder = 'Sent' AND low > 2") == [(3, 3)]
    bodies = [command for command in server.commands if "BODY.PEEK[])" in command]
    assert len(bodies) == 2, "what belongs to no conversation is not fetched"


async def test_a_renumbered_sent_answers_nothing_again(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, 'history = "all"') as gateway:
        await server.deliver(letter(1))
        await gateway.has(1)
        await watched(gateway)
        put_into_sent(server, answer_to(1))
        await gateway.until(lambda: states(gateway) == {"letter 1": "answered"}, "answered")
        server.uidvalidities["Sent"] = 99
        sent = server.folders["Sent"]
        server.folders["Sent"] = {uid + 50: one for uid, one in sent.items()}
        server.uidnext += 60
        await gateway.until(lambda: ("Sent", 52) in gateway.located(), "found again")
        assert rows(gateway, "SELECT count(*) FROM message") == [(2,)]


# --- filing ----------------------------------------------------------------------------------------------------------


async def test_what_is_stored_is_marked_as_seen(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, 'after_fetch = "seen"') as gateway:
        await watched(gateway)
        (uid,) = await server.deliver(letter(1))
        await gateway.until(lambda: "\\Seen" in server.letters[uid].flags, "seen")
        await gateway.has(1)


@pytest.mark.parametrize(
    "capabilities", [ALL, ALL.replace("MOVE ", "")], ids=["by-move", "by-copy-and-expunge-of-one-uid"]
)
async def test_what_is_stored_is_moved(tmp_path: Path, capabilities: str) -> None:
    server = a_server(capabilities)
    # The scripted server does not tell one session what another has expunged: the poll makes up for it
    more = 'after_fetch = "move:Elsewhere"\nwatch = { poll = "1 s" }'
    async with box(tmp_path, server, more) as gateway:
        await watched(gateway)
        await server.deliver(letter(1), letter(2))
        await gateway.until(lambda: len(server.folders["Elsewhere"]) == 2 and not server.letters, "moved")
        await gateway.has(1, 2)
        await gateway.until(lambda: rows(gateway, "SELECT count(*) FROM filing") == [(0,)], "done")
        back = moved_by_a_colleague(server, min(server.folders["Elsewhere"]), "Elsewhere", "INBOX")
        await server.deliver(letter(3))
        await gateway.has(1, 2, 3)
        assert back in server.letters, "who takes it out again wants it there"
    assert "EXPUNGE" not in server.commands


async def test_a_cut_between_copy_and_expunge_leaves_one_copy(tmp_path: Path) -> None:
    server = a_server(ALL.replace("MOVE ", ""))

    @server.on("UID STORE .*Deleted")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.until(lambda: not server.letters, "moved in the end")
        await gateway.has(1)
        assert len(server.folders["Elsewhere"]) == 1


async def test_a_server_that_cannot_move_keeps_its_mail_and_somebody_is_told(tmp_path: Path) -> None:
    server = a_server("IMAP4rev1 SASL-IR AUTH=PLAIN IDLE ID ESEARCH")
    async with box(tmp_path, server, 'after_fetch = "move:Elsewhere"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.until(lambda: [alarm.key for alarm in gateway.health.alarms()] == ["filing"], "an alarm")
        (alarm,) = gateway.health.alarms()
        assert "neither MOVE nor UIDPLUS" in alarm.cause
        await gateway.has(1)
        assert len(server.letters) == 1
    assert not any("EXPUNGE" in command or "COPY" in command for command in server.commands)


async def test_a_target_that_is_not_there_is_made(tmp_path: Path) -> None:
    server = a_server()

    @server.on("CREATE ", times=100)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        server.folders["New one"] = {}
        await peer.say(f"{tag} OK made")
        return True

    async with box(tmp_path, server, 'after_fetch = "move:New one"') as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.until(lambda: server.folders.get("New one"), "moved there")
        await gateway.has(1)


# --- what cannot be had ----------------------------------------------------------------------------------------------


def refuse(server: ImapServer, uid: int, *, also_head: bool) -> list[bool]:
    """Let the server say NO to a message's text until the list is emptied."""
    refusing = [True]

    @server.on(rf"UID FETCH {uid} \(.*BODY\.PEEK\[" if also_head else rf"UID FETCH {uid} \(.*BODY\.PEEK\[\]", 10_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if refusing:
            await peer.say(f"{tag} NO System Error (Failure)")
        return bool(refusing)

    @server.on(r"UID FETCH \S*[:,]\S* .*BODY\.PEEK\[\]", 10_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if refusing:
            await peer.say(f"{tag} NO System Error (Failure)")
        return bool(refusing)

    return refusing


@pytest.mark.parametrize("also_head", [False, True], ids=["headed", "blind"])
async def test_a_placeholder_stands_in_and_makes_room_for_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also_head: bool
) -> None:
    monkeypatch.setattr(owed, "PLACEHOLDER_AFTER_MS", 0)
    server = a_server()
    refusing = refuse(server, 2, also_head=also_head)
    if also_head:

        @server.on(r"UID FETCH 2 \(.*ENVELOPE", 10_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            if refusing:
                await peer.say(f"{tag} NO System Error (Failure)")
            return bool(refusing)

    async with box(tmp_path, server, 'history = "all"') as gateway:
        await server.deliver(letter(1), letter(2), letter(3))
        await gateway.until(lambda: sum(gateway.subjects().values()) == 3, "a placeholder")
        assert gateway.entries() == 3
        assert [uid for uid, _ in gateway.owed()] == [2]
        ((id,),) = rows(gateway, "SELECT id FROM message WHERE placeholder IS NOT NULL")
        text = gateway.store.read(raw.load, id).result(5) or b""
        assert b"System Error" in text
        assert b"webmail" in text
        assert ("letter 2" in gateway.subjects()) == (not also_head)
        refusing.clear()
        await gateway.until(lambda: not gateway.owed(), "it is fetched at last")
        await gateway.has(1, 2, 3)
        assert rows(gateway, "SELECT count(*) FROM message WHERE placeholder IS NOT NULL") == [(0,)]
        texts = [gateway.store.read(raw.load, id).result(5) for (id,) in rows(gateway, "SELECT id FROM message")]
        assert sorted(text or b"" for text in texts) == sorted(map(letter, (1, 2, 3)))
        assert states(gateway)["letter 2"] == "open"


async def test_a_large_message_comes_in_parts_and_whole(tmp_path: Path) -> None:
    server = a_server()
    large = letter(1, 3 * PART_BYTES + 17)
    async with box(tmp_path, server, limit="20 MB") as gateway:
        await watched(gateway)
        await server.deliver(large, letter(2))
        await gateway.has(1, 2)
        ((id,),) = rows(gateway, "SELECT id FROM message WHERE subject = 'letter 1'")
        assert gateway.store.read(raw.load, id).result(5) == large
    assert not any(command.startswith("UID FETCH 1") and "BODY.PEEK[])" in command for command in server.commands)


async def test_a_server_that_knows_no_parts_gives_it_whole(tmp_path: Path) -> None:
    server = a_server()

    @server.on(r"UID FETCH .*BODY\.PEEK\[\]<", 100)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} OK nothing of the kind")
        return True

    async with box(tmp_path, server, limit="10 MB") as gateway:
        await watched(gateway)
        await server.deliver(letter(1, PART_BYTES + 9))
        await gateway.has(1)


# --- rounds and the wheel --------------------------------------------------------------------------------------------


async def test_a_round_in_trouble_is_an_alarm_and_the_first_folder_does_not_notice(tmp_path: Path) -> None:
    server = a_server()

    @server.on('EXAMINE "Junk"', 1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await gateway.until(lambda: [alarm.key for alarm in gateway.health.alarms()] == ["other-folders"], "an alarm")
        await server.deliver(letter(1))
        await gateway.has(1)
        assert gateway.health.touchpoint("support").state == "watching"
        assert server.open <= 2
        server.faults.clear()
        await watched(gateway)
        await gateway.until(lambda: not list(gateway.health.alarms()), "no alarm any more")


@pytest.mark.parametrize("question", ["STATUS", "LIST"])
async def test_a_question_that_costs_the_session_is_not_asked_for_ever(tmp_path: Path, question: str) -> None:
    server = a_server()

    @server.on(question, 1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server, 'folders = ["INBOX", "Elsewhere"]') as gateway:
        await watched(gateway, "INBOX", "Elsewhere")
        await gateway.watching()
        connections = sum(command.startswith(question) for command in server.commands)
        await server.deliver(letter(1))
        await server.deliver(letter(2), folder="Elsewhere")
        await gateway.has(1, 2)
        assert sum(command.startswith(question) for command in server.commands) == connections


async def test_a_round_is_made_only_when_there_is_something(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        connections = server.connections
        asked = Counter(server.commands)['STATUS "Junk" (MESSAGES UIDNEXT UIDVALIDITY)']
        await gateway.until(
            lambda: Counter(server.commands)['STATUS "Junk" (MESSAGES UIDNEXT UIDVALIDITY)'] > asked + 3, "chores"
        )
        assert server.connections == connections
        await server.deliver(letter(1), folder="Junk")
        await gateway.until(lambda: server.connections == connections + 1, "a round")


async def test_reconciliation_counts_and_mends(tmp_path: Path) -> None:
    server = a_server()
    await server.deliver(letter(1), letter(2))
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(3), letter(4), letter(5))
        await gateway.has(3, 4, 5)
        # As if a bug had lost one, and a colleague had deleted another while nobody looked
        gateway.store.submit(_forget, 4).result(5)
        await server.expunge(5)
        found = {row["folder"]: row for row in await gateway.reconcile()}
        assert {name: row["error"] for name, row in found.items()} == {"INBOX": None, "Junk": None, "Sent": None}
        inbox = {key: found["INBOX"][key] for key in ("at_provider", "known", "older", "gaps", "gone", "unfetched")}
        assert inbox == {"at_provider": 4, "known": 1, "older": 2, "gaps": 1, "gone": 1, "unfetched": 0}
        await gateway.has(3, 4, 5)


def _forget(db: Any, uids: Any) -> list[None]:
    for uid in uids:
        db.execute("DELETE FROM entry WHERE conversation = (SELECT conversation FROM message"
                   " WHERE id = (SELECT message FROM location WHERE uid = ?))", (uid,))  # fmt: skip
        db.execute("DELETE FROM message WHERE id = (SELECT message FROM location WHERE uid = ?)", (uid,))
        db.execute("DELETE FROM location WHERE uid = ?", (uid,))
    return [None for _ in uids]


async def test_a_mailbox_with_a_bound_on_commands_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_folder, "_RELIST_MESSAGES", 7)
    server = a_server(f"{ALL} ENABLE UIDONLY MESSAGELIMIT=5")
    await server.deliver(*map(letter, range(1, 24)))
    async with box(tmp_path, server, 'history = "all"') as gateway:
        await gateway.has(*range(1, 24))


async def test_stopping_says_goodbye_on_every_line(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await gateway.until(lambda: server.open == 1, "the end of the round")
        gateway.stop()
        await server.deserted()
    assert server.commands.count("LOGOUT") == server.connections
    await trio.lowlevel.checkpoint()
