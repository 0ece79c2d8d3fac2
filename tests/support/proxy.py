"""A bad link: a TCP proxy in front of a server, on loopback, that can drop, delay, truncate and go half-open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

T = TypeVar("T")

_MOST_LINKS = 500
_PIECE_BYTES = 16 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@dataclass(frozen=True)
class Weather:
    """What a link does to what passes. `delay`: seconds before each piece. `up`, `down`: bytes that still pass from
    the client or to it, then the link is cut. `silent`: everything is swallowed and nobody is told.
    """

    delay: float = 0.0
    up: int | None = None
    down: int | None = None
    silent: bool = False


CLEAR = Weather()


@dataclass(eq=False)
class _Link:
    number: int
    weather: Weather
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    is_cut: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self) -> None:
        self.is_cut.set()
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()


class Proxy:
    """Listens on `port` and passes everything on to `target`. Every method may be called from every thread."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.weather = CLEAR  # of links to come
        self.refuses = False
        self.made = 0  # links so far
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    # --- the weather -------------------------------------------------------------------------------------------------

    def drop(self) -> int:
        """Reset every link; return how many there were."""

        def cut_all() -> int:
            links = list(self._links)
            for link in links:
                link.cut()
            return len(links)

        return self._call(cut_all)

    def refuse(self) -> None:
        """Drop all links, and every one to come as soon as it is made, until `heal`."""
        self.refuses = True
        self.drop()

    def delay(self, seconds: float) -> None:
        self._change(Weather(delay=seconds))

    def truncate(self, *, up: int | None = None, down: int | None = None) -> None:
        """Let so many bytes more pass on each link, one that is to come included, then cut it."""
        self._change(Weather(up=up, down=down))

    def go_half_open(self) -> None:
        """Swallow what either side says, as a firewall does that has forgotten the connection."""
        self._change(Weather(silent=True))

    def heal(self) -> None:
        """Pass everything from now on. A link that has swallowed something is out of step and is cut."""

        def heal_all() -> None:
            for link in list(self._links):
                if link.weather.silent:
                    link.cut()

        self.refuses = False
        self._call(heal_all)
        self._change(CLEAR)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def __len__(self) -> int:
        """How many links there are."""
        return self._call(lambda: len(self._links))

    def standing(self) -> set[int]:
        """Return the numbers of the links that stand, counted from 1."""
        return self._call(lambda: {link.number for link in self._links})

    def _change(self, weather: Weather) -> None:
        def change() -> None:
            self.weather = weather
            for link in self._links:
                link.weather = weather

        self._call(change)

    # --- the loop's side ---------------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for link in list(self._links):
            link.cut()
        if tasks := asyncio.all_tasks(self._loop):
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses or len(self._links) >= _MOST_LINKS:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()  # the server is away
            return
        self.made += 1
        link = _Link(self.made, self.weather, (writer, there_writer))
        self._links.add(link)
        pumps = [
            asyncio.ensure_future(self._pump(link, reader, there_writer, is_up=True)),
            asyncio.ensure_future(self._pump(link, there_reader, writer, is_up=False)),
        ]
        cut = asyncio.ensure_future(link.is_cut.wait())
        try:
            await asyncio.wait((*pumps, cut), return_when=asyncio.FIRST_COMPLETED)
            if not link.is_cut.is_set():
                await asyncio.wait(pumps, timeout=1)  # one side has said all; the other may still answer
        finally:
            for task in (*pumps, cut):
                task.cancel()
            link.cut()
            self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                if link.weather.delay:
                    await asyncio.sleep(link.weather.delay)
                if link.weather.silent:
                    continue
                room = link.weather.up if is_up else link.weather.down
                if room is not None:
                    passed = piece[:room]
                    left = room - len(passed)
                    link.weather = replace(link.weather, up=left) if is_up else replace(link.weather, down=left)
                    writer.write(passed)
                    await writer.drain()
                    if len(passed) < len(piece):
                        await asyncio.sleep(0.01)  # what passed is to arrive before the cut
                        link.cut()
                        return
                    continue
                writer.write(piece)
                await writer.drain()
            if link.weather.silent:
                await asyncio.Event().wait()  # that one side has gone, the other never hears
            if writer.can_write_eof():
                writer.write_eof()
