"""Fill a touchpoint's signature for one agent and one message, and make it fit to be sent.

Template → style sheets into the elements, nothing that acts (`gateway.markup`) → pictures by Content-ID → telephone
links → text, where there is none. A value is escaped when it is filled in, and what came of it is sanitised: it is
text in one place, whatever it holds.

The variables are frozen here, when the message is accepted: what a colleague is called next year does not change
what was written today. Files are not read here; who calls passes the bytes of the images that the HTML names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from hashlib import blake2b
from html import escape, unescape
from typing import Any, Final, Protocol

from gateway.config.files import image_type
from gateway.markup.sanitise import sanitise
from gateway.mime.compose import Image
from gateway.mime.templates import TemplateFault, Values, render_html, render_text
from gateway.outbound.signature.block import MARKER, RenderedSignature
from gateway.outbound.signature.plain import text_of_html
from gateway.outbound.signature.telephone import normalise_tel

_EXTENSIONS: Final = {"jpeg": "jpg"}
# Of sanitised HTML, where only Outlook's comments are as the admin wrote them
_IMAGE_SOURCE = re.compile(
    r"""(<(?:img|v:image|v:imagedata|v:fill)\s(?:[^<>]*?\s)?src\s*=\s*)(?:"\s*file:([^"<>]*)"|'\s*file:([^'<>]*)'|file:([^\s"'<>]+))""",
    re.I,
)
_TEL = re.compile(
    r"""(<(?:a|area)\s(?:[^<>]*?\s)?href\s*=\s*)(?:"tel:([^"<>]*)"|'tel:([^'<>]*)'|tel:([^\s"'<>]+))""", re.I
)


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
    html: str,
    text: str,
    variables: Mapping[str, Any],
    *,
    images: Mapping[str, bytes] | None = None,
    unique: str = "",
    conditional_comments: bool = True,
    scope: str = f".{MARKER}",
) -> RenderedSignature:
    """Return the signature of two templates ("" for an absent one), filled with `context(…)`.

    `images`: the bytes by the name that stands in `src="file:NAME"`. `unique` goes into the content ids, which are
    to differ between messages (RFC 2392); the queue id is one. `scope`: as of `sanitise`; "" for a mail's whole body.
    Raises TemplateFault when a variable is missing, when
    an image is not among `images`, or when both templates are empty.
    """
    found: dict[str, Image] = {}
    shown = ""
    if html.strip():
        shown = sanitise(render_html(html, variables), conditional_comments=conditional_comments, scope=scope).html
        shown = _TEL.sub(_tel_link, _with_images(shown, images or {}, unique, found))
    if text.strip():
        plain = render_text(text, variables)
    elif html.strip():
        plain = text_of_html(shown)
    else:
        raise TemplateFault("the signature has neither html nor text")
    plain = _tidy(plain)
    if not shown and not plain:
        raise TemplateFault("nothing is left of the signature")
    return RenderedSignature(shown, plain, tuple(found.values()))


def _tel_link(match: re.Match[str]) -> str:
    number = normalise_tel(match[2] or match[3] or match[4] or "")
    return f'{match[1]}"tel:{escape(number)}"'  # where it is no number it is what somebody wrote, quotes and all


def _image_name(match: re.Match[str]) -> str:
    return unescape(match[2] or match[3] or match[4] or "").strip()


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


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    if lines and lines[0] in ("--", "-- "):  # the admin wrote the delimiter too
        del lines[0]
    return "\n".join(lines)
