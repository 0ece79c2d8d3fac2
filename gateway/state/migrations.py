"""The schema, as an append-only list of steps. A step that has been released is never edited.

Conventions: ids come from `model.IdSource` and double as rowids, so rows of one table lie in the order of time.
Times are integer milliseconds (`*_at`). Lists and trails that are only ever read whole are JSON text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from sqlite_utils import Database, Migrations

from gateway.errors import Unavailable

STEPS: Final = Migrations("mail-gateway")

_V1 = """
-- Bytes of messages, in and out. id = owner's id << 16 | number of the chunk: one index, rows in order of arrival.
CREATE TABLE chunk (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
-- Owners whose first chunks were committed ahead of the row that owns them: where the start looks for orphans.
CREATE TABLE staged (owner INTEGER PRIMARY KEY);

-- A watched folder. `cursor`: up to this UID only `unfetched` is owed. `skipped`: messages older than the history.
-- role: queue | junk | sent. `modseq`: up to this one all changes have been looked at (RFC 7162); NULL: not offered.
CREATE TABLE folder (
    touchpoint TEXT NOT NULL, folder TEXT NOT NULL, uidvalidity INTEGER NOT NULL, cursor INTEGER NOT NULL,
    skipped INTEGER NOT NULL, first_watched_at INTEGER NOT NULL, history_from INTEGER NOT NULL, role TEXT NOT NULL,
    modseq INTEGER, reconciled_at INTEGER,
    PRIMARY KEY (touchpoint, folder)) WITHOUT ROWID;

-- Stretches of UIDs that are none of ours: older than the history, or in Sent and not part of a conversation.
CREATE TABLE left_alone (
    touchpoint TEXT NOT NULL, folder TEXT NOT NULL, uidvalidity INTEGER NOT NULL, low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    PRIMARY KEY (touchpoint, folder, uidvalidity, low)) WITHOUT ROWID;

-- A message that is at the provider and could not be fetched. `next_at`: when to try again; NULL: never by ourselves.
CREATE TABLE unfetched (
    touchpoint TEXT NOT NULL, folder TEXT NOT NULL, uidvalidity INTEGER NOT NULL, uid INTEGER NOT NULL,
    size INTEGER NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL, first_at INTEGER NOT NULL, next_at INTEGER,
    PRIMARY KEY (touchpoint, folder, uidvalidity, uid)) WITHOUT ROWID;

-- A message that lies, or lay, at the provider. state: arrived | routed. `tries` counts routings begun.
-- origin: the role of the folder where we found it (sent: written by us, at the provider); notice: it never lay there.
-- `fingerprint`, `object_id`: identity without a UID; 0, NULL: not known. placeholder: headed | blind, NULL for the
-- message itself. stands_for: where a blind one stood first, [folder, UIDVALIDITY, UID] as JSON. quarantine: 0 no,
-- 1 by lists and rules, 2 only for lying in the provider's Junk; `reviewed_at`: when a person released or confirmed it.
-- note: one plain sentence that stands beside it (what a bounce means). findings: what was found out about it beyond
-- its header before the rules were asked (JSON, model.Findings); with it a verdict can be explained later. pruned_at:
-- when its bytes were taken, and all of it but what knows it again.
CREATE TABLE message (
    id INTEGER PRIMARY KEY, touchpoint TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL,
    tries INTEGER NOT NULL, size INTEGER NOT NULL, internal_at INTEGER NOT NULL, arrived_at INTEGER NOT NULL,
    routed_at INTEGER, fingerprint INTEGER NOT NULL, object_id INTEGER, placeholder TEXT, stands_for TEXT,
    message_id TEXT, class TEXT, subject TEXT, sender TEXT, sender_name TEXT, conversation INTEGER,
    quarantine INTEGER NOT NULL DEFAULT 0, reviewed_at INTEGER, discarded INTEGER NOT NULL DEFAULT 0, trail TEXT,
    note TEXT, findings TEXT, pruned_at INTEGER);
CREATE INDEX message_arrived ON message (id) WHERE state = 'arrived';
CREATE INDEX message_conversation ON message (conversation);
CREATE INDEX message_fingerprint ON message (fingerprint);
CREATE INDEX message_object ON message (object_id) WHERE object_id IS NOT NULL;
CREATE INDEX message_blind ON message (touchpoint) WHERE placeholder = 'blind';
CREATE INDEX message_quarantined ON message (id) WHERE quarantine != 0 AND pruned_at IS NULL;

-- Where a message lies at the provider.
CREATE TABLE location (
    touchpoint TEXT NOT NULL, folder TEXT NOT NULL, uidvalidity INTEGER NOT NULL, uid INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (touchpoint, folder, uidvalidity, uid)) WITHOUT ROWID;
CREATE INDEX location_message ON location (message);

-- What is still to be done with a message at the provider. action: seen | answered | move | release | junk
-- copying: 1 once a COPY may have been sent, the first half of a move where the server knows no MOVE.
CREATE TABLE filing (
    message INTEGER NOT NULL, action TEXT NOT NULL, touchpoint TEXT NOT NULL, target TEXT NOT NULL,
    tries INTEGER NOT NULL, since_at INTEGER NOT NULL, next_at INTEGER NOT NULL, copying INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, action)) WITHOUT ROWID;
CREATE INDEX filing_due ON filing (touchpoint, next_at);

-- state: open | claimed | answered | closed | quarantined
CREATE TABLE conversation (
    id INTEGER PRIMARY KEY, touchpoint TEXT NOT NULL, state TEXT NOT NULL, owner TEXT, subject TEXT NOT NULL,
    sender TEXT NOT NULL, sender_name TEXT NOT NULL, priority TEXT NOT NULL, tags TEXT NOT NULL,
    first_at INTEGER NOT NULL, last_at INTEGER NOT NULL);
CREATE INDEX conversation_unsettled ON conversation (last_at) WHERE state != 'closed';

CREATE TABLE entry (
    queue TEXT NOT NULL, conversation INTEGER NOT NULL, entered_at INTEGER NOT NULL,
    PRIMARY KEY (queue, conversation)) WITHOUT ROWID;
CREATE INDEX entry_conversation ON entry (conversation);

-- Which conversation a Message-ID belongs to. key: 64 bits of a hash of touchpoint and Message-ID.
CREATE TABLE thread (key INTEGER PRIMARY KEY, conversation INTEGER NOT NULL);

-- Which Message-IDs belong to a conversation that has had the touchpoint's signature, where that is given once. key: as
-- in thread, of the message that has it and of those that it refers to.
CREATE TABLE signed (key INTEGER NOT NULL, outbox INTEGER NOT NULL, PRIMARY KEY (key, outbox)) WITHOUT ROWID;

-- An accepted outbound message. kind: reply | auto-reply | notice. `answers`: the inbound message that it replies to.
-- held: why it is not tried, NULL where it may be: person | restored. envid, ret (full | hdrs): RFC 3461 §4.3, §4.4.
-- drop_at: from then on it is not worth sending any more (an automatic answer); NULL: always.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, touchpoint TEXT NOT NULL, agent TEXT NOT NULL, kind TEXT NOT NULL,
    return_path TEXT NOT NULL, eight_bit INTEGER NOT NULL, smtputf8 INTEGER NOT NULL, message_id TEXT NOT NULL,
    subject TEXT NOT NULL, size INTEGER NOT NULL, accepted_at INTEGER NOT NULL, conversation INTEGER,
    answers INTEGER, held TEXT, envid TEXT, ret TEXT, drop_at INTEGER, signature TEXT NOT NULL DEFAULT '');
-- signature: '' none was wanted | placed | present | earlier | why it was left out. Only the last are counted.
CREATE INDEX outbox_unsigned ON outbox (touchpoint) WHERE signature NOT IN ('', 'placed', 'present', 'earlier');
CREATE INDEX outbox_conversation ON outbox (conversation) WHERE conversation IS NOT NULL;
-- How many automatic answers a touchpoint gives in an hour.
CREATE INDEX outbox_answers ON outbox (touchpoint, accepted_at) WHERE kind = 'auto-reply';

-- One recipient's fate. state: queued | sending | delivered | deferred | refused | uncertain | expired | cancelled
-- attempts: how often this recipient was tried. attempt: number of the latest try among all tries of the message; it
-- names the try in our trace field, so no two tries of one message share it. tried_at: when that try was claimed.
-- waited: ms on the give-up clock. next_attempt_at is NULL when no clock moves it (held, uncertain, settled).
-- notify: RFC 3461 §4.1 as the bits 1 success, 2 failure, 4 delay; 0 never, NULL not said. orcpt: as it was given.
CREATE TABLE recipient (
    outbox INTEGER NOT NULL, number INTEGER NOT NULL, touchpoint TEXT NOT NULL, address TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL, attempt INTEGER NOT NULL, waited INTEGER NOT NULL,
    next_attempt_at INTEGER, reply TEXT, settled_at INTEGER, tried_at INTEGER, notify INTEGER, orcpt TEXT,
    PRIMARY KEY (outbox, number)) WITHOUT ROWID;
-- One index for all that is open: what is due, what was sending at a crash, what `outbox list` shows. Its last two
-- columns are there so that counting and recovering never touch the rows.
CREATE INDEX recipient_open ON recipient (touchpoint, next_attempt_at, state, settled_at) WHERE settled_at IS NULL;

-- A touchpoint's lane. state: open | paused | held. cause: login | permission | switched-off | person …
CREATE TABLE lane (
    touchpoint TEXT PRIMARY KEY, state TEXT NOT NULL, cause TEXT, detail TEXT, since_at INTEGER NOT NULL,
    until_at INTEGER, probes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;

-- How many messages a touchpoint handed over in an hour (hours since the epoch): the daily pace is a sum of 25 of them.
CREATE TABLE sent (
    touchpoint TEXT NOT NULL, hour INTEGER NOT NULL, messages INTEGER NOT NULL,
    PRIMARY KEY (touchpoint, hour)) WITHOUT ROWID;

-- A recipient whose fate evidence in the provider's Sent folder may settle. why: uncertain | restored. attempt: the try
-- in doubt; of a restored one every later try. tried_at: when it was made. looks: how often we looked and saw nothing
-- although a later message of ours was there; absent_at: when for the first time. next_at: of the next look.
CREATE TABLE doubt (
    outbox INTEGER NOT NULL, number INTEGER NOT NULL, touchpoint TEXT NOT NULL, why TEXT NOT NULL,
    attempt INTEGER NOT NULL, tried_at INTEGER NOT NULL, looks INTEGER NOT NULL, absent_at INTEGER,
    next_at INTEGER NOT NULL,
    PRIMARY KEY (outbox, number)) WITHOUT ROWID;
CREATE INDEX doubt_due ON doubt (touchpoint, next_at);

-- A delivered message whose copy is still to be put into Sent, where the provider does not do it. attempt: the try
-- that was accepted; its trace field is in the copy.
CREATE TABLE copy (
    outbox INTEGER PRIMARY KEY, touchpoint TEXT NOT NULL, attempt INTEGER NOT NULL, accepted_at INTEGER NOT NULL,
    tries INTEGER NOT NULL, next_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX copy_due ON copy (touchpoint, next_at);

-- What agents submitted in the last day, as a hash of (agent, return path, recipients, bytes): a client that lost our
-- 250 and comes again gets the first queue id. Found by digest in the writer's memory (outbox_accept.py).
CREATE TABLE submitted (outbox INTEGER PRIMARY KEY, digest BLOB NOT NULL, at INTEGER NOT NULL);

-- What a provider's EHLO said last. server: which one said it; size: bytes, NULL: it did not say.
CREATE TABLE offer (
    touchpoint TEXT PRIMARY KEY, server TEXT NOT NULL, size INTEGER, eight_bit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL, dsn INTEGER NOT NULL, seen_at INTEGER NOT NULL) WITHOUT ROWID;

-- A recipient that a report says has not got the message after all. text: one plain sentence; message: the report.
CREATE TABLE bounced (
    outbox INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL, message INTEGER NOT NULL,
    PRIMARY KEY (outbox, number)) WITHOUT ROWID;

-- Addresses that bounced for good. text: one plain sentence; outbox: what bounced, NULL: not known.
CREATE TABLE hard_bounce (
    touchpoint TEXT NOT NULL, address TEXT NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL, outbox INTEGER,
    PRIMARY KEY (touchpoint, address)) WITHOUT ROWID;

-- Whose mail no longer reaches queues. touchpoint: '' for all. pattern: an address or *@domain, in lower case. agent:
-- who blocked it ('' on the command line); message: because of which one. hits: messages that it has kept away since.
CREATE TABLE block (
    touchpoint TEXT NOT NULL, pattern TEXT NOT NULL, agent TEXT NOT NULL, at INTEGER NOT NULL, message INTEGER,
    hits INTEGER NOT NULL DEFAULT 0, hit_at INTEGER,
    PRIMARY KEY (touchpoint, pattern)) WITHOUT ROWID;

-- Who has written to a touchpoint as a person, or has been written to from it; address in lower case.
CREATE TABLE correspondent (
    touchpoint TEXT NOT NULL, address TEXT NOT NULL, first_at INTEGER NOT NULL,
    PRIMARY KEY (touchpoint, address)) WITHOUT ROWID;

-- When a sender was last answered automatically, and by which outgoing message. The row is there before the answer is.
CREATE TABLE answered (
    touchpoint TEXT NOT NULL, address TEXT NOT NULL, at INTEGER NOT NULL, outbox INTEGER NOT NULL,
    PRIMARY KEY (touchpoint, address)) WITHOUT ROWID;

-- What a person's judgement still has to teach the scanner. spam: 1 it is, 0 it is not.
CREATE TABLE lesson (
    message INTEGER PRIMARY KEY, spam INTEGER NOT NULL, tries INTEGER NOT NULL, next_at INTEGER NOT NULL);

-- Numbers that belong to the whole store: epoch (rises with each restore; folders' UIDVALIDITY is made of it),
-- restored_at, backed_up_at (ms; of the backup that was restored), delayed (the youngest outgoing message that a notice
-- of delay has been thought about), answer_key (a secret number, by which automatic answers know each other).
CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO mark (name, value) VALUES ('epoch', 1);

-- What the gateway knows of an agent beyond the file. password_hash: stored by `passwd`.
CREATE TABLE agent (login TEXT PRIMARY KEY, password_hash TEXT, last_login_at INTEGER, failures INTEGER NOT NULL)
    WITHOUT ROWID;
"""


@STEPS(name="001")
def first(db: Database) -> None:
    for statement in _statements(_V1):
        db.conn.execute(statement)


def migrate(connection: sqlite3.Connection, report: Callable[[str], None]) -> None:
    """Bring the schema to the newest step, one transaction a step; `report` hears the name of each.

    Raises Unavailable for a schema that is newer than ours.
    """
    db = Database(connection, recursive_triggers=False)
    pending = [step.name for step in STEPS.pending(db)]
    known = set(pending) | {step.name for step in STEPS.applied(db)}
    if unknown := sorted(known - {step.name for step in STEPS._migrations}):
        raise Unavailable(
            f"the store has schema {unknown[-1]}, which this mail-gateway does not know; "
            "run the newer version again, or restore a backup"
        )
    for name in pending:
        report(name)
    STEPS.apply(db)


def _statements(script: str) -> list[str]:
    # executescript() would commit the open transaction first, and a step must be whole or absent
    statements, gathered = [], ""
    for line in script.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered) and gathered.strip():
            statements.append(gathered)
            gathered = ""
    return statements
