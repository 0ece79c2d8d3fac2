"""Listings, headers and messages of the open folder. Reading changes nothing over there: UIDs only, BODY.PEEK[]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from gateway.errors import Malformed
from gateway.inbound.dialog import NotGiven
from gateway.inbound.fetch import Fetched, Headed, Listed, read_fetched, read_head, read_headed, read_listed, read_part
from gateway.inbound.framing import Response
from gateway.inbound.identity import FIELDS
from gateway.inbound.protocol import SLACK_BYTES, Answer
from gateway.inbound.searching import Searching
from gateway.inbound.uids import LARGEST_UID
from gateway.text import clean

# Slower than this a provider does not send on purpose; it bounds a server that drips bytes to keep us busy
_SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024
_HEADED_BYTES: Final = 4 * 1024
_HEADER_BYTES: Final = 16 * 1024  # of a whole one, as a rule
_FEW: Final = 5_000  # messages that may be listed without having been counted before


class _HasUid(Protocol):
    @property
    def uid(self) -> int: ...


T = TypeVar("T", bound=_HasUid)


def _room(expected_bytes: int) -> int:
    """Return how much may come where so much is expected: sizes are often estimates."""
    return 2 * expected_bytes + SLACK_BYTES


def _weight(item: object) -> int:
    """Return the bytes that keeping an item takes, the larger part of them."""
    content: bytes | None = getattr(item, "raw", None) or getattr(item, "header", None)
    return len(content or b"")


class Reading(Searching):
    """What is in the open folder."""

    _gives_own_ids = True

    @property
    def _listing(self) -> str:
        """What makes a listing: with the id that a message keeps for life, where the server has one (RFC 8474)."""
        own = ""
        if self._gives_own_ids and "OBJECTID" in self.capabilities:
            own = " EMAILID"
        elif self._gives_own_ids and "X-GM-EXT-1" in self.capabilities:
            own = " X-GM-MSGID"
        return f"UID RFC822.SIZE INTERNALDATE{own}"

    async def uids_above(self, uid: int, most: int | None = None) -> list[int]:
        """Return the first `most` UIDs above `uid`, ascending, and forget what stirred before."""
        self._wire.calm()
        return await self.uids(uid + 1, most=most)

    async def listed_above(self, uid: int) -> list[Listed]:
        """Return all messages above `uid` with their sizes, ascending, and forget what stirred before.

        One round trip, for when there can only be a few. Raises NotGiven, also where they are more than 5,000.
        """
        self._wire.calm()
        found: dict[int, Listed] = {}
        high = LARGEST_UID
        while uid < high:
            upto = "*" if high == LARGEST_UID else str(high)
            answer = await self._ask(
                f"{uid + 1}:{upto}",
                f"({self._listing})",
                read_listed,
                found,
                lambda new: uid < new.uid and len(found) <= _FEW,
            )
            if len(found) > _FEW:
                raise NotGiven(f"{self._server} has too many new messages to list them at once; we try again")
            if answer.cut is None:
                if not answer.ok:
                    if self._stop_asking_for_own_ids():
                        continue
                    raise self._trouble(answer)
                break
            self._note_cut(answer.cut)
            lowest = answer.cut.lowest or 0
            if not uid < lowest <= high or any(uid < number < lowest for number in found):
                return await self.listed(await self.uids(uid + 1))
            high = lowest - 1
        # `n:*` names the last message even when its UID is below n (RFC 9051 §9, seq-range)
        return [found[number] for number in sorted(found) if number > uid]

    async def listed(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of `uids` (ascending) that are there, with their sizes. Raises NotGiven."""
        found, refusal = await self._collect(uids, lambda: f"({self._listing})", read_listed, loose=True)
        if refusal is not None and self._stop_asking_for_own_ids():
            return await self.listed(uids)
        if refusal is not None:
            raise self._trouble(refusal)
        return [found[uid] for uid in uids if uid in found]

    async def headed(self, uids: Sequence[int], fields: Sequence[str] = FIELDS) -> list[Headed]:
        """Return those of `uids` (ascending) that are there, with the header fields that make their identity.

        Raises NotGiven when the server says NO, if only to one of them.
        """

        def items() -> str:
            return f"({self._listing} BODY.PEEK[HEADER.FIELDS ({' '.join(fields)})])"

        found, refusal = await self._collect(uids, items, read_headed, len(uids) * _HEADED_BYTES, loose=True)
        if refusal is not None and self._stop_asking_for_own_ids():
            return await self.headed(uids, fields)
        if refusal is not None:
            raise self._trouble(refusal)
        return [found[uid] for uid in uids if uid in found]

    async def headers(self, uids: Sequence[int], most_bytes: int) -> list[Fetched]:
        """Return the headers of those of `uids` (ascending) that are there, each cut off after `most_bytes`.

        Raises NotGiven when the server says NO, if only to one of them.
        """
        items = f"(UID BODY.PEEK[HEADER]<0.{most_bytes}>)"
        expected = len(uids) * min(most_bytes, _HEADER_BYTES)
        found, refusal = await self._collect(uids, lambda: items, read_head, expected, loose=True)
        if refusal is not None:
            raise self._trouble(refusal)
        return [found[uid] for uid in uids if uid in found]

    async def fetch(self, uids: Sequence[int], expected_bytes: int) -> list[Fetched]:
        """Return the messages that the server gives of `uids` (ascending), in that order; never marks them seen.

        A UID that is missing from the result may be gone or withheld; `listed` tells which. Raises NotGiven when
        the server says NO: it may have been about any of them.
        """
        found, refusal = await self._collect(
            uids, lambda: "(UID BODY.PEEK[])", read_fetched, expected_bytes, literal_bytes=_room(expected_bytes)
        )
        if not found and refusal is not None:  # with some of them in hand, the others are looked into one by one
            raise NotGiven(f"{self._server} does not give messages: {clean(refusal.text)}")
        return [found[uid] for uid in uids if uid in found]

    async def fetch_part(self, uid: int, offset: int, count: int) -> bytes | None:
        """Return up to `count` bytes of a message from `offset` on; b"" past its end, None when they are not given."""

        def read(response: Response) -> Fetched | None:
            return read_part(response, offset)

        found: dict[int, Fetched] = {}
        whole = self._wire.literal_bytes  # which may come of it
        items = f"(UID BODY.PEEK[]<{offset}.{count}>)"
        await self._ask(str(uid), items, read, found, lambda part: part.uid == uid, count, whole)
        raw = found[uid].raw if uid in found else None
        return None if raw is None else raw[:count]

    async def fetch_head(self, uid: int, most_bytes: int) -> bytes:
        """Return a message's header, cut off after `most_bytes`; else what the ENVELOPE has of it, or b""."""
        for items in (f"(UID BODY.PEEK[HEADER]<0.{most_bytes}>)", "(UID ENVELOPE)"):
            found: dict[int, Fetched] = {}
            await self._ask(str(uid), items, read_head, found, lambda head: head.uid == uid, most_bytes)
            if uid in found and (raw := found[uid].raw):
                return raw[:most_bytes]
        return b""

    # --- how all of them ask -----------------------------------------------------------------------------------------

    async def _collect(
        self,
        uids: Sequence[int],
        items: Callable[[], str],
        read: Callable[[Response], T | None],
        expected_bytes: int = 0,
        *,
        literal_bytes: int = 0,
        loose: bool = False,
    ) -> tuple[dict[int, T], Answer | None]:
        """Return what was found of `uids` by UID, and the server's NO, if there was one."""
        wanted = set(uids)
        room = _room(expected_bytes)  # for all batches together
        found: dict[int, T] = {}
        refusal: Answer | None = None

        def keep(item: T) -> bool:
            nonlocal room
            room -= _weight(item)
            if room < 0:
                raise Malformed("far more data than FETCH asked for")
            return item.uid in wanted

        async def ask(text: str) -> Answer:
            nonlocal refusal
            answer = await self._ask(text, items(), read, found, keep, expected_bytes, literal_bytes)
            if not answer.ok and (answer.cut is None or text.isdigit()):  # cut: it will be asked for less
                refusal = answer
            return answer

        await self._in_batches(uids, ask, found=found.keys(), loose=loose)
        return found, refusal

    async def _ask(
        self,
        uids: str,
        items: str,
        read: Callable[[Response], T | None],
        found: dict[int, T],
        keep: Callable[[T], bool],
        expected_bytes: int = 0,
        literal_bytes: int = 0,
    ) -> Answer:
        def take(response: Response) -> None:
            item = read(response)
            if item is not None and keep(item) and (item.uid not in found or getattr(item, "raw", b"") is not None):
                found[item.uid] = item

        total = 10 * self._answer_seconds + expected_bytes / _SLOWEST_BYTES_PER_SECOND
        return await self._run(
            "FETCH",
            uids,
            items,
            by_uid=True,
            take=take,
            expected_bytes=max(2 * expected_bytes, literal_bytes),
            literal_bytes=literal_bytes,
            total=total,
        )

    def _stop_asking_for_own_ids(self) -> bool:
        """After a refused listing: whether it is worth asking again, without the ids that the server says it has."""
        asked, self._gives_own_ids = self._listing, False
        return asked != self._listing

    def _trouble(self, answer: Answer) -> NotGiven:
        return NotGiven(f"{self._server} did not list messages: {clean(answer.text)}; we try again")
