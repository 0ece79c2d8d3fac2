"""Whatever the provider gave of a header, what we write is one well-formed message with one text body."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

from hypothesis import given
from hypothesis import strategies as st

from gateway.inbound.placeholder import LONGEST, compose_placeholder
from gateway.mime.scan import scan
from gateway.model import Placeholder

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

NAMES = st.sampled_from(
    [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"References", b"Content-Type", b"MIME-Version", b"X-A", b"a "]
)
PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b":", b" ", b"\x00", b"\x0c", b"\x85", b"\xff"),
        *(
            b"From: ",
            b"Content-Type: multipart/mixed; boundary=a",
            b"--a",
            b"=?utf-8?q?a?=",
            b"<a@b>",
            b"a@b.example, ",
        ),
        *(b"(", b'"', b"\xe2\x80\xa8", b"x" * 1_000, b"From nobody"),
    ]
)
VALUES = st.lists(PIECES | st.binary(max_size=30), max_size=12).map(b"".join)
FIELDS = st.builds(lambda name, value: name + b": " + value + b"\r\n", NAMES, VALUES)
HEADERS = st.lists(FIELDS, max_size=12).map(b"".join) | VALUES | st.binary(max_size=300)
LONG = st.builds(lambda header, times: (header * times)[:400_000], HEADERS, st.integers(1, 2_000))


@given(
    header=HEADERS | LONG,
    folder=st.text(max_size=40),
    reason=st.text(max_size=400),
    size=st.integers(0, 2**40),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_any_header_becomes_one_bounded_message_with_one_text_body(
    header: bytes, folder: str, reason: str, size: int, at: datetime | None
) -> None:
    raw, kind = compose_placeholder(
        header,
        uid=7,
        folder=folder,
        size=size,
        internal_at=at,
        reason=reason,
        message_id="<1.placeholder@g.example>",
        now=NOW,
    )
    assert len(raw) <= LONGEST
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    message = message_from_bytes(raw, policy=policy.compat32)
    assert not message.defects
    assert not message.is_multipart()
    assert message.get_content_type() == "text/plain"
    for name in ("MIME-Version", "Content-Type", "Content-Transfer-Encoding"):
        assert len(message.get_all(name, [])) == 1
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().startswith("A message has come for this touchpoint")
    facts = scan(raw)
    assert not facts.truncated
    ours = {"from", "subject", "date", "message-id"} if kind is Placeholder.BLIND else set()
    mime = {"mime-version", "content-type", "content-transfer-encoding"}
    assert facts.names - ours - mime <= scan(header).names, "nothing in a value has become a field"
