"""The log vocabulary: what can happen, one name each, with the same keys in the same order.

`grep` for a queue id tells a message's whole life. Bodies and credentials appear at no level. Text that came from
mail or a server is shortened and stripped of control characters before it is logged.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from gateway.text import clean

_log: Any = structlog.get_logger()
_counts: Counter[str] = Counter()
_lock = threading.Lock()


def say(event: str, **keys: Any) -> None:
    """Log something that is as it should be."""
    _emit("info", event, keys)


def warn(event: str, **keys: Any) -> None:
    """Log something that a person may want to know, and that mends itself or waits for its time."""
    _emit("warning", event, keys)


def fail(event: str, **keys: Any) -> None:
    """Log something that needs a person."""
    _emit("error", event, keys)


def bug(event: str, error: BaseException | None = None, **keys: Any) -> None:
    """Log what we did wrong, with its traceback: the given error's, else that of the exception being handled."""
    keys["exc_info"] = error if error is not None else sys.exc_info()
    _emit("error", event, keys)


def counts() -> Mapping[str, int]:
    """How often each event has happened since start; the source of the metrics."""
    with _lock:
        return dict(_counts)


def _emit(level: str, event: str, keys: dict[str, Any]) -> None:
    with _lock:
        _counts[event] += 1
    cleaned = {key: _clean(value) for key, value in keys.items() if value is not None}
    # A log that cannot be written (its disk is full, its reader has gone) must not stop the mail that it tells of
    with contextlib.suppress(OSError, ValueError):
        getattr(_log, level)(event, **cleaned)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case list():
            return [_clean(each) for each in value]
    return value


# --- mail coming in --------------------------------------------------------------------------------------------------


def arrived(id: str, touchpoint: str, size: int, folder: str, uid: int) -> None:
    say("arrived", queue_id=id, touchpoint=touchpoint, size=size, folder=folder, uid=uid)


def routed(id: str, touchpoint: str, conversation: str, message_class: str, queues: str, message_id: str) -> None:
    say(
        "routed",
        queue_id=id,
        touchpoint=touchpoint,
        conversation=conversation,
        message_class=message_class,
        queues=queues,
        message_id=message_id,
    )


def touchpoint_connected(touchpoint: str, host: str) -> None:
    say("connected", touchpoint=touchpoint, host=host)


def touchpoint_lost(touchpoint: str, cause: str, retry_in: str) -> None:
    warn("connection-lost", touchpoint=touchpoint, cause=cause, retry_in=retry_in)


# --- mail going out --------------------------------------------------------------------------------------------------


def accepted(id: str, touchpoint: str, agent: str, size: int, recipients: int, message_id: str) -> None:
    say(
        "accepted",
        queue_id=id,
        touchpoint=touchpoint,
        agent=agent,
        size=size,
        recipients=recipients,
        message_id=message_id,
    )


def refused_submission(agent: str | None, reply: str) -> None:
    say("refused-submission", agent=agent, reply=reply)


def attempt(id: str, to: str, relay: str, attempt: int, outcome: str, reply: str, delay: str | None = None) -> None:
    say("attempt", queue_id=id, to=f"<{to}>", relay=relay, attempt=attempt, delay=delay, outcome=outcome, reply=reply)


def settled(id: str, to: str, attempt: int, why: str, sent: bool) -> None:
    """What lies in the provider's Sent folder has decided what became of an attempt."""
    outcome = "delivered" if sent else "deferred"
    reply = "its copy is in Sent" if sent else "no copy in Sent, where later mail has one"
    say("settled", queue_id=id, to=f"<{to}>", attempt=attempt, doubt=why, outcome=outcome, reply=reply)


def undecided(id: str, to: str, attempt: int, cause: str, next_look_at: str) -> None:
    say("undecided", queue_id=id, to=f"<{to}>", attempt=attempt, cause=cause, next_look_at=next_look_at)


def copied(id: str, touchpoint: str, folder: str, attempt: int, outcome: str, cause: str | None = None) -> None:
    """A copy for the folder Sent. `outcome`: filed, found (it was there), put off, given up, not kept any more."""
    tell = warn if cause else say
    tell("sent-copy", queue_id=id, touchpoint=touchpoint, folder=folder, attempt=attempt, outcome=outcome, cause=cause)


def login_failed(login: str, address: str) -> None:
    warn("login-failed", login=login, address=address)
