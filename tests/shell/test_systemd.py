"""systemd's side of the service, played by a datagram socket and by sockets opened beforehand."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import systemd
from tests.support import activation
from tests.support.ports import free_port


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.settimeout(10)
        yield ear


def test_a_notice_reaches_a_socket_with_a_path(
    ear: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    systemd.notify(READY=1, STATUS="3 sessions")
    assert ear.recv(1000) == b"READY=1\nSTATUS=3 sessions"


def test_a_notice_reaches_a_socket_in_the_abstract_namespace(
    ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mail-gateway-test-{os.getpid()}-{time.monotonic_ns()}"
    ear.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    systemd.notify(STOPPING=1)
    assert ear.recv(1000) == b"STOPPING=1"


def test_a_systemd_that_reads_nothing_holds_nobody_up(
    ear: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10_000):
                full.sendto(b"WATCHDOG=1", str(tmp_path / "notify"))
            pytest.fail("the queue has no end")
    began = time.monotonic()
    systemd.notify(WATCHDOG=1)
    assert time.monotonic() - began < 5


def test_reloading_says_when_by_the_monotonic_clock(
    ear: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    earliest = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.notify_reloading()
    said = dict(line.split(b"=") for line in ear.recv(1000).split(b"\n"))
    assert said[b"RELOADING"] == b"1"
    assert earliest <= int(said[b"MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("address", ["", "/nobody/listens/here", "@nobody-listens-here"])
def test_nobody_who_listens_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify(READY=1)


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        pytest.param({}, None, id="not-watched"),
        pytest.param({"WATCHDOG_USEC": "60000000"}, timedelta(seconds=30), id="half-of-its-patience"),
        pytest.param({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None, id="meant-for-another-process"),
        pytest.param({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "own"}, timedelta(seconds=30), id="meant-for-us"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="nothing"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="garbage"),
    ],
)
def test_how_often_the_watchdog_wants_to_hear_from_us(
    environment: dict[str, str], interval: timedelta | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert systemd.watchdog_interval() == interval


# --- sockets that systemd opened -------------------------------------------------------------------------------------

_FINDER = """
import json, os
from gateway import systemd
found = systemd.listening_sockets()
print(json.dumps({name: [one.getsockname()[1] for one in each] for name, each in found.items()}))
assert not any(os.get_inheritable(one.fileno()) for each in found.values() for one in each)
"""


def find(environment: Mapping[str, str], *launcher: str) -> Any:
    """Return the ports, by name, that a process finds which is started with this environment, by this launcher."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("LISTEN_")}
    command = [*launcher, sys.executable, "-c", _FINDER]
    done = subprocess.run(command, env={**env, **environment}, check=True, capture_output=True, text=True, timeout=30)
    return json.loads(done.stdout)


def handed_over(ports: Sequence[int], names: str) -> Any:
    return find({}, sys.executable, activation.__file__, ",".join(map(str, ports)), names)


def test_sockets_come_by_the_names_that_the_unit_gives_them() -> None:
    one, other = free_port(), free_port()
    assert handed_over([one, other], "submission:imap") == {"submission": [one], "imap": [other]}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param("-", id="no-names"),
        pytest.param("mail-gateway.socket:mail-gateway.socket", id="those-of-the-unit"),  # what systemd takes then
        pytest.param("submission", id="too-few"),
    ],
)
def test_sockets_without_a_name_of_ours_are_for_submission(names: str) -> None:
    ports = [free_port(), free_port()]
    assert handed_over(ports, names) == {"submission": ports}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, id="for-another-process"),
        pytest.param({}, id="none"),
    ],
)
def test_without_socket_activation_there_are_none(environment: Mapping[str, str]) -> None:
    assert find(environment) == {}


def test_a_number_of_sockets_that_is_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "many")
    assert systemd.listening_sockets() == {}
