"""A zone file as a dict that answers questions: the DNS of tests that need no server."""

from __future__ import annotations

from collections.abc import Collection

import dns.rdatatype
import dns.zone

from gateway.rules.dns import Answer, Kind, Question, Unanswered

_HEAD = "$TTL 300\n. IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 60\n. IN NS ns.invalid.\n"


class Zone:
    """`records`: lines of a zone file with absolute names. `broken`: names whose question is never answered, with all
    that lies below. `asked`: what was asked for, in order.
    """

    def __init__(self, records: str, broken: Collection[str] = ()) -> None:
        zone = dns.zone.from_text(_HEAD + records, origin=".", relativize=False, check_origin=False)
        self._answers: dict[Question, Answer] = {}
        self._broken = tuple(broken)
        self.asked: list[Question] = []
        for name, found in zone.iterate_rdatasets():
            if dns.rdatatype.to_text(found.rdtype) not in Kind.__members__:
                continue
            kind = Kind(dns.rdatatype.to_text(found.rdtype))
            question = Question(name.to_text(omit_final_dot=True).lower(), kind)
            if kind is Kind.TXT:
                answer = [b"".join(one.strings).decode("latin-1") for one in found]
            elif kind is Kind.MX:
                answer = [one.exchange.to_text(True) for one in sorted(found, key=lambda one: one.preference)]
            elif kind is Kind.PTR:
                answer = [one.target.to_text(True) for one in found]
            else:
                answer = [one.address for one in found]
            self._answers[question] = tuple(answer)

    def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        if any(question.name == name or question.name.endswith("." + name) for name in self._broken):
            raise Unanswered(f"nobody answers for {question.name}")
        return self._answers.get(question, ())
