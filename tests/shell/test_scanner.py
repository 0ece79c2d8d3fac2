"""A scanner may be away, silent, slow, mad or hostile: each message has its answer, or none, within its time."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from trio.abc import HalfCloseableStream

from gateway import events
from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound.scanner import TOGETHER, Scanner
from gateway.inbound.scoring import LARGEST_ANSWER, Letter
from gateway.model import Score

RAW = b"Subject: x\r\n\r\nbody\r\n"
RSPAMD = Spam.model_validate({"scanner": "rspamd+http://scan.example:11333"})
SPAMD = Spam.model_validate({"scanner": "spamd://scan.example:783"})
GOOD = b'{"score": 7.5, "symbols": {"BAD": {"score": 7.5}}}'

Play = Callable[[HalfCloseableStream], Awaitable[None]]


class Peer:
    """Plays a scanner in memory: each connection is given to `play`. `heard`: what the last one was sent."""

    def __init__(self, nursery: trio.Nursery, play: Play) -> None:
        self.play = play
        self.heard = b""
        self.connections = self.now = self.most = 0
        self.dialled: list[tuple[str, int]] = []
        self._nursery = nursery

    async def dial(self, host: str, port: int) -> HalfCloseableStream:
        self.dialled.append((host, port))
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: HalfCloseableStream) -> None:
        self.connections += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.play(stream)
        except trio.BrokenResourceError:  # the gateway has hung up
            pass
        finally:
            self.now -= 1
            await stream.aclose()

    async def read(self, stream: HalfCloseableStream) -> None:
        """Take a whole request."""
        self.heard = b""
        while not self._is_whole():
            part = await stream.receive_some(65_536)
            if not part:
                return
            self.heard += part

    def _is_whole(self) -> bool:
        head, gap, body = self.heard.partition(b"\r\n\r\n")
        lengths = [int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if b"content-length" in line]
        return bool(gap) and len(body) >= (lengths[0] if lengths else 0)

    def answers(self, *parts: bytes, pause: float = 0.0) -> Play:
        async def play(stream: HalfCloseableStream) -> None:
            await self.read(stream)
            for part in parts:
                await stream.send_all(part)
                await trio.sleep(pause)

        return play


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def silence(stream: HalfCloseableStream) -> None:
    await trio.sleep_forever()


@pytest.fixture
def health() -> Health:
    return Health(lambda: datetime.now(UTC))


@pytest.fixture
def peer(nursery: trio.Nursery) -> Peer:
    return Peer(nursery, silence)


@pytest.fixture
def scanner(peer: Peer, health: Health) -> Scanner:
    return Scanner(health, dial=peer.dial)


async def ask(scanner: Scanner, spam: Spam = RSPAMD, raw: bytes = RAW, **keys: Any) -> Score:
    async def raw_of() -> bytes:
        return raw

    return await scanner.score(spam, Letter(keys.pop("size", len(raw)), raw_of, **keys))


async def refused(scanner: Scanner, spam: Spam = RSPAMD, **keys: Any) -> str:
    with pytest.raises(Unavailable) as raised:
        await ask(scanner, spam, **keys)
    return str(raised.value)


def alarms(health: Health) -> list[str]:
    return [alarm.id for alarm in health.alarms()]


# --- one message -----------------------------------------------------------------------------------------------------


async def test_rspamd_is_asked_and_answers(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(http(GOOD))
    score = await ask(scanner, id="1r7hq2x0", ip="192.0.2.7", return_path="a@b.example")
    assert score == Score(7.5, "rspamd", ("BAD",))
    head, _, body = peer.heard.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /checkv2 HTTP/1.1"
    assert {"Host: scan.example:11333", "IP: 192.0.2.7", "From: a@b.example", "Queue-Id: 1r7hq2x0"} <= set(lines)
    assert body == RAW
    assert peer.dialled == [("scan.example", 11333)]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
        b"HTTP/1.1 200 OK\r\n\r\n" + GOOD,  # until the end of the connection
        b"HTTP/1.1 100 Continue\r\n\r\n" + http(GOOD),
        http(GOOD, more="Connection: keep-alive\r\n"),
    ],
    ids=["chunked", "until-the-end", "continue", "kept-alive"],
)
async def test_http_is_understood_in_all_its_forms(scanner: Scanner, peer: Peer, answer: bytes) -> None:
    peer.play = peer.answers(*(answer[place : place + 1] for place in range(len(answer))))
    assert (await ask(scanner)).value == 7.5


async def test_spamd_is_asked_and_answers(scanner: Scanner, peer: Peer) -> None:
    ended: list[bytes] = []

    async def play(stream: HalfCloseableStream) -> None:
        await peer.read(stream)
        ended.append(bytes(await stream.receive_some(10)))
        await stream.send_all(b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.2 / 5.0\r\n\r\nGTUBE,")
        await stream.send_all(b"MISSING\n")

    peer.play = play
    assert await ask(scanner, SPAMD) == Score(15.2, "spamd", ("GTUBE", "MISSING"))
    assert peer.heard == b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n\r\n%s" % (len(RAW), RAW)
    assert ended == [b""], "it is told that no more comes"


async def test_what_is_too_large_is_not_even_loaded(scanner: Scanner, peer: Peer) -> None:
    async def load() -> bytes:
        raise AssertionError("loaded in vain")

    for spam, largest in ((RSPAMD, 8_000_000), (SPAMD, 500_000)):
        with pytest.raises(Unavailable, match="it has more than"):
            await scanner.score(spam, Letter(largest + 1, load))
    assert peer.connections == 0


async def test_a_store_that_is_away_is_no_fault_of_the_scanner(scanner: Scanner, health: Health) -> None:
    async def load() -> bytes:
        raise Unavailable("the disk is full")

    for _ in range(5):
        with pytest.raises(Unavailable, match="the disk is full"):
            await scanner.score(RSPAMD, Letter(5, load))
    assert alarms(health) == []


# --- what can go wrong -----------------------------------------------------------------------------------------------


async def test_silence_ends_with_the_time(scanner: Scanner, peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    for spam in (RSPAMD, SPAMD):
        began = trio.current_time()
        assert "not answered within 5 s" in await refused(scanner, spam)
        assert trio.current_time() - began == 5


async def test_a_connection_that_never_comes_about_ends_with_the_time(autojump_clock: trio.testing.MockClock) -> None:
    async def dial(host: str, port: int) -> HalfCloseableStream:
        await trio.sleep_forever()
        raise AssertionError

    began = trio.current_time()
    assert "not answered within 5 s" in await refused(Scanner(dial=dial))
    assert trio.current_time() - began == 5


async def test_an_answer_that_trickles_ends_with_the_time(
    scanner: Scanner, peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    answer = http(GOOD)
    peer.play = peer.answers(*(answer[place : place + 1] for place in range(len(answer))), pause=1.0)
    began = trio.current_time()
    assert "not answered within 5 s" in await refused(scanner)
    assert trio.current_time() - began == 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "does not speak HTTP"),
        (b"SPAMD/1.1 0 EX_OK\r\n\r\n", "does not speak HTTP"),
        (b"\x1b[2J\r\n\r\n", "does not speak HTTP"),
        (http(GOOD)[:-5], "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, "does not speak HTTP"),
        (http(b"x" * (LARGEST_ANSWER + 1)), "says more than"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LARGEST_ANSWER + 1), "says more than"),
        (http(b"oops", "503 Busy"), "answers 503 Busy"),
    ],
    ids=["nothing", "another-protocol", "escapes", "cut", "endless-header", "large", "endless", "busy"],
)
async def test_an_answer_that_is_none(scanner: Scanner, peer: Peer, answer: bytes, said: str) -> None:
    peer.play = peer.answers(answer)
    assert said in (found := await refused(scanner))
    assert found.isprintable()
    assert len(found) < 500


async def test_spamd_that_never_stops_is_stopped(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(*[b"x" * 65_536] * 10)
    assert "says more than" in await refused(scanner, SPAMD)


async def test_one_that_hangs_up_while_it_is_sent_to(scanner: Scanner, peer: Peer) -> None:
    async def play(stream: HalfCloseableStream) -> None:
        await stream.receive_some(1)

    peer.play = play
    for spam in (RSPAMD, SPAMD):
        await refused(scanner, spam)


async def test_what_the_system_says_is_passed_on() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    await listener[0].aclose()
    nobody = Spam.model_validate({"scanner": f"spamd://127.0.0.1:{port}"})
    assert await refused(Scanner(), nobody) == f"spamd at 127.0.0.1:{port} cannot be reached: Connection refused"


async def test_over_tls_it_must_be_who_it_says(nursery: trio.Nursery, health: Health) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("scan.example").configure_cert(context)
    peer = Peer(nursery, silence)

    async def play(stream: HalfCloseableStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await peer.read(secured)  # type: ignore[arg-type]
        await secured.send_all(http(GOOD))

    peer.play = play
    spam = Spam.model_validate({"scanner": "rspamd+https://scan.example:11333"})
    stranger = Scanner(health, dial=peer.dial)
    assert "CERTIFICATE_VERIFY_FAILED" in await refused(stranger, spam)
    trusting = Scanner(health, dial=peer.dial)
    trusting._tls = ssl.create_default_context()
    authority.configure_trust(trusting._tls)
    assert (await ask(trusting, spam)).value == 7.5


# --- many messages ---------------------------------------------------------------------------------------------------


async def test_a_few_at_a_time_and_all_of_them_in_their_time(
    scanner: Scanner, peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def play(stream: HalfCloseableStream) -> None:
        await peer.read(stream)
        await trio.sleep(0.9)
        peer.now -= 1  # who has the answer may be gone before we are
        await stream.send_all(http(GOOD))
        peer.now += 1

    peer.play = play
    scores: list[float] = []

    async def one() -> None:
        scores.append((await ask(scanner)).value)

    async with trio.open_nursery() as nursery:
        for _ in range(5 * TOGETHER):
            nursery.start_soon(one)
    assert len(scores) == 5 * TOGETHER
    assert peer.most == TOGETHER


async def test_a_crowd_at_a_silent_one_waits_no_longer_than_one_message(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(refused, scanner)
    assert trio.current_time() - began == 5
    assert await refused(scanner)
    assert trio.current_time() - began == 5, "and nobody waits after that"
    assert alarms(health) == ["scanner"]


async def test_after_some_failures_it_is_left_in_peace_and_found_again(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    before = dict(events.counts())
    for _ in range(3):
        await refused(scanner)
    assert alarms(health) == ["scanner"]
    asked = peer.connections
    for _ in range(50):
        assert "is not asked for a while" in await refused(scanner)
    assert peer.connections == asked
    peer.play = peer.answers(http(GOOD))
    await trio.sleep(10)
    assert (await ask(scanner)).value == 7.5
    assert alarms(health) == []
    told = {name: events.counts().get(name, 0) - before.get(name, 0) for name in ("scanner-away", "scanner-back")}
    assert told == {"scanner-away": 1, "scanner-back": 1}


async def test_another_scanner_begins_with_a_clean_sheet(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        await refused(scanner)
    peer.play = peer.answers(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.0 / 5.0\r\n\r\n")
    assert (await ask(scanner, SPAMD)).value == 1.0
    assert alarms(health) == []


# --- looking after it ------------------------------------------------------------------------------------------------


async def test_one_that_is_away_is_known_before_mail_comes(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        await scanner.look(RSPAMD)
    assert alarms(health) == ["scanner"]
    peer.play = peer.answers(http(b"pong\r\n"))
    await trio.sleep(10)
    await scanner.look(RSPAMD)
    assert alarms(health) == []
    assert peer.heard.startswith(b"GET /ping HTTP/1.1\r\n")


async def test_spamd_is_looked_after_in_its_way(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(b"SPAMD/1.5 0 PONG\r\n")
    await scanner.look(SPAMD)
    assert peer.heard == b"PING SPAMC/1.5\r\n\r\n"


async def test_one_that_has_just_answered_is_not_looked_after(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(http(GOOD))
    await ask(scanner)
    await scanner.look(RSPAMD)
    assert peer.connections == 1
    await scanner.look(RSPAMD)
    assert peer.connections == 2, "that was a minute ago"


async def test_without_a_scanner_there_is_no_alarm(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        await refused(scanner)
    await scanner.look(Spam())
    assert alarms(health) == []


# --- lessons ---------------------------------------------------------------------------------------------------------


async def test_lessons_go_to_the_controller(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(http(b'{"success":true}'))
    assert await scanner.learn(RSPAMD, RAW, is_spam=True) == ""
    assert peer.heard.startswith(b"POST /learnspam HTTP/1.1\r\n")
    assert await scanner.learn(RSPAMD, RAW, is_spam=False) == ""
    assert peer.heard.startswith(b"POST /learnham HTTP/1.1\r\n")
    assert b"assword" not in peer.heard
    assert peer.dialled == [("scan.example", 11334)] * 2


async def test_lessons_carry_the_password(scanner: Scanner, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.play = peer.answers(http(b'{"success":true}'))
    spam = Spam.model_validate({"scanner": RSPAMD.scanner, "learn_password": "env:LEARN_PASSWORD"})
    with pytest.raises(Unavailable, match="LEARN_PASSWORD"):
        await scanner.learn(spam, RAW, is_spam=True)
    monkeypatch.setenv("LEARN_PASSWORD", "opensesame")
    assert await scanner.learn(spam, RAW, is_spam=True) == ""
    assert b"\r\nPassword: opensesame\r\n" in peer.heard


async def test_a_password_that_no_field_can_hold_is_told_and_not_shown(
    scanner: Scanner, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARN_PASSWORD", "open\nsesame")
    spam = Spam.model_validate({"scanner": RSPAMD.scanner, "learn_password": "env:LEARN_PASSWORD"})
    with pytest.raises(Unavailable) as raised:
        await scanner.learn(spam, RAW, is_spam=True)
    assert "sesame" not in str(raised.value)


async def test_spamd_is_told(scanner: Scanner, peer: Peer) -> None:
    peer.play = peer.answers(b"SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\n\r\n")
    assert await scanner.learn(SPAMD, RAW, is_spam=False) == ""
    assert b"\r\nMessage-class: ham\r\nSet: local\r\n" in peer.heard


async def test_a_lesson_in_vain_stops_no_scores(
    scanner: Scanner, peer: Peer, health: Health, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(5):
        with pytest.raises(Unavailable):
            await scanner.learn(RSPAMD, RAW, is_spam=True)
    peer.play = peer.answers(http(GOOD))
    assert (await ask(scanner)).value == 7.5
    assert alarms(health) == []


async def test_what_is_too_large_is_no_lesson(scanner: Scanner) -> None:
    assert "more than 500,000 bytes" in await scanner.learn(SPAMD, b"x" * 500_001, is_spam=True)
