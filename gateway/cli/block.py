"""`block list | add | remove`, `block ADDRESS`, `unblock ADDRESS`: whose mail no longer reaches queues."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from gateway.cli import arguments, client, show

_ACTIONS: Final = ("list", "add", "remove", "-h", "--help")
_ADDRESS: Final = 'an address, or "*@domain" for all of a domain'


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "block", help="whose mail no longer reaches queues; `block ADDRESS` is short for `block add ADDRESS`"
    ).add_subparsers(metavar="ACTION", required=True)
    listing = group.add_parser("list", parents=[config], help="who is blocked: since when, by whom, because of what")
    listing.add_argument("--limit", type=arguments.one_or_more, metavar="N", help="the newest N")
    arguments.add_json(listing)
    listing.set_defaults(run=list_)
    adding = group.add_parser("add", parents=[config], help="block; open conversations of that sender follow")
    adding.add_argument("address", metavar="ADDRESS", help=_ADDRESS)
    _add_touchpoint(adding)
    adding.add_argument("--message", metavar="ID", help="because of this message")
    adding.add_argument("--yes", action="store_true", help="also where ADDRESS is all of a large mail provider")
    adding.set_defaults(run=add_)
    removing = group.add_parser("remove", parents=[config], help="let new mail from there into the queues again")
    short = commands.add_parser("unblock", parents=[config], help="short for `block remove`")
    for parser in (removing, short):
        parser.add_argument("address", metavar="ADDRESS", help=_ADDRESS)
        _add_touchpoint(parser)
        parser.set_defaults(run=remove)


def _add_touchpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--touchpoint", metavar="T", help="only there; default: everywhere")


def spelt_out(argv: Sequence[str]) -> list[str]:
    """Return the words of a command line, with `block ADDRESS` as `block add ADDRESS`."""
    words = list(argv)
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] == "--config" else 1
    if words[at : at + 1] == ["block"] and len(words) > at + 1 and words[at + 1] not in _ACTIONS:
        words.insert(at + 1, "add")
    return words


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "block.list", limit=options.limit)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("BLOCKED", "TOUCHPOINT", "SINCE", "BY", "MESSAGE", "HITS", "LAST"),
        (
            (
                *(b["pattern"], b["touchpoint"] or "all", show.ago(b["at"]), _by(b), b["message"] or "-"),
                *("-" if b["hits"] is None else b["hits"], show.ago(b["hit_at"])),
            )
            for b in found
        ),
    )
    if not found:
        print("nobody is blocked", file=sys.stderr)
    return 0


def _by(block: dict[str, Any]) -> str:
    return "command line" if block["source"] == "block" and block["by"] is None else block["by"] or block["source"]


def add_(options: argparse.Namespace) -> int:
    done = client.ask(
        options.config,
        "block.add",
        address=options.address,
        touchpoint=options.touchpoint,
        message=options.message,
        yes=options.yes,
    )
    print(told(done))
    return 0


def told(done: dict[str, Any]) -> str:
    """Return what a block has done, on one line."""
    where = f" for {done['touchpoint']}" if done["touchpoint"] else ""
    said = f"{done['pattern']} is {'now' if done['is_new'] else 'already'} blocked{where}"
    if messages := len(done["messages"]):
        said += f"; {_count(messages, 'message')} that stood in queues went into quarantine"
        said += f", with {_count(len(done['conversations']), 'whole conversation')}" if done["conversations"] else ""
    return said


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def remove(options: argparse.Namespace) -> int:
    done = client.ask(options.config, "block.remove", address=options.address, touchpoint=options.touchpoint)
    where = f" for {done['touchpoint']}" if done["touchpoint"] else ""
    print(f"{done['pattern']} is not blocked any more{where}; what lies in quarantine stays there until it is released")
    for still in done["still"]:
        print(f"{done['pattern']} is still blocked {still}", file=sys.stderr)
    return 0
