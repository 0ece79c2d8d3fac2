"""The outbound path with one promise taken out, to see that the rig notices. Each function changes the running code of
a forked daemon (`changes` of `tests/support/rig.py`), so that the product needs no switch for it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import Any

from gateway.inbound import evidence
from gateway.model import Reply
from gateway.outbound import pool
from gateway.state import outbox, outbox_accept
from gateway.state.lifecycle import Event, State


def begin_in_memory_only() -> None:
    """DATA follows a `sending` that is on no disk; it is written down when the answer is there."""
    honest = outbox.step

    def begin_data(db: sqlite3.Connection, items: Sequence[Any]) -> Sequence[bool]:
        return [True] * len(items)

    def step(db: sqlite3.Connection, steps: Sequence[Any]) -> Any:
        late = [
            (State.SENDING.value, each.done.id, fated.number, each.done.attempt)
            for each in steps
            if each.done is not None
            for fated in each.done.fated
            if fated.before is State.SENDING
        ]
        db.executemany("UPDATE recipient SET state = ? WHERE outbox = ? AND number = ? AND attempt = ?", late)
        plain = [
            each if each.want is None else dataclasses.replace(each, want=dataclasses.replace(each.want, begin=False))
            for each in steps
        ]
        return honest(db, plain)

    outbox.begin_data, outbox.step = begin_data, step


def send_again_after_a_crash() -> None:
    """What was `sending` when the daemon died is taken for not sent."""

    def recover(db: sqlite3.Connection, starts: Sequence[int]) -> Sequence[int]:
        for now in starts:
            db.execute("UPDATE recipient SET state = 'deferred', next_attempt_at = ? WHERE state = 'sending'", (now,))
        return [0] * len(starts)

    outbox.recover = recover


def send_again_after_a_cut() -> None:
    """A link that is cut behind the dot is taken for one that was cut before it."""
    honest: Any = vars(pool)["conclude"]

    def conclude(*arguments: Any, **options: Any) -> Any:
        done = honest(*arguments, **options)
        fated = tuple(
            dataclasses.replace(each, event=Event.CUT_BEFORE_DOT, next_attempt_at=done.at)
            if each.event is Event.INTERRUPTED
            else each
            for each in done.fated
        )
        return dataclasses.replace(done, fated=fated)

    vars(pool)["conclude"] = conclude


def believe_in_the_answer() -> None:
    """What went out with its dot is written down as taken, whether an answer came or not."""
    honest: Any = vars(pool)["decide"]

    def decide(transcript: Any, **options: Any) -> Any:
        if transcript.dotted and transcript.dot is None:
            transcript = dataclasses.replace(transcript, dot=Reply(250, "2.0.0", "surely"), lost=None)
        return honest(transcript, **options)

    vars(pool)["decide"] = decide


def recognise_nothing() -> None:
    """A submission that comes again is a new one."""
    outbox_accept._recognise = lambda db, items: [outbox.Accepted(item.submission.id) for item in items]


def promise_more_than_is_kept() -> None:
    """Large submissions get their 250 and go nowhere."""
    honest = outbox_accept._insert

    def insert(db: sqlite3.Connection, items: Sequence[Any]) -> None:
        honest(db, [item for item in items if len(item.submission.raw) < 10_000])

    outbox_accept._insert = insert


def keep_bounces_to_ourselves() -> None:
    honest = outbox.step

    def silent(step: Any) -> Any:
        return step if step.done is None else dataclasses.replace(step, done=dataclasses.replace(step.done, notices=()))

    def step(db: sqlite3.Connection, steps: Sequence[Any]) -> Any:
        return honest(db, [silent(each) for each in steps])

    outbox.step = step


def believe_in_any_copy() -> None:
    """A copy with the Message-ID, or none at all, counts as evidence."""
    evidence.judge = lambda *arguments: evidence.Settled(sent=True)


def believe_in_the_first_look() -> None:
    """What does not lie in Sent when we look for the first time has not been sent."""

    def judge(doubt: Any, sight: Any, now: int, provider_files: bool) -> evidence.Settled:
        return evidence.Settled(sent=doubt.attempt in sight.attempts.get(doubt.outbox, ()))

    evidence.judge = judge
