"""UIDs as IMAP writes them: sets, and the responses that list them; without I/O.

Whatever a server sends, these raise nothing, and a short text never becomes a long list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter, lt
from typing import Final

from gateway.inbound.framing import Response

LARGEST_UID: Final = 2**32 - 1
_LONG_RUN: Final = 100
_LINE_BYTES: Final = 256 * 1024  # the framer cuts a line of UIDs up; one that it could not cut is none
Run = tuple[int, int]  # first and last of UIDs without a gap

# RFC 2683 §3.2.1.5 asks for command lines of at most 1,000 bytes, and there are servers that need it
_SET_BYTES: Final = 900


def read_number(text: bytes) -> int | None:
    """Return a UID, UIDVALIDITY or count: 32 bits (RFC 9051 §9, nz-number), which is what the store can keep."""
    return number if text.isdigit() and len(text) <= 10 and (number := int(text)) <= LARGEST_UID else None


def read_runs(text: bytes) -> list[Run]:
    """Return `1:3,7` as (1, 3), (7, 7), in the order given; what is no number is passed over."""
    runs: list[Run] = []
    for piece in text.split(b","):
        first, _, last = piece.partition(b":")
        low, high = read_number(first), read_number(last or first)
        if low and high:
            runs.append((low, high) if low <= high else (high, low))
    return runs


def read_found(response: Response) -> Iterable[range | list[int]] | None:
    """Return the UIDs of a SEARCH or ESEARCH response (RFC 9051 §7.3.4), None for any other.

    As ranges where the server wrote them so: they may be as large as it pleases, the caller clips them.
    """
    words = response[0].split() if len(response[0]) <= _LINE_BYTES else []
    if len(words) < 2:
        return None
    kind = words[1].upper()
    if kind == b"SEARCH":
        return [_numbers(words[2:])]
    if kind == b"ESEARCH":
        upper = [word.upper() for word in words]
        return _spelled(words[upper.index(b"ALL") + 1]) if b"ALL" in upper[2:-1] else []
    return None


def _numbers(words: Sequence[bytes]) -> list[int]:
    try:
        numbers = list(map(int, words))
        if not numbers or 0 < min(numbers) <= max(numbers) <= LARGEST_UID:
            return numbers
    except ValueError:
        pass
    return [number for word in words if (number := read_number(word))]


def _spelled(text: bytes) -> list[range | list[int]]:
    """Return a set as few sequences: what lies scattered in lists, long runs as ranges."""
    if b":" not in text:
        return [_numbers(text.split(b","))]
    pieces: list[range | list[int]] = []
    scattered: list[int] = []
    for low, high in read_runs(text):
        if high - low < _LONG_RUN:
            scattered += range(low, high + 1)
            continue
        if scattered:
            pieces.append(scattered)
            scattered = []
        pieces.append(range(low, high + 1))
    return [*pieces, scattered] if scattered else pieces


class Sieve:
    """Takes the UIDs from `low` to `high` out of one command's answers; of more than `most` it keeps the first.

    Ranges stay ranges, so what is kept is small whatever the server writes. `count`: how many there were.
    """

    def __init__(self, low: int, high: int, most: int) -> None:
        self._low = low
        self._high = high
        self.most = most
        self._last = 0
        self.pieces: list[range | list[int]] = []
        self.count = 0
        self.ascends = True

    @property
    def is_full(self) -> bool:
        """Whether there were more than have been kept."""
        return self.count > self.most

    def take(self, response: Response) -> None:
        for piece in read_found(response) or ():
            kept = self._clip(piece)
            if not kept:
                continue
            self.ascends = self.ascends and self._last < kept[0] and _ascends(kept)
            self._last = kept[-1]
            if self.count < self.most:
                self._keep(kept[: self.most - self.count])
            self.count += len(kept)

    def _clip(self, piece: range | list[int]) -> range | list[int]:
        if isinstance(piece, range):
            return range(max(piece.start, self._low), min(piece.stop, self._high + 1))
        return [uid for uid in piece if self._low <= uid <= self._high]

    def _keep(self, uids: range | list[int]) -> None:
        last = self.pieces[-1] if self.pieces else None
        if len(uids) < _LONG_RUN and isinstance(last, list):
            last += uids
        elif len(uids) < _LONG_RUN:
            self.pieces.append(list(uids))
        else:
            self.pieces.append(uids)


def _ascends(uids: range | list[int]) -> bool:
    return isinstance(uids, range) or all(map(lt, uids, uids[1:]))


def read_vanished(line: bytes) -> tuple[bool, list[Run]] | None:
    """Return whether it was EARLIER, and the UIDs, of a VANISHED response (RFC 7162 §3.2.10); None for any other."""
    match = re.match(rb"\* VANISHED (\(EARLIER\) )?([0-9:,]+)(?: |\Z)", line, re.IGNORECASE)
    return (bool(match[1]), read_runs(match[2])) if match else None


def expand(runs: Sequence[Run], most: int) -> tuple[int, ...]:
    """Return the UIDs of `runs` ascending, each once; of more than `most` the highest."""
    found: list[int] = []  # from the highest down
    room, upto = most, LARGEST_UID
    for low, high in sorted(runs, key=itemgetter(1), reverse=True):
        if room <= 0:
            break
        if low == high <= upto:  # the usual case, and the one that may come ten thousand times
            found.append(low)
            room, upto = room - 1, low - 1
            continue
        high = min(high, upto)
        low = max(low, high - room + 1)
        if low <= high:
            found += range(high, low - 1, -1)
            room, upto = room - (high - low + 1), low - 1
    return tuple(reversed(found))


def spell(text: bytes, most: int) -> list[int]:
    """Return the numbers of `1:3,7` in the order given, none when they are more than `most`."""
    runs = read_runs(text) if text.count(b",") < most else []
    if sum(high - low + 1 for low, high in runs) > most:
        return []
    return [uid for low, high in runs for uid in range(low, high + 1)]


def runs_of(uids: Iterable[int]) -> list[Run]:
    """Return ascending UIDs as runs."""
    runs: list[Run] = []
    for uid in uids:
        if runs and uid == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], uid)
        else:
            runs.append((uid, uid))
    return runs


def format_runs(runs: Iterable[Run]) -> str:
    """Return `1:3,7`."""
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in runs)


def batches(uids: Sequence[int], most: int, *, loose: bool) -> Iterator[tuple[Sequence[int], str]]:
    """Cut ascending UIDs into stretches that one command can name: yields each with its set.

    A set names at most `most` UIDs and has at most 900 bytes. `loose`: where the UIDs are dense, a stretch is named by
    its ends; that may name messages which nobody asked for, though never many.
    """
    begin = 0
    while begin < len(uids):
        batch = uids[begin : begin + most]
        runs = runs_of(batch)
        text = format_runs(runs)
        if len(text) > _SET_BYTES:
            if loose and batch[-1] - batch[0] < 2 * len(batch):
                text = f"{batch[0]}:{batch[-1]}"
            else:
                fit = _fitting(runs)
                count = sum(high - low + 1 for low, high in runs[:fit])
                batch, text = batch[:count], format_runs(runs[:fit])
        yield batch, text
        begin += len(batch)


def _fitting(runs: Sequence[Run]) -> int:
    """Return how many runs make a set of at most 900 bytes."""
    total = 0
    for number, run in enumerate(runs):
        total += len(format_runs((run,))) + 1
        if total > _SET_BYTES + 1:
            return number
    return len(runs)
