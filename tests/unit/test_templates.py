"""Templates: the admin's text, strangers' values, and a sandbox between them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.mime.templates import TemplateFault, Values, render_html, render_line, render_text

CONTEXT: dict[str, Any] = {
    "agent": Values({"name": "Ana <b>Lima</b>", "items": "12", "get": "x"}, frozenset({"phone"})),
    "subject": "{{ agent.name }}",
}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ agent.name }}", "Ana &lt;b&gt;Lima&lt;/b&gt;"),
        ("{{ agent['name'] }}", "Ana &lt;b&gt;Lima&lt;/b&gt;"),
        ("{{ agent.items }} {{ agent.get }}", "12 x"),
        ("{{ subject }}", "{{ agent.name }}"),
        ("[{{ agent.phone }}]", "[]"),
        ("{{ agent.phone | default('none') }}", "none"),
        ("{{ agent.nothing | default('none') }}", "none"),
        ("{% if agent.phone is defined %}a{% else %}b{% endif %}", "b"),
        ("{{ agent | length }}{% for key in agent %}{{ key }}{% endfor %}", "3nameitemsget"),
    ],
)
def test_values_are_filled_and_escaped(source: str, shown: str) -> None:
    assert render_html(source, CONTEXT) == shown


def test_text_is_not_escaped() -> None:
    assert render_text("{{ agent.name }}\n", CONTEXT) == "Ana <b>Lima</b>\n"


def test_a_line_stays_one() -> None:
    assert render_line("{{ agent.name }}\r\nBcc: x", CONTEXT) == "Ana <b>Lima</b> Bcc: x"


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("a\n{{ nobody.name }}", 2, "'nobody' is undefined"),
        ("a\n\n{{ agent.nothing }}", 3, "'nothing' is not set"),
        ("{% if %}", 1, "Expected an expression"),
        ("a\n{{ agent.__class__ }}", 2, "not set"),
        ("{{ ''.__class__.__mro__ }}", 1, "unsafe"),
        ("{{ [].append(1) }}", 1, "SecurityError"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError"),
        ("{{ agent.name + 1 }}", 1, "TypeError"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
            None,
            "longer than",
        ),
        ("{% include 'x' %}", 1, "TypeError"),
    ],
)
def test_a_fault_names_its_line(source: str, line: int | None, words: str) -> None:
    with pytest.raises(TemplateFault, match=words) as caught:
        render_html(source, CONTEXT)
    assert caught.value.line == line


def test_a_template_nested_without_end_is_a_fault() -> None:
    with pytest.raises(TemplateFault, match="not a template"):
        render_text("{{ " + "(" * 5_000 + ")" * 5_000 + " }}", CONTEXT)
