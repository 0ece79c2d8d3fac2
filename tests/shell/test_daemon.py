"""The daemon as a process: its life under systemd, what a reload touches and what it does not, faults of its own."""

from __future__ import annotations

import contextlib
import signal
import smtplib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.demo.provider import Account, ProviderThread
from gateway.model import read_id
from tests.support import activation, faulty
from tests.support.daemon import Daemon, Site
from tests.support.letters import letter
from tests.support.ports import free_port
from tests.support.scripted import ScriptedProvider, Session
from tests.support.waiting import wait_until

ANA = "ana@gateway.example"
SECRET = "provider's secret"
CUSTOMER = "customer@clients.example"
IDS = ("support", "sales", "spare")
ENV = {"PROVIDER_PASSWORD": SECRET}

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def provider() -> Iterator[ProviderThread]:
    """IMAP and SMTP in memory, with a mailbox for each touchpoint and for a customer."""
    addresses = (*(f"{id}@support.example" for id in IDS), CUSTOMER)
    with ProviderThread([Account(address, SECRET) for address in addresses]) as provider:
        yield provider


def touchpoint(id: str, provider: ProviderThread | None = None, smtp_port: int = 1, **keys: Any) -> dict[str, Any]:
    """A `[[touchpoint]]`: in and out at `provider`, else outbound only, at an SMTP server of that port."""
    made: dict[str, Any] = {
        "id": id,
        "address": f"{id}@support.example",
        "name": f"{id.title()} team",
        "active": True,
        "linked_queues": [id],
        "password": "env:PROVIDER_PASSWORD",
        "smtp": f"smtp+insecure://127.0.0.1:{provider.smtp_port if provider else smtp_port}",
    }
    if provider:
        made["imap"] = f"imap+insecure://127.0.0.1:{provider.imap_port}"
    else:
        made["direction"] = "outbound"
    return {**made, **keys}


def site_of(*touchpoints: dict[str, Any], **gateway: Any) -> Site:
    site = Site(list(touchpoints), gateway=gateway)
    site.add_agent(ANA, "secret", [touchpoint["id"] for touchpoint in touchpoints])
    return site


def plain_site(**gateway: Any) -> Site:
    """A touchpoint that takes mail, at a provider where nobody answers."""
    return site_of(touchpoint("support", smtp_port=free_port()), **gateway)


def send(session: smtplib.SMTP, id: str, number: int = 1) -> None:
    address = f"{id}@support.example"
    session.sendmail(address, [CUSTOMER], letter(number, id, sender=address, to=CUSTOMER))


def stored(daemon: Daemon, query: str) -> list[Any]:
    """Look into the store of a stopped daemon."""
    with contextlib.closing(daemon.database()) as db:
        return list(db.execute(query))


def imap_connections(daemon: Daemon, id: str) -> int:
    return len([one for one in daemon.events("connected") if one["touchpoint"] == id and "imap" in one["host"]])


def queues_of(daemon: Daemon) -> dict[str, list[str]]:
    return {conversation["subject"]: conversation["queues"] for conversation in daemon.conversations()}


# --- start and stop --------------------------------------------------------------------------------------------------


def test_it_says_ready_and_stopping_and_ends_with_0(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.start()
    daemon.signal(signal.SIGTERM)
    daemon.wait_notified("STOPPING=1")
    began = time.monotonic()
    assert daemon.wait_end() == 0
    assert time.monotonic() - began < 15
    assert [event["event"] for event in daemon.events()][-2:] == ["stopping", "stopped"]
    assert not (daemon.state_dir / "control.sock").exists()
    assert daemon.run("status").returncode == 69


def test_ctrl_c_is_a_sigterm(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.start()
    daemon.signal(signal.SIGINT)
    assert daemon.wait_end() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_a_submission_under_way_at_sigterm_gets_its_250_and_is_in_the_store(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.start()
    session = daemon.submit(ANA, "secret")
    session.ehlo_or_helo_if_needed()
    session.mail("support@support.example")
    session.rcpt(CUSTOMER)
    assert session.docmd("DATA")[0] == 354
    half, rest = letter(1, "late", sender="support@support.example").split(b"\r\n\r\n")
    session.send(half)
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: daemon.events("stopping"), "it is stopping", state=daemon.log_tail)
    wait_until(lambda: is_refused(daemon.submission_port), "nobody else gets in", state=daemon.log_tail)
    session.send(b"\r\n\r\n" + rest + b".\r\n")
    code, answer = session.getreply()
    assert code == 250
    assert daemon.wait_end() == 0
    session.close()
    (row,) = stored(daemon, "SELECT id, state FROM outbox JOIN recipient ON recipient.outbox = outbox.id")
    assert row[0] == read_id(answer.split()[-1].decode())
    assert row[1] in ("queued", "deferred")


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_attempt_under_way_at_sigterm_ends_and_is_recorded(make_daemon: MakeDaemon) -> None:
    release = threading.Event()

    def slowly(phase: str, argument: str, session: Session) -> str | None:
        if phase == "dot":
            release.wait(30)
        return None

    with ScriptedProvider(slowly) as smarthost:
        daemon = make_daemon(site_of(touchpoint("support", smtp_port=smarthost.port)), ENV)
        daemon.start()
        with daemon.submit(ANA, "secret") as session:
            send(session, "support")
        wait_until(lambda: smarthost.taken, "the provider has the message and has not answered")
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: daemon.events("stopping"), "it is stopping", state=daemon.log_tail)
        wait_until(lambda: is_refused(daemon.submission_port), "it is draining", state=daemon.log_tail)
        release.set()
        assert daemon.wait_end() == 0
    assert stored(daemon, "SELECT state, attempts FROM recipient") == [("delivered", 1)]


def test_an_unusable_gateway_toml_is_78_and_told_with_its_lines(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.config.write_text('hostnme = "x"\n\ntimezone = "Lisbon"\n')
    done = daemon.run("run")
    assert (done.returncode, done.stdout) == (78, "")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["gateway.toml:1", "gateway.toml:3"]
    daemon.config.unlink()
    assert daemon.run("run").returncode == 78


def test_a_second_daemon_on_the_same_state_is_75_and_names_the_first(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.start()
    done = daemon.run("run")
    assert (done.returncode, done.stdout) == (75, "")
    assert f"in use by another mail-gateway (pid {daemon.pid})" in done.stderr
    assert done.stderr.count("\n") == 1
    assert daemon.status()["daemon"]["pid"]  # the first one still answers


def test_sockets_of_systemd_are_used(make_daemon: MakeDaemon) -> None:
    port = free_port()
    daemon = make_daemon(
        plain_site(submission={"listen": [f"smtp+insecure://127.0.0.1:{port}"]}),
        program=(activation.__file__, str(port), "mail-gateway.socket", sys.executable, "-m", "gateway"),
    )
    daemon.start()  # the port is taken, by the very socket it is given: it could not bind its own
    daemon.submission_port = port
    with daemon.submit(ANA, "secret") as session:
        assert session.noop()[0] == 250
    (ready,) = daemon.events("ready")
    assert ready["listening"] == [f"smtp+insecure://127.0.0.1:{port}"]
    assert daemon.stop() == 0


def test_the_watchdog_hears_from_it_again_and_again(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.more_env["WATCHDOG_USEC"] = "1000000"
    daemon.start()
    for _ in range(3):
        began = time.monotonic()
        daemon.wait_notified("WATCHDOG=1", timeout=20)
        assert time.monotonic() - began < 15  # half a second, on a machine that is not busy; never the 5 s of the rest


# --- bad rules at start ----------------------------------------------------------------------------------------------


def test_with_bad_rules_the_last_good_copy_runs_and_everybody_is_told(
    make_daemon: MakeDaemon, provider: ProviderThread
) -> None:
    daemon = make_daemon(site_of(touchpoint("support", provider)), ENV)
    daemon.start()
    daemon.wait_connected("support")
    assert daemon.stop() == 0
    daemon.rules.write_text("[[touchpoint]]\nadress = 1\n")
    daemon.start()
    daemon.wait_connected("support")
    provider.deliver("support@support.example", letter(1, "old rules"))
    wait_until(lambda: queues_of(daemon), "mail still moves", state=daemon.log_tail)
    status = daemon.run("status")
    assert status.returncode == 1
    assert "from the last good copy" in status.stdout
    assert "rules.toml:2: " in status.stdout
    assert [alarm["id"] for alarm in daemon.status()["alarms"]] == ["rules"]
    daemon.write_config()
    assert daemon.reload().returncode == 0
    assert daemon.run("status").returncode == 0
    assert imap_connections(daemon, "support") == 2  # one for each start, none for the reload


def test_without_any_good_copy_it_starts_with_no_rules_and_says_so(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site())
    daemon.rules.write_text("[[touchpoint]]\nadress = 1\n")
    daemon.start()
    status = daemon.run("status")
    assert status.returncode == 1
    assert "no rules are in force" in status.stdout
    assert daemon.status()["touchpoints"] == []
    daemon.write_config()
    assert daemon.reload().returncode == 0
    assert [one["id"] for one in daemon.status()["touchpoints"]] == ["support"]


# --- reload ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGHUP", "command"])
def test_a_reload_counts_for_the_next_message_and_drops_no_session(
    make_daemon: MakeDaemon, provider: ProviderThread, how: str
) -> None:
    site = site_of(touchpoint("support", provider), touchpoint("sales", provider))
    daemon = make_daemon(site, ENV)
    daemon.start()
    daemon.wait_connected("support", "sales")
    with daemon.submit(ANA, "secret") as session:
        provider.deliver("support@support.example", letter(1, "invoice"))
        wait_until(lambda: "invoice 1" in queues_of(daemon), "the first is in its queue", state=daemon.log_tail)

        site.touchpoint("support")["signature"] = {"active": True, "text": "Kind regards, Support"}
        site.rules.append({"name": "invoices", "if": {"subject": "invoice*"}, "then": {"queue": "sales"}})
        daemon.write_config()
        if how == "SIGHUP":
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: daemon.events("reloaded"), "the files are in use", state=daemon.log_tail)
        else:
            done = daemon.reload()
            assert done.returncode == 0
            assert "rule invoices: added" in done.stdout
            assert "touchpoint support: signature" in done.stdout

        provider.deliver("support@support.example", letter(2, "invoice"))
        wait_until(lambda: "invoice 2" in queues_of(daemon), "so is the second", state=daemon.log_tail)
        assert queues_of(daemon) == {"invoice 1": ["support"], "invoice 2": ["sales"]}
        send(session, "support")  # on the session that was there before
    wait_until(lambda: provider.received, "the agent's letter has left", state=daemon.log_tail)
    assert b"Kind regards, Support" in provider.received[0].raw
    assert {id: imap_connections(daemon, id) for id in ("support", "sales")} == {"support": 1, "sales": 1}
    assert not daemon.events("connection-lost")


def test_a_changed_touchpoint_connects_anew_a_new_one_begins_and_a_removed_one_ends(
    make_daemon: MakeDaemon, provider: ProviderThread
) -> None:
    site = site_of(touchpoint("support", provider), touchpoint("sales", provider))
    daemon = make_daemon(site, ENV)
    daemon.start()
    daemon.wait_connected("support", "sales")
    site.touchpoint("support")["watch"] = {"poll": "1 min", "renew_idle": "5 min"}
    site.touchpoints.remove(site.touchpoint("sales"))
    site.touchpoints.append(touchpoint("spare", provider))
    daemon.write_config()
    done = daemon.reload()
    assert done.returncode == 0
    assert {"touchpoint support: watch.poll, watch.renew_idle changed", "touchpoint sales: removed"} <= set(
        done.stdout.splitlines()
    )
    daemon.wait_connected("support", "spare")
    assert [one["id"] for one in daemon.status()["touchpoints"]] == ["support", "spare"]
    assert {id: imap_connections(daemon, id) for id in IDS} == {"support": 2, "sales": 1, "spare": 1}
    provider.deliver("sales@support.example", letter(1, "nobody looks"))
    provider.deliver("spare@support.example", letter(2, "somebody looks"))
    wait_until(lambda: "somebody looks 2" in queues_of(daemon), "the new one is watched", state=daemon.log_tail)
    assert list(queues_of(daemon)) == ["somebody looks 2"]


def test_a_touchpoint_that_is_switched_off_is_left_alone_and_comes_back(
    make_daemon: MakeDaemon, provider: ProviderThread
) -> None:
    site = site_of(touchpoint("support", provider))
    daemon = make_daemon(site, ENV)
    daemon.start()
    daemon.wait_connected("support")
    for active in (False, True):
        site.touchpoint("support")["active"] = active
        daemon.write_config()
        assert daemon.reload().returncode == 0
        if not active:
            shown = daemon.touchpoint_status("support")
            assert (shown["state"], shown["connected"]) == ("inactive", False)
    daemon.wait_connected("support")
    assert imap_connections(daemon, "support") == 2


def test_a_bad_file_changes_nothing_and_is_told_whole(make_daemon: MakeDaemon, provider: ProviderThread) -> None:
    site = site_of(touchpoint("support", provider))
    daemon = make_daemon(site, ENV)
    daemon.start()
    daemon.wait_connected("support")
    daemon.rules.write_text(daemon.rules.read_text() + "\n[[rule]]\nnme = 1\n\n[spam]\nblocklst = []\n")
    lines = daemon.rules.read_text().splitlines()
    done = daemon.reload()
    assert (done.returncode, done.stdout) == (1, "")
    for key in ("nme = 1", "blocklst = []"):
        assert f"rules.toml:{lines.index(key) + 1}: unknown key" in done.stderr
    status = daemon.status()["daemon"]["rules"]
    assert (status["origin"], status["changed_on_disk"]) == ("file", False)
    assert "rules.toml:" in status["error"]
    provider.deliver("support@support.example", letter(1, "as before"))
    wait_until(lambda: queues_of(daemon) == {"as before 1": ["support"]}, "the old rules hold", state=daemon.log_tail)
    assert imap_connections(daemon, "support") == 1


# --- faults of our own -----------------------------------------------------------------------------------------------


def test_a_fault_in_one_task_is_told_and_mended_and_the_others_never_notice(
    make_daemon: MakeDaemon, provider: ProviderThread
) -> None:
    daemon = make_daemon(
        site_of(touchpoint("support", provider), touchpoint("sales", provider)),
        ENV,
        program=(faulty.__file__, "task:sales:2"),
    )
    daemon.start()
    daemon.wait_connected("support")
    wait_until(
        lambda: "sales/inbound-bug" in [alarm["id"] for alarm in daemon.status()["alarms"]],
        "the fault is an alarm",
        state=daemon.log_tail,
    )
    provider.deliver("support@support.example", letter(1, "others"))
    wait_until(lambda: "others 1" in queues_of(daemon), "others' mail moves", state=daemon.log_tail)
    daemon.wait_connected("sales")  # after waits of one and two seconds
    faults = daemon.events("task-failed")
    assert [(one["touchpoint"], one["task"]) for one in faults] == [("sales", "inbound")] * 2
    assert all("a fault made to order" in one["exception"] for one in faults)
    assert daemon.run("status").returncode == 1  # a person should read the log, though it works again
    assert imap_connections(daemon, "support") == 1


def test_a_stray_exception_is_told_and_ends_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plain_site(), program=(faulty.__file__, "stray"))
    daemon.start()
    (stray,) = wait_until(lambda: daemon.events("stray-exception"), "it is in the log", state=daemon.log_tail)
    assert "a fault made to order" in stray["exception"]
    with daemon.submit(ANA, "secret") as session:
        send(session, "support")
    assert daemon.stop() == 0


# --- what is where ---------------------------------------------------------------------------------------------------


def test_an_outbound_touchpoint_shows_what_its_provider_lets_it_do(make_daemon: MakeDaemon) -> None:
    with ScriptedProvider() as smarthost:
        daemon = make_daemon(site_of(touchpoint("support", smtp_port=smarthost.port)), ENV)
        daemon.start()
        shown = wait_until(
            lambda: (now := daemon.touchpoint_status("support"))["state"] != "starting" and now,
            "its task has begun",
            state=daemon.log_tail,
        )
        assert (shown["state"], shown["lane"], shown["lag_seconds"]) == ("idle", "open", None)
        with daemon.submit(ANA, "secret") as session:
            send(session, "support")
        wait_until(lambda: smarthost.taken, "the provider has it", state=daemon.log_tail)
        shown = wait_until(
            lambda: (
                now if (now := daemon.touchpoint_status("support"))["last_message_at"] and not now["queued"] else {}
            ),
            "that mail left is seen",
            state=daemon.log_tail,
        )
        assert (shown["state"], shown["connected"]) == ("connected", True)
