"""The scanner's offsets, and edits by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mime import transfer
from gateway.mime.search import find_by
from gateway.mime.splice import Edit, fresh_boundary, splice
from gateway.mime.structure import scan
from tests.property.mime_trees import messages, wreckage
from tests.support.message_laws import agreed_leaves


@given(messages())
def test_the_scanner_agrees_with_the_standard_library(raw: bytes) -> None:
    for part, leaf in agreed_leaves(raw):
        assert part.encoding == (leaf["Content-Transfer-Encoding"] or "7bit")
        assert part.filename == (leaf.get_filename() or "")


@given(st.one_of(wreckage, st.binary(), messages()))
def test_offsets_lie_within_each_other_whatever_the_bytes(raw: bytes) -> None:
    tree = scan(raw)
    for part in tree.walk():
        assert 0 <= part.start <= part.header_end <= part.body <= part.end <= len(raw)
        assert all(part.start <= field.start < field.end <= part.header_end for field in part.fields)
        position = part.body
        for child in part.children:
            assert position <= child.start
            assert child.end <= part.end
            position = child.end


@given(st.binary(), st.data())
def test_what_is_between_the_edits_is_carried_over(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    new = [data.draw(st.binary(max_size=5)) for _ in pairs]
    edits = [Edit(start, end, octets) for (start, end), octets in zip(pairs, new, strict=True)]
    done = splice(raw, edits)
    expected, position = b"", 0
    for (start, end), octets in zip(pairs, new, strict=True):
        expected += raw[position:start] + octets
        position = end
    assert done == expected + raw[position:]


@given(st.lists(st.sampled_from([b"-", b"--b", b"\n", b"x" * 3_000, b"y" * 20_000, b"\n--b"]), max_size=30), st.data())
def test_what_is_rare_is_found_where_it_is_found_otherwise(pieces: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(pieces)
    start, end = data.draw(st.integers(0, len(octets))), data.draw(st.integers(0, len(octets)))
    assert find_by(b"-", b"\n--b", octets, start, end) == octets.find(b"\n--b", start, end)


def test_edits_that_overlap_are_a_bug() -> None:
    with pytest.raises(ValueError, match="overlap"):
        splice(b"0123456789", [Edit(2, 5, b""), Edit(4, 6, b"")])


@given(st.binary(), st.sampled_from([b"\r\n", b"\n"]))
def test_quoted_printable_brings_text_back(data: bytes, eol: bytes) -> None:
    encoded = transfer.quoted_printable(data, eol)
    assert transfer.decode(encoded, "quoted-printable") == transfer.to_eol(data, eol)
    assert encoded.isascii()
    assert max(map(len, encoded.split(eol))) <= 76


@given(st.binary(), st.sampled_from([b"\r\n", b"\n"]))
def test_text_is_encoded_in_short_lines_of_seven_bits(data: bytes, eol: bytes) -> None:
    encoding, body = transfer.encode_text(data, eol)
    decoded = transfer.decode(body, encoding)
    assert decoded == (data if b"\0" in data else transfer.to_eol(data, eol))
    assert body.isascii()
    assert transfer.is_short_lined(body)


@given(st.text("ab =\r\n\u00e4\u20ac\t.", max_size=200), st.data())
def test_the_encoded_place_splits_the_text_where_the_decoded_one_does(text: str, data: st.DataObject) -> None:
    body = transfer.quoted_printable(text.encode(), b"\r\n")
    decoded = transfer.decode(body, "quoted-printable")
    assert decoded is not None
    offset = data.draw(st.integers(0, len(decoded)))
    position = transfer.encoded_offset(body, offset)
    assert transfer.decode(body[:position], "quoted-printable") == decoded[:offset]
    assert transfer.decode(body[position:], "quoted-printable") == decoded[offset:]


@given(st.binary(max_size=50), st.integers(0, 3))
def test_a_fresh_boundary_stands_nowhere_in_the_message(raw: bytes, rounds: int) -> None:
    for _ in range(rounds):
        raw += fresh_boundary(raw, "x").encode()
    assert fresh_boundary(raw, "x").encode() not in raw
    assert len(fresh_boundary(raw, "related")) <= 70  # RFC 2046 §5.1.1
