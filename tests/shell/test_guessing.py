"""Guessing at passwords: late answers, one guess at a time, and no colleague who suffers for it."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.outbound.logins import Logins, place_of
from gateway.outbound.passwords import Login
from tests.support.authority import Authority
from tests.support.submission import PASSWORD, Rig, replies

RIGHT = b"right"
HERE, THERE = "192.0.2.7", "198.51.100.9"


class Checker:
    """Stands for `Passwords`, which has tests of its own: `ana` and `ben` know one, and checking takes no time."""

    def __init__(self) -> None:
        self.checked: list[tuple[float, bytes]] = []
        self.strangers: list[bool] = []
        self.remembered: set[bytes] = set()
        self.at_once = self.most_at_once = 0

    async def recall(self, login: bytes, password: bytes) -> Login | None:
        return Login(login.decode(), "hash") if login in self.remembered and password == RIGHT else None

    async def verify(self, login: bytes, password: bytes, *, is_stranger: bool) -> Login | None:
        self.strangers.append(is_stranger)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.checked.append((asyncio.get_running_loop().time(), login))
        if password != RIGHT or login not in (b"ana", b"ben"):
            return None
        self.remembered.add(login)
        return Login(login.decode(), "hash")


class QuickLoop(asyncio.SelectorEventLoop):
    """Whenever everybody waits, the clock leaps to whoever is next: minutes of patience in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.leapt = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def leap(timeout: float | None = None) -> Any:
            if timeout:
                self.leapt += timeout
                timeout = 0
            return select(timeout)

        self._selector.select = leap  # type: ignore[attr-defined]

    def time(self) -> float:
        return super().time() + self.leapt


class Site:
    """As much of a configuration as logins look at."""

    def __init__(self, *trusted: str) -> None:
        from ipaddress import ip_network

        self.gateway = self.submission = self
        self.trusted_networks = tuple(ip_network(one) for one in trusted)
        self.agents = {"ana": None, "ben": None}


def play(scene: Callable[[Logins, Checker], Any], *trusted: str) -> Any:
    loop = QuickLoop()
    checker = Checker()
    site: Any = Site(*trusted)

    async def run() -> Any:
        current: Callable[[], Config] = lambda: site  # noqa: E731
        logins = Logins(current, checker, loop.time, asyncio.Event())  # type: ignore[arg-type]
        found = await scene(logins, checker)
        assert not logins._turns
        assert not logins._waiting
        return found

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def test_a_hundred_guesses_at_once_are_no_faster_than_one_after_the_other() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        found = await asyncio.gather(*(logins.log_in(b"ana", b"guess%d" % n, HERE) for n in range(100)))
        assert checker.most_at_once == 1
        # 0.5 + 1 + 2 + 4 + 8 + 16 seconds: whoever would have to wait longer for his turn is not looked at
        assert len(checker.checked) == 6
        assert [str(reply)[:3] for reply in found].count("535") == 6
        assert [str(reply)[:9] for reply in found].count("454 4.7.0") == 94

    play(scene)


def test_a_guess_waits_for_the_answer_to_the_one_before_it() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        for _ in range(4):
            await logins.log_in(b"ana", b"wrong", HERE)
        first, second = checker.checked[-2][0], checker.checked[-1][0]
        assert second - first >= 2

    play(scene)


def test_who_was_right_a_moment_ago_waits_for_nobody() -> None:
    """A colleague's old phone has the wrong password of the same login, at the same address."""

    async def scene(logins: Logins, checker: Checker) -> None:
        assert isinstance(await logins.log_in(b"ana", RIGHT, HERE), Login)
        phone = [asyncio.create_task(logins.log_in(b"ana", b"old", HERE)) for _ in range(4)]
        await asyncio.sleep(0.1)
        before = asyncio.get_running_loop().time()
        assert isinstance(await logins.log_in(b"ana", RIGHT, HERE), Login)
        assert asyncio.get_running_loop().time() - before < 0.1
        await asyncio.gather(*phone)

    play(scene)


def test_other_logins_and_other_places_do_not_wait() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        guesses = [asyncio.create_task(logins.log_in(b"ana", b"wrong", HERE)) for _ in range(50)]
        await asyncio.sleep(20)
        before = asyncio.get_running_loop().time()
        assert isinstance(await logins.log_in(b"ben", RIGHT, HERE), Login)
        assert isinstance(await logins.log_in(b"ana", RIGHT, THERE), Login)
        assert asyncio.get_running_loop().time() - before < 0.1
        await asyncio.gather(*guesses)

    play(scene)


def test_many_names_from_a_strange_place_are_answered_later_and_later() -> None:
    async def scene(logins: Logins, checker: Checker) -> list[float]:
        times = []
        for n in range(7):
            before = asyncio.get_running_loop().time()
            await logins.log_in(b"name%d" % n, b"x", HERE)
            times.append(round(asyncio.get_running_loop().time() - before, 1))
        return times

    assert play(scene) == [0.5, 1, 2, 4, 8, 16, 16]


def test_a_right_password_is_never_late_in_a_strange_place() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        for n in range(7):
            await logins.log_in(b"name%d" % n, b"x", HERE)
        before = asyncio.get_running_loop().time()
        assert isinstance(await logins.log_in(b"ana", RIGHT, HERE), Login)
        assert asyncio.get_running_loop().time() - before < 0.1

    play(scene)


def test_an_office_is_not_slowed_by_names_that_do_not_exist() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        await logins.log_in(b"ana", RIGHT, HERE)
        for n in range(7):
            before = asyncio.get_running_loop().time()
            await logins.log_in(b"name%d" % n, b"x", HERE)
            assert asyncio.get_running_loop().time() - before < 0.6

    play(scene)


@pytest.mark.parametrize("address", [HERE, f"::ffff:{HERE}"])
def test_trusted_networks_have_no_limits(address: str) -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        before = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(logins.log_in(b"ana", b"wrong", address) for _ in range(50)))
        assert set(found) == {"535 5.7.8 wrong login or password"}
        assert len(checker.checked) == 50
        assert asyncio.get_running_loop().time() - before < 0.1

    play(scene, "192.0.2.0/24")


def test_who_comes_from_where_somebody_logged_in_is_no_stranger() -> None:
    async def scene(logins: Logins, checker: Checker) -> None:
        for login, password, address in (
            (b"ana", b"wrong", HERE), (b"ana", RIGHT, HERE), (b"ben", RIGHT, HERE), (b"ben", b"wrong", THERE),
            (b"ben", b"wrong", "203.0.113.5"),
        ):  # fmt: skip
            await logins.log_in(login, password, address)
        assert checker.strangers == [True, True, False, True, False]

    play(scene, "203.0.113.0/24")


def test_a_customer_of_ipv6_has_one_place_however_many_addresses() -> None:
    assert place_of("2001:db8:1:2:3:4:5:6") == place_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert place_of("2001:db8:1:3::1") != place_of("2001:db8:1:2::1")
    assert place_of("fe80::1%eth0") == "fe80::/64"
    assert place_of(f"::ffff:{HERE}") == place_of(HERE) == HERE


# --- on real sockets -------------------------------------------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    rig = Rig(tmp_path, authority)
    yield rig
    rig.close()


def test_parallel_connections_do_not_help_to_guess(rig: Rig) -> None:
    plugs = [rig.plug() for _ in range(20)]
    plain = base64.b64encode(b"\0ana@example.com\0wrong").decode()
    answered: list[float] = []
    begun = time.monotonic()

    def guess(plug: Any) -> None:
        plug.sendall(f"EHLO me\r\nAUTH PLAIN {plain}\r\n".encode())
        plug.settimeout(6)
        try:
            assert replies(plug, 2)[1].startswith("535")
            answered.append(time.monotonic() - begun)
        except TimeoutError:
            pass

    threads = [threading.Thread(target=guess, args=(plug,)) for plug in plugs]
    for thread in threads:
        thread.start()
    client = rig.login("ben@example.com")  # meanwhile a colleague comes in without waiting
    assert time.monotonic() - begun < 10
    assert client.noop()[0] == 250
    assert client.login is not None
    for thread in threads:
        thread.join(20)
    assert 1 <= len(answered) <= 3  # after 0.5, 1.5 and 3.5 seconds
    good = rig.plug()  # and so does who knows the password of another login
    plain = base64.b64encode(f"\0ben@example.com\0{PASSWORD}".encode()).decode()
    good.sendall(f"EHLO me\r\nAUTH PLAIN {plain}\r\n".encode())
    assert replies(good, 2)[1].startswith("235")


def test_a_client_that_hangs_up_within_auth_has_not_guessed(rig: Rig) -> None:
    for said in ("AUTH LOGIN\r\n", "AUTH PLAIN\r\n", "AUTH LOGIN\r\nYW5hQGV4YW1wbGUuY29t\r\n"):
        plug = rig.plug()
        plug.sendall(f"EHLO me\r\n{said}".encode())
        replies(plug, 1 + said.count("\r\n"))
        plug.close()
    client = rig.login()
    assert client.noop()[0] == 250
    found = rig.store.read(lambda db: db.execute("SELECT count(*) FROM agent WHERE failures > 0").fetchone())
    assert found.result(timeout=10) == (0,)


def test_no_password_is_ever_logged(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "tell-nobody"
    plain = base64.b64encode(f"\0ana@example.com\0{secret}".encode()).decode()
    alone = base64.b64encode(secret.encode()).decode()
    broken = base64.b64encode(f"ana@example.com\0{secret}".encode()).decode()
    for said in (
        f"AUTH PLAIN {plain}\r\n",
        f"AUTH PLAIN\r\n{plain}\r\n",
        f"AUTH LOGIN YW5hQGV4YW1wbGUuY29t\r\n{alone}\r\n",
        f"AUTH PLAIN {broken}\r\n",
        f"AUTH X {plain}\r\n",
        f"BOGUS {secret}\r\n{alone}\r\n",
    ):
        plug = rig.plug()
        plug.sendall(f"EHLO me\r\n{said}".encode())
        found = replies(plug, 1 + said.count("\r\n"))
        assert not any(secret in reply or alone in reply for reply in found)
    output = "".join(capfd.readouterr())
    assert "login-failed" in output
    assert not any(word in output for word in (secret, alone, plain, broken))
