"""What is to be done at the provider: written with its cause, repeated until done, given up by no crash."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Envelope, Filing, FilingAction, Location, OutboxKind, Placeholder, Role, Submission
from gateway.state import filings, outbox, raw
from gateway.state.filings import Filed
from gateway.state.folders import Place
from gateway.state.lifecycle import Event, State
from gateway.state.outbox import Done, Fated, Step, Want
from gateway.state.owed import Owed, Passage, pass_over
from tests.support.postroom import AT, NOW, Postroom, T, open_postroom

SEEN, ANSWERED, MOVE = FilingAction.SEEN, FilingAction.ANSWERED, FilingAction.MOVE
AFTER_FETCH = (Filing(MOVE, "Archive"), Filing(SEEN))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Postroom]:
    with open_postroom(tmp_path) as room:
        yield room


@pytest.fixture
def inbox(room: Postroom) -> Place:
    return room.watch()


def due(room: Postroom, now: int = NOW, limit: int = 10, touchpoint: str = T) -> list[filings.Filing]:
    found = room.store.read(filings.due, touchpoint, now, limit).result(5)
    assert room.store.read(filings.waiting, touchpoint, now).result(5) == bool(found)
    return found


def begin(room: Postroom, next_at: int, *tried: tuple[int, FilingAction]) -> None:
    room.store.submit(filings.begin, (T, tried, next_at)).result(5)


def done(room: Postroom, *what: Any) -> None:
    room.store.submit(filings.done, Filed(*what)).result(5)


# --- after the fetch -------------------------------------------------------------------------------------------------


def test_what_is_to_be_done_after_the_fetch_comes_with_the_arrival(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, filings=AFTER_FETCH)
    room.route(message, "<a@c>")
    assert due(room) == [
        filings.Filing(message, SEEN, "", 0, "INBOX", 7, 1, "<a@c>", 11),
        filings.Filing(message, MOVE, "Archive", 0, "INBOX", 7, 1, "<a@c>", 11),
    ], "marks before moves"
    assert due(room, touchpoint="sales") == []


def test_what_was_known_is_filed_once(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11, filings=AFTER_FETCH)
    elsewhere = room.watch("Elsewhere")
    room.take(room.item(inbox, 1, 11, filings=AFTER_FETCH), room.item(elsewhere, 1, 11, filings=AFTER_FETCH))
    assert len(due(room)) == 2


def test_a_try_is_counted_and_put_off_before_it_is_made(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, filings=AFTER_FETCH)
    begin(room, NOW + 60_000, (message, SEEN))
    assert [filing.action for filing in due(room)] == [MOVE]
    assert due(room, NOW + 60_000)[-1].tries == 1


def test_done_is_done_and_the_message_lies_where_it_went(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, filings=AFTER_FETCH)
    for _ in range(2):
        done(room, message, SEEN)
        done(room, message, MOVE, Location("INBOX", 7, 1), Location("Archive", 3, 44))
    assert due(room) == []
    assert room.places(message) == [("Archive", 3, 44)]


def test_where_nobody_says_where_it_went_it_lies_nowhere(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, filings=AFTER_FETCH)
    done(room, message, MOVE, Location("INBOX", 7, 1))
    assert room.places(message) == []


def test_that_it_was_moved_away_takes_no_other_message_with_it(room: Postroom, inbox: Place) -> None:
    message, other = room.arrive(inbox, 1), room.arrive(inbox, 2)
    done(room, message, MOVE, Location("INBOX", 7, 2))
    assert room.places(other) == [("INBOX", 7, 2)]
    done(room, 12345, MOVE, Location("INBOX", 7, 2), Location("Archive", 1, 1))
    assert room.rows("SELECT count(*) FROM location") == [(2,)]


def test_what_somebody_has_taken_away_waits_until_it_is_back(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, 11, filings=AFTER_FETCH)
    room.relocate(inbox, gone=(1,))
    assert due(room) == []
    room.relocate(inbox, (2, 11))
    assert [(filing.message, filing.uid) for filing in due(room)] == [(message, 2)] * 2


def test_numbers_of_another_uidvalidity_are_not_used(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, 11, filings=AFTER_FETCH)
    room.change("UPDATE folder SET uidvalidity = 8")
    assert due(room) == []


def test_of_a_message_in_two_folders_one_is_filed(room: Postroom, inbox: Place) -> None:
    elsewhere = room.watch("Elsewhere")
    message = room.arrive(inbox, 1, 11, filings=AFTER_FETCH)
    room.relocate(elsewhere, (5, 11))
    assert [(filing.message, filing.action) for filing in due(room)] == [(message, SEEN), (message, MOVE)]


def test_the_longest_due_come_first_and_not_more_than_asked_for(room: Postroom, inbox: Place) -> None:
    ids = [room.arrive(inbox, uid, filings=(Filing(SEEN),)) for uid in range(1, 6)]
    begin(room, NOW - 1, (ids[0], SEEN), (ids[1], SEEN))
    assert [filing.message for filing in due(room, limit=4)] == [*ids[2:], ids[0]]


def test_what_was_due_for_too_long_is_given_up(room: Postroom, inbox: Place) -> None:
    room.arrive(inbox, 1, filings=AFTER_FETCH)
    late = AT + timedelta(seconds=1)
    fresh = room.arrive(inbox, 2, at=late, filings=(Filing(SEEN),))
    assert room.store.submit(filings.sweep, NOW - 3_600_000 + 1).result(5) == 2
    assert [filing.message for filing in due(room)] == [fresh]


@pytest.mark.parametrize(("target", "owed"), [("INBOX", [(8, 1)]), ("Archive", [])])
def test_what_stands_behind_a_placeholder_is_owed_where_we_have_put_it(
    room: Postroom, inbox: Place, target: str, owed: list[tuple[int, int]]
) -> None:
    junk = room.watch("Junk", Role.JUNK, uidvalidity=4)
    debt = Owed(3, 9_000, "NO", 1, NOW)
    room.store.submit(pass_over, Passage(*junk, 0, 3, (debt,), (), NOW)).result(5)
    message = room.arrive(junk, 3, 11, role=Role.JUNK, placeholder=Placeholder.HEADED)
    for _ in range(2):
        done(room, message, FilingAction.RELEASE, Location("Junk", 4, 3), Location(target, 7, 8))
    assert room.places(message) == [(target, 7, 8)]
    assert (room.owed(junk), room.owed(Place(T, target, 7))) == ([], owed)


# --- answered --------------------------------------------------------------------------------------------------------


def reply(room: Postroom, *references: str, kind: OutboxKind = OutboxKind.REPLY) -> int:
    id = room.store.ids.next()
    envelope = Envelope("support@example.com", ("c@customer.example", "d@customer.example"))
    made = Submission(id, T, "ana", envelope, f"<{id}@us>", "Re: Help", AT, b"reply", kind, references)
    room.store.submit(outbox.accept, outbox.Accepting(made, ((raw.chunk_key(id, 0), b"reply"),))).result(5)
    return id


def attempt(room: Postroom, *events: Event, kind: OutboxKind = OutboxKind.REPLY) -> None:
    claimed = room.store.submit(outbox.step, Step(None, Want(T, NOW, (60_000,)))).result(5)
    assert claimed is not None
    rows = tuple((recipient.number, recipient.before) for recipient in claimed.recipients)
    assert room.store.submit(outbox.begin_data, outbox.Begin(claimed.id, claimed.attempt, rows)).result(5)
    fated = tuple(
        Fated(recipient.number, State.SENDING, event, "250 ok", NOW if event is Event.PUT_OFF else None)
        for recipient, event in zip(claimed.recipients, events, strict=True)
    )
    ended = Done(claimed.id, T, claimed.attempt, kind, fated, NOW, answers=claimed.answers)
    room.store.submit(outbox.step, Step(ended)).result(5)


def test_the_first_delivered_recipient_of_a_reply_marks_the_original(room: Postroom, inbox: Place) -> None:
    room.route(room.arrive(inbox, 1), "<a@c>")
    message = room.arrive(inbox, 2)
    room.route(message, "<b@c>", "<a@c>")
    reply(room, "<B@c>", "<a@c>")
    assert due(room) == []
    attempt(room, Event.PUT_OFF, Event.PUT_OFF)
    assert due(room) == [], "nobody has it yet"
    attempt(room, Event.PUT_OFF, Event.ACCEPTED)
    assert [(filing.message, filing.action, filing.uid) for filing in due(room)] == [(message, ANSWERED, 2)]


def test_an_answer_to_our_own_reply_marks_the_customers_message(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1)
    room.route(message, "<a@c>")
    first = reply(room, "<a@c>")
    reply(room, f"<{first}@us>", "<a@c>")
    assert room.rows("SELECT answers FROM outbox") == [(message,), (message,)]


@pytest.mark.parametrize("kind", [OutboxKind.AUTO_REPLY, OutboxKind.NOTICE])
def test_what_no_agent_wrote_marks_nothing(room: Postroom, inbox: Place, kind: OutboxKind) -> None:
    room.route(room.arrive(inbox, 1), "<a@c>")
    reply(room, "<a@c>", kind=kind)
    attempt(room, Event.ACCEPTED, Event.ACCEPTED, kind=kind)
    assert room.rows("SELECT * FROM filing") == []


def test_a_message_that_answers_nothing_marks_nothing(room: Postroom, inbox: Place) -> None:
    room.route(room.arrive(inbox, 1), "<a@c>")
    reply(room, "<other@c>")
    reply(room)
    assert room.rows("SELECT answers FROM outbox") == [(None,), (None,)]


def test_where_nothing_is_to_be_marked_the_relay_asks_nothing_more(room: Postroom) -> None:
    reply(room)
    claimed = room.store.submit(outbox.step, Step(None, Want(T, NOW, (60_000,), begin=True))).result(5)
    assert claimed is not None
    statements: list[str] = []

    def operation(db: Any, items: Any) -> list[None]:
        fated = tuple(Fated(number, State.SENDING, Event.ACCEPTED, "250 ok") for number in (0, 1))
        db.set_trace_callback(statements.append)
        outbox.step(db, [Step(Done(claimed.id, T, claimed.attempt, OutboxKind.REPLY, fated, NOW))])
        db.set_trace_callback(None)
        return [None for _ in items]

    room.store.submit(operation, None).result(5)
    verbs = [one.split()[0:2] for one in statements]
    assert verbs == [["UPDATE", "recipient"]] * 2, "one part a recipient, as always"


def test_after_a_move_of_ours_an_answer_still_finds_the_message(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, filings=AFTER_FETCH)
    room.route(message, "<a@c>")
    done(room, message, SEEN)
    done(room, message, MOVE, Location("INBOX", 7, 1), Location("Archive", 3, 44))
    reply(room, "<a@c>")
    attempt(room, Event.ACCEPTED, Event.ACCEPTED)
    assert [(filing.folder, filing.uidvalidity, filing.uid) for filing in due(room)] == [("Archive", 3, 44)]


def test_a_mark_prefers_the_watched_folder(room: Postroom, inbox: Place) -> None:
    junk = room.watch("Junk", Role.JUNK)
    message = room.arrive(inbox, 9, 11, filings=(Filing(ANSWERED),))
    room.relocate(junk, (1, 11), role=Role.JUNK)
    room.change("INSERT INTO location VALUES ('support', 'Archive', 1, 2, ?)", message)
    assert [filing.folder for filing in due(room)] == ["INBOX"]


# --- a move in two halves, where the server knows no MOVE ------------------------------------------------------------


def copying(room: Postroom, *tried: tuple[int, FilingAction]) -> None:
    room.store.submit(filings.copying, (T, tried)).result(5)


def copied(room: Postroom, message: int, action: FilingAction, *now: Any) -> None:
    room.store.submit(filings.copied, (T, message, action, Location(*now))).result(5)


def copies(room: Postroom) -> list[tuple[bool, str, int | None, int | None]]:
    return [(one.copying, one.target, one.copy_uidvalidity, one.copy_uid) for one in due(room)]


def test_that_a_copy_may_be_there_is_known_and_where_it_lies_once_it_was_seen(room: Postroom, inbox: Place) -> None:
    message = room.arrive(inbox, 1, filings=(Filing(MOVE, "Archive"),))
    assert copies(room) == [(False, "Archive", None, None)]
    copying(room, (message, MOVE))
    assert copies(room) == [(True, "Archive", None, None)]
    copied(room, message, MOVE, "Archive", 3, 44)
    assert copies(room) == [(True, "Archive", 3, 44)]
    assert room.places(message) == [("Archive", 3, 44), ("INBOX", 7, 1)]
    done(room, message, MOVE, Location("INBOX", 7, 1), Location("Archive", 3, 44))
    copied(room, message, MOVE, "Archive", 3, 45)  # too late
    assert (due(room), room.places(message)) == ([], [("Archive", 3, 44)])


def test_the_copy_in_a_watched_folder_is_not_moved_on_to_itself(room: Postroom, inbox: Place) -> None:
    elsewhere = room.watch("Elsewhere", uidvalidity=5)
    message = room.arrive(inbox, 9, 11, filings=(Filing(MOVE, "Elsewhere"),))
    copying(room, (message, MOVE))
    assert room.relocate(elsewhere, (2, 11)) == {2}
    assert [(one.folder, one.uid, one.copy_uidvalidity, one.copy_uid) for one in due(room)] == [("INBOX", 9, 5, 2)]


@pytest.mark.parametrize("action", [FilingAction.RELEASE, FilingAction.JUNK])
def test_our_own_copy_is_nobody_who_was_quicker(room: Postroom, inbox: Place, action: FilingAction) -> None:
    junk = room.watch("Junk", Role.JUNK, uidvalidity=4)
    if action is FilingAction.JUNK:
        source, target, role = inbox, junk, Role.JUNK
    else:
        source, target, role = junk, inbox, Role.QUEUE
    message = room.arrive(source, 1, 11, filings=(Filing(action),))
    assert copies(room) == [(False, "", None, None)]
    copying(room, (message, action))
    room.relocate(target, (2, 11), role=role)
    assert copies(room) == [(True, target.folder, target.uidvalidity, 2)], "what is left of it is still to be done"


def test_what_is_located_is_nobody_elses_copy(room: Postroom, inbox: Place) -> None:
    message, twin = room.arrive(inbox, 1, 11), room.arrive(inbox, 2, 11, filings=(Filing(MOVE, "Archive"),))
    done(room, message, MOVE, None, Location("Archive", 3, 44))
    done(room, message, MOVE, None, Location("Archive", 2, 9))
    copying(room, (twin, MOVE))
    assert copies(room) == [(True, "Archive", None, None)]
    assert room.store.read(filings.located_in, T, "Archive", [9, 44, 45]).result(5) == {9, 44}
    assert room.store.read(filings.located_in, T, "Nowhere", [9, 44]).result(5) == set()
