"""What the files say together: names that nothing has, things that are there twice, files that cannot be used.

Each check is a generator of problems over the draft; they run also when single keys are wrong, so that one look finds
everything. A key that is wrong already is not complained about twice.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from gateway.config import content, dkim, pending, reach, replies, scanning, watching
from gateway.config.document import Document
from gateway.config.draft import Draft, Entry
from gateway.config.files import why_unreadable
from gateway.config.positions import Path
from gateway.config.rules_file import Touchpoint
from gateway.config.secrets import SecretRef
from gateway.config.values import Listener, parse_server, suggest
from gateway.errors import Problem, Severity
from gateway.model import UNROUTED

_OAUTH_KNOWN = frozenset({"microsoft", "gmail", "google", "yahoo", "aol", "fastmail"})


def find_problems(draft: Draft) -> Iterator[Problem]:
    """Yield what is wrong beyond single keys, what looks mistaken, and what the admin should know."""
    if (gateway := draft.gateway_document) is not None:
        yield from _check_listeners(draft, gateway)
        yield from _check_certificates(draft, gateway)
        yield from _check_limits(draft, gateway)
        yield from _check_oauth(draft, gateway)
        yield from _check_secrets(gateway, _gateway_secrets(draft))
        yield from _not_in_force(gateway, pending.GATEWAY)
    if (rules := draft.rules_document) is not None:
        yield from _check_twice(draft, rules)
        yield from watching.find_problems(draft, rules)
        yield from _check_touchpoints(draft, rules)
        yield from dkim.find_problems(draft, rules)
        yield from _check_touchpoint_names(draft, rules)
        yield from _check_queue_names(draft, rules)
        yield from _check_hours_names(draft, rules)
        yield from _check_secrets(rules, _rules_secrets(draft))
        yield from content.find_problems(draft, rules)
        yield from replies.find_problems(draft, rules)
        yield from scanning.find_problems(draft, rules)
        yield from reach.find_problems(draft, rules)
        yield from _not_in_force(rules, pending.RULES)
    if draft.gateway_document is not None and draft.rules_document is not None and not draft.files.is_copy:
        yield from _check_via(draft, draft.gateway_document)


# --- gateway.toml ----------------------------------------------------------------------------------------------------


def _check_listeners(draft: Draft, document: Document) -> Iterator[Problem]:
    gateway = draft.gateway
    taken: dict[tuple[str | None, int], str] = {}
    http = (gateway.http.listen,) if gateway.http.listen and document.at(("http", "listen")) else ()
    listeners: dict[str, tuple[Listener, ...]] = {
        "submission": gateway.submission.listen,
        "imap": gateway.imap.listen,
        "http": http,
    }
    for section, found in listeners.items():
        for index, listener in enumerate(found):
            path: Path = (section, "listen") if section == "http" else (section, "listen", index)
            place = (listener.host, listener.port)
            if listener.port and place in taken:
                yield document.problem(path, f"{listener} and {taken[place]} want the same port; give each its own")
            taken.setdefault(place, str(listener))
    if not gateway.submission.listen and document.at(("submission", "listen")) is None:
        yield document.problem(
            ("submission",),
            "agents cannot send: in [submission] set certificate and private_key (then the ports are 465 and 587)",
            Severity.NOTICE,
        )


def _check_certificates(draft: Draft, document: Document) -> Iterator[Problem]:
    gateway = draft.gateway
    for section, model in (("submission", gateway.submission), ("imap", gateway.imap)):
        written = document.at((section,))
        if not isinstance(written, dict):
            continue
        certificate, key = model.certificate, model.private_key
        if (certificate is None) != (key is None):
            missing, there = ("private_key", "certificate") if certificate else ("certificate", "private_key")
            yield document.problem((section, there), f'[{section}] has a {there} but no {missing}; add {missing} = "…"')
            continue
        if certificate is not None and key is not None:
            yield from _check_pair(document, section, certificate, key)
        needs = [each for each in model.listen if not each.scheme.endswith("+insecure")]
        inherits = section == "imap" and gateway.submission.certificate is not None
        if needs and certificate is None and not inherits:
            yield document.problem(
                (section, "listen"),
                f"{needs[0]} needs a certificate; add certificate and private_key to [{section}],"
                " or listen on loopback only with …+insecure",
            )


def _check_pair(document: Document, section: str, certificate: FilePath, key: FilePath) -> Iterator[Problem]:
    readable = True
    for name, path in (("certificate", certificate), ("private_key", key)):
        try:
            path.open("rb").close()
        except PermissionError:
            readable = False  # `check` may be run by somebody who must not see the key; the daemon tells at start
            yield document.problem(
                (section, name), f"{path} cannot be read by this user; the daemon must be able to", Severity.WARNING
            )
        except OSError as error:
            readable = False
            yield document.problem((section, name), f"{name} {path} {why_unreadable(error)}")
    if not readable:
        return
    try:
        # The empty password keeps OpenSSL from asking the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"{key} is not the key of {certificate}; name a pair that belongs together"
        else:
            message = f"{certificate} and {key} cannot be used; both must be PEM, the key without a password"
        yield document.problem((section, "private_key"), message)
    except (OSError, ValueError):
        yield document.problem((section, "private_key"), f"{certificate} and {key} cannot be used; both must be PEM")


def _check_limits(draft: Draft, document: Document) -> Iterator[Problem]:
    outbound = draft.gateway.outbound
    if outbound.delay_notice_after >= outbound.give_up_after:
        key = "delay_notice_after" if document.at(("outbound", "delay_notice_after")) else "give_up_after"
        yield document.problem(
            ("outbound", key),
            "nobody will be told of a delay: delay_notice_after is not shorter than give_up_after",
            Severity.WARNING,
        )


def _check_oauth(draft: Draft, document: Document) -> Iterator[Problem]:
    for name, application in draft.gateway.oauth.items():
        path = ("oauth", name)
        if not application.client_id and application.service_account is None:
            yield document.problem(path, f'[oauth.{name}] has no client_id; add client_id = "…"')
        if name not in _OAUTH_KNOWN:
            for key in ("authorize_url", "token_url"):
                if not getattr(application, key):
                    hint = suggest(name, _OAUTH_KNOWN)
                    hint = hint if "did you mean" in hint else ""
                    yield document.problem(path, f"[oauth.{name}] is not built in and has no {key}; add it{hint}")


def _check_via(draft: Draft, document: Document) -> Iterator[Problem]:
    via = draft.gateway.notifications.via
    path = ("notifications", "via")
    if not via:
        return
    if "://" in via:
        try:
            parse_server(via, "smtp")
        except ValueError as error:
            yield document.problem(path, f"notifications.via: {error}")
    elif draft.id_of(via) is None:
        yield document.problem(path, f'unknown touchpoint "{via}"{suggest(via, draft.touchpoint_names)}')


# --- twice -----------------------------------------------------------------------------------------------------------


def _check_twice(draft: Draft, document: Document) -> Iterator[Problem]:
    ids: dict[str, Path] = {}
    addresses: dict[str, Path] = {}
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None:
            continue
        id_path = (*entry.path, "id") if entry.has("id") else (*entry.path, "address")
        # Without an id of its own it is known by its address, and that is compared below.
        if (entry.has("id") or touchpoint.id.lower() not in addresses) and touchpoint.id.lower() in ids:
            other = document.line(ids[touchpoint.id.lower()])
            yield document.problem(id_path, f'the id "{touchpoint.id}" is that of line {other} too; choose another')
        ids.setdefault(touchpoint.id.lower(), id_path)
        yield from _check_addresses(document, entry, touchpoint, addresses)
    yield from _check_names(document, draft.agents, "login", "agent", Severity.ERROR)
    yield from _check_names(document, draft.templates, "name", "template", Severity.ERROR)
    yield from _check_names(document, draft.rules, "name", "rule", Severity.WARNING)


def _check_addresses(
    document: Document, entry: Entry[Touchpoint], touchpoint: Touchpoint, taken: dict[str, Path]
) -> Iterator[Problem]:
    paths: list[tuple[str, Path]] = [(touchpoint.address, (*entry.path, "address"))]
    paths += [(alias, (*entry.path, "aliases", index)) for index, alias in enumerate(touchpoint.aliases)]
    for address, path in paths:
        if (other := taken.get(address.lower())) is not None:
            yield document.problem(
                path,
                f'the address "{address}" is on line {document.line(other)} too; it can belong to one touchpoint only',
            )
        taken.setdefault(address.lower(), path)


def _check_names(document: Document, entries: list[Any], key: str, kind: str, severity: Severity) -> Iterator[Problem]:
    seen: dict[str, Path] = {}
    for entry in entries:
        name = getattr(entry.model, key, None)
        if name is None:
            continue
        path = (*entry.path, key)
        if name.lower() in seen:
            other = document.line(seen[name.lower()])
            yield document.problem(
                path, f'{kind} "{name}" is there twice, the first on line {other}; give each its own {key}', severity
            )
        seen.setdefault(name.lower(), path)


# --- touchpoints -----------------------------------------------------------------------------------------------------


def _check_touchpoints(draft: Draft, document: Document) -> Iterator[Problem]:
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None:
            continue
        shown = f'touchpoint "{touchpoint.id}"'
        if touchpoint.is_inbound and not touchpoint.linked_queues and "linked_queues" not in entry.wrong:
            yield document.problem(
                (*entry.path, "linked_queues"),
                f'{shown} has no linked queue, so its mail would have no place; add linked_queues = ["…"],'
                ' or direction = "outbound"',
            )
        for key, needed, verb in (
            ("imap", touchpoint.is_inbound, "receives"),
            ("smtp", touchpoint.is_outbound, "sends"),
        ):
            if needed and getattr(touchpoint, key) is None and not {key, "provider", "direction"} & entry.wrong:
                yield document.problem(
                    entry.path,
                    f'{shown} {verb} but names no server; add {key} = "{key}s://{key}.example.com", or a provider',
                )
        is_mute = not touchpoint.is_inbound and touchpoint.imap is None
        if is_mute and not {"imap", "provider", "direction"} & entry.wrong:
            yield document.problem(
                entry.path,
                f"{shown} only sends and names no imap: what may have left when a connection broke waits for a person,"
                " and no copies go into its Sent folder; name the server if there is one",
                Severity.NOTICE,
            )
        if touchpoint.ca_file is not None:
            yield from _check_authority(draft, document, (*entry.path, "ca_file"), touchpoint.ca_file)
        lacks_password = touchpoint.password is None and "password" not in entry.wrong
        if touchpoint.active and touchpoint.auth == "password" and lacks_password:
            yield document.problem(
                entry.path, f'{shown} is active and has no password; add password = "file:…"', Severity.WARNING
            )
        if touchpoint.auth == "oauth2" and not entry.has("auth"):
            yield document.problem(
                (*entry.path, "provider"),
                f"{shown} would log in by OAuth 2.0, which is not yet in force;"
                ' where the provider still takes app passwords, set auth = "password"',
                Severity.NOTICE,
            )


def _check_authority(draft: Draft, document: Document, path: Path, file: FilePath) -> Iterator[Problem]:
    try:
        text = draft.files.text(file)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=str(text))
    except ssl.SSLError:
        yield document.problem(
            path, f"ca_file {file} holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)"
        )
    except ValueError as error:
        yield document.problem(path, f"ca_file {error}")


# --- names -----------------------------------------------------------------------------------------------------------


def _check_touchpoint_names(draft: Draft, document: Document) -> Iterator[Problem]:
    entries: list[Entry[Any]] = [*draft.rules, *draft.agents, *draft.templates]
    for entry in entries:
        for index, name in enumerate(getattr(entry.model, "touchpoints", None) or ()):
            if draft.id_of(name) is None:
                hint = suggest(name, draft.touchpoint_names)
                yield document.problem((*entry.path, "touchpoints", index), f'unknown touchpoint "{name}"{hint}')


def _check_queue_names(draft: Draft, document: Document) -> Iterator[Problem]:
    names = draft.gateway.queues.names
    if names is None:
        return
    known = {*names, UNROUTED}
    for name, path in reach.named_queues(draft):
        if name not in known:
            yield document.problem(path, f'unknown queue "{name}"{suggest(name, known)}')


def _check_hours_names(draft: Draft, document: Document) -> Iterator[Problem]:
    for state, path in _named_hours(draft):
        name = state.rpartition(":")[0]
        if name and name not in draft.hours:
            hint = suggest(name, draft.hours) or "; add a table [hours." + name + "]"
            yield document.problem(path, f'unknown hours "{name}"{hint}')


def _named_hours(draft: Draft) -> Iterator[tuple[str, Path]]:
    for touchpoint in draft.touchpoints:
        reply = touchpoint.model.auto_reply if touchpoint.model else None
        if reply is not None and reply.when != "always":
            yield reply.when, (*touchpoint.path, "auto_reply", "when")
    for rule in draft.rules:
        if rule.model is not None and isinstance(rule.raw, dict):
            yield from _hours_in(rule.raw.get("if"), (*rule.path, "if"))


def _hours_in(written: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Walk the conditions as written: there is the place of each."""
    if isinstance(written, list):
        for index, each in enumerate(written):
            yield from _hours_in(each, (*path, index))
    elif isinstance(written, dict):
        for key in ("all", "any", "not"):
            yield from _hours_in(written.get(key), (*path, key))
        states = written.get("hours")
        if isinstance(states, str):
            yield states, (*path, "hours")
        elif isinstance(states, list):
            yield from (
                (state, (*path, "hours", index)) for index, state in enumerate(states) if isinstance(state, str)
            )


# --- secrets ---------------------------------------------------------------------------------------------------------


def _gateway_secrets(draft: Draft) -> Iterator[tuple[SecretRef | None, Path]]:
    for name, application in draft.gateway.oauth.items():
        for key in ("client_secret", "certificate", "service_account"):
            yield getattr(application, key), ("oauth", name, key)


def _rules_secrets(draft: Draft) -> Iterator[tuple[SecretRef | None, Path]]:
    for entry in draft.touchpoints:
        if entry.model is not None:
            yield entry.model.password, (*entry.path, "password")
            if entry.model.dkim is not None:
                yield entry.model.dkim.private_key, (*entry.path, "dkim", "private_key")
    if draft.spam is not None and draft.spam.model is not None:
        yield draft.spam.model.learn_password, ("spam", "learn_password")


def _check_secrets(document: Document, secrets: Iterator[tuple[SecretRef | None, Path]]) -> Iterator[Problem]:
    """A secret that is missing today stops one touchpoint, not the reload of all: so these are warnings."""
    for secret, path in secrets:
        file = secret.path if secret is not None else None
        if file is None:
            continue
        try:
            mode = file.stat().st_mode
        except PermissionError:
            continue  # the daemon may be allowed what whoever runs `check` is not
        except OSError as error:
            yield document.problem(path, f"{file} {why_unreadable(error)}", Severity.WARNING)
            continue
        if mode & 0o004:
            yield document.problem(
                path, f"everybody on this machine can read {file}; run: chmod o-rwx {file}", Severity.WARNING
            )


# --- not yet in force ------------------------------------------------------------------------------------------------


def _not_in_force(document: Document, table: Mapping[str, tuple[Any, ...]]) -> Iterator[Problem]:
    for path, key in _pending_keys(document.data, table, (), ""):
        yield document.problem(path, f"{key} is not yet in force", Severity.NOTICE)


def _pending_keys(value: Any, table: Mapping[str, tuple[Any, ...]], path: Path, key: str) -> Iterator[tuple[Path, str]]:
    if key in table:
        if value not in ({}, *table[key]):
            yield path, key
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _pending_keys(each, table, (*path, index), key)
    elif isinstance(value, dict):
        for name, each in value.items():
            combines = key == "rule.if" and name in ("all", "any", "not")
            inner = key if combines else f"{key}.{name}".removeprefix(".")
            yield from _pending_keys(each, table, (*path, name), inner)
