"""Style sheets of a signature: the rules go into the elements, for most webmail drops `<style>`; what depends on the
reader's screen stays a style sheet, and then speaks of the signature alone.

Nothing is ever loaded: neither by @import nor by a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import css_inline
import tinycss2

from gateway.markup.document import FRAME
from gateway.markup.policy import DEEPEST, clean_style, depth_of

_INLINER: Final = css_inline.CSSInliner(inline_style_tags=False, keep_link_tags=True, load_remote_stylesheets=False)
_MEDIA = re.compile(r"[\w\s(),.:/-]{1,200}")
_SELECTOR = re.compile(r"""[\w\s.#*>+~:()\[\]="'^$|-]{1,300}""")
_FRAME = re.compile(r"(?:html|body|html\s+body)", re.I)
_OUTLOOK_DARK = re.compile(r"(\[data-og\w+\])\s*(.*)", re.S)  # Outlook on the web sets it above the mail
_FOR_THE_DARK = re.compile(r"prefers-color-scheme\s*:\s*dark", re.I)
_DYNAMIC = re.compile(r"::?(?:hover|focus|active|visited|link|target|before|after|first-line|first-letter)\b", re.I)
_WHY: Final = {
    "import": "no other style sheet is loaded; put its rules here",
    "font-face": "web fonts are not loaded; name fonts that readers have",
    "charset": "",
    "namespace": "",
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """`rules`: for elements. `frame`: declarations for the body. `kept`: at-rules that stay a style sheet, cleaned and
    scoped, without a `<`. `faults`: (line from 1, what was left out and why)."""

    rules: str = ""
    frame: str = ""
    kept: str = ""
    faults: tuple[tuple[int, str], ...] = ()


@lru_cache(maxsize=256)
def read(css: str, scope: str) -> Sheet:
    """Take a style sheet apart. `scope`: a selector that stands in front of those that stay, or ""."""
    rules, frame, kept = [], [], []
    faults: list[tuple[int, str]] = []
    css = css.replace("<!--", "").replace("-->", "")
    if depth_of(css) > DEEPEST:
        return Sheet(faults=((1, "the style sheet: brackets within brackets, too deep to be read"),))
    for node in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        line = node.source_line
        if node.type == "qualified-rule":
            selectors, declarations = _text(node.prelude), _clean(node, faults)
            if not declarations:
                continue
            own = [one.strip() for one in _split(node.prelude)]
            if any(_FRAME.fullmatch(one) for one in own):
                frame.append(declarations)
            for one in own:
                if _DYNAMIC.search(one):
                    faults.append((line, f"the rule for {one}: it cannot be written into an element"))
            if rest := [one for one in own if not _FRAME.fullmatch(one) and not _DYNAMIC.search(one)]:
                if _SELECTOR.fullmatch(", ".join(rest)):
                    rules.append(f"{', '.join(rest)} {{ {declarations} }}")
                else:
                    faults.append((line, f"the rule for {selectors}: its selector cannot be read"))
        elif node.type == "at-rule" and node.lower_at_keyword == "media":
            if media := _media(node, scope, faults):
                kept.append(media)
        elif node.type == "at-rule":
            why = _WHY.get(node.lower_at_keyword, "hardly any mail program understands it")
            if why:
                faults.append((line, f"@{node.lower_at_keyword}: {why}"))
        else:
            faults.append((line, "a piece of the style sheet that cannot be read"))
    return Sheet("\n".join(rules), "; ".join(frame), "\n".join(kept), tuple(faults))


def inline(html: str, rules: str) -> str:
    """Return the HTML with the rules in its style attributes; as it is where the library cannot read them."""
    try:
        return _INLINER.inline_fragment(html, rules)
    except (css_inline.InlineError, ValueError):
        return html


def _media(node: Any, scope: str, faults: list[tuple[int, str]]) -> str:
    query = _text(node.prelude)
    if not _MEDIA.fullmatch(query) or node.content is None:
        faults.append((node.source_line, f"@media {query[:60]}: it cannot be read"))
        return ""
    rules = []
    for rule in tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True):
        selectors = [one.strip() for one in _split(rule.prelude)] if rule.type == "qualified-rule" else []
        if not selectors or not all(_SELECTOR.fullmatch(one) for one in selectors):
            faults.append((rule.source_line, f"a rule in @media {query}: it cannot be read"))
        elif declarations := _clean(rule, faults):
            own = ", ".join(_scoped(one, scope) for one in selectors)
            rules.append(f"{own} {{ {_important(declarations)} }}")
    text = f"@media {query} {{ {' '.join(rules)} }}" if rules else ""
    return "" if re.search(r"[<\0]", text) else text


def _important(declarations: str) -> str:
    """The rules that stood above it are in the elements now, where they would win."""
    found = tinycss2.parse_blocks_contents(declarations, skip_comments=True, skip_whitespace=True)
    return "; ".join(f"{one.name}: {_text(one.value)} !important" for one in found if one.type == "declaration")


def for_the_dark(kept: str) -> str:
    """Return the rules in a kept style sheet that hold in dark mode."""
    return "\n".join(
        _text(node.content)
        for node in tinycss2.parse_stylesheet(kept, skip_comments=True, skip_whitespace=True)
        if node.type == "at-rule" and node.content is not None and _FOR_THE_DARK.search(_text(node.prelude))
    )


def _scoped(selector: str, scope: str) -> str:
    if _FRAME.fullmatch(selector):
        selector = f".{FRAME}"
    if not scope or scope in selector.split():
        return selector
    selector = re.sub(r"^(?:html\s+|body\s+)+", "", selector, flags=re.I)
    if dark := _OUTLOOK_DARK.fullmatch(selector):
        return f"{dark[1]} {scope} {dark[2]}".rstrip()
    return f"{scope} {selector}"


def _clean(rule: Any, faults: list[tuple[int, str]]) -> str:
    style, found = clean_style(_text(rule.content).rstrip(";") + " ")
    faults += [(rule.source_line, f"in the rule for {_text(rule.prelude)[:60]}: {fault}") for fault in found]
    return style.strip()


def _split(prelude: Any) -> Iterator[str]:
    own: list[Any] = []
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            yield _text(own)
            own = []
        else:
            own.append(token)
    yield _text(own)


def _text(tokens: Any) -> str:
    return " ".join(str(tinycss2.serialize(tokens)).split())
