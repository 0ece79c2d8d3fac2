"""A listing → the steps that take it in: which messages are fetched together, which alone, which later.

No message stops a mailbox: what is known is passed, what is too large stays at the provider, and what has cost a
session is suspected, isolated, and in the end left for later, while all others flow on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Final

BATCH_BYTES: Final = 2 * 1024 * 1024
BATCH_MESSAGES: Final = 500
WINDOW_MESSAGES: Final = 2_000  # so many are listed with their sizes at a time
# A larger message comes in parts of this size, and is never whole in memory. Some servers build the whole anew for each
# part, so the parts are not small.
PART_BYTES: Final = 4 * 1024 * 1024
UNMENTIONABLE: Final = "the connection is lost whenever it is mentioned"
LOSES_SESSION: Final = "the connection is lost whenever it is fetched"  # a reason to owe a message

# A session that is lost while a batch is fetched puts its messages under suspicion: next time they come in small
# batches, then one by one, and one that loses the session again is left for later. No message stops the mailbox.
_SUSPECTS_TOGETHER: Final = 25
ALONE_FROM: Final = 2
_GIVEN_UP_FROM: Final = 4

# When to try again to fetch what could not be fetched
_RETRIES: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240))


@dataclass(frozen=True, slots=True)
class Planned:
    """A listed message. `follows`: the UID listed before it, or the cursor: the link of the chain (state.mailboxes)."""

    uid: int
    size: int
    follows: int


@dataclass(frozen=True, slots=True)
class Take:
    """Fetch these together. `in_parts`: it is one message, and a large one."""

    messages: tuple[Planned, ...]

    @property
    def total_bytes(self) -> int:
        return sum(message.size for message in self.messages)

    @property
    def in_parts(self) -> bool:
        return len(self.messages) == 1 and self.messages[0].size > PART_BYTES


@dataclass(frozen=True, slots=True)
class Pass:
    """Do not fetch these: they are known (`reason` None), or owed for a reason. `hopeless`: not by ourselves."""

    messages: tuple[Planned, ...]
    reason: str | None
    hopeless: bool = False


PlanStep = Take | Pass


def plan(
    largest: int, cursor: int, sizes: Sequence[tuple[int, int]], known: Collection[int], suspects: Mapping[int, int]
) -> Iterator[PlanStep]:
    """Yield the steps that bring the cursor over `sizes` ((uid, bytes), ascending, all above `cursor`).

    A Take has at most BATCH_BYTES, unless it is a single message; nothing above `largest` bytes is taken. Every
    message is in exactly one step, in order.
    """
    messages = [Planned(uid, size, before) for (before, _), (uid, size) in pairwise([(cursor, 0), *sizes])]
    batch: list[Planned] = []
    batch_bytes = 0
    batch_kind = ""
    for message in messages:
        kind = _kind(largest, message, known, suspects)
        limit = _batch_limit(kind, suspects.get(message.uid, 0))
        full = len(batch) >= limit or (kind.startswith("take") and batch_bytes + message.size > BATCH_BYTES)
        if batch and (kind != batch_kind or full):
            yield _step(batch_kind, batch)
            batch, batch_bytes = [], 0
        batch.append(message)
        batch_bytes += message.size
        batch_kind = kind
    if batch:
        yield _step(batch_kind, batch)


def unchained(step: PlanStep) -> PlanStep:
    """Return the step for messages that the cursor has passed already: taking them moves nothing."""
    return replace(step, messages=tuple(replace(message, follows=message.uid) for message in step.messages))


def split(step: Take, most_bytes: int) -> Iterator[Take]:
    """Yield the step in smaller ones of at most `most_bytes`, unless a single message is more."""
    batch: list[Planned] = []
    batch_bytes = 0
    for message in step.messages:
        if batch and batch_bytes + message.size > most_bytes:
            yield Take(tuple(batch))
            batch, batch_bytes = [], 0
        batch.append(message)
        batch_bytes += message.size
    if batch:
        yield Take(tuple(batch))


def accuse(suspects: Mapping[int, int], fetching: Iterable[int]) -> Mapping[int, int]:
    """Return the suspicions after a session was lost while these UIDs were fetched."""
    accused = dict(suspects)
    for uid in fetching:
        accused[uid] = accused.get(uid, 0) + 1
    return accused


def acquit(suspects: Mapping[int, int], cursor: int) -> Mapping[int, int]:
    """Return the suspicions without those that the cursor has passed."""
    return {uid: count for uid, count in suspects.items() if uid > cursor} if suspects else suspects


def groups(uids: Sequence[int], suspects: Mapping[int, int]) -> Iterator[Sequence[int]]:
    """Yield `uids` in the groups in which they may be asked about; who has cost too many sessions is in none."""
    calm = [uid for uid in uids if not suspects.get(uid)] if suspects else uids
    if calm:
        yield calm
    once = [uid for uid in uids if suspects.get(uid, 0) == 1] if suspects else []
    for start in range(0, len(once), _SUSPECTS_TOGETHER):
        yield once[start : start + _SUSPECTS_TOGETHER]
    for uid in uids if suspects else ():
        if ALONE_FROM <= suspects.get(uid, 0) < _GIVEN_UP_FROM:
            yield [uid]


def retry_after(tries: int) -> timedelta:
    """Return when to ask again for a message that could not be fetched `tries` times (from 1)."""
    return _RETRIES[min(max(tries, 1), len(_RETRIES)) - 1]


def _kind(largest: int, message: Planned, known: Collection[int], suspects: Mapping[int, int]) -> str:
    if message.uid in known:
        return "known"
    if message.size > largest:
        return "large"
    strikes = suspects.get(message.uid, 0)
    if strikes >= _GIVEN_UP_FROM:
        return "suspect"
    if message.size > PART_BYTES:
        return "take in parts"
    return "take" if strikes == 0 else f"take {min(strikes, ALONE_FROM)}"


def _batch_limit(kind: str, strikes: int) -> int:
    if kind == "take in parts":
        return 1
    if not kind.startswith("take") or not strikes:
        return BATCH_MESSAGES
    return 1 if strikes >= ALONE_FROM else _SUSPECTS_TOGETHER


def _step(kind: str, batch: Sequence[Planned]) -> PlanStep:
    messages = tuple(batch)
    if kind == "known":
        return Pass(messages, None)
    if kind == "large":
        return Pass(messages, "larger than inbound.max_message_size", hopeless=True)
    if kind == "suspect":
        return Pass(messages, LOSES_SESSION)
    return Take(messages)
