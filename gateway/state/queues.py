"""Inbound conversations and notices: which messages belong to them, which queues have them, how they stand.

`route` is the second transaction of a message (DESIGN §4): verdict with its trail, conversation, queue entries and
the state `routed`, all or nothing. What is decided here, inside the transaction, is only which conversation a message
continues; everything else comes in decided.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from gateway.model import (
    NO_FINDINGS,
    Findings,
    MessageClass,
    Placeholder,
    Priority,
    Role,
    Step,
    Verdict,
    personal_queue,
    show_id,
)
from gateway.rules.conversation import ConversationState, Ties, answer, begin, follow, place, thread_key
from gateway.state import answers, blocks, bounces, correspondents, findings, raw
from gateway.state.bounces import Returned
from gateway.state.conversations import Conversation, as_json, load
from gateway.state.quarantine import BY_JUNK, BY_US
from gateway.state.raw import Chunk
from gateway.state.rows import insert_many

_CONVERSATION: Final = (
    "INSERT INTO conversation"
    " (id, touchpoint, state, owner, subject, sender, sender_name, priority, tags, first_at, last_at)"
)
_ENTRY: Final = "INSERT OR IGNORE INTO entry (queue, conversation, entered_at)"
_THREAD: Final = "INSERT OR IGNORE INTO thread (key, conversation)"  # the first conversation keeps an id
_TAGS_KEPT: Final = 50  # of one conversation, however long it goes on


# --- routing (T2) ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Routed:
    """Everything decided about one arrival. `conversation`: the id to use when it begins one. `at`: milliseconds.

    `returned`: what it reports about a message of ours; `about`: thread keys of that message. `note`: one plain
    sentence that stands beside it. `redeems`: the sender's address had bounced for good, and is in use. `findings`:
    what the verdict rests on beyond the header. `answer`: the automatic one, where only the store can be against it,
    or the step that says why there is none.
    """

    id: int
    touchpoint: str
    verdict: Verdict
    ties: Ties
    message_id: str
    subject: str
    sender: str
    sender_name: str
    is_reopening: bool
    conversation: int
    at: int
    returned: Returned | None = None
    about: tuple[int, ...] = ()
    note: str = ""
    redeems: bool = False
    findings: Findings = NO_FINDINGS
    answer: answers.Answer | Step | None = None


@dataclass(frozen=True, slots=True)
class RoutedResult:
    """Where the message is now. `is_new`: it began the conversation. `is_repeated`: it had been routed before.

    `given`: what became of its automatic answer, None where it had none.
    """

    conversation: int
    queues: tuple[str, ...]
    state: ConversationState
    is_new: bool = False
    is_repeated: bool = False
    given: answers.Given | None = None


def route(db: sqlite3.Connection, items: Sequence[Routed]) -> Sequence[RoutedResult]:
    """Operation T2. Routing a message again changes nothing and answers where it is. Raises LookupError for a message
    that never arrived.
    """
    messages = _messages(db, {item.id for item in items})
    keys = {key for item in items for key in (*item.about, *item.ties.own, *item.ties.parents)}
    threads = find_threads(db, keys)
    homes = bounces.homes(db, [item.returned.outbox for item in items if item.returned is not None])
    known = load(
        db,
        {threads[key] for key in keys if key in threads}
        | {conversation for message in messages.values() if (conversation := message.conversation)}
        | {home.conversation for home in homes.values() if home.conversation is not None},
    )
    tied: dict[int, int] = {}
    adopted: list[tuple[int, int]] = []
    written: list[tuple[Routed, _Message, Conversation, tuple[Step, ...]]] = []
    results: list[RoutedResult] = []
    claims: dict[tuple[int, int], answers.Claim] = {}  # by place in `written` and `results`
    for item in items:
        if item.id not in messages:
            raise LookupError(f"message {show_id(item.id)} is routed and never arrived")
        message = messages[item.id]
        if message.state == "routed" and message.conversation is not None:
            found = known[message.conversation]
            results.append(RoutedResult(found.id, tuple(found.queues), found.state, is_repeated=True))
            continue
        if (verdict := _as_people_want(item.verdict, message)) is not item.verdict:
            item = replace(item, verdict=verdict)
        if item.returned is not None and verdict.quarantine:
            item = replace(item, returned=None)  # nothing follows from what nobody is to believe
        elif item.returned is not None and verdict.discard:
            item = replace(item, returned=replace(item.returned, queue=None, adopts=False))
        home = homes.get(item.returned.outbox) if item.returned is not None else None
        found, step = _join(item, message, home, threads, known)
        if home is not None and item.returned is not None and home.conversation is None and item.returned.adopts:
            adopted.append((item.returned.outbox, found.id))
            homes[item.returned.outbox] = replace(home, conversation=found.id)
            if home.message_id and (key := thread_key(home.touchpoint, home.message_id)) not in threads:
                threads[key] = tied[key] = found.id
        for key in (*item.ties.own, *item.ties.parents):
            if key not in threads:
                threads[key] = tied[key] = found.id
        steps = (*item.verdict.trail, *((step,) if step else ()))
        if isinstance(item.answer, Step):
            steps = (*steps, item.answer)
        elif item.answer is not None and not (verdict.quarantine or verdict.discard):
            claim = answers.Claim(item.answer, item.id, found.id, is_new=step is None, at=item.at)
            claims[len(written), len(results)] = claim
        # the same message twice in one batch
        messages[item.id] = replace(message, state="routed", conversation=found.id)
        written.append((item, message, found, steps))
        results.append(RoutedResult(found.id, tuple(found.queues), found.state, is_new=step is None))
    for (row, place_of), given in zip(claims, answers.give(db, list(claims.values())), strict=True):
        item, message, found, trail = written[row]
        written[row] = (item, message, found, (*trail, given.step))
        results[place_of] = replace(results[place_of], given=given)
    _write(db, written, tied)
    if adopted:
        bounces.adopt(db, adopted)
    for item, _, _, _ in written:
        if item.returned is not None:
            bounces.record(db, item.touchpoint, item.id, item.at, item.returned)
    correspondents.note(
        db, [(item.touchpoint, item.sender, item.at) for item, _, _, _ in written if _is_from_somebody(item.verdict)]
    )
    if redeemed := [(item.touchpoint, item.sender.lower()) for item, _, _, _ in written if item.redeems]:
        bounces.redeem(db, redeemed)
    if blocked := [item for item, _, _, _ in written if item.verdict.blocked]:
        blocks.to_junk(db, [(item.id, item.touchpoint) for item in blocked], blocked[-1].at)
        blocks.note_hits(db, [(item.touchpoint, item.findings.block, item.at) for item in blocked])
    return results


def _is_from_somebody(verdict: Verdict) -> bool:
    """Does this make its sender known?"""
    return verdict.message_class is MessageClass.HUMAN and not (verdict.quarantine or verdict.discard)


def _as_people_want(verdict: Verdict, message: _Message) -> Verdict:
    """Return the verdict after what has been decided at the provider since, or about the placeholder of the message."""
    is_reviewed = message.reviewed_at is not None
    if is_reviewed and message.quarantine:  # confirmed
        return replace(verdict, quarantine=True, junk_alone=message.quarantine == BY_JUNK)
    if verdict.junk_alone and (is_reviewed or message.origin != Role.JUNK):  # released, or taken out of Junk
        return replace(verdict, quarantine=False, junk_alone=False)
    return verdict


def _join(
    item: Routed,
    message: _Message,
    home: bounces.Home | None,
    threads: Mapping[int, int],
    known: dict[int, Conversation],
) -> tuple[Conversation, Step | None]:
    """Return the conversation that the message continues, changed by it, and the step that says so; or a new one.

    `home`: of the message that this one reports about.
    """
    verdict, internal_at = item.verdict, message.internal_at
    writer = item.returned.queue if item.returned is not None else None
    tied = [threads.get(key, 0) for key in (*item.about, *item.ties.parents, *item.ties.own)]
    if home is not None and home.conversation is not None:
        tied.insert(0, home.conversation)
    if message.conversation is not None:  # somebody works in the conversation of its placeholder, which said nothing
        tied.insert(0, message.conversation)
        known[message.conversation].name(item.subject, item.sender, item.sender_name)
    for id in tied:
        found = known.get(id)
        if found is None:
            continue
        queues, step = place(verdict, found.queues)
        if writer is not None and writer not in queues:
            queues = (*queues, writer)
        found.state = follow(found.state, found.owner, verdict, is_reopening=item.is_reopening)
        if not (verdict.quarantine or verdict.discard):
            found.last_at = max(found.last_at, internal_at)
            found.tags = list(dict.fromkeys((*found.tags, *verdict.tags)))[:_TAGS_KEPT]
            if verdict.priority_set:
                found.priority = verdict.priority.value
            if sorted(queues) != found.queues:
                found.leaves |= not set(found.queues) <= set(queues)
                found.queues, found.enters_at = sorted(queues), item.at
        return found, step or Step("conversation", "continues one that was in no queue", ", ".join(found.queues))
    begun = Conversation(
        item.conversation,
        item.touchpoint,
        begin(verdict),
        None,
        item.subject,
        item.sender,
        item.sender_name,
        verdict.priority.value,
        list(verdict.tags)[:_TAGS_KEPT],
        internal_at,
        internal_at,
        sorted(_places(item)),
        is_new=True,
        enters_at=item.at,
    )
    known[begun.id] = begun
    return begun, None


def _places(item: Routed) -> set[str]:
    """Return the queues of a conversation that begins with this message.

    A report that nobody need act on is its writer's business alone, and no home for what customers answer.
    """
    if item.returned is None or item.returned.queue is None:
        return set(item.verdict.queues)
    team = set(item.verdict.queues) if item.returned.adopts else set()
    return team | {item.returned.queue}


def _write(
    db: sqlite3.Connection,
    written: Sequence[tuple[Routed, _Message, Conversation, tuple[Step, ...]]],
    tied: Mapping[int, int],
) -> None:
    changed = {conversation.id: conversation for _, _, conversation, _ in written}.values()
    insert_many(db, _CONVERSATION, [one.row for one in changed if one.is_new])
    if updated := [one for one in changed if not one.is_new]:
        db.execute(
            "UPDATE conversation SET state = new.state, priority = new.priority, tags = new.tags,"
            " last_at = new.last_at FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS priority,"
            " value ->> 3 AS tags, value ->> 4 AS last_at FROM json_each(?)) AS new WHERE conversation.id = new.id",
            (as_json([(one.id, one.state.value, one.priority, as_json(one.tags), one.last_at) for one in updated]),),
        )
    if renamed := [(one.subject, one.sender, one.sender_name, one.id) for one in changed if one.is_renamed]:
        db.executemany("UPDATE conversation SET subject = ?, sender = ?, sender_name = ? WHERE id = ?", renamed)
    if leaving := [one.id for one in changed if one.leaves]:
        db.execute("DELETE FROM entry WHERE conversation IN (SELECT value FROM json_each(?))", (as_json(leaving),))
    insert_many(
        db,
        _ENTRY,
        [(queue, one.id, one.enters_at) for one in changed if one.enters_at is not None for queue in one.queues],
    )
    insert_many(db, _THREAD, list(tied.items()))
    if written:
        db.execute(
            "UPDATE message SET state = 'routed', routed_at = new.at, message_id = new.message_id, class = new.class,"
            " subject = new.subject, sender = new.sender, sender_name = new.sender_name,"
            " conversation = new.conversation, quarantine = new.quarantine, reviewed_at = new.reviewed_at,"
            " discarded = new.discarded, trail = new.trail, note = new.note, findings = new.findings"
            " FROM (SELECT value ->> 0 AS id, value ->> 1 AS at, value ->> 2 AS message_id,"
            " value ->> 3 AS class, value ->> 4 AS subject, value ->> 5 AS sender, value ->> 6 AS sender_name,"
            " value ->> 7 AS conversation, value ->> 8 AS quarantine, value ->> 9 AS reviewed_at,"
            " value ->> 10 AS discarded, value ->> 11 AS trail, value ->> 12 AS note,"
            " value ->> 13 AS findings FROM json_each(?)) AS new WHERE message.id = new.id",
            (as_json([_message_row(*one) for one in written]),),
        )


def _message_row(
    item: Routed, message: _Message, conversation: Conversation, trail: Sequence[Step]
) -> tuple[object, ...]:
    quarantine = (BY_JUNK if item.verdict.junk_alone else BY_US) if item.verdict.quarantine else 0
    return (
        item.id,
        item.at,
        item.message_id or None,
        item.verdict.message_class.value,
        item.subject,
        item.sender,
        item.sender_name,
        conversation.id,
        quarantine,
        message.reviewed_at if quarantine == message.quarantine or not quarantine else None,
        int(item.verdict.discard),
        show_trail(trail),
        item.note or None,
        findings.dump(item.findings),
    )


@dataclass(frozen=True, slots=True)
class _Message:
    state: str
    conversation: int | None
    internal_at: int
    origin: str
    quarantine: int
    reviewed_at: int | None


def _messages(db: sqlite3.Connection, ids: Collection[int]) -> dict[int, _Message]:
    rows = db.execute(
        "SELECT id, state, conversation, internal_at, origin, quarantine, reviewed_at FROM message"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(ids),),
    )
    return {id: _Message(*rest) for id, *rest in rows}


def find_threads(db: sqlite3.Connection, keys: Collection[int]) -> dict[int, int]:
    if not keys:
        return {}
    query = "SELECT key, conversation FROM thread WHERE key IN (SELECT value FROM json_each(?))"
    return dict(db.execute(query, (as_json(list(keys)),)))


# --- after a crash ---------------------------------------------------------------------------------------------------


def unrouted_arrivals(db: sqlite3.Connection, after: int = 0, limit: int = 500) -> list[tuple[int, int]]:
    """Return (id, tries) of messages that arrived and were not routed, oldest first, from behind `after`."""
    rows = db.execute(
        "SELECT id, tries FROM message WHERE state = 'arrived' AND id > ? ORDER BY id LIMIT ?", (after, limit)
    )
    return [(id, tries) for id, tries in rows]


def begin_routing(db: sqlite3.Connection, ids: Sequence[int]) -> Sequence[int]:
    """Operation: count one more try of each message before it is looked at; return the counts, 0 where it is routed."""
    wanted = (as_json(ids),)
    db.execute(
        "UPDATE message SET tries = tries + 1 WHERE state = 'arrived' AND id IN (SELECT value FROM json_each(?))",
        wanted,
    )
    tries = dict(
        db.execute(
            "SELECT id, tries FROM message WHERE state = 'arrived' AND id IN (SELECT value FROM json_each(?))", wanted
        )
    )
    return [tries.get(id, 0) for id in ids]


@dataclass(frozen=True, slots=True)
class Unrouted:
    """What routing needs of a message that has arrived. `head`: its first chunk, which holds the whole header.

    `junk`: it lies in the provider's Junk. `placeholder`: what it stands for could not be fetched. `internal_at`: ms.
    """

    id: int
    touchpoint: str
    size: int
    head: bytes
    junk: bool = False
    placeholder: Placeholder | None = None
    internal_at: int = 0


def load_unrouted(db: sqlite3.Connection, ids: Sequence[int]) -> list[Unrouted]:
    """Return those of `ids` that wait to be routed. `head` is empty where the bytes are gone."""
    rows = db.execute(
        "SELECT message.id, touchpoint, size, chunk.bytes, origin, placeholder, internal_at FROM message"
        " LEFT JOIN chunk ON chunk.id = message.id << 16"
        " WHERE state = 'arrived' AND message.id IN (SELECT value FROM json_each(?)) ORDER BY message.id",
        (as_json(ids),),
    )
    return [
        Unrouted(
            id,
            touchpoint,
            size,
            head or b"",
            origin == Role.JUNK,
            None if standing is None else Placeholder(standing),
            internal_at,
        )
        for id, touchpoint, size, head, origin, standing, internal_at in rows
    ]


# --- notices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notice:
    """A bounce, a delay or a warning for one agent. `id` of the message, `conversation` of its own conversation.

    `about`: the conversation that it concerns; `reopens`: somebody must look at that one again. `at`: milliseconds.
    `note`: a plain sentence that stands beside it.
    """

    id: int
    conversation: int
    touchpoint: str
    login: str
    subject: str
    chunks: tuple[Chunk, ...]
    size: int
    at: int
    message_id: str = ""
    sender: str = ""
    sender_name: str = "Mail gateway"
    about: int | None = None
    reopens: bool = True
    message_class: MessageClass = MessageClass.BOUNCE
    note: str = ""


def put_notice(db: sqlite3.Connection, notices: Sequence[Notice]) -> Sequence[None]:
    """Operation, and for use inside another one: put each notice into the agent's personal queue, once."""
    there = _messages(db, {notice.id for notice in notices})
    fresh = list({notice.id: notice for notice in notices if notice.id not in there}.values())
    raw.insert(db, [chunk for notice in fresh for chunk in notice.chunks])
    insert_many(
        db,
        "INSERT INTO message (id, touchpoint, origin, state, tries, size, internal_at, arrived_at, routed_at,"
        " fingerprint, message_id, class, subject, sender, sender_name, conversation, trail, note)",
        [
            (
                notice.id,
                notice.touchpoint,
                "notice",
                "routed",
                0,
                notice.size,
                *(notice.at,) * 3,
                0,
                notice.message_id or None,
                notice.message_class.value,
                notice.subject,
                notice.sender,
                notice.sender_name,
                notice.conversation,
                show_trail([Step("notice", f"for {notice.login}", _queue_of(notice))]),
                notice.note or None,
            )
            for notice in fresh
        ],
    )
    insert_many(
        db,
        _CONVERSATION,
        [
            (
                notice.conversation,
                notice.touchpoint,
                ConversationState.OPEN.value,
                None,
                notice.subject,
                notice.sender,
                notice.sender_name,
                Priority.NORMAL.value,
                '["notice"]',
                notice.at,
                notice.at,
            )
            for notice in fresh
        ],
    )
    insert_many(db, _ENTRY, [(_queue_of(notice), notice.conversation, notice.at) for notice in fresh])
    if reopened := [notice.about for notice in fresh if notice.about is not None and notice.reopens]:
        db.execute(
            "UPDATE conversation SET state = CASE WHEN owner IS NULL THEN 'open' ELSE 'claimed' END"
            " WHERE state IN ('answered', 'closed') AND id IN (SELECT value FROM json_each(?))",
            (as_json(reopened),),
        )
    return [None] * len(notices)


def _queue_of(notice: Notice) -> str:
    return personal_queue(notice.login.lower())


# --- outbound mail and its conversation ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tie:
    """An outbound message. `references`: ids of In-Reply-To and References, the likeliest parent first.

    `answers`: an agent wrote it, so what it replies to is answered. `at`: milliseconds.
    """

    touchpoint: str
    message_id: str
    references: tuple[str, ...]
    at: int
    answers: bool = True


def tie_outbound(db: sqlite3.Connection, ties: Sequence[Tie]) -> Sequence[int | None]:
    """Operation, and for use inside `outbox.accept`: return the conversation of each message, None where it begins one
    of its own. What an agent has replied to is answered; the customer's next mail finds the conversation by our id.
    """
    parents = [[thread_key(tie.touchpoint, one) for one in tie.references] for tie in ties]
    threads = find_threads(db, {key for keys in parents for key in keys})
    found = [next((threads[key] for key in keys if key in threads), None) for keys in parents]
    known = load(db, {conversation for conversation in found if conversation is not None})
    tied: dict[int, int] = {}
    for tie, conversation in zip(ties, found, strict=True):
        if conversation is None:
            continue
        if tie.message_id:
            tied.setdefault(thread_key(tie.touchpoint, tie.message_id), conversation)
        if tie.answers and (one := known.get(conversation)):
            one.state, one.last_at = answer(one.state), max(one.last_at, tie.at)
    insert_many(db, _THREAD, list(tied.items()))
    if known:
        db.execute(
            "UPDATE conversation SET state = new.state, last_at = new.last_at FROM (SELECT value ->> 0 AS id,"
            " value ->> 1 AS state, value ->> 2 AS last_at FROM json_each(?)) AS new WHERE conversation.id = new.id",
            (as_json([(one.id, one.state.value, one.last_at) for one in known.values()]),),
        )
    return found


def show_trail(trail: Iterable[Step]) -> str:
    """Return a trail as it is stored: JSON, a list of objects with step, detail and verdict."""
    return as_json([asdict(step) for step in trail])
