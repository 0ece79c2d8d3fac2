"""A provider's folders in memory, and a daemon that looks into them as the mailbox does: in small operations, any of
which may be the last.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from gateway.model import Arrival, IdSource, Location, MessageClass, Placeholder, Role, Verdict, to_ms
from gateway.rules.conversation import Ties, thread_key
from gateway.state import filings, folders, locations, mailboxes, owed, queues
from gateway.state.filings import Filed
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Accounting, Relisting, Relocation, Sighting
from gateway.state.mailboxes import NewArrival
from gateway.state.owed import Owed, Passage
from gateway.state.queues import Routed
from gateway.state.raw import chunk_key

T: Final = "support"
EPOCH: Final = datetime(2026, 11, 23, 10, tzinfo=UTC)
WATCHED: Final = {"INBOX": Role.QUEUE, "Sales": Role.QUEUE, "Junk": Role.JUNK}
RECENT: Final = 3  # of the last messages that each look compares
HUGE: Final = 1 << 40


@dataclass(eq=False)
class Letter:
    """A message at the provider. Twins share the key and are two deliveries. `trouble`: how little of it can be had.

    `is_hidden`: the server has given it a UID and does not show it yet.
    """

    key: int
    object_id: int | None
    at: datetime
    trouble: Placeholder | None = None
    is_hidden: bool = False

    def shown(self) -> int:
        return 0 if self.trouble is Placeholder.BLIND else self.key


@dataclass
class Mailbox:
    uidvalidity: int = 1
    uidnext: int = 1
    all: dict[int, Letter] = field(default_factory=dict)

    @property
    def letters(self) -> dict[int, Letter]:
        """What the server shows, in order of UID."""
        return {uid: letter for uid, letter in self.all.items() if not letter.is_hidden}

    def put(self, letter: Letter) -> None:
        self.all[self.uidnext] = letter
        self.uidnext += 1


class Cut(Exception):
    """The daemon ends here."""


class Lookout:
    """Looks into folders as the mailbox does: in small operations, any of which may be the last."""

    def __init__(self, db: sqlite3.Connection, provider: dict[str, Mailbox]) -> None:
        self.db = db
        self.provider = provider
        self.ids = IdSource(0, lambda: 0)
        self.budget = HUGE
        self.batch = 2
        self.now = EPOCH
        self.begun: Counter[int] = Counter()  # conversations begun, by key

    def do(self, operation: Any, *items: Any) -> list[Any]:
        if self.budget == 0:
            raise Cut
        self.budget -= 1
        self.db.execute("BEGIN IMMEDIATE")
        try:
            results = list(operation(self.db, items))
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return results

    def look(self, name: str) -> None:
        self.route_what_arrived()
        mailbox, role = self.provider[name], WATCHED[name]
        place = Place(T, name, mailbox.uidvalidity)
        folder = folders.find_folder(self.db, T, name)
        if folder is None:
            cursor = mailbox.uidnext - 1
            begun = Folder(*place, cursor, len(mailbox.letters), to_ms(self.now), to_ms(self.now), role)
            left = ((1, cursor),) if cursor else ()
            (folder,) = self.do(folders.open_folder, Opening(begun, left=left))
        if folder.uidvalidity != mailbox.uidvalidity:
            self.relist(place, role, mailbox)
        self.account(place, mailbox)
        cursor = self.cursor(name)
        above = [uid for uid in mailbox.letters if uid > cursor]
        known = folders.known_uids(self.db, *place, above)
        self.take(place, role, [uid for uid in above if uid not in known], cursor, known)
        self.catch_up(place, role, mailbox)

    def cursor(self, name: str) -> int:
        folder = folders.find_folder(self.db, T, name)
        assert folder is not None
        return folder.cursor

    def relist(self, place: Place, role: Role, mailbox: Mailbox) -> None:
        uids = list(mailbox.letters)
        for start in range(0, max(1, len(uids)), self.batch):
            window = tuple(self.sighting(uid, mailbox.letters[uid]) for uid in uids[start : start + self.batch])
            last = start + self.batch >= len(uids)
            self.do(locations.relist, Relisting(place, role, window, last, mailbox.uidnext - 1, to_ms(self.now)))

    def account(self, place: Place, mailbox: Mailbox) -> None:
        cursor = self.cursor(place.folder)
        low = min(cursor + 1, locations.recent_low(self.db, place, RECENT))
        present = tuple(uid for uid in mailbox.letters if low <= uid <= cursor)
        if locations.differs(self.db, place, low, cursor, present):
            self.do(locations.account, Accounting(place, low, cursor, present, to_ms(self.now)))

    def take(self, place: Place, role: Role, uids: Sequence[int], cursor: int, known: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        letters = self.provider[place.folder].letters
        known = set(known) | self.known_again(place, role, uids)
        batch: list[NewArrival] = []
        follows = cursor
        for uid in sorted({*uids, *known}):
            letter = letters[uid]
            if uid in known or letter.trouble is not None:
                self.hand_over(batch)
                debts = () if uid in known else (Owed(uid, 100, "NO", 1, to_ms(self.now)),)
                self.do(owed.pass_over, Passage(*place, follows, uid, debts, (), to_ms(self.now)))
            else:
                batch.append(self.arrival(place, role, uid, letter, follows))
                if len(batch) == self.batch:
                    self.hand_over(batch)
            follows = uid
        self.hand_over(batch)

    def known_again(self, place: Place, role: Role, uids: Sequence[int]) -> set[int]:
        letters = self.provider[place.folder].letters
        seen = [(uid, letters[uid].key >> 32, letters[uid].object_id) for uid in uids]
        maybe = locations.maybe_known(self.db, T, role, seen)
        if not maybe:
            return set()
        found = tuple(self.sighting(uid, letters[uid]) for uid in sorted(maybe))
        here = locations.here(self.db, place, [(one.fingerprint, one.object_id) for one in found])
        gone = tuple(uid for uid in here if uid not in letters)
        (again,) = self.do(locations.relocate, Relocation(place, role, found, gone, to_ms(self.now)))
        return set(again)

    def hand_over(self, batch: list[NewArrival]) -> None:
        arrivals, batch[:] = list(batch), []
        if arrivals:
            self.do(mailboxes.arrive, *arrivals)
            self.route_what_arrived()

    def catch_up(self, place: Place, role: Role, mailbox: Mailbox) -> None:
        due = [debt.uid for debt in owed.owed_now(self.db, place, to_ms(self.now), 0, 99)]
        gone = tuple(uid for uid in due if uid not in mailbox.letters)
        there = [uid for uid in due if uid in mailbox.letters]
        gone += tuple(self.known_again(place, role, there))
        noted = tuple(Owed(uid, 100, "NO", 2, to_ms(self.now)) for uid in there if uid not in gone)
        if due:
            self.do(owed.pass_over, Passage(*place, 0, 0, noted, gone, to_ms(self.now)))
        for debt in noted:
            letter = mailbox.letters[debt.uid]
            if letter.trouble is None:
                self.hand_over([self.arrival(place, role, debt.uid, letter, debt.uid)])
        for debt in owed.placeholders_due(self.db, place, to_ms(self.now) + HUGE, 99):
            missing = mailbox.letters.get(debt.uid)
            if missing is not None and missing.trouble is not None:
                self.hand_over([self.arrival(place, role, debt.uid, missing, debt.uid, missing.trouble)])

    def arrival(
        self, place: Place, role: Role, uid: int, letter: Letter, follows: int, placeholder: Placeholder | None = None
    ) -> NewArrival:
        id = self.ids.next()
        content = b"0" if placeholder is Placeholder.BLIND else b"%d" % letter.key
        key = letter.key ^ 1 if placeholder is Placeholder.BLIND else letter.key  # size and time are known
        taken = Arrival(
            id, T, Location(place.folder, place.uidvalidity, uid), letter.at, self.now, content, follows, key,
            letter.object_id, role, placeholder=placeholder, listed_size=100,
        )  # fmt: skip
        return NewArrival(taken, ((chunk_key(id, 0), content),))

    def sighting(self, uid: int, letter: Letter) -> Sighting:
        return Sighting(uid, letter.shown(), letter.object_id, 100, to_ms(letter.at))

    def route_what_arrived(self) -> None:
        for id, _ in queues.unrouted_arrivals(self.db):
            (message,) = queues.load_unrouted(self.db, [id])
            verdict = Verdict(MessageClass.HUMAN, (T,), quarantine=message.junk, junk_alone=message.junk)
            key = int(message.head)
            name = f"<{key}@c>" if key else ""
            ties = Ties((thread_key(T, name),) if name else ())
            routed = Routed(
                id, T, verdict, ties, name, str(key), "c@c.example", "", True, self.ids.next(), to_ms(self.now)
            )
            (result,) = self.do(queues.route, routed)
            assert not result.is_repeated
            self.begun[key] += result.is_new

    def file(self) -> None:
        """Move to INBOX what was released."""
        for filing in filings.due(self.db, T, HUGE, 99):
            self.do(filings.begin, (T, [(filing.message, filing.action)], to_ms(self.now)))
            junk, inbox = self.provider["Junk"], self.provider["INBOX"]
            if filing.uid not in junk.letters or junk.uidvalidity != filing.uidvalidity:
                continue
            now = Location("INBOX", inbox.uidvalidity, inbox.uidnext)
            inbox.put(junk.all.pop(filing.uid))
            left = Location("Junk", filing.uidvalidity, filing.uid)
            self.do(filings.done, Filed(filing.message, filing.action, left, now))
