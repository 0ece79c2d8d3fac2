"""A provider's folders, as their owner and other clients play with them, against the ledger: every message once, none
lost, what moves is not new; also when each look is cut short anywhere and begun again.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Placeholder, to_ms
from gateway.state import folders, locations, quarantine
from gateway.state.folders import Place
from gateway.state.locations import Accounting
from gateway.state.quarantine import Review
from gateway.state.store import Store, Tuning
from tests.support.lookout import HUGE, WATCHED, Cut, Letter, Lookout, Mailbox, T

ALL = (*WATCHED, "Archive")


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.db"
        Store.open(path, tuning=Tuning(page_bytes=4096)).close()
        return path.read_bytes()


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        path = self.directory / "gateway.db"
        path.write_bytes(_empty_store())
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.provider = {name: Mailbox() for name in ALL}
        self.daemon = Lookout(self.db, self.provider)
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
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
