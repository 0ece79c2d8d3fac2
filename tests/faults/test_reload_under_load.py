"""Ten reloads a second, good and bad files mixed, while mail comes in and goes out: nothing is lost, nobody who did not
change is disturbed, and the last good file rules in the end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter, message_id, repeated
from tests.support.onlooker import Correspondents
from tests.support.provider import Provider
from tests.support.proxy import Proxy, Weather
from tests.support.reloader import Reloader
from tests.support.scripted import ScriptedProvider
from tests.support.traffic import Senders
from tests.support.waiting import wait_until

SECONDS = 30 if os.environ.get("SOAK") == "1" else 4
PER_SECOND = 10
ANA, BEN = "ana@gateway.example", "ben@gateway.example"
FAR = Weather(delay=0.04)  # a login takes longer than it is to the next reload


class Place:
    """A touchpoint whose every connection is seen: with IMAP through a proxy, or with an SMTP provider."""

    def __init__(self, id: str, provider: Provider) -> None:
        self.id = id
        self.address = f"{id}@support.example"
        self.proxy = Proxy(provider.server.imap_port)
        self.smtp = ScriptedProvider()
        self.keys = provider.touchpoint(id, tls=False) | {
            "direction": "both",
            "imap": f"imap+insecure://127.0.0.1:{self.proxy.port}",
            "smtp": f"smtp+insecure://127.0.0.1:{self.smtp.port}",
            "pace": {"connections": 1, "per_connection": 1_000_000},
        }
        self.deliver: Callable[[bytes], object] = lambda raw: provider.dovecot.deliver(self.address, raw)

    def close(self) -> None:
        self.proxy.close()
        self.smtp.close()

    def connections(self) -> tuple[int, int]:
        """Return how many there were so far: (IMAP, SMTP)."""
        return self.proxy.made, len(self.smtp.sessions)


@pytest.fixture
def places(shared_provider: Provider) -> Iterator[dict[str, Place]]:
    made = {id: Place(id, shared_provider) for id in ("steady", "renamed", "turning", "coming", "far")}
    try:
        yield made
    finally:
        for place in made.values():
            place.close()


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_reloads_under_load_lose_nothing_and_disturb_nobody(
    make_daemon: Callable[..., Daemon], places: dict[str, Place], record_property: Callable[[str, object], None]
) -> None:
    def edit(number: int) -> None:
        """The touchpoint `turning` gets other settings each time, `coming` comes and goes, the rest stays."""
        places["turning"].keys |= {
            "watch": {"poll": f"{number % 2 + 1} min"},
            "pace": {"connections": 1 + number % 2, "per_connection": 1_000_000},
        }
        site.touchpoints = [place.keys for place in places.values() if place.id != "coming" or number % 3]

    site = Site()
    site.add_agent(ANA, "secret", [], touchpoints=[places["steady"].address])
    site.add_agent(BEN, "secret", [], touchpoints=[places["turning"].address])
    daemon = make_daemon(site)
    reloader = Reloader(daemon, edit, "renamed", seed=SECONDS)
    reloader.prepare(1)
    daemon.write_config()
    daemon.start()
    daemon.wait_connected(*places)
    pid = daemon.pid

    steady = Senders(daemon, ANA, "secret", places["steady"].address, "b@clients.example", 1, pause=0.01)
    turning = Senders(daemon, BEN, "secret", places["turning"].address, "c@clients.example", 1, pause=0.01)
    customers = Correspondents({id: place.deliver for id, place in places.items()}, 0.01)
    with steady.sending(), turning.sending(), customers.writing():
        wait_until(lambda: places["steady"].smtp.taken and places["turning"].smtp.taken, "mail flows")
        wait_until(lambda: all(len(place.proxy) == 1 for place in places.values()), "only those that watch are there")
        watching = {id: place.proxy.standing() for id, place in places.items()}
        before = {id: place.connections() for id, place in places.items()}
        places["far"].proxy.weather = FAR
        places["far"].proxy.drop()
        reloader.storm(PER_SECOND, SECONDS, lambda: daemon.touchpoint_status("far")["connected"])
        after = {id: place.connections() for id, place in places.items()}
        kept = {id for id, place in places.items() if watching[id] <= place.proxy.standing()}
        while reloader.last_good % 3 == 0 or not reloader.is_sure:
            reloader.turn(is_good=True, by_signal=False)
        for by_signal in (True, False, True, False):
            reloader.turn(is_good=False, by_signal=by_signal)
    senders = {"steady": steady, "turning": turning}
    found = settle(daemon, places, customers, senders)
    connections = {id: tuple(a - b for a, b in zip(after[id], before[id], strict=True)) for id in places}
    record_property(
        "counts",
        f"{dict(reloader.did)}, {len(daemon.events('reloaded'))} taken into force; {len(customers.sent)} letters in, "
        f"{sum(len(sender.promised) for sender in senders.values())} out; new connections {connections}; "
        f"the slowest turn {reloader.latest:.2f} s late",
    )
    assert not reloader.wrong, "\n".join(reloader.wrong)
    assert kept == {"steady", "renamed"}, "whose settings did not change, keeps the session"
    assert connections["steady"][1] == 0
    assert connections["far"][0] <= 3, "who is being let in is not made to begin anew"
    assert connections["turning"][0] > SECONDS // 2, "whose settings changed, gets another one"
    assert (steady.sessions, turning.sessions) == (1, 1), "an agent's client stays connected"
    assert not steady.refused
    assert not turning.refused
    mixed = {id: tags for id, tags in found.items() if not is_of_one_version(tags)}
    assert not mixed, "seen by halves of two configurations"
    assert len(Counter(tags[0] for tags in found.values())) > SECONDS, "the rules did change"
    assert daemon.pid == pid
    assert "Traceback" not in daemon.log.read_text()

    rules_in_the_end(daemon, places["steady"], reloader, 1, "file")
    daemon.stop()
    daemon.start()
    rules_in_the_end(daemon, places["steady"], reloader, 2, "last-good")


def settle(
    daemon: Daemon, places: dict[str, Place], customers: Correspondents, senders: dict[str, Senders]
) -> dict[str, list[str]]:
    """Wait until all is in and out, see that it is so exactly once; return Message-ID → tags of what came in."""

    def came() -> list[str]:
        return [id for conversation in daemon.conversations() for id in conversation["message_ids"]]

    wait_until(lambda: set(customers.sent) <= set(came()), "each letter is in a queue", timeout=60)
    assert not repeated(came())
    for id, sender in senders.items():
        wait_until(
            lambda: set(sender.promised) <= {message_id(taken.raw) for taken in places[id].smtp.taken},  # noqa: B023
            f"what was promised by {id} has left",
            timeout=60,
            state=daemon.log_tail,
        )
        taken = [message_id(taken.raw) for taken in places[id].smtp.taken]
        assert not repeated(taken)
        assert set(taken) <= set(sender.promised) | sender.unanswered
    return {
        conversation["message_ids"][0]: conversation["tags"]
        for conversation in daemon.conversations()
        if conversation["message_ids"][0] in customers.sent
    }


def is_of_one_version(tags: list[str]) -> bool:
    return len(tags) == 2 and tags[0] == tags[1].replace("last-", "first-")


def rules_in_the_end(daemon: Daemon, place: Place, reloader: Reloader, number: int, origin: str) -> None:
    """The file on disk is a bad one, and the rules of the last good one place what comes in now."""
    status = daemon.status()["daemon"]["rules"]
    assert (status["origin"], bool(status["error"])) == (origin, True)
    place.deliver(letter(number, "in the end"))

    def tags() -> Any:
        named = {id: one["tags"] for one in daemon.conversations() for id in one["message_ids"]}
        return named.get(f"<in-the-end.{number}@clients.example>")

    wait_until(tags, "the letter is in a queue")
    assert tags() == [f"first-{reloader.last_good}", f"last-{reloader.last_good}"]
