"""What lies in Sent decides what became of mail whose answer never came; and copies are put there. A touchpoint's task
with the real store, beside a scripted server.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import events
from gateway.config import load
from gateway.inbound import evidence, rounds, sentbox, witness
from gateway.inbound.intake import Intake
from gateway.inbound.room import Room
from gateway.model import FilingAction, show_id
from gateway.state import filings, marks
from gateway.state.lifecycle import Event
from gateway.state.store import each
from tests.shell.imap_script import ImapServer, Peer, letter
from tests.shell.mailbox_box import Box, box
from tests.shell.test_rounds import ALL, a_server, answer_to, rows, watched
from tests.support.fates import claim, copy_of, cut, deliver, fates, lose, now_ms, record, send
from tests.support.outgoing import accept, raw_of

pytestmark = pytest.mark.usefixtures("quick", "impatient")

PROVIDER = 'sent_copy = "provider"'
APPEND = 'sent_copy = "append"'


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes are tenths of a second."""
    monkeypatch.setattr(evidence, "APART_MS", 300)
    monkeypatch.setattr(evidence, "THINKING_MS", 300)
    monkeypatch.setattr(evidence, "LOOKS_MS", ())
    monkeypatch.setattr(evidence, "HOURLY_MS", 100)
    monkeypatch.setattr(witness, "PATIENCE_MS", 0)
    monkeypatch.setattr(witness, "_RESTS", (0.05,))
    monkeypatch.setattr(sentbox, "BREATH", 0.05)


def internal(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%d-%b-%Y %H:%M:%S} +0000"


def file(server: ImapServer, raw: bytes, at: int | None = None, folder: str = "Sent") -> int:
    """As the provider files what it has taken."""
    return server.lay_down(folder, raw, internal=internal(at or now_ms()), flags={"\\Seen"})


def file_later_mail(server: ImapServer) -> int:
    """A copy of what was sent just now."""
    id = (now_ms() - 1_735_689_600_000) + 500_000
    return file(server, copy_of(id, 1, now_ms()))


def said(name: str) -> int:
    return events.counts().get(name, 0)


async def looks(gateway: Box, count: int = 3) -> None:
    """Wait for that many looks that decided nothing."""
    before = said("undecided")
    await gateway.until(lambda: said("undecided") >= before + count, "looks")


@asynccontextmanager
async def open_box(tmp_path: Path, server: ImapServer, more: str) -> AsyncIterator[Box]:
    async with box(tmp_path, server, more) as gateway:
        await watched(gateway, "INBOX", "Sent")
        yield gateway


async def decided(gateway: Box, id: int, **expected: str) -> None:
    await decided_of(gateway, id, **expected)
    assert rows(gateway, "SELECT * FROM doubt") == []


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [PROVIDER, APPEND])
async def test_a_copy_of_the_attempt_is_the_answer_that_never_came(tmp_path: Path, more: str) -> None:
    server = a_server()
    async with open_box(tmp_path, server, more) as gateway:
        before = said("settled")
        id = lose(gateway.store, "b@clients.example")
        file(server, copy_of(id, 1, now_ms()))
        await decided(gateway, id, b="delivered")
        await gateway.until(lambda: said("settled") == before + 1, "it is told")
        with trio.fail_after(2):
            await gateway.doorbell.wait("support")  # who sends should take its alarm back
    assert not any(command.startswith(("APPEND", "UID STORE", 'SELECT "Sent')) for command in server.commands)


async def test_the_first_look_is_due_a_minute_after_the_cut(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        await gateway.watching()
        await gateway.until(lambda: server.open == 1, "the first round is over")
        connections = server.connections
        id = lose(gateway.store, "b@clients.example", ago=30)
        gateway.doorbell.ring("mailbox support")  # as the one who sends does
        await trio.sleep(0.3)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}
        assert server.connections == connections, "no login is spent on it"


async def test_the_copy_for_another_recipient_proves_nothing(tmp_path: Path) -> None:
    """A greylisted second recipient: the first attempt has gone through for the first, the second one was cut."""
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = accept(gateway.store, "a@clients.example", "b@clients.example")
        at = now_ms()
        record(gateway.store, claim(gateway.store, at + 10), [Event.ACCEPTED, Event.PUT_OFF], at - 130_000)
        file(server, copy_of(id, 1, at - 130_000), at - 130_000)
        assert claim(gateway.store, now_ms() + 10).attempt == 2
        cut(gateway.store, now_ms() - 100_000)
        gateway.store.submit(as_of, (id, now_ms() - 100_000)).result(5)
        await looks(gateway)
        assert fates(gateway.store, id) == {"a@clients.example": "delivered", "b@clients.example": "uncertain"}
        file_later_mail(server)
        await decided(gateway, id, a="delivered", b="deferred")
        assert rows(gateway, "SELECT count(*) FROM recipient WHERE next_attempt_at IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("who", ["an earlier attempt", "the client"])
async def test_where_one_copy_stands_for_all_absence_of_this_attempts_is_no_proof(tmp_path: Path, who: str) -> None:
    """Gmail files nothing beside a copy with the same Message-ID: the second recipient has it all the same."""
    server = a_server(f"{ALL} X-GM-EXT-1")
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = accept(gateway.store, "a@clients.example", "b@clients.example")
        at = now_ms()
        record(gateway.store, claim(gateway.store, at + 10), [Event.ACCEPTED, Event.PUT_OFF], at - 130_000)
        file(server, copy_of(id, 1, at - 130_000) if who == "an earlier attempt" else raw_of(id), at - 130_000)
        assert claim(gateway.store, now_ms() + 10).attempt == 2
        cut(gateway.store, now_ms() - 100_000)
        other = lose(gateway.store, "c@clients.example")  # of this one there is no copy at all
        gateway.store.submit(as_of, (id, now_ms() - 100_000)).result(5)
        file_later_mail(server)
        await decided_of(gateway, other, c="deferred")
        await looks(gateway)
        assert fates(gateway.store, id) == {"a@clients.example": "delivered", "b@clients.example": "uncertain"}
        assert rows(gateway, "SELECT looks FROM doubt") == [(0,)]


async def decided_of(gateway: Box, id: int, **expected: str) -> None:
    wanted = {f"{name}@clients.example": state for name, state in expected.items()}
    await gateway.until(lambda: fates(gateway.store, id) == wanted, f"{expected}, not {fates(gateway.store, id)}")


@each
def as_of(db: Any, item: tuple[int, int]) -> None:
    db.execute("UPDATE doubt SET tried_at = ? WHERE outbox = ?", (item[1], item[0]))


async def test_of_two_attempts_at_parts_of_a_message_each_has_its_own_copy(tmp_path: Path) -> None:
    """A 452 split: the first part was cut behind its dot, the second has gone through, with the same Message-ID."""
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = accept(gateway.store, "a@clients.example", "b@clients.example")
        at = now_ms() - 120_000
        gateway.store.submit(due_for, (id, 0, at)).result(5)
        gateway.store.submit(due_for, (id, 1, at + 1000)).result(5)
        assert claim(gateway.store, at).attempt == 1
        cut(gateway.store, at)
        second = claim(gateway.store, at + 1000)
        assert [one.address for one in second.recipients] == ["b@clients.example"]
        record(gateway.store, second, [Event.ACCEPTED], at + 1000)
        file(server, copy_of(id, 2, at + 1000), at + 1000)
        # The second part's copy is later mail, which stands in sight while the first part has none
        await decided(gateway, id, a="deferred", b="delivered")


@each
def due_for(db: Any, item: tuple[int, int, int]) -> None:
    db.execute("UPDATE recipient SET next_attempt_at = ? WHERE outbox = ? AND number = ?", (item[2], *item[:2]))


async def test_a_copy_that_the_agents_own_client_filed_proves_nothing(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        file(server, raw_of(id))
        await looks(gateway)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}
        file_later_mail(server)
        await decided(gateway, id, b="deferred")


async def test_a_copy_that_comes_late_is_still_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "APART_MS", 1000)
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        file_later_mail(server)
        await gateway.until(lambda: rows(gateway, "SELECT looks FROM doubt") == [(1,)], "the first look")
        file(server, copy_of(id, 1, now_ms() - 120_000))
        await decided(gateway, id, b="delivered")


async def test_what_is_not_there_on_two_looks_beside_later_mail_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "APART_MS", 700)
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        await looks(gateway)
        assert rows(gateway, "SELECT looks, absent_at FROM doubt") == [(0, None)], "nothing later is in sight"
        file_later_mail(server)
        await gateway.until(lambda: rows(gateway, "SELECT looks FROM doubt") == [(1,)], "the first look that counts")
        ((absent_at,),) = rows(gateway, "SELECT absent_at FROM doubt")
        await decided(gateway, id, b="deferred")
        assert now_ms() - absent_at >= 700
        ((due_at, attempt),) = rows(gateway, "SELECT next_attempt_at, attempt FROM recipient")
        assert (due_at <= now_ms(), attempt) == (True, 1)
        assert claim(gateway.store, now_ms() + 10).attempt == 2, "the next try has a name of its own"


async def test_where_the_provider_keeps_no_copies_only_a_copy_decides(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        id = lose(gateway.store, "b@clients.example")
        file_later_mail(server)
        await looks(gateway, 5)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}


async def test_a_provider_that_replaced_the_message_id_is_understood(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        raw = re.sub(rb"Message-ID: [^\r]*", b"Message-ID: <new@provider.example>", copy_of(id, 1, now_ms()))
        file(server, b"Received: from x by provider.example; now\r\n" + raw.replace(b"Received: by", b"X-Received: by"))
        await decided(gateway, id, b="delivered")


async def test_a_copy_is_found_by_its_message_id_whatever_its_date(tmp_path: Path, monkeypatch: Any) -> None:
    """Some providers date a copy by the Date that the agent's client wrote, days before it went out."""
    monkeypatch.setattr(witness, "_NEWEST", 1)
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        file(server, copy_of(id, 1, now_ms()), now_ms() - 9 * 86_400_000)
        file(server, letter(1), now_ms() - 8 * 86_400_000)
        await decided(gateway, id, b="delivered")


async def test_too_much_mail_for_one_look_is_read_in_several(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(witness, "_MOST_HEADERS", 60)
    monkeypatch.setattr(witness, "_NEWEST", 1)
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        for number in range(200):
            file(server, letter(number))
        file_later_mail(server)
        id = lose(gateway.store, "b@clients.example")
        asked = len(server.commands)
        await decided(gateway, id, b="deferred")
        # The last of them was read before absence counted, and none twice
        uids = [
            uid
            for command in server.commands[asked:]
            if (match := re.match(r"UID FETCH (\S+) \(UID BODY.PEEK\[HEADER\]", command))
            for uid in named(match[1])
        ]
        assert len(uids) == len(set(uids)) == 201


def named(text: str) -> list[int]:
    ends = [[int(end) for end in piece.split(":")] for piece in text.split(",")]
    return [uid for low, *high in ends for uid in range(low, (high or [low])[0] + 1)]


@pytest.mark.parametrize("question", ["UID SEARCH .*HEADER", "UID FETCH .*HEADER.<"], ids=["searches", "headers"])
async def test_what_the_server_does_not_tell_counts_for_nothing(tmp_path: Path, question: str) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        file_later_mail(server)

        @server.on(question, 100_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} NO [UNAVAILABLE] not now")
            return True

        id = lose(gateway.store, "b@clients.example")
        await looks(gateway, 4)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}
        server.faults.clear()
        await decided(gateway, id, b="deferred")


async def test_one_header_that_is_never_given_leaves_it_to_a_person(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        uid = file(server, letter(1))
        file_later_mail(server)

        @server.on("UID FETCH .*HEADER.<", 100_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            if uid not in named(command.split()[2]):
                return False
            await peer.say(f"{tag} NO System Error (Failure)")
            return True

        id = lose(gateway.store, "b@clients.example")
        other = lose(gateway.store, "c@clients.example")
        file(server, copy_of(other, 1, now_ms()))
        await gateway.until(lambda: fates(gateway.store, other) == {"c@clients.example": "delivered"}, "the other")
        await looks(gateway, 4)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}


async def test_a_look_that_costs_the_session_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        await server.deliver(letter(1))
        await gateway.has(1)

        @server.on("UID SEARCH .*SINCE", 100_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.stream.aclose()
            return True

        id = lose(gateway.store, "b@clients.example")
        ((message,),) = rows(gateway, "SELECT id FROM message")
        gateway.store.submit(seen, (message, FilingAction.SEEN, "support", "", now_ms())).result(5)
        await gateway.until(lambda: any(one.flags for one in server.letters.values()), "filed all the same")
        server.faults.clear()
        file(server, copy_of(id, 1, now_ms()))
        await decided(gateway, id, b="delivered")


@each
def seen(db: Any, row: filings.Row) -> None:
    filings.add(db, [row])


async def test_without_a_folder_sent_it_stays_open(tmp_path: Path) -> None:
    server = a_server()
    del server.folders["Sent"]
    async with box(tmp_path, server, PROVIDER) as gateway:
        await watched(gateway, "INBOX")
        before = said("no-evidence")
        id = lose(gateway.store, "b@clients.example")
        await gateway.until(lambda: said("no-evidence") > before, "it is told")
        server.folders["Sent"] = {}
        file(server, copy_of(id, 1, now_ms()))
        await decided(gateway, id, b="delivered")


async def test_a_folder_that_is_not_watched_is_looked_into_all_the_same(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, f'{PROVIDER}\nwatch = {{ sent = "" }}') as gateway:
        await watched(gateway, "INBOX", "Junk")
        id = lose(gateway.store, "b@clients.example")
        file(server, copy_of(id, 1, now_ms()))
        await decided(gateway, id, b="delivered")
        assert gateway.folder("Sent") is None


async def test_a_renumbered_folder_is_read_anew(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        id = lose(gateway.store, "b@clients.example")
        uid = file(server, letter(1))
        await looks(gateway)
        server.uidvalidities["Sent"] = 99
        del server.folders["Sent"][uid]
        server.uidnext = uid
        assert file(server, copy_of(id, 1, now_ms())) == uid
        await decided(gateway, id, b="delivered")


async def test_who_keeps_copies_may_change_under_a_live_session(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        id = lose(gateway.store, "b@clients.example")
        file_later_mail(server)
        await looks(gateway)
        assert fates(gateway.store, id) == {"b@clients.example": "uncertain"}
        rules = tmp_path / "rules.toml"
        rules.write_text(rules.read_text().replace(APPEND, PROVIDER))
        gateway.config = load(tmp_path / "gateway.toml")
        await decided(gateway, id, b="deferred")


# --- an old copy of the store ----------------------------------------------------------------------------------------


async def test_what_was_sent_after_the_restored_copy_was_made_is_delivered_and_the_rest_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is four days old; in between one of the messages has been sent by a second attempt."""
    monkeypatch.setattr(witness, "_NEWEST", 1)
    server = a_server()
    async with open_box(tmp_path, server, PROVIDER) as gateway:
        made_at, back_at = now_ms() - 4 * 86_400_000, now_ms() - 120_000
        sent, unsent, split = (
            accept(
                gateway.store,
                *(f"{name}@clients.example" for name in names),
                at=datetime.fromtimestamp(made_at / 1000, UTC),
            )
            for names in ("a", "b", "cd")
        )
        for id in (sent, unsent, split):
            gateway.store.submit(held_since_restore, (id, 1, made_at, back_at)).result(5)
        gateway.store.submit(marks.put, ("backed_up_at", made_at)).result(5)
        gateway.store.submit(marks.put, ("restored_at", back_at)).result(5)
        for id, at in ((sent, made_at + 1_800_000), (split, made_at + 3_600_000)):
            file(server, re.sub(rb"Message-ID: [^\r]*", b"Message-ID: <%d@new.example>" % id, copy_of(id, 2, at)), at)
        file(server, letter(1), made_at - 86_400_000)
        await gateway.until(lambda: fates(gateway.store, sent) == {"a@clients.example": "delivered"}, "found")
        await looks(gateway, 9)
        assert fates(gateway.store, unsent) == {"b@clients.example": "queued"}, (
            "nothing was sent since, to compare with"
        )
        assert rows(gateway, f"SELECT held FROM outbox WHERE id = {unsent}") == [("restored",)]
        file_later_mail(server)
        await gateway.until(
            lambda: rows(gateway, f"SELECT held FROM outbox WHERE id = {unsent}") == [(None,)], "it is let go"
        )
        ((due_at,),) = rows(gateway, f"SELECT next_attempt_at FROM recipient WHERE outbox = {unsent}")
        assert due_at <= now_ms()
        await looks(gateway)
        assert rows(gateway, f"SELECT held FROM outbox WHERE id = {split}") == [("restored",)]
        assert rows(gateway, f"SELECT count(*) FROM doubt WHERE outbox = {split} AND looks = 0") == [(2,)]


@each
def held_since_restore(db: Any, item: tuple[int, int, int, int]) -> None:
    id, attempt, *times = item
    db.execute("UPDATE outbox SET held = 'restored' WHERE id = ?", (id,))
    db.execute("UPDATE recipient SET next_attempt_at = NULL WHERE outbox = ?", (id,))
    db.execute(
        "INSERT INTO doubt (outbox, number, touchpoint, why, attempt, tried_at, looks, next_at)"
        " SELECT outbox, number, touchpoint, 'restored', ?, ?, 0, ? FROM recipient WHERE outbox = ?",
        (attempt, *times, id),
    )


# --- copies ----------------------------------------------------------------------------------------------------------


def copies_left(gateway: Box) -> int:
    ((count,),) = rows(gateway, "SELECT count(*) FROM copy")
    return int(count)


async def all_filed(gateway: Box) -> None:
    await gateway.until(lambda: not copies_left(gateway), "no copy is owed")


async def test_a_copy_is_laid_down_as_it_was_sent(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        at = now_ms() - 5000
        id = send(gateway.store, "b@clients.example", at=at, copies=True)
        await all_filed(gateway)
        (copy,) = server.folders["Sent"].values()
        assert (copy.raw, copy.flags) == (copy_of(id, 1, at), {"\\Seen"})
        assert copy.internal.strip() == internal(at).lstrip("0")


async def test_a_large_message_is_copied_whole(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        raw = raw_of(1, b"x" * 76 + b"\r\n" + b"y" * 3_000_000)
        at = now_ms()
        id = send(gateway.store, "b@clients.example", at=at, copies=True, raw=raw)
        await all_filed(gateway)
        assert [copy.raw for copy in server.folders["Sent"].values()] == [copy_of(id, 1, at, raw)]


@pytest.mark.parametrize("who", ["client", "provider"])
async def test_a_copy_that_is_there_is_not_made_again(tmp_path: Path, who: str) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        id = accept(gateway.store, "b@clients.example")
        file(server, raw_of(id) if who == "client" else copy_of(id, 1, now_ms()))
        deliver(gateway.store, id, at=now_ms(), copies=True)
        await all_filed(gateway)
    assert not any(command.startswith("APPEND") for command in server.commands)


async def test_a_cut_between_the_copy_and_its_record_makes_no_second_one(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:

        @server.on("APPEND")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say("+ go on")
            raw = await peer.exactly(int(re.findall(r"\{(\d+)", command)[0]))
            server.lay_down("Sent", raw)
            await peer.stream.aclose()
            return True

        send(gateway.store, "b@clients.example", at=now_ms(), copies=True)
        await all_filed(gateway)
        assert len(server.folders["Sent"]) == 1
        assert sum(command.startswith("APPEND") for command in server.commands) == 1


async def test_without_a_message_id_that_can_be_asked_for_the_trace_tells_it(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:

        @server.on("UID SEARCH .*HEADER Message-ID", 100_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} BAD I do not know this key")
            return True

        @server.on("APPEND")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say("+ go on")
            server.lay_down("Sent", await peer.exactly(int(re.findall(r"\{(\d+)", command)[0])))
            await peer.stream.aclose()
            return True

        send(gateway.store, "b@clients.example", at=now_ms(), copies=True)
        await all_filed(gateway)
        assert len(server.folders["Sent"]) == 1


async def test_a_full_mailbox_is_told_and_the_copy_made_when_there_is_room(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:

        @server.on("APPEND", 100_000)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} NO [OVERQUOTA] no room")
            return True

        first = send(gateway.store, "b@clients.example", at=now_ms(), copies=True)
        await gateway.until(lambda: list(gateway.health.alarms()), "somebody is told")
        (alarm,) = gateway.health.alarms()
        assert (alarm.key, "the mailbox is full" in alarm.cause) == ("sent-copy", True)
        assert fates(gateway.store, first) == {"b@clients.example": "delivered"}
        server.faults.clear()
        await all_filed(gateway)
        assert len(server.folders["Sent"]) == 1
        await gateway.until(lambda: not list(gateway.health.alarms()), "the alarm is over")


async def test_a_no_to_one_keeps_no_other_from_being_copied(tmp_path: Path) -> None:
    server = a_server(f"{ALL} APPENDLIMIT=2000")
    async with open_box(tmp_path, server, APPEND) as gateway:
        send(gateway.store, "b@clients.example", at=now_ms(), copies=True, raw=raw_of(1, b"x" * 3000))
        send(gateway.store, "c@clients.example", at=now_ms(), copies=True)
        await gateway.until(lambda: copies_left(gateway) == 1, "the small one is copied")
        assert len(server.folders["Sent"]) == 1


@pytest.mark.parametrize(
    ("folders", "name"),
    [({}, "Sent"), ({"INBOX/Junk": "\\Junk", "INBOX/Work": ""}, "INBOX/Sent")],
    ids=["beside-inbox", "below-inbox"],
)
async def test_a_folder_that_is_not_there_is_made(tmp_path: Path, folders: dict[str, str], name: str) -> None:
    server = a_server()
    server.folders = {"INBOX": {}, **{folder: {} for folder in folders}}
    server.attributes |= folders
    async with box(tmp_path, server, APPEND) as gateway:
        await watched(gateway, "INBOX")
        send(gateway.store, "b@clients.example", at=now_ms(), copies=True)
        send(gateway.store, "c@clients.example", at=now_ms(), copies=True)
        await all_filed(gateway)
        assert len(server.folders[name]) == 2


async def test_what_is_refused_for_five_days_is_given_up(tmp_path: Path) -> None:
    server = a_server()

    @server.on("APPEND", 100_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO never")
        return True

    async with open_box(tmp_path, server, APPEND) as gateway:
        send(gateway.store, "b@clients.example", at=now_ms() - 6 * 86_400_000, copies=True)
        await all_filed(gateway)
        assert not server.folders["Sent"]


async def test_a_message_that_is_not_kept_any_more_is_not_copied(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        gateway.stop()
        id = send(gateway.store, "b@clients.example", at=now_ms(), copies=True)
        gateway.store.submit(prune, id).result(5)
        gateway.start()
        await all_filed(gateway)
        assert not server.folders["Sent"]


@each
def prune(db: Any, id: int) -> None:
    db.execute("DELETE FROM chunk WHERE id >> 16 = ?", (id,))


async def test_many_copies_cost_few_logins(tmp_path: Path) -> None:
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        await gateway.watching()
        connections = server.connections
        for number in range(70):
            send(gateway.store, f"b{number}@clients.example", at=now_ms(), copies=True)
            gateway.doorbell.ring("mailbox support")
        await all_filed(gateway)
        assert len(server.folders["Sent"]) == 70
        assert server.connections - connections < 30


async def test_our_own_copy_is_no_mail_that_was_sent_past_us(tmp_path: Path) -> None:
    """Also where the conversation became one only after our message had gone out."""
    server = a_server()
    async with open_box(tmp_path, server, APPEND) as gateway:
        await server.deliver(letter(1))
        await gateway.has(1)
        id = send(gateway.store, "c@clients.example", at=now_ms(), copies=True, raw=answer_to(1))
        # the outbox does not know that it belongs to the conversation
        assert rows(gateway, f"SELECT conversation FROM outbox WHERE id = {id}") == [(None,)]
        await all_filed(gateway)
        server.lay_down("Sent", answer_to(1, "from the phone"), internal="17-Jul-2026 03:00:00 +0000")
        await gateway.until(lambda: len(rows(gateway, "SELECT 1 FROM message WHERE origin = 'sent'")) == 1, "the other")
        assert rows(gateway, "SELECT message_id FROM message WHERE origin = 'sent'") == [
            ("<from.the.phone@phone.example>",)
        ]


# --- a touchpoint that only sends ------------------------------------------------------------------------------------


async def test_a_touchpoint_that_only_sends_has_its_sent_folder_visited_when_there_is_need(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, PROVIDER) as gateway:
        await gateway.watching()
        gateway.stop()
        await server.deserted()
        connections = server.connections
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit, gateway)
            await trio.sleep(0.2)
            assert server.connections == connections, "nothing to do, no login"
            id = lose(gateway.store, "b@clients.example")
            file(server, copy_of(id, 1, now_ms()))
            other = send(gateway.store, "c@clients.example", at=now_ms(), copies=True)
            gateway.doorbell.ring(rounds.bell("support"))
            await decided(gateway, id, b="delivered")
            await all_filed(gateway)
            assert sum(show_id(other).encode() in copy.raw for copy in server.folders["Sent"].values()) == 1
            await server.deserted()
            nursery.cancel_scope.cancel()


async def test_its_trouble_is_told_and_over_when_it_is_over(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server, PROVIDER) as gateway:
        await gateway.watching()
        gateway.stop()
        await server.deserted()
        server.password = "another"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit, gateway)
            id = lose(gateway.store, "b@clients.example")
            file(server, copy_of(id, 1, now_ms()))
            gateway.doorbell.ring(rounds.bell("support"))
            await gateway.until(
                lambda: [alarm.key for alarm in gateway.health.alarms()] == ["sent-folder"], "somebody is told"
            )
            server.password = "secret"
            await decided(gateway, id, b="delivered")
            await gateway.until(lambda: not list(gateway.health.alarms()), "the alarm is over")
            nursery.cancel_scope.cancel()


async def visit(gateway: Box) -> None:
    await sentbox.run(
        gateway.config.touchpoints["support"],
        bridge=gateway.bridge,
        store=gateway.store,
        intake=Intake(gateway.store, lambda: gateway.config),
        current=lambda: gateway.config,
        health=gateway.health,
        doorbell=gateway.doorbell,
        room=Room(),
    )
