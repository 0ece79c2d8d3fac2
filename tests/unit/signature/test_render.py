"""A touchpoint's signature for one agent and one message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from gateway.mime.templates import TemplateFault
from gateway.outbound.signature.block import html_block, text_block
from gateway.outbound.signature.plain import text_of_html
from gateway.outbound.signature.render import context, render
from gateway.outbound.signature.telephone import normalise_tel

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@dataclass(frozen=True)
class Support:
    name: str = "Example Support"
    address: str = "support@example.com"
    variables: dict[str, Any] = field(default_factory=lambda: {"phone": "+351 21 000 0000", "title": "Support"})


@dataclass(frozen=True)
class Ana:
    name: str = "Ana Lima"
    login: str = "ana@example.com"
    variables: dict[str, Any] = field(default_factory=lambda: {"title": "Engineer"})


def variables(customer: tuple[str, str] | None = None) -> dict[str, Any]:
    return context(Support(), Ana(), subject="Re: A & B\r\n C", on=date(2026, 11, 23), customer=customer)


def shown(html: str, text: str = "", **more: Any) -> str:
    return render(html, text, variables(more.pop("customer", None)), **more).html


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{{ agent.name }} {{ agent.login }}", "Ana Lima ana@example.com"),
        ("{{ agent.title }}", "Engineer"),
        ("{{ agent.phone }}", "+351 21 000 0000"),
        ("{{ touchpoint.name }} {{ touchpoint.address }}", "Example Support support@example.com"),
        ("{{ subject }}", "Re: A &amp; B C"),
        ("{{ date }} {{ date.strftime('%d.%m.%y') }}", "2026-11-23 23.11.26"),
        ("Dear {{ customer.name | default('customer') }}{{ customer.address }}", "Dear customer"),
    ],
    ids=["agent", "own-variable", "touchpoint-s-variable", "touchpoint", "subject", "date", "no-customer"],
)
def test_every_variable_is_filled(template: str, filled: str) -> None:
    assert shown(template) == filled


def test_the_customer_is_named_when_there_is_one() -> None:
    assert shown("{{ customer.name }} {{ customer.address }}", customer=("Bo", "bo@x.example")) == "Bo bo@x.example"
    assert shown("{{ customer.name | default('you') }}", customer=("", "bo@x.example")) == "you"


def test_a_missing_variable_is_a_fault() -> None:
    with pytest.raises(TemplateFault, match="fax"):
        shown("{{ agent.fax }}")


def test_a_signature_of_nothing_is_a_fault() -> None:
    with pytest.raises(TemplateFault, match="neither"):
        render(" ", "\n", variables())


def test_text_is_derived_from_html_when_absent() -> None:
    html = "<table><tr><td><b>Ana</b><br>Support</td><td>Phone</td></tr></table><p>Example &copy;</p>"
    assert render(html, "", variables()).text == "Ana      Phone\nSupport\n\nExample ©"
    assert render(html, "Own text", variables()).text == "Own text"


def test_html_of_nothing_but_a_comment_has_no_text() -> None:
    assert text_of_html("<!-- -->") == ""


def test_html_is_derived_from_text_when_absent() -> None:
    signature = render("", "Ana  <Lima>\nSupport & more", variables())
    assert html_block(signature) == (
        b'<div class="mail-gateway-signature" style="margin-top: 16px">Ana &nbsp;&lt;Lima&gt;<br>\n'
        b"Support &amp; more</div>"
    )


def test_the_text_block_is_delimited_once_and_tidy() -> None:
    signature = render("", "\r\n-- \r\nAna   \r\n\r\nSupport\t\r\n\r\n", variables())
    assert text_block(signature) == "-- \nAna\n\nSupport\n"


def test_an_editor_s_document_loses_its_frame() -> None:
    head = "<head><title>x</title><style>p{color: red}</style></head>"
    document = f"<!DOCTYPE html><html>{head}<body class=a><p>Ana</p></body></html>"
    assert shown(document) == '<p style="color: red;">Ana</p>'
    assert shown("<html><p>Ana</p>") == "<p>Ana</p>"


def test_html_letters_are_references_so_that_no_charset_matters() -> None:
    assert b"Lim&#225; &#8364;" in html_block(render("Limá €", "", variables()))


def test_images_become_parts_once_each() -> None:
    html = """<img src="file:a/logo.png"><img alt='x' src='file:a/logo.png'><img src=file:two.gif><img src="https://x/y.png">"""
    signature = render(html, "x", variables(), images={"a/logo.png": PNG, "two.gif": b"GIF89a"}, unique="1r7 hq\r\n")
    one, two = signature.images
    assert (one.content_type, one.filename, one.data) == ("image/png", "image1.png", PNG)
    assert (two.content_type, two.filename) == ("image/gif", "image2.gif")
    assert one.content_id.endswith(".1r7hq@signature.mail-gateway")
    assert signature.html == (
        f'<img src="cid:{one.content_id}"><img alt="x" src="cid:{one.content_id}">'
        f'<img src="cid:{two.content_id}"><img src="https://x/y.png">'
    )


@pytest.mark.parametrize(
    ("data", "content_type", "filename"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image1.jpg"),
        (b"BM1", "image/bmp", "image1.bmp"),
        (b"<svg>", "application/octet-stream", "image1.bin"),
    ],
)
def test_an_image_is_what_its_bytes_say(data: bytes, content_type: str, filename: str) -> None:
    (image,) = render('<img src="file:x.png">', "", variables(), images={"x.png": data}).images
    assert (image.content_type, image.filename) == (content_type, filename)


def test_an_image_that_was_not_loaded_is_a_fault() -> None:
    with pytest.raises(TemplateFault, match=r"logo\.png"):
        shown('<img src="file:logo.png">')


@pytest.mark.parametrize(
    ("number", "normal"),
    [
        ("+351 21 000-0000", "+351210000000"),
        ("+44 (0)20 7946.0000 ext. 12", "+442079460000;ext=12"),
        ("00351 21 000 0000", "+351210000000"),
        ("(020) 7946 0000 x7", "02079460000;ext=7"),
        ("1-800-FLOWERS", "18003569377"),
        ("%2B351%2021", "+35121"),
        ("&#43;351 21", "+35121"),
        ("863-1234;phone-context=+1-914", "8631234;phone-context=+1-914"),
        ("863 1234;ext=9", "8631234;ext=9"),
        ("call us", "call us"),
    ],
)
def test_telephone_numbers_are_written_as_rfc_3966_wants(number: str, normal: str) -> None:
    assert normalise_tel(number) == normal


@pytest.mark.parametrize("quote", ['"', "'", ""], ids=["double", "single", "none"])
def test_tel_links_are_normalised_in_place(quote: str) -> None:
    number = "+351-21-000" if quote == "" else "+351 21 000"
    assert shown(f"<a class=x href={quote}tel:{number}{quote}>+351 21 000</a>") == (
        '<a class="x" href="tel:+35121000">+351 21 000</a>'
    )
