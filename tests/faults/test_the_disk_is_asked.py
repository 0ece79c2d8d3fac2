"""Under strace: the log is on the disk between the last byte of DATA and the 250, and before the cursor counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Site
from tests.support.letters import letter
from tests.support.process import program
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

SABOTAGE = str(Path(__file__).parent / "sabotage.py")
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(.*)$")


@dataclass(frozen=True)
class Call:
    """A system call. `begun`, `ended`: its lines in the trace; what it reads is known at its end only."""

    name: str
    text: str
    begun: int
    ended: int

    @property
    def succeeded(self) -> bool:
        return bool(re.search(r"\) += \d+", self.text))


def read_trace(path: Path) -> list[Call]:
    """Join the halves of calls that others interrupted; return all in the order of their ends."""
    calls: list[Call] = []
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines()):
        if not (found := _LINE.match(line)):
            continue
        thread, name, rest = found.groups()
        if rest.endswith("<unfinished ...>"):
            unfinished[thread] = (number, rest.removesuffix("<unfinished ...>"))
            continue
        begun, head = unfinished.pop(thread, (number, "")) if "resumed>" in rest else (number, "")
        calls.append(Call(name, head + rest.replace("resumed>", ""), begun, number))
    return calls


READS = {"read", "recvfrom", "recvmsg"}
WRITES = {"write", "sendto", "sendmsg", "writev"}
SYNCS = {"fsync", "fdatasync"}


def is_log(call: Call) -> bool:
    return "gateway.db-wal>" in call.text


def synced_between(calls: Sequence[Call], after: Call, before: Call, words: str) -> bool:
    """Whether `words` were written to the log and then synced, between the end of one call and the begin of another.

    A sync alone proves nothing: when SQLite begins its log anew it syncs the header, also with synchronous=NORMAL.
    """
    inside = [call for call in calls if is_log(call) and after.ended < call.begun and call.ended < before.begun]
    written = [call for call in inside if call.name == "pwrite64" and words in call.text]
    return any(call.name in SYNCS and call.succeeded and written and written[0].ended < call.begun for call in inside)


def trace_of(
    name: str,
    provider: Provider,
    make_daemon: Callable[..., Daemon],
    directory: Path,
    daemon_program: Sequence[str] = ("-m", "gateway"),
) -> list[Call]:
    """Run the daemon under strace while one letter comes in and one is submitted."""
    strace = program("strace", "strace")
    trace = directory / "trace"
    which = ",".join(sorted(READS | WRITES | SYNCS | {"pwrite64"}))
    touchpoint = provider.touchpoint(name, "both", tls=False)
    site = Site([touchpoint])
    site.add_agent("ana@gateway.example", "secret", [name])
    options = ["-f", "-y", "-s", "16384", "-e", f"trace={which}", "-e", "signal=none", "-o", str(trace)]
    daemon = make_daemon(site, wrapper=[strace, *options], program=daemon_program)
    daemon.start(timeout=60)
    daemon.wait_connected(name, timeout=60)
    with daemon.submit("ana@gateway.example", "secret") as session:
        session.sendmail(touchpoint["address"], [CUSTOMER], letter(1, "out", sender=touchpoint["address"]))
    provider.dovecot.deliver(touchpoint["address"], letter(2, "in"))
    wait_until(lambda: len(daemon.conversations()) == 1, "the letter is in its queue", state=daemon.log_tail)
    daemon.stop()
    return read_trace(trace)


def asked_before_the_promise(calls: Sequence[Call]) -> bool:
    (dot,) = [call for call in calls if call.name in READS and r"letter 1.\r\n.\r\n" in call.text]
    (promise,) = [call for call in calls if call.name in WRITES and '"250 2.0.0 queued as' in call.text]
    return synced_between(calls, dot, promise, "This is letter 1.")


def asked_before_the_cursor_counts(calls: Sequence[Call]) -> bool:
    """`arrived` is said when bytes and cursor are one commit: nothing that follows from the cursor comes earlier."""
    fetched = [
        call for call in calls if call.name in READS and r"letter 2.\r\n" in call.text and "socket:[" in call.text
    ]
    arrived = [call for call in calls if call.name in WRITES and r"\"event\": \"arrived\"" in call.text]
    return synced_between(calls, fetched[0], arrived[0], "This is letter 2.")


@pytest.mark.timeout(120)
def test_the_log_is_synced_before_the_250_and_before_the_cursor_counts(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    calls = trace_of("asked", shared_provider, make_daemon, tmp_path)
    assert asked_before_the_promise(calls)
    assert asked_before_the_cursor_counts(calls)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sabotage", ["normal", "early"])
def test_the_test_above_catches_a_store_that_does_not_ask_in_time(
    shared_provider: Provider, make_daemon: Callable[..., Daemon], tmp_path: Path, sabotage: str
) -> None:
    calls = trace_of(f"asked{sabotage}", shared_provider, make_daemon, tmp_path, (SABOTAGE, sabotage))
    assert not asked_before_the_promise(calls)
    if sabotage == "normal":  # the other one answers clients early, and nobody else
        assert not asked_before_the_cursor_counts(calls)
