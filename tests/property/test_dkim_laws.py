"""The hash of a body in pieces is the hash of the body in relaxed canonical form, as another implementation has it."""

from __future__ import annotations

import hashlib

from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from gateway.outbound.dkim import BodyHash, read_fields

# Line ends only as CRLF: the door sees to it. Everything that canonicalisation looks at comes often.
_parts = st.sampled_from([b"\r\n", b"\r\n\r\n", b" ", b"\t", b"  \t ", b"a", b".", b"\xc3\xbc", b"word", b"\x00"])
_bodies = st.lists(_parts, max_size=40).map(b"".join)
_cuts = st.lists(st.integers(0, 80), max_size=6)


@given(_bodies, _cuts)
def test_hashing_in_pieces_is_hashing_the_canonical_body(body: bytes, cuts: list[int]) -> None:
    hash = BodyHash()
    start = 0
    for cut in sorted(cuts):
        hash.update(body[start:cut])
        start = max(start, cut)
    hash.update(body[start:])
    on_the_wire = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    assert hash.digest() == hashlib.sha256(Relaxed.canonicalize_body(on_the_wire)).digest()


@given(st.binary(max_size=200), _cuts)
def test_any_bytes_give_one_hash_however_they_are_cut(body: bytes, cuts: list[int]) -> None:
    whole, pieces = BodyHash(), BodyHash()
    whole.update(body)
    start = 0
    for cut in sorted(cuts):
        pieces.update(body[start:cut])
        start = max(start, cut)
    pieces.update(body[start:])
    assert whole.digest() == pieces.digest()


_values = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b":", b"\xc3\xbc", b"<x@y>"]), max_size=12
).map(b"".join)
_names = st.sampled_from([b"From", b"SUBJECT", b"x-a", b"To "])


@given(st.lists(st.tuples(_names, _values), max_size=6))
def test_fields_are_read_in_relaxed_canonical_form(fields: list[tuple[bytes, bytes]]) -> None:
    head = b"".join(name + b":" + value + b"\r\n" for name, value in fields)
    expected = [(name, value.removesuffix(b"\r\n")) for name, value in Relaxed.canonicalize_headers(fields)]
    assert read_fields(head) == expected
