"""How single values are written: durations, sizes, addresses, servers, listeners. Each parser raises `ValueError`
with a sentence for the person who wrote it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import re2
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StrictBool, StrictInt

LONGEST = timedelta(days=36_500)  # a century: far from where datetime arithmetic overflows

_UNITS = {
    timedelta(milliseconds=1): ("ms",),
    timedelta(seconds=1): ("s", "sec", "second", "seconds"),
    timedelta(minutes=1): ("min", "minute", "minutes"),
    timedelta(hours=1): ("h", "hour", "hours"),
    timedelta(days=1): ("d", "day", "days"),
    timedelta(weeks=1): ("week", "weeks"),
}
DURATION_UNITS = {name: unit for unit, names in _UNITS.items() for name in names}
SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_AMOUNT = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([^\W\d_]+)\s*")


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "billing"?`, or what there is to choose from, or nothing."""
    names = sorted(set(known))
    by_folded = {name.casefold(): name for name in names}
    close = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{by_folded[close[0]]}"?'
    if 0 < len(names) <= 10:
        return "; there is " + " and ".join(", ".join(f'"{name}"' for name in names).rsplit(", ", 1))
    return ""


def choose(options: Iterable[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(", ".join(options).rsplit(", ", 1))


# --- durations and sizes ---------------------------------------------------------------------------------------------


def parse_duration(value: object) -> timedelta:
    """Return the duration that "5 days", "9 min" or "1 hour 30 min" means; always more than nothing."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError('needs a duration with its unit in quotes, for example "5 days" or "9 min"')
    total, at = timedelta(), 0
    while found := _AMOUNT.match(value, at):
        amount, unit = found.groups()
        if unit.lower() not in DURATION_UNITS:
            raise ValueError(f'"{unit}" is not a unit of time; use {choose(_SHOWN_DURATION_UNITS)}')
        try:
            total += DURATION_UNITS[unit.lower()] * float(amount)
        except OverflowError:
            total = LONGEST * 2
        if total > LONGEST:
            raise ValueError(f'"{value}" is more than a century')
        at = found.end()
    if at == 0 or at < len(value):
        raise ValueError(f'"{value}" is not a duration; write for example "5 days" or "9 min"')
    if not total:
        raise ValueError("must be longer than nothing")
    return total


_SHOWN_DURATION_UNITS = ("ms", "s", "min", "hours", "days", "weeks")


def parse_size(value: object) -> int:
    """Return bytes; "35 MB" is 35 times 10^6, "35 MiB" 35 times 2^20, a bare whole number is bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif not isinstance(value, str):
        raise ValueError('needs a size in quotes, for example "35 MB"')
    else:
        found = _AMOUNT.fullmatch(value)
        if not found:
            raise ValueError(f'"{value}" is not a size; write for example "35 MB"')
        if found[2].lower() not in SIZE_UNITS:
            raise ValueError(f'"{found[2]}" is not a unit of size; use kB, MB, GB, KiB, MiB or GiB')
        size = int(Decimal(found[1]) * SIZE_UNITS[found[2].lower()])
    if size <= 0:
        raise ValueError("must be more than nothing")
    return size


def show_duration(value: timedelta) -> str:
    """Return a duration the way it is written in the files, e.g. "4 hours"."""
    for unit in sorted(_UNITS, reverse=True):
        if value % unit == timedelta():
            count = value // unit
            name = _UNITS[unit][-1]
            return f"{count} {name[:-1] if count == 1 and name.endswith('s') and name != 'ms' else name}"
    return f"{value.total_seconds():g} s"


# --- hosts -----------------------------------------------------------------------------------------------------------

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(?:\[([0-9A-Fa-f:.]+)\]|([^/:@\[\]?#\s]*))(?::([0-9]{1,5}))?/?")

SERVER_PORTS = {"imaps": 993, "imap": 143, "imap+insecure": 143, "smtps": 465, "smtp": 587, "smtp+insecure": 587}


def is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and _HOST.fullmatch(host) is not None and not re.fullmatch(r"[0-9.]+", host)
    return True


@dataclass(frozen=True, slots=True)
class Server:
    """Where a provider listens. `imaps`/`smtps`: TLS at once; `imap`/`smtp`: STARTTLS required; `…+insecure`: none."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return _show_url(self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where we listen. `host` None: every IPv4 and IPv6 address. `port` 0: any free one."""

    scheme: str
    host: str | None
    port: int

    def __str__(self) -> str:
        return _show_url(self.scheme, self.host or "", self.port)


def _show_url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _split_url(value: object, schemes: tuple[str, ...], example: str) -> tuple[str, str, int | None]:
    if not isinstance(value, str):
        raise ValueError(f'needs text in quotes, for example "{example}"')
    found = _URL.fullmatch(value.strip())
    if not found:
        raise ValueError(f'"{_without_login(value)}" cannot be read; write for example "{example}"')
    scheme, six, name, port = found.groups()
    if scheme not in schemes:
        raise ValueError(f'"{scheme}://" is not known here; use {choose(f"{name}://" for name in schemes)}')
    host = six or name
    if host and not _is_host(host):
        raise ValueError(f'"{host}" is not the name or address of a host')
    if port is not None and int(port) > 65_535:
        raise ValueError(f"there is no port {port}")
    return scheme, host, int(port) if port is not None else None


def _without_login(url: str) -> str:
    """A login in a URL may hold a password; nothing before the @ is repeated."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://…@{after}" if at else url


def parse_server(value: object, protocol: str) -> Server:
    """Return the server that `value` names; `protocol` is "imap" or "smtp"."""
    if isinstance(value, Server):
        return value
    schemes = (f"{protocol}s", protocol, f"{protocol}+insecure")
    scheme, host, port = _split_url(value, schemes, f"{protocol}s://{protocol}.example.com")
    if not host:
        raise ValueError(f'needs a host; write for example "{protocol}s://{protocol}.example.com"')
    if port == 0:
        raise ValueError("there is no port 0")
    if scheme.endswith("+insecure") and not is_loopback(host):
        raise ValueError(
            f'"{scheme}://" sends mail and password in the clear and is for loopback addresses only;'
            f' use "{protocol}s://" (or "{protocol}://", STARTTLS)'
        )
    return Server(scheme, host, port or SERVER_PORTS[scheme])


def parse_listener(value: object, protocol: str) -> Listener:
    if isinstance(value, Listener):
        return value
    schemes = (f"{protocol}s", protocol, f"{protocol}+insecure")
    scheme, host, port = _split_url(value, schemes, f"{protocol}s://:{SERVER_PORTS[f'{protocol}s']}")
    if scheme.endswith("+insecure") and not is_loopback(host):
        raise ValueError(
            f'"{scheme}://" without TLS is for loopback addresses only;'
            f' write "{scheme}://127.0.0.1:{port or SERVER_PORTS[scheme]}" or use "{protocol}s://"'
        )
    return Listener(scheme, host or None, SERVER_PORTS[scheme] if port is None else port)


def parse_http_listener(value: object) -> Listener | None:
    """Return the listener of "127.0.0.1:8025", or None for "" (no HTTP)."""
    if value is None or isinstance(value, Listener):
        return value
    if value == "":
        return None
    _, host, port = _split_url(f"http://{value}", ("http",), "127.0.0.1:8025")
    if port is None:
        raise ValueError('needs a port; write for example "127.0.0.1:8025"')
    return Listener("http", host or None, port)


def parse_host_name(value: object) -> str:
    if not isinstance(value, str) or not _is_host(value):
        raise ValueError('needs the full name of this host, for example "gateway.example.com"')
    return value.rstrip(".")


# --- addresses and names ---------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"[^\s@<>\"(),:;\\\[\]\x00-\x20\x7f]+@[^\s@<>\"(),:;\\\[\]\x00-\x20\x7f]+")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_VARIABLES = frozenset({"name", "login"})


def parse_address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('needs an address in quotes, for example "support@example.com"')
    address = value.strip()
    local, _, domain = address.rpartition("@")
    if not _ADDRESS.fullmatch(address) or len(address) > 254 or ".." in address or not _is_domain(domain):
        raise ValueError(f'"{value}" is not an e-mail address')
    if local.startswith(".") or local.endswith("."):
        raise ValueError(f'"{value}" is not an e-mail address: its name part begins or ends with a dot')
    return address


def _is_domain(domain: str) -> bool:
    """Letters of any script are welcome (RFC 6531); the rest is as ever."""
    ascii_form = re.sub(r"[^\x00-\x7f]", "x", domain)
    return _is_host(ascii_form) and not domain.endswith(".")


def parse_address_pattern(value: object) -> str:
    """Return an address or `*@domain`, lower case."""
    if not isinstance(value, str):
        raise ValueError('needs an address or "*@domain" in quotes')
    pattern = value.strip().lower()
    if "@" not in pattern:
        raise ValueError(f'"{value}" has no @; for a whole domain write "*@{pattern.lstrip("*.") or "example.com"}"')
    if re.search(r"\s", pattern) or pattern.startswith("@") or pattern.endswith("@"):
        raise ValueError(f'"{value}" is neither an address nor "*@domain"')
    return pattern


def parse_name(value: object) -> str:
    """Return a name as people see it: one line, not empty."""
    if not isinstance(value, str):
        raise ValueError("needs text in quotes")
    name = value.strip()
    if not name:
        raise ValueError("must not be empty")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise ValueError("must be one line without control characters")
    return name


def parse_word(value: object) -> str:
    """Return a login or id: no spaces."""
    word = parse_name(value)
    if re.search(r"\s", word):
        raise ValueError(f'"{word}" must not contain spaces')
    return word


def parse_queue(value: object) -> str:
    queue = parse_name(value)
    if queue.lower().startswith("agent:"):
        raise ValueError(f'"{queue}" is reserved: "agent:…" are the personal queues of agents')
    return queue


def parse_variables(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError('needs a table, for example { phone = "+351 21 000 0000" }')
    for name, text in value.items():
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f'"{name}" cannot be used in a template; use letters, digits and _')
        if name in RESERVED_VARIABLES:
            raise ValueError(f'"{name}" is built in and cannot be a variable of your own; choose another name')
        if not isinstance(text, str):
            raise ValueError(f'"{name}" needs text in quotes')
    return dict(value)


def parse_time_zone(value: object) -> ZoneInfo:
    if isinstance(value, ZoneInfo):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError('needs the name of a time zone, for example "Europe/Lisbon"')
    try:
        return ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(value, available_timezones(), n=1, cutoff=0.6)
        hint = f'; did you mean "{close[0]}"?' if close else '; write for example "Europe/Lisbon" or "UTC"'
        raise ValueError(f'there is no time zone "{value}"{hint}') from None


# --- patterns --------------------------------------------------------------------------------------------------------


def expression_of(pattern: str) -> str | None:
    """Return the regular expression in `/…/`, or None when `pattern` is a glob."""
    return pattern[1:-1] if len(pattern) > 2 and pattern[0] == "/" == pattern[-1] else None


def compile_expression(expression: str) -> Any:
    """Return the compiled expression: case-insensitive, linear time. Raises ValueError with the library's reason."""
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    try:
        return re2.compile(expression, options)
    except (re2.error, UnicodeError) as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"the regular expression /{expression}/ cannot be used: {text}") from None


def parse_pattern(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('needs a pattern in quotes, for example "*invoice*" or "/^re: /"')
    if not value:
        raise ValueError('an empty pattern matches nothing useful; write "*" for anything')
    if (expression := expression_of(value)) is not None:
        compile_expression(expression)
    return value


def one_or_many(value: object) -> object:
    """A list means "any of", and a list of one may go without its brackets."""
    return value if isinstance(value, list | tuple) else (value,)


def some(found: tuple[object, ...]) -> tuple[object, ...]:
    if not found:
        raise ValueError("an empty list matches nothing; leave the key out or name something")
    return found


# --- the types of fields ---------------------------------------------------------------------------------------------

Flag = StrictBool
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]
Duration = Annotated[timedelta, PlainValidator(parse_duration)]
Size = Annotated[int, PlainValidator(parse_size)]
TimeZone = Annotated[ZoneInfo, PlainValidator(parse_time_zone)]
HostName = Annotated[str, PlainValidator(parse_host_name)]
Address = Annotated[str, PlainValidator(parse_address)]
AddressPattern = Annotated[str, PlainValidator(parse_address_pattern)]
Name = Annotated[str, PlainValidator(parse_name)]
Word = Annotated[str, PlainValidator(parse_word)]
QueueName = Annotated[str, PlainValidator(parse_queue)]
Variables = Annotated[dict[str, str], PlainValidator(parse_variables)]
Pattern = Annotated[str, PlainValidator(parse_pattern)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(one_or_many), AfterValidator(some)]
