"""What systemd wants from a service of `Type=notify`: state, watchdog, sockets it opened for us.

Source: sd_notify(3), sd_listen_fds(3). Without systemd every call does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import timedelta
from typing import Final

_PATIENCE: Final = 0.1  # seconds
_OTHERS: Final = ("imap", "http")  # names of sockets that are not for submission


def notify(**states: str | int) -> None:
    """Tell systemd, e.g. `notify(READY=1, STATUS="…")`. Neither raises nor waits: a deaf one must not stop the mail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in states.items())
    target = "\0" + address[1:] if address.startswith("@") else address  # the abstract namespace
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(_PATIENCE)  # its queue may be full, and this is the thread that everything waits for
        channel.sendto(text.encode(), target)


def notify_reloading() -> None:
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)


def watchdog_interval() -> timedelta | None:
    """Return how often systemd wants to hear from us (half of its patience), None when it does not watch."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return timedelta(microseconds=int(microseconds) / 2) if microseconds.isdigit() and int(microseconds) else None


def listening_sockets() -> dict[str, list[socket.socket]]:
    """Return the sockets that systemd opened, by their FileDescriptorName=; empty without socket activation.

    Any name that is not one of ours stands for submission: without FileDescriptorName= it is that of the socket unit.
    """
    number_of = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not number_of.isdecimal():
        return {}
    count = int(number_of)
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for number in range(count):
        descriptor = 3 + number  # SD_LISTEN_FDS_START
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) and names[number] in _OTHERS else "submission"
        found.setdefault(name, []).append(socket.socket(fileno=descriptor))
    return found
