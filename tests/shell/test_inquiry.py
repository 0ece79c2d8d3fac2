"""What is found out before the rules are asked: with the real store, and peers that are slow, broken or away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.bridge import open_bridge
from gateway.config import Config, Touchpoint, load
from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.inbound import inquiry as inquiry_module
from gateway.inbound import intake as intake_module
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.inbound.scoring import Letter
from gateway.mime import reading
from gateway.mime.reading import Content
from gateway.mime.scan import HeaderFacts
from gateway.model import Arrival, Authentication, Location, Score
from gateway.state import conversations, correspondents, folders, raw
from gateway.state.folders import Folder, Opening
from gateway.state.store import Store, Tuning
from gateway.workers import WorkerPool

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
TOUCHPOINT = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support"]
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


Configure = Callable[[str], Config]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def write(rules: str) -> Config:
        (tmp_path / "rules.toml").write_text(TOUCHPOINT + rules)
        (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
        return load(tmp_path / "gateway.toml")

    return write


class Room:
    """An intake, and mail for it."""

    def __init__(self, store: Store, config: Config, **peers: Any) -> None:
        self.store = store
        self.intake = Intake(store, lambda: config, inquiry=Inquiry(store, **peers))
        self._uid = 0
        store.submit(folders.open_folder, Opening(Folder("support", "INBOX", 1, 0, 0, 0, 0), ())).result(5)

    async def take(self, *contents: bytes) -> list[dict[str, Any]]:
        """Take messages in one batch; return the row of each."""
        arrivals = [self._arrival(content) for content in contents]
        await self.intake.accept(arrivals)
        return [self.row(arrival.id) for arrival in arrivals]

    def _arrival(self, content: bytes) -> Arrival:
        self._uid += 1
        location = Location("INBOX", 1, self._uid)
        return Arrival(self.store.ids.next(), "support", location, AT, AT, content, self._uid - 1, 1)

    def row(self, id: int) -> dict[str, Any]:
        query = "SELECT state, findings, trail, quarantine, conversation FROM message WHERE id = ?"
        state, found, trail, quarantine, conversation = self.store.read(
            lambda db: db.execute(query, (id,)).fetchone()
        ).result(5)
        listed = self.store.read(conversations.list_conversations, None, True).result(5)
        return {
            "state": state,
            "findings": json.loads(found or "{}"),
            "trail": {step["step"]: step["detail"] for step in json.loads(trail)},
            "quarantine": quarantine,
            "conversation": conversation,
            "queues": listed[0]["queues"],
        }


class Knowing:
    """Answers as told; counts."""

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self.answer = answer
        self.asked = 0

    async def authenticate(self, raw_of: Any, facts: HeaderFacts, touchpoint: Touchpoint, config: Config) -> Any:
        self.asked += 1
        return await self.answer()

    async def score(self, spam: Spam, letter: Letter) -> Any:
        self.asked += 1
        return await self.answer()

    async def read(self, message: bytes) -> Any:
        self.asked += 1
        return await self.answer()


def saying(value: Any) -> Callable[[], Awaitable[Any]]:
    async def answer() -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def letter(number: int = 1, subject: str = "Hello", body: str = "body", sender: str = "c@customer.example") -> bytes:
    return f"From: {sender}\r\nSubject: {subject}\r\nMessage-ID: <{number}@c>\r\n\r\n{body}\r\n".encode()


async def read_here(message: bytes) -> Content:
    return reading.read(message)


BODY_RULE = """
[[rule]]
name = "leaving"
if = { subject = "*contract*", body = "*cancel*" }
then = { queue = "retention" }
"""


async def test_what_was_found_out_decides_and_is_kept(store: Store, configure: Configure) -> None:
    rules = """
[spam]
scanner = "rspamd+http://127.0.0.1:1"
[[rule]]
name = "suspects"
if = { dmarc = "fail", spam_score_over = 3 }
then = { queue = "suspects" }
"""
    authenticator = Knowing(saying(Authentication(dmarc="fail", by="mx.example")))
    scanner = Knowing(saying(Score(4.5, "rspamd", ("A",))))
    room = Room(store, configure(rules), authenticator=authenticator, scanner=scanner)
    (row,) = await room.take(letter())
    assert row["queues"] == ["suspects"]
    found = row["findings"]
    assert found["authentication"] == {"dmarc": "fail", "by": "mx.example"}
    assert found["score"] == {"value": 4.5, "by": "rspamd", "symbols": ["A"]}
    assert abs(found["at"] / 1000 - time.time()) < 60


async def test_a_body_is_read_only_where_a_rule_hangs_on_it(store: Store, configure: Configure) -> None:
    reader = Knowing(saying(Content("please cancel it", ())))
    room = Room(store, configure(BODY_RULE), read=reader.read)
    (other,) = await room.take(letter(1))
    assert (other["queues"], reader.asked) == (["support"], 0)
    (leaving,) = await room.take(letter(2, "My contract"))
    assert (leaving["queues"], reader.asked) == (["retention"], 1)


async def test_the_whole_message_is_read_however_many_pieces_it_is_in(store: Store, configure: Configure) -> None:
    seen: list[bytes] = []

    async def read(message: bytes) -> Content:
        seen.append(message)
        return reading.read(message)

    room = Room(
        store,
        configure('[[rule]]\nname = "a"\nif = { attachment_name = "*.exe" }\nthen = { queue = "x" }\n'),
        read=read,
    )
    head = b"From: a@b.example\r\nMessage-ID: <1@c>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    large = (
        head + b"--b\r\n\r\n" + b"text\r\n" * 100_000 + b'--b\r\nContent-Type: x/y; name="a.exe"\r\n\r\nMZ\r\n--b--\r\n'
    )
    assert len(large) > 2 * raw.CHUNK_BYTES
    (arrival,) = [room._arrival(large)]
    await room.intake.accept([arrival])
    assert seen == [large]
    assert room.row(arrival.id)["queues"] == ["x"]
    # and again from the store alone, as after a restart
    store.submit(_forget_routing, arrival.id).result(5)
    await room.intake.resume()
    assert seen == [large, large]


def _forget_routing(db: Any, ids: Any) -> list[None]:
    db.execute("UPDATE message SET state = 'arrived', conversation = NULL")
    return [None] * len(ids)


@pytest.mark.parametrize("error", [Unavailable("took longer than 10 s"), ValueError("odd")], ids=["slow", "broken"])
async def test_a_body_that_cannot_be_read_is_told_of_and_matches_nothing(
    store: Store, configure: Configure, error: Exception
) -> None:
    room = Room(store, configure(BODY_RULE), read=Knowing(saying(error)).read)
    (row,) = await room.take(letter(1, "My contract", "cancel"))
    assert (row["state"], row["queues"]) == ("routed", ["support"])
    words = "took longer than 10 s" if isinstance(error, Unavailable) else "ValueError"
    assert row["trail"]["content"] == f"it could not be read: {words}"
    assert row["trail"]["rule leaving"] == "body is not known"


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("odd")], ids=["away", "broken"])
async def test_whoever_is_away_or_broken_keeps_no_mail_from_going_on(
    store: Store, configure: Configure, error: Exception
) -> None:
    config = configure('[spam]\nscanner = "rspamd+http://127.0.0.1:1"\n')
    room = Room(store, config, authenticator=Knowing(saying(error)), scanner=Knowing(saying(error)))
    (row,) = await room.take(letter())
    assert (row["state"], row["queues"], row["quarantine"]) == ("routed", ["support"], 0)
    assert "authentication" not in row["findings"]
    expected = "away" if isinstance(error, Unavailable) else "asking the scanner failed: RuntimeError"
    assert row["findings"]["no_score"] == row["trail"]["scanner"] == expected


async def test_whoever_never_answers_is_not_waited_for_longer_than_the_limit(
    store: Store, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry_module, "TOGETHER", 0.1)
    config = configure('[spam]\nscanner = "rspamd+http://127.0.0.1:1"\n' + BODY_RULE)
    silent = Knowing(trio.sleep_forever)
    room = Room(store, config, authenticator=silent, scanner=silent, read=silent.read)
    with trio.fail_after(10):
        (row,) = await room.take(letter(1, "My contract"))
    assert silent.asked == 3
    assert (row["state"], row["queues"]) == ("routed", ["support"])
    assert row["findings"]["no_score"] == "the scanner did not answer in time"
    assert row["trail"]["content"] == "it was not read in time"


async def test_what_came_in_time_counts_although_another_never_answers(
    store: Store, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry_module, "TOGETHER", 0.3)
    config = configure('[spam]\nscanner = "rspamd+http://127.0.0.1:1"\n')
    room = Room(
        store, config, authenticator=Knowing(trio.sleep_forever), scanner=Knowing(saying(Score(99.0, "rspamd")))
    )
    (row,) = await room.take(letter())
    assert row["findings"]["score"]["value"] == 99.0
    assert row["quarantine"]


async def test_a_batch_is_looked_at_together_and_placed_in_its_order(store: Store, configure: Configure) -> None:
    everybody = trio.Event()
    waiting = 0

    async def answer() -> Authentication:
        nonlocal waiting
        waiting += 1
        if waiting == 5:
            everybody.set()
        await everybody.wait()  # for ever, if one were asked after another
        return Authentication()

    room = Room(store, configure(""), authenticator=Knowing(answer))
    with trio.fail_after(10):
        rows = await room.take(*(letter(number) for number in range(5)))
    begun = [row["conversation"] for row in rows]
    assert begun == sorted(set(begun))


async def test_a_batch_has_a_limit_of_its_own(
    store: Store, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "LOOKS_TOGETHER", 1)
    monkeypatch.setattr(intake_module, "LOOKS_LONGEST", -1.8)
    silent = Knowing(trio.sleep_forever)
    room = Room(store, configure(""), authenticator=silent)
    with trio.fail_after(10):
        rows = await room.take(*(letter(number) for number in range(20)))
    assert silent.asked == 1
    assert all(row["state"] == "routed" for row in rows)


async def test_a_sender_is_known_from_the_second_message_on(store: Store, configure: Configure) -> None:
    rules = '[[rule]]\nname = "new"\nif = { known_sender = false }\nthen = { queue = "newcomers" }\n'
    room = Room(store, configure(rules))
    (first,) = await room.take(letter(1))
    (second,) = await room.take(letter(2, sender="C@Customer.Example"))
    assert (first["findings"]["known_sender"], first["queues"]) == (False, ["newcomers"])
    assert (second["findings"]["known_sender"], second["queues"]) == (True, ["support"])


async def test_while_the_store_is_away_nothing_is_decided(
    store: Store, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = '[[rule]]\nname = "new"\nif = { known_sender = false }\nthen = { queue = "newcomers" }\n'
    room = Room(store, configure(rules))
    read = store.read

    def moody(function: Any, *args: Any) -> Any:
        if function is correspondents.is_known:
            raise Unavailable("the disk is full")
        return read(function, *args)

    monkeypatch.setattr(store, "read", moody)
    arrival = room._arrival(letter(1))
    with pytest.raises(Unavailable, match="disk is full"):
        await room.intake.accept([arrival])
    monkeypatch.undo()
    assert await room.intake.resume() == 1
    assert room.row(arrival.id)["queues"] == ["newcomers"]


async def test_a_worker_process_reads_and_may_end_badly(store: Store, configure: Configure) -> None:
    rules = '[[rule]]\nname = "a"\nif = { attachment_name = "*.exe" }\nthen = { queue = "x" }\n'
    content = b"Content-Type: x/y; name=a.exe\r\nFrom: a@b.example\r\nMessage-ID: <%d@c>\r\n\r\nMZ"
    async with open_bridge() as bridge:
        workers = WorkerPool(processes=1)

        async def read(message: bytes) -> Content:
            job = reading.read if b"<2@c>" not in message else _die
            return await bridge.call(partial(workers.run, job, message, timeout=30))

        room = Room(store, configure(rules), read=read)
        queues = [(await room.take(content % number))[0] for number in (1, 2, 3)]
        await bridge.call(workers.close)
    assert [row["queues"] for row in queues] == [["x"], ["support"], ["x"]]
    assert "ended with exit code 3" in queues[1]["trail"]["content"]


def _die(message: bytes) -> Content:
    os._exit(3)
