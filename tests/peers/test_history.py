"""Where history begins: a mailbox with 5,000 old letters, taken over without them or with all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter, repeated
from tests.support.provider import Provider
from tests.support.waiting import wait_until

OLD = 5_000


def test_by_default_none_of_5000_old_letters_comes_and_their_number_is_told(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    site = Site([shared_provider.touchpoint("fresh")])
    shared_provider.dovecot.seed("fresh@support.example", (letter(number, "old") for number in range(OLD)))
    daemon = make_daemon(site)
    daemon.start()
    daemon.wait_connected("fresh")
    shared_provider.dovecot.deliver("fresh@support.example", letter(1, "new"))
    found = wait_until(daemon.conversations, "the new letter", state=daemon.log_tail)
    assert [conversation["subject"] for conversation in found] == ["new 1"]
    told = [event for event in daemon.events() if f"{OLD}" in str(event.values())]
    assert len(told) == 1, daemon.log_tail()
    assert told[0]["touchpoint"] == "fresh"

    # and it stays so: the beginning is remembered, not taken anew at each start
    daemon.stop()
    shared_provider.dovecot.deliver("fresh@support.example", letter(2, "new"))
    daemon.start()
    wait_until(lambda: len(daemon.conversations()) == 2, "what came while we were away", state=daemon.log_tail)


@pytest.mark.timeout(180)
def test_with_all_of_history_each_of_5000_old_letters_comes_once(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    site = Site([shared_provider.touchpoint("whole", history="all")])
    shared_provider.dovecot.seed("whole@support.example", (letter(number, "old") for number in range(OLD)))
    daemon = make_daemon(site)
    daemon.start()

    def count() -> int:
        return sum(queue["open"] for queue in daemon.status()["queues"])

    wait_until(lambda: count() > OLD // 3, "a good part of it", timeout=120, every=0.1, state=daemon.log_tail)
    daemon.kill()
    daemon.start()
    wait_until(lambda: count() >= OLD, "all of it", timeout=120, every=0.5, state=daemon.log_tail)
    ids = [id for conversation in daemon.conversations() for id in conversation["message_ids"]]
    assert repeated(ids) == {}
    assert set(ids) == {f"<old.{number}@clients.example>" for number in range(OLD)}
