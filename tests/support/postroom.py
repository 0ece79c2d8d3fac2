"""Plays a touchpoint's mailbox and the intake on a real store, with what the provider shows given by the test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.model import (
    Arrival,
    Envelope,
    Filing,
    Location,
    MessageClass,
    OutboxKind,
    Placeholder,
    Role,
    Staged,
    Step,
    Submission,
    Verdict,
    show_id,
    to_ms,
)
from gateway.rules.conversation import Ties, thread_key
from gateway.state import conversations, folders, locations, mailboxes, queues, raw
from gateway.state.answers import Answer
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Relisted, Relisting, Relocation, Sighting
from gateway.state.mailboxes import ArrivalResult, NewArrival
from gateway.state.queues import Routed, RoutedResult
from gateway.state.store import Store, Tuning

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
NOW = to_ms(AT) + 3_600_000
T = "support"
JUNK_VERDICT = Verdict(
    MessageClass.HUMAN,
    (T,),
    quarantine=True,
    junk_alone=True,
    trail=(Step("provider", "it lies in the provider's Junk", "quarantine"),),
)


@contextmanager
def open_postroom(directory: Path) -> Iterator[Postroom]:
    store = Store.open(directory / "gateway.db", tuning=Tuning(synchronous="OFF"))
    try:
        yield Postroom(store)
    finally:
        store.close()


class Postroom:
    def __init__(self, store: Store) -> None:
        self.store = store

    # --- the provider's side -----------------------------------------------------------------------------------------

    def watch(
        self,
        folder: str = "INBOX",
        role: Role = Role.QUEUE,
        *,
        touchpoint: str = T,
        uidvalidity: int = 7,
        cursor: int = 0,
        history_from: int = 0,
        wanted: tuple[int, ...] = (),
        left: tuple[tuple[int, int], ...] = (),
        skipped: int = 3,
    ) -> Place:
        place = Place(touchpoint, folder, uidvalidity)
        opened = Folder(*place, cursor, skipped, NOW, history_from, role)
        self.store.submit(folders.open_folder, Opening(opened, wanted, left)).result(5)
        return place

    def item(
        self,
        place: Place,
        uid: int,
        key: int = 0,
        *,
        object_id: int | None = None,
        follows: int | None = None,
        role: Role = Role.QUEUE,
        raw_: bytes = b"Subject: x\r\n\r\nbody",
        at: datetime = AT,
        placeholder: Placeholder | None = None,
        filings: tuple[Filing, ...] = (),
        staged: Staged | None = None,
        id: int | None = None,
    ) -> NewArrival:
        """An arrival; `key` is its fingerprint, by default one of its own."""
        id = id or self.store.ids.next()
        arrival = Arrival(
            id, place.touchpoint, Location(place.folder, place.uidvalidity, uid), at, at, raw_,
            follows=uid - 1 if follows is None else follows, fingerprint=key or id, object_id=object_id, role=role,
            staged=staged, filings=filings, placeholder=placeholder, listed_size=9_000 if placeholder else 0,
        )  # fmt: skip
        return NewArrival(arrival, staged.chunks if staged else ((raw.chunk_key(id, 0), raw_),))

    def take(self, *items: NewArrival) -> list[ArrivalResult]:
        """Hand in all as one batch."""
        if len(items) == 1:
            return [self.store.submit(mailboxes.arrive, items[0]).result(5)]
        together: Any = lambda db, batches: [list(mailboxes.arrive(db, batch)) for batch in batches]  # noqa: E731
        results: list[ArrivalResult] = self.store.submit(together, items).result(5)
        return results

    def arrive(self, place: Place, uid: int, key: int = 0, **changes: Any) -> int:
        """Take one that is new; return its id."""
        (result,) = self.take(self.item(place, uid, key, **changes))
        assert result.kind == "new", result
        assert result.id is not None
        return result.id

    def relocate(
        self, place: Place, *seen: tuple[int, int], role: Role = Role.QUEUE, gone: tuple[int, ...] = ()
    ) -> set[int]:
        """Show (uid, key); return the UIDs that need no fetching."""
        relocation = Relocation(place, role, sightings(seen), gone, NOW)
        return set(self.store.submit(locations.relocate, relocation).result(5))

    def relist(
        self,
        place: Place,
        *seen: tuple[int, int],
        role: Role = Role.QUEUE,
        last: bool = True,
        upto: int = 0,
        at: int = 0,
    ) -> tuple[int, int, int]:
        highest = upto or max((uid for uid, _ in seen), default=0)
        listing = Relisting(place, role, sightings(seen, at or NOW), last, highest, NOW)
        relisted: Relisted = self.store.submit(locations.relist, listing).result(5)
        return relisted.moved, relisted.new, relisted.left

    # --- automatic answers -------------------------------------------------------------------------------------------

    def routed_with_answer(self, id: int, **changes: Any) -> Routed:
        """Return a message that has arrived, with an answer to it that nothing speaks against."""
        answer_id = self.store.ids.next()
        envelope = Envelope("", ("c@customer.example",))
        submission = Submission(
            answer_id, T, "", envelope, f"<{answer_id}@us>", "Auto: Help", AT, b"x", kind=OutboxKind.AUTO_REPLY
        )
        answer = Answer(
            submission,
            ((raw.chunk_key(answer_id, 0), b"x"),),
            ("c@customer.example", "carla@customer.example"),
            every=7 * 86_400_000,
            begins_only=True,
            most_per_hour=60,
            internal_at=NOW,
            drop_at=NOW + 86_400_000,
        )
        verdict = Verdict(MessageClass.HUMAN, (T,))
        routed = Routed(
            id, T, verdict, Ties(), "", "Help", "c@customer.example", "Carla", True, self.store.ids.next(), NOW
        )
        return replace(routed, answer=replace(answer, **changes))

    # --- the intake --------------------------------------------------------------------------------------------------

    def route(
        self, id: int, name: str = "", *parents: str, verdict: Verdict | None = None, **changes: Any
    ) -> RoutedResult:
        verdict = verdict or Verdict(MessageClass.HUMAN, (T,), trail=(Step("class", "no sign", "human"),))
        own = (thread_key(T, name),) if name else ()
        ties = Ties(own, tuple(thread_key(T, parent) for parent in parents))
        routed = Routed(
            id, T, verdict, ties, name, "Help", "c@customer.example", "Carla", True, self.store.ids.next(), NOW
        )
        return self.store.submit(queues.route, replace(routed, **changes)).result(5)

    # --- what is there now -------------------------------------------------------------------------------------------

    def rows(self, sql: str, *values: object) -> list[Any]:
        def read(db: sqlite3.Connection) -> list[Any]:
            return db.execute(sql, values).fetchall()

        return self.store.read(read).result(5)

    def change(self, sql: str, *values: object) -> None:
        def operation(db: sqlite3.Connection, items: Sequence[None]) -> Sequence[None]:
            db.execute(sql, values)
            return items

        self.store.submit(operation, None).result(5)

    def cursor(self, place: Place) -> int:
        found = self.store.read(folders.find_folder, place.touchpoint, place.folder).result(5)
        assert found is not None
        return found.cursor

    def places(self, message: int) -> list[tuple[str, int, int]]:
        """Return (folder, UIDVALIDITY, UID) where a message lies."""
        return self.rows(
            "SELECT folder, uidvalidity, uid FROM location WHERE message = ? ORDER BY folder, uidvalidity, uid", message
        )

    def owed(self, place: Place) -> list[tuple[int, int]]:
        """Return (uid, tries)."""
        return self.rows(
            "SELECT uid, tries FROM unfetched WHERE touchpoint = ? AND folder = ? AND uidvalidity = ? ORDER BY uid",
            *place,
        )

    def left(self, place: Place) -> list[tuple[int, int]]:
        return self.rows(
            "SELECT low, high FROM left_alone WHERE touchpoint = ? AND folder = ? AND uidvalidity = ? ORDER BY low",
            *place,
        )

    def show(self, id: int) -> dict[str, Any]:
        found = self.store.read(conversations.show_conversation, id).result(5)
        assert found is not None, f"{show_id(id)} is not to be found"
        return found


def sightings(seen: Sequence[tuple[int, int]], at: int = NOW) -> tuple[Sighting, ...]:
    return tuple(Sighting(uid, key, None, 100, at) for uid, key in seen)
