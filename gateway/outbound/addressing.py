"""Reads what stands behind MAIL and RCPT: a path and its parameters.

Everything that is wrong comes out as Malformed with the reply to give. What comes out right is safe to be written into
another server's command line, and into a report: no control character, no stray bracket, in any encoding.
Sources: RFC 5321 §4.1.2, RFC 1870, RFC 3461 §4, RFC 6531 §3, RFC 6533 §3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import idna

from gateway.errors import Malformed
from gateway.model import NO_WISH, Notify, Wish

ENVID_OCTETS: Final = 100  # RFC 3461 §4.4
ORCPT_OCTETS: Final = 500  # RFC 3461 §4.2
_ADDRESS_OCTETS: Final = 254  # RFC 5321 §4.5.3.1.3, without the angle brackets; real ones exceed its 64 before the @

_UTF8: Final = "\u00a0-\U0010ffff"  # RFC 6531 §3.3; isprintable() takes out what nobody can see
_LETTER: Final = rf"[A-Za-z0-9{_UTF8}]"
_LABEL: Final = rf"{_LETTER}(?:[A-Za-z0-9{_UTF8}-]*{_LETTER})?"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM: Final = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_QUOTED: Final = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_PATH: Final = re.compile(  # a source route in front is taken and ignored: RFC 5321 §4.1.1.3
    rf"<(?:@[^<>: ]+:)?((?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?:{_DOMAIN}|\[[A-Za-z0-9.:-]+\]))>(?: +(.*))?\Z"
)
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")  # RFC 3461 §4
_HEX: Final = re.compile(r"\+([0-9A-F]{2})")
_ORCPT: Final = re.compile(rf"([A-Za-z0-9-]{{1,40}});([!-~{_UTF8}]+)\Z")
_NOTIFY: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}

_NEEDS_UTF8: Final = "553 5.6.7 an address with letters beyond ASCII needs SMTPUTF8"


@dataclass(frozen=True, slots=True)
class Origin:
    """What MAIL said. `return_path`: "" is the null one. `size`: octets announced, None where not. `smtputf8`: the
    client said that it means UTF-8. `envid` (xtext), `ret` ("full", "hdrs", ""): RFC 3461.
    """

    return_path: str
    size: int | None = None
    smtputf8: bool = False
    envid: str = ""
    ret: str = ""


def read_mail(argument: str) -> Origin:
    """Return what stands behind MAIL. Raises Malformed."""
    path, parameters = _read_path(argument, "FROM:", "501 5.1.7 syntax: MAIL FROM:<address>")
    origin = _read_origin(path, parameters) if parameters else Origin(path)
    if not path.isascii() and not origin.smtputf8:
        raise _refused(_NEEDS_UTF8)
    return origin


def read_rcpt(argument: str, *, smtputf8: bool) -> tuple[str, Wish]:
    """Return what stands behind RCPT: an address, and what its sender wants to hear of. Raises Malformed.

    A domain beyond ASCII comes back in its ASCII form where the part before the @ is ASCII: then every server can take
    it. `smtputf8`: as MAIL said.
    """
    path, parameters = _read_path(
        argument, "TO:", "501 5.1.3 the address cannot be understood; syntax: RCPT TO:<address>"
    )
    if not path:
        raise _refused("550 5.1.3 an empty address receives nothing")
    if not path.isascii():
        if not smtputf8:
            raise _refused(_NEEDS_UTF8)
        path = in_ascii(path)
    return path, _read_wish(parameters, smtputf8) if parameters else NO_WISH


def same_mailbox(address: str) -> str:
    """Return what two spellings of one mailbox have in common: domains ignore case (RFC 5321 §2.4), names may not."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"


@lru_cache(maxsize=1024)
def in_ascii(address: str) -> str:
    """Return the address with its domain in ASCII (RFC 5890), or as it is where its local part is beyond ASCII.

    Raises Malformed for a domain that has no such form.
    """
    local, _, domain = address.rpartition("@")
    if not local.isascii() or domain.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError:
        raise _refused("501 5.1.3 the domain has a letter that no domain can have") from None


def plain(address: str) -> str:
    """Return an address of our own with its domain in ASCII; as it is where that cannot be."""
    try:
        return in_ascii(address)
    except Malformed:
        return address


# --- paths -----------------------------------------------------------------------------------------------------------


def _read_path(argument: str, keyword: str, complaint: str) -> tuple[str, str]:
    """Return address ("" for `<>`) and parameters."""
    if argument[: len(keyword)].upper() != keyword:
        raise _refused(complaint)
    text = argument[len(keyword) :].lstrip()
    if text[:2] == "<>" and text[2:3] in ("", " "):
        return "", text[2:].strip()
    if text[:1] != "<":  # wrong, and widespread among scripts
        bare, _, parameters = text.partition(" ")
        text = f"<{bare}> {parameters}" if parameters else f"<{bare}>"
    found = _PATH.match(text)
    if found is None or not found[1].isprintable():
        raise _refused(complaint)
    if len(found[1].encode()) > _ADDRESS_OCTETS:
        raise _refused(f"{complaint[:9]} the address has more than {_ADDRESS_OCTETS} octets")
    return found[1], found[2] or ""


# --- parameters ------------------------------------------------------------------------------------------------------


def _read_origin(path: str, parameters: str) -> Origin:
    size: int | None = None
    envid = ret = ""
    smtputf8 = False
    for key, value in _split(parameters):
        if key == "SIZE" and value.isascii() and value.isdigit():
            size = int(value[:20])
        elif key == "BODY" and value.upper() in ("7BIT", "8BITMIME"):
            pass  # the bytes themselves show what they are
        elif key == "AUTH" and value:
            pass  # RFC 4954 §5: to be taken from everybody, and believed from nobody
        elif key == "SMTPUTF8" and not value:
            smtputf8 = True
        elif key == "RET" and value.upper() in ("FULL", "HDRS"):
            ret = value.lower()
        elif key == "ENVID":
            envid = _xtext("ENVID", value, ENVID_OCTETS)
        else:
            raise _unknown(key, value, {"SIZE", "BODY", "AUTH", "SMTPUTF8", "RET"})
    return Origin(path, size, smtputf8, envid, ret)


def _read_wish(parameters: str, smtputf8: bool) -> Wish:
    notify: Notify | None = None
    orcpt = ""
    for key, value in _split(parameters):
        if key == "NOTIFY":
            notify = _read_notify(value)
        elif key == "ORCPT":
            orcpt = _read_orcpt(value, smtputf8)
        else:
            raise _unknown(key, value, set())
    return Wish(notify, orcpt)


def _split(parameters: str) -> list[tuple[str, str]]:
    """Return keys (upper case) and values, "" where there is none. None may come twice: RFC 5321 §4.1.1.11."""
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    for parameter in parameters.split(" "):
        if not parameter:
            continue
        key, equals, value = parameter.partition("=")
        key = key.upper()
        if key in seen or (equals and not value):
            raise _refused(f"501 5.5.4 {_shown(key)} is given twice or has no value")
        seen.add(key)
        found.append((key, value))
    return found


def _read_notify(value: str) -> Notify:
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return Notify(0)
    wanted = Notify(0)
    for word in words:
        if word not in _NOTIFY or _NOTIFY[word] in wanted:
            raise _refused("501 5.5.4 syntax: NOTIFY=NEVER, or SUCCESS, FAILURE, DELAY with commas between")
        wanted |= _NOTIFY[word]
    return wanted


def _read_orcpt(value: str, smtputf8: bool) -> str:
    found = _ORCPT.match(value)
    if found is None:
        raise _refused("501 5.5.4 syntax: ORCPT=type;address")
    kind, address = found.groups()
    if not address.isascii():
        if kind.lower() != "utf-8" or not smtputf8:
            raise _refused(_NEEDS_UTF8)
        # Its other form can be passed on to, and reported by, a server without SMTPUTF8: RFC 6533 §3
        address = "".join(letter if letter.isascii() else f"\\x{{{ord(letter):X}}}" for letter in address)
    return f"{kind};{_xtext('ORCPT', address, ORCPT_OCTETS - len(kind) - 1)}"


def _xtext(key: str, value: str, most: int) -> str:
    """Return `value` once it has been found to hide nothing: what it stands for is printable ASCII too."""
    if len(value) > most:
        raise _refused(f"501 5.5.4 {key} has more than {most} characters")
    hidden = (int(code, 16) for code in _HEX.findall(value))
    if not _XTEXT.match(value) or not all(0x20 <= code <= 0x7E for code in hidden):
        raise _refused(f"501 5.5.4 {key} is not what RFC 3461 calls xtext")
    return value


def _unknown(key: str, value: str, known: set[str]) -> Malformed:
    if key in known:
        return _refused(f"501 5.5.4 {_shown(key)} cannot have this value")
    return _refused(f"555 5.5.4 {_shown(f'{key}={value}' if value else key)} is not known here")


def _shown(text: str) -> str:
    return text[:100].encode("ascii", "replace").decode()


def _refused(reply: str) -> Malformed:
    return Malformed(reply, reply)
