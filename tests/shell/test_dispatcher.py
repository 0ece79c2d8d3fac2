"""A touchpoint's outbound task, whole: doorbell, pool, store and a provider that plays a script, on real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from gateway.bridge import Bridge, open_bridge
from gateway.config import Config, Touchpoint
from gateway.doorbell import Doorbell
from gateway.health import Alarm, Health
from gateway.model import OutboxKind, show_id
from gateway.outbound import dispatcher
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.state import copies, lanes, outbox
from gateway.state.conversations import list_conversations
from gateway.state.lanes import Change, Lane
from gateway.state.lifecycle import LaneEvent, LaneState
from gateway.state.outbox import Ask
from gateway.state.store import Store
from tests.support.outgoing import ADDRESS, AGENT, TOUCHPOINT, accept, counted, listed, raw_of, states
from tests.support.scripted import CUT, HANG, Script, ScriptedProvider

SECOND = timedelta(seconds=1)
BRISK = RetryPolicy(
    delays=(SECOND / 5, SECOND / 2, 60 * SECOND),
    dial_delays=(SECOND / 5, SECOND / 2),
    probe_delays=(SECOND / 2, 60 * SECOND),
)
PATIENT = RetryPolicy()  # as in production: what it puts off stays put off for the length of a test
TIMEOUTS = Timeouts(dial=5, tls=5, greeting=5, command=5, data=5, block=5, dot=5)


def says(**replies: str) -> Script:
    return lambda phase, argument, session: replies.get(phase)


class Rig:
    """A store and a touchpoint; `running` runs its dispatcher in the test's own Trio."""

    def __init__(self, store: Store, provider: ScriptedProvider, tmp_path: Path) -> None:
        self.store = store
        self.provider = provider
        secret = tmp_path / "secret"
        secret.write_text("open sesame\n")
        self.secret = secret
        self.keys: dict[str, Any] = {
            "id": TOUCHPOINT, "address": ADDRESS, "name": "Support", "active": True, "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{provider.port}", "password": f"file:{secret}",
        }  # fmt: skip
        self.health = Health(lambda: datetime.now(UTC))

    @asynccontextmanager
    async def running(
        self, policy: RetryPolicy = PATIENT, timeouts: Timeouts = TIMEOUTS, **keys: Any
    ) -> AsyncIterator[Doorbell]:
        touchpoint = Touchpoint.model_validate({**self.keys, **keys})
        gateway = SimpleNamespace(
            hostname="gateway.example",
            outbound=SimpleNamespace(source_address="", give_up_after=timedelta(days=5)),
        )
        self.touchpoints = {TOUCHPOINT: touchpoint}
        config = cast(Config, SimpleNamespace(gateway=gateway, touchpoints=self.touchpoints))
        async with open_bridge() as bridge, trio.open_nursery() as nursery:
            self.bridge: Bridge = bridge
            self.doorbell = Doorbell()

            async def start(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                await dispatcher.run(
                    touchpoint, bridge=bridge, store=self.store, current=lambda: config, doorbell=self.doorbell,
                    health=self.health, policy=policy, timeouts=timeouts, task_status=task_status,
                )  # fmt: skip

            await nursery.start(start)
            yield self.doorbell
            nursery.cancel_scope.cancel()
        assert bridge.stray_exceptions == 0

    async def accept(self, *recipients: str, **changes: Any) -> int:
        """As the door does it: durable first, then the bell."""
        id = await trio.to_thread.run_sync(lambda: accept(self.store, *recipients, **changes))
        self.doorbell.ring(TOUCHPOINT)
        return id

    async def states(self, id: int | None = None) -> list[str]:
        return await trio.to_thread.run_sync(states, self.store, id)

    async def listed(self) -> list[dict[str, Any]]:
        return await trio.to_thread.run_sync(listed, self.store)

    async def retry(self, id: int | None = None) -> None:
        now = round(datetime.now(UTC).timestamp() * 1000)
        for touchpoint in (await self.store.submit(outbox.retry, Ask(now, id))).touchpoints:
            self.doorbell.ring(touchpoint)

    async def lane(self) -> Lane:
        return (await self.store.read(lanes.look, [TOUCHPOINT]))[TOUCHPOINT]

    async def until(self, check: Callable[[], Any], what: str, seconds: float = 15) -> Any:
        """Wait until `await check()` is true; fail with `what`."""
        found: Any = None
        with trio.move_on_after(seconds):
            while not (found := await check()):  # noqa: ASYNC110 - what it looks at is the store
                await trio.sleep(0.01)
            return found
        raise AssertionError(f"waited in vain: {what}: {await self.listed()} {await self.lane()}")

    async def until_states(self, *wanted: str, id: int | None = None) -> None:
        async def are_so() -> bool:
            return sorted(await self.states(id)) == sorted(wanted)

        await self.until(are_so, f"{wanted}")

    async def alarms(self) -> list[Alarm]:
        """Wait for the first one: the lane is on disk a moment before anybody is told."""

        async def found() -> list[Alarm]:
            return list(self.health.alarms())

        alarms: list[Alarm] = await self.until(found, "an alarm")
        return alarms

    async def notices(self) -> list[dict[str, Any]]:
        return await self.store.read(list_conversations, f"agent:{AGENT}")


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def rig(tmp_path: Path, provider: ScriptedProvider) -> Iterator[Rig]:
    store = Store.open(tmp_path / "gateway.db")
    yield Rig(store, provider, tmp_path)
    store.close()


def bodies(provider: ScriptedProvider) -> list[bytes]:
    """What the provider took, without our trace field."""
    return [taken.raw.partition(b"\r\n\t")[2].partition(b"\r\n")[2] for taken in provider.taken]


# --- the good day ----------------------------------------------------------------------------------------------------


async def test_a_message_leaves_as_soon_as_it_is_accepted_with_this_attempts_trace(
    rig: Rig, provider: ScriptedProvider
) -> None:
    async with rig.running():
        id = await rig.accept("b@clients.example", "c@clients.example")
        await rig.until_states("delivered", "delivered")
    (taken,) = provider.taken
    assert (taken.return_path, taken.recipients) == (ADDRESS, ("b@clients.example", "c@clients.example"))
    assert taken.raw.startswith(f"Received: by gateway.example (mail-gateway) id {show_id(id)}.1;\r\n\t".encode())
    assert bodies(provider) == [raw_of(id)]
    assert AGENT.encode() not in taken.raw
    assert b"127.0.0.1" not in taken.raw
    (message,) = await rig.listed()
    assert message["cause"] is None
    assert {recipient["reply"] for recipient in message["recipients"]} == {"250 2.0.0 taken"}


async def test_what_waited_from_before_the_start_leaves_at_once(rig: Rig, provider: ScriptedProvider) -> None:
    ids = [accept(rig.store) for _ in range(5)]
    async with rig.running():
        await rig.until_states(*["delivered"] * 5)
    assert sorted(bodies(provider)) == sorted(raw_of(id) for id in ids)


async def test_copies_are_owed_once_there_is_a_mailbox_to_put_them_in(rig: Rig, provider: ScriptedProvider) -> None:
    """A reload gives a touchpoint that only sends its `imap`; its connections stay, for nothing of theirs changed."""
    async with rig.running(sent_copy="append"):
        await rig.accept()
        await rig.until_states("delivered")
        assert await rig.store.read(copies.next_due, TOUCHPOINT) is None
        changed = {**rig.keys, "sent_copy": "append", "imap": "imaps://imap.example.com"}
        rig.touchpoints[TOUCHPOINT] = Touchpoint.model_validate(changed)
        await rig.accept()
        await rig.until_states("delivered", "delivered")
        assert await rig.store.read(copies.next_due, TOUCHPOINT) is not None
    assert len(provider.sessions) == 1


async def test_a_connection_is_used_again(rig: Rig, provider: ScriptedProvider) -> None:
    async with rig.running(pace={"connections": 1}):
        for number in range(1, 6):
            await rig.accept()
            await rig.until_states(*["delivered"] * number)
    assert [taken.session for taken in provider.taken] == [1] * 5
    assert rig.provider.sessions[0].commands[-1] == "QUIT"


async def test_each_message_leaves_once_over_many_connections(rig: Rig, provider: ScriptedProvider) -> None:
    ids = [accept(rig.store) for _ in range(60)]
    async with rig.running(pace={"connections": 6}):
        await rig.until_states(*["delivered"] * 60)
    assert sorted(bodies(provider)) == sorted(raw_of(id) for id in ids)
    assert 1 < len(provider.sessions) <= 6


async def test_a_connection_is_ended_after_as_many_messages_as_the_provider_likes(
    rig: Rig, provider: ScriptedProvider
) -> None:
    for _ in range(7):
        accept(rig.store)
    async with rig.running(pace={"connections": 1, "per_connection": 3}):
        await rig.until_states(*["delivered"] * 7)
    assert [session.taken for session in provider.sessions] == [3, 3, 1]
    assert all(session.commands[-1] == "QUIT" for session in provider.sessions)


async def test_a_large_message_leaves_whole(rig: Rig, provider: ScriptedProvider) -> None:
    async with rig.running():
        id = await rig.accept(body=b"." + b"y" * 700_000 + b"\r\n")
        await rig.until_states("delivered")
    assert bodies(provider) == [raw_of(id, b"." + b"y" * 700_000 + b"\r\n")]


async def test_messages_a_minute_are_counted(rig: Rig, provider: ScriptedProvider) -> None:
    for _ in range(5):
        accept(rig.store)
    async with rig.running(pace={"connections": 2, "per_minute": 3}):
        await rig.until_states("delivered", "delivered", "delivered", "queued", "queued")
        await rig.accept()
        await trio.sleep(0.3)  # a bell must not talk it into more
        assert counted(await rig.states()) == {"delivered": 3, "queued": 3}
    assert len(provider.taken) == 3


# --- noes ------------------------------------------------------------------------------------------------------------


async def test_a_refusal_reaches_the_writer_as_a_notice(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = lambda phase, argument, session: (
        "550 5.1.1 no such user" if argument == "no@clients.example" else None
    )
    async with rig.running():
        id = await rig.accept("yes@clients.example", "no@clients.example")
        await rig.until_states("delivered", "refused")
        (notice,) = await rig.notices()
    assert notice["subject"] == "Not delivered to no@clients.example: Your order"
    (message,) = await rig.listed()
    assert message["id"] == show_id(id)
    assert message["recipients"][1]["reply"] == "550 5.1.1 no such user"
    assert [taken.recipients for taken in provider.taken] == [("yes@clients.example",)]


@pytest.mark.parametrize("changes", [{"return_path": ""}, {"kind": OutboxKind.AUTO_REPLY}], ids=["null-path", "auto"])
async def test_nobody_is_told_about_a_notice_or_an_automatic_answer(
    rig: Rig, provider: ScriptedProvider, changes: dict[str, Any]
) -> None:
    provider.script = says(rcpt="550 5.1.1 no such user")
    async with rig.running():
        await rig.accept(**changes)
        await rig.until_states("refused")
        assert await rig.notices() == []


async def test_an_automatic_answer_leaves_from_the_touchpoint_where_the_null_return_path_is_refused(
    rig: Rig, provider: ScriptedProvider
) -> None:
    provider.script = lambda phase, argument, session: (
        "550 5.7.1 no null senders" if phase == "mail" and "<>" in argument else None
    )
    async with rig.running():
        await rig.accept(kind=OutboxKind.AUTO_REPLY, return_path="")
        await rig.until_states("delivered")
        assert (await rig.lane()).is_open
    (taken,) = provider.taken
    assert taken.return_path == ADDRESS


async def test_a_temporary_no_is_tried_again_and_counted(rig: Rig, provider: ScriptedProvider) -> None:
    times = iter(["450 4.2.0 greylisted", "450 4.2.0 greylisted"])
    provider.script = lambda phase, argument, session: next(times, None) if phase == "rcpt" else None
    async with rig.running(BRISK):
        id = await rig.accept()
        await rig.until_states("delivered")
    (message,) = await rig.listed()
    assert message["recipients"][0]["attempts"] == 3
    assert f"id {show_id(id)}.3;".encode() in provider.taken[0].raw
    assert (await rig.lane()).is_open


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Puts our clock ahead by so much."""
    right = time.time_ns

    def put(by: timedelta) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: right() + round(by.total_seconds()) * 1_000_000_000)

    return put


@pytest.mark.parametrize("restarted", [False, True], ids=["meanwhile", "before-the-start"])
async def test_a_clock_that_is_set_back_keeps_no_mail_waiting(
    rig: Rig, provider: ScriptedProvider, ahead: Callable[[timedelta], None], restarted: bool
) -> None:
    """A machine that takes its local time for UTC until it has asked somebody."""
    wrong = timedelta(hours=2)
    ahead(wrong)
    times = iter(["450 4.2.0 greylisted"])
    provider.script = lambda phase, argument, session: next(times, None) if phase == "rcpt" else None
    policy = RetryPolicy(delays=(SECOND, 60 * SECOND), dial_delays=(SECOND / 5,))
    async with rig.running(policy):
        await rig.accept(at=datetime.now(UTC) + wrong)
        await rig.until_states("deferred")
        if not restarted:
            ahead(timedelta())
            await rig.until_states("delivered")
    if restarted:
        rig.store.submit(lanes.change, Change(TOUCHPOINT, LaneEvent.PERSON_HOLDS, 0)).result(5)
        id = await rig.accept(at=datetime.now(UTC) + wrong)  # while a person holds the lane
        rig.store.submit(lanes.change, Change(TOUCHPOINT, LaneEvent.PERSON_RELEASES, 0)).result(5)
        ahead(timedelta())
        async with rig.running(policy):
            await rig.until_states("delivered", "delivered")
        assert len(await rig.states(id)) == 1
    assert len(provider.taken) == 1 + restarted


async def test_a_clock_that_is_right_moves_no_retry(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(rcpt="450 4.2.0 greylisted; come back in 05:00:00")
    async with rig.running():
        await rig.accept()
        await rig.until_states("deferred")
    before = await rig.listed()
    async with rig.running():
        await trio.testing.wait_all_tasks_blocked(0.2)
    assert await rig.listed() == before


async def test_a_temporary_no_shows_when_and_why(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(dot="451 4.3.0 try later")
    async with rig.running():
        await rig.accept()
        await rig.until_states("deferred")
    (message,) = await rig.listed()
    (recipient,) = message["recipients"]
    wait = datetime.fromisoformat(recipient["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=30) < wait < timedelta(seconds=70)
    assert message["cause"] == recipient["reply"] == "451 4.3.0 try later"


async def test_after_patience_the_writer_is_told(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(rcpt="450 4.2.0 greylisted for ever")
    hasty = RetryPolicy(delays=(SECOND / 10,), give_up_after=SECOND / 4)
    async with rig.running(hasty):
        await rig.accept()
        await rig.until_states("expired")
        (notice,) = await rig.notices()
    assert notice["subject"].startswith("Not delivered")


async def test_too_many_recipients_go_in_several_transactions(rig: Rig, provider: ScriptedProvider) -> None:
    counts: dict[int, int] = {}

    def script(phase: str, argument: str, session: Any) -> str | None:
        if phase == "mail":
            counts[session.number] = 0
        if phase == "rcpt":
            counts[session.number] += 1
            return "452 4.5.3 too many recipients" if counts[session.number] > 2 else None
        return None

    provider.script = script
    async with rig.running():
        addresses = [f"{number}@clients.example" for number in range(5)]
        id = await rig.accept(*addresses)
        await rig.until_states(*["delivered"] * 5)
    assert [len(taken.recipients) for taken in provider.taken] == [2, 2, 1]
    assert sorted(address for taken in provider.taken for address in taken.recipients) == addresses
    traces = [taken.raw.partition(b" id ")[2].partition(b";")[0].decode() for taken in provider.taken]
    assert traces == [f"{show_id(id)}.{attempt}" for attempt in (1, 2, 3)]


async def test_what_cannot_be_taken_is_refused_without_being_sent(rig: Rig, provider: ScriptedProvider) -> None:
    provider.extensions = ("PIPELINING", "SIZE 2000")
    async with rig.running():
        await rig.accept(body=b"z" * 3_000)
        await rig.accept(eight_bit=True)
        await rig.accept()
        await rig.until_states("refused", "refused", "delivered")
        assert len(await rig.notices()) == 2
    assert len(provider.taken) == 1


async def test_an_address_that_fits_no_command_is_refused_alone(rig: Rig, provider: ScriptedProvider) -> None:
    async with rig.running():
        await rig.accept("jürgen@clients.example", "b@clients.example")
        await rig.until_states("refused", "delivered")
    assert [taken.recipients for taken in provider.taken] == [("b@clients.example",)]


# --- links that are lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
async def test_a_cut_before_the_dot_is_sent_again_and_once(rig: Rig, provider: ScriptedProvider, phase: str) -> None:
    times = iter([CUT])
    provider.script = lambda at, argument, session: next(times, None) if at == phase else None
    async with rig.running(BRISK):
        id = await rig.accept()
        await rig.until_states("delivered")
        assert (await rig.lane()).is_open
    assert bodies(provider) == [raw_of(id)]


async def test_a_cut_behind_the_dot_is_uncertain_and_never_sent_again(rig: Rig, provider: ScriptedProvider) -> None:
    times = iter([CUT])
    provider.script = lambda phase, argument, session: next(times, None) if phase == "dot" else None
    async with rig.running(BRISK):
        first = await rig.accept()
        await rig.until_states("uncertain", id=first)
        await rig.retry()
        second = await rig.accept()
        await rig.until_states("delivered", id=second)

        async def alarm() -> bool:
            return "support/uncertain" in [alarm.id for alarm in rig.health.alarms()]

        await rig.until(alarm, "an alarm")
        assert await rig.states(first) == ["uncertain"]
    assert bodies(provider) == [raw_of(first), raw_of(second)]


async def test_no_answer_behind_the_dot_is_uncertain(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(dot=HANG)
    async with rig.running(timeouts=Timeouts(dot=0.3)):
        await rig.accept()
        await rig.until_states("uncertain")
    (message,) = await rig.listed()
    assert "did not answer in time" in message["cause"]


async def test_a_session_that_the_provider_ended_costs_no_wait(rig: Rig, provider: ScriptedProvider) -> None:
    """An idle connection is often gone when the next message comes; that message must not wait a minute for it."""
    async with rig.running(pace={"connections": 1}):
        await rig.accept()
        await rig.until_states("delivered")
        provider.cut_all()
        await rig.accept()
        await rig.until_states("delivered", "delivered")
        provider.script = lambda phase, argument, session: (
            "421 4.7.0 enough for one session" if phase == "mail" and session.taken else None
        )
        await rig.accept()
        await rig.until_states("delivered", "delivered", "delivered")
    assert len(provider.taken) == 3


# --- lanes -----------------------------------------------------------------------------------------------------------


async def test_an_outage_costs_one_attempt_and_not_one_for_each_message(rig: Rig, provider: ScriptedProvider) -> None:
    provider.close()
    for _ in range(20):
        accept(rig.store)
    async with rig.running():

        async def is_paused() -> bool:
            return (await rig.lane()).state is LaneState.PAUSED

        await rig.until(is_paused, "a paused lane")
        messages = await rig.listed()
        assert sum(recipient["attempts"] for message in messages for recipient in message["recipients"]) == 1
        assert {recipient["state"] for message in messages for recipient in message["recipients"]} == {"deferred"}
        assert all("refused the connection" in message["cause"] for message in messages)
        assert all(recipient["next_attempt_at"] for message in messages for recipient in message["recipients"])

        async def alarm() -> Any:
            return [alarm for alarm in rig.health.alarms() if alarm.id == "support/outbound"]

        (found,) = await rig.until(alarm, "an alarm")
        assert str(provider.port) in found.cause
        assert "\n" not in found.cause + found.action
        assert not rig.health.touchpoint(TOUCHPOINT).connected

        with ScriptedProvider(port=provider.port) as returned:
            await rig.retry()
            await rig.until_states(*["delivered"] * 20)
            assert len(returned.taken) == 20
            assert len({taken.raw for taken in returned.taken}) == 20

            async def is_quiet() -> bool:
                return not list(rig.health.alarms()) and rig.health.touchpoint(TOUCHPOINT).connected

            await rig.until(is_quiet, "no alarm")


async def test_mail_leaves_by_itself_when_the_provider_returns(rig: Rig, provider: ScriptedProvider) -> None:
    provider.close()
    for _ in range(5):
        accept(rig.store)
    async with rig.running(BRISK):

        async def has_climbed() -> bool:
            return (await rig.lane()).probes >= 3

        await rig.until(has_climbed, "three failures")
        with ScriptedProvider(port=provider.port) as returned:
            await rig.until_states(*["delivered"] * 5)
            assert len(returned.taken) == 5
        assert (await rig.lane()).is_open


async def test_a_wrong_password_holds_the_touchpoint_and_bounces_nothing(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = lambda phase, argument, session: (
        "535 5.7.8 wrong password" if phase == "auth" and "bWVuZGVk" not in argument else None
    )
    for _ in range(3):
        accept(rig.store)
    async with rig.running():
        await rig.until_states("held", "held", "held")
        lane = await rig.lane()
        assert (lane.state, lane.cause) == (LaneState.HELD, "login")
        assert lane.until_at is not None
        assert timedelta(minutes=4) < datetime.fromtimestamp(lane.until_at / 1000, UTC) - datetime.now(UTC)
        assert len(provider.sessions) == 1
        assert await rig.notices() == []
        (alarm,) = await rig.alarms()
        assert "535 5.7.8 wrong password" in alarm.cause
        assert "password" in alarm.action
        assert "sesame" not in f"{alarm} {lane} {await rig.listed()}"
        await rig.accept()
        await rig.until_states(*["held"] * 4)
        assert len(provider.sessions) == 1  # more mail is no reason to knock again

        provider.script = lambda phase, argument, session: None
        await rig.retry()
        await rig.until_states(*["delivered"] * 4)
        assert (await rig.lane()).is_open


async def test_a_held_lane_is_probed_and_releases_itself(rig: Rig, provider: ScriptedProvider) -> None:
    times = iter(["550 5.7.1 not allowed to send as this"])
    provider.script = lambda phase, argument, session: next(times, None) if phase == "mail" else None
    for _ in range(3):
        accept(rig.store)
    async with rig.running(BRISK):
        await rig.until_states("delivered", "delivered", "delivered")
        assert (await rig.lane()).is_open
    assert len(provider.taken) == 3


async def test_a_person_who_holds_a_lane_holds_it(rig: Rig, provider: ScriptedProvider) -> None:
    hold = Change(TOUCHPOINT, LaneEvent.PERSON_HOLDS, 1, detail="ana looks into it")
    rig.store.submit(lanes.change, hold).result(10)
    accept(rig.store)
    async with rig.running(BRISK):
        await rig.accept()
        await rig.retry()
        await trio.sleep(0.2)
        assert await rig.states() == ["held", "held"]
        release = Change(TOUCHPOINT, LaneEvent.PERSON_RELEASES, 2)
        await rig.store.submit(lanes.change, release)
        rig.doorbell.ring(TOUCHPOINT)
        await rig.until_states("delivered", "delivered")


async def test_a_throttle_pauses_the_lane_for_all_mail(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(mail="432 4.3.2 Concurrent connections limit exceeded")
    for _ in range(10):
        accept(rig.store)
    async with rig.running():
        await rig.until_states(*["deferred"] * 10)
        attempts = [recipient["attempts"] for message in await rig.listed() for recipient in message["recipients"]]
        assert sum(attempts) == 1
        assert list(rig.health.alarms()) == []  # one throttle is how providers talk


async def test_fewer_connections_than_asked_for_are_no_outage(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = lambda phase, argument, session: (
        "421 4.3.2 too many connections" if phase == "greeting" and session.number > 2 else None
    )
    for _ in range(40):
        accept(rig.store)
    async with rig.running(pace={"connections": 6}):
        await rig.until_states(*["delivered"] * 40)
        assert (await rig.lane()).is_open
    assert len(provider.taken) == 40
    assert len(provider.sessions) <= 6


async def test_a_secret_that_is_not_there_holds_the_touchpoint(rig: Rig) -> None:
    rig.secret.unlink()
    accept(rig.store)
    async with rig.running():
        await rig.until_states("held")
        (alarm,) = await rig.alarms()
        assert "secret" in alarm.cause


# --- stopping and crashes --------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_the_answer_to_a_final_dot(rig: Rig, provider: ScriptedProvider) -> None:
    asked, answer = threading.Event(), threading.Event()

    def script(phase: str, argument: str, session: Any) -> str | None:
        if phase == "dot":
            asked.set()
            answer.wait(10)
        return None

    provider.script = script
    accept(rig.store)
    accept(rig.store)
    async with rig.running(pace={"connections": 1}):
        await trio.to_thread.run_sync(asked.wait, 10)
        threading.Timer(0.3, answer.set).start()
    assert counted(states(rig.store)) == {"delivered": 1, "queued": 1}
    assert len(provider.taken) == 1


async def test_a_stop_in_the_middle_of_a_dial_costs_nothing(rig: Rig, provider: ScriptedProvider) -> None:
    provider.script = says(greeting=HANG)
    accept(rig.store)
    async with rig.running():

        async def is_dialling() -> bool:
            return provider.open_connections == 1

        await rig.until(is_dialling, "a dial")
        begun = trio.current_time()
    assert trio.current_time() - begun < 5
    (message,) = listed(rig.store)
    (recipient,) = message["recipients"]
    assert (recipient["state"], recipient["attempts"]) == ("deferred", 1)
    assert datetime.fromisoformat(recipient["next_attempt_at"]) <= datetime.now(UTC)


async def test_sending_is_on_disk_when_the_provider_reads_the_dot(rig: Rig, provider: ScriptedProvider) -> None:
    seen: list[list[str]] = []

    def script(phase: str, argument: str, session: Any) -> str | None:
        if phase == "dot":
            seen.append(states(rig.store))
        return None

    provider.script = script
    for _ in range(3):
        accept(rig.store)
    async with rig.running(pace={"connections": 1}):
        await rig.until_states("delivered", "delivered", "delivered")
    assert [counted(found) for found in seen] == [
        {"queued": 2, "sending": 1}, {"delivered": 1, "queued": 1, "sending": 1}, {"delivered": 2, "sending": 1},
    ]  # fmt: skip


async def test_a_fault_of_ours_leaves_nothing_in_sending(
    rig: Rig, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in flight is recorded for what it was; then the task ends, loudly, and is started again."""
    from gateway.outbound.relay import Link

    async def broken(self: Link, letter: Any, notes: Any) -> None:
        notes.dotted = True
        raise RuntimeError("a bug")

    monkeypatch.setattr(Link, "_content", broken)
    accept(rig.store)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug"), flatten_subgroups=True):
        async with rig.running():
            await trio.sleep(10)
    assert states(rig.store) == ["uncertain"]


async def test_what_an_earlier_task_left_in_sending_is_uncertain(rig: Rig, provider: ScriptedProvider) -> None:
    accept(rig.store)
    now = round(datetime.now(UTC).timestamp() * 1000)
    want = outbox.Want(TOUCHPOINT, now + 1000, (60_000,), begin=True)
    assert rig.store.submit(outbox.step, outbox.Step(None, want)).result(10) is not None
    async with rig.running():
        await rig.accept()
        await rig.until_states("uncertain", "delivered")
    assert len(provider.taken) == 1


# --- what a dispatcher sleeps by -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("due", "lane", "quota", "not_before", "wakes"),
    [
        (None, Lane("t"), None, None, None),
        (100, Lane("t"), None, None, 100),
        (100, Lane("t", LaneState.PAUSED, "unreachable", until_at=500), None, None, 500),
        (100, Lane("t", LaneState.HELD, "person"), None, None, None),
        (100, Lane("t"), 700, 300, 700),
        (100, Lane("t"), None, 300, 300),
        (900, Lane("t", LaneState.HELD, "login", until_at=500), None, None, 900),
        (None, Lane("t", LaneState.HELD, "login", until_at=500), None, None, None),
    ],
    ids=["nothing", "due", "paused", "person", "quota", "pace", "due-later-than-the-probe", "nothing-to-probe-with"],
)
def test_the_next_look_is_when_everything_allows_it(
    due: int | None, lane: Lane, quota: int | None, not_before: int | None, wakes: int | None
) -> None:
    look = outbox.Outlook(lane, due, 0, quota)
    assert dispatcher.next_look(look, not_before) == wakes


@pytest.mark.parametrize(
    "cause", ["login", "permission", "switched-off", "certificate", "unreachable", "quota", "throttled", "person"]
)
def test_every_cause_has_an_action_of_one_line(rig: Rig, cause: str) -> None:
    touchpoint = Touchpoint.model_validate(rig.keys)
    action = dispatcher.action_for(Lane(TOUCHPOINT, LaneState.HELD, cause, probes=5), touchpoint)
    assert action
    assert "\n" not in action
    assert dispatcher.is_alarming(Lane(TOUCHPOINT, LaneState.HELD, cause, probes=5))
