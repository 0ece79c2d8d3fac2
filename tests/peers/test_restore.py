"""The whole accident: mail is sent, backed up, sent on, the machine dies, an old copy takes over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.provider import Provider
from tests.support.scripted import ScriptedProvider, Session
from tests.support.waiting import wait_until

PROGRAM = (str(Path(__file__).parents[1] / "support" / "hindsight.py"),)
ROOT = str(Path(__file__).parents[2])


class Post:
    """A provider's SMTP that keeps a ledger of what it has accepted. `busy`: subjects that it puts off.

    `file`: keeps the provider's copy of what was accepted, where there is one.
    """

    def __init__(self, file: Callable[[bytes], None] | None) -> None:
        self.busy: set[str] = set()
        self.ledger: Counter[str] = Counter()
        self._file = file
        self.smtp = ScriptedProvider(self._play)

    def _play(self, phase: str, argument: str, session: Session) -> str | None:
        if phase != "dot":
            return None
        subject = argument.partition("\r\nSubject: ")[2].partition("\r\n")[0]
        if subject in self.busy:
            return "451 4.2.0 not now"
        self.ledger[subject] += 1
        if self._file is not None:
            self._file(self.smtp.taken[-1].raw)
        return None


@pytest.fixture
def posts(authority: Authority) -> Iterator[tuple[Provider, Post, Post]]:
    """One provider that keeps copies, and one of which we see nothing but its SMTP."""
    provider = Provider(authority)
    box = "kept@support.example"
    kept = Post(lambda raw: provider.server.append(box, raw, "Sent", datetime.now(UTC), "(\\Seen)"))
    bare = Post(None)
    try:
        yield provider, kept, bare
    finally:
        kept.smtp.close()
        bare.smtp.close()
        provider.close()


def site_of(provider: Provider, kept: Post, bare: Post) -> Site:
    with_copies = provider.touchpoint("kept") | {
        "direction": "outbound",
        "imap": f"imap+insecure://127.0.0.1:{provider.server.imap_port}",
        "smtp": f"smtp+insecure://127.0.0.1:{kept.smtp.port}",
        "sent_copy": "provider",
    }
    without = provider.touchpoint("bare") | {
        "direction": "outbound",
        "smtp": f"smtp+insecure://127.0.0.1:{bare.smtp.port}",
    }
    del without["imap"]
    site = Site([with_copies, without])
    site.add_agent("ana@gateway.example", "password", ["kept", "bare"])
    return site


def submit(daemon: Daemon, touchpoint: str, *subjects: str) -> None:
    with daemon.submit("ana@gateway.example", "password") as session:
        for subject in subjects:
            message = EmailMessage()
            message["From"] = f"{touchpoint}@support.example"
            message["To"] = "customer@clients.example"
            message["Subject"] = subject
            message["Message-ID"] = f"<{subject}@{touchpoint}>"
            message.set_content(f"{subject}\n")
            session.send_message(message)


def states(daemon: Daemon) -> dict[str, str]:
    return {message["subject"]: message["recipients"][0]["state"] for message in daemon.outbox()}


def wait_states(daemon: Daemon, **expected: str) -> None:
    def so_far() -> dict[str, str]:
        found = states(daemon)
        return {subject: found.get(subject, "none") for subject in expected}

    wait_until(lambda: so_far() == expected, str(expected), state=lambda: (states(daemon), daemon.log_tail()))


@pytest.mark.timeout(180)
def test_nothing_is_sent_twice_after_an_old_copy_was_restored(
    posts: tuple[Provider, Post, Post],
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    provider, kept, bare = posts
    kept.busy = {"late", "never"}
    bare.busy = {"unseen", "unsent"}
    daemon = make_daemon(site_of(provider, kept, bare), {"PYTHONPATH": ROOT}, program=PROGRAM)
    daemon.start()
    submit(daemon, "kept", "first", "late", "never")
    submit(daemon, "bare", "plain", "unseen", "unsent")
    wait_states(
        daemon, first="delivered", late="deferred", never="deferred", plain="delivered", unseen="deferred",
        unsent="deferred",
    )  # fmt: skip

    file = tmp_path / "backup.db"
    done = daemon.run("backup", str(file))
    assert done.returncode == 0, done.stderr
    assert "(password of kept)" in done.stdout

    kept.busy.discard("late")
    bare.busy.discard("unseen")
    submit(daemon, "kept", "lost")  # accepted behind the backup: the restored store will not know it
    daemon.ask("outbox.retry", all=True)
    wait_states(daemon, late="delivered", unseen="delivered", lost="delivered", never="deferred", unsent="deferred")
    daemon.kill()

    refused = daemon.run("restore", str(tmp_path / "nothing.db"))
    assert refused.returncode == 1
    done = daemon.run("restore", str(file))
    assert done.returncode == 0, done.stderr
    assert "held: 4 messages" in done.stdout
    assert "kept: 2 recipients" in done.stdout
    assert "bare: 2 recipients" in done.stdout
    kept.busy.clear()
    bare.busy.clear()

    daemon.start()
    alarms = {alarm["touchpoint"]: alarm["cause"] for alarm in daemon.status()["alarms"]}
    assert "2 messages may have been sent since the backup" in alarms["bare"]
    held = [message for message in daemon.outbox() if message["recipients"][0]["state"] == "held"]
    assert all("restored from a backup" in message["cause"] for message in held)
    assert {"unseen", "unsent"} <= {message["subject"] for message in held}
    wait_states(daemon, late="delivered")  # its copy lies in Sent, under an attempt that the old copy never made
    wait_until(lambda: daemon.events("undecided"), "the other was looked for", state=daemon.log_tail)
    assert states(daemon)["never"] == "held"
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, "a copy can be later: IMAP's dates have no fractions of a second")
    submit(daemon, "kept", "after")  # now something later lies there, and what is not there never was
    wait_states(daemon, after="delivered", never="delivered")
    daemon.ask("outbox.retry", all=True)
    assert (states(daemon)["unseen"], states(daemon)["unsent"]) == ("held", "held")

    for message in daemon.outbox():
        if message["subject"] == "unseen":  # a person has asked the customer
            assert daemon.run("outbox", "settle", message["id"], "--delivered").returncode == 0
        if message["subject"] == "unsent":
            assert daemon.run("outbox", "settle", message["id"], "--resend").returncode == 0
    wait_states(daemon, unseen="delivered", unsent="delivered")
    assert daemon.status()["alarms"] == []
    assert daemon.stop() == 0
    assert kept.ledger == Counter(["first", "late", "never", "lost", "after"])
    assert bare.ledger == Counter(["plain", "unseen", "unsent"])
    record_property("counts", f"{dict(kept.ledger)} {dict(bare.ledger)}: each once")


@pytest.mark.timeout(120)
def test_mail_that_came_since_the_backup_comes_again(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """What the provider still has is fetched anew; what the copy knew is not doubled."""
    touchpoint: dict[str, Any] = shared_provider.touchpoint("twice")
    daemon = make_daemon(Site([touchpoint]))
    daemon.start()
    daemon.wait_connected("twice")

    def deliver(name: str) -> None:
        raw = f"From: c@clients.example\r\nTo: {touchpoint['address']}\r\nSubject: {name}\r\n\r\nHello.\r\n".encode()
        shared_provider.dovecot.deliver(touchpoint["address"], raw)

    def subjects() -> list[str]:
        return sorted(conversation["subject"] for conversation in daemon.conversations())

    deliver("before")
    wait_until(lambda: subjects() == ["before"], "it came", state=daemon.log_tail)
    assert daemon.run("backup", str(tmp_path / "b.db")).returncode == 0
    deliver("behind")
    wait_until(lambda: subjects() == ["before", "behind"], "it came", state=daemon.log_tail)
    daemon.kill()
    assert daemon.run("restore", str(tmp_path / "b.db")).returncode == 0
    daemon.start()
    wait_until(lambda: subjects() == ["before", "behind"], "it came again", state=daemon.log_tail)
    assert daemon.stop() == 0
