"""The inbound door with the real store: whatever comes in reaches a queue, once, also when something breaks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import events
from gateway.config import Config, load
from gateway.errors import NotStored, Unavailable
from gateway.inbound import intake as intake_module
from gateway.inbound.intake import UNREAD_SUBJECT, Intake
from gateway.mime.scan import HeaderFacts, scan
from gateway.model import Arrival, Location, read_id
from gateway.rules.chain import UNREAD_TAG, Chain
from gateway.state import conversations, folders, mailboxes, queues, raw
from gateway.state.folders import Folder, Opening
from gateway.state.mailboxes import NewArrival
from gateway.state.queues import Routed
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support", "second"]

[[rule]]
name = "invoices"
if = { subject = "*invoice*" }
then = { queue = "billing" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
    return load(tmp_path / "gateway.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


@pytest.fixture
async def intake(store: Store, config: Config) -> Intake:
    return Intake(store, lambda: config, now_ms=lambda: 0)


class Provider:
    """Numbers arrivals as a mailbox would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uid = 0

    def bring(self, *contents: bytes, touchpoint: str = "support") -> list[Arrival]:
        return [self._one(content, touchpoint) for content in contents]

    def _one(self, content: bytes, touchpoint: str) -> Arrival:
        self._uid += 1
        location = Location("INBOX", 1, self._uid)
        return Arrival(self._store.ids.next(), touchpoint, location, AT, AT, content, self._uid - 1, 1)


@pytest.fixture
def provider(store: Store) -> Provider:
    folder = Folder("support", "INBOX", 1, 0, 0, 0, 0)
    store.submit(folders.open_folder, Opening(folder, ())).result(5)
    return Provider(store)


def listed(store: Store) -> list[dict[str, Any]]:
    return store.read(conversations.list_conversations, None, True).result(5)


def bytes_of(store: Store, conversation: dict[str, Any]) -> list[bytes]:
    number = read_id(conversation["id"])
    assert number is not None
    found = store.read(conversations.find_messages, number).result(5)
    return [store.read(raw.load, read_id(one["id"])).result(5) or b"" for one in found]


def letter(number: int = 1, subject: str = "Hello", more: str = "") -> bytes:
    return (
        f"From: Carla <c@customer.example>\r\nSubject: {subject}\r\nMessage-ID: <{number}@customer.example>\r\n{more}"
        "\r\nbody\r\n"
    ).encode()


async def test_messages_are_stored_judged_and_placed(store: Store, intake: Intake, provider: Provider) -> None:
    arrivals = provider.bring(
        letter(1), letter(2, "Your invoice"), letter(3, more="In-Reply-To: <1@customer.example>\r\n")
    )
    placed = await intake.accept(arrivals)
    assert [one and one.queues for one in placed] == [("second", "support"), ("billing",), ("second", "support")]
    conversations = {tuple(one["message_ids"]): one for one in listed(store)}
    assert set(conversations) == {("<1@customer.example>", "<3@customer.example>"), ("<2@customer.example>",)}
    assert bytes_of(store, conversations[("<2@customer.example>",)]) == [arrivals[1].raw]
    folder = await store.read(folders.find_folder, "support", "INBOX")
    assert folder is not None
    assert folder.cursor == 3


async def test_what_is_known_by_its_location_is_not_taken_twice(
    store: Store, intake: Intake, provider: Provider
) -> None:
    (arrival,) = provider.bring(letter())
    assert (await intake.accept([arrival]))[0] is not None
    again = Arrival(store.ids.next(), "support", arrival.location, AT, AT, arrival.raw)
    assert await intake.accept([again]) == [None]
    assert len(listed(store)) == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 5_000, id="nothing-but-nul"),
        pytest.param(b"From: \0\0\r\nSubject: a\0b\r\nMessage-ID: <\0@x>\r\n\r\n", id="nul-in-fields"),
        pytest.param(b"X: " + b"a" * 10_000_000, id="ten-megabytes-of-header"),
        pytest.param(b"X: a\r\n" * 1_700_000 + b"\r\n", id="ten-megabytes-of-fields"),
        pytest.param(b"Subject: " + b"=?utf-8?q?a?= " * 20_000 + b"\r\n\r\n", id="bomb-of-encoded-words"),
        pytest.param(b'From: "(' + b"(" * 100_000 + b"\r\n\r\n", id="nested-parentheses"),
        pytest.param(bytes(range(256)) * 50, id="every-byte"),
        pytest.param(b"Subject: =?utf-7?q?+2AA-?= \xed\xa0\x80\r\n\r\n", id="surrogates"),
        pytest.param(b'Subject: "]}\\u0000{"\r\n\r\n', id="looks-like-json"),
    ],
)
async def test_any_bytes_reach_a_queue_as_they_are(
    store: Store, intake: Intake, provider: Provider, content: bytes
) -> None:
    await intake.accept(provider.bring(content, letter(2)))
    conversations = listed(store)
    assert len(conversations) == 2
    assert sorted(len(one) for each in conversations for one in bytes_of(store, each)) == sorted(
        (len(content), len(letter(2)))
    )
    assert all(one["queues"] == ["second", "support"] for one in conversations)
    assert UNREAD_TAG not in str(conversations), "the scanner copes; this is not the last resort"


async def test_a_touchpoint_without_links_goes_to_unrouted_and_says_so(
    store: Store, intake: Intake, provider: Provider
) -> None:
    before = events.counts().get("unrouted", 0)
    (placed,) = await intake.accept(provider.bring(letter(), touchpoint="gone"))
    assert placed is not None
    assert placed.queues == ("unrouted",)
    assert events.counts()["unrouted"] == before + 1


def spy_on_scan(monkeypatch: pytest.MonkeyPatch, see: Callable[[bytes], None]) -> None:
    def seen(content: bytes) -> HeaderFacts:
        see(content)
        return scan(content)

    monkeypatch.setattr(intake_module, "scan", seen)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that breaks on one subject, as a bug of ours would."""
    decide = Chain.decide

    def broken(self: Chain, touchpoint: str, facts: Any, size: int, **options: Any) -> Any:
        if facts.subject == "poison":
            raise ZeroDivisionError("a bug")
        return decide(self, touchpoint, facts, size, **options)

    monkeypatch.setattr(Chain, "decide", broken)


@pytest.mark.usefixtures("poison")
async def test_a_message_that_breaks_a_rule_is_queued_unread_and_loudly(
    store: Store, intake: Intake, provider: Provider
) -> None:
    before = events.counts().get("judging-failed", 0)
    placed = await intake.accept(provider.bring(letter(1), letter(2, "poison"), letter(3)))
    assert [one and one.queues for one in placed] == [("second", "support")] * 3
    (broken,) = [one for one in listed(store) if one["subject"] == UNREAD_SUBJECT]
    assert broken["tags"] == [UNREAD_TAG]
    assert bytes_of(store, broken) == [letter(2, "poison")]
    assert events.counts()["judging-failed"] == before + 1
    number = read_id(broken["id"])
    shown = await store.read(conversations.show_conversation, number)
    assert shown is not None
    assert shown["messages"][0]["trail"][0] == {
        "step": "intake",
        "detail": "judging it failed: ZeroDivisionError",
        "verdict": "taken as it is",
    }


async def test_a_finding_that_cannot_be_stored_is_left_out(
    store: Store, intake: Intake, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = queues.route

    def picky(db: sqlite3.Connection, items: Sequence[Routed]) -> Any:
        if any(item.subject == "odd" for item in items):
            raise ValueError("cannot be stored")
        return route(db, items)

    monkeypatch.setattr(queues, "route", picky)
    placed = await intake.accept(provider.bring(letter(1), letter(2, "odd"), letter(3)))
    assert all(placed)
    assert sorted(one["subject"] for one in listed(store)) == [UNREAD_SUBJECT, "Hello", "Hello"]


# --- what the last run left ------------------------------------------------------------------------------------------


def store_only(store: Store, arrivals: Sequence[Arrival], tries: int = 1) -> None:
    """What a run leaves that ended between the two transactions, after so many tries."""
    for arrival in arrivals:
        item = NewArrival(arrival, ((raw.chunk_key(arrival.id, 0), arrival.raw),))
        store.submit(mailboxes.arrive, item).result(5)
        for _ in range(tries - 1):
            store.submit(queues.begin_routing, arrival.id).result(5)


async def test_what_arrived_and_was_not_routed_is_routed_at_the_start(
    store: Store, intake: Intake, provider: Provider
) -> None:
    store_only(store, provider.bring(*(letter(number) for number in range(5))))
    assert await intake.resume() == 5
    assert len(listed(store)) == 5
    assert all(one["subject"] == "Hello" for one in listed(store))
    assert await intake.resume() == 0


async def test_the_third_try_does_not_look_into_the_message(
    store: Store, intake: Intake, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_only(store, provider.bring(letter(1)), tries=2)
    store_only(store, provider.bring(letter(2)), tries=1)
    scanned: list[bytes] = []
    spy_on_scan(monkeypatch, scanned.append)
    assert await intake.resume() == 2
    assert scanned == [letter(2)]
    assert sorted(one["subject"] for one in listed(store)) == [UNREAD_SUBJECT, "Hello"]
    assert all(one["queues"] == ["second", "support"] for one in listed(store))


async def test_a_message_that_ends_the_process_costs_two_lives_and_no_neighbour(
    store: Store, config: Config, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands in for the end of the process: nothing of ours catches it."""

    def kill(content: bytes) -> None:
        if b"deadly" in content:
            raise Killed

    spy_on_scan(monkeypatch, kill)
    arrivals = provider.bring(letter(1), letter(2, "deadly"), letter(3), letter(4))
    with pytest.raises(Killed):
        await Intake(store, lambda: config).accept(arrivals)
    with pytest.raises(Killed):
        await Intake(store, lambda: config).resume()
    await Intake(store, lambda: config).resume()
    assert sorted(one["subject"] for one in listed(store)) == [UNREAD_SUBJECT, "Hello", "Hello", "Hello"]


async def test_routing_again_what_was_routed_after_all_changes_nothing(
    store: Store, config: Config, intake: Intake, provider: Provider
) -> None:
    arrivals = provider.bring(letter(1))
    await intake.accept(arrivals)
    before = listed(store)
    await Intake(store, lambda: config)._try_again(arrivals[0].id)
    assert listed(store) == before


# --- the store is away -----------------------------------------------------------------------------------------------


class Moody:
    """The real store, whose disk is full for chosen operations while `full` says so."""

    def __init__(self, store: Store, operation: Callable[..., Any]) -> None:
        self._store = store
        self._operation = operation
        self.full = True
        self.refused = trio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def submit(self, operation: Callable[..., Any], item: Any) -> Any:
        if self.full and operation is self._operation:
            self.refused.set()

            def refuse(db: sqlite3.Connection, items: Sequence[Any]) -> Sequence[Any]:
                raise Unavailable("the disk is full")

            return self._store.submit(refuse, item)
        return self._store.submit(operation, item)


async def test_a_full_disk_before_the_message_is_stored_is_the_callers_to_repeat(
    store: Store, config: Config, provider: Provider
) -> None:
    moody: Any = Moody(store, mailboxes.arrive)
    intake = Intake(moody, lambda: config)
    arrivals = provider.bring(letter())
    with pytest.raises(Unavailable, match="full"):
        await intake.accept(arrivals)
    moody.full = False
    assert all(await intake.accept(arrivals))
    assert len(listed(store)) == 1


async def test_what_was_stored_on_a_full_disk_is_placed_when_there_is_room(
    store: Store, config: Config, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_RETRY_SECONDS", (0, 0))
    moody: Any = Moody(store, queues.route)
    intake = Intake(moody, lambda: config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.run)
        with pytest.raises(Unavailable, match="full"):
            await intake.accept(provider.bring(letter(1), letter(2)))
        assert listed(store) == []
        moody.refused = trio.Event()
        await moody.refused.wait()  # a retry that failed, too
        moody.full = False
        with trio.fail_after(20):
            while len(listed(store)) < 2:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert {one["subject"] for one in listed(store)} == {"Hello"}


async def test_a_mailbox_that_is_stopped_leaves_nothing_stored_without_a_place(
    store: Store, intake: Intake, provider: Provider
) -> None:
    with trio.CancelScope() as scope:
        arrivals = provider.bring(letter(1), letter(2))
        scope.cancel()
        await intake.accept(arrivals)
    placed = {tuple(one["message_ids"]) for one in listed(store)}
    assert await store.read(queues.unrouted_arrivals) == []
    assert placed in (set(), {("<1@customer.example>",), ("<2@customer.example>",)})


async def test_other_tasks_run_between_the_messages_of_a_batch(
    intake: Intake, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    seen: list[int] = []
    spy_on_scan(monkeypatch, lambda content: seen.append(turns))

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await intake.accept(provider.bring(*(letter(number) for number in range(10))))
        nursery.cancel_scope.cancel()
    assert len(set(seen)) >= 5, "a task's turn may come before ours and after our next one, so every other time counts"


async def test_a_new_configuration_is_in_force_from_the_next_batch(
    store: Store, config: Config, provider: Provider, tmp_path: Path
) -> None:
    current = config
    intake = Intake(store, lambda: current)
    await intake.accept(provider.bring(letter(1, "Your invoice")))
    (tmp_path / "rules.toml").write_text(RULES.replace("billing", "accounts"))
    current = load(tmp_path / "gateway.toml")
    (placed,) = await intake.accept(provider.bring(letter(2, "Your invoice")))
    assert placed is not None
    assert placed.queues == ("accounts",)


async def test_who_shows_queues_is_woken(store: Store, config: Config, provider: Provider) -> None:
    woken: list[Sequence[str]] = []
    await Intake(store, lambda: config, wake=woken.append).accept(provider.bring(letter()))
    assert woken == [("second", "support")]


async def test_what_the_store_refuses_or_knows_leaves_no_bytes_behind(
    store: Store, intake: Intake, provider: Provider
) -> None:
    large = letter(1) + bytes(raw.CHUNK_BYTES)
    (arrival,) = provider.bring(large)
    await intake.accept([arrival])
    again = replace(arrival, id=store.ids.next())  # fetched twice: its location is known
    assert await intake.accept([again]) == [None]
    poisoned = replace(provider.bring(large)[0], fingerprint=1 << 70)
    with pytest.raises(NotStored) as failure:
        await intake.accept([poisoned])
    assert failure.value.ids == {poisoned.id}
    store.submit(queues.begin_routing, 0).result(5)  # behind whatever was handed in before
    owners = store.read(lambda db: {key >> 16 for (key,) in db.execute("SELECT id FROM chunk")}).result(5)
    assert owners == {arrival.id}


async def test_rules_that_cannot_be_used_leave_nothing_without_a_place(
    store: Store, intake: Intake, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: Config) -> Chain:
        raise ZeroDivisionError

    monkeypatch.setattr(intake_module, "compile_chain", fail)
    (placed,) = await intake.accept(provider.bring(letter()))
    assert placed is not None
    assert placed.queues == ("second", "support")
    (conversation,) = listed(store)
    assert (conversation["subject"], conversation["tags"]) == (UNREAD_SUBJECT, [UNREAD_TAG])
