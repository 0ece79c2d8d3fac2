"""What administrators do to a running daemon, at the wrong moment and with the wrong file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter
from tests.support.ports import free_port
from tests.support.scripted import HANG, ScriptedProvider
from tests.support.waiting import wait_until

ANA = "ana@gateway.example"


def touchpoint(id: str, port: int, **keys: Any) -> dict[str, Any]:
    return {
        "id": id,
        "address": f"{id}@support.example",
        "name": id.title(),
        "active": True,
        "direction": "outbound",
        "linked_queues": ["support"],
        "provider": "custom",
        "smtp": f"smtp+insecure://127.0.0.1:{port}",
        "password": "env:PROVIDER_PASSWORD",
        **keys,
    }


def site_of(*touchpoints: dict[str, Any]) -> Site:
    site = Site(list(touchpoints))
    site.add_agent(ANA, "secret", ["support"])
    return site


ENV = {"PROVIDER_PASSWORD": "provider's secret"}


def submit(daemon: Daemon, id: str, number: int = 1) -> None:
    address = f"{id}@support.example"
    with daemon.submit(ANA, "secret") as session:
        session.sendmail(address, ["b@clients.example"], letter(number, id, sender=address))


def states(daemon: Daemon) -> list[str]:
    return [recipient["state"] for message in daemon.outbox() for recipient in message["recipients"]]


@pytest.fixture
def hanging() -> Iterator[ScriptedProvider]:
    """A provider that never answers to the final dot."""
    with ScriptedProvider(lambda phase, argument, session: HANG if phase == "dot" else None) as provider:
        yield provider


def test_a_hangup_with_a_bad_file_changes_nothing(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(site_of())
    daemon.start()
    good = daemon.rules.read_text()
    daemon.rules.write_text("[[touchpoint]\n")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.events("reload-refused"), "the refusal is in the log", state=daemon.log_tail)
    status = daemon.status()
    assert [alarm["id"] for alarm in status["alarms"]] == ["rules"]
    assert "rules.toml:1" in status["daemon"]["rules"]["error"]
    daemon.rules.write_text(good)
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: not daemon.status()["alarms"], "the mended file is in force", state=daemon.log_tail)
    assert "Traceback" not in daemon.log.read_text()


def test_a_word_that_is_no_text_does_not_end_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(site_of())
    daemon.start()
    asked = subprocess.run(
        [sys.executable, "-m", "gateway", "queue", "list", b"\xff"],
        env=os.environ | {"MAIL_GATEWAY_CONFIG": str(daemon.config)},
        capture_output=True,
        timeout=30,
    )
    assert asked.returncode == 2
    assert b"unknown queue" in asked.stderr
    assert daemon.status()["daemon"]["pid"]


def test_a_port_in_use_is_one_line_and_75(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(site_of())
    with socket.create_server(("127.0.0.1", daemon.submission_port)):
        daemon.launch()
        assert daemon.wait_end() == 75
    (failed,) = daemon.events("cannot-run")
    assert "is another server there?" in failed["cause"]
    assert "Traceback" not in daemon.log.read_text()


def test_reloads_that_come_together_do_not_meet(make_daemon: Callable[..., Daemon], hanging: ScriptedProvider) -> None:
    slow, quick = touchpoint("slow", hanging.port), touchpoint("quick", free_port())
    daemon = make_daemon(site_of(slow, quick), ENV)
    daemon.start()
    submit(daemon, "slow")
    wait_until(lambda: hanging.taken, "the provider has the message and says nothing")
    slow["pace"] = {"connections": 1}  # its task begins anew, when the attempt in flight has ended
    daemon.write_config()
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.status()["daemon"]["rules"]["changed_on_disk"] is False, "the first reload is under way")
    slow["pace"] = {"connections": 3}
    daemon.site.touchpoints.remove(quick)
    daemon.write_config()
    assert daemon.reload().returncode == 0
    assert [one["id"] for one in daemon.status()["touchpoints"]] == ["slow"]
    assert "Traceback" not in daemon.log.read_text()


def test_the_second_sigterm_does_not_wait(make_daemon: Callable[..., Daemon], hanging: ScriptedProvider) -> None:
    daemon = make_daemon(site_of(touchpoint("slow", hanging.port)), ENV)
    daemon.start()
    submit(daemon, "slow")
    wait_until(lambda: hanging.taken, "the provider has the message and says nothing")
    daemon.signal(signal.SIGHUP)  # nor does a reload hold it up
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: daemon.events("stopping"), "it is stopping")
    daemon.signal(signal.SIGTERM)
    began = time.monotonic()
    assert daemon.wait_end() == 0
    assert time.monotonic() - began < 4
    daemon.start()
    assert states(daemon) == ["uncertain"]


def test_mail_of_a_touchpoint_that_is_taken_out_is_held_in_sight_and_leaves_when_it_is_back(
    make_daemon: Callable[..., Daemon],
) -> None:
    port = free_port()
    gone = touchpoint("gone", port)
    daemon = make_daemon(site_of(gone), ENV)
    daemon.start()
    submit(daemon, "gone")
    wait_until(lambda: states(daemon) == ["deferred"], "nobody is at home", state=daemon.outbox)

    daemon.site.touchpoints.remove(gone)
    daemon.write_config()
    assert daemon.reload().returncode == 0
    assert states(daemon) == ["held"]
    assert daemon.outbox()[0]["cause"] == "the touchpoint is not in rules.toml any more"
    (alarm,) = daemon.status()["alarms"]
    assert alarm["touchpoint"] == "gone"

    with ScriptedProvider(port=port) as provider:
        daemon.site.touchpoints.append(gone)
        daemon.write_config()
        assert daemon.reload().returncode == 0
        wait_until(lambda: states(daemon) == ["delivered"], "it goes out", state=daemon.outbox)
        assert len(provider.taken) == 1
    assert not daemon.status()["alarms"]


def test_a_reload_tries_a_refused_login_again(make_daemon: Callable[..., Daemon]) -> None:
    password = ["wrong"]

    def script(phase: str, argument: str, session: Any) -> str | None:
        return "535 5.7.8 wrong password" if phase == "auth" and password[0] == "wrong" else None

    with ScriptedProvider(script) as provider:
        daemon = make_daemon(site_of(touchpoint("locked", provider.port)), ENV)
        daemon.start()
        submit(daemon, "locked")
        wait_until(lambda: states(daemon) == ["held"], "the lane is held", state=daemon.outbox)
        password[0] = "right"
        assert daemon.reload().returncode == 0
        wait_until(lambda: states(daemon) == ["delivered"], "it goes out", state=daemon.outbox)
