"""Durable commits per second of the store: 1, 10 and 100 concurrent callers; quiet, beside a thread that burns
Python, and with the burning done in a worker process. `--sweep` compares what cannot be changed after the first
release: page size, vacuum mode, cache and checkpoint size.

    python benchmarks/store.py [--seconds 3] [--sweep] [--directory DIR]

A commit is one caller's unit (a message row with its 4 KiB of bytes) that is on disk when the caller goes on.
Callers are tasks of one event loop, as in the daemon; p99 is the time a caller waited for its batch.
The peer is SQLite driven by hand, one transaction a row.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import uvloop

from gateway.state import raw
from gateway.state.rows import insert_many
from gateway.state.store import Store, Tuning

BODY = os.urandom(4096)
INSERT = "INSERT INTO message (id, touchpoint, origin, state, tries, size, internal_at, arrived_at, fingerprint)"


def put(db: sqlite3.Connection, ids: Sequence[int]) -> Sequence[None]:
    raw.insert(db, [(raw.chunk_key(number, 0), BODY) for number in ids])
    insert_many(
        db, INSERT, [(number, "support", "queue", "arrived", 1, 4096, 0, 0, hash((number, 1))) for number in ids]
    )
    return [None] * len(ids)


class Burner(AbstractContextManager[None]):
    """One thread or one process that does nothing but pure Python."""

    def __init__(self, in_process: bool) -> None:
        self._in_process = in_process
        self._stop = threading.Event()

    def __enter__(self) -> None:
        if self._in_process:
            self._process = multiprocessing.get_context("spawn").Process(target=_burn_for_ever, daemon=True)
            self._process.start()
            time.sleep(0.5)  # until it has imported what it needs
        else:
            self._thread = threading.Thread(target=self._burn)
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._in_process:
            self._process.kill()
            self._process.join()
        else:
            self._stop.set()
            self._thread.join()

    def _burn(self) -> None:
        while not self._stop.is_set():
            sum(range(1000))


def _burn_for_ever() -> None:
    while True:
        sum(range(1000))


def measure(directory: Path, callers: int, seconds: float, tuning: Tuning) -> tuple[float, float]:
    """Return (commits per second, p99 of a caller's wait in ms)."""
    with tempfile.TemporaryDirectory(dir=directory) as state:
        store = Store.open(Path(state) / "gateway.db", tuning=tuning)
        waits: list[float] = []

        async def call(until: float) -> None:
            while (begun := time.monotonic()) < until:
                await store.submit(put, store.ids.next())
                waits.append(time.monotonic() - begun)

        async def all_callers() -> float:
            begun = time.monotonic()
            await asyncio.gather(*(call(begun + seconds) for _ in range(callers)))
            return time.monotonic() - begun

        took = uvloop.run(all_callers())
        store.close()
    return len(waits) / took, statistics.quantiles(waits, n=100)[98] * 1000


def by_hand(directory: Path, seconds: float) -> float:
    with tempfile.TemporaryDirectory(dir=directory) as state:
        store = Store.open(Path(state) / "gateway.db")  # for the schema
        store.close()
        db = sqlite3.connect(Path(state) / "gateway.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        count, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            count += 1
            db.execute("BEGIN IMMEDIATE")
            put(db, [count])
            db.execute("COMMIT")
        db.close()
    return count / seconds


def table(directory: Path, seconds: float) -> bool:
    peer = by_hand(directory, seconds)
    print(f"SQLite by hand, one caller, one row a transaction: {peer:,.0f} commits/s")
    print(f"{'callers':>8} {'beside':<16} {'commits/s':>10} {'ratio':>6} {'p99 ms':>8}")
    held = True
    cases: list[tuple[str, Callable[[], AbstractContextManager[None]]]] = [
        ("nothing", nullcontext),
        ("burning thread", lambda: Burner(in_process=False)),
        ("burning process", lambda: Burner(in_process=True)),
    ]
    for beside, burner in cases:
        for callers in (1, 10, 100):
            with burner():
                rate, p99 = measure(directory, callers, seconds, Tuning())
            print(f"{callers:>8} {beside:<16} {rate:>10,.0f} {rate / peer:>6.2f} {p99:>8.1f}")
            if callers == 100:
                held = held and rate >= 1000 and p99 <= 50
    return held


def sweep(directory: Path, seconds: float) -> None:
    print(f"{'page':>6} {'vacuum':<12} {'cache':>6} {'log':>6} {'1 caller/s':>11} {'100 callers/s':>14} {'p99 ms':>8}")
    for page in (4096, 8192, 16384, 32768):
        _row(directory, seconds, Tuning(page_bytes=page))
    for vacuum in ("NONE", "FULL"):
        _row(directory, seconds, Tuning(auto_vacuum=vacuum))
    for cache in (8, 128):
        _row(directory, seconds, Tuning(cache_bytes=cache << 20))
    for log in (4, 16, 256):
        _row(directory, seconds, Tuning(checkpoint_wal_bytes=log << 20))


def _row(directory: Path, seconds: float, tuning: Tuning) -> None:
    one, _ = measure(directory, 1, seconds, tuning)
    many, p99 = measure(directory, 100, seconds, tuning)
    print(
        f"{tuning.page_bytes:>6} {tuning.auto_vacuum:<12} {tuning.cache_bytes >> 20:>5}M"
        f" {tuning.checkpoint_wal_bytes >> 20:>5}M {one:>11,.0f} {many:>14,.0f} {p99:>8.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to measure")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as the daemon does
    if options.sweep:
        sweep(options.directory, options.seconds)
        return 0
    return 0 if table(options.directory, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
