"""What everybody works with who reads a touchpoint's folders, and how they ask about many messages.

A server that says NO to many because of one, or hangs up at the mention of one, is asked in smaller groups: no message
keeps the others away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import trio

from gateway.bridge import Bridge
from gateway.config import Touchpoint
from gateway.errors import Unavailable
from gateway.health import Health
from gateway.inbound import plan
from gateway.inbound.room import Room
from gateway.inbound.session import NotGiven
from gateway.model import Arrival
from gateway.state import owed
from gateway.state.store import Store

T = TypeVar("T")

_PYTHON_SLICE: Final = 32  # messages handled before other tasks get their turn
_REFUSALS: Final = 20  # of single messages, and nothing said about any


class Taker(Protocol):
    """The door behind us (`intake.Intake`): durable on return, in state `arrived` at least."""

    async def accept(self, arrivals: Sequence[Arrival], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What everybody works with who reads a touchpoint's folders. `largest`: bytes of a message that we still take."""

    touchpoint: Touchpoint
    bridge: Bridge
    store: Store
    intake: Taker
    health: Health
    room: Room
    largest: int
    hostname: str

    async def call(self, method: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run a coroutine function of the session in the asyncio thread."""
        return await self.bridge.call(method, *args)  # type: ignore[arg-type]  # every method here is a coroutine function


class Lost(Exception):
    """The session went while bodies were fetched; `fetching`: whose."""

    def __init__(self, cause: Unavailable, fetching: tuple[int, ...]) -> None:
        super().__init__(cause, fetching)
        self.cause = cause
        self.fetching = fetching


async def each(parts: Parts, ask: Callable[[Sequence[int]], Awaitable[list[T]]], uids: Sequence[int]) -> list[T]:
    """Ask about `uids` (ascending), in halves where the server says NO: it may be about one of them, and not about all.

    Raises NotGiven where it says NO to one after the other and to the last one too; Lost with those that were asked
    about when the session went.
    """
    found: list[T] = []
    refusals = 0
    stretches = [uids] if uids else []
    while stretches:
        stretch = stretches.pop()
        try:
            found += await parts.call(ask, stretch)
        except NotGiven:
            middle = len(stretch) // 2
            stretches += [stretch[middle:], stretch[:middle]] if middle else []
            refusals += not middle
            if refusals == _REFUSALS and not found and stretches:
                await parts.call(ask, stretches[0][-1:])  # if not even this one, then it is not about the messages
        except Unavailable as error:
            raise Lost(error, tuple(stretch)) from error
    return found


async def each_apart(
    parts: Parts,
    ask: Callable[[Sequence[int]], Awaitable[list[T]]],
    uids: Sequence[int],
    suspects: Mapping[int, int],
) -> list[T]:
    """As `each`, but who may have cost a session is asked about in a small group, alone, or not at all.

    So one message whose mention ends the session is found out, and the others go on without it. Raises Lost.
    """
    found: list[T] = []
    for group in plan.groups(uids, suspects):
        found += await each(parts, ask, group)
    return found


async def count_owed(parts: Parts) -> None:
    """Let `status` know how many messages are at the provider and not here."""
    count = await parts.store.read(owed.count_owed, parts.touchpoint.id)
    parts.health.touchpoint(parts.touchpoint.id).unfetched = count


async def give_way(number: int) -> None:
    """Let other tasks run after some messages: no stretch of Python on this thread is longer than a moment."""
    if number % _PYTHON_SLICE == _PYTHON_SLICE - 1:
        await trio.lowlevel.checkpoint()
