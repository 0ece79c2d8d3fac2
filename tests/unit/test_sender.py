"""Which touchpoint a message leaves as."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from gateway.mime.scan import HeaderFacts, scan
from gateway.outbound.sender import Refusal, Sender, decide_sender, is_signed, read_author


@dataclass(frozen=True)
class Place:
    id: str
    active: bool = True
    is_outbound: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.id}@example.com"


SUPPORT = Place("support", aliases=("help@example.com",))
BILLING = Place("billing")
OLD = Place("old", active=False)
NEWS = Place("news", is_outbound=False)
ALL = (SUPPORT, BILLING, OLD, NEWS)
ANA = "Ana@example.com"


def decide(
    author: str,
    allowed: Sequence[Place] = (SUPPORT, BILLING),
    *,
    rewrites_own: bool = True,
    is_signed: bool = False,
    conversations: Sequence[str] = (),
) -> Sender | Refusal:
    named = next((one for one in ALL if author.lower() in (one.address, *one.aliases)), None)
    return decide_sender(
        author, login=ANA, named=named, allowed=allowed, rewrites_own=rewrites_own, is_signed=is_signed,
        conversations=conversations,
    )  # fmt: skip


def facts(*lines: str) -> HeaderFacts:
    return scan("".join(f"{line}\r\n" for line in (*lines, "", "body")).encode("latin-1"))


def refused(decision: Sender | Refusal) -> str:
    assert isinstance(decision, Refusal)
    assert decision.reply.startswith("550 5.7.1 ")
    return decision.reply.removeprefix("550 5.7.1 ")


@pytest.mark.parametrize("author", ["support@example.com", "Support@Example.COM", "help@example.com"])
def test_from_names_the_touchpoint_by_address_or_alias(author: str) -> None:
    assert decide(author) == Sender("support", author)


def test_signed_mail_from_a_touchpoint_is_let_through() -> None:
    assert decide("support@example.com", is_signed=True) == Sender("support", "support@example.com")


@pytest.mark.parametrize(
    ("author", "allowed", "words"),
    [
        (
            "billing@example.com",
            [SUPPORT],
            "may not write as billing@example.com; set From to support@example.com",
        ),
        ("eve@example.net", [SUPPORT], "Ana@example.com may not write as eve@example.net; set From to"),
        ("old@example.com", [SUPPORT, OLD], "old@example.com is switched off; set From to support@example.com"),
        ("news@example.com", [SUPPORT, NEWS], "news@example.com only receives mail; set From to support@example.com"),
        ("support@example.com", [], "may not write as support@example.com; no address is open to you"),
        ("eve@example.net", [OLD], "no address is open to you"),
    ],
    ids=["another-team's", "stranger's", "switched-off", "inbound-only", "nobody", "only-switched-off"],
)
def test_a_refusal_names_what_is_allowed(author: str, allowed: Sequence[Place], words: str) -> None:
    assert words in refused(decide(author, allowed))


def test_a_refusal_names_a_few_of_many() -> None:
    many = [Place(f"team{number}") for number in range(9)]
    words = refused(decide("eve@example.net", many))
    assert "team5@example.com …" in words
    assert "team6" not in words


def test_the_own_login_becomes_the_only_touchpoint() -> None:
    assert decide("ana@example.com", [SUPPORT, OLD, NEWS]) == Sender(
        "support", "support@example.com", is_rewritten=True
    )


def test_the_own_login_becomes_the_touchpoint_of_the_conversation() -> None:
    decision = decide("ana@example.com", conversations=["billing"])
    assert decision == Sender("billing", "billing@example.com", is_rewritten=True)


@pytest.mark.parametrize(
    ("allowed", "conversations", "words"),
    [
        (
            [SUPPORT, BILLING],
            [],
            "choose the address to write as: set From to support@example.com, billing@",
        ),
        ([SUPPORT], ["billing"], "this conversation is not yours; set From to support@example.com"),
        ([SUPPORT, OLD], ["old"], "this conversation is not yours"),
        ([SUPPORT, BILLING], ["support", "billing"], "more than one address has this conversation"),
        ([], [], "no address is open to you"),
    ],
    ids=["several", "not-allowed", "switched-off", "in-two", "none"],
)
def test_the_own_login_is_refused_where_nothing_decides(
    allowed: Sequence[Place], conversations: Sequence[str], words: str
) -> None:
    assert words in refused(decide("ana@example.com", allowed, conversations=conversations))


def test_the_own_login_is_refused_when_the_operator_says_so() -> None:
    assert "is a login, not an address" in refused(decide("ana@example.com", [SUPPORT], rewrites_own=False))


def test_signed_mail_is_refused_and_not_rewritten() -> None:
    assert "From is signed" in refused(decide("ana@example.com", [SUPPORT], is_signed=True))


def test_a_touchpoint_goes_before_a_login_of_the_same_address() -> None:
    decision = decide_sender(
        "support@example.com", login="support@example.com", named=SUPPORT, allowed=[SUPPORT, BILLING],
        rewrites_own=False, is_signed=True,
    )  # fmt: skip
    assert decision == Sender("support", "support@example.com")


@pytest.mark.parametrize(
    "value",
    [
        "support@example.com",
        "Example Support <support@example.com>",
        '"Support, Example" <support@example.com>',
        "support@example.com (Example Support)",
        "=?utf-8?q?K=C3=B6ln?=\r\n <support@example.com>",
        '"eve@example.net" <support@example.com>',
    ],
)
def test_the_author_is_the_address_behind_any_name(value: str) -> None:
    assert read_author(facts(f"From: {value}")) == "support@example.com"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "needs exactly one From field, and has none"),
        (("From: a@example.com", "From: b@example.com"), "needs exactly one From field, and has 2"),
        (("From: a@example.com, b@example.com",), "exactly one address"),
        (("From: team: a@example.com, b@example.com;",), "exactly one address"),
        (("From:",), "exactly one address"),
        (("From: Ana",), "cannot be understood"),
        (("From: <>",), "exactly one address"),
        (("From: Ana <ana@>",), "cannot be understood"),
        (("From: \xe4na@example.com",), "cannot be understood"),
        (('From: "a b"@example.com',), "cannot be understood"),
    ],
)
def test_an_unclear_author_is_refused(lines: tuple[str, ...], words: str) -> None:
    author = read_author(facts(*lines))
    assert isinstance(author, Refusal)
    assert author.reply.startswith("550 5.6.0 ")
    assert words in author.reply


@pytest.mark.parametrize(
    "value",
    [
        "<support@example.com> <kim@bank.example>",
        "<support@example.com> kim@bank.example",
        "support@example.com kim@bank.example",
        "kim@bank.example support@example.com",
        "<kim@bank.example>support@example.com",
        "<support@example.com>@bank.example",
        "<support@example.com>.kim@bank.example",
        "<@bank.example:support@example.com>",
        '"support@example.com" <>',
        "<>support@example.com",
        'x"support@example.com',
        '"sup"port@example.com',
        "sup port@example.com",
        "<support@example.com",
        "<support@example.com> (unended",
        '"a <kim@bank.example> <support@example.com>',
        '\\"<kim@bank.example>\\" <support@example.com>',
    ],
)
def test_what_two_readers_take_for_two_authors_is_refused(value: str) -> None:
    """One of them would show an address that nobody has looked at."""
    author = read_author(facts(f"From: {value}"))
    assert isinstance(author, Refusal)
    assert author.reply.startswith("550 5.6.0 ")


@pytest.mark.parametrize(
    "value",
    [
        "kim@bank.example <support@example.com>",
        '"<kim@bank.example>" <support@example.com>',
        '"a \\" b" (c \\) d) <support@example.com> (e)',
        "(support) support@example.com",
        "team: support@example.com;",
        "=?utf-8?q?K=C3=B6ln?= <support@example.com>",
        "K\xf6ln <support@example.com>",
        "support@example.com,",
        "\t<support@example.com>\t",
    ],
)
def test_a_name_may_read_as_it_likes(value: str) -> None:
    assert read_author(facts(f"From: {value}")) == "support@example.com"


def test_an_author_is_read_in_time_whatever_there_is() -> None:
    begun = time.process_time()
    for odd in (" ", '"', '\\"', "(", "(\\(", "<", "a@", "a ", "x:", "\\", "a<  ", "<a@"):
        read_author(facts("From: " + odd * (60_000 // len(odd)) + "x"))
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("Content-Type: text/plain",), False),
        (("Content-Type: multipart/mixed; boundary=signed",), False),
        (("Content-Type: Multipart/Signed; micalg=sha-256",), True),
        (("Content-Type: multipart/encrypted",), True),
        (("Content-Type: application/pkcs7-mime; smime-type=signed-data",), True),
        (("Content-Type: application/x-pkcs7-mime",), True),
        (("DKIM-Signature: v=1",), True),
    ],
)
def test_signed_is_what_a_change_would_break(lines: tuple[str, ...], expected: bool) -> None:
    assert is_signed(facts("From: a@example.com", *lines)) is expected
