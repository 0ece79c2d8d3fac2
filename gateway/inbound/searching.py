"""Which UIDs are there: SEARCH by UID, by windows that hold some ten thousand messages each.

A folder may hold a million, spread over all 32 bits. Whatever comes is read in slices of about a millisecond, and of
what a server lists only so much is kept as was asked for.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from datetime import date
from typing import Final

from gateway.errors import Unavailable
from gateway.inbound.dialog import Dialog, NotGiven
from gateway.inbound.names import MONTHS, can_be_quoted, quote
from gateway.inbound.protocol import Answer
from gateway.inbound.uids import LARGEST_UID, Run, Sieve
from gateway.text import clean

_WINDOW: Final = 50_000  # messages that one answer should list
_LEAST: Final = 1_000  # it is not worth asking for less
_MOST_IN_ANSWER: Final = 3 * _WINDOW  # of a longer one the beginning is kept, and the rest asked for again
_MOST_LISTED: Final = 1_250_000  # UIDs of a folder that a session holds at a time: 40 bytes each
_MOST_ASKED: Final = 10_000
_MOST_NAMESAKES: Final = 1_000
_SLICE: Final = 10_000  # UIDs handled before others get their turn
_UID_BYTES: Final = 11


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
        return await self._look_through(1, None, _since(day))

    async def newest(self, count: int) -> list[int]:
        """Return the UIDs of the last `count` messages, ascending, without listing a large folder for it."""
        width, low = max(count, self._width(count)), self._uidnext or LARGEST_UID
        found: list[int] = []
        while len(found) < min(count, self._count) and low > 1:
            low = max(1, low - width)
            width *= 8
            found = await self._look_through(low, None, "")
        return found[-count:]

    async def with_message_id(self, message_id: str) -> list[int]:
        """Return the UIDs in the open folder of messages with this Message-ID; none where it cannot be asked for.

        Of more than 1,000 the first. In one question: a server may look through the whole folder for it.
        """
        return await self.with_field("Message-ID", message_id)

    async def with_field(self, name: str, text: str, since: date | None = None) -> list[int]:
        """As `with_message_id`, for messages with a header field that holds `text`, in any case, and an INTERNALDATE
        on or after `since`. Raises NotGiven where the server does not search for it."""
        if not can_be_quoted(text):
            return []
        criteria = f"{_since(since) if since else ''} HEADER {name} {quote(text)}"
        try:
            return await self._look_through(1, None, criteria, _MOST_NAMESAKES, LARGEST_UID)
        except Unavailable as error:
            if self._wire.cause is None:  # it said no, and goes on
                raise NotGiven(str(error)) from error
            raise

    async def present(self, uids: Sequence[int]) -> list[int]:
        """Return those of `uids` (ascending) that the folder still has, whether or not the server can show them."""
        wanted = set(uids)
        there: set[int] = set()

        async def ask(text: str) -> Answer:
            sieve = Sieve(uids[0], uids[-1], 2 * len(uids) + _SLICE)
            answer = await self._search(f"UID {text}", sieve)
            if sieve.is_full:
                raise self._more_than_asked()
            for piece in sieve.pieces:
                if isinstance(piece, range):  # it may be wider than what was asked about
                    there.update(uids[bisect_left(uids, piece.start) : bisect_left(uids, piece.stop)])
                else:
                    there.update(wanted.intersection(piece))
            return answer

        await self._in_batches(uids, ask, found=there, loose=True)
        return [uid for uid in uids if uid in there]

    async def _look_through(
        self, low: int, high: int | None, criteria: str, most: int | None = None, width: int | None = None
    ) -> list[int]:
        """Return the UIDs from `low` to `high`, ascending, the first `most`, however many answers that takes."""
        low, top = max(low, 1), LARGEST_UID if high is None else min(high, LARGEST_UID)
        aim = _WINDOW if most is None else min(max(2 * most, _LEAST), _WINDOW)  # so many should one answer list
        width = width or self._width(aim)
        found: list[int] = []
        ahead: list[Run | list[int]] = []  # of what has been begun, the lowest last: to be asked for, or known
        known = asked = 0
        while (ahead or low <= top) and (most is None or len(found) < most):
            if not ahead:
                ahead.append((low, min(low + width - 1, top)))
                low += width
            step = ahead.pop()
            if isinstance(step, list):
                found += step
                continue
            begin, end = step
            span = end - begin + 1
            upto = "*" if high is None and end == top else str(end)
            sieve = Sieve(begin, end, min(2 * span, _MOST_IN_ANSWER))
            answer = await self._search(f"UID {begin}:{upto}{criteria}", sieve)
            asked += 1
            self._believe(sieve, span, known, asked)
            uids = await _spread(sieve)
            lowest = (answer.cut.lowest or 0) if answer.cut else 0
            if answer.cut:
                self._note_cut(answer.cut)
            if sieve.is_full and sieve.ascends and not answer.cut:  # it goes on behind what was kept
                found += uids
                if ahead:
                    ahead.append((uids[-1] + 1, end))
                else:
                    low, width = uids[-1] + 1, uids[-1] - begin + 1
            elif sieve.is_full or not (sieve.ascends or len(uids) <= _SLICE):
                ahead += _halves(begin, end)
                width = max(1, span // 2)
                continue
            elif not answer.cut or begin == end:
                found += uids
                if len(uids) < aim // 4:
                    width *= 4
                elif len(uids) > 2 * aim:
                    width = max(aim, width // 4)
                if self._uidnext and low >= self._uidnext:
                    width = LARGEST_UID  # only what has come since the folder was opened
            elif begin < lowest <= end and not (uids and uids[0] < lowest):
                ahead += [uids, (begin, lowest - 1)] if uids else [(begin, lowest - 1)]
            else:  # refused altogether, or not begun at the highest, as it should have been
                ahead += _halves(begin, end)
                continue
            known += len(uids)
        return found[:most]

    def _width(self, aim: int) -> int:
        """Return how many UIDs to ask for at first: all, or as many as should hold `aim` messages."""
        if self._count <= aim:
            return LARGEST_UID
        return max(aim, aim * (self._uidnext or 0) // self._count)

    @property
    def _count(self) -> int:
        """Messages in the open folder, if the server is to be believed."""
        return max(self._exists, self._wire.exists)

    async def _search(self, criteria: str, sieve: Sieve) -> Answer:
        form = ("RETURN (ALL)", criteria) if "ESEARCH" in self.capabilities else (criteria,)
        total = 10 * self._answer_seconds
        answer = await self._run(
            "SEARCH", *form, by_uid=True, take=sieve.take, expected_bytes=sieve.most * _UID_BYTES, total=total
        )
        if not answer.ok and answer.cut is None:
            raise Unavailable(f"{self._server} did not list the folder: {clean(answer.text)}; we try again")
        return answer

    def _believe(self, sieve: Sieve, width: int, known: int, asked: int) -> None:
        """Raise Unavailable where the folder cannot be what the answers make of it."""
        if sieve.is_full and width < sieve.most:
            raise self._more_than_asked()
        if known + sieve.count > 2 * self._count + _WINDOW:
            raise Unavailable(f"{self._server} lists far more messages than the folder has; we try again")
        if known + min(sieve.count, sieve.most) > _MOST_LISTED:
            raise Unavailable(
                f"{self._server} lists more than {_MOST_LISTED} messages in a folder, more than we can hold"
            )
        if asked > _MOST_ASKED:
            raise Unavailable(f"{self._server} does not list the folder in {_MOST_ASKED} answers; we try again")

    def _more_than_asked(self) -> Unavailable:
        return Unavailable(f"{self._server} lists far more messages than it was asked for; we try again")


def _since(day: date) -> str:
    return f" SINCE {day.day}-{MONTHS[day.month - 1]}-{day.year}"


def _halves(low: int, high: int) -> list[Run]:
    middle = (low + high) // 2
    return [(middle + 1, high), (low, middle)]


async def _spread(sieve: Sieve) -> list[int]:
    """Return the UIDs that were kept, ascending, each once. Others get their turn meanwhile."""
    found: list[int] = []
    turn = _SLICE
    for piece in sieve.pieces:
        for start in range(0, len(piece), _SLICE):
            found += piece[start : start + _SLICE]
            if len(found) >= turn:
                turn = len(found) + _SLICE
                await asyncio.sleep(0)
    return found if sieve.ascends or len(found) > _SLICE else sorted(set(found))
