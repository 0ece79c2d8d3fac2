"""The count at the end of a storm: what agents were promised, what the provider's ledger has, what the outbox says.

Pure: plain values in, numbers and complaints out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.moody import Attempt, Entry
from tests.support.writers import Submission

_WAITING: Final = ("queued", "deferred", "held")
_REFUSED_KINDS: Final = ("nobody", "spam")  # what a `MoodyProvider` refuses for good


@dataclass(frozen=True)
class Evidence:
    """What is known when it is over.

    `listed`: `outbox list --all --json`. `entries`, `begun`, `cut`, `unread`: of all providers' ledgers. `killed`:
    attempts that stood in `sending` when the daemon was killed. `doubted`: attempts that were ever uncertain;
    `doubtful`: those that are still. `bounced`: how often a DSN says that (queue id, recipient) failed. `cancelled`:
    queue ids that a person has asked to cancel.
    """

    submissions: Sequence[Submission]
    listed: Sequence[Mapping[str, Any]]
    entries: Sequence[Entry]
    begun: Mapping[Attempt, int]
    cut: Collection[Attempt]
    unread: Sequence[tuple[str, ...]]
    killed: Collection[Attempt]
    doubted: Collection[Attempt]
    doubtful: Collection[Attempt]
    bounced: Mapping[tuple[str, str], int]
    cancelled: Collection[str] = ()


@dataclass
class Reckoning:
    """`counts`: in the order in which they are printed. `wrong`: one sentence each."""

    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def table(self, more: Mapping[str, object] | None = None) -> str:
        rows: dict[str, object] = {**self.counts, **(more or {})}
        width = max(len(name) for name in rows)
        return "\n".join(["", *(f"    {name:<{width}}  {value}" for name, value in rows.items())])


def reckon(evidence: Evidence) -> Reckoning:
    """Hold the evidence against DESIGN §6: each accepted recipient once, or in sight with its reason, or bounced."""
    return _Reckoner(evidence).reckon()


class _Reckoner:
    def __init__(self, evidence: Evidence) -> None:
        self._of = evidence
        self._fates: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._taken: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in evidence.entries:
            self._taken[entry.message_id, entry.recipient].append(entry)
        self._rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in evidence.listed:
            self._rows[row["message_id"]].append(row)

    def reckon(self) -> Reckoning:
        for submission in self._of.submissions:
            self._submission(submission)
        self._strangers()
        self._attempts()
        return Reckoning(self._counts(), self._wrong)

    def _say(self, what: str, trouble: str) -> None:
        self._fates[what] += 1
        self._wrong.append(f"{what}: {trouble}")

    # --- one submission ----------------------------------------------------------------------------------------------

    def _submission(self, submission: Submission) -> None:
        who = f"number {submission.number} ({submission.touchpoint})"
        rows = self._rows[submission.message_id]
        known = {row["id"] for row in rows}
        if set(submission.ids) - known:
            self._say("forgotten", f"{who} was promised as {submission.ids} and is in no outbox")
        if any(reply.startswith("5") for reply in submission.replies):
            self._say("refused at the door", f"{who}: {submission.replies}")
        if len(rows) > 1 and not self._may_be_twice(rows):
            self._say("accepted twice", f"{who} was submitted {submission.sent} times and is there as {sorted(known)}")
        for recipient in submission.recipients:
            fates = [(row, one) for row in rows for one in row["recipients"] if one["address"] == recipient]
            self._recipient(f"{who} to {recipient}", submission, recipient, fates)

    def _may_be_twice(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """What had been refused to all recipients when it came again is a new message."""
        over = [{one["state"] for one in row["recipients"]} <= {"refused", "expired", "cancelled"} for row in rows]
        return sum(over) >= len(rows) - 1

    def _recipient(
        self, who: str, submission: Submission, address: str, fates: Sequence[tuple[Mapping[str, Any], Any]]
    ) -> None:
        taken = self._taken[submission.message_id, address]
        states = [one["state"] for _, one in fates]
        story = f"{who}: {states}, accepted {[f'{entry.queue_id}.{entry.attempt}' for entry in taken]}"
        if any(entry.body != submission.body for entry in taken):
            self._say("mangled", story)
        if len(taken) > 1:
            self._say("doubled", story)
        if not fates:
            if taken:
                self._say("sent and forgotten", story)
            self._fates["never accepted" if not submission.ids else "lost"] += 1
            if submission.ids:
                self._wrong.append(f"lost: {story}")
            return
        for row, one in fates:
            self._fate(story, address, row, one, taken)

    def _fate(
        self, story: str, address: str, row: Mapping[str, Any], one: Mapping[str, Any], taken: Sequence[Entry]
    ) -> None:
        state = one["state"]
        self._fates[state] += 1
        bounces = self._of.bounced.get((row["id"], address), 0)
        if state == "delivered":
            if not taken:
                self._say("lost", f"{story}: nobody has it")
        elif state == "refused":
            if address.partition(".")[0] not in _REFUSED_KINDS or taken:
                self._say("bounced without a cause", story)
            if bounces != 1:
                self._say("bounces", f"{story}: {bounces} bounces instead of one")
        elif state in _WAITING:
            if taken:
                self._say("doubled", f"{story}: they have it, and it is to be sent again")
            if state == "held" and not row["cause"]:
                self._say("held without a cause", story)
            if state == "deferred" and not (one["reply"] or row["cause"]):
                self._say("deferred without a reason", story)
        elif state == "cancelled":
            doubtful = {attempt[:2] for attempt in (*self._of.doubted, *self._of.killed) if attempt[2] == address}
            if row["id"] not in self._of.cancelled:
                self._say("cancelled by nobody", story)
            if any((entry.queue_id, entry.attempt) not in doubtful for entry in taken):
                self._say("cancelled and sent", story)
        elif state == "uncertain":
            if not one["reply"]:
                self._say("uncertain without a reason", story)
        else:
            self._say("in an odd state", story)
        if bounces and state != "refused":
            self._say("bounces", f"{story}: bounced")

    # --- all of them -------------------------------------------------------------------------------------------------

    def _strangers(self) -> None:
        known = {(one.message_id, recipient) for one in self._of.submissions for recipient in one.recipients}
        for key in self._taken.keys() - known:
            self._say("from nowhere", f"{key}: nobody has submitted it")
        for row in self._of.listed:
            addresses = {(row["message_id"], one["address"]) for one in row["recipients"]}
            if not addresses <= known:
                self._say("from nowhere", f"{row['id']} is in the outbox with {addresses - known}")

    def _attempts(self) -> None:
        for attempt, count in self._of.begun.items():
            if count > 1:
                self._say("attempts of one name", f"{attempt} began {count} times")
        excused = set(self._of.cut) | set(self._of.killed)
        unread = {recipient for recipients in self._of.unread for recipient in recipients}
        for attempt in {*self._of.doubted, *self._of.doubtful} - excused:
            if attempt[2] in unread:
                continue
            self._say("uncertain without need", f"{attempt} was neither cut behind the dot nor killed in `sending`")

    def _counts(self) -> dict[str, int]:
        of, fates = self._of, self._fates
        submissions = of.submissions
        states = ("delivered", "refused", "deferred", "held", "uncertain", "cancelled")
        wrongs = [name for name in fates if name not in (*states, "queued", "never accepted", "lost", "doubled")]
        return {
            "submissions": len(submissions),
            "with their 250": sum(bool(one.ids) for one in submissions),
            "whose 250 was lost": sum(one.sent > len(one.ids) for one in submissions),
            "submitted again": sum(one.sent > 1 for one in submissions),
            "recipients": sum(len(one.recipients) for one in submissions),
            **{state: fates[state] for state in states},
            "never accepted": fates["never accepted"],
            "bounced": sum(of.bounced.values()),
            "attempts": _messages(of.begun),
            "cut behind the dot": _messages(of.cut) + len(of.unread),
            "killed in `sending`": _messages(of.killed),
            "ever uncertain": _messages({*of.doubted, *of.killed}),
            "left uncertain": _messages(of.doubtful),
            "lost": fates["lost"],
            "doubled": fates["doubled"],
            **{name: fates[name] for name in wrongs},
        }


def _messages(attempts: Iterable[Attempt]) -> int:
    """How many attempts of messages these attempts of recipients are."""
    return len({(queue_id, number) for queue_id, number, _ in attempts})
