"""What may stand in a signature's HTML: the one list that sanitising, `check` and the lint go by.

All of it is looks, layout and links. Nothing acts: no script, no forms, no frames, no plug-ins, no addresses that a
mail program would run. What loads by itself is pictures, by https, http or from the mail.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import unescape
from itertools import accumulate
from typing import Any, Final

import tinycss2
from tinycss2 import ast


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The element goes; what stands in it stays.
TAGS: Final = words(
    """a abbr acronym address area article aside b bdi bdo big blockquote br caption center cite code col colgroup dd
    del dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main map mark nav ol
    p pre q rp rt ruby s samp section small span strike strong sub sup table tbody td tfoot th thead time tr tt u ul var
    wbr"""
)
# The element goes with all that stands in it.
ACTING: Final = words(
    """script style title textarea iframe frameset noframes noembed object embed applet svg math template xml select
    audio video canvas"""
)
# What a whole document has around its body: not missed in a fragment.
FRAME: Final = frozenset({"html", "head", "body", "meta", "title"})

_EVERYWHERE: Final = words(
    """style class id title lang dir role align valign bgcolor background width height border color face size nowrap
    hspace vspace clear"""
)
_OWN: Final = {
    "a": "href name target rel hreflang type",
    "area": "href shape coords alt target rel",
    "bdo": "dir",
    "blockquote": "cite type",
    "col": "span char charoff",
    "colgroup": "span char charoff",
    "del": "cite datetime",
    "hr": "noshade",
    "img": "src alt usemap ismap",
    "ins": "cite datetime",
    "li": "type value",
    "map": "name",
    "ol": "start type reversed compact",
    "q": "cite",
    "table": "cellpadding cellspacing summary frame rules",
    "td": "colspan rowspan abbr axis headers scope char charoff",
    "th": "colspan rowspan abbr axis headers scope char charoff",
    "time": "datetime",
    "tr": "char charoff",
    "ul": "type compact",
}
ATTRIBUTES: Final = {"*": _EVERYWHERE} | {tag: frozenset(names.split()) for tag, names in _OWN.items()}
PREFIXES: Final = frozenset({"aria-", "data-"})
SCHEMES: Final = frozenset({"http", "https", "mailto", "tel", "sms"})
FILE: Final = "file"  # of a picture's src, until it has a Content-ID
PICTURES: Final = frozenset({"img", "v:image", "v:imagedata", "v:fill"})  # the others in Outlook's comments only
_ADDRESSES: Final = frozenset({"href", "src", "background", "cite", "longdesc", "usemap"})
_LOADED: Final = frozenset({"http", "https"})

_BLANK = re.compile("[\0-\x20\x7f-\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ODD_STYLE = re.compile(r"[\\@<>{}\0]|/\*|\(|behaviou?r|binding|script\s*:|!\s*ie", re.I)
DEEPEST: Final = 50  # of brackets
_HARMLESS_CALLS: Final = words("rgb rgba hsl hsla calc min max clamp linear-gradient radial-gradient var light-dark")
_ACTING_PROPERTIES: Final = frozenset({"behavior", "behaviour", "-ms-behavior", "-moz-binding", "binding"})


def scheme_of(address: str) -> str:
    """Return the scheme in small letters, "" for none, however it is disguised for a lenient reader."""
    found = _SCHEME.match(_BLANK.sub("", unescape(address)))
    return found[1].lower() if found else ""


def is_file(tag: str, name: str, address: str) -> bool:
    """Does the attribute name a picture that comes along with the mail?"""
    return name == "src" and tag in PICTURES and scheme_of(address) == FILE


def file_name(address: str) -> str:
    """Return what stands behind `file:`."""
    return address.partition(":")[2].strip()


def is_allowed_attribute(tag: str, name: str) -> bool:
    return name in _EVERYWHERE or name in ATTRIBUTES.get(tag, ()) or name.startswith(tuple(PREFIXES))


def address_fault(tag: str, name: str, value: str) -> str | None:
    """Return why the attribute may not have this address, or None; None too where it is no address."""
    if name not in _ADDRESSES:
        return None
    scheme = scheme_of(value)
    if name == "href":
        return None if not scheme or scheme in SCHEMES else f"{scheme}: is no address that a mail may lead to"
    if scheme == FILE and (tag, name) != ("img", "src"):
        return 'file: works in <img src="…"> only'
    if scheme == "cid":
        return "cid: names nothing here; write file:NAME, and the picture comes along"
    if scheme and scheme not in _LOADED and scheme != FILE:
        return f"{scheme}: is no address that a mail may load"
    return None


@lru_cache(maxsize=4096)
def clean_style(style: str) -> tuple[str, tuple[str, ...]]:
    """Return the declarations of a style attribute without what acts or loads from elsewhere than http and https, and
    what was taken out."""
    if not _ODD_STYLE.search(style):
        return style, ()
    kept, faults = [], []
    if depth_of(style) > DEEPEST:
        return "", ("brackets within brackets, too deep to be read",)
    for node in tinycss2.parse_blocks_contents(style, skip_comments=True, skip_whitespace=True):
        if node.type == "error":
            faults.append("what is there cannot be read")
        elif node.type != "declaration":
            faults.append(f"{_short(_source(node))} is no declaration")
        elif (fault := _declaration_fault(node)) is not None:
            faults.append(fault)
        else:
            kept.append(f"{node.name}:{_source(node.value).strip()}{' !important' if node.important else ''}")
    return "; ".join(one for one in kept if not re.search(r"[<>\0]|/\*", one)), tuple(faults)


def depth_of(css: str) -> int:
    """Return how deep its brackets are at the most; tinycss2 writes them by recursion."""
    return max(accumulate(((letter in "([{") - (letter in ")]}") for letter in css), initial=0))


def _declaration_fault(node: Any) -> str | None:
    if node.lower_name in _ACTING_PROPERTIES:
        return f"{node.lower_name} is script"
    if not re.fullmatch(r"-{0,2}[A-Za-z_][\w-]*", node.name):
        return f"{_short(node.name)} is no property"
    return next((fault for fault in map(_value_fault, _flat(node.value)) if fault), None)


def _value_fault(token: Any) -> str | None:
    if token.type == "error":
        return "it cannot be read"
    if token.type == "function" and token.lower_name not in _HARMLESS_CALLS | {"url"}:
        return f"{token.lower_name}(…) may act" if token.lower_name == "expression" else f"{token.name}(…) is not known"
    if token.type == "{} block" or (token.type == "at-keyword"):
        return "it cannot be read"
    if token.type == "url" or (token.type == "function" and token.lower_name == "url"):
        value = token.value if token.type == "url" else "".join(a.value for a in token.arguments if a.type == "string")
        if scheme_of(value) not in _LOADED:
            return f"url({_short(value)}) is no http or https address"
        return None
    if token.type in ("string", "ident") and scheme_of(token.value) in ("javascript", "vbscript"):
        return "it is script"
    return None


def _flat(tokens: Any) -> Any:
    waiting = list(reversed(tokens))
    while waiting:  # no recursion: brackets may be nested as deep as somebody likes
        token = waiting.pop()
        yield token
        if token.type == "function":
            waiting += reversed(token.arguments)
        elif token.type in ("() block", "[] block", "{} block"):
            waiting += reversed(token.content)


def _source(nodes: Any) -> str:
    return str(nodes.serialize() if isinstance(nodes, ast.Node) else tinycss2.serialize(nodes))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:39] + "…"
