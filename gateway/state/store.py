"""The one writer of the store: callers hand in units of work, one thread commits whatever has gathered.

Group commit: while one transaction waits for the disk, the next units gather; they share the next fsync. A unit is
an *operation* (a batch function from `gateway.state`) and an item. Units of the same operation in one gathering are
handed to it together, so that it can write one multi-row statement for a hundred callers.

Durable means: `synchronous=FULL` in WAL mode, and a caller is woken only after COMMIT (and its fsync) has returned.
Exactly one connection in the whole system writes and checkpoints; readers have query-only connections of their own.
SQLite before 3.51.3 can lose commits when two connections write or checkpoint at once; with one it cannot.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import Unavailable
from gateway.model import IdSource
from gateway.state import migrations, raw, swap
from gateway.state.ticket import Ticket, wake

A = TypeVar("A")
R = TypeVar("R")

Operation = Callable[[sqlite3.Connection, Sequence[A]], Sequence[R]]
"""A batch function: writes all items, returns one result an item. Runs inside the writer's transaction."""

_READERS: Final = 2
_TROUBLE_LASTS_SECONDS: Final = 300.0
_CHECKPOINT_IDLE_SECONDS: Final = 0.25
_SQLITE_FULL, _SQLITE_BUSY = 13, 5
# What the world does, not a unit: IOERR, FULL, CANTOPEN, BUSY, NOMEM, CORRUPT, NOTADB
_WORLD: Final = frozenset((10, _SQLITE_FULL, 14, _SQLITE_BUSY, 7, 11, 26))


@dataclass(frozen=True, slots=True)
class Tuning:
    """What cannot be changed without rewriting the file (page size, vacuum), and what goes with it.

    The values are the winners of `benchmarks/store.py --sweep`; the figures stand in DESIGN.md.
    """

    page_bytes: int = 16384  # three usual messages in a page; what is large is written a third faster than with 8 KiB
    auto_vacuum: str = "INCREMENTAL"
    cache_bytes: int = 32 * 1024 * 1024
    checkpoint_wal_bytes: int = 8 * 1024 * 1024  # more stalls callers for longer, less does not commit faster
    synchronous: str = "FULL"
    max_units: int = 500
    max_pages: int | None = None  # a bound for the file: SQLite answers "full" beyond it


@dataclass(frozen=True, slots=True)
class _Unit:
    operation: Operation[Any, Any]
    item: Any
    ticket: Ticket[Any]


Job = Callable[[sqlite3.Connection, Callable[[], None]], R]
"""(the writer's connection, breathe) → a result. Long work outside any transaction; see `Store.run_between`."""


@dataclass(frozen=True, slots=True)
class _LongJob:
    job: Job[Any]
    ticket: Ticket[Any]


def each(function: Callable[[sqlite3.Connection, A], R]) -> Operation[A, R]:
    """Turn a function of one item into an operation, for what is too rare to deserve a multi-row statement."""

    def operation(db: sqlite3.Connection, items: Sequence[A]) -> Sequence[R]:
        return [function(db, item) for item in items]

    operation.__name__ = function.__name__
    operation.__doc__ = function.__doc__
    return operation


class Store:
    """`gateway.db` and the threads that serve it. Every method may be called from every thread."""

    def __init__(self, path: Path, tuning: Tuning, now_ms: Callable[[], int], on_fatal: Callable[[str], None]) -> None:
        self._path = path
        self._tuning = tuning
        self._on_fatal = on_fatal
        self._units: queue.SimpleQueue[_Unit | _LongJob | None] = queue.SimpleQueue()
        self._jobs: deque[_LongJob] = deque()
        self._reads: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Ticket[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._closed = False
        self._broken: str | None = None
        self._refused: tuple[str, float] | None = None  # the disk's last no, and when (monotonic seconds)
        self._busy_since: float | None = None
        self._commits = 0
        self._migrated: list[str] = []
        self._db = self._connect()
        self.swept = 0
        try:
            self.swept = self._prepare()
            self.ids = IdSource(_last_id(self._db), now_ms)
        except BaseException:
            self._db.close()
            raise
        # Non-daemon threads: the interpreter must not leave while a commit is under way.
        self._writer = threading.Thread(target=self._write_until_closed, name="store-writer")
        self._readers = [
            threading.Thread(target=self._read_until_closed, name=f"store-reader-{n}") for n in range(_READERS)
        ]
        for thread in (self._writer, *self._readers):
            thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        tuning: Tuning | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> Store:
        """Open or create the file, migrate it, sweep orphans, start the threads. A restore that was decided and cut
        short is finished first.

        The caller holds the `flock` on the state directory. Raises Unavailable when the file cannot be used.
        `on_fatal` is called from the writer thread when the store can never commit again; the daemon must end.
        """
        swap.finish(path)
        try:
            return cls(path, tuning or Tuning(), now_ms, on_fatal)
        except sqlite3.Error as error:
            raise _unavailable(path, error) from error

    # --- what callers use --------------------------------------------------------------------------------------------

    def submit(self, operation: Operation[A, R], item: A) -> Ticket[R]:
        """Hand in one unit of work; the ticket is done once it is on disk, or has failed.

        Units that wait together may commit in any order: await the first where order matters. Giving up the wait
        does not take the unit back. An operation that raises is undone and its units are run one by one, so that
        only the poisoned one gets its exception; a disk that is full or broken raises Unavailable for all.
        """
        ticket: Ticket[R] = Ticket()
        with self._lock:  # so that nothing can slip in behind the writer's last look at the queue
            if self._closed:
                raise Unavailable("the store is closed; the daemon is stopping")
            self._units.put(_Unit(operation, item, ticket))
        return ticket

    def read(self, function: Callable[..., R], *args: object) -> Ticket[R]:
        """Run `function(db, *args)` on a query-only connection in a reader thread. Keep it short: a long read holds
        the log open."""
        ticket: Ticket[R] = Ticket()
        with self._lock:
            if self._closed:
                raise Unavailable("the store is closed; the daemon is stopping")
            self._reads.put((function, args, ticket))
        return ticket

    def run_between(self, job: Job[R]) -> Ticket[R]:
        """Run a long job (a backup) on the writer's connection, between batches and outside any transaction.

        It calls `breathe` now and then: there the units that wait are committed as ever, so no caller waits for longer
        than from one breath to the next. One job at a time. `breathe` raises Unavailable once the store is closing.
        """
        ticket: Ticket[R] = Ticket()
        with self._lock:
            if self._closed:
                raise Unavailable("the store is closed; the daemon is stopping")
            self._units.put(_LongJob(job, ticket))
        return ticket

    def close(self) -> None:
        """Commit what was submitted, checkpoint, end the threads. Blocking; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._units.put(None)
            for _ in self._readers:
                self._reads.put(None)
        for thread in (*self._readers, self._writer):
            thread.join()

    @property
    def busy_seconds(self) -> float:
        """How long the writer has been inside the batch it is working on; 0.0 while it waits. For the watchdog."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def trouble(self) -> str | None:
        """What the disk said when it last refused a commit; None when that is long ago. One line, with the remedy.

        A small commit may still find room on a full disk, so that one has succeeded since does not end the trouble.
        """
        refused = self._refused
        if refused is None or time.monotonic() - refused[1] > _TROUBLE_LASTS_SECONDS:
            return None
        return refused[0]

    @property
    def commits(self) -> int:
        """Transactions committed since start."""
        return self._commits

    @property
    def migrations_run(self) -> tuple[str, ...]:
        return tuple(self._migrated)

    # --- the writer --------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        # The connection moves to the writer thread after the start and is never shared.
        return sqlite3.connect(self._path, isolation_level=None, timeout=10, check_same_thread=False)

    def _prepare(self) -> int:
        db, tuning = self._db, self._tuning
        swap.refuse_backup(db, self._path)
        # page_size and auto_vacuum count only before the first table exists; later they say what the file has
        db.execute(f"PRAGMA page_size = {tuning.page_bytes}")
        db.execute(f"PRAGMA auto_vacuum = {tuning.auto_vacuum}")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise Unavailable(f"{self._path}: the file system does not support SQLite's WAL mode; use a local disk")
        db.execute(f"PRAGMA synchronous = {tuning.synchronous}")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # we checkpoint between batches, never inside a caller's commit
        db.execute(f"PRAGMA journal_size_limit = {tuning.checkpoint_wal_bytes}")
        db.execute(f"PRAGMA cache_size = -{tuning.cache_bytes // 1024}")
        db.execute("PRAGMA temp_store = MEMORY")
        if tuning.max_pages is not None:
            db.execute(f"PRAGMA max_page_count = {tuning.max_pages}")
        migrations.migrate(db, self._migrated.append)
        db.execute("BEGIN IMMEDIATE")
        swept = raw.sweep_orphans(db)
        db.execute("COMMIT")
        return swept

    def _write_until_closed(self) -> None:
        db = self._db
        dirty = False
        while True:
            try:
                first = self._units.get(timeout=0 if self._jobs else _CHECKPOINT_IDLE_SECONDS if dirty else None)
            except queue.Empty:
                if not self._jobs:
                    self._checkpoint("PASSIVE")
                    dirty = False
                    continue
            else:
                units, closing = self._gather(first)
                if units:
                    self._write(units)
                    dirty = True
                if closing:
                    break
            if self._jobs:
                self._run(self._jobs.popleft())
                dirty = True
        for waiting in self._jobs:
            waiting.ticket.settle(None, Unavailable("the store is closed; the daemon is stopping"))
        wake(waiting.ticket for waiting in self._jobs)
        with contextlib.suppress(sqlite3.Error):  # the file is consistent without it; the next start checkpoints
            self._checkpoint("TRUNCATE")
        db.close()

    def _write(self, units: Sequence[_Unit]) -> None:
        self._busy_since = time.monotonic()
        self._commit(units)
        if self._wal_bytes() > self._tuning.checkpoint_wal_bytes:
            self._checkpoint("PASSIVE")  # never waits for a reader
        self._busy_since = None

    def _run(self, long: _LongJob) -> None:
        def breathe() -> None:
            try:
                first = self._units.get_nowait()
            except queue.Empty:
                self._busy_since = time.monotonic()
                return
            units, closing = self._gather(first)
            if units:
                self._write(units)
            self._busy_since = time.monotonic()
            if closing:
                self._units.put(None)  # nothing comes behind it; the writer ends when the job has
                raise Unavailable("the daemon is stopping")

        self._busy_since = time.monotonic()
        try:
            long.ticket.settle(long.job(self._db, breathe), None)
        except Exception as error:
            long.ticket.settle(None, error)
        self._busy_since = None
        wake((long.ticket,))

    def _gather(self, first: _Unit | _LongJob | None) -> tuple[list[_Unit], bool]:
        """Return the units that wait, and whether the store is closing. Long jobs are put aside."""
        units: list[_Unit] = []
        unit = first
        while True:
            if unit is None:
                return units, True
            if isinstance(unit, _LongJob):
                self._jobs.append(unit)
                return units, False
            units.append(unit)
            if len(units) >= self._tuning.max_units:
                return units, False
            try:
                unit = self._units.get_nowait()
            except queue.Empty:
                return units, False

    def _commit(self, units: Sequence[_Unit]) -> None:
        if self._broken is not None:
            _fail(units, Unavailable(self._broken))
            return
        try:
            results = self._transaction(units)
        except sqlite3.Error as error:
            if _is_about_the_disk(error):
                self._disk_trouble(units, error)
                return
            self._commit_one_by_one(units, error)
        except Exception as error:
            self._commit_one_by_one(units, error)
        else:
            for unit, result in zip(units, results, strict=True):
                unit.ticket.settle(result, None)
            wake(unit.ticket for unit in units)

    def _commit_one_by_one(self, units: Sequence[_Unit], error: Exception) -> None:
        if len(units) == 1:
            _fail(units, error)
            return
        for unit in units:
            self._commit([unit])

    def _transaction(self, units: Sequence[_Unit]) -> list[Any]:
        """Write all units and commit; return their results in order. Raises with everything rolled back."""
        db = self._db
        by_operation: dict[Operation[Any, Any], list[int]] = {}
        for index, unit in enumerate(units):
            by_operation.setdefault(unit.operation, []).append(index)
        results: list[Any] = [None] * len(units)
        try:
            db.execute("BEGIN IMMEDIATE")
            for operation, indexes in by_operation.items():
                answers = operation(db, [units[index].item for index in indexes])
                if len(answers) != len(indexes):
                    raise RuntimeError(f"{operation.__name__}: {len(answers)} results for {len(indexes)} items")
                for index, answer in zip(indexes, answers, strict=True):
                    results[index] = answer
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                    db.execute("ROLLBACK")
            raise
        self._commits += 1
        return results

    def _disk_trouble(self, units: Sequence[_Unit], error: sqlite3.Error) -> None:
        unavailable = _unavailable(self._path, error)
        self._refused = (str(unavailable), time.monotonic())
        if _is_fsync_failure(error):
            # After a failed fsync the kernel may have dropped the pages and call the next one a success. Only a
            # fresh process that reads back what is really there can go on.
            self._broken = str(unavailable)
            self._on_fatal(self._broken)
        _fail(units, unavailable)

    def _wal_bytes(self) -> int:
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except OSError:
            return 0

    def _checkpoint(self, mode: str) -> None:
        try:
            self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            # A full disk shows here first. Nothing is lost: the log still holds every commit.
            if _is_fsync_failure(error):
                self._broken = str(_unavailable(self._path, error))
                self._on_fatal(self._broken)

    # --- the readers -------------------------------------------------------------------------------------------------

    def _read_until_closed(self) -> None:
        db: sqlite3.Connection | None = None
        while (request := self._reads.get()) is not None:
            function, args, ticket = request
            try:
                if db is None:
                    db = self._connect()
                    db.execute("PRAGMA query_only = ON")
                    db.execute("PRAGMA wal_autocheckpoint = 0")
                db.execute("BEGIN")  # one snapshot for all that the function asks
                try:
                    ticket.settle(function(db, *args), None)
                finally:
                    db.execute("ROLLBACK")
            except sqlite3.Error as error:
                ticket.settle(None, _unavailable(self._path, error) if _is_about_the_disk(error) else error)
            except Exception as error:
                ticket.settle(None, error)
            wake((ticket,))
        if db is not None:
            db.close()


def _last_id(db: sqlite3.Connection) -> int:
    (last,) = db.execute(
        "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(id) FROM conversation), 0),"
        " coalesce((SELECT max(id) FROM outbox), 0))"
    ).fetchone()
    return int(last)


def _fail(units: Sequence[_Unit], error: Exception) -> None:
    for unit in units:
        unit.ticket.settle(None, error)
    wake(unit.ticket for unit in units)


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_about_the_disk(error: sqlite3.Error) -> bool:
    return _primary_code(error) in _WORLD


def _is_fsync_failure(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")


def _unavailable(path: Path, error: sqlite3.Error) -> Unavailable:
    if _primary_code(error) == _SQLITE_FULL:
        return Unavailable(f"{path}: the disk is full; free some space, nothing accepted is lost")
    if _primary_code(error) == _SQLITE_BUSY:
        return Unavailable(f"{path}: another program holds the file; end it, only the gateway may have it open")
    return Unavailable(f"{path}: {error}; look at the disk and the file's permissions")
