"""Backups of a store at work, and stores made of backups."""

from __future__ import annotations

import contextlib
import itertools
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.archive import ConfigFile
from gateway.errors import CommandError, Unavailable
from gateway.model import OutboxKind, from_ms
from gateway.state import backup, doubts, lanes, marks, outbox, swap
from gateway.state.backup import Facts
from gateway.state.lifecycle import LaneEvent
from gateway.state.outbox import Claimed, Step, Want
from gateway.state.store import Store
from tests.support.outgoing import TOUCHPOINT, accept, listed, states
from tests.support.waiting import wait_until

FACTS = Facts(1_795_000_000_000, "0.1.0", Path("/etc/mail-gateway/gateway.toml"), ("secrets/support (password)",))
NOW = 1_795_000_100_000


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def open(name: str = "gateway.db") -> Store:
        opened.append(Store.open(tmp_path / name))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def copy(store: Store, target: Path) -> int:
    target.touch()
    return store.run_between(backup.copy_job(target, now_ms)).result(60)


def make_backup(store: Store, target: Path, facts: Facts = FACTS, files: Sequence[ConfigFile] = ()) -> Path:
    copy(store, target)
    backup.seal(target, facts, files)
    return target


def make_store(file: Path, last_epoch: int | None = None, restored_at: int = NOW) -> backup.Restored:
    return backup.make_store(file, restored_at, last_epoch)


# --- making one ------------------------------------------------------------------------------------------------------


def put_pair(db: sqlite3.Connection, items: Sequence[tuple[int, bytes]]) -> Sequence[None]:
    """Operation: a row in each of two tables, in one transaction."""
    db.executemany("INSERT INTO chunk (id, bytes) VALUES (?, ?)", items)
    db.executemany("INSERT INTO submitted (outbox, digest, at) VALUES (?, 'x', 0)", [(id,) for id, _ in items])
    db.executemany("UPDATE submitted SET at = at + 1 WHERE outbox = ?", [(id // 2,) for id, _ in items])
    return [None] * len(items)


class Load:
    """Threads that submit one unit after another, as fast as they are committed."""

    def __init__(self, store: Store, threads: int = 4, size: int = 8000) -> None:
        self._store, self._size = store, size
        self._next = iter(range(1_000_000, 1 << 40))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.committed: dict[int, int] = {}  # id → ms when its ticket was done
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._submit) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _submit(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                id = next(self._next)
            began = time.monotonic()
            self._store.submit(put_pair, (id, random.randbytes(self._size))).result(60)
            with self._lock:
                self.committed[id] = now_ms()
                self.slowest = max(self.slowest, time.monotonic() - began)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def fill(store: Store, megabytes: int) -> None:
    block = random.randbytes(256 * 1024)
    for number in range(megabytes * 4):
        store.submit(put_pair, (number + 1, block)).result(30)


def ids(path: Path) -> set[int]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        chunks = {id for (id,) in db.execute("SELECT id FROM chunk")}
        pairs = {id for (id,) in db.execute("SELECT outbox FROM submitted")}
    assert chunks == pairs, "a transaction is in the copy by half"
    return chunks


def test_a_copy_under_load_ends_and_has_all_that_was_committed_before_its_moment(
    store: Store, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    fill(store, 30)
    load = Load(store)
    try:
        wait_until(lambda: len(load.committed) > 50, "the load is on")
        before = len(load.committed)
        load.slowest = 0.0
        began = time.monotonic()
        moment = copy(store, tmp_path / "copy")
        took = time.monotonic() - began
        during, slowest = len(load.committed) - before, load.slowest
        wait_until(lambda: len(load.committed) > before + during + 50, "the load goes on behind it")
    finally:
        load.end()
    found = ids(tmp_path / "copy")
    promised = {id for id, at in load.committed.items() if at <= moment}
    assert promised <= found
    assert len(promised) >= before
    assert set(range(1, 121)) <= found
    assert not load.committed.keys() <= found  # what came behind it is not
    assert during > 10, "nothing was committed while it was copied"
    assert slowest < 5
    record_property("counts", f"{took:.2f} s for 30 MB, {during} commits meanwhile, slowest {slowest * 1000:.0f} ms")


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(1, 5000))
def test_whatever_is_committed_meanwhile_each_breath_leaves_less_to_copy(grown: list[int], size: int) -> None:
    """What SQLite does, played: a step copies pages, a breath may add any number of them."""
    left, total, lefts = size, size, []
    growth = iter(grown)

    def breathe() -> None:
        nonlocal left, total
        lefts.append(left)
        more = next(growth, 0)
        left, total = left + more, total + more

    copying = backup._Copying(breathe, lambda: 0)
    while left:
        left = max(0, left - backup.STEP_PAGES)
        copying.stepped(101 if not left else 0, left, total)
    assert all(later <= earlier - backup.STEP_PAGES for earlier, later in itertools.pairwise(lefts))


def test_nothing_is_committed_behind_the_last_page(store: Store, tmp_path: Path) -> None:
    """Then the copy would be open for longer than it knows."""
    breaths = []
    copying = backup._Copying(lambda: breaths.append(1), lambda: 0)
    copying.stepped(101, 0, 10)
    assert not breaths


def test_a_job_is_told_when_the_store_closes(store: Store, tmp_path: Path) -> None:
    fill(store, 20)
    (tmp_path / "copy").touch()
    ticket = store.run_between(backup.copy_job(tmp_path / "copy", now_ms))
    store.close()
    with contextlib.suppress(Unavailable):
        ticket.result(10)
        ids(tmp_path / "copy")  # it was quicker
    with pytest.raises(Unavailable, match="the store is closed"):
        store.run_between(backup.copy_job(tmp_path / "copy", now_ms))


def test_jobs_wait_for_one_another_and_units_for_none(store: Store) -> None:
    entered, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def job(name: str) -> Callable[[sqlite3.Connection, Callable[[], None]], str]:
        def run(db: sqlite3.Connection, breathe: Callable[[], None]) -> str:
            order.append(name)
            entered.set()
            while not go_on.is_set():
                breathe()
            return name

        return run

    first, second = store.run_between(job("first")), store.run_between(job("second"))
    assert entered.wait(10)
    for number in range(5):
        store.submit(put_pair, (number + 1, b"x")).result(10)
    assert order == ["first"]
    tickets = [store.submit(put_pair, (number + 10, b"x")) for number in range(5)]
    go_on.set()
    assert [ticket.result(10) for ticket in tickets] == [None] * 5
    assert (first.result(10), second.result(10)) == ("first", "second")


def test_a_job_that_fails_fails_alone(store: Store) -> None:
    def fail(db: sqlite3.Connection, breathe: Callable[[], None]) -> None:
        raise ValueError("spoilt")

    with pytest.raises(ValueError, match="spoilt"):
        store.run_between(fail).result(10)
    store.submit(put_pair, (1, b"x")).result(10)


def test_a_full_disk_is_said_in_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 5)
    real = sqlite3.connect

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = real(*args, **options)
        if options.get("isolation_level", "") is None:
            db.execute("PRAGMA max_page_count = 20")
        return db

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(Unavailable, match="the disk is full; free some space") as refused:
        copy(store, tmp_path / "copy")
    assert "\n" not in str(refused.value)
    store.submit(put_pair, (1_000, b"x")).result(10)  # and the store goes on


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_facts_and_files_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    files = [
        ConfigFile(Path("/etc/a.toml"), 0o640, b"x = 1\n"),
        ConfigFile(Path("/etc/b.png"), 0o644, bytes(range(256))),
    ]
    file = make_backup(store, tmp_path / "backup.db", files=files)
    assert backup.read(file, file) == (FACTS, files)
    assert swap.is_backup(file.read_bytes()[:100])
    assert not list(tmp_path.glob("backup.db-*"))
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:  # readable on a CD-ROM
        assert db.execute("SELECT count(*) FROM backup_file").fetchone() == (2,)


@pytest.mark.parametrize("page", [0, 3, 8])
def test_a_damaged_backup_is_found_out(store: Store, tmp_path: Path, page: int) -> None:
    for _ in range(20):
        accept(store)
    file = make_backup(store, tmp_path / "backup.db")
    content = bytearray(file.read_bytes())
    content[page * 16384 + 100 : page * 16384 + 5000] = b"\xff" * 4900
    content[page * 16384] ^= page and 0xFF
    file.write_bytes(content)
    with pytest.raises(CommandError, match="is damaged") as refused:
        backup.read(file, file)
    assert "\n" not in str(refused.value)


def test_half_a_backup_is_found_out(store: Store, tmp_path: Path) -> None:
    file = make_backup(store, tmp_path / "backup.db")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CommandError, match="is damaged"):
        backup.read(file, file)


def test_a_backup_of_a_newer_kind_is_refused(store: Store, tmp_path: Path) -> None:
    file = make_backup(store, tmp_path / "backup.db", Facts(1, "9.9", Path("/x"), (), format=2))
    with pytest.raises(CommandError, match=r"made by mail-gateway 9\.9, which is newer"):
        backup.read(file, file)


def test_a_newer_schema_is_refused(store: Store, tmp_path: Path) -> None:
    file = make_backup(store, tmp_path / "backup.db")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('mail-gateway', '999', '')"
        )
    with pytest.raises(Unavailable, match="schema 999, which this mail-gateway does not know"):
        make_store(file)


def test_a_backup_does_not_run_as_a_store(store: Store, tmp_path: Path) -> None:
    """Copied into its place, it would send again what has been sent since."""
    file = make_backup(store, tmp_path / "backup.db")
    with pytest.raises(Unavailable, match=r"is a backup as it was made; .* mail-gateway restore FILE"):
        Store.open(file)


# --- making a store of it --------------------------------------------------------------------------------------------


def claim(store: Store, begin: bool = False, now: int = NOW) -> Claimed:
    claimed = store.submit(outbox.step, Step(want=Want(TOUCHPOINT, now, (60_000,), begin))).result(10)
    assert claimed is not None
    return claimed


def at(ms: int) -> datetime:
    return from_ms(ms)


def rows(store: Store) -> dict[int, tuple[Any, ...]]:
    def read(db: sqlite3.Connection) -> dict[int, tuple[Any, ...]]:
        found = db.execute(
            "SELECT recipient.outbox, state, recipient.attempt, next_attempt_at, held, why, doubt.attempt, looks"
            " FROM recipient JOIN outbox ON id = recipient.outbox"
            " LEFT JOIN doubt ON doubt.outbox = id AND doubt.number = 0"
        )
        return {id: tuple(rest) for id, *rest in found}

    return store.read(read).result(10)


EARLY = FACTS.backed_up_at - 1_000_000


@pytest.fixture
def restored(open_store: Callable[..., Store], tmp_path: Path) -> tuple[Store, dict[str, int], backup.Restored]:
    """A store made of the backup of one in which mail was in every state."""
    store = open_store("old.db")
    made: dict[str, int] = {}
    made["delivered"] = accept(store, at=at(EARLY))
    first = claim(store, begin=True, now=EARLY)
    store.submit(outbox.step, Step(done=done(first, "accepted"))).result(10)
    made["uncertain"] = accept(store, at=at(EARLY))
    claim(store, begin=True, now=EARLY)
    store.submit(outbox.recover, EARLY + 10).result(10)
    made["deferred"] = accept(store, at=at(EARLY))
    claim(store, now=EARLY)
    made["sending"] = accept(store, at=at(EARLY))
    claim(store, begin=True, now=EARLY)
    made["queued"] = accept(store, at=at(EARLY))
    made["held"] = accept(store, at=at(EARLY))
    store.submit(outbox.hold, outbox.Ask(EARLY, made["held"])).result(10)
    made["automatic"] = accept(store, at=at(EARLY), kind=OutboxKind.AUTO_REPLY)
    file = make_backup(store, tmp_path / "gateway.db")
    told = make_store(file)
    return open_store(), made, told


def done(claimed: Claimed, event: str) -> outbox.Done:
    from gateway.state.lifecycle import Event, State
    from gateway.state.outbox import Done, Fated

    fated = tuple(Fated(one.number, State.SENDING, Event(event), "250 ok") for one in claimed.recipients)
    return Done(claimed.id, claimed.touchpoint, claimed.attempt, claimed.kind, fated, EARLY)


def test_what_had_not_left_is_held_with_a_doubt(restored: tuple[Store, dict[str, int], backup.Restored]) -> None:
    store, made, told = restored
    found = rows(store)
    # state, attempt, next attempt, held, why in doubt, the attempt before the first one in doubt, looks
    assert {name: found[id] for name, id in made.items()} == {
        "delivered": ("delivered", 1, None, None, None, None, None),
        "uncertain": ("uncertain", 1001, None, "restored", "restored", 0, 0),
        "deferred": ("queued", 1001, None, "restored", "restored", 0, 0),
        "sending": ("uncertain", 1001, None, "restored", "restored", 0, 0),
        "queued": ("queued", 1000, None, "restored", "restored", 0, 0),
        "held": ("queued", 1001, None, "person", "restored", 0, 0),
        "automatic": ("cancelled", 0, None, None, None, None, None),
    }
    assert (told.messages, told.held, told.dropped, told.epoch) == (5, {TOUCHPOINT: 5}, 1, 2)


def test_nothing_of_it_is_tried(restored: tuple[Store, dict[str, int], backup.Restored]) -> None:
    store, _, _ = restored
    store.submit(outbox.recover, NOW).result(10)
    store.submit(outbox.retry, outbox.Ask(NOW)).result(10)
    assert store.submit(outbox.step, Step(want=Want(TOUCHPOINT, NOW * 2, (60_000,)))).result(10) is None


def test_the_outbox_names_the_cause(restored: tuple[Store, dict[str, int], backup.Restored]) -> None:
    store, _, _ = restored
    shown = {message["id"]: message for message in listed(store, settled=False)}
    assert len(shown) == 5
    for message in shown.values():
        assert message["cause"], message
    waiting = [message for message in shown.values() if message["recipients"][0]["state"] == "held"]
    assert len(waiting) >= 2
    assert sum("restored" in message["cause"] for message in waiting) >= 2


def test_every_doubt_can_be_looked_into_at_once(restored: tuple[Store, dict[str, int], backup.Restored]) -> None:
    store, made, _ = restored
    due = store.read(doubts.due, TOUCHPOINT, NOW).result(10)
    assert {doubt.outbox for doubt in due} == {
        made[name] for name in ("uncertain", "deferred", "sending", "queued", "held")
    }
    assert {doubt.tried_at for doubt in due if doubt.outbox == made["queued"]} == {FACTS.backed_up_at}
    assert {doubt.tried_at for doubt in due if doubt.outbox == made["sending"]} == {EARLY}


@pytest.mark.parametrize("name", ["uncertain", "deferred", "sending", "queued", "held"])
def test_evidence_that_it_was_sent_settles_it(
    restored: tuple[Store, dict[str, int], backup.Restored], name: str
) -> None:
    store, made, _ = restored
    finding = doubts.Finding(made[name], 0, 0, True, NOW + 1)
    assert store.submit(doubts.settle, finding).result(10)
    assert states(store, made[name]) == ["delivered"]


def test_what_was_not_sent_is_sent_under_a_number_that_no_attempt_had(
    restored: tuple[Store, dict[str, int], backup.Restored],
) -> None:
    store, made, _ = restored
    for name in ("uncertain", "deferred", "sending", "queued"):
        assert store.submit(doubts.settle, doubts.Finding(made[name], 0, 0, False, NOW + 1)).result(10)
        claimed = claim(store, now=NOW + 2)
        assert claimed.id == made[name]
        assert claimed.attempt > 1000
        assert claimed.attempt == (1001 if name == "queued" else 1002)


def test_what_a_person_held_stays_held_when_it_was_not_sent(
    restored: tuple[Store, dict[str, int], backup.Restored],
) -> None:
    store, made, _ = restored
    store.submit(doubts.settle, doubts.Finding(made["held"], 0, 0, False, NOW + 1)).result(10)
    assert store.submit(outbox.step, Step(want=Want(TOUCHPOINT, NOW * 2, (60_000,)))).result(10) is None
    assert rows(store)[made["held"]][3] == "person"


def test_a_lane_that_a_person_held_is_held(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store("old.db")
    store.submit(lanes.change, lanes.Change(TOUCHPOINT, LaneEvent.PERSON_HOLDS, EARLY)).result(10)
    make_store(make_backup(store, tmp_path / "gateway.db"))
    assert not open_store().read(lanes.look, [TOUCHPOINT]).result(10)[TOUCHPOINT].is_open


def test_the_window_and_the_number_of_folders_are_known_afterwards(
    restored: tuple[Store, dict[str, int], backup.Restored],
) -> None:
    store, _, _ = restored
    assert store.read(backup.between).result(10) == (FACTS.backed_up_at, NOW)
    assert store.read(backup.uidvalidity).result(10) == NOW // 1000
    assert store.read(marks.get, "epoch").result(10) == 2


def test_a_store_that_was_never_restored_has_no_window(store: Store) -> None:
    assert store.read(backup.between).result(10) is None
    assert store.read(backup.uidvalidity).result(10) == 1


def test_the_number_of_folders_rises_with_every_restore_whatever_is_known_of_the_store_before(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    file = make_backup(open_store("old.db"), tmp_path / "backup.db")
    numbers = []
    for n, epoch in enumerate((None, 2, None)):
        path = tmp_path / f"new{n}.db"
        path.write_bytes(file.read_bytes())
        make_store(path, epoch, NOW + n * 2000)
        numbers.append(open_store(path.name).read(backup.uidvalidity).result(10))
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 1


def test_attempts_of_two_restores_from_one_backup_have_numbers_of_their_own(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    old = open_store("old.db")
    id = accept(old, at=at(EARLY))
    file = make_backup(old, tmp_path / "backup.db")
    seen = []
    for n in range(2):
        path = tmp_path / f"new{n}.db"
        path.write_bytes(file.read_bytes())
        make_store(path, n + 1)
        store = open_store(path.name)
        store.submit(doubts.settle, doubts.Finding(id, 0, 0, False, NOW)).result(10)
        seen.append(claim(store, now=NOW + 1).attempt)
    assert seen == [1001, 2001]


def test_what_was_in_doubt_since_an_earlier_restore_still_is(open_store: Callable[..., Store], tmp_path: Path) -> None:
    old = open_store("old.db")
    id = accept(old, at=at(EARLY))
    make_store(make_backup(old, tmp_path / "new.db"))
    later = Facts(NOW + 50_000, "0.1.0", Path("/x"), ())
    make_store(make_backup(open_store("new.db"), tmp_path / "newer.db", later), 2, NOW + 90_000)
    store = open_store("newer.db")
    (doubt,) = store.read(doubts.due, TOUCHPOINT, NOW + 90_000).result(10)
    assert (doubt.outbox, doubt.attempt, doubt.tried_at) == (id, 0, FACTS.backed_up_at)
    assert store.read(backup.between).result(10) == (FACTS.backed_up_at, NOW + 90_000)
    assert rows(store)[id][1] == 2000


# --- a glance at what is replaced ------------------------------------------------------------------------------------


def test_a_glance_counts_what_will_not_leave(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    accept(store, at=at(EARLY))
    accept(store, "a@clients.example", "b@clients.example", at=at(FACTS.backed_up_at + 5))
    store.submit(marks.put, ("epoch", 7)).result(10)
    assert backup.glance(tmp_path / "gateway.db", FACTS.backed_up_at) == backup.Glance(7, 1)


def test_a_glance_at_nothing_or_nonsense_is_none(tmp_path: Path) -> None:
    assert backup.glance(tmp_path / "gateway.db", 0) is None
    (tmp_path / "gateway.db").write_bytes(b"nonsense" * 5000)
    assert backup.glance(tmp_path / "gateway.db", 0) is None
    assert (tmp_path / "gateway.db").read_bytes() == b"nonsense" * 5000


# --- the swap --------------------------------------------------------------------------------------------------------


def prepare(tmp_path: Path, open_store: Callable[..., Store]) -> Path:
    """A store with one message, that was not closed in peace, and another one prepared beside it with two."""
    other = open_store("other.db")
    for _ in range(2):
        accept(other)
    other.close()
    present = open_store("present.db")
    accept(present)
    database = tmp_path / "gateway.db"
    for ending in ("", "-wal", "-shm"):  # as kill -9 leaves it: what was committed is only in the log
        database.with_name(f"gateway.db{ending}").write_bytes((tmp_path / f"present.db{ending}").read_bytes())
    assert database.with_name("gateway.db-wal").stat().st_size > 0
    (tmp_path / "other.db").rename(swap.being_prepared(database))
    return database


def count(path: Path) -> int:
    store = Store.open(path)
    try:
        return len(listed(store))
    finally:
        store.close()


def test_the_present_database_goes_aside_with_its_log(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    database = prepare(tmp_path, open_store)
    aside = swap.decide(database)
    assert aside is not None
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700
    assert sorted(path.name for path in aside.iterdir()) == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert sorted(path.name for path in tmp_path.glob("gateway.db*")) == ["gateway.db"]
    assert count(database) == 2
    assert count(aside / "gateway.db") == 1


def test_without_a_present_database_nothing_goes_aside(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    swap.being_prepared(database).write_bytes(b"new")
    assert swap.decide(database) is None
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.db"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 7))
def test_a_swap_cut_at_any_step_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    database = prepare(tmp_path, open_store)
    done_so_far: list[str] = []

    def dies(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Path, *args: Any) -> Any:
            if len(done_so_far) + 1 == step:
                raise Killed
            done_so_far.append(self.name)
            return real(self, *args)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dies(Path.rename))
        patched.setattr(Path, "replace", dies(Path.replace))
        try:
            swap.decide(database)
        except Killed:
            pass
        else:
            assert step > 5, "there are five steps"
    assert count(database) == (1 if step == 1 else 2)  # opening the store finishes what was decided
    if step > 1:
        (aside,) = tmp_path.glob("before-restore-*")
        assert count(aside / "gateway.db") == 1


def test_what_was_only_prepared_counts_for_nothing(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    database = prepare(tmp_path, open_store)
    assert count(database) == 1
    swap.clear(swap.being_prepared(database))
    assert not swap.being_prepared(database).exists()


def test_the_place_of_a_backup_is_free_or_has_an_older_one(tmp_path: Path, store: Store) -> None:
    (tmp_path / "text").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert swap.is_free(tmp_path / "new")
    assert swap.is_free(make_backup(store, tmp_path / "older"))
    assert not swap.is_free(tmp_path / "text")
    assert not swap.is_free(tmp_path / "gateway.db")
    assert not swap.is_free(tmp_path / "link")
    assert not swap.is_free(tmp_path)
