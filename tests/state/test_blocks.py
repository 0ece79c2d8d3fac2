"""Blocks in the store: who is kept away, what follows into quarantine, and what stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import FilingAction, Findings, MessageClass, OutboxKind, Role, Step, Verdict, show_id
from gateway.state import blocks, filings, quarantine
from gateway.state.blocks import EVERYWHERE, Added, Blocks, Caught, NewBlock, Removed
from gateway.state.folders import Place
from gateway.state.quarantine import Review
from tests.support.postroom import JUNK_VERDICT, NOW, Postroom, T, open_postroom

BAD = "bad@worse.example"
DOMAIN = "*@worse.example"
PERSON = Verdict(MessageClass.HUMAN, (T,), trail=(Step("class", "no sign", "human"),))


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


def write(room: Postroom, place: Place, uid: int, sender: str = BAD, *parents: str, **changes: Any) -> tuple[int, int]:
    """Have `sender` write; return the ids of message and conversation."""
    message = room.arrive(place, uid)
    return message, room.route(message, f"<{uid}@c>", *parents, sender=sender, **changes).conversation


def block(room: Postroom, pattern: str = BAD, touchpoint: str = EVERYWHERE, **changes: Any) -> Added:
    found = room.store.read(blocks.suspects, touchpoint, pattern).result(5)
    new = NewBlock(touchpoint, pattern, NOW, suspects=found)
    return room.store.submit(blocks.add, replace(new, **changes)).result(5)


def unblock(room: Postroom, pattern: str = BAD, touchpoint: str = EVERYWHERE) -> Removed:
    return room.store.submit(blocks.remove, (touchpoint, pattern)).result(5)


def listed(room: Postroom) -> list[dict[str, Any]]:
    return room.store.read(blocks.list_blocks).result(5)


def due(room: Postroom) -> list[tuple[int, str, str]]:
    found = room.store.read(filings.due, T, NOW, 10).result(5)
    return [(filing.message, filing.action, filing.folder) for filing in found]


def waiting(room: Postroom) -> list[dict[str, Any]]:
    return room.store.read(quarantine.list_quarantine).result(5)


def test_a_block_is_listed_with_who_when_and_why(room: Postroom) -> None:
    assert block(room, agent="ana@example.com", message=7, touchpoint=T) == Added(True)
    block(room, DOMAIN, at=NOW + 1)
    newest, oldest = listed(room)
    assert oldest == {
        "pattern": BAD,
        "touchpoint": T,
        "by": "ana@example.com",
        "at": "2026-11-23T11:00:00.000Z",
        "message": show_id(7),
        "hits": 0,
        "hit_at": None,
    }
    assert (newest["pattern"], newest["touchpoint"], newest["by"], newest["message"]) == (DOMAIN, None, None, None)
    assert sorted(room.store.read(blocks.all_blocks).result(5)) == [("", DOMAIN), (T, BAD)]


def test_who_is_blocked_again_stays_blocked_as_of_the_first_time(room: Postroom) -> None:
    block(room, agent="ana@example.com")
    before = listed(room)
    assert block(room, agent="bea@example.com", at=NOW + 5) == Added(False)
    assert listed(room) == before


def test_an_open_conversation_of_a_blocked_sender_follows_and_its_mail_goes_to_junk(
    room: Postroom, inbox: Place, junk: Place
) -> None:
    message, conversation = write(room, inbox, 1, "Bad@Worse.Example")
    room.change("UPDATE conversation SET state = 'claimed', owner = 'ana'")
    assert block(room) == Added(True, (message,), (conversation,), (T,))
    shown = room.show(conversation)
    assert (shown["state"], shown["owner"]) == ("quarantined", None)
    assert shown["messages"][0]["trail"][-1] == {
        "step": "blocklist",
        "detail": "blocked since 2026-11-23 as bad@worse.example",
        "verdict": "quarantine",
    }
    (kept,) = waiting(room)
    assert kept["cause"] == "blocklist: blocked since 2026-11-23 as bad@worse.example"
    assert due(room) == [(message, "junk", "INBOX")]


@pytest.mark.parametrize("pattern", [BAD, DOMAIN])
def test_all_that_is_open_follows_and_nothing_of_anybody_else(room: Postroom, inbox: Place, pattern: str) -> None:
    ours = [write(room, inbox, uid) for uid in (1, 2)]
    other = [write(room, inbox, uid, sender)[1] for uid, sender in ((3, "bad@worse.example.org"), (4, "x@b.example"))]
    room.change("UPDATE conversation SET state = 'answered' WHERE id = ?", ours[1][1])
    added = block(room, pattern)
    assert (added.messages, added.conversations) == (tuple(m for m, _ in ours), tuple(c for _, c in ours))
    assert [room.show(conversation)["state"] for conversation in other] == ["open", "open"]


def test_a_conversation_with_somebody_else_loses_only_what_is_blocked(room: Postroom, inbox: Place) -> None:
    _, conversation = write(room, inbox, 1, "carla@customer.example")
    second, same = write(room, inbox, 2, BAD, "<1@c>")
    assert same == conversation
    assert block(room) == Added(True, (second,), (), (T,))
    shown = room.show(conversation)
    assert shown["state"] == "open"
    assert [message["quarantined"] for message in shown["messages"]] == [False, True]


@pytest.mark.parametrize("message_class", [MessageClass.BOUNCE, MessageClass.REPORT])
def test_reports_about_our_mail_are_nobodys_letters(room: Postroom, inbox: Place, message_class: MessageClass) -> None:
    verdict = replace(PERSON, message_class=message_class)
    _, conversation = write(room, inbox, 1, verdict=verdict)
    assert block(room) == Added(True)
    mixed, there = write(room, inbox, 2, BAD, "<1@c>")
    assert block(room) == Added(False, (mixed,), (there,), (T,)), "and keep no conversation in the queue"
    assert there == conversation


def test_what_is_settled_stays_settled(room: Postroom, inbox: Place, junk: Place) -> None:
    _, closed = write(room, inbox, 1)
    room.change("UPDATE conversation SET state = 'closed'")
    _, discarded = write(room, inbox, 2, verdict=replace(PERSON, discard=True))
    kept = room.arrive(junk, 1, role=Role.JUNK)
    room.route(kept, "<j@c>", verdict=JUNK_VERDICT, sender=BAD)
    assert block(room) == Added(True)
    assert [room.show(one)["state"] for one in (closed, discarded)] == ["closed", "closed"]
    assert room.rows("SELECT quarantine FROM message WHERE id = ?", kept) == [(quarantine.BY_JUNK,)]


def test_a_block_for_one_touchpoint_leaves_the_others(room: Postroom, inbox: Place) -> None:
    write(room, inbox, 1)
    assert block(room, touchpoint="billing") == Added(True)
    assert len(block(room, touchpoint=T).messages) == 1


def test_what_comes_between_the_look_and_the_block_follows_too(room: Postroom, inbox: Place) -> None:
    _, conversation = write(room, inbox, 1)
    unrouted = room.arrive(inbox, 2)
    found = room.store.read(blocks.suspects, EVERYWHERE, BAD).result(5)
    room.route(unrouted, "<2@c>", sender=BAD)
    after, _ = write(room, inbox, 3)
    write(room, inbox, 4, "carla@customer.example")
    room.change("UPDATE conversation SET state = 'closed' WHERE id = ?", conversation)
    assert block(room, suspects=found).messages == (unrouted, after)


def test_a_domain_of_other_letters_is_found_however_it_was_written(room: Postroom, inbox: Place) -> None:
    plain, _ = write(room, inbox, 1, "a@münchen.example")
    encoded, _ = write(room, inbox, 2, "b@XN--mnchen-3ya.example")
    assert block(room, "*@xn--mnchen-3ya.example").messages == (plain, encoded)
    write(room, inbox, 3, "a@münchen.example")
    assert len(block(room, "a@xn--mnchen-3ya.example").messages) == 1


def test_where_the_provider_has_no_junk_nothing_is_moved(room: Postroom, inbox: Place) -> None:
    message, _ = write(room, inbox, 1)
    block(room)
    assert due(room) == []
    room.watch("Junk", Role.JUNK)
    assert due(room) == [(message, "junk", "INBOX")], "until one is found"


def test_after_fetch_does_not_carry_away_what_is_to_go_to_junk(room: Postroom, inbox: Place, junk: Place) -> None:
    message, _ = write(room, inbox, 1)
    for action, target in ((FilingAction.MOVE, "Done"), (FilingAction.SEEN, "")):
        room.change("INSERT INTO filing VALUES (?, ?, ?, ?, 0, 0, 0, 0)", message, action.value, T, target)
    block(room)
    assert [action for _, action, _ in due(room)] == ["seen", "junk"]


def test_what_was_released_and_is_on_its_way_out_of_junk_stays_there(room: Postroom, inbox: Place, junk: Place) -> None:
    message = room.arrive(junk, 1, role=Role.JUNK)
    conversation = room.route(message, "<a@c>", verdict=JUNK_VERDICT, sender=BAD).conversation
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    assert due(room) == [(message, "release", "Junk")]
    assert block(room) == Added(True, (message,), (conversation,))
    assert due(room) == []
    assert len(waiting(room)) == 1


def test_who_is_unblocked_gets_nothing_back_but_can_be_released(room: Postroom, inbox: Place) -> None:
    message, conversation = write(room, inbox, 1)
    block(room)
    assert unblock(room) == Removed(True)
    assert listed(room) == []
    assert room.show(conversation)["state"] == "quarantined"
    room.store.submit(quarantine.release, Review(message, NOW)).result(5)
    assert room.show(conversation)["state"] == "open"


def test_where_else_the_same_is_blocked_is_told(room: Postroom) -> None:
    block(room, touchpoint=T)
    assert unblock(room) == Removed(False, (T,))
    block(room)
    assert unblock(room, touchpoint=T) == Removed(True, (EVERYWHERE,))


def test_what_a_block_would_have_caught_is_counted(room: Postroom, inbox: Place) -> None:
    write(room, inbox, 1, "a@gmail.example")
    _, answered = write(room, inbox, 2, "A@Gmail.example")
    write(room, inbox, 3, "b@gmail.example")
    write(room, inbox, 4, "c@gmail.example", verdict=replace(PERSON, quarantine=True))
    write(room, inbox, 5, "d@other.example")
    for kind in (OutboxKind.REPLY, OutboxKind.AUTO_REPLY):
        room.change(
            "INSERT INTO outbox (id, touchpoint, agent, kind, return_path, eight_bit, smtputf8, message_id, subject,"
            " size, accepted_at, conversation) VALUES (?, ?, 'ana', ?, '', 0, 0, '', '', 1, 0, ?)",
            *(room.store.ids.next(), T, kind.value, answered),
        )

    def count(touchpoint: str = EVERYWHERE, since: int = 1_735_689_600_000) -> Caught:
        return room.store.read(blocks.caught, touchpoint, "*@gmail.example", since).result(5)

    assert count() == Caught(3, 2, 1)
    assert count(T) == Caught(3, 2, 1)
    assert count("billing") == count(since=NOW * 2) == Caught(0, 0, 0)


def test_a_hit_is_counted_where_the_block_is_nearest(room: Postroom) -> None:
    block(room)
    block(room, touchpoint=T)
    hits = [(T, BAD, NOW), (T, BAD, NOW - 9), ("billing", BAD, NOW), ("billing", "gone@x.example", NOW)]

    def note(db: sqlite3.Connection, items: Sequence[list[tuple[str, str, int]]]) -> list[None]:
        blocks.note_hits(db, items[0])
        return [None]

    room.store.submit(note, hits).result(5)
    found = {one["touchpoint"]: (one["hits"], one["hit_at"]) for one in listed(room)}
    assert found == {None: (1, "2026-11-23T11:00:00.000Z"), T: (2, "2026-11-23T11:00:00.000Z")}


# --- new mail --------------------------------------------------------------------------------------------------------

KEPT = Verdict(MessageClass.HUMAN, (T,), quarantine=True, blocked=True)


def test_new_mail_of_a_blocked_sender_is_counted_and_goes_to_junk(room: Postroom, inbox: Place, junk: Place) -> None:
    block(room)
    message, conversation = write(room, inbox, 1, verdict=KEPT, findings=Findings(block=BAD))
    assert room.show(conversation)["state"] == "quarantined"
    assert due(room) == [(message, "junk", "INBOX")]
    assert [(one["hits"], one["hit_at"]) for one in listed(room)] == [(1, "2026-11-23T11:00:00.000Z")]
    room.route(message, "<1@c>", sender=BAD, verdict=KEPT, findings=Findings(block=BAD))
    assert listed(room)[0]["hits"] == 1, "a message is one hit however often it is routed"


def test_what_a_rule_lets_through_is_no_hit_and_stays_where_it_is(room: Postroom, inbox: Place, junk: Place) -> None:
    block(room)
    write(room, inbox, 1, findings=Findings(block=BAD))
    assert due(room) == []
    assert listed(room)[0]["hits"] == 0


def test_mail_that_lies_in_junk_already_needs_no_move(room: Postroom, inbox: Place, junk: Place) -> None:
    block(room)
    message = room.arrive(junk, 1, role=Role.JUNK)
    room.route(message, "<1@c>", sender=BAD, verdict=KEPT, findings=Findings(block=BAD))
    assert due(room) == []
    assert listed(room)[0]["hits"] == 1


# --- in memory -------------------------------------------------------------------------------------------------------


def test_who_is_blocked_is_found_by_address_and_by_domain_there_and_everywhere() -> None:
    known = Blocks([("", "bad@worse.example"), (T, "*@mixed.example")])
    assert known.find("any", ["fine@x.example", "BAD@worse.example"]) == "bad@worse.example"
    assert known.find(T, ["a@mixed.example"]) == "*@mixed.example"
    assert known.find("billing", ["a@mixed.example"]) == ""
    assert known.find(T, []) == known.find(T, ["", "no address"]) == Blocks().find(T, ["a@b.example"]) == ""
    known.learn("billing", "*@mixed.example")
    known.learn("", "*@xn--mnchen-3ya.example")
    for written in ("a@MÜNCHEN.example", "a@xn--mnchen-3ya.example", "a@münchen.example."):
        assert known.find(T, [written]) == "*@xn--mnchen-3ya.example"
    known.forget("", "*@xn--mnchen-3ya.example")
    assert known.find(T, ["a@münchen.example"]) == ""
    assert known.find("billing", ["a@mixed.example"]) == "*@mixed.example"
    known.forget("", "bad@worse.example")
    known.forget("", "bad@worse.example")
    assert known.find("any", ["bad@worse.example"]) == ""
    assert known.has(T, "*@mixed.example")
    assert not known.has("", "*@mixed.example")
