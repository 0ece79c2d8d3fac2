"""The log in its three formats: JSON lines, fields of the journal, lines for a person; and what stands in none."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from gateway import events, log
from gateway.config import SecretRef

_SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The log belongs to the process: leave it as it was for other tests."""
    before = structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in log._LIBRARIES}
    yield
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, log._JournalRenderer):
            processor._socket.close()  # the process ends with it; a test does not
    structlog.configure(**before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Journal:
    """journald's socket: reads its native protocol."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(10)

    def read(self) -> dict[str, str]:
        data = self._socket.recv(1 << 20)
        fields: dict[str, str] = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:  # a value with newlines: its length comes first
                length = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            fields[name.decode()] = value.decode()
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    found = Journal(tmp_path / "socket")
    monkeypatch.setattr(log, "_JOURNAL", found.path)
    try:
        yield found
    finally:
        found.close()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def fail_deeply() -> None:
    password = _SECRET  # noqa: F841 - a local that a careless traceback would print
    raise ZeroDivisionError("deep down")


def log_a_bug() -> None:
    try:
        fail_deeply()
    except ZeroDivisionError as error:
        events.bug("task-failed", error, touchpoint="support")


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_a_json_line_begins_with_time_level_and_event_and_keeps_the_order_of_the_keys() -> None:
    stream = io.StringIO()
    log.set_up("info", "json", stream)
    events.attempt("7hq2", "a@x.example", "smtp.example:587", 3, "deferred", "421 café", "2h")
    (line,) = lines(stream)
    assert list(json.loads(line)) == [
        "timestamp", "level", "event", "queue_id", "to", "relay", "attempt", "delay", "outcome", "reply",
    ]  # fmt: skip
    assert json.loads(line)["reply"] == "421 café"
    assert json.loads(line)["timestamp"].endswith("Z")


def test_a_traceback_is_one_json_line() -> None:
    stream = io.StringIO()
    log.set_up("info", "json", stream)
    log_a_bug()
    (line,) = lines(stream)
    assert "ZeroDivisionError: deep down" in json.loads(line)["exception"]


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    log.set_up("warning", "json", stream)
    events.say("arrived")
    events.warn("connection-lost")
    events.fail("cannot-run")
    assert [json.loads(line)["event"] for line in lines(stream)] == ["connection-lost", "cannot-run"]


# --- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_gets_each_key_as_a_field_and_a_readable_message(
    journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    log.set_up("info", "journal")
    events.attempt("7hq2", "a@x.example", "smtp.example:587", 3, "deferred", "421 4.2.1 later")
    assert journal.read() == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "mail-gateway",
        "MAIL_GATEWAY_EVENT": "attempt",
        "MAIL_GATEWAY_LEVEL": "info",
        "MAIL_GATEWAY_QUEUE_ID": "7hq2",
        "MAIL_GATEWAY_TO": "<a@x.example>",
        "MAIL_GATEWAY_RELAY": "smtp.example:587",
        "MAIL_GATEWAY_ATTEMPT": "3",
        "MAIL_GATEWAY_OUTCOME": "deferred",
        "MAIL_GATEWAY_REPLY": "421 4.2.1 later",
        "MESSAGE": "event=attempt queue_id=7hq2 to=<a@x.example> relay=smtp.example:587 attempt=3 outcome=deferred "
        'reply="421 4.2.1 later"',
    }
    assert capfd.readouterr() == ("", "")  # nothing twice


@pytest.mark.parametrize(
    ("say", "priority"),
    [
        pytest.param(events.say, "6", id="info"),
        pytest.param(events.warn, "4", id="warning"),
        pytest.param(events.fail, "3", id="error"),
    ],
)
def test_the_journal_knows_how_grave_it_is(journal: Journal, say: Callable[..., None], priority: str) -> None:
    log.set_up("info", "journal")
    say("something")
    assert journal.read()["PRIORITY"] == priority


def test_a_traceback_is_one_field_of_the_journal_and_not_in_the_message(journal: Journal) -> None:
    log.set_up("info", "journal")
    log_a_bug()
    fields = journal.read()
    assert fields["MAIL_GATEWAY_EXCEPTION"].count("\n") >= 3
    assert "ZeroDivisionError: deep down" in fields["MAIL_GATEWAY_EXCEPTION"]
    assert fields["MESSAGE"] == "event=task-failed touchpoint=support"


def test_without_a_journal_the_line_goes_to_stderr(
    journal: Journal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_JOURNAL", journal.path + ".away")
    log.set_up("info", "journal")
    events.say("arrived", queue_id="1")
    assert json.loads(capsys.readouterr().err) == {"queue_id": "1", "event": "arrived", "level": "info"}


# --- for a person ----------------------------------------------------------------------------------------------------


def test_a_line_for_a_person_is_one_line_with_the_keys_in_order() -> None:
    stream = io.StringIO()
    log.set_up("info", "console", stream)
    events.say("arrived", queue_id="1", touchpoint="support", size=7)
    (line,) = lines(stream)
    assert "arrived" in line
    assert line.endswith("queue_id=1 touchpoint=support size=7")
    assert "\x1b" not in line  # no colours where nobody sees them


# --- which format ----------------------------------------------------------------------------------------------------


class _File(io.StringIO):
    def __init__(self, descriptor: int, is_terminal: bool) -> None:
        super().__init__()
        self._descriptor, self._is_terminal = descriptor, is_terminal

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._is_terminal


def test_auto_is_console_on_a_terminal_journal_under_systemd_else_json(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert log._choose("auto", _File(file.fileno(), True)) == "console"
        assert log._choose("auto", _File(file.fileno(), False)) == "json"
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert log._choose("auto", _File(file.fileno(), False)) == "journal"
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")  # stderr was redirected since
        assert log._choose("auto", _File(file.fileno(), False)) == "json"
    assert log._choose("auto", io.StringIO()) == "json"
    assert log._choose("console", io.StringIO()) == "console"


# --- what stands in no log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "console", "journal"])
def test_no_format_shows_a_secret(
    format: str, journal: Journal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_TEST_SECRET", _SECRET)
    reference = SecretRef("env", "GATEWAY_TEST_SECRET")
    assert reference.resolve() == _SECRET
    stream = io.StringIO()
    log.set_up("debug", format, stream)
    events.say("connected", password=reference, all=[reference], table={"password": reference})
    log_a_bug()
    written = stream.getvalue() + "".join(capfd.readouterr())
    if format == "journal":
        written += str([journal.read(), journal.read()])
    assert "GATEWAY_TEST_SECRET" in written
    assert "ZeroDivisionError" in written
    assert _SECRET not in written


@pytest.mark.parametrize("level", ["debug", "info"])
def test_protocol_libraries_say_nothing_below_a_warning(level: str, caplog: pytest.LogCaptureFixture) -> None:
    log.set_up(level, "json", io.StringIO())
    caplog.set_level(logging.DEBUG)
    for name in ("aioimaplib.aioimaplib", "aiosmtplib", "mail.log", "asyncio", "pymap"):
        logging.getLogger(name).debug("AUTH PLAIN %s", _SECRET)
        logging.getLogger(name).info("LOGIN %s", _SECRET)
    assert _SECRET not in caplog.text
    logging.getLogger("aioimaplib").warning("connection odd")
    assert "connection odd" in caplog.text


# --- a log that cannot be written ------------------------------------------------------------------------------------


class _FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("format", ["json", "console"])
def test_mail_goes_on_when_the_log_is_full(format: str) -> None:
    log.set_up(format=format, stream=_FullDisk())
    counted = events.counts().get("accepted", 0)
    events.accepted("7Hq2", "support", "ana@gateway.example", 100, 1, "<a@b.example>")
    log_a_bug()
    assert events.counts()["accepted"] == counted + 1


def test_mail_goes_on_when_nobody_reads_the_log_any_more() -> None:
    stream = io.StringIO()
    log.set_up(format="json", stream=stream)
    stream.close()
    events.say("ready")
