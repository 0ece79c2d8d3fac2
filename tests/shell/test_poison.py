"""One message, folder or question that costs sessions, or that nobody can store: all others go on without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import NotStored, Unavailable
from gateway.inbound import plan
from gateway.inbound.plan import PART_BYTES
from gateway.state import owed, raw, sent
from tests.shell.imap_script import ImapServer, Letter, Peer, letter
from tests.shell.mailbox_box import Box, box
from tests.shell.test_interleavings import calm, renumber
from tests.shell.test_rounds import a_server, answer_to, put_into_sent, rows, watched

pytestmark = pytest.mark.usefixtures("quick")

ALWAYS = 100_000


def names(command: str, uid: int) -> bool:
    """Whether a UID command names this one."""
    for piece in command.split()[2].split(","):
        ends = [2**32 if end == "*" else int(end) for end in piece.split(":")]
        if min(ends) <= uid <= max(ends):
            return True
    return False


def poison(server: ImapServer, uid: int, items: str) -> None:
    """Cut every connection over which these items are asked for of the message, alone or among others."""

    @server.on(rf"UID FETCH \S+ \(.*{items}", ALWAYS)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        is_meant = uid in server.letters and names(command, uid)
        if is_meant:
            await peer.stream.aclose()
        return is_meant


def refuse_to_list(server: ImapServer, *uids: int) -> None:
    @server.on(r"UID FETCH \S+ \(.*RFC822", ALWAYS)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        is_meant = any(uid in server.letters and names(command, uid) for uid in uids)
        if is_meant:
            await peer.say(f"{tag} NO System Error (Failure)")
        return is_meant


def put_recent(server: ImapServer, *numbers: int) -> None:
    """As if they had come before the gateway was there, today."""
    for number in numbers:
        internal = f"{datetime.now(UTC):%d-%b-%Y %H:%M:%S} +0000"
        server.letters[server.uidnext] = Letter(letter(number), internal=internal)
        server.uidnext += 1


def twice_at_once(tries: int) -> timedelta:
    """Try twice, and then not for an hour: what cost sessions all the time would leave none for anything else."""
    return timedelta(milliseconds=5) if tries < 3 else timedelta(hours=1)


async def brought(gateway: Box, *numbers: int) -> None:
    """Wait until letters with these numbers are there, whatever else is."""
    wanted = {f"letter {number}" for number in numbers}
    await gateway.until(lambda: wanted <= set(gateway.subjects()), f"letters {numbers}")
    assert all(gateway.subjects()[name] == 1 for name in wanted)


# --- one message costs the session -----------------------------------------------------------------------------------


async def test_of_owed_messages_one_that_costs_sessions_keeps_no_other(tmp_path: Path) -> None:
    server = a_server()
    put_recent(server, 1, 2, 3, 4)
    poison(server, 1, r"BODY\.PEEK\[\]")
    async with box(tmp_path, server, 'history = "30 days"') as gateway:
        await brought(gateway, 2, 3, 4)
        assert [uid for uid, _ in gateway.owed()] == [1]


@pytest.mark.parametrize(
    "items", ["RFC822", r"BODY\.PEEK\[\]", "(RFC822|BODY|ENVELOPE)"], ids=["listed", "fetched", "touched-at-all"]
)
async def test_of_new_messages_one_that_costs_sessions_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: str
) -> None:
    monkeypatch.setattr(plan, "retry_after", twice_at_once)
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        poison(server, 2, items)
        server.uidnext = 2
        await server.deliver(letter(2), letter(3), letter(4))
        await brought(gateway, 3, 4)
        await server.deliver(letter(5))
        await server.deliver(letter(6), folder="Junk")
        await brought(gateway, 3, 4, 5, 6)


async def test_what_cannot_be_had_in_any_way_costs_no_more_sessions_once_a_placeholder_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "PLACEHOLDER_AFTER_MS", 0)
    monkeypatch.setattr(plan, "retry_after", twice_at_once)
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        poison(server, 1, "(BODY|ENVELOPE)")
        await server.deliver(letter(1), letter(2))
        await gateway.until(lambda: rows(gateway, "SELECT 1 FROM message WHERE placeholder = 'blind'"), "a placeholder")
        await calm(gateway)
        await server.deliver(letter(3), folder="Junk")
        await server.deliver(letter(4))
        await brought(gateway, 2, 3, 4)
        assert [uid for uid, _ in gateway.owed()] == [1]


async def test_a_cut_while_a_placeholder_is_made_does_not_make_two_of_it_when_the_folder_is_renumbered(
    tmp_path: Path,
) -> None:
    """What is not listed has no date, by which it could be known again."""
    server = a_server()
    async with box(tmp_path, server, limit="5 kB") as gateway:
        await watched(gateway)
        cuts: list[str] = []

        @server.on(r"UID FETCH \S+ \(.*RFC822", ALWAYS)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            is_meant = not cuts and bool(gateway.owed())
            if is_meant:
                cuts.append(command)
                await peer.stream.aclose()
            return is_meant

        await server.deliver(letter(1), letter(2, 9_000))
        await gateway.until(lambda: rows(gateway, "SELECT 1 FROM message WHERE placeholder IS NOT NULL"), "one")
        assert cuts
        renumber(server, 8, 10)
        await server.deliver(letter(3))
        await brought(gateway, 1, 3)
        await calm(gateway)
        assert rows(gateway, "SELECT count(*) FROM message") == [(3,)]


async def test_a_server_that_gives_all_but_one_and_hangs_up_is_believed_about_the_others(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)

        @server.on(r"UID FETCH \S+ \(UID BODY\.PEEK\[\]\)", ALWAYS)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            if 2 not in server.letters or not names(command, 2):
                return False
            for uid in server.letters:
                if uid != 2 and names(command, uid):
                    text = server.letters[uid].raw
                    await peer.say(b"* 1 FETCH (UID %d BODY[] {%d}\r\n%b)" % (uid, len(text), text))
            await peer.say(f"{tag} OK done")
            await peer.stream.aclose()
            return True

        server.uidnext = 2
        await server.deliver(letter(2), letter(3), letter(4))
        await brought(gateway, 3, 4)
        await gateway.until(lambda: [uid for uid, _ in gateway.owed()] == [2], "the other is owed")


# --- one message cannot be listed ------------------------------------------------------------------------------------


async def test_a_history_of_days_comes_although_one_message_cannot_be_listed(tmp_path: Path) -> None:
    server = a_server()
    put_recent(server, 1, 2, 3)
    refuse_to_list(server, 2)
    async with box(tmp_path, server, 'history = "30 days"') as gateway:
        await brought(gateway, 1, 3)


async def test_twenty_that_cannot_be_listed_keep_no_other(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        refuse_to_list(server, *range(1, 22))
        await server.deliver(*map(letter, range(1, 30)))
        await brought(gateway, *range(22, 30))


async def test_a_message_that_is_not_listed_and_has_no_text_is_owed_and_not_empty(tmp_path: Path) -> None:
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)

        @server.on(r"UID FETCH \S+ \(", ALWAYS)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            if 2 not in server.letters or not names(command, 2):
                return False
            asks_for_text = "BODY.PEEK[])" in command
            for uid, one in server.letters.items():
                if not names(command, uid) or (uid == 2 and not asks_for_text):
                    continue
                text = b"" if uid == 2 else one.raw
                shown = b"BODY[] {%d}\r\n%b" % (len(text), text)
                if not asks_for_text:
                    shown = b'RFC822.SIZE %d INTERNALDATE "%b"' % (len(text), one.internal.encode())
                await peer.say(b"* %d FETCH (UID %d %b)" % (uid, uid, shown))
            await peer.say(f"{tag} OK done")
            return True

        await server.deliver(letter(1), letter(2), letter(3))
        await brought(gateway, 1, 3)
        await gateway.until(lambda: [uid for uid, _ in gateway.owed()] == [2], "it is owed")
        assert rows(gateway, "SELECT count(*) FROM message WHERE size = 0") == [(0,)]


# --- a folder or a question costs the session ------------------------------------------------------------------------


async def test_a_folder_that_costs_rounds_keeps_no_other_folder(tmp_path: Path) -> None:
    server = a_server()
    server.folders["Work"] = {}

    @server.on('EXAMINE "?Work', ALWAYS)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server, 'folders = ["INBOX", "Work"]') as gateway:
        await gateway.watching()
        await watched(gateway, "INBOX", "Junk")
        await server.deliver(letter(1), folder="Junk")
        await brought(gateway, 1)


async def test_a_list_that_was_cut_twice_is_had_in_a_round(tmp_path: Path) -> None:
    server = a_server()

    @server.on("LIST", 2)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.stream.aclose()
        return True

    async with box(tmp_path, server) as gateway:
        await gateway.watching()
        await watched(gateway)


# --- one message cannot be stored ------------------------------------------------------------------------------------


async def test_what_cannot_be_stored_is_tried_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def retry_after(tries: int) -> timedelta:
        asked.append(tries)
        return timedelta(milliseconds=5)

    async def refuse(arrivals: Sequence[Any]) -> None:
        raise NotStored("poison", frozenset(arrival.id for arrival in arrivals))

    server = a_server()
    monkeypatch.setattr(plan, "retry_after", retry_after)
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        with monkeypatch.context() as patch:
            patch.setattr(gateway.intake, "accept", refuse)
            await server.deliver(letter(1))
            await gateway.until(lambda: rows(gateway, "SELECT 1 FROM unfetched WHERE tries > 3"), "tries are counted")
        assert max(asked) > 3
        await gateway.has(1)
        await gateway.until(lambda: not gateway.owed(), "nothing is owed any more")


async def test_an_answer_in_sent_that_cannot_be_stored_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record: Callable[[sqlite3.Connection, sent.SentArrival], Any] = sent._record

    def fail(db: sqlite3.Connection, item: sent.SentArrival) -> Any:
        if "poison" in item.subject:
            raise ValueError("poison")
        return record(db, item)

    monkeypatch.setattr(sent, "_record", fail)
    server = a_server()
    async with box(tmp_path, server) as gateway:
        await watched(gateway)
        await server.deliver(letter(1))
        await gateway.has(1)
        put_into_sent(server, answer_to(1, "poison"))
        put_into_sent(server, answer_to(1, "good"))
        await gateway.until(lambda: "good" in gateway.subjects(), "the good one")
        assert "poison" not in gateway.subjects()


async def test_a_large_message_whose_neighbour_cannot_be_stored_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = PART_BYTES + 300_000
    ahead = (size - 1) // raw.CHUNK_BYTES * raw.CHUNK_BYTES  # the last chunk is written with the message
    orphans = "FROM chunk WHERE id >> 16 NOT IN (SELECT id FROM message)"
    server = a_server()
    async with box(tmp_path, server, limit="20 MB") as gateway:
        await watched(gateway)
        accept = gateway.intake.accept
        failures = [Unavailable("the disk is full") for _ in range(2)]

        async def refuse_the_small(arrivals: Sequence[Any]) -> Any:
            if failures and all(arrival.staged is None for arrival in arrivals):
                await gateway.until(
                    lambda: (rows(gateway, f"SELECT sum(length(bytes)) {orphans}")[0][0] or 0) == ahead,
                    "the large one is on the disk",
                )
                raise failures.pop()
            return await accept(arrivals)

        monkeypatch.setattr(gateway.intake, "accept", refuse_the_small)
        await server.deliver(letter(1), letter(2, size))
        await gateway.has(1, 2)
        assert not failures
        await gateway.until(lambda: rows(gateway, f"SELECT count(*) {orphans}") == [(0,)], "no bytes of nobody")
