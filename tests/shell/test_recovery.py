"""`backup` and `restore` as an operator uses them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from collections import namedtuple
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import config, recovery
from gateway.cli.main import main
from gateway.errors import CommandError, Unavailable
from gateway.state import backup
from gateway.state.lock import StateLock
from gateway.state.store import Store
from tests.support import dkim_keys, outgoing
from tests.support.daemon import Daemon, Site
from tests.support.waiting import wait_until

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
active = true
direction = "outbound"
smtp = "smtp+insecure://127.0.0.1:9"
password = "file:secrets/support"
dkim = { selector = "s1", domain = "example.com", private_key = "file:secrets/dkim.pem" }

[touchpoint.signature]
html = "file:signatures/support.html"
"""
HTML = '<p>Regards</p><img src="file:logo.png">'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(100))


@dataclass(frozen=True)
class Done:
    exit_code: int
    out: str
    err: str


class Place:
    """A site in `home`, no daemon running."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home / "site"
        (self.home / "secrets").mkdir(parents=True)
        (self.home / "signatures").mkdir()
        self.config = self.home / "gateway.toml"
        self.state_dir = self.home / "state"
        self.config.write_text(f'hostname = "g.example"\nstate_dir = "{self.state_dir}"\n[http]\nlisten = ""\n')
        (self.home / "rules.toml").write_text(RULES)
        (self.home / "secrets" / "support").write_text("hunter2")
        (self.home / "secrets" / "dkim.pem").write_text(dkim_keys.pem_of(dkim_keys.rsa()))
        (self.home / "signatures" / "support.html").write_text(HTML)
        (self.home / "signatures" / "logo.png").write_bytes(PNG)
        for path in (self.home / "secrets").iterdir():
            path.chmod(0o600)
        self.file = home / "backup.db"
        self._capture = capture

    def __call__(self, *words: str | Path) -> Done:
        self._capture.readouterr()
        exit_code = main([*map(str, words), "--config", str(self.config)])
        return Done(exit_code, *self._capture.readouterr())

    def accept(self, *recipients: str) -> int:
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        store = Store.open(self.state_dir / "gateway.db")
        try:
            return outgoing.accept(store, *recipients)
        finally:
            store.close()

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("outbox", "list", "--all", "--json").out)
        return found


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("MAIL_GATEWAY_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path, capsys)


def one_line(done: Done) -> str:
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("mail-gateway: ")
    return done.err


# --- backup ----------------------------------------------------------------------------------------------------------


def test_a_backup_is_one_file_for_nobody_else_to_read(place: Place) -> None:
    place.accept()
    done = place("backup", place.file)
    assert (done.exit_code, done.err) == (0, "")
    assert str(place.file) in done.out
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    assert [path.name for path in place.home.parent.iterdir() if path.is_file()] == ["backup.db"]


def test_a_backup_has_the_configuration_and_no_secret(place: Place) -> None:
    done = place("backup", place.file)
    _, files = backup.read(place.file, place.file)
    assert {file.path: file.content for file in files} == {
        place.config: place.config.read_bytes(),
        place.home / "rules.toml": RULES.encode(),
        place.home / "signatures" / "support.html": HTML.encode(),
        place.home / "signatures" / "logo.png": PNG,
    }
    assert "secrets/support (password of support)" in done.out
    assert "secrets/dkim.pem (DKIM key of support)" in done.out
    assert b"hunter2" not in place.file.read_bytes()
    assert b"PRIVATE KEY" not in place.file.read_bytes()


def test_a_backup_for_programs(place: Place) -> None:
    found = json.loads(place("backup", place.file, "--json").out)
    assert found.keys() == {"file", "backed_up_at", "size", "left_out"}
    assert found["size"] == place.file.stat().st_size
    assert len(found["left_out"]) == 2


def test_a_relative_name_is_where_the_command_was_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.home.parent)
    assert place("backup", "here.db").exit_code == 0
    assert (place.home.parent / "here.db").is_file()


def test_a_newer_backup_takes_the_place_of_an_older_one(place: Place) -> None:
    assert place("backup", place.file).exit_code == 0
    old = place.file.stat().st_ino
    place.accept()
    assert place("backup", place.file).exit_code == 0
    assert place.file.stat().st_ino != old


@pytest.mark.parametrize(
    ("name", "words", "exit_code"),
    [
        ("site/state/gateway.db", "is the gateway's own", 2),
        ("site/state/gateway.db-wal", "is the gateway's own", 2),
        ("site/state/gateway.db.restored", "is the gateway's own", 2),
        ("site/state/lock", "is the gateway's own", 2),
        ("link/gateway.db", "is the gateway's own", 2),
        ("site/rules.toml", "is there and no backup of ours", 2),
        ("site", "is there and no backup of ours", 2),
        ("dangling", "is there and no backup of ours", 2),
        ("nowhere/backup.db", "no such file or directory; it may write below", 75),
    ],
)
def test_a_place_that_it_may_not_have_is_refused_in_one_line(
    place: Place, name: str, words: str, exit_code: int
) -> None:
    place.accept()
    home = place.home.parent
    (home / "link").symlink_to(place.state_dir)
    (home / "dangling").symlink_to(home / "nothing")
    done = place("backup", home / name)
    assert done.exit_code == exit_code
    assert words in one_line(done)
    assert len(place.listed()) == 1
    assert (place.home / "rules.toml").read_text() == RULES
    assert not list(home.rglob("*.tmp"))


def test_a_backup_may_lie_in_the_state_directory(place: Place) -> None:
    place.accept()
    assert place("backup", place.state_dir / "backup.db").exit_code == 0


def test_too_little_space_is_said_with_numbers_before_anything_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10_000_000))
    done = place("backup", place.file)
    assert done.exit_code == 75
    assert "it takes 1 MB, and of 10 MB that are free 67 MB stay so" in one_line(done)
    assert not place.file.exists()


def test_a_disk_that_fills_up_leaves_no_half_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place("backup", place.file).exit_code == 0
    old = place.file.read_bytes()
    place.accept()
    real = sqlite3.connect

    def connect(path: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = real(path, *args, **options)
        if str(path).endswith(".tmp"):
            db.execute("PRAGMA max_page_count = 10")
        return db

    monkeypatch.setattr(sqlite3, "connect", connect)
    done = place("backup", place.file)
    assert done.exit_code == 75
    assert "the disk is full; free some space" in one_line(done)
    assert place.file.read_bytes() == old
    assert not list(place.home.parent.glob("*.tmp*"))


def test_two_backups_to_one_place_do_not_meet(tmp_path: Path, place: Place) -> None:
    store = Store.open(tmp_path / "gateway.db")
    current = config.load(place.config)
    results: list[object] = []

    async def one() -> None:
        try:
            results.append(await recovery.back_up(store, current, place.file))
        except CommandError as error:
            results.append((error.exit_code, str(error)))

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)

    try:
        trio.run(both)
    finally:
        store.close()
    refused = [each for each in results if isinstance(each, tuple)]
    assert len(refused) == 1
    assert refused[0][0] == 75
    assert "is being written already" in refused[0][1]
    backup.read(place.file, place.file)


def test_a_backup_that_is_given_up_leaves_nothing(tmp_path: Path, place: Place) -> None:
    store = Store.open(tmp_path / "gateway.db")

    async def give_up() -> None:
        with trio.move_on_after(0.001):
            await recovery.back_up(store, config.load(place.config), place.file)

    try:
        trio.run(give_up)
    finally:
        store.close()
    assert not list(place.home.parent.glob("*.tmp"))


def test_rules_that_are_no_good_are_backed_up_as_they_are(place: Place) -> None:
    (place.home / "rules.toml").write_text("no toml")
    assert place("backup", place.file).exit_code == 0
    _, files = backup.read(place.file, place.file)
    assert {file.path.name: file.content for file in files}["rules.toml"] == b"no toml"


# --- restore ---------------------------------------------------------------------------------------------------------


def test_a_restore_says_what_was_done_and_what_to_do(place: Place) -> None:
    place.accept("a@clients.example", "b@clients.example")
    assert place("backup", place.file).exit_code == 0
    place.accept()
    done = place("restore", place.file)
    assert (done.exit_code, done.err) == (0, "")
    assert "held: 1 message that had not left" in done.out
    assert "support: 2 recipients" in done.out
    assert "1 message in it, sent by agents since the backup" in done.out
    assert "secrets/dkim.pem (DKIM key of support)" in done.out
    assert "next: mail-gateway check" in done.out
    (message,) = place.listed()
    assert {recipient["state"] for recipient in message["recipients"]} == {"held"}
    assert "restored" in message["cause"]
    (aside,) = place.state_dir.glob("before-restore-*")
    assert str(aside) in done.out
    with closing(sqlite3.connect(aside / "gateway.db")) as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (2,)


def test_a_restore_for_programs(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    found = json.loads(place("restore", place.file, "--json").out)
    assert found["held"] == [{"touchpoint": "support", "recipients": 1}]
    assert (found["epoch"], found["messages"], found["lost"], found["dropped"]) == (2, 1, 0, 0)
    assert found["restored_at"] > found["backed_up_at"]


def test_nothing_is_restored_while_somebody_has_the_store(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    before = (place.state_dir / "gateway.db").read_bytes()
    lock = StateLock(place.state_dir)
    try:
        done = place("restore", place.file)
    finally:
        lock.release()
    assert done.exit_code == 75
    assert "in use by another mail-gateway" in one_line(done)
    assert (place.state_dir / "gateway.db").read_bytes() == before
    assert not list(place.state_dir.glob("*restor*"))


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "store", "damaged", "directory"])
def test_a_file_that_is_no_good_backup_changes_nothing(place: Place, kind: str) -> None:
    place.accept()
    place("backup", place.file)
    content = place.file.read_bytes()
    match kind:
        case "missing":
            place.file.unlink()
        case "text":
            place.file.write_text("hello")
        case "empty":
            place.file.write_bytes(b"")
        case "store":
            place.file.write_bytes((place.state_dir / "gateway.db").read_bytes())
        case "damaged":
            place.file.write_bytes(content[: len(content) // 2])
        case "directory":
            place.file.unlink()
            place.file.mkdir()
    before = (place.state_dir / "gateway.db").read_bytes()
    done = place("restore", place.file)
    assert done.exit_code == 1
    assert str(place.file) in one_line(done)
    assert (place.state_dir / "gateway.db").read_bytes() == before
    assert not list(place.state_dir.glob("*restor*"))
    assert [message["recipients"][0]["state"] for message in place.listed()] != ["held"]


def test_a_configuration_that_is_there_is_left_as_it_is_and_named(place: Place) -> None:
    place("backup", place.file)
    (place.home / "rules.toml").write_text(RULES + "# edited since\n")
    (place.home / "signatures" / "logo.png").unlink()
    done = place("restore", place.file)
    assert (place.home / "rules.toml").read_text().endswith("# edited since\n")
    assert (place.home / "signatures" / "logo.png").read_bytes() == PNG
    put_back, _, rest = done.out.partition("left as they are, different from the backup:")
    assert "logo.png" in put_back.partition("put back:")[2]
    assert "rules.toml" in rest
    assert "support.html" not in done.out


def test_a_machine_with_nothing_gets_all_of_it_back(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    shutil.rmtree(place.home)
    done = place("restore", place.file)
    assert (done.exit_code, done.err) == (0, "")
    assert "kept aside" not in done.out
    assert (place.home / "signatures" / "support.html").read_text() == HTML
    assert stat.S_IMODE(place.state_dir.stat().st_mode) == 0o700
    assert len(place.listed()) == 1


def test_a_backup_of_another_directory_finds_its_files_beside_the_config_that_is_named(place: Place) -> None:
    place("backup", place.file)
    elsewhere = place.home.parent / "elsewhere"
    elsewhere.mkdir()
    place.config = elsewhere / "gateway.toml"
    place.config.write_text(f'state_dir = "{elsewhere}/state"\n')
    done = place("restore", place.file)
    assert done.exit_code == 0, done.err
    assert (elsewhere / "signatures" / "logo.png").read_bytes() == PNG
    assert (elsewhere / "state" / "gateway.db").is_file()
    assert not (elsewhere / "secrets").exists()


def test_files_from_outside_the_configuration_are_named_and_never_written(place: Place) -> None:
    outside = place.home.parent / "outside.html"
    outside.write_text("<p>Regards</p>")
    (place.home / "rules.toml").write_text(RULES.replace("file:signatures/support.html", f"file:{outside}"))
    place("backup", place.file)
    outside.unlink()
    done = place("restore", place.file)
    assert done.exit_code == 0
    assert f"outside the configuration:\n  {outside}" in done.out
    assert not outside.exists()


def test_a_database_that_cannot_be_read_goes_aside_all_the_same(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    (place.state_dir / "gateway.db").write_bytes(b"nonsense" * 10_000)
    done = place("restore", place.file)
    assert done.exit_code == 0, done.err
    assert "it could not be read" in done.out
    assert len(place.listed()) == 1
    (aside,) = place.state_dir.glob("before-restore-*")
    assert (aside / "gateway.db").read_bytes() == b"nonsense" * 10_000


def test_a_wrong_gateway_toml_stops_it_before_anything_is_done(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    place.config.write_text("hostname = 5\n")
    done = place("restore", place.file)
    assert done.exit_code == 1
    assert "gateway.toml" in done.err
    assert not list(place.state_dir.glob("*restor*"))


def test_a_full_disk_at_a_restore_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.accept()
    place("backup", place.file)
    before = (place.state_dir / "gateway.db").read_bytes()

    def refuse(target: int, part: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recovery, "_write_all", refuse)
    done = place("restore", place.file)
    assert done.exit_code == 75
    assert "no space left on device; nothing was restored" in one_line(done)
    assert (place.state_dir / "gateway.db").read_bytes() == before
    assert not list(place.state_dir.glob("*restor*"))


def test_a_backup_in_the_place_of_the_store_is_not_restored_onto_itself(place: Place) -> None:
    place.accept()
    place("backup", place.file)
    for path in place.state_dir.glob("gateway.db*"):
        path.unlink()
    shutil.copy(place.file, place.state_dir / "gateway.db")
    done = place("restore", place.state_dir / "gateway.db")
    assert done.exit_code == 2
    assert "lies in the place of the store; move it elsewhere" in one_line(done)
    done = place("outbox", "list")
    assert done.exit_code == 75
    assert "is a backup as it was made" in one_line(done)


# --- the daemon ------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    site = Site(
        [
            {
                "id": "support",
                "address": "support@example.com",
                "name": "Support",
                "active": True,
                "direction": "outbound",
                "smtp": "smtp+insecure://127.0.0.1:9",
                "linked_queues": ["support"],
            }
        ]
    )
    site.add_agent("ana@gateway.example", "secret", ["support"])
    daemon = make_daemon(site)
    daemon.start()
    return daemon


def send(daemon: Daemon, names: Sequence[str]) -> None:
    with daemon.submit("ana@gateway.example", "secret") as session:
        for name in names:
            raw = f"From: support@example.com\r\nTo: b@clients.example\r\nSubject: {name}\r\n\r\nHello\r\n".encode()
            session.sendmail("support@example.com", ["b@clients.example"], raw)


def test_a_running_daemon_backs_itself_up_and_refuses_to_be_restored(daemon: Daemon, tmp_path: Path) -> None:
    send(daemon, ["one", "two"])
    file = tmp_path / "backup.db"
    done = daemon.run("backup", str(file))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wait_until(lambda: daemon.events("backed-up"), "the log tells of it")
    done = daemon.run("restore", str(file))
    assert done.returncode == 75
    assert "is in use by another mail-gateway" in done.stderr
    send(daemon, ["three"])
    assert len(daemon.outbox()) == 3
    assert daemon.stop() == 0
    assert daemon.run("restore", str(file)).returncode == 0
    daemon.start()
    assert sorted(message["subject"] for message in daemon.outbox()) == ["one", "two"]
    assert daemon.stop() == 0


def test_agents_submit_while_a_backup_is_written(daemon: Daemon, tmp_path: Path) -> None:
    for number in range(3):
        send(daemon, [f"{number}.{each}" for each in range(5)])
        done = daemon.run("backup", str(tmp_path / "backup.db"))
        assert done.returncode == 0, done.stderr
    _, files = backup.read(tmp_path / "backup.db", tmp_path / "backup.db")
    assert [file.path for file in files] == [daemon.config, daemon.rules]
    with closing(sqlite3.connect(tmp_path / "backup.db")) as db:
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (15,)


def test_unavailable_is_what_a_closing_store_says(place: Place, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "gateway.db")
    store.close()
    with pytest.raises(Unavailable, match="the daemon is stopping"):
        trio.run(recovery.back_up, store, config.load(place.config), place.file)
