"""Which UIDs are there: SEARCH by UID, by windows that hold some ten thousand messages each.

A folder may hold a million, spread over all 32 bits. Whatever comes is read in slices of about a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Final

from gateway.errors import Unavailable
from gateway.inbound.dialog import Dialog
from gateway.inbound.framing import Response
from gateway.inbound.names import can_be_quoted, quote
from gateway.inbound.protocol import Answer
from gateway.inbound.uids import LARGEST_UID, read_found
from gateway.text import clean

_WINDOW: Final = 50_000  # messages that one answer should list
_SLICE: Final = 10_000  # UIDs handled before others get their turn
_UID_BYTES: Final = 11
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Found = list[range | list[int]]


class Searching(Dialog):
    """The questions about UIDs. `_exists`, `_uidnext`: the open folder, as it was when opened."""

    _exists = 0
    _uidnext: int | None = None

    async def uids(self, low: int, high: int | None = None, most: int | None = None) -> list[int]:
        """Return the UIDs in the open folder from `low` to `high`, or to the end, ascending: the first `most` of them.

        With `most`, no more of the folder is listed than it takes to find so many.
        """
        return await self._look_through(low, high, "", most)

    async def uids_since(self, day: date) -> list[int]:
        """Return the UIDs of messages with an INTERNALDATE on or after `day` (the server's calendar), ascending."""
        return await self._look_through(1, None, f" SINCE {day.day}-{_MONTHS[day.month - 1]}-{day.year}")

    async def with_message_id(self, message_id: str) -> list[int]:
        """Return the UIDs in the open folder of messages with this Message-ID; none where it cannot be asked for."""
        if not can_be_quoted(message_id):
            return []
        return await self._window(1, LARGEST_UID, f" HEADER Message-ID {quote(message_id)}", last=True)

    async def present(self, uids: Sequence[int]) -> list[int]:
        """Return those of `uids` (ascending) that the folder still has, whether or not the server can show them."""
        wanted = set(uids)
        there: set[int] = set()

        async def ask(text: str) -> Answer:
            pieces, answer = await self._search(f"UID {text}")
            self._check(answer)
            for piece in pieces:
                there.update(wanted.intersection(_clipped(piece, uids[0], uids[-1])))
            return answer

        await self._in_batches(uids, ask, found=there, loose=True)
        return [uid for uid in uids if uid in there]

    async def _look_through(self, low: int, high: int | None, criteria: str, most: int | None = None) -> list[int]:
        low, top = max(low, 1), LARGEST_UID if high is None else min(high, LARGEST_UID)
        found: list[int] = []
        width = self._width()
        while low <= top and (most is None or len(found) < most):
            end = min(low + width - 1, top)
            window = await self._window(low, end, criteria, last=high is None and end == top)
            found += window
            if len(window) < _WINDOW // 4:
                width *= 4
            elif len(window) > 2 * _WINDOW:
                width = max(_WINDOW, width // 4)
            low = end + 1
            if self._uidnext and low >= self._uidnext:
                width = LARGEST_UID  # only what has come since the folder was opened
        return found[:most]

    def _width(self) -> int:
        """Return how many UIDs to ask for at first: all, but of a large folder about a window full."""
        exists = max(self._exists, self._wire.exists)
        if exists <= _WINDOW:
            return LARGEST_UID
        return max(_WINDOW, _WINDOW * (self._uidnext or 0) // exists)

    async def _window(self, low: int, high: int, criteria: str, *, last: bool) -> list[int]:
        """Return the UIDs from `low` to `high`, however many answers that takes. `last`: nothing lies above."""
        parts: list[list[int]] = []  # from the highest down
        windows = [(low, high)]
        while windows:
            begin, end = windows.pop()
            upto = "*" if last and end == high else str(end)
            pieces, answer = await self._search(f"UID {begin}:{upto}{criteria}")
            self._check(answer)
            uids = await self._gather(pieces, begin, end)
            cut = answer.cut
            if cut is None or begin == end:
                parts.append(uids)
                continue
            self._note_cut(cut)
            lowest = cut.lowest or 0
            if begin < lowest <= end and not (uids and uids[0] < lowest):
                parts.append(uids)
                windows.append((begin, lowest - 1))
            else:  # refused altogether, or not begun at the highest, as it should have been
                middle = (begin + end) // 2
                windows += [(begin, middle), (middle + 1, end)]
        return [uid for part in reversed(parts) for uid in part] if len(parts) > 1 else parts[0]

    async def _search(self, criteria: str) -> tuple[Found, Answer]:
        pieces: Found = []

        def take(response: Response) -> None:
            pieces.extend(read_found(response) or ())

        form = ("RETURN (ALL)", criteria) if "ESEARCH" in self.capabilities else (criteria,)
        expected = max(self._exists, self._wire.exists) * _UID_BYTES
        total = 10 * self._answer_seconds
        return pieces, await self._run("SEARCH", *form, by_uid=True, take=take, expected_bytes=expected, total=total)

    def _check(self, answer: Answer) -> None:
        if not answer.ok and answer.cut is None:
            raise Unavailable(f"{self._server} did not list the folder: {clean(answer.text)}; we try again")

    async def _gather(self, pieces: Iterable[range | list[int]], low: int, high: int) -> list[int]:
        """Return the UIDs within the window, ascending, each once. Others get their turn meanwhile."""
        found: list[int] = []
        most = 2 * max(self._exists, self._wire.exists) + _WINDOW
        is_ascending = True
        for piece in pieces:
            clipped = _clipped(piece, low, high)
            if len(found) + len(clipped) > most:
                raise Unavailable(f"{self._server} lists far more messages than the folder has; we try again")
            for start in range(0, len(clipped), _SLICE):
                part = clipped[start : start + _SLICE]
                is_ascending = is_ascending and (not found or found[-1] < part[0]) and _ascends(part)
                found += part
                await asyncio.sleep(0)
        return found if is_ascending else sorted(set(found))


def _clipped(piece: range | list[int], low: int, high: int) -> range | list[int]:
    if isinstance(piece, range):
        return range(max(piece.start, low), min(piece.stop, high + 1))
    return [uid for uid in piece if low <= uid <= high]


def _ascends(uids: range | list[int]) -> bool:
    return isinstance(uids, range) or all(one < other for one, other in pairwise(uids))
