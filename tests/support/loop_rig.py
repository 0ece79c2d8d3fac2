"""Everybody who answers by himself, pointed at everybody else, through one real SMTP server.

Two gateways, each with a daemon and an agent of its own; a Dovecot with Pigeonhole's vacation; an Exchange-style
out-of-office; a responder that takes itself for a person; one that changes its address each time; one that sends back
what it gets; an address that is refused at once and one that bounces later. A Postfix carries all mail and gives a copy
of it to the onlooker, from which all is judged.
"""

from __future__ import annotations

import itertools
import smtplib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.ledger import subject_of
from tests.support.letters import message_id
from tests.support.loops import Evidence, Sighting
from tests.support.pigeonhole import Pigeonhole
from tests.support.postfix import Postfix
from tests.support.responders import Responder, echo, naive, out_of_office, shifting
from tests.support.scripted import ScriptedProvider
from tests.support.waiting import wait_until

HOLIDAY, OFFICE, NAIVE = "holiday@pigeon.example", "clara@office.example", "sales@naive.example"
SHIFTING, ECHO = "first@shifting.example", "wall@echo.example"
REFUSED, LATER = "refused@clients.example", "gone@bouncing.example"
PARTNERS: Final = (HOLIDAY, OFFICE, NAIVE, ECHO, REFUSED, LATER)
_ONLOOKER: Final = "onlooker@wire.example"
_AGENT: Final = "agent@gateway.example"
_PASSWORD: Final = "secret"
_TURNS: Final = 4  # to write, in a period


@dataclass(frozen=True)
class Member:
    """A touchpoint: `partners` write to it and hear from its agent. `most`: automatic answers an hour."""

    id: str
    provider: str
    partners: tuple[str, ...]
    on: str
    most: int = 10_000

    @property
    def address(self) -> str:
        return f"team@{self.id}.example"


ALPHA = Member("alpha", "custom", ("team@beta.example", *PARTNERS), "every-message")
BETA = Member("beta", "fastmail", ("team@alpha.example", *PARTNERS), "new-conversation")  # with a return path
GAMMA = Member("gamma", "custom", (SHIFTING, HOLIDAY), "every-message", most=12)
GATEWAYS: Final[Mapping[str, Sequence[Member]]] = {"one": (ALPHA, GAMMA), "two": (BETA,)}
MEMBERS: Final = {member.address: member for members in GATEWAYS.values() for member in members}


class LoopRig:
    """`every`: seconds, of all that remember whom they have answered."""

    def __init__(
        self, authority: Authority, make_daemon: Callable[[Site], Daemon], every: int, directory: Path
    ) -> None:
        self.every = every
        self.wrote: Counter[tuple[str, str]] = Counter()  # people, by author and recipient
        self._numbers = itertools.count(1)
        self._wire = ScriptedProvider()
        users = {address: _PASSWORD for address in (*MEMBERS, HOLIDAY)}
        self._dovecot = Pigeonhole(users, authority.issue("loop-imap"))
        self._postfix = Postfix(self._dovecot, authority.issue("loop-smtp"))
        self._responders = {
            OFFICE: Responder(out_of_office(every), self._postfix.mx_port),
            NAIVE: Responder(naive, self._postfix.mx_port),
            SHIFTING: Responder(shifting, self._postfix.mx_port),
            ECHO: Responder(echo, self._postfix.mx_port),
        }
        self._refusing = ScriptedProvider(lambda phase, *_: "550 5.1.1 no such person" if phase == "rcpt" else None)
        servers = {address: one.server for address, one in self._responders.items()}
        servers |= {_ONLOOKER: self._wire, LATER: self._refusing}
        lines = [f"{{{_domain(address)} = smtp:[127.0.0.1]:{one.port}}}" for address, one in servers.items()]
        self._postfix.set(
            transport_maps=f"inline:{{ {', '.join(lines)} }}",
            always_bcc=_ONLOOKER,
            smtpd_discard_ehlo_keywords="dsn",  # so that nobody can ask it to be silent about what it cannot deliver
        )
        self._dovecot.let_answer(self._postfix.mx_port, {HOLIDAY: every})
        self._secret = directory / "secret"
        self._secret.write_text(_PASSWORD)
        self.daemons: dict[str, Daemon] = {}
        self._of: dict[str, Daemon] = {}
        for name, members in GATEWAYS.items():
            daemon = make_daemon(self._site(name, members))
            self.daemons[name] = daemon
            self._of |= {member.address: daemon for member in members}

    def _site(self, name: str, members: Sequence[Member]) -> Site:
        site = Site([self._touchpoint(member) for member in members])
        site.gateway = {"hostname": f"{name}.gateway.example", "inbound": {"authentication": "provider"}}
        site.add_agent(_AGENT, _PASSWORD, [], touchpoints=[member.address for member in members])
        return site

    def _touchpoint(self, member: Member) -> dict[str, Any]:
        return {
            "id": member.id,
            "address": member.address,
            "name": f"Team {member.id.title()}",
            "active": True,
            "direction": "both",
            "provider": member.provider,
            "linked_queues": [member.id],
            "password": f"file:{self._secret}",
            "imap": f"imap+insecure://127.0.0.1:{self._dovecot.imap_port}",
            "smtp": f"smtp+insecure://127.0.0.1:{self._postfix.plain_port}",
            "auto_reply": {
                "active": True,
                "subject": "Auto: {{ subject }}",
                "html": "<p>Dear {{ sender.name | default('customer') }}, we have your message and shall answer.</p>",
                "on": member.on,
                "every": f"{self.every} s",
                "most_per_hour": member.most,
            },
        }

    def start(self) -> None:
        self._dovecot.start()  # first: a Postfix that finds nobody to ask about logins thinks it over for a minute
        self._postfix.start()
        for daemon in self.daemons.values():
            daemon.start()
        for name, members in GATEWAYS.items():
            self.daemons[name].wait_connected(*(member.id for member in members))

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.close()
        for responder in self._responders.values():
            responder.close()
        self._postfix.close()
        self._dovecot.close()
        self._wire.close()
        self._refusing.close()

    # --- what people write -------------------------------------------------------------------------------------------

    def play(self, periods: int) -> None:
        """Everybody writes to everybody whom he knows, some times in each period; in the middle of it the gateways are
        killed. Then wait until no more is said.
        """
        began = time.monotonic()
        for turn in range(periods * _TURNS):
            time.sleep(max(0.0, began + turn * self.every / _TURNS - time.monotonic()))
            if turn == periods * _TURNS // 2:
                self.crash()
            self.write()
        self.wait_for_silence()

    def crash(self) -> None:
        for name, daemon in self.daemons.items():
            daemon.kill()
            daemon.start()
            daemon.wait_connected(*(member.id for member in GATEWAYS[name]))

    def write(self) -> None:
        """Everybody writes to everybody, a conversation of its own each time."""
        for address, member in MEMBERS.items():
            for partner in member.partners:
                if partner not in MEMBERS:
                    self._write(partner, address, self._postfix.mx_port)
            with self._of[address].submit(_AGENT, _PASSWORD) as session:
                for partner in member.partners:
                    self._write(address, partner, session)
        for author, recipient in ((HOLIDAY, OFFICE), (OFFICE, HOLIDAY)):
            self._write(author, recipient, self._postfix.mx_port)

    def _write(self, author: str, recipient: str, through: int | smtplib.SMTP) -> None:
        number = next(self._numbers)
        self.wrote[author, recipient] += 1
        raw = (
            f"From: {author}\r\nTo: {recipient}\r\nSubject: Question {number}\r\n"
            f"Message-ID: <person.{number}@{_domain(author)}>\r\n"
            f"Date: {formatdate()}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            f"What about number {number}?\r\n"
        ).encode()
        if isinstance(through, smtplib.SMTP):
            through.sendmail(author, [recipient], raw)
            return
        with smtplib.SMTP("127.0.0.1", through, timeout=30) as session:
            session.sendmail(author, [recipient], raw)

    def wait_for_silence(self, seconds: float = 3.0, timeout: float = 60.0) -> None:
        """Until nothing was said for so long; who talks on and on fails."""
        last, since = -1, time.monotonic()

        def is_silent() -> bool:
            nonlocal last, since
            if len(self._wire.taken) != last or not self._postfix.is_empty():
                last, since = len(self._wire.taken), time.monotonic()
            return time.monotonic() - since > seconds

        wait_until(is_silent, "nobody talks any more", timeout=timeout, every=0.2, state=self.tail)

    def answered(self, whom: str) -> dict[str, list[float]]:
        """Return when each touchpoint has decided to answer somebody automatically, in seconds, by its gateway's log:
        what is refused at once never passes.
        """
        found: dict[str, list[float]] = {}
        for daemon in self.daemons.values():
            for event in daemon.events("answered"):
                if event["to"] == f"<{whom}>":
                    at = datetime.fromisoformat(event["timestamp"]).timestamp()
                    found.setdefault(event["touchpoint"], []).append(at)
        return found

    def told(self, name: str) -> Counter[str]:
        """Return what a gateway has told its agent, by the subject's first word."""
        queue = f"agent:{_AGENT}"
        return Counter(
            one["subject"].split()[0] for one in self.daemons[name].conversations() if queue in one["queues"]
        )

    @property
    def passed(self) -> int:
        return len(self._wire.taken)

    def troubles(self) -> list[str]:
        """Return what the responders could not send, and what the gateways take for faults of theirs."""
        troubles = [trouble for one in self._responders.values() for trouble in one.troubles]
        for daemon in self.daemons.values():
            troubles += [line for line in daemon.log.read_text().splitlines() if "Traceback" in line]
        return troubles

    def tail(self) -> str:
        return "\n".join(f"<{one.return_path}> {subject_of(one.raw)}" for one in self._wire.taken[-20:])

    # --- what the wire saw -------------------------------------------------------------------------------------------

    def evidence(self) -> Evidence:
        routes = self._postfix.routes()
        sightings = []
        for taken in self._wire.taken:
            recipients = tuple(to for to in routes[message_id(taken.raw)] if to != _ONLOOKER)
            sightings.append(Sighting(taken.at, taken.return_path, recipients, taken.raw))
        due = {(address, partner) for address, member in MEMBERS.items() for partner in member.partners}
        return Evidence(
            sightings,
            ours={address: member.most for address, member in MEMBERS.items()},
            every=self.every,
            due={(who, whom) for who, whom in due if whom != REFUSED},  # an answer to it never passes
            strangers=("echo",),
        )


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
