"""Another IMAP client in the same mailbox: a colleague who marks, moves and deletes, at random and in a hurry."""

from __future__ import annotations

import contextlib
import imaplib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.ledger import Ledger, subject_of
from tests.support.mailboxes import Mailboxes

AWAY = "Elsewhere"  # nobody watches it
TWIN = "twin"  # messages with this word in their subject are copied within the INBOX; they never change to another
# watched folder: there, a copy is by design the same message in a second place, and no second message

_LOST = (OSError, imaplib.IMAP4.error)


class Colleague:
    """Works in one mailbox until told to stop, through outages, each action from the seeded dice.

    `folders`: those that the gateway watches, INBOX first. `copies`: it copies within the INBOX. What it makes goes
    into `ledger`. `done`: how often what.
    """

    def __init__(
        self,
        server: Mailboxes,
        user: str,
        ledger: Ledger,
        seed: int,
        folders: Sequence[str] = ("INBOX",),
        copies: bool = True,
    ) -> None:
        self._server, self._user, self._ledger = server, user, ledger
        self._folders = tuple(folders)
        self._copies = copies
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self.at_rest = threading.Lock()  # whoever holds it knows that nothing is half done
        self._thread = threading.Thread(target=self._work, name=f"colleague of {user}", daemon=True)
        self.done: Counter[str] = Counter()
        self.junked: set[str] = set()  # what it has put into Junk, by subject
        self.fault: BaseException | None = None  # of this client itself
        for folder in {AWAY, *folders} - {"INBOX"}:
            with contextlib.suppress(AssertionError):
                server.create_folder(user, folder)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        if self.fault is not None:
            raise self.fault
        self.put_back()

    # --- the work ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        actions = {
            self._flag: 5,
            self._move_out: 4,
            self._move_back: 5,
            self._junk: 2,
            self._unjunk: 3,
            self._shift: 3,
            self._delete: 2,
            self._copy: 2,
            self._rename: 1,
            self._empty: 1,
        }
        if not self._copies:
            del actions[self._copy]
        if len(self._folders) == 1:
            del actions[self._shift], actions[self._rename]
        try:
            while not self._stop.is_set():
                with contextlib.suppress(*_LOST, AssertionError), self._server.session(self._user) as imap:
                    while not self._stop.is_set():
                        (action,) = self._dice.choices(list(actions), list(actions.values()))
                        with self.at_rest:
                            if action(imap):
                                self.done[action.__name__.strip("_")] += 1
                        self._stop.wait(self._dice.uniform(0.0, 0.2))
                self._stop.wait(0.2)  # the server is away
        except BaseException as error:
            self.fault = error

    def _some(
        self, imap: imaplib.IMAP4, folder: str, *, twins: bool | None, most: int = 5
    ) -> tuple[list[str], list[str]]:
        """Return UIDs and subjects of a few messages of a folder, which is open then. `twins`: only them, or none."""
        status, _ = imap.select(f'"{folder}"')
        if status != "OK":
            return [], []
        uids = imap.uid("SEARCH", "ALL")[1][0].split()
        chosen = self._dice.sample(uids, min(len(uids), self._dice.randint(1, most)))
        if not chosen:
            return [], []
        items = imap.uid("FETCH", b",".join(chosen).decode(), "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        found = []
        for item in items:
            if isinstance(item, tuple) and (uid := re.search(rb"UID (\d+)", item[0])):
                subject = subject_of(item[1])
                if twins is None or twins == (TWIN in subject):
                    found.append((uid[1].decode(), subject))
        return [uid for uid, _ in found], [subject for _, subject in found]

    def _any_folder(self) -> str:
        return self._dice.choice(self._folders)

    def _move(self, imap: imaplib.IMAP4, uids: Sequence[str], subjects: Sequence[str], target: str) -> bool:
        if not uids:
            return False
        try:
            status, _ = imap.uid("MOVE", ",".join(uids), f'"{target}"')
        except _LOST:
            self._ledger.add(subjects)  # cut in the middle: they may be in both folders now
            raise
        return bool(status == "OK")

    def _flag(self, imap: imaplib.IMAP4) -> bool:
        uids, _ = self._some(imap, self._any_folder(), twins=None, most=20)
        mark = self._dice.choice((r"\Seen", r"\Flagged", r"\Answered", "$Label1"))
        return (
            bool(uids) and imap.uid("STORE", ",".join(uids), self._dice.choice("+-") + "FLAGS", f"({mark})")[0] == "OK"
        )

    def _move_out(self, imap: imaplib.IMAP4) -> bool:
        return self._move(imap, *self._some(imap, self._any_folder(), twins=None), AWAY)

    def _move_back(self, imap: imaplib.IMAP4) -> bool:
        # twins to the INBOX only, where they came from
        twins = self._dice.random() < 0.5
        target = "INBOX" if twins else self._any_folder()
        return self._move(imap, *self._some(imap, AWAY, twins=twins, most=10), target)

    def _junk(self, imap: imaplib.IMAP4) -> bool:
        uids, subjects = self._some(imap, self._any_folder(), twins=False)
        self.junked.update(subjects)
        return self._move(imap, uids, subjects, "Junk")

    def _unjunk(self, imap: imaplib.IMAP4) -> bool:
        return self._move(imap, *self._some(imap, "Junk", twins=False), self._any_folder())

    def _shift(self, imap: imaplib.IMAP4) -> bool:
        source, target = self._dice.sample(self._folders, 2)
        return self._move(imap, *self._some(imap, source, twins=False), target)

    def _delete(self, imap: imaplib.IMAP4) -> bool:
        uids, _ = self._some(imap, self._any_folder(), twins=None, most=2)
        if not uids:
            return False
        imap.uid("STORE", ",".join(uids), "+FLAGS", r"(\Deleted)")
        return bool(imap.uid("EXPUNGE", ",".join(uids))[0] == "OK")

    def _copy(self, imap: imaplib.IMAP4) -> bool:
        uids, subjects = self._some(imap, "INBOX", twins=True, most=12)
        uids, subjects = uids[:2], subjects[:2]  # or twins of twins of twins would be all there is
        if not uids:
            return False
        self._ledger.add(subjects)
        return bool(imap.uid("COPY", ",".join(uids), "INBOX")[0] == "OK")

    def _rename(self, imap: imaplib.IMAP4) -> bool:
        """A watched folder is called otherwise for a moment."""
        folder = self._dice.choice(self._folders[1:])
        imap.unselect()
        imap.rename(f'"{folder}"', f'"{folder} away"')
        time.sleep(self._dice.uniform(0.0, 1.0))
        return bool(imap.rename(f'"{folder} away"', f'"{folder}"')[0] == "OK")

    def _empty(self, imap: imaplib.IMAP4) -> bool:
        if self._dice.random() < 0.8:
            return False  # or nothing would be left in the end
        status, data = imap.select(f'"{AWAY}"')
        if status != "OK" or data == [b"0"]:
            return False
        imap.store("1:*", "+FLAGS", r"(\Deleted)")
        return bool(imap.expunge()[0] == "OK")

    def put_back(self) -> None:
        """Leave no folder under a wrong name, as a restart of the server in the middle of a renaming does."""
        with self._server.session(self._user) as imap:
            there = b"\n".join(item for item in imap.list()[1] if isinstance(item, bytes)).decode()
            for folder in self._folders[1:]:
                if f"{folder} away" in there:
                    imap.rename(f'"{folder} away"', f'"{folder}"')
