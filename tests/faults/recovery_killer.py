"""Runs a backup or a restore again and again, each time in a process that is killed at its next step.

A step is a file opened, renamed, removed or a directory made below the place that is worked in. Prints a JSON line
for each death: the step, what it was, and what is there afterwards. Not a test: test_backup_kills.py runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from gateway import config, recovery
from gateway.state import backup, swap
from gateway.state.store import Store
from tests.support.outgoing import accept, listed

_STEPS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"})


def make_site(home: Path) -> Path:
    """Lay out a store with one message, a backup (of one with two), and another backup that is to be replaced."""
    home.mkdir()
    (home / "rules.toml").write_text("")
    path = home / "gateway.toml"
    path.write_text(f'hostname = "g.example"\nstate_dir = "{home}/state"\n')
    (home / "state").mkdir()
    store = Store.open(home / "state" / "gateway.db")
    accept(store)
    accept(store)
    _back_up(path, store, home / "two.db")
    store.close()
    (home / "state" / "gateway.db").unlink()
    store = Store.open(home / "state" / "gateway.db")
    accept(store)
    _back_up(path, store, home / "one.db")
    for ending in ("", "-wal", "-shm"):  # as a kill leaves it: with what was committed in the log alone
        shutil.copy(home / "state" / f"gateway.db{ending}", home / f"saved{ending}")
    store.close()
    for ending in ("", "-wal", "-shm"):
        (home / f"saved{ending}").rename(home / "state" / f"gateway.db{ending}")
    return path


def _back_up(path: Path, store: Store, file: Path) -> None:
    trio.run(recovery.back_up, store, config.load(path), file)


def back_up(path: Path) -> None:
    store = Store.open(path.parent / "state" / "gateway.db")
    try:
        _back_up(path, store, path.parent / "two.db")  # takes the place of one of two messages
    finally:
        store.close()


def restore(path: Path) -> None:
    recovery.restore(path, path.parent / "two.db")


def die_at(step: int, home: Path, tell: int) -> None:
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _STEPS or not any(str(home) in str(arg) for arg in args[:2]):
            return
        seen += 1
        if seen == step:
            os.write(tell, f"{event} {args[0]}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def messages_in(database: Path) -> int:
    store = Store.open(database)
    try:
        return len(listed(store))
    finally:
        store.close()


def look(home: Path) -> dict[str, Any]:
    """Return what is there: messages in the backup, in the store (opened as the next start would), kept aside."""
    two = home / "two.db"
    assert swap.is_backup(two.read_bytes()[:100])
    backup.read(two, two)
    shutil.copy(two, home / "looked-at")
    backup.make_store(home / "looked-at", 1, None)
    found: dict[str, Any] = {"backup": messages_in(home / "looked-at")}
    database = home / "state" / "gateway.db"
    found["store"] = messages_in(database)
    store = Store.open(database)
    found["held"] = sum(message["recipients"][0]["state"] == "held" for message in listed(store))
    found["restored"] = store.read(backup.between).result(10) is not None
    store.close()
    found["aside"] = [messages_in(path / "gateway.db") for path in sorted((home / "state").glob("before-restore-*"))]
    found["left_over"] = sorted(path.name for path in home.rglob("*") if ".tmp" in path.name or "restor" in path.suffix)
    return found


def main(work: Callable[[Path], None], place: Path) -> None:
    path = make_site(place / "model")
    step = 0
    while True:
        step += 1
        home = place / "site"
        shutil.copytree(place / "model", home)
        path = home / "gateway.toml"
        path.write_text(path.read_text().replace("/model/", "/site/"))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            die_at(step, home, writer)
            work(path)
            os._exit(0)
        os.close(writer)
        what = os.read(reader, 1000).decode()
        os.close(reader)
        _, status = os.waitpid(child, 0)
        found = look(home)
        again = None
        if status:
            work(path)  # whatever was left, the next try works
            again = look(home)
        print(json.dumps({"step": step, "what": what, "status": status, **found, "again": again}), flush=True)
        shutil.rmtree(home)
        if status == 0:
            return


if __name__ == "__main__":
    main({"backup": back_up, "restore": restore}[sys.argv[1]], Path(sys.argv[2]))
