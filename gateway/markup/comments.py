"""Conditional comments: what Outlook on Windows alone reads, and what it alone does not.

Three shapes (Microsoft, "About conditional comments"; Word, which shows mail in Outlook, understands them too):
`<!--[if mso]>…<![endif]-->` is hidden from all others; `<!--[if !mso]><!-->…<!--<![endif]-->` and
`<![if !mso]>…<![endif]>` show others what Outlook leaves out. They are kept to the letter, because Word's own markup
(VML) survives no other parser; so what is hidden in them is read strictly, and what cannot be read or may act is not
kept. They go all or none: half of a pair hides the mail below it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from gateway.markup.policy import ACTING, SCHEMES, TAGS, clean_style, is_file, scheme_of, words
from gateway.markup.tags import VOID

_EXPRESSION = r"[\w\s().!&|]{1,80}"
_HIDDEN = re.compile(rf"\[if {_EXPRESSION}\]>(.*)<!\[endif\]", re.I | re.S)
_OPENS = re.compile(rf"\[if {_EXPRESSION}\]>\s*(?:<!(?:--\s*)?)?", re.I)
_CLOSES = re.compile(r"\s*<!\[endif\]", re.I)
_BARE_OPENS = re.compile(rf"\[if {_EXPRESSION}\]", re.I)
_BARE_CLOSES = re.compile(r"\[endif\]", re.I)
_WORD_NOISE = re.compile(r"\[if !?support", re.I)  # of text pasted from Word: "no list here"
_COMMENT = re.compile(r"<!--(.*?)-->", re.S)
_SETTINGS = re.compile(r"<(?:\w+:)?xml\b", re.I)

_TEXT = re.compile(r"[^<]*")
_OPENING = re.compile(r"<(/?)([A-Za-z][\w:.-]*)")
_ATTRIBUTE = re.compile(r"""\s*([A-Za-z_][\w:.-]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`/]+)))?""")
_CLOSING = re.compile(r"\s*(/?)>")
_STYLE_END = re.compile(r"</style\s*>", re.I)
_ACTING_CSS = re.compile(r"expression|behaviou?r|binding|script\s*:|@import|data\s*:|\\|<", re.I)

_OFFICE_TAGS: Final = words(
    """v:arc v:background v:curve v:f v:fill v:formulas v:group v:h v:handles v:image v:imagedata v:line v:oval v:path
    v:polyline v:rect v:roundrect v:shadow v:shape v:shapetype v:stroke v:textbox v:textpath o:lock o:p w:anchorlock
    w:wrap"""
)
_BALANCED: Final = TAGS - VOID - {
    "p",
    "li",
    "dt",
    "dd",
    "rt",
    "rp",
    "option",
    "thead",
    "tbody",
    "tfoot",
    "colgroup",
} | {name for name in _OFFICE_TAGS if name in ("v:group", "v:rect", "v:roundrect", "v:shape", "v:textbox", "v:oval")}
_ACTING_ATTRIBUTES: Final = words(
    """action archive classid code codebase codetype data dynsrc formaction http-equiv lowsrc manifest ping profile
    srcdoc srcset"""
)
_ADDRESSES: Final = frozenset({"href", "src", "background", "cite", "longdesc", "althref", "relationship"})


def settle(html: str, source: str, *, keep: bool) -> tuple[str, tuple[str, ...]]:
    """Return the HTML of nh3, comments and all, with the conditional ones to the letter or without them, and what was
    left out. `source`: what nh3 was given. Other comments go without a word."""
    if "<!--" not in html:
        return html, ()
    faults: list[str] = []
    if keep and (fault := _fault_of_all(html)) is not None:
        faults.append(f"Outlook's conditional comments, all of them: {fault}")
        keep = False

    def put(match: re.Match[str]) -> str:
        data = match[1]
        if _HIDDEN.fullmatch(data):
            if _SETTINGS.search(data):
                faults.append("<xml> in a conditional comment: Word's own settings mean nothing in a signature")
                return ""
            return match[0] if keep else ""
        if _OPENS.fullmatch(data) or _CLOSES.fullmatch(data):
            return match[0] if keep else ""
        if (_BARE_OPENS.fullmatch(data) or _BARE_CLOSES.fullmatch(data)) and not _WORD_NOISE.match(data):
            bare = f"<!{data}>"  # nh3's parser made a comment of it
            return bare if keep and bare in source else ""
        return ""

    return _COMMENT.sub(put, html), tuple(dict.fromkeys(faults))


def is_conditional(data: str) -> bool:
    """Is this the inside of a comment that means something to Outlook?"""
    return data.lstrip().lower().startswith(("[if ", "<![endif]"))


def _fault_of_all(html: str) -> str | None:
    depth = 0
    balance: Counter[str] = Counter()
    for match in _COMMENT.finditer(html):
        data = match[1]
        if hidden := _HIDDEN.fullmatch(data):
            if _SETTINGS.search(data):
                continue
            if (fault := fault_in(hidden[1], balance)) is not None:
                return fault
        elif _WORD_NOISE.match(data):
            continue
        elif _OPENS.fullmatch(data) or _BARE_OPENS.fullmatch(data):
            depth += 1
        elif _CLOSES.fullmatch(data) or _BARE_CLOSES.fullmatch(data):
            depth -= 1
            if depth < 0:
                return "there is an [endif] without its [if …]"
        elif is_conditional(data):
            return f"{_short(f'<!--{data}-->')} is none that Outlook understands"
    if depth:
        return "there is an [if …] without its [endif]"
    return next((f"<{name}> is opened in them and not closed" for name, count in balance.items() if count), None)


def fault_in(content: str, balance: Counter[str]) -> str | None:
    """Return why Outlook may not get this, or None. `balance` counts the elements that are open."""
    at = 0
    while True:
        text = _TEXT.match(content, at)
        assert text is not None
        at = text.end()
        if at == len(content):
            return None
        tag = _OPENING.match(content, at)
        if tag is None:
            return f"{_short(content[at:])} cannot be read"
        name = tag[2].lower()
        if name not in TAGS and name not in _OFFICE_TAGS and name != "style":
            return f"<{name}> is script" if name in ACTING or name == "form" else f"<{name}> is not known"
        at = tag.end()
        while not (closing := _CLOSING.match(content, at)):
            attribute = _ATTRIBUTE.match(content, at)
            if attribute is None:
                return f"{_short(content[tag.start() :])} cannot be read"
            value = next((one for one in attribute.groups()[1:] if one is not None), "")
            fault = _attribute_fault(attribute[1].lower(), value)
            if fault is not None and not is_file(name, attribute[1].lower(), value):
                return f"<{name}>: {fault}"
            at = attribute.end()
        at = closing.end()
        if name == "style" and not tag[1]:
            end = _STYLE_END.search(content, at)
            if end is None or _ACTING_CSS.search(content, at, end.start()):
                return "its style sheet may act, or has no end"
            at = end.end()
        elif name in _BALANCED and not closing[1]:
            balance[name] += -1 if tag[1] else 1
            if balance[name] < 0:
                return f"</{name}> closes what they have not opened"


def _attribute_fault(name: str, value: str) -> str | None:
    local = name.rpartition(":")[2]
    if local.startswith("on") or local in _ACTING_ATTRIBUTES:
        return f"{name} is script"
    if local == "style" and (faults := clean_style(value)[1]):
        return faults[0]
    if name.startswith("xmlns"):
        return None
    scheme = scheme_of(value)
    if local in _ADDRESSES and scheme and scheme not in SCHEMES:
        return f'{name}="{scheme}:…" is no address that a mail may lead to or load'
    if scheme in ("javascript", "vbscript", "data", "file"):
        return f'{name}="{scheme}:…" is script'
    return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 50 else text[:49] + "…"
