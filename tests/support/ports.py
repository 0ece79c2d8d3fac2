"""Ports for private servers."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _LAST = 20_000, 32_000  # below the range that the kernel hands to outgoing connections, so a stopped server
_given: set[int] = set()  # finds its port free when it is started again


def free_port() -> int:
    """Return a loopback port that nobody listens on and that this process has not given out, or has got back.

    Parallel test processes draw from separate stretches: between this answer and the server's bind the port is
    unguarded.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    width = 1_500
    first = _FIRST + worker * width % (_LAST - _FIRST)
    for port in random.sample(range(first, first + width), width):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free loopback port")


def give_back(port: int) -> None:
    """Nobody will listen on this port again, until it is given out once more."""
    _given.discard(port)
