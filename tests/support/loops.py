"""The count at the end of a loop: which automatic answers the wire has seen, and whether any of ours was one too many.

Pure: plain values in, a table and complaints out.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses, parseaddr, parsedate_to_datetime
from typing import Final

Pair = tuple[str, str]
"""Who answers automatically, and who gets the answer."""


@dataclass(frozen=True)
class Sighting:
    """A message as it passed. `at`: Unix seconds. `return_path`: "" is the null one. `recipients`: of the envelope."""

    at: float
    return_path: str
    recipients: tuple[str, ...]
    raw: bytes

    @property
    def head(self) -> Message:
        return message_from_bytes(self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")


@dataclass(frozen=True)
class Evidence:
    """`ours`: our addresses, each with how many answers it may give at most. `every`: seconds.

    `due`: pairs of which the second wrote to the first as people do. `strangers`: whom nobody may answer, by the
    beginning of the address.
    """

    sightings: Sequence[Sighting]
    ours: Mapping[str, int]
    every: float
    due: Collection[Pair] = ()
    strangers: Collection[str] = ()


@dataclass
class Verdict:
    """`answers`: when each pair's automatic answers were written, by their Date. `wrong`: one sentence each."""

    answers: dict[Pair, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def table(self, every: float, more: Mapping[str, object] | None = None) -> str:
        """Return a line for each pair: how many answers, and how many there were in one period at most."""
        titles = ("who answers", "whom", "answers", "most in a period", "shortest gap")
        rows = [titles]
        for (who, whom), times in sorted(self.answers.items()):
            gaps = [b - a for a, b in itertools.pairwise(times)]
            gap = f"{min(gaps):.0f} s" if gaps else "-"
            rows.append((who, whom, str(len(times)), str(most_within(times, every - _SLACK)), gap))
        widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
        lines = ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)) for row in rows]
        lines += [f"{name}: {value}" for name, value in (more or {}).items()]
        return "\n".join(["", *(f"    {line.rstrip()}" for line in lines)])


def most_within(times: Sequence[float], seconds: float) -> int:
    """Return the largest number of `times` (ascending) in any stretch shorter than `seconds`."""
    return max((sum(start <= at < start + seconds for at in times) for start in times), default=0)


_SLACK: Final = 1.0  # seconds; an answer is written a moment before it is claimed, and Date has no fractions
_LATE: Final = 30.0  # seconds from Date to the wire, a restart included
_AUTOMATIC: Final = {"auto-submitted": "auto-replied", "x-auto-response-suppress": "All"}


def judge(evidence: Evidence) -> Verdict:
    """Hold what passed against RFC 3834 and what we promise: at most one answer per pair and period."""
    return _Judge(evidence).judge()


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self._of = evidence
        self._wrong: list[str] = []
        self._by_id: dict[str, Sighting] = {}

    def judge(self) -> Verdict:
        answers: dict[Pair, list[float]] = defaultdict(list)
        for one in sorted(self._of.sightings, key=lambda sighting: sighting.at):
            head = one.head
            if is_automatic(head):
                who = parseaddr(head["From"])[1].lower()
                for whom in one.recipients:
                    answers[who, whom.lower()].append(written_at(head))
                if who in self._of.ours:
                    self._answer(who, one, head)
                self._provoked(who, head)
            if head["Message-ID"] in self._by_id:
                self._say("passed twice", f"{head['Message-ID']} of {head['From']}")
            self._by_id[head["Message-ID"]] = one
        for pair, times in answers.items():
            times.sort()
            if pair[0] in self._of.ours:
                self._pair(pair, times)
        for who, most in self._of.ours.items():
            given = sum(len(times) for pair, times in answers.items() if pair[0] == who)
            if given > most:
                self._say("too many", f"{who} has given {given} answers, and may give {most}")
        for pair in self._of.due:
            if pair not in answers:
                self._say("silent", f"{pair[0]} has never answered {pair[1]}")
        return Verdict(dict(answers), self._wrong)

    def _say(self, what: str, trouble: str) -> None:
        self._wrong.append(f"{what}: {trouble}")

    def _pair(self, pair: Pair, times: Sequence[float]) -> None:
        every = self._of.every
        story = f"{pair[0]} to {pair[1]} at {[at - times[0] for at in times]}"
        if most_within(times, every - _SLACK) > 1:
            self._say("twice in a period", story)
        elif len(times) > (times[-1] - times[0] + _SLACK) // every + 1:  # a little too soon, again and again
            self._say("more than periods", story)

    def _answer(self, who: str, one: Sighting, head: Message) -> None:
        """What each automatic answer of ours must look like, and what it may answer."""
        story = f"{head['Message-ID']} of {who} to {one.recipients}"
        for name, value in _AUTOMATIC.items():
            if head[name] != value:
                self._say("unmarked", f"{story}: {name}: {head[name]}")
        if not -_SLACK <= one.at - written_at(head) <= _LATE:
            self._say("misdated", f"{story}: {head['Date']}")
        if one.return_path not in ("", who):
            self._say("return path", f"{story}: <{one.return_path}>")
        if len(one.recipients) != 1 or [address for _, address in getaddresses([head["To"]])] != [*one.recipients]:
            self._say("recipients", f"{story}, by its header to {head['To']}")
        if any(whom.startswith(stranger) for whom in one.recipients for stranger in self._of.strangers):
            self._say("answered its own echo", story)
        asked = self._by_id.get(head["In-Reply-To"])
        if asked is None or head["In-Reply-To"] not in (head["References"] or "").split():
            self._say("out of the blue", f"{story}: {head['In-Reply-To']} has not passed, or is not among References")
        elif asked.return_path != (one.recipients or ("",))[0]:
            self._say("somebody else", f"{story}: what it answers came from <{asked.return_path}>")
        elif is_automatic(asked.head):
            self._say("answered a machine", f"{story}: {asked.head['Subject']} of {asked.head['From']}")

    def _provoked(self, who: str, head: Message) -> None:
        """A well-behaved machine has answered what is marked as an automatic answer: its marks were not good enough."""
        asked = self._by_id.get(head["In-Reply-To"])
        if asked is None or who in self._of.ours:
            return
        author = parseaddr(asked.head["From"])[1].lower()
        if author in self._of.ours and is_automatic(asked.head):
            self._say("provoked a machine", f"{who} has answered {asked.head['Message-ID']} of {author}")


def written_at(head: Message) -> float:
    """Return Date in Unix seconds."""
    return parsedate_to_datetime(head["Date"]).timestamp()


def is_automatic(head: Message) -> bool:
    """Whether a message says of itself that no person has sent it (RFC 3834 §5)."""
    return str(head["Auto-Submitted"] or "no").partition(";")[0].strip().lower() != "no"
