"""Fill a touchpoint's signature for one agent and one message.

The variables are frozen here, when the message is accepted: what a colleague is called next year does not change
what was written today. Files are not read here; who calls passes the bytes of the images that the HTML names.
"""

from __future__ import annotations

import html as html_entities
import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Protocol

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

from gateway.config.files import image_type
from gateway.mime.compose import Image
from gateway.mime.templates import TemplateFault, Values, render_html, render_text
from gateway.outbound.signature.block import RenderedSignature

_EXTENSIONS: Final = {"jpeg": "jpg"}
_IMAGE_SOURCE = re.compile(
    r"""(<img\b[^<>]{0,2000}?\bsrc\s*=\s*)(?:"file:([^"<>]*)"|'file:([^'<>]*)'|file:([^\s"'<>]+))""", re.I
)
_TEL = re.compile(r"""(\bhref\s*=\s*)(?:"tel:([^"<>]*)"|'tel:([^'<>]*)'|tel:([^\s"'<>]+))""", re.I)
_BODY = re.compile(r"<body\b[^<>]{0,2000}>(.*?)(?:</body\s*>|\Z)", re.I | re.S)
_DOCUMENT = re.compile(r"<!doctype[^<>]*>|</?(?:html|head|body|meta|title)\b[^<>]*>", re.I)
_EXTENSION = re.compile(r"(?:;\s*ext\s*=|\bext(?:ension)?\b\.?|[x#])\s*:?\s*(\d{1,8})\s*$", re.I)
_KEYPAD = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")  # RFC 3966 §3: no letters


class HasVariables(Protocol):
    """What touchpoint and agent have in common here. Keys of `variables` are reached as `agent.<key>`."""

    @property
    def name(self) -> str: ...
    @property
    def variables(self) -> Mapping[str, Any]: ...


class Touchpoint(HasVariables, Protocol):
    @property
    def address(self) -> str: ...


class Agent(HasVariables, Protocol):
    @property
    def login(self) -> str: ...


def context(
    touchpoint: Touchpoint, agent: Agent, *, subject: str, on: date, customer: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return the variables of DESIGN §7. `customer`: name and address of the one To, None when there are several.

    An agent's own variables win over the touchpoint's, and `name` and `login` over both. The customer is not known
    for every mail, so its fields are shown as nothing then; `default(…)` works on them.
    """
    known = zip(("name", "address"), customer or (), strict=False)
    return {
        "agent": Values({**touchpoint.variables, **agent.variables, "name": agent.name, "login": agent.login}),
        "touchpoint": Values({**touchpoint.variables, "name": touchpoint.name, "address": touchpoint.address}),
        "customer": Values({key: value for key, value in known if value}, frozenset({"name", "address"})),
        "subject": " ".join(subject.split()),
        "date": on,
    }


def render(
    html: str, text: str, variables: Mapping[str, Any], *, images: Mapping[str, bytes] | None = None, unique: str = ""
) -> RenderedSignature:
    """Return the signature of two templates ("" for an absent one), filled with `context(…)`.

    `images`: the bytes by the name that stands in `src="file:NAME"`. `unique` goes into the content ids, which are
    to differ between messages (RFC 2392); the queue id is one. Raises TemplateFault when a variable is missing, when
    an image is not among `images`, or when both templates are empty.
    """
    found: dict[str, Image] = {}
    shown = ""
    if html.strip():
        shown = _with_images(_fragment(render_html(html, variables)), images or {}, unique, found)
        shown = _TEL.sub(_tel_link, shown)
    if text.strip():
        plain = render_text(text, variables)
    elif shown:
        plain = text_of_html(shown)
    else:
        raise TemplateFault("the signature has neither html nor text")
    return RenderedSignature(shown, _tidy(plain), tuple(found.values()))


@lru_cache(maxsize=256)
def text_of_html(fragment: str) -> str:
    """Return how the HTML reads without its looks: table columns side by side, lists with their signs."""
    try:
        text = str(get_text(fragment, ParserConfig(css=CSS_PROFILES["strict"])))
    except (ValueError, RecursionError):  # lxml: nothing but comments, or deeper than it goes
        return ""
    return re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", text)


def normalise_tel(number: str) -> str:
    """Return a telephone number as RFC 3966 §3 writes it: no blanks or brackets, `+` first where it is international.

    "00" in front becomes "+", the national "(0)" behind a country code goes, an extension becomes `;ext=`, letters
    become their keys. A local number stays local: which country it belongs to is not ours to guess.
    """
    text = html_entities.unescape(number).replace("%20", " ").replace("%2B", "+").replace("%2b", "+").strip().lower()
    if not re.search(r"\d", text):
        return text  # no number: what it should be is not ours to guess
    extension = ""
    if match := _EXTENSION.search(text):
        extension, text = f";ext={match[1]}", text[: match.start()]
    text, semicolon, parameters = text.partition(";")
    is_global = text.lstrip(" (").startswith(("+", "00"))
    if is_global:
        text = text.replace("(0)", "")
    digits = re.sub(r"[^0-9*#]", "", text.translate(_KEYPAD))
    if is_global:
        digits = "+" + digits.removeprefix("00")
    return digits + extension + semicolon + re.sub(r"[^a-z0-9=;.+-]", "", parameters)


def _tel_link(match: re.Match[str]) -> str:
    return f'{match[1]}"tel:{normalise_tel(match[2] or match[3] or match[4] or "")}"'


def _image_name(match: re.Match[str]) -> str:
    return html_entities.unescape(match[2] or match[3] or match[4] or "").strip()


def _with_images(fragment: str, images: Mapping[str, bytes], unique: str, found: dict[str, Image]) -> str:
    def to_cid(match: re.Match[str]) -> str:
        name = _image_name(match)
        if name not in found:
            if (data := images.get(name)) is None:
                raise TemplateFault(f"the image {name!r} was not loaded")
            subtype = image_type(data)
            digest = blake2b(data, digest_size=8).hexdigest()
            content_id = (
                ".".join(filter(None, (digest, re.sub(r"[^A-Za-z0-9-]", "", unique)))) + "@signature.mail-gateway"
            )
            found[name] = Image(
                content_id,
                f"image/{subtype}" if subtype else "application/octet-stream",
                f"image{len(found) + 1}.{_EXTENSIONS.get(subtype or '', subtype or 'bin')}",
                data,
            )
        return f'{match[1]}"cid:{found[name].content_id}"'

    return _IMAGE_SOURCE.sub(to_cid, fragment)


def _fragment(html: str) -> str:
    """What may stand inside somebody else's body: an editor's whole document loses its frame, not its style sheets."""
    if body := _BODY.search(html):
        styles = re.findall(r"<style\b[^<>]*>.*?</style\s*>", html[: body.start()], re.I | re.S)
        html = "".join(styles) + body[1]
    return _DOCUMENT.sub("", html).strip()


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    if lines and lines[0] in ("--", "-- "):  # the admin wrote the delimiter too
        del lines[0]
    return "\n".join(lines)
