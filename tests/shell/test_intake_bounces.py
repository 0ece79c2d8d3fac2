"""Reports come in by the door like all mail: joined to what they are about, or not, and never taken on trust."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, load
from gateway.errors import Unavailable
from gateway.inbound.intake import Intake
from gateway.model import (
    NO_WISH,
    Arrival,
    Envelope,
    Location,
    Notify,
    OutboxKind,
    Role,
    Submission,
    Wish,
    show_id,
    to_ms,
)
from gateway.rules.dsn import Report, read_report
from gateway.rules.returned import STRANGE
from gateway.state import bounces, conversations, folders, mailboxes, outbox, queues
from gateway.state.bounces import HardBounces
from gateway.state.folders import Folder, Opening
from gateway.state.lifecycle import Event, State
from gateway.state.mailboxes import NewArrival
from gateway.state.outbox import Begin, Done, Fated, Step, Want
from gateway.state.raw import chunk_key
from gateway.state.store import Store, Tuning

AT = datetime.now(UTC).replace(microsecond=0)
ANA, TEAM = "agent:ana@example.com", "support"
BOB, ANN = "bob@example.net", "ann@example.org"
SENTENCE = f"Not delivered to {BOB}: there is no such mailbox (550 5.1.1 user unknown)."

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support"]

[[agent]]
login = "ana@example.com"
name = "Ana"
role = "agent"
ring_groups = ["support"]

[[rule]]
name = "junk"
if = { subject = "*spoofed*" }
then = { quarantine = true }
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
    return load(tmp_path / "gateway.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
    yield opened
    opened.close()


@dataclass
class Room:
    """A touchpoint that sends and receives; the provider takes everything."""

    store: Store
    intake: Intake
    hard: HardBounces
    uid: int = 0

    def send(
        self,
        *recipients: str,
        message_id: str = "",
        answers: str = "",
        wish: Wish = NO_WISH,
        is_sent: bool = True,
        agent: str = "ana@example.com",
        kind: OutboxKind = OutboxKind.REPLY,
        at: datetime = AT,
        envid: str = "",
    ) -> int:
        id = self.store.ids.next()
        to = recipients or (BOB,)
        raw = b"Subject: Your order\r\n\r\nDear Bob\r\n"
        submission = Submission(
            id, "support", agent,
            Envelope("support@example.com", to, wishes=(wish,) * len(to), envid=envid),
            message_id or f"<{id}@client.example>", "Your order", at, raw, kind, (answers,) if answers else (),
        )  # fmt: skip
        self.store.submit(outbox.accept, outbox.Accepting(submission, ((chunk_key(id, 0), raw),))).result(5)
        if is_sent:
            want = Want("support", to_ms(at) + 1_000, (60_000,), begin=True)
            claimed = self.store.submit(outbox.step, Step(None, want)).result(5)
            assert claimed is not None
            if not claimed.begun:
                rows = tuple((one.number, one.before) for one in claimed.recipients)
                assert self.store.submit(outbox.begin_data, Begin(claimed.id, claimed.attempt, rows)).result(5)
            fated = tuple(Fated(one.number, State.SENDING, Event.ACCEPTED, "250 taken") for one in claimed.recipients)
            done = Done(claimed.id, "support", claimed.attempt, claimed.kind, fated, to_ms(at) + 2_000, True)
            self.store.submit(outbox.step, Step(done)).result(5)
        return id

    async def take(self, content: bytes, role: Role = Role.QUEUE) -> queues.RoutedResult:
        self.uid += 1
        folder = "Junk" if role is Role.JUNK else "INBOX"
        location = Location(folder, 1, self.uid)
        (placed,) = await self.intake.accept(
            [Arrival(self.store.ids.next(), "support", location, AT, AT, content, self.uid - 1, role=role)]
        )
        assert placed is not None
        return placed

    def show(self, conversation: int) -> dict[str, Any]:
        found = self.store.read(conversations.show_conversation, conversation).result(5)
        assert found is not None
        return found

    def recipients(self, id: int) -> list[dict[str, Any]]:
        found = self.store.read(outbox.show_outbox, id).result(5)
        assert found is not None
        return list(found["recipients"])

    def blamed(self) -> list[str]:
        stored = sorted(address for _, address in self.store.read(bounces.all_hard).result(5))
        assert all(self.hard.of("support", address) is not None for address in stored)
        return stored

    async def question(self, number: int = 1) -> queues.RoutedResult:
        return await self.take(
            f"From: Bob <{BOB}>\r\nSubject: Where?\r\nMessage-ID: <{number}@example.net>\r\n\r\nHello\r\n".encode()
        )


@pytest.fixture
async def room(store: Store, config: Config) -> Room:
    for folder in ("INBOX", "Junk"):
        store.submit(folders.open_folder, Opening(Folder("support", folder, 1, 0, 0, 0, 0), ())).result(5)
    hard = HardBounces()
    return Room(store, Intake(store, lambda: config, now_ms=lambda: to_ms(AT), hard=hard), hard)


def report(
    *failed: str,
    returned: str = "",
    action: str = "failed",
    status: str = "5.1.1",
    said: str = "550 5.1.1 user unknown",
    about: str = "",
    more: str = "",
    subject: str = "Undelivered Mail",
) -> bytes:
    blocks = "".join(
        f"\r\nFinal-Recipient: rfc822; {one}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; {said}\r\n"
        for one in failed
    )
    return (
        f"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example\r\nTo: support@example.com\r\nSubject: {subject}\r\n{more}"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        f"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n{about}{blocks}"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n{returned}\r\n--b--\r\n"
    ).encode()


def by_trace(id: int, attempt: int = 1) -> str:
    at = "Mon, 23 Nov 2026 09:00:00 +0000"
    return f"Received: by gw.example.com (mail-gateway) id {show_id(id)}.{attempt};\r\n\t{at}\r\n"


# --- joined ----------------------------------------------------------------------------------------------------------


async def test_a_bounce_brings_back_the_conversation_and_goes_to_the_writer(room: Room) -> None:
    asked = await room.question()
    id = room.send(message_id="<answer@client.example>", answers="<1@example.net>")
    assert room.show(asked.conversation)["state"] == "answered"
    placed = await room.take(report(BOB, returned="Message-ID: <answer@client.example>\r\n"))
    assert placed.conversation == asked.conversation
    shown = room.show(asked.conversation)
    assert (shown["state"], shown["queues"]) == ("open", [ANA, TEAM])
    assert [one["note"] for one in shown["messages"]] == [None, None, SENTENCE]
    assert ("bounce", f"about {show_id(id)}") in [(one["step"], one["detail"]) for one in shown["messages"][2]["trail"]]
    assert [(one["state"], one["bounced"]) for one in room.recipients(id)] == [("delivered", SENTENCE)]
    assert room.blamed() == [BOB]


@pytest.mark.parametrize(
    "how", ["trace", "message-id", "replaced-id", "envelope-id", "in-reply-to", "own-id", "old-case"]
)
async def test_a_bounce_is_joined_by_any_clue_also_where_nobody_had_asked(room: Room, how: str) -> None:
    room.send(ANN)
    id = room.send(message_id="<First.9@client.example>", envid="order+2B9")
    room.send(ANN)
    if how == "own-id":
        id = room.store.ids.next() + 1
        assert room.send(message_id=f"<{show_id(id)}@gw.example.com>") == id
    content = {
        "trace": report(BOB, returned=by_trace(id)),
        "message-id": report(BOB, returned="Message-ID: <First.9@client.example>\r\n"),
        "replaced-id": report(
            BOB, returned="Message-ID: <x@p.example>\r\nX-Microsoft-Original-Message-ID: <First.9@client.example>\r\n"
        ),
        "envelope-id": report(BOB, about="Original-Envelope-Id: order+9\r\n"),
        "in-reply-to": report(BOB, more="In-Reply-To: <First.9@client.example>\r\n"),
        "own-id": report(BOB, returned=f"Message-ID: <{show_id(id)}@gw.example.com>\r\n"),
        "old-case": report(BOB.upper(), returned="Message-ID: <First.9@client.example>\r\n"),
    }[how]
    placed = await room.take(content)
    assert placed.is_new
    assert placed.queues == (ANA, TEAM)
    assert room.recipients(id)[0]["bounced"] is not None
    assert room.blamed() == [BOB]
    # the message has this conversation now, and so have its other reports and what is answered to it
    assert show_id(id) in [one["id"] for one in room.show(placed.conversation)["messages"]]
    again = await room.take(content)
    assert again.conversation == placed.conversation
    message_id = next(
        one["message_id"] for one in room.show(placed.conversation)["messages"] if one["id"] == show_id(id)
    )
    answer = f"From: {ANN}\r\nSubject: Re\r\nMessage-ID: <2@x>\r\nIn-Reply-To: {message_id}\r\n\r\nHello\r\n".encode()
    answered = await room.take(answer)
    assert answered.conversation == placed.conversation
    assert TEAM in answered.queues


async def test_two_reports_in_one_batch_are_one_conversation(room: Room) -> None:
    room.send(BOB, ANN, message_id="<order@client.example>")
    arrivals = []
    for who in (BOB, ANN):
        room.uid += 1
        content = report(who, returned="Message-ID: <order@client.example>\r\n")
        arrivals.append(
            Arrival(room.store.ids.next(), "support", Location("INBOX", 1, room.uid), AT, AT, content, room.uid - 1)
        )
    placed = await room.intake.accept(arrivals)
    assert len({one.conversation for one in placed if one is not None}) == 1
    assert room.blamed() == [ANN, BOB]


async def test_a_delay_is_told_and_brings_nothing_back(room: Room) -> None:
    asked = await room.question()
    id = room.send(message_id="<answer@client.example>", answers="<1@example.net>")
    returned = "Message-ID: <answer@client.example>\r\n"
    await room.take(report(BOB, returned=returned, action="delayed", status="4.4.1", said="connection timed out"))
    shown = room.show(asked.conversation)
    assert (shown["state"], shown["queues"]) == ("answered", [ANA, TEAM])
    assert shown["messages"][2]["note"].startswith(f"Delayed on its way to {BOB}")
    assert room.recipients(id)[0]["bounced"] is None
    assert room.blamed() == []


async def test_a_success_goes_to_who_asked_for_it_alone(room: Room) -> None:
    room.send(message_id="<asked@client.example>", wish=Wish(Notify.SUCCESS))
    placed = await room.take(
        report(
            BOB, returned="Message-ID: <asked@client.example>\r\n", action="delivered", status="2.0.0", said="250 ok"
        )
    )
    assert placed.queues == (ANA,)
    answer = b"From: bob@example.net\r\nMessage-ID: <3@x>\r\nIn-Reply-To: <asked@client.example>\r\n\r\nThanks\r\n"
    assert (await room.take(answer)).queues == (TEAM,)  # what a customer writes is for the team


async def test_a_bounce_of_what_an_agent_sent_past_us_joins_by_its_thread(room: Room) -> None:
    asked = await room.question()
    placed = await room.take(report(BOB, returned="Message-ID: <w@p.example>\r\nIn-Reply-To: <1@example.net>\r\n"))
    assert placed.conversation != asked.conversation  # an id nobody knows proves nothing
    room.store.submit(queues.tie_outbound, queues.Tie("support", "<w@p.example>", ("<1@example.net>",), 0)).result(5)
    placed = await room.take(report(BOB, returned="Message-ID: <w@p.example>\r\n", more="Message-ID: <r@mx>\r\n"))
    assert placed.conversation == asked.conversation
    assert room.show(asked.conversation)["state"] == "open"
    assert room.show(asked.conversation)["messages"][-1]["note"] == SENTENCE
    assert room.blamed() == []


async def test_a_writer_who_has_left_gets_nothing_and_the_team_does(room: Room) -> None:
    room.send(message_id="<left@client.example>", agent="gone@example.com")
    assert (await room.take(report(BOB, returned="Message-ID: <left@client.example>\r\n"))).queues == (TEAM,)


@pytest.mark.parametrize("kind", [OutboxKind.AUTO_REPLY, OutboxKind.NOTICE])
async def test_a_bounce_of_automatic_mail_brings_nobody_back(room: Room, kind: OutboxKind) -> None:
    asked = await room.question()
    room.send(message_id="<real@client.example>", answers="<1@example.net>")
    room.send(message_id="<auto@client.example>", answers="<1@example.net>", kind=kind)
    await room.take(report(BOB, returned="Message-ID: <auto@client.example>\r\n"))
    shown = room.show(asked.conversation)
    assert (shown["state"], shown["queues"]) == ("answered", [TEAM])


async def test_of_two_messages_under_one_id_the_one_to_the_recipient_is_meant(room: Room) -> None:
    first = room.send(BOB, message_id="<draft@client.example>")
    second = room.send(ANN, message_id="<draft@client.example>")
    await room.take(report(BOB, returned="Message-ID: <draft@client.example>\r\n"))
    assert room.recipients(first)[0]["bounced"] == SENTENCE
    assert room.recipients(second)[0]["bounced"] is None


async def test_letters_of_a_domain_are_written_in_two_ways(room: Room) -> None:
    room.send("bob@xn--bcher-kva.example", message_id="<idn@client.example>")
    await room.take(report("bob@bücher.example", returned="Message-ID: <idn@client.example>\r\n"))
    assert room.blamed() == ["bob@xn--bcher-kva.example"]


async def test_a_report_in_junk_is_believed_when_it_proves_that_it_is_about_our_mail(room: Room) -> None:
    id = room.send(message_id="<answer@client.example>")
    proven = await room.take(report(BOB, returned="Message-ID: <answer@client.example>\r\n"), Role.JUNK)
    assert proven.queues == (ANA, TEAM)
    assert proven.state.value == "open"
    assert room.recipients(id)[0]["bounced"] == SENTENCE
    for content in (report("eve@example.net", returned="Message-ID: <answer@client.example>\r\n"), report(BOB)):
        await room.take(content, Role.JUNK)
    states = [one["quarantined"] for one in room.show(proven.conversation)["messages"] if one["class"] == "bounce"]
    assert states == [False, True]


# --- not taken on trust ----------------------------------------------------------------------------------------------


async def test_a_bounce_of_what_never_left_through_us_is_joined_to_nothing(room: Room) -> None:
    asked = await room.question()
    id = room.send(message_id="<answer@client.example>", answers="<1@example.net>")
    placed = await room.take(report("victim@stranger.example", returned="Message-ID: <spam@stranger.example>\r\n"))
    assert placed.is_new
    assert placed.queues == (TEAM,)
    assert room.show(placed.conversation)["messages"][0]["note"].startswith(STRANGE)
    assert room.show(asked.conversation)["state"] == "answered"
    assert room.recipients(id)[0]["bounced"] is None
    assert room.blamed() == []


@pytest.mark.parametrize(
    ("content", "is_joined"),
    [
        pytest.param(report(ANN, returned="Message-ID: <answer@client.example>\r\n"), True, id="another-address"),
        pytest.param(report(BOB), False, id="no-message"),
        pytest.param(report(BOB, returned="Message-ID: <guess@client.example>\r\n"), False, id="a-guessed-id"),
        pytest.param(report(BOB, returned="SELF.7"), False, id="an-attempt-that-never-was"),
        pytest.param(report(BOB, subject="spoofed", returned="Message-ID: <answer@client.example>\r\n"), True,
                     id="in-quarantine"),
    ],
)  # fmt: skip
async def test_a_forged_report_blames_nobody(room: Room, content: bytes, is_joined: bool) -> None:
    id = room.send(BOB, "cleo@example.org", message_id="<answer@client.example>")
    await room.take(content.replace(b"SELF.7", by_trace(id, 7).encode()))
    assert room.blamed() == []
    assert room.recipients(id)[0]["bounced"] is None


async def test_what_has_not_left_yet_cannot_have_bounced(room: Room) -> None:
    id = room.send(message_id="<waiting@client.example>", is_sent=False)
    await room.take(report(BOB, returned="Message-ID: <waiting@client.example>\r\n"))
    assert room.blamed() == []
    assert room.recipients(id)[0]["state"] == "queued"


async def test_another_touchpoints_message_is_none_of_this_ones(room: Room) -> None:
    id = room.send(message_id="<other@client.example>")
    found = room.store.read(bounces.find, "billing", _report(id), to_ms(AT)).result(5)
    assert found.sent is None
    assert not found.is_known


def _report(id: int) -> Report:
    return read_report(report(BOB, returned=by_trace(id) + "Message-ID: <other@client.example>\r\n"))


async def test_a_report_months_later_is_joined_by_its_trace_and_not_by_a_look_at_everything(room: Room) -> None:
    id = room.send(message_id="<old@client.example>")
    later = to_ms(AT + timedelta(days=90))
    by_id = read_report(report(BOB, returned="Message-ID: <old@client.example>\r\n"))
    assert room.store.read(bounces.find, "support", by_id, later).result(5).sent is None
    traced = read_report(report(BOB, returned=by_trace(id)))
    found = room.store.read(bounces.find, "support", traced, later).result(5).sent
    assert found is not None
    assert found.id == id


# --- forgiven --------------------------------------------------------------------------------------------------------


async def test_mail_from_an_address_shows_that_it_is_in_use(room: Room) -> None:
    room.send(message_id="<answer@client.example>")
    await room.take(report(BOB, returned="Message-ID: <answer@client.example>\r\n"))
    assert room.blamed() == [BOB]
    await room.take(b"From: Eve <eve@example.net>\r\nSubject: Hi\r\n\r\nHello\r\n")
    assert room.blamed() == [BOB]
    await room.take(b"From: Bob <BOB@Example.net>\r\nSubject: I am here\r\n\r\nHello\r\n")
    assert room.blamed() == []
    assert room.hard.of("support", BOB) is None


async def test_who_is_known_at_the_start_is_known_in_memory(room: Room) -> None:
    room.send(message_id="<answer@client.example>")
    await room.take(report(BOB, returned="Message-ID: <answer@client.example>\r\n"))
    again = HardBounces(room.store.read(bounces.all_hard).result(5))
    hard = again.of("support", "BOB@example.net")
    assert hard is not None
    assert hard.text == SENTENCE
    assert again.of("billing", BOB) is None


async def test_a_report_that_cannot_be_looked_up_is_joined_when_the_store_is_back(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = room.send(message_id="<answer@client.example>")
    read = room.store.read

    def away(fn: Any, *args: Any) -> Any:
        if fn is bounces.find:
            raise Unavailable("no reader")
        return read(fn, *args)

    monkeypatch.setattr(room.store, "read", away)
    with pytest.raises(Unavailable):
        await room.take(report(BOB, returned="Message-ID: <answer@client.example>\r\n"))
    monkeypatch.setattr(room.store, "read", read)
    assert await room.intake.resume() == 1
    assert room.recipients(id)[0]["bounced"] == SENTENCE


async def test_a_report_that_was_stored_and_not_joined_when_we_died_is_joined_once_by_the_next_start(
    room: Room, config: Config
) -> None:
    asked = await room.question()
    id = room.send(message_id="<answer@client.example>", answers="<1@example.net>")
    content = report(BOB, returned="Message-ID: <answer@client.example>\r\n")
    number = room.store.ids.next()
    arrival = Arrival(number, "support", Location("INBOX", 1, room.uid + 1), AT, AT, content, room.uid)
    room.store.submit(mailboxes.arrive, NewArrival(arrival, ((chunk_key(number, 0), content),))).result(5)  # T1 alone
    assert room.recipients(id)[0]["bounced"] is None
    for resumed in (1, 0):
        hard = HardBounces(room.store.read(bounces.all_hard).result(5))
        assert await Intake(room.store, lambda: config, now_ms=lambda: to_ms(AT), hard=hard).resume() == resumed
        assert hard.of("support", BOB) is not None
        shown = room.show(asked.conversation)
        assert (shown["state"], shown["queues"], len(shown["messages"])) == ("open", [ANA, TEAM], 3)
        assert room.recipients(id)[0]["bounced"] == SENTENCE
