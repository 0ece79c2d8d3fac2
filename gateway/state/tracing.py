"""What became of a message: looked up by id, Message-ID, address or subject, over all that is kept.

A life is a list of steps with `at`, `step`, `detail`, `verdict`, and the `id` of what it speaks of. Those with a time
come first, in its order; those without one say how things stand now. Searches go through the store in stretches, the
newest first, so that none of them holds a reader for long.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.model import Role, Signed, from_ms, read_id, show_id
from gateway.rules.conversation import thread_key
from gateway.state.conversations import as_json
from gateway.state.outbox_view import Stopped, show_outbox

STRETCH: Final = 20_000  # rows that one look goes through

Step = dict[str, Any]
_KINDS: Final = {Role.QUEUE: "inbound", Role.JUNK: "inbound", Role.SENT: "sent"}
_SIGNED: Final = {
    Signed.PLACED: ("the touchpoint's", "placed"),
    Signed.PRESENT: ("it was in the message already", "left as it was"),
    Signed.EARLIER: ("an earlier message of the conversation has it", "not wanted again"),
}
_PLAIN_ID: Final = "lower(replace(replace(message_id, '<', ''), '>', ''))"


def _step(at: int | None, step: str, detail: str, verdict: str, id: int | None = None) -> Step:
    return {
        "at": _time(at),
        "step": step,
        "detail": detail,
        "verdict": verdict,
        "id": None if id is None else show_id(id),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- one message -----------------------------------------------------------------------------------------------------


def life_of(db: sqlite3.Connection, id: int, stopped: Stopped) -> list[Step] | None:
    """Return the life of the message with this id, in or out, None where there is none; `stopped` as `outbox_view`."""
    steps = [*_inbound(db, id), *_outbound(db, id, stopped)]
    if not steps:
        return None
    timed = sorted((step for step in steps if step["at"] is not None), key=lambda step: str(step["at"]))
    return [*timed, *(step for step in steps if step["at"] is None)]


def _inbound(db: sqlite3.Connection, id: int) -> Iterator[Step]:
    row = db.execute(
        "SELECT touchpoint, origin, state, tries, size, internal_at, arrived_at, routed_at, placeholder, subject,"
        " sender, sender_name, conversation, quarantine, reviewed_at, discarded, trail, note, pruned_at FROM message"
        " WHERE id = ?",
        (id,),
    ).fetchone()
    if row is None:
        return
    touchpoint, origin, state, tries, size, internal_at, arrived_at, routed_at, placeholder, subject, *rest = row
    sender, name, conversation, quarantine, reviewed_at, discarded, trail, note, pruned_at = rest
    author = _author(sender, name)
    if origin == "notice":
        yield _step(arrived_at, "notice", _line(author, touchpoint, subject), f"{size} bytes", id)
    else:
        what = "written there" if origin == Role.SENT else _line(author, touchpoint, subject)
        yield _step(internal_at, "at the provider", what, f"{size} bytes", id)
        standing = {None: "the whole message", "headed": "only its header could be had"}
        yield _step(arrived_at, "arrived", standing.get(placeholder, "nothing of it could be had"), "stored", id)
    for one in json.loads(trail or "[]"):
        yield _step(routed_at, str(one["step"]), str(one["detail"]), str(one["verdict"]), id)
    if note:
        yield _step(routed_at, "note", str(note), "", id)
    if reviewed_at is not None:
        yield _step(reviewed_at, "quarantine", "decided by a person", "confirmed" if quarantine else "released", id)
    if pruned_at is not None:
        yield _step(pruned_at, "pruned", "it was in quarantine for its time", "its bytes are no longer kept", id)
    yield from _what_followed(db, id, conversation)
    if state == "arrived":
        yield _step(None, "now", f"{tries} tries to route it have begun", "waits to be routed", id)
        return
    if conversation is not None:
        shown = f"{show_id(conversation)}, {_standing_of(db, conversation)}"
        yield _step(
            None, "now", f"conversation {shown}", _place(db, quarantine, reviewed_at, discarded, conversation), id
        )
    yield from _at_provider(db, id)
    if pruned_at is None and db.execute("SELECT 1 FROM chunk WHERE id = ?", (id << 16,)).fetchone() is None:
        yield _step(None, "now", "its bytes are no longer kept", "", id)


def _what_followed(db: sqlite3.Connection, id: int, conversation: int | None) -> Iterator[Step]:
    """Yield what was done because of a message: answers, a block, a lesson for the scanner."""
    if conversation is not None:
        for outbox, kind, at in db.execute(
            "SELECT id, kind, accepted_at FROM outbox WHERE conversation = ? AND answers = ? ORDER BY id",
            (conversation, id),
        ).fetchall():
            yield _step(at, str(kind), f"to {_recipients(db, outbox)}", _fates(db, outbox), outbox)
    for pattern, touchpoint, agent, at in db.execute(
        "SELECT pattern, touchpoint, agent, at FROM block WHERE message = ?", (id,)
    ):
        where = touchpoint or "all touchpoints"
        yield _step(at, "block", f"{pattern}, by {agent or 'the command line'}", f"blocked for {where}", id)
    for spam, tries in db.execute("SELECT spam, tries FROM lesson WHERE message = ?", (id,)):
        verdict = f"waits to learn that it is {'spam' if spam else 'no spam'}"
        yield _step(None, "scanner", f"{tries} tries to teach it", verdict, id)


def _at_provider(db: sqlite3.Connection, id: int) -> Iterator[Step]:
    for folder, uid in db.execute("SELECT folder, uid FROM location WHERE message = ? ORDER BY folder, uid", (id,)):
        yield _step(None, "now", f"{folder}, UID {uid}", "lies at the provider", id)
    for action, target, tries, next_at in db.execute(
        "SELECT action, target, tries, next_at FROM filing WHERE message = ? ORDER BY action", (id,)
    ):
        what = f"{action} {target}".strip()
        yield _step(None, "filing", f"{what}, {tries} tries, next at {_time(next_at)}", "still to be done there", id)


def _outbound(db: sqlite3.Connection, id: int, stopped: Stopped) -> Iterator[Step]:
    row = db.execute(
        "SELECT agent, kind, subject, size, accepted_at, conversation, answers, drop_at, touchpoint, signature"
        " FROM outbox"
        " WHERE id = ?",
        (id,),
    ).fetchone()
    shown = show_outbox(db, id, stopped)
    if row is None or shown is None:
        return
    agent, kind, subject, size, accepted_at, conversation, answers, drop_at, touchpoint, signature = row
    to = _recipients(db, id)
    yield _step(accepted_at, "accepted", _line(agent or touchpoint, to, subject), f"{kind}, {size} bytes", id)
    if signature:
        detail, verdict = _SIGNED.get(signature, (signature, "left out"))
        yield _step(accepted_at, "signature", detail, verdict, id)
    if answers is not None:
        yield _step(accepted_at, "answers", show_id(answers), "", answers)
    if conversation is not None:
        yield _step(accepted_at, "conversation", show_id(conversation), "", conversation)
    times = dict(
        (address, (attempt, tried_at, settled_at))
        for address, attempt, tried_at, settled_at in db.execute(
            "SELECT address, attempt, tried_at, settled_at FROM recipient WHERE outbox = ?", (id,)
        )
    )
    for recipient in shown["recipients"]:
        yield from _recipient(id, recipient, *times[recipient["address"]])
    for address, at, text, report in db.execute(
        "SELECT address, at, text, message FROM bounced JOIN recipient USING (outbox, number) WHERE outbox = ?", (id,)
    ):
        yield _step(at, "bounced", f"{address}: {text}", "came back after it was handed over", report)
    for tries, next_at in db.execute("SELECT tries, next_at FROM copy WHERE outbox = ?", (id,)):
        detail = f"{tries} tries, next at {_time(next_at)}"
        yield _step(None, "sent copy", detail, "still to be put into the folder Sent", id)
    waits = any(recipient["next_attempt_at"] or recipient["state"] == "held" for recipient in shown["recipients"])
    if drop_at is not None and waits:
        yield _step(None, "now", f"until {_time(drop_at)}", "dropped when it has not left by then", id)
    if shown["cause"]:
        yield _step(None, "now", str(shown["cause"]), "is why it has not left" if waits else "", id)


def _recipient(
    id: int, found: dict[str, Any], attempt: int, tried_at: int | None, settled_at: int | None
) -> Iterator[Step]:
    verdict = str(found["state"])
    if found["next_attempt_at"]:
        verdict += f", next attempt {found['next_attempt_at']}"
    if found["next_look_at"]:
        verdict += f", Sent is looked into {found['next_look_at']}"
    detail = f"{found['address']}: {found['reply']}" if found["reply"] else str(found["address"])
    if found["attempts"] and (at := tried_at or settled_at) is not None:
        yield _step(at, f"attempt {attempt}", detail, verdict if settled_at in (None, at) else "begun", id)
    if settled_at is not None and settled_at != tried_at:
        yield _step(settled_at, "settled", detail, verdict, id)
    if not found["attempts"] and settled_at is None:
        yield _step(None, "now", detail, verdict, id)


# --- many ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; all that is set must hold. `address`: in lower case, `*` stands for anything. `subject`: a part
    of one, in any case. `message_id`: with or without its angle brackets. `since_id`: no id below it.
    """

    address: str = ""
    subject: str = ""
    message_id: str = ""
    touchpoint: str = ""
    since_id: int = 0


def find_by_thread(db: sqlite3.Connection, message_id: str, touchpoints: Sequence[str]) -> list[Step]:
    """Return a line for each message of that Message-ID which is part of a conversation, or which we have named."""
    keys = [thread_key(touchpoint, message_id) for touchpoint in touchpoints]
    conversations = [
        conversation
        for (conversation,) in db.execute(
            "SELECT DISTINCT conversation FROM thread WHERE key IN (SELECT value FROM json_each(?))", (as_json(keys),)
        )
    ]
    plain = _plain(message_id)
    among = (as_json(conversations), plain)
    found = [
        id
        for table in ("message", "outbox")
        for (id,) in db.execute(
            f"SELECT id FROM {table} WHERE conversation IN (SELECT value FROM json_each(?)) AND {_PLAIN_ID} = ?", among
        )
    ]
    ours = read_id(plain.partition("@")[0]) or 0
    found += [id for (id,) in db.execute(f"SELECT id FROM outbox WHERE id = ? AND {_PLAIN_ID} = ?", (ours, plain))]
    return lines_of(db, found)


def find_in(db: sqlite3.Connection, table: str, search: Search, before: int) -> tuple[list[int], int | None]:
    """Return the ids in the stretch of `table` (message or outbox) that lies below the id `before`, the newest first,
    and where the next stretch begins; None behind the last.
    """
    (low,) = db.execute(
        f"SELECT min(id) FROM (SELECT id FROM {table} WHERE id < ? AND id >= ? ORDER BY id DESC LIMIT ?)",
        (before, search.since_id, STRETCH),
    ).fetchone()
    if low is None:
        return [], None
    conditions, values = _conditions(table, search)
    where = " AND ".join(["id >= ? AND id < ?", *conditions])
    rows = db.execute(f"SELECT id FROM {table} WHERE {where} ORDER BY id DESC", (low, before, *values))
    return [id for (id,) in rows], int(low)


def _conditions(table: str, search: Search) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if search.address:
        pattern = _glob(search.address)
        if table == "message":
            conditions.append("lower(sender) GLOB ?")
            values.append(pattern)
        else:
            conditions.append(
                "(lower(agent) GLOB ? OR EXISTS"
                " (SELECT 1 FROM recipient WHERE recipient.outbox = outbox.id AND lower(address) GLOB ?))"
            )
            values += (pattern, pattern)
    if search.subject:
        # SQLite folds the case of ASCII letters only
        texts = {case(search.subject) for case in (str, str.lower, str.upper, str.title, str.capitalize)}
        conditions.append(f"({' OR '.join([_LIKE] * len(texts))})")
        values += sorted(map(_like, texts))
    if search.message_id:
        conditions.append(f"{_PLAIN_ID} = ?")
        values.append(_plain(search.message_id))
    if search.touchpoint:
        conditions.append("touchpoint = ?")
        values.append(search.touchpoint)
    return conditions, values


_LIKE: Final = r"subject LIKE ? ESCAPE '\'"


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _glob(pattern: str) -> str:
    return "".join(f"[{letter}]" if letter in "[?" else letter for letter in pattern.lower())


def _plain(message_id: str) -> str:
    return "".join(message_id.split()).strip("<>").lower()


def members_of(db: sqlite3.Connection, conversation: int) -> list[Step]:
    """Return a line for each message of a conversation, in and out, the oldest first."""
    found = [
        id
        for table in ("message", "outbox")
        for (id,) in db.execute(f"SELECT id FROM {table} WHERE conversation = ?", (conversation,))
    ]
    return lines_of(db, found)


def lines_of(db: sqlite3.Connection, ids: Iterable[int]) -> list[Step]:
    """Return a line for each message, in and out, in order of time: what it is and where it is now."""
    wanted = (as_json(sorted(set(ids))),)
    lines: list[Step] = []
    for id, touchpoint, origin, state, at, subject, sender, name, conversation, quarantine, *rest in db.execute(
        "SELECT id, touchpoint, origin, state, internal_at, subject, sender, sender_name, conversation, quarantine,"
        " reviewed_at, discarded FROM message WHERE id IN (SELECT value FROM json_each(?))",
        wanted,
    ).fetchall():
        kind = _KINDS.get(origin, str(origin))
        reviewed_at, discarded = rest
        place = _place(db, quarantine, reviewed_at, discarded, conversation)
        if state == "arrived":
            place = "waits to be routed"
        lines.append(_step(at, kind, _line(_author(sender, name), touchpoint, subject), place, id))
    for id, touchpoint, kind, agent, subject, at in db.execute(
        "SELECT id, touchpoint, kind, agent, subject, accepted_at FROM outbox"
        " WHERE id IN (SELECT value FROM json_each(?))",
        wanted,
    ).fetchall():
        step = "outbound" if kind == "reply" else str(kind)
        lines.append(_step(at, step, _line(agent or touchpoint, _recipients(db, id), subject), _fates(db, id), id))
    return sorted(lines, key=lambda line: (str(line["at"]), str(line["id"])))


# --- words -----------------------------------------------------------------------------------------------------------


def _author(sender: str | None, name: str | None) -> str:
    return f"{name} <{sender}>" if name and sender else name or sender or "(no sender)"


def _line(author: str, to: str, subject: str | None) -> str:
    return f"{author} → {to}: {subject or '(no subject)'}"


def _place(
    db: sqlite3.Connection, quarantine: int, reviewed_at: int | None, discarded: int, conversation: int | None
) -> str:
    if quarantine:
        return "in quarantine, " + ("confirmed" if reviewed_at is not None else "waits to be looked at")
    if discarded:
        return "discarded by a rule"
    rows = db.execute("SELECT queue FROM entry WHERE conversation = ? ORDER BY queue", (conversation,))
    return f"queue {', '.join(queue for (queue,) in rows) or '-'}"


def _standing_of(db: sqlite3.Connection, conversation: int) -> str:
    row = db.execute("SELECT state, owner FROM conversation WHERE id = ?", (conversation,)).fetchone()
    if row is None:
        return "gone"
    return f"{row[0]} by {row[1]}" if row[1] else str(row[0])


def _recipients(db: sqlite3.Connection, outbox: int) -> str:
    rows = db.execute("SELECT address FROM recipient WHERE outbox = ? ORDER BY number LIMIT 4", (outbox,)).fetchall()
    named = [address for (address,) in rows[:3]]
    return ", ".join([*named, "…"] if len(rows) > len(named) else named) or "nobody"


def _fates(db: sqlite3.Connection, outbox: int) -> str:
    rows = db.execute("SELECT state, count(*) FROM recipient WHERE outbox = ? GROUP BY state", (outbox,)).fetchall()
    if len(rows) == 1:
        return str(rows[0][0])
    return ", ".join(f"{count} {state}" for state, count in rows)
