"""rules.toml is replaced in one step, checked before, or stays as it is."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.config import edition
from gateway.errors import CommandError, ConfigError
from tests.unit.config.writing import SUPPORT, write


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write(tmp_path, SUPPORT)


@pytest.fixture
def rules(config_path: Path) -> Path:
    return config_path.parent / "rules.toml"


def rename(text: str) -> str:
    return text.replace("Example Support", "Support")


def test_the_new_text_is_in_place_and_what_it_says_is_returned(config_path: Path, rules: Path) -> None:
    done = edition.revise(config_path, rename)
    assert rules.read_text() == rename(SUPPORT)
    assert done.old is not None
    assert [each.touchpoints["support"].name for each in (done.old, done.new)] == ["Example Support", "Support"]
    assert done.new.rules_path == rules


def test_what_would_not_load_is_refused_with_all_problems_at_their_lines(config_path: Path, rules: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        edition.revise(config_path, lambda text: text + '[[rule]]\nname = "a"\nthen = { queu = "x" }\nfoo = 1\n')
    told = [str(problem) for problem in caught.value.problems]
    assert [each.partition(" ")[0] for each in told] == ["rules.toml:16:", "rules.toml:17:"]
    assert rules.read_text() == SUPPORT
    assert sorted(path.name for path in config_path.parent.iterdir()) == ["gateway.toml", "rules.toml"]


def test_what_gateway_toml_says_about_the_rules_counts(config_path: Path, rules: Path) -> None:
    config_path.write_text('[notifications]\nvia = "support"\n')
    with pytest.raises(ConfigError, match='unknown touchpoint "support"'):
        edition.revise(config_path, lambda text: "")
    assert rules.read_text() == SUPPORT


def test_mode_and_labels_stay(config_path: Path, rules: Path) -> None:
    rules.chmod(0o640)
    try:
        os.setxattr(rules, "user.origin", b"by hand")
        labels = {"user.origin": b"by hand"}
    except OSError:  # a file system without them
        labels = {}
    was = rules.stat()
    edition.revise(config_path, rename)
    now = rules.stat()
    assert (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid) == (0o640, was.st_uid, was.st_gid)
    assert {name: os.getxattr(rules, name) for name in labels} == labels
    assert now.st_mtime_ns != was.st_mtime_ns
    assert now.st_ino != was.st_ino


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(config_path: Path, rules: Path) -> None:
    os.chown(rules, 4711, 4712)
    edition.revise(config_path, rename)
    assert (rules.stat().st_uid, rules.stat().st_gid) == (4711, 4712)


@pytest.fixture
def open_site() -> Iterator[Path]:
    """A site in a directory that everybody may enter and write into; the files are root's."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    write(directory, SUPPORT)
    for path in directory.iterdir():
        path.chmod(0o644)
    yield directory / "gateway.toml"
    shutil.rmtree(directory)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("mode", [0o777, 0o755], ids=["the file is another's", "the directory is another's"])
def test_who_cannot_keep_its_owner_cannot_replace_it(open_site: Path, mode: int) -> None:
    open_site.parent.chmod(mode)
    with as_nobody(), pytest.raises(CommandError, match=r"cannot be replaced.*; run this as its owner or root"):
        edition.revise(open_site, rename)
    assert (open_site.parent / "rules.toml").read_text() == SUPPORT
    assert sorted(path.name for path in open_site.parent.iterdir()) == ["gateway.toml", "rules.toml"]


def test_what_is_not_utf8_is_left_alone(config_path: Path, rules: Path) -> None:
    rules.write_bytes(b"# \xff\n")
    with pytest.raises(CommandError, match="not UTF-8"):
        edition.revise(config_path, rename)


def test_a_link_stays_a_link(config_path: Path, rules: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.toml"
    rules.rename(real)
    rules.symlink_to(real)
    (tmp_path / "page.html").write_text("<p>")  # relative names begin at the link
    text = '[touchpoint.signature]\nhtml = "file:page.html"\n[[agent]]'
    edition.revise(config_path, lambda old: rename(old).replace("[[agent]]", text))
    assert rules.is_symlink()
    assert "page.html" in real.read_text()


def test_a_byte_order_mark_stays(config_path: Path, rules: Path) -> None:
    rules.write_bytes(b"\xef\xbb\xbf" + SUPPORT.encode())
    edition.revise(config_path, rename)
    assert rules.read_bytes() == b"\xef\xbb\xbf" + rename(SUPPORT).encode()


def test_somebody_elses_edit_in_between_wins(config_path: Path, rules: Path) -> None:
    def change(text: str) -> str:
        rules.write_text(SUPPORT + "# edited\n")
        return rename(text)

    with pytest.raises(CommandError, match="edited by somebody else just now") as caught:
        edition.revise(config_path, change)
    assert caught.value.exit_code == 75
    assert rules.read_text() == SUPPORT + "# edited\n"
    assert sorted(path.name for path in config_path.parent.iterdir()) == ["gateway.toml", "rules.toml"]


def test_two_at_a_time_wait_for_each_other(config_path: Path, rules: Path) -> None:
    def append(number: int) -> None:
        edition.revise(config_path, lambda text: f"{text}# {number}\n")

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines = rules.read_text().removeprefix(SUPPORT).split("\n")
    assert sorted(lines) == sorted(["", *(f"# {number}" for number in range(8))])


def test_nothing_to_change_writes_nothing(config_path: Path, rules: Path) -> None:
    was = rules.stat()
    done = edition.revise(config_path, str)
    assert done.before == done.after
    assert rules.stat() == was


def test_an_edition_can_be_taken_back_unless_it_was_edited_since(config_path: Path, rules: Path) -> None:
    done = edition.revise(config_path, rename)
    assert edition.take_back(done)
    assert rules.read_text() == SUPPORT
    done = edition.revise(config_path, rename)
    rules.write_text("# edited\n")
    assert not edition.take_back(done)
    assert rules.read_text() == "# edited\n"


def test_a_missing_file_is_told(config_path: Path, rules: Path) -> None:
    rules.unlink()
    with pytest.raises(CommandError, match=r"rules\.toml does not exist; create it"):
        edition.revise(config_path, rename)


def test_the_lock_is_that_of_the_directory(config_path: Path, rules: Path) -> None:
    def change(text: str) -> str:
        other = os.open(rules.parent, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
        return rename(text)

    edition.revise(config_path, change)
