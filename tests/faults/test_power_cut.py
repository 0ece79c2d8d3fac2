"""The power goes at any moment: what was promised is on the disk. A store that cheats is caught by the same test."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.model import read_id
from gateway.state import raw
from tests.support.daemon import Daemon, Site
from tests.support.letters import repeated
from tests.support.powercut import (
    NOTHING,
    Kind,
    Record,
    Surviving,
    lay_out_cuts,
    promises,
    read_journal,
    shim_environment,
)
from tests.support.provider import CUSTOMER, Provider
from tests.support.sink import Sink, Taken
from tests.support.traffic import Senders, customers_write
from tests.support.waiting import wait_until

SABOTAGE = str(Path(__file__).parent / "sabotage.py")
SURVIVING = (NOTHING, NOTHING, Surviving(0.5), Surviving(0.5, 512), Surviving(0.8, 4096), Surviving(1.0))


@dataclass
class Play:
    """A busy time of the daemon, and everything it asked of its disk meanwhile."""

    site: Site
    state_dir: Path
    records: list[Record]
    senders: Senders
    written: list[str]  # Message-IDs of customers' letters
    taken: list[Taken]  # by the provider; the note is the length of the journal at the dot


def play(
    name: str,
    provider: Provider,
    make_daemon: Callable[..., Daemon],
    shim: Path,
    directory: Path,
    program: Sequence[str] = ("-m", "gateway"),
) -> Play:
    journal = directory / "journal"
    sink = Sink(on_dot=lambda: journal.stat().st_size)
    smtp = f"smtp+insecure://127.0.0.1:{sink.port}"
    site = Site([provider.touchpoint(name, "both", tls=False, history="all", smtp=smtp)])
    site.add_agent("ana@gateway.example", "secret", [name])
    daemon = make_daemon(site, program=program)
    daemon.more_env = shim_environment(shim, daemon.state_dir, journal)
    address = f"{name}@support.example"
    senders = Senders(daemon, "ana@gateway.example", "secret", address, CUSTOMER, threads=4)
    written: list[str] = []
    try:
        daemon.start()
        with senders.sending(), customers_write(lambda letter: provider.dovecot.deliver(address, letter), written):
            wait_until(
                lambda: len(senders.promised) > 150 and len(written) > 40 and len(sink.taken) > 100,
                "a busy time",
                timeout=60,
                state=lambda: (len(senders.promised), len(written), len(sink.taken), daemon.log_tail()),
            )
            daemon.kill()
    finally:
        sink.close()
    return Play(site, daemon.state_dir, read_journal(journal), senders, written, list(sink.taken))


def cuts_of(records: Sequence[Record], count: int, seed: int) -> list[tuple[int, Surviving]]:
    """Half of the cuts right behind a promise, where the temptation is greatest, half anywhere."""
    dice = random.Random(seed)
    telling = [number + 1 for number, record in enumerate(records) if record.kind is Kind.PROMISE]
    anywhere = range(telling[0], len(records))
    chosen = dice.sample(telling, count // 2) + dice.sample(anywhere, count - count // 2)
    return [(cut, dice.choice(SURVIVING)) for cut in chosen]


def find_broken_promises(image: Path, played: Play, cut: int) -> list[str]:
    """Return what a look into the store after the cut finds missing, in words."""
    if not (image / "gateway.db").exists():
        return [f"no store at all, {len(promises(played.records[:cut]))} promises"]
    with tempfile.TemporaryDirectory() as scratch:  # to look is to recover, and that is the daemon's business
        shutil.copytree(image, scratch, dirs_exist_ok=True)
        return _look(Path(scratch), played, cut)


def _look(image: Path, played: Play, cut: int) -> list[str]:
    db = sqlite3.connect(image / "gateway.db")
    try:
        if (found := db.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            return [f"the file is damaged: {found}"]
        return [*_lost_submissions(db, played, cut), *_lost_arrivals(db), *_forgotten_attempts(db, played, cut)]
    except sqlite3.OperationalError as error:
        return [f"the store cannot be read: {error}"]
    finally:
        db.close()


def _lost_submissions(db: sqlite3.Connection, played: Play, cut: int) -> list[str]:
    lost = []
    for id in promises(played.records[:cut]):
        number = read_id(id)
        assert number is not None
        row = db.execute("SELECT message_id, size FROM outbox WHERE id = ?", (number,)).fetchone()
        recipients = db.execute("SELECT count(*) FROM recipient WHERE outbox = ?", (number,)).fetchone()[0]
        bytes_there = raw.load(db, number)
        if row is None or not recipients or bytes_there is None or len(bytes_there) != row[1]:
            lost.append(f"accepted {id} is not there: {row}, {recipients} recipients")
    return lost


def _lost_arrivals(db: sqlite3.Connection) -> list[str]:
    """The cursor and what it counts are one: nothing at or below it is missing."""
    lost = []
    for touchpoint, cursor in db.execute("SELECT touchpoint, cursor FROM folder WHERE folder = 'INBOX'").fetchall():
        rows = db.execute("SELECT uid, message FROM location WHERE touchpoint = ?", (touchpoint,)).fetchall()
        lost += [f"uid {uid} is counted but not there" for uid in set(range(1, cursor + 1)) - {uid for uid, _ in rows}]
        for uid, message in rows:
            size = db.execute("SELECT size FROM message WHERE id = ?", (message,)).fetchone()
            bytes_there = raw.load(db, message)
            if size is None or bytes_there is None or len(bytes_there) != size[0]:
                lost.append(f"uid {uid} is there without its bytes")
    return lost


def _forgotten_attempts(db: sqlite3.Connection, played: Play, cut: int) -> list[str]:
    """What the provider had been given before the cut must not look as if it had never been tried."""
    at = played.records[cut - 1].end
    given = {taken.message_id for taken in played.taken if isinstance(taken.note, int) and taken.note <= at}
    waiting = db.execute(
        "SELECT message_id FROM outbox JOIN recipient ON recipient.outbox = outbox.id"
        " WHERE state IN ('queued', 'deferred')"
    )
    return [f"{id} was given away and waits to be sent" for (id,) in waiting if id in given]


@pytest.mark.timeout(200)
def test_after_a_power_cut_everything_promised_is_there_and_nothing_is_done_twice(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], shim: Path, tmp_path: Path
) -> None:
    played = play("cut", shared_provider, make_daemon, shim, tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    cuts = cuts_of(played.records, 40, seed=7)
    laid_out = list(lay_out_cuts(played.records, played.state_dir, cuts, images, seed=8))
    assert len(promises(played.records)) >= 150
    found = {cut: broken for image, cut in laid_out if (broken := find_broken_promises(image, played, cut))}
    assert found == {}
    for image, cut in random.Random(9).sample(laid_out, 3):
        the_daemon_goes_on_from(image, cut, played, make_daemon)


def the_daemon_goes_on_from(image: Path, cut: int, played: Play, make_daemon: Callable[..., Daemon]) -> None:
    """Start the daemon on what the cut left: all customers' letters once, all promises kept, none kept twice."""
    at = played.records[cut - 1].end
    before = {taken.message_id for taken in played.taken if isinstance(taken.note, int) and taken.note <= at}
    sink = Sink()
    try:
        played.site.touchpoints[0]["smtp"] = f"smtp+insecure://127.0.0.1:{sink.port}"
        daemon = make_daemon(played.site, state=image)
        daemon.start()

        def ids() -> list[str]:
            return [id for conversation in daemon.conversations() for id in conversation["message_ids"]]

        wait_until(lambda: len(ids()) >= len(played.written), "all letters", timeout=30, state=daemon.log_tail)
        assert sorted(ids()) == sorted(played.written)

        def states() -> dict[str, str]:
            return {message["message_id"]: message["recipients"][0]["state"] for message in daemon.outbox()}

        def waiting() -> set[str]:
            daemon.ask("outbox.retry")  # what was put off before the cut is due at once
            return {id for id, state in states().items() if state not in ("delivered", "uncertain")}

        wait_until(lambda: not waiting(), "all is out", timeout=30, every=0.5, state=daemon.log_tail)
        promised = {message["id"] for message in daemon.outbox()}
        assert set(promises(played.records[:cut])) <= promised
        assert repeated(sink.message_ids) == {}
        assert before & set(sink.message_ids) == set()
        assert daemon.stop() == 0
    finally:
        sink.close()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("sabotage", ["normal", "early"])
def test_the_test_above_catches_a_store_that_does_not_ask_the_disk(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], shim: Path, tmp_path: Path, sabotage: str
) -> None:
    played = play(f"cut{sabotage}", shared_provider, make_daemon, shim, tmp_path, (SABOTAGE, sabotage))
    images = tmp_path / "images"
    images.mkdir()
    cuts = [(cut, NOTHING) for cut, _ in cuts_of(played.records, 40, seed=7)]
    laid_out = lay_out_cuts(played.records, played.state_dir, cuts, images, seed=8)
    broken = [problem for image, cut in laid_out for problem in find_broken_promises(image, played, cut)]
    assert [problem for problem in broken if problem.startswith("accepted")]
