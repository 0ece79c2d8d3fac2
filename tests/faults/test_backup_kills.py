"""kill -9 at every step of a backup and of a restore: what is there is the old state or the new one, never half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_KILLER = Path(__file__).with_name("recovery_killer.py")


def deaths(what: str, place: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what was found after each death, and behind the run that nobody killed."""
    root = _KILLER.parent.parent.parent
    done = subprocess.run(
        [sys.executable, str(_KILLER), what, str(place)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-3000:]
    *killed, whole = found
    assert whole["status"] == 0
    assert all(each["status"] == signal.SIGKILL for each in killed)
    return killed, whole


def test_a_backup_that_is_killed_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    killed, whole = deaths("backup", tmp_path)
    assert (whole["backup"], whole["store"]) == (1, 1)
    assert whole["left_over"] == []
    assert {each["store"] for each in killed} == {1}
    assert {each["backup"] for each in killed} == {2, 1}, "deaths before and behind the rename"
    assert all(each["again"]["backup"] == 1 for each in killed)
    assert all(each["again"]["left_over"] == [] for each in killed), "the next one tidies up"
    record_property("counts", f"{len(killed)} deaths, {sum(each['backup'] == 1 for each in killed)} behind the rename")


def test_a_restore_that_is_killed_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    killed, whole = deaths("restore", tmp_path)
    assert (whole["store"], whole["held"], whole["restored"], whole["aside"]) == (2, 2, True, [1])
    assert whole["left_over"] == []
    for each in killed:
        new = each["store"] == 2
        assert each["store"] in (1, 2), each
        assert each["restored"] == new, each
        assert each["held"] == (2 if new else 0), each
        assert each["aside"] == ([1] if new else []), each
        assert each["again"]["store"] == 2, each
        assert 1 in each["again"]["aside"], each
        assert each["again"]["left_over"] == [], each
    assert {each["store"] for each in killed} == {1, 2}, "deaths before and behind the moment that decides"
    record_property("counts", f"{len(killed)} deaths, {sum(each['store'] == 2 for each in killed)} behind the decision")
