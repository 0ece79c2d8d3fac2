"""Good versions of the rules: kept once each, bounded, read back with their files, never half."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config import history, load
from gateway.config.history import History
from gateway.errors import Unavailable
from tests.unit.config.writing import SUPPORT, write

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
def gateway_toml(tmp_path: Path) -> Path:
    return write(tmp_path, SUPPORT, f'state_dir = "{tmp_path / "state"}"\n')


@pytest.fixture
def kept(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def name_it(gateway_toml: Path, name: str) -> None:
    rules = gateway_toml.with_name("rules.toml")
    rules.write_text(SUPPORT + f'\n[[rule]]\nname = "{name}"\n')


def test_a_version_is_kept_with_its_files_and_read_back_as_it_was(gateway_toml: Path, kept: History) -> None:
    (gateway_toml.parent / "sig.html").write_text("<p>one</p>")
    rules = gateway_toml.with_name("rules.toml")
    rules.write_text(SUPPORT + '\n[touchpoint.signature]\nactive = true\nhtml = "file:sig.html"\n')
    assert kept.keep(load(gateway_toml), AT, "start", ["touchpoint support: added"]) == 1
    (gateway_toml.parent / "sig.html").write_text("<p>two</p>")
    rules.write_text("")
    found = kept.find(1)
    assert found is not None
    assert (found.at, found.by, found.changes, found.rules) == (AT, "start", ("touchpoint support: added",), rules)
    assert {path.name for path in found.files} == {"rules.toml", "sig.html"}
    assert kept.content(found)[rules.with_name("sig.html")] == b"<p>one</p>"
    signature = kept.load(found, gateway_toml).rules.touchpoints[0].signature
    assert signature is not None
    assert signature.html == "<p>one</p>"


def test_the_same_rules_again_are_no_new_version(gateway_toml: Path, kept: History) -> None:
    assert kept.keep(load(gateway_toml), AT, "start", []) == 1
    assert kept.keep(load(gateway_toml), AT, "reload", []) is None
    name_it(gateway_toml, "a")
    assert kept.keep(load(gateway_toml), AT, "reload", []) == 2
    name_it(gateway_toml, "b")
    assert kept.keep(load(gateway_toml), AT, "reload", []) == 3
    assert [one.number for one in kept.versions()] == [3, 2, 1]


def test_the_oldest_versions_go_and_their_files_with_them(
    gateway_toml: Path, kept: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "VERSIONS", 3)
    for name in "abcdef":
        name_it(gateway_toml, name)
        kept.keep(load(gateway_toml), AT, "reload", [])
    assert [one.number for one in kept.versions()] == [6, 5, 4]
    assert len(list((tmp_path / "history" / "files").iterdir())) == 3
    for version in kept.versions():
        kept.content(version)


def test_numbers_go_on_where_they_were(gateway_toml: Path, kept: History, tmp_path: Path) -> None:
    for name in "abc":
        name_it(gateway_toml, name)
        kept.keep(load(gateway_toml), AT, "reload", [])
    (tmp_path / "history" / "2.json").unlink()
    name_it(gateway_toml, "d")
    assert kept.keep(load(gateway_toml), AT, "reload", []) == 4


def test_what_cannot_be_read_is_left_out_and_a_file_that_changed_is_not_handed_out(
    gateway_toml: Path, kept: History, tmp_path: Path
) -> None:
    for name in "ab":
        name_it(gateway_toml, name)
        kept.keep(load(gateway_toml), AT, "reload", [])
    (tmp_path / "history" / "2.json").write_text("{")
    (one,) = kept.versions()
    assert one.number == 1
    file = tmp_path / "history" / "files" / next(iter(one.files.values())).name
    file.write_bytes(b"something else")
    with pytest.raises(Unavailable, match="its disk is bad"):
        kept.content(one)
    file.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        kept.content(one)


def test_nobody_else_can_look_into_the_history(gateway_toml: Path, kept: History, tmp_path: Path) -> None:
    kept.keep(load(gateway_toml), AT, "start", [])
    for path in (tmp_path / "history", *(tmp_path / "history").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_without_a_directory_there_are_no_versions(kept: History) -> None:
    assert (kept.versions(), kept.newest(), kept.find(1)) == ([], None, None)
