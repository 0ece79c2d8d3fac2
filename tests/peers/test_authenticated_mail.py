"""The whole way: mail that a provider took from somewhere, the DNS of who is said to have sent it, and the rules."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import dkim_keys
from tests.support.daemon import Daemon, Site
from tests.support.dkim_keys import PKCS1, pem_of
from tests.support.nameserver import NameServer
from tests.support.provider import Provider
from tests.support.waiting import wait_until

CARLA = "carla@customer.example"
HONEST, STRANGER = "198.51.100.7", "203.0.113.66"


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    public = dkim_keys.rsa().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"
    strings = " ".join(f'"{key[at : at + 200]}"' for at in range(0, len(key), 200))
    server = NameServer(
        [
            f'customer.example. TXT "v=spf1 ip4:{HONEST} -all"',
            '_dmarc.customer.example. TXT "v=DMARC1; p=reject"',
            f"s1._domainkey.customer.example. TXT {strings}",
        ]
    )
    server.start()
    yield server
    server.close()


def letter(subject: str, ip: str, *, is_signed: bool = False, size: int = 0, more: str = "") -> bytes:
    text = (
        f"From: Carla <{CARLA}>\r\nTo: support@support.example\r\nSubject: {subject}\r\nDate: {formatdate()}\r\n"
        f"Message-ID: <{subject.replace(' ', '.')}@customer.example>\r\n\r\nWhere is my order?\r\n"
    ).encode()
    text += (b"x" * 70 + b"\r\n") * (size // 72)
    if is_signed:
        key = pem_of(dkim_keys.rsa(), PKCS1).encode()
        text = dkim.sign(text, b"s1", b"customer.example", key, canonicalize=(b"relaxed", b"relaxed")) + text
    hop = f"Received: from mail.example (mail.example [{ip}])\r\n\tby mx.support.example (Postfix); {formatdate()}\r\n"
    return (hop + more).encode() + text


def deliver(provider: Provider, *letters: bytes) -> None:
    provider.dovecot.deliver("support@support.example", *letters, sender=CARLA)


def site_of(provider: Provider, **inbound: Any) -> Site:
    site = Site([provider.touchpoint("support")], gateway={"inbound": inbound})
    site.add_agent("anna@support.example", "secret of anna", ["support", "proven", "forged"])
    site.more = {"spam": {"on_dmarc_fail": "tag"}}
    site.rules = [
        {"name": "proven", "if": {"dmarc": "pass"}, "then": {"tags": ["proven"]}},
        {"name": "signed", "if": {"dkim": "pass"}, "then": {"tags": ["signed"]}},
        {"name": "unknown", "if": {"dmarc": ["temperror", "none"]}, "then": {"tags": ["unknown"]}},
    ]
    return site


def tags_of(daemon: Daemon, *subjects: str) -> dict[str, set[str]]:
    def found() -> dict[str, set[str]]:
        known = {one["subject"]: set(one["tags"]) for one in daemon.conversations()}
        return {subject: known[subject] for subject in subjects} if set(subjects) <= set(known) else {}

    return wait_until(found, "all is in its queue", timeout=60, state=daemon.log_tail)


def test_rules_know_who_really_wrote(
    provider: Provider, name_server: NameServer, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site_of(provider, authentication="auto", resolvers=[name_server.address]))
    daemon.start()
    daemon.wait_connected("support")
    deliver(
        provider,
        letter("by its host", HONEST),
        letter("by its signature", STRANGER, is_signed=True),
        letter("by a large signature", STRANGER, is_signed=True, size=6_000_000),
        letter("by nothing", STRANGER),
        letter("by its own word", STRANGER, more="Authentication-Results: mx.support.example; dmarc=pass\r\n"),
        letter("changed on the way", STRANGER, is_signed=True).replace(b"Where is", b"Here was"),
    )
    subjects = ("by its host", "by its signature", "by a large signature", "by nothing", "by its own word")
    found = tags_of(daemon, *subjects, "changed on the way")
    assert found == {
        "by its host": {"proven"},
        "by its signature": {"proven", "signed"},
        "by a large signature": {"proven", "signed"},
        "by nothing": {"dmarc-fail"},
        "by its own word": {"dmarc-fail"},
        "changed on the way": {"dmarc-fail"},
    }


def test_the_provider_s_word_needs_no_dns(provider: Provider, make_daemon: Callable[..., Daemon]) -> None:
    site = site_of(provider, authentication="provider")
    site.touchpoint("support")["authserv_ids"] = ["mx.support.example"]
    site.more = {"spam": {"on_dmarc_fail": "quarantine"}}
    daemon = make_daemon(site)
    daemon.start()
    daemon.wait_connected("support")
    said = "Authentication-Results: mx.support.example; dmarc={} (p=reject) header.from=customer.example\r\n"

    def told(subject: str, word: str) -> bytes:
        return said.format(word).encode() + letter(subject, STRANGER, more=said.format("pass"))

    deliver(provider, told("good", "pass"), told("bad", "fail"), letter("nothing said", HONEST))
    assert tags_of(daemon, "good", "nothing said") == {"good": {"proven"}, "nothing said": set()}
    waiting = wait_until(lambda: daemon.ask("quarantine.list"), "the bad one is away", state=daemon.log_tail)
    assert [one["subject"] for one in waiting] == ["bad"]


def test_mail_goes_on_while_the_dns_is_silent(
    provider: Provider, name_server: NameServer, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site_of(provider, authentication="auto", resolvers=[name_server.address]))
    daemon.start()
    daemon.wait_connected("support")
    name_server.freeze()
    letters = (letter(f"number {number}", STRANGER, is_signed=True) for number in range(8))
    named = (one.replace(b"customer.example", b"customer%d.example" % number) for number, one in enumerate(letters))
    deliver(provider, *named)  # each of another domain: who asks what somebody asks already says nothing new
    found = tags_of(daemon, *(f"number {number}" for number in range(8)))
    assert set(map(frozenset, found.values())) == {frozenset({"unknown"})}  # and none is called a forgery
    alarms = [one["cause"] for one in daemon.status()["alarms"]]
    assert any("DNS resolver does not answer" in cause for cause in alarms)
