"""Fixtures that more than one folder uses. What they are made of is in tests/support."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.provider import Provider
from tests.support.steps import Forge

# The machine runs other tests beside these: how long one example takes says nothing about the code
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def shared_provider(authority: Authority) -> Iterator[Provider]:
    """A provider for tests that take mailboxes of their own from it and never stop it."""
    provider = Provider(authority)
    try:
        yield provider
    finally:
        provider.close()


@pytest.fixture
def provider(authority: Authority) -> Iterator[Provider]:
    """A provider of one's own, to be stopped and started."""
    provider = Provider(authority)
    try:
        yield provider
    finally:
        provider.close()


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Where daemons come from that start in no time and count their steps."""
    forge = Forge(tmp_path_factory.mktemp("forge") / "log")
    try:
        yield forge
    finally:
        forge.close()


_DAEMONS = pytest.StashKey[list[Daemon]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its daemons said last."""
    report = yield
    if report.failed:
        for daemon in item.stash.get(_DAEMONS, []):
            report.sections.append((f"log of the daemon in {daemon.home}", daemon.log_tail()))
    return report


@pytest.fixture
def make_daemon(request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are gone at the end of the test, however it ends."""
    made = request.node.stash[_DAEMONS] = []

    def make(*arguments: Any, **options: Any) -> Daemon:
        made.append(Daemon(*arguments, **options))
        return made[-1]

    try:
        yield make
    finally:
        for daemon in made:
            daemon.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted (`record_property("counts", …)`), whether they passed or not."""
    for report in [report for key in ("passed", "failed") for report in terminalreporter.getreports(key)]:
        for name, value in report.user_properties:
            if name == "counts" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")
