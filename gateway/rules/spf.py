"""SPF (RFC 7208): may a host send for the domain of a return path?

Written out rather than taken from a library: the one there is keeps its DNS in a global of its module, looks at
records as long as anybody cares to publish, and waits in the middle of its work. Here the whole record is parsed
before anything is asked, so that an error in it is found whatever the host; the DNS is asked by `yield`; and each limit
of §4.6.4 is counted in one place. No explanation (`exp`) is fetched: nobody hears us say no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import quote

from gateway.rules.dns import Answer, Inquiry, Kind, Question, Unanswered, domain_of

LOOKUPS: Final = 10  # §4.6.4: terms that ask the DNS
VOID_LOOKUPS: Final = 2  # §4.6.4: questions with nothing for an answer
NAMES: Final = 10  # §4.6.4: of one MX or PTR answer
RECORD_LIMIT: Final = 8_192  # characters of a record that we parse; one that is longer fits into no reasonable answer
TERMS: Final = 500
SPEC_LIMIT: Final = 512  # characters of one domain with its macros; what it gives must not exceed 253
_END: Final = 80  # characters in which a domain-spec's end lies
_EXPANDED: Final = 2_048  # characters of an expanded name before it is cut to a domain's length

IP = IPv4Address | IPv6Address

_MACRO: Final = r"%\{[slodiphcrtvSLODIPHCRTV][0-9]*[rR]?[-.+,/_=]*\}|%%|%_|%-"
_MACRO_STRING: Final = re.compile(rf"(?:{_MACRO}|[!-$&-~])*+\Z")
_MACRO_PIECE: Final = re.compile(r"%\{([a-zA-Z])([0-9]*)([rR]?)([-.+,/_=]*)\}|%([%_-])")
_ENDS_WELL: Final = re.compile(  # §7.1 domain-end: a top label that is not all digits, or a macro
    r"(?:%\{[^}]*\}|\.(?:[a-z0-9]*[a-z][a-z0-9]*|[a-z0-9]+-[a-z0-9-]*[a-z0-9])\.?)\Z", re.IGNORECASE
)
_TERM: Final = re.compile(r"([-+?~]?)([a-z][a-z0-9_.-]*)(?:([:=/])(.*))?\Z", re.IGNORECASE | re.DOTALL)
_PREFIX: Final = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_RESULTS: Final = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_MECHANISMS: Final = frozenset({"all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"})


@dataclass(frozen=True, slots=True)
class Spf:
    """`result`: a word of §2.6. `domain`: the one that was asked for, "" when there was none."""

    result: str
    domain: str = ""
    detail: str = ""


class _Permanent(Exception):
    """A record that nobody can follow."""


@dataclass(frozen=True, slots=True)
class _Directive:
    result: str
    mechanism: str
    spec: str = ""  # the domain with its macros, "" for the current one
    network: tuple[IP, int] | None = None
    prefixes: tuple[int, int] = (32, 128)


@dataclass(frozen=True, slots=True)
class _Record:
    directives: tuple[_Directive, ...]
    redirect: str = ""


@dataclass(slots=True)
class _Check:
    """One evaluation: what is fixed for all of it, and what has been spent."""

    ip: IP
    sender: str  # local part and domain
    helo: str
    lookups: int = 0
    voids: int = 0
    names: dict[str, str] = field(default_factory=dict)  # %{p} of each domain


def check(ip: IP, return_path: str, helo: str) -> Inquiry[Spf]:
    """Return whether `ip` may send for `return_path`; for `helo` where that is "" (§2.4). Never raises."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    local, _, host = return_path.rpartition("@")
    name = domain_of(host if return_path else helo)
    if not name or "." not in name:  # §4.3
        return Spf("none", detail="there is no domain to ask for")
    state = _Check(ip, f"{local or 'postmaster'}@{name}", domain_of(helo) or "unknown")
    try:
        result = yield from _check_host(state, name)
    except Unanswered as error:
        return Spf("temperror", name, str(error))
    except _Permanent as error:
        return Spf("permerror", name, str(error))
    return Spf(result, name)


def _check_host(state: _Check, domain: str) -> Inquiry[str]:
    records = yield Question(domain, Kind.TXT)
    found = [one for one in records if one[:6].lower() == "v=spf1" and (len(one) == 6 or one[6] == " ")]
    if not found:
        return "none"
    if len(found) > 1:
        raise _Permanent(f"{domain} has {len(found)} records")
    record = _parse(found[0], domain)
    for directive in record.directives:
        if (yield from _matches(state, directive, domain)):
            return directive.result
    if not record.redirect:
        return "neutral"
    _count(state)
    target = yield from _target(state, record.redirect, domain)
    result = "none"
    if target:
        result = yield from _check_host(state, target)
    if result == "none":  # §6.1
        raise _Permanent(f"{domain} redirects to where no record is")
    return result


# --- the record ------------------------------------------------------------------------------------------------------


def _parse(text: str, domain: str) -> _Record:
    """Return all of a record. Raises _Permanent with the first thing wrong in it (§4.6)."""
    terms = text[6:].split(" ")
    if len(text) > RECORD_LIMIT or len(terms) > TERMS:
        raise _Permanent(f"the record of {domain} is longer than any that is meant")
    directives: list[_Directive] = []
    modifiers: dict[str, str] = {}
    for term in filter(None, terms):
        found = _TERM.match(term)
        if found is None:
            raise _wrong(term, domain)
        qualifier, name, mark, rest = found[1], found[2].lower(), found[3] or "", found[4] or ""
        if mark == "=":
            if qualifier or not _MACRO_STRING.match(rest):
                raise _wrong(term, domain)
            if name in ("redirect", "exp"):
                if name in modifiers or not _is_domain_spec(rest):
                    raise _wrong(term, domain)
                modifiers[name] = rest
            continue
        directive = _directive(_RESULTS[qualifier or "+"], name, mark, rest)
        if directive is None:
            raise _wrong(term, domain)
        directives.append(directive)
    has_all = any(one.mechanism == "all" for one in directives)
    return _Record(tuple(directives), "" if has_all else modifiers.get("redirect", ""))


def _wrong(term: str, domain: str) -> _Permanent:
    return _Permanent(f'the record of {domain} has "{term[:60]}" in it')


def _directive(result: str, name: str, mark: str, rest: str) -> _Directive | None:
    if name not in _MECHANISMS:
        return None
    if name == "all":
        return None if mark else _Directive(result, name)
    if name in ("ip4", "ip6"):
        network = _network(name, rest) if mark == ":" else None
        return None if network is None else _Directive(result, name, network=network)
    if name in ("a", "mx"):
        spec, prefix = rest, ""
        if mark == "/":
            spec, prefix = "", "/" + rest
        elif (at := _prefix_start(rest)) >= 0:
            spec, prefix = rest[:at], rest[at:]
        found = _PREFIX.match(prefix)
        if found is None or (mark == ":" and not _is_domain_spec(spec)):
            return None
        narrow, wide = int(found[1] or 32), int(found[2] or 128)
        if narrow > 32 or wide > 128:
            return None
        return _Directive(result, name, spec, prefixes=(narrow, wide))
    if name == "ptr" and not mark:
        return _Directive(result, name)
    return _Directive(result, name, rest) if mark == ":" and _is_domain_spec(rest) else None


def _prefix_start(rest: str) -> int:
    """Return where `/24` or `//64` begins behind a domain-spec, -1 for none; a slash inside a macro is not one."""
    found = re.search(r"(?:/[0-9]*)?(?://[0-9]*)?\Z", rest)
    return found.start() if found and found[0] else -1


def _network(name: str, text: str) -> tuple[IP, int] | None:
    address, slash, prefix = text.partition("/")
    if slash and not re.fullmatch("0|[1-9][0-9]{0,2}", prefix, re.ASCII):
        return None
    try:
        ip: IP = IPv4Address(address) if name == "ip4" else IPv6Address(address)
    except ValueError:
        return None
    length = int(prefix) if slash else ip.max_prefixlen
    return (ip, length) if length <= ip.max_prefixlen and "%" not in address else None


def _is_domain_spec(text: str) -> bool:
    if len(text) > SPEC_LIMIT or not _MACRO_STRING.match(text) or not _ENDS_WELL.search(text[-_END:]):
        return False
    for letter, digits, _, _, _ in _MACRO_PIECE.findall(text):
        if letter.lower() in ("c", "r", "t"):  # only in what an explanation says, not where it is (§7.2)
            return False
        if digits and not 0 < int(digits[:9]) <= 128:
            return False
    return True


# --- the mechanisms --------------------------------------------------------------------------------------------------


def _matches(state: _Check, directive: _Directive, domain: str) -> Inquiry[bool]:
    name = directive.mechanism
    if name == "all":
        return True
    if directive.network is not None:
        return _is_within(state.ip, *directive.network)
    _count(state)
    target = (yield from _target(state, directive.spec, domain)) if directive.spec else domain
    if name == "include":
        if not target:
            raise _Permanent(f"{domain} includes what is no domain")
        result = yield from _check_host(state, target)
        if result == "none":  # §5.2
            raise _Permanent(f"{domain} includes {target}, which has no record")
        return result == "pass"
    if not target:
        return False
    if name == "exists":
        return bool((yield from _ask(state, target, Kind.A)))
    if name == "ptr":
        return any(known == target or known.endswith("." + target) for known in (yield from _validated(state)))
    hosts: Sequence[str] = (target,)
    if name == "mx":
        hosts = yield from _ask(state, target, Kind.MX)
        if len(hosts) > NAMES:
            raise _Permanent(f"{target} has more than {NAMES} mail exchangers")
    prefix = directive.prefixes[0 if state.ip.version == 4 else 1]
    for host in hosts:
        for address in (yield from _ask(state, host, _kind_of(state.ip), is_of_many=name == "mx")):
            if (one := _address(address)) is not None and _is_within(state.ip, one, prefix):
                return True
    return False


def _count(state: _Check) -> None:
    state.lookups += 1
    if state.lookups > LOOKUPS:
        raise _Permanent(f"more than {LOOKUPS} terms ask the DNS")


def _ask(state: _Check, name: str, kind: Kind, *, is_of_many: bool = False) -> Inquiry[Answer]:
    answer: Answer = ()
    if name := _askable(name):
        answer = yield Question(name, kind)
    if not answer and not is_of_many:
        state.voids += 1
        if state.voids > VOID_LOOKUPS:
            raise _Permanent(f"more than {VOID_LOOKUPS} questions have no answer")
    return answer


def _validated(state: _Check) -> Inquiry[list[str]]:
    """Return the host's names that lead back to it (§5.5). A DNS that fails here only means: no name."""
    known: list[str] = []
    try:
        names = yield Question(state.ip.reverse_pointer, Kind.PTR)
    except Unanswered:
        return known
    for name in names[:NAMES]:
        if not (host := domain_of(name)):
            continue
        try:
            addresses = yield Question(host, _kind_of(state.ip))
        except Unanswered:
            continue
        if any(_address(one) == state.ip for one in addresses):
            known.append(host)
    return known


def _kind_of(ip: IP) -> Kind:
    return Kind.A if ip.version == 4 else Kind.AAAA


def _address(text: str) -> IP | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_within(ip: IP, network: IP, length: int) -> bool:
    if ip.version != network.version:
        return False
    return (int(ip) ^ int(network)) >> (ip.max_prefixlen - length) == 0


# --- macros ----------------------------------------------------------------------------------------------------------


def _target(state: _Check, spec: str, domain: str) -> Inquiry[str]:
    """Return a domain-spec with its macros expanded (§7), "" when that gives no name one could ask for."""
    if "%" not in spec:
        return _askable(spec)
    pieces: list[str] = []
    end = 0
    for found in _MACRO_PIECE.finditer(spec):
        pieces.append(spec[end : found.start()])
        end = found.end()
        if found[5]:
            pieces.append({"%": "%", "_": " ", "-": "%20"}[found[5]])
            continue
        value = yield from _value(state, found[1].lower(), domain)
        delimiters = found[4] or "."
        parts = re.split("[" + re.escape(delimiters) + "]", value)
        if found[3]:
            parts.reverse()
        if found[2]:
            parts = parts[-int(found[2][:9]) :]
        value = ".".join(parts)
        pieces.append(quote(value, safe="") if found[1].isupper() else value)
    name = "".join([*pieces, spec[end:]])[-_EXPANDED:].rstrip(".")
    while len(name) > 253 and "." in name:  # §7.3: labels go from the left
        name = name.partition(".")[2]
    return _askable(name)


def _askable(name: str) -> str:
    """Return a name as one asks for it, "" for what is none. A macro may bring letters that no host name has."""
    name = name.rstrip(".").lower()
    fits = 0 < len(name) <= 253 and name.isascii() and all(0 < len(label) <= 63 for label in name.split("."))
    return name if fits else ""


def _value(state: _Check, letter: str, domain: str) -> Inquiry[str]:
    if letter == "p":
        return (yield from _name_of_host(state, domain))
    local, _, host = state.sender.rpartition("@")
    values: dict[str, Callable[[], str]] = {
        "s": lambda: state.sender,
        "l": lambda: local,
        "o": lambda: host,
        "d": lambda: domain,
        "i": lambda: _dotted(state.ip),
        "v": lambda: "in-addr" if state.ip.version == 4 else "ip6",
        "h": lambda: state.helo,
    }
    return values[letter]()


def _name_of_host(state: _Check, domain: str) -> Inquiry[str]:
    if domain not in state.names:
        known = yield from _validated(state)
        below = [name for name in known if name.endswith("." + domain)]
        state.names[domain] = domain if domain in known else (below or known or ["unknown"])[0]
    return state.names[domain]


def _dotted(ip: IP) -> str:
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", ""))
