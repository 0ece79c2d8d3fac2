"""Automatic replies of the whole daemon: from a mailbox to a mailbox, through a reload and through a sudden end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
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
