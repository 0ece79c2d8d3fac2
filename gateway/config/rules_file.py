"""rules.toml: what happens to mail. Attribute names are the keys; every default stands here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.config import hours
from gateway.config.base import Model
from gateway.config.conditions import All, If
from gateway.config.files import Content, Files, Image
from gateway.config.gateway_file import parse_path
from gateway.config.providers import NOT_YET, PROFILES, RECONNECT_WITHOUT_TOKEN, Profile, SentCopy
from gateway.config.secrets import Secret, SecretRef
from gateway.config.values import (
    Address,
    AddressPattern,
    Count,
    Duration,
    Flag,
    Name,
    QueueName,
    Server,
    TimeZone,
    Variables,
    Word,
    choose,
    one_or_many,
    parse_address,
    parse_duration,
    parse_name,
    parse_server,
    some,
    suggest,
)
from gateway.markup.files import file_pictures
from gateway.model import REPLY_TO, Answering, Priority

ImapServer = Annotated[Server, PlainValidator(partial(parse_server, protocol="imap"))]
SmtpServer = Annotated[Server, PlainValidator(partial(parse_server, protocol="smtp"))]


# --- text that may stand in a file ---------------------------------------------------------------------------------


def parse_content(value: object, info: ValidationInfo) -> Content:
    """Return the text itself, or that of the file which "file:…" names."""
    if isinstance(value, Content):
        return value
    if not isinstance(value, str):
        raise ValueError('needs text in quotes, or "file:PATH"')
    if not value.startswith("file:"):
        return Content(value)
    context = info.context or {}
    files: Files = context.get("files") or Files()
    return files.text(context.get("directory", Path()) / Path(value.removeprefix("file:").strip()).expanduser())


Text = Annotated[str, PlainValidator(parse_content)]


def _authority(value: object, info: ValidationInfo) -> Path | None:
    """Return the file to open at each connection, which is the kept one where a copy of the rules is loaded."""
    path = parse_path(value, info)
    files: Files | None = (info.context or {}).get("files")
    return files.where(path) if path is not None and files is not None else path


def _find_images(html: str, info: ValidationInfo) -> dict[str, Image]:
    """Return the images that load; what is wrong with the others is said by the checks, with their line."""
    context = info.context or {}
    files: Files = context.get("files") or Files()
    directory = image_directory(html, context.get("directory", Path()))
    found = {}
    for source, _ in file_pictures(html):
        try:
            found[source] = files.image(directory / source)
        except ValueError:
            continue
    return found


def image_directory(html: str, otherwise: Path) -> Path:
    """Return where the relative names in `html` begin: at the file that holds it."""
    file = getattr(html, "file", None)
    return file.parent if isinstance(file, Path) else otherwise


class _Composed(Model):
    html: Text = ""
    text: Text = ""
    _images: dict[str, Image] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _load_images(self, info: ValidationInfo) -> Self:
        self._images = _find_images(self.html, info)
        return self

    @property
    def images(self) -> Mapping[str, Image]:
        """By what stands behind `file:` in the `src` of an `<img>`."""
        return self._images

    @property
    def html_file(self) -> Path | None:
        return getattr(self.html, "file", None)

    @property
    def text_file(self) -> Path | None:
        return getattr(self.text, "file", None)


# --- touchpoints -----------------------------------------------------------------------------------------------------


class Pace(Model):
    """Messages out, and recipients of one transaction. None: no limit known."""

    connections: Count = 2
    per_minute: Count | None = None
    per_day: Count | None = None
    per_connection: Count | None = None
    recipients: Count | None = None


def _renewal(value: timedelta) -> timedelta:
    if value > timedelta(minutes=29):
        raise ValueError("must be 29 min at most: servers may drop an idle connection after 30 (RFC 2177)")
    return value


def _reconnect(value: timedelta) -> timedelta:
    if value < timedelta(minutes=5):
        raise ValueError("must be 5 min at least: providers take a login for each as an attack")
    return value


def _special_folder(value: object) -> str:
    return "" if isinstance(value, str) and not value.strip() else parse_name(value)


class Watch(Model):
    """How to watch, with what the provider's profile knows filled in.

    `poll`: how often to look without believing IDLE; where there is none, a minute is the longest. `reconnect`: a
    planned new session; None: before the token runs out. `junk`, `sent`: folders; None: find them
    (`inbound.folders`); "": do not watch.
    """

    poll: Duration = timedelta(minutes=10)
    renew_idle: Annotated[Duration, AfterValidator(_renewal)] = timedelta(minutes=24)
    idle: Flag = True
    reconnect: Annotated[Duration, AfterValidator(_reconnect)] | None = timedelta(hours=12)
    junk: Annotated[str, PlainValidator(_special_folder)] | None = None
    sent: Annotated[str, PlainValidator(_special_folder)] | None = None


class Dkim(Model):
    selector: Word
    domain: Word
    private_key: Secret

    @field_validator("private_key")
    @classmethod
    def _is_named(cls, value: SecretRef | None) -> SecretRef:
        if value is None:
            raise ValueError('must name the key, for example "file:dkim.pem"')
        return value


class Signature(_Composed):
    """`html`, `text`: the text itself, also where a file was named. "" means absent."""

    active: Flag = False
    when: Literal["always", "first"] = "always"
    strip_client_signature: Flag = False
    conditional_comments: Flag = True


def _hours_or_always(value: object) -> str:
    if value == "always":
        return "always"
    name, colon, state = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not (colon and name and state in ("open", "closed")):
        raise ValueError('needs "always", or the name of hours and a state such as "office:closed"')
    return f"{name}:{state}"


class AutoReply(_Composed):
    active: Flag = False
    subject: StrictStr = ""
    on: Literal["new-conversation", "every-message"] = "new-conversation"
    every: Duration = timedelta(days=7)
    max_age: Duration = timedelta(days=2)
    most_per_hour: Count = 60
    when: Annotated[str, PlainValidator(_hours_or_always)] = "always"
    conditional_comments: Flag = True


def _provider(value: object) -> str:
    if isinstance(value, str) and value in PROFILES:
        return value
    if not isinstance(value, str):
        raise ValueError("needs text in quotes")
    if value in NOT_YET:
        raise ValueError(f'"{value}" is not available yet; use {choose(PROFILES)}')
    raise ValueError(f'unknown provider "{value}"{suggest(value, PROFILES)}')


def _from_name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("needs text in quotes")
    if value not in ("touchpoint", "client") and "{{" not in value:
        hint = suggest(value, ("touchpoint", "client"))
        raise ValueError(
            f'"{value}" is neither "touchpoint" nor "client" nor a template with {{{{ … }}}}'
            + (hint if "mean" in hint else "")
        )
    return value


def _history(value: object) -> str | timedelta:
    if value in ("new", "all"):
        return str(value)
    if isinstance(value, str) and not any(letter.isdigit() for letter in value):
        hint = suggest(value, ("new", "all"))
        raise ValueError(f'"{value}" is neither "new" nor "all" nor a time such as "30 days"{hint}')
    return parse_duration(value)


def _after_fetch(value: object) -> str:
    if value in ("keep", "seen"):
        return str(value)
    if isinstance(value, str) and value.startswith("move:") and value.removeprefix("move:").strip():
        return f"move:{value.removeprefix('move:').strip()}"
    hint = suggest(value, ("keep", "seen")) if isinstance(value, str) else ""
    raise ValueError(f'needs "keep", "seen" or "move:FOLDER"{hint if "mean" in hint else ""}')


class Touchpoint(Model):
    """All defaults are resolved: `id`, `imap_login`, `smtp_login`, `auth` and what the provider's profile knows.
    `imap`, `smtp` are None only where the direction does not need them.
    """

    id: Word
    address: Address
    name: Name
    from_name: Annotated[str, PlainValidator(_from_name)] = "touchpoint"
    active: Flag = False
    direction: Literal["inbound", "outbound", "both"] = "both"
    provider: Annotated[str, PlainValidator(_provider)] = "custom"
    imap: ImapServer | None = None
    smtp: SmtpServer | None = None
    login: Name
    imap_login: Name
    smtp_login: Name
    password: Secret = None
    auth: Literal["password", "oauth2"] = "password"
    ca_file: Annotated[Path | None, PlainValidator(_authority)] = None
    linked_queues: tuple[QueueName, ...] = ()
    aliases: tuple[Address, ...] = ()
    authserv_ids: tuple[Name, ...] = ()
    folders: Annotated[tuple[Name, ...], AfterValidator(some)] = ("INBOX",)
    history: Annotated[str | timedelta, PlainValidator(_history)] = "new"
    after_fetch: Annotated[str, PlainValidator(_after_fetch)] = "keep"
    sent_copy: SentCopy = "append"
    preview_roles: tuple[Name, ...] = ()
    pace: Pace = Pace()
    watch: Watch = Watch()
    dkim: Dkim | None = None
    variables: Variables = Field(default_factory=dict)
    signature: Signature | None = None
    auto_reply: AutoReply | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        filled: dict[str, Any] = dict(data)
        address = filled.get("address")
        if isinstance(address, str):
            # Lower case, so that a change of capitals is not a new touchpoint without a history.
            filled.setdefault("id", address.strip().lower())
            filled.setdefault("login", address.strip())
        if "login" in filled:
            filled.setdefault("imap_login", filled["login"])
            filled.setdefault("smtp_login", filled["login"])
        provider = filled.get("provider", "custom")
        profile = PROFILES.get(provider) if isinstance(provider, str) else None
        return _with_profile(filled, profile) if profile else filled

    @field_validator("linked_queues")
    @classmethod
    def _are_queues(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        if "linked" in queues:
            raise ValueError('"linked" is a word of rules, not a queue')
        return queues

    @property
    def is_inbound(self) -> bool:
        return self.direction != "outbound"

    @property
    def is_outbound(self) -> bool:
        return self.direction != "inbound"

    @property
    def profile(self) -> Profile:
        return PROFILES[self.provider]

    @property
    def addresses(self) -> frozenset[str]:
        """Its address and aliases, lower case: mail from and to these is ours."""
        return frozenset(each.lower() for each in (self.address, *self.aliases))


def _with_profile(filled: dict[str, Any], profile: Profile) -> dict[str, Any]:
    filled.setdefault("imap", profile.imap)
    filled.setdefault("smtp", profile.smtp)
    filled.setdefault("auth", profile.auth)
    filled.setdefault("sent_copy", _sent_copy(filled, profile))
    pace, watch = filled.get("pace", {}), filled.get("watch", {})
    if isinstance(pace, dict):
        keys = ("connections", "per_minute", "per_day", "per_connection", "recipients")
        filled["pace"] = {key: getattr(profile, key) for key in keys} | pace
    if isinstance(watch, dict):
        filled["watch"] = _watch(profile, filled["auth"]) | watch
    return filled


def _watch(profile: Profile, auth: object) -> dict[str, Any]:
    known: dict[str, Any] = {key: getattr(profile, key) for key in ("poll", "renew_idle", "idle", "reconnect")}
    if known["reconnect"] is None and auth == "password":
        known["reconnect"] = RECONNECT_WITHOUT_TOKEN
    return known


def _sent_copy(filled: dict[str, Any], profile: Profile) -> SentCopy:
    """Microsoft files the copy with whoever logged in: of a shared mailbox's mail its own Sent has none."""
    is_shared = filled.get("smtp_login") != filled.get("imap_login")
    return "append" if is_shared else profile.sent_copy


# --- the rest --------------------------------------------------------------------------------------------------------


class Hours(Model):
    """`timezone` None only before the load is complete: the default is the gateway's."""

    timezone: TimeZone | None = None
    open: tuple[hours.OpeningText, ...] = ()
    holidays: tuple[hours.Holiday, ...] = ()

    def is_open(self, at: datetime) -> bool:
        """Return whether it is open at the aware time `at`."""
        return hours.is_open(self.open, self.holidays, self.timezone or ZoneInfo("UTC"), at)


def _password_hash(value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not value.startswith("$argon2"):
        raise ValueError('needs a hash that begins with "$argon2", never the password; `mail-gateway passwd` makes one')
    return value


def _email(value: object) -> str:
    return "" if value == "" else parse_address(value)


class Agent(Model):
    """`touchpoints`: ids; None: those whose linked queues meet the ring groups. `password_hash` "": see the store.
    `email` "": notices by mail cannot reach this agent.
    """

    login: Word
    name: Name
    email: Annotated[str, PlainValidator(_email)] = ""
    active: Flag = True
    role: Name = "agent"
    ring_groups: tuple[QueueName, ...] = ()
    touchpoints: tuple[Name, ...] | None = None
    password_hash: Annotated[str, PlainValidator(_password_hash)] = Field(default="", repr=False)
    variables: Variables = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("email"):
            return data
        login = data.get("login")
        return data | {"email": login} if isinstance(login, str) and "@" in login else data


class Template(_Composed):
    name: Name
    touchpoints: tuple[Name, ...] | None = None


def _scanner(value: object) -> str:
    if value == "":
        return ""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        is_whole = bool(parts.hostname and parts.port) and parts.path in ("", "/") and "@" not in parts.netloc
    except ValueError:  # a port that is no number, a bracket without its other half
        is_whole = False
    if not is_whole or parts.scheme not in SCANNERS or parts.query or parts.fragment:
        raise ValueError('needs "rspamd+http://HOST:PORT" or "spamd://HOST:PORT"')
    return str(value)


def _patience(value: timedelta) -> timedelta:
    if value > timedelta(seconds=10):
        raise ValueError("must be 10 s at most: for so long mail may have to wait for its place")
    return value


def _score(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError("needs a number, for example 6.0")
    return float(value)


SCANNERS = ("rspamd+http", "rspamd+https", "spamd")
_RSPAMD_SCANS, _RSPAMD_LEARNS = 11333, 11334  # its worker, and its controller beside it, which alone takes lessons


class Spam(Model):
    """`scanner` "": none. `learn_at` "": where the scanner is."""

    blocklist: tuple[AddressPattern, ...] = ()
    allowlist: tuple[AddressPattern, ...] = ()
    scanner: Annotated[str, PlainValidator(_scanner)] = ""
    scanner_timeout: Annotated[Duration, AfterValidator(_patience)] = timedelta(seconds=5)
    learn_at: Annotated[str, PlainValidator(_scanner)] = ""
    learn_password: Secret = None
    quarantine_over: Annotated[float, PlainValidator(_score)] = 6.0
    on_dmarc_fail: Literal["tag", "quarantine"] = "tag"
    keep_quarantine: Duration = timedelta(days=30)

    @property
    def lessons_at(self) -> str:
        """Where lessons go, "" nowhere."""
        host, _, port = self.scanner.rstrip("/").rpartition(":")
        if self.learn_at or not (host.startswith("rspamd") and port == str(_RSPAMD_SCANS)):
            return self.learn_at or self.scanner
        return f"{host}:{_RSPAMD_LEARNS}"


def _parse_answering(value: object) -> Answering:
    if isinstance(value, bool):
        return value
    if value == REPLY_TO:
        return REPLY_TO
    raise ValueError(f'expected true, false or "{REPLY_TO}"')


class Action(Model):
    """What a rule does. Empty and None leave things as they are."""

    queue: Annotated[tuple[QueueName, ...], BeforeValidator(one_or_many), AfterValidator(some)] = ()
    priority: Priority | None = None
    tags: Annotated[tuple[Name, ...], BeforeValidator(one_or_many)] = ()
    quarantine: Flag | None = None
    discard: Flag = False
    auto_reply: Annotated[Answering, PlainValidator(_parse_answering)] | None = None
    reroute: Flag = False


class Rule(Model):
    """`touchpoints`: ids; None: all of them."""

    name: Name
    touchpoints: tuple[Name, ...] | None = None
    if_: If = Field(default=If(), alias="if")
    action: Action = Field(default=Action(), alias="then")
    stop: Flag = False

    @property
    def condition(self) -> All:
        return self.if_.tree


class RulesFile(Model):
    touchpoints: tuple[Touchpoint, ...] = Field(default=(), alias="touchpoint")
    hours: dict[str, Hours] = Field(default_factory=dict)
    agents: tuple[Agent, ...] = Field(default=(), alias="agent")
    templates: tuple[Template, ...] = Field(default=(), alias="template")
    spam: Spam = Spam()
    rules: tuple[Rule, ...] = Field(default=(), alias="rule")
