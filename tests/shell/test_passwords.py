"""Passwords against real argon2 hashes and a real store; only the clock is ours."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Unavailable
from gateway.outbound import passwords as module
from gateway.outbound.passwords import Login, Passwords, hash_password
from gateway.state import agents
from gateway.state.store import Store
from tests.support.submission import HASH, PASSWORD, hash_cheaply
from tests.support.waiting import wait_until

RIGHT = PASSWORD.encode()


@dataclass
class Agent:
    password_hash: str = HASH
    active: bool = True


@dataclass
class House:
    """Stands in for the configuration: passwords ask it for nothing but agents."""

    agents: dict[str, Agent] = field(default_factory=lambda: {"ana": Agent(), "ben": Agent(password_hash="")})


class Bench:
    """Passwords with a clock to turn and a count of the hashes computed."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = House()
        self.store = store
        self.seconds = 0.0
        self.checked: list[str] = []
        real = module._matches

        def counting(expected: str, password: bytes) -> bool:
            self.checked.append(expected)
            return real(expected, password)

        monkeypatch.setattr(module, "_matches", counting)
        current: Any = lambda: self.house  # noqa: E731
        self.passwords = Passwords(current, store, clock=lambda: self.seconds)

    def verify(self, login: str, password: bytes = RIGHT) -> Login | None:
        return asyncio.run(self.passwords.verify(login.encode(), password))

    def store_hash(self, login: str, password: str) -> None:
        new = agents.NewPassword(login, hash_cheaply(password))
        self.store.submit(agents.set_password, new).result(timeout=10)

    def commits(self) -> int:
        """How many there have been, with the one that this question is: a reader may see what the writer has not
        counted yet, and what is asked of the writer comes after that."""
        self.store.submit(_nothing, None).result(timeout=10)
        return self.store.commits

    def facts(self, login: str) -> agents.AgentFacts | None:
        return self.store.read(agents.agent_facts).result(timeout=10).get(login)


def _nothing(_: sqlite3.Connection, items: Sequence[None]) -> Sequence[None]:
    return items


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    store = Store.open(tmp_path / "gateway.db")
    bench = Bench(store, monkeypatch)
    yield bench
    bench.passwords.close()
    store.close()


def test_the_right_password_is_right_and_another_is_wrong(bench: Bench) -> None:
    assert bench.verify("ana") == Login("ana", HASH)
    assert bench.verify("ANA ") == Login("ana", HASH)
    for wrong in (b"", b"wrong", RIGHT + b"\0", b"\xff\xfe"):
        assert bench.verify("ana", wrong) is None


def test_a_verified_login_costs_no_hash_for_a_while(bench: Bench) -> None:
    for _ in range(3):
        assert bench.verify("ana")
    assert bench.checked == [HASH]
    bench.seconds += 301
    assert bench.verify("ana")
    assert bench.checked == [HASH, HASH]


def test_a_wrong_password_is_never_remembered(bench: Bench) -> None:
    assert bench.verify("ana")
    assert bench.verify("ana", b"wrong") is None
    assert bench.verify("ana", b"wrong") is None
    assert len(bench.checked) == 3


def test_another_hash_in_the_file_counts_at_once(bench: Bench) -> None:
    login = bench.verify("ana")
    assert login is not None
    bench.house.agents["ana"] = Agent(password_hash=hash_cheaply("new"))
    assert bench.verify("ana") is None
    assert bench.verify("ana", b"new")
    assert not asyncio.run(bench.passwords.still_holds(login))


def test_an_agent_switched_off_is_out_at_once(bench: Bench) -> None:
    login = bench.verify("ana")
    assert login is not None
    assert asyncio.run(bench.passwords.still_holds(login))
    bench.house.agents["ana"].active = False
    assert bench.verify("ana") is None
    assert not asyncio.run(bench.passwords.still_holds(login))


def test_an_agent_switched_off_while_the_hash_is_computed_is_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def switch_off(expected: str, password: bytes) -> bool:
        bench.house.agents["ana"].active = False
        return True

    monkeypatch.setattr(module, "_matches", switch_off)
    assert bench.verify("ana") is None


def test_the_stored_password_counts_where_the_file_has_none(bench: Bench) -> None:
    assert bench.verify("ben") is None
    bench.store_hash("ben", "first")
    bench.passwords.forget("ben")
    assert bench.verify("ben", b"first")
    bench.store_hash("ana", "stored")
    bench.passwords.forget("ana")
    assert bench.verify("ana", b"stored") is None  # what the file says wins
    assert bench.verify("ana")


def test_a_change_counts_at_once_also_for_who_is_remembered(bench: Bench) -> None:
    bench.store_hash("ben", "first")
    login = bench.verify("ben", b"first")
    assert login is not None
    asyncio.run(bench.passwords.change("Ben", "second"))
    assert bench.verify("ben", b"first") is None
    assert bench.verify("ben", b"second")
    assert not asyncio.run(bench.passwords.still_holds(login))


def test_a_change_while_the_old_hash_is_read_is_not_overlooked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.store_hash("ben", "first")
    real = agents.stored_hash

    def read_then_change(db: Any, login: str) -> str | None:
        found = real(db, login)
        bench.passwords.forget(login)  # as if it were changed between this read and its answer
        return found

    with monkeypatch.context() as patched:
        patched.setattr(agents, "stored_hash", read_then_change)
        bench.verify("ben", b"first")
    bench.store_hash("ben", "second")
    assert bench.verify("ben", b"second")


@pytest.mark.parametrize("login", ["nobody", "", "ben", "\x00", "x" * 5000])
def test_an_unknown_login_costs_a_hash_too(bench: Bench, login: str) -> None:
    assert bench.verify(login) is None
    (expected,) = bench.checked
    assert expected == module._NOBODY
    assert expected.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # as much as one that `passwd` makes
    assert hash_password("x").rpartition("$")[0].rpartition("$")[0] == "$argon2id$v=19$m=65536,t=3,p=4"


def test_a_hash_that_is_none_is_a_wrong_password(bench: Bench) -> None:
    bench.house.agents["ana"] = Agent(password_hash="$argon2id$broken")
    assert bench.verify("ana") is None


def test_no_more_than_two_hashes_at_once_and_a_crowd_is_sent_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, running, most = threading.Event(), set(), []

    def slow(expected: str, password: bytes) -> bool:
        running.add(password)
        most.append(len(running))
        assert gate.wait(20)
        running.discard(password)
        return False

    monkeypatch.setattr(module, "_matches", slow)

    async def crowd() -> list[Any]:
        attempts = [asyncio.create_task(bench.passwords.verify(b"ana", b"%d" % number)) for number in range(70)]
        done, _ = await asyncio.wait(attempts, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(task.exception(), Unavailable) for task in done)
        gate.set()
        return await asyncio.gather(*attempts, return_exceptions=True)

    found = asyncio.run(crowd())
    assert sum(isinstance(one, Unavailable) for one in found) == 6
    assert found.count(None) == 64
    assert max(most) == 2


def test_a_crowd_of_strangers_keeps_nobody_else_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(expected: str, password: bytes) -> bool:
        assert gate.wait(20)
        return password == RIGHT

    monkeypatch.setattr(module, "_matches", slow)

    async def crowd() -> tuple[list[Any], Login | None]:
        verify = bench.passwords.verify
        strangers = [asyncio.create_task(verify(b"x%d" % n, b"x", is_stranger=True)) for n in range(40)]
        await asyncio.wait(strangers, return_when=asyncio.FIRST_EXCEPTION)
        colleague = asyncio.create_task(verify(b"ana", RIGHT))
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*strangers, return_exceptions=True), await colleague

    found, login = asyncio.run(crowd())
    assert sum(isinstance(one, Unavailable) for one in found) == 8
    assert login == Login("ana", HASH)


def test_logins_are_noted_but_not_each_one(bench: Bench) -> None:
    assert bench.verify("ana")
    wait_until(lambda: bench.facts("ana"), "the login is noted")
    before = bench.commits()
    for _ in range(5):
        assert bench.verify("ana")
    bench.verify("ana", b"wrong")
    wait_until(lambda: (facts := bench.facts("ana")) and facts.failures == 1, "the failure is noted")
    assert bench.commits() == before + 2  # the question, and one for all of them
    assert bench.verify("ana")  # at once again, for it ends the failures
    wait_until(lambda: (facts := bench.facts("ana")) and facts.failures == 0, "the good login is noted")
    bench.verify("nobody")
    assert bench.facts("nobody") is None
