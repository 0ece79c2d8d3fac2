"""A provider's folders, as their owner and other clients play with them, against the ledger: every message once, none
lost, what moves is not new; also when each look is cut short anywhere and begun again.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Arrival, IdSource, Location, MessageClass, Placeholder, Role, Verdict, to_ms
from gateway.rules.conversation import Ties, thread_key
from gateway.state import filings, folders, locations, mailboxes, owed, quarantine, queues
from gateway.state.filings import Filed
from gateway.state.folders import Folder, Opening, Place
from gateway.state.locations import Accounting, Relisting, Relocation, Sighting
from gateway.state.mailboxes import NewArrival
from gateway.state.owed import Owed, Passage
from gateway.state.quarantine import Review
from gateway.state.queues import Routed
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning

T = "support"
EPOCH = datetime(2026, 11, 23, 10, tzinfo=UTC)
WATCHED = {"INBOX": Role.QUEUE, "Sales": Role.QUEUE, "Junk": Role.JUNK}
ALL = (*WATCHED, "Archive")
RECENT = 3  # of the last messages that each look compares
HUGE = 1 << 40


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


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.db"
        Store.open(path, tuning=Tuning(page_bytes=4096)).close()
        return path.read_bytes()


class Daemon:
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


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        path = self.directory / "gateway.db"
        path.write_bytes(_empty_store())
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.provider = {name: Mailbox() for name in ALL}
        self.daemon = Daemon(self.db, self.provider)
        self.deliveries: Counter[int] = Counter()
        self.number = 0
        # keys of which a copy was in a watched folder, and above where its history begins, at the end of a full look
        self.seen: set[int] = set()
        self.was_junk: dict[int, bool] = {}
        for name in ("INBOX", "Sales"):
            self.deliver(name, with_id=False)  # older than the history
        for name in WATCHED:
            self.daemon.look(name)
        self.old = set(self.deliveries)
        self.daemon.now += timedelta(hours=1)

    def teardown(self) -> None:
        try:
            self.everything_is_looked_at()
        finally:
            self.db.close()
            shutil.rmtree(self.directory)

    def letters(self, *names: str) -> list[tuple[str, int]]:
        return [(name, uid) for name in names or ALL for uid in self.provider[name].letters]

    # --- what happens at the provider ------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(["INBOX", "INBOX", "Sales", "Junk"]),
        with_id=st.booleans(),
        trouble=st.sampled_from([None, None, None, Placeholder.HEADED, Placeholder.BLIND]),
        is_hidden=st.sampled_from([False, False, False, True]),
    )
    def deliver(self, name: str, with_id: bool, trouble: Placeholder | None = None, is_hidden: bool = False) -> None:
        self.number += 1
        key = self.number << 33 | 2
        self.deliveries[key] += 1
        letter = Letter(key, self.number if with_id else None, self.daemon.now, trouble, is_hidden)
        self.provider[name].put(letter)

    @precondition(lambda self: self.letters("INBOX", "Sales"))
    @rule(data=st.data())
    def deliver_a_twin(self, data: st.DataObject) -> None:
        name, uid = data.draw(st.sampled_from(self.letters("INBOX", "Sales")))
        letter = self.provider[name].letters[uid]
        if letter.trouble is None and letter.key not in self.old:
            self.deliveries[letter.key] += 1
            # Where a server gives ids, no two messages share one; then twins differ in theirs
            self.provider[name].put(Letter(letter.key, None, letter.at))
            letter.object_id = None

    @precondition(lambda self: self.letters())
    @rule(data=st.data(), into=st.sampled_from(ALL))
    def move(self, data: st.DataObject, into: str) -> None:
        name, uid = data.draw(st.sampled_from(self.letters()))
        letter = self.provider[name].letters[uid]
        if letter.trouble is not Placeholder.BLIND:  # while nothing can be read of it, it is new wherever it turns up
            del self.provider[name].all[uid]
            self.provider[into].put(letter)

    @precondition(lambda self: self.letters())
    @rule(data=st.data())
    def expunge(self, data: st.DataObject) -> None:
        name, uid = data.draw(st.sampled_from(self.letters()))
        del self.provider[name].all[uid]

    @rule(name=st.sampled_from(list(WATCHED)), gap=st.integers(0, 3))
    def renumber(self, name: str, gap: int) -> None:
        mailbox = self.provider[name]
        if any(letter.trouble is Placeholder.BLIND for letter in mailbox.all.values()):
            return
        letters = list(mailbox.all.values())
        mailbox.all, mailbox.uidnext = {}, 1 + gap
        mailbox.uidvalidity += 1
        for letter in letters:
            mailbox.put(letter)

    @rule()
    def trouble_ends(self) -> None:
        for mailbox in self.provider.values():
            for letter in mailbox.all.values():
                letter.trouble = None

    @rule()
    def the_server_shows_all(self) -> None:
        for mailbox in self.provider.values():
            for letter in mailbox.all.values():
                letter.is_hidden = False

    @rule(minutes=st.integers(1, 90))
    def time_passes(self, minutes: int) -> None:
        self.daemon.now += timedelta(minutes=minutes)

    # --- what we do --------------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(list(WATCHED)), budget=st.one_of(st.just(HUGE), st.integers(0, 8)), batch=st.integers(1, 4)
    )
    def look(self, name: str, budget: int, batch: int) -> None:
        self.daemon.budget, self.daemon.batch = budget, batch
        try:
            self.daemon.look(name)
        except Cut:
            pass
        else:
            self.note_seen(name)
        self.daemon.budget = HUGE

    def note_seen(self, name: str) -> None:
        folder = folders.find_folder(self.db, T, name)
        assert folder is not None
        left = folders.left_between(self.db, folder.place, 1, HUGE)
        for uid, letter in self.provider[name].letters.items():
            if not any(low <= uid <= high for low, high in left):
                self.seen.add(letter.key)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        waiting = [row[0] for row in self.db.execute("SELECT id FROM message WHERE quarantine != 0")]
        if waiting:
            self.daemon.do(quarantine.release, Review(data.draw(st.sampled_from(waiting)), to_ms(self.daemon.now)))

    @rule(budget=st.one_of(st.just(HUGE), st.integers(0, 3)))
    def file(self, budget: int) -> None:
        self.daemon.budget = budget
        with suppress(Cut):
            self.daemon.file()
        self.daemon.budget = HUGE

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def no_message_is_there_more_often_than_it_was_delivered(self) -> None:
        for key, count in self.known().items():
            assert count <= self.deliveries[key], f"{key} is here {count} times"

    @invariant()
    def what_was_seen_is_here(self) -> None:
        known = self.known()
        for key in self.seen:
            assert known[key] or self.is_owed(key), f"{key} is lost"

    @invariant()
    def nothing_lies_in_two_places_of_one_folder(self) -> None:
        rows = self.db.execute("SELECT message FROM location GROUP BY message, folder, uidvalidity HAVING count(*) > 1")
        assert rows.fetchall() == []

    def known(self) -> Counter[int]:
        """Count the messages by key; the key of a blind placeholder differs in one bit."""
        rows = self.db.execute("SELECT fingerprint, placeholder FROM message")
        return Counter(key ^ 1 if placeholder == "blind" else key for key, placeholder in rows)

    def is_owed(self, key: int) -> bool:
        return any(
            letter.key == key and (name, uid) in self.owed()
            for name, mailbox in self.provider.items()
            for uid, letter in mailbox.letters.items()
        )

    def owed(self) -> set[tuple[str, int]]:
        return set(self.db.execute("SELECT folder, uid FROM unfetched").fetchall())

    def everything_is_looked_at(self) -> None:
        """In the end all is fetched, each once, and the ledger says where each lies."""
        self.daemon.budget = HUGE
        self.trouble_ends()
        self.the_server_shows_all()
        for _ in range(2):
            self.daemon.file()
            for name in WATCHED:
                self.daemon.look(name)
                self.reconcile(name)
                self.daemon.look(name)
                self.note_seen(name)
        known = self.known()
        assert self.owed() == set()
        for name in WATCHED:
            self.agrees(name, known)
        never_read = {
            key ^ 1 for (key,) in self.db.execute("SELECT fingerprint FROM message WHERE placeholder = 'blind'")
        }
        for key in self.seen:
            if self.deliveries[key] == 1:
                assert known[key] == 1, f"{key} is here {known[key]} times"
                assert self.daemon.begun[key] == (key not in never_read), "routed once"
        self.nothing_good_is_in_quarantine()

    def reconcile(self, name: str) -> None:
        mailbox = self.provider[name]
        place = Place(T, name, mailbox.uidvalidity)
        listing = Accounting(place, 1, mailbox.uidnext - 1, tuple(mailbox.letters), to_ms(self.daemon.now))
        self.daemon.do(locations.account, listing)

    def agrees(self, name: str, known: Counter[int]) -> None:
        mailbox = self.provider[name]
        place = Place(T, name, mailbox.uidvalidity)
        located = folders.located(self.db, place, list(mailbox.letters))
        keys = dict(self.db.execute("SELECT id, fingerprint FROM message WHERE placeholder IS NULL").fetchall())
        counts: dict[int, int] = defaultdict(int)
        for uid, letter in mailbox.letters.items():
            if uid not in located:
                (left,) = folders.left_between(self.db, place, uid, uid)
                assert letter.key in self.old, f"{name} {uid} is left alone and not old"
                assert left
                continue
            assert keys.get(located[uid]) == letter.key, f"{name} {uid} is another message, or a placeholder"
            counts[letter.key] += 1
        for key, count in counts.items():
            assert known[key] >= count
        rows = self.db.execute("SELECT uid FROM location WHERE folder = ?", (name,))
        assert {uid for (uid,) in rows} == set(located), "nothing lies where nothing is"

    def nothing_good_is_in_quarantine(self) -> None:
        rows = self.db.execute(
            "SELECT fingerprint FROM message JOIN location ON message = message.id"
            " JOIN folder USING (touchpoint, folder) WHERE quarantine = 2 AND folder.role = 'queue'"
        )
        assert rows.fetchall() == []


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
