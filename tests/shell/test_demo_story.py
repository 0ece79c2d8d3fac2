"""`mail-gateway demo`: it ends well, leaves nothing behind, and notices when what it tells is not so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.demo import site as site_module
from gateway.demo import story
from gateway.demo.provider import ProviderThread
from gateway.demo.site import Site

COMMAND = [sys.executable, "-m", "gateway", "demo"]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place for temporary files, short enough for the path of a socket."""
    place = Path(tempfile.mkdtemp(prefix="demo-"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    shutil.rmtree(place)


def processes_that_mention(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(command)
    return found


def test_the_story_is_true_and_short(temporary: Path):
    begun = time.monotonic()
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=100, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - begun < 60  # half of it on a machine that has nothing else to do
    assert done.stderr == ""
    for sentence in (
        "→ queue support",
        'rule "invoices"',
        "have an automatic answer",
        "queued as",
        "the touchpoint's signature in text and HTML",
        "the first attempt failed",
        "joins her conversation",
        "$ mail-gateway outbox retry --all",
        "exactly once",
    ):
        assert sentence in done.stdout
    assert list(temporary.iterdir()) == []
    assert processes_that_mention(str(temporary)) == []


def test_with_keep_it_stays_until_it_is_told_to_go(temporary: Path):
    demo = subprocess.Popen(
        [*COMMAND, "--keep"], stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    try:
        assert demo.stdout is not None
        printed = ""
        while "Ctrl-C ends it" not in printed:
            line = demo.stdout.readline()
            assert line, printed
            printed += line
        assert demo.poll() is None
        assert processes_that_mention(str(temporary)) != []
        for login in ("ana@shop.example", "carla@customer.example", "support@shop.example"):
            assert login in printed
        demo.send_signal(signal.SIGTERM)
        rest, _ = demo.communicate(timeout=60)
        assert demo.returncode == 0, rest
    finally:
        demo.kill()
        demo.communicate()
    assert list(temporary.iterdir()) == []
    assert processes_that_mention(str(temporary)) == []


# --- what it tells is looked at: spoiled on purpose, it says no ------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(story, "PATIENCE", 9.0)  # the second attempt comes after five


@pytest.mark.usefixtures("impatient")
def test_a_rule_that_does_not_match_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(site_module, "_RULES", site_module._RULES.replace('"*invoice*"', '"*bill*"'))
    assert story.main() == 1
    assert "should be in" in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_a_missing_signature_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(site_module, "SIGNATURE_TEXT", "Somebody\n")
    assert story.main() == 1
    assert "the signature should be once in the text part" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("impatient")
def test_an_outage_that_does_not_end_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(ProviderThread, "start_smtp", lambda self: None)
    assert story.main() == 1
    assert "Dario gets the reply: not within" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("impatient")
def test_mail_that_arrives_twice_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    mailbox = ProviderThread.mailbox

    def twice(self: ProviderThread, address: str, folder: str = "INBOX") -> object:
        return mailbox(self, address, folder) * 2

    monkeypatch.setattr(ProviderThread, "mailbox", twice)
    assert story.main() == 1
    assert "exactly once; it is there 2 times" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    start = Site.start

    def start_and_die(self: Site) -> None:
        start(self)
        assert self._daemon is not None
        self._daemon.kill()

    monkeypatch.setattr(Site, "start", start_and_die)
    assert story.main() == 1
    assert "ended with exit code -9" in " ".join(capsys.readouterr().out.split())
