"""What goes wrong gets one line that names cause and remedy, and no other touchpoint notices."""

from __future__ import annotations

import itertools
import smtplib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.dovecot import Dovecot
from tests.support.letters import letter
from tests.support.ports import free_port
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

_numbers = itertools.count(1)


@pytest.fixture
def site(shared_provider: Provider) -> Site:
    """One touchpoint that is well; the test adds the one that is not."""
    well = f"well-{next(_numbers)}"
    site = Site([shared_provider.touchpoint(well, "both", linked_queues=["well"])])
    site.add_agent("ana@gateway.example", "secret", ["well"])
    return site


def the_well_one(site: Site) -> dict[str, Any]:
    return site.touchpoints[0]


def assert_nobody_else_notices(daemon: Daemon, site: Site, provider: Provider) -> None:
    """Mail comes in and goes out at the touchpoint beside it."""
    well = the_well_one(site)
    daemon.wait_connected(well["id"])
    before = len(daemon.conversations())
    provider.dovecot.deliver(well["address"], letter(before, "to the well one"))
    wait_until(lambda: len(daemon.conversations()) == before + 1, "mail comes in beside it", state=daemon.log_tail)
    with daemon.submit("ana@gateway.example", "secret") as session:
        session.sendmail(well["address"], [CUSTOMER], letter(before, "out", sender=well["address"]))
    wait_until(
        lambda: all(r["state"] == "delivered" for message in daemon.outbox() for r in message["recipients"]),
        "mail goes out beside it",
        state=lambda: daemon.outbox(),
    )
    assert not [alarm for alarm in daemon.status()["alarms"] if alarm["touchpoint"] == well["id"]]


def wait_for_cause(daemon: Daemon, id: str, *words: str) -> str:
    """Return the one line that `status` shows about a touchpoint; it names all of `words`."""

    def cause() -> str:
        status = daemon.touchpoint_status(id)
        return "" if status["connected"] else str(status["cause"] or "")

    def all_named() -> bool:
        return all(word.lower() in cause().lower() for word in words)

    wait_until(all_named, f"a cause that names {words}", timeout=20, state=lambda: (cause(), daemon.log_tail()))
    line = cause()
    assert "\n" not in line
    assert "Traceback" not in daemon.log.read_text()
    return line


def test_a_wrong_password(shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]) -> None:
    site.touchpoints.append(shared_provider.touchpoint("locked"))
    shared_provider.set_password("locked", "another one", ours=False)
    daemon = make_daemon(site)
    daemon.start()
    line = wait_for_cause(daemon, "locked", "password")
    assert "secret of locked" not in line
    assert_nobody_else_notices(daemon, site, shared_provider)
    shown = daemon.run("status")
    assert shown.returncode == 1  # an alarm
    assert "password" in shown.stdout
    assert "secret of locked" not in daemon.log.read_text()


def test_a_wrong_password_mends_itself_when_the_file_is_mended(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    site.touchpoints.append(shared_provider.touchpoint("forgetful"))
    shared_provider.set_password("forgetful", "another one", ours=False)
    daemon = make_daemon(site)
    daemon.start()
    wait_for_cause(daemon, "forgetful", "password")
    shared_provider.set_password("forgetful", "another one")
    site.touchpoint("forgetful")["name"] = "Forgetful no more"
    daemon.write_config()
    assert daemon.reload().returncode == 0
    daemon.wait_connected("forgetful")


def test_an_unreachable_host(shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]) -> None:
    port = free_port()
    site.touchpoints.append(shared_provider.touchpoint("nowhere", imap=f"imaps://localhost:{port}"))
    daemon = make_daemon(site)
    daemon.start()
    wait_for_cause(daemon, "nowhere", "localhost", str(port))
    assert_nobody_else_notices(daemon, site, shared_provider)


def test_a_host_name_that_does_not_exist(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    site.touchpoints.append(shared_provider.touchpoint("misspelt", imap="imaps://imap.no-such-host.invalid"))
    daemon = make_daemon(site)
    daemon.start()
    wait_for_cause(daemon, "misspelt", "imap.no-such-host.invalid")
    assert_nobody_else_notices(daemon, site, shared_provider)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=100) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon], silent_port: int
) -> None:
    site.touchpoints.append(shared_provider.touchpoint("silent", imap=f"imap+insecure://127.0.0.1:{silent_port}"))
    daemon = make_daemon(site)
    daemon.start()
    assert_nobody_else_notices(daemon, site, shared_provider)
    assert not daemon.touchpoint_status("silent")["connected"]
    assert daemon.stop(timeout=10) == 0  # nor does it hold up the end


def test_an_expired_certificate(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon], authority: Authority
) -> None:
    stale = Dovecot({"stale@support.example": "secret of stale"}, authority.issue("stale", expired=True))
    stale.start()
    try:
        site.touchpoints.append(shared_provider.touchpoint("stale", imap=f"imaps://localhost:{stale.imaps_port}"))
        daemon = make_daemon(site)
        daemon.start()
        wait_for_cause(daemon, "stale", "certificate", "expired")
        assert_nobody_else_notices(daemon, site, shared_provider)
        assert "Login: user=<stale@support.example>" not in stale.log.read_text()  # it has not shown its password
    finally:
        stale.close()


def test_a_certificate_of_an_authority_that_nobody_named(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    site.touchpoints.append(shared_provider.touchpoint("stranger", ca_file=""))
    daemon = make_daemon(site)
    daemon.start()
    wait_for_cause(daemon, "stranger", "certificate", "ca_file")
    assert_nobody_else_notices(daemon, site, shared_provider)


def test_a_bad_rules_file_at_reload_changes_nothing_and_says_where(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site)
    daemon.start()
    daemon.wait_connected(the_well_one(site)["id"])
    since = daemon.touchpoint_status(the_well_one(site)["id"])["since"]
    good = daemon.rules.read_text()
    daemon.rules.write_text(good + '\n[[rule]]\nname = "odd"\n"if" = { subjekt = "*" }\nthen = { queue = "well" }\n')
    refused = daemon.reload()
    assert refused.returncode == 1
    line = 1 + good.count("\n") + 3
    shown = refused.stdout + refused.stderr
    assert f"rules.toml:{line}" in shown
    assert 'did you mean "subject"' in shown
    assert_nobody_else_notices(daemon, site, shared_provider)
    assert daemon.touchpoint_status(the_well_one(site)["id"])["since"] == since  # the session was not touched
    assert daemon.run("check").returncode == 1
    daemon.rules.write_text(good)
    assert daemon.reload().returncode == 0
    assert daemon.status()["daemon"]["rules"]["error"] is None


def test_a_bad_rules_file_at_start_leaves_the_last_good_copy_in_force(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site)
    daemon.start()
    daemon.stop()
    daemon.rules.write_text("[[touchpoint]\n")
    daemon.start()
    assert_nobody_else_notices(daemon, site, shared_provider)
    assert "rules.toml:1" in daemon.status()["daemon"]["rules"]["error"]
    shown = daemon.run("status")
    assert shown.returncode == 1
    assert "rules.toml" in shown.stdout


def test_a_bad_gateway_file_stops_the_start_with_78(site: Site, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(site)
    daemon.config.write_text(daemon.config.read_text() + "\n[submision]\n")
    daemon.launch()
    assert daemon.wait_end() == 78
    assert 'did you mean "submission"' in daemon.log.read_text()
    assert "Traceback" not in daemon.log.read_text()


ODD: dict[str, bytes] = {
    "empty": b"",
    "no-header": b"just some text without any header\r\n",
    "only-binary": bytes(range(256)) * 40,
    "nul-in-header": b"From: a\0b@clients.example\r\nSubject: nul\0nul\r\n\r\nbody\r\n",
    "eight-bit-header": b"From: J\xf6rg <j@clients.example>\r\nSubject: \xe9t\xe9 \xff\xfe\r\n\r\nbody\r\n",
    "unknown-charset": b"Subject: =?x-no?Q?=FF?= =?utf-8?B?!!!?=\r\nContent-Type: text/plain; charset=x-no\r\n\r\n\xff",
    "bomb": b"Subject: " + b"=?utf-8?Q?a?=\r\n " * 20_000 + b"\r\n\r\nbody\r\n",
    "100000-fields": b"X: y\r\n" * 100_000 + b"\r\nbody\r\n",
    "deep": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(500)
    ),
    "nested-comments": b"From: " + b"(" * 5_000 + b"\r\nTo: " + b'("(' * 5_000 + b"\r\n\r\nbody\r\n",
    "endless-references": b"References: " + b"<x@y>\r\n " * 30_000 + b"\r\nSubject: refs\r\n\r\nbody\r\n",
}


def test_a_message_that_does_not_parse_reaches_its_queue_as_it_is(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon]
) -> None:
    site.touchpoints.append(shared_provider.touchpoint("odd", linked_queues=["odd"], history="all"))
    shared_provider.dovecot.seed("odd@support.example", ODD.values())
    daemon = make_daemon(site)
    daemon.start()

    def in_queue() -> list[dict[str, Any]]:
        return [conversation for conversation in daemon.conversations() if "odd" in conversation["queues"]]

    wait_until(lambda: len(in_queue()) >= len(ODD), "each odd one", state=lambda: (len(in_queue()), daemon.log_tail()))
    assert_nobody_else_notices(daemon, site, shared_provider)
    assert len(in_queue()) == len(ODD)
    found = [daemon.ask("queue.read", id=conversation["id"])[0] for conversation in in_queue()]
    assert len(found) == len(ODD)


@pytest.mark.parametrize("who", ["header", "both"])
def test_an_agent_who_writes_as_somebody_elses_touchpoint_hears_which_ones_are_theirs(
    shared_provider: Provider, site: Site, make_daemon: Callable[..., Daemon], who: str
) -> None:
    theirs = f"theirs-{who}"
    site.touchpoints.append(shared_provider.touchpoint(theirs, "both"))
    daemon = make_daemon(site)
    daemon.start()
    envelope = f"{theirs}@support.example" if who == "both" else the_well_one(site)["address"]
    with daemon.submit("ana@gateway.example", "secret") as session:
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            session.sendmail(envelope, [CUSTOMER], letter(1, "as another", sender=f"{theirs}@support.example"))
        assert refused.value.smtp_code == 550
        assert isinstance(refused.value.smtp_error, bytes)
        reply = refused.value.smtp_error.decode()
        assert reply.startswith("5.7.1")
        assert the_well_one(site)["address"] in reply
        assert "\n" not in reply
    assert daemon.outbox() == []
    assert_nobody_else_notices(daemon, site, shared_provider)
