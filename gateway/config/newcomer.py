"""What the table of a new touchpoint says when an admin has said only part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_PROVIDERS: Final = {
    "gmail": ("gmail.com", "googlemail.com"),
    "microsoft": ("outlook.com", "hotmail.com", "live.com", "msn.com"),
    "yahoo": ("yahoo.com", "ymail.com", "rocketmail.com"),
    "aol": ("aol.com",),
    "icloud": ("icloud.com", "me.com", "mac.com"),
    "fastmail": ("fastmail.com", "fastmail.fm"),
}
_PROVIDER_OF: Final = {domain: provider for provider, domains in _PROVIDERS.items() for domain in domains}
_SERVER_KEYS: Final = ("provider", "imap", "smtp", "auth", "ca_file")


@dataclass(frozen=True, slots=True)
class Newcomer:
    """`table`: as it is to be written. `remarks`: what was taken for granted, a line each."""

    table: Mapping[str, Any]
    remarks: tuple[str, ...]


def compose(said: Mapping[str, Any], data: Mapping[str, Any]) -> Newcomer:
    """Return the table for `said`, the keys that the admin named (address and name at least).

    `data`: rules.toml as it is: a touchpoint of the same domain is most likely at the same servers.
    """
    address = str(said["address"])
    local, _, domain = address.lower().rpartition("@")
    found: dict[str, Any] = dict(said)
    remarks: list[str] = []
    if not {"provider", "imap", "smtp"} & said.keys():
        servers, remark = _servers(domain, found.get("direction", "both"), data)
        found |= {key: value for key, value in servers.items() if key not in said}
        remarks.append(remark)
    if "linked_queues" not in said and found.get("direction") != "outbound":
        queue = local.partition("+")[0]
        found["linked_queues"] = [queue]
        remarks.append(f'its mail goes into queue "{queue}"; --queue names another')
    found.setdefault("active", False)
    order = ("id", "address", "name", "active", "direction", *_SERVER_KEYS, "login", "password", "linked_queues")
    return Newcomer({key: found[key] for key in order if key in found}, tuple(remarks))


def _servers(domain: str, direction: str, data: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    needed = {"imap": direction != "outbound", "smtp": direction != "inbound"}
    tables = data.get("touchpoint", ())
    for table in tables if isinstance(tables, list) else ():
        if isinstance(table, dict) and str(table.get("address", "")).lower().rpartition("@")[2] == domain:
            servers = {key: table[key] for key in _SERVER_KEYS if key in table}
            if table.get("provider", "custom") != "custom" or all(servers.get(key) for key in needed if needed[key]):
                return servers, f"its servers are those of {table['address']}"
    if domain in _PROVIDER_OF:
        return {"provider": _PROVIDER_OF[domain]}, f'its provider is "{_PROVIDER_OF[domain]}", after its domain'
    guessed = {key: f"{key}s://{key}.{domain}" for key in needed if needed[key]}
    return guessed, f"its servers are a guess, look at them before it is active: {', '.join(guessed.values())}"
