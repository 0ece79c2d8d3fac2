"""DKIM signatures, verified by another implementation than the one that makes them."""

from __future__ import annotations

import re

import pytest

from gateway.config.dkim import PrivateKey
from gateway.outbound import dkim
from gateway.outbound.dkim import BodyHash, Identity, read_fields
from tests.support import dkim_keys
from tests.support.dkim_keys import Dns

IDENTITY = Identity("s1", "example.com")
HEAD = (
    b"From: Example Support <support@example.com>\r\n"
    b"To: b@clients.example,\r\n\tc@clients.example\r\n"
    b"Subject:  Your   order \t of\r\n Monday\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
)
BODY = b"Dear customer, \r\n\r\nyour\torder  has left.\r\n\r\n\r\n"
KEYS: dict[str, PrivateKey] = {"rsa": dkim_keys.rsa(2048), "ed25519": dkim_keys.ed25519()}


def sign(message: bytes, key: str = "rsa") -> bytes:
    head, _, body = message.partition(b"\r\n\r\n")
    hash = BodyHash()
    hash.update(body)
    return dkim.sign(read_fields(head + b"\r\n"), hash.digest(), IDENTITY, KEYS[key], 1_795_000_000)


def verifies(message: bytes, key: str = "rsa") -> bool:
    return Dns({"s1@example.com": KEYS[key]}).verifies(message)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b"",
        b"\r\n",
        b"\r\n\r\n \t\r\n",
        b"one line without an end",
        b" \t",
        b"ends in white space \t",
        "Grüße, 日本\r\n".encode(),
        b"x" * 990 + b"\r\n",
        b".\r\n..\r\n",
    ],
    ids=["text", "empty", "blank", "blank lines", "no end", "white", "white end", "8bit", "long line", "dots"],
)
def test_a_signature_verifies_over_what_is_on_the_wire(key: str, body: bytes) -> None:
    message = HEAD + b"\r\n" + body
    on_the_wire = message if message.endswith(b"\r\n") else message + b"\r\n"
    assert verifies(sign(message, key) + b"Received: by gateway.example\r\n" + on_the_wire, key)


@pytest.mark.parametrize(
    "change",
    [
        (b"Your", b"My"),
        (b"has left", b"was lost"),
        (b"support@", b"fraud@"),
        (b"c@clients", b"d@clients"),
        (b"charset=utf-8", b"charset=utf-7"),
        (b"Dear customer", b"Dearcustomer"),
    ],
    ids=lambda change: change[0].decode(),
)
def test_a_change_on_the_way_breaks_the_signature(change: tuple[bytes, bytes]) -> None:
    message = HEAD + b"\r\n" + BODY
    signed = sign(message) + message
    assert verifies(signed)
    assert signed.count(change[0]) == 1
    assert not verifies(signed.replace(*change))


@pytest.mark.parametrize(
    "field",
    [
        *("From: x@bad.example", "Subject: Pay here", "To: z@bad.example", "Cc: z@bad.example"),
        *("Reply-To: z@bad.example", "Date: Tue, 24 Nov 2026 12:00:00 +0000", "Message-ID: <2@bad.example>"),
        "Content-Type: text/html",
    ],
)  # fmt: skip
def test_a_second_field_put_on_top_breaks_the_signature(field: str) -> None:
    message = HEAD + b"\r\n" + BODY
    assert not verifies(field.encode() + b"\r\n" + sign(message) + message)


@pytest.mark.parametrize(
    "field", ["Received: from gateway.example", "X-Spam: no", "Sender: relay@example.com", "List-Id: <l.example>"]
)
def test_what_servers_on_the_way_add_does_not_break_the_signature(field: str) -> None:
    message = HEAD + b"\r\n" + BODY
    assert verifies(field.encode() + b"\r\n" + sign(message) + message)


def test_refolding_and_white_space_do_not_break_the_signature() -> None:
    message = HEAD + b"\r\n" + BODY
    signed = sign(message) + message
    changed = signed.replace(b",\r\n\tc@", b", c@").replace(b"customer, \r\n", b"customer,\r\n")
    changed = changed.replace(b"order  has", b"order\t has").removesuffix(b"\r\n")
    assert changed != signed
    assert verifies(changed)


def test_the_field_is_one_that_every_server_can_carry() -> None:
    field = sign(HEAD + b"References: " + b"<a@b.example>\r\n " * 40 + b"\r\n\r\n")
    assert field.startswith(
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com;\r\n\ts=s1; t=1795000000;\r\n"
    )
    assert field.endswith(b"\r\n")
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert all(line[:1] in b" \t" for line in field.removesuffix(b"\r\n").split(b"\r\n")[1:])


def test_lines_that_are_no_field_are_passed_over_and_do_not_stand_in_the_way() -> None:
    head = b" begins with a blank\r\nno colon here\r\nbad name: x\r\n: no name\r\n" + HEAD
    assert [name for name, _ in read_fields(head)] == [name for name, _ in read_fields(HEAD)]


def test_names_are_signed_as_often_as_they_are_there_and_once_more() -> None:
    field = sign(HEAD + b"List-Id: <a.example>\r\n\r\n")
    found = re.search(rb"h=([^;]*);", field)
    assert found is not None
    names = re.sub(rb"\s", b"", found[1]).split(b":")
    assert names.count(b"from") == names.count(b"subject") == names.count(b"date") == 2
    assert names.count(b"cc") == names.count(b"reply-to") == 1
    assert names.count(b"list-id") == 1
    assert b"received" not in names
    assert b"sender" not in names
