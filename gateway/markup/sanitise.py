"""Filled HTML made safe to send: a fragment, its style sheets in the elements, and nothing that acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import nh3

from gateway.markup import policy, styles
from gateway.markup.comments import settle
from gateway.markup.document import FRAME, take_apart
from gateway.markup.tags import nesting

_DEEPEST: Final = 1000  # css-inline goes down by recursion, and has ended the process at 20,000
_ROUNDS: Final = 4  # HTML that is nested wrongly may take two until it stays as it is


@dataclass(frozen=True, slots=True)
class Sanitised:
    """`html`: well-formed, attributes in double quotes. `faults`: what style sheets and conditional comments lost."""

    html: str
    faults: tuple[str, ...] = ()


def sanitise(html: str, *, conditional_comments: bool = True, scope: str = "") -> Sanitised:
    """Return the fragment that may stand in a mail.

    `scope`: the selector of the element that it will stand in, so that style sheets which stay do not reach beyond
    it; "" where it is the whole mail. Sanitising again changes nothing. Raises nothing.

    A twentieth of a millisecond for an ordinary signature, so the filled result is read, of every mail: who would
    sanitise the template and fill it then had to know what each value may do where it stands.
    """
    if html.count("<") > _DEEPEST and nesting(html) > _DEEPEST:
        return Sanitised("", (f"all of it: elements within elements, more than {_DEEPEST} deep",))
    parts = take_apart(html)
    sheets = [styles.read(sheet.css, scope) for sheet in parts.style_sheets]
    kept = "\n".join(sheet.kept for sheet in sheets if sheet.kept)
    is_named = FRAME in kept and f'class="{FRAME}"' not in parts.body
    shown = parts.framed("; ".join(sheet.frame for sheet in sheets if sheet.frame), is_named=is_named)
    if rules := "\n".join(sheet.rules for sheet in sheets if sheet.rules):
        shown = styles.inline(shown, rules)
    faults = [fault for sheet in sheets for _, fault in sheet.faults]
    for _ in range(_ROUNDS):
        before = shown
        shown, left_out = settle(_CLEANER.clean(shown), shown, keep=conditional_comments)
        faults += left_out
        if shown == before:
            break
    shown = shown.strip()
    if kept:
        shown = f"<style>{kept}</style>{shown}"
    return Sanitised(shown, tuple(faults))


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "style":
        return policy.clean_style(value)[0] or None
    if policy.address_fault(tag, name, value):
        return None
    return f"{policy.FILE}:{policy.file_name(value)}" if policy.is_file(tag, name, value) else value


_CLEANER: Final = nh3.Cleaner(
    tags=set(policy.TAGS),
    clean_content_tags=set(policy.ACTING),
    attributes={tag: set(names) for tag, names in policy.ATTRIBUTES.items()},
    attribute_filter=_attribute,
    strip_comments=False,
    link_rel=None,
    generic_attribute_prefixes=set(policy.PREFIXES),
    url_schemes={*policy.SCHEMES, policy.FILE},
)
