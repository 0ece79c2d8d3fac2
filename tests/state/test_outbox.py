"""The outbox on a real file: claims, what is recorded of them, what a crash leaves, what people see."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import OutboxKind, from_ms, show_id
from gateway.state import lanes, outbox
from gateway.state.lanes import Change
from gateway.state.lifecycle import Event, LaneEvent, LaneState, State
from gateway.state.outbox import Ask, Claimed, Done, Fated, Step, Told
from gateway.state.queues import Notice
from gateway.state.raw import chunk_key
from gateway.state.store import Store
from tests.support.attempts import MINUTE, NOW, WANT, accept, begin, claim, claimed, done, record, shown
from tests.support.outgoing import AGENT, TOUCHPOINT, listed, raw_of, states


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same file again; what is still open at the end is closed."""
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(Store.open(tmp_path / "gateway.db"))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


# --- accept ----------------------------------------------------------------------------------------------------------


def test_what_is_accepted_is_queued_and_due_at_once(store: Store) -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    id = accept(store, "b@clients.example", "c@clients.example", at=at)
    assert listed(store, settled=False) == [
        {
            "id": show_id(id),
            "touchpoint": TOUCHPOINT,
            "agent": AGENT,
            "message_id": f"<{show_id(id)}@example.com>",
            "subject": "Your order",
            "accepted_at": "2026-11-23T12:00:00.000Z",
            "cause": None,
            "recipients": [
                {
                    "address": address,
                    "state": "queued",
                    "attempts": 0,
                    "next_attempt_at": "2026-11-23T12:00:00.000Z",
                    "reply": None,
                    "next_look_at": None,
                    "looks": None,
                    "bounced": None,
                }
                for address in ("b@clients.example", "c@clients.example")
            ],
            "held": None,
            "signature": None,
        }
    ]


# --- claim -----------------------------------------------------------------------------------------------------------


def test_a_claim_counts_the_attempt_and_its_backoff_before_anything_is_dialled(store: Store) -> None:
    id = accept(store)
    first = claimed(store)
    assert (first.id, first.attempt, first.begun, first.raw) == (id, 1, False, raw_of(id))
    (recipient,) = shown(store, id)["recipients"]
    assert (recipient["state"], recipient["attempts"]) == ("queued", 1)
    assert claim(store) is None
    # A crash here costs one step of backoff, not a tight loop, and the next costs a longer one.
    again = claimed(store, replace(WANT, now=WANT.now + MINUTE))
    assert (again.attempt, again.recipients[0].attempts) == (2, 2)
    assert claim(store, replace(WANT, now=WANT.now + 2 * MINUTE)) is None
    assert claim(store, replace(WANT, now=WANT.now + 6 * MINUTE)) is not None


def test_a_claim_may_begin_at_once(store: Store) -> None:
    id = accept(store)
    assert claimed(store, replace(WANT, begin=True)).begun
    assert states(store, id) == ["sending"]


def test_a_claim_for_several_does_not_begin_before_the_provider_has_said_whom_it_takes(store: Store) -> None:
    """Killed now, a copy in Sent would speak for all who are `sending`, and one that was put off would be lost."""
    id = accept(store, "b@clients.example", "c@clients.example")
    one = claimed(store, replace(WANT, begin=True))
    assert not one.begun
    assert states(store, id) == ["queued", "queued"]


def test_the_longest_due_goes_first_and_the_claim_says_that_there_is_more(store: Store) -> None:
    ids = [accept(store) for _ in range(3)]
    found = [claimed(store) for _ in ids]
    assert [one.id for one in found] == ids
    assert [one.more for one in found] == [True, True, False]
    assert claim(store) is None


def test_many_connections_claim_different_messages_in_one_commit(store: Store) -> None:
    ids = [accept(store, *[f"{n}@clients.example" for n in range(1 + number % 3)]) for number in range(30)]
    tickets = [store.submit(outbox.step, Step(None, WANT)) for _ in range(40)]
    found = [ticket.result(10) for ticket in tickets]
    assert sorted(one.id for one in found if one is not None) == sorted(ids)


def test_a_claim_takes_all_due_recipients_of_a_message_and_only_those(store: Store) -> None:
    id = accept(store, "b@clients.example", "c@clients.example", "d@clients.example")
    first = claimed(store)
    assert [r.address for r in first.recipients] == ["b@clients.example", "c@clients.example", "d@clients.example"]
    assert begin(store, first)
    fated = (
        Fated(0, State.SENDING, Event.ACCEPTED, "250 taken"),
        Fated(1, State.SENDING, Event.PUT_OFF, "452 too many", NOW),
        Fated(2, State.SENDING, Event.PUT_OFF, "450 greylisted", NOW + 9 * MINUTE, 9 * MINUTE),
    )
    second = record(store, Done(id, TOUCHPOINT, 1, OutboxKind.REPLY, fated, NOW), replace(WANT, begin=True))
    assert second is not None
    assert [(r.number, r.attempts) for r in second.recipients] == [(1, 2)]
    assert second.attempt == 2
    third = claimed(store, replace(WANT, now=NOW + 10 * MINUTE))
    # The number of the attempt is the message's: this recipient's second try must not share the other one's trace.
    assert [(r.number, r.attempts, r.waited) for r in third.recipients] == [(2, 2, 9 * MINUTE)]
    assert third.attempt == 3


def test_one_transaction_has_a_hundred_recipients_at_most(store: Store) -> None:
    accept(store, *[f"{number}@clients.example" for number in range(150)])
    first, second = claimed(store), claimed(store)
    assert (len(first.recipients), len(second.recipients)) == (100, 50)
    assert (first.attempt, second.attempt) == (1, 2)
    assert not {r.number for r in first.recipients} & {r.number for r in second.recipients}


def test_an_automatic_answer_that_waited_too_long_is_taken_back_and_the_next_message_goes(store: Store) -> None:
    late = accept(store, kind=OutboxKind.AUTO_REPLY)

    def put(db: sqlite3.Connection, items: Sequence[int]) -> Sequence[None]:
        db.executemany("UPDATE outbox SET drop_at = ? WHERE id = ?", [(WANT.now + 1, id) for id in items])
        return [None] * len(items)

    store.submit(put, late).result(5)
    assert claimed(store).id == late  # until then it is worth sending
    fresh = accept(store, at=from_ms(NOW + 5 * MINUTE))  # due behind it
    assert claimed(store, replace(WANT, now=WANT.now + 10 * MINUTE)).id == fresh
    assert states(store, late) == ["cancelled"]
    (recipient,) = shown(store, late)["recipients"]
    assert recipient["reply"] == "it waited for too long; automatic mail is not sent late"


def test_touchpoints_do_not_take_each_others_mail(store: Store) -> None:
    accept(store, touchpoint="billing")
    assert claim(store) is None
    assert claimed(store, replace(WANT, touchpoint="billing")).touchpoint == "billing"


def test_the_bytes_of_a_large_message_are_read_chunk_by_chunk(store: Store) -> None:
    body = b"x" * 600_000
    id = accept(store, body=body)
    assert claimed(store).raw is None
    parts = [store.read(outbox.read_chunk, id, number).result(10) for number in range(4)]
    assert b"".join(part for part in parts if part is not None) == raw_of(id, body)
    assert parts[3] is None


def test_a_days_quota_is_kept(store: Store) -> None:
    for _ in range(5):
        accept(store)
    want = replace(WANT, per_day=2)
    for _ in range(2):
        one = claimed(store, want)
        assert begin(store, one)
        record(store, done(one, Event.ACCEPTED, counted=True))
    assert claim(store, want) is None
    look = store.read(outbox.outlook, TOUCHPOINT, NOW, 2).result(10)
    assert look.quota_free_at is not None
    assert NOW + 24 * 60 * MINUTE < look.quota_free_at <= NOW + 25 * 60 * MINUTE
    assert claim(store, replace(want, now=look.quota_free_at - 1)) is None, "a day is 24 hours, wherever it begins"
    later = replace(want, now=look.quota_free_at)
    assert claim(store, later) is not None


def test_what_others_try_at_this_moment_counts_for_the_days_quota(store: Store) -> None:
    for _ in range(3):
        accept(store)
    assert claim(store, replace(WANT, per_day=2, under_way=1)) is not None
    assert claim(store, replace(WANT, per_day=2, under_way=2)) is None


# --- begin and record ------------------------------------------------------------------------------------------------


def test_data_begins_in_a_commit_of_its_own(store: Store) -> None:
    id = accept(store, "b@clients.example", "c@clients.example")
    one = claimed(store)
    assert begin(store, one, 1)
    assert states(store, id) == ["queued", "sending"]


def test_a_claim_that_was_overtaken_begins_nothing(store: Store) -> None:
    id = accept(store, "b@clients.example", "c@clients.example")
    slow = claimed(store)
    store.submit(outbox.retry, Ask(NOW + 1_000, id)).result(10)  # a person cannot wait for the dial
    fast = claimed(store)
    assert fast.attempt == 2
    assert not begin(store, slow)
    assert states(store, id) == ["queued", "queued"]
    assert begin(store, fast)
    assert not begin(store, slow)
    assert states(store, id) == ["sending", "sending"]
    record(store, done(slow, Event.PUT_OFF, before=State.QUEUED, due=NOW))
    assert states(store, id) == ["sending", "sending"]
    record(store, done(fast, Event.ACCEPTED))
    assert states(store, id) == ["delivered", "delivered"]


def test_a_claim_that_was_overtaken_for_one_recipient_begins_for_none(store: Store) -> None:
    id = accept(store, "b@clients.example", "c@clients.example")
    slow = claimed(store)
    record(store, replace(done(slow, Event.PUT_OFF, before=State.QUEUED), fated=(
        Fated(1, State.QUEUED, Event.PUT_OFF, "later", NOW),)))  # fmt: skip
    fast = claimed(store)
    assert [r.number for r in fast.recipients] == [1]
    assert not begin(store, slow)
    assert states(store, id) == ["queued", "deferred"]


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (Event.ACCEPTED, "delivered"),
        (Event.REFUSED, "refused"),
        (Event.GAVE_UP, "expired"),
        (Event.PUT_OFF, "deferred"),
        (Event.CUT_BEFORE_DOT, "deferred"),
        (Event.INTERRUPTED, "uncertain"),
    ],
)
def test_an_attempt_is_recorded_for_what_it_was(store: Store, event: Event, state: str) -> None:
    id = accept(store)
    one = claimed(store)
    assert begin(store, one)
    record(store, done(one, event, due=NOW + 7 * MINUTE))
    (recipient,) = shown(store, id)["recipients"]
    assert recipient["state"] == state
    assert recipient["reply"] == f"said {event}"
    assert (recipient["next_attempt_at"] is not None) == (state == "deferred")
    is_open = state in ("deferred", "uncertain")
    assert len(listed(store, settled=False)) == is_open


def test_an_automatic_message_is_never_uncertain(store: Store) -> None:
    id = accept(store, kind=OutboxKind.AUTO_REPLY)
    one = claimed(store, replace(WANT, begin=True))
    record(store, done(one, Event.INTERRUPTED))
    assert states(store, id) == ["cancelled"]
    assert listed(store, settled=False) == []


def test_recording_and_claiming_is_one_step(store: Store) -> None:
    first_id, second_id = accept(store), accept(store)
    first = claimed(store)
    assert begin(store, first)
    before = store.commits
    second = record(store, done(first, Event.ACCEPTED), replace(WANT, begin=True))
    assert store.commits == before + 1
    assert second is not None
    assert (second.id, states(store)) == (second_id, ["delivered", "sending"])
    assert first_id != second_id


def notice_about(of: Claimed, store: Store) -> Notice:
    id = store.ids.next()
    raw = b"Subject: Not delivered\r\n\r\nsorry\r\n"
    chunks = ((chunk_key(id, 0), raw),)
    return Notice(id, store.ids.next(), TOUCHPOINT, AGENT, "Not delivered", chunks, len(raw), NOW)


def told(store: Store) -> list[str]:
    """The queues that hold a notice, each as often as it holds one."""

    def queues_of(db: sqlite3.Connection) -> list[str]:
        return [queue for (queue,) in db.execute("SELECT queue FROM entry ORDER BY entered_at")]

    return store.read(queues_of).result(10)


def test_a_refusal_and_its_notice_are_one_transaction(store: Store) -> None:
    accept(store)
    one = claimed(store, replace(WANT, begin=True))
    record(store, done(one, Event.REFUSED, notices=(Told(notice_about(one, store), (0,)),)))
    assert states(store) == ["refused"]
    assert told(store) == [f"agent:{AGENT}"]


@pytest.mark.parametrize("event", [Event.REFUSED, Event.GAVE_UP])
@pytest.mark.parametrize("asked", [outbox.cancel, outbox.hold])
def test_a_refusal_that_a_person_was_quicker_than_is_not_told(store: Store, asked: Any, event: Event) -> None:
    """Taken back while it was dialled: "nobody is told" would be a lie, and what is held has not failed."""
    id = accept(store)
    one = claimed(store)
    store.submit(asked, Ask(NOW + 1_000, id)).result(10)
    before = states(store)
    record(store, done(one, event, before=State.QUEUED, notices=(Told(notice_about(one, store), (0,)),)))
    assert states(store) == before
    assert told(store) == []


def test_a_refusal_of_two_claims_of_one_message_is_told_once(store: Store) -> None:
    id = accept(store)
    slow = claimed(store)
    store.submit(outbox.retry, Ask(NOW + 1_000, id)).result(10)
    fast = claimed(store)
    for one in (fast, slow):
        record(store, done(one, Event.REFUSED, before=State.QUEUED, notices=(Told(notice_about(one, store), (0,)),)))
    assert states(store) == ["refused"]
    assert told(store) == [f"agent:{AGENT}"]


def test_of_two_notices_only_the_one_whose_recipients_are_recorded_is_told(store: Store) -> None:
    id = accept(store, "b@clients.example", "c@clients.example")
    one = claimed(store)
    assert begin(store, one, 0)
    store.submit(outbox.cancel, Ask(NOW + 1_000, id)).result(10)  # too late for the first, in time for the second
    handed, failed = notice_about(one, store), notice_about(one, store)
    fated = (Fated(0, State.SENDING, Event.ACCEPTED, "taken"), Fated(1, State.QUEUED, Event.REFUSED, "unknown"))
    record(store, replace(done(one, Event.REFUSED), fated=fated, notices=(Told(failed, (1,)), Told(handed, (0,)))))
    assert states(store) == ["delivered", "cancelled"]
    assert len(told(store)) == 1


def test_a_notice_that_cannot_be_stored_takes_the_refusal_back(store: Store) -> None:
    accept(store)
    one = claimed(store, replace(WANT, begin=True))
    broken = replace(notice_about(one, store), subject=object())  # type: ignore[arg-type]  # SQLite refuses it
    ticket = store.submit(outbox.step, Step(done(one, Event.REFUSED, notices=(Told(broken, (0,)),))))
    with pytest.raises((sqlite3.Error, TypeError)):
        ticket.result(10)
    assert states(store) == ["sending"]


# --- lanes -----------------------------------------------------------------------------------------------------------


def shut(store: Store, event: LaneEvent, cause: str = "login", **changes: Any) -> lanes.Lane:
    change = Change(TOUCHPOINT, event, NOW, cause, f"why {cause}", (5 * MINUTE, 15 * MINUTE))
    return store.submit(lanes.change, replace(change, **changes)).result(10)


def test_a_held_lane_gives_nothing_until_its_probe_and_then_one_message(store: Store) -> None:
    for _ in range(3):
        accept(store)
    shut(store, LaneEvent.HOLD)
    assert claim(store) is None
    at_probe = replace(WANT, now=NOW + 5 * MINUTE)
    tickets = [store.submit(outbox.step, Step(None, at_probe)) for _ in range(3)]
    found = [ticket.result(10) for ticket in tickets]
    assert [one is not None for one in found] == [True, False, False]
    assert found[0] is not None
    assert (found[0].probing, found[0].more) == ("login", False)
    assert claim(store, replace(at_probe, now=NOW + 9 * MINUTE)) is None  # a crash in the probe costs its delay


def test_a_hold_that_repeats_itself_is_probed_later_and_keeps_its_beginning(store: Store) -> None:
    first = shut(store, LaneEvent.HOLD)
    second = shut(store, LaneEvent.HOLD, at=NOW + 5 * MINUTE)
    assert (first.probes, second.probes) == (1, 2)
    assert second.until_at == NOW + 20 * MINUTE
    assert second.since_at == first.since_at == NOW
    assert shut(store, LaneEvent.PAUSE, cause="unreachable", at=NOW + 20 * MINUTE).cause == "login"


def test_a_lane_waits_as_long_as_the_provider_asks_and_its_ladder_goes_on(store: Store) -> None:
    asked = shut(store, LaneEvent.PAUSE, cause="throttled", until=NOW + 77_000)
    assert (asked.until_at, asked.probes) == (NOW + 77_000, 1)
    again = shut(store, LaneEvent.PAUSE, cause="throttled", at=NOW + 77_000)
    assert again.until_at == NOW + 77_000 + 15 * MINUTE


def test_success_opens_the_lane_and_its_mail_is_still_due(store: Store) -> None:
    ids = [accept(store) for _ in range(3)]
    shut(store, LaneEvent.HOLD)
    probe = claimed(store, replace(WANT, now=NOW + 5 * MINUTE))
    assert begin(store, probe)
    worked = Change(TOUCHPOINT, LaneEvent.WORKED, NOW + 5 * MINUTE)
    following = record(store, done(probe, Event.ACCEPTED, lane=worked), replace(WANT, now=NOW + 5 * MINUTE))
    assert following is not None
    assert following.more
    assert [following.id, claimed(store).id] == ids[1:]


def test_what_a_person_holds_is_never_probed(store: Store) -> None:
    accept(store)
    shut(store, LaneEvent.PERSON_HOLDS)
    assert claim(store, replace(WANT, now=NOW + 10**12)) is None
    shut(store, LaneEvent.WORKED)
    shut(store, LaneEvent.PAUSE)
    store.submit(outbox.retry, Ask(NOW + MINUTE)).result(10)
    assert claim(store, replace(WANT, now=NOW + MINUTE)) is None
    shut(store, LaneEvent.PERSON_RELEASES)
    assert claim(store, replace(WANT, now=NOW + MINUTE)) is not None


def test_the_lane_stands_before_its_mail_in_the_listing(store: Store) -> None:
    id = accept(store)
    shut(store, LaneEvent.PAUSE, cause="unreachable")
    (recipient,) = shown(store, id)["recipients"]
    assert recipient["state"] == "deferred"
    assert datetime.fromisoformat(recipient["next_attempt_at"]) == datetime.fromtimestamp(
        (NOW + 5 * MINUTE) / 1000, UTC
    )
    assert shown(store, id)["cause"] == "unreachable: why unreachable"
    assert store.read(outbox.count_open).result(10) == {TOUCHPOINT: {"deferred": 1}}
    shut(store, LaneEvent.HOLD, cause="login")
    assert shown(store, id)["recipients"][0]["state"] == "held"
    assert shown(store, id)["cause"] == "login: why login"
    shut(store, LaneEvent.PERSON_HOLDS, detail="ana looks into it")
    assert shown(store, id)["cause"] == "ana looks into it"
    assert shown(store, id)["recipients"][0]["next_attempt_at"] is None
    assert store.read(outbox.count_open).result(10) == {TOUCHPOINT: {"held": 1}}

    def rows(db: sqlite3.Connection) -> list[tuple[str]]:
        return db.execute("SELECT state FROM recipient").fetchall()

    assert store.read(rows).result(10) == [("queued",)]  # rewritten by nobody


def test_mail_of_a_touchpoint_that_is_not_running_shows_as_held(store: Store) -> None:
    accept(store)
    (message,) = store.read(outbox.list_outbox, False, None, {TOUCHPOINT: "switched off"}.get).result(10)
    assert (message["cause"], message["recipients"][0]["state"]) == ("switched off", "held")


# --- start -----------------------------------------------------------------------------------------------------------


def test_a_crash_in_sending_is_uncertain_and_nothing_else_is(open_store: Callable[[], Store]) -> None:
    store = open_store()
    sending, waiting, untouched = accept(store), accept(store), accept(store)
    automatic = accept(store, kind=OutboxKind.AUTO_REPLY)
    one, two = claimed(store), claimed(store)
    assert (one.id, two.id) == (sending, waiting)
    assert begin(store, one)
    claimed(store, replace(WANT, begin=False))
    third = claimed(store)
    assert third.id == automatic
    assert begin(store, third)
    store.close()

    store = open_store()
    assert store.submit(outbox.recover, NOW).result(10) == 1
    assert [states(store, id) for id in (sending, waiting, untouched, automatic)] == [
        ["uncertain"], ["queued"], ["queued"], ["cancelled"],
    ]  # fmt: skip
    assert shown(store, sending)["recipients"][0]["next_attempt_at"] is None
    assert claim(store, replace(WANT, now=NOW + 10**10)) is not None  # the claimed one, after its backoff
    assert store.submit(outbox.recover, NOW).result(10) == 0
    assert store.read(outbox.outlook, TOUCHPOINT, NOW, None).result(10).uncertain == 1


def test_a_task_that_begins_again_recovers_its_own_touchpoint_only(store: Store) -> None:
    mine, other = accept(store), accept(store, touchpoint="billing")
    claimed(store, replace(WANT, begin=True))
    claimed(store, replace(WANT, touchpoint="billing", begin=True))
    assert store.submit(outbox.recover_lane, (TOUCHPOINT, NOW)).result(10) == 1
    assert (states(store, mine), states(store, other)) == (["uncertain"], ["sending"])


# --- what people ask -------------------------------------------------------------------------------------------------


def put_off(store: Store, minutes: int) -> int:
    id = accept(store)
    one = claimed(store)
    record(store, done(one, Event.PUT_OFF, before=State.QUEUED, due=NOW + minutes * MINUTE, waited=minutes * MINUTE))
    return id


def test_retry_makes_waiting_mail_due_now_and_takes_the_wait_off_the_clock(store: Store) -> None:
    id = put_off(store, 30)
    retried = store.submit(outbox.retry, Ask(NOW + 10 * MINUTE, id)).result(10)
    assert (retried.recipients, retried.touchpoints) == (1, (TOUCHPOINT,))
    again = claimed(store, replace(WANT, now=NOW + 10 * MINUTE))
    assert again.recipients[0].waited == 10 * MINUTE  # of the 30 minutes it was to wait


def test_retry_takes_one_message_one_touchpoint_or_everything(store: Store) -> None:
    first, _ = put_off(store, 5), put_off(store, 5)
    shut_off = accept(store, touchpoint="billing")
    assert store.submit(outbox.retry, Ask(NOW, first)).result(10).recipients == 1
    assert store.submit(outbox.retry, Ask(NOW, touchpoint=TOUCHPOINT)).result(10).recipients == 2
    everything = store.submit(outbox.retry, Ask(NOW)).result(10)
    assert (everything.recipients, everything.touchpoints) == (3, ("billing", TOUCHPOINT))
    assert store.submit(outbox.retry, Ask(NOW, shut_off + 1)).result(10).recipients == 0


def test_retry_lets_a_lane_that_is_paused_or_held_be_tried_at_once(store: Store) -> None:
    put_off(store, 5)
    shut(store, LaneEvent.HOLD)
    store.submit(outbox.retry, Ask(NOW + 1_000)).result(10)
    assert claimed(store).probing == "login"
    look = store.read(outbox.outlook, TOUCHPOINT, NOW, None).result(10)
    assert look.lane.state is LaneState.HELD


def test_retry_never_touches_what_is_uncertain_sending_or_settled(store: Store) -> None:
    accept(store)
    one = claimed(store, replace(WANT, begin=True))
    assert store.submit(outbox.retry, Ask(NOW)).result(10).recipients == 0
    record(store, done(one, Event.INTERRUPTED))
    assert store.submit(outbox.retry, Ask(NOW)).result(10).recipients == 0
    assert states(store) == ["uncertain"]


def test_a_listing_shows_what_is_open_and_the_newest_when_it_is_cut(store: Store) -> None:
    ids = [accept(store) for _ in range(4)]
    one = claimed(store, replace(WANT, begin=True))
    record(store, done(one, Event.ACCEPTED))
    assert [message["id"] for message in listed(store, settled=False)] == [show_id(id) for id in ids[1:]]
    assert [message["id"] for message in listed(store)] == [show_id(id) for id in ids]
    cut = store.read(outbox.list_outbox, False, 2).result(10)
    assert [message["id"] for message in cut] == [show_id(id) for id in ids[2:]]


def test_show_finds_a_message_by_the_id_that_people_see(store: Store) -> None:
    id = accept(store)
    assert store.read(outbox.show_outbox, show_id(id).upper()).result(10) == shown(store, id)
    assert store.read(outbox.show_outbox, show_id(id + 1)).result(10) is None
    assert store.read(outbox.show_outbox, "not an id!").result(10) is None


# --- cost ------------------------------------------------------------------------------------------------------------


def test_what_is_settled_costs_nothing(store: Store) -> None:
    """Claims and looks walk the index of what is open; the plan says so, whatever lies beside it."""
    accept(store)

    def plans(db: sqlite3.Connection) -> list[str]:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        outbox.outlook(db, TOUCHPOINT, NOW, 10)
        outbox.list_outbox(db)
        outbox.count_open(db)
        db.set_trace_callback(None)
        return [row[3] for sql in seen for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]

    steps = store.read(plans).result(10)
    assert steps
    assert [step for step in steps if step.startswith("SCAN") and "recipient_open" not in step and "lane" not in step
            and "list" not in step.lower()] == []  # fmt: skip


def test_a_hundred_thousand_deferred_do_not_delay_the_start(open_store: Callable[[], Store]) -> None:
    store = open_store()

    def fill(db: sqlite3.Connection, items: Sequence[int]) -> Sequence[None]:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO recipient (outbox, number, touchpoint, address, state, attempts, attempt, waited,"
            " next_attempt_at) SELECT i, 0, 'support', 'b@clients.example', 'deferred', 3, 3, 0, ? + i FROM n",
            (NOW,),
        )
        return [None] * len(items)

    store.submit(fill, 0).result(60)
    store.close()
    begun = time.perf_counter()
    store = open_store()
    store.submit(outbox.recover, NOW).result(10)
    look = store.read(outbox.outlook, TOUCHPOINT, NOW, None).result(10)
    taken = timedelta(seconds=time.perf_counter() - begun)
    assert look.due_at == NOW + 1
    assert taken < timedelta(seconds=2)
