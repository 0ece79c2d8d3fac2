"""The wire itself: however much comes at once, others on its thread get their turn, and nothing is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from gateway.errors import Unavailable
from gateway.inbound.framing import Response
from gateway.inbound.protocol import Wire
from tests.shell.imap_client import selected
from tests.shell.imap_script import ImapServer, Peer

LINES = 60_000
FLOOD = b"".join(b"* %d FETCH (UID %d FLAGS (\\Seen))\r\n" % (uid, uid) for uid in range(1, LINES + 1))


class Line(asyncio.Transport):
    """The transport of a wire: keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.paused = False
        self.aborted = False

    def write(self, data: Any) -> None:
        self.said += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    @property
    def tag(self) -> bytes:
        return self.said.splitlines()[-1].split()[0]


def on_a_wire(play: Callable[[Wire, Line], Awaitable[None]]) -> None:
    async def run() -> None:
        wire, line = Wire(asyncio.get_running_loop(), 1_000_000), Line()
        wire.connection_made(line)
        wire.data_received(b"* OK hello\r\n")
        await play(wire, line)

    asyncio.run(run())


def test_others_get_their_turn_while_a_flood_is_read() -> None:
    taken: list[bytes] = []

    def take(response: Response) -> None:
        taken.append(response[0])

    async def play(wire: Wire, line: Line) -> None:
        command = asyncio.create_task(wire.execute("FETCH", "1:*", "FLAGS", take=take))
        await asyncio.sleep(0)
        wire.data_received(FLOOD + line.tag + b" OK done\r\n")
        assert len(taken) < LINES  # not all at once
        assert line.paused  # and no more of it meanwhile
        turns = 0
        while not command.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 3
        assert (await command).ok
        assert not line.paused

    on_a_wire(play)
    assert [int(line.split()[1]) for line in taken] == list(range(1, LINES + 1))


@pytest.mark.parametrize("ends", ["eof", "lost"])
def test_what_came_before_the_end_is_read_before_the_end_is_seen(ends: str) -> None:
    async def play(wire: Wire, line: Line) -> None:
        command = asyncio.create_task(wire.execute("FETCH", "1:*", "FLAGS"))
        await asyncio.sleep(0)
        wire.data_received(FLOOD + line.tag + b" OK done\r\n")
        if ends == "eof":
            wire.eof_received()
        else:
            wire.connection_lost(None)
        assert (await command).ok
        with pytest.raises(Unavailable, match="closed the connection"):
            await wire.execute("NOOP")

    on_a_wire(play)


def test_nothing_is_read_after_the_protocol_was_broken() -> None:
    async def play(wire: Wire, line: Line) -> None:
        command = asyncio.create_task(wire.execute("FETCH", "1:*", "FLAGS"))
        await asyncio.sleep(0)
        wire.data_received(b"X9 OK not yours\r\n" + line.tag + b" OK done\r\n")
        wire.data_received(line.tag + b" OK done\r\n")
        wire.eof_received()
        with pytest.raises(Unavailable, match="not asked"):
            await command
        assert line.aborted

    on_a_wire(play)


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "no-command"])
def test_a_flood_that_nobody_asked_for_ends_the_connection(idle: bool) -> None:
    async def play(wire: Wire, line: Line) -> None:
        waiting = asyncio.create_task(wire.idle(600)) if idle else None
        await asyncio.sleep(0)
        wire.data_received(b"+ idling\r\n")
        for _ in range(17):
            wire.data_received(b"* 1 FETCH (FLAGS (\\Seen))\r\n" * 40_000)
            while line.paused and wire.cause is None:  # noqa: ASYNC110 - the loop is to take its turns
                await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="far more data than"):
            await (waiting or wire.execute("NOOP"))

    on_a_wire(play)


def test_what_is_not_ours_to_know_ends_the_session_and_leaves_a_trace() -> None:
    def fail(response: Response) -> None:
        raise ZeroDivisionError

    async def play(wire: Wire, line: Line) -> None:
        command = asyncio.create_task(wire.execute("FETCH", "1:*", "FLAGS", take=fail))
        await asyncio.sleep(0)
        wire.data_received(b"* 1 FETCH (FLAGS ())\r\n")
        with pytest.raises(Unavailable, match="could not be read") as caught:
            await command
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    on_a_wire(play)


async def test_a_dead_link_is_found_out_by_the_kernel() -> None:
    async with selected(ImapServer()) as (_, session):
        peer: socket.socket = session._wire.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


@pytest.mark.parametrize("drips", ["line", "literal", "lines"])
async def test_bytes_that_come_one_by_one_are_put_up_with_only_so_long(drips: str) -> None:
    server = ImapServer()
    drop = {"line": b"x", "literal": b"x", "lines": b"* 1 FETCH (FLAGS ())\r\n"}[drips]

    @server.on("UID FETCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        if drips == "literal":
            await peer.send(b"* 1 FETCH (UID 1 BODY[] {900000}\r\n")
        while True:
            await peer.send(drop)
            await trio.sleep(0.005)

    async with selected(server, answer_seconds=0.05) as (client, session):
        with pytest.raises(Unavailable, match="no answer to FETCH within"):
            await client.call(session.fetch, [1], 0)
