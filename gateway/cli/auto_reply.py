"""`auto-reply list | forget`: who has had an automatic answer, and who may have one again."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gateway.cli import arguments, client, show
from gateway.errors import CommandError


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "auto-reply", help="who has had an automatic reply, and who may have one again"
    ).add_subparsers(metavar="ACTION", required=True)
    listing = group.add_parser("list", parents=[config], help="whom an automatic reply keeps from the next one")
    listing.add_argument("touchpoint", metavar="TOUCHPOINT", nargs="?", help="only of this one")
    listing.add_argument("--all", action="store_true", help="also who may have the next one at once")
    listing.add_argument("--limit", type=arguments.one_or_more, metavar="N", help="the newest N")
    arguments.add_json(listing)
    listing.set_defaults(run=list_)
    forgetting = group.add_parser("forget", parents=[config], help="let them have one again before `every` is over")
    forgetting.add_argument("touchpoint", metavar="TOUCHPOINT", help="whose automatic replies")
    forgetting.add_argument("address", metavar="ADDRESS", nargs="?", help="of the sender")
    forgetting.add_argument("--all", action="store_true", help="everybody")
    forgetting.set_defaults(run=forget)


def list_(options: argparse.Namespace) -> int:
    found = client.ask(
        options.config, "auto-reply.list", touchpoint=options.touchpoint, all=options.all, limit=options.limit
    )
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("TOUCHPOINT", "ADDRESS", "ANSWERED", "AGAIN", "OUTBOX"),
        (
            (one["touchpoint"], one["address"], show.ago(one["at"]), show.ago(one["until"]), one["outbox"] or "-")
            for one in found
        ),
    )
    if not found:
        print("nobody has had an automatic reply" + ("" if options.all else " lately"), file=sys.stderr)
    return 0


def forget(options: argparse.Namespace) -> int:
    if (options.address is None) != options.all:
        raise CommandError("name one ADDRESS, or --all for everybody", 2)
    done = client.ask(options.config, "auto-reply.forget", touchpoint=options.touchpoint, address=options.address)
    count = done["forgotten"]
    who = done["address"] or ("1 sender" if count == 1 else f"{count} senders")
    print(f"{who} may have an automatic reply of {done['touchpoint']} again")
    return 0
