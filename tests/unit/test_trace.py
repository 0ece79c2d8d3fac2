"""Our traces, as the relay writes them and as providers give them back."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from gateway.mime.trace import Trace, compose_trace, traces
from gateway.model import read_id, show_id, to_ms

ID = read_id("1r7hq2x0") or 0
AT = datetime(2026, 11, 23, 10, 0, 7, tzinfo=UTC)
NOW = to_ms(AT)


def test_what_the_relay_writes_is_what_we_find() -> None:
    field = compose_trace("gateway.example", ID, 3, NOW)
    assert traces(field + b"From: a@b.example\r\n\r\n") == [Trace(ID, 3, AT)]


@pytest.mark.parametrize(
    "header",
    [
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.12; Mon, 23 Nov 2026 10:00:07 +0000\r\n",
        b"X-Received: by gw.example (mail-gateway) id 1r7hq2x0.12; Mon, 23 Nov 2026 10:00:07 +0000\r\n",
        b"RECEIVED :by gw.example\r\n (Mail-Gateway)\r\n\tid\r\n  1R7HQ2X0.12\r\n ;\r\n\tMon, 23 Nov 2026"
        b"\r\n 11:00:07 +0100",
        b"Subject: x\nReceived: by gw.example (mail-gateway) id 1r7hq2x0.12;\n\tMon, 23 Nov 2026 10:00:07 +0000\n",
        b"X-Old: from [10.0.0.1] by gw.example (mail-gateway) id 1r7hq2x0.12; 23 Nov 2026 10:00:07 -0000; more\r\n",
    ],
    ids=["as-written", "renamed", "folded-anew", "bare-line-feeds", "added-to"],
)
def test_a_trace_is_found_whatever_the_provider_makes_of_its_field(header: bytes) -> None:
    assert traces(b"Return-Path: <x>\r\n" + header) == [Trace(ID, 12, AT)]


@pytest.mark.parametrize(
    "date", [b"", b";", b"; yesterday", b"; Mon, 99 Nov 2026 99:00:07 +0000", b"; \xff", b"; Mon, 23 Nov 99999999999"]
)
def test_a_trace_without_a_date_that_can_be_read_is_one(date: bytes) -> None:
    assert traces(b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1" + date + b"\r\n") == [Trace(ID, 1, None)]


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: Re: by gw.example (mail-gateway) id 1r7hq2x0.1; now\r\n",
        b"Thread-Topic: by gw.example (mail-gateway) id 1r7hq2x0.1; now\r\n",
        b'To: "by gw.example (mail-gateway) id 1r7hq2x0.1" <a@b.example>\r\n',
        b"Received: by gw.example (postfix) id 1r7hq2x0.1;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1.2;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0.1abc;\r\n",
        b"Received: by gw.example (mail-gateway) id 1r7hq2x0;\r\n",
        b"Received: by gw.example (mail-gateway) id uuuuuuuu.1;\r\n",
        b"Received: by gw.example (mail-gateway)\r\nid 1r7hq2x0.1;\r\n",
        b"",
    ],
    ids=["subject", "topic", "name", "postfix", "dotted", "letters", "no-attempt", "no-id", "cut", "empty"],
)
def test_what_people_write_and_what_others_trace_is_no_trace(header: bytes) -> None:
    assert traces(header) == []


@pytest.mark.parametrize(
    "header",
    [
        b"Received: " + b"by " * 200_000 + b"(mail-gateway)",
        b"Received: by" + b" " * 500_000 + b"(mail-gateway)",
        b"Received: by " + b"x" * 500_000 + b" (mail-gateway)",
        b"Received: " + b"by x (mail-gateway) id 1r7hq2x0.1; " * 20_000,
        b"Received:\r\n" + b" \r\n" * 100_000 + b"(mail-gateway)",
        b"A:" * 200_000 + b"(mail-gateway)",
    ],
    ids=["words", "spaces", "a-long-host", "many-traces", "empty-folds", "colons"],
)
def test_a_hostile_header_costs_no_more_than_its_length(header: bytes) -> None:
    begun = time.process_time()
    assert len(traces(header)) <= 20
    assert time.process_time() - begun < 1.0


def test_ids_in_traces_are_those_that_people_see() -> None:
    for number in (1, 31, 32, ID, (1 << 46) - 1):
        assert [trace.queue_id for trace in traces(compose_trace("gw", number, 1, NOW))] == [number], show_id(number)
