"""What a template uses, and what is certain to be there when it is filled."""

from __future__ import annotations

import pytest

from gateway.config.templates import TemplateProblem, find_uses

SAFE = {
    "default": "{{ agent.title | default('') }}",
    "d": "{{ agent.title | d('') }}",
    "default before another filter": "{{ agent.title | default('') | upper }}",
    "as an item": "{{ agent['title'] | default('') }}",
    "is defined": "{% if agent.title is defined %}{{ agent.title }}{% endif %}",
    "and more": "{% if agent.title is defined and agent.title != 'x' %}{{ agent.title | upper }}{% endif %}",
    "else of undefined": "{% if agent.title is undefined %}-{% else %}{{ agent.title }}{% endif %}",
    "else of not defined": "{% if not agent.title is defined %}-{% else %}{{ agent.title }}{% endif %}",
    "or": "{% if agent.title is not defined or agent.title == 'x' %}-{% endif %}",
    "inline": "{{ agent.title if agent.title is defined else 'x' }}",
    "inline, turned": "{{ 'x' if agent.title is undefined else agent.title }}",
    "nested": "{% if agent.title is defined %}{% for a in [1] %}{{ agent.title }}{% endfor %}{% endif %}",
}

UNSAFE = {
    "plain": "{{ agent.title }}",
    "as an item": "{{ agent['title'] }}",
    "another filter": "{{ agent.title | upper }}",
    "truth": "{% if agent.title %}x{% endif %}",
    "default of another": "{{ agent.phone | default('') }}{{ agent.title }}",
    "in a default": "{{ agent.phone | default(agent.title) }}",
    "else": "{% if agent.title is defined %}-{% else %}{{ agent.title }}{% endif %}",
    "behind the if": "{% if agent.title is defined %}-{% endif %}{{ agent.title }}",
    "either defined": "{% if agent.title is defined or subject %}{{ agent.title }}{% endif %}",
    "another defined": "{% if agent.phone is defined %}{{ agent.title }}{% endif %}",
    "inline": "{{ 'x' if agent.title is defined else agent.title }}",
    "in a loop": "{% for each in agent.title %}{{ each }}{% endfor %}",
    "in text": "{{ 'a' ~ agent.title }}",
    "set": "{% set x = agent.title %}",
}


@pytest.mark.parametrize("template", SAFE.values(), ids=SAFE.keys())
def test_what_may_be_missing_is_known(template: str) -> None:
    assert all(use.safe for use in find_uses(template) if use.attribute == "title")


@pytest.mark.parametrize("template", UNSAFE.values(), ids=UNSAFE.keys())
def test_what_must_be_there_is_known(template: str) -> None:
    assert any(not use.safe for use in find_uses(template) if use.attribute == "title")


def test_names_of_the_template_itself_are_not_variables() -> None:
    assert find_uses("{% set x = 1 %}{% for y in range(3) %}{{ x }}{{ y.z }}{{ loop.index }}{% endfor %}") == []


def test_lines_count_from_one() -> None:
    assert [(use.variable, use.attribute, use.line) for use in find_uses("a\n{{ subject }}\n\n{{ agent.name }}")] == [
        ("subject", None, 2),
        ("agent", "name", 4),
    ]


BROKEN = {
    "open": ("a\n{{ subject", 2),
    "no end": ("a\n\n{% if subject %}", 3),
    "unknown test": ("\n{{ subject is definde }}", 2),
    "import": ("\n{% from 'x' import y %}", 2),
    "extends": ("{% extends 'x' %}", 1),
    "deep": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", 1),
}


@pytest.mark.parametrize(("template", "line"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_template_has_a_line(template: str, line: int) -> None:
    with pytest.raises(TemplateProblem) as caught:
        find_uses(template)
    assert caught.value.line == line
