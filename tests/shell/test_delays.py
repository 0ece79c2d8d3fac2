"""Writers hear once of mail that still waits: a notice each for a few, one for many, none for who does not want any."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.config import Config, load
from gateway.errors import Unavailable
from gateway.model import NO_WISH, Envelope, Notify, OutboxKind, Submission, Wish, id_at, read_id, show_id, to_ms
from gateway.outbound import delays
from gateway.outbound.bounce import compose_bounce
from gateway.rules.dsn import Action, read_report
from gateway.state import conversations, lanes, marks, outbox
from gateway.state import delays as delay_state
from gateway.state import raw as raw_state
from gateway.state.lanes import Change
from gateway.state.lifecycle import Event, LaneEvent, State
from gateway.state.outbox import Begin, Done, Fated, Step, Want
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning

NOW = datetime.now(UTC).replace(microsecond=0)
ANA = "ana@example.com"

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
direction = "outbound"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
active = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
    return load(tmp_path / "gateway.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"), now_ms=lambda: to_ms(NOW))
    yield opened
    opened.close()


def accept(
    store: Store,
    *recipients: str,
    agent: str = ANA,
    wishes: tuple[Wish, ...] = (),
    kind: OutboxKind = OutboxKind.REPLY,
    head: bytes = b"Subject: Your order\r\nMessage-ID: <m@example.com>\r\n\r\n",
    return_path: str = "support@example.com",
) -> int:
    id = store.ids.next()
    to = recipients or ("bob@example.net",)
    envelope = Envelope(return_path, to, wishes=wishes, envid="order+2B1")
    submission = Submission(id, "support", agent, envelope, "<m@example.com>", "Your order", NOW, head, kind)
    store.submit(outbox.accept, outbox.Accepting(submission, ((chunk_key(id, 0), head),))).result(5)
    return id


def end(store: Store, *events: Event, reply: str = "451 4.4.1 no answer from there") -> None:
    """Try the next message; each of its recipients ends so."""
    claimed = store.submit(outbox.step, Step(None, Want("support", to_ms(NOW) + 1, (10**10,), begin=True))).result(5)
    assert claimed is not None
    if not claimed.begun:
        rows = tuple((one.number, one.before) for one in claimed.recipients)
        assert store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows)).result(5)
    due = to_ms(NOW) + 10**9
    fated = tuple(
        Fated(one.number, State.SENDING, event, reply, due if event is Event.PUT_OFF else None)
        for one, event in zip(claimed.recipients, events, strict=True)
    )
    done = Done(claimed.id, "support", claimed.attempt, claimed.kind, fated, to_ms(NOW))
    store.submit(outbox.step, Step(done)).result(5)


def notices(store: Store) -> list[dict[str, Any]]:
    found = store.read(conversations.list_conversations, None, True).result(5)
    return sorted((one for one in found if one["tags"] == ["notice"]), key=lambda one: str(one["id"]))


def raw_of(store: Store, notice: dict[str, Any]) -> bytes:
    number = read_id(notice["id"])
    assert number is not None
    (message,) = store.read(conversations.find_messages, number).result(5)
    content = store.read(raw_state.load, read_id(message["id"])).result(5)
    assert content is not None
    return content


async def test_mail_that_waits_is_told_once_when_it_has_grown_old(store: Store, config: Config) -> None:
    id = accept(store)
    end(store, Event.PUT_OFF)
    assert await delays.tell(store, config, NOW + timedelta(hours=3, minutes=59)) == 0
    assert await delays.tell(store, config, NOW + timedelta(hours=4, minutes=1)) == 1
    (notice,) = notices(store)
    assert (notice["queues"], notice["state"]) == ([f"agent:{ANA}"], "open")
    assert notice["subject"] == "Delayed to bob@example.net: Your order"
    report = read_report(raw_of(store, notice))
    (told,) = report.recipients
    assert (told.address, told.action, told.status, told.code) == ("bob@example.net", Action.DELAYED, "4.4.1", 451)
    assert report.envelope_id == "order+1"
    assert report.message_ids == ("<m@example.com>",)
    assert show_id(id).encode() in raw_of(store, notice)
    conversation = store.read(conversations.show_conversation, read_id(notice["id"]) or 0).result(5)
    assert conversation is not None
    (shown,) = conversation["messages"]
    assert shown["note"].startswith("Delayed on its way to bob@example.net: the other server could not be reached")
    for hours in (5, 6, 100):
        assert await delays.tell(store, config, NOW + timedelta(hours=hours)) == 0


async def test_what_has_left_or_failed_is_not_late(store: Store, config: Config) -> None:
    for event in (Event.ACCEPTED, Event.REFUSED, Event.GAVE_UP):
        accept(store)
        end(store, event)
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 0
    assert await delays.tell(store, config, NOW + timedelta(hours=6)) == 0
    assert store.read(marks.get, delay_state.MARK).result(5) is None  # an idle gateway does not write


async def test_of_what_may_have_left_nobody_says_that_it_has_not(store: Store, config: Config) -> None:
    accept(store)
    end(store, Event.INTERRUPTED)
    accept(store, "b@x.example", "c@x.example")
    end(store, Event.INTERRUPTED, Event.PUT_OFF)
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1
    told = read_report(raw_of(store, notices(store)[0])).recipients
    assert [one.address for one in told] == ["c@x.example"]


async def test_only_the_recipients_that_wait_are_named(store: Store, config: Config) -> None:
    never = Wish(Notify(0))
    accept(
        store, "a@x.example", "b@x.example", "c@x.example", "d@x.example",
        wishes=(NO_WISH, NO_WISH, never, Wish(Notify.DELAY, "rfc822;D+40x.example")),
    )  # fmt: skip
    end(store, Event.ACCEPTED, Event.PUT_OFF, Event.PUT_OFF, Event.PUT_OFF)
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1
    told = read_report(raw_of(store, notices(store)[0])).recipients
    assert [(one.address, one.original) for one in told] == [("b@x.example", ""), ("d@x.example", "D@x.example")]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"wishes": (Wish(Notify(0)),)}, id="never"),
        pytest.param({"wishes": (Wish(Notify.FAILURE | Notify.SUCCESS),)}, id="without-delay"),
        pytest.param({"kind": OutboxKind.AUTO_REPLY}, id="auto-reply"),
        pytest.param({"return_path": ""}, id="null-return-path"),
        pytest.param({"head": b"Content-Type: multipart/report; report-type=x; boundary=b\r\n\r\n"}, id="a-report"),
    ],
)
async def test_who_is_not_told(store: Store, config: Config, changes: dict[str, Any]) -> None:
    accept(store, **changes)
    end(store, Event.PUT_OFF)
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 0
    assert notices(store) == []


async def test_a_held_lane_is_the_cause_that_is_told(store: Store, config: Config) -> None:
    accept(store)
    change = Change("support", LaneEvent.HOLD, to_ms(NOW), "login", "535 5.7.8 wrong password", (10**9,))
    store.submit(lanes.change, change).result(5)
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1
    assert b"login: 535 5.7.8 wrong password" in raw_of(store, notices(store)[0])


async def test_many_are_told_in_one_notice_for_each_writer(store: Store, config: Config) -> None:
    ids = [accept(store) for _ in range(delay_state.LISTED + 5)]
    few = [accept(store, agent="eva@example.com") for _ in range(delay_state.ALONE)]
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1 + len(few)
    summary = next(one for one in notices(store) if one["queues"] == [f"agent:{ANA}"])
    assert summary["subject"] == f"Delayed: {len(ids)} messages from support@example.com"
    text = email.message_from_bytes(raw_of(store, summary), policy=email.policy.default).get_content()
    listed = [id for id in ids if show_id(id) in text]
    assert listed == ids[: delay_state.LISTED]
    assert "… and 5 more" in text


async def test_the_mark_moves_with_the_notices_or_not_at_all(store: Store, config: Config) -> None:
    id = accept(store)
    now = NOW + timedelta(hours=5)
    look = store.read(delay_state.look, to_ms(now - timedelta(hours=4))).result(5)
    assert look is not None
    assert [one.id for group in look.overdue for one in group.messages] == [id]
    assert store.read(marks.get, delay_state.MARK).result(5) is None
    assert await delays.tell(store, config, now) == 1
    assert store.read(marks.get, delay_state.MARK).result(5) == look.mark
    assert store.read(delay_state.look, to_ms(now - timedelta(hours=4))).result(5) is None


async def test_a_fault_about_one_does_not_keep_the_others_from_being_told(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = compose_bounce

    def broken(original: Any, *args: Any, **more: Any) -> Any:
        if original.agent == ANA:
            raise RuntimeError("a fault of ours")
        return compose(original, *args, **more)

    monkeypatch.setattr(delays, "compose_bounce", broken)
    accept(store)
    accept(store, agent="eva@example.com")
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1
    assert [one["queues"] for one in notices(store)] == [["agent:eva@example.com"]]
    assert await delays.tell(store, config, NOW + timedelta(hours=6)) == 0


async def test_a_login_that_is_no_address_is_told_all_the_same(store: Store, config: Config) -> None:
    accept(store, agent="ana")
    assert await delays.tell(store, config, NOW + timedelta(hours=5)) == 1
    for _ in range(delay_state.ALONE + 1):
        accept(store, agent="eva")
    store.submit(marks.put, (delay_state.MARK, id_at(to_ms(NOW)) - 10**6)).result(5)
    assert await delays.tell(store, config, NOW + timedelta(hours=6)) == 2
    assert sorted(one["queues"] for one in notices(store)) == [["agent:ana"]] * 2 + [["agent:eva"]]


async def test_it_looks_again_and_again_also_after_the_store_was_away(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(store)
    read, tries, looked_often = store.read, 0, trio.Event()

    def away(*args: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 5:
            looked_often.set()
        if tries < 3:
            raise Unavailable("no reader")
        return read(*args)

    monkeypatch.setattr(store, "read", away)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delays.run, store, lambda: config, lambda: NOW + timedelta(hours=5), 0.01)
            await looked_often.wait()
            nursery.cancel_scope.cancel()
    assert len(notices(store)) == 1
