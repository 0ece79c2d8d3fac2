"""A log that cannot be written stops nothing."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator

import pytest
import structlog

from gateway import events, log


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("format", ["json", "console"])
def test_mail_goes_on_when_the_log_is_full(format: str) -> None:
    log.set_up(format=format, stream=FullDisk())
    counted = events.counts().get("accepted", 0)
    events.accepted("7Hq2", "support", "ana@gateway.example", 100, 1, "<a@b.example>")
    events.bug("task-failed", ZeroDivisionError())
    assert events.counts()["accepted"] == counted + 1


@pytest.mark.usefixtures("as_it_was")
def test_mail_goes_on_when_nobody_reads_the_log_any_more() -> None:
    stream = io.StringIO()
    log.set_up(format="json", stream=stream)
    stream.close()
    events.say("ready")
