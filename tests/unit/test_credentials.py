"""What a client answers within AUTH."""

from __future__ import annotations

import base64

import pytest

from gateway.errors import Malformed
from gateway.outbound.credentials import decode_response, read_plain


@pytest.mark.parametrize("octets", [b"", b"a", b"\0ana\0secret", bytes(range(256))])
def test_base64_is_decoded(octets: bytes) -> None:
    assert decode_response(base64.b64encode(octets).decode() or "=") == octets


@pytest.mark.parametrize("text", ["!!!", "a", "ab=c", "YQ", "YQ==YQ==", "Y Q==", "==", "YQ=", "\ufffd"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as error:
        decode_response(text)
    assert error.value.reply.startswith("501 5.5.2")


def test_a_client_may_give_up() -> None:
    with pytest.raises(Malformed) as error:
        decode_response("*")
    assert error.value.reply.startswith("501 5.7.0")


@pytest.mark.parametrize(
    ("response", "pair"),
    [
        (b"\0ana\0secret", (b"ana", b"secret")),
        (b"Ana\0ana\0secret", (b"ana", b"secret")),
        (b"\0\0", (b"", b"")),
        (b"\0ana\0" + "pässwort".encode(), (b"ana", "pässwort".encode())),
    ],
)
def test_plain_has_three_fields(response: bytes, pair: tuple[bytes, bytes]) -> None:
    assert read_plain(response) == pair


@pytest.mark.parametrize("response", [b"", b"ana", b"ana\0secret", b"\0ana\0sec\0ret", b"\0ana\0secret\0"])
def test_anything_else_is_not_plain(response: bytes) -> None:
    with pytest.raises(Malformed) as error:
        read_plain(response)
    assert error.value.reply.startswith("501 5.5.2")


def test_nobody_acts_as_somebody_else() -> None:
    with pytest.raises(Malformed) as error:
        read_plain(b"ben\0ana\0secret")
    assert error.value.reply.startswith("535 5.7.8")
