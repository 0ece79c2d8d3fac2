"""The one writer, on a real file: grouping, poisoned units, full and broken disks, both worlds, closing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.errors import Unavailable
from gateway.state import migrations, raw
from gateway.state.store import Store, Tuning, each
from gateway.state.ticket import Ticket


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens stores, on one file, that are closed also when the test fails: their threads would keep pytest alive."""
    opened: list[Store] = []

    def open(**options: Any) -> Store:
        opened.append(Store.open(tmp_path / "gateway.db", **options))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


def put(db: sqlite3.Connection, chunks: Sequence[raw.Chunk]) -> Sequence[int]:
    raw.insert(db, chunks)
    return [len(chunks)] * len(chunks)


def refuse(db: sqlite3.Connection, items: Sequence[int]) -> Sequence[int]:
    for item in items:
        db.execute("INSERT INTO chunk (id, bytes) VALUES (?, x'00')", (item,))
        if item % 2:
            raise ValueError(f"{item} is odd")
    return list(items)


@each
def own(db: sqlite3.Connection, id: int) -> None:
    db.execute(
        "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject, size,"
        " accepted_at) VALUES (?, 't', 'a', 'reply', '', 0, 0, '<m>', '', 1, 0)",
        (id,),
    )


def keys(db: sqlite3.Connection) -> list[int]:
    return [row[0] for row in db.execute("SELECT id FROM chunk ORDER BY id")]


class Gate:
    """Holds the writer inside a transaction until the test lets it go on, so that units gather behind it."""

    def __init__(self, store: Store) -> None:
        self._open, inside = threading.Event(), threading.Event()

        @each
        def wait(db: sqlite3.Connection, item: None) -> None:
            inside.set()
            assert self._open.wait(10)

        self.ticket = store.submit(wait, None)
        assert inside.wait(10)

    def open(self) -> None:
        self._open.set()


def test_units_that_gather_share_one_commit_and_one_call(store: Store) -> None:
    gate = Gate(store)
    before = store.commits
    tickets = [store.submit(put, (number, b"x")) for number in range(1, 51)]
    gate.open()
    assert [ticket.result(10) for ticket in tickets] == [50] * 50
    assert store.commits == before + 2  # the gate's and ours


def test_a_unit_is_readable_once_its_ticket_is_done(store: Store) -> None:
    store.submit(put, (1, b"x")).result(10)
    assert store.read(keys).result(10) == [1]


def test_a_poisoned_unit_fails_alone_and_leaves_nothing(store: Store) -> None:
    gate = Gate(store)
    tickets = [store.submit(refuse, number) for number in range(2, 8)]
    others = store.submit(put, (100, b"x"))
    gate.open()
    assert others.result(10) == 1
    for number, ticket in zip(range(2, 8), tickets, strict=True):
        if number % 2:
            with pytest.raises(ValueError, match=f"{number} is odd"):
                ticket.result(10)
        else:
            assert ticket.result(10) == number
    assert store.read(keys).result(10) == [2, 4, 6, 100]


def test_an_operation_that_forgets_a_result_is_undone(store: Store) -> None:
    def forgetful(db: sqlite3.Connection, items: Sequence[int]) -> Sequence[int]:
        refuse(db, [2])
        return []

    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        store.submit(forgetful, 1).result(10)
    assert store.read(keys).result(10) == []


def test_tickets_can_be_awaited_in_trio_and_in_asyncio(store: Store) -> None:
    async def one(number: int) -> int:
        return await store.submit(put, (number, b"x"))

    async def failing() -> str:
        try:
            await store.submit(refuse, 11)
        except ValueError as error:
            return str(error)
        return "no error"

    assert trio.run(one, 1) == 1
    assert asyncio.run(one(2)) == 1
    assert trio.run(failing) == asyncio.run(failing()) == "11 is odd"
    assert asyncio.run(_read(store)) == trio.run(_read, store) == [1, 2]


async def _read(store: Store) -> list[int]:
    return await store.read(keys)


def test_giving_up_the_wait_does_not_take_the_unit_back(store: Store) -> None:
    gate = Gate(store)

    async def impatient() -> None:
        with trio.move_on_after(0):
            await store.submit(put, (7, b"x"))

    trio.run(impatient)
    gate.open()
    gate.ticket.result(10)
    store.submit(put, (8, b"x")).result(10)
    assert store.read(keys).result(10) == [7, 8]


def test_a_ticket_whose_loop_has_ended_harms_nobody(store: Store) -> None:
    gate = Gate(store)

    async def leave() -> None:
        waiting = asyncio.ensure_future(_await(store.submit(put, (7, b"x"))))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    gate.open()
    assert store.submit(put, (8, b"x")).result(10)


async def _await(ticket: object) -> object:
    return await ticket  # type: ignore[misc]  # a Ticket; its type does not matter here


def test_closing_commits_what_was_submitted(open_store: Callable[..., Store]) -> None:
    store = open_store()
    tickets = [store.submit(put, (number, b"x")) for number in range(1, 200)]
    store.close()
    assert all(ticket.is_done for ticket in tickets)
    store = open_store()
    assert len(store.read(keys).result(10)) == 199
    store.close()


def test_a_closed_store_says_so(open_store: Callable[..., Store]) -> None:
    store = open_store()
    store.close()
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        store.submit(put, (1, b"x"))
    with pytest.raises(Unavailable, match="closed"):
        store.read(keys)


def test_a_full_disk_refuses_with_cause_and_remedy_and_mends_itself(open_store: Callable[..., Store]) -> None:
    store = open_store(tuning=Tuning(max_pages=64))
    store.submit(put, (1, os.urandom(9000))).result(10)
    tickets = [store.submit(put, (number, os.urandom(9000))) for number in range(2, 200)]
    held = [1, *(number for number, ticket in enumerate(tickets, start=2) if _succeeded(ticket))]
    refused = next(ticket for ticket in tickets if not _succeeded(ticket))  # what comes later may fit where it did not
    with pytest.raises(Unavailable, match=r"the disk is full; free some space"):
        refused.result(10)
    assert store.read(keys).result(10) == held
    store.submit(each(lambda db, _: db.execute("PRAGMA max_page_count = 4000").fetchone()), None).result(10)
    store.submit(put, (1000, os.urandom(9000))).result(10)  # … and with space the store goes on
    assert store.read(keys).result(10) == [*held, 1000]
    store.close()


def _succeeded(ticket: Ticket[int]) -> bool:
    try:
        return ticket.result(10) > 0
    except Unavailable:
        return False


def test_a_failed_fsync_breaks_the_store_for_good_and_calls_for_a_restart(open_store: Callable[..., Store]) -> None:
    # After a failed fsync the kernel may have dropped the pages and will call the next fsync a success.
    reasons: list[str] = []
    store = open_store(on_fatal=reasons.append)

    def fail(db: sqlite3.Connection, items: Sequence[None]) -> Sequence[None]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = 1034, "SQLITE_IOERR_FSYNC"
        raise error

    with pytest.raises(Unavailable, match="disk I/O error"):
        store.submit(fail, None).result(10)
    with pytest.raises(Unavailable, match="disk I/O error"):
        store.submit(put, (1, b"x")).result(10)
    assert len(reasons) == 1
    store.close()


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.read(lambda db: db.execute("DELETE FROM chunk")).result(10)


def test_the_file_is_durable_as_promised(store: Store) -> None:
    @each
    def settings(db: sqlite3.Connection, _: None) -> list[object]:
        names = ("journal_mode", "synchronous", "page_size", "auto_vacuum", "wal_autocheckpoint")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert store.submit(settings, None).result(10) == ["wal", 2, 16384, 2, 0]


def test_large_bytes_are_staged_in_chunks_and_come_back_whole(store: Store) -> None:
    data = os.urandom(3 * raw.CHUNK_BYTES + 17)

    async def stage() -> tuple[raw.Chunk, ...]:
        return await raw.stage(store, 5, data)

    tail = trio.run(stage)
    assert sum(len(part) for _, part in tail) <= raw.CHUNK_BYTES
    for chunk in tail:
        store.submit(put, chunk).result(10)
    assert store.read(raw.load, 5).result(10) == data
    assert store.read(raw.load, 6).result(10) is None


@pytest.mark.parametrize("size", [0, 1, raw.CHUNK_BYTES, raw.CHUNK_BYTES + 1])
def test_staging_keeps_every_size(store: Store, size: int) -> None:
    data = os.urandom(size)

    async def stage() -> tuple[raw.Chunk, ...]:
        return await raw.stage(store, 5, data)

    for chunk in trio.run(stage):
        store.submit(put, chunk).result(10)
    assert store.read(raw.load, 5).result(10) == data


def test_a_message_that_did_not_fit_gives_its_room_back(tmp_path: Path) -> None:
    async def stage(owner: int, size: int) -> tuple[raw.Chunk, ...]:
        return await raw.stage(opened, owner, bytes(size))

    with closing(Store.open(tmp_path / "gateway.db", tuning=Tuning(max_pages=150))) as opened:  # 2.4 MB
        for owner in (5, 6, 7):
            with pytest.raises(Unavailable, match="the disk is full"):
                trio.run(stage, owner, 20 * raw.CHUNK_BYTES)
        raw.abandon(opened, trio.run(stage, 8, 5 * raw.CHUNK_BYTES))  # its owner's row could not be written
        (rest,) = trio.run(stage, 9, 6 * raw.CHUNK_BYTES)
        opened.submit(put, rest).result(10)
        assert [key >> 16 for key in opened.read(keys).result(10)] == [9] * 6


def test_what_is_given_up_leaves_nothing_behind_although_more_of_it_still_waited(store: Store) -> None:
    async def give_up() -> None:
        gate = Gate(store)
        raw.abandon(store, ((raw.chunk_key(5, 1), b""),))  # somebody else's, ahead of ours in the same gathering
        with trio.move_on_after(0) as scope:
            await raw.stage(store, 6, bytes(4 * raw.CHUNK_BYTES))
        assert scope.cancelled_caught
        gate.open()
        await store.submit(put, (raw.chunk_key(7, 0), b"x"))

    trio.run(give_up)
    assert store.read(keys).result(10) == [raw.chunk_key(7, 0)]


def test_another_program_that_holds_the_file_is_weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **keys: connect(*args, **{**keys, "timeout": 0.1}))
    with closing(Store.open(tmp_path / "gateway.db")) as opened, closing(connect(tmp_path / "gateway.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        tickets = [opened.submit(put, (number, b"x")) for number in range(3)]
        for ticket in tickets:
            with pytest.raises(Unavailable, match="another program holds the file"):
                ticket.result(5)
        other.execute("ROLLBACK")
        opened.submit(put, (4, b"x")).result(10)


def test_what_has_an_owner_is_never_given_back(store: Store) -> None:
    data = os.urandom(2 * raw.CHUNK_BYTES)

    async def stage() -> tuple[raw.Chunk, ...]:
        return await raw.stage(store, 6, data)

    chunks = trio.run(stage)
    store.submit(put, *chunks).result(10)
    store.submit(own, 6).result(10)
    raw.abandon(store, chunks)
    store.submit(own, 7).result(10)  # behind it
    assert store.read(raw.load, 6).result(10) == data


def test_orphans_of_an_interrupted_message_are_swept_at_the_next_start(open_store: Callable[..., Store]) -> None:
    store = open_store()

    async def stage(owner: int) -> None:
        await raw.stage(store, owner, bytes(2 * raw.CHUNK_BYTES))

    trio.run(stage, 5)
    trio.run(stage, 6)
    store.submit(own, 6).result(10)
    store.close()
    store = open_store()
    assert store.swept == 1
    assert {key >> 16 for key in store.read(keys).result(10)} == {6}
    store.close()


def test_ids_grow_and_are_never_used_again(open_store: Callable[..., Store]) -> None:
    clock = [1_800_000_000_000]
    store = open_store(now_ms=lambda: clock[0])
    first, second = store.ids.next(), store.ids.next()
    assert second == first + 1
    store.submit(own, second).result(10)
    store.close()
    clock[0] -= 3_600_000  # the clock was set back while the daemon was down
    store = open_store(now_ms=lambda: clock[0])
    assert store.ids.next() > second
    store.close()


def test_a_schema_from_the_future_is_refused_with_a_remedy(tmp_path: Path) -> None:
    Store.open(tmp_path / "gateway.db").close()
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('mail-gateway', '999', 'x')"
        )
    db.close()
    with pytest.raises(Unavailable, match=r"schema 999.*newer version"):
        Store.open(tmp_path / "gateway.db")


def test_every_migration_step_is_whole_or_absent(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    ran: list[str] = []
    migrations.migrate(db, ran.append)
    assert ran
    again: list[str] = []
    migrations.migrate(db, again.append)
    assert again == []
    db.close()


def test_a_file_that_is_no_database_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(Unavailable, match=r"gateway\.db: file is not a database"):
        Store.open(tmp_path / "gateway.db")
