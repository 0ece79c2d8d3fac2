"""Waits that tests of the shells cannot wait for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.inbound import plan, watcher


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests of a few milliseconds in place of seconds and minutes; their growth is tested with the watcher."""
    monkeypatch.setattr(watcher, "rest_after", lambda *_: timedelta(milliseconds=5))
    monkeypatch.setattr(plan, "retry_after", lambda _: timedelta(milliseconds=5))
    monkeypatch.setattr(watcher, "CHORES_EVERY", timedelta(milliseconds=30))
