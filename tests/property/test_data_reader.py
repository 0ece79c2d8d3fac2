"""The bulk reader of DATA against a straightforward one that goes line by line over the whole input."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.outbound.data import LONGEST_LINE, DataReader

# Mostly what can be mistaken for an end of data, so that short inputs meet every border
ODD = st.sampled_from(
    [b"\0", b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"..", b"\r\n..", b"\n.\n", b"a", b"\xe9", b"x" * 500]
)
WIRE = st.builds(
    lambda parts, end: b"".join(parts) + end, st.lists(ODD, max_size=25), st.sampled_from([b"\r\n.\r\nbehind", b""])
)
CUTS = st.lists(st.integers(0, 5_000), max_size=12)
HONEST_LINES = st.lists(st.lists(st.sampled_from([b".", b"a", b" ", b"x" * 499]), max_size=4).map(b"".join), max_size=8)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(borders)]


def read(data: bytes, cuts: list[int], limit: int = 10**9) -> tuple[DataReader, bytes | None]:
    """Feed `data` in pieces; return the reader and what followed the end (None: the end never came)."""
    reader = DataReader(limit)
    pieces = pieces_of(data, cuts)
    for index, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader, rest + b"".join(pieces[index + 1 :])
    return reader, None


def reference(data: bytes) -> tuple[bytes, bytes] | None:
    """Message and rest, by splitting at CRLF and nothing else."""
    lines = data.split(b"\r\n")
    for number, line in enumerate(lines[:-1]):  # the last piece has no CRLF behind it
        if line == b".":
            message = b"".join(before.removeprefix(b".") + b"\r\n" for before in lines[:number])
            return message, b"\r\n".join(lines[number + 1 :])
    return None


def stuffed(message: bytes) -> bytes:
    lines = message.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


@given(data=WIRE, cuts=CUTS)
def test_any_cutting_gives_what_the_straightforward_reader_gives(data: bytes, cuts: list[int]) -> None:
    reader, rest = read(data, cuts)
    expected = reference(data)
    if expected is None:
        assert rest is None
        return
    message, behind = expected
    assert rest == behind
    assert reader.size == len(message)
    assert reader.message() == message
    assert reader.has_bare == (b"\r" in message.replace(b"\r\n", b"") or b"\n" in message.replace(b"\r\n", b""))
    assert reader.has_nul == (b"\0" in message)
    assert reader.is_eight_bit == (not message.isascii())
    assert reader.digest() == read(data, [])[0].digest()
    if message != b"other\r\n":
        assert reader.digest() != read(b"other\r\n.\r\n", [])[0].digest()
    if not reader.has_bare:
        assert reader.has_long_line == any(len(line) > LONGEST_LINE for line in message.split(b"\r\n"))


@given(lengths=st.lists(st.integers(LONGEST_LINE - 2, LONGEST_LINE + 2), min_size=1, max_size=4), cuts=CUTS)
def test_a_long_line_is_seen_wherever_it_is_cut(lengths: list[int], cuts: list[int]) -> None:
    message = b"".join(b"x" * length + b"\r\n" for length in lengths)
    reader, rest = read(stuffed(message), [*cuts, len(message) - 1])  # a piece may end between CR and LF
    assert rest == b""
    assert reader.has_long_line == (max(lengths) > LONGEST_LINE)


@given(lines=HONEST_LINES, behind=WIRE, cuts=CUTS)
def test_stuffing_and_reading_is_a_round_trip(lines: list[bytes], behind: bytes, cuts: list[int]) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    reader, rest = read(stuffed(message) + behind, cuts)
    assert rest == behind
    assert reader.message() == message
    assert not reader.has_bare


@given(data=WIRE, limit=st.integers(0, 300), cuts=CUTS)
def test_a_message_over_the_limit_is_counted_and_not_kept(data: bytes, limit: int, cuts: list[int]) -> None:
    reader, rest = read(data, cuts, limit)
    if rest is None:
        return
    expected = reference(data)
    assert expected is not None
    assert reader.is_oversize == (len(expected[0]) > limit)
    assert reader.message() == (b"" if reader.is_oversize else expected[0])
