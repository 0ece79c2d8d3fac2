"""What a server's status lines say to us, beside what they say to people."""

from __future__ import annotations

import pytest

from gateway.inbound.reply import Cut, read_capabilities, read_copied, read_cut, response_code


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"OK [MESSAGELIMIT 1000 23221] not all", Cut(1000, 23221)),
        (b"* NO [MESSAGELIMIT 1000 23221] not all", Cut(1000, 23221)),
        (b"NO [messagelimit 1000] nothing", Cut(1000, None)),
        (b"NO [MESSAGELIMIT] how many?", Cut(1, None)),
        (b"NO [MESSAGELIMIT many 5]", Cut(1, 5)),
        (b"NO [MESSAGELIMIT 0 99999999999]", Cut(1, None)),
        (b"OK [UIDNEXT 5]", None),
        (b"OK done [MESSAGELIMIT 1 2]", None),  # text for people
    ],
)
def test_a_cut_says_how_far_it_came(line: bytes, expected: Cut | None) -> None:
    assert read_cut(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"OK [COPYUID 38505 304,319:320 3956:3958] done", (38505, {304: 3956, 319: 3957, 320: 3958})),
        (b"OK [COPYUID 7 5 9]", (7, {5: 9})),
        (b"OK [COPYUID 7 5:6 9]", None),
        (b"OK [COPYUID 0 5 9]", None),
        (b"OK [COPYUID 7 1:200000 1:200000]", None),
        (b"OK [COPYUID 7]", None),
        (b"OK [APPENDUID 7 5]", None),
    ],
)
def test_a_copy_says_where_to(line: bytes, expected: tuple[int, dict[int, int]] | None) -> None:
    assert read_copied(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"CAPABILITY IMAP4rev1 idle", {"IMAP4REV1", "IDLE"}),
        (b"OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hello", {"IMAP4REV1", "AUTH=PLAIN"}),
        (b"OK hello", None),
        (b"CAPABILITY", set()),
        (b"", None),
    ],
)
def test_capabilities_come_alone_or_as_a_code(line: bytes, expected: set[str] | None) -> None:
    assert read_capabilities(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"* OK [PERMANENTFLAGS (\\Seen \\*)] fine", (b"PERMANENTFLAGS", b"(\\Seen \\*)")),
        (b"* OK fine [UIDVALIDITY 5]", (b"", b"")),
        (b"* 1 FETCH (BODY[TEXT] NIL)", (b"", b"")),
        (b"BAD [CLIENTBUG] you", (b"CLIENTBUG", b"")),
    ],
)
def test_a_code_stands_at_the_beginning_or_is_none(line: bytes, expected: tuple[bytes, bytes]) -> None:
    assert response_code(line) == expected
