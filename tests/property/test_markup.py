"""The laws of making HTML safe to send, judged by another parser (lxml's)."""

from __future__ import annotations

import re
from typing import Final

import lxml.html  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from gateway.markup.removal import find_removals, unfilled
from gateway.markup.sanitise import sanitise
from gateway.mime.templates import TemplateFault
from gateway.outbound.signature.lint import lint
from gateway.outbound.signature.plain import text_of_html
from gateway.outbound.signature.render import render
from gateway.outbound.signature.telephone import normalise_tel
from tests.support.acting import acts

PIECES: Final = (
    *("<p>", "</p>", "<table>", "<tr>", "<td>", "</table>", "<b>", "</b>", "<div style='", "color:red", "'>", '">'),
    *(
        '<a href="',
        "javascript:x",
        "java\tscript:x",
        "https://x.example",
        "tel:+351 21",
        "</a>",
        "<img src=",
        "file:x.png",
    ),
    *("<script>", "</script>", "<style>", "</style>", "p{color:red}", "@import 'x';", "@media screen{p{color:red}}"),
    *("<!--", "-->", "<!--[if mso]>", "<![endif]-->", "<![if !mso]>", "<![endif]>", "<!--[if !mso]><!-->"),
    *(
        "<!--<![endif]-->",
        "onclick=x",
        " onload='x'",
        "<svg>",
        "<math>",
        "<mtext>",
        "<noscript>",
        "<title>",
        "<textarea>",
    ),
    *(
        "<xmp>",
        "<template>",
        "<v:rect>",
        "<o:p>",
        "&lt;",
        "&#106;avascript:",
        "{{ x }}",
        "{% if x %}",
        "Ana",
        " ",
        "\n",
    ),
    *("<", ">", '"', "'", "=", "\0", "\ue000", "<body bgcolor=red>", "</body>", "<html>", "<head>", "expression(x)"),
)
htmls = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=25).map("".join)
ACTING: Final = {
    "script",
    "iframe",
    "object",
    "embed",
    "form",
    "input",
    "svg",
    "math",
    "template",
    "base",
    "link",
    "meta",
}


@given(htmls, st.booleans())
def test_making_it_safe_again_changes_nothing(html: str, comments: bool) -> None:
    once = sanitise(html, conditional_comments=comments).html
    assert sanitise(once, conditional_comments=comments).html == once


@given(htmls, st.booleans())
def test_nothing_that_acts_is_left(html: str, comments: bool) -> None:
    safe = sanitise(html, conditional_comments=comments).html
    if not safe.strip():
        return
    readable = "".join(letter for letter in safe if letter.isprintable() or letter in "\t\n\r")  # as XML wants it
    tree = lxml.html.fragment_fromstring(readable, create_parent="div")
    for element in tree.iter():
        if not isinstance(element.tag, str):
            continue
        assert element.tag not in ACTING
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            if name in ("href", "src", "background"):
                assert "script:" not in "".join(value.split()).lower()
            assert "expression(" not in value.lower() or name != "style"


@given(htmls)
def test_any_template_can_be_looked_at(html: str) -> None:
    find_removals(unfilled(html))
    lint(html, html, {"x.png": b"\x89PNG\r\n\x1a\n"})
    text_of_html(sanitise(html).html)


@given(htmls, st.booleans())
def test_rendering_fails_only_as_it_says(html: str, comments: bool) -> None:
    try:
        signature = render(html, "", {"x": html}, images={"x.png": b"GIF89a"}, conditional_comments=comments)
    except TemplateFault:
        return
    assert acts(signature.html) == []
    assert "file:" not in "".join(re.findall(r'src="[^"]*"', signature.html))


WORDS = st.lists(st.text("abcdefgh", min_size=3, max_size=8), min_size=1, max_size=12)
FRAMES: Final = (
    *("<p>{}</p>", "<b>{}</b>", "<table><tr><td>{}</td><td>x</td></tr></table>", "<ul><li>{}</li></ul>", "{}<br>"),
    *("<div style='color: red'>{}</div>", "<a href='https://x.example/'>{}</a>", "<o:p>{}</o:p>", "<h1>{}</h1>"),
    *("<blockquote>{}</blockquote>", "<i>{}</p></i>", "<!-- no -->{}<!--[if mso]><b>no</b><![endif]-->", "<font>{}"),
)


@given(WORDS, st.data())
def test_no_word_is_lost_in_html_or_in_text(words: list[str], data: st.DataObject) -> None:
    html = " ".join(data.draw(st.sampled_from(FRAMES)).format(word) for word in words)
    signature = render(html, "", {})
    assert [word for word in re.findall(r"[a-z]+", signature.text) if word in words] == words
    assert [word for word in re.findall(r"[a-z]+", re.sub(r"<[^>]*>", " ", signature.html)) if word in words] == words


NUMBER: Final = r"(\+|00)?[1-9][0-9]{0,3}([ ./-]?\(?[0-9]{1,4}\)?){0,4}( ?(x|ext\. ?|#|;ext=)[0-9]{1,4})?"


@given(st.from_regex(NUMBER, fullmatch=True))
def test_a_number_that_is_normal_stays_as_it_is(number: str) -> None:
    once = normalise_tel(number)
    assert normalise_tel(once) == once
    assert re.fullmatch(r"\+?[0-9]+(;ext=[0-9]+)?", once)


@given(st.text(max_size=40) | st.text("0123456789+()-. #*xext;=AB\"'<>", max_size=24))
def test_whatever_is_called_a_number_ends_no_attribute(number: str) -> None:
    if re.search(r"[0-9]", number):
        assert not re.search(r"[\s\"'<>]", normalise_tel(number))
