"""The lock on the state directory: one owner at a time, given back however its process ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import Unavailable
from gateway.state.lock import StateLock

_HOLD = "import sys; from pathlib import Path; from gateway.state.lock import StateLock;"
_HOLD += "lock = StateLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_the_directory_is_made_for_nobody_else_to_look_into(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "var" / "state")
    assert stat.S_IMODE((tmp_path / "var" / "state").stat().st_mode) == 0o700
    assert (tmp_path / "var" / "state" / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_second_taker_is_told_who_has_it(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(Unavailable, match=f"in use by another mail-gateway \\(pid {os.getpid()}\\); stop that first"):
        StateLock(tmp_path)
    lock.release()
    StateLock(tmp_path).release()


def test_refusing_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(Unavailable):
            StateLock(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    lock.release()


def test_a_process_that_is_killed_gives_it_back_and_its_pid_is_replaced(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match=f"pid {holder.pid}"):
            StateLock(tmp_path)
        holder.kill()
        holder.wait(10)
    lock = StateLock(tmp_path)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_child_does_not_inherit_it(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    program = [sys.executable, "-c", "print('here', flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"  # only now has the kernel closed what exec closes
        lock.release()
        StateLock(tmp_path).release()
        child.kill()


@pytest.mark.parametrize("place", ["file/state", "file"])
def test_a_directory_that_cannot_be_is_one_clear_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="create it and give it to the user that runs the gateway") as caught:
        StateLock(tmp_path / place)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / place) in str(caught.value)
