"""The whole job on real servers: Dovecot and Postfix are the provider, the daemon is the one that is installed.

500 letters come in, 200 replies go out, while the provider's SMTP server and then its IMAP server are away for a while
and the daemon is killed without warning.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter, message_id, repeated
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

TEAMS = ("support", "billing", "sales")
AGENTS = {"ana@gateway.example": "support", "ben@gateway.example": "billing", "cleo@gateway.example": "sales"}
CONNECTIONS = 2  # of each touchpoint to its provider


@dataclass
class Outgoing:
    """What agents' clients were told. `accepted`: Message-IDs behind a 250; `unanswered`: cut before an answer came."""

    accepted: dict[str, str] = field(default_factory=dict)  # Message-ID → agent
    unanswered: dict[str, str] = field(default_factory=dict)


def reply_of(agent: str, number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"{AGENTS[agent]}@support.example"
    message["To"] = CUSTOMER
    message["Subject"] = f"Your order {number}"
    message["Message-ID"] = f"<reply.{number}@{agent}>"
    message["Date"] = "Mon, 23 Nov 2026 11:00:00 +0000"
    message.set_content(f"Dear customer,\n\nyour order {number} is on its way.\n")
    if number % 2:  # as most clients write
        message.add_alternative(f"<html><body><p>your order {number} is on its way.</p></body></html>", subtype="html")
    return message


class Client:
    """An agent's mail client: sends what it is given, over one connection while that lasts, until each has a 250."""

    def __init__(self, daemon: Daemon, agent: str, outgoing: Outgoing) -> None:
        self._daemon, self._agent, self._outgoing = daemon, agent, outgoing
        self._numbers = iter(range(10_000))
        self._session: smtplib.SMTP | None = None

    def send(self, count: int) -> None:
        """Return when `count` messages were accepted. One whose answer never came is not sent again, but replaced."""
        while count:
            message = reply_of(self._agent, next(self._numbers))
            try:
                if self._session is None:
                    self._session = self._daemon.submit(self._agent, f"password of {self._agent}")
            except OSError:
                time.sleep(0.1)  # the daemon is being restarted; clients try again too
                continue
            try:
                self._session.send_message(message)
            except smtplib.SMTPResponseException:
                raise
            except (OSError, smtplib.SMTPServerDisconnected):
                self._outgoing.unanswered[message["Message-ID"]] = self._agent
                self._session = None
                continue
            self._outgoing.accepted[message["Message-ID"]] = self._agent
            count -= 1

    def close(self) -> None:
        if self._session is not None:
            with contextlib.suppress(smtplib.SMTPException):
                self._session.quit()
            self._session = None


def the_site(provider: Provider) -> Site:
    site = Site()
    for team in TEAMS:
        signature = {
            "active": True,
            "text": f"{{{{ agent.name }}}} of {team}",
            "html": f"<p><b>{{{{ agent.name }}}}</b> of {team}</p>",
        }
        pace = {"connections": CONNECTIONS}
        site.touchpoints.append(provider.touchpoint(team, "both", signature=signature, pace=pace))
    for agent, team in AGENTS.items():
        site.add_agent(agent, f"password of {agent}", [team])
    site.rules.append({"name": "invoices", "if": {"subject": "*invoice*"}, "then": {"queue": "invoices"}})
    site.add_agent("dora@gateway.example", "password of dora", ["invoices"])
    return site


@pytest.mark.timeout(280)
def test_500_come_in_and_200_go_out_each_once_through_two_outages_and_a_kill(
    provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(the_site(provider))
    daemon.start()
    daemon.wait_connected(*TEAMS)
    outgoing = Outgoing()
    clients = [Client(daemon, agent, outgoing) for agent in AGENTS]
    incoming = Incoming(provider)

    with everything_moves(clients, (30, 30, 30), incoming, 200):
        pass  # a quiet day

    with everything_moves(clients, (20, 20, 20), incoming, 100):
        provider.postfix.stop()
    wait_until(lambda: count_open(daemon) > 0, "mail waits for the provider's SMTP server")
    provider.dovecot.stop()
    for client in clients:
        client.send(3)  # neither server is there, and agents notice nothing
    provider.dovecot.start()
    provider.postfix.start()
    assert daemon.run("outbox", "retry", "--all").returncode == 0

    with everything_moves(clients, (13, 13, 15), incoming, 200) as moving:
        while len(outgoing.accepted) < 180 and moving():
            time.sleep(0.001)
        assert moving(), "the kill came too late to hurt"
        daemon.kill()
        daemon.start()
    for client in clients:
        client.close()

    assert len(outgoing.accepted) == 200
    assert_each_came_in_once(daemon, incoming)
    assert_each_went_out_once(daemon, provider, outgoing)
    assert daemon.stop() == 0


class Incoming:
    """Customers' letters, handed to the provider by LMTP. `expected`: Message-ID → the queue that must have it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.expected: dict[str, str] = {}

    def deliver(self, count: int) -> None:
        first = len(self.expected)
        for team_number, team in enumerate(TEAMS):
            letters = []
            for number in range(first, first + count):
                if number % len(TEAMS) != team_number:
                    continue
                raw = letter(number, "invoice" if number % 5 == 0 else "question", to=f"{team}@support.example")
                self.expected[message_id(raw)] = "invoices" if number % 5 == 0 else team
                letters.append(raw)
            self._provider.dovecot.deliver(f"{team}@support.example", *letters)


@contextlib.contextmanager
def everything_moves(
    clients: list[Client], counts: tuple[int, ...], incoming: Incoming, letters: int
) -> Iterator[Callable[[], bool]]:
    """Agents send and customers write while the body runs; ends when all are through."""
    with ThreadPoolExecutor(len(clients) + 1) as pool:
        work = [pool.submit(client.send, count) for client, count in zip(clients, counts, strict=True)]
        work.append(pool.submit(incoming.deliver, letters))
        yield lambda: not all(task.done() for task in work)
        for task in work:
            task.result()


def count_open(daemon: Daemon) -> int:
    return len(daemon.ask("outbox.list"))


def assert_each_came_in_once(daemon: Daemon, incoming: Incoming) -> None:
    def all_are_there() -> bool:
        return sum(len(conversation["message_ids"]) for conversation in daemon.conversations()) >= 500

    wait_until(all_are_there, "500 letters in the queues", timeout=60, every=0.5, state=daemon.log_tail)
    conversations = daemon.conversations()
    assert repeated(id for conversation in conversations for id in conversation["message_ids"]) == {}
    found = {id: conversation["queues"] for conversation in conversations for id in conversation["message_ids"]}
    assert found == {id: [queue] for id, queue in incoming.expected.items()}


def assert_each_went_out_once(daemon: Daemon, provider: Provider, outgoing: Outgoing) -> None:
    def all_is_settled() -> bool:
        states = [recipient["state"] for message in daemon.ask("outbox.list") for recipient in message["recipients"]]
        return all(state == "uncertain" for state in states)

    def retry() -> bool:
        # what was refused a connection waits minutes by itself; an operator who knows better says so
        daemon.ask("outbox.retry", all=True)
        return all_is_settled()

    wait_until(retry, "the outbox is settled", timeout=60, every=1, state=lambda: daemon.ask("outbox.list"))
    wait_until(provider.postfix.is_empty, "postfix has handed everything over", timeout=60, every=0.2)

    fates = states_by_message_id(daemon.outbox())
    assert set(outgoing.accepted) <= set(fates), "a promise was broken"
    assert set(fates) <= set(outgoing.accepted) | set(outgoing.unanswered)
    uncertain = {id for id, state in fates.items() if state == "uncertain"}
    assert len(uncertain) <= CONNECTIONS * len(TEAMS)
    assert {state for id, state in fates.items() if id not in uncertain} == {"delivered"}

    arrived = provider.dovecot.messages(CUSTOMER)
    handed_over = {(message_id(raw), postfix_id(raw)) for raw in arrived}  # postfix itself may repeat over LMTP
    copies = [id for id, _ in handed_over]
    assert repeated(copies) == {}
    assert set(fates) - uncertain <= set(copies)
    everyone = outgoing.accepted | outgoing.unanswered
    for raw in arrived:
        assert_signature(raw, everyone[message_id(raw)])


def states_by_message_id(outbox: list[dict[str, Any]]) -> Mapping[str, str]:
    states = {}
    for message in outbox:
        (recipient,) = message["recipients"]
        states[message["message_id"]] = recipient["state"]
    assert len(states) == len(outbox)
    return states


def postfix_id(raw: bytes) -> str:
    found = re.search(rb"\(Postfix\) with E?SMTPS?A? id (\w+)", raw)
    assert found, raw
    return found[1].decode()


def assert_signature(raw: bytes, agent: str) -> None:
    """The agent's own name and team, once in each part that a person reads."""
    name, team = agent.partition("@")[0].title(), AGENTS[agent]
    text = raw.decode()
    assert text.count(f"{name} of {team}") == 1, text
    assert text.count(f"<b>{name}</b> of {team}") == text.count("Content-Type: text/html"), text
    for other in TEAMS:
        assert other == team or f"of {other}" not in text


def test_a_reply_answers_the_conversation_it_belongs_to(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    site = Site([shared_provider.touchpoint("answers", "both")])
    site.add_agent("ana@gateway.example", "secret", ["answers"])
    daemon = make_daemon(site)
    daemon.start()
    daemon.wait_connected("answers")
    shared_provider.dovecot.deliver("answers@support.example", letter(1, "question"))
    (conversation,) = wait_until(daemon.conversations, "the question is in the queue", state=daemon.log_tail)
    assert conversation["state"] == "open"

    answer = EmailMessage()
    answer["From"], answer["To"] = "answers@support.example", CUSTOMER
    answer["Subject"] = "Re: question 1"
    answer["In-Reply-To"] = conversation["message_ids"][0]
    answer["Message-ID"] = "<the-answer@ana.example>"
    answer.set_content("Yes.\n")
    with daemon.submit("ana@gateway.example", "secret") as session:
        session.send_message(answer)
    wait_until(
        lambda: daemon.conversations()[0]["state"] == "answered", "the conversation is answered", state=daemon.log_tail
    )
    found = wait_until(
        lambda: [raw for raw in shared_provider.dovecot.messages(CUSTOMER) if message_id(raw) == answer["Message-ID"]],
        "the customer has the answer",
        state=daemon.log_tail,
    )
    assert b"In-Reply-To: <question.1@clients.example>" in found[0]

    follow_up = letter(2, "Re: question").replace(
        b"MIME-Version", b"References: <question.1@clients.example> <the-answer@ana.example>\r\nMIME-Version"
    )
    shared_provider.dovecot.deliver("answers@support.example", follow_up)
    wait_until(lambda: len(daemon.conversations()[0]["message_ids"]) >= 2, "the follow-up", state=daemon.log_tail)
    assert len(daemon.conversations()) == 1
    assert daemon.conversations()[0]["state"] in ("open", "claimed")


def test_a_customer_who_writes_while_the_gateway_idles_is_seen_at_once(
    shared_provider: Provider, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(Site([shared_provider.touchpoint("prompt")]))
    daemon.start()
    daemon.wait_connected("prompt")
    for number in range(1, 6):
        begun = time.monotonic()
        shared_provider.dovecot.deliver("prompt@support.example", letter(number, "hurry"))
        while len(daemon.conversations()) < number and time.monotonic() - begun < 30:
            time.sleep(0.01)
        assert time.monotonic() - begun < 5  # IDLE, not the poll of some minutes
