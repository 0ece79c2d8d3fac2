"""Automatic replies of the whole daemon: from a mailbox to a mailbox, through a reload and through a sudden end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo import letters
from gateway.demo.provider import Account, ProviderThread
from tests.support.daemon import Daemon, Site
from tests.support.waiting import wait_until

SUPPORT = "support@support.example"
CARLA, DARIO, ELSA = (f"{name}@clients.example" for name in ("carla", "dario", "elsa"))
SECRET = "provider's secret"

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def provider() -> Iterator[ProviderThread]:
    with ProviderThread([Account(address, SECRET) for address in (SUPPORT, CARLA, DARIO, ELSA)]) as provider:
        yield provider


@pytest.fixture
def site(provider: ProviderThread) -> Site:
    touchpoint: dict[str, Any] = {
        "id": "support",
        "address": SUPPORT,
        "name": "Support team",
        "active": True,
        "imap": f"imap+insecure://127.0.0.1:{provider.imap_port}",
        "smtp": f"smtp+insecure://127.0.0.1:{provider.smtp_port}",
        "password": "env:PROVIDER_PASSWORD",
        "linked_queues": ["support"],
        "auto_reply": {
            "active": True,
            "subject": "Auto: {{ subject }}",
            "text": "Dear {{ sender.name }}, we have it.",
            "on": "every-message",
            "most_per_hour": 2,
        },
    }
    site = Site([touchpoint])
    site.add_agent("ana@gateway.example", "secret", ["support"])
    return site


def bring(provider: ProviderThread, sender: str, subject: str) -> None:
    message = letters.write(("Somebody", sender), SUPPORT, subject, "Hello\n")
    provider.deliver(SUPPORT, f"Return-Path: <{sender}>\r\n".encode() + message.as_bytes())


def answers(provider: ProviderThread, customer: str) -> list[str]:
    found = (letters.read(stored.raw) for stored in provider.mailbox(customer))
    return [str(message["Subject"]) for message in found if message["Auto-Submitted"] == "auto-replied"]


def alarms(daemon: Daemon) -> list[str]:
    return [alarm["id"] for alarm in daemon.status()["alarms"] if "auto-reply" in alarm["id"]]


def wait_routed(daemon: Daemon, count: int) -> None:
    wait_until(lambda: len(daemon.events("routed")) == count, f"{count} messages are routed")


def test_each_sender_has_one_until_the_breaker_says_no_and_a_reload_lets_them_go_on(
    make_daemon: MakeDaemon, provider: ProviderThread, site: Site
) -> None:
    daemon = make_daemon(site, env={"PROVIDER_PASSWORD": SECRET})
    daemon.start()
    wait_until(lambda: daemon.status()["touchpoints"][0]["state"] == "watching", "it watches")
    for number, sender in enumerate((CARLA, CARLA, DARIO, ELSA), 1):
        bring(provider, sender, f"Letter {number}")
        wait_routed(daemon, number)
    wait_until(lambda: answers(provider, DARIO) == ["Auto: Letter 3"], "Dario has an answer")
    wait_until(lambda: answers(provider, CARLA) == ["Auto: Letter 1"], "Carla has one answer")
    assert answers(provider, ELSA) == []
    assert {received.return_path for received in provider.received} == {""}
    assert alarms(daemon) == ["support/auto-reply"]
    assert [event["most_per_hour"] for event in daemon.events("auto-replies-stopped")] == [2]

    site.touchpoints[0]["auto_reply"]["most_per_hour"] = 10
    daemon.write_config()
    assert daemon.run("reload").returncode == 0
    assert alarms(daemon) == []
    bring(provider, ELSA, "Letter 5")
    wait_until(lambda: answers(provider, ELSA) == ["Auto: Letter 5"], "Elsa has an answer")
    assert len([one for one in daemon.events("connected") if "imap" in one["host"]]) == 1


def test_who_has_had_one_is_known_after_a_sudden_end(
    make_daemon: MakeDaemon, provider: ProviderThread, site: Site
) -> None:
    daemon = make_daemon(site, env={"PROVIDER_PASSWORD": SECRET})
    daemon.start()
    wait_until(lambda: daemon.status()["touchpoints"][0]["state"] == "watching", "it watches")
    provider.stop_smtp()
    bring(provider, CARLA, "Letter 1")
    wait_routed(daemon, 1)
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    provider.start_smtp()
    daemon.start()
    bring(provider, CARLA, "Letter 2")
    wait_routed(daemon, 2)
    assert daemon.run("outbox", "retry", "--all").returncode == 0
    wait_until(lambda: answers(provider, CARLA) == ["Auto: Letter 1"], "Carla has an answer")
    wait_until(lambda: daemon.ask("outbox.list") == [], "the outbox is empty")
    assert answers(provider, CARLA) == ["Auto: Letter 1"]


def explained(daemon: Daemon, *words: str) -> dict[str, list[str]]:
    """Return what `explain` says of the automatic answer, then and now."""
    done = daemon.run("explain", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {"then": [], "now": []}
    for step in json.loads(done.stdout):
        if step["step"] == "auto-reply":
            found[step["when"]].append(f"{step['detail']}: {step['verdict'].partition(' by ')[0]}")
    return found


def test_explain_tells_why_there_is_an_answer_and_why_there_is_none(
    make_daemon: MakeDaemon, provider: ProviderThread, site: Site, tmp_path: Path
) -> None:
    site.touchpoints[0]["auto_reply"]["on"] = "new-conversation"
    daemon = make_daemon(site, env={"PROVIDER_PASSWORD": SECRET})
    daemon.start()
    wait_until(lambda: daemon.status()["touchpoints"][0]["state"] == "watching", "it watches")
    bring(provider, CARLA, "Letter 1")
    bring(provider, "no-reply@clients.example", "Letter 2")
    wait_routed(daemon, 2)
    person, machine = (one["queue_id"] for one in daemon.events("routed"))
    assert explained(daemon, person) == {
        "then": [f"to {CARLA}: answered"],
        "now": [f"to {CARLA}, unless its sender has had one in this period: answered"],
    }
    silence = "no-reply@clients.example is no person's: no answer"
    assert explained(daemon, machine) == {"then": [silence], "now": [silence]}

    letter = tmp_path / "letter.eml"
    header = f"Return-Path: <{CARLA}>\r\nFrom: {CARLA}\r\nTo: {SUPPORT}\r\n"
    letter.write_text(header + "Precedence: bulk\r\n\r\nHello\r\n")
    assert explained(daemon, str(letter))["now"] == ["Precedence: bulk: no answer"]
    wait_until(lambda: provider.mailbox(CARLA), "Carla has her answer")
    token = letters.read(provider.mailbox(CARLA)[0].raw)["X-Mail-Gateway-Answer"]
    letter.write_text(header + f"X-Mail-Gateway-Answer: {token}\r\n\r\nHello\r\n")
    assert explained(daemon, str(letter))["now"] == ["it is an automatic answer of ours: no answer"]
