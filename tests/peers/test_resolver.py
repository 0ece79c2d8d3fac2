"""The DNS as the daemon asks it: a real name server, answers that are kept, silence that is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from gateway.inbound import resolver
from gateway.inbound.resolver import Resolver
from gateway.rules.dns import Answer, Inquiry, Kind, Question, Unanswered
from tests.support.nameserver import NameServer, silent_server

RECORDS = [
    'words.example. TXT "one " "two"',
    "mx.example. MX 20 b.example.",
    "mx.example. MX 10 A.example.",
    "a.example. A 192.0.2.1",
    "a.example. AAAA 2001:db8::1",
    "alias.example. CNAME a.example.",
    "1.2.0.192.in-addr.arpa. PTR a.example.",
    *(f'large.example. TXT "{number:03} {"x" * 200}"' for number in range(30)),
]


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer(RECORDS, broken=["broken.example"])
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("words.example", Kind.TXT, ("one two",)),
        ("mx.example", Kind.MX, ("a.example", "b.example")),
        ("a.example", Kind.A, ("192.0.2.1",)),
        ("a.example", Kind.AAAA, ("2001:db8::1",)),
        ("alias.example", Kind.A, ("192.0.2.1",)),
        ("1.2.0.192.in-addr.arpa", Kind.PTR, ("a.example",)),
        ("a.example", Kind.TXT, ()),
        ("nothing.example", Kind.A, ()),
        ("x" * 64 + ".example", Kind.A, ()),
        ("a..example", Kind.A, ()),
        ("back\\slash.example", Kind.A, ()),
    ],
)
async def test_a_question_has_its_answer(server: NameServer, name: str, kind: Kind, answer: Answer) -> None:
    assert await Resolver([server.address]).ask(Question(name, kind)) == answer


async def test_an_answer_too_large_for_a_datagram_comes_all_the_same(server: NameServer) -> None:
    assert len(await Resolver([server.address]).ask(Question("large.example", Kind.TXT))) == 30


async def test_a_server_that_fails_has_not_said_no(server: NameServer) -> None:
    asked = Resolver([server.address])
    for _ in range(10):  # nor does it count as silence
        with pytest.raises(Unanswered, match="failed"):
            await asked.ask(Question("broken.example", Kind.TXT))
    assert await asked.ask(Question("a.example", Kind.A)) == ("192.0.2.1",)


async def test_answers_and_absences_are_kept(server: NameServer) -> None:
    asked = Resolver([server.address])
    for question in (Question("a.example", Kind.A), Question("nothing.example", Kind.A)):
        first = await asked.ask(question)
        server.freeze()
        try:
            with trio.fail_after(1):
                assert await asked.ask(question) == first
        finally:
            server.thaw()


async def test_an_answer_is_forgotten_when_its_time_is_over(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_SHORTEST_TTL", 0.0)
    monkeypatch.setattr(resolver, "_LONGEST_TTL", 0.01)
    asked = Resolver([server.address])
    question = Question("a.example", Kind.A)
    assert await asked.ask(question) == ("192.0.2.1",)
    await trio.sleep(0.02)
    server.freeze()
    try:
        monkeypatch.setattr(resolver, "PATIENCE", 0.2)
        with pytest.raises(Unanswered):
            await asked.ask(question)
    finally:
        server.thaw()


async def test_the_cache_is_bounded(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "KEPT", 5)
    asked = Resolver([server.address])
    for number in range(20):
        await asked.ask(Question(f"n{number}.example", Kind.A))
    assert len(asked._cache) == 5


async def test_who_asks_the_same_waits_for_the_same_answer(server: NameServer) -> None:
    asked = Resolver([server.address])
    question = Question("a.example", Kind.A)
    found: list[Answer] = []

    async def ask() -> None:
        found.append(await asked.ask(question))

    server.freeze()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.1):  # the first gives up; the others must not hang on its account
            await ask()
        for _ in range(20):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(asked._under_way) == 1
        server.thaw()
    assert found == [("192.0.2.1",)] * 20


async def test_a_silent_resolver_is_left_alone_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.1)
    monkeypatch.setattr(resolver, "_FAILURE_TTL", 0.0)
    told: list[str | None] = []
    server = NameServer(RECORDS)
    server.start()
    try:
        server.freeze()
        asked = Resolver([server.address], on_silence=told.append)
        for number in range(4):
            with pytest.raises(Unanswered, match=r"did not answer in 0\.1 s"):
                await asked.ask(Question(f"n{number}.example", Kind.A))
        assert len(told) == 1
        with pytest.raises(Unanswered, match="does not answer"):
            await asked.ask(Question("a.example", Kind.A))
        server.thaw()
        monkeypatch.setattr(resolver, "PATIENCE", 5.0)
        asked._silent_until = trio.current_time()  # half a minute later
        assert await asked.ask(Question("a.example", Kind.A)) == ("192.0.2.1",)
        assert told[1:] == [None]
    finally:
        server.close()


async def test_a_server_that_is_down_is_passed_over_for_the_next(server: NameServer) -> None:
    with silent_server() as silent:
        asked = Resolver([f"127.0.0.1:{silent.getsockname()[1]}", server.address])
        assert await asked.ask(Question("a.example", Kind.A)) == ("192.0.2.1",)


async def test_a_port_where_nobody_is_has_not_said_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.3)
    with silent_server() as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(Unanswered):
        await Resolver([address]).ask(Question("a.example", Kind.A))


async def test_an_inquiry_hears_of_answers_and_of_failures(server: NameServer) -> None:
    def inquiry() -> Inquiry[list[object]]:
        heard: list[object] = []
        for name in ("a.example", "broken.example"):
            try:
                heard.append((yield Question(name, Kind.A)))
            except Unanswered:
                heard.append("away")
        return heard

    assert await Resolver([server.address]).settle(inquiry()) == [("192.0.2.1",), "away"]
