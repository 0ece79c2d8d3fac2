"""Waiting for something to become true, with a deadline; never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    check: Callable[[], T], what: str, *, timeout: float = 30, every: float = 0.05, state: Callable[[], object] = str
) -> T:
    """Return the first true value of `check()`. Fails with `what` and `state()` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := check():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain: {what}\n{state()}")
        time.sleep(every)
