"""How single values are read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from gateway.config.values import (
    Listener,
    Server,
    expression_of,
    parse_address,
    parse_duration,
    parse_http_listener,
    parse_listener,
    parse_server,
    parse_size,
    show_duration,
    suggest,
)

DURATIONS = {
    "5 days": timedelta(days=5),
    "1 day": timedelta(days=1),
    "9 min": timedelta(minutes=9),
    "9min": timedelta(minutes=9),
    "30 s": timedelta(seconds=30),
    "4 Hours": timedelta(hours=4),
    "2 weeks": timedelta(weeks=2),
    "1 hour 30 min": timedelta(minutes=90),
    "0.5 s": timedelta(milliseconds=500),
    "250 ms": timedelta(milliseconds=250),
}


@pytest.mark.parametrize(("text", "duration"), DURATIONS.items(), ids=DURATIONS.keys())
def test_a_duration_has_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "5", "days", "5 m", "-5 days", "5 days later", "0 s", 5, None, True, "9" * 15 + " weeks"]
)
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_duration(text)


def test_a_duration_is_shown_as_it_is_written() -> None:
    shown = [show_duration(each) for each in (timedelta(hours=4), timedelta(days=1), timedelta(minutes=90))]
    assert shown == ["4 hours", "1 day", "90 minutes"]


SIZES = {"35 MB": 35_000_000, "35MiB": 35 * 2**20, "1 kB": 1000, "1 KB": 1000, "1.5 GiB": 3 * 2**29, "10 B": 10}


@pytest.mark.parametrize(("text", "size"), SIZES.items(), ids=SIZES.keys())
def test_mega_is_decimal_and_mebi_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_bare_number_is_bytes() -> None:
    assert parse_size(5) == 5


@pytest.mark.parametrize("text", ["35", "MB", "35 MX", "-1 MB", "0 MB", 0, -1, True, 1.5, None, "0.1 B"])
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(text)


SERVERS = {
    "imaps://imap.example.com": Server("imaps", "imap.example.com", 993),
    "imap://imap.example.com": Server("imap", "imap.example.com", 143),
    "imaps://imap.example.com:1993": Server("imaps", "imap.example.com", 1993),
    "imap+insecure://127.0.0.1": Server("imap+insecure", "127.0.0.1", 143),
    "imap+insecure://localhost:1143": Server("imap+insecure", "localhost", 1143),
    "imap+insecure://[::1]:1143": Server("imap+insecure", "::1", 1143),
    "smtps://smtp.example.com": Server("smtps", "smtp.example.com", 465),
    "smtp://smtp.example.com/": Server("smtp", "smtp.example.com", 587),
    "smtps://[2001:db8::1]": Server("smtps", "2001:db8::1", 465),
}


@pytest.mark.parametrize(("text", "server"), SERVERS.items(), ids=SERVERS.keys())
def test_a_server_has_the_port_of_its_scheme(text: str, server: Server) -> None:
    assert parse_server(text, server.scheme[:4]) == server
    assert parse_server(str(server), server.scheme[:4]) == server


@pytest.mark.parametrize(
    "text",
    [
        "imap.example.com",
        "imaps://",
        "imaps://:993",
        "imaps://imap.example.com:0",
        "imaps://imap.example.com:99999",
        "imaps://imap.example.com/INBOX",
        "imaps://ana@imap.example.com",
        "imaps://imap_.-example.com",
        "imaps://300.1.1.1",
        "imaps://imap example.com",
        "imap+insecure://imap.example.com",
        "imap+insecure://10.0.0.1",
        "smtps://smtp.example.com",
        "http://imap.example.com",
        993,
        None,
    ],
)
def test_what_is_no_imap_server_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_server(text, "imap")


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r'"imaps://…@imap\.example\.com" cannot be read'):
        parse_server("imaps://ana:hunter2@imap.example.com", "imap")


LISTENERS = {
    "smtps://:465": Listener("smtps", None, 465),
    "smtps://": Listener("smtps", None, 465),
    "smtp://0.0.0.0": Listener("smtp", "0.0.0.0", 587),
    "smtp+insecure://127.0.0.1:0": Listener("smtp+insecure", "127.0.0.1", 0),
    "smtps://[::]:465": Listener("smtps", "::", 465),
}


@pytest.mark.parametrize(("text", "listener"), LISTENERS.items(), ids=LISTENERS.keys())
def test_a_listener_without_a_host_is_everywhere(text: str, listener: Listener) -> None:
    assert parse_listener(text, "smtp") == listener


@pytest.mark.parametrize("text", ["smtp+insecure://:25", "smtp+insecure://0.0.0.0:25", "smtp+insecure://[::]:25"])
def test_nobody_listens_in_the_clear_beyond_loopback(text: str) -> None:
    with pytest.raises(ValueError, match="loopback addresses only"):
        parse_listener(text, "smtp")


def test_http_can_be_switched_off() -> None:
    assert parse_http_listener("") is None
    assert parse_http_listener("[::1]:80") == Listener("http", "::1", 80)


@pytest.mark.parametrize(
    "text", ["support@example.com", "a.b+c@sub.example", "jörg@bücher.example", "o'neil@x.example"]
)
def test_addresses_of_all_scripts_are_welcome(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "support",
        "@example.com",
        "support@",
        "a b@example.com",
        "a@b@c.example",
        "<a@b.example>",
        "a..b@c.example",
        ".a@b",
        5,
    ],
)
def test_what_is_no_address_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_a_guess_ignores_capitals_and_few_choices_are_all_named() -> None:
    assert suggest("BILING", ["billing", "support"]) == '; did you mean "billing"?'
    assert suggest("x", ["billing", "support", "sales"]) == '; there is "billing", "sales" and "support"'
    assert suggest("x", map(str, range(100))) == ""


@pytest.mark.parametrize(
    ("pattern", "expression"), [("/a/", "a"), ("*a*", None), ("/", None), ("//", None), ("/a", None), ("/a/b/", "a/b")]
)
def test_an_expression_stands_between_slashes(pattern: str, expression: str | None) -> None:
    assert expression_of(pattern) == expression


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_address, parse_http_listener])
def test_a_sentence_says_what_to_write(parse: Callable[[object], object]) -> None:
    with pytest.raises(ValueError, match=r"for example|write|in quotes|needs"):
        parse(["x"])
