"""`rules history | show | restore`: earlier good versions are found, shown, and brought back with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import config
from gateway.cli import client
from gateway.cli.main import main
from gateway.rulebook import Rulebook
from tests.support.daemon import Daemon
from tests.support.daemon import Site as DaemonSite

TOUCHPOINT = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "{name}"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support"]
[touchpoint.signature]
active = true
html = "file:signature.html"
"""


class Shell:
    """A site whose daemon has loaded two versions, and does not run."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home, self._capture = home, capture
        self.config, self.rules, self.signature = home / "gateway.toml", home / "rules.toml", home / "signature.html"
        self.config.write_text(f'state_dir = "{home / "state"}"\n')
        (home / "state").mkdir()
        self.write("One", "<p>one</p>")
        self.book = Rulebook.open(self.config, config.load_gateway(self.config))
        self.write("Two", "<p>two</p>")
        self.book.reload("reload by ana")

    def write(self, name: str, signature: str) -> None:
        self.rules.write_text(TOUCHPOINT.format(name=name))
        self.signature.write_text(signature)

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        self._capture.readouterr()
        assert main(["rules", *words, "--config", str(self.config)]) == code
        out, err = self._capture.readouterr()
        return out, err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json")[0])

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.home.iterdir() if path.is_file()}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("MAIL_GATEWAY_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, capsys)


# --- looking ---------------------------------------------------------------------------------------------------------


def test_history_tells_of_each_version_when_by_whom_and_what_changed(run: Shell) -> None:
    newest, first = run.json("history")
    assert [newest["number"], first["number"]] == [2, 1]
    assert (newest["by"], first["by"]) == ("reload by ana", "start")
    assert newest["changes"] == ["touchpoint support: name, signature.html changed"]
    assert (newest["in_force"], first["in_force"]) == (True, False)
    assert [Path(file["path"]).name for file in newest["files"]] == ["rules.toml", "signature.html"]
    out, _ = run("history")
    assert out.split("\n")[0].split() == ["N", "AT", "IN", "FORCE", "BY", "FILES", "WHAT", "CHANGED"]
    assert len(run.json("history", "--limit", "1")) == 1


def test_without_a_version_it_says_so(run: Shell) -> None:
    for path in (run.home / "state" / "history").glob("*.json"):
        path.unlink()
    assert run("history") == ("", "no version is kept yet; the daemon keeps each good one that it loads\n")


def test_show_prints_the_file_as_it_was(run: Shell) -> None:
    out, err = run("show", "1")
    assert out == TOUCHPOINT.format(name="One")
    assert "also of this version:" in err
    assert run("show", "1", "--file", "signature.html") == ("<p>one</p>", "")


def test_show_tells_what_differs_from_the_rules_in_force(run: Shell) -> None:
    found = run.json("show", "1", "--diff")
    assert '-name = "One"\n+name = "Two"\n' in found["diff"]
    assert "-<p>one</p>\n+<p>two</p>\n" in found["diff"]
    assert found["content"][str(run.rules)] == TOUCHPOINT.format(name="One")
    assert run("show", "2", "--diff") == ("", "version 2 is what is in force\n")


@pytest.mark.parametrize("words", [["show", "9"], ["restore", "9"]])
def test_a_version_that_is_not_there_is_a_wrong_argument(run: Shell, words: list[str]) -> None:
    assert "there is no version 9 of the rules" in run(*words, code=2)[1]
    assert "that version has no file x; it has:" in run("show", "1", "--file", "x", code=2)[1]


# --- bringing back ---------------------------------------------------------------------------------------------------


def test_restore_writes_every_file_of_the_version_back(run: Shell) -> None:
    run.rules.chmod(0o640)
    out, err = run("restore", "1")
    assert run.rules.read_text() == TOUCHPOINT.format(name="One")
    assert run.signature.read_text() == "<p>one</p>"
    assert run.rules.stat().st_mode & 0o777 == 0o640
    assert f"{run.rules}: as in version 1" in out
    assert "the daemon is not running; it loads this at its next start" in out
    assert err == ""
    assert set(run.files()) == {"gateway.toml", "rules.toml", "signature.html"}  # nothing was lost, nothing put aside
    before = run.files()
    assert run("restore", "1")[1] == "the files are as in version 1 already; nothing was written\n"
    assert run.files() == before
    run.book.reload()
    assert run.json("history")[0]["number"] == 3


def test_what_was_edited_and_never_in_force_is_put_aside(run: Shell) -> None:
    run.rules.write_text("# an hour of work\n[[broken")
    done = run.json("restore", "2")
    (copy,) = map(Path, done["aside"])
    assert copy.read_text() == "# an hour of work\n[[broken"
    assert copy.name.startswith("rules.toml.2")
    assert done["written"] == [str(run.rules)]
    assert run.rules.read_text() == TOUCHPOINT.format(name="Two")


def test_a_file_that_was_taken_away_comes_back(run: Shell) -> None:
    run.signature.unlink()
    run("restore", "1")
    assert run.signature.read_text() == "<p>one</p>"


def test_a_link_stays_a_link(run: Shell) -> None:
    real = run.home / "elsewhere.toml"
    real.write_text(run.rules.read_text())
    run.rules.unlink()
    run.rules.symlink_to(real)
    run("restore", "1")
    assert run.rules.is_symlink()
    assert real.read_text() == TOUCHPOINT.format(name="One")


def test_a_version_that_gateway_toml_does_not_take_any_more_changes_nothing(run: Shell) -> None:
    run.config.write_text(f'state_dir = "{run.home / "state"}"\n[queues]\nnames = ["sales"]\n')
    before = run.files()
    _, err = run("restore", "1", code=1)
    assert "support" in err
    assert run.files() == before


def test_a_version_of_another_file_is_not_written(run: Shell) -> None:
    run.config.write_text(f'state_dir = "{run.home / "state"}"\nrules = "others.toml"\n')
    (run.home / "others.toml").write_text("")
    assert "and gateway.toml names" in run("restore", "1", code=1)[1]


def test_what_the_daemon_refuses_is_taken_back(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    real = client.ask

    def ask(path: Path, command: str, **args: Any) -> Any:
        if command == "reload":
            return {"refused": True, "lines": ["refused, nothing was changed:", "rules.toml:3: no"]}
        return real(path, command, **args)

    monkeypatch.setattr(client, "ask", ask)
    run.rules.write_text("# mine\n")
    before = run.files()
    assert "the daemon refuses it; the files are as they were before" in run("restore", "1", code=1)[1]
    assert run.files() == before


# --- with the daemon -------------------------------------------------------------------------------------------------


def test_the_real_daemon_keeps_versions_and_takes_an_old_one_back_into_force() -> None:
    touchpoint = {"id": "support", "address": "support@example.com", "name": "One", "linked_queues": ["support"]}
    touchpoint |= {"imap": "imaps://imap.example.com", "smtp": "smtps://smtp.example.com", "password": "env:SECRET"}
    daemon = Daemon(DaemonSite(touchpoints=[touchpoint]))
    try:
        daemon.start()
        daemon.site.touchpoint("support")["name"] = "Two"
        daemon.write_config()
        assert daemon.reload().returncode == 0
        newest, first = json.loads(daemon.run("rules", "history", "--json").stdout)
        assert (newest["in_force"], newest["changes"]) == (True, ["touchpoint support: name changed"])
        assert newest["by"].startswith("reload by ")
        assert first["by"] == "start"
        done = daemon.run("rules", "restore", "1")
        assert done.returncode == 0, done.stderr
        assert "touchpoint support: name changed" in done.stdout
        assert daemon.status()["touchpoints"][0]["name"] == "One"
        again = json.loads(daemon.run("rules", "history", "--json").stdout)[0]
        assert (again["number"], again["in_force"]) == (3, True)
        assert again["by"].startswith("rules restore 1 by ")
        letter = daemon.home / "letter.eml"
        letter.write_bytes(b"From: a@b.example\r\nTo: support@example.com\r\nSubject: x\r\n\r\nbody\r\n")
        steps = json.loads(daemon.run("explain", str(letter), "--json").stdout)
        assert steps[-1]["verdict"].startswith("queue support, class human")
        assert daemon.run("rules", "diff", str(daemon.rules)).stderr == "0 looked at, 0 would go elsewhere\n"
        assert "nothing that is kept matches" in daemon.run("trace", "a@b.example").stderr
    finally:
        daemon.close()
