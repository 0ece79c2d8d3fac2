"""kill -9: at each step towards the disk, and at random under load. Then restart, and count messages."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import CommandError
from tests.support.daemon import Daemon, Site
from tests.support.letters import letter, message_id, repeated
from tests.support.powercut import shim_environment
from tests.support.provider import CUSTOMER, Provider
from tests.support.sink import Sink
from tests.support.traffic import Senders, customers_write
from tests.support.waiting import wait_until

CONNECTIONS = 2


def the_site(name: str, provider: Provider, sink: Sink) -> Site:
    smtp = f"smtp+insecure://127.0.0.1:{sink.port}"
    pace = {"connections": CONNECTIONS}
    site = Site([provider.touchpoint(name, "both", tls=False, history="all", smtp=smtp, pace=pace)])
    site.add_agent("ana@gateway.example", "secret", [name])
    return site


def letters_in(daemon: Daemon) -> list[str]:
    return [id for conversation in daemon.conversations() for id in conversation["message_ids"]]


def fates(daemon: Daemon) -> dict[str, str]:
    return {message["message_id"]: message["recipients"][0]["state"] for message in daemon.outbox()}


def wait_settled(daemon: Daemon) -> None:
    def is_settled() -> bool:
        daemon.ask("outbox.retry")
        return set(fates(daemon).values()) <= {"delivered", "uncertain"}

    wait_until(is_settled, "the outbox is settled", timeout=30, every=0.3, state=daemon.log_tail)


def assert_nothing_lost_and_nothing_twice(
    daemon: Daemon, sink: Sink, written: list[str], promised: set[str], unanswered: set[str], kills: int
) -> None:
    wait_until(lambda: len(letters_in(daemon)) >= len(written), "all letters", timeout=30, state=daemon.log_tail)
    assert sorted(letters_in(daemon)) == sorted(written)
    wait_settled(daemon)
    found = fates(daemon)
    assert promised <= set(found)
    assert set(found) <= promised | unanswered
    assert repeated(sink.message_ids) == {}
    assert {id for id, state in found.items() if state == "delivered"} <= set(sink.message_ids)
    assert Counter(found.values())["uncertain"] <= kills * CONNECTIONS


@pytest.mark.timeout(150)
def test_killed_again_and_again_under_load_it_loses_nothing_and_sends_nothing_twice(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    kills = 8
    dice = random.Random(11)
    sink = Sink()
    try:
        daemon = make_daemon(the_site("restless", shared_provider, sink))
        address = "restless@support.example"
        senders = Senders(daemon, "ana@gateway.example", "secret", address, CUSTOMER, threads=3)
        written: list[str] = []
        daemon.start()
        with senders.sending(), customers_write(lambda raw: shared_provider.dovecot.deliver(address, raw), written):
            for _ in range(kills):
                goal = len(senders.promised) + dice.randrange(1, 60)
                while len(senders.promised) < goal:
                    time.sleep(0.002)
                daemon.kill()
                daemon.start()
        assert senders.refused == []
        assert_nothing_lost_and_nothing_twice(daemon, sink, written, set(senders.promised), senders.unanswered, kills)
    finally:
        sink.close()


@pytest.mark.timeout(200)
def test_killed_at_every_fifth_step_towards_the_disk_it_loses_nothing_and_sends_nothing_twice(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], shim: Path, tmp_path: Path
) -> None:
    """One letter in and one out, cut behind the n-th write or sync or promise, for n = 1, 6, 11 … until all is done."""
    sink = Sink()
    written: list[str] = []
    promised: set[str] = set()
    unanswered: set[str] = set()
    step, rounds = 1, 0
    try:
        daemon = make_daemon(the_site("steps", shared_provider, sink))
        while True:
            rounds += 1
            fuse = tmp_path / f"fuse-{rounds}"
            daemon.more_env = shim_environment(shim, daemon.state_dir, tmp_path / f"journal-{rounds}")
            daemon.more_env["POWERCUT_FUSE"] = str(fuse)
            daemon.start()
            daemon.wait_connected("steps")
            wait_settled(daemon)
            light(fuse, step)
            raw = letter(rounds, "in")
            shared_provider.dovecot.deliver("steps@support.example", raw)
            written.append(message_id(raw))
            (promised if submit(daemon, rounds) else unanswered).add(f"<out.{rounds}@clients.example>")
            wait_until(
                lambda: not daemon.is_running or is_done(daemon, written), "an end", timeout=30, state=daemon.log_tail
            )
            if daemon.is_running:
                break
            step += 5
        assert rounds >= 10
        assert_nothing_lost_and_nothing_twice(daemon, sink, written, promised, unanswered, rounds)
    finally:
        sink.close()


def light(fuse: Path, step: int) -> None:
    scratch = fuse.with_suffix(".new")
    scratch.write_text(str(step))
    scratch.rename(fuse)


def submit(daemon: Daemon, number: int) -> bool:
    """Submit one letter; return whether its 250 came."""
    raw = letter(number, "out", sender="steps@support.example", to=CUSTOMER)
    try:
        with daemon.submit("ana@gateway.example", "secret") as session:
            session.sendmail("steps@support.example", [CUSTOMER], raw)
    except OSError:
        return False
    return True


def is_done(daemon: Daemon, written: list[str]) -> bool:
    try:
        return set(letters_in(daemon)) >= set(written) and set(fates(daemon).values()) <= {"delivered", "uncertain"}
    except (OSError, CommandError):
        return False
