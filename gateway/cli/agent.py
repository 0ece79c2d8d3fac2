"""`agent list | show`, `passwd`."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from gateway.cli import arguments, client, show
from gateway.errors import CommandError

_SHORTEST_PASSWORD = 8


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("agent", help="who may log in, and what they may do").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = group.add_parser("list", parents=[config], help="every agent, a line each")
    arguments.add_json(listing)
    listing.set_defaults(run=list_)
    showing = group.add_parser("show", parents=[config], help="one agent: may write as, sees, last login, failures")
    showing.add_argument("login", help="of an agent in rules.toml")
    arguments.add_json(showing)
    showing.set_defaults(run=show_)
    passing = commands.add_parser("passwd", parents=[config], help="set an agent's password")
    passing.add_argument("login", help="of an agent in rules.toml")
    passing.set_defaults(run=passwd)


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "agent.list")
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("LOGIN", "NAME", "ROLE", "ACTIVE", "PASSWORD", "MAY WRITE AS", "SEES", "LAST LOGIN"),
        (
            (
                a["login"],
                a["name"],
                a["role"],
                "yes" if a["active"] else "no",
                "set" if a["has_password"] else "none",
                ",".join(a["may_write_as"]) or "-",
                ",".join(queue for queue in a["sees"] if not queue.startswith("agent:")) or "notices",
                show.ago(a["last_login_at"]),
            )
            for a in found
        ),
    )
    if not found:
        print("no agent is configured; add [[agent]] to rules.toml, then: mail-gateway reload", file=sys.stderr)
    return 0


def show_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "agent.show", login=options.login)
    if options.json:
        show.as_json(found)
        return 0
    show.facts(found, found)
    return 0


def passwd(options: argparse.Namespace) -> int:
    from gateway.outbound.passwords import hash_password  # argon2 and more: slow to import

    client.ask(options.config, "agent.passwd", login=options.login)  # would it be taken? before anybody types
    if sys.stdin.isatty():
        password = getpass.getpass(f"New password for {options.login}: ")
        if password != getpass.getpass("Again: "):
            raise CommandError("the two passwords differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < _SHORTEST_PASSWORD:
        raise CommandError(f"a password needs at least {_SHORTEST_PASSWORD} characters; nothing was changed")
    client.ask(options.config, "agent.passwd", login=options.login, hash=hash_password(password))
    print(f"the password of {options.login} is set")
    return 0
