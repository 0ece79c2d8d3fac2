"""A touchpoint's signature for one agent and one message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from gateway.markup.files import file_pictures
from gateway.mime.templates import TemplateFault
from gateway.outbound.signature.block import html_block, text_block
from gateway.outbound.signature.plain import text_of_html
from gateway.outbound.signature.render import context, render
from gateway.outbound.signature.telephone import normalise_tel
from tests.support.acting import acts

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


def test_what_is_no_telephone_number_stays_in_its_attribute() -> None:
    assert shown("""<a href='tel:" onclick="x'>call</a>""") == '<a href="tel:&quot; onclick=&quot;x">call</a>'


HOSTILE = (
    """"><script>alert(1)</script>' onerror='x' {{ agent.login }} {% raw %} --> <!--[if mso]> </style> javascript:x"""
)


@pytest.mark.parametrize(
    "template",
    [
        "<p>{{ customer.name }}</p>",
        '<p title="{{ customer.name }}">Ana</p>',
        "<p title='{{ customer.name }}'>Ana</p>",
        "<p title={{ customer.name }}>Ana</p>",
        '<a href="{{ customer.name }}">Ana</a>',
        '<a href="tel:{{ customer.name }}">Ana</a>',
        '<p style="color: {{ customer.name }}">Ana</p>',
        "<style>p { color: {{ customer.name }} }</style><p>Ana</p>",
        "<!--[if mso]><p>{{ customer.name }}</p><![endif]--><p>Ana</p>",
        "<!--[if mso]><p title={{ customer.name }}>x</p><![endif]--><p>Ana</p>",
        "<!-- {{ customer.name }} --><p>Ana</p>",
        "<script>{{ customer.name }}</script><p>Ana</p>",
        "{{ customer.name | safe }}<p>Ana</p>",
    ],
)
def test_a_value_cannot_break_out(template: str) -> None:
    signature = render(template, "", variables(customer=(HOSTILE, "bo@x.example")))
    assert acts(signature.html) == []
    assert "ana@example.com" not in signature.html, "a value is no template"
    assert signature.html.count("<p") <= 2


def test_template_syntax_in_a_value_is_text() -> None:
    assert shown("{{ customer.name }}", customer=("{{ agent.name }} {# x #}", "b@x.example")) == (
        "{{ agent.name }} {# x #}"
    )


def test_a_sheet_goes_into_the_elements_and_media_stay_within_the_signature() -> None:
    css = "p { color: #123456 } @media (prefers-color-scheme: dark) { p { color: #ffffff } body { margin: 0 } }"
    assert shown(f"<style>{css}</style><p>Ana</p>") == (
        "<style>@media (prefers-color-scheme: dark) { .mail-gateway-signature p { color: #ffffff !important }"
        " .mail-gateway-signature .mail-gateway-body { margin: 0 !important } }</style>"
        '<div class="mail-gateway-body"><p style="color: #123456;">Ana</p></div>'
    )


OUTLOOK = '<!--[if mso]><table width="320"><tr><td><![endif]--><p>Ana</p><!--[if mso]></td></tr></table><![endif]-->'


def test_outlook_s_comments_are_kept_when_wanted() -> None:
    assert shown(OUTLOOK) == OUTLOOK
    assert shown(OUTLOOK, conditional_comments=False) == "<p>Ana</p>"


def test_word_s_settings_are_dropped() -> None:
    settings = "<!--[if gte mso 9]><xml><o:OfficeDocumentSettings></o:OfficeDocumentSettings></xml><![endif]-->"
    assert shown(f"{settings}<p>Ana</p><xml><w>x</w></xml>") == "<p>Ana</p>"


def test_a_picture_in_outlook_s_comments_comes_along() -> None:
    html = '<!--[if mso]><v:image src="file:logo.png" /><![endif]--><p>Ana</p>'
    signature = render(html, "", variables(), images={"logo.png": PNG})
    (image,) = signature.images
    assert f'<v:image src="cid:{image.content_id}" />' in signature.html


def test_nothing_left_is_a_fault() -> None:
    with pytest.raises(TemplateFault, match="nothing is left"):
        shown("<script>x</script>")


def test_the_address_behind_a_link_is_in_the_text() -> None:
    html = '<a href="https://www.example.com/help">Help</a> <a href="https://example.com">www.example.com</a>'
    assert render(html, "", variables()).text == "Help <https://www.example.com/help> www.example.com"


def test_pictures_are_read_by_their_alternative() -> None:
    assert render('<img src="https://x/y.png" alt="Example Ltd"> Ana', "", variables()).text == "Example Ltd Ana"


@pytest.mark.parametrize(
    "source",
    ["file:logo.png", " file: logo.png ", "&#102;ile:logo.png", "FILE:logo.png", "file:\nlogo.png"],
    ids=["plain", "blanks", "reference", "capitals", "line"],
)
def test_what_check_finds_as_a_picture_file_comes_along(source: str) -> None:
    html = f'<img alt="a > b" data-src="file:no.png" src="{source}"><p title="<img src=file:no.png>">Ana</p>'
    assert [name for name, _ in file_pictures(html)] == ["logo.png"]
    signature = render(html, "", variables(), images={"logo.png": PNG})
    assert f'src="cid:{signature.images[0].content_id}"' in signature.html


def test_picture_files_are_found_with_their_lines_also_in_outlook_s_comments() -> None:
    html = "{# \n #}<!--[if mso]>\n<v:image src='file:a.png'/><![endif]-->\n{% if x %}<img src=file:b.png>{% endif %}"
    assert list(file_pictures(html)) == [("a.png", 3), ("b.png", 4)]


@pytest.mark.parametrize(
    "html",
    ["<style>p{color:" + "(" * 5000 + "</style><p>x", '<p style="color:' + "(" * 5000 + '">x'],
    ids=["sheet", "style"],
)
def test_what_is_nested_without_measure_is_no_reason_to_fail(html: str) -> None:
    assert "x" in shown(html)


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<table><tr><td>", "<font color=red></p>"])
def test_what_would_end_the_process_is_left_out_and_the_text_stays(tag: str) -> None:
    deep = f"<style>p {{ color: red }}</style>{tag * 24_000}x"
    assert render(deep, "Ana", variables()) == render("", "Ana", variables())
    with pytest.raises(TemplateFault, match="nothing is left"):
        shown(deep)


def test_many_elements_beside_each_other_are_fine() -> None:
    assert shown("<p>x</p>" * 2000) == "<p>x</p>" * 2000
    assert shown("<style>p { margin: 0 }</style>" + "<div>" * 900 + "x").count("<div>") == 900
