"""The instrument is tested before it is believed: it must find what is known to be lost, and nothing else."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.powercut import (
    NOTHING,
    Kind,
    Surviving,
    lay_out_cuts,
    promises,
    read_journal,
    shim_environment,
)

_PROGRAM = """
import socket, sqlite3, sys
here, there = socket.socketpair()
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = " + sys.argv[2])
db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)")
for n in range(200):
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES (?, randomblob(3000))", (n,))
    db.execute("COMMIT")
    here.send(b"250 2.0.0 queued as %d\\r\\n" % n)
    if n % 60 == 59:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""


def lost_after_cuts(shim: Path, directory: Path, synchronous: str, surviving: Surviving) -> tuple[int, int]:
    """Return (promises broken, files broken) over forty cuts, each right behind a promise or anywhere."""
    state, images = directory / "state", directory / "images"
    state.mkdir()
    images.mkdir()
    environment = os.environ | shim_environment(shim, state, directory / "journal")
    subprocess.run([sys.executable, "-c", _PROGRAM, str(state / "t.db"), synchronous], env=environment, check=True)
    records = read_journal(directory / "journal")
    kept = [number + 1 for number, record in enumerate(records) if record.kind is Kind.PROMISE]
    dice = random.Random(1)
    cuts = dice.sample(kept, 20) + dice.sample(range(kept[0], len(records)), 20)
    lost = broken = 0
    for place, cut in lay_out_cuts(records, state, [(cut, surviving) for cut in cuts], images, seed=2):
        promised = {int(id) for id in promises(records[:cut])}
        db = sqlite3.connect(place / "t.db")
        try:
            found = {n for (n,) in db.execute("SELECT n FROM t")}
            broken += db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        except sqlite3.DatabaseError:
            found = set()
        finally:
            db.close()
        lost += len(promised - found)
    return lost, broken


@pytest.mark.parametrize(
    "surviving",
    [NOTHING, Surviving(1.0), Surviving(0.5), Surviving(0.5, 512), Surviving(0.7, 4096)],
    ids=["nothing", "everything", "some-writes", "torn-at-512", "torn-at-4096"],
)
def test_a_store_that_syncs_each_commit_keeps_every_promise(shim: Path, tmp_path: Path, surviving: Surviving) -> None:
    assert lost_after_cuts(shim, tmp_path, "FULL", surviving) == (0, 0)


def test_a_store_that_syncs_only_at_checkpoints_is_found_out(shim: Path, tmp_path: Path) -> None:
    lost, broken = lost_after_cuts(shim, tmp_path, "NORMAL", NOTHING)
    assert lost > 0
    assert broken == 0


def test_a_store_that_never_syncs_is_found_out(shim: Path, tmp_path: Path) -> None:
    lost, _ = lost_after_cuts(shim, tmp_path, "OFF", Surviving(0.5, 512))
    assert lost > 0


def test_a_plain_file_is_rebuilt_byte_for_byte_when_everything_survives(shim: Path, tmp_path: Path) -> None:
    state, images = tmp_path / "state", tmp_path / "images"
    state.mkdir()
    images.mkdir()
    play = """
import os, sys
os.chdir(sys.argv[1])
with open("a", "wb") as f:
    f.write(b"x" * 10_000); f.flush(); f.seek(5_000); f.write(b"y" * 3); f.flush(); f.truncate(9_000)
with open("a", "ab") as f:
    f.write(b"end")
os.rename("a", "b")
with open("gone", "wb") as f:
    f.write(b"z")
os.unlink("gone")
with open("b", "rb") as f:
    f.read()
"""
    environment = os.environ | shim_environment(shim, state, tmp_path / "journal")
    subprocess.run([sys.executable, "-c", play, str(state)], env=environment, check=True)
    records = read_journal(tmp_path / "journal")
    whole = [(len(records), Surviving(1.0)), (len(records), NOTHING)]
    (everything, _), (nothing, _) = lay_out_cuts(records, state, whole, images, seed=3)
    assert {path.name: path.read_bytes() for path in everything.iterdir()} == {"b": (state / "b").read_bytes()}
    assert list(nothing.iterdir()) == []
