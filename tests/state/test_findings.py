"""Findings beside a message: what is kept comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gateway.model import NO_FINDINGS, Attachment, Authentication, Findings, Score
from gateway.state import findings

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)
some_findings = st.builds(
    Findings,
    at=st.none() | times,
    block=texts,
    authentication=st.none()
    | st.builds(Authentication, spf=texts, dkim=texts, dmarc=texts, policy=texts, by=texts, detail=texts),
    score=st.none() | st.builds(Score, st.floats(allow_nan=False), texts, st.lists(texts, max_size=3).map(tuple)),
    no_score=texts,
    known_sender=st.none() | st.booleans(),
    attachments=st.none()
    | st.lists(st.builds(Attachment, texts, texts, st.integers(0, 1 << 40)), max_size=3).map(tuple),
    body=st.none() | texts,
)


@given(some_findings)
def test_what_is_kept_comes_back_without_the_body(found: Findings) -> None:
    assert findings.load(findings.dump(found)) == replace(found, body=None)


def test_nothing_is_kept_of_nothing() -> None:
    assert findings.dump(NO_FINDINGS) is None
    assert findings.load(None) == NO_FINDINGS
    assert findings.dump(Findings(body="text")) is None
