"""What is left of HTML that goes into a mail, and what is told of the rest."""

from __future__ import annotations

import pytest

from gateway.markup.removal import FILLED, find_removals, unfilled
from gateway.markup.sanitise import sanitise

OUTLOOK = '<!--[if mso]><table width="300"><tr><td><![endif]--><p>Ana</p><!--[if mso]></td></tr></table><![endif]-->'


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("<p>Ana</p><script>alert(1)</script>", "<p>Ana</p>"),
        ('<p onclick="alert(1)">Ana</p>', "<p>Ana</p>"),
        ('<a href="javascript:alert(1)">Ana</a>', "<a>Ana</a>"),
        ('<a href="java&#10;script:alert(1)">Ana</a>', "<a>Ana</a>"),
        ('<a href="data:text/html,x">Ana</a>', "<a>Ana</a>"),
        ('<img src="data:image/png;base64,AA" alt="x">', '<img alt="x">'),
        ('<p style="color: red; behavior: url(x)">Ana</p>', '<p style="color:red">Ana</p>'),
        ('<p style="background: url(javascript:x)">Ana</p>', "<p>Ana</p>"),
        ("<form action=x><input value=y>Ana</form>", "Ana"),
        ("<iframe src=x></iframe><object data=x></object><svg onload=x></svg>Ana", "Ana"),
        ("<p>Ana", "<p>Ana</p>"),
        ("<style>p { color: red }</style><p>Ana</p>", '<p style="color: red;">Ana</p>'),
        ('<link rel="stylesheet" href="https://x.example/x.css"><p>Ana</p>', "<p>Ana</p>"),
        ("<style>@import url(https://x.example/x.css);</style><p>Ana</p>", "<p>Ana</p>"),
        ("<p>Ana</p><!-- a note -->", "<p>Ana</p>"),
        ('<a href="tel:+351 21">Ana</a>', '<a href="tel:+351 21">Ana</a>'),
        ("<o:p>&nbsp;</o:p><p>Ana</p>", "&nbsp;<p>Ana</p>"),
    ],
)  # fmt: skip
def test_what_acts_or_loads_is_taken_out(html: str, left: str) -> None:
    assert sanitise(html).html == left


def test_what_outlook_alone_reads_stays_to_the_letter_when_that_is_wanted() -> None:
    assert sanitise(OUTLOOK).html == OUTLOOK
    assert sanitise(OUTLOOK, conditional_comments=False).html == "<p>Ana</p>"


@pytest.mark.parametrize(
    "inside",
    [
        "<script>x</script>",
        '<v:rect href="javascript:x"></v:rect>',
        '<p onclick="x">',
        "<iframe src=x>",
        "</div></table>",
    ],
)
def test_what_may_act_in_outlook_does_not_stay(inside: str) -> None:
    made = sanitise(f"<p>Ana</p><!--[if mso]>{inside}<![endif]-->")
    assert made.html == "<p>Ana</p>"
    assert made.faults


def test_word_s_settings_mean_nothing_in_a_signature() -> None:
    made = sanitise("<!--[if gte mso 9]><xml><o:x/></xml><![endif]--><p>Ana</p>")
    assert made.html == "<p>Ana</p>"


def test_what_depends_on_the_screen_stays_and_speaks_of_the_signature_alone() -> None:
    html = "<style>@media (prefers-color-scheme: dark) { p { color: white } }</style><p>Ana</p>"
    made = sanitise(html, scope=".signature").html
    assert made.startswith("<style>@media (prefers-color-scheme: dark)")
    assert ".signature p" in made
    assert made.endswith("</style><p>Ana</p>")


def test_a_value_stands_for_itself_and_lines_stay_in_their_place() -> None:
    shape = unfilled("<p>{{ a\n.b }}</p>\n{% if x %}\n<b>{# no\ntice #}</b>{% endif %}")
    assert shape == f"<p>{FILLED}\n</p>\n\n<b>\n</b>"


@pytest.mark.parametrize(
    ("html", "removals"),
    [
        ("<p>Ana</p>", []),
        ("<p>\n<script>x</script>", [(2, "<script> and what stands in it")]),
        ('\n\n<a href="javascript:x">y</a>', [(3, "href of <a>: javascript: is no address that a mail may lead to")]),
        ("<p style='<p>", [(1, "style of <p>, in part: what is there cannot be read")]),
        ("<center><blink>x</blink></center>", [(1, "<blink>; what stands in it stays")]),
        ("<p onclick=x>", [(1, "onclick of <p>: nothing may act in a mail")]),
        ("<html><head><title>x</title></head><body><p>Ana</p></body></html>", []),
    ],
)  # fmt: skip
def test_what_is_taken_out_is_told_with_its_line(html: str, removals: list[tuple[int, str]]) -> None:
    assert [(one.line, one.what) for one in find_removals(html)] == removals
