"""What a person's judgement still has to teach the scanner.

A row is written in the transaction of the judgement, and deleted when the scanner has heard of it. So a scanner that is
away learns later, and a judgement that is taken back before replaces the lesson that nobody has heard.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gateway.state.store import each

BELL: Final = "lessons"  # rung when a person has judged

# At one an hour, a month: as long as mail is filed for at the provider
MOST_TRIES: Final = 720


@dataclass(frozen=True, slots=True)
class Lesson:
    """`tries`: those begun."""

    message: int
    is_spam: bool
    tries: int


def add(db: sqlite3.Connection, messages: Collection[int], *, is_spam: bool, at: int) -> None:
    """For use inside other operations: these are to be taught. `at`: ms. A placeholder is our own text, and teaches
    nothing.
    """
    db.execute(
        "INSERT OR REPLACE INTO lesson (message, spam, tries, next_at) SELECT id, ?, 0, ? FROM message"
        " WHERE id IN (SELECT value FROM json_each(?)) AND placeholder IS NULL",
        (int(is_spam), at, json.dumps(list(messages))),
    )


def due(db: sqlite3.Connection, now_ms: int, limit: int) -> list[Lesson]:
    """Return lessons that are to be taught now, longest due first."""
    rows = db.execute(
        "SELECT message, spam, tries FROM lesson WHERE next_at <= ? ORDER BY next_at, message LIMIT ?", (now_ms, limit)
    )
    return [Lesson(message, bool(spam), tries) for message, spam, tries in rows]


def waiting(db: sqlite3.Connection) -> int:
    """Return how many lessons nobody has heard yet."""
    (count,) = db.execute("SELECT count(*) FROM lesson").fetchone()
    return int(count)


@each
def begin(db: sqlite3.Connection, trying: tuple[int, int]) -> None:
    """Operation: count a try of a message's lesson before it is made. Item: message, when the next would be (ms)."""
    message, next_at = trying
    db.execute("UPDATE lesson SET tries = tries + 1, next_at = ? WHERE message = ?", (next_at, message))


@each
def settle(db: sqlite3.Connection, lesson: Lesson) -> None:
    """Operation: this lesson is not to be taught any more. A judgement that has changed meanwhile still is."""
    db.execute("DELETE FROM lesson WHERE message = ? AND spam = ?", (lesson.message, int(lesson.is_spam)))


@each
def forget(db: sqlite3.Connection, _: None) -> int:
    """Operation: there is nobody to teach. Return how many lessons there were."""
    return db.execute("DELETE FROM lesson").rowcount
