"""Blocks: what is kept of them, whom they have kept away, and what follows when one is added.

Open conversations of a blocked sender follow into quarantine in the transaction that adds the block. Looking for them
is done by a reader, ahead of it, for it may look at every open conversation; the transaction looks again at what was
found, and at what has come since. What is blocked is also held in memory, for every message asks.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.model import FilingAction, Role, Step, from_ms, id_at, show_id
from gateway.rules.blocking import ANYBODY, is_domain, spellings
from gateway.state import filings
from gateway.state.conversations import as_json
from gateway.state.store import each

EVERYWHERE: Final = ""  # in place of a touchpoint
_BY_US: Final = 1  # quarantine.BY_US

# What a person wrote to us, and is not in quarantine yet. Reports about our own mail are nobody's letters.
_LETTER: Final = (
    "message.quarantine = 0 AND message.discarded = 0 AND message.origin IN ('queue', 'junk')"
    " AND coalesce(message.class, '') NOT IN ('bounce', 'report')"
)
_OPEN: Final = "conversation.state != 'closed' AND conversation.state != 'quarantined'"


# --- looking ---------------------------------------------------------------------------------------------------------


def all_blocks(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (touchpoint, pattern) of every block."""
    return [(touchpoint, pattern) for touchpoint, pattern in db.execute("SELECT touchpoint, pattern FROM block")]


def list_blocks(db: sqlite3.Connection, limit: int | None = None) -> list[dict[str, Any]]:
    """Return blocks as `block list --json` shows them, the newest first."""
    rows = db.execute(
        "SELECT pattern, touchpoint, agent, at, message, hits, hit_at FROM block ORDER BY at DESC, pattern LIMIT ?",
        (-1 if limit is None else limit,),
    )
    return [
        {
            "pattern": pattern,
            "touchpoint": touchpoint or None,
            "by": agent or None,
            "at": _time(at),
            "message": None if message is None else show_id(message),
            "hits": hits,
            "hit_at": None if hit_at is None else _time(hit_at),
        }
        for pattern, touchpoint, agent, at, message, hits, hit_at in rows
    ]


def _time(ms: int) -> str:
    return from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_from(pattern: str) -> tuple[str, dict[str, object]]:
    """Return an SQL condition that a message comes from who is blocked, and its values."""
    if not is_domain(pattern):
        return "lower(message.sender) IN (SELECT value FROM json_each(:senders))", {
            "senders": as_json(spellings(pattern))
        }
    conditions: list[str] = []
    values: dict[str, object] = {}
    for number, spelling in enumerate(spellings(pattern)):
        conditions.append(f"substr(lower(message.sender), -length(:domain{number})) = :domain{number}")
        values[f"domain{number}"] = spelling[1:]
    return f"({' OR '.join(conditions)})", values


@dataclass(frozen=True, slots=True)
class Caught:
    """What a block would have kept away. `answered`: messages of conversations in which somebody here has written."""

    messages: int
    senders: int
    answered: int


def caught(db: sqlite3.Connection, touchpoint: str, pattern: str, since: int) -> Caught:
    """Return what has come from there since then (ms) and was not kept from the queues. Looks at every message."""
    condition, values = _is_from(pattern)
    row = db.execute(
        "SELECT count(*), count(DISTINCT lower(sender)), coalesce(sum(EXISTS (SELECT 1 FROM outbox WHERE"
        " outbox.conversation = message.conversation AND outbox.kind = 'reply')), 0) FROM message"
        f" WHERE id >= :since AND (:touchpoint = '' OR touchpoint = :touchpoint) AND {_LETTER} AND {condition}",
        {"since": id_at(since), "touchpoint": touchpoint, **values},
    ).fetchone()
    return Caught(*row)


@dataclass(frozen=True, slots=True)
class Suspects:
    """Messages that a new block may concern: those that were found, and those that were not yet to be seen.

    `newest`: what came later has a larger id.
    """

    messages: tuple[int, ...] = ()
    newest: int = 0


def suspects(db: sqlite3.Connection, touchpoint: str, pattern: str) -> Suspects:
    """Return what a block may concern, for `add`."""
    condition, values = _is_from(pattern)
    found = db.execute(
        "SELECT message.id FROM conversation CROSS JOIN message ON message.conversation = conversation.id"
        f" WHERE {_OPEN} AND (:touchpoint = '' OR conversation.touchpoint = :touchpoint) AND {_LETTER} AND {condition}"
        " UNION SELECT id FROM message WHERE state = 'arrived'",
        {"touchpoint": touchpoint, **values},
    ).fetchall()
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()
    return Suspects(tuple(id for (id,) in found), newest)


def senders(db: sqlite3.Connection, messages: Sequence[int]) -> dict[str, int]:
    """Return who sent these messages, in lower case, each with the first message of theirs."""
    rows = db.execute(
        "SELECT lower(sender), min(id) FROM message WHERE id IN (SELECT value FROM json_each(?)) AND sender != ''"
        " GROUP BY 1 ORDER BY 2",
        (as_json(messages),),
    )
    return dict(rows.fetchall())


# --- adding and removing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewBlock:
    """`touchpoint`: EVERYWHERE for all. `pattern`: of `parse_block`. `agent`: who wants it, "" on the command line.

    `message`: because of which one. `at`: ms. `suspects`: found with the same touchpoint and pattern.
    """

    touchpoint: str
    pattern: str
    at: int
    agent: str = ""
    message: int | None = None
    suspects: Suspects = Suspects()


@dataclass(frozen=True, slots=True)
class Added:
    """`is_new`: it was not blocked so before. `messages` have gone into quarantine, of `conversations` nothing else is
    left. In `touchpoints` something is to be done at the provider.
    """

    is_new: bool
    messages: tuple[int, ...] = ()
    conversations: tuple[int, ...] = ()
    touchpoints: tuple[str, ...] = ()


@each
def add(db: sqlite3.Connection, new: NewBlock) -> Added:
    """Operation: block, and take what is open of that sender along. A block that is there already stays as it is."""
    row = (new.touchpoint, new.pattern, new.agent, new.at, new.message)
    is_new = db.execute(
        "INSERT OR IGNORE INTO block (touchpoint, pattern, agent, at, message) VALUES (?, ?, ?, ?, ?)", row
    ).rowcount
    condition, values = _is_from(new.pattern)
    concerned = db.execute(
        "SELECT message.id, message.touchpoint, conversation.id FROM (SELECT value AS id FROM json_each(:suspects)"
        " UNION SELECT id FROM message WHERE id > :newest) AS suspect"
        " CROSS JOIN message ON message.id = suspect.id CROSS JOIN conversation"
        f" ON conversation.id = message.conversation WHERE {_OPEN}"
        f" AND (:touchpoint = '' OR conversation.touchpoint = :touchpoint) AND {_LETTER} AND {condition}"
        " ORDER BY message.id",
        {
            "suspects": as_json(new.suspects.messages),
            "newest": new.suspects.newest,
            "touchpoint": new.touchpoint,
            **values,
        },
    ).fetchall()
    if not concerned:
        return Added(bool(is_new))
    ids = [id for id, _, _ in concerned]
    step = Step("blocklist", f"blocked since {_time(new.at)[:10]} as {new.pattern}", "quarantine")
    db.execute(
        "UPDATE message SET quarantine = ?, reviewed_at = NULL, trail = json_insert(coalesce(trail, '[]'), '$[#]',"
        " json(?)) WHERE id IN (SELECT value FROM json_each(?))",
        (_BY_US, json.dumps(asdict(step), ensure_ascii=False), as_json(ids)),
    )
    emptied = db.execute(
        "UPDATE conversation SET state = 'quarantined', owner = NULL WHERE id IN (SELECT value FROM json_each(?))"
        f" AND NOT EXISTS (SELECT 1 FROM message WHERE message.conversation = conversation.id AND {_LETTER})"
        " RETURNING id",
        (as_json({conversation for _, _, conversation in concerned}),),
    ).fetchall()
    stirred = to_junk(db, [(id, touchpoint) for id, touchpoint, _ in concerned], new.at)
    return Added(bool(is_new), tuple(ids), tuple(sorted(id for (id,) in emptied)), stirred)


@dataclass(frozen=True, slots=True)
class Removed:
    """`is_gone`: it was there. `elsewhere`: touchpoints for which the same is blocked still, EVERYWHERE for all."""

    is_gone: bool
    elsewhere: tuple[str, ...] = ()


@each
def remove(db: sqlite3.Connection, named: tuple[str, str]) -> Removed:
    """Operation: end the block of (touchpoint, pattern). What it has kept away stays where it is."""
    gone = db.execute("DELETE FROM block WHERE touchpoint = ? AND pattern = ?", named).rowcount
    rows = db.execute("SELECT touchpoint FROM block WHERE pattern = ? ORDER BY touchpoint", named[1:])
    return Removed(bool(gone), tuple(touchpoint for (touchpoint,) in rows))


# --- in T2 -----------------------------------------------------------------------------------------------------------


def note_hits(db: sqlite3.Connection, hits: Sequence[tuple[str, str, int]]) -> None:
    """For use inside T2: each of these (touchpoint, pattern, at in ms) was kept away by a block."""
    db.executemany(
        "UPDATE block SET hits = hits + 1, hit_at = max(coalesce(hit_at, 0), ?3) WHERE pattern = ?2 AND touchpoint ="
        " (SELECT max(touchpoint) FROM block WHERE pattern = ?2 AND touchpoint IN (?1, ''))",
        hits,
    )


def to_junk(db: sqlite3.Connection, messages: Sequence[tuple[int, str]], at: int) -> tuple[str, ...]:
    """For use inside other operations: have these (id, touchpoint) put into Junk at the provider where they lie in a
    queue's folder; return the touchpoints where something is to be done. `at`: ms.

    `after_fetch` does not move them any more if there is a Junk, nor does a release.
    """
    lying = db.execute(
        "SELECT DISTINCT location.message, location.touchpoint, EXISTS (SELECT 1 FROM folder AS junk"
        " WHERE junk.touchpoint = location.touchpoint AND junk.role = ?) FROM location JOIN folder"
        " USING (touchpoint, folder, uidvalidity) WHERE role = ? AND location.message IN"
        " (SELECT value FROM json_each(?))",
        (Role.JUNK.value, Role.QUEUE.value, as_json([id for id, _ in messages])),
    ).fetchall()
    filings.drop(db, FilingAction.RELEASE, [id for id, _ in messages])
    filings.drop(db, FilingAction.MOVE, [id for id, _, has_junk in lying if has_junk], half_done=False)
    filings.add(db, [(id, FilingAction.JUNK, touchpoint, "", at) for id, touchpoint, _ in lying])
    return tuple(sorted({touchpoint for _, touchpoint, _ in lying}))


# --- in memory -------------------------------------------------------------------------------------------------------


class Blocks:
    """What is blocked, for whoever must not wait for the disk. Safe to use from every thread.

    A domain of other letters is kept in both its forms: to bring the domains of a hostile message into one costs
    a tenth of a second.
    """

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}  # (touchpoint, spelling) → pattern
        for touchpoint, pattern in known:
            self.learn(touchpoint, pattern)

    def find(self, touchpoint: str, addresses: Sequence[str]) -> str:
        """Return the first block that one of `addresses` meets at a touchpoint, "" for none."""
        if not self._known:
            return ""
        with self._lock:
            for address in map(str.lower, addresses):
                domain = address.rpartition("@")[2].rstrip(".")
                for spelling in (address.rstrip("."), f"{ANYBODY}@{domain}"):
                    for place in (touchpoint, EVERYWHERE):
                        if pattern := self._known.get((place, spelling)):
                            return pattern
        return ""

    def has(self, touchpoint: str, pattern: str) -> bool:
        with self._lock:
            return (touchpoint, pattern) in self._known

    def learn(self, touchpoint: str, pattern: str) -> None:
        with self._lock:
            self._known.update({(touchpoint, spelling): pattern for spelling in spellings(pattern)})

    def forget(self, touchpoint: str, pattern: str) -> None:
        with self._lock:
            for spelling in spellings(pattern):
                self._known.pop((touchpoint, spelling), None)
