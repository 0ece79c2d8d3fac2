"""Shared by the tests that are unkind to the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.powercut import build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The power-cut shim, compiled."""
    return build_shim(tmp_path_factory.mktemp("shim"))
