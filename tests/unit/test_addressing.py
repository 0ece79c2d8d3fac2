"""What stands behind MAIL and RCPT, and what is refused of it."""

from __future__ import annotations

import pytest

from gateway.errors import Malformed
from gateway.model import NO_WISH, Notify, Wish
from gateway.outbound.addressing import Origin, read_mail, read_rcpt, same_mailbox


def rcpt(text: str, *, smtputf8: bool = False) -> tuple[str, Wish]:
    return read_rcpt(f"TO:{text}", smtputf8=smtputf8)


def refusal_of_mail(text: str) -> str:
    with pytest.raises(Malformed) as error:
        read_mail(f"FROM:{text}")
    assert error.value.reply.isascii()
    return error.value.reply


def refusal_of_rcpt(text: str, *, smtputf8: bool = False) -> str:
    with pytest.raises(Malformed) as error:
        rcpt(text, smtputf8=smtputf8)
    assert error.value.reply.isascii()
    return error.value.reply


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("<>", ""),
        ("<a@b.example>", "a@b.example"),
        ("  <a@b.example>", "a@b.example"),
        ("a@b.example", "a@b.example"),
        ("<@one.example,@two.example:a@b.example>", "a@b.example"),
        ('<"a b"@c.example>', '"a b"@c.example'),
        ('<"a\\"b>"@c.example>', '"a\\"b>"@c.example'),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("<a.b+c=d#{e}@b.example>", "a.b+c=d#{e}@b.example"),
        (f"<{'a' * 200}@b.example>", f"{'a' * 200}@b.example"),  # VERP goes beyond the 64 of the standard
    ],
)
def test_a_path_is_understood(text: str, path: str) -> None:
    assert read_mail(f"FROM:{text}") == Origin(path)
    assert read_mail(f"from:{text}") == Origin(path)


@pytest.mark.parametrize(
    "text",
    [
        "", "<", ">", "<a>", "<a@>", "<@b.example>", "<a@b@c.example>", "<a b@c.example>", "<a@b..example>", "<.a@b.c>",
        "<a.@b.example>", "<a@-b.example>", "<a@b.example", "<a@b.example>x", "<>x", '<"a@b.example>', '<"a"b@c.d>',
        "<a@b.example> <c@d.example>x=<", "<a\u200b@b.example>", "<a\u2028@b.example>", f"<{'a' * 250}@b.example>",
        "<" + "\u00e9" * 125 + "@b.example>",
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused(text: str) -> None:
    assert refusal_of_mail(text)[:4] in ("501 ", "553 ", "555 ")
    with pytest.raises(Malformed):
        rcpt(text, smtputf8=True)


def test_an_empty_address_receives_nothing() -> None:
    assert refusal_of_rcpt("<>") == "550 5.1.3 an empty address receives nothing"


def test_domains_ignore_case_and_names_do_not() -> None:
    assert same_mailbox("A@B.Example") == same_mailbox("A@b.example") != same_mailbox("a@b.example")
    assert same_mailbox("") == ""


# --- parameters of MAIL ----------------------------------------------------------------------------------------------


def test_all_parameters_of_mail() -> None:
    text = "<a@b.example>  size=123 BODY=8BITMIME AUTH=<> SMTPUTF8 ret=hdrs ENVID=QQ+3D1+2b"
    assert refusal_of_mail(text).startswith("501 5.5.4 ENVID")  # hex digits are capital letters
    found = read_mail(f"FROM:{text[:-1]}B")
    assert found == Origin("a@b.example", 123, True, "QQ+3D1+2B", "hdrs")


@pytest.mark.parametrize(
    ("parameter", "reply"),
    [
        ("SIZE=x", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=\u0661", "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=1 SIZE=2", "501 5.5.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("SMTPUTF8=yes", "501 5.5.4"),
        ("RET=ALL", "501 5.5.4"),
        ("RET=FULL RET=HDRS", "501 5.5.4"),
        ("ENVID=", "501 5.5.4"),
        ("ENVID", "501 5.5.4"),
        (f"ENVID={'x' * 101}", "501 5.5.4"),
        ("ENVID=a=b", "501 5.5.4"),
        ("ENVID=a+b", "501 5.5.4"),
        ("ENVID=a+0D+0ABcc:", "501 5.5.4"),
        ("ENVID=a+7F", "501 5.5.4"),
        ("ENVID=a+E9", "501 5.5.4"),
        ("ENVID=\u00e9", "501 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
        ("BY=120;R", "555 5.5.4"),
        ("X", "555 5.5.4"),
        ("\u00e9", "555 5.5.4"),
    ],
)
def test_a_parameter_of_mail_that_is_wrong_is_named(parameter: str, reply: str) -> None:
    assert refusal_of_mail(f"<a@b.example> {parameter}").startswith(reply)


def test_an_envelope_id_may_have_a_hundred_characters() -> None:
    assert read_mail(f"FROM:<> ENVID={'x' * 100}").envid == "x" * 100


# --- parameters of RCPT ----------------------------------------------------------------------------------------------

FAILURE, DELAY, SUCCESS = Notify.FAILURE, Notify.DELAY, Notify.SUCCESS


@pytest.mark.parametrize(
    ("parameters", "wish"),
    [
        ("", NO_WISH),
        (" NOTIFY=NEVER", Wish(Notify(0))),
        (" notify=failure", Wish(FAILURE)),
        (" NOTIFY=SUCCESS,FAILURE,DELAY", Wish(SUCCESS | FAILURE | DELAY)),
        (" ORCPT=rfc822;bob+2Bx@b.example", Wish(None, "rfc822;bob+2Bx@b.example")),
        (" ORCPT=RFC822;Bob@B.example NOTIFY=DELAY", Wish(DELAY, "RFC822;Bob@B.example")),
        (" ORCPT=utf-8;\\x{E9}@b.example", Wish(None, "utf-8;\\x{E9}@b.example")),
        (f" ORCPT=rfc822;{'x' * 493}", Wish(None, f"rfc822;{'x' * 493}")),
    ],
)
def test_what_a_sender_wants_to_hear(parameters: str, wish: Wish) -> None:
    assert rcpt(f"<b@b.example>{parameters}") == ("b@b.example", wish)


@pytest.mark.parametrize(
    ("parameter", "reply"),
    [
        ("NOTIFY=", "501 5.5.4"),
        ("NOTIFY", "501 5.5.4"),
        ("NOTIFY=NEVER,FAILURE", "501 5.5.4"),
        ("NOTIFY=FAILURE,FAILURE", "501 5.5.4"),
        ("NOTIFY=FAILURE,", "501 5.5.4"),
        ("NOTIFY=LATE", "501 5.5.4"),
        ("NOTIFY=FAILURE NOTIFY=DELAY", "501 5.5.4"),
        ("ORCPT=bob@b.example", "501 5.5.4"),
        ("ORCPT=;bob@b.example", "501 5.5.4"),
        ("ORCPT=rfc822;", "501 5.5.4"),
        ("ORCPT=rfc822;a=b", "501 5.5.4"),
        ("ORCPT=rfc822;a+0Ab", "501 5.5.4"),
        (f"ORCPT=rfc822;{'x' * 494}", "501 5.5.4"),
        ("ORCPT=utf-8;\u00e9@b.example", "553 5.6.7"),
        ("SIZE=5", "555 5.5.4"),
    ],
)
def test_a_parameter_of_rcpt_that_is_wrong_is_named(parameter: str, reply: str) -> None:
    assert refusal_of_rcpt(f"<b@b.example> {parameter}").startswith(reply)


# --- letters beyond ASCII --------------------------------------------------------------------------------------------


def test_letters_beyond_ascii_need_smtputf8() -> None:
    for text in ("<\u00e9@b.example>", "<a@b\u00fccher.example>", '<"\u00e9 x"@b.example>'):
        assert refusal_of_mail(text).startswith("553 5.6.7")
        assert refusal_of_rcpt(text).startswith("553 5.6.7")
        assert read_mail(f"FROM:{text} SMTPUTF8").return_path == text[1:-1]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("a@b\u00fccher.example", "a@xn--bcher-kva.example"),
        ("A@B\u00dcCHER.Example", "A@xn--bcher-kva.example"),
        ("a@stra\u00dfe.example", "a@xn--strae-oqa.example"),  # not strasse: IDNA 2008
        ("\u00e9@b\u00fccher.example", "\u00e9@b\u00fccher.example"),
        ("\u00e9@b.example", "\u00e9@b.example"),
        ("a@b.example", "a@b.example"),
        ('"a b"@b\u00fccher.example', '"a b"@xn--bcher-kva.example'),
    ],
)
def test_a_domain_becomes_ascii_where_the_name_is(given: str, taken: str) -> None:
    assert rcpt(f"<{given}>", smtputf8=True) == (taken, NO_WISH)


@pytest.mark.parametrize("domain", ["\u2603.example", "\u00fc" * 64 + ".example", "xn--\u00fc.example"])
def test_a_domain_that_cannot_be_is_refused(domain: str) -> None:
    assert refusal_of_rcpt(f"<a@{domain}>", smtputf8=True).startswith("501 5.1.3")


def test_an_original_recipient_beyond_ascii_is_kept_in_its_ascii_form() -> None:
    """RFC 6533 §3: so it can be passed on to every server."""
    _, wish = rcpt("<\u00e9@b.example> ORCPT=utf-8;\u00e9@b.example", smtputf8=True)
    assert wish == Wish(None, "utf-8;\\x{E9}@b.example")
    assert refusal_of_rcpt("<a@b.example> ORCPT=rfc822;\u00e9@b.example", smtputf8=True).startswith("553 5.6.7")
