"""Laws of the scanner: any bytes, no exception, clean text, offsets that cut, all of it in bounded time."""

from __future__ import annotations

from dataclasses import fields
from email.message import EmailMessage
from email.utils import formataddr

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mime.scan import (
    ADDRESS_LIMIT,
    FIELD_LIMIT,
    HeaderFacts,
    decode_text,
    message_ids,
    parse_addresses,
    scan,
)

NAMES = [b"From", b"To", b"Cc", b"Reply-To", b"Sender", b"Subject", b"Message-ID", b"References", b"In-Reply-To"]
NAMES += [b"Date", b"Return-Path", b"Content-Type"]
PIECES = [b"=?utf-8?q?", b"=?gb2312?b?", b"?=", b"=C3", b'"', b"\\", b"(", b")", b"<", b">", b",", b";", b":", b"@"]
PIECES += [
    b"\r\n ",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"a",
    b"\xff",
    b"=",
    b"[",
    b"]",
    b"report-type",
    b"2026",
]
hostile = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=60).map(b"".join)
messages = st.lists(st.tuples(st.sampled_from(NAMES), hostile), max_size=12).map(
    lambda made: b"".join(name + b":" + value + b"\r\n" for name, value in made) + b"\r\nbody"
)


def is_clean(text: str) -> bool:
    return not any(ord(letter) < 32 or 127 <= ord(letter) < 160 or 0xD800 <= ord(letter) < 0xE000 for letter in text)


def read_everything(facts: HeaderFacts) -> list[str]:
    """Ask for every fact there is; return all text."""
    boxes = [
        facts.from_,
        *facts.authors,
        *facts.to,
        *facts.cc,
        *facts.reply_to,
        *([facts.sender] if facts.sender else []),
    ]
    text = [part for box in boxes for part in box]
    text += [facts.subject, facts.message_id, *facts.in_reply_to, *facts.references, facts.return_path or ""]
    assert facts.date is None or facts.date.utcoffset() is not None
    assert "/" in facts.content_type
    assert facts.content_type_parameter("report-type") is not None
    return text + [value for name in facts.names for value in facts.values(name)]


@given(st.binary(max_size=2_000) | messages)
@example(b"\r\n")
@example(b"From:" + b'"\\' * 500)
def test_any_bytes_are_read_without_an_exception_and_give_clean_text(raw: bytes) -> None:
    facts = scan(raw)
    assert all(map(is_clean, read_everything(facts)))
    assert len(facts.fields) <= FIELD_LIMIT


@given(st.binary(max_size=2_000) | messages)
def test_fields_lie_in_order_inside_the_header(raw: bytes) -> None:
    facts = scan(raw)
    assert raw.startswith(facts.block)
    assert facts.body_start is not None
    assert len(facts.block) <= facts.body_start <= len(raw)
    end = 0
    for field in facts.fields:
        assert end <= field.start < field.value <= field.end <= len(facts.block)
        assert facts.block[field.start : field.value].rstrip(b": \t").lower() == field.name.encode()
        end = field.end


@given(messages)
def test_scanning_only_the_header_gives_the_same_fields(raw: bytes) -> None:
    facts = scan(raw)
    again = scan(facts.block + b"\r\n")
    for field in fields(HeaderFacts):
        if field.name != "body_start":
            assert getattr(again, field.name) == getattr(facts, field.name)


@given(hostile)
def test_address_lists_are_bounded_and_never_empty_inside(value: bytes) -> None:
    boxes = parse_addresses(value)
    assert len(boxes) <= ADDRESS_LIMIT
    assert all((box.name or box.address) and is_clean(box.name + box.address) for box in boxes)


words = st.text(st.characters(categories=["L", "N", "Zs"], exclude_characters="@"), min_size=1, max_size=20)


@given(
    st.lists(
        st.tuples(words, st.from_regex(r"[a-z0-9.+-]{1,20}@[a-z0-9-]{1,20}\.example", fullmatch=True)),
        min_size=1,
        max_size=6,
    )
)
def test_what_the_standard_library_writes_is_read_back(people: list[tuple[str, str]]) -> None:
    value = ", ".join(formataddr((name, address)) for name, address in people).encode()
    found = [(" ".join(name.split()), address) for name, address in parse_addresses(value)]
    assert found == [(" ".join(name.split()), address) for name, address in people]


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_a_subject_survives_the_standard_librarys_encoding(subject: str) -> None:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content("x")
    assert "".join(scan(message.as_bytes()).subject.split()) == "".join(subject.split())


@given(st.lists(st.from_regex(r"<[a-z0-9]{1,30}@[a-z]{1,10}>", fullmatch=True), max_size=100), st.integers(1, 30))
def test_ids_are_kept_from_both_ends(ids: list[str], keep: int) -> None:
    found = message_ids(" ".join(ids).encode(), keep)
    assert len(found) <= 2 * keep
    assert set(found) <= set(ids)
    if ids:
        assert found[0] == ids[0]
    if len(ids) <= keep or (keep > 1 and len(ids) <= 2 * keep):
        assert found == tuple(dict.fromkeys(ids))


@given(st.binary(max_size=500))
def test_decoding_is_total(value: bytes) -> None:
    assert is_clean(decode_text(value))
