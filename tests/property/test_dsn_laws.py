"""Whatever comes back, reading it raises nothing, stays small, and finds again what was written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Reply
from gateway.outbound.bounce import Failed, Original, compose_bounce
from gateway.rules.dsn import RECIPIENTS, SAID_LETTERS, Action, read_report
from gateway.rules.undelivered import NOTE_LETTERS, note_of
from gateway.text import clean

SAMPLES = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "data" / "bounces").glob("*.eml"))]
PIECES = st.sampled_from(
    [
        b"\r\n", b"\n\n", b"--b", b"--b--", b"Content-Type: message/delivery-status", b"Content-Type: text/html",
        b"Content-Type: multipart/report; boundary=b", b"Content-Transfer-Encoding: base64", b"Final-Recipient:",
        b"Final-Recipient: utf-8; \\x{", b"}", b"bob@example.net", b"Action: failed", b"Status: 5.", b"1.1", b"550 ",
        b"550-5.1.1 ", b"<", b">", b"&#", b"<style>", b"</style", b"9" * 99,
        b"Received: by x (mail-gateway) id 1r7hq2x0.",
        b"--- Below this line is a copy", b"X-Failed-Recipients: ", b"=?utf-8?q?", b"\0", b"\xff\xfe", b"@", b" ",
    ]
)  # fmt: skip


def check(raw: bytes) -> None:
    report = read_report(raw)
    assert len(report.recipients) <= RECIPIENTS
    for one in (*report.recipients, report.general):
        assert len(one.said) <= SAID_LETTERS
        assert one.said == clean(one.said)
    note = note_of(report.recipients)
    assert len(note) <= NOTE_LETTERS
    assert note == clean(note, NOTE_LETTERS)
    assert bool(note) == bool(report.recipients)


@given(st.binary(max_size=2_000))
def test_any_bytes_are_read(raw: bytes) -> None:
    check(raw)


@given(st.lists(PIECES, max_size=60).map(b"".join))
def test_any_pieces_of_reports_are_read(raw: bytes) -> None:
    check(raw)


@given(st.sampled_from(SAMPLES), st.integers(0, 4_000), st.integers(0, 300), st.binary(max_size=30))
def test_a_sample_with_a_hole_in_it_is_read(sample: bytes, start: int, length: int, instead: bytes) -> None:
    check(sample[:start] + instead + sample[start + length :])


ADDRESSES = st.from_regex(r"[a-zé用+][a-z0-9.+_-]{0,20}@[a-z0-9]{1,10}\.example", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)


@given(st.lists(ADDRESSES, min_size=1, max_size=5, unique_by=str.lower), TEXTS, st.sampled_from([550, 450]))
def test_what_we_write_ourselves_is_read_back(addresses: list[str], text: str, code: int) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    failed = [Failed(address, Reply(code, f"{code // 100}.1.1", text)) for address in addresses]
    head = b"Message-ID: <order@example.com>\r\n\r\nbody\r\n"
    original = Original("s@example.com", "ana@example.com", "s@example.com", "<order@example.com>", "Hi", at, head)
    bounce = compose_bounce(
        original, failed, queue_id="1r7hq2x0", bounce_id="1r7hq2x1", hostname="gw.example.com",
        relay="smtp.example.com", now=at,
    )  # fmt: skip
    assert bounce is not None
    report = read_report(bounce.raw)
    assert [one.address for one in report.recipients] == addresses
    assert {(one.action, one.status, one.code) for one in report.recipients} == {
        (Action.FAILED, f"{code // 100}.1.1", code)
    }
    assert report.message_ids == ("<order@example.com>",)
