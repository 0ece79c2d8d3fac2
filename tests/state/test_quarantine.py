"""Quarantine: seen by those who ask, released into its queues as if it came now, or confirmed and out of sight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import MessageClass, Role, Step, Verdict, show_id
from gateway.state import chores, conversations, filings, quarantine, queues
from gateway.state.chores import RoleChange
from gateway.state.folders import Place
from gateway.state.quarantine import Review, Reviewed
from gateway.state.queues import Tie
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

BY_RULE = Verdict(
    MessageClass.HUMAN,
    ("billing", "support"),
    quarantine=True,
    trail=(
        Step("provider", "it lies in the provider's Junk", "quarantine"),
        Step("rule lures", "subject: *prize*", "tag bait, quarantine"),
        Step("queues", "rules say so", "billing, support"),
    ),
)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


@pytest.fixture
def junk(room: Postroom) -> Place:
    return room.watch("Junk", Role.JUNK)


def listed(room: Postroom, *args: object) -> list[dict[str, Any]]:
    return room.store.read(quarantine.list_quarantine, *args).result(5)


def release(room: Postroom, id: int, at: int = NOW) -> Reviewed:
    return room.store.submit(quarantine.release, Review(id, at)).result(5)


def confirm(room: Postroom, id: int, at: int = NOW) -> Reviewed:
    return room.store.submit(quarantine.confirm, Review(id, at)).result(5)


def due(room: Postroom) -> list[tuple[int, str, str]]:
    found = room.store.read(filings.due, T, NOW, 10).result(5)
    return [(filing.message, filing.action, filing.folder) for filing in found]


def test_a_message_in_quarantine_is_listed_with_its_cause(room: Postroom, inbox: Place, junk: Place) -> None:
    first = room.arrive(inbox, 1)
    conversation = room.route(first, "<a@c>", verdict=BY_RULE).conversation
    second = room.arrive(junk, 1, role=Role.JUNK)
    room.route(second, "<b@c>", verdict=JUNK_VERDICT)
    room.route(room.arrive(inbox, 2), "<c@c>")
    newest, oldest = listed(room)
    assert oldest == {
        "id": show_id(first),
        "conversation": show_id(conversation),
        "touchpoint": "support",
        "from": "c@customer.example",
        "from_name": "Carla",
        "subject": "Help",
        "at": "2026-11-23T10:00:00.000Z",
        "cause": "rule lures: subject: *prize*",
        "folder": "INBOX",
        "size": 18,
        "reviewed_at": None,
    }
    assert (newest["id"], newest["folder"]) == (show_id(second), "Junk")
    assert newest["cause"] == "provider: it lies in the provider's Junk"
    assert [one["id"] for one in listed(room, False, 1)] == [show_id(second)]


@pytest.mark.parametrize(("verdict", "expected"), [(BY_RULE, "a list or a rule"), (JUNK_VERDICT, "provider's Junk")])
def test_a_cause_is_named_also_where_the_trail_is_silent(
    room: Postroom, junk: Place, verdict: Any, expected: str
) -> None:
    room.route(room.arrive(junk, 1, role=Role.JUNK), "<a@c>", verdict=replace(verdict, trail=()))
    assert expected in listed(room)[0]["cause"]


def test_what_is_released_stands_in_its_queues_and_leaves_junk(room: Postroom, inbox: Place, junk: Place) -> None:
    message = room.arrive(junk, 1, role=Role.JUNK)
    conversation = room.route(message, "<a@c>", verdict=JUNK_VERDICT).conversation
    assert release(room, message) == Reviewed((message,), (conversation,), (T,), (T,))
    assert [one["state"] for one in room.store.read(conversations.list_conversations, T).result(5)] == ["open"]
    assert listed(room) == listed(room, True) == []
    assert due(room) == [(message, "release", "Junk")]
    assert release(room, message) == Reviewed(), "once"


def test_what_does_not_lie_in_junk_needs_no_move(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1)
    room.route(message, "<a@c>", verdict=BY_RULE)
    released = release(room, message)
    assert released.queues == ("billing", "support")
    assert released.touchpoints == ()
    assert due(room) == []


def test_a_released_follow_up_opens_what_was_answered_and_counts_as_the_last(room: Postroom, inbox: Place) -> None:
    conversation = room.route(room.arrive(inbox, 1), "<a@c>").conversation
    follow_up = room.arrive(inbox, 2)
    room.route(follow_up, "<b@c>", "<a@c>", verdict=BY_RULE)
    room.store.submit(queues.tie_outbound, Tie(T, "<r@us>", ("<a@c>",), 1)).result(5)
    room.change("UPDATE conversation SET owner = 'ana', last_at = 5")
    assert room.show(conversation)["state"] == "answered"
    release(room, follow_up)
    shown = room.show(conversation)
    assert (shown["state"], shown["last_at"]) == ("claimed", "2026-11-23T10:00:00.000Z")


def test_a_conversation_is_released_with_all_that_is_in_quarantine(room: Postroom, inbox: Place) -> None:
    first, second, third = (room.arrive(inbox, uid) for uid in (1, 2, 3))
    conversation = room.route(first, "<a@c>", verdict=BY_RULE).conversation
    room.route(second, "<b@c>", "<a@c>", verdict=BY_RULE)
    room.route(third, "<c@c>", "<a@c>")
    assert room.show(conversation)["state"] == "open"
    assert release(room, conversation).messages == (first, second)
    assert not any(message["quarantined"] for message in room.show(conversation)["messages"])


def test_what_is_discarded_as_well_stays_closed(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1)
    conversation = room.route(message, "<a@c>", verdict=replace(BY_RULE, discard=True)).conversation
    release(room, message)
    assert room.show(conversation)["state"] == "quarantined"


def test_what_is_confirmed_is_out_of_sight_and_goes_to_junk(room: Postroom, inbox: Place, junk: Place) -> None:
    message = room.arrive(inbox, 1)
    conversation = room.route(message, "<a@c>", verdict=BY_RULE).conversation
    assert confirm(room, conversation) == Reviewed((message,), (conversation,), (), (T,))
    assert listed(room) == []
    assert [one["reviewed_at"] for one in listed(room, True)] == ["2026-11-23T11:00:00.000Z"]
    assert due(room) == [(message, "junk", "INBOX")]
    assert confirm(room, message, NOW + 1) == Reviewed(), "once"
    assert room.show(conversation)["state"] == "quarantined"


def test_what_lies_in_junk_is_confirmed_where_it_is(room: Postroom, inbox: Place, junk: Place) -> None:
    message = room.arrive(junk, 1, role=Role.JUNK)
    room.route(message, "<a@c>", verdict=JUNK_VERDICT)
    assert confirm(room, message).touchpoints == ()
    assert due(room) == []


def test_who_confirms_by_mistake_can_still_release(room: Postroom, inbox: Place, junk: Place) -> None:
    message = room.arrive(inbox, 1)
    conversation = room.route(message, "<a@c>", verdict=BY_RULE).conversation
    confirm(room, message)
    assert release(room, message).messages == (message,)
    assert room.show(conversation)["state"] == "open"
    assert due(room) == [], "it is not carried away any more"


def test_nothing_in_quarantine_is_nothing_changed(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1)
    conversation = room.route(message, "<a@c>").conversation
    for id in (message, conversation, 12345):
        assert release(room, id) == confirm(room, id) == Reviewed()
    assert room.show(conversation)["state"] == "open"


# --- a folder of Junk that becomes a queue's -------------------------------------------------------------------------


def becomes(room: Postroom, place: Place, role: Role) -> None:
    change = RoleChange(place.touchpoint, place.folder, role, NOW)
    for _ in range(2):
        room.store.submit(chores.change_role, change).result(5)
    assert room.rows("SELECT role FROM folder WHERE folder = ?", place.folder) == [(role,)]


def test_a_junk_folder_that_becomes_a_queue_lets_go_what_nobody_else_keeps(
    room: Postroom, inbox: Place, junk: Place
) -> None:
    ids = [room.arrive(junk, uid, role=Role.JUNK) for uid in range(1, 6)]
    freed, by_rule, confirmed, released, unjudged = ids
    for id, verdict in zip(ids[:4], (JUNK_VERDICT, BY_RULE, JUNK_VERDICT, JUNK_VERDICT), strict=True):
        room.route(id, f"<{id}@c>", verdict=verdict)
    confirm(room, confirmed)
    release(room, released)
    becomes(room, junk, Role.QUEUE)
    room.route(unjudged, "<late@c>", verdict=JUNK_VERDICT)  # by who had looked before
    states = {id: room.show(id)["state"] for id in ids}
    assert states == {
        freed: "open", by_rule: "quarantined", confirmed: "quarantined", released: "open", unjudged: "open"
    }  # fmt: skip
    assert due(room) == [], "nothing is to be taken out of it"


def test_a_queues_folder_that_becomes_junk_keeps_its_mail_in_the_queue(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1)
    room.route(message, "<a@c>")
    becomes(room, inbox, Role.JUNK)
    assert room.show(message)["state"] == "open"
