"""`touchpoint …`: what is listed and shown, what happens to rules.toml, and when the answer is no."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import client
from gateway.cli.main import main
from gateway.state.store import Store
from tests.support import outgoing
from tests.support.daemon import Daemon, Site
from tests.support.desk import arrive, write_site


class Shell:
    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.config = write_site(home)
        self.rules = home / "rules.toml"
        self.state_dir = home / "state"
        self.state_dir.mkdir()
        self._capture = capture

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        self._capture.readouterr()
        assert main(["touchpoint", *words, "--config", str(self.config)]) == code
        out, err = self._capture.readouterr()
        return out, err

    def table(self, address: str) -> dict[str, Any] | None:
        tables = tomllib.loads(self.rules.read_text())["touchpoint"]
        return next((table for table in tables if table["address"] == address), None)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("MAIL_GATEWAY_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, capsys)


@pytest.fixture
def store(run: Shell) -> Iterator[Store]:
    store = Store.open(run.state_dir / "gateway.db")
    yield store
    store.close()


# --- list and show ---------------------------------------------------------------------------------------------------


def test_list_has_a_line_for_each(run: Shell) -> None:
    out, _ = run("list")
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "support", "billing", "news", "reports"]
    listed = json.loads(run("list", "--json")[0])
    assert listed[2] == {
        "id": "news",
        "address": "news@example.com",
        "name": "Example News",
        "active": True,
        "connected": None,
        "state": None,
        "cause": None,
        "since": None,
        "direction": "outbound",
        "provider": "custom",
        "linked_queues": [],
        "aliases": [],
    }


def test_show_tells_every_setting_who_sees_it_and_what_waits(run: Shell) -> None:
    text = run.rules.read_text()
    more = 'password = "env:SECRET"\nhistory = "30 days"\n[touchpoint.signature]\nactive = true\nhtml = "file:s.html"\n'
    (run.rules.parent / "s.html").write_text("<p>")
    run.rules.write_text(text.replace('preview_roles = ["supervisor"]\n', f'preview_roles = ["admin"]\n{more}'))
    shown = json.loads(run("show", "Support@example.com", "--json")[0])
    assert shown["imap"] == "imaps://imap.example.com:993"
    assert shown["password"] == "env:SECRET"
    assert shown["history"] == "30 days"
    assert shown["pace"]["connections"] == 2
    assert shown["signature"]["html"] == f"file:{run.rules.parent / 's.html'}"
    assert shown["seen_by"] == ["Ana@example.com", "boss@example.com"]
    assert shown["written_as_by"] == ["Ana@example.com", "boss@example.com"]
    assert shown["previewed_by"] == ["boss@example.com"]
    assert shown["waiting"] == {"arrived": 0, "conversations": 0, "recipients": 0}
    out, _ = run("show", "support")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith(("smtp:", "watch.poll:")))
    assert lines == {"smtp:": "smtps://smtp.example.com:465", "watch.poll:": "10 minutes"}
    assert "unknown touchpoint" in run("show", "suport", code=2)[1]


# --- editing ---------------------------------------------------------------------------------------------------------


def test_add_writes_a_table_and_says_what_it_took_for_granted(run: Shell) -> None:
    out, err = run("add", "sales@example.com", "--name", "Sales", "--queue", "support", "--queue", "billing")
    assert out.splitlines() == [
        "touchpoint sales@example.com: added",
        "sales@example.com: its servers are those of support@example.com",
    ]
    assert err.endswith("the daemon is not running; it loads this at its next start\n")
    assert run.table("sales@example.com") == {
        "address": "sales@example.com",
        "name": "Sales",
        "active": False,
        "imap": "imaps://imap.example.com",
        "smtp": "smtps://smtp.example.com",
        "linked_queues": ["support", "billing"],
    }


def test_add_takes_what_it_is_told(run: Shell) -> None:
    words = ["--id", "s", "--provider", "fastmail", "--direction", "inbound", "--login", "u", "--password", "env:P"]
    run("add", "sales@other.example", "--name", "Sales", "--queue", "support", "--active", *words)
    assert run.table("sales@other.example") == {
        "id": "s",
        "address": "sales@other.example",
        "name": "Sales",
        "active": True,
        "direction": "inbound",
        "provider": "fastmail",
        "login": "u",
        "password": "env:P",
        "linked_queues": ["support"],
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "support@example.com", "--name", "X"], 'the address "support@example.com" is on line'),
        (["add", "nobody", "--name", "X"], "is not an e-mail address"),
        (["add", "a@b.example", "--name", "X", "--password", "s3cret"], "must name where the secret is kept"),
        (["add", "a@b.example", "--name", "X", "--provider", "gmial"], 'did you mean "gmail"'),
        (["duplicate", "support", "billing@example.com"], 'the address "billing@example.com" is on line'),
        (["remove", "news"], 'unknown touchpoint "news@example.com"'),
    ],
)
def test_what_would_be_wrong_is_refused_and_nothing_changes(run: Shell, words: list[str], told: str) -> None:
    before = run.rules.read_text()
    _, err = run(*words, code=1)
    assert err.startswith("mail-gateway: nothing was changed:\nrules.toml:")
    assert told in err
    assert "s3cret" not in err
    assert run.rules.read_text() == before


@pytest.mark.parametrize("text", ["touchpoint = 3\n", "touchpoint = [3]\n", "= nothing\n"])
@pytest.mark.parametrize(
    "words", [["add", "a@b.example", "--name", "A"], ["duplicate", "a", "b"], ["remove", "a"], ["activate", "a"]]
)
def test_a_file_that_cannot_be_read_is_left_to_a_person(run: Shell, text: str, words: list[str]) -> None:
    run.rules.write_text(text)
    _, err = run(*words, code=1)
    assert "mail-gateway check" in err
    assert run.rules.read_text() == text


def test_duplicate_is_inactive(run: Shell) -> None:
    out, _ = run("duplicate", "support", "second@example.com", "--id", "second", "--name", "Second")
    assert out == "touchpoint second: added\n"
    old, new = run.table("support@example.com"), run.table("second@example.com")
    assert old is not None
    assert new == old | {"id": "second", "address": "second@example.com", "name": "Second", "active": False}


def test_activate_and_deactivate_switch_and_are_content_when_it_is_so(run: Shell) -> None:
    assert run("activate", "billing", "support")[0] == "touchpoint billing: active changed\n"
    assert run("activate", "billing", "support")[0] == "billing is active already\nsupport is active already\n"
    assert run("deactivate", "billing@example.com")[0] == "touchpoint billing: active changed\n"
    table = run.table("billing@example.com")
    assert table is not None
    assert table["active"] is False


def test_what_the_new_file_should_be_told_is_told_and_nothing_else(run: Shell) -> None:
    _, err = run("activate", "billing")
    assert 'touchpoint "billing" is active and has no password' in err
    assert 'touchpoint "support" is active and has no password' not in err


# --- remove ----------------------------------------------------------------------------------------------------------


def test_remove_takes_it_out_when_nothing_waits(run: Shell, store: Store) -> None:
    arrive(store, "<a@c>", touchpoint="support")
    store.close()
    assert run("remove", "reports")[0] == "touchpoint reports: removed\n"
    assert run.table("reports@example.com") is None


def test_remove_refuses_while_mail_waits_unless_forced(run: Shell, store: Store) -> None:
    arrive(store, "<a@c>", touchpoint="billing", into="billing")
    outgoing.accept_many(store, 1, touchpoint="billing")
    store.close()
    before = run.rules.read_text()
    _, err = run("remove", "billing@example.com", code=1)
    assert "billing has unsettled mail: 1 recipient in the outbox, 1 conversation open" in err
    assert run.rules.read_text() == before
    run("remove", "billing", "--force")
    assert run.table("billing@example.com") is None


# --- the daemon ------------------------------------------------------------------------------------------------------


def daemon_that(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> list[str]:
    asked: list[str] = []

    def ask(config: Path, command: str, *, must_run: bool = False, **args: object) -> Any:
        asked.append(command)
        return answer

    monkeypatch.setattr(client, "ask", ask)
    return asked


def test_a_running_daemon_loads_it_and_tells_all_that_changed(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = daemon_that(monkeypatch, {"refused": False, "lines": ["x"], "changes": ["agent bo: added", "touchpoint b"]})
    assert run("activate", "billing")[0] == "agent bo: added\ntouchpoint b\n"
    assert asked == ["reload"]


def test_what_the_daemon_refuses_is_taken_back(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon_that(monkeypatch, {"refused": True, "lines": ["refused, nothing was changed:", "rules.toml:3: no"]})
    before = run.rules.read_text()
    out, err = run("activate", "billing", code=1)
    assert (out, run.rules.read_text()) == ("", before)
    assert err == (
        f"refused, nothing was changed:\nrules.toml:3: no\nthe daemon refuses it; {run.rules} is as it was before\n"
    )


def test_the_real_daemon_has_it_in_force_when_the_command_ends() -> None:
    touchpoint = {
        "id": "support",
        "address": "support@example.com",
        "name": "Support",
        "direction": "outbound",
        "smtp": "smtp+insecure://127.0.0.1:1",
    }
    daemon = Daemon(Site(touchpoints=[touchpoint]))
    try:
        daemon.start()
        done = daemon.run("touchpoint", "add", "news@example.com", "--name", "News", "--direction", "outbound")
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "touchpoint news@example.com: added")
        done = daemon.run("touchpoint", "activate", "news@example.com")
        assert (done.returncode, done.stdout) == (0, "touchpoint news@example.com: active changed\n")
        assert daemon.touchpoint_status("news@example.com")["state"] == "idle"
        shown = json.loads(daemon.run("touchpoint", "show", "news@example.com", "--json").stdout)
        assert (shown["active"], shown["connected"], shown["state"]) == (True, True, "idle")
        done = daemon.run("touchpoint", "remove", "news@example.com")
        assert (done.returncode, done.stdout) == (0, "touchpoint news@example.com: removed\n")
        assert [each["id"] for each in daemon.status()["touchpoints"]] == ["support"]
        versions = json.loads(daemon.run("rules", "history", "--json").stdout)
        assert [version["by"].partition(" by ")[0] for version in versions[:3]] == [
            *(f"touchpoint {verb} news@example.com" for verb in ("remove", "activate", "add")),
        ]
    finally:
        daemon.close()
