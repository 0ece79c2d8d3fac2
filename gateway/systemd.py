"""What systemd wants from a service of `Type=notify`: state, watchdog, sockets it opened for us.

Source: sd_notify(3), sd_listen_fds(3). Without systemd every call does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import timedelta


def notify(**states: str | int) -> None:
    """Tell systemd, e.g. `notify(READY=1, STATUS="…")`. Never raises: a deaf systemd must not stop the mail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    text = "\n".join(f"{name}={value}" for name, value in states.items())
    target = "\0" + address[1:] if address.startswith("@") else address  # the abstract namespace
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
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
    """Return the sockets that systemd opened, by their FileDescriptorName=; empty without socket activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if os.environ.get("LISTEN_FDNAMES") else []
    found: dict[str, list[socket.socket]] = {}
    for number in range(count):
        descriptor = 3 + number  # SD_LISTEN_FDS_START
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) else "submission"
        found.setdefault(name, []).append(socket.socket(fileno=descriptor))
    return found
