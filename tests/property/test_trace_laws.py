"""A trace is read as it was written, whatever is made of its field; and whatever comes, reading raises nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.inbound.evidence import Open, Settled, Sight, judge
from gateway.mime.trace import Trace, compose_trace, traces
from gateway.model import from_ms
from tests.unit.test_evidence import Doubt

ids = st.integers(1, (1 << 46) - 1)
attempts = st.integers(1, 10**9 - 1)
times = st.integers(1_735_689_600_000, 4_000_000_000_000)
folds = st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"\n  ", b" \r\n \t"])
names = st.sampled_from([b"Received", b"X-Received", b"received", b"X-Old-Trace", b"RECEIVED "])
others = st.lists(
    st.sampled_from(
        [b"Subject: hello\r\n world\r\n", b"Received: from x by y; z\r\n", b"X:\r\n", b"To: a@b\r\n", b"odd\r\n"]
    )
)

SHARDS = b"by|x|(mail-gateway)|id|1r7hq2x0.1|;|Mon, 23 Nov 2026 10:00:07 +0000|\r\n|\r\n |Received:|:".split(b"|")


@given(ids, attempts, times, names, st.lists(folds, min_size=12, max_size=12), others, others)
def test_what_was_written_is_read(
    id: int, attempt: int, at: int, name: bytes, folds: list[bytes], above: list[bytes], below: list[bytes]
) -> None:
    words = compose_trace("gateway.example", id, attempt, at).split()[1:]
    value = b"".join(fold + word for fold, word in zip(folds, words, strict=False))
    header = b"".join([*above, name, b":", value, b"\r\n", *below])
    assert traces(header) == [Trace(id, attempt, from_ms(at // 1000 * 1000))]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(SHARDS),
        ),
        max_size=60,
    )
)
def test_whatever_comes_reading_raises_nothing(pieces: list[bytes]) -> None:
    for joint in (b"", b" "):
        for trace in traces(joint.join(pieces)):
            assert 0 < trace.queue_id < 1 << 46
            assert trace.at is None or trace.at.utcoffset() is not None


seen = st.lists(st.builds(Trace, st.integers(1, 3), st.integers(1, 4), times.map(from_ms)), max_size=6)
later = st.integers(0, 10**10)


@given(seen, st.integers(1, 3), st.integers(1, 3), times, later, st.none() | later, st.booleans(), st.booleans())
def test_a_fate_is_decided_by_this_attempt_or_by_two_looks_and_never_else(
    seen: list[Trace], id: int, attempt: int, tried_at: int, after: int, absent: int | None, complete: bool, files: bool
) -> None:
    now = tried_at + after
    absent_at = None if absent is None else max(tried_at, now - absent)
    doubt = Doubt(outbox=id, attempt=attempt, tried_at=tried_at, absent_at=absent_at)
    verdict = judge(doubt, Sight.of(seen, complete), now, files)
    if isinstance(verdict, Settled) and verdict.sent:
        assert any((one.queue_id, one.attempt) == (id, attempt) for one in seen)
    elif isinstance(verdict, Settled):
        assert files
        assert complete
        assert absent_at is not None
        assert now - absent_at >= 5 * 60_000
        assert any(one.at is not None and one.at > from_ms(tried_at) for one in seen)
        assert all((one.queue_id, one.attempt) != (id, attempt) for one in seen)
    else:
        assert isinstance(verdict, Open)
        assert verdict.next_at > now
