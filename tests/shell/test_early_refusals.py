"""What the provider could never take is refused while its writer is there to hear it, with the numbers."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.outbound.offers import Offers
from gateway.state.offers import Offer
from tests.support.authority import Authority
from tests.support.submission import TOUCHPOINTS, Rig

KIM = "kim@clients.example"
EVERYTHING = Offer(size=None, eight_bit=True, smtputf8=True, dsn=True)
NOTHING = Offer(size=None, eight_bit=False, smtputf8=False, dsn=False)


class Known(Offers):
    """What is known of all providers, without a store behind it."""

    def __init__(self, offer: Offer | None) -> None:
        self.offer = offer

    def of(self, touchpoint: str) -> Offer | None:
        return self.offer


@pytest.fixture
def make_rig(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(offer: Offer | None, support: dict[str, Any] | None = None) -> Rig:
        home = tmp_path / str(len(made))
        home.mkdir()
        touchpoints = [TOUCHPOINTS[0] | (support or {}), *TOUCHPOINTS[1:]]
        made.append(Rig(home, authority, touchpoints=touchpoints, offers=Known(offer)))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def letter(subject: str = "Hello", body: str = "Hello Kim\r\n") -> bytes:
    return f"From: support@example.com\r\nTo: {KIM}\r\nSubject: {subject}\r\n\r\n{body}".encode()


def submit(rig: Rig, message: bytes, to: str = KIM, options: tuple[str, ...] = (), wish: tuple[str, ...] = ()) -> str:
    """Return the reply to the dot, or to what was refused before."""
    client = rig.login()
    client.ehlo_or_helo_if_needed()
    client.command_encoding = "utf-8"
    for code, text in (client.mail("ana@example.com", options), client.rcpt(to, wish)):
        if code != 250:
            return f"{code} {text.decode()}"
    try:
        code, text = client.data(message)
    except smtplib.SMTPDataError as error:
        code, text = error.smtp_code, error.smtp_error  # type: ignore[assignment]
    return f"{code} {text.decode()}"


def envelope(rig: Rig) -> dict[str, Any]:
    def fetch(db: Any) -> dict[str, Any]:
        cursor = db.execute("SELECT * FROM outbox JOIN recipient ON outbox.id = recipient.outbox")
        names = [column[0] for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    return rig.store.read(fetch).result(timeout=10)


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_message_larger_than_the_provider_takes_is_refused_with_both_numbers(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(Offer(5_000, True, True, True))
    assert submit(rig, letter(body="x" * 70 + "\r\n")).startswith("250")
    reply = submit(rig, letter(body=("x" * 70 + "\r\n") * 70))
    assert reply.startswith("552 5.3.4 as it would be sent the message has 5")
    assert reply.endswith(" octets, 127.0.0.1 takes 5000")
    assert len(rig.outbox()) == 1


def test_it_is_the_size_with_the_signature_that_counts(make_rig: Callable[..., Rig]) -> None:
    large = letter(body=("x" * 70 + "\r\n") * 40)
    offer = Offer(len(large) + 1_000, True, True, True)
    assert submit(make_rig(offer), large).startswith("250")
    signature = {"active": True, "text": "wordy " * 300}
    assert submit(make_rig(offer, {"signature": signature}), large).startswith("552 5.3.4")


def test_a_provider_never_met_is_judged_by_what_its_kind_is_known_for(make_rig: Callable[..., Rig]) -> None:
    gmail = {"provider": "gmail", "auth": "password"}
    rig = make_rig(None, gmail)
    size = rig.config.touchpoints["support"].profile.size
    assert size is not None
    large = letter(body=("x" * 76 + "\r\n") * (size // 78 + 1))
    assert submit(rig, large).endswith(f"takes {size}")
    met = make_rig(EVERYTHING, gmail)  # and says that there is no limit
    assert submit(met, large).startswith("250")


def test_where_nothing_is_known_nothing_is_refused(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(None)
    assert submit(rig, letter("Grüße"), "é@clients.example", ("SMTPUTF8",)).startswith("250")


# --- 8 bit and UTF-8 -------------------------------------------------------------------------------------------------


def test_8_bit_text_is_refused_where_the_provider_takes_none(make_rig: Callable[..., Rig]) -> None:
    message = letter(body="Grüße\r\n")
    assert submit(make_rig(NOTHING), message) == (
        "554 5.6.3 the message has 8-bit text, 127.0.0.1 takes none; send it as quoted-printable or base64"
    )
    taking = make_rig(EVERYTHING)
    assert submit(taking, message, options=("BODY=8BITMIME",)).startswith("250")
    assert envelope(taking)["eight_bit"] == 1


def test_ascii_that_was_announced_as_8_bit_is_ascii(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(NOTHING)
    assert submit(rig, letter(), options=("BODY=8BITMIME",)).startswith("250")
    assert envelope(rig)["eight_bit"] == 0


@pytest.mark.parametrize(("subject", "to"), [("Hello", "é@clients.example"), ("Grüße", KIM)], ids=["address", "header"])
def test_mail_that_needs_smtputf8_is_refused_where_the_provider_has_none(
    make_rig: Callable[..., Rig], subject: str, to: str
) -> None:
    provider = Offer(None, True, False, True)
    reply = submit(make_rig(provider), letter(subject), to, ("SMTPUTF8", "BODY=8BITMIME"))
    assert reply.startswith("550 5.6.7 an address or the header is beyond ASCII, 127.0.0.1 takes no such mail")
    taking = make_rig(EVERYTHING)
    assert submit(taking, letter(subject), to, ("SMTPUTF8",)).startswith("250")
    assert envelope(taking)["smtputf8"] == 1
    assert envelope(taking)["address"] == to


def test_a_client_that_says_smtputf8_to_everybody_needs_it_for_nothing(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(NOTHING)
    assert submit(rig, letter(), options=("SMTPUTF8",)).startswith("250")
    assert envelope(rig)["smtputf8"] == 0


def test_a_domain_of_any_script_needs_no_smtputf8(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(NOTHING)
    assert submit(rig, letter(), "kim@bücher.example", ("SMTPUTF8",)).startswith("250")
    assert (envelope(rig)["address"], envelope(rig)["smtputf8"]) == ("kim@xn--bcher-kva.example", 0)


def test_8_bit_in_the_header_without_the_word_is_passed_on_as_ever(make_rig: Callable[..., Rig]) -> None:
    """Scripts write raw UTF-8 into subjects and know of no SMTPUTF8; providers take it as 8-bit text."""
    rig = make_rig(Offer(None, True, False, True))
    assert submit(rig, letter("Grüße")).startswith("250")
    assert (envelope(rig)["eight_bit"], envelope(rig)["smtputf8"]) == (1, 0)


@pytest.mark.parametrize("configured", ["support@bücher.example", "support@xn--bcher-kva.example"])
@pytest.mark.parametrize("written", ["support@Bücher.example", "support@xn--bcher-kva.example"])
def test_a_touchpoint_may_have_a_domain_of_any_script(
    make_rig: Callable[..., Rig], configured: str, written: str
) -> None:
    rig = make_rig(NOTHING, {"address": configured})
    message = letter().replace(b"support@example.com", written.encode())
    assert submit(rig, message, options=("SMTPUTF8",)).startswith("250")
    assert (envelope(rig)["return_path"], envelope(rig)["smtputf8"]) == ("support@xn--bcher-kva.example", 0)
    assert b"<support@xn--bcher-kva.example>\r\n" in rig.stored(envelope(rig)["id"])


# --- what the sender wants to hear -----------------------------------------------------------------------------------


def test_the_wishes_of_rfc_3461_are_kept(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(None)
    wish = ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;kim+2Bx@clients.example")
    assert submit(rig, letter(), options=("RET=HDRS", "ENVID=QQ314"), wish=wish).startswith("250")
    row = envelope(rig)
    assert (row["ret"], row["envid"]) == ("hdrs", "QQ314")
    assert (row["notify"], row["orcpt"]) == (5, "rfc822;kim+2Bx@clients.example")


def test_never_is_kept_as_such(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(None)
    assert submit(rig, letter(), wish=("NOTIFY=NEVER",)).startswith("250")
    assert envelope(rig)["notify"] == 0


def test_who_wishes_nothing_leaves_nothing(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(None)
    assert submit(rig, letter()).startswith("250")
    row = envelope(rig)
    assert [row[name] or None for name in ("ret", "envid", "notify", "orcpt")] == [None] * 4
