"""The last good rules survive a bad edit, with the files they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

from gateway.config import load_snapshot, snapshot
from gateway.errors import ConfigError, Unavailable
from tests.unit.config.writing import AGENT, PNG, TOUCHPOINT, load, write

RULES = f"""{TOUCHPOINT}password = "file:secret"
[touchpoint.signature]
html = "file:signatures/a.html"
{AGENT}"""


def good(directory: Path) -> Path:
    (directory / "signatures").mkdir(parents=True)
    (directory / "signatures" / "a.html").write_text('<p>{{ agent.name }}</p><img src="file:logo.png">')
    (directory / "signatures" / "logo.png").write_bytes(PNG)
    (directory / "secret").write_text("hunter2")
    (directory / "secret").chmod(0o600)
    trustme.CA().cert_pem.write_to_path(directory / "ca.pem")
    return write(directory, RULES)


def test_it_comes_back_as_it_was_when_every_file_is_gone(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    before = load(tmp_path / "etc", RULES)
    snapshot(before, tmp_path / "state" / "copy")
    (tmp_path / "etc" / "rules.toml").write_text("nonsense")
    for name in ("signatures/a.html", "signatures/logo.png"):
        (tmp_path / "etc" / name).unlink()
    after = load_snapshot(tmp_path / "state" / "copy", path)
    assert after.rules == before.rules
    assert after.files == before.files
    signature = after.touchpoints["support"].signature
    assert signature is not None
    assert signature.images["logo.png"].data == PNG


def test_secrets_are_not_copied_and_are_still_found(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    kept = b"".join(each.read_bytes() for each in (tmp_path / "copy").rglob("*") if each.is_file())
    assert b"agent.name" in kept
    assert b"hunter2" not in kept
    password = load_snapshot(tmp_path / "copy", path).touchpoints["support"].password
    assert password is not None
    assert password.resolve() == "hunter2"


def test_a_lost_authority_is_taken_from_the_copy(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    rules = RULES.replace("password", 'ca_file = "ca.pem"\npassword')
    snapshot(load(tmp_path / "etc", rules), tmp_path / "copy")
    (tmp_path / "etc" / "ca.pem").unlink()
    found = load_snapshot(tmp_path / "copy", path).touchpoints["support"].ca_file
    assert found is not None
    assert found.exists()


def test_nobody_else_can_look_into_it(tmp_path: Path) -> None:
    good(tmp_path / "etc")
    umask = os.umask(0)
    try:
        snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    finally:
        os.umask(umask)
    for each in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        assert each.stat().st_mode & 0o077 == 0


def test_the_second_copy_replaces_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    files = len([*(tmp_path / "copy").rglob("*")])
    snapshot(load(tmp_path / "etc", RULES.replace("Example Support", "Other")), tmp_path / "copy")
    assert load_snapshot(tmp_path / "copy", path).touchpoints["support"].name == "Other"
    assert len([*(tmp_path / "copy").rglob("*")]) == files
    assert "Other" in (tmp_path / "copy" / "rules.toml").read_text()


@pytest.mark.parametrize("step", range(20))
def test_a_crash_at_any_step_leaves_one_of_the_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    path = good(tmp_path / "etc")
    snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    changed = load(tmp_path / "etc", RULES.replace("Example Support", "Other"))
    steps = iter(range(100))
    really = os.fsync

    class Crash(BaseException):
        pass

    def fsync(descriptor: int) -> None:
        if next(steps) == step:
            raise Crash
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    crashed = False
    try:
        snapshot(changed, tmp_path / "copy")
    except Crash:
        crashed = True
    monkeypatch.undo()
    name = load_snapshot(tmp_path / "copy", path).touchpoints["support"].name
    assert name in ("Example Support", "Other") if crashed else name == "Other"


@pytest.mark.parametrize("damage", ["no copy", "empty index", "list", "lost file"])
def test_a_copy_that_cannot_be_used_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = good(tmp_path / "etc")
    copy = tmp_path / "copy"
    if damage != "no copy":
        snapshot(load(tmp_path / "etc", RULES), copy)
        index = (copy / "index.json").read_text()
        (copy / "index.json").write_text({"empty index": "", "list": "[1]", "lost file": index}[damage])
        if damage == "lost file":
            for each in (copy / "files").iterdir():
                each.unlink()
    with pytest.raises(ConfigError) as caught:
        load_snapshot(copy, path)
    assert len(caught.value.problems) == 1


def test_a_disk_that_does_not_take_it_is_one_clear_line(tmp_path: Path) -> None:
    good(tmp_path / "etc")
    (tmp_path / "copy").write_text("a file, not a directory")
    with pytest.raises(Unavailable, match=r"a copy of the good rules cannot be kept in .*: file exists; make room"):
        snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")


def test_a_name_that_only_today_s_gateway_file_knows_does_not_spoil_the_copy(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    path.write_text('[notifications]\nvia = "sales"')
    assert load_snapshot(tmp_path / "copy", path).touchpoints


def test_a_bad_gateway_file_is_no_matter_of_the_copy(tmp_path: Path) -> None:
    path = good(tmp_path / "etc")
    snapshot(load(tmp_path / "etc", RULES), tmp_path / "copy")
    path.write_text("hostnam = 'a'")
    with pytest.raises(ConfigError, match=r"gateway\.toml:1: unknown key"):
        load_snapshot(tmp_path / "copy", path)
