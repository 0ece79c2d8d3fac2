"""The command line: argv → stdout, stderr and exit code, for every command, with right and wrong arguments."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from gateway import control, control_client
from gateway.cli import show
from gateway.cli.main import main, parser
from gateway.desk import rfc3339
from gateway.errors import CommandError, Unavailable
from gateway.model import Role, show_id, to_ms
from gateway.state import agents, outbox
from gateway.state.lock import StateLock
from gateway.state.outbox import Want
from gateway.state.store import Store
from tests.support import outgoing
from tests.support.desk import arrive, write_site

HOSTILE = "\x1b[2J\x1b]0;owned\x07Refund\u202e now"
NEUTRAL = "[2J ]0;owned Refund  now"


@dataclass(frozen=True)
class Done:
    exit_code: int
    out: str
    err: str


class Shell:
    """Runs commands in this process, against the site in `home`."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.config = write_site(home)
        self.state_dir = home / "state"
        self._capture = capture

    def __call__(self, *words: str) -> Done:
        self._capture.readouterr()
        try:
            exit_code = main([*words, "--config", str(self.config)])
        except SystemExit as left:  # argparse's way
            exit_code = left.code if isinstance(left.code, int) else 1
        return Done(exit_code, *self._capture.readouterr())

    @contextmanager
    def store(self) -> Iterator[Store]:
        self.state_dir.mkdir(exist_ok=True)
        store = Store.open(self.state_dir / "gateway.db")
        try:
            yield store
        finally:
            store.close()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("MAIL_GATEWAY_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, capsys)


# --- the parser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="nothing"),
        pytest.param(["frobnicate"], id="unknown-command"),
        pytest.param(["queue"], id="no-action"),
        pytest.param(["queue", "frobnicate"], id="unknown-action"),
        pytest.param(["queue", "show"], id="no-id"),
        pytest.param(["queue", "list", "a", "b"], id="too-much"),
        pytest.param(["queue", "list", "--limit", "0"], id="limit-zero"),
        pytest.param(["outbox", "list", "--limit", "-1"], id="limit-negative"),
        pytest.param(["outbox", "list", "--limit", "many"], id="limit-no-number"),
        pytest.param(["queue", "read", "1r7hq2x0", "--raw", "--json"], id="two-forms"),
        pytest.param(["outbox", "retry"], id="retry-what"),
        pytest.param(["outbox", "retry", "1r7hq2x0", "--all"], id="retry-two-things"),
        pytest.param(["outbox", "hold"], id="hold-what"),
        pytest.param(["outbox", "release", "1r7hq2x0", "--touchpoint", "support"], id="release-two-things"),
        pytest.param(["outbox", "cancel", "--all"], id="cancel-everything"),
        pytest.param(["outbox", "settle", "1r7hq2x0"], id="settle-how"),
        pytest.param(["outbox", "settle", "1r7hq2x0", "--delivered", "--resend"], id="settle-both-ways"),
        pytest.param(["outbox", "settle", "--resend"], id="settle-what"),
        pytest.param(["agent", "show"], id="no-login"),
        pytest.param(["quarantine", "release"], id="release-what"),
        pytest.param(["quarantine", "confirm"], id="confirm-what"),
        pytest.param(["reconcile", "a", "b"], id="reconcile-two"),
        pytest.param(["passwd"], id="no-login-to-set"),
        pytest.param(["status", "--frobnicate"], id="unknown-option"),
    ],
)
def test_wrong_usage_is_2_and_told_on_stderr(run: Shell, words: Sequence[str]) -> None:
    done = run(*words)
    assert (done.exit_code, done.out) == (2, "")
    assert "usage: mail-gateway" in done.err


def test_help_names_every_command_with_a_line_about_it() -> None:
    def leaves(of: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, str]]:
        for action in of._actions:
            if isinstance(action, argparse._SubParsersAction):
                told = {choice.dest: choice.help for choice in action._choices_actions}
                for name, inner in action.choices.items():
                    assert told.get(name), f"{words} {name} has no help"
                    yield from leaves(inner, f"{words} {name}")
                return
        yield words.strip(), "run" if of.get_default("run") else ""

    found = dict(leaves(parser(), ""))
    expected = ["run", "demo", "check", "reload", "status", "reconcile", "passwd", "backup", "restore", "trace"]
    expected += ["explain", *(f"rules {word}" for word in ("diff", "history", "show", "restore"))]
    expected += [f"queue {word}" for word in ("list", "show", "read")]
    expected += [f"quarantine {word}" for word in ("list", "release", "confirm")]
    expected += [f"outbox {word}" for word in ("list", "show", "retry", "hold", "release", "cancel", "settle")]
    expected += [f"touchpoint {word}" for word in ("list", "show", "add", "duplicate", "remove")]
    expected += [f"touchpoint {word}" for word in ("activate", "deactivate")]
    expected += [f"auto-reply {word}" for word in ("list", "forget")]
    expected += [f"render {word}" for word in ("signature", "auto-reply")]
    expected += ["unblock", *(f"block {word}" for word in ("list", "add", "remove"))]
    expected += [f"agent {word}" for word in ("list", "show")]
    assert sorted(found) == sorted(expected)
    assert set(found.values()) == {"run"}


def test_help_explains_every_argument_of_every_command() -> None:
    def arguments(of: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, str | None]]:
        for action in of._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    yield from arguments(inner, f"{words} {name}")
            else:
                yield f"{words} {action.dest}", action.help

    told = dict(arguments(parser(), ""))
    assert len(told) > 50
    assert [name for name, help in told.items() if not help] == []


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("mail-gateway ")


def test_the_configuration_is_named_before_or_behind_the_command_or_by_the_environment(
    run: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--config", str(run.config), "agent", "list"], ["agent", "list", "--config", str(run.config)]):
        assert main(words) == 0
        assert "Ana Lima" in capsys.readouterr().out
    monkeypatch.setenv("MAIL_GATEWAY_CONFIG", str(run.config))
    assert main(["agent", "list"]) == 0
    assert "Ana Lima" in capsys.readouterr().out
    monkeypatch.setenv("MAIL_GATEWAY_CONFIG", "/nowhere/else.toml")
    assert main(["--config", str(run.config), "agent", "list"]) == 0


# --- while no daemon runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["reload"], ["reconcile"]])
def test_what_needs_the_daemon_is_69_without_it(run: Shell, words: Sequence[str]) -> None:
    done = run(*words)
    assert (done.exit_code, done.out) == (69, "")
    assert "the daemon is not running" in done.err
    assert "systemctl start mail-gateway" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["queue", "list"], "nothing is open", id="queue"),
        pytest.param(["queue", "list", "--all"], "nothing here", id="queue-all"),
        pytest.param(["outbox", "list"], "the outbox is empty", id="outbox"),
        pytest.param(["outbox", "list", "--all"], "nothing was ever sent", id="outbox-all"),
    ],
)
def test_an_empty_listing_is_said_on_stderr(run: Shell, words: Sequence[str], message: str) -> None:
    assert run(*words) == Done(0, "", message + "\n")
    assert run(*words, "--json") == Done(0, "[]\n", "")


@pytest.mark.parametrize(
    "words", [["queue", "list"], ["outbox", "list"], ["agent", "list"], ["passwd", "ana@example.com"]]
)
def test_a_holder_of_the_lock_whose_socket_is_gone_is_75_and_named(run: Shell, words: Sequence[str]) -> None:
    lock = StateLock(run.state_dir)
    try:
        done = run(*words)
    finally:
        lock.release()
    assert (done.exit_code, done.out) == (75, "")
    assert done.err == (
        f"mail-gateway: state_dir {run.state_dir} is in use by another mail-gateway (pid {os.getpid()}); "
        "stop that first\n"
    )


def test_a_stale_socket_of_a_killed_daemon_is_not_in_the_way(run: Shell) -> None:
    run.state_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(control_client.socket_path(run.state_dir)))
    assert run("queue", "list").exit_code == 0
    assert run("status").exit_code == 69


def test_a_file_that_cannot_be_used_is_told_with_its_lines(run: Shell) -> None:
    run.config.write_text('state_dir = "/x"\nhostnme = "a"\ntimezone = "Lisbon"\n')
    done = run("queue", "list")
    assert (done.exit_code, done.out) == (1, "")
    assert [line.split(": ")[0] for line in done.err.splitlines()] == ["gateway.toml:2", "gateway.toml:3"]


def test_a_file_that_is_not_there_is_told_with_a_way_out(run: Shell) -> None:
    run.config.unlink()
    for words in (["queue", "list"], ["status"], ["agent", "list"]):
        done = run(*words)
        assert (done.exit_code, done.out) == (1, "")
        assert f"{run.config} does not exist; create it, or name another with --config" in done.err


def test_run_with_an_unusable_gateway_toml_is_78(run: Shell) -> None:
    run.config.write_text('hostnme = "a"\n')
    done = run("run")
    assert (done.exit_code, done.out) == (78, "")
    assert done.err.startswith('gateway.toml:1: unknown key "hostnme"')


def test_roots_commands_leave_no_file_that_the_daemon_cannot_open() -> None:
    home = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        home.chmod(0o755)
        config = write_site(home)
        state_dir = home / "state"
        state_dir.mkdir(mode=0o700)
        owner = os.getuid()
        if owner == 0:
            owner = 65534  # nobody: the daemon's user
            os.chown(state_dir, owner, owner)
            for file in (config, home / "rules.toml"):
                file.chmod(0o644)
        assert main(["queue", "list", "--config", str(config)]) == 0
        assert (state_dir / "gateway.db").exists()
        assert {file.stat().st_uid for file in state_dir.iterdir()} == {owner}
        assert os.geteuid() == os.getuid()
    finally:
        shutil.rmtree(home)


# --- queue -----------------------------------------------------------------------------------------------------------


def test_queue_list_is_a_table_for_people_and_an_array_for_programs(run: Shell) -> None:
    with run.store() as store:
        _, conversation = arrive(store, "<a@c>")
    done = run("queue", "list")
    heading, row = done.out.splitlines()
    assert heading.split() == ["ID", "QUEUES", "STATE", "PRIORITY", "LAST", "FROM", "SUBJECT"]
    assert row.split()[:4] == [show_id(conversation), "support", "open", "normal"]
    (listed,) = json.loads(run("queue", "list", "--json").out)
    assert listed["id"] == show_id(conversation)
    assert run("queue", "list", "billing").out == ""
    assert run("queue", "list", "support", "--limit", "1").out == done.out


def test_an_unknown_queue_is_one_line_and_2(run: Shell) -> None:
    assert run("queue", "list", "suport") == Done(
        2, "", 'mail-gateway: unknown queue "suport"; did you mean "support"?\n'
    )


@pytest.mark.parametrize("action", ["show", "read"])
@pytest.mark.parametrize(("id", "exit_code"), [("1r7hq2x0", 1), ("no id!", 2)])
def test_a_conversation_that_is_not_there_is_one_line(run: Shell, action: str, id: str, exit_code: int) -> None:
    done = run("queue", action, id)
    assert (done.exit_code, done.out) == (exit_code, "")
    assert id in done.err
    assert "`mail-gateway queue list" in done.err
    assert done.err.count("\n") == 1


def test_queue_show_tells_why_a_message_is_where_it_is(run: Shell) -> None:
    with run.store() as store:
        id, conversation = arrive(store, "<a@c>")
        answer = outgoing.accept(store, references=("<a@c>",))
    done = run("queue", "show", show_id(conversation))
    assert f"← {show_id(id)}" in done.out
    assert f"→ {show_id(answer)}" in done.out
    assert "no sign of a machine" in done.out
    assert done.err == ""
    found = json.loads(run("queue", "show", show_id(conversation), "--json").out)
    assert [one["id"] for one in found["messages"]] == [show_id(id), show_id(answer)]


LETTER = b"From: carla@customer.example\r\nSubject: Help\r\n\r\nWhere is it?\r\n.\r\n\xff\r\n"


@pytest.fixture
def conversation(run: Shell) -> tuple[str, str, str]:
    """Ids: conversation, the customer's letter, our answer."""
    with run.store() as store:
        id, conversation = arrive(store, "<a@c>", body=LETTER)
        answer = outgoing.accept(store, references=("<a@c>",), body=b"It is on its way.\r\n" + b"x" * 600_000)
    return show_id(conversation), show_id(id), show_id(answer)


def test_queue_read_shows_question_and_answer(run: Shell, conversation: tuple[str, str, str]) -> None:
    done = run("queue", "read", conversation[0])
    question, answer = done.out.index("Where is it?"), done.out.index("It is on its way.")
    assert question < answer
    assert run("queue", "read", conversation[1]).out.count("Subject: ") == 1


def test_queue_read_raw_gives_every_byte(run: Shell, conversation: tuple[str, str, str]) -> None:
    out, err = start(run, "queue", "read", conversation[1], "--raw").communicate(timeout=30)
    assert (out, err) == (LETTER, b"")


def test_queue_read_saves_every_message_and_says_where(
    run: Shell, conversation: tuple[str, str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "saved" / "here"
    done = run("queue", "read", conversation[0], "--save", str(directory))
    assert done.out.splitlines() == [str(directory / f"{id}.eml") for id in conversation[1:]]
    assert (directory / f"{conversation[1]}.eml").read_bytes() == LETTER
    assert (directory / f"{conversation[2]}.eml").read_bytes().endswith(b"x" * 600_000)


def test_a_place_that_cannot_be_written_is_one_line(
    run: Shell, conversation: tuple[str, str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("queue", "read", conversation[0], "--save", str(tmp_path / "file" / "below"))
    assert (done.exit_code, done.out) == (1, "")
    assert done.err == f"mail-gateway: {tmp_path / 'file' / 'below'}: Not a directory\n"


def test_queue_read_for_programs_has_the_bytes(run: Shell, conversation: tuple[str, str, str]) -> None:
    question, answer = json.loads(run("queue", "read", conversation[0], "--json").out)
    assert base64.b64decode(question["raw"]) == LETTER
    assert (question["direction"], answer["direction"]) == ("inbound", "outbound")


# --- outbox ----------------------------------------------------------------------------------------------------------


def test_outbox_list_has_a_line_for_each_recipient(run: Shell) -> None:
    with run.store() as store:
        id = outgoing.accept(store, "b@clients.example", "c@clients.example")
    done = run("outbox", "list")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["ID", "STATE", "TRIES", "NEXT", "AGE", "FROM", "TO", "AGENT", "SUBJECT", "REPLY"]
    assert [row.split()[:3] for row in rows] == [[show_id(id), "queued", "0"]] * 2
    assert [len(one["recipients"]) for one in json.loads(run("outbox", "list", "--json").out)] == [2]


@pytest.mark.parametrize(("became", "shown"), [("placed", "placed"), ("an odd end", "left out: an odd end")])
def test_outbox_show_tells_what_became_of_the_signature(run: Shell, became: str, shown: str) -> None:
    with run.store() as store:
        id = outgoing.accept(store, signature=became)
    assert f"signature:   {shown}\n" in run("outbox", "show", show_id(id)).out
    assert json.loads(run("outbox", "show", show_id(id), "--json").out)["signature"] == became


def test_outbox_show_tells_one_message(run: Shell) -> None:
    with run.store() as store:
        id = outgoing.accept(store, touchpoint="billing")
    done = run("outbox", "show", show_id(id))
    assert f"id:          {show_id(id)}" in done.out
    assert "cause:       the touchpoint is not active" in done.out
    assert "signature:   -" in done.out
    assert json.loads(run("outbox", "show", show_id(id), "--json").out)["id"] == show_id(id)
    missing = run("outbox", "show", "1r7hq2x0")
    assert (missing.exit_code, missing.out) == (1, "")


def test_quarantine_is_listed_and_reviewed(run: Shell) -> None:
    with run.store() as store:
        spam, _ = arrive(store, "<a@c>", role=Role.JUNK, subject="Buy")
        good, conversation = arrive(store, "<b@c>", role=Role.JUNK, subject="Help")
        more, _ = arrive(store, "<c@c>", "<b@c>", role=Role.JUNK, subject="Help again")
    done = run("quarantine", "list")
    heading, *rows = done.out.splitlines()
    assert heading.split()[:5] == ["ID", "TOUCHPOINT", "CAME", "FROM", "SUBJECT"]
    assert [row.split()[0] for row in rows] == [show_id(more), show_id(good), show_id(spam)]
    assert [one["id"] for one in json.loads(run("quarantine", "list", "--json", "--limit", "1").out)] == [show_id(more)]
    ids = (show_id(conversation),)
    assert run("quarantine", "release", *ids) == Done(0, f"{ids[0]}: 2 messages released into support\n", "")
    assert run("quarantine", "confirm", show_id(spam)) == Done(0, f"{show_id(spam)}: 1 message confirmed as spam\n", "")
    assert run("quarantine", "list") == Done(0, "", "nothing waits in quarantine\n")
    assert show_id(spam) in run("quarantine", "list", "--all").out
    done = run("quarantine", "release", show_id(spam), ids[0])
    assert (done.exit_code, done.out) == (1, f"{show_id(spam)}: 1 message released into support\n")
    assert done.err.startswith(f"mail-gateway: {ids[0]}: nothing of it is in quarantine")
    assert run("quarantine", "list", "--all") == Done(0, "", "nothing is in quarantine\n")


def test_outbox_retry_counts(run: Shell) -> None:
    with run.store() as store:
        id = outgoing.accept(store, "b@clients.example", "c@clients.example")
        outgoing.accept(store, touchpoint="news")
    assert run("outbox", "retry", show_id(id)) == Done(0, "2 recipients will be tried now\n", "")
    assert run("outbox", "retry", "--touchpoint", "news") == Done(0, "1 recipient will be tried now\n", "")
    assert run("outbox", "retry", "--all") == Done(0, "3 recipients will be tried now\n", "")
    assert run("outbox", "retry", "--touchpoint", "nws") == Done(
        2, "", 'mail-gateway: unknown touchpoint "nws"; did you mean "news"?\n'
    )
    assert run("outbox", "retry", "1r7hq2x0").exit_code == 1


def test_outbox_hold_release_and_cancel_say_how_many(run: Shell) -> None:
    with run.store() as store:
        id = show_id(outgoing.accept(store, "b@clients.example", "c@clients.example"))
    assert run("outbox", "hold", id) == Done(0, "2 recipients held\n", "")
    assert [line.split()[1] for line in run("outbox", "list").out.splitlines()[1:]] == ["held", "held"]
    assert run("outbox", "list").out.count("held by a person") == 2
    assert run("outbox", "hold", id) == Done(1, "", f"mail-gateway: {id} is held already (held by a person)\n")
    assert run("outbox", "release", id) == Done(0, "2 recipients released\n", "")
    all_of_it = "support is held: 2 recipients and all that follows wait\n"
    assert run("outbox", "hold", "--touchpoint", "support") == Done(0, all_of_it, "")
    assert run("outbox", "release", "--touchpoint", "support") == Done(0, "2 recipients released\n", "")
    assert run("outbox", "cancel", id) == Done(0, "2 recipients cancelled\n", "")
    assert run("outbox", "cancel", id).exit_code == 1


def test_outbox_commands_say_for_whom_they_come_too_late(run: Shell) -> None:
    addresses = [f"{number:02}@clients.example" for number in range(12)]
    with run.store() as store:
        id = show_id(outgoing.accept(store, *addresses))
        want = Want("support", to_ms(datetime.now(UTC)) + 1000, (60_000,))
        claimed = store.submit(outbox.step, outbox.Step(None, want)).result(10)
        assert claimed is not None
        rows = tuple((one.number, one.before) for one in claimed.recipients[:11])
        assert store.submit(outbox.begin_data, outbox.Begin(claimed.id, claimed.attempt, rows)).result(10)
    done = run("outbox", "cancel", id)
    assert (done.exit_code, done.out) == (1, "1 recipient cancelled\n")
    assert done.err == f"too late for {', '.join(addresses[:10])} and 1 more: it is being sent\n"


def test_outbox_settle_decides_what_is_uncertain(run: Shell) -> None:
    with run.store() as store:
        id = show_id(outgoing.accept(store, "b@clients.example", "c@clients.example"))
        want = Want("support", to_ms(datetime.now(UTC)) + 1000, (60_000,))
        claimed = store.submit(outbox.step, outbox.Step(None, want)).result(10)
        assert claimed is not None
        rows = tuple((one.number, one.before) for one in claimed.recipients)
        assert store.submit(outbox.begin_data, outbox.Begin(claimed.id, claimed.attempt, rows)).result(10)
        store.submit(outbox.recover, to_ms(datetime.now(UTC))).result(10)
    assert "look in" in run("outbox", "show", id).out
    one = run("outbox", "settle", id, "--delivered", "--recipient", "c@clients.example")
    assert one == Done(0, "1 recipient settled as delivered\n", "")
    assert run("outbox", "settle", id, "--resend") == Done(0, "1 recipient to be sent again\n", "")
    assert run("outbox", "settle", id, "--resend").err.startswith(f"mail-gateway: {id}: no recipient is uncertain; ")
    states = [each["state"] for each in json.loads(run("outbox", "show", id, "--json").out)["recipients"]]
    assert states == ["deferred", "delivered"]


# --- agents and passwords --------------------------------------------------------------------------------------------


def test_agent_list_and_show(run: Shell) -> None:
    done = run("agent", "list")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        "Ana@example.com", "boss@example.com", "sofia@example.com",
    ]  # fmt: skip
    shown = run("agent", "show", "ana@EXAMPLE.com").out
    assert "may write as:  support@example.com" in shown
    assert "active:        yes" in shown
    assert len(json.loads(run("agent", "list", "--json").out)) == 3
    assert json.loads(run("agent", "show", "boss@example.com", "--json").out)["role"] == "admin"
    assert run("agent", "show", "anna@example.com").exit_code == 2


def test_without_agents_there_is_a_hint(run: Shell) -> None:
    run.config.with_name("rules.toml").write_text("")
    done = run("agent", "list")
    assert (done.exit_code, done.out) == (0, "")
    assert "add [[agent]] to rules.toml" in done.err


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_passwd_takes_one_line_from_stdin(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "correct horse\nsomething else\n")
    done = run("passwd", "ana@example.com")
    assert done == Done(0, "the password of ana@example.com is set\n", "")
    with run.store() as store:
        stored = store.read(agents.stored_hash, "ana@example.com").result(10)
    assert stored is not None
    assert stored.startswith("$argon2id$")
    assert "correct horse" not in stored


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "exit_code", "message"),
    [
        pytest.param(["correct horse", "correct horse"], 0, "", id="twice-the-same"),
        pytest.param(["correct horse", "correct house"], 1, "the two passwords differ; nothing was changed", id="typo"),
        pytest.param(["short", "short"], 1, "needs at least 8 characters; nothing was changed", id="short"),
    ],
)
def test_passwd_asks_twice_at_a_terminal(
    run: Shell, monkeypatch: pytest.MonkeyPatch, typed: list[str], exit_code: int, message: str
) -> None:
    answers = iter(typed)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    done = run("passwd", "ana@example.com")
    assert done.exit_code == exit_code
    assert message in done.err
    with run.store() as store:
        assert (store.read(agents.stored_hash, "ana@example.com").result(10) is not None) == (exit_code == 0)


@pytest.mark.parametrize(
    ("login", "exit_code", "message"),
    [
        pytest.param("boss@example.com", 1, "password_hash stands in rules.toml", id="in-the-file"),
        pytest.param("anna@example.com", 2, 'did you mean "ana@example.com"?', id="unknown"),
    ],
)
def test_passwd_says_that_it_will_not_work_before_it_asks(
    run: Shell, monkeypatch: pytest.MonkeyPatch, login: str, exit_code: int, message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail("it asked"))
    done = run("passwd", login)
    assert (done.exit_code, done.out) == (exit_code, "")
    assert message in done.err


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_that_it_found_nothing_on_stderr(run: Shell) -> None:
    run.config.with_name("rules.toml").write_text("")
    run.config.write_text(run.config.read_text() + '[imap]\nlisten = []\n[http]\nlisten = ""\n')
    done = run("check", "--json")
    problems = json.loads(done.out)
    assert done.exit_code == 0
    assert {problem["severity"] for problem in problems} <= {"notice", "warning"}


def test_check_tells_all_problems_with_their_lines_and_ends_with_1(run: Shell) -> None:
    rules = run.config.with_name("rules.toml")
    rules.write_text(rules.read_text() + "\n[[rule]]\nnme = 1\n")
    line = rules.read_text().splitlines().index("nme = 1") + 1
    done = run("check")
    assert (done.exit_code, done.err) == (1, "")
    assert any(said.startswith(f'rules.toml:{line}: unknown key "nme"') for said in done.out.splitlines())
    problems = json.loads(run("check", "--json").out)
    assert {"file": str(rules), "line": line, "severity": "error"}.items() <= problems_at(problems, line)[0].items()


def problems_at(problems: Sequence[Mapping[str, Any]], line: int) -> list[Mapping[str, Any]]:
    return [problem for problem in problems if problem["line"] == line]


def test_check_looks_at_another_rules_file(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text("[[touchpoint]]\nadress = 1\n")
    done = run("check", str(tmp_path / "new.toml"))
    assert done.exit_code == 1
    assert "new.toml:2: " in done.out
    assert run("check").exit_code == 0
    assert run("check", str(tmp_path / "absent.toml")).exit_code == 1


# --- beside a daemon -------------------------------------------------------------------------------------------------


@contextmanager
def answering(state_dir: Path, **answers: object) -> Iterator[list[Mapping[str, Any]]]:
    """Serve canned answers on the control socket, by command with a _ for its dot; yields the arguments that came."""
    asked: list[Mapping[str, Any]] = []

    def handler(answer: object) -> control.Handler:
        async def handle(args: Mapping[str, Any]) -> Any:
            asked.append(args)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return handle

    handlers = {name.replace("_", "."): handler(answer) for name, answer in answers.items()}
    started, stop = threading.Event(), trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        token.append(trio.lowlevel.current_trio_token())
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, control_client.socket_path(state_dir), handlers)
            started.set()
            await stop.wait()
            nursery.cancel_scope.cancel()

    state_dir.mkdir(exist_ok=True)
    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert started.wait(10)
    try:
        yield asked
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join(10)


def status(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    touchpoint = {
        "id": "support", "address": "support@example.com", "name": "Support", "active": True, "connected": True,
        "state": "watching", "cause": None, "since": rfc3339(now - timedelta(hours=3)), "consent_at": None,
        "direction": "both", "last_message_at": rfc3339(now - timedelta(minutes=5)),
        "last_server_byte_at": rfc3339(now - timedelta(seconds=7, milliseconds=1)),
        "lag_seconds": 0, "lane": "open", "unfetched": 6, "queued": 1, "deferred": 2, "held": 3, "uncertain": 4,
        "signatures_left_out": 0,
        "folders": [
            {"name": "INBOX", "role": "queue"}, {"name": "Orders", "role": "queue"}, {"name": HOSTILE, "role": "junk"},
        ],
    }  # fmt: skip
    rules = {"loaded_at": rfc3339(now - timedelta(days=2)), "origin": "file", "error": None, "changed_on_disk": False}
    return {
        "daemon": {"version": "0.1.0", "pid": 7, "started_at": rfc3339(now - timedelta(days=3)), "rules": rules},
        "touchpoints": [touchpoint],
        "queues": [{"name": "support", "open": 2, "oldest_at": rfc3339(now - timedelta(hours=1)), "agents": ["ana"]}],
        "alarms": [],
        **changes,
    }


ALARM = {
    "id": "support/imap-login", "touchpoint": "support", "since": "2026-11-23T10:00:00.000Z",
    "cause": HOSTILE, "action": "check the password",
}  # fmt: skip


def test_status_is_0_without_alarms_and_shows_a_line_for_each(run: Shell) -> None:
    with answering(run.state_dir, status=status()):
        done = run("status")
        assert (done.exit_code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[0] == "mail-gateway 0.1.0, pid 7, up 3d"
        (heading,) = [line for line in lines if line.startswith("TOUCHPOINT")]
        row, watched = [line for line in lines if line.startswith("support@")]
        assert heading.replace("LAST MAIL", "LAST_MAIL").split()[:9] == [
            "TOUCHPOINT", "ACTIVE", "STATE", "SINCE", "HEARD", "LAST_MAIL", "LAG", "UNFETCHED", "LANE",
        ]  # fmt: skip
        heard = row.split()[4]
        assert heard in ("7s", "8s", "9s", "10s", "11s", "12s")
        assert row.split() == [
            "support@example.com", "yes", "watching", "3h", heard, "5m", "0s", "6", "open", "1", "2", "3", "4",
        ]  # fmt: skip
        assert watched == f"support@example.com  INBOX, Orders; junk: {NEUTRAL}"
        assert any(line.split() == ["support", "2", "1h", "ana"] for line in lines)
        assert list(json.loads(run("status", "--json").out)) == ["daemon", "touchpoints", "queues", "alarms"]


def test_status_with_an_alarm_is_1_in_both_forms(run: Shell) -> None:
    with answering(run.state_dir, status=status(alarms=[ALARM])):
        done = run("status")
        assert done.exit_code == 1
        assert f"ALARM support: {NEUTRAL} (since " in done.out
        assert "check the password" in done.out
        assert run("status", "--json").exit_code == 1


def test_status_tells_of_a_refused_and_of_an_edited_file(run: Shell) -> None:
    found = status()
    found["daemon"]["rules"] |= {"error": "rules.toml:3: unknown key", "changed_on_disk": False}
    with answering(run.state_dir, status=found):
        out = run("status").out
        assert "the file is refused: rules.toml:3: unknown key" in out
        assert "rules loaded 2d ago\n" in out
    found["daemon"]["rules"] |= {"origin": "last-good"}
    with answering(run.state_dir, status=found):
        assert "rules loaded 2d ago, from the last good copy\n" in run("status").out
    found["daemon"]["rules"] |= {"origin": "none"}
    with answering(run.state_dir, status=found):
        assert "no rules are in force, and no mail moves" in run("status").out
    found["daemon"]["rules"] |= {"origin": "file", "error": None, "changed_on_disk": True}
    with answering(run.state_dir, status=found):
        assert "was edited since and is not loaded" in run("status").out


FOLDER = {
    "touchpoint": "support", "folder": "INBOX", "role": "queue", "at_provider": 8, "known": 5, "owed": 1, "older": 2,
    "gaps": 3, "gone": 4, "unfetched": 0, "error": None,
}  # fmt: skip


def test_reconcile_prints_a_line_for_each_folder(run: Shell) -> None:
    with answering(run.state_dir, reconcile=[FOLDER]) as asked:
        done = run("reconcile", "support@example.com")
        assert (done.exit_code, done.err) == (0, "")
        assert done.out.splitlines()[-1].split() == ["support", "INBOX", "queue", "8", "5", "1", "2", "3", "4", "0"]
        assert json.loads(run("reconcile", "--json").out) == [FOLDER]
    assert asked == [{"touchpoint": "support@example.com"}, {"touchpoint": None}]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"unfetched": 1}, id="unfetched"),
        pytest.param({**dict.fromkeys(FOLDER), "touchpoint": "support", "error": HOSTILE}, id="error"),
    ],
)
def test_reconcile_is_1_when_something_is_still_missing(run: Shell, changes: dict[str, Any]) -> None:
    with answering(run.state_dir, reconcile=[FOLDER, FOLDER | changes]):
        done = run("reconcile")
        assert done.exit_code == 1
        assert "\033" not in done.out
        assert run("reconcile", "--json").exit_code == 1


def test_reconcile_with_nothing_to_watch_says_so(run: Shell) -> None:
    with answering(run.state_dir, reconcile=[]):
        assert run("reconcile") == Done(0, "", "no touchpoint is watched\n")


def test_reload_prints_what_changed_on_stdout_and_a_refusal_on_stderr(run: Shell) -> None:
    with answering(run.state_dir, reload={"refused": False, "lines": ["touchpoint a: added"]}):
        assert run("reload") == Done(0, "touchpoint a: added\n", "")
    with answering(run.state_dir, reload={"refused": True, "lines": ["refused", "rules.toml:3: unknown key"]}):
        assert run("reload") == Done(1, "", "refused\nrules.toml:3: unknown key\n")
        done = run("reload", "--json")
        assert done.exit_code == 1
        assert json.loads(done.out)["refused"]


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        pytest.param(CommandError("no such thing", 1), 1, "no such thing", id="found-wrong"),
        pytest.param(CommandError("what is that", 2), 2, "what is that", id="usage"),
        pytest.param(Unavailable("the disk is full; free some space"), 75, "the disk is full", id="try-again"),
        pytest.param(ZeroDivisionError(), 1, "queue.list: an internal error; the log has the traceback", id="our-bug"),
    ],
)
def test_the_daemons_refusal_is_one_line_and_its_exit_code(
    run: Shell, error: Exception, exit_code: int, line: str
) -> None:
    with capture_logs(), answering(run.state_dir, queue_list=error):
        done = run("queue", "list")
    assert (done.exit_code, done.out) == (exit_code, "")
    assert done.err.startswith(f"mail-gateway: {line}")
    assert done.err.count("\n") == 1


def test_arguments_reach_the_daemon(run: Shell) -> None:
    with answering(run.state_dir, queue_list=[], outbox_retry=1) as asked:
        run("queue", "list", "support", "--all", "--limit", "3")
        run("outbox", "retry", "--touchpoint", "support")
    assert asked == [
        {"queue": "support", "all": True, "limit": 3},
        {"id": None, "touchpoint": "support", "all": False},
    ]


def test_a_socket_that_is_not_for_us_says_whom_to_ask(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)  # root may do anything, and tests may run as root
    done = run("status")
    assert (done.exit_code, done.out) == (1, "")
    assert "permission denied; run the command as root or as a member of the socket's group" in done.err


# --- what came by mail -----------------------------------------------------------------------------------------------


def test_no_subject_drives_the_terminal(run: Shell) -> None:
    with run.store() as store:
        _, conversation = arrive(store, "<a@c>", subject=HOSTILE, body=b"Subject: \x1b[2Jx\r\n\r\n\x1b[2Jbody\r\n")
    for words in (["list"], ["show", show_id(conversation)], ["read", show_id(conversation)]):
        done = run("queue", *words)
        assert done.exit_code == 0
        assert not set(done.out) & set("\x1b\x07\u202e")
    assert NEUTRAL in run("queue", "list").out
    (listed,) = json.loads(run("queue", "list", "--json").out)
    assert listed["subject"] == HOSTILE  # programs get what was written, escaped as JSON does


def test_raw_bytes_do_not_drive_a_terminal_either(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with run.store() as store:
        id, _ = arrive(store, "<a@c>", body=b"Subject: \x1b[2Jx\r\n\r\nbody\r\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = run("queue", "read", show_id(id), "--raw")
    assert "\x1b" not in done.out
    assert "Subject: " in done.out


# --- as a process ----------------------------------------------------------------------------------------------------


def start(run: Shell, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *words],
        env={**os.environ, "MAIL_GATEWAY_CONFIG": str(run.config), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_reader_that_has_seen_enough_is_no_error(run: Shell) -> None:
    with run.store() as store:
        for number in range(300):  # more than a pipe holds
            arrive(store, f"<{number}@c>", subject="long " * 40)
    with start(run, "queue", "list") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"ID ")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_reader_that_is_gone_before_the_first_byte_is_no_error(run: Shell) -> None:
    with start(run, "agent", "list") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_terminal_that_lacks_a_letter_gets_another(run: Shell) -> None:
    with run.store() as store:
        _, conversation = arrive(store, "<a@c>", subject="Ação 🙂")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out, err = start(run, "queue", "show", show_id(conversation), **plain).communicate(timeout=30)
    assert b"subject:    A??o ?" in out
    assert err == b""
    out, err = start(run, "queue", "list", "--json", **plain).communicate(timeout=30)
    assert json.loads(out)[0]["subject"] == "Ação 🙂"


# --- tables ----------------------------------------------------------------------------------------------------------


def test_columns_are_aligned_also_with_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("A", "B"), [("日本", 1), ("x", None), ("🙂🙂🙂", "end")])
    assert capsys.readouterr().out == "A       B\n日本    1\nx\n🙂🙂🙂  end\n"


def test_a_table_without_rows_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("A", "B"), [])
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_line_ends_at_its_edge_and_in_a_pipe_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("x" * 50, "y" * 100)
    show.table(("A", "B"), [row])
    assert f"{row[0]}  {row[1]}" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show.table(("A", "B"), [row])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 50 + "  " + "y" * 8


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        pytest.param(timedelta(seconds=0), "0s", id="now"),
        pytest.param(timedelta(seconds=59), "59s", id="seconds"),
        pytest.param(timedelta(minutes=90), "1h", id="hours"),
        pytest.param(timedelta(days=400), "400d", id="days"),
        pytest.param(timedelta(seconds=-90), "in 1m", id="future"),
    ],
)
def test_times_are_shown_as_how_long_ago(after: timedelta, shown: str) -> None:
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert show.ago("2026-11-23T10:00:00.000Z", at + after) == shown
    assert show.ago(None) == "-"


# --- trace -----------------------------------------------------------------------------------------------------------


def test_trace_tells_a_life_in_a_table_and_for_programs_as_steps(run: Shell) -> None:
    with run.store() as store:
        id, _ = arrive(store, "<a@c>", subject=HOSTILE)
        arrive(store, "<b@c>")
    done = run("trace", show_id(id))
    assert (done.exit_code, done.err) == (0, "")
    assert done.out.split("\n")[0].split() == ["AT", "ID", "STEP", "DETAIL", "VERDICT"]
    assert NEUTRAL in done.out
    assert "\x1b" not in done.out
    steps = json.loads(run("trace", "<a@c>", "--json").out)
    assert [list(step) for step in steps] == [["at", "step", "detail", "verdict", "id"]] * len(steps)
    lines = json.loads(run("trace", "carla@customer.example", "--json", "--since", "2d", "--touchpoint", "support").out)
    assert [line["step"] for line in lines] == ["inbound", "inbound"]
    done = run("trace", "carla@customer.example", "--limit", "1")
    assert len(done.out.splitlines()) > 1
    assert "the newest 1 that match" not in done.err  # one alone is told as a whole


@pytest.mark.parametrize("since", ["2", "d", "2 years", "-1d", "٢d"])
def test_a_time_that_is_none_is_wrong_usage(run: Shell, since: str) -> None:
    done = run("trace", "a@b", f"--since={since}")
    assert done.exit_code == 2
    assert "is no time; write for example 2d, 12h or 30min" in done.err
