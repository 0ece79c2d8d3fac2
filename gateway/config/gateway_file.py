"""gateway.toml: how the daemon runs. Attribute names are the keys; every default stands here and nowhere else."""

from __future__ import annotations

import re
import socket
from datetime import date, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, PlainValidator, StrictStr, ValidationInfo, field_validator, model_validator

from gateway.config.base import Model
from gateway.config.secrets import Secret
from gateway.config.values import (
    Address,
    Count,
    Duration,
    HostName,
    Listener,
    Name,
    QueueName,
    Size,
    TimeZone,
    parse_http_listener,
    parse_listener,
)

# What a running daemon cannot take over: it answers so at reload. Everything else is applied by SIGHUP.
NEEDS_RESTART = frozenset(
    {
        "state_dir",
        "submission.listen",
        "imap.listen",
        "http.listen",
        "inbound.max_message_size",
        "log.level",
        "log.format",
    }
)


def parse_path(value: object, info: ValidationInfo) -> Path | None:
    """Return an absolute path (relative ones start at the file that names them), or None for ""."""
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("needs the path of a file in quotes")
    if value == "":
        return None
    directory: Path = (info.context or {}).get("directory", Path())
    return directory / Path(value.removeprefix("file:")).expanduser()


def _parse_needed_path(value: object, info: ValidationInfo) -> Path:
    path = parse_path(value, info)
    if path is None:
        raise ValueError("must not be empty")
    return path


def _parse_network(value: object) -> IPv4Network | IPv6Network:
    try:
        if isinstance(value, str | IPv4Network | IPv6Network):
            return ip_network(value, strict=False)
    except ValueError:
        pass
    raise ValueError(f'"{value}" is not a network; write for example "10.0.0.0/8" or "192.0.2.7"')


OptionalPath = Annotated[Path | None, PlainValidator(parse_path)]
NeededPath = Annotated[Path, PlainValidator(_parse_needed_path)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_parse_network)]
SubmissionListener = Annotated[Listener, PlainValidator(partial(parse_listener, protocol="smtp"))]
ImapListener = Annotated[Listener, PlainValidator(partial(parse_listener, protocol="imap"))]


_SUBMISSION_LISTENERS = ("smtps://:465", "smtp://:587")
_IMAP_LISTENERS = ("imaps://:993",)


def _with_default_listeners(data: Any, *listeners: str) -> Any:
    """Without a certificate there is no TLS, and without TLS we do not listen unless told exactly how."""
    if isinstance(data, dict) and "listen" not in data and data.get("certificate"):
        return data | {"listen": list(listeners)}
    return data


class Submission(Model):
    listen: tuple[SubmissionListener, ...] = ()
    certificate: OptionalPath = None
    private_key: OptionalPath = None
    max_message_size: Size = 35 * 10**6
    own_address: Literal["rewrite", "refuse"] = "rewrite"
    trusted_networks: tuple[Network, ...] = ()
    max_connections_per_address: Count = 200

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        return _with_default_listeners(data, *_SUBMISSION_LISTENERS)


class ImapAccess(Model):
    """`certificate`, `private_key` None: those of [submission]."""

    listen: tuple[ImapListener, ...] = ()
    certificate: OptionalPath = None
    private_key: OptionalPath = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        return _with_default_listeners(data, *_IMAP_LISTENERS)


class Http(Model):
    listen: Annotated[Listener | None, PlainValidator(parse_http_listener)] = Listener("http", "127.0.0.1", 8025)
    public_url: StrictStr = ""

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError('needs the address people reach us at, for example "https://gateway.example.com"')
        return value.rstrip("/")


_DNS_PORT = 53


def split_resolver(text: str) -> tuple[str, int]:
    """Return address and port of "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353".

    Raises ValueError for anything else.
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(text)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    number = int(port) if port else _DNS_PORT
    if not 0 < number < 65_536:
        raise ValueError(text)
    return str(ip_address(host)), number


def _parse_resolver(value: object) -> str:
    try:
        if isinstance(value, str):
            split_resolver(value)
            return value
    except ValueError:
        pass
    raise ValueError(f'"{value}" is no DNS server; write for example "192.0.2.53" or "127.0.0.1:5353"')


def _parse_domain(value: object) -> str:
    domain = value.strip().lower().rstrip(".") if isinstance(value, str) else ""
    if "." not in domain or re.search(r"[^a-z0-9._-]", domain):
        raise ValueError(f'"{value}" is no domain; write for example "example.com"')
    return domain


DnsServer = Annotated[str, PlainValidator(_parse_resolver)]
Domain = Annotated[str, PlainValidator(_parse_domain)]


class InboundLimits(Model):
    """`authentication`: "auto" asks the DNS where the provider says nothing about the sender, "provider" never does."""

    max_message_size: Size = 100 * 10**6
    authentication: Literal["auto", "provider"] = "auto"
    resolvers: tuple[DnsServer, ...] = ()
    trusted_sealers: tuple[Domain, ...] = ()


class OutboundLimits(Model):
    give_up_after: Duration = timedelta(days=5)
    delay_notice_after: Duration = timedelta(hours=4)
    source_address: StrictStr = ""

    @field_validator("source_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            return str(ip_address(value)) if value else ""
        except ValueError:
            raise ValueError(f'"{value}" is not an address of this host; write for example "192.0.2.7"') from None


class Queues(Model):
    """`names` None: whatever rules.toml names is a queue."""

    names: tuple[QueueName, ...] | None = None
    close_answered_after: Duration = timedelta(days=14)
    new_members_see: Literal["new", "open"] = "new"
    second_reply: Literal["refuse", "note"] = "refuse"
    release_claims_after: Duration = timedelta(days=3)

    @field_validator("names")
    @classmethod
    def _are_free(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if "linked" in (names or ()):
            raise ValueError('"linked" has a meaning of its own in rules; choose another name')
        return names


class StoreLimits(Model):
    retention: Duration = timedelta(days=365)


class Notifications(Model):
    to: tuple[Address, ...] = ()
    via: StrictStr = ""
    command: StrictStr = ""
    reauthentication_reminder: Duration = timedelta(days=14)


class OAuthApplication(Model):
    client_id: StrictStr = ""
    tenant: StrictStr = ""
    client_secret: Secret = None
    client_secret_expires: date | None = None
    certificate: Secret = None
    service_account: Secret = None
    authorize_url: StrictStr = ""
    token_url: StrictStr = ""
    scopes: tuple[Name, ...] = ()

    @field_validator("authorize_url", "token_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith("https://"):
            raise ValueError('needs an address that begins with "https://"')
        return value

    @field_validator("client_secret_expires", mode="before")
    @classmethod
    def _is_date(cls, value: object) -> date | None:
        if value is None or type(value) is date:
            return value
        try:
            return date.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            raise ValueError("needs a day, for example 2027-11-23") from None


class Log(Model):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "journal", "json"] = "auto"


class GatewayFile(Model):
    hostname: HostName = Field(default_factory=socket.gethostname)
    state_dir: NeededPath = Path("/var/lib/mail-gateway")
    rules: NeededPath = Path("rules.toml")
    timezone: TimeZone = ZoneInfo("UTC")
    submission: Submission = Submission()
    imap: ImapAccess = ImapAccess()
    http: Http = Http()
    inbound: InboundLimits = InboundLimits()
    outbound: OutboundLimits = OutboundLimits()
    queues: Queues = Queues()
    store: StoreLimits = StoreLimits()
    notifications: Notifications = Notifications()
    oauth: dict[str, OAuthApplication] = Field(default_factory=dict)
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any, info: ValidationInfo) -> Any:
        """The default of `rules` lies beside the file, and [imap] has the certificate of [submission]."""
        if not isinstance(data, dict) or not info.context:
            return data
        filled: dict[str, Any] = {"rules": "rules.toml"} | data
        submission: Any = filled.get("submission")
        imap: Any = filled.get("imap", {})
        if isinstance(submission, dict) and isinstance(imap, dict) and submission.get("certificate"):
            filled["imap"] = {"listen": list(_IMAP_LISTENERS)} | imap
        return filled
