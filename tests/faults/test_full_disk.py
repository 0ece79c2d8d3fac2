"""The disk is full: nothing is promised that cannot be kept, agents are told to try again, and all goes on after it."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter
from tests.support.ports import free_port
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

SABOTAGE = str(Path(__file__).parent / "sabotage.py")


@pytest.mark.timeout(120)
def test_a_full_disk_is_said_in_one_line_and_everything_goes_on_when_there_is_space(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    touchpoint = shared_provider.touchpoint("full", "both")
    address = touchpoint["address"]
    site = Site([{**touchpoint, "smtp": f"smtp://localhost:{free_port()}"}])  # what is accepted stays here for now
    site.add_agent("ana@gateway.example", "secret", ["full"])
    daemon = make_daemon(site, program=(SABOTAGE, "small:150"))  # 150 pages: two megabytes or so
    daemon.start()
    daemon.wait_connected("full")

    accepted: list[str] = []
    refused: smtplib.SMTPResponseException | None = None
    with daemon.submit("ana@gateway.example", "secret") as session:
        for number in range(100):
            try:
                raw = letter(number, "big", sender=address, body="x" * 900 + "\r\n" + ("y" * 900 + "\r\n") * 100)
                session.sendmail(address, [CUSTOMER], raw)
            except smtplib.SMTPResponseException as error:
                refused = error
                break
            accepted.append(f"<big.{number}@clients.example>")
        assert refused is not None
        assert refused.smtp_code == 452  # RFC 5321: insufficient system storage; the client keeps it and tries again
        assert isinstance(refused.smtp_error, bytes)
        assert refused.smtp_error.startswith(b"4.3.1")
        assert session.noop()[0] == 250

    shared_provider.dovecot.deliver(address, letter(1, "in", body=("z" * 900 + "\r\n") * 400))
    wait_until(
        lambda: any("full" in str(event.get("cause", "")) for event in daemon.events()),
        "the log names the cause",
        state=daemon.log_tail,
    )
    told = [event for event in daemon.events() if "disk is full" in str(event.values())]
    assert told
    assert all("\n" not in str(event.get("cause", "")) for event in told)
    assert "Traceback" not in daemon.log.read_text()
    (alarm,) = [alarm for alarm in daemon.status()["alarms"] if alarm["touchpoint"] is None]
    assert "the disk is full; free some space" in alarm["cause"]
    shown = daemon.run("status")
    assert shown.returncode == 1
    assert alarm["cause"] in shown.stdout
    daemon.stop()

    roomy = make_daemon(Site([touchpoint], site.agents), state=daemon.state_dir)
    roomy.start()
    roomy.ask("outbox.retry")
    wait_until(lambda: len(roomy.conversations()) == 1, "what could not be taken comes in", state=roomy.log_tail)
    wait_until(
        lambda: {r["state"] for message in roomy.outbox() for r in message["recipients"]} == {"delivered"},
        "what was accepted goes out",
        state=lambda: roomy.outbox(),
    )
    assert [message["message_id"] for message in sorted(roomy.outbox(), key=lambda m: m["id"])] == accepted
