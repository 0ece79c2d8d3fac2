"""Who is known to a touchpoint: who wrote as a person, whom agents wrote to, whom a person let out of quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import Envelope, MessageClass, OutboxKind, Role, Submission, Verdict, from_ms
from gateway.state import correspondents, outbox, quarantine
from gateway.state.folders import Place
from gateway.state.outbox import Accepting
from gateway.state.quarantine import Review
from gateway.state.raw import chunk_key
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

CARLA = "c@customer.example"  # who writes in a postroom


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


def knows(room: Postroom, address: str, touchpoint: str = T) -> bool:
    return room.store.read(correspondents.is_known, touchpoint, address).result(5)


def test_who_wrote_as_a_person_is_known_to_that_touchpoint(room: Postroom, inbox: Place) -> None:
    assert not knows(room, CARLA)
    room.route(room.arrive(inbox, 1), "<a@c>")
    assert knows(room, CARLA)
    assert knows(room, "C@Customer.Example")
    assert not knows(room, CARLA, "another")
    room.route(room.arrive(inbox, 2), "<b@c>")
    (at,) = room.store.read(lambda db: db.execute("SELECT first_at FROM correspondent").fetchone()).result(5)
    assert at == NOW


@pytest.mark.parametrize(
    "verdict",
    [pytest.param(Verdict(one, ("support",)), id=one.value) for one in MessageClass if one is not MessageClass.HUMAN]
    + [
        pytest.param(Verdict(MessageClass.HUMAN, ("support",), quarantine=True), id="quarantined"),
        pytest.param(Verdict(MessageClass.HUMAN, ("support",), discard=True), id="discarded"),
    ],
)
def test_machines_and_what_is_kept_away_make_nobody_known(room: Postroom, inbox: Place, verdict: Verdict) -> None:
    room.route(room.arrive(inbox, 1), "<a@c>", verdict=verdict)
    assert not knows(room, CARLA)


def test_who_is_released_is_known(room: Postroom) -> None:
    junk = room.watch("Junk", Role.JUNK)
    id = room.arrive(junk, 1, role=Role.JUNK)
    room.route(id, "<a@c>", verdict=JUNK_VERDICT)
    assert not knows(room, CARLA)
    room.store.submit(quarantine.release, Review(id, NOW)).result(5)
    assert knows(room, CARLA)


@pytest.mark.parametrize("kind", OutboxKind)
def test_whom_an_agent_writes_to_is_known_and_not_whom_we_answer_by_ourselves(room: Postroom, kind: OutboxKind) -> None:
    id = room.store.ids.next()
    envelope = Envelope("support@example.com", ("Bob@clients.example", "eve@clients.example"))
    submission = Submission(id, T, "ana", envelope, "<o@x>", "Your order", from_ms(NOW), b"bytes", kind)
    room.store.submit(outbox.accept, Accepting(submission, ((chunk_key(id, 0), b"bytes"),), None)).result(5)
    for address in ("bob@clients.example", "eve@clients.example"):
        assert knows(room, address) is (kind is OutboxKind.REPLY)
