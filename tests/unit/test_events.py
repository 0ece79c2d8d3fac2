"""What the log is told: the same keys in the same order, cleaned, counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway import events


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def keys(entry: dict[str, Any]) -> list[str]:
    return [key for key in entry if key not in ("event", "log_level")]


def test_an_attempt_reads_as_in_the_manual(logged: list[Any]) -> None:
    events.attempt("7hq2", "a@x.example", "smtp.example:587", 3, "deferred", "421 4.2.1 later", "2h04m")
    (entry,) = logged
    assert (entry["event"], entry["log_level"]) == ("attempt", "info")
    assert keys(entry) == ["queue_id", "to", "relay", "attempt", "delay", "outcome", "reply"]
    assert (entry["queue_id"], entry["to"], entry["delay"]) == ("7hq2", "<a@x.example>", "2h04m")


def test_whatever_has_a_queue_id_says_it_first(logged: list[Any]) -> None:
    events.arrived("1", "support", 900, "INBOX", 7)
    events.routed("1", "support", "2", "human", "support", "<1@x.example>")
    events.accepted("3", "support", "ana", 900, 2, "<2@x.example>")
    events.attempt("3", "a@x.example", "smtp.example:587", 1, "accepted", "250 ok")
    assert [entry["event"] for entry in logged] == ["arrived", "routed", "accepted", "attempt"]
    assert [keys(entry)[0] for entry in logged] == ["queue_id"] * 4


def test_what_is_not_known_is_left_out(logged: list[Any]) -> None:
    events.refused_submission(None, "535 5.7.8 wrong login or password")
    events.attempt("3", "a@x.example", "smtp.example:587", 1, "accepted", "250 ok")
    assert [keys(entry) for entry in logged] == [
        ["reply"],
        ["queue_id", "to", "relay", "attempt", "outcome", "reply"],
    ]


def test_levels_say_who_should_look(logged: list[Any]) -> None:
    events.touchpoint_connected("support", "imaps://mail.example")
    events.touchpoint_lost("support", "connection reset", "5s")
    events.login_failed("ana", "192.0.2.1")
    events.fail("cannot-run", cause="x")
    assert [entry["log_level"] for entry in logged] == ["info", "warning", "warning", "error"]


def test_text_of_a_server_cannot_write_a_line_of_its_own_or_drive_a_terminal(logged: list[Any]) -> None:
    events.attempt("1", "a@x.example", "relay", 1, "refused", "550 no\r\nevent=accepted queue_id=2\x1b[2J")
    events.say("x", reply="y" * 100_000)
    assert logged[0]["reply"] == "550 no event=accepted queue_id=2 [2J"
    assert len(logged[1]["reply"]) == 300


def test_lists_are_cleaned_as_well(logged: list[Any]) -> None:
    events.say("reloaded", changes=["touchpoint a\nb: added"])
    assert logged[0]["changes"] == ["touchpoint a b: added"]


def test_a_bug_carries_the_traceback_of_its_own_error(logged: list[Any]) -> None:
    error = ZeroDivisionError("given")
    events.bug("task-failed", error, touchpoint="support")
    try:
        raise KeyError("handled")
    except KeyError:
        events.bug("task-failed")
    assert logged[0]["exc_info"] is error
    assert logged[1]["exc_info"][0] is KeyError
    assert {entry["log_level"] for entry in logged} == {"error"}


def test_every_event_is_counted_by_its_name_from_any_thread(logged: list[Any]) -> None:
    name = "counted-here-only"

    def warn_often() -> None:
        for number in range(50):
            events.warn(name, number=number)

    threads = [threading.Thread(target=warn_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events.counts()[name] == 200
    assert "never-happened" not in events.counts()
