"""`quarantine list | release | confirm`: mail that is kept from the queues until a person has looked."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gateway.cli import arguments, block, client, show
from gateway.text import clean


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("quarantine", help="mail that is kept from the queues").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = group.add_parser("list", parents=[config], help="what waits to be looked at")
    arguments.add_listing(listing)
    listing.set_defaults(run=list_)
    releasing = group.add_parser(
        "release", parents=[config], help="no spam: into its queues, and out of Junk at the provider"
    )
    confirming = group.add_parser("confirm", parents=[config], help="spam: it stays, and goes to Junk at the provider")
    for parser, run in ((releasing, release), (confirming, confirm)):
        parser.add_argument(
            "ids",
            nargs="+",
            metavar="ID",
            help="of a message, or of a conversation for all of it that is in quarantine",
        )
        parser.set_defaults(run=run)
    confirming.add_argument("--block", action="store_true", help="and block who sent it, for all touchpoints")


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "quarantine.list", all=options.all, limit=options.limit)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("ID", "TOUCHPOINT", "CAME", "FROM", "SUBJECT", "FOLDER", "CONFIRMED", "CAUSE"),
        (
            (
                *(m["id"], m["touchpoint"], show.ago(m["at"]), m["from"], m["subject"], m["folder"] or "-"),
                *(show.ago(m["reviewed_at"]), m["cause"]),
            )
            for m in found
        ),
    )
    if not found:
        print("nothing waits in quarantine" if not options.all else "nothing is in quarantine", file=sys.stderr)
    return 0


def release(options: argparse.Namespace) -> int:
    with client.asking(options.config) as ask:
        for id in options.ids:
            done = ask("quarantine.release", id=id)
            print(f"{id}: {_count(done)} released into {', '.join(done['queues']) or 'no queue'}")
    return 0


def confirm(options: argparse.Namespace) -> int:
    refused = 0
    with client.asking(options.config) as ask:
        for id in options.ids:
            done = ask("quarantine.confirm", id=id)
            print(f"{id}: {_count(done)} confirmed as spam")
            if options.block:
                refused += _block(ask("block.senders", messages=done["messages"]))
    return 1 if refused else 0


def _block(done: list[dict[str, Any]]) -> int:
    """Say whom that has blocked; return how many it could not."""
    for one in done:
        if "refused" in one:
            print(f"not blocked: {clean(one['refused'])}", file=sys.stderr)
        else:
            print(clean(block.told(one)))
    return sum("refused" in one for one in done)


def _count(done: dict[str, list[str]]) -> str:
    number = len(done["messages"])
    return f"{number} message{'s' * (number != 1)}"
