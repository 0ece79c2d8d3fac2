"""What the store knows of agents: password hashes that `passwd` stored, last logins, failures since."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.model import from_ms, to_ms
from gateway.state.store import each


@dataclass(frozen=True, slots=True)
class NewPassword:
    """`password_hash` is an argon2 hash, or None to take the stored one away. `login` in lower case, here and below."""

    login: str
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class LoginNote:
    login: str
    succeeded: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """`failures`: failed logins since the last good one."""

    has_stored_password: bool
    last_login_at: datetime | None
    failures: int


def stored_hash(db: sqlite3.Connection, login: str) -> str | None:
    """Return the hash that `passwd` stored, or None. A hash in the agent's file goes before it."""
    row = db.execute("SELECT password_hash FROM agent WHERE login = ?", (login,)).fetchone()
    return row[0] if row else None


def agent_facts(db: sqlite3.Connection) -> dict[str, AgentFacts]:
    """Return what is known of each agent who ever had something to store, by login."""
    rows = db.execute("SELECT login, password_hash IS NOT NULL, last_login_at, failures FROM agent")
    return {
        login: AgentFacts(bool(has_hash), None if last is None else from_ms(last), failures)
        for login, has_hash, last, failures in rows
    }


@each
def set_password(db: sqlite3.Connection, new: NewPassword) -> None:
    """Operation: store a hash in place of any other, and forget failures."""
    db.execute(
        "INSERT INTO agent (login, password_hash, failures) VALUES (?, ?, 0)"
        " ON CONFLICT (login) DO UPDATE SET password_hash = excluded.password_hash, failures = 0",
        (new.login, new.password_hash),
    )


@each
def note_login(db: sqlite3.Connection, note: LoginNote) -> None:
    """Operation: remember a login of a known agent. Nobody waits for it, and losing one loses no mail."""
    db.execute(
        "INSERT INTO agent (login, last_login_at, failures) VALUES (:login, :at, :failed)"
        " ON CONFLICT (login) DO UPDATE SET"
        " last_login_at = coalesce(excluded.last_login_at, last_login_at),"
        " failures = CASE WHEN :failed THEN failures + 1 ELSE 0 END",
        {"login": note.login, "at": to_ms(note.at) if note.succeeded else None, "failed": int(not note.succeeded)},
    )


def touchpoints_of(db: sqlite3.Connection, keys: Sequence[int]) -> tuple[str, ...]:
    """Return the touchpoints whose conversations these thread keys name, each once."""
    marks = ", ".join("?" * len(keys))
    rows = db.execute(
        "SELECT DISTINCT conversation.touchpoint FROM thread"
        f" JOIN conversation ON conversation.id = thread.conversation WHERE thread.key IN ({marks})",
        tuple(keys),
    )
    return tuple(touchpoint for (touchpoint,) in rows)
