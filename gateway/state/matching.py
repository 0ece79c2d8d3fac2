"""The one place that decides whether a message seen at the provider is one that we have (DESIGN §5).

Two sightings are the same message when their object ids are equal or, where one of them has none, when their
fingerprints are. Both may be shared by twins, so they are counted: a sighting in a folder is a message with the same
key that does not lie in that folder yet, the oldest first, each once. Two equal messages in one folder are therefore
two, and the same message in two folders is one that was moved or copied. It runs inside the writer's transaction, on
what that transaction has made of the ledger so far.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.model import FilingAction, Placeholder, Role
from gateway.state import filings, owed, quarantine
from gateway.state.folders import Place
from gateway.state.rows import insert_many

UNKNOWN: Final = 0  # a fingerprint of what was not shown: it is like no other, not even like itself

_LOCATIONS: Final = "INSERT OR IGNORE INTO location (touchpoint, folder, uidvalidity, uid, message)"
_DOMAINS: Final = {"queue": "inbound", "junk": "inbound", "sent": "sent"}
_COLUMNS: Final = "id, touchpoint, origin, state, fingerprint, object_id, placeholder, quarantine"


@dataclass(slots=True)
class Known:
    """A message of the ledger, as far as matching goes. `places`: (folder, UIDVALIDITY) where it lies.

    `is_guessed`: it was found by less than its key.
    """

    id: int
    touchpoint: str
    origin: str
    state: str
    fingerprint: int
    object_id: int | None
    placeholder: str | None
    quarantine: int
    places: set[tuple[str, int]] = field(default_factory=set)
    is_guessed: bool = False

    def is_same(self, fingerprint: int, object_id: int | None) -> bool:
        if self.object_id is not None and object_id is not None:
            return self.object_id == object_id
        return self.fingerprint == fingerprint != UNKNOWN

    def is_like(self, fingerprint: int, object_id: int | None) -> bool:
        """May this be the message whose header nobody could read? Only size and time are known of that one, and may be
        those of another; so what is still owed where it lay stays owed there (`settle`), and at worst the two change
        their places in the ledger.
        """
        return (
            self.placeholder == Placeholder.BLIND
            and (self.object_id is None or object_id is None)
            and self.fingerprint >> 32 == fingerprint >> 32
        )


class Matcher:
    """Candidates for the keys of one batch, loaded at once. `find` takes the one it returns, so each serves once.

    `also`: ids of messages that are wanted in `by_id` whatever their keys. `blind`: a touchpoint, whose placeholders
    of messages that never showed their header are candidates too.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        keys: Iterable[tuple[int, int | None]],
        *,
        also: Collection[int] = (),
        blind: str | None = None,
    ) -> None:
        self._by_fingerprint: dict[int, list[Known]] = defaultdict(list)
        self._by_object: dict[int, list[Known]] = defaultdict(list)
        self._blind: list[Known] = []
        fingerprints, objects = set(), set()
        for fingerprint, object_id in keys:
            fingerprints.add(fingerprint)
            objects.add(object_id)
        found: dict[int, Known] = {}
        wants = (("fingerprint", fingerprints - {UNKNOWN}), ("object_id", objects - {None}), ("id", also))
        for column, wanted in wants:
            if wanted:
                rows = db.execute(
                    f"SELECT {_COLUMNS} FROM message WHERE {column} IN (SELECT value FROM json_each(?))",
                    (json.dumps(list(wanted)),),
                )
                found.update((row[0], Known(*row)) for row in rows)
        if blind is not None:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM message WHERE placeholder = 'blind' AND touchpoint = ? ORDER BY id", (blind,)
            )
            self._blind = [found.setdefault(row[0], Known(*row)) for row in rows]  # the oldest first
        if found:
            rows = db.execute(
                "SELECT message, folder, uidvalidity FROM location WHERE message IN (SELECT value FROM json_each(?))",
                (json.dumps(list(found)),),
            )
            for message, folder, uidvalidity in rows:
                found[message].places.add((folder, uidvalidity))
        self.by_id = found
        for known in found.values():
            self._index(known)

    def _index(self, known: Known) -> None:
        self._by_fingerprint[known.fingerprint].append(known)
        if known.object_id is not None:
            self._by_object[known.object_id].append(known)

    def add(self, known: Known) -> None:
        """A message that this transaction has made."""
        self.by_id[known.id] = known
        self._index(known)

    def forget(self, place: Place, messages: Iterable[int]) -> None:
        """These do not lie there any more."""
        for message in messages:
            if known := self.by_id.get(message):
                known.places.discard((place.folder, place.uidvalidity))

    def find(self, place: Place, role: Role, fingerprint: int, object_id: int | None) -> Known | None:
        """Return the message that this sighting is, or None where it is a new one. It lies there from now on."""
        same: Collection[Known] = self._by_fingerprint.get(fingerprint, ())
        if not (same or self._blind or self._by_object):
            return None
        here = (place.folder, place.uidvalidity)
        if object_id is not None and object_id in self._by_object:
            same = [*same, *self._by_object[object_id]]
        fits = [
            known
            for known in same
            if here not in known.places and _may_be(known, place, role) and known.is_same(fingerprint, object_id)
        ]
        if not fits:
            return self._guess(place, role, fingerprint, object_id)
        found = min(fits, key=lambda known: known.id)
        found.places.add(here)
        return found

    def _guess(self, place: Place, role: Role, fingerprint: int, object_id: int | None) -> Known | None:
        here = (place.folder, place.uidvalidity)
        for known in self._blind:
            if here not in known.places and _may_be(known, place, role) and known.is_like(fingerprint, object_id):
                known.places = {here}
                known.is_guessed = True
                return known
        return None


def _may_be(known: Known, place: Place, role: Role) -> bool:
    return known.touchpoint == place.touchpoint and _DOMAINS.get(known.origin) == _DOMAINS[role]


# --- what follows from a match ---------------------------------------------------------------------------------------


def settle(db: sqlite3.Connection, place: Place, role: Role, moved: Sequence[tuple[int, Known]], at: int) -> None:
    """Record the new locations (uid, message) of known messages, and what a move means.

    Out of Junk into a queue's folder: somebody has decided that it is no junk. A placeholder: its message is owed at
    the new place. `at`: milliseconds.
    """
    insert_many(db, _LOCATIONS, [(*place, uid, known.id) for uid, known in moved])
    for uid, known in moved:
        if known.is_guessed:  # where another may lie in its place, that one is owed and nothing is located
            db.execute("DELETE FROM location WHERE message = ? AND folder != ?", (known.id, place.folder))
        if known.placeholder is not None:
            owed.carry(db, place, uid, known.id, at)
    if not moved:
        return
    # Somebody has been quicker: if they take it back, that is their wish. A copy of our own looks the same.
    superseded = FilingAction.RELEASE if role is Role.QUEUE else FilingAction.JUNK
    filings.drop(db, superseded, [known.id for _, known in moved], half_done=False)
    if role is not Role.QUEUE:
        return
    if freed := [known.id for _, known in moved if known.quarantine == quarantine.BY_JUNK]:
        quarantine.let_go(db, freed, at)
    unjudged = [
        known.id
        for _, known in moved
        if known.origin == Role.JUNK and (known.state == "arrived" or known.placeholder is not None)
    ]
    if unjudged:
        db.execute(
            "UPDATE message SET origin = 'queue' WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(unjudged),)
        )
