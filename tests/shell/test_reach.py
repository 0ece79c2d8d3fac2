"""Dialling: every address of a host gets its try, and the last failure is the one that is told."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.config import Server
from gateway.connections import reach
from tests.support.ports import free_port

SERVER = Server("imaps", "imap.example", 993)


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def dial(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, tuple[Any, ...]]) -> socket.socket:
    async def resolve(self: Any, host: str, port: int, **how: Any) -> list[tuple[Any, ...]]:
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for family, address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    return asyncio.run(reach.dial(SERVER, seconds=5))


@pytest.mark.parametrize("first", ["refused", "strange-family"])
def test_when_one_address_does_not_answer_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, first: str
) -> None:
    no_way = (socket.AF_INET, ("127.0.0.1", free_port())) if first == "refused" else (9999, ("::1", 1))
    peer = dial(monkeypatch, no_way, (socket.AF_INET, listener.getsockname()))
    assert peer.getpeername() == listener.getsockname()
    peer.close()


def test_when_no_address_answers_the_failure_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        dial(monkeypatch, (9999, ("::1", 1)), (socket.AF_INET, ("127.0.0.1", free_port())))
    assert reach.explain(SERVER, caught.value) == (
        "imaps://imap.example:993 refused the connection; check host and port, or the server is down"
    )
    with pytest.raises(OSError, match="no address"):
        dial(monkeypatch)
