"""The folder Sent of real servers, as evidence and as the place for our copies: the daemon sends through a scripted
provider that keeps copies in the server, or does not, and drops the link behind the dot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.bridge import open_bridge
from gateway.config import Server
from gateway.inbound import session as imap
from gateway.mime.trace import compose_trace, traces
from gateway.model import read_id
from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.daemon import Daemon, Site
from tests.support.dovecot import Dovecot
from tests.support.letters import letter
from tests.support.provider import CUSTOMER, Provider
from tests.support.scripted import CUT, ScriptedProvider
from tests.support.scripted import Session as Talk
from tests.support.waiting import wait_until

PROGRAM = (str(Path(__file__).parents[1] / "support" / "hindsight.py"),)
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module", params=[Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def stage(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Provider]:
    provider = Provider(authority, request.param)
    try:
        yield provider
    finally:
        provider.close()


names = (f"desk{number}" for number in itertools.count())


@dataclass
class Desk:
    """A touchpoint at the server, and the provider's SMTP, which takes note of what it has accepted.

    `files`: whether it puts a copy of that into Sent. `loses`: subjects of which it loses the message, with the link,
    behind the dot; `drops`: it takes the message, and drops the link instead of answering. Once each.
    """

    stage: Provider
    direction: str = "both"
    files: bool = True
    loses: set[str] = field(default_factory=set)
    drops: set[str] = field(default_factory=set)
    late: list[bytes] | None = None  # copies that are still to be filed, where the provider is slow
    accepted: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = next(names)
        self.smtp = ScriptedProvider(self.play)
        server = self.stage.server
        self.touchpoint = self.stage.touchpoint(self.id) | {
            "direction": self.direction,
            "imap": f"imap+insecure://127.0.0.1:{server.imap_port}",
            "smtp": f"smtp+insecure://127.0.0.1:{self.smtp.port}",
            "sent_copy": "provider" if self.files else "append",
        }
        self.user = self.touchpoint["address"]

    def play(self, phase: str, argument: str, session: Talk) -> str | None:
        if phase != "dot":
            return None
        raw = self.smtp.taken[-1].raw
        subject = argument.partition("\r\nSubject: ")[2].partition("\r\n")[0]
        if subject in self.loses:
            self.loses.remove(subject)
            return CUT
        self.accepted.append(raw)
        if self.files:
            if self.late is None:
                self.file(raw)
            else:
                self.late.append(raw)
        if subject in self.drops:
            self.drops.remove(subject)
            return CUT
        return None

    def file(self, raw: bytes) -> None:
        self.stage.server.append(self.user, raw, "Sent", datetime.now(UTC), "(\\Seen)")

    def sent(self) -> list[bytes]:
        return self.stage.server.messages(self.user, "Sent")


@pytest.fixture
def desk_at(stage: Provider) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**about: Any) -> Desk:
        made.append(Desk(stage, **about))
        return made[-1]

    yield make
    for desk in made:
        desk.smtp.close()


@pytest.fixture
def daemon_of(make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    def make(desk: Desk, **env: str) -> Daemon:
        site = Site([desk.touchpoint])
        site.add_agent("ana@gateway.example", "password", [desk.id], touchpoints=[desk.user])
        daemon = make_daemon(site, {"PYTHONPATH": ROOT}, program=PROGRAM)
        daemon.more_env |= env
        daemon.start()
        if desk.direction == "both":
            daemon.wait_connected(desk.id)
        return daemon

    return make


def submit(daemon: Daemon, desk: Desk, subject: str, body: str = "Good news.\n") -> None:
    message = EmailMessage()
    message["From"] = desk.user
    message["To"] = CUSTOMER
    message["Subject"] = subject
    message["Message-ID"] = f"<{subject.replace(' ', '.')}@{desk.id}>"
    message.set_content(body)
    with daemon.submit("ana@gateway.example", "password") as session:
        session.send_message(message)


def states(daemon: Daemon) -> dict[str, str]:
    return {message["subject"]: message["recipients"][0]["state"] for message in daemon.outbox()}


def wait_states(daemon: Daemon, **expected: str) -> None:
    wait_until(lambda: states(daemon) == expected, str(expected), state=lambda: (states(daemon), daemon.log_tail()))


def subjects(raws: list[bytes]) -> list[str]:
    return sorted(raw.decode().partition("\r\nSubject: ")[2].partition("\r\n")[0] for raw in raws)


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["both", "outbound"])
def test_a_message_whose_answer_never_came_is_delivered_by_the_evidence_of_its_copy(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon], direction: str
) -> None:
    desk = desk_at(direction=direction, drops={"one"})
    daemon = daemon_of(desk)
    submit(daemon, desk, "one")
    wait_states(daemon, one="delivered")
    (event,) = daemon.events("settled")
    assert (event["outcome"], event["attempt"]) == ("delivered", 1)
    assert subjects(desk.accepted) == subjects(desk.sent()) == ["one"]
    wait_until(lambda: not daemon.status()["alarms"], "no alarm is left", state=lambda: daemon.status()["alarms"])
    assert daemon.stop() == 0
    assert subjects(desk.accepted) == ["one"]


@pytest.mark.parametrize("direction", ["both", "outbound"])
def test_a_message_that_was_lost_with_its_answer_is_sent_again_after_absence(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon], direction: str
) -> None:
    desk = desk_at(direction=direction, loses={"one"})
    daemon = daemon_of(desk)
    submit(daemon, desk, "one")
    wait_until(lambda: daemon.events("undecided"), "it was looked for", state=daemon.log_tail)
    assert states(daemon) == {"one": "uncertain"}, "nothing later lies there, so nothing is known"
    submit(daemon, desk, "two")
    wait_states(daemon, one="delivered", two="delivered")
    assert [event["outcome"] for event in daemon.events("settled")] == ["deferred"]
    assert subjects(desk.accepted) == subjects(desk.sent()) == ["one", "two"]
    (twice,) = [raw for raw in desk.accepted if b"Subject: one" in raw]
    assert [trace.attempt for trace in traces(twice)] == [2]


def test_a_copy_that_is_filed_late_keeps_a_message_from_being_sent_twice(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon]
) -> None:
    desk = desk_at(drops={"one"}, late=[])
    daemon = daemon_of(desk)
    submit(daemon, desk, "one")
    wait_until(lambda: len(daemon.events("undecided")) > 1, "it was looked for", state=daemon.log_tail)
    assert desk.late is not None
    assert subjects(desk.late) == ["one"]
    desk.file(desk.late.pop())
    wait_states(daemon, one="delivered")
    assert subjects(desk.accepted) == ["one"]


def test_what_a_kill_left_in_doubt_is_settled_by_the_next_start(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon]
) -> None:
    desk = desk_at()
    daemon = daemon_of(desk)
    killed: list[str] = []

    def play(phase: str, argument: str, session: Talk) -> str | None:
        answer = desk.play(phase, argument, session)
        if phase == "dot" and not killed:
            killed.append(argument)
            daemon.kill()
        return answer

    desk.smtp.script = play
    submit(daemon, desk, "one")
    wait_until(lambda: killed and not daemon.is_running, "it was killed in `sending`")
    daemon.start()
    wait_states(daemon, one="delivered")
    assert subjects(desk.accepted) == ["one"]


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["both", "outbound"])
def test_where_the_provider_keeps_no_copies_we_put_them_there(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon], direction: str
) -> None:
    desk = desk_at(direction=direction, files=False)
    daemon = daemon_of(desk)
    for subject in ("one", "two"):
        submit(daemon, desk, subject, "x" * 60 + "\n" + "Grüße\n" * 200_000)
    wait_states(daemon, one="delivered", two="delivered")
    wait_until(lambda: len(desk.sent()) == 2, "both copies", state=daemon.log_tail)
    assert sorted(map(without_date, desk.sent())) == sorted(map(without_date, desk.accepted))
    assert all(b"\\Seen" in flags for flags in desk.stage.server.flags(desk.user, "Sent"))
    wait_until(lambda: len(daemon.events("sent-copy")) == 2, "both are told")
    assert not daemon.events("sent-elsewhere")


def without_date(raw: bytes) -> bytes:
    """The trace in our copy has the time of the provider's answer."""
    (trace,) = traces(raw)
    assert trace.at is not None
    first = compose_trace("gateway.example", trace.queue_id, trace.attempt, round(trace.at.timestamp() * 1000))
    assert raw.startswith(first)
    return raw.removeprefix(first)


def test_a_copy_that_the_agents_client_has_filed_is_enough(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon]
) -> None:
    desk = desk_at(files=False)
    desk.file(f"Message-ID: <one@{desk.id}>\r\nSubject: one\r\n\r\nfiled by the client\r\n".encode())
    daemon = daemon_of(desk)
    submit(daemon, desk, "one")
    wait_until(lambda: daemon.events("sent-copy"), "it was looked for", state=daemon.log_tail)
    assert daemon.events("sent-copy")[0]["outcome"] == "found"
    assert len(desk.sent()) == 1


def test_a_kill_between_a_copy_and_its_record_makes_no_second_one(
    desk_at: Callable[..., Desk], daemon_of: Callable[..., Daemon], tmp_path: Path
) -> None:
    desk = desk_at(files=False)
    daemon = daemon_of(desk, DIES_AFTER_COPY=str(tmp_path / "died"))
    submit(daemon, desk, "one")
    wait_until(lambda: not daemon.is_running, "it was killed behind the copy", state=daemon.log_tail)
    assert len(desk.sent()) == 1
    daemon.start()
    wait_until(lambda: daemon.events("sent-copy"), "it was looked for", state=daemon.log_tail)
    assert daemon.events("sent-copy")[0]["outcome"] == "found"
    assert len(desk.sent()) == 1


# --- the session -----------------------------------------------------------------------------------------------------


async def test_copies_are_laid_down_and_found_by_their_trace(stage: Provider) -> None:
    user = str(stage.touchpoint(next(names))["address"])
    at = datetime(2026, 11, 3, 4, 5, 6, tzinfo=UTC)
    number = read_id("1r7hq2x0") or 0
    raws = [compose_trace("gateway.example", number, attempt, 0) + letter(attempt, "copy") for attempt in (1, 2)]
    raws.append("From: Künde <a@b.example>\r\nSubject: grün\r\n\r\nü\r\n".encode())
    raws.append(compose_trace("gateway.example", number + 1, 1, 0) + letter(3, "copy") + b"y" * 76 + b"\r\n" * 500_000)

    async def pieces(raw: bytes) -> Any:
        for start in range(0, len(raw), 65536):
            yield raw[start : start + 65536]

    async with open_bridge() as bridge:
        server = Server("imap+insecure", "127.0.0.1", stage.server.imap_port)
        password = stage.server.users[user]
        session = await bridge.call(partial(imap.connect, server, None, user, password, literal_bytes=10**6))
        for raw in raws:
            await bridge.call(session.append, "Sent", pieces(raw), len(raw), at, not raw.isascii())
        with pytest.raises(imap.NoFolder):
            await bridge.call(session.append, "Elsewhere", pieces(raws[0]), len(raws[0]), at)
        await bridge.call(session.select, "Sent")
        uids = await bridge.call(session.newest, 10)
        assert len(uids) == 4
        assert await bridge.call(session.newest, 2) == uids[2:]
        for attempt in (1, 2):
            assert await bridge.call(session.with_field, "Received", f"1r7hq2x0.{attempt}", at.date()) == [
                uids[attempt - 1]
            ]
        heads = await bridge.call(session.headers, uids, 64 * 1024)
        assert [[trace.attempt for trace in traces(head.raw or b"")] for head in heads] == [[1], [2], [], [1]]
        listed = await bridge.call(session.listed, uids)
        assert [one.internal_at for one in listed] == [at] * 4
        await bridge.call(session.logout)
    there = stage.server.messages(user, "Sent")
    if isinstance(stage.server, Cyrus):  # it writes UTF-8 in a header in its own way
        del there[2], raws[2]
    assert there == raws
