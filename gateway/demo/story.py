"""`mail-gateway demo`: the gateway's main job, told in half a minute and checked at every step.

A provider in memory, the real daemon on top of it, two touchpoints, two agents, two customers. Mail arrives, is routed
and answered automatically, once; an agent replies and the signature is in what the customer gets; the provider goes
away, a reply is accepted and waits; the provider returns and the reply leaves, once. Nothing is asked for and nothing
is left behind: no account, no root, no port below 1024, no file outside a temporary directory.

A step prints its line after it has been seen to be true. The first that is not ends the story with exit code 1.
"""

from __future__ import annotations

import logging
import signal
import smtplib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.demo import letters
from gateway.demo.provider import HOST, ProviderThread
from gateway.demo.site import CARLA, DARIO, SALES, SUPPORT, Agent, Site, accounts
from gateway.errors import CommandError
from gateway.text import clean

T = TypeVar("T")

PATIENCE: Final = 15.0  # seconds for one step; each takes a fraction of one unless the machine is very busy
LOOK_EVERY: Final = 0.02  # seconds


class Disappointment(Exception):
    """Something that the story tells did not happen. The text says what was awaited, and what was seen instead."""


def main(keep: bool = False) -> int:
    """Play the story; return 0 when every step was seen. `keep`: then leave it running until Ctrl-C."""
    console = Console(highlight=False)
    for name in ("mail.log", "pymap"):  # what the provider's libraries have to say is not part of the story
        logging.getLogger(name).setLevel(logging.ERROR)
    with (
        _ending_in_order(),
        tempfile.TemporaryDirectory(prefix="mail-gateway-demo-") as home,
        ProviderThread(accounts()) as provider,
    ):
        site = Site(Path(home), provider)
        story = Story(console, provider, site)
        try:
            story.play()
            if keep:
                _stay(console, provider, site)
            story.end()
        except Disappointment as disappointment:
            story.fail(disappointment)
            return 1
        except KeyboardInterrupt:
            console.print("\nstopped")
            return 0 if keep else 130
        finally:
            site.stop()
    return 0


class Story:
    def __init__(self, console: Console, provider: ProviderThread, site: Site) -> None:
        self._console = console
        self._provider = provider
        self._site = site
        self._begun = time.monotonic()
        self._sent: dict[str, str] = {}  # what must arrive once: Message-ID → the customer's address

    def play(self) -> None:
        """Everything up to the return of the provider. Raises Disappointment."""
        self._chapter("A provider and a gateway")
        self._start()
        self._chapter("Customers write")
        question, invoice = self._customers_write()
        self._chapter("An agent replies")
        self._agent_replies(question)
        self._chapter("The provider's SMTP server goes down")
        answer = self._reply_waits(invoice)
        self._mail_still_comes_in(question)
        self._reply_waits_longer(answer)
        self._chapter("The provider is back")
        self._reply_leaves()

    def end(self) -> None:
        """Stop the daemon as systemd would, and count: after this nothing can leave a second time."""
        self._chapter("The end")
        code = self._site.stop()
        if code != 0:
            raise Disappointment(f"the gateway should end with exit code 0 on SIGTERM; it was {code}")
        self._done("SIGTERM: the gateway has finished what it was doing and ended with exit code 0")
        for message_id, address in self._sent.items():
            self._expect_once(message_id, address)
        self._done(f"each of the {len(self._sent)} replies reached its customer exactly once")
        for customer in (CARLA, DARIO):
            if (count := len(self._answers_to(customer))) != 1:
                raise Disappointment(f"{customer} should have one automatic answer; it is {count}")
        self._done("each customer had one automatic answer, however often they wrote")
        self._console.print(f"\nAll as it should be, in {time.monotonic() - self._begun:.0f} s.", style="bold green")

    # --- chapters ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        provider, site = self._provider, self._site
        self._done(
            f"a mail provider in memory: IMAP on {HOST}:{provider.imap_port}, SMTP on {HOST}:{provider.smtp_port}"
        )
        checked = site.run("check")
        if checked.returncode != 0:
            raise Disappointment(f"`mail-gateway check` should find no error; it says: {clean(checked.stdout)}")
        self._done(f"`mail-gateway check` has no objection to {site.config} and rules.toml beside it")
        site.start()

        def watching() -> list[str]:
            # "connected" alone is too early: mail that comes before the first look counts as older than the start
            try:
                touchpoints = site.ask("status")["touchpoints"]
            except ConnectionError:  # not up yet
                return []
            return [t["address"] for t in touchpoints if t["connected"] and t["state"] == "watching"]

        self._wait(lambda: len(watching()) == 2, "it watches both touchpoints", lambda: self._ask("status"))
        names = watching()
        self._done(
            f"`mail-gateway run`: it watches {' and '.join(names)}; agents send through port {site.submission_port}"
        )

    def _customers_write(self) -> tuple[EmailMessage, EmailMessage]:
        carla, dario = ("Carla Costa", CARLA), ("Dario Dias", DARIO)
        question = letters.write(
            carla, SUPPORT, "My order has not come", "Good morning,\n\nwhere is order 4711?\n\nCarla\n"
        )
        invoice = letters.write(
            dario, SUPPORT, "Invoice 2291 is wrong", "Hello,\n\nthe VAT number is missing.\n\nDario\n"
        )
        offer = letters.write(dario, SALES, "A thousand pieces", "Hello,\n\nwhat would they cost?\n\nDario\n")
        for message, queues, why in (
            (question, ["support"], "the queue that its touchpoint is linked to"),
            (invoice, ["billing"], 'rule "invoices": priority high, tag "invoice"'),
            (offer, ["sales"], "the queue that its touchpoint is linked to"),
        ):
            begun = time.monotonic()
            self._deliver(message["To"].addresses[0].addr_spec, message)
            found = self._wait_for_conversation(message)
            if found["queues"] != queues:
                raise Disappointment(f'"{message["Subject"]}" should be in {queues}; it is in {found["queues"]}')
            took = (time.monotonic() - begun) * 1000
            self._done(f'"{message["Subject"]}" to {message["To"]} → queue {queues[0]} ({why}; {took:.0f} ms)')
        found = self._wait_for_conversation(invoice)
        if (found["priority"], found["tags"]) != ("high", ["invoice"]):
            raise Disappointment(f"the rule should set priority and tag; they are {found['priority']}, {found['tags']}")
        self._show_command("queue", "list")
        for customer in (CARLA, DARIO):
            self._wait(
                partial(self._answers_to, customer),
                f"{customer} is answered automatically",
                lambda: self._ask("outbox.list", all=True),
            )
        answer = self._answers_to(CARLA)[0]
        self._done(f'both customers of {SUPPORT} have an automatic answer: "{clean(str(answer["Subject"]))}"')
        return question, invoice

    def _agent_replies(self, question: EmailMessage) -> None:
        ana = self._site.ana
        answer = letters.reply(question, (ana.name, SUPPORT), "Dear Carla, it was sent this morning.")
        self._submit(ana, answer, CARLA)
        received = self._wait_for_delivery(answer, CARLA)
        plain, html = letters.body(received, "plain"), letters.body(received, "html")
        for kind, text in (("text", plain), ("HTML", html)):
            if (count := text.count("Support engineer")) != 1:
                raise Disappointment(f"the signature should be once in the {kind} part; it is there {count} times")
        quote = plain.find("> ")
        if plain.find("Support engineer") > quote:
            raise Disappointment("the signature should stand above the quoted mail; it stands below")
        self._done("Carla has it, with the touchpoint's signature in text and HTML, above the quoted mail:")
        self._console.print(Padding(Text(plain.strip(), style="dim"), (0, 0, 0, 12)))

        def answered() -> bool:
            return bool(self._wait_for_conversation(question)["state"] == "answered")

        self._wait(answered, "the conversation is marked as answered")
        self._done("the conversation is marked as answered")
        stray = letters.reply(question, (ana.name, SALES), "Dear Carla, buy more.")
        try:
            reply = self._site.submit(ana, stray, [CARLA])
        except smtplib.SMTPResponseException as error:
            said = (
                error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            )
            self._done(f"writing as {SALES} is not Ana's to do: {error.smtp_code} {clean(said)}")
        else:
            raise Disappointment(f"Ana may not write as {SALES}; the gateway said: {reply}")

    def _reply_waits(self, invoice: EmailMessage) -> EmailMessage:
        self._provider.stop_smtp()
        self._done(f"{HOST}:{self._provider.smtp_port} refuses connections")
        ana = self._site.ana
        answer = letters.reply(invoice, (ana.name, SUPPORT), "Dear Dario, a corrected invoice is on its way.")
        self._submit(ana, answer, DARIO)

        recipient = self._wait_for_failures(answer, 1)
        self._done(f"the first attempt failed ({clean(str(recipient['reply']))}); the reply waits for the next")
        return answer

    def _wait_for_failures(self, answer: EmailMessage, attempts: int) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            for message in self._ask("outbox.list"):
                if message["message_id"] == answer["Message-ID"]:
                    recipient = message["recipients"][0]
                    if recipient["state"] == "deferred" and recipient["attempts"] >= attempts:
                        return dict(recipient)
            return None

        awaited = f"the reply waits after {attempts} failed attempt{'s' * (attempts > 1)}"
        return self._wait(look, awaited, lambda: self._ask("outbox.list"))

    def _reply_waits_longer(self, answer: EmailMessage) -> None:
        # After the second failure the gateway leaves the operator a quarter of a minute to be quicker than itself
        self._wait_for_failures(answer, 2)
        self._done("so did the second; the reply keeps waiting:")
        self._show_command("outbox", "list")

    def _mail_still_comes_in(self, question: EmailMessage) -> None:
        more = letters.write(("Carla Costa", CARLA), SUPPORT, f"Re: {question['Subject']}", "It has come. Thank you!\n")
        more["In-Reply-To"] = more["References"] = question["Message-ID"]
        self._deliver(SUPPORT, more)
        first, second = self._wait_for_conversation(question), self._wait_for_conversation(more)
        if first["id"] != second["id"]:
            raise Disappointment("Carla's second mail should join her conversation; it began another one")
        self._done(f"meanwhile Carla writes again: it joins her conversation, which is {second['state']} again")

    def _reply_leaves(self) -> None:
        self._provider.start_smtp()
        self._done(f"{HOST}:{self._provider.smtp_port} answers again; the operator does not wait for the next attempt:")
        self._show_command("outbox", "retry", "--all")
        message_id = list(self._sent)[-1]
        self._wait(lambda: self._copies(message_id, DARIO), "Dario gets the reply", lambda: self._ask("outbox.list"))
        self._done("Dario has the reply")
        self._wait(lambda: self._ask("outbox.list") == [], "the outbox is empty", lambda: self._ask("outbox.list"))
        self._done("the outbox is empty")

    def _answers_to(self, customer: str) -> list[EmailMessage]:
        """Return the automatic answers in a customer's mailbox."""
        found = (letters.read(stored.raw) for stored in self._provider.mailbox(customer))
        return [message for message in found if message["Auto-Submitted"] == "auto-replied"]

    # --- what happens ------------------------------------------------------------------------------------------------

    def _deliver(self, address: str, message: EmailMessage) -> None:
        """Put a customer's mail into a mailbox as a provider does, with the return path on top."""
        sender = message["From"].addresses[0].addr_spec
        self._provider.deliver(address, f"Return-Path: <{sender}>\r\n".encode() + message.as_bytes())

    def _submit(self, agent: Agent, message: EmailMessage, to: str) -> None:
        try:
            reply = self._site.submit(agent, message, [to])
        except (smtplib.SMTPException, OSError) as error:
            raise Disappointment(f"the gateway should accept {agent.name}'s reply; it says: {error}") from error
        self._sent[message["Message-ID"]] = to
        self._done(f'{agent.name}\'s mail client sends "{message["Subject"]}": {clean(reply)}')

    def _wait_for_conversation(self, message: EmailMessage) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            for conversation in self._ask("queue.list", all=True):
                if message["Message-ID"] in conversation["message_ids"]:
                    return dict(conversation)
            return None

        return self._wait(look, f'"{message["Subject"]}" is in a queue', lambda: self._ask("queue.list", all=True))

    def _wait_for_delivery(self, message: EmailMessage, address: str) -> EmailMessage:
        message_id = message["Message-ID"]
        copies = self._wait(
            lambda: self._copies(message_id, address), f"{address} gets the reply", lambda: self._ask("outbox.list")
        )
        return copies[0]

    def _copies(self, message_id: str, address: str) -> list[EmailMessage]:
        found = (letters.read(stored.raw) for stored in self._provider.mailbox(address))
        return [message for message in found if message["Message-ID"] == message_id]

    def _expect_once(self, message_id: str, address: str) -> None:
        count = len(self._copies(message_id, address))
        if count != 1:
            raise Disappointment(
                f"{message_id} should be in {address}'s mailbox exactly once; it is there {count} times"
            )

    # --- seeing it ---------------------------------------------------------------------------------------------------

    def _ask(self, command: str, **arguments: object) -> Any:
        try:
            return self._site.ask(command, **arguments)
        except (OSError, CommandError) as error:
            raise Disappointment(f"the gateway should answer `{command}`; instead: {error}") from error

    def _wait(self, look: Callable[[], T | None], awaited: str, seen: Callable[[], object] = lambda: "") -> T:
        """Return what `look` finds once that is something; looking for `PATIENCE` seconds at most."""
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            if (code := self._site.exit_code()) is not None:
                raise Disappointment(f"{awaited}: no, the gateway ended with exit code {code}")
            if time.monotonic() > deadline:
                raise Disappointment(f"{awaited}: not within {PATIENCE:.0f} s. Instead: {clean(str(seen()), 2000)}")
            time.sleep(LOOK_EVERY)
        return found

    # --- telling it --------------------------------------------------------------------------------------------------

    def _chapter(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")

    def _done(self, text: str) -> None:
        self._line("✓", "green", text)

    def _line(self, mark: str, colour: str, text: str) -> None:
        row = Table.grid(padding=(0, 1))
        row.add_column(justify="right", width=7, style="dim")
        row.add_column(width=1, style=colour)
        row.add_column(ratio=1)
        row.add_row(f"{time.monotonic() - self._begun:.1f} s", mark, Text(text))
        self._console.print(row)

    def _show_command(self, *words: str) -> None:
        done = self._site.run(*words)
        if done.returncode != 0:
            raise Disappointment(f"`mail-gateway {' '.join(words)}` ended with {done.returncode}: {clean(done.stderr)}")
        lines = [f"$ mail-gateway {' '.join(words)}", *done.stdout.rstrip("\n").splitlines()]
        self._console.print(
            Padding(Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis"), (0, 0, 0, 10))
        )

    def fail(self, disappointment: Disappointment) -> None:
        self._line("✗", "red", str(disappointment))
        for line in self._site.complaints():
            self._console.print(Padding(Text(line, style="dim"), (0, 0, 0, 10)))


# --- afterwards ------------------------------------------------------------------------------------------------------


def _stay(console: Console, provider: ProviderThread, site: Site) -> None:
    """Print where everything is, and wait for Ctrl-C."""
    console.print("\n[bold]It stays: point a mail client at it[/bold]  (no encryption; loopback only)\n")
    agents = [(agent.login, agent.password) for agent in (site.ana, site.bruno)]
    mailboxes = [(account.address, account.password) for account in provider.accounts]
    console.print(f"Agents send here: SMTP {HOST}:{site.submission_port}")
    console.print(_logins(agents))
    console.print("The provider's mailboxes, of touchpoints and customers:", end=" ")
    console.print(f"IMAP {HOST}:{provider.imap_port}, SMTP {HOST}:{provider.smtp_port}")
    console.print(_logins(mailboxes))
    console.print(
        f"The queues, the outbox, the state of things:\n\n  export MAIL_GATEWAY_CONFIG={site.config}", soft_wrap=True
    )
    console.print("  mail-gateway queue list\n  mail-gateway outbox list --all\n  mail-gateway status\n")
    console.print(f"The daemon's log: {site.log}", soft_wrap=True)
    console.print("\nCtrl-C ends it and removes everything.")
    forever = threading.Event()
    try:
        while site.exit_code() is None:
            forever.wait(1)
    except KeyboardInterrupt:
        return
    raise Disappointment(f"the gateway should keep running; it ended with exit code {site.exit_code()}")


def _logins(logins: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2))
    table.add_column("login")
    table.add_column("password")
    for login, password in logins:
        table.add_row(login, password)
    return table


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a SIGTERM end the demo as a Ctrl-C does, so that no daemon and no directory stay behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
