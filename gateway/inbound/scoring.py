"""What a scanner is told about a message and what it answers, whichever scanner it is."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.errors import Unavailable
from gateway.model import Score
from gateway.text import clean

LARGEST_ANSWER: Final = 256 * 1024  # bytes; a real one has some thousand
_SYMBOLS: Final = 20  # of one score; more say nothing to a person, and lie in the store for good
_SYMBOL_LETTERS: Final = 60
# rspamd takes 50 MB by default and needs its seconds for that; to what is larger than half a megabyte SpamAssassin's
# own client says nothing either. Mail that is larger is no spam by experience: sending it would cost too much.
_LARGEST: Final = {"rspamd": 8_000_000, "spamd": 500_000}


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as a scanner is asked about it. `size`: bytes; `raw_of` loads them. `id`: ours, for its log.

    `return_path`: without brackets, None where it is not known. `recipient`: the touchpoint's address. `ip`, `helo`:
    of the host that the provider took it from, "" where that is not certain.
    """

    size: int
    raw_of: Callable[[], Awaitable[bytes]] = field(repr=False)
    id: str = ""
    return_path: str | None = None
    recipient: str = ""
    ip: str = ""
    helo: str = ""


class Place(NamedTuple):
    """Where a scanner listens. `kind`: rspamd or spamd."""

    kind: str
    tls: bool
    host: str
    port: int

    @property
    def largest(self) -> int:
        """Bytes of a message that it is asked about."""
        return _LARGEST[self.kind]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} at {host}:{self.port}"


def parse_place(url: str) -> Place:
    """Return where `spam.scanner` or `spam.learn_at` is; the configuration has checked it."""
    parts = urlsplit(url)
    kind, _, transport = parts.scheme.partition("+")
    return Place(kind, transport == "https", parts.hostname or "", parts.port or 0)


def make_score(by: str, value: object, symbols: Iterable[object]) -> Score:
    """Return what a scanner has said, bounded. Raises Unavailable for a value that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unavailable(f"{by} has not answered with a number")
    names = (clean(str(symbol), _SYMBOL_LETTERS) for symbol in symbols)
    return Score(value + 0.0, by, tuple(name for name in names if name)[:_SYMBOLS])
