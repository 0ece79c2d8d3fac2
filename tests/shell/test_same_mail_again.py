"""A client that lost our 250 submits the same message again: one copy, and the first queue id."""

from __future__ import annotations

import asyncio
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Submission, read_id
from gateway.state import conversations, outbox, queues
from gateway.state.raw import chunk_key
from gateway.state.store import Store
from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.ports import free_port
from tests.support.submission import PASSWORD, Rig
from tests.support.waiting import wait_until

KIM, LEE = "kim@clients.example", "lee@clients.example"
LETTER = "From: support@example.com\r\nTo: kim@clients.example\r\nSubject: Your question\r\n\r\nHello Kim\r\n"
LARGE = LETTER + ("x" * 76 + "\r\n") * 20_000  # several chunks, of which all but the last are committed ahead


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    rig = Rig(tmp_path, authority)
    yield rig
    rig.close()


def submit(
    rig: Rig,
    letter: str = LETTER,
    *,
    login: str = "ben@example.com",
    path: str = "ben@example.com",
    to: tuple[str, ...] = (KIM,),
    options: tuple[str, ...] = (),
) -> str:
    """Submit on a connection of its own; return the queue id."""
    client = rig.login(login)
    client.ehlo_or_helo_if_needed()
    client.mail(path, options)
    for address in to:
        client.rcpt(address)
    code, text = client.data(letter)
    assert code == 250, text
    client.quit()
    return text.decode().removeprefix("2.0.0 queued as ")


def count(rig: Rig, table: str) -> int:
    found: int = rig.store.read(lambda db: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]).result(timeout=10)
    return found


@pytest.mark.parametrize("letter", [LETTER, LARGE], ids=["small", "large"])
def test_the_same_again_is_one_message_with_one_id(rig: Rig, letter: str) -> None:
    first = submit(rig, letter)
    chunks = count(rig, "chunk")
    assert [submit(rig, letter) for _ in range(3)] == [first] * 3
    assert [message["id"] for message in rig.outbox()] == [first]
    assert rig.woken == ["support"]
    wait_until(lambda: count(rig, "chunk") == chunks, "what was staged for the second is given back")
    assert count(rig, "staged") == (1 if letter is LARGE else 0)


def test_the_order_of_recipients_and_the_case_of_domains_do_not_count(rig: Rig) -> None:
    first = submit(rig, to=(KIM, LEE))
    assert submit(rig, to=(LEE, "kim@Clients.Example", LEE)) == first


def test_what_the_sender_wants_to_hear_does_not_count(rig: Rig) -> None:
    first = submit(rig)
    assert submit(rig, options=("RET=HDRS", "ENVID=1", "BODY=8BITMIME")) == first


@pytest.mark.parametrize(
    "change",
    [
        {"letter": LETTER + "\r\n"},
        {"letter": LETTER.replace("Subject", "SUBJECT")},
        {"login": "ana@example.com"},
        {"path": "else@example.com"},
        {"path": ""},
        {"to": (LEE,)},
        {"to": (KIM, LEE)},
        {"to": ("Kim@clients.example",)},
    ],
    ids=["body", "header", "agent", "return-path", "null-path", "recipient", "more", "name-in-capitals"],
)
def test_anything_else_is_another_message(rig: Rig, change: dict[str, Any]) -> None:
    first = submit(rig)
    assert submit(rig, **change) != first
    assert len(rig.outbox()) == 2


def test_it_is_compared_as_received_not_as_stored(rig: Rig) -> None:
    """Signature, Message-ID and Date are added by us and differ each time."""
    rig.touchpoints[0]["signature"] = {"active": True, "text": "{{ agent.name }} {{ date }}"}
    rig.reload()
    first = submit(rig)
    rig.touchpoints[0]["signature"] = {"active": True, "text": "another one"}
    rig.reload()
    assert submit(rig) == first


def test_it_may_be_sent_again_once_the_first_has_been_cancelled(rig: Rig) -> None:
    first = submit(rig)

    def cancel(db: Any, items: Any) -> list[None]:
        db.execute("UPDATE recipient SET state = 'cancelled', settled_at = 1, next_attempt_at = NULL")
        return [None] * len(items)

    rig.store.submit(cancel, None).result(timeout=10)
    assert submit(rig) != first


def test_a_day_later_it_is_another_message(rig: Rig) -> None:
    first = submit(rig)

    def age(db: Any, items: Any) -> list[None]:
        db.execute("UPDATE submitted SET at = at - 86400001")
        db.execute("UPDATE outbox SET accepted_at = accepted_at - 86400001")
        return [None] * len(items)

    rig.store.submit(age, None).result(timeout=10)
    assert submit(rig) != first


def test_the_second_may_come_while_the_first_is_still_being_stored(rig: Rig) -> None:
    """Both are staged before either is accepted; one of them makes the message."""
    opened, shut = threading.Event(), threading.Event()

    def wait(db: Any, items: Any) -> list[None]:
        shut.set()
        assert opened.wait(20)
        return [None] * len(items)

    clients = [rig.login("ben@example.com") for _ in range(8)]
    rig.store.submit(wait, None)
    assert shut.wait(20)
    replies: list[tuple[int, bytes]] = []

    def send(client: smtplib.SMTP) -> None:
        client.mail("ben@example.com")
        client.rcpt(KIM)
        replies.append(client.data(LARGE))

    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    wait_until(lambda: rig.store._units.qsize() >= len(clients), "all wait for the disk")
    opened.set()
    for thread in threads:
        thread.join(30)
    assert len(replies) == len(clients)
    assert len(set(replies)) == 1
    (message,) = rig.outbox()
    assert replies[0] == (250, f"2.0.0 queued as {message['id']}".encode())
    queue_id = read_id(message["id"])
    assert queue_id is not None
    assert rig.stored(queue_id).endswith(LARGE.encode()[-1000:])
    wait_until(lambda: count(rig, "chunk") == len(rig.stored(queue_id)) // (256 * 1024) + 1, "the rest is given back")


def test_nothing_of_a_message_that_could_not_be_stored_makes_the_next_one_a_repetition(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(db: Any, items: Any) -> list[Any]:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "accept", fail)
        client = rig.login("ben@example.com")
        with pytest.raises(smtplib.SMTPDataError) as error:
            client.sendmail("ben@example.com", [KIM], LETTER)
        assert error.value.smtp_code == 451
    submit(rig)
    assert len(rig.outbox()) == 1


def test_a_large_message_does_not_hold_the_loop(rig: Rig) -> None:
    tries = [longest_step(rig, LETTER + f"{number}\r\n" + ("x" * 76 + "\r\n") * 400_000) for number in range(3)]
    assert min(tries) < 0.1, tries  # copying all of it takes a fifth of that; on a busy machine one may take longer


def longest_step(rig: Rig, letter: str) -> float:
    """Submit; return for how many seconds the loop worked at one stretch meanwhile."""
    longest = 0.0

    async def measure(until: asyncio.Event) -> None:
        nonlocal longest
        while not until.is_set():
            before = time.thread_time()  # what this thread itself has worked, however busy the machine is
            await asyncio.sleep(0.002)
            longest = max(longest, time.thread_time() - before)

    async def begin() -> tuple[asyncio.Event, asyncio.Task[None]]:
        until = asyncio.Event()
        return until, asyncio.get_running_loop().create_task(measure(until))

    until, task = rig.run(begin)
    submit(rig, letter)

    async def end() -> None:
        until.set()
        await task

    rig.run(end)
    return longest


def test_a_gateway_that_was_killed_still_knows_what_it_took(make_daemon: Callable[..., Daemon]) -> None:
    site = Site(
        touchpoints=[
            {
                "id": "support", "address": "support@example.com", "name": "Support", "active": True,
                "direction": "outbound", "smtp": f"smtp+insecure://127.0.0.1:{free_port()}", "password": "env:SECRET",
                "linked_queues": ["support"],
            }
        ]
    )  # fmt: skip
    site.add_agent("ana@example.com", PASSWORD, ["support"])
    daemon = make_daemon(site, {"SECRET": "nobody asks for it"})
    replies = []
    for _ in range(3):
        daemon.start()
        with daemon.submit("ana@example.com", PASSWORD) as client:
            client.mail("ana@example.com")
            client.rcpt(KIM)
            replies.append(client.data(LARGE))
        daemon.kill()
    assert replies[0][0] == 250
    assert len(set(replies)) == 1


class Remarks:
    """Has something to say about every message."""

    def __init__(self) -> None:
        self.store: Store | None = None

    def of(self, submission: Submission) -> queues.Notice | None:
        assert self.store is not None
        id, conversation = self.store.ids.next(), self.store.ids.next()
        raw = f"Subject: warning\r\n\r\n{submission.envelope.recipients}\r\n".encode()
        chunks = ((chunk_key(id, 0), raw),)
        return queues.Notice(id, conversation, submission.touchpoint, submission.agent, "warning", chunks, len(raw), 0)


def test_a_warning_about_a_recipient_is_stored_with_the_message_and_once(tmp_path: Path, authority: Authority) -> None:
    remarks = Remarks()
    rig = Rig(tmp_path, authority, warnings=remarks)
    remarks.store = rig.store
    try:
        for _ in range(2):
            submit(rig)
        listed = rig.store.read(conversations.list_conversations).result(timeout=10)
        assert [(one["subject"], one["queues"]) for one in listed] == [("warning", ["agent:ben@example.com"])]
    finally:
        rig.close()
