"""What T2 writes of a report, all or nothing; and what looking for its message costs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.model import MessageClass, Verdict, to_ms
from gateway.rules.conversation import Ties
from gateway.rules.dsn import Report
from gateway.state import bounces, delays, marks, queues
from gateway.state.bounces import Returned
from gateway.state.folders import Place
from gateway.state.queues import Routed
from gateway.state.store import Store, Tuning
from tests.support import outgoing
from tests.support.postroom import Postroom, T, open_postroom

AT = to_ms(datetime(2026, 11, 23, 12, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


class Watched:
    """A connection that remembers what it was asked."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.asked: list[tuple[str, Any]] = []

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        self.asked.append((statement, values))
        return self.db.execute(statement, values)


def plans(db: sqlite3.Connection, asked: list[tuple[str, Any]]) -> list[str]:
    return [row[3] for statement, values in asked for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def test_looking_for_a_message_walks_no_whole_table(store: Store) -> None:
    outgoing.accept(store, references=("<a@c>",))
    report = Report(message_ids=("<a@c>", "<b@c>"), traces=((5, 1),), envelope_id="x")

    def look(db: sqlite3.Connection) -> list[str]:
        watched = Watched(db)
        bounces.find(watched, T, report, AT)  # type: ignore[arg-type]  # it acts like one
        return plans(db, watched.asked)

    found = store.read(look).result(5)
    assert len(found) >= 4
    assert [step for step in found if re.match(r"SCAN (?!json_each)", step)] == []


def test_looking_for_what_is_late_reads_the_index_of_what_is_open(store: Store) -> None:
    outgoing.accept(store)
    store.submit(marks.put, (delays.MARK, 1)).result(5)

    def look(db: sqlite3.Connection) -> list[str]:
        watched = Watched(db)
        delays.look(watched, to_ms(datetime.now(UTC)) + 1_000)  # type: ignore[arg-type]  # it acts like one
        return plans(db, [(one, values) for one, values in watched.asked if "WINDOW" in one])

    found = store.read(look).result(5)
    scanned = [step for step in found if re.match(r"SCAN (?!json_each|\(subquery)", step)]
    assert scanned == ["SCAN recipient USING COVERING INDEX recipient_open"]


def test_a_report_is_written_with_its_place_or_not_at_all(tmp_path: Path) -> None:
    with open_postroom(tmp_path) as room:
        id = outgoing.accept(room.store)
        message = arrive(room)
        text = "Not delivered to b@clients.example."
        returned = Returned(id, "agent:ana", True, ((0, text),), (("b@clients.example", text),))

        def broken(db: sqlite3.Connection, items: Any) -> Any:
            queues.route(db, items)
            raise RuntimeError("the end of the world")

        with pytest.raises(RuntimeError):
            room.store.submit(broken, routed(room, message, returned)).result(5)
        assert rows(room.store) == ([], [], [(None,)])
        result = room.store.submit(queues.route, routed(room, message, returned)).result(5)
        assert rows(room.store) == (
            [(id, 0, text, message)],
            [("b@clients.example", text, id)],
            [(result.conversation,)],
        )
        again = room.store.submit(queues.route, routed(room, message, returned)).result(5)
        assert again.is_repeated
        assert (again.conversation, again.queues) == (result.conversation, result.queues)


def test_nothing_follows_from_a_report_in_quarantine(tmp_path: Path) -> None:
    with open_postroom(tmp_path) as room:
        id = outgoing.accept(room.store)
        returned = Returned(id, "agent:ana", True, ((0, "x"),), (("b@clients.example", "x"),))
        result = room.store.submit(queues.route, routed(room, arrive(room), returned, quarantine=True)).result(5)
        assert result.queues == ("support",)
        assert rows(room.store) == ([], [], [(None,)])


def test_a_report_that_a_rule_discards_is_known_and_bothers_nobody(tmp_path: Path) -> None:
    with open_postroom(tmp_path) as room:
        id = outgoing.accept(room.store)
        returned = Returned(id, "agent:ana", True, ((0, "x"),), (("b@clients.example", "x"),))
        message = arrive(room)
        result = room.store.submit(queues.route, routed(room, message, returned, discard=True)).result(5)
        assert (result.queues, result.state.value) == (("support",), "closed")
        assert rows(room.store) == ([(id, 0, "x", message)], [("b@clients.example", "x", id)], [(None,)])


def test_the_latest_report_about_a_recipient_counts(tmp_path: Path) -> None:
    with open_postroom(tmp_path) as room:
        id = outgoing.accept(room.store)
        for uid, text in ((1, "first"), (2, "second")):
            returned = Returned(id, None, True, ((0, text),))
            message = arrive(room, uid)
            room.store.submit(queues.route, routed(room, message, returned)).result(5)
        assert rows(room.store)[0] == [(id, 0, "second", message)]


def arrive(room: Postroom, uid: int = 1) -> int:
    if uid == 1:
        room.watch(cursor=0)
    return room.arrive(Place(T, "INBOX", 7), uid, uid)


def routed(room: Postroom, message: int, returned: Returned, **verdict: Any) -> Routed:
    return Routed(
        message, T, Verdict(MessageClass.BOUNCE, ("support",), **verdict), Ties(), "", "Undelivered", "", "", True,
        room.store.ids.next(), AT, returned=returned, note="a note",
    )  # fmt: skip


def rows(store: Store) -> tuple[list[Any], list[Any], list[Any]]:
    def read(db: sqlite3.Connection) -> tuple[list[Any], list[Any], list[Any]]:
        return (
            db.execute("SELECT outbox, number, text, message FROM bounced").fetchall(),
            db.execute("SELECT address, text, outbox FROM hard_bounce").fetchall(),
            db.execute("SELECT conversation FROM outbox").fetchall(),
        )

    return store.read(read).result(5)
