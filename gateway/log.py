"""Sets up the log: one line for each thing that happens, same keys in the same order, in one of three formats.

*console* on a terminal, *journal* fields under systemd (the message line stays readable, every key is a field of its
own), else *json* lines. Protocol libraries are pinned to WARNING: at DEBUG aioimaplib prints tokens and whole mails.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog's
_JOURNAL: Final = "/run/systemd/journal/socket"
_LIBRARIES: Final = ("aioimaplib", "aiosmtplib", "mail.log", "mail.debug", "asyncio", "pymap")

_JSON: Final = json.JSONEncoder(ensure_ascii=False, default=str)

EventDict = MutableMapping[str, Any]


def set_up(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Configure structlog for this process. `format`: auto | console | journal | json."""
    stream = stream or sys.stderr
    chosen = _choose(format, stream)
    common: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    if chosen == "journal":
        tail: list[Any] = [structlog.processors.format_exc_info, _JournalRenderer()]
        factory: Any = structlog.PrintLoggerFactory(io.StringIO())
    elif chosen == "console":
        tail = [
            structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                sort_keys=False,
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals: mail and passwords
            ),
        ]
        factory = structlog.PrintLoggerFactory(stream)
    else:
        tail = [
            structlog.processors.TimeStamper("iso"),
            structlog.processors.format_exc_info,
            _lead_with_time_and_event,
            _render_json,
        ]
        factory = structlog.PrintLoggerFactory(stream)
    structlog.configure(
        processors=[*common, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def _choose(format: str, stream: TextIO) -> str:
    if format != "auto":
        return format
    # systemd says in JOURNAL_STREAM which device and inode our stderr is when it goes to the journal
    device_inode = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return "json"
    if device_inode == f"{status.st_dev}:{status.st_ino}" and os.path.exists(_JOURNAL):
        return "journal"
    return "console" if stream.isatty() else "json"


def _lead_with_time_and_event(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    return {key: event_dict.pop(key) for key in ("timestamp", "level", "event")} | dict(event_dict)


def _render_json(logger: Any, method: str, event_dict: EventDict) -> str:
    return _JSON.encode(event_dict)  # structlog's own makes an encoder for each line


class _JournalRenderer:
    """Sends each event to journald with every key as a field (systemd's native protocol), and drops it here."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._fallback = structlog.processors.JSONRenderer(default=str)

    def __call__(self, logger: Any, method: str, event_dict: EventDict) -> str:
        fields = {"PRIORITY": str(_PRIORITIES.get(method, 6)), "SYSLOG_IDENTIFIER": "mail-gateway"}
        words = [f"event={event_dict.get('event', '')}"]
        for key, value in event_dict.items():
            text = str(value)
            fields[f"MAIL_GATEWAY_{key.upper()}"] = text
            if key not in ("event", "level", "exception"):
                words.append(f"{key}={text}" if " " not in text else f'{key}="{text}"')
        fields["MESSAGE"] = " ".join(words)
        try:
            self._socket.sendto(b"".join(map(_field, fields, fields.values())), _JOURNAL)
        except OSError:  # too large a datagram or no journal: a line on stderr is better than none
            print(self._fallback(logger, method, event_dict), file=sys.stderr)
        raise structlog.DropEvent


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
