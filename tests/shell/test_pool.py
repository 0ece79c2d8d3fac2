"""The pool alone, where its neighbours fail it: a disk that will not take an outcome, a stop that cannot wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.config import Touchpoint
from gateway.errors import Unavailable
from gateway.outbound import pool as pools
from gateway.outbound.attempt import Settings
from gateway.outbound.offers import Offers
from gateway.outbound.outcome import Trouble
from gateway.outbound.pool import Connected, Pool, Sent, Told
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.state import conversations, lanes, outbox
from gateway.state.lifecycle import LaneState
from gateway.state.offers import Offer, all_offers
from gateway.state.outbox import Claimed
from gateway.state.store import Store
from gateway.state.ticket import Ticket, wake
from tests.support.outgoing import ADDRESS, TOUCHPOINT, accept, counted, listed, states
from tests.support.scripted import CUT, HANG, ScriptedProvider, Session

BRISK = Timeouts(dial=5, tls=5, greeting=5, command=5, data=5, block=5, dot=5)


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


class FailingStore(Store):
    """A store whose disk is full for the next `failures` steps that `fails_for` picks."""

    failures = 0

    @staticmethod
    def fails_for(step: outbox.Step) -> bool:
        return True

    def submit(self, operation: Any, item: Any) -> Any:
        if operation is outbox.step and self.failures and self.fails_for(item):
            self.failures -= 1
            ticket: Ticket[None] = Ticket()
            ticket.settle(None, Unavailable("the disk is full; make room"))
            wake([ticket])
            return ticket
        return super().submit(operation, item)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FailingStore]:
    store = FailingStore.open(tmp_path / "gateway.db")
    assert isinstance(store, FailingStore)
    yield store
    store.close()


def settings(provider: ScriptedProvider, **keys: Any) -> Settings:
    touchpoint = Touchpoint.model_validate(
        {
            "id": TOUCHPOINT, "address": ADDRESS, "name": "Support", "active": True, "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{provider.port}", **keys,
        }
    )  # fmt: skip
    return Settings(touchpoint, "gateway.example", "", RetryPolicy())


def play(store: Store, act: Callable[[Pool], Awaitable[Any]], **options: Any) -> tuple[Any, list[Told]]:
    """Run `act` with a pool that is closed behind it; return its result and what the pool told."""
    told: list[Told] = []

    async def main() -> Any:
        pool = Pool(store, told.append, timeouts=BRISK, **options)
        try:
            return await act(pool)
        finally:
            await pool.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main()), told


def lane_of(store: Store) -> lanes.Lane:
    return store.read(lanes.look, [TOUCHPOINT]).result(10)[TOUCHPOINT]


async def until(check: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - what it looks at is in another thread
            await asyncio.sleep(0.01)


def test_it_tells_of_the_connection_and_of_the_first_message(store: Store, provider: ScriptedProvider) -> None:
    for _ in range(3):
        accept(store)
    drained, told = play(store, lambda pool: pool.drain(settings(provider)))
    assert (drained.claims, drained.not_before) == (3, None)
    assert told[0] == Connected("127.0.0.1")
    assert isinstance(told[1], Sent)
    assert datetime.now(UTC) - told[1].at < timedelta(seconds=10)


def test_an_outcome_is_handed_to_the_disk_until_it_takes_it(
    store: FailingStore, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider has the message; that nobody could write it down must not send it again."""
    monkeypatch.setattr(pools, "_STORE_SECONDS", 0.05)
    store.fails_for = staticmethod(lambda step: step.done is not None)  # type: ignore[method-assign]  # set per test
    store.failures = 3
    accept(store)
    play(store, lambda pool: pool.drain(settings(provider)))
    assert states(store) == ["delivered"]
    assert len(provider.taken) == 1


def test_a_disk_that_takes_no_claim_is_asked_again_later(store: FailingStore, provider: ScriptedProvider) -> None:
    store.failures = 1
    accept(store)
    drained, _ = play(store, lambda pool: pool.drain(settings(provider)))
    assert drained.not_before is not None
    assert drained.not_before > time.time() * 1000
    assert states(store) == ["queued"]
    assert provider.sessions == []


def test_a_disk_that_is_full_when_data_should_begin_sends_nothing(
    store: Store, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.submit
    refused: list[Any] = []

    def submit(operation: Any, item: Any) -> Any:
        if operation is outbox.begin_data and not refused:
            refused.append(item)
            raise Unavailable("the disk is full; make room")
        return real(operation, item)

    monkeypatch.setattr(store, "submit", submit)
    accept(store)
    drained, _ = play(store, lambda pool: pool.drain(settings(provider)))
    assert drained.not_before is not None
    assert states(store) == ["deferred"]
    assert provider.taken == []


def test_a_stop_waits_within_a_bound_and_records_what_it_cut(store: Store, provider: ScriptedProvider) -> None:
    provider.script = lambda phase, argument, session: HANG if phase == "dot" else None
    accept(store)
    accept(store)

    async def act(pool: Pool) -> float:
        drain = asyncio.create_task(pool.drain(settings(provider, pace={"connections": 1})))
        await until(lambda: provider.sessions and provider.sessions[0].taken)
        begun = time.monotonic()
        while not drain.done():
            drain.cancel()  # again and again, as the bridge does
            await asyncio.wait((drain,), timeout=0.05)
        assert drain.cancelled()
        return time.monotonic() - begun

    seconds, _ = play(store, act, stop_seconds=0.5)
    assert 0.5 <= seconds < 4
    # The other one was never tried; it shows as deferred, because the link that was cut has paused the lane
    assert counted(states(store)) == {"deferred": 1, "uncertain": 1}
    assert "stopping" in str(listed(store)[0]["cause"])


def test_a_stop_that_cannot_wait_cuts_at_once(store: Store, provider: ScriptedProvider) -> None:
    provider.script = lambda phase, argument, session: HANG if phase == "dot" else None
    accept(store)

    async def act(pool: Pool) -> float:
        drain = asyncio.create_task(pool.drain(settings(provider)))
        await until(lambda: provider.sessions and provider.sessions[0].taken)
        begun = time.monotonic()
        drain.cancel()
        pools.hurry()
        await asyncio.wait((drain,))
        return time.monotonic() - begun

    seconds, _ = play(store, act, stop_seconds=30)
    assert seconds < 5
    assert states(store) == ["uncertain"]


def test_a_connection_is_kept_for_a_while_and_then_ended(store: Store, provider: ScriptedProvider) -> None:
    accept(store)

    async def act(pool: Pool) -> None:
        await pool.drain(settings(provider))
        assert provider.open_connections == 1
        accept(store)
        await pool.drain(settings(provider))
        await until(lambda: provider.open_connections == 0)

    play(store, act, idle_seconds=0.2)
    assert [session.taken for session in provider.sessions] == [2]
    assert provider.sessions[0].commands[-1] == "QUIT"


def test_a_nudge_puts_another_connection_to_work(store: Store, provider: ScriptedProvider) -> None:
    """One message takes for ever; what is accepted meanwhile does not wait for it."""
    accept(store)

    async def act(pool: Pool) -> None:
        pace = {"connections": 2}
        await pool.drain(settings(provider, pace=pace))
        provider.script = lambda phase, argument, session: (
            HANG if phase == "dot" and session.number == 1 and session.taken == 2 else None
        )
        accept(store)
        drain = asyncio.create_task(pool.drain(settings(provider, pace=pace)))
        await until(lambda: provider.sessions[0].taken == 2)
        accept(store)
        pool.nudge()
        await until(lambda: counted(states(store)) == {"delivered": 2, "sending": 1})
        provider.cut_all()
        await drain

    play(store, act)
    assert counted(states(store)) == {"delivered": 2, "uncertain": 1}


def test_a_days_quota_is_kept_by_all_connections_together(store: Store, provider: ScriptedProvider) -> None:
    def slow(phase: str, argument: str, session: Session) -> None:
        if phase == "dot":
            time.sleep(0.1)  # the others are under way meanwhile

    provider.script = slow
    for _ in range(12):
        accept(store)

    async def act(pool: Pool) -> None:
        pace = {"connections": 4, "per_day": 5}
        while (await pool.drain(settings(provider, pace=pace))).claims:
            pass

    play(store, act)
    assert counted(states(store)) == {"delivered": 5, "queued": 7}
    assert len(provider.sessions) > 1


def test_a_minute_goes_on_in_the_pool_that_a_reload_makes(store: Store, provider: ScriptedProvider) -> None:
    for _ in range(5):
        accept(store)
    paced = settings(provider, pace={"per_minute": 2})
    play(store, lambda pool: pool.drain(paced))
    drained, _ = play(store, lambda pool: pool.drain(paced))
    assert counted(states(store)) == {"delivered": 2, "queued": 3}
    assert drained.claims == 0
    assert 50_000 < drained.not_before - time.time() * 1000 < 61_000


def test_a_nudge_without_a_drain_does_nothing(store: Store, provider: ScriptedProvider) -> None:
    accept(store)

    async def act(pool: Pool) -> None:
        pool.nudge()
        await asyncio.sleep(0.05)

    play(store, act)
    assert provider.sessions == []


def test_a_touchpoint_that_needs_oauth_is_held_and_says_so(store: Store, provider: ScriptedProvider) -> None:
    accept(store)
    _, told = play(store, lambda pool: pool.drain(settings(provider, auth="oauth2")))
    (trouble,) = told
    assert isinstance(trouble, Trouble)
    assert "OAuth" in trouble.detail
    assert lane_of(store).cause == "login"


def test_a_message_that_kills_connections_does_not_stop_the_others(store: Store, provider: ScriptedProvider) -> None:
    """It waits by its own schedule, off the give-up clock; the mail behind it leaves."""
    poison = accept(store, "poison@clients.example")
    others = [accept(store) for _ in range(5)]
    provider.script = lambda phase, argument, session: CUT if argument == "poison@clients.example" else None

    async def act(pool: Pool) -> None:
        await pool.drain(settings(provider))
        assert lane_of(store).state is LaneState.PAUSED  # a first connection that is cut may be an outage
        await store.submit(lanes.try_now, (TOUCHPOINT, round(time.time() * 1000)))
        await pool.drain(settings(provider))

    play(store, act)
    assert [states(store, id) for id in others] == [["delivered"]] * 5
    assert states(store, poison) == ["deferred"]


def test_a_refusal_is_recorded_when_the_message_cannot_be_read_for_the_notice(
    store: Store, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.script = lambda phase, argument, session: "550 5.1.1 nobody" if phase == "dot" else None
    real, reads = store.read, 0

    def read(function: Any, *args: object) -> Any:
        nonlocal reads
        reads += function is outbox.read_chunk
        if function is outbox.read_chunk and reads > 3:  # two chunks and the end were sent
            raise Unavailable("the disk cannot be read")
        return real(function, *args)

    accept(store, body=b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5_000)
    monkeypatch.setattr(store, "read", read)
    play(store, lambda pool: pool.drain(settings(provider)))
    monkeypatch.undo()
    assert reads == 4
    assert states(store) == ["refused"]
    assert store.read(conversations.count_open).result(5)


# --- what the provider offers ----------------------------------------------------------------------------------------


def accept_many(store: Store, count: int) -> int:
    return accept(store, *(f"r{number}@c{number % 3}.example" for number in range(count)))


@pytest.mark.parametrize(
    ("limits", "pace", "parts"),
    [
        ("LIMITS RCPTMAX=4", {}, [4, 4, 2]),
        ("LIMITS RCPTMAX=200", {}, [10]),
        ("LIMITS RCPTDOMAINMAX=1", {}, [4, 3, 3]),
        ("SIZE 1000000", {"recipients": 6}, [6, 4]),
        ("LIMITS RCPTMAX=3", {"recipients": 6}, [3, 3, 3, 1]),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one-by-one"])
def test_a_message_for_many_goes_out_in_parts(
    store: Store, limits: str, pace: dict[str, int], parts: list[int], pipelining: bool
) -> None:
    with ScriptedProvider(extensions=(limits, *(["PIPELINING"] * pipelining))) as provider:
        warm = accept(store)
        accept_many(store, 10)
        play(store, lambda pool: pool.drain(settings(provider, pace=pace)))
        taken = [taken.recipients for taken in provider.taken][1:]
        assert sorted(map(len, taken), reverse=True) == parts
        assert len({recipient for recipients in taken for recipient in recipients}) == 10
        traces = [taken.raw.split(b";", 1)[0] for taken in provider.taken]
        assert len(set(traces)) == len(parts) + 1  # each part is an attempt of its own, and can be told apart
    assert set(states(store)) == {"delivered"}
    assert states(store, warm) == ["delivered"]


def test_a_hundred_recipients_are_what_every_server_takes(store: Store, provider: ScriptedProvider) -> None:
    accept_many(store, 130)
    play(store, lambda pool: pool.drain(settings(provider)))
    assert [len(taken.recipients) for taken in provider.taken] == [100, 30]


def test_a_connection_ends_when_the_server_has_said_so(store: Store) -> None:
    with ScriptedProvider(extensions=("LIMITS MAILMAX=2", "PIPELINING")) as provider:
        for _ in range(5):
            accept(store)
        play(store, lambda pool: pool.drain(settings(provider, pace={"connections": 1})))
        assert [session.taken for session in provider.sessions] == [2, 2, 1]


def test_what_the_provider_offers_is_known_to_the_door_and_survives(store: Store) -> None:
    known = Offers(store)
    with ScriptedProvider(extensions=("SIZE 1000000", "8BITMIME")) as provider:
        accept(store)
        play(store, lambda pool: pool.drain(settings(provider)), offers=known)
    assert known.of(TOUCHPOINT) == Offer(1_000_000, True, False, False)
    assert known.of("other") is None
    kept = store.read(all_offers).result(5)
    assert kept == {TOUCHPOINT: (f"smtp+insecure://127.0.0.1:{provider.port}", Offer(1_000_000, True, False, False))}


def test_what_another_server_offered_says_nothing_of_the_one_that_is_configured_now(store: Store) -> None:
    offer = Offer(1_000, False, False, False)
    servers = {"moved": "smtps://new.example", "same": "smtps://old.example"}
    known = Offers(store, {id: ("smtps://old.example", offer) for id in servers}, server_of=servers.get)
    assert known.of("moved") is None
    assert known.of("same") == offer
    known.learn("moved", "smtps://new.example", Offer(2_000, True, True, True))
    assert known.of("moved") == Offer(2_000, True, True, True)


# --- a field above the trace -----------------------------------------------------------------------------------------


def test_a_signature_stands_above_the_trace_and_counts_in_the_size(store: Store, provider: ScriptedProvider) -> None:
    async def sign(claimed: Claimed) -> bytes:
        return f"DKIM-Signature: of {claimed.attempt}\r\n".encode()

    accept(store)
    accept(store)
    play(store, lambda pool: pool.drain(settings(provider, pace={"connections": 1})), sign=sign)
    assert [taken.raw.split(b"\r\n")[0] for taken in provider.taken] == [b"DKIM-Signature: of 1"] * 2
    assert provider.taken[0].raw.split(b"\r\n")[1].startswith(b"Received: by gateway.example")
    assert f"SIZE={len(provider.taken[0].raw)}" in provider.sessions[0].commands[1]


def test_what_cannot_be_signed_waits_and_says_why(store: Store, provider: ScriptedProvider) -> None:
    async def sign(claimed: Claimed) -> bytes:
        raise Unavailable("dkim.pem cannot be read: no such file")

    accept(store)
    _, told = play(store, lambda pool: pool.drain(settings(provider)), sign=sign)
    assert provider.taken == []
    lane = lane_of(store)
    assert (lane.state, lane.cause) == (LaneState.HELD, "dkim")
    assert "dkim.pem" in (lane.detail or "")
    assert states(store) == ["held"]
    assert [one for one in told if isinstance(one, Trouble)]


# --- the mailbox's bell ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said", "rings"),
    [
        ({"sent_copy": "append", "imap": "imaps://imap.example.com"}, None, 1),
        ({"sent_copy": "provider", "imap": "imaps://imap.example.com"}, None, 0),
        ({"sent_copy": "provider", "imap": "imaps://imap.example.com"}, CUT, 1),
        ({"sent_copy": "append", "imap": "imaps://imap.example.com"}, "550 5.7.1 no", 0),
    ],
    ids=["copy", "no-copy", "uncertain", "refused"],
)
def test_the_mailbox_is_woken_for_what_it_has_to_look_at(
    store: Store, provider: ScriptedProvider, keys: dict[str, Any], said: str | None, rings: int
) -> None:
    provider.script = lambda phase, argument, session: said if phase == "dot" else None
    rung: list[None] = []
    accept(store)
    play(store, lambda pool: pool.drain(settings(provider, **keys)), ring=lambda: rung.append(None))
    assert len(rung) == rings
    copies = store.read(lambda db: db.execute("SELECT count(*) FROM copy").fetchone()[0]).result(5)
    assert copies == (1 if rings and said is None else 0)


# --- noes that are nobody's ------------------------------------------------------------------------------------------


def test_a_server_that_ends_sessions_over_errors_is_worked_through(store: Store) -> None:
    """After two noes it says 421, as Postfix does by smtpd_hard_error_limit. Everybody is tried in one go."""
    noes: dict[int, int] = {}

    def script(phase: str, argument: str, session: Session) -> str | None:
        if phase in ("rcpt", "data") and noes.get(session.number, 0) >= 2:
            return "421 4.7.0 provider.example Error: too many errors"
        if phase == "rcpt" and argument.startswith("bad"):
            noes[session.number] = noes.get(session.number, 0) + 1
            return "550 5.1.1 no such person"
        return None

    with ScriptedProvider(script) as provider:
        accept(store, *(f"{'bad' if number % 2 else 'good'}{number}@clients.example" for number in range(14)))
        play(store, lambda pool: pool.drain(settings(provider)))
        assert len(provider.sessions) <= 8
    assert counted(states(store)) == {"delivered": 7, "refused": 7}
    assert lane_of(store).is_open
