"""The configuration in force: at start, after a reload, with a bad file, with a copy that cannot be kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import config
from gateway.errors import ConfigError
from gateway.rulebook import Rulebook
from tests.unit.config.writing import SUPPORT, TOUCHPOINT, write

BAD = "[[touchpoint]]\nadress = 1\n"


@pytest.fixture
def gateway_toml(tmp_path: Path) -> Path:
    return write(tmp_path, SUPPORT, f'state_dir = "{tmp_path / "state"}"\n')


def opened(path: Path, *, keep: bool = True) -> Rulebook:
    return Rulebook.open(path, config.load_gateway(path), keep=keep)


def edit(path: Path, rules: str) -> None:
    """Write rules.toml as an editor does; its time differs also where the clock of the file system is coarse."""
    file = path.with_name("rules.toml")
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(rules)
    if file.stat().st_mtime_ns == before:
        os.utime(file, ns=(before + 1_000_000, before + 1_000_000))


# --- the start -------------------------------------------------------------------------------------------------------


def test_a_good_file_is_in_force_and_kept(gateway_toml: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    book = opened(gateway_toml)
    assert list(book.config.touchpoints) == ["support"]
    assert (book.error, book.origin) == (None, "file")
    assert before <= book.loaded_at <= datetime.now(UTC)
    assert (tmp_path / "state" / "last-good" / "rules.toml").read_text() == SUPPORT


def test_at_start_with_a_bad_file_the_last_good_copy_is_in_force(gateway_toml: Path) -> None:
    opened(gateway_toml)
    edit(gateway_toml, BAD)
    book = opened(gateway_toml)
    assert list(book.config.touchpoints) == ["support"]
    assert book.origin == "last-good"
    assert book.error is not None
    assert 'rules.toml:2: unknown key "adress"' in book.error


def test_the_mended_file_takes_the_place_of_the_copy(gateway_toml: Path) -> None:
    opened(gateway_toml)
    edit(gateway_toml, BAD)
    book = opened(gateway_toml)
    edit(gateway_toml, SUPPORT)
    book.reload()
    assert (book.error, book.origin) == (None, "file")


def test_a_bad_file_does_not_become_the_last_good_copy(gateway_toml: Path) -> None:
    opened(gateway_toml)
    edit(gateway_toml, BAD)
    for _ in range(2):
        assert list(opened(gateway_toml).config.touchpoints) == ["support"]


def test_without_any_good_copy_no_mail_moves_and_the_error_says_why(gateway_toml: Path) -> None:
    edit(gateway_toml, BAD)
    book = opened(gateway_toml)
    assert not book.config.touchpoints
    assert not book.config.agents
    assert book.origin == "none"
    assert book.error is not None
    assert "rules.toml:2" in book.error


def test_a_file_that_is_gone_is_as_bad_as_a_wrong_one(gateway_toml: Path) -> None:
    opened(gateway_toml)
    gateway_toml.with_name("rules.toml").unlink()
    book = opened(gateway_toml)
    assert list(book.config.touchpoints) == ["support"]
    assert book.error is not None
    assert "does not exist" in book.error


def test_a_command_beside_the_daemon_keeps_nothing(gateway_toml: Path, tmp_path: Path) -> None:
    assert opened(gateway_toml, keep=False).error is None
    assert not (tmp_path / "state").exists()


# --- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_swaps_the_configuration_and_says_what_changed(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    before, loaded_at = book.config, book.loaded_at
    edit(gateway_toml, SUPPORT.replace("Example Support", "New Name"))
    changes = book.reload()
    assert changes.lines() == ["touchpoint support: name changed"]
    assert book.config.touchpoints["support"].name == "New Name"
    assert before.touchpoints["support"].name == "Example Support"  # who reads it still sees one configuration
    assert book.loaded_at > loaded_at


def test_a_reload_of_a_bad_file_changes_nothing_and_tells_all_problems(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    before, loaded_at = book.config, book.loaded_at
    edit(gateway_toml, SUPPORT + "\n[[rule]]\nnam = 1\n\n[spam]\nblocklst = []\n")
    with pytest.raises(ConfigError) as caught:
        book.reload()
    assert len(caught.value.problems) >= 2
    assert book.config is before
    assert book.loaded_at == loaded_at
    assert book.error == str(caught.value)
    edit(gateway_toml, SUPPORT)
    assert not book.reload()
    assert book.error is None


def test_the_copy_follows_each_good_reload(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    edit(gateway_toml, SUPPORT.replace("Example Support", "Second"))
    book.reload()
    edit(gateway_toml, BAD)
    with pytest.raises(ConfigError):
        book.reload()
    assert opened(gateway_toml).config.touchpoints["support"].name == "Second"


@pytest.mark.parametrize("when", ["start", "reload"])
def test_a_copy_that_cannot_be_kept_is_a_warning_and_the_rules_count(
    gateway_toml: Path, tmp_path: Path, when: str
) -> None:
    place = tmp_path / "state" / "last-good"
    with capture_logs() as logged:
        if when == "start":
            place.parent.mkdir()
            place.write_text("a file where the directory should be")
            book = opened(gateway_toml)
        else:
            book = opened(gateway_toml)
            for file in (*(place / "files").iterdir(), *(one for one in place.iterdir() if one.is_file())):
                file.unlink()
            (place / "files").rmdir()
            place.rmdir()
            place.write_text("a file where the directory should be")
            edit(gateway_toml, SUPPORT.replace("Example Support", "New Name"))
            assert book.reload()
    assert book.error is None
    assert list(book.config.touchpoints) == ["support"]
    (warning,) = logged
    assert (warning["event"], warning["log_level"]) == ("rules-not-kept", "warning")
    assert str(place) in warning["cause"]


# --- edited, not loaded ----------------------------------------------------------------------------------------------


def test_an_edited_file_is_noticed_until_it_is_loaded(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    assert not book.changed_on_disk
    edit(gateway_toml, TOUCHPOINT)
    assert book.changed_on_disk
    book.reload()
    assert not book.changed_on_disk


def test_a_refused_file_counts_as_looked_at_until_it_is_edited_again(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    edit(gateway_toml, BAD)
    with pytest.raises(ConfigError):
        book.reload()
    assert not book.changed_on_disk  # `error` speaks of it
    edit(gateway_toml, SUPPORT + "\n")
    assert book.changed_on_disk


def test_gateway_toml_and_a_file_that_goes_away_are_noticed_too(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    gateway_toml.write_text(gateway_toml.read_text() + "\n# a longer file\n")
    assert book.changed_on_disk
    book.reload()
    gateway_toml.with_name("rules.toml").unlink()
    assert book.changed_on_disk


def test_a_signature_file_is_noticed_too(gateway_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "signature.txt").write_text("Example Support\n")
    signature = '\n[touchpoint.signature]\nactive = true\ntext = "file:signature.txt"\n'
    edit(gateway_toml, TOUCHPOINT + signature)
    book = opened(gateway_toml)
    assert not book.changed_on_disk
    (tmp_path / "signature.txt").write_text("Example Support, Lisbon\n")
    assert book.changed_on_disk
    book.reload()
    assert not book.changed_on_disk


def test_an_edit_while_the_files_are_read_is_one_we_have_not_seen(
    gateway_toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = opened(gateway_toml)
    honest = config.load

    def load_slowly(path: Path) -> config.Config:
        found = honest(path)
        edit(gateway_toml, SUPPORT + "\n# saved a moment later\n")
        return found

    monkeypatch.setattr(config, "load", load_slowly)
    book.reload()
    assert book.changed_on_disk


# --- the history -----------------------------------------------------------------------------------------------------


def test_each_good_version_is_remembered_with_what_brought_it_and_what_changed(gateway_toml: Path) -> None:
    book = opened(gateway_toml)
    edit(gateway_toml, SUPPORT + TOUCHPOINT.replace("support", "billing"))
    book.reload("reload by ana")
    edit(gateway_toml, BAD)
    with pytest.raises(ConfigError):
        book.reload()
    newest, first = book.history.versions()
    assert (first.by, first.changes) == ("start", ())
    assert newest.by == "reload by ana"
    assert newest.changes == ("touchpoint billing: added",)
    assert newest.at == book.loaded_at


def test_what_was_edited_while_nobody_ran_is_told_at_the_next_start(gateway_toml: Path) -> None:
    opened(gateway_toml)
    opened(gateway_toml)
    edit(gateway_toml, SUPPORT + '\n[[rule]]\nname = "new"\n')
    versions = opened(gateway_toml).history.versions()
    assert [(one.number, one.by, one.changes) for one in versions] == [
        (2, "start", ("rule new: added",)),
        (1, "start", ()),
    ]


def test_a_command_without_a_daemon_makes_no_version(gateway_toml: Path) -> None:
    assert opened(gateway_toml, keep=False).history.versions() == []


def test_a_history_that_cannot_be_kept_stops_nothing(gateway_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history").write_text("in the way")
    with capture_logs() as logs:
        book = opened(gateway_toml)
    assert book.origin == "file"
    assert [one["event"] for one in logs] == ["rules-not-kept"]
